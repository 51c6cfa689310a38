"""Queries that are gallery items themselves: none of the metrics counts them in silence."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from metric_inputs import normal_features, random_labels
from rince import metrics
from rince.core.checks import RinceWarning

COUNT, QUERIES = 30, 20
FEATURES = normal_features(0, COUNT)
LABELS = random_labels(1, COUNT, 3)
LEVELS = torch.stack([LABELS, LABELS // 2], dim=1)
GAINS = random_labels(2, COUNT * COUNT, 3).reshape(COUNT, COUNT)
SAME_CLASS, SAME_GROUP = (x[:, None] == x for x in LEVELS.T)
RANKS = torch.where(SAME_CLASS, 1, torch.where(SAME_GROUP, 2, 0))

# Of queries (Q, D), a gallery (G, D), and which of the items above they are.
BY_OPTION: dict[str, Callable[..., Any]] = {
    "retrieval": lambda q, g, rows, items, **o: metrics.retrieval(
        q, g, LABELS[rows], LABELS[items], **o
    ).mean_average_precision,
    "retrieval_by_level": lambda q, g, rows, items, **o: metrics.retrieval_by_level(
        q, g, {"fine": (LABELS[rows], LABELS[items])}, **o
    )["fine"].mean_average_precision,
    "hierarchical_retrieval": lambda q, g, rows, items, **o: metrics.hierarchical_retrieval(
        q, g, LEVELS[rows], LEVELS[items], **o
    ).h_ap,
    "knn_accuracy": lambda q, g, rows, items, **o: metrics.knn_accuracy(
        q, g, LABELS[rows], LABELS[items], k=5, **o
    ),
    "knn_accuracy, weighted": lambda q, g, rows, items, **o: metrics.knn_accuracy(
        q, g, LABELS[rows], LABELS[items], k=len(items) - bool(o.get("exclude_self")),
        temperature=0.1, **o,
    ),
    "ndcg": lambda q, g, rows, items, **o: float(
        metrics.ndcg(q, g, GAINS[rows][:, items], ks=(100,), **o)[100].mean()
    ),
    "ndcg, sparse": lambda q, g, rows, items, **o: float(
        metrics.ndcg(q, g, GAINS[rows][:, items].to_sparse(), **o)[10].mean()
    ),
    "knn_ood_score": lambda q, g, rows, items, **o: float(
        metrics.knn_ood_score(q, g, k=2, **o).mean()
    ),
}  # fmt: skip
BY_RANKS: dict[str, Callable[[Any, Any, Tensor], Any]] = {
    "recall_by_rank": lambda q, g, r: metrics.recall_by_rank(q, g, r, worst_rank=1),
    "rank_agreement": metrics.rank_agreement,
    "rank_correlation": metrics.rank_correlation,
    "similarity_histograms": lambda q, g, r: metrics.similarity_histograms(q, g, r).counts[1].sum(),
}
ALL, FIRST = torch.arange(COUNT), torch.arange(QUERIES)
ONE_ARRAY = {
    "the same tensor": (FEATURES, FEATURES, ALL),
    "its first rows": (FEATURES[:QUERIES], FEATURES, FIRST),
    "another view of it": (FEATURES.view(COUNT, -1), FEATURES, ALL),
    "the same array": ((x := FEATURES.numpy()), x, ALL),
    "the same array, in Fortran's order": ((x := np.asfortranarray(x)), x, ALL),
}


@pytest.mark.parametrize("given", ONE_ARRAY)
@pytest.mark.parametrize("name", BY_OPTION)
def test_one_array_on_both_sides_is_warned_of_unless_meant(name: str, given: str) -> None:
    metric = BY_OPTION[name]
    query, gallery, rows = ONE_ARRAY[given]
    with pytest.warns(RinceWarning, match=r"themselves.*exclude_self=True.*=False") as caught:
        found = metric(query, gallery, rows, ALL)
    assert len(caught) == 1
    assert found == metric(query, gallery, rows, ALL, exclude_self=False)


@pytest.mark.parametrize("name", BY_OPTION)
def test_other_memory_is_no_such_case(name: str) -> None:
    metric, rest = BY_OPTION[name], torch.arange(QUERIES, COUNT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metric(FEATURES[:QUERIES], FEATURES[QUERIES:], FIRST, rest)
        metric(FEATURES.clone(), FEATURES, ALL, ALL)


@pytest.mark.parametrize("chunk_size", [7, 64])
@pytest.mark.parametrize("name", BY_OPTION)
def test_excluded_is_as_if_it_were_not_in_the_gallery(name: str, chunk_size: int) -> None:
    metric = BY_OPTION[name]
    options = {"exclude_self": True, "chunk_size": chunk_size}
    found = metric(FEATURES[:QUERIES], FEATURES, FIRST, ALL, **options)
    each = []
    for i in range(QUERIES):
        others = torch.cat([ALL[:i], ALL[i + 1 :]])
        each.append(metric(FEATURES[[i]], FEATURES[others], torch.tensor([i]), others))
    assert found == pytest.approx(np.mean(each))


@pytest.mark.parametrize("sparse", [False, True])
def test_a_gain_of_itself_alone_is_none(sparse: bool) -> None:
    gains = torch.eye(COUNT).to_sparse() if sparse else torch.eye(COUNT)
    with pytest.raises(ValueError, match="no query has another item with a gain"):
        metrics.ndcg(FEATURES, FEATURES, gains, exclude_self=True)


def test_one_gain_of_another_item_is_enough() -> None:
    gains = torch.zeros(COUNT, COUNT)
    gains[0, 1] = 1
    (found,) = metrics.ndcg(FEATURES, FEATURES, gains, ks=COUNT, exclude_self=True).values()
    assert 0 < found[0] <= 1
    assert found[1:].isnan().all()


def test_no_more_neighbours_than_others() -> None:
    same = (FEATURES, FEATURES)
    with pytest.raises(ValueError, match=r"k must.*29 other items, got 30"):
        metrics.knn_accuracy(*same, LABELS, LABELS, k=30, exclude_self=True)
    with pytest.raises(ValueError, match=r"k must.*29 other training samples, got 30"):
        metrics.knn_ood_score(*same, k=30, exclude_self=True)
    with pytest.raises(ValueError, match=r"exclude_self=True.*30 queries.*29 training samples"):
        metrics.knn_ood_score(FEATURES, FEATURES[1:], k=3, exclude_self=True)


def test_items_of_a_sequence_are_not_their_own_answers() -> None:
    own = {"query_sequence": ALL, "gallery_sequence": ALL}
    found = metrics.hierarchical_retrieval(FEATURES, FEATURES, LEVELS, LEVELS, **own)
    alone = metrics.hierarchical_retrieval(FEATURES, FEATURES, LEVELS, LEVELS, exclude_self=True)
    assert found == alone


@pytest.mark.parametrize("given", ONE_ARRAY)
@pytest.mark.parametrize("name", BY_RANKS)
def test_ranks_of_items_with_themselves_are_warned_of(name: str, given: str) -> None:
    query, gallery, rows = ONE_ARRAY[given]
    with pytest.warns(RinceWarning, match=rf" {len(rows)} of {len(rows)} .*rank -1") as caught:
        BY_RANKS[name](query, gallery, RANKS[rows])
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        BY_RANKS[name](query, gallery, RANKS[rows].clone().fill_diagonal_(-1))
        BY_RANKS[name](torch.as_tensor(query).clone(), gallery, RANKS[rows])
