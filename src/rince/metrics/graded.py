"""Graded retrieval: NDCG@k."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rince.core.checks import require
from rince.core.labels import UNSIGNED
from rince.metrics.arrays import Array, checked_ks, cosine_chunks, self_excluded, tensors


def ndcg(
    query_features: Array,
    gallery_features: Array,
    gains: Array,
    *,
    ks: int | Sequence[int] = (10,),
    exclude_self: bool | None = None,
    chunk_size: int = 256,
) -> dict[int, Tensor]:
    r"""Normalised discounted cumulative gain of the k items nearest by cosine, query by query.

    :math:`\text{DCG} = \sum_{j \le k} g_j / \log_2(j + 1)`, over that of the best order. Items that
    tie share the discounts of their places, so their order plays no part (McSherry and Najork,
    "Computing Information Retrieval Performance Measures Efficiently in the Presence of Tied
    Scores", ECIR 2008); equal to ``sklearn.metrics.ndcg_score``.

    Args:
        query_features: (Q, D) float. gallery_features: (G, D) float.
        gains: (Q, G) numbers, at least 0: the grades themselves (as trec_eval does), or
            ``2**grades - 1`` for the steeper gain of Burges et al., ICML 2005. Unjudged items: 0.
            A sparse tensor may hold only those above 0.
        ks: how many nearest items to look at, each at least 1.
        exclude_self: True: the first Q gallery items are the queries themselves; a query then
            does not find itself. None: False, with a warning where that is so (they share their
            memory).
        chunk_size: queries at a time; changes memory and speed, not the result.

    Returns:
        k -> (Q,) float64 in [0, 1]; NaN for a query without any gain. ``nanmean()`` is the figure.

    Raises:
        ValueError: wrong shapes, gains that are negative or not finite, no query with a gain.

    >>> queries, gallery = torch.eye(2), torch.tensor([[1.0, 0.1], [1.0, 0.2], [0.0, 1.0]])
    >>> ndcg(queries, gallery, torch.tensor([[1, 3, 0], [0, 0, 2]]), ks=(2,))[2]
    tensor([0.7967, 1.0000], dtype=torch.float64)
    """
    query_features, gallery_features, graded = tensors(query_features, gallery_features, gains)
    shape = (len(query_features), len(gallery_features))
    require(
        tuple(graded.shape) == shape,
        f"gains must be (queries, gallery items) = {shape}, got {tuple(graded.shape)}",
    )
    ks = checked_ks(ks)
    exclude_self = self_excluded(exclude_self, query_features, gallery_features)
    graded = graded.to(query_features.device)
    if graded.dtype in UNSIGNED:
        graded = graded.double()
    given = graded
    if graded.layout != torch.strided:
        graded = graded.to_sparse().coalesce()
        given = graded.values()
    require(
        bool(given.isfinite().all()) and bool((given >= 0).all()),
        "gains must be finite and at least 0; write 0 for items without a grade",
    )
    with_gain = int((given > 0).sum())
    if exclude_self:
        with_gain -= int((_diagonal(graded) > 0).sum())
    require(
        with_gain > 0,
        f"no query has {'another' if exclude_self else 'an'} item with a gain above 0",
    )
    most = min(max(ks), shape[1])
    places = torch.arange(most, device=graded.device)
    discounts = {k: torch.where(places < k, 1 / (places + 2).double().log2(), 0) for k in ks}
    parts: dict[int, list[Tensor]] = {k: [] for k in ks}
    for rows, similarity in cosine_chunks(
        query_features, gallery_features, chunk_size, exclude_self
    ):
        some = torch.arange(rows.start, rows.stop, device=graded.device)
        all_gains = graded.index_select(0, some).to_dense().double()  # (rows, G)
        if exclude_self:
            all_gains.diagonal(offset=rows.start).fill_(0)
        all_gains /= all_gains.amax(dim=1, keepdim=True)  # so that no sum is infinite
        best = all_gains.topk(most, dim=1).values
        nearest, order = similarity.topk(most, dim=1)
        tied = nearest[:, 1:] == nearest[:, :-1]
        group = torch.zeros_like(order)  # (rows, most): items of equal similarity have one number
        group[:, 1:] = (~tied).cumsum(dim=1)
        gain = all_gains.gather(1, order)
        size = torch.zeros_like(gain).scatter_add_(1, group, torch.ones_like(gain))
        mean_gain = torch.zeros_like(gain).scatter_add_(1, group, gain)
        mean_gain /= size  # 0 / 0 behind the last group, where nobody looks
        gain = mean_gain.gather(1, group)
        # The last group may go on behind the nearest.
        last = similarity == nearest[:, -1:]
        of_last = (all_gains * last).sum(dim=1, keepdim=True) / last.sum(dim=1, keepdim=True)
        gain = torch.where(nearest == nearest[:, -1:], of_last, gain)
        for k, discount in discounts.items():
            parts[k].append((gain @ discount) / (best @ discount))  # 0 / 0 without any gain
    return {k: torch.cat(values) for k, values in parts.items()}


def _diagonal(graded: Tensor) -> Tensor:
    """The gains of the queries themselves, of a sparse matrix those that it holds."""
    if graded.layout == torch.strided:
        return graded.diagonal()
    rows, columns = graded.indices()
    return graded.values()[rows == columns]
