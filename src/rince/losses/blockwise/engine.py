"""RINCE a block of queries at a time: the numbers of the definition, memory linear in the batch.

No queries-by-keys matrix is ever alive. For a block of queries the forward pass computes the
similarities with all keys, the terms, and at once their gradient, which it multiplies into the
gradients of queries and keys; the backward pass only scales those. That is three matrix products
in place of the four of a recomputing backward pass.

A batch against itself with ranks from labels needs two: see :mod:`rince.losses.blockwise.in_batch`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rince.core.checks import require
from rince.core.pair_ranks import PairRanks
from rince.losses.blockwise.block import Inputs, Kernel
from rince.losses.blockwise.by_class import ByClass
from rince.losses.blockwise.by_pair import ByPair
from rince.losses.blockwise.in_batch import SelfPairs
from rince.losses.common import Reduction, dtype_of_sums
from rince.losses.definition import Positives, RankTerms, Variant

SCRATCH_BYTES = 16 * 2**20


def streamed_loss(*given: Any, **options: Any) -> tuple[Tensor, RankTerms]:
    """:func:`_streamed_loss`, which torch.compile leaves alone."""
    # As a decorator it would import the compiler with this module: seconds, whoever never compiles.
    if torch.compiler.is_compiling():
        return torch.compiler.disable(_streamed_loss)(*given, **options)  # type: ignore[no-any-return, no-untyped-call]
    return _streamed_loss(*given, **options)


def _streamed_loss(
    query: Tensor,
    key: Tensor,
    source: PairRanks,
    taus: Sequence[float | Tensor],
    variant: Variant,
    positives: Positives,
    *,
    reduction: Reduction,
    block_size: int | None = None,
) -> tuple[Tensor, RankTerms]:
    """The loss, and its terms without a graph.

    Args:
        query: (Q, D), key: (K, D), checked.
        reduction: with "none" the backward pass has to compute the similarities again, as each
            query may get its own upstream gradient.
        block_size: queries at a time; None fits the scratch into about 16 MB.
    """
    require(
        not torch._C._are_functorch_transforms_active(),
        'the streamed engine does not work under torch.func (grad, vmap, ...): use engine="dense"',
    )
    dtype = dtype_of_sums(query, key)
    stacked = torch.stack([torch.as_tensor(t, dtype=dtype, device=query.device) for t in taus])
    with torch.autocast(query.device.type, enabled=False):
        rows = query.to(dtype)
        columns = rows if key is query else key.to(dtype)
        learnt_taus = torch.is_grad_enabled() and stacked.requires_grad
        inputs = Inputs(
            rows.detach(), columns.detach(), stacked.detach(), source, variant, positives
        )
        if columns is rows and not learnt_taus and SelfPairs.can_serve(inputs):
            losses, values, active = _InBatch.apply(rows, inputs, block_size)
            loss = losses if reduction == "none" else losses.sum()
        else:
            if block_size is None:
                block_size = default_block_size(key.shape[0], len(taus), dtype)
            loss, values, active = _Streamed.apply(
                rows, columns, stacked, inputs, reduction == "none", block_size
            )
    if reduction == "mean":
        loss = loss / active.any(dim=0).sum().clamp(min=1)
    return loss, RankTerms(values, active)


def default_block_size(num_keys: int, num_ranks: int, dtype: torch.dtype) -> int:
    """Queries at a time whose (keys, block) buffers, one a rank and one more, fit the scratch."""
    row = num_keys * (num_ranks + 1) * torch.finfo(dtype).bits // 8
    block = SCRATCH_BYTES // row
    return max(16, min(512, block // 16 * 16))


def default_panel_size(count: int) -> int:
    """Samples a panel: few tiles on the diagonal, which are computed whole, but large tiles."""
    return max(256, min(512, count // 8))


class _InBatch(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, z: Tensor, inputs: Inputs, panel_size: int | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        pairs = SelfPairs(inputs, panel_size or default_panel_size(len(z)))
        values, active = pairs.terms()
        ctx.pairs = pairs
        ctx.mark_non_differentiable(values, active)
        return values.sum(dim=0), values, active

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, *unused: Any) -> tuple[Tensor, None, None]:
        _refuse_second_derivatives()
        return ctx.pairs.gradient(upstream), None, None


class _Streamed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        taus: Tensor,
        inputs: Inputs,
        per_query: bool,
        block_size: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.block_size = block_size
        ctx.wanted = tuple(ctx.needs_input_grad[:3])
        ctx.per_query = per_query
        ones = torch.ones_like(inputs.query[:, 0])
        fused = any(ctx.wanted) and not per_query
        values, active, gradients = _walk(inputs, ones if fused else None, ctx.wanted, block_size)
        if fused:
            # As attributes: saved tensors would be checked for changes that nobody can make.
            ctx.gradients = gradients
        else:
            ctx.inputs = inputs._replace(query=None, key=None)  # type: ignore[arg-type]
            ctx.save_for_backward(query, key)  # so that a change before the backward pass is seen
        losses = values.sum(dim=0)
        ctx.mark_non_differentiable(values, active)
        return (losses if per_query else losses.sum()), values, active

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, *unused: Any) -> tuple[Tensor | None, ...]:
        _refuse_second_derivatives()
        if ctx.per_query:
            query, key = (x.detach() for x in ctx.saved_tensors)
            inputs = ctx.inputs._replace(query=query, key=key)
            _, _, gradients = _walk(inputs, upstream, ctx.wanted, ctx.block_size)
            return (*gradients, None, None, None)
        # Not in place: a second backward pass through the same graph must be right too.
        scaled = (None if g is None else g * upstream for g in ctx.gradients)
        return (*scaled, None, None, None)


def _refuse_second_derivatives() -> None:
    if torch.is_grad_enabled():  # create_graph=True
        raise RuntimeError(
            'the streamed engine has no second derivatives (create_graph=True): use engine="dense"'
        )


Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


def _walk(
    inputs: Inputs, weight: Tensor | None, wanted: tuple[bool, ...], block_size: int
) -> tuple[Tensor, Tensor, Gradients]:
    """All blocks: terms (R, Q), which are active (R, Q), and the gradients that are wanted."""
    query, key = inputs.query, inputs.key
    kernel: Kernel
    if ByClass.can_serve(inputs) and not (weight is not None and wanted[2]):
        kernel = ByClass(inputs, min(block_size, len(query)))
    else:
        kernel = ByPair(inputs, want_taus=wanted[2])
    values = query.new_empty(len(inputs.taus), len(query))
    active = torch.empty_like(values, dtype=torch.bool)
    with_gradient = weight is not None
    d_query = torch.empty_like(query) if with_gradient and wanted[0] else None
    d_key = torch.zeros_like(key) if with_gradient and wanted[1] else None
    d_taus = torch.zeros_like(inputs.taus) if with_gradient and wanted[2] else None
    for start in range(0, len(query), block_size):
        rows = slice(start, min(start + block_size, len(query)))
        block = kernel(rows, None if weight is None else weight[rows])
        values[:, rows], active[:, rows] = block.values, block.active
        if d_query is not None:
            assert block.gradient is not None
            torch.mm(block.gradient, key, out=d_query[rows])
        if d_key is not None:
            assert block.gradient is not None
            d_key.addmm_(block.gradient.T, query[rows])
        if d_taus is not None:
            assert block.tau_gradient is not None
            d_taus += block.tau_gradient
    return values, active, (d_query, d_key, d_taus)
