"""Mean cosines between classes."""

from __future__ import annotations

import torch
from torch import Tensor

from rince.metrics.arrays import (
    Array,
    Labels,
    check_same_width,
    sample_labels,
    tensors,
    unit_features,
)


def mean_class_cosines(
    query_features: Array,
    gallery_features: Array,
    query_labels: Labels,
    gallery_labels: Labels,
    num_classes: int,
) -> Tensor:
    """Mean cosine between the queries of a class and the gallery items of another.

    The mean over all pairs is the dot product of the classes' mean unit vectors::

        mean over i in a, j in b of cos(q_i, g_j)
            = (mean over i in a of q_i / |q_i|) . (mean over j in b of g_j / |g_j|)

    so that no matrix of queries by gallery items is needed.

    Args:
        query_features: (Q, D) float. gallery_features: (G, D) float.
        query_labels: (Q,) integers. gallery_labels: (G,) integers, both in [0, C).
        num_classes: C.

    Returns:
        (C, C) float32 in [-1, 1], one row per query class; NaN where a side lacks the class.

    Raises:
        ValueError: wrong shapes, values that are not finite, or labels beyond C.

    >>> features, labels = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])
    >>> mean_class_cosines(features, features, labels, labels, 2).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    query_features, gallery_features = tensors(query_features, gallery_features)
    query = _class_means(query_features, query_labels, num_classes, "query")
    gallery = _class_means(gallery_features, gallery_labels, num_classes, "gallery")
    check_same_width(query, gallery)
    return (query @ gallery.T).clamp(-1, 1).float()


def _class_means(features: Tensor, labels: Labels, num_classes: int, side: str) -> Tensor:
    """(C, D) float64 means of the unit vectors; NaN for a class without any."""
    labels = sample_labels(labels, len(features), f"{side} labels", num_classes)
    unit = unit_features(features, f"{side} features").double()
    labels = labels.to(unit.device)
    sums = unit.new_zeros(num_classes, unit.shape[1]).index_add_(0, labels, unit)
    return sums / torch.bincount(labels, minlength=num_classes)[:, None]
