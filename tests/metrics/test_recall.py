from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from metric_inputs import FloatArray, cosines, normal_features, random_labels, sign_features
from rince.core.pair_ranks import DenseRanks
from rince.metrics.recall import (
    RetrievalResult,
    recall_by_rank,
    retrieval,
    retrieval_by_level,
)


def oracle(
    similarity: FloatArray, query_labels: list[int], gallery_labels: list[int], k: int
) -> tuple[float, float, int]:
    """Recall at k, mean average precision, number skipped; pair by pair."""
    hits, precisions = [], []
    for row, label in zip(similarity, query_labels, strict=True):
        items = [(s, c == label) for s, c in zip(row, gallery_labels, strict=True) if s > -2]
        positives = [s for s, positive in items if positive]
        if not positives:
            continue
        # Negatives first among ties.
        nearest = sorted(items, key=lambda item: (-item[0], item[1]))[:k]
        hits.append(any(positive for _, positive in nearest))
        precisions.append(
            np.mean(
                [sum(p >= s for p in positives) / sum(i >= s for i, _ in items) for s in positives]
            )
        )
    return float(np.mean(hits)), float(np.mean(precisions)), len(query_labels) - len(hits)


@given(seed=st.integers(0, 10_000), k=st.integers(1, 15), exclude_self=st.booleans())
@settings(max_examples=60, deadline=None)
def test_equals_the_slow_definition_with_many_ties(seed: int, k: int, exclude_self: bool) -> None:
    gallery = sign_features(seed, 13)
    query = gallery[:9] if exclude_self else sign_features(seed + 1, 9)
    others = random_labels(seed, 13, 5)
    labels = others[:9] if exclude_self else random_labels(seed + 1, 9, 5)
    similarity = cosines(query, gallery)
    if exclude_self:
        np.fill_diagonal(similarity, -9)
    found = retrieval(
        query, gallery, labels, others, ks=[k], exclude_self=exclude_self, chunk_size=4
    )
    recall, precision, skipped = oracle(similarity, labels.tolist(), others.tolist(), k)
    assert found.recall[k] == pytest.approx(recall)
    assert found.mean_average_precision == pytest.approx(precision)
    assert found.num_skipped == skipped


@pytest.mark.parametrize("features", [normal_features, sign_features])
def test_average_precision_equals_sklearn(features: Any) -> None:
    from sklearn.metrics import average_precision_score

    query, gallery = features(0, 30), features(1, 80)
    labels, others = random_labels(0, 30, 4), random_labels(1, 80, 4)
    expected = [
        average_precision_score((others == label).numpy(), row)
        for row, label in zip(cosines(query, gallery), labels, strict=True)
    ]
    found = retrieval(query, gallery, labels, others).mean_average_precision
    assert found == pytest.approx(np.mean(expected), rel=1e-9)


def test_worked_example() -> None:
    """Similarity falls with the index; the positives are the second and the fourth item."""
    angles = torch.tensor([0.1, 0.2, 0.3, 0.4])
    gallery = torch.stack([angles.cos(), angles.sin()], 1)
    found = retrieval(
        torch.tensor([[1.0, 0.0]]),
        gallery,
        torch.tensor([1]),
        torch.tensor([0, 1, 0, 1]),
        ks=(1, 2, 9),
    )
    assert found == RetrievalResult(
        recall={1: 0.0, 2: 1.0, 9: 1.0},
        mean_average_precision=(1 / 2 + 2 / 4) / 2,
        num_skipped=0,
    )


def test_a_collapsed_backbone_finds_nothing() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1])
    found = retrieval(torch.ones(1, 4), torch.ones(5, 4), torch.tensor([0]), labels, ks=(1, 2, 3))
    assert found.recall == {1: 0.0, 2: 0.0, 3: 1.0}  # the 2 negatives come first
    assert found.mean_average_precision == 3 / 5


