"""Gallery items in the order of similarity, and what follows from it at each level of a tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from rince.metrics.arrays import sort_rows


@dataclass(frozen=True)
class OrderedItems:
    """Items in the order of similarity, nearest first; those that are left out come last."""

    height: Tensor  # (rows, G) uint8: 0 = the query's class, ..., L = nothing in common, left out
    first: Tensor  # (rows, G) int32: items of one similarity share the places first + 1 .. last
    last: Tensor
    counts: list[Tensor]  # of each level (rows, G + 1) int32: positives among the n nearest
    candidates: Tensor  # (rows,) items that are not left out

    @classmethod
    def of(cls, similarity: Tensor, height: Tensor, num_levels: int) -> OrderedItems:
        candidates = (similarity > -torch.inf).sum(dim=1)
        height = height.masked_fill_(similarity == -torch.inf, num_levels)
        # The bits of a float, as an integer, rise as it does, those of negative ones turned round.
        # With the height behind them one sort of integers does for both; -0 becomes 0 first.
        bits = similarity.add_(0.0).view(torch.int32)
        falling = ~torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
        key = sort_rows((falling.long() << 32) | height)
        height = key.to(torch.uint8)  # its last 8 bits
        places = torch.arange(key.shape[1], dtype=torch.int32, device=key.device)
        value = key >> 32
        begins = value[:, 1:] != value[:, :-1]  # a similarity of its own; from the second place on
        if bool(begins.all()):
            first, last = places.expand_as(height), (places + 1).expand_as(height)
        else:
            end = key.shape[1]
            first = functional.pad(torch.where(begins, places[1:], 0), (1, 0))
            first = first.cummax(dim=1).values
            last = functional.pad(torch.where(begins, places[1:], end), (0, 1), value=end)
            last = last.flip(1).cummin(dim=1).values.flip(1)
        counts = []
        for level in range(num_levels):
            count = torch.zeros(len(key), key.shape[1] + 1, dtype=torch.int32, device=key.device)
            torch.cumsum(height <= level, dim=1, dtype=torch.int32, out=count[:, 1:])
            counts.append(count)
        return cls(height, first, last, counts, candidates)

    def expected_among(self, level: int, places: Tensor) -> Tensor:
        """(rows,): expected number of the level's positives among so many nearest, (rows,)."""
        at = (places - 1).clamp(min=0)[:, None]
        first, last = (x.gather(1, at).long() for x in (self.first, self.last))
        before, after = (self.counts[level].gather(1, x)[:, 0].double() for x in (first, last))
        share = (places - first[:, 0]).double() / (last - first)[:, 0]
        return before + share * (after - before)


@dataclass(frozen=True)
class LevelPositives:
    """The positives of a level, of all rows one after the other, each (P,)."""

    row: Tensor  # of the chunk
    first: Tensor  # as in OrderedItems
    last: Tensor
    before: Tensor  # how many positives stand above its similarity
    above: Tensor  # ... and at or above it
    total: Tensor  # (rows,) number of positives
    finer_before: Tensor  # the same of the finer level's positives
    finer_above: Tensor

    @classmethod
    def of(cls, items: OrderedItems, level: int) -> LevelPositives:
        row, place = (items.height <= level).nonzero(as_tuple=True)
        first, last = (x[row, place].long() for x in (items.first, items.last))
        count = items.counts[level]
        before, above = count[row, first].double(), count[row, last].double()
        nothing = torch.zeros_like(before)
        finer = items.counts[level - 1] if level else None
        return cls(
            row,
            first,
            last,
            before,
            above,
            count[:, -1].double(),
            nothing if finer is None else finer[row, first].double(),
            nothing if finer is None else finer[row, last].double(),
        )

    def sum(self, values: Tensor) -> Tensor:
        """(rows,): the sum of (P,) values over each row's positives."""
        return torch.bincount(self.row, weights=values, minlength=len(self.total))

    def average_precision(self) -> Tensor:
        return self.sum(self.above / self.last) / self.total.clamp(min=1)

    def only_level(self) -> Tensor:
        """Average precision with the finer level's positives left out; NaN without any other."""
        tied, tied_finer = self.above - self.before, self.finer_above - self.finer_before
        # A run of one similarity counts once for each of its positives that is not the finer's.
        share = (tied - tied_finer) / tied
        precision = (self.above - self.finer_above) / (self.last - self.finer_above).clamp(min=1)
        count = self.sum(share).round()
        return self.sum(precision * share) / count  # 0 / 0 without any other

    def map_at_r(self, harmonic: Tensor) -> Tensor:
        """Expected MAP@R; NaN without a positive.

        A run of m tied items at the places s + 1 .. s + m holds p positives, b stand before it. At
        its place i a positive stands with probability p / m, and then b + 1 + (i - s - 1) (p - 1) /
        (m - 1) positives are expected up to there. A positive's part of the run is the p-th.
        """
        size = (self.last - self.first).double()
        last = torch.minimum(self.last, self.total.long()[self.row]).maximum(self.first)
        reciprocals = harmonic[last] - harmonic[self.first]
        further = (last - self.first) - (self.first + 1) * reciprocals
        others = (self.above - self.before - 1) / (size * (size - 1).clamp(min=1))
        expected = (self.before + 1) * reciprocals / size + others * further
        return self.sum(expected) / self.total

    def hits(self, ks: Sequence[int]) -> list[Tensor]:
        """Whether one is among the k nearest, negatives first among ties."""
        best = torch.full_like(self.total, torch.inf)  # negatives that stand not below the best one
        best.scatter_reduce_(0, self.row, self.last - self.above, "amin")
        return [best < k for k in ks]
