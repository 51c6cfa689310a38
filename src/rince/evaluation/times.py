"""How similar clips of one video are, by the seconds between them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rince.evaluation.results import TimeCurve
from rince.metrics.arrays import cosine_chunks
from rince.ranks.time import seconds_apart

_EDGES = [0.0, *(step * 10.0**power for power in range(-1, 6) for step in (1, 2, 5))]  # seconds


def similarity_over_time(features: Tensor, items: Tensor, *, chunk_size: int = 256) -> TimeCurve:
    """Mean cosine of two different clips of a video against the seconds between them.

    Args:
        features: (N, D) float.
        items: (N, 5), see :meth:`TimeRanks.items <rince.TimeRanks.items>`.
        chunk_size: clips at a time.

    Returns:
        A point for each range of gaps (0 to 0.1 s, to 0.2, 0.5, 1, ...) that occurs.
    """
    edges = torch.tensor(_EDGES, dtype=torch.float64)
    # The last place is for pairs of two videos.
    sums = torch.zeros(3, len(edges) + 1, dtype=torch.float64)  # gap, similarity, number
    for rows, similarity in cosine_chunks(features, features, chunk_size):
        similarity = similarity.double().cpu()
        apart = seconds_apart(items[rows], items)  # inf: another video
        place = torch.bucketize(apart, edges, right=True) - 1
        place[apart.isinf()] = len(edges)
        other = torch.ones_like(place, dtype=torch.bool)
        other[torch.arange(len(place)), torch.arange(rows.start, rows.stop)] = False
        for i, values in enumerate((apart.clamp(max=1e12), similarity, torch.ones_like(apart))):
            sums[i].index_add_(0, place[other], values[other])
    within, number = sums[:, :-1], sums[2, :-1]
    used = number > 0
    elsewhere = float(sums[1, -1] / sums[2, -1]) if sums[2, -1] > 0 else float("nan")
    return TimeCurve(
        seconds=(within[0] / number)[used].numpy(),
        similarity=(within[1] / number)[used].numpy(),
        pairs=(number[used] / 2).numpy().astype(np.int64),
        other_videos=elsewhere,
    )
