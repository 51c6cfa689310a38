"""Encode a batch in micro-batches: memory of one of them, the loss of all (gradient caching).

Gao, Zhang, Han, Callan, "Scaling Deep Contrastive Learning Batch Size under Memory Limited
Setup", RepL4NLP 2021 (arXiv 2101.06983), section 3. A contrastive loss needs all embeddings at
once, but not all activations. So the forward pass encodes a micro-batch at a time and keeps the
embeddings alone; the backward pass, which is given the loss's gradient at the embeddings, encodes
each micro-batch a second time, now with a graph, and goes back through it.

Here that is one autograd function: what it returns behaves as the encoder's output does, and the
parameters get their gradient once, summed, whatever the number of micro-batches.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import checkpoint

from rince.core.checks import require
from rince.models.weights import require_initialised

Part = Callable[[], Any]  # makes what the encoder takes
Pick = Callable[[Any], Any]  # from what it gives to the embeddings

# Between the two passes, as a share of the largest value: kernels of a GPU differ by rounding in 16
# bits, an encoder that draws other numbers by more.
_MOST_DIFFERENCE = 0.05


def cached_encode(encoder: nn.Module, inputs: Tensor, micro_batch: int) -> Tensor:
    """``encoder(inputs)`` with the activations of one micro-batch in memory; use it as any output.

    The price is a second forward pass. Both passes see the same random numbers (torch's global
    generators of the CPU and of the encoder's device), the same buffers and the same autocast;
    buffers are changed by the first pass only, so batch norm's running statistics take in every
    image once. In training mode batch norm normalises each micro-batch by its own statistics, so
    there the result is not that of the whole batch; everywhere else it is, to rounding. With
    ``micro_batch`` of at least B it is ``encoder(inputs)`` itself.

    The encoder must not be changed, nor its mode, between this call and the backward pass. Other
    state than parameters, buffers and torch's global generators is not restored. There are no
    second derivatives. Under DistributedDataParallel give the wrapped encoder, or call this inside
    the ``forward`` of the module that is wrapped: either way the gradients are reduced once.

    Args:
        encoder: (b, ...) inputs to an embedding each, (b, ...), on one device.
        inputs: (B, ...) any dtype, on the encoder's device. No gradient flows back to them.
        micro_batch: most inputs encoded at a time; the parts differ in length by at most one.

    Returns:
        (B, ...): the embeddings, in order.

    Raises:
        ValueError: micro_batch below 1, an empty batch, inputs that ask for a gradient, or an
            encoder of which only a part is wrapped in DistributedDataParallel, or that has weights
            without a shape yet (LazyLinear) or does not give one tensor with a row an input.
        RuntimeError: in the backward pass, where weights or inputs were changed in place since,
            the encoder does not repeat its first pass, or second derivatives are asked for.

    Example:
        >>> encoder = nn.Linear(4, 2)
        >>> z = cached_encode(encoder, torch.ones(10, 4), micro_batch=3)
        >>> z.square().mean().backward()
        >>> z.shape, encoder.weight.grad.shape
        (torch.Size([10, 2]), torch.Size([2, 4]))
    """
    require(
        isinstance(encoder, nn.Module) and isinstance(inputs, Tensor),
        f"cached_encode takes an nn.Module and one tensor, got {type(encoder).__name__} and "
        f"{type(inputs).__name__}: make one module of all that encodes, which takes a tensor",
    )
    require(
        not inputs.requires_grad,
        "cached_encode gives no gradient to its inputs, but these ask for one: pass "
        "inputs.detach(), or make the module that produced them a part of the encoder",
    )
    parts = [partial(inputs.__getitem__, rows) for rows in micro_batches(len(inputs), micro_batch)]
    return encode_parts(encoder, parts, made_from=(inputs,))


def micro_batches(count: int, size: int) -> list[slice]:
    """Cut ``count`` rows into the fewest parts of at most ``size``, as equal as they can be: batch
    norm is fitted to each, and a last part of one image has no variance.

    Example:
        >>> micro_batches(10, 4)
        [slice(0, 3, None), slice(3, 6, None), slice(6, 10, None)]
    """
    require(size >= 1, f"micro_batch must be at least 1, got {size}")
    require(count >= 1, "an empty batch cannot be encoded: it needs at least one row")
    parts = -(-count // size)
    bounds = [count * i // parts for i in range(parts + 1)]
    return [slice(a, b) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]


def encode_parts(
    encoder: nn.Module,
    parts: Sequence[Part],
    made_from: Sequence[Tensor] = (),
    pick: Pick = lambda output: output,
) -> Tensor:
    """As :func:`cached_encode`, for inputs that are made when they are needed and then dropped.

    Args:
        encoder: as there.
        parts: functions that make the input of one micro-batch each, (b, ...): called in both
            passes, with the same state of torch's global generators, and must give the same.
        made_from: what they make it from, so that a change before the backward pass is noticed.
        pick: takes the embeddings from what the encoder gives.

    Returns:
        The embeddings of all parts, one after the other.

    Raises:
        ValueError, RuntimeError: as :func:`cached_encode`.
    """
    bare = encoder
    if isinstance(encoder, nn.parallel.DistributedDataParallel):
        bare = encoder.module
    require(
        not any(isinstance(m, nn.parallel.DistributedDataParallel) for m in bare.modules()),
        "a part of the encoder is wrapped in DistributedDataParallel, which would reduce the "
        "gradients of every micro-batch: wrap the whole encoder",
    )
    if len(parts) == 1:
        return _encoded(encoder, pick, parts[0]())
    require_initialised(bare)
    weights = [p for p in bare.parameters() if p.requires_grad]
    if not weights or not torch.is_grad_enabled():
        return torch.cat([_encoded(bare, pick, part()) for part in parts])
    # DistributedDataParallel waits for the gradients of one forward pass of its own, to the weights
    # that its output depends on. So it encodes the last part, and gives out the others with it: a
    # weight's gradient is the sum over all before it is reduced. The graph that was made last is
    # gone through, and freed, first.
    cached = parts if bare is encoder else parts[:-1]
    z: Tensor = _CachedEncode.apply(bare, pick, cached, len(made_from), *made_from, *weights)
    if bare is encoder:
        return z
    with bare.register_forward_hook(lambda module, inputs, output: (output, z)):
        last, z = encoder(parts[-1]())
    return torch.cat([z, pick(last)])


def _encoded(encoder: nn.Module, pick: Pick, inputs: Any) -> Tensor:
    z = pick(encoder(inputs))
    require(
        isinstance(z, Tensor) and z.ndim > 0,
        f"{type(encoder).__name__} must give one tensor with a row an input, got "
        f"{f'shape {tuple(z.shape)}' if isinstance(z, Tensor) else type(z).__name__}: wrap it in a "
        f"module whose forward picks the embeddings",
    )
    encoded: Tensor = z
    return encoded


class _CachedEncode(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        encoder: nn.Module,
        pick: Pick,
        parts: Sequence[Part],
        num_made_from: int,
        *tensors: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(*tensors)  # autograd then notices a change in place
        ctx.encoder, ctx.pick, ctx.parts = encoder, pick, parts
        ctx.num_made_from = num_made_from
        device = ctx.device = tensors[-1].device
        ctx.autocast = {
            "device_type": device.type,
            "dtype": torch.get_autocast_dtype(device.type),
            "enabled": torch.is_autocast_enabled(device.type),
            # Where no_grad fills the cache of casts (torch before its pull request 165068), a
            # later pass would find weights without a graph in it.
            "cache_enabled": False,
        }
        ctx.buffers = _copied(_slots(encoder, nn.Module.named_buffers))
        ctx.random, ctx.embeddings = [], []
        with torch.autocast(**ctx.autocast), warnings.catch_warnings():
            # Reentrant checkpoints warn that there is no graph, which this pass is to be without.
            warnings.filterwarnings("ignore", module=checkpoint.__name__)
            for part in parts:
                ctx.random.append(_random_state(device))
                ctx.embeddings.append(_encoded(encoder, pick, part()))
        return torch.cat(ctx.embeddings)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph=True
            raise RuntimeError(
                "cached_encode has no second derivatives (create_graph=True): call the encoder "
                "itself, on the whole batch"
            )
        weights = ctx.saved_tensors[ctx.num_made_from :]
        # Not the weights themselves, whose .grad and hooks (DistributedDataParallel's, the user's)
        # are for the sum over all micro-batches.
        leaves = {id(w): w.detach().requires_grad_() for w in weights}
        named = {
            f"encoder.{name}": leaves[id(p)]
            for name, p in _slots(ctx.encoder, nn.Module.named_parameters).items()
            if id(p) in leaves
        }
        # Copies: the encoder's own buffers have taken in this batch already. Made anew, because
        # a graph may be gone through twice (retain_graph).
        named |= {f"encoder.{name}": x for name, x in _copied(ctx.buffers).items()}
        there_and_back = _ThereAndBack(ctx.encoder, ctx.pick)
        gradients = torch.split(upstream, [len(z) for z in ctx.embeddings])
        differs = []
        now = _random_state(ctx.device)
        try:
            pieces = zip(ctx.parts, ctx.embeddings, gradients, ctx.random, strict=True)
            for part, first, gradient, before in pieces:
                _set_random_state(before, ctx.device)
                with torch.autocast(**ctx.autocast):
                    inputs = (part(), gradient)
                    z = functional_call(there_and_back, named, inputs, tie_weights=False)
                differs.append((z - first).abs().amax() > _MOST_DIFFERENCE * first.abs().amax())
        finally:
            _set_random_state(now, ctx.device)
        if bool(torch.stack(differs).any()):  # waits for a GPU once
            raise RuntimeError(
                f"{type(ctx.encoder).__name__} gave other embeddings when it encoded the batch "
                f"again, so its gradient would be wrong: it was changed, or switched between "
                f"train() and eval(), before the backward pass, or it keeps state that is neither "
                f"a parameter nor a buffer (another random generator, a counter)"
            )
        gradient_of = [leaves[id(w)].grad for w in weights]
        return (None, None, None, None, *[None] * ctx.num_made_from, *gradient_of)


class _ThereAndBack(nn.Module):
    """Both passes in one call: reentrant checkpoints look up the weights in the backward pass."""

    def __init__(self, encoder: nn.Module, pick: Pick) -> None:
        super().__init__()
        self.encoder, self.pick = encoder, pick

    def forward(self, inputs: Any, gradient: Tensor) -> Tensor:
        with torch.enable_grad():
            z: Tensor = self.pick(self.encoder(inputs))
        require(
            z.requires_grad,
            "no weight gets a gradient from the embeddings: a reentrant checkpoint whose inputs "
            "ask for none gives none (use_reentrant=False), nor does detach()",
        )
        torch.autograd.backward(z, gradient)
        return z.detach()


def _slots(encoder: nn.Module, named: Callable[..., Iterator[tuple[str, Any]]]) -> dict[str, Any]:
    """Each slot once: a shared module under one name, a shared tensor under all of its slots."""
    return {
        name: x
        for prefix, module in encoder.named_modules()
        for name, x in named(module, prefix, recurse=False, remove_duplicate=False)
    }


def _copied(named: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies that share what the originals share."""
    copies = {id(x): x.clone() for x in named.values()}
    return {name: copies[id(x)] for name, x in named.items()}


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Of the global generators: the CPU's and the device's own, if it has one."""
    if device.type == "cpu":
        return torch.get_rng_state(), None
    module = getattr(torch, device.type)
    one = () if device.type == "mps" else (device,)
    return torch.get_rng_state(), module.get_rng_state(*one)


def _set_random_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        one = () if device.type == "mps" else (device,)
        getattr(torch, device.type).set_rng_state(state[1], *one)
