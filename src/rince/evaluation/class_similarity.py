"""Learned similarity of the classes (mean cosines), beside the ranks that were given."""

from __future__ import annotations

import torch

from rince.core.checks import require
from rince.evaluation.features import FeatureSet
from rince.evaluation.levels import coarse_level
from rince.evaluation.results import ClassSimilarity
from rince.metrics.class_cosines import mean_class_cosines
from rince.ranks.class_ranks import ClassRanks
from rince.ranks.taxonomy import Taxonomy

MAX_CLASSES = 1000  # 2 MB in the run's folder, and as many lines as a figure can show


def class_similarity(
    test: FeatureSet,
    train: FeatureSet,
    taxonomy: Taxonomy,
    given: ClassRanks | Taxonomy | None = None,
) -> ClassSimilarity | None:
    """Learned against given similarity of the classes, in an order that shows the groups.

    Args:
        test: the queries. train: the gallery.
        taxonomy: of the classes; those of one group, at every level, come next to each other.
        given: ranks of the same classes; by default those of the taxonomy.

    Returns:
        None if there is only one class, or more than a thousand.

    Raises:
        ValueError: ranks of other classes.
    """
    given = given or taxonomy
    require(
        given.classes == taxonomy.classes,
        f"the given ranks must be those of the data's {taxonomy.num_classes} classes, got "
        f"ranks of {len(given.classes)} other ones",
    )
    if not 1 < taxonomy.num_classes <= MAX_CLASSES:
        return None
    sides = (test.features, train.features, test.labels, train.labels)
    learned = mean_class_cosines(*sides, taxonomy.num_classes)
    order = torch.tensor(sorted(range(taxonomy.num_classes), key=taxonomy.paths.__getitem__))
    return ClassSimilarity(
        order=order.numpy(),
        groups=taxonomy.labels_at(coarse_level(taxonomy))[order].numpy(),
        learned=learned[order][:, order].half().numpy(),
        given=given.table[order][:, order].numpy(),
    )
