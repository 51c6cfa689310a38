"""Controlled corruption of ranks: how much noise does a loss survive?

Each function is pure, draws from a generator of its own seed, and leaves its input alone.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from rince.core.checks import require
from rince.core.labels import integers
from rince.core.pair_ranks import IGNORED, DenseRanks
from rince.ranks.readers import look_of
from rince.ranks.similarity import Similarity
from rince.ranks.taxonomy import Taxonomy


def move_classes(taxonomy: Taxonomy, share: float, seed: int) -> Taxonomy:
    """Move classes, chosen at random, each into another superclass, chosen at random.

    The superclass of a class is the group it lies in directly; the groups above it come along.
    All groups but those that hold its name, such as its own, are equally likely. Names and label
    order stay.

    Args:
        taxonomy: at least two superclasses, or one and a class outside it.
        share: in [0, 1], of the classes; round(share * C) are moved.
        seed: of the choice.

    Raises:
        ValueError: a share outside [0, 1]; a class that has nowhere to go; a tree that loses its
            lowest level, and with it a rank.
    """
    _check_share(share)
    generator = _generator(seed)
    groups = sorted({path[:-1] for path in taxonomy.paths} - {()})
    place_of = {group: place for place, group in enumerate(groups)}
    # The groups that hold a class or a group of a name, so that another would be both, or twice.
    taken: dict[str, set[int]] = defaultdict(set)
    for path in taxonomy.paths:
        for k, name in enumerate(path):
            if path[:k] in place_of:
                taken[look_of(name)].add(place_of[path[:k]])
    paths = list(taxonomy.paths)
    for i in _draw(len(paths), share, generator):
        *own, name = paths[i]
        there = taken[look_of(name)]
        require(
            len(there) < len(groups),
            f"there is no other superclass to move {name!r} into, which holds none of that name",
        )
        free = torch.randint(len(groups) - len(there), (), generator=generator, device="cpu")
        place = int(free)
        for other in sorted(there):
            place += other <= place
        there.discard(place_of.get(tuple(own), -1))
        there.add(place)
        paths[i] = (*groups[place], name)
    moved = Taxonomy(paths)
    require(
        moved.num_ranks == taxonomy.num_ranks,
        f"moving a share of {share:g} left no class at the lowest of {taxonomy.num_ranks} levels: "
        f"take a smaller share or another seed than {seed}",
    )
    return moved


def noisy_scores(similarity: Similarity, sd: float, seed: int) -> Similarity:
    """Add normal noise of mean 0 to the score of every two different classes.

    Symmetric scores stay symmetric: a pair is disturbed alike both ways. Otherwise each order has
    its own noise. Missing scores stay missing.

    Args:
        similarity: the scores.
        sd: standard deviation of the noise, in the units of the scores, at least 0.
        seed: of the noise.

    Raises:
        ValueError: a negative or infinite sd.
    """
    require(math.isfinite(sd) and sd >= 0, f"sd must be finite and at least 0, got {sd}")
    scores = similarity.scores
    noise = sd * torch.randn(
        scores.shape, generator=_generator(seed), dtype=torch.float64, device="cpu"
    )
    if torch.equal(scores.nan_to_num(), scores.T.nan_to_num()) and torch.equal(
        scores.isnan(), scores.T.isnan()
    ):
        noise = noise.triu(1) + noise.triu(1).T
    noise.fill_diagonal_(0)
    return Similarity(similarity.classes, scores + noise.to(scores.dtype))


def forget_ranks(table: Any, share: float, seed: int) -> Tensor:
    """Set pairs of two different classes, chosen at random, to -1 (ignored), both ways.

    Args:
        table: (C, C) integers, a rank table.
        share: in [0, 1], of the C (C - 1) / 2 pairs; round(share * pairs) are forgotten.
        seed: of the choice.

    Returns:
        (C, C) int8.

    Raises:
        ValueError: not a square table of ranks, or a share outside [0, 1].
    """
    _check_share(share)
    table = DenseRanks(table).matrix
    require(
        table.ndim == 2 and table.shape[0] == table.shape[1],
        f"the rank table must be (classes, classes), got shape {tuple(table.shape)}",
    )
    rows, columns = torch.triu_indices(len(table), len(table), offset=1, device=table.device)
    chosen = integers(_draw(len(rows), share, _generator(seed)))
    rows, columns = rows[chosen], columns[chosen]
    forgotten: Tensor = table.clone()
    forgotten[rows, columns] = IGNORED
    forgotten[columns, rows] = IGNORED
    return forgotten


def _draw(count: int, share: float, generator: torch.Generator) -> list[int]:
    order: list[int] = torch.randperm(count, generator=generator, device="cpu").tolist()
    return order[: round(share * count)]


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _check_share(share: float) -> None:
    require(0 <= share <= 1, f"share must lie in [0, 1], got {share}")
