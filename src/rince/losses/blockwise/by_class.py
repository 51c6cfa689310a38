"""Ranks from labels: they depend on the key's class alone.

Sums of exponentials are taken per class (one ``index_add`` a rank), ranks act on the small
class-by-query sums, and coefficients go back to the keys with one ``index_select`` a rank.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rince.core.pair_ranks import TableRanks
from rince.losses.blockwise.block import Block, Inputs, class_masks, sum_factors
from rince.losses.blockwise.positive_pairs import padded_places
from rince.losses.definition import log_one_plus_exp

# Below, picking classes costs more than it saves.
FEWEST_PAIRS_BY_CLASS = 2**17


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
