"""What must not change a metric, crossed over all metrics in one table.

A new metric is a row; :func:`test_every_metric_is_in_a_table` asks for it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from defaults import TORCH_DEFAULTS, torch_default
from metric_inputs import normal_features, random_labels, sign_features
from rince import metrics

Values = npt.NDArray[np.float64]
KS = (1, 2, 5)


class Data(NamedTuple):
    """Queries and a gallery; what an array's axes are follows from its name."""

    query: Any
    gallery: Any
    query_labels: Any
    gallery_labels: Any
    ranks: Any  # (Q, G) int64, -1 to 3
    gains: Any  # (Q, G) float64


def data(kind: str) -> Data:
    """12 queries, 30 gallery items, 3 classes; of kind "ties" most cosines are equal."""
    features = sign_features if kind == "ties" else normal_features
    query, gallery = features(0, 12), features(1, 30)
    ranks = random_labels(4, 360, 5).reshape(12, 30) - 1
    gains = random_labels(5, 360, 3).reshape(12, 30).double()
    return Data(query, gallery, random_labels(2, 12, 3), random_labels(3, 30, 3), ranks, gains)


def chosen(given: Data, rows: Tensor | None = None, items: Tensor | None = None) -> Data:
    """These queries and these gallery items, in this order."""
    rows = torch.arange(len(given.query)) if rows is None else rows
    items = torch.arange(len(given.gallery)) if items is None else items
    return Data(
        given.query[rows],
        given.gallery[items],
        given.query_labels[rows],
        given.gallery_labels[items],
        given.ranks[rows][:, items],
        given.gains[rows][:, items],
    )


def shuffled(size: int) -> Tensor:
    return torch.randperm(size, generator=torch.Generator().manual_seed(9))


class Metric(NamedTuple):
    """A metric of queries and a gallery.

    Args:
        call: (data, how often each gallery item occurs, options) -> values.
        per_query: one value a query, in their order.
        chunked: has a ``chunk_size``.
        order_only: only the order of a query's similarities counts, not their size.
        lengths: a feature's length plays no part.
        gallery_order: the order of the gallery plays no part.
        copies: a gallery in which each item occurs twice gives the same (at twice the k).
    """

    call: Callable[..., Any]
    per_query: bool = False
    chunked: bool = True
    order_only: bool = True
    lengths: bool = True
    gallery_order: bool = True
    copies: bool = True

    def __call__(self, given: Data, copies: int = 1, **options: int) -> Values:
        return np.asarray(self.call(given, copies, **options), dtype=np.float64)


def numbers(result: metrics.RetrievalResult) -> list[float]:
    return [*result.recall.values(), result.mean_average_precision]


