"""Retrieval in a tree of classes: every level, and how far off a wrong answer is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rince.core.checks import require
from rince.core.labels import integers, require_no_unknown
from rince.metrics.arrays import (
    Array,
    Labels,
    checked_ks,
    cosine_chunks,
    self_excluded,
    tensors,
)
from rince.metrics.ordered_items import LevelPositives, OrderedItems
from rince.metrics.set_intersection import average_set_intersection


@dataclass(frozen=True)
class LevelResult:
    """Retrieval at one level: positives are the gallery items of the query's group there.

    Args:
        recall: k -> share of queries with a positive among the k nearest; ties go against the
            query.
        mean_average_precision: as in :func:`rince.metrics.retrieval`.
        r_precision: share of positives among the R nearest, R the number of the query's positives.
        map_at_r: mean over the R nearest places of the precision there, counted where a positive
            stands (Musgrave, Belongie, Lim, "A Metric Learning Reality Check", ECCV 2020).
        only_level: mean average precision of the items that meet the query at this level and not
            below: items that meet it below are left out, all others are negatives (HAPPIER's AP
            per level). NaN if no query has such an item.
        num_skipped: queries without a positive at this level; they take part in no mean.
    """

    recall: dict[int, float]
    mean_average_precision: float
    r_precision: float
    map_at_r: float
    only_level: float
    num_skipped: int


@dataclass(frozen=True)
class HierarchicalResult:
    """What :func:`hierarchical_retrieval` measures; all shares are in [0, 1].

    Args:
        levels: one result a level, finest first.
        h_ap: hierarchical average precision.
        asi: average set intersection.
        ndcg: of all items, with gains 2^relevance - 1.
        mistake_severity: mean height of the lowest common group of the query and a wrong nearest
            item: 1 = siblings, ..., L = nothing in common. NaN if no nearest item is wrong.
        distance: k -> mean of that height over the k nearest items, right ones at 0.
        num_skipped: queries without a positive at any level; they take part in no mean.
    """

    levels: tuple[LevelResult, ...]
    h_ap: float
    asi: float
    ndcg: float
    mistake_severity: float
    distance: dict[int, float]
    num_skipped: int


def hierarchical_retrieval(
    query_features: Array,
    gallery_features: Array,
    query_levels: Labels,
    gallery_levels: Labels,
    *,
    ks: int | Sequence[int] = (1, 5, 10, 20),
    exclude_self: bool | None = None,
    query_sequence: Labels | None = None,
    gallery_sequence: Labels | None = None,
    alpha: float = 1.0,
    chunk_size: int = 64,
) -> HierarchicalResult:
    r"""Retrieval by cosine similarity when classes form a tree of L levels.

    The relevance of an item is L for the query's class, L - 1 for its parent group, ..., 1 for
    its top group, 0 elsewhere. With rel = (relevance / L)^alpha, and k over the items of relevance
    above 0 in the order of similarity,

    .. math::
        \text{H-AP} = \frac{1}{\sum_k rel(k)} \sum_k \frac{\text{H-rank}(k)}{\text{rank}(k)}, \quad
        \text{H-rank}(k) = rel(k) + \sum_{j \text{ before } k} \min(rel(j), rel(k))

    (Ramzi et al., "Hierarchical Average Precision Training for Pertinent Image Retrieval", ECCV
    2022, arXiv 2207.04873, equations 2 to 4.) It is the mean of the levels' average precisions,
    each weighted by the number of its positives and by the step of rel at that level.

    ASI is the mean over n = 1 .. N, the number of items of relevance above 0, of the overlap of
    the n nearest items with the n first of an ideal order, divided by n; items of one relevance
    stand for each other (Sun et al., "Dynamic Metric Learning", CVPR 2021, arXiv 2103.11781).
    NDCG: Järvelin and Kekäläinen 2002. Mistake severity and distance: Bertinetto et al., "Making
    Better Mistakes", CVPR 2020, section 3, for the nearest items in place of predicted classes.

    Ties: R@k takes negatives first, average precision and H-AP count all items of a similarity
    (docs/decisions/0010); all others are expected values over the orders of tied items.

    Args:
        query_features: (Q, D) float. gallery_features: (G, D) float.
        query_levels: (Q, L) integers, the group of each query at each level, finest first;
            numbers from 0 on that tell the groups of a level apart. gallery_levels: (G, L).
        ks: of recall and distance, each at least 1; above the number of items all of them count.
        exclude_self: True: the first Q gallery items are the queries themselves; a query then
            does not find itself. None: False, with a warning where that is so (they share their
            memory).
        query_sequence, gallery_sequence: (Q,), (G,) integers from 0 on: items of one sequence (a
            burst, photos of one object) are never each other's answers. Give both or none.
        alpha: of rel in H-AP, positive.
        chunk_size: queries at a time; changes memory and speed, not the result.

    Raises:
        ValueError: wrong shapes, values that are not finite, negative numbers, groups that do not
            form a tree, or no query with any positive.

    Example:
        >>> gallery = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
        >>> levels = torch.tensor([[0, 0], [1, 0], [2, 1]])
        >>> query = torch.tensor([[1.0, 0.2]])
        >>> found = hierarchical_retrieval(query, gallery, torch.tensor([[0, 0]]), levels, ks=[1])
        >>> found.levels[0].recall[1], found.mistake_severity, round(found.h_ap, 4)
        (0.0, 1.0, 0.8333)
    """
    query_features, gallery_features = tensors(query_features, gallery_features)
    query_levels = integers(query_levels, "query_levels")
    gallery_levels = integers(gallery_levels, "gallery_levels")
    num_queries, num_items = len(query_features), len(gallery_features)
    ks = checked_ks(ks)
    require(alpha > 0, f"alpha must be positive, got {alpha}")
    _check_levels(query_levels, gallery_levels, num_queries, num_items)
    device = query_features.device
    sequences = _checked_sequences(query_sequence, gallery_sequence, num_queries, num_items, device)
    if sequences is None or exclude_self:  # an item is of its own sequence
        exclude_self = self_excluded(exclude_self, query_features, gallery_features)
    query_groups, gallery_groups = _renumbered(
        query_levels.to(device), gallery_levels.to(device)
    )  # (L, Q), (L, G)
    parts: list[_Chunk] = []
    for rows, similarity in cosine_chunks(
        query_features, gallery_features, chunk_size, bool(exclude_self)
    ):
        if sequences is not None:
            same = sequences[0][rows, None] == sequences[1][None, :]
            similarity.masked_fill_(same, -torch.inf)
        height = _heights(query_groups[:, rows], gallery_groups)
        parts.append(_measure(OrderedItems.of(similarity, height, len(query_groups)), ks, alpha))
    return _summary(parts, ks)


def top_down_consistency(predicted: Labels, true: Labels) -> float:
    """Of the samples predicted right at the finest level, the share right at all levels above.

    For predictions made at each level apart (one classifier a level): a husky that is called a
    husky and, above, a cat is no use. Predictions read off a tree are always consistent.

    Args:
        predicted: (N, L) integers from 0 on, predicted groups, finest level first. true: (N, L).

    Returns:
        In [0, 1]; NaN if nothing is right at the finest level.

    Raises:
        ValueError: shapes that differ or are not (N, L), or negative numbers.

    Example:
        >>> predicted = torch.tensor([[0, 0], [1, 1], [2, 1]])
        >>> top_down_consistency(predicted, torch.tensor([[0, 0], [1, 0], [3, 1]]))
        0.5
    """
    predicted, true = integers(predicted, "predicted"), integers(true, "true")
    require(
        predicted.shape == true.shape and predicted.ndim == 2,
        f"predicted and true must both be (samples, levels), got {tuple(predicted.shape)} and "
        f"{tuple(true.shape)}",
    )
    require_no_unknown(predicted, "predicted")
    require_no_unknown(true, "true")
    right = predicted == true.to(predicted.device)
    return float(right[right[:, 0]].all(dim=1).double().mean())


@dataclass(frozen=True)
class _Chunk:
    """What was measured of some queries, all float64."""

    # (rows, L, 5 + len(ks)): has a positive, average precision, R-precision, MAP@R, average
    # precision of this level only (NaN: none), and a hit among the nearest k.
    levels: Tensor
    # (rows, 5 + len(ks)): has any positive, H-AP, ASI, NDCG, probability that the nearest item is
    # of another class, its expected height, and the mean height among the nearest k.
    whole: Tensor


def _renumbered(query_levels: Tensor, gallery_levels: Tensor) -> tuple[Tensor, Tensor]:
    """(L, Q) and (L, G) int32: at each level the groups numbered from 0 on."""
    both = torch.cat([query_levels, gallery_levels])
    groups = [torch.unique(level, return_inverse=True)[1].int() for level in both.unbind(dim=1)]
    stacked = torch.stack(groups)
    return stacked[:, : len(query_levels)], stacked[:, len(query_levels) :].contiguous()


def _heights(query_groups: Tensor, gallery_groups: Tensor) -> Tensor:
    """(rows, G) uint8: the number of levels, from the finest on, where the groups differ."""
    height = torch.zeros(
        query_groups.shape[1],
        gallery_groups.shape[1],
        dtype=torch.uint8,
        device=query_groups.device,
    )
    for of_query, of_gallery in zip(query_groups, gallery_groups, strict=True):
        height += of_query[:, None] != of_gallery[None, :]
    return height


def _measure(items: OrderedItems, ks: Sequence[int], alpha: float) -> _Chunk:
    num_levels, device = len(items.counts), items.height.device
    place = torch.arange(items.height.shape[1], device=device).double() + 1
    harmonic, discounts = _running_sum(1 / place), _running_sum(1 / (place + 1).log2())
    levels: list[Tensor] = []
    # 0 / 0 where a query has no positive, or no item at all: these take part in no mean.
    h_ap = gain = best_gain = total_relevance = torch.zeros_like(items.candidates).double()
    for level in range(num_levels):
        positives = LevelPositives.of(items, level)
        total = positives.total
        average_precision = positives.average_precision()
        among_r = items.expected_among(level, total.long()) / total
        columns = [total > 0, average_precision, among_r, positives.map_at_r(harmonic)]
        columns += [positives.only_level(), *positives.hits(ks)]
        levels.append(torch.stack([x.double() for x in columns], dim=1))
        # Steps of rel and of the gain at this level, over the next coarser one.
        relevance = num_levels - level
        step = (relevance / num_levels) ** alpha - ((relevance - 1) / num_levels) ** alpha
        h_ap = h_ap + step * total * average_precision
        total_relevance = total_relevance + step * total
        step = 2.0**relevance  # twice (2^r - 1) - (2^(r - 1) - 1): only the ratio counts
        shared = discounts[positives.last] - discounts[positives.first]
        gain = gain + step * positives.sum(shared / (positives.last - positives.first))
        best_gain = best_gain + step * discounts[total.long()]
    heights = []
    for near in (items.candidates.clamp(max=k) for k in (1, *ks)):
        among = [items.expected_among(level, near) for level in range(num_levels)]
        heights.append(num_levels - torch.stack(among).sum(dim=0) / near)
    whole = [
        items.counts[-1][:, -1] > 0,
        h_ap / total_relevance,
        average_set_intersection(items),
        gain / best_gain,
        1 - items.expected_among(0, items.candidates.clamp(max=1)),
        *heights,
    ]
    return _Chunk(torch.stack(levels, dim=1), torch.stack([x.double() for x in whole], dim=1))


def _running_sum(values: Tensor) -> Tensor:
    """(n + 1,): entry i is the sum of the first i values."""
    return torch.cat([values.new_zeros(1), values.cumsum(0)])


def _check_levels(
    query_levels: Tensor, gallery_levels: Tensor, num_queries: int, num_items: int
) -> None:
    for side, levels, count in (
        ("query", query_levels, num_queries),
        ("gallery", gallery_levels, num_items),
    ):
        require(
            levels.ndim == 2 and len(levels) == count and levels.shape[1] >= 1,
            f"{side}_levels must be integers (items, levels), one row for each of the {count} "
            f"{side} features, got shape {tuple(levels.shape)}",
        )
        require_no_unknown(levels, f"{side}_levels")
    require(
        query_levels.shape[1] == gallery_levels.shape[1],
        f"query_levels have {query_levels.shape[1]} levels, gallery_levels "
        f"{gallery_levels.shape[1]}: give both the same levels, finest first",
    )
    both = torch.cat([query_levels, gallery_levels.to(query_levels)])
    for level in range(both.shape[1] - 1):
        pairs = torch.unique(both[:, level : level + 2], dim=0)
        groups, parents = torch.unique(pairs[:, 0], return_counts=True)
        several = groups[parents > 1]
        require(
            len(several) == 0,
            f"the levels form no tree: group {several[:1].tolist()} of level {level + 1} lies in "
            f"{int(parents.max())} groups of level {level + 2}. Levels go from fine to coarse, and "
            f"numbers that restart in every group must be made unique first",
        )


def _checked_sequences(
    query: Labels | None,
    gallery: Labels | None,
    num_queries: int,
    num_items: int,
    device: torch.device,
) -> tuple[Tensor, Tensor] | None:
    if query is None and gallery is None:
        return None
    if query is None or gallery is None:
        raise ValueError("query_sequence and gallery_sequence belong together: give both or none")
    query, gallery = integers(query, "query_sequence"), integers(gallery, "gallery_sequence")
    require(
        query.shape == (num_queries,) and gallery.shape == (num_items,),
        f"sequences must be one integer an item, got {tuple(query.shape)} for {num_queries} "
        f"queries and {tuple(gallery.shape)} for {num_items} gallery items",
    )
    require_no_unknown(query, "query_sequence")
    require_no_unknown(gallery, "gallery_sequence")
    return query.to(device), gallery.to(device)


def _summary(parts: Sequence[_Chunk], ks: Sequence[int]) -> HierarchicalResult:
    levels = torch.cat([part.levels for part in parts])  # (Q, L, 5 + len(ks))
    whole = torch.cat([part.whole for part in parts])
    usable = whole[:, 0] > 0
    require(
        bool(usable.any()),
        "no query has a gallery item of its own group at any level: check that queries and "
        "gallery number their groups alike",
    )
    found = []
    for level in levels.unbind(dim=1):
        chosen = level[level[:, 0] > 0]
        means = (
            chosen[:, 1:].mean(dim=0).tolist() if len(chosen) else [float("nan")] * (4 + len(ks))
        )
        found.append(
            LevelResult(
                recall=dict(zip(ks, means[4:], strict=True)),
                mean_average_precision=means[0],
                r_precision=means[1],
                map_at_r=means[2],
                only_level=float(level[:, 4].nanmean()),
                num_skipped=len(level) - len(chosen),
            )
        )
    whole = whole[usable]
    h_ap, asi, ndcg = whole[:, 1:4].mean(dim=0).tolist()
    return HierarchicalResult(
        levels=tuple(found),
        h_ap=h_ap,
        asi=asi,
        ndcg=ndcg,
        mistake_severity=float(whole[:, 5].sum() / whole[:, 4].sum()),
        distance=dict(zip(ks, whole[:, 6:].mean(dim=0).tolist(), strict=True)),
        num_skipped=int((~usable).sum()),
    )
