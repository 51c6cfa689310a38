"""Ranks from similarity scores: thresholds, quantiles or the top k, over any score matrix."""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from rince.core.checks import RinceError, require, warn
from rince.core.files import user_path
from rince.core.labels import integers, numbers
from rince.core.pair_ranks import IGNORED, MAX_RANK, NEGATIVE
from rince.core.tables import composed, repeated
from rince.ranks.class_ranks import ClassRanks
from rince.ranks.readers import some_names
from rince.ranks.score_files import read_scores, write_csv
from rince.ranks.score_summary import SimilaritySummary, summary
from rince.ranks.taxonomy import Taxonomy

Missing = Literal["ignore", "negative"]


@dataclass(frozen=True, eq=False, repr=False)
class Similarity:
    """How similar every class (or item) is to every other, higher = more similar.

    ``scores[a, b]`` is the score of a key of class b for a query of class a. The matrix may be
    asymmetric and is kept so. NaN is a missing score. The diagonal is never read: a class and
    itself always have rank 1, and no other pair has. For scores between items instead of classes
    let ``classes`` be the items' names; labels are then positions of items.

    The study with noisy scores of Hoffmann et al. (AAAI 2022) is
    ``by_thresholds([0.4])`` on the similarities that a language model gives the class names.
    Thresholds do not carry over from one model to another: look at :meth:`SimilarityRanks.describe`
    first, or use quantiles or the top k.

    Args:
        classes: C different names in label order.
        scores: (C, C), any range, finite or NaN; kept as float32 or float64, others as float64.

    Raises:
        ValueError: a matrix that does not fit the names, an infinite score, an empty name or a
            name given twice.

    Example:
        >>> scores = [[1.0, 0.9, 0.4], [0.9, 1.0, float("nan")], [0.4, 0.1, 1.0]]
        >>> animals = Similarity.from_matrix(scores, ["husky", "wolf", "carp"])
        >>> animals.by_thresholds([0.8, 0.4]).table.tolist()
        [[1, 2, 3], [2, 1, -1], [3, 0, 1]]
        >>> animals.by_top_k([1]).table.tolist()
        [[1, 2, 0], [2, 1, -1], [2, 0, 1]]
    """

    classes: tuple[str, ...]
    scores: Tensor

    def __post_init__(self) -> None:
        classes, scores = tuple(self.classes), numbers(self.scores, "scores")
        require(len(classes) > 0, "scores need at least one class")
        for name in classes:
            require(
                isinstance(name, str) and name.strip() != "",
                f"names must be strings that are not empty, got {name!r}",
            )
        twice = sorted(repeated(map(composed, classes)))
        require(not twice, f"names are given twice: {some_names(twice)}")
        require(
            scores.shape == (len(classes), len(classes)),
            f"scores of {len(classes)} names must have shape ({len(classes)}, {len(classes)}), got "
            f"{tuple(scores.shape)}",
        )
        if scores.dtype not in (torch.float32, torch.float64):
            scores = scores.double()
        scores = scores.detach().cpu()
        require(
            not bool(scores.isinf().any()),
            "scores must be finite, or NaN where they are missing; got an infinite one",
        )
        object.__setattr__(self, "classes", classes)
        object.__setattr__(self, "scores", scores)
        if _looks_like_distances(scores):
            warn(
                "every class has its lowest score with itself: are these distances? Scores must be "
                "higher for more similar classes; negate distances"
            )

    def __repr__(self) -> str:
        return f"Similarity({len(self.classes)} classes)"

    # ---- where scores come from ----------------------------------------------------------

    @classmethod
    def from_matrix(cls, scores: Tensor | ArrayLike, classes: Sequence[str]) -> Similarity:
        """Take a matrix; ``classes`` names its rows and columns, in this order.

        Args:
            scores: (C, C) tensor, array or nested list of numbers.
            classes: C names.

        Raises:
            ValueError: as :class:`Similarity`.
        """
        return cls(tuple(classes), numbers(scores, "scores"))

    @classmethod
    def from_file(cls, path: str | Path, names: str | Path | None = None) -> Similarity:
        """Read a matrix with the names of its classes.

        - ``.csv``: a header row and a first column of names; an empty cell is a missing score.
        - ``.parquet``: a column of text that names the rows, and one per class (a data frame
          with its index); needs ``pip install 'rince[parquet]'``.
        - ``.npy``: the matrix alone; the names are a JSON list in ``names``, by default the file
          beside it: ``scores.npy`` and ``scores.json``.

        Rows and columns may be in different orders where both carry names.

        Raises:
            RinceError: a file that is missing, damaged, without names, or not one square matrix;
                or values that :class:`Similarity` refuses.
            ImportError: a parquet file without pyarrow.
        """
        file = user_path(path)
        classes, scores = read_scores(file, None if names is None else user_path(names))
        try:
            return cls(tuple(classes), scores)
        except ValueError as error:
            raise RinceError(f"{file}: {error}") from None

    @classmethod
    def from_function(
        cls, names: Sequence[str], fn: Callable[[str, str], float | None]
    ) -> Similarity:
        """Ask a function for the score of every two different names, in both orders.

        Args:
            names: C class names.
            fn: (query name, key name) -> score, higher = more similar; None or NaN: missing.

        Raises:
            ValueError: as :class:`Similarity`.
        """
        scores = torch.full((len(names), len(names)), math.nan, dtype=torch.float64)
        for (a, query), (b, key) in itertools.permutations(enumerate(names), 2):
            score = fn(query, key)
            scores[a, b] = math.nan if score is None else score
        return cls(tuple(names), scores)

    def to_csv(self, path: str | Path) -> None:
        """Write the matrix to look at or to edit; :meth:`from_file` reads it."""
        write_csv(user_path(path), self.classes, self.scores)

    # ---- from scores to ranks ------------------------------------------------------------

    def aligned_to(self, classes: Sequence[str]) -> Similarity:
        """The same scores in another order, matched by name; further names are left out.

        Args:
            classes: the names wanted, in label order.

        Raises:
            ValueError: a class without scores; the message names the nearest ones.
        """
        position = {composed(name): i for i, name in enumerate(self.classes)}
        missing = [name for name in classes if composed(name) not in position]
        if missing:
            wanted = set(map(composed, classes))
            unused = [name for name in self.classes if composed(name) not in wanted]
            close = [(name, difflib.get_close_matches(name, unused)) for name in missing]
            hints = [f"{name!r} (did you mean {near[0]!r}?)" for name, near in close[:8] if near]
            raise ValueError(
                f"{len(missing)} of {len(classes)} classes have no scores: {some_names(missing)}; "
                + (f"near names with scores: {', '.join(hints)}; " if hints else "")
                + f"names with scores that are not among the classes: "
                f"{some_names(unused) or 'none'}"
            )
        order = integers([position[composed(name)] for name in classes])
        return Similarity(tuple(classes), self.scores[order][:, order])

    def by_thresholds(
        self, thresholds: float | Sequence[float], *, missing: Missing = "ignore"
    ) -> SimilarityRanks:
        """Rank 2 where score >= the first threshold, else rank 3 where >= the second, and so on.

        Pairs below the last one are negatives. Thresholds are compared in the precision of the
        scores, so that a float32 score of 0.7 passes a threshold of 0.7.

        Args:
            thresholds: falling, one for each rank from 2 on.
            missing: what a pair without a score becomes, -1 ("ignore") or 0 ("negative").

        Raises:
            ValueError: none, more than 126, or thresholds that do not fall.
        """
        given = _numbers(thresholds)
        cuts = self.scores.new_tensor(given)
        require(
            bool(cuts.isfinite().all()) and bool((cuts[1:] < cuts[:-1]).all()),
            f"thresholds must be finite and fall from rank 2 on, got {_listed(given)}",
        )
        rule = "score >= " + ", ".join(f"{t:g} (rank {i})" for i, t in enumerate(given, 2))
        cuts = cuts.expand(len(self.classes), -1)
        return self._ranked(cuts, cuts, rule, missing)

    def by_quantiles(
        self, quantiles: float | Sequence[float], *, missing: Missing = "ignore"
    ) -> SimilarityRanks:
        """Thresholds at quantiles of all scores: 0.95 makes about the top 5 % of pairs rank 2.

        The threshold of q is the floor(q (n - 1))-th of the n scores of two different classes in
        rising order (from 0): always one of the scores. Missing ones do not count.

        Args:
            quantiles: falling, in [0, 1], one for each rank from 2 on.
            missing: as in :meth:`by_thresholds`.

        Raises:
            ValueError: quantiles outside [0, 1] or that do not fall; no score at all; or two
                quantiles that fall on the same score.
        """
        given = _numbers(quantiles)
        others = self._others()
        cuts = cuts_at_quantiles(others[others > -math.inf], given, first_rank=2)
        rule = "score in the top " + ", ".join(
            f"{1 - q:.4g} (rank {i}, >= {float(cut):.4g})"
            for i, (q, cut) in enumerate(zip(given, cuts, strict=True), 2)
        )
        cuts = cuts.expand(len(self.classes), -1)
        return self._ranked(cuts, cuts, rule, missing)

    def by_top_k(
        self, numbers: int | Sequence[int], *, missing: Missing = "ignore"
    ) -> SimilarityRanks:
        """For each query class, the k_2 most similar others have rank 2, the next k_3 rank 3, ...

        Rank i goes to scores that reach the row's (k_2 + ... + k_i)-th best and have no better
        rank: where scores tie at that edge all of them take the rank, so the order of the classes
        does not matter. A class with fewer scores gives all of them a rank. The relation need not
        be mutual: a carp's best partner may have better ones itself.

        Args:
            numbers: k_2, k_3, ...: at least 1 each.
            missing: as in :meth:`by_thresholds`.

        Raises:
            ValueError: a number below 1.
        """
        given = _numbers(numbers)
        require(
            all(float(k).is_integer() and k >= 1 for k in given),
            f"the number of classes of each rank must be an integer of at least 1, got "
            f"{_listed(given)}",
        )
        given = [int(k) for k in given]
        others = self._others()
        ordered = others.sort(dim=1, descending=True).values  # (C, C)
        size = len(self.classes)
        places = integers([min(k, size) - 1 for k in itertools.accumulate(given)])
        cuts = ordered[:, places]  # (C, R - 1)
        # A pair is doubtful if it is near the middle of the gap that the edge falls into.
        below = [
            others.masked_fill(others >= cut[:, None], -math.inf).amax(dim=1) for cut in cuts.T
        ]
        borders = (cuts + torch.stack(below, dim=1)) / 2
        rule = "each class's most similar " + ", ".join(
            f"{k} (rank {i})" for i, k in enumerate(given, 2)
        )
        return self._ranked(cuts, borders, rule, missing)

    def _others(self) -> Tensor:
        """(C, C): -inf in place of missing scores and of the diagonal."""
        return self.scores.masked_fill(self.scores.isnan(), -math.inf).fill_diagonal_(-math.inf)

    def _ranked(
        self, cuts: Tensor, borders: Tensor, rule: str, missing: Missing
    ) -> SimilarityRanks:
        """Rank i where the score reaches the row's i-th cut; cuts, borders (C, R - 1)."""
        num_ranks = cuts.shape[1] + 1
        require(
            missing in ("ignore", "negative"),
            f"missing must be 'ignore' or 'negative', got {missing!r}",
        )
        table = torch.full_like(self.scores, NEGATIVE, dtype=torch.int8)
        for rank in range(num_ranks, 1, -1):  # the best rank is written last
            table[self.scores >= cuts[:, rank - 2, None]] = rank
        table[self.scores.isnan()] = IGNORED if missing == "ignore" else NEGATIVE
        table.fill_diagonal_(1)
        return SimilarityRanks(self.classes, table, num_ranks, self, rule, borders)


