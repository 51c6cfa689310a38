from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metric_inputs import cosines, normal_features, random_labels
from rince.metrics.class_cosines import mean_class_cosines


@given(
    seed=st.integers(0, 10_000),
    queries=st.integers(1, 12),
    items=st.integers(1, 12),
    classes=st.integers(1, 5),
)
@settings(max_examples=60, deadline=None)
def test_is_the_mean_over_all_pairs(seed: int, queries: int, items: int, classes: int) -> None:
    query = normal_features(seed, queries) * torch.logspace(-3, 3, queries)[:, None]
    gallery = normal_features(seed + 1, items)
    of_query, of_item = random_labels(seed, queries, classes), random_labels(seed, items, classes)
    found = mean_class_cosines(query, gallery, of_query, of_item, classes)
    assert found.shape == (classes, classes)
    assert found.dtype == torch.float32
    cosine = cosines(query, gallery)
    for a in range(classes):
        for b in range(classes):
            pairs = [
                cosine[i, j]
                for i in range(queries)
                for j in range(items)
                if of_query[i] == a and of_item[j] == b
            ]
            expected = sum(pairs) / len(pairs) if pairs else math.nan
            assert float(found[a, b]) == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_no_rounding_leads_beyond_one() -> None:
    """Unit vectors in float32 are longer than 1 by up to a rounding."""
    features, labels = normal_features(0, 100), torch.arange(100)
    for sign in (1, -1):
        found = mean_class_cosines(features, sign * features, labels, labels, 100)
        torch.testing.assert_close(found.diagonal(), torch.full((100,), float(sign)))
        assert float(found.abs().max()) == 1


def test_refusals() -> None:
    features, labels = torch.eye(2), torch.arange(2)
    with pytest.raises(ValueError, match="as many dimensions"):
        mean_class_cosines(features, torch.ones(2, 3), labels, labels, 2)
    with pytest.raises(ValueError, match=r"gallery labels.*\[0, 2\)"):
        mean_class_cosines(features, features, labels, labels + 1, 2)
