"""Retrieval in a tree of classes: every level, and how far off a wrong answer is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from rince.core.checks import require
from rince.evaluation.features import cosine_chunks, sort_rows

INFINITY = float("inf")


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
    query: Tensor,
    gallery: Tensor,
    query_levels: Tensor,
    gallery_levels: Tensor,
    *,
    ks: Sequence[int] = (1, 5, 10, 20),
    exclude_self: bool = False,
    query_sequence: Tensor | None = None,
    gallery_sequence: Tensor | None = None,
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
        query: (Q, D) float. gallery: (G, D) float.
        query_levels: (Q, L) integers, the group of each query at each level, finest first; at
            every level any numbers that tell groups apart. gallery_levels: (G, L).
        ks: of recall and distance, each at least 1; above the number of items all of them count.
        exclude_self: the first Q gallery items are the queries themselves; a query then does
            not find itself.
        query_sequence, gallery_sequence: (Q,), (G,) integers: items of one sequence (a burst,
            photos of one object) are never each other's answers. Give both or none.
        alpha: of rel in H-AP, positive.
        chunk_size: queries at a time; changes memory and speed, not the result.

    Raises:
        ValueError: wrong shapes, values that are not finite, groups that do not form a tree, or
            no query with any positive.

    Example:
        >>> gallery = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
        >>> levels = torch.tensor([[0, 0], [1, 0], [2, 1]])
        >>> query = torch.tensor([[1.0, 0.2]])
        >>> found = hierarchical_retrieval(query, gallery, torch.tensor([[0, 0]]), levels, ks=[1])
        >>> found.levels[0].recall[1], found.mistake_severity, round(found.h_ap, 4)
        (0.0, 1.0, 0.8333)
    """
    num_queries, num_items = len(query), len(gallery)
    require(all(k >= 1 for k in ks), f"ks must be at least 1, got {tuple(ks)}")
    require(alpha > 0, f"alpha must be positive, got {alpha}")
    _check_levels(query_levels, gallery_levels, num_queries, num_items)
    require(
        not exclude_self or num_items >= num_queries,
        "exclude_self=True says that the first gallery items are the queries themselves, but "
        f"there are {num_queries} queries and only {num_items} gallery items",
    )
    sequences = _checked_sequences(query_sequence, gallery_sequence, num_queries, num_items)
    members = [
        _Members(query_levels[:, level], gallery_levels[:, level])
        for level in range(query_levels.shape[1])
    ]
    parts: list[_Chunk] = []
    for rows, similarity in cosine_chunks(query, gallery, chunk_size):
        if exclude_self:
            similarity.diagonal(offset=rows.start).fill_(-INFINITY)
        if sequences is not None:
            same = sequences[0][rows, None] == sequences[1][None, :]
            similarity.masked_fill_(same, -INFINITY)
        scores = [sort_rows(level.scores(rows, similarity)) for level in members]
        parts.append(_measure(scores, sort_rows(similarity), ks, alpha))
    return _summary(parts, ks)


def top_down_consistency(predicted: Tensor, true: Tensor) -> float:
    """Of the samples predicted right at the finest level, the share right at all levels above.

    For predictions made at each level apart (one classifier a level): a husky that is called a
    husky and, above, a cat is no use. Predictions read off a tree are always consistent.

    Args:
        predicted: (N, L) integers, predicted groups, finest level first. true: (N, L).

    Returns:
        In [0, 1]; NaN if nothing is right at the finest level.

    Raises:
        ValueError: shapes that differ or are not (N, L).

    Example:
        >>> predicted = torch.tensor([[0, 0], [1, 1], [2, 1]])
        >>> top_down_consistency(predicted, torch.tensor([[0, 0], [1, 0], [3, 1]]))
        0.5
    """
    require(
        predicted.shape == true.shape and predicted.ndim == 2,
        f"predicted and true must both be (samples, levels), got {tuple(predicted.shape)} and "
        f"{tuple(true.shape)}",
    )
    right = predicted == true.to(predicted.device)
    return float(right[right[:, 0]].all(dim=1).double().mean())


@dataclass(frozen=True)
class _Chunk:
    """What was measured of some queries, all float64.

    Args:
        levels: (rows, L, 5 + len(ks)): has a positive, average precision, R-precision, MAP@R,
            average precision of this level only (NaN: none), and a hit among the nearest k.
        whole: (rows, 5 + len(ks)): has any positive, H-AP, ASI, NDCG, probability that the
            nearest item is of another class, its expected height, and the mean height among the
            nearest k, of which the first is that of k = 1.
    """

    levels: Tensor
    whole: Tensor


