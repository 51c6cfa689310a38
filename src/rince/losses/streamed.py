"""RINCE a block of queries at a time: the numbers of the definition, memory linear in the batch.

No queries-by-keys matrix is ever alive. For a block of queries the forward pass computes the
similarities with all keys, the terms, and at once their gradient, which it multiplies into the
gradients of queries and keys; the backward pass only scales those. That is three matrix products
in place of the four of a recomputing backward pass.

Two kernels do the work on a block:

- :class:`_ByPair` takes any rank source and any temperature: the definition itself, with
  autograd's gradient.
- :class:`_ByClass` takes ranks from labels. Ranks depend on the key's class alone, so sums of
  exponentials are taken per class (one ``index_add`` a rank), ranks act on the small
  class-by-query sums, and coefficients go back to the keys with one ``index_select`` a rank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from rince.core.checks import require
from rince.core.pair_ranks import ALL, PairRanks, TableRanks
from rince.losses.masked import Reduction
from rince.losses.terms import (
    Positives,
    RankTerms,
    Variant,
    log_one_plus_exp,
    rank_terms,
    takes_each_positive,
)

SCRATCH_BYTES = 16 * 2**20
LARGEST_EXPONENT = {torch.float32: 80.0, torch.float64: 600.0}


class Block(NamedTuple):
    """What a kernel finds for the B queries of a block.

    Args:
        values, active: (R, B), as in :class:`~rince.losses.terms.RankTerms`.
        gradient: (B, K) of the weighted sum of losses by the similarities; None if not asked
            for. Overwritten by the next block.
        tau_gradient: (R,), or None.
    """

    values: Tensor
    active: Tensor
    gradient: Tensor | None
    tau_gradient: Tensor | None


class Kernel(Protocol):
    def __call__(self, rows: slice, weight: Tensor | None) -> Block:
        """Args: rows: the block. weight: (B,) of each query's loss; None: no gradient wanted."""
        ...


class Inputs(NamedTuple):
    """Everything a kernel reads; query and key in the dtype of the sums, without a graph."""

    query: Tensor
    key: Tensor
    source: PairRanks
    taus: Tensor  # (R,)
    variant: Variant
    positives: Positives


