"""What a report draws of an evaluation: map, nearest neighbours, ROC and time curves."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rince.core.checks import import_extra
from rince.core.pair_ranks import ALL, IGNORED, NEGATIVE
from rince.data.items import Thumbnails
from rince.evaluation.context import Context
from rince.evaluation.levels import coarse_level
from rince.evaluation.results import Confusion, Gallery, Map2D, RocCurve, TimeCurve
from rince.evaluation.times import similarity_over_time
from rince.metrics.arrays import unit_rows
from rince.metrics.roc import roc_curve
from rince.ranks.level_ranks import finest_common_level

_MAP_SIDE = 32  # pixels of a thumbnail on the map
_NONE = np.zeros((0, 1), dtype=np.int64)
_NO_QUERIES = Gallery(_NONE[:, 0], _NONE, _NONE, _NONE, _NONE[:, 0], _NONE)
_ROWS = 128  # queries at a time: their similarities to 60,000 items are 30 MB


def roc_curves(context: Context) -> dict[tuple[str, str], RocCurve]:
    return {name: roc_curve(*scores) for name, scores in context.outlier_scores.items()}


def time_curve(context: Context) -> TimeCurve | None:
    """Similarity over time; None for items that are not ranked by time."""
    times = context.splits.test.times
    if times is None or context.by_time is None:
        return None
    return similarity_over_time(context.test.features, times)


def feature_map(context: Context) -> Map2D:
    """t-SNE of a sample of the unit-length test features."""
    test, options = context.test, context.options
    chosen = _sample(len(test), options.map_points, options.seed)
    features = unit_rows(test.features[chosen]).numpy()
    # Too few for t-SNE to mean anything; or all in one point, where it divides by zero.
    if len(chosen) < 10 or float(features.std(axis=0).max()) < 1e-6:
        return Map2D(np.zeros((0, 2)), np.zeros(0, dtype=int), np.zeros(0, dtype=int))
    manifold = import_extra("sklearn.manifold", "train")
    perplexity = min(30.0, (len(chosen) - 1) / 3)
    tsne = manifold.TSNE(perplexity=perplexity, init="pca", random_state=options.seed)
    fine = test.labels[chosen]
    coarse = context.taxonomy.labels_at(coarse_level(context.taxonomy))[fine]
    items = context.splits.test
    shown = shrunk(items.thumbnails(chosen, _MAP_SIDE), _MAP_SIDE)
    return Map2D(tsne.fit_transform(features), fine.numpy(), coarse.numpy(), shown)


def shrunk(pictures: Thumbnails, side: int) -> Thumbnails:
    """Pictures (n, H, W, C) whose H is at most about ``side``, by the mean of whole blocks."""
    block = -(-pictures.shape[1] // side) if pictures.ndim == 4 and len(pictures) else 1
    if block == 1:
        return pictures
    count, height, width, channels = pictures.shape
    rows, columns = height // block, max(1, width // block)
    cut = pictures[:, : rows * block, : columns * block]
    parts = cut.reshape(count, rows, block, columns, -1, channels)
    small: Thumbnails = parts.mean(axis=(2, 4)).round().astype(np.uint8)
    return small


def nearest_neighbours(context: Context, queries: Tensor | None = None) -> Gallery:
    """Test items, by default a sample, with the items of the gallery nearest to them.
    Without those that have none, as every item is ignored."""
    options, test = context.options, context.test
    gallery, items, _ = context.ranked
    if queries is None:
        queries = _sample(len(test), options.gallery_queries, options.seed)
    keys = unit_rows(gallery.features)
    blocks = [_similarities(context, slice(i, i + 1), keys) for i in queries.tolist()]
    similarity, ranks = (torch.cat(parts) for parts in zip(*blocks, strict=True))  # (Q, G)
    known = (ranks != IGNORED).sum(dim=1)
    queries, similarity, ranks = (x[known > 0] for x in (queries, similarity, ranks))
    if not len(queries):
        return _NO_QUERIES
    count = min(options.gallery_neighbours, int(known[known > 0].min()))
    similarities, neighbours = similarity.topk(count, dim=1)  # (Q, n)
    size = context.splits.spec.size
    pictures = context.splits.test.thumbnails(queries, size)
    beside = items.thumbnails(neighbours.flatten(), size)
    return Gallery(
        queries=pictures,
        neighbours=beside.reshape(*neighbours.shape, *pictures.shape[1:]),
        ranks=ranks.gather(1, neighbours).numpy(),
        similarities=similarities.numpy(),
        query_labels=test.labels[queries].numpy(),
        neighbour_labels=gallery.labels[neighbours].numpy(),
    )


def failures(context: Context) -> tuple[Gallery, Confusion]:
    """The worst queries (see :class:`Evaluation`), and what is taken for what."""
    gallery = context.ranked.gallery
    keys = unit_rows(gallery.features)
    blocks = []
    for start in range(0, len(context.test), _ROWS):
        similarity, ranks = _similarities(context, slice(start, start + _ROWS), keys)
        highest, place = similarity.max(dim=1)
        right = similarity.masked_fill(ranks != 1, -torch.inf).amax(dim=1)
        blocks.append((place, ranks.gather(1, place[:, None])[:, 0], highest - right))
    nearest, rank, margin = (torch.cat(parts) for parts in zip(*blocks, strict=True))
    asked = rank != IGNORED  # of the others every item is ignored
    wrong = asked & (rank != 1) & margin.isfinite()  # without an item of rank 1 none is better
    severity = torch.where(rank == NEGATIVE, 127, rank)
    order = sorted(
        torch.nonzero(wrong)[:, 0].tolist(), key=lambda i: (-int(severity[i]), -float(margin[i]))
    )
    worst = torch.tensor(order[: context.options.gallery_queries], dtype=torch.int64)
    classes = torch.stack([context.test.labels[asked], gallery.labels[nearest[asked]]])
    pairs, count = torch.unique(classes, dim=1, return_counts=True)
    # Of the pairs that occur: a table of all classes would not fit, of very many.
    of_classes = finest_common_level(*context.taxonomy.codes.T[:, pairs].unbind(dim=1))
    confusion = Confusion(*(x.numpy() for x in (*pairs, count, of_classes.long())))
    return nearest_neighbours(context, worst) if len(worst) else _NO_QUERIES, confusion


def _similarities(context: Context, rows: slice, keys: Tensor) -> tuple[Tensor, Tensor]:
    """(R, G) cosines of test items and the unit-length gallery, -inf if ignored; their ranks."""
    ranks = context.ranked.ranks.tile(rows, ALL)
    similarity = unit_rows(context.test.features[rows]) @ keys.T
    return similarity.masked_fill(ranks == IGNORED, -torch.inf), ranks


def _sample(total: int, count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(total, generator=generator)[:count]
