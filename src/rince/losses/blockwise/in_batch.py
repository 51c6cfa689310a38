"""RINCE of a batch with itself: every similarity is computed once and serves both of its pairs.

With ``s_ij = s_ji`` half of the similarities are enough. Samples are sorted by class and cut into
panels; the tiles on and above the diagonal of panels-by-panels are visited twice:

1. forward: sums of exponentials over positives and over less similar keys, of the tile's columns
   as queries and of its rows as queries;
2. backward: the similarities again, the gradient of both pairs merged, ``(G + G^T) z``.

That is two matrix products in place of the three of the block loop (``engine.py``). As a panel
holds few classes, summing per class and spreading per class are thin matrix products.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from rince.core.pair_ranks import TableRanks
from rince.losses.blockwise.block import Inputs, class_masks, least_sum, sum_weights
from rince.losses.blockwise.positive_pairs import PositivePairs, add_gradient, positive_pairs
from rince.losses.definition import softplus
from rince.losses.products import add_mm, mm


class Panel(NamedTuple):
    """A run of samples, sorted by class.

    Args:
        rows: their places. classes: a range of classes that holds all of theirs.
        labels: (rows,), counted from the first of these classes. one_hot: (rows, classes).
    """

    rows: slice
    classes: slice
    labels: Tensor
    one_hot: Tensor


class SelfPairs:
    """Terms and gradients of a batch whose queries are its keys, with ranks from labels.

    Args:
        inputs: query and key are the same (N, D).
    """

    @staticmethod
    def can_serve(inputs: Inputs) -> bool:
        """One label a sample, few enough classes and exponents in range; where it is faster."""
        source, sizes, forms = inputs.source, inputs.sizes, inputs.forms
        if not isinstance(source, TableRanks) or source.key_valid is not None:
            return False
        if not inputs.may_read or forms[0].startswith("supcon"):
            return False
        if len(source.query_labels) < sizes.in_batch:
            return False
        mask_bytes = 2 * len(forms) * len(source.table) ** 2 * inputs.query.element_size()
        if mask_bytes > sizes.in_batch_mask_bytes:
            return False
        if not torch.equal(source.query_labels, source.key_labels):
            return False
        # Terms that have a part for each positive visit positives one by one, which is slower.
        masks = class_masks(source.table, len(forms), inputs.positives, torch.float32)[1]
        count = torch.bincount(source.query_labels, minlength=len(source.table)).float()
        visits = sum(float(count @ masks[j] @ count) for j, f in enumerate(forms) if f == "out")
        few = visits <= sizes.most_positives * len(source.query_labels) ** 2
        return few and inputs.exponents_fit()

    def __init__(self, inputs: Inputs) -> None:
        z, source, self.taus = inputs.query, inputs.source, inputs.taus
        assert isinstance(source, TableRanks)
        self.forms, self.sizes, self.precision = inputs.forms, inputs.sizes, inputs.precision
        panel_size = self.sizes.samples_per_panel(len(z))
        self.ignore_self = source.ignore_self
        self.each = [j for j, form in enumerate(self.forms) if form == "out"]
        num_ranks = len(self.taus)
        table = source.table
        classes, labels = torch.unique(source.query_labels, return_inverse=True)
        table = table[classes][:, classes]
        by_likeness = _neighbours_together(table, num_ranks)
        table = table[by_likeness][:, by_likeness]
        labels = by_likeness.argsort()[labels]
        self.order = labels.argsort(stable=True)
        self.z, self.labels = z[self.order], labels[self.order]
        # (2, R, C, C): query class, key class.
        self.masks = class_masks(table, num_ranks, inputs.positives, z.dtype)
        count = torch.bincount(labels, minlength=len(classes)).to(z.dtype)
        keys = self.masks @ count  # (2, R, C)
        if self.ignore_self:
            keys = keys - self.masks.diagonal(dim1=2, dim2=3)
        self.num_keys = keys[:, :, self.labels]  # (2, R, N)
        self.active = (self.num_keys > 0).all(dim=0)  # (R, N)
        self.panels = self._cut(len(z), panel_size)
        self.uniform = self._uniform_tiles(table.cpu())
        self.largest_tile = min(panel_size, len(z)) ** 2
        # (2, R, N): sums of exponentials over less similar keys and over positives.
        self.sums = z.new_zeros(2, num_ranks, len(z))

    def _cut(self, count: int, panel_size: int) -> list[Panel]:
        panels = []
        for start in range(0, count, panel_size):
            rows = slice(start, min(start + panel_size, count))
            labels = self.labels[rows]
            classes = slice(int(labels[0]), int(labels[-1]) + 1)
            labels = labels - classes.start
            one_hot = functional.one_hot(labels).to(self.z.dtype)
            panels.append(Panel(rows, classes, labels, one_hot))
        return panels

    def _uniform_tiles(self, table: Tensor) -> set[tuple[int, int]]:
        """Tiles whose pairs all have the same rank, in either direction: most, if sorted well."""
        uniform = set()
        for n, columns in enumerate(self.panels):
            for m, rows in enumerate(self.panels[n + 1 :], start=n + 1):
                there = table[columns.classes, rows.classes]
                back = table[rows.classes, columns.classes]
                if bool((there == there[0, 0]).all() & (back == back[0, 0]).all()):
                    uniform.add((n, m))
        return uniform

    def _tiles(self) -> Iterator[tuple[Panel, Panel, Tensor, bool]]:
        """Panel of queries, panel of keys (the same or a later one), exponentials, uniform.

        Exponentials are (R, keys, queries), overwritten by the next tile.
        """
        factor = (math.log2(math.e) / self.taus)[:, None, None]
        similarity = self.z.new_empty(self.largest_tile)
        exponentials = self.z.new_empty(len(self.taus) * self.largest_tile)
        for n, columns in enumerate(self.panels):
            queries = self.z[columns.rows].T
            for m, rows in enumerate(self.panels[n:], start=n):
                shape = (len(rows.one_hot), len(columns.one_hot))
                size = shape[0] * shape[1]
                s = similarity[:size].view(shape)
                mm(self.z[rows.rows], queries, self.precision, out=s)
                out = exponentials[: len(self.taus) * size].view(-1, *shape)
                torch.mul(s, factor, out=out).exp2_()
                if n == m and self.ignore_self:
                    out.diagonal(dim1=1, dim2=2).zero_()
                yield columns, rows, out, (n, m) in self.uniform

    def terms(self) -> tuple[Tensor, Tensor]:
        """(R, N) values and which are active, in the order of the batch."""
        for columns, rows, exponentials, uniform in self._tiles():
            if uniform:
                self._add(columns, rows, exponentials.sum(dim=1))
                self._add(rows, columns, exponentials.sum(dim=2))
                continue
            num_ranks, num_keys, num_queries = exponentials.shape
            shape = (num_ranks, rows.one_hot.shape[1], num_queries)
            by_class = exponentials.new_zeros(shape)
            by_class.index_add_(1, rows.labels, exponentials)
            masks = self.masks[:, :, columns.classes, rows.classes]
            sums = (masks @ by_class) * columns.one_hot.T  # (2, R, query classes, queries)
            self.sums[:, :, columns.rows] += sums.sum(dim=2)
            if rows is not columns:
                by_class = columns.one_hot.T @ exponentials.view(-1, num_queries).T
                by_class = by_class.view(-1, num_ranks, num_keys).transpose(0, 1)
                masks = self.masks[:, :, rows.classes, columns.classes]
                sums = (masks @ by_class) * rows.one_hot.T
                self.sums[:, :, rows.rows] += sums.sum(dim=2)
        # Nothing is left of a sum without keys; its term is not active.
        less, positive = self.sums.clamp_(min=least_sum(self.z.dtype))
        values = torch.where(self.active, softplus(less.log() - positive.log()), 0)
        # (R, N): mean over positives of sigmoid(log-odds), for terms of the "out" form.
        self.positive_share = torch.zeros_like(less)
        for j in self.each:
            for pairs, log_odds in self._positive_pairs(j):
                real = pairs.real.any(dim=2)  # (U, L)
                places = pairs.queries[real]
                count = self.num_keys[1, j, places].clamp(min=1)
                values[j, places] = softplus(log_odds).sum(dim=2)[real] / count
                self.positive_share[j, places] = log_odds.sigmoid().sum(dim=2)[real] / count
        return self._restore(values), self._restore(self.active)

    def gradient(self, weight: Tensor) -> Tensor:
        """(N, D), of the sum of losses weighted by (N,). To be called after :meth:`terms`."""
        scale = torch.where(self.active, weight[self.order], 0) / self.taus[:, None]  # (R, N)
        less_weight, positive_weight = sum_weights(self.sums, scale, self.forms)
        d_z = torch.zeros_like(self.z)
        for j in self.each:
            less_weight[j] = scale[j] * self.positive_share[j] / self.sums[0, j]
            positive_weight[j] = 0
            of_each = scale[j] / self.num_keys[1, j].clamp(min=1)
            for pairs, log_odds in self._positive_pairs(j):
                gradient = -log_odds.sigmoid() * of_each[pairs.queries, None]
                add_gradient(d_z, self.z, pairs, gradient)
        factors = torch.stack([less_weight, -positive_weight])  # (2, R, N)
        coefficients = self.z.new_empty(len(self.taus) * self.largest_tile)
        for columns, rows, exponentials, uniform in self._tiles():
            coefficient = coefficients[: exponentials.numel()].view(exponentials.shape)
            if uniform:
                there = self._of_one_class(factors, columns, rows)
                back = self._of_one_class(factors, rows, columns)
                torch.add(there[:, None, :], back[:, :, None], out=coefficient)
            else:
                there = self._spread(factors, columns, rows).mT.contiguous()
                torch.index_select(there, 1, rows.labels, out=coefficient)
                of_columns = columns.one_hot.T.expand(len(self.taus), -1, -1)
                coefficient.baddbmm_(self._spread(factors, rows, columns), of_columns)
            gradient = coefficient.mul_(exponentials).sum(dim=0)  # (keys, queries), both pairs'
            add_mm(d_z[rows.rows], gradient, self.z[columns.rows], self.precision)
            if rows is not columns:
                add_mm(d_z[columns.rows], gradient.T, self.z[rows.rows], self.precision)
        out = torch.empty_like(d_z)
        out[self.order] = d_z
        return out

    def _add(self, queries: Panel, keys: Panel, sums: Tensor) -> None:
        """Sums (R, queries) over all keys of a tile whose pairs have the same rank."""
        mask = self.masks[:, :, queries.classes.start, keys.classes.start, None]
        self.sums[:, :, queries.rows] += mask * sums

    def _of_one_class(self, factors: Tensor, queries: Panel, keys: Panel) -> Tensor:
        """(R, queries): :meth:`_spread` for a tile whose pairs have the same rank."""
        mask = self.masks[:, :, queries.classes.start, keys.classes.start, None]
        return (mask * factors[:, :, queries.rows]).sum(dim=0)

    def _spread(self, factors: Tensor, queries: Panel, keys: Panel) -> Tensor:
        """(R, queries, key classes): what multiplies exponentials of keys of a class."""
        masks = self.masks[..., keys.classes].index_select(2, self.labels[queries.rows])
        return (masks * factors[:, :, queries.rows, None]).sum(dim=0)

    def _positive_pairs(self, j: int) -> Iterator[tuple[PositivePairs, Tensor]]:
        """All pairs of a query and its positives of rank j + 1, and their log-odds (U, L, M).

        That is the log of less similar over positive; -inf for padding.
        """
        less = self.sums[0, j].log()
        for pairs in positive_pairs(self.z, self.labels, self.masks[1, j] > 0, self.sizes):
            real = pairs.real & self.active[j, pairs.queries, None]
            if self.ignore_self:
                real &= pairs.queries[:, :, None] != pairs.keys[:, None, :]
            log_odds = less[pairs.queries, None] - pairs.similarity / self.taus[j]
            yield pairs, log_odds.masked_fill(~real, -torch.inf)

    def _restore(self, x: Tensor) -> Tensor:
        """Back from the sorted order, along the last dimension."""
        out = torch.empty_like(x)
        out[..., self.order] = x
        return out


def _neighbours_together(table: Tensor, num_ranks: int) -> Tensor:
    """An order (C,) of the classes in which related ones follow each other.

    In a hierarchy the first class that is related to a class names its superclass.
    """
    related = (((table >= 1) & (table <= rank)).int() for rank in range(num_ranks, 0, -1))
    first = torch.stack([x.argmax(dim=1) for x in related])  # (R, C)
    place: Tensor = torch.unique(first, dim=1, return_inverse=True)[1]  # (C,) in lexical order
    return place.argsort()