class _Members:
    """Gallery items sorted by group, so that the positives of a query are a range of them."""

    def __init__(self, query_groups: Tensor, gallery_groups: Tensor) -> None:
        ordered, self.order = gallery_groups.sort(stable=True)
        self.start = torch.searchsorted(ordered, query_groups.contiguous())  # (Q,)
        self.count = (
            torch.searchsorted(ordered, query_groups.contiguous(), right=True) - self.start
        )

    def scores(self, rows: slice, similarity: Tensor) -> Tensor:
        """(rows, P) similarities of the positives; rows with fewer than P are filled with -inf."""
        count = self.count[rows, None]
        place = torch.arange(int(count.max()), device=count.device)
        items = self.order[(self.start[rows, None] + place).clamp(max=len(self.order) - 1)]
        return similarity.gather(1, items).masked_fill(place >= count, -INFINITY)


@dataclass(frozen=True)
class _Placed:
    """Where the positives of a level stand, each (rows, P), ascending similarity.

    Items of one similarity share the places first + 1 .. last.
    """

    similarity: Tensor
    valid: Tensor
    first: Tensor
    last: Tensor
    count: Tensor  # (rows,)

    @classmethod
    def of(cls, positives: Tensor, ordered: Tensor) -> _Placed:
        valid = positives > -INFINITY
        total = ordered.shape[1]
        # What is not below an element is at least as similar.
        last = total - torch.searchsorted(ordered, positives)
        first = total - torch.searchsorted(ordered, positives, right=True)
        return cls(positives, valid, first, last, valid.sum(dim=1))

    def above(self, other: Tensor) -> Tensor:
        """(rows, P'): how many of these stand at or above each of the similarities ``other``."""
        return self.similarity.shape[1] - torch.searchsorted(self.similarity, other)

    def strictly_above(self, other: Tensor) -> Tensor:
        """(rows, P'): how many of these stand above each of the similarities ``other``."""
        end = torch.searchsorted(self.similarity, other, right=True)
        return self.similarity.shape[1] - end

    def tied(self) -> Tensor:
        """(rows, P): how many of these have the same similarity, itself included."""
        return self.above(self.similarity) - self.strictly_above(self.similarity)

    def expected_among(self, places: Tensor) -> Tensor:
        """(rows,): expected number of these among so many nearest items, places (rows,)."""
        inside = (places[:, None] - self.first).double() / (self.last - self.first).clamp(min=1)
        return inside.clamp(0, 1).masked_fill(~self.valid, 0).sum(dim=1)


def _measure(scores: list[Tensor], ordered: Tensor, ks: Sequence[int], alpha: float) -> _Chunk:
    """Args:
    scores: of each level, finest first, (rows, P) similarities of the positives, ascending.
    ordered: (rows, G) similarities of all items, ascending.
    """
    num_levels, num_items = len(scores), ordered.shape[1]
    placed = [_Placed.of(positives, ordered) for positives in scores]
    harmonic = _running_sum(1 / torch.arange(1, num_items + 1, device=ordered.device).double())
    discount = torch.arange(2, num_items + 2, device=ordered.device).double().log2()
    discounts = _running_sum(1 / discount)
    candidates = (ordered > -INFINITY).sum(dim=1)  # (rows,)
    levels: list[Tensor] = []
    h_ap = gain = best_gain = total_relevance = torch.zeros_like(harmonic[:1])
    finer: _Placed | None = None
    for index, level in enumerate(placed):
        average_precision = _average_precision(level, level.last)
        hits = _hits(level, ks)
        only = _only_level(level, finer)
        r_precision = level.expected_among(level.count) / level.count.clamp(min=1)
        columns = [level.count > 0, average_precision, r_precision, _map_at_r(level, harmonic)]
        levels.append(torch.stack([x.double() for x in (*columns, only, *hits)], dim=1))
        # Steps of rel and of the gain at this level, over the next coarser one.
        relevance = num_levels - index
        step = (relevance / num_levels) ** alpha - ((relevance - 1) / num_levels) ** alpha
        weight = step * level.count.double()
        h_ap = h_ap + weight * average_precision
        total_relevance = total_relevance + weight
        step = 2.0 ** (relevance - 1)  # (2^r - 1) - (2^(r - 1) - 1)
        shared = (discounts[level.last] - discounts[level.first]) / (
            level.last - level.first
        ).clamp(min=1)
        gain = gain + step * shared.masked_fill(~level.valid, 0).sum(dim=1)
        best_gain = best_gain + step * discounts[level.count]
        finer = level
    heights = [
        sum(
            (1 - level.expected_among(near) / near.clamp(min=1) for level in placed),
            torch.zeros_like(harmonic[:1]),
        )
        for near in (candidates.clamp(max=k) for k in (1, *ks))
    ]
    wrong = 1 - placed[0].expected_among(candidates.clamp(max=1))
    whole = [
        placed[-1].count > 0,
        h_ap / total_relevance,
        _average_set_intersection(placed),
        gain / best_gain,
        wrong,
        *heights,
    ]
    return _Chunk(torch.stack(levels, dim=1), torch.stack([x.double() for x in whole], dim=1))


