"""Retrieval: recall at k and mean average precision by cosine similarity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rince.core.checks import require
from rince.core.pair_ranks import IGNORED, PairRanks
from rince.metrics.arrays import (
    Array,
    Labels,
    checked_ks,
    cosine_chunks,
    ranked_chunks,
    sample_labels,
    self_excluded,
    sort_rows,
    tensors,
)


@dataclass(frozen=True)
class RetrievalResult:
    """How well queries find their positives (gallery items of the same label).

    Args:
        recall: k -> share of queries with at least one positive among the k nearest items, in
            [0, 1]. Where similarities tie, negatives come first: a collapsed backbone, to which
            all items look the same, scores 0.
        mean_average_precision: mean over queries of the average precision, in [0, 1].
        num_skipped: queries without any positive in the gallery; they take part in no mean.
    """

    recall: dict[int, float]
    mean_average_precision: float
    num_skipped: int


def retrieval(
    query_features: Array,
    gallery_features: Array,
    query_labels: Labels,
    gallery_labels: Labels,
    *,
    ks: int | Sequence[int] = (1, 5, 10, 20),
    exclude_self: bool | None = None,
    chunk_size: int = 256,
) -> RetrievalResult:
    """Recall at k and mean average precision by cosine similarity.

    The average precision of a query is the mean over its positives p of the precision at p's
    similarity, (positives at least as similar as p) / (items at least as similar as p). It does
    not depend on the order of ties and equals ``sklearn.metrics.average_precision_score``.

    Args:
        query_features: (Q, D) float. gallery_features: (G, D) float.
        query_labels: (Q,) integers from 0 on. gallery_labels: (G,) likewise.
        ks: how many nearest items to look at, each at least 1; above G all items count.
        exclude_self: True: the first Q gallery items are the queries themselves; a query then
            does not find itself. None: False, with a warning where that is so (they share their
            memory).
        chunk_size: queries at a time; changes memory and speed, not the result.

    Returns:
        Recall for each k, and the mean average precision.

    Raises:
        ValueError: wrong shapes, values that are not finite, or no query has any positive.

    >>> queries, gallery = torch.eye(2), torch.tensor([[1.0, 0.1], [1.0, 0.2], [0.0, 1.0]])
    >>> retrieval(queries, gallery, torch.tensor([0, 1]), torch.tensor([1, 0, 1]), ks=(1, 2))
    RetrievalResult(recall={1: 0.5, 2: 1.0}, mean_average_precision=0.666..., num_skipped=0)
    """
    return retrieval_by_level(
        query_features,
        gallery_features,
        {"labels": (query_labels, gallery_labels)},
        ks=ks,
        exclude_self=exclude_self,
        chunk_size=chunk_size,
    )["labels"]


def retrieval_by_level(
    query_features: Array,
    gallery_features: Array,
    labels: Mapping[str, tuple[Labels, Labels]],
    *,
    ks: int | Sequence[int] = (1, 5, 10, 20),
    exclude_self: bool | None = None,
    chunk_size: int = 256,
) -> dict[str, RetrievalResult]:
    """:func:`retrieval` for several labellings of the same items (fine, coarse) in one pass.

    Args:
        query_features: (Q, D) float. gallery_features: (G, D) float.
        labels: name -> (query labels (Q,), gallery labels (G,)), integers from 0 on.
        ks, exclude_self, chunk_size: as in :func:`retrieval`.

    Returns:
        One result for each name.

    Raises:
        ValueError: as :func:`retrieval`.
    """
    query_features, gallery_features = tensors(query_features, gallery_features)
    num_queries, num_items = len(query_features), len(gallery_features)
    ks = checked_ks(ks)
    exclude_self = self_excluded(exclude_self, query_features, gallery_features)
    device = query_features.device
    positives: dict[str, _Positives] = {}
    for name, sides in labels.items():
        query_labels = sample_labels(sides[0], num_queries, f"query {name}")
        gallery_labels = sample_labels(sides[1], num_items, f"gallery {name}")
        positives[name] = _Positives(query_labels.to(device), gallery_labels.to(device))
    measured: dict[str, list[Tensor]] = {name: [] for name in labels}
    for rows, similarity in cosine_chunks(
        query_features, gallery_features, chunk_size, exclude_self
    ):
        scores = {name: sort_rows(p.scores(rows, similarity)) for name, p in positives.items()}
        ordered = sort_rows(similarity)
        for name, level in scores.items():
            measured[name].append(_measure(level, ordered, ks))
    return {name: _summary(torch.cat(chunks), ks, name) for name, chunks in measured.items()}


def recall_by_rank(
    query_features: Array,
    gallery_features: Array,
    ranks: PairRanks | Array,
    *,
    worst_rank: int,
    ks: int | Sequence[int] = (1, 5, 10, 20),
    chunk_size: int = 256,
) -> dict[int, float]:
    """Share of queries with a key of rank 1 to ``worst_rank`` among the k nearest.

    Args:
        query_features: (Q, D) float. gallery_features: (G, D) float.
        ranks: (Q, G); ignored pairs are left out of the ranking.
        worst_rank: the highest rank number that counts as positive, at least 1.
        ks: how many nearest items to look at.
        chunk_size: queries at a time.

    Returns:
        k -> share in [0, 1]; ties count against the query, as in
        :func:`retrieval`. Queries without such a key are left out;
        {} if that is all of them.

    Raises:
        ValueError: wrong shapes, values that are not finite, or an option out of its range.

    >>> queries, gallery = torch.eye(2), torch.tensor([[1.0, 0.1], [1.0, 0.2], [0.0, 1.0]])
    >>> ranks = torch.tensor([[0, 2, 1], [0, 0, 2]])
    >>> recall_by_rank(queries, gallery, ranks, worst_rank=1, ks=(1, 2, 3))
    {1: 0.0, 2: 0.0, 3: 1.0}
    """
    ks = checked_ks(ks)
    require(worst_rank >= 1, f"worst_rank must be at least 1, got {worst_rank}")
    hits: dict[int, list[Tensor]] = {k: [] for k in ks}
    for tile, similarity in ranked_chunks(query_features, gallery_features, ranks, chunk_size):
        positive = (tile > 0) & (tile <= worst_rank)
        best = similarity.masked_fill(~positive, -torch.inf).amax(dim=1, keepdim=True)
        before = ((similarity >= best) & ~positive & (tile != IGNORED)).sum(dim=1)
        for k in ks:
            hits[k].append((before < k)[positive.any(dim=1)])
    hits_per_query = {k: torch.cat(parts).double() for k, parts in hits.items()}
    return {k: float(values.mean()) for k, values in hits_per_query.items() if len(values)}


class _Positives:
    """Gallery items sorted by label, so that the positives of a query are a range of them."""

    def __init__(self, query_labels: Tensor, gallery_labels: Tensor) -> None:
        ordered, self.order = gallery_labels.sort()
        self.start = torch.searchsorted(ordered, query_labels)  # (Q,)
        self.count = torch.searchsorted(ordered, query_labels, right=True) - self.start

    def scores(self, rows: slice, similarity: Tensor) -> Tensor:
        """(rows, P) similarities of the positives; rows with fewer than P are filled with -inf."""
        count = self.count[rows, None]
        place = torch.arange(int(count.max()), device=count.device)
        items = self.order[(self.start[rows, None] + place).clamp(max=len(self.order) - 1)]
        return similarity.gather(1, items).masked_fill(place >= count, -torch.inf)


def _measure(positives: Tensor, ordered: Tensor, ks: Sequence[int]) -> Tensor:
    """(rows, 1 + len(ks)) float64: average precision, NaN without a positive, hit among the nearest
    k; of the similarities, ascending, of positives (rows, P), -inf for none, and of all (rows, G).
    """
    valid = positives > -torch.inf
    # Sorted ascending, so what is not below an element is at least as similar.
    all_above = ordered.shape[1] - torch.searchsorted(ordered, positives)  # (rows, P)
    positives_above = positives.shape[1] - torch.searchsorted(positives, positives)
    precision = (positives_above.double() / all_above).masked_fill(~valid, 0.0)
    average_precision = precision.sum(dim=1) / valid.sum(dim=1)
    # Negatives not below the best positive, which is last.
    best = (all_above - positives_above)[:, -1:].sum(dim=1)
    return torch.stack([average_precision, *(best < k for k in ks)], dim=1)


def _summary(measured: Tensor, ks: Sequence[int], name: str) -> RetrievalResult:
    usable = measured[~measured[:, 0].isnan()]
    require(
        len(usable) > 0,
        f"no query has a gallery item with the same label ({name}): check that queries and "
        "gallery number their classes alike",
    )
    mean_average_precision, *recall = usable.mean(dim=0).tolist()
    return RetrievalResult(
        recall=dict(zip(ks, recall, strict=True)),
        mean_average_precision=mean_average_precision,
        num_skipped=len(measured) - len(usable),
    )