@torch.compiler.disable  # type: ignore[untyped-decorator]
def streamed_loss(
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
    dtype = torch.promote_types(torch.promote_types(query.dtype, key.dtype), torch.float32)
    stacked = torch.stack([torch.as_tensor(t, dtype=dtype, device=query.device) for t in taus])
    if block_size is None:
        block_size = default_block_size(key.shape[0], len(taus), dtype)
    with torch.autocast(query.device.type, enabled=False):
        loss, values, active = _Streamed.apply(
            query.to(dtype),
            key.to(dtype),
            stacked,
            source,
            variant,
            positives,
            reduction == "none",
            block_size,
        )
    if reduction == "mean":
        loss = loss / active.any(dim=0).sum().clamp(min=1)
    return loss, RankTerms(values, active)


def default_block_size(num_keys: int, num_ranks: int, dtype: torch.dtype) -> int:
    """Queries at a time whose (keys, block) buffers, one a rank and two more, fit the scratch."""
    row = num_keys * (num_ranks + 2) * torch.finfo(dtype).bits // 8
    block = SCRATCH_BYTES // row
    return max(16, min(512, block // 16 * 16))


class _Streamed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        taus: Tensor,
        source: PairRanks,
        variant: Variant,
        positives: Positives,
        per_query: bool,
        block_size: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        inputs = Inputs(query.detach(), key.detach(), source, taus.detach(), variant, positives)
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
        if torch.is_grad_enabled():  # create_graph=True
            raise RuntimeError(
                "the streamed engine has no second derivatives (create_graph=True): use "
                'engine="dense"'
            )
        if ctx.per_query:
            query, key = (x.detach() for x in ctx.saved_tensors)
            inputs = ctx.inputs._replace(query=query, key=key)
            _, _, gradients = _walk(inputs, upstream, ctx.wanted, ctx.block_size)
            return (*gradients, None, None, None, None, None)
        # Not in place: a second backward pass through the same graph must be right too.
        scaled = (None if g is None else g * upstream for g in ctx.gradients)
        return (*scaled, None, None, None, None, None)


Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


def _walk(
    inputs: Inputs, weight: Tensor | None, wanted: tuple[bool, ...], block_size: int
) -> tuple[Tensor, Tensor, Gradients]:
    """All blocks: terms (R, Q), which are active (R, Q), and the gradients that are wanted."""
    query, key = inputs.query, inputs.key
    kernel: Kernel
    if _ByClass.can_serve(inputs) and not (weight is not None and wanted[2]):
        kernel = _ByClass(inputs, min(block_size, len(query)))
    else:
        kernel = _ByPair(inputs, want_taus=wanted[2])
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


class _ByPair:
    """The definition on a block; its gradient by autograd."""

    def __init__(self, inputs: Inputs, *, want_taus: bool) -> None:
        self.inputs = inputs
        self.want_taus = want_taus

    def __call__(self, rows: slice, weight: Tensor | None) -> Block:
        i = self.inputs
        rank = i.source.tile(rows, ALL).to(i.query.device)
        similarity = i.query[rows] @ i.key.T  # (B, K)
        if weight is None:
            found = rank_terms(similarity, rank, list(i.taus), i.variant, i.positives)
            return Block(found.values, found.active, None, None)
        with torch.enable_grad():
            similarity.requires_grad_()
            taus = i.taus.clone().requires_grad_(self.want_taus)
            found = rank_terms(similarity, rank, list(taus), i.variant, i.positives)
            total = (found.values.sum(dim=0) * weight).sum()
            leaves = [similarity, taus] if self.want_taus else [similarity]
            gradient, *of_taus = torch.autograd.grad(total, leaves)
        return Block(found.values.detach(), found.active, gradient, of_taus[0] if of_taus else None)


class _ByClass:
    """Sums of exponentials per key class; buffers are (keys, block), so that a class is a row."""

    @staticmethod
    def can_serve(inputs: Inputs) -> bool:
        """Ranks from labels, clearly fewer classes than keys, and exponents in range."""
        source = inputs.source
        if not isinstance(source, TableRanks) or 4 * len(source.table) > len(inputs.key):
            return False
        largest = inputs.query.norm(dim=1).max() * inputs.key.norm(dim=1).max()
        exponent = float(largest / inputs.taus.min())
        limit = LARGEST_EXPONENT[inputs.query.dtype]
        return exponent <= limit and exponent + math.log(len(inputs.key)) <= limit + 7

    def __init__(self, inputs: Inputs, block_size: int) -> None:
        self.inputs = inputs
        source = inputs.source
        assert isinstance(source, TableRanks)
        query, device = inputs.query, inputs.query.device
        num_classes = len(source.table)
        self.query_labels = source.query_labels.to(device)
        self.key_labels = source.key_labels.to(device)
        self.ignore_self = source.ignore_self
        if source.key_valid is not None:
            # Keys that take no part form a class of their own, which nobody is related to.
            self.key_labels = torch.where(source.key_valid.to(device), self.key_labels, num_classes)
        table = torch.nn.functional.pad(source.table.to(device), (0, 1), value=-1)  # (C, C + 1)
        count = torch.bincount(self.key_labels, minlength=num_classes + 1)  # (C + 1,)
        self.is_positive, self.is_less_similar = [], []  # a rank: (C, C + 1) float
        self.num_positives, self.num_less_similar = [], []  # a rank: (Q,)
        self.places: list[Tensor | None] = []  # a rank: (M, C) keys that are positives, or -1
        for i in range(1, len(inputs.taus) + 1):
            if inputs.positives == "cumulative":
                positive = (table >= 1) & (table <= i)
            else:
                positive = table == i
            less_similar = (table > i) | (table == 0)
            self.is_positive.append(positive.to(query.dtype))
            self.is_less_similar.append(less_similar.to(query.dtype))
            self.num_positives.append(self._count(positive, count))
            self.num_less_similar.append(self._count(less_similar, count))
            each = takes_each_positive(inputs.variant, i)
            self.places.append(self._places(positive, count) if each else None)
        buffers = query.new_empty(len(inputs.taus) + 1, len(inputs.key) * block_size)
        self.exponentials, self.coefficients = buffers[:-1], buffers[-1]

    def _count(self, mask: Tensor, count: Tensor) -> Tensor:
        """(Q,) keys of the classes in a mask (C, C + 1), without the query itself."""
        found = (mask * count).sum(dim=1)[self.query_labels]
        if self.ignore_self:
            own = self.key_labels[: len(found)]
            found -= mask[self.query_labels, own].to(found.dtype)
        return found

    def _places(self, positive: Tensor, count: Tensor) -> Tensor:
        """(M, C): for each query class the keys of its positive classes, filled up with -1."""
        classes, keys = positive[:, self.key_labels].nonzero(as_tuple=True)  # ordered by class
        counts = (positive * count).sum(dim=1)
        nth = torch.arange(len(keys), device=keys.device) - (counts.cumsum(0) - counts)[classes]
        places = keys.new_full((int(counts.max()), len(positive)), -1)
        places[nth, classes] = keys
        return places

    def __call__(self, rows: slice, weight: Tensor | None) -> Block:
        i = self.inputs
        query, labels = i.query[rows], self.query_labels[rows]
        shape = (len(i.key), len(query))
        size = shape[0] * shape[1]
        first, *others = (x[:size].view(shape) for x in self.exponentials)
        torch.mm(i.key, (query * (math.log2(math.e) / i.taus[0])).T, out=first)  # (K, B)
        for j, other in enumerate(others, start=1):
            torch.mul(first, i.taus[0] / i.taus[j], out=other)
        values, active = [], []
        coefficients: list[Tensor] = []
        pulls: list[tuple[Tensor, Tensor]] = []
        for j, exponential in enumerate((first, *others)):
            exponential.exp2_()
            if self.ignore_self:
                exponential[rows].diagonal().zero_()
            sums = first.new_zeros(self.is_positive[j].shape[1], shape[1])  # (C + 1, B)
            sums.index_add_(0, self.key_labels, exponential)
            positive, less = self.is_positive[j][labels].T, self.is_less_similar[j][labels].T
            num_positives = self.num_positives[j][rows]
            learns = (num_positives > 0) & (self.num_less_similar[j][rows] > 0)
            less_sum = (sums * less).sum(dim=0)  # (B,)
            scale = None if weight is None else torch.where(learns, weight, 0) / i.taus[j]
            places = self.places[j]
            if places is None:
                positive_sum = (sums * positive).sum(dim=0)
                odds = less_sum.log() - positive_sum.log()
                value = log_one_plus_exp(odds)
                if scale is not None:
                    push = scale / (less_sum + positive_sum)
                    pull = scale * odds.sigmoid() / positive_sum
                    coefficients.append(
                        torch.where(learns, push, 0) * less
                        - torch.where(learns, pull, 0) * positive
                    )
            else:
                chosen = places[:, labels]  # (M, B)
                real = chosen >= 0
                if self.ignore_self:
                    real &= chosen != torch.arange(rows.start, rows.stop, device=chosen.device)
                chosen = chosen.clamp(min=0)
                odds = less_sum.log() - exponential.gather(0, chosen).log()  # (M, B)
                odds = torch.where(real & learns, odds, -torch.inf)
                value = log_one_plus_exp(odds).sum(dim=0) / num_positives.clamp(min=1)
                if scale is not None:
                    share = odds.sigmoid() * (scale / num_positives.clamp(min=1))
                    push = torch.where(learns, share.sum(dim=0) / less_sum, 0)
                    coefficients.append(push * less)
                    pulls.append((chosen, share))
            values.append(torch.where(learns, value, 0))
            active.append(learns)
        gradient = None
        if weight is not None:
            spread = self.coefficients[:size].view(shape)
            for j, exponential in enumerate((first, *others)):
                torch.index_select(coefficients[j], 0, self.key_labels, out=spread)
                if j == 0:
                    first.mul_(spread)
                else:
                    first.addcmul_(exponential, spread)
            for chosen, share in pulls:
                first.scatter_add_(0, chosen, -share)
            gradient = first.T
        return Block(torch.stack(values), torch.stack(active), gradient, None)
