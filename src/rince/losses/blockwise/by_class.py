"""Ranks from labels: they depend on the key's class alone.

Sums of exponentials are taken per class (one ``index_add``), ranks act on the small class-by-query
sums, and coefficients go back to the keys with one ``index_select`` per rank. Buffers are (keys,
block), so that a class is a row.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from rince.core.pair_ranks import TableRanks
from rince.losses.blockwise.block import (
    LARGEST_EXPONENT,
    Inputs,
    class_masks,
    least_sum,
    sum_weights,
)
from rince.losses.blockwise.positive_pairs import padded_places
from rince.losses.products import mm


class ByClass:
    """Sums of exponentials per key class.

    weight: (Q,) of each query's loss; None: no gradient is wanted. block: most queries of one.
    """

    @staticmethod
    def can_serve(inputs: Inputs) -> bool:
        """Ranks from labels, clearly fewer classes (and pairs of them), exponents in range."""
        source, sizes = inputs.source, inputs.sizes
        if not isinstance(source, TableRanks) or 4 * len(source.table) > len(inputs.key):
            return False
        pairs, class_pairs = len(inputs.query) * len(inputs.key), len(source.table) ** 2
        if pairs < sizes.by_class_pairs:
            return False
        mask_bytes = 2 * len(inputs.forms) * class_pairs * inputs.query.element_size()
        most = sizes.class_mask_bytes
        few = 4 * class_pairs <= pairs if most is None else mask_bytes <= most
        return few and inputs.exponents_fit()

    @staticmethod
    def bytes_per_query(inputs: Inputs) -> int:
        """Of the buffers that grow with the block.

        (keys, block) one per rank and one more; terms of each positive, where these are not listed,
        take one and a quarter on top. (classes, block) six per rank.
        """
        assert isinstance(inputs.source, TableRanks)
        num_ranks, num_classes = len(inputs.forms), len(inputs.source.table) + 1
        tiles = (
            num_ranks + 1 + (1.25 if "out" in inputs.forms and not lists_positives(inputs) else 0)
        )
        numbers = len(inputs.key) * tiles + num_classes * 6 * num_ranks
        return math.ceil(numbers * inputs.query.element_size())

    def __init__(self, inputs: Inputs, weight: Tensor | None, block: int) -> None:
        source, query, key, taus = inputs.source, inputs.query, inputs.key, inputs.taus
        assert isinstance(source, TableRanks)
        self.inputs = inputs
        num_classes, num_ranks = len(source.table), len(taus)
        self.query_labels, self.key_labels = source.query_labels, source.key_labels
        self.ignore_self = source.ignore_self
        if source.key_valid is not None:
            # Keys that take no part form a class of their own, which nobody is related to.
            self.key_labels = torch.where(source.key_valid, self.key_labels, num_classes)
        table = functional.pad(source.table, (0, 1), value=-1)  # (C, C + 1)
        masks = class_masks(table, num_ranks, inputs.positives, query.dtype)
        against_all = inputs.forms[0].startswith("supcon")
        if against_all:
            masks[0] += masks[1]
        count = query.new_zeros(num_classes + 1)
        count.index_add_(0, self.key_labels, key.new_ones(len(key)))
        num_keys = (masks @ count)[:, :, self.query_labels]  # (2, R, Q)
        if self.ignore_self:
            num_keys -= masks[:, :, self.query_labels, self.key_labels[: len(query)]]
        self.num_positives = num_keys[1].clamp(min=1)  # (R, Q)
        # A positive with no other candidate beside it has nothing to be compared with.
        self.active = (num_keys[0] > int(against_all)) & (num_keys[1] > 0)  # (R, Q)
        # Of the weight of a term over its temperature, 0 where it is not active.
        self.scale = None
        if weight is not None:
            self.scale = torch.where(self.active, weight, 0) / taus[:, None]  # (R, Q)
        self.each = [j for j, form in enumerate(inputs.forms) if form == "out"]
        self.scale_of_each = {}
        if self.scale is not None:
            self.scale_of_each = {
                j: self.scale[j] / self.num_positives[j]
                for j, form in enumerate(inputs.forms)
                if form.endswith("out")
            }
        # For each query class the keys of its positive classes: (M, C) places filled up with -1.
        # On a GPU, where their number is not read, (C + 1, C): which key classes are others.
        self.places = {}
        self.is_other = {}
        for j in self.each:
            if lists_positives(inputs):
                places = padded_places((masks[1, j] > 0)[:, self.key_labels])
                self.places[j] = places.T.contiguous()
            else:
                self.is_other[j] = (masks[1, j] == 0).T
        if inputs.forms[0] == "supcon-out":
            self.positive_mean = self._positive_mean(masks[1, 0])  # (Q, D)
        self.masks = masks.mT.contiguous()  # (2, R, C + 1, C): key class, query class
        self.exponent = query * (math.log2(math.e) / taus[0])  # (Q, D), of 2 with the keys
        self.ratios = (taus[0] / taus[1:])[:, None, None]
        self.shift = None if inputs.may_read else self._shift()
        self.exponentials = query.new_empty(num_ranks * len(key) * block)
        self.spread = query.new_empty(len(key) * block)
        # (R, Q): log sums, less similar keys over positives; and means over each positive.
        self.sums = query.new_empty(2, num_ranks, len(query))
        self.of_each = torch.empty_like(self.num_positives)
        self.tau_gradient = None

    def terms(self) -> tuple[Tensor, Tensor]:
        """(R, Q) values and which are active."""
        forms = self.inputs.forms
        log_sums = self.sums.log()
        if forms[0] == "supcon-out":
            positive = (self.inputs.query * self.positive_mean).sum(dim=1) / self.inputs.taus
            values = log_sums[0] - positive
        elif forms[0] == "supcon-in":
            values = log_sums[0] - log_sums[1] + self.num_positives.log()
        else:
            values = _softplus(log_sums[0] - log_sums[1])
        for j in self.each:
            values[j] = self.of_each[j] / self.num_positives[j]
        return torch.where(self.active, values, 0), self.active

    def __call__(self, rows: slice) -> Tensor | None:
        i = self.inputs
        width, num_keys, num_ranks = rows.stop - rows.start, len(i.key), len(i.forms)
        exponentials = self.exponentials[: num_ranks * num_keys * width]
        exponentials = exponentials.view(num_ranks, num_keys, width)
        first = exponentials[0]
        mm(i.key, self.exponent[rows].T, i.precision, out=first)  # (K, B)
        if self.shift is not None:
            first -= self.shift
        torch.mul(first, self.ratios, out=exponentials[1:])
        exponentials.exp2_()
        if self.ignore_self:
            exponentials[:, rows].diagonal(dim1=1, dim2=2).zero_()
        by_class = first.new_zeros(num_ranks, self.masks.shape[2], width)  # (R, C + 1, B)
        by_class.index_add_(1, self.key_labels, exponentials)
        masks = self.masks.index_select(3, self.query_labels[rows])  # (2, R, C + 1, B)
        # Nothing is left of a sum without keys; its term is not active.
        sums = (masks * by_class).sum(dim=2).clamp_(min=least_sum(first.dtype))  # (2, R, B)
        self.sums[:, :, rows] = sums
        spread = self.spread[: num_keys * width].view(num_keys, width)
        log_odds = {j: self._log_odds(j, rows, exponentials[j], sums[0, j]) for j in self.each}
        for j, (_, of_each) in log_odds.items():
            torch.sum(_softplus(of_each), dim=0, out=self.of_each[j, rows])
        if self.scale is None:
            return None
        less_weight, positive_weight = sum_weights(sums, self.scale[:, rows], i.forms)
        for j, (_, of_each) in log_odds.items():
            share = of_each.sigmoid_().sum(dim=0)
            torch.mul(share, self.scale_of_each[j][rows] / sums[0, j], out=less_weight[j])
            positive_weight[j] = 0
        # (R, C + 1, B): what the exponential of a key is multiplied with.
        coefficients = masks[0] * less_weight[:, None]
        coefficients.addcmul_(masks[1], positive_weight[:, None], value=-1)
        for j in range(num_ranks):
            torch.index_select(coefficients[j], 0, self.key_labels, out=spread)
            if j == 0:
                first.mul_(spread)
            else:
                first.addcmul_(exponentials[j], spread)
        for j, (places, share) in log_odds.items():
            if places is None:
                first.addcmul_(share, self.scale_of_each[j][rows], value=-1)
            else:
                first.scatter_add_(0, places, share.mul_(-self.scale_of_each[j][rows]))
        if i.forms[0] == "supcon-out":
            pull = masks[1, 0] * -self.scale_of_each[0][rows]
            first += torch.index_select(pull, 0, self.key_labels, out=spread)
            if self.ignore_self:
                first[rows].diagonal().zero_()
        return first.T

    def _log_odds(
        self, j: int, rows: slice, exponential: Tensor, less: Tensor
    ) -> tuple[Tensor | None, Tensor]:
        """Places of the positives (M, B), any where there is none, and their log-odds or -inf.

        Without places all keys have one, (K, B). Terms that are not active get finite numbers.
        """
        labels = self.query_labels[rows]
        if j in self.is_other:
            is_other = self.is_other[j].index_select(1, labels)  # (C + 1, B)
            is_other = is_other.index_select(0, self.key_labels)  # (K, B)
            if self.ignore_self:
                is_other[rows].diagonal().fill_(True)
            buffer = self.spread[: exponential.numel()].view(exponential.shape)
            torch.clamp(exponential, min=least_sum(exponential.dtype), out=buffer).log_()
            return None, (less.log() - buffer).masked_fill_(is_other, -torch.inf)
        places = self.places[j].index_select(1, labels)
        real = places >= 0
        if self.ignore_self:
            real &= places != torch.arange(rows.start, rows.stop, device=places.device)
        places = places.clamp(min=0)
        log_odds = less.log() - exponential.gather(0, places).log()
        return places, torch.where(real, log_odds, -torch.inf)

    def _positive_mean(self, positive: Tensor) -> Tensor:
        """(Q, D): mean of each query's positives, by the sums of the keys of each class."""
        i = self.inputs
        of_class = i.key.new_zeros(positive.shape[1], i.key.shape[1])
        of_class.index_add_(0, self.key_labels, i.key)
        total = (positive @ of_class)[self.query_labels]
        if self.ignore_self:
            own = positive[self.query_labels, self.key_labels[: len(total)]]
            total = total - own[:, None] * i.key[: len(total)]
        return total / self.num_positives[0, :, None]

    def _shift(self) -> Tensor:
        """Of exponents, where the lengths of embeddings were not read: 0 for unit length.

        Longer ones stay finite by it, but exponentials far below the largest count as about 0.
        """
        i, taus = self.inputs, self.inputs.known_taus
        assert taus is not None
        limit = LARGEST_EXPONENT[i.query.dtype] * math.log2(math.e) * min(taus) / taus[0]
        largest: Tensor = self.exponent.norm(dim=1).max() * i.key.norm(dim=1).max()
        return (largest - limit).clamp(min=0)


def _softplus(x: Tensor) -> Tensor:
    """log(1 + e^x), in one pass; beyond e^80 neither dtype sees the 1."""
    return functional.softplus(x, threshold=80)


def lists_positives(inputs: Inputs) -> bool:
    """Whether terms of each positive look at these alone, or at all keys under a mask.

    A list needs its length, and adding to the keys in it is not deterministic on a GPU.
    """
    return inputs.may_read and not inputs.query.is_cuda
