"""What a report draws of an evaluation: map, nearest neighbours, ROC and time curves."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from rince.core.checks import import_extra
from rince.core.pair_ranks import ALL, IGNORED
from rince.evaluation.context import Context
from rince.evaluation.levels import coarse_level
from rince.evaluation.results import Gallery, Map2D, RocCurve, TimeCurve
from rince.evaluation.times import similarity_over_time
from rince.metrics.roc import roc_curve


def roc_curves(context: Context) -> dict[tuple[str, str], RocCurve]:
    """(outlier set, detector) -> ROC curve."""
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
    features = normalize(test.features[chosen], dim=1).numpy()
    # Too few for t-SNE to mean anything; or all in one point, where it divides by zero.
    if len(chosen) < 10 or float(features.std(axis=0).max()) < 1e-6:
        return Map2D(np.zeros((0, 2)), np.zeros(0, dtype=int), np.zeros(0, dtype=int))
    manifold = import_extra("sklearn.manifold", "train")
    perplexity = min(30.0, (len(chosen) - 1) / 3)
    tsne = manifold.TSNE(perplexity=perplexity, init="pca", random_state=options.seed)
    fine = test.labels[chosen]
    coarse = context.taxonomy.labels_at(coarse_level(context.taxonomy))[fine]
    return Map2D(tsne.fit_transform(features), fine.numpy(), coarse.numpy())


def nearest_neighbours(context: Context) -> Gallery:
    """A sample of the test items with the items of the gallery nearest to them."""
    options, test = context.options, context.test
    gallery, items, pair_ranks = context.ranked
    queries = _sample(len(test), options.gallery_queries, options.seed)
    similarity = normalize(test.features[queries], dim=1) @ normalize(gallery.features, dim=1).T
    ranks = torch.cat([pair_ranks.tile(slice(i, i + 1), ALL) for i in queries.tolist()])  # (Q, G)
    similarity = similarity.masked_fill(ranks == IGNORED, -torch.inf)
    count = min(options.gallery_neighbours, int((ranks != IGNORED).sum(dim=1).min()))
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


def _sample(total: int, count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(total, generator=generator)[:count]
