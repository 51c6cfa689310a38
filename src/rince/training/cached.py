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

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from rince.core.checks import require

Part = Callable[[], Any]  # makes what the encoder takes


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
    second derivatives. Under DistributedDataParallel call this inside the ``forward`` of the
    module that is wrapped: the gradients are then reduced once.

    Args:
        encoder: (b, ...) inputs to an embedding each, (b, ...), on one device.
        inputs: (B, ...) any dtype, on the encoder's device. No gradient flows back to them.
        micro_batch: most inputs encoded at a time; the parts differ in length by at most one.

    Returns:
        (B, ...): the embeddings, in order.

    Raises:
        ValueError: micro_batch below 1, an empty batch, inputs that ask for a gradient, or an
            encoder that is wrapped in DistributedDataParallel or whose weights have gradient
            hooks (``Tensor.register_hook``).
        RuntimeError: in the backward pass, where weights or inputs were changed in place since,
            or second derivatives are asked for.

    Example:
        >>> encoder = nn.Linear(4, 2)
        >>> z = cached_encode(encoder, torch.ones(10, 4), micro_batch=3)
        >>> z.square().mean().backward()
        >>> z.shape, encoder.weight.grad.shape
        (torch.Size([10, 2]), torch.Size([2, 4]))
    """
    require(
        not inputs.requires_grad,
        "cached_encode gives no gradient to its inputs, but these ask for one: pass "
        "inputs.detach(), or make the module that produced them a part of the encoder",
    )
    parts = [partial(inputs.__getitem__, rows) for rows in micro_batches(len(inputs), micro_batch)]
    return encode_parts(encoder, parts, made_from=(inputs,))


def micro_batches(count: int, size: int) -> list[slice]:
    """Cut ``count`` rows into the fewest parts of at most ``size``, as equal as they can be.

    Equal, because batch norm is fitted to each: a last part of one image has no variance.

    Raises:
        ValueError: size below 1, or no rows.

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
    encoder: nn.Module, parts: Sequence[Part], made_from: Sequence[Tensor] = ()
) -> Tensor:
    """As :func:`cached_encode`, for inputs that are made when they are needed and then dropped.

    Args:
        encoder: as there.
        parts: functions that make the input of one micro-batch each, (b, ...): called in both
            passes, with the same state of torch's global generators, and must give the same.
        made_from: what they make it from, so that a change before the backward pass is noticed.

    Returns:
        The embeddings of all parts, one after the other.

    Raises:
        ValueError: an encoder that is wrapped in DistributedDataParallel, or whose weights have
            gradient hooks.
        RuntimeError: as :func:`cached_encode`.
    """
    require(
        not isinstance(encoder, nn.parallel.DistributedDataParallel),
        "the encoder is wrapped in DistributedDataParallel, which would reduce the gradients of "
        "every micro-batch: wrap a module whose forward calls cached_encode on the bare encoder",
    )
    if len(parts) == 1:
        whole: Tensor = encoder(parts[0]())
        return whole
    weights = [p for p in encoder.parameters() if p.requires_grad]
    require(
        not any(w._backward_hooks for w in weights),
        "a weight of the encoder has a gradient hook (Tensor.register_hook), which would be called "
        "for every micro-batch and for their sum: use register_post_accumulate_grad_hook",
    )
    if not weights or not torch.is_grad_enabled():
        return torch.cat([encoder(part()) for part in parts])
    encoded: Tensor = _CachedEncode.apply(encoder, parts, len(made_from), *made_from, *weights)
    return encoded


class _CachedEncode(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, encoder: nn.Module, parts: Sequence[Part], num_made_from: int, *tensors: Tensor
    ) -> Tensor:
        ctx.save_for_backward(*tensors)  # autograd then notices a change in place
        ctx.encoder, ctx.parts, ctx.num_made_from = encoder, parts, num_made_from
        device = ctx.device = tensors[-1].device
        ctx.autocast = {
            "device_type": device.type,
            "dtype": torch.get_autocast_dtype(device.type),
            "enabled": torch.is_autocast_enabled(device.type),
            # Where no_grad fills the cache of casts (torch before its pull request 165068), a
            # later pass would find weights without a graph in it.
            "cache_enabled": False,
        }
        ctx.buffers = _copied(_named_buffers(encoder))
        ctx.random, embeddings = [], []
        with torch.autocast(**ctx.autocast):
            for part in parts:
                ctx.random.append(_random_state(device))
                embeddings.append(encoder(part()))
        ctx.rows = [len(z) for z in embeddings]
        return torch.cat(embeddings)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph=True
            raise RuntimeError(
                "cached_encode has no second derivatives (create_graph=True): call the encoder "
                "itself, on the whole batch"
            )
        weights = ctx.saved_tensors[ctx.num_made_from :]
        # Copies: the encoder's own buffers have taken in this batch already. Made anew, because
        # a graph may be gone through twice (retain_graph).
        buffers = _copied(ctx.buffers)
        total: list[Tensor | None] = [None] * len(weights)
        now = _random_state(ctx.device)
        try:
            pieces = zip(ctx.parts, torch.split(upstream, ctx.rows), ctx.random, strict=True)
            for part, gradient, before in pieces:
                _set_random_state(before, ctx.device)
                with torch.autocast(**ctx.autocast):
                    inputs = part()
                    with torch.enable_grad():
                        z = functional_call(ctx.encoder, buffers, (inputs,), tie_weights=False)
                # Not backward(), which would add to .grad and call DistributedDataParallel's
                # hooks for every micro-batch.
                gradients = torch.autograd.grad(z, weights, gradient, allow_unused=True)
                for i, g in enumerate(gradients):
                    if g is not None:
                        total[i] = g if total[i] is None else total[i] + g
        finally:
            _set_random_state(now, ctx.device)
        return (None, None, None, *[None] * ctx.num_made_from, *total)


def _named_buffers(encoder: nn.Module) -> dict[str, Tensor]:
    """Each slot once: a shared module under one name, a shared tensor under all of its slots."""
    return {
        name: buffer
        for prefix, module in encoder.named_modules()
        for name, buffer in module.named_buffers(prefix, recurse=False, remove_duplicate=False)
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
