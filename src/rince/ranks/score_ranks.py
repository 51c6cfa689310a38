"""Ranks from scores between items: rank i where a score reaches the i-th threshold.

Whatever says how similar two items are comes down to this: relevance grades, a teacher's
similarities, the overlap of label sets, the closeness of targets or of nodes in a graph (see
:mod:`rince.ranks.measures`). For scores between *classes* there is :class:`rince.Similarity`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rince.core.checks import require
from rince.core.labels import numbers
from rince.core.notebook import as_html
from rince.core.pair_ranks import (
    ALL,
    IGNORED,
    MAX_RANK,
    NEGATIVE,
    DenseRanks,
    PairRanks,
    require_queries_first,
)
from rince.ranks.similarity import cuts_at_quantiles


class ScoreRanks:
    """Rank 1 where score >= the first threshold, else 2 where >= the second, ..., else negative.

    Thresholds stay fixed from batch to batch, so that the rank of a pair does not depend on what
    else is in the batch. NaN is an unknown score; such a pair is ignored.

    Args:
        thresholds: falling, one per rank, 1 to 127 of them. They are compared in the precision of
            the scores, so that a float32 score of 0.7 reaches a threshold of 0.7.

    Raises:
        ValueError: none, too many, or thresholds that do not fall.

    Example:
        >>> teacher = torch.tensor([[0.95, 0.6, 0.1, float("nan")]])
        >>> ScoreRanks([0.9, 0.5]).ranks(teacher).matrix
        tensor([[ 1,  2,  0, -1]], dtype=torch.int8)
    """

    name = "thresholds"

    def __init__(self, thresholds: float | Sequence[float]) -> None:
        given = tuple(float(t) for t in np.atleast_1d(thresholds).tolist())
        require(
            1 <= len(given) <= MAX_RANK
            and all(math.isfinite(t) for t in given)
            and all(a > b for a, b in itertools.pairwise(given)),
            f"{self.name} must be 1 to {MAX_RANK} finite numbers that fall, the best first, got "
            f"{given}",
        )
        self.thresholds = given

    @classmethod
    def from_quantiles(cls, scores: Any, quantiles: float | Sequence[float]) -> ScoreRanks:
        """Thresholds from a sample of scores: 0.99 makes about the top 1 % of pairs rank 1.

        For a teacher whose scores have no scale of their own. Take a sample as a batch would be,
        without the pairs of an item and itself (write NaN there).

        Args:
            scores: any shape; NaN is left out.
            quantiles: falling, in [0, 1], one per rank.

        Raises:
            ValueError: quantiles that do not fall, no score, or a rank that would be empty.
        """
        scores = numbers(scores, "scores")
        known = scores[~scores.isnan()]
        return cls(
            cuts_at_quantiles(known, np.atleast_1d(quantiles).tolist(), first_rank=1).tolist()
        )

    @property
    def num_ranks(self) -> int:
        """R, the number of thresholds."""
        return len(self.thresholds)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self.thresholds)})"

    def ranks(self, scores: Any, *, ignore_self: bool = False) -> DenseRanks:
        """What a ranked loss takes.

        Args:
            scores: (Q, K), numbers of any dtype, higher = more similar; NaN: unknown. A tensor,
                an array, a data frame or lists.
            ignore_self: the first Q keys are the queries themselves; those pairs are ignored.

        Raises:
            ValueError: not a matrix, or fewer keys than queries with ``ignore_self``.
        """
        scores = numbers(scores, "scores")
        require(scores.ndim == 2, f"scores must be (queries, keys), got {tuple(scores.shape)}")
        if not scores.is_floating_point():
            scores = scores.double()
        ranks = torch.full_like(scores, NEGATIVE, dtype=torch.int8)
        for rank, cut in reversed(list(enumerate(self.thresholds, 1))):  # the best written last
            ranks[scores >= cut] = rank
        ranks[scores.isnan()] = IGNORED
        if ignore_self:
            require_queries_first(*scores.shape)
            ranks.fill_diagonal_(IGNORED)
        return DenseRanks(ranks, self.num_ranks, validate=False)  # they are right

    def describe(self, scores: Any, *, ignore_self: bool = False) -> PairSummary:
        """Count the pairs of each rank, as a table to read before any training.

        Args:
            scores, ignore_self: as in :meth:`ranks`, of a batch or of all items.
        """
        rules = tuple(f"score >= {t:g}" for t in self.thresholds)
        return describe_pairs(self.ranks(scores, ignore_self=ignore_self), rules)


class Relevance(ScoreRanks):
    """Relevance grades, higher = more relevant, turned into ranks, 1 = most relevant.

    A grade has the rank of the first entry that it reaches; a grade below the last entry is a
    negative; NaN (no grade was given) is ignored.

    Args:
        grades: the lowest grade of each rank, best first: ``[3, 2, 1]`` makes grade 3 rank 1,
            2 rank 2, 1 rank 3 and 0 a negative; ``[3, 1]`` puts 2 and 1 together.

    Raises:
        ValueError: as :class:`ScoreRanks`.

    Example:
        >>> relevance = Relevance(grades=[3, 2, 1])
        >>> relevance.ranks(torch.tensor([[3, 0, 1, 2]])).matrix
        tensor([[1, 0, 3, 2]], dtype=torch.int8)
        >>> print(relevance.describe(torch.tensor([[3, 0, 1, 0], [1, 0, 0, 0]])))
        queries: 2, keys: 4, ranks: 3
        rank  means                pairs  queries  keys per query
        1     score >= 3               1        1             0.5
        2     score >= 2               0        0             0.0
        3     score >= 1               2        2             1.0
        0     negative                 5        2             2.5
        warning: no pair has rank 2: its loss term is always skipped
    """

    name = "grades"

    def __init__(self, grades: Sequence[float]) -> None:
        super().__init__(grades)


@dataclass(frozen=True)
class PairSummary:
    """The ranks of given pairs in numbers; ``str()`` is a table to read.

    Args:
        num_queries: Q. num_keys: K. num_ranks: R.
        rules: (R,) what each rank means, in words.
        pairs: code -> number of pairs, for 1 to R, 0 and -1.
        covered: code -> queries with at least one such key.
    """

    num_queries: int
    num_keys: int
    num_ranks: int
    rules: tuple[str, ...]
    pairs: dict[int, int]
    covered: dict[int, int]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is probably a mistake, one sentence each."""
        sentences = [
            f"no pair has rank {rank}: its loss term is always skipped"
            for rank in range(1, self.num_ranks + 1)
            if not self.pairs[rank]
        ]
        if not self.pairs[NEGATIVE]:
            sentences.append("there are no negatives: the last rank has no contrast")
        return tuple(sentences)

    def __str__(self) -> str:
        lines = [
            f"queries: {self.num_queries}, keys: {self.num_keys}, ranks: {self.num_ranks}",
            f"{'rank':<6}{'means':<18}{'pairs':>8}{'queries':>9}{'keys per query':>16}",
        ]
        meanings = dict(enumerate(self.rules, 1)) | {NEGATIVE: "negative", IGNORED: "ignored"}
        for code, meaning in meanings.items():
            if code != IGNORED or self.pairs[code]:
                lines.append(
                    f"{code:<6}{meaning:<18}{self.pairs[code]:>8}{self.covered[code]:>9}"
                    f"{self.pairs[code] / max(1, self.num_queries):>16.1f}"
                )
        return "\n".join(lines + [f"warning: {warning}" for warning in self.warnings])

    _repr_html_ = as_html


def describe_pairs(ranks: PairRanks, rules: Sequence[str]) -> PairSummary:
    """Count the (Q, K) pairs of any rank source that knows its number of ranks; a rule a rank."""
    matrix = ranks.tile(ALL, ALL)
    codes = (*range(1, len(rules) + 1), NEGATIVE, IGNORED)
    return PairSummary(
        num_queries=ranks.shape[0],
        num_keys=ranks.shape[1],
        num_ranks=len(rules),
        rules=tuple(rules),
        pairs={code: int((matrix == code).sum()) for code in codes},
        covered={code: int((matrix == code).any(dim=1).sum()) for code in codes},
    )
