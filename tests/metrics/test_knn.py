from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from metric_inputs import cosines, normal_features, random_labels, sign_features
from rince.metrics.knn import knn_accuracy


def oracle(
    query: Tensor,
    query_labels: Tensor,
    gallery: Tensor,
    gallery_labels: Tensor,
    k: int,
    temperature: float | None,
    classes: int,
) -> float:
    correct = 0
    for row, label in zip(cosines(query, gallery), query_labels.tolist(), strict=True):
        last = sorted(row, reverse=True)[k - 1]
        above, tied = sum(s > last for s in row), sum(s == last for s in row)
        votes = [0.0] * classes
        for s, c in zip(row, gallery_labels.tolist(), strict=True):
            places = 1.0 if s > last else (k - above) / tied if s == last else 0.0
            votes[c] += places * (1.0 if temperature is None else math.exp(s / temperature))
        best = max(votes)
        correct += [v > best - 1e-9 * best for v in votes].index(True) == label
    return correct / len(query_labels)


@given(
    seed=st.integers(0, 10_000),
    k=st.integers(1, 12),
    temperature=st.sampled_from([None, 0.3, 1.0]),
)
@example(seed=640, k=2, temperature=None)  # three thirds of a vote against a whole one
@settings(max_examples=60, deadline=None)
def test_equals_the_slow_vote_with_many_ties(seed: int, k: int, temperature: float | None) -> None:
    query, gallery = sign_features(seed, 9), sign_features(seed + 1, 12)
    labels, others = random_labels(seed, 9, 3), random_labels(seed + 1, 12, 3)
    found = knn_accuracy(query, gallery, labels, others, k=k, temperature=temperature, chunk_size=4)
    assert found == pytest.approx(oracle(query, labels, gallery, others, k, temperature, 3))


@pytest.mark.parametrize("k", [1, 5, 20])
def test_equals_sklearn(k: int) -> None:
    from sklearn.neighbors import KNeighborsClassifier

    query, gallery = normal_features(0, 150), normal_features(1, 200)
    labels, others = random_labels(0, 150, 3), random_labels(1, 200, 3)
    theirs = KNeighborsClassifier(k, metric="cosine", algorithm="brute")
    expected = theirs.fit(gallery, others).score(query, labels)
    assert knn_accuracy(query, gallery, labels, others, k=k) == pytest.approx(expected)

    weighted = KNeighborsClassifier(
        k, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.07)
    )
    expected = weighted.fit(gallery, others).score(query, labels)
    found = knn_accuracy(query, gallery, labels, others, k=k, temperature=0.07)
    assert found == pytest.approx(expected)


def test_temperature_lets_one_close_neighbour_beat_two_far_ones() -> None:
    query = torch.tensor([[1.0, 0.0]])
    gallery = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    one, other = torch.tensor([1]), torch.tensor([1, 0, 0])
    assert knn_accuracy(query, gallery, one, other, k=3) == 0.0
    # exp(1 / t) against 2 exp(0): the near one wins below t = 1 / log(2)
    edge = 1 / math.log(2)
    assert knn_accuracy(query, gallery, one, other, k=3, temperature=edge * 0.99) == 1.0
    assert knn_accuracy(query, gallery, one, other, k=3, temperature=edge * 1.01) == 0.0
    assert knn_accuracy(query, gallery, one, other, k=3, temperature=1e-4) == 1.0


def test_classes_that_tie_go_to_the_lower_number() -> None:
    same = torch.ones(1, 4)
    found = [
        knn_accuracy(same, torch.ones(2, 4), torch.tensor([label]), torch.tensor([2, 1]), k=2)
        for label in range(3)
    ]
    assert found == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("temperature", [None, 0.5])
def test_chunks_and_the_order_of_the_gallery_play_no_part(temperature: float | None) -> None:
    query, gallery = sign_features(0, 40), sign_features(1, 60)
    labels, others = random_labels(0, 40, 4), random_labels(1, 60, 4)
    expected = knn_accuracy(query, gallery, labels, others, k=7, temperature=temperature)
    assert 0 < expected < 1
    for seed in range(5):
        order = torch.randperm(60, generator=torch.Generator().manual_seed(seed))
        found = knn_accuracy(
            query,
            gallery[order],
            labels,
            others[order],
            k=7,
            temperature=temperature,
            chunk_size=1 + 3 * seed,
        )
        assert found == expected


def test_a_class_missing_from_the_gallery_is_never_right() -> None:
    gallery, labels = torch.eye(2), torch.tensor([0, 1])
    assert knn_accuracy(torch.eye(2), gallery, torch.tensor([0, 7]), labels, k=1) == 0.5
    assert knn_accuracy(torch.eye(2), gallery, labels, labels, k=1, num_classes=9) == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, r"\b1\b.*\b5 items.* 0\b"),
        ({"k": 6}, r"\b1\b.*\b5 items.* 6\b"),
        ({"temperature": 0.0}, r"temperature.* 0\b"),
        ({"temperature": 1e-310}, r"temperature.* 1e-310\b"),
        (
            {"query_labels": [0, 2, 0], "num_classes": 2},
            r"query labels.*\[0, 2\).* 2$",
        ),
        ({"query_labels": [0, 1, 1], "num_classes": 2}, r"gallery labels.*\[0, 2\).* 2$"),
        ({"query_labels": [0, -2, 0]}, "query labels: row 1 holds -2"),
        ({"gallery_labels": [0, -2, 0, 0, 2]}, "gallery labels: row 1 holds -2"),
        ({"query_features": torch.ones(0, 8)}, "query features.*non-empty"),
        ({"gallery_features": torch.ones(5, 8) / 0}, "5 of 5 gallery features.*infinity"),
        ({"query_labels": torch.tensor([0])}, r"query labels.*\b3 samples"),
        ({"query_features": torch.full((3, 8), torch.nan)}, "3 of 3 query features.*NaN"),
        ({"gallery_features": torch.ones(5, 2)}, r"dimensions.*\b8 and 2"),
    ],
)
def test_errors(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {
        "query_features": normal_features(0, 3),
        "query_labels": torch.tensor([0, 1, 2]),
        "gallery_features": normal_features(1, 5),
        "gallery_labels": torch.tensor([0, 1, 2, 0, 1]),
        "k": 2,
    }
    with pytest.raises(ValueError, match=message):
        knn_accuracy(**(arguments | change))  # type: ignore[arg-type]


def test_items_that_tie_for_the_last_place_share_it_and_no_more() -> None:
    """k = 2: one vote for the nearest (class 0), half a vote each for the two that tie behind."""
    gallery = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.6, -0.8]])
    found = knn_accuracy(
        torch.tensor([[1.0, 0.0]]), gallery, torch.tensor([0]), torch.tensor([0, 1, 2]), k=2
    )
    assert found == 1.0


def test_ids_of_any_size_cost_what_their_number_does() -> None:
    query, gallery = normal_features(0, 5, 4), normal_features(1, 12, 4)
    labels, ids = torch.arange(12) % 3, torch.tensor([7, 10**6, 8_800_000_000])
    small = knn_accuracy(query, gallery, labels[:5], labels, k=3)
    # 8.8e9 columns of votes would not fit into any memory.
    assert knn_accuracy(query, gallery, ids[labels[:5]], ids[labels], k=3) == small


def test_ties_of_as_many_classes_as_items_take_no_matrix_of_both() -> None:
    """Which would hold 40 billion numbers."""
    size = 200_000
    gallery = torch.eye(2).repeat(size // 2, 1)
    labels = torch.arange(size)
    assert knn_accuracy(torch.eye(2), gallery, labels[:2], labels, k=3) == 1
