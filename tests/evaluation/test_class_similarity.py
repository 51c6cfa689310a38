from __future__ import annotations

import numpy as np
import pytest
import torch

from rince import Taxonomy
from rince.evaluation.class_similarity import class_similarity
from rince.evaluation.features import FeatureSet
from rince.metrics.class_cosines import mean_class_cosines
from rince.ranks.class_ranks import ClassRanks


def test_classes_come_group_by_group_with_their_own_numbers() -> None:
    """Labels in an order that mixes the groups; each class points its own way."""
    tree = Taxonomy([("z", "p"), ("a", "q"), ("z", "r"), ("a", "s"), ("m",)])
    labels = torch.arange(5).repeat(3)
    side = FeatureSet(torch.eye(5)[labels] + 0.25 * torch.eye(5)[(labels + 2) % 5], labels)
    found = class_similarity(side, side, tree)
    assert found is not None
    assert found.order.tolist() == [1, 3, 4, 0, 2]
    assert [tree.group_names(2)[group] for group in found.groups] == ["a", "a", "m", "z", "z"]
    assert found.learned.dtype == np.float16
    between = mean_class_cosines(side.features, side.features, labels, labels, 5)
    for i, a in enumerate(found.order):
        for j, b in enumerate(found.order):
            assert found.given[i, j] == tree.table[a, b]
            assert found.learned[i, j] == pytest.approx(float(between[a, b]), abs=1e-3)


def test_given_ranks_are_those_trained_on_and_of_these_classes() -> None:
    tree = Taxonomy([("b", "x"), ("a", "y")])
    side = FeatureSet(torch.eye(2), torch.arange(2))
    own = ClassRanks(tree.classes, torch.tensor([[1, 3], [0, 1]]), 3)
    found = class_similarity(side, side, tree, own)
    assert found is not None
    assert found.given.tolist() == [[1, 0], [3, 1]]
    with pytest.raises(ValueError, match="data's 2 classes"):
        class_similarity(side, side, tree, ClassRanks(("y", "x"), own.table, 3))


def test_one_class_has_nothing_to_compare_and_an_absent_class_is_unknown() -> None:
    one = FeatureSet(torch.eye(2), torch.zeros(2, dtype=torch.int64))
    assert class_similarity(one, one, Taxonomy([("only",)])) is None
    found = class_similarity(one, one, Taxonomy([("seen",), ("unseen",)]))
    assert found is not None
    assert found.learned[0, 0] == 0.5
    assert class_similarity(one, one, Taxonomy((str(i),) for i in range(1001))) is None
    assert np.isnan(found.learned).tolist() == [[False, True], [True, True]]