def tree_levels(labels: Any) -> Any:
    """(N, 3): the three classes, two of which have a group in common, below one root."""
    stack = np.stack if isinstance(labels, np.ndarray) else torch.stack
    return stack([labels, labels // 2, labels // 3], 1)


def tree_numbers(result: metrics.HierarchicalResult) -> list[float]:
    of_levels = [
        (*x.recall.values(), x.mean_average_precision, x.r_precision, x.only_level)
        for x in result.levels
    ]
    whole = (result.h_ap, result.mistake_severity, *result.distance.values())
    return [*np.ravel(of_levels), *whole]


def of_tree(given: Data, **options: Any) -> metrics.HierarchicalResult:
    levels = (tree_levels(labels) for labels in given[2:4])
    return metrics.hierarchical_retrieval(*given[:2], *levels, **options)


def histogram(found: metrics.Histograms) -> Values:
    counts = np.stack(list(found.counts.values()))
    return counts / counts.sum()


PAIRS = {
    "retrieval": Metric(
        lambda d, n, **o: numbers(metrics.retrieval(*d[:4], ks=[n * k for k in KS], **o))
    ),
    "retrieval_by_level": Metric(
        lambda d, n, **o: [
            numbers(result)
            for result in metrics.retrieval_by_level(
                *d[:2],
                {"fine": d[2:4], "coarse": (d.query_labels // 2, d.gallery_labels // 2)},
                ks=[n * k for k in KS],
                **o,
            ).values()
        ]
    ),
    "hierarchical_retrieval": Metric(
        lambda d, n, **o: tree_numbers(of_tree(d, ks=[n * k for k in KS], **o))
    ),
    "hierarchical_retrieval, by places": Metric(
        lambda d, n, **o: [
            (x := of_tree(d, **o)).asi,
            x.ndcg,
            *(level.map_at_r for level in x.levels),
        ],
        copies=False,  # a second copy has a place, and a discount, of its own
    ),
    "recall_by_rank": Metric(
        lambda d, n, **o: list(
            metrics.recall_by_rank(
                *d[:2], d.ranks, worst_rank=2, ks=[n * k for k in KS], **o
            ).values()
        )
    ),
    "ndcg": Metric(
        lambda d, n, **o: metrics.ndcg(*d[:2], d.gains, ks=(5,), **o)[5],
        per_query=True,
        copies=False,  # a second copy of the best item has a place, and a discount, of its own
    ),
    "knn_accuracy": Metric(lambda d, n, **o: metrics.knn_accuracy(*d[:4], k=3 * n, **o)),
    "rank_agreement": Metric(
        lambda d, n, **o: list(metrics.rank_agreement(*d[:2], d.ranks, **o).values())
    ),
    "rank_correlation": Metric(lambda d, n, **o: metrics.rank_correlation(*d[:2], d.ranks, **o)),
    "similarity_histograms": Metric(
        lambda d, n, **o: histogram(metrics.similarity_histograms(*d[:2], d.ranks, bins=7, **o)),
        order_only=False,
    ),
    "mean_class_cosines": Metric(
        lambda d, n: metrics.mean_class_cosines(*d[:4], 3), chunked=False, order_only=False
    ),
    "knn_ood_score": Metric(
        lambda d, n, **o: metrics.knn_ood_score(*d[:2], k=2 * n, **o),
        per_query=True,
        order_only=False,
    ),
    "ClassGaussians": Metric(
        lambda d, n, **o: metrics.ClassGaussians.fit(
            d.gallery, d.gallery_labels, shrinkage=0.5
        ).score(d.query, **o),
        per_query=True,
        order_only=False,
        copies=False,  # the pooled covariance is shrunk less the more items there are
    ),
    "linear_probe": Metric(
        lambda d, n: metrics.linear_probe(*d[:4], num_classes=3, epochs=3).accuracy,
        chunked=False,
        order_only=False,
        lengths=False,
        gallery_order=False,  # which items share a batch depends on it
        copies=False,
    ),
}


def rows_where(flag: str) -> Any:
    return pytest.mark.parametrize("name", [n for n, m in PAIRS.items() if getattr(m, flag)])


either_kind = pytest.mark.parametrize("kind", ["ties", "no ties"])


@either_kind
@pytest.mark.parametrize("name", PAIRS)
def test_the_order_of_the_queries_plays_no_part(name: str, kind: str) -> None:
    metric, given, order = PAIRS[name], data(kind), shuffled(12)
    expected = metric(given)
    expected = expected[order] if metric.per_query else expected
    np.testing.assert_allclose(metric(chosen(given, rows=order)), expected, atol=1e-6)


@either_kind
@rows_where("gallery_order")
def test_the_order_of_the_gallery_plays_no_part(name: str, kind: str) -> None:
    metric, given = PAIRS[name], data(kind)
    found = metric(chosen(given, items=shuffled(30)))
    np.testing.assert_allclose(found, metric(given), atol=1e-6)


@either_kind
@pytest.mark.parametrize("name", PAIRS)
def test_asking_twice_changes_nothing(name: str, kind: str) -> None:
    metric, given = PAIRS[name], data(kind)
    expected = metric(given)
    expected = np.tile(expected, 2) if metric.per_query else expected
    twice = chosen(given, rows=torch.arange(12).repeat(2))
    np.testing.assert_allclose(metric(twice), expected, atol=1e-6)


@either_kind
@rows_where("copies")
def test_a_gallery_of_copies_changes_nothing(name: str, kind: str) -> None:
    metric, given = PAIRS[name], data(kind)
    twice = chosen(given, items=torch.arange(30).repeat(2))
    np.testing.assert_allclose(metric(twice, copies=2), metric(given), atol=1e-6)


@either_kind
@pytest.mark.parametrize("chunk_size", [1, 5, 12])
@rows_where("chunked")
def test_the_chunk_size_plays_no_part(name: str, chunk_size: int, kind: str) -> None:
    metric, given = PAIRS[name], data(kind)
    found = metric(given, chunk_size=chunk_size)
    np.testing.assert_allclose(found, metric(given, chunk_size=1000), atol=1e-6)


def data_with_copies() -> Data:
    """Gallery items that occur several times, as in any crawled data, with labels that differ."""
    gallery = normal_features(6, 60, 37)[random_labels(7, 101, 60)]
    ranks = random_labels(8, 33 * 101, 5).reshape(33, 101) - 1
    gains = random_labels(9, 33 * 101, 3).reshape(33, 101).double()
    labels = random_labels(2, 33, 3), random_labels(3, 101, 3)
    return Data(normal_features(5, 33, 37), gallery, *labels, ranks, gains)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", PAIRS)
def test_chunks_threads_and_places_of_copies_play_no_part(
    name: str, threads: Callable[[int], None]
) -> None:
    """Two copies of an item tie, wherever they stand: a rounding of a cosine would show."""
    metric, given = PAIRS[name], data_with_copies()
    expected = metric(given)
    tolerance = 1e-12 if metric.order_only else 1e-6
    for number in (1, 2):
        threads(number)
        for chunk_size in (1, 7, 1000) if metric.chunked else (None,):
            options = {} if chunk_size is None else {"chunk_size": chunk_size}
            found = metric(given, **options)
            np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
            if metric.gallery_order:
                found = metric(chosen(given, items=shuffled(101)), **options)
                np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", PAIRS)
def test_features_in_16_bits_are_raised_before_anything_else(name: str, dtype: Any) -> None:
    metric, given = PAIRS[name], data("no ties")
    low = given._replace(query=given.query.to(dtype), gallery=given.gallery.to(dtype))
    raised = given._replace(query=low.query.float(), gallery=low.gallery.float())
    np.testing.assert_array_equal(metric(low), metric(raised))
    mixed = given._replace(query=low.query, gallery=low.gallery.double())
    np.testing.assert_allclose(metric(mixed), metric(raised), rtol=0, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        np.testing.assert_array_equal(metric(low), metric(raised))


@rows_where("lengths")
def test_lengths_of_features_play_no_part(name: str) -> None:
    metric, given = PAIRS[name], data("no ties")
    longer = given._replace(
        query=given.query * torch.logspace(-3, 3, 12)[:, None],
        gallery=given.gallery * torch.logspace(2, -2, 30)[:, None],
    )
    np.testing.assert_allclose(metric(longer), metric(given), rtol=1e-4, atol=1e-5)


@rows_where("order_only")
def test_a_rising_change_of_the_similarities_plays_no_part(name: str) -> None:
    given = data("no ties")
    similarity = torch.linspace(-0.25, 0.25, 360).double()[shuffled(360)].reshape(12, 30)
    similarity = similarity * (similarity.abs() > 0.01)  # some of them tie, at 0
    found, expected = (
        PAIRS[name](given._replace(query=torch.eye(12, 42), gallery=with_cosines(values)))
        for values in (0.25 * torch.tanh(8 * similarity), similarity)
    )
    np.testing.assert_allclose(found, expected, atol=1e-9)


def with_cosines(similarity: Tensor) -> Tensor:
    """(G, Q + G) unit rows whose cosines with the first Q unit vectors are (Q, G) as given."""
    rest = (1 - similarity.square().sum(dim=0)).sqrt()
    return torch.cat([similarity.T, torch.diag(rest)], dim=1)


@pytest.mark.parametrize("name", PAIRS)
def test_numpy_arrays_do(name: str) -> None:
    metric, given = PAIRS[name], data("no ties")
    arrays = Data(*(array.numpy() for array in given))
    np.testing.assert_array_equal(metric(arrays), metric(given))


# Of the others the table's own functions calculate with the labels.
PLAIN = [name for name in PAIRS if "by_level" not in name and "hierarchical" not in name]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, list])
@pytest.mark.parametrize("name", PLAIN)
def test_labels_of_any_integer_type_do(name: str, dtype: Any) -> None:
    metric, given = PAIRS[name], data("no ties")
    sides = (given.query_labels, given.gallery_labels)
    query, gallery = (x.tolist() if dtype is list else x.numpy().astype(dtype) for x in sides)
    found = metric(given._replace(query_labels=query, gallery_labels=gallery))
    np.testing.assert_array_equal(found, metric(given))


def test_lists_of_levels_do() -> None:
    given = data("no ties")
    query, gallery = (tree_levels(labels) for labels in given[2:4])
    expected = metrics.hierarchical_retrieval(*given[:2], query, gallery)
    found = metrics.hierarchical_retrieval(*given[:2], query.tolist(), gallery.int().numpy())
    assert tree_numbers(found) == tree_numbers(expected)


# ---- scores of inliers and outliers ----------------------------------------------------------

SCORES: dict[str, Callable[[Any, Any], Any]] = {
    "auroc": metrics.auroc,
    "fpr_at_tpr": lambda inliers, outliers: metrics.fpr_at_tpr(inliers, outliers, 0.8),
    "roc_curve": lambda inliers, outliers: np.stack(
        [
            (curve := metrics.roc_curve(inliers, outliers)).false_positive_rate,
            curve.true_positive_rate,
        ]
    ),
}


@pytest.mark.parametrize("decimals", [0, 6])
@pytest.mark.parametrize("name", SCORES)
def test_order_copies_rising_changes_and_numpy_play_no_part(name: str, decimals: int) -> None:
    inliers = normal_features(0, 40, 1)[:, 0].round(decimals=decimals)
    outliers = (normal_features(1, 20, 1)[:, 0] + 1).round(decimals=decimals)
    metric = SCORES[name]
    expected = metric(inliers, outliers)
    for changed in (
        (inliers[shuffled(40)], outliers[shuffled(20)]),
        (inliers.repeat(2), outliers.repeat(3)),
        (inliers.double().exp(), outliers.double().exp()),
        (7 * inliers.double() - 100, 7 * outliers.double() - 100),
        (inliers.numpy(), outliers.numpy()),
    ):
        np.testing.assert_allclose(metric(*changed), expected, atol=1e-12)


# ---- one value for each row of logits, or one for all ----------------------------------------

LOGITS: dict[str, Callable[[Any, Any], Any]] = {
    "msp_score": lambda logits, labels: metrics.msp_score(logits),
    "energy_score": lambda logits, labels: metrics.energy_score(logits),
    "top_down_consistency": lambda logits, labels: metrics.top_down_consistency(
        tree_levels(logits.argmax(1)), tree_levels(labels)
    ),
    "video_accuracy": lambda logits, labels: metrics.video_accuracy(logits, labels, labels // 2),
}


@pytest.mark.parametrize("name", LOGITS)
def test_order_of_rows_and_numpy_play_no_part(name: str) -> None:
    logits, labels, order = normal_features(0, 20, 4), random_labels(1, 20, 4), shuffled(20)
    expected = np.asarray(LOGITS[name](logits, labels))
    found = np.asarray(LOGITS[name](logits[order], labels[order]))
    np.testing.assert_allclose(found, expected[order] if expected.ndim else expected)
    found = np.asarray(LOGITS[name](logits.numpy(), labels.numpy()))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("default", TORCH_DEFAULTS)
@pytest.mark.parametrize("name", [*PAIRS, *SCORES, *LOGITS])
def test_torchs_defaults_play_no_part(name: str, default: str) -> None:
    if (name, default) == ("ClassGaussians", "meta"):
        pytest.skip("it copies from the default device, which meta cannot")
    given = data("ties")
    arguments: list[Any] = [given]
    if name not in PAIRS:
        arguments = [normal_features(0, 20, 4), random_labels(1, 20, 4)]
    if name in SCORES:
        arguments = [arguments[0][:, 0], arguments[0][:, 1]]
    metric: Callable[..., Any] = (PAIRS | SCORES | LOGITS)[name]
    expected = np.asarray(metric(*arguments))
    with torch_default(default):
        found = metric(*arguments)
    np.testing.assert_array_equal(np.asarray(found), expected)


RESULTS = {
    "HierarchicalResult",
    "Histograms",
    "LevelResult",
    "ProbeResult",
    "RetrievalResult",
    "RocCurve",
}


def test_every_metric_is_in_a_table() -> None:
    rows = {name.partition(",")[0] for name in (*PAIRS, *SCORES, *LOGITS)}
    assert set(metrics.__all__) == rows | RESULTS


def test_a_level_that_splits_nothing_changes_no_other_level() -> None:
    for kind in ("ties", "no ties"):
        given = data(kind)
        query, gallery = (tree_levels(labels) for labels in given[2:4])
        one, two = (
            metrics.hierarchical_retrieval(*given[:2], query[:, list(c)], gallery[:, list(c)])
            for c in ((0, 1, 2), (0, 0, 1, 2))
        )
        assert two.levels[0] == one.levels[0]
        assert two.levels[2:] == one.levels[1:]
        assert two.levels[1].mean_average_precision == one.levels[0].mean_average_precision


def test_queries_come_before_the_gallery_and_features_before_labels() -> None:
    before = ["query", "test", "features", "gallery", "train"]  # "features": those to score
    for name in metrics.__all__:
        if inspect.isfunction(function := getattr(metrics, name)):
            names = [p for p in inspect.signature(function).parameters if p.endswith("features")]
            sides = [before.index(given.split("_")[0]) for given in names]
            assert sides == sorted(sides), name
            labels = [p for p in inspect.signature(function).parameters if p.endswith("labels")]
            order = [p for p in inspect.signature(function).parameters if p in names + labels]
            assert order == names + labels, name
