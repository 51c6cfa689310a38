"""Is the order of the classes learned? Their mean cosines, beside the ranks that were given."""

from __future__ import annotations

import torch
from torch import Tensor

from rince.core.checks import require
from rince.evaluation.features import FeatureSet, check_labels, unit_features
from rince.evaluation.results import ClassSimilarity
from rince.ranks.class_ranks import ClassRanks
from rince.ranks.taxonomy import Taxonomy

MAX_CLASSES = 1000  # 2 MB in the run's folder, and as many lines as a picture can show


def mean_class_cosines(
    query_features: Tensor,
    query_labels: Tensor,
    gallery_features: Tensor,
    gallery_labels: Tensor,
    num_classes: int,
) -> Tensor:
    """Mean cosine between the queries of a class and the gallery items of another.

    The mean over all pairs is the dot product of the classes' mean unit vectors::

        mean over i in a, j in b of cos(q_i, g_j)
            = (mean over i in a of q_i / |q_i|) . (mean over j in b of g_j / |g_j|)

    so that no matrix of queries by gallery items is needed.

    Args:
        query_features: (Q, D) float. query_labels: (Q,) int64 in [0, C).
        gallery_features: (G, D) float. gallery_labels: (G,) int64 in [0, C).
        num_classes: C.

    Returns:
        (C, C) float32 in [-1, 1], a row a query's class; NaN where a side has none of the class.

    Raises:
        ValueError: wrong shapes, values that are not finite, or labels beyond C.

    >>> features, labels = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])
    >>> mean_class_cosines(features, labels, features, labels, 2).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    query = _class_means(query_features, query_labels, num_classes, "query")
    gallery = _class_means(gallery_features, gallery_labels, num_classes, "gallery")
    require(
        query.shape == gallery.shape,
        f"query and gallery features must have as many dimensions, got {query.shape[1]} and "
        f"{gallery.shape[1]}: they come from different backbones",
    )
    return (query @ gallery.T).clamp(-1, 1).float()


def class_similarity(
    test: FeatureSet, train: FeatureSet, taxonomy: Taxonomy, given: ClassRanks | None = None
) -> ClassSimilarity | None:
    """Learned against given similarity of the classes, in an order that shows the groups.

    Args:
        test: the queries. train: the gallery.
        taxonomy: of the classes; those of a group, at every level, come beside each other.
        given: ranks of the same classes; by default those of the taxonomy.

    Returns:
        None if there is only one class, or more than a thousand.

    Raises:
        ValueError: ranks of other classes.
    """
    given = given or taxonomy.class_ranks
    require(
        given.classes == taxonomy.classes,
        f"the given ranks must be those of the data's {taxonomy.num_classes} classes, got "
        f"ranks of {given.num_classes} other ones",
    )
    if not 1 < taxonomy.num_classes <= MAX_CLASSES:
        return None
    sides = (test.features, test.labels, train.features, train.labels)
    learned = mean_class_cosines(*sides, taxonomy.num_classes)
    order = torch.tensor(sorted(range(taxonomy.num_classes), key=taxonomy.paths.__getitem__))
    return ClassSimilarity(
        order=order.numpy(),
        groups=taxonomy.labels_at(min(2, taxonomy.num_ranks))[order].numpy(),
        learned=learned[order][:, order].half().numpy(),
        given=given.table[order][:, order].numpy(),
    )


def _class_means(features: Tensor, labels: Tensor, num_classes: int, side: str) -> Tensor:
    """(C, D) float64 means of the unit vectors; NaN for a class without any."""
    check_labels(labels, len(features), f"{side} labels", num_classes)
    unit = unit_features(features, f"{side} features").double()
    labels = labels.to(unit.device)
    sums = unit.new_zeros(num_classes, unit.shape[1]).index_add_(0, labels, unit)
    return sums / torch.bincount(labels, minlength=num_classes)[:, None]
