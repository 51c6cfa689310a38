"""Pairs of queries and their positives in a batch, class by class.

Terms of the "out" form ask something of each positive, not of sums alone. Positives are few, so
their similarities are computed apart from all the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

PAIRS_AT_A_TIME = 2**18
QUERIES_OF_A_CLASS = 64


class PositivePairs(NamedTuple):
    """U runs of at most L queries of one class, each with the at most M positives of the class.

    Args:
        queries: (U, L), keys: (U, M) places in the batch; padding is some place, too.
        real: (U, L, M) bool; False is padding.
        similarity: (U, L, M).
    """

    queries: Tensor
    keys: Tensor
    real: Tensor
    similarity: Tensor


class _Run(NamedTuple):
    """Queries of one class that follow each other."""

    class_index: int
    first: int
    size: int


def positive_pairs(z: Tensor, labels: Tensor, positive: Tensor) -> Iterator[PositivePairs]:
    """All pairs of a sample and its positives (itself too, if its class is), each once.

    Args:
        z: (N, D). labels: (N,), ascending.
        positive: (C, C) bool: keys of the second class are positives of queries of the first.
    """
    count = torch.bincount(labels, minlength=len(positive))
    num_positives = (positive * count).sum(dim=1).tolist()
    runs, start = [], 0
    for a, size in enumerate(count.tolist()):
        if num_positives[a]:
            for first in range(start, start + size, QUERIES_OF_A_CLASS):
                runs.append(_Run(a, first, min(QUERIES_OF_A_CLASS, start + size - first)))
        start += size
    # Classes with as many positives together: little padding.
    runs.sort(key=lambda run: num_positives[run.class_index])
    while runs:
        width = max(run.size for run in runs)
        taken = 1
        while taken < len(runs):
            pairs = (taken + 1) * width * num_positives[runs[taken].class_index]
            if pairs > PAIRS_AT_A_TIME:
                break
            taken += 1
        yield _pairs_of(runs[:taken], z, labels, positive)
        runs = runs[taken:]


def add_gradient(d_z: Tensor, z: Tensor, pairs: PositivePairs, gradient: Tensor) -> None:
    """Carry a gradient by similarities (U, L, M), 0 for padding, on to the samples: (N, D)."""
    for a, b, g in (
        (pairs.queries, pairs.keys, gradient),
        (pairs.keys, pairs.queries, gradient.mT),
    ):
        d_z.index_add_(0, a.flatten(), (g @ functional.embedding(b, z)).flatten(0, 1))


def padded_places(mask: Tensor) -> Tensor:
    """(U, N) bool -> (U, M): the places that are True in each row, filled up with -1."""
    row, place = mask.nonzero(as_tuple=True)  # ordered by row
    count = mask.sum(dim=1)
    nth = torch.arange(len(place), device=place.device) - (count.cumsum(0) - count)[row]
    places = place.new_full((len(mask), int(count.max())), -1)
    places[row, nth] = place
    return places


def _pairs_of(runs: list[_Run], z: Tensor, labels: Tensor, positive: Tensor) -> PositivePairs:
    classes, first, size = torch.tensor(runs, device=z.device).T
    step = torch.arange(int(size.max()), device=z.device)
    real_queries = step < size[:, None]  # (U, L)
    queries = torch.where(real_queries, first[:, None] + step, 0)
    keys = padded_places(positive[classes][:, labels])  # (U, M)
    real_keys, keys = keys >= 0, keys.clamp(min=0)
    # An embedding look-up copies whole rows; z[places] is several times slower.
    similarity = functional.embedding(queries, z) @ functional.embedding(keys, z).mT
    return PositivePairs(
        queries, keys, real_queries[:, :, None] & real_keys[:, None, :], similarity
    )
