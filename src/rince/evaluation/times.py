"""Clips judged by time: is what was recorded together found together, and how far does it reach?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rince.core.checks import require
from rince.core.pair_ranks import ALL, IGNORED, PairRanks
from rince.evaluation.features import check_labels, cosine_chunks
from rince.evaluation.results import TimeCurve
from rince.ranks.time import seconds_apart

INFINITY = float("inf")
_EDGES = [0.0, *(step * 10.0**power for power in range(-1, 6) for step in (1, 2, 5))]  # seconds


def recall_by_rank(
    query_features: Tensor,
    gallery_features: Tensor,
    ranks: PairRanks,
    *,
    worst_rank: int,
    ks: Sequence[int] = (1, 5, 10, 20),
    chunk_size: int = 256,
) -> dict[int, float]:
    """Share of queries with a key of rank 1 to ``worst_rank`` among the k nearest.

    Args:
        query_features: (Q, D) float. gallery_features: (G, D) float.
        ranks: (Q, G); ignored pairs are not found, nor stand in the way.
        worst_rank: the last rank that counts as found.
        ks: how many nearest items to look at.
        chunk_size: queries at a time.

    Returns:
        k -> share in [0, 1]; ties count against the query, as in
        :func:`~rince.evaluation.retrieval.retrieval`. Queries without such a key take no part;
        {} if that is all of them.
    """
    hits: dict[int, list[Tensor]] = {k: [] for k in ks}
    for rows, similarity in cosine_chunks(query_features, gallery_features, chunk_size):
        tile = ranks.tile(rows, ALL).to(similarity.device)
        wanted = (tile > 0) & (tile <= worst_rank)
        best = similarity.masked_fill(~wanted, -INFINITY).amax(dim=1, keepdim=True)
        before = ((similarity >= best) & ~wanted & (tile != IGNORED)).sum(dim=1)
        for k in ks:
            hits[k].append((before < k)[wanted.any(dim=1)])
    found = {k: torch.cat(parts).double() for k, parts in hits.items()}
    return {k: float(values.mean()) for k, values in found.items() if len(values)}


def video_accuracy(logits: Tensor, labels: Tensor, videos: Tensor) -> float:
    """Accuracy over videos: the probabilities of a video's clips are averaged.

    Args:
        logits: (N, C). labels: (N,) int64. videos: (N,) int64; clips of one video but of two
            labels are judged as two videos.

    Returns:
        In [0, 1].

    Raises:
        ValueError: wrong shapes, or no clip.

    Example:
        >>> logits = torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
        >>> video_accuracy(logits, torch.tensor([0, 0, 0]), torch.tensor([7, 7, 8]))
        0.5
    """
    require(logits.ndim == 2 and len(logits) > 0, f"no logits: got {tuple(logits.shape)}")
    check_labels(labels, len(logits), "labels", logits.shape[1])
    pairs = torch.stack([videos, labels], dim=1)
    groups, number = torch.unique(pairs, dim=0, return_inverse=True)
    total = torch.zeros(len(groups), logits.shape[1], dtype=torch.float64)
    total.index_add_(0, number, logits.double().softmax(dim=1))
    return float((total.argmax(dim=1) == groups[:, 1]).double().mean())


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