@dataclass(frozen=True, eq=False, repr=False)
class SimilarityRanks(ClassRanks):
    """Ranks made from scores by a rule; use it as a class tree's.

    Args:
        classes, table, num_ranks: as in :class:`~rince.ranks.class_ranks.ClassRanks`.
        similarity: the scores.
        rule: in words.
        borders: (C, R - 1), per query class the score at which rank i ends, i = 2 to R; -inf: it
            does not end.
    """

    similarity: Similarity
    rule: str
    borders: Tensor

    def __repr__(self) -> str:
        return f"SimilarityRanks({self.num_classes} classes, {self.rule})"

    def describe(
        self,
        batch_size: int = 256,
        counts: Sequence[int] | Tensor | None = None,
        tree: Taxonomy | None = None,
    ) -> SimilaritySummary:
        """What scores and ranks look like before any training, and which pairs are doubtful.

        Args:
            batch_size, counts: as in :meth:`Taxonomy.describe
                <rince.ranks.taxonomy.Taxonomy.describe>`.
            tree: a class tree of the same classes; pairs on which it and the scores disagree are
                listed.

        Raises:
            ValueError: counts or a tree that do not fit the classes.
        """
        if tree is not None:
            require(
                tree.classes == self.classes,
                "the tree's classes are not these, or are in another order: use "
                "similarity.aligned_to(tree.classes) first",
            )
        return summary(self, batch_size, counts, None if tree is None else tree.table)


