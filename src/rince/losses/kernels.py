"""What the streamed engine computes of a block of queries and all keys: terms and their gradient.

- :class:`ByPair` takes any rank source and any temperature: the definition, pair by pair, and its
  gradient written out.
- :class:`ByClass` takes ranks from labels. Ranks depend on the key's class alone, so sums of
  exponentials are taken per class (one ``index_add`` a rank), ranks act on the small
  class-by-query sums, and coefficients go back to the keys with one ``index_select`` a rank.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from rince.core.pair_ranks import ALL, PairRanks, TableRanks
from rince.losses.positive_pairs import padded_places
from rince.losses.terms import (
    Positives,
    Variant,
    log_one_plus_exp,
    sides_of,
    takes_each_positive,
)

# Below, picking classes costs more than it saves.
FEWEST_PAIRS_BY_CLASS = 2**17

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
    taus: Tensor  # (R,)
    source: PairRanks
    variant: Variant
    positives: Positives

    def each_positive(self) -> list[int]:
        """Indices of the ranks whose term has the "out" form."""
        return [j for j in range(len(self.taus)) if takes_each_positive(self.variant, j + 1)]

    def exponents_fit(self) -> bool:
        """Whether sums of exp(similarity / tau) stay in the range of the dtype, unshifted."""
        largest = self.query.norm(dim=1).max() * self.key.norm(dim=1).max()
        exponent = float(largest / self.taus.min())
        limit = LARGEST_EXPONENT[self.query.dtype]
        return exponent <= limit and exponent + math.log(len(self.key)) <= limit + 7


def class_masks(table: Tensor, num_ranks: int, positives: Positives, dtype: torch.dtype) -> Tensor:
    """Which keys are less similar (0), which are positives (1), for each rank.

    Args:
        table: (C, C') rank of a key of the second class for a query of the first.

    Returns:
        (2, R, C, C') of zeros and ones.
    """
    each_rank = torch.arange(1, num_ranks + 1, device=table.device)[:, None, None]
    return torch.stack(sides_of(table, each_rank, positives)).to(dtype)


def sum_factors(
    sums: Tensor, odds: Tensor, scale: Tensor, shares: Tensor, each: list[int]
) -> Tensor:
    """What the gradient multiplies exponentials with: (2, R, B), less similar keys and positives.

    The gradient of log(1 + less / positive) by a less similar exponent is 1 / (less + positive),
    by a positive one minus its sigmoid(odds) / positive. Terms of the "out" form give the former
    summed over positives; what they give to each positive is not a factor of its exponential.

    Args:
        sums: (2, R, B) of exponentials, less similar keys and positives.
        odds: (R, B) log(less / positive).
        scale: (R, B) the weight of the term over its temperature, 0 where it is not active.
        shares: (R, B), for ranks in ``each``: sum over positives of sigmoid(their odds), divided
            by their number.
    """
    less, positive = sums
    push = scale / (less + positive)
    pull = scale * odds.sigmoid() / positive
    for j in each:
        push[j] = scale[j] * shares[j] / less[j]
        pull[j] = 0
    # Sums may be 0 where nothing is learnt.
    return torch.where(scale == 0, 0, torch.stack([push, -pull]))


class ByPair:
    """Any rank source and any temperature: exponents are shifted by the largest of each sum."""

    def __init__(self, inputs: Inputs, *, want_taus: bool) -> None:
        self.inputs = inputs
        self.want_taus = want_taus
        self.each = inputs.each_positive()

    def __call__(self, rows: slice, weight: Tensor | None) -> Block:
        i = self.inputs
        rank = i.source.tile(rows, ALL).to(i.query.device)
        similarity = i.query[rows] @ i.key.T  # (B, K)
        gradient = None if weight is None else torch.zeros_like(similarity)
        tau_gradient = torch.zeros_like(i.taus) if self.want_taus else None
        values, active = [], []
        for j, tau in enumerate(i.taus):
            less_similar, positive = sides_of(rank, j + 1, i.positives)
            count = positive.sum(dim=1)
            learns = (count > 0) & less_similar.any(dim=1)  # (B,)
            exponent = similarity / tau  # (B, K)
            less, less_share = _log_sum_and_shares(exponent, less_similar)
            if j in self.each:
                odds = (less[:, None] - exponent).masked_fill_(~positive, -torch.inf)
                value = log_one_plus_exp(odds).sum(dim=1) / count
                pull = odds.sigmoid_() / count[:, None]  # (B, K)
                push = pull.sum(dim=1)
            else:
                more, pull = _log_sum_and_shares(exponent, positive)
                value = log_one_plus_exp(less - more)
                push = (less - more).sigmoid()
                pull *= push[:, None]
            values.append(torch.where(learns, value, 0))
            active.append(learns)
            if gradient is not None and weight is not None:
                # By the exponents; rows that learn nothing hold 0 / 0.
                of_rank = less_share.mul_(push[:, None]).sub_(pull)
                of_rank = torch.where(learns[:, None], of_rank * weight[:, None], 0)
                gradient += of_rank / tau
                if tau_gradient is not None:
                    tau_gradient[j] = -(of_rank * similarity).sum() / tau.square()
        return Block(torch.stack(values), torch.stack(active), gradient, tau_gradient)


def _log_sum_and_shares(exponent: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Log of the sum of exponentials over a mask (B,), and each one's share of the sum (B, K)."""
    outside = ~mask
    largest = exponent.masked_fill(outside, torch.finfo(exponent.dtype).min).amax(dim=1)
    share = (exponent - largest[:, None]).exp_().masked_fill_(outside, 0)
    total = share.sum(dim=1)
    return largest + total.log(), share.div_(total[:, None])


class ByClass:
    """Sums of exponentials per key class; buffers are (keys, block), so that a class is a row."""

    @staticmethod
    def can_serve(inputs: Inputs) -> bool:
        """Ranks from labels, clearly fewer classes than keys, and exponents in range."""
        source = inputs.source
        if not isinstance(source, TableRanks) or 4 * len(source.table) > len(inputs.key):
            return False
        if len(inputs.query) * len(inputs.key) < FEWEST_PAIRS_BY_CLASS:
            return False
        return inputs.exponents_fit()

    def __init__(self, inputs: Inputs, block_size: int) -> None:
        self.inputs = inputs
        source = inputs.source
        assert isinstance(source, TableRanks)
        query, device = inputs.query, inputs.query.device
        num_classes, num_ranks = len(source.table), len(inputs.taus)
        self.query_labels = source.query_labels.to(device)
        self.key_labels = source.key_labels.to(device)
        self.ignore_self = source.ignore_self
        if source.key_valid is not None:
            # Keys that take no part form a class of their own, which nobody is related to.
            self.key_labels = torch.where(source.key_valid.to(device), self.key_labels, num_classes)
        table = torch.nn.functional.pad(source.table.to(device), (0, 1), value=-1)  # (C, C + 1)
        masks = class_masks(table, num_ranks, inputs.positives, query.dtype)
        count = torch.bincount(self.key_labels, minlength=num_classes + 1).to(query.dtype)
        num_keys = (masks @ count)[:, :, self.query_labels]  # (2, R, Q)
        if self.ignore_self:
            num_keys -= masks[:, :, self.query_labels, self.key_labels[: len(query)]]
        self.num_positives = num_keys[1]  # (R, Q)
        self.active = (num_keys > 0).all(dim=0)  # (R, Q)
        self.each = inputs.each_positive()
        # (M, C): for each query class the keys of its positive classes, filled up with -1.
        self.places = {
            j: padded_places((masks[1, j] > 0)[:, self.key_labels]).T.contiguous()
            for j in self.each
        }
        self.masks = masks.mT.contiguous()  # (2, R, C + 1, C): key class, query class
        self.exponentials = query.new_empty(num_ranks * len(inputs.key) * block_size)
        self.spread = query.new_empty(len(inputs.key) * block_size)

    def __call__(self, rows: slice, weight: Tensor | None) -> Block:
        i = self.inputs
        query, active = i.query[rows], self.active[:, rows]
        num_ranks, num_keys, width = len(i.taus), len(i.key), len(query)
        exponentials = self.exponentials[: num_ranks * num_keys * width]
        exponentials = exponentials.view(num_ranks, num_keys, width)
        first, *others = exponentials
        torch.mm(i.key, (query * (math.log2(math.e) / i.taus[0])).T, out=first)  # (K, B)
        for j, other in enumerate(others, start=1):
            torch.mul(first, i.taus[0] / i.taus[j], out=other)
        exponentials.exp2_()
        if self.ignore_self:
            exponentials[:, rows].diagonal(dim1=1, dim2=2).zero_()
        by_class = query.new_zeros(num_ranks, self.masks.shape[2], width)  # (R, C + 1, B)
        by_class.index_add_(1, self.key_labels, exponentials)
        masks = self.masks.index_select(3, self.query_labels[rows])  # (2, R, C + 1, B)
        sums = (masks * by_class).sum(dim=2)  # (2, R, B)
        odds = sums[0].log() - sums[1].log()  # (R, B)
        values = log_one_plus_exp(odds)
        shares = torch.zeros_like(odds)
        pulls: dict[int, tuple[Tensor, Tensor]] = {}
        count = self.num_positives[:, rows].clamp(min=1)
        for j in self.each:
            chosen, of_each = self._odds_of_each(j, rows, exponentials[j], sums[0, j])  # (M, B)
            values[j] = log_one_plus_exp(of_each).sum(dim=0) / count[j]
            share = of_each.sigmoid() / count[j]
            shares[j] = share.sum(dim=0)
            pulls[j] = chosen, share
        values = torch.where(active, values, 0)
        if weight is None:
            return Block(values, active, None, None)
        scale = torch.where(active, weight, 0) / i.taus[:, None]  # (R, B)
        factors = sum_factors(sums, odds, scale, shares, self.each)
        coefficients = (masks * factors[:, :, None]).sum(dim=0)  # (R, C + 1, B)
        spread = self.spread[: num_keys * width].view(num_keys, width)
        for j in range(num_ranks):
            torch.index_select(coefficients[j], 0, self.key_labels, out=spread)
            if j == 0:
                first.mul_(spread)
            else:
                first.addcmul_(exponentials[j], spread)
        for j, (chosen, share) in pulls.items():
            first.scatter_add_(0, chosen, -share * scale[j])
        return Block(values, active, first.T, None)

    def _odds_of_each(
        self, j: int, rows: slice, exponential: Tensor, less: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Places of the positives (M, B), any place where there is none, and their odds or -inf."""
        chosen = self.places[j].index_select(1, self.query_labels[rows])
        real = (chosen >= 0) & self.active[j, rows]
        if self.ignore_self:
            real &= chosen != torch.arange(rows.start, rows.stop, device=chosen.device)
        chosen = chosen.clamp(min=0)
        odds = less.log() - exponential.gather(0, chosen).log()
        return chosen, torch.where(real, odds, -torch.inf)