def _running_sum(values: Tensor) -> Tensor:
    """(n + 1,): entry i is the sum of the first i values."""
    return torch.cat([values.new_zeros(1), values.cumsum(0)])


def _average_precision(level: _Placed, places: Tensor) -> Tensor:
    precision = level.above(level.similarity).double() / places.clamp(min=1)
    return precision.masked_fill(~level.valid, 0).sum(dim=1) / level.count.clamp(min=1)


def _hits(level: _Placed, ks: Sequence[int]) -> list[Tensor]:
    if level.similarity.shape[1] == 0:
        return [level.count > 0 for _ in ks]
    best = level.similarity[:, -1:].contiguous()
    negatives_not_below = level.last[:, -1] - level.above(best)[:, 0]
    return [(negatives_not_below < k) & (level.count > 0) for k in ks]


def _only_level(level: _Placed, finer: _Placed | None) -> Tensor:
    """(rows,) average precision with the finer level's positives left out; NaN without any."""
    above, tied = level.above(level.similarity), level.tied()
    finer_above, finer_tied = torch.zeros_like(above), torch.zeros_like(above)
    if finer is not None:
        finer_above = finer.above(level.similarity)
        finer_tied = finer_above - finer.strictly_above(level.similarity)
    # A run of equal similarity counts once for each of its positives that is not the finer level's.
    share = (tied - finer_tied).double() / tied.clamp(min=1)
    precision = (above - finer_above).double() / (level.last - finer_above).clamp(min=1)
    count = level.count - (0 if finer is None else finer.count)
    total = (precision * share).masked_fill(~level.valid, 0).sum(dim=1)
    return torch.where(count > 0, total / count.clamp(min=1), float("nan"))


def _map_at_r(level: _Placed, harmonic: Tensor) -> Tensor:
    """(rows,) expected MAP@R.

    A run of m tied items at the places s + 1 .. s + m holds p positives, b stand before it. At its
    place i a positive stands with probability p / m, and then b + 1 + (i - s - 1) (p - 1) / (m - 1)
    positives are expected up to there. A positive's share of the run is the p-th part.
    """
    wanted = level.count[:, None]  # R
    first, size = level.first, level.last - level.first
    last = torch.minimum(level.last, wanted)
    before, tied = level.strictly_above(level.similarity), level.tied()
    inside = last > first
    last = torch.maximum(last, first)
    reciprocals = harmonic[last] - harmonic[first]
    further = (last - first) - (first + 1) * reciprocals
    expected = (before + 1) * reciprocals / size.clamp(min=1)
    expected = expected + (tied - 1) * further / (size * (size - 1)).clamp(min=1)
    total = expected.masked_fill(~(level.valid & inside), 0).sum(dim=1)
    return total / level.count.clamp(min=1)


def _average_set_intersection(placed: Sequence[_Placed]) -> Tensor:
    """(rows,) expected ASI.

    Up to place n the ideal order holds all positives of the levels below b(n) and fills up with
    those of level b(n), so the overlap is (nearest ones below b) + min(nearest ones of b, room).
    """
    coarsest = placed[-1]
    width = coarsest.similarity.shape[1]
    if width == 0:
        return torch.zeros(len(coarsest.count), dtype=torch.float64, device=coarsest.count.device)
    n = torch.arange(1, width + 1, device=coarsest.count.device)
    overlap = torch.zeros(len(coarsest.count), width, dtype=torch.float64, device=n.device)
    counts_below = torch.zeros_like(coarsest.count)
    below = torch.zeros_like(overlap)
    for level in placed:
        up_to = _expected_counts(level, width)  # (rows, width)
        room = n - counts_below[:, None]
        inside = (room > 0) & (n <= level.count[:, None])
        overlap = torch.where(
            inside, below + torch.minimum(up_to - below, room.double()), overlap
        )
        counts_below, below = level.count, up_to
    for row, first, last in _tied_runs(placed, width):
        _correct_tied_run(overlap, placed, row, first, last)
    share = (overlap / n).masked_fill(n > coarsest.count[:, None], 0)
    return share.sum(dim=1) / coarsest.count.clamp(min=1)