def test_a_perfect_backbone_finds_everything() -> None:
    labels = random_labels(0, 50, 4)
    features = torch.eye(4)[labels]
    found = retrieval(features, features, labels, labels, ks=(1,), exclude_self=False)
    assert found == RetrievalResult({1: 1.0}, 1.0, 0)


def test_excluding_the_query_is_leaving_it_out_of_the_gallery() -> None:
    features, labels = normal_features(0, 20), random_labels(0, 20, 3)
    found = retrieval(features, features, labels, labels, ks=(1, 3), exclude_self=True)
    each = []
    for i in range(20):
        rest = [j for j in range(20) if j != i]
        each.append(
            retrieval(
                features[i : i + 1], features[rest], labels[i : i + 1], labels[rest], ks=(1, 3)
            )
        )
    for k in (1, 3):
        assert found.recall[k] == pytest.approx(np.mean([r.recall[k] for r in each]))
    assert found.mean_average_precision == pytest.approx(
        np.mean([r.mean_average_precision for r in each])
    )
    found = retrieval(features, features, labels, labels, ks=(1,), exclude_self=False)
    assert found.recall[1] == 1.0


def test_the_only_sample_of_a_class_is_skipped_without_itself() -> None:
    features, labels = sign_features(0, 3), torch.tensor([0, 0, 1])
    found = retrieval(features, features, labels, labels, exclude_self=True)
    assert found.num_skipped == 1
    with pytest.raises(ValueError, match="no query.*same label"):
        retrieval(features, features, torch.arange(3), torch.arange(3), exclude_self=True)


def test_queries_without_positive_are_reported_and_change_no_mean() -> None:
    query, gallery = normal_features(0, 12), normal_features(1, 40)
    labels, others = 1 + random_labels(0, 12, 3), 1 + random_labels(1, 40, 3)
    expected = retrieval(query, gallery, labels, others)
    strange = torch.tensor([0, 7, 50])  # below and above those of the gallery
    found = retrieval(
        torch.cat([normal_features(2, 3), query]),
        gallery,
        torch.cat([strange, labels]),
        others,
        chunk_size=1,
    )
    assert (expected.num_skipped, found.num_skipped) == (0, 3)
    assert found.mean_average_precision == pytest.approx(expected.mean_average_precision)
    assert found.recall == pytest.approx(expected.recall)


@given(seed=st.integers(0, 1000), chunk_size=st.integers(1, 30))
@settings(max_examples=25, deadline=None)
def test_chunks_and_the_order_of_both_sides_play_no_part(seed: int, chunk_size: int) -> None:
    query, gallery = sign_features(1, 25), sign_features(2, 30)
    labels, others = random_labels(1, 25, 4), random_labels(2, 30, 4)
    expected = retrieval(query, gallery, labels, others)
    generator = torch.Generator().manual_seed(seed)
    p, q = torch.randperm(25, generator=generator), torch.randperm(30, generator=generator)
    found = retrieval(query[p], gallery[q], labels[p], others[q], chunk_size=chunk_size)
    assert found.recall == expected.recall
    assert found.mean_average_precision == pytest.approx(expected.mean_average_precision, rel=1e-12)


