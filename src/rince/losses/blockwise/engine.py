"""Losses a block of queries at a time: the numbers of the definition, memory linear in the batch.

No queries-by-keys matrix is ever alive. For a block of queries the forward pass computes the
similarities with all keys, the terms, and at once their gradient, which it multiplies into the
gradients of queries and keys; the backward pass only scales those. That is three matrix products
in place of the four of a recomputing backward pass. RINCE, SupCon and InfoNCE share this loop.

A batch against itself with ranks from labels needs two: see ``in_batch.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rince.core.pair_ranks import PairRanks
from rince.losses.blockwise.block import Form, Inputs, Kernel
from rince.losses.blockwise.by_class import ByClass
from rince.losses.blockwise.by_pair import ByPair
from rince.losses.blockwise.in_batch import SelfPairs
from rince.losses.blockwise.limits import refuse_functorch, refuse_second_derivatives, stacked
from rince.losses.blockwise.sizes import Sizes
from rince.losses.common import Reduction, dtype_of_sums
from rince.losses.definition import RankTerms
from rince.losses.options import MatmulPrecision, Positives
from rince.losses.products import add_mm, mm, products_in


def blockwise_loss(*given: Any, **options: Any) -> tuple[Tensor, RankTerms]:
    """:func:`_blockwise_loss`, which torch.compile leaves alone."""
    # As a decorator it would import the compiler with this module, which takes seconds.
    if torch.compiler.is_compiling():
        return torch.compiler.disable(_blockwise_loss)(*given, **options)  # type: ignore[no-any-return, no-untyped-call]
    return _blockwise_loss(*given, **options)


def _blockwise_loss(
    query: Tensor,
    key: Tensor,
    source: PairRanks,
    taus: Sequence[float | Tensor],
    forms: tuple[Form, ...],
    *,
    positives: Positives = "exclusive",
    reduction: Reduction,
    sizes: Sizes,
    precision: MatmulPrecision = "fp32",
    may_read: bool,
) -> tuple[Tensor, RankTerms]:
    """The loss, and its terms without a graph.

    Args:
        query: (Q, D), key: (K, D), checked. source: on their device.
        forms: of each rank's term.
        reduction: with "none" the backward pass has to compute the similarities again, as each
            query may get its own upstream gradient.
        may_read: whether values may be read; a GPU is waited for then.
    """
    refuse_functorch("streamed")
    dtype, device = dtype_of_sums(query, key), query.device
    known = [float(t) for t in taus if not isinstance(t, Tensor)]
    temperatures = stacked(taus, device, dtype)
    with torch.autocast(device.type, enabled=False), products_in("fp32", device):
        rows = query.to(dtype)
        columns = rows if key is query else key.to(dtype)
        learnt_taus = torch.is_grad_enabled() and temperatures.requires_grad
        inputs = Inputs(
            rows.detach(),
            columns.detach(),
            temperatures.detach(),
            known if len(known) == len(taus) else None,
            source,
            forms,
            positives,
            sizes,
            precision,
            may_read,
        )
        if columns is rows and not learnt_taus and SelfPairs.can_serve(inputs):
            losses, values, active = _InBatch.apply(rows, inputs)
            loss = losses if reduction == "none" else losses.sum()
        else:
            loss, values, active = _Blockwise.apply(
                rows, columns, temperatures, inputs, reduction == "none"
            )
    if reduction == "mean":
        loss = loss / active.any(dim=0).sum().clamp(min=1)
    return loss, RankTerms(values, active)


class _InBatch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
        ctx.pairs = SelfPairs(inputs)
        values, active = ctx.pairs.terms()
        ctx.mark_non_differentiable(values, active)
        return values.sum(dim=0), values, active

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, *unused: Any) -> tuple[Tensor, None]:
        refuse_second_derivatives("streamed")
        with products_in("fp32", upstream.device):
            return ctx.pairs.gradient(upstream), None


class _Blockwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, taus: Tensor, inputs: Inputs, per_query: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.wanted = tuple(ctx.needs_input_grad[:3])
        ctx.per_query = per_query
        at_once = any(ctx.wanted) and not per_query
        weight = torch.ones_like(inputs.query[:, 0]) if at_once else None
        values, active, gradients = _walk(inputs, weight, ctx.wanted)
        if at_once:
            # As attributes: saved tensors would be checked for changes that nobody can make.
            ctx.gradients = gradients
        else:
            ctx.inputs = inputs.on(query=None, key=None)  # type: ignore[arg-type]
            ctx.save_for_backward(query, key)  # so that a change before the backward pass is seen
        losses = values.sum(dim=0)
        ctx.mark_non_differentiable(values, active)
        return (losses if per_query else losses.sum()), values, active

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, *unused: Any) -> tuple[Tensor | None, ...]:
        refuse_second_derivatives("streamed")
        if ctx.per_query:
            query, key = ctx.saved_tensors
            with products_in("fp32", upstream.device):
                _, _, gradients = _walk(ctx.inputs.on(query, key), upstream, ctx.wanted)
            return (*gradients, None, None)
        # Not in place: a second backward pass through the same graph must be right too.
        scaled = (None if g is None else g * upstream for g in ctx.gradients)
        return (*scaled, None, None)


Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


def _walk(
    inputs: Inputs, weight: Tensor | None, wanted: tuple[bool, ...]
) -> tuple[Tensor, Tensor, Gradients]:
    """All blocks: terms (R, Q), which are active (R, Q), and the gradients that are wanted.

    To be called where products are fp32: those of embeddings have the precision asked for, but
    sums by products are exact.
    """
    query, key, precision = inputs.query, inputs.key, inputs.precision
    want_query, want_key, want_taus = (weight is not None and w for w in wanted)
    kernel: Kernel
    if ByClass.can_serve(inputs) and not want_taus:
        block = _even(len(query), inputs.sizes.queries_per_block(ByClass.bytes_per_query(inputs)))
        kernel = ByClass(inputs, weight, block)
    else:
        block = _even(len(query), inputs.sizes.queries_per_block(ByPair.bytes_per_query(inputs)))
        kernel = ByPair(inputs, weight, want_taus=want_taus)
    d_query = torch.empty_like(query) if want_query else None
    d_key = torch.zeros_like(key) if want_key else None
    for start in range(0, len(query), block):
        rows = slice(start, min(start + block, len(query)))
        gradient = kernel(rows)
        if gradient is not None and d_query is not None:
            mm(gradient, key, precision, out=d_query[rows])
        if gradient is not None and d_key is not None:
            add_mm(d_key, gradient.T, query[rows], precision)
    return *kernel.terms(), (d_query, d_key, kernel.tau_gradient)


def _even(count: int, most: int) -> int:
    """Size of blocks that are about equal, and no more of them than have to be."""
    blocks = -(-count // most)
    return -(-count // blocks)