def cuts_at_quantiles(scores: Tensor, quantiles: Sequence[float], first_rank: int) -> Tensor:
    """(len(quantiles),): the floor(q (n - 1))-th of n scores (n,) in rising order, from 0."""
    given = list(quantiles)
    require(
        all(0 <= q <= 1 for q in given) and all(a > b for a, b in itertools.pairwise(given)),
        f"quantiles must lie in [0, 1] and fall from rank {first_rank} on, got {_listed(given)}",
    )
    require(
        len(scores) > 0, "there is no score of two different classes or items to take quantiles of"
    )
    ordered = scores.sort().values
    # The slack keeps 0.29 of 100 at 29: in floats the product may come out just below.
    last = (len(ordered) - 1) * (1 + 1e-12)
    cuts = torch.stack([ordered[math.floor(q * last)] for q in given])
    same = [i for i in range(1, len(given)) if cuts[i] == cuts[i - 1]]
    require(
        not same,
        f"the quantiles {_listed(given)} fall on the scores {_listed(cuts.tolist())}, so a "
        f"rank would be empty: move them apart",
    )
    return cuts


def _numbers(given: float | Sequence[float]) -> list[float]:
    numbers: list[float] = np.atleast_1d(given).tolist()  # one rank: a number alone will do
    require(
        1 <= len(numbers) <= MAX_RANK - 1,
        f"give one number for each rank from 2 on, 1 to {MAX_RANK - 1} of them; got {len(numbers)}",
    )
    return numbers


def _looks_like_distances(scores: Tensor) -> bool:
    own = scores.diagonal()
    apart = ~torch.eye(len(scores), dtype=torch.bool, device=scores.device) & ~scores.isnan()
    return bool(apart.any()) and bool((scores > own[:, None])[apart].all())


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(f"{x:g}" for x in numbers) or "none"
