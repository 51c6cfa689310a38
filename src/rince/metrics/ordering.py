"""Rank order: keys of a better rank should be more similar to their query."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from rince.core.checks import require
from rince.core.pair_ranks import IGNORED, NEGATIVE, PairRanks
from rince.metrics.arrays import Array, ranked_chunks, sort_rows
from rince.metrics.curves import Histograms


def rank_agreement(
    query_features: Array,
    gallery_features: Array,
    ranks: PairRanks | Array,
    *,
    chunk_size: int = 256,
) -> dict[str, float]:
    """How often similarities keep the order of neighbouring ranks, strictly and pair by pair.

    The neighbour of a rank is the next worse one that the query itself has: with siblings one
    level up it is 2, in a ragged tree that has no rank 2 for the query it is 3, and without any
    other positive it is 0, the negatives. For ranks 1, 2 and negatives everywhere the keys are
    ``1>2``, ``2>0``, ``pairs/1>2``, ``pairs/2>0``; queries without rank 2 give ``1>0``.

    - ``a>b``: share of queries whose LEAST similar key of rank a beats their MOST similar key of
      rank b. One pair in the wrong order fails a query, so it is small for large galleries.
    - ``pairs/a>b``: mean over queries of P(s_a > s_b) for a random key of either rank; ties
      count one half, and 0.5 is chance.

    Args:
        query_features: (Q, D) float. gallery_features: (G, D) float.
        ranks: (Q, G), a rank source or an integer matrix; pairs of rank -1 are left out.
        chunk_size: queries at a time; changes memory and speed, not the result.

    Returns:
        name -> value in [0, 1], the mean over the queries that have these two neighbours.

    Raises:
        ValueError: wrong shapes, values that are not finite, or no query has keys of two ranks.

    >>> gallery = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    >>> ranks = torch.tensor([[1, 2, 0]])
    >>> rank_agreement(torch.tensor([[1.0, 0.1]]), gallery, ranks)
    {'1>2': 1.0, '2>0': 1.0, 'pairs/1>2': 1.0, 'pairs/2>0': 1.0}
    """
    strict: dict[tuple[int, int], list[Tensor]] = {}
    pairs: dict[tuple[int, int], list[Tensor]] = {}
    for levels in _levels(query_features, gallery_features, ranks, chunk_size):
        counts = {rank: count for rank, (_, count) in levels.items()}
        for better, worse in _level_pairs(levels):
            neighbours = (counts[better] > 0) & (counts[worse] > 0)
            for rank, count in counts.items():
                if similar_first(better) < similar_first(rank) < similar_first(worse):
                    neighbours &= count == 0
            if not bool(neighbours.any()):
                continue
            (s_better, n_better), (s_worse, n_worse) = levels[better], levels[worse]
            most_similar = s_worse.gather(1, (n_worse - 1).clamp(min=0)[:, None])[:, 0]
            holds = s_better[:, 0] > most_similar
            strict.setdefault((better, worse), []).append(holds[neighbours])
            won = _pairs_won(levels[better], levels[worse]) / (n_better * n_worse)
            pairs.setdefault((better, worse), []).append(won[neighbours])
    require(
        bool(strict),
        "no query has gallery items of two ranks, so there is no order to measure",
    )
    order = sorted(strict, key=lambda names: [similar_first(rank) for rank in names])
    return {
        f"{prefix}{better}>{worse}": float(torch.cat(values[better, worse]).double().mean())
        for prefix, values in (("", strict), ("pairs/", pairs))
        for better, worse in order
    }


def rank_correlation(
    query_features: Array,
    gallery_features: Array,
    ranks: PairRanks | Array,
    *,
    chunk_size: int = 256,
) -> float:
    """Mean over queries of the correlation between similarity and rank (Somers' D).

    Over all pairs of keys of different rank (negatives being the least similar):
    ((pairs in the right order) - (pairs in the wrong order)) / pairs; tied similarities count as
    neither. 1 is a perfect order, 0 chance, -1 the reverse. Kendall's tau-b has the same
    numerator, but also divides by the pairs within a rank, so that with a few positives among
    many negatives a perfect order would score near 0. Equal to ``scipy.stats.somersd``.

    Args:
        query_features: (Q, D) float. gallery_features: (G, D) float.
        ranks: (Q, G), a rank source or an integer matrix; pairs of rank -1 are left out.
        chunk_size: queries at a time; changes memory and speed, not the result.

    Returns:
        In [-1, 1]. Queries whose keys are all of one rank are left out.

    Raises:
        ValueError: wrong shapes, values that are not finite, or no query has keys of two ranks.

    >>> gallery = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    >>> rank_correlation(torch.tensor([[1.0, 0.1]]), gallery, torch.tensor([[1, 0, 2]]))
    0.333...
    """
    correlations = []
    for levels in _levels(query_features, gallery_features, ranks, chunk_size):
        some = next(iter(levels.values()))[1]
        won, total = torch.zeros_like(some, dtype=torch.float64), torch.zeros_like(some)
        for better, worse in _level_pairs(levels):
            won += _pairs_won(levels[better], levels[worse])
            total += levels[better][1] * levels[worse][1]
        usable = total > 0
        correlations.append(2 * won[usable] / total[usable] - 1)
    require(
        any(len(part) for part in correlations),
        "no query has gallery items of two ranks, so rank and similarity cannot correlate",
    )
    return float(torch.cat(correlations).mean())


def similarity_histograms(
    query_features: Array,
    gallery_features: Array,
    ranks: PairRanks | Array,
    *,
    bins: int = 60,
    chunk_size: int = 256,
) -> Histograms:
    """Count the cosines of all pairs, rank by rank.

    Args:
        query_features: (Q, D) float. gallery_features: (G, D) float.
        ranks: (Q, G), a rank source or an integer matrix; pairs of rank -1 are not counted.
        bins: number of bins of equal width over [-1, 1]. A bin holds its left edge; the last one
            also holds 1.
        chunk_size: queries at a time; changes memory and speed, not the result.

    Returns:
        Counts (bins,) int64 for each rank that occurs.

    Raises:
        ValueError: wrong shapes or values that are not finite.
    """
    require(bins >= 1, f"bins must be at least 1, got {bins}")
    parts = []
    for tile, similarity in ranked_chunks(query_features, gallery_features, ranks, chunk_size):
        place = ((similarity + 1) * (bins / 2)).long().clamp(0, bins - 1)
        # One code for rank and bin, so that one count does it all. Rank -1 comes first.
        codes = (tile.long() - IGNORED) * bins + place
        parts.append(torch.bincount(codes.flatten()).cpu())
    total = pad_sequence(parts, batch_first=True).sum(dim=0)  # they end with their worst rank
    counts = functional.pad(total, (0, -len(total) % bins)).reshape(-1, bins)
    return Histograms(
        edges=torch.linspace(-1, 1, bins + 1, dtype=torch.float64, device="cpu").numpy(),
        counts={
            rank: counts[rank - IGNORED].numpy()
            for rank in range(len(counts) + IGNORED)
            if int(counts[rank - IGNORED].sum())
        },
    )


Level = tuple[Tensor, Tensor]
"""Of one rank: similarities (rows, P) ascending, filled up with inf, and how many (rows,)."""


def _levels(
    query_features: Array, gallery_features: Array, ranks: PairRanks | Array, chunk_size: int
) -> Iterator[dict[int, Level]]:
    """For a chunk of queries, the similarities of each rank that occurs in it."""
    for tile, similarity in ranked_chunks(query_features, gallery_features, ranks, chunk_size):
        levels = {}
        for rank in range(NEGATIVE, int(tile.max()) + 1):
            of_rank = tile == rank
            count = of_rank.sum(dim=1)
            if most := int(count.max()):
                ordered = sort_rows(similarity.masked_fill(~of_rank, torch.inf))
                levels[rank] = (ordered[:, :most].contiguous(), count)
        if levels:
            yield levels


def similar_first(rank: int) -> tuple[bool, int]:
    """A key to sort ranks by: 1, 2, ..., and negatives last."""
    return rank <= NEGATIVE, rank


def _level_pairs(levels: dict[int, Level]) -> list[tuple[int, int]]:
    order = sorted(levels, key=similar_first)
    return [(a, b) for i, a in enumerate(order) for b in order[i + 1 :]]


def _pairs_won(better: Level, worse: Level) -> Tensor:
    """(rows,) float64: pairs in which the better rank is more similar; ties count one half."""
    similarity, count = better
    others, _ = worse
    below = torch.searchsorted(others, similarity) + torch.searchsorted(
        others, similarity, right=True
    )
    real = torch.arange(similarity.shape[1], device=count.device) < count[:, None]
    return below.masked_fill(~real, 0).sum(dim=1).double() / 2