def test_levels_in_one_pass_equal_single_passes() -> None:
    query, gallery = normal_features(0, 20), normal_features(1, 50)
    fine, others = random_labels(0, 20, 6), random_labels(1, 50, 6)
    both = retrieval_by_level(
        query, gallery, {"fine": (fine, others), "coarse": (fine // 3, others // 3)}, ks=(1, 5)
    )
    assert both["fine"] == retrieval(query, gallery, fine, others, ks=(1, 5))
    assert both["coarse"] == retrieval(query, gallery, fine // 3, others // 3, ks=(1, 5))
    assert both["coarse"].mean_average_precision > both["fine"].mean_average_precision


def test_inputs_are_left_alone() -> None:
    tensors: list[Tensor] = [
        normal_features(0, 5),
        normal_features(1, 9),
        random_labels(0, 5, 2),
        random_labels(1, 9, 2),
    ]
    before = [t.clone() for t in tensors]
    retrieval(*tensors)
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ks": (1, 0)}, r"ks must.*\b1\b.*\(1, 0\)"),
        ({"query_labels": torch.tensor([7, 8, 9])}, "no query"),
        ({"query_labels": torch.tensor([0, 1])}, "query labels .*3 samples"),
        ({"gallery_labels": torch.zeros(5)}, r"gallery labels.*integers.*torch\.float32"),
        ({"gallery_features": torch.full((5, 8), torch.inf)}, "5 of 5 gallery features"),
        ({"gallery_features": torch.ones(5, 7)}, r"dimensions.*\b8 and 7"),
        ({"chunk_size": 0}, r"chunk_size.*\b1\b"),
        (
            {
                "exclude_self": True,
                "gallery_features": torch.ones(2, 8),
                "gallery_labels": torch.tensor([0, 1]),
            },
            r"3 queries.*\b2 gallery items",
        ),
    ],
)
def test_errors(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {
        "query_features": normal_features(0, 3),
        "query_labels": torch.tensor([0, 1, 2]),
        "gallery_features": normal_features(1, 5),
        "gallery_labels": torch.tensor([0, 1, 2, 0, 1]),
    }
    with pytest.raises(ValueError, match=message):
        retrieval(**(arguments | change))  # type: ignore[arg-type]


# Few directions, so that similarities tie.
VECTORS = st.sampled_from([(1.0, 0.0), (0.8, 0.6), (0.6, 0.8), (0.0, 1.0), (-1.0, 0.0)])


@given(st.data())
def test_recall_by_rank(data: st.DataObject) -> None:
    queries, keys = (data.draw(st.lists(VECTORS, min_size=1, max_size=6)) for _ in range(2))
    codes = st.lists(st.integers(-1, 3), min_size=len(keys), max_size=len(keys))
    ranks = [data.draw(codes) for _ in queries]
    worst = data.draw(st.integers(1, 3))
    expected: dict[int, list[bool]] = {1: [], 2: [], 5: []}
    for query, row in zip(queries, ranks, strict=True):
        scored = [
            (round(query[0] * key[0] + query[1] * key[1], 6), 1 <= rank <= worst)
            for key, rank in zip(keys, row, strict=True)
            if rank != -1
        ]
        if not any(wanted for _, wanted in scored):
            continue
        nearest = sorted(scored, key=lambda s: (-s[0], s[1]))  # of ties, the unwanted first
        for k, hits in expected.items():
            hits.append(any(wanted for _, wanted in nearest[:k]))
    found = recall_by_rank(
        torch.tensor(queries), torch.tensor(keys), DenseRanks(torch.tensor(ranks)),
        worst_rank=worst, ks=(1, 2, 5), chunk_size=2,
    )  # fmt: skip
    assert found == pytest.approx({k: sum(h) / len(h) for k, h in expected.items() if h})


def test_recall_by_rank_errors() -> None:
    features, ranks = normal_features(0, 3), 1 - 2 * torch.eye(3, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"\(3, 2\), got \(3, 3\)"):
        recall_by_rank(features, features[:2], ranks, worst_rank=1)
    with pytest.raises(ValueError, match=r"ks must.*\b1\b.*\(1, 0\)"):
        recall_by_rank(features, features, ranks, worst_rank=1, ks=(1, 0))
    alone = recall_by_rank(features, features, ranks, worst_rank=1, ks=np.int64(2))
    assert alone == recall_by_rank(features, features, ranks, worst_rank=1, ks=(2,))
    assert alone == recall_by_rank(features, features, ranks, worst_rank=1, ks=2)
    with pytest.raises(ValueError, match=r"worst_rank.*\b1\b.* 0\b"):
        recall_by_rank(features, features, ranks, worst_rank=0)