def _expected_counts(level: _Placed, width: int) -> Tensor:
    """(rows, width): expected number of the level's positives among the n nearest, n = 1 ...."""
    rows = len(level.count)
    steps = torch.zeros(rows, width + 1, dtype=torch.float64, device=level.first.device)
    share = (1 / (level.last - level.first).clamp(min=1).double()).masked_fill(~level.valid, 0)
    # A positive adds its share at each of its tied places: a rise at the first, a fall behind the
    # last.
    steps.scatter_add_(1, level.first.clamp(max=width), share)
    steps.scatter_add_(1, level.last.clamp(max=width), -share)
    return steps[:, :width].cumsum(dim=1).cumsum(dim=1)


def _tied_runs(placed: Sequence[_Placed], width: int) -> Iterator[tuple[int, int, int]]:
    """(row, first, last) of the runs of tied places that begin within the width and hold a
    positive."""
    coarsest = placed[-1]
    tied = coarsest.valid & (coarsest.last - coarsest.first > 1) & (coarsest.first < width)
    if not bool(tied.any()):
        return
    rows = tied.nonzero()[:, 0]
    runs = torch.stack([rows, coarsest.first[tied], coarsest.last[tied]], dim=1)
    for row, first, last in torch.unique(runs, dim=0).tolist():
        yield row, first, last


def _correct_tied_run(
    overlap: Tensor, placed: Sequence[_Placed], row: int, first: int, last: int
) -> None:
    """The expectation of a minimum is not the minimum of expectations: put it right."""
    size, width = last - first, overlap.shape[1]
    inside = [int(((p.first[row] == first) & p.valid[row]).sum()) for p in placed]
    before = [int(((p.first[row] < first) & p.valid[row]).sum()) for p in placed]
    totals = [int(p.count[row]) for p in placed]
    for n in range(first + 1, min(last, width, totals[-1]) + 1):
        level = next(i for i, total in enumerate(totals) if n <= total)
        finer = level - 1
        inside_below, before_below, total_below = (
            (inside[finer], before[finer], totals[finer]) if level else (0, 0, 0)
        )
        of_level = inside[level] - inside_below
        seen = before[level] - before_below
        drawn = n - first
        overlap[row, n - 1] = (
            before_below
            + drawn * inside_below / size
            + _expected_minimum(size, of_level, drawn, n - total_below - seen)
            + seen
            if n - total_below >= seen
            else before_below + drawn * inside_below / size + n - total_below
        )


@lru_cache(maxsize=2**16)
def _expected_minimum(size: int, marked: int, drawn: int, room: int) -> float:
    """E[min(X, room)], X the marked ones among ``drawn`` of ``size`` items: hypergeometric."""
    fewest, most = max(0, drawn - (size - marked)), min(drawn, marked)
    if room <= fewest:
        return float(room)
    if room >= most:
        return drawn * marked / size
    counts = torch.arange(fewest, most + 1, dtype=torch.float64)

    def log_choose(total: float | Tensor, chosen: Tensor) -> Tensor:
        total = torch.as_tensor(total, dtype=torch.float64)
        return torch.lgamma(total + 1) - torch.lgamma(chosen + 1) - torch.lgamma(total - chosen + 1)

    log_share = log_choose(marked, counts) + log_choose(size - marked, drawn - counts)
    share = (log_share - log_share.logsumexp(0)).exp()
    return float((share * counts.clamp(max=room)).sum())


def _check_levels(
    query_levels: Tensor, gallery_levels: Tensor, num_queries: int, num_items: int
) -> None:
    for side, levels, count in (
        ("query", query_levels, num_queries),
        ("gallery", gallery_levels, num_items),
    ):
        require(
            levels.ndim == 2
            and len(levels) == count
            and levels.shape[1] >= 1
            and not levels.is_floating_point()
            and levels.dtype != torch.bool,
            f"{side}_levels must be integers (items, levels), one row for each of the {count} "
            f"{side} features, got shape {tuple(levels.shape)} and {levels.dtype}",
        )
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
    query: Tensor | None, gallery: Tensor | None, num_queries: int, num_items: int
) -> tuple[Tensor, Tensor] | None:
    require(
        (query is None) == (gallery is None),
        "query_sequence and gallery_sequence belong together: give both or none",
    )
    if query is None or gallery is None:
        return None
    require(
        query.shape == (num_queries,) and gallery.shape == (num_items,),
        f"sequences must be one integer an item, got {tuple(query.shape)} for {num_queries} "
        f"queries and {tuple(gallery.shape)} for {num_items} gallery items",
    )
    return query, gallery.to(query.device)


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
        means = chosen[:, 1:].mean(dim=0).tolist() if len(chosen) else [float("nan")] * (4 + len(ks))
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
