"""What scores and the ranks made from them look like before any training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from rince.core.notebook import as_html
from rince.core.pair_ranks import IGNORED, NEGATIVE
from rince.ranks.class_ranks import ClassRanks
from rince.ranks.summary import pair_probabilities, rare_ranks, without_sibling_line

if TYPE_CHECKING:
    from rince.ranks.similarity import SimilarityRanks

BINS, BAR, LISTED = 20, 40, 8


class ScoredPair(NamedTuple):
    """Two classes, the score of the second for the first, and the rank that it gives."""

    query: str
    key: str
    score: float
    rank: int

    def __str__(self) -> str:
        return f"{self.query} -> {self.key} {self.score:.3f} (rank {self.rank})"


@dataclass(frozen=True)
class SimilaritySummary:
    """Scores and ranks in numbers; ``str()`` is a page to read.

    Pairs are of two different classes and ordered: (query class, key class).

    Args:
        rule: how scores become ranks, in words.
        num_classes: C. num_ranks: R. batch_size: B.
        edges: (bins + 1,) of the histogram, rising; empty if there is no score.
        histogram: (bins,) pairs with a score in [edge, next edge), the last bin closed.
        codes: (R + 2,) the ranks of the entries of the next four: 1 to R, 0, -1.
        pairs: pairs of each rank; rank 1 has none.
        covered: classes that have at least one such key class.
        most: key classes of that rank for the class that has most of them.
        expected: other images of the batch that have this rank to an image, on average.
        without_sibling: classes without any pair of rank 2.
        missing: pairs without a score. one_sided: pairs (both orders) whose ranks differ by order.
        doubtful: pairs nearest to where a rank ends, nearest first.
        cross_group_positives: with a class tree, pairs of two groups that have a positive rank,
            highest score first.
        within_group_negatives: pairs of one group that have rank 0, lowest score first.
        totals: how many of these two there are in all; None without a tree.
    """

    rule: str
    num_classes: int
    num_ranks: int
    batch_size: int
    edges: tuple[float, ...]
    histogram: tuple[int, ...]
    codes: tuple[int, ...]
    pairs: tuple[int, ...]
    covered: tuple[int, ...]
    most: tuple[int, ...]
    expected: tuple[float, ...]
    without_sibling: tuple[str, ...]
    missing: int
    one_sided: int
    doubtful: tuple[ScoredPair, ...]
    cross_group_positives: tuple[ScoredPair, ...] = ()
    within_group_negatives: tuple[ScoredPair, ...] = ()
    totals: tuple[int, int] | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is probably a mistake, one sentence each."""
        sentences = []
        if self.num_classes > 1 and self.pairs[self.codes.index(NEGATIVE)] == 0:
            sentences.append("no two classes are negatives of each other: choose fewer positives")
        pairs, expected = self.pairs[: self.num_ranks], self.expected[: self.num_ranks]
        return (*sentences, *rare_ranks(pairs, expected, self.batch_size, "lower thresholds"))

    def __str__(self) -> str:
        lines = [
            f"classes: {self.num_classes}, ranks: {self.num_ranks}, by {self.rule}",
            *self._histogram_lines(),
            f"{'rank':<6}{'pairs':>8}{'classes':>9}{'key classes, mean':>19}{'most':>6}"
            f"{f'keys per item, batch {self.batch_size}':>28}",
        ]
        for i, code in enumerate(self.codes):
            if code == IGNORED and not self.pairs[i]:
                continue
            lines.append(
                f"{code:<6}{self.pairs[i]:>8}{self.covered[i]:>9}"
                f"{self.pairs[i] / self.num_classes:>19.1f}{self.most[i]:>6}"
                f"{self.expected[i]:>28.1f}"
            )
        if self.missing:
            lines.append(f"pairs without a score: {self.missing}")
        if self.one_sided:
            lines.append(f"pairs of classes whose rank depends on the order: {self.one_sided}")
        lines += without_sibling_line(self.without_sibling)
        lines += _listing("doubtful, nearest to where a rank ends", self.doubtful)
        if self.totals is not None:
            positives, negatives = self.totals
            lines += _listing(
                f"similar by score, in no common group ({positives}), highest",
                self.cross_group_positives,
            )
            lines += _listing(
                f"in a common group, negative by score ({negatives}), lowest",
                self.within_group_negatives,
            )
        return "\n".join(lines + [f"warning: {warning}" for warning in self.warnings])

    _repr_html_ = as_html

    def _histogram_lines(self) -> list[str]:
        if not self.histogram:
            return ["no two classes have a score"]
        longest = max(self.histogram)
        lines = ["scores of two different classes:"]
        for low, high, count in zip(self.edges, self.edges[1:], self.histogram, strict=False):
            bar = "#" * -(-count * BAR // longest)  # rounded up: one pair shows
            lines.append(f"{low:>9.3f} to {high:>7.3f}{count:>9} {bar}".rstrip())
        return lines


def summary(
    ranks: SimilarityRanks,
    batch_size: int,
    counts: Sequence[int] | Tensor | None,
    tree: Tensor | None,
) -> SimilaritySummary:
    """Count and sort; ``tree``: (C, C) ranks of a class tree."""
    table, size = ranks.table, ranks.num_classes
    scores, borders = ranks.similarity.scores.double(), ranks.borders.double()
    apart = ~torch.eye(size, dtype=torch.bool, device=table.device)
    scored = apart & ~scores.isnan()
    codes = (*range(1, ranks.num_ranks + 1), NEGATIVE, IGNORED)
    chosen = [(table == code) & apart for code in codes]
    joint = pair_probabilities(size, batch_size, counts)
    has_partner = (table == 2).any(dim=1).tolist()
    edges, histogram = _histogram(scores[scored])

    distance = (scores[:, :, None] - borders[:, None, :]).abs().amin(dim=2)
    cross_positives = within_negatives = torch.zeros_like(apart)
    if tree is not None:
        cross_positives = (tree == NEGATIVE) & (table > NEGATIVE)
        within_negatives = scored & (tree > NEGATIVE) & (table == NEGATIVE)

    def nearest(which: Tensor, by: Tensor) -> tuple[ScoredPair, ...]:
        return _first_pairs(ranks, scores, by.masked_fill(~which, math.inf))

    return SimilaritySummary(
        rule=ranks.rule,
        num_classes=size,
        num_ranks=ranks.num_ranks,
        batch_size=batch_size,
        edges=edges,
        histogram=histogram,
        codes=codes,
        pairs=tuple(int(pairs.sum()) for pairs in chosen),
        covered=tuple(int(pairs.any(dim=1).sum()) for pairs in chosen),
        most=tuple(int(pairs.sum(dim=1).max()) for pairs in chosen),
        # Of images: two of one class are a pair of rank 1.
        expected=tuple((batch_size - 1) * float(joint[table == code].sum()) for code in codes),
        without_sibling=tuple(
            name for name, has in zip(ranks.classes, has_partner, strict=True) if not has
        ),
        missing=int((apart & scores.isnan()).sum()),
        one_sided=int((table != table.T).sum()) // 2,
        doubtful=nearest(scored, distance),
        cross_group_positives=nearest(cross_positives, -scores),
        within_group_negatives=nearest(within_negatives, scores),
        totals=(
            None if tree is None else (int(cross_positives.sum()), int(within_negatives.sum()))
        ),
    )


def _histogram(values: Tensor) -> tuple[tuple[float, ...], tuple[int, ...]]:
    if not len(values):
        return (), ()
    low, high = float(values.min()), float(values.max())
    if low == high:
        return (low, high), (len(values),)
    edges = [low + (high - low) * i / BINS for i in range(BINS)] + [high]
    # The inner edges alone: the last bin holds its upper edge.
    place = torch.bucketize(values, values.new_tensor(edges[1:-1]), right=True)
    return tuple(edges), tuple(place.bincount(minlength=BINS).tolist())


def _first_pairs(ranks: ClassRanks, scores: Tensor, by: Tensor) -> tuple[ScoredPair, ...]:
    """Pairs in rising order of a finite ``by``; one that is the same both ways once."""
    pairs: list[ScoredPair] = []
    seen: set[tuple[int, int]] = set()
    # Only what can be listed is sorted: each pair may be there both ways.
    last = by.flatten().kthvalue(min(2 * LISTED, by.numel())).values
    rows, columns = (by.isfinite() & (by <= last)).nonzero(as_tuple=True)
    for i in by[rows, columns].argsort(stable=True).tolist():
        a, b = int(rows[i]), int(columns[i])
        rank, score = int(ranks.table[a, b]), float(scores[a, b])
        if (b, a) in seen and rank == int(ranks.table[b, a]) and score == float(scores[b, a]):
            continue
        seen.add((a, b))
        pairs.append(ScoredPair(ranks.classes[a], ranks.classes[b], score, rank))
        if len(pairs) == LISTED:
            break
    return tuple(pairs)


def _listing(title: str, pairs: Sequence[ScoredPair]) -> list[str]:
    return [f"{title}:", *(f"  {pair}" for pair in pairs)] if pairs else []
