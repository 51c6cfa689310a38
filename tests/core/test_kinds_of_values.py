"""Masks, grades, labels and times as people have them: each is right, or refused by its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import rince
from rince import losses, metrics, ranks
from rince.ranks import (
    IdentityRanks,
    LevelRanks,
    ScoreRanks,
    TableRanks,
    TimeRanks,
    label_overlap,
    target_closeness,
)
from rince.ranks.taxonomy import MAX_TABLE_CLASSES

NAN = float("nan")
LABELS = [0, 0, 1, 1, 2, 2]
Z = torch.nn.functional.normalize(
    torch.randn(6, 8, generator=torch.Generator().manual_seed(0)), dim=1
)
TABLE = torch.tensor([[1, 2, 0], [2, 1, 0], [0, 0, 1]])
TREE = rince.Taxonomy([("a", "b"), ("a", "c"), ("d", "e")])
MANY = rince.Taxonomy([*TREE.paths, *(("f", f"g{i}") for i in range(MAX_TABLE_CLASSES))])

# What takes one label an item, and what it gives, as numbers.
OF_LABELS: dict[str, Callable[[Any], Any]] = {
    "retrieval": lambda y: metrics.retrieval(Z, Z, y, y, exclude_self=False).mean_average_precision,
    "knn_accuracy": lambda y: metrics.knn_accuracy(Z, Z, y, y, k=3, exclude_self=False),
    "linear_probe": lambda y: metrics.linear_probe(Z, Z, y, y, num_classes=3, epochs=2).bias,
    "ClassGaussians": lambda y: metrics.ClassGaussians.fit(Z, y).means,
    "mean_class_cosines": lambda y: metrics.mean_class_cosines(Z, Z, y, y, 3),
    "video_accuracy": lambda y: metrics.video_accuracy(Z, y, LABELS),
    "videos": lambda y: metrics.video_accuracy(Z, LABELS, y),
    "TableRanks": lambda y: TableRanks(y, y, TABLE).tile(slice(None), slice(None)),
    "IdentityRanks": lambda y: IdentityRanks(y, y).tile(slice(None), slice(None)),
    "Taxonomy.ranks": lambda y: TREE.ranks(y, y).tile(slice(None), slice(None)),
    "Taxonomy of many": lambda y: MANY.ranks(y, y).tile(slice(None), slice(None)),
    "same_group": lambda y: TREE.same_group(2, y, y).tile(slice(None), slice(None)),
    "same_group of many": lambda y: MANY.same_group(2, y, y).tile(slice(None), slice(None)),
    "TimeRanks.items": lambda y: TimeRanks.items(y, LABELS, LABELS),
}
TAKE_NAMES = ("Taxonomy.ranks", "Taxonomy of many", "same_group", "same_group of many")


@pytest.mark.parametrize(
    "held",
    [
        lambda y: y,
        tuple,
        np.array,
        lambda y: np.array(y, dtype=np.uint8),
        lambda y: np.array(y, dtype=object),
        lambda y: torch.tensor(y, dtype=torch.int16),
        lambda y: torch.tensor(y, dtype=torch.uint8),
    ],
)
@pytest.mark.parametrize("name", OF_LABELS)
def test_integers_of_any_kind(name: str, held: Callable[[list[int]], Any]) -> None:
    np.testing.assert_array_equal(OF_LABELS[name](held(LABELS)), OF_LABELS[name](LABELS))


NO_LABELS = {
    "fractions": torch.tensor([0.0, 0.5, 1, 1, 2, 2]),
    "NaN": torch.tensor([0.0, 0, 1, 1, 2, NAN]),
    "NaN of numpy": np.array([0.0, 0, 1, 1, 2, NAN]),
    "None": [0, 0, 1, 1, 2, None],
    "bool": torch.tensor(LABELS) > 0,
    "probabilities": torch.eye(6),
    "names": ["a", "b", "c", "d", "e", "f"],
}


@pytest.mark.parametrize("kind", NO_LABELS)
@pytest.mark.parametrize("name", OF_LABELS)
def test_what_is_no_integer_is_refused(name: str, kind: str) -> None:
    # A tree takes names, too, of its own classes.
    fact = "'a' is a group" if kind == "names" and name in TAKE_NAMES else "integers"
    with pytest.raises(ValueError, match=fact):
        OF_LABELS[name](NO_LABELS[kind])


@pytest.mark.parametrize("name", TAKE_NAMES)
def test_a_tree_takes_the_names_of_its_classes(name: str) -> None:
    named = [TREE.classes[y] for y in LABELS]
    np.testing.assert_array_equal(OF_LABELS[name](named), OF_LABELS[name](LABELS))


@pytest.mark.parametrize("name", sorted(set(OF_LABELS) - {"IdentityRanks", "TimeRanks.items"}))
def test_unknown_labels_are_no_class(name: str) -> None:
    with pytest.raises(ValueError, match=r"labels|videos.*-1"):
        OF_LABELS[name]([*LABELS[:5], -1])


# ---- all that takes tensors, given what else numbers are held in -------------------------------

TREE_RANKS = TREE.ranks(LABELS, LABELS)
MATRIX = TREE_RANKS.tile(slice(None), slice(None)).long()
APART = MATRIX.clone().fill_diagonal_(-1)  # no item with itself
EDGES = torch.tensor([[0, 1, 2], [1, 2, 3]])
SCORES = torch.tensor([[3.0, 0, 1], [1, 2, NAN], [0, 0, 3]])
ITEMS = TimeRanks.items([0, 0, 1], [0.0, 5, 0], [1.0, 6, 1])
VALID = torch.tensor([True, True, False])
LOGITS = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
GROUPS = torch.tensor([0, 0, 1])


def tile(ranks: Any) -> Any:
    return ranks.tile(slice(None), slice(None))


OF_TENSORS: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]] = {
    "graph_closeness": (
        lambda e, q, k: ranks.graph_closeness(e, 4, q, k, 2), (EDGES, EDGES[0], EDGES[1])
    ),
    "label_overlap": (label_overlap, (MATRIX.clamp(0, 1), MATRIX.clamp(0, 1))),
    "target_closeness": (target_closeness, (Z[:, 0], Z[:, 1])),
    "targets": (target_closeness, (Z, Z)),
    "Relevance": (lambda s: tile(ranks.Relevance([3, 1]).ranks(s)), (SCORES,)),
    "ScoreRanks": (lambda s: ScoreRanks([3, 1]).describe(s).pairs[1], (SCORES,)),
    "from_quantiles": (lambda s: ScoreRanks.from_quantiles(s, [0.5]).thresholds, (SCORES,)),
    "Similarity": (lambda s: ranks.Similarity(("a", "b", "c"), s).scores, (SCORES,)),
    "from_matrix": (lambda s: ranks.Similarity.from_matrix(s, "abc").scores, (SCORES,)),
    "DenseRanks": (lambda m: tile(ranks.DenseRanks(m)), (MATRIX,)),
    "TableRanks": (lambda q, k, t: tile(TableRanks(q, k, t)), (GROUPS, GROUPS, TABLE)),
    "LevelRanks": (lambda q, k: tile(LevelRanks(q, k, finest_first=True)), (TABLE, TABLE)),
    "ClassRanks": (lambda t: ranks.ClassRanks(("a", "b", "c"), t, 2).table, (TABLE,)),
    "key_valid": (lambda v: tile(IdentityRanks([0, 1], [0, 1, 1], key_valid=v)), (VALID,)),
    "same_group": (lambda q, k: tile(TREE.same_group(1, q, k)), (GROUPS, GROUPS)),
    "counts": (lambda c: TREE.describe(2, counts=c).expected, (torch.tensor([2, 3, 4]),)),
    "TimeRanks": (lambda q, k: tile(TimeRanks([10]).ranks(q, k)), (ITEMS, ITEMS)),
    "TimeRanks.describe": (lambda i: TimeRanks([10]).describe(i, 2).pairs, (ITEMS,)),
    "forget_ranks": (lambda t: ranks.forget_ranks(t, 0.5, 0), (TABLE,)),
    "from_labels": (
        lambda x: rince.Taxonomy.from_labels(x, finest_first=False).table, (EDGES.T.contiguous(),)
    ),
    "ranked_info_nce": (
        lambda q, k, r: rince.ranked_info_nce(q, k, r, (0.1, 0.2)), (Z, Z, MATRIX)
    ),
    "RankedInfoNCE": (rince.RankedInfoNCE(), (Z, Z, MATRIX)),
    "terms": (
        lambda q, r: losses.ranked_info_nce_with_terms(q, q, r, (0.1, 0.2))[0], (Z, MATRIX)
    ),
    "temperatures": (
        lambda t: rince.ranked_info_nce(Z, Z, MATRIX, t), (torch.tensor([0.1, 0.2]),)
    ),
    "info_nce": (losses.info_nce, (Z, Z)),
    "supcon_in": (losses.supcon_in, (Z, Z, MATRIX.clamp(0, 1))),
    "supcon_out": (losses.supcon_out, (Z, Z, MATRIX.clamp(0, 1))),
    "supcon_siblings": (lambda q, r: losses.supcon_siblings(q, q, r, num_ranks=2), (Z, MATRIX)),
    "cross_scale": (lambda q, r: losses.cross_scale(q, q, r, num_ranks=2), (Z, MATRIX)),
    "himulcon": (lambda q, r: losses.himulcon(q, q, r, level_weights=[1, 1]), (Z, MATRIX)),
    "smooth_ap": (lambda q, r: losses.smooth_ap(q, q, r, num_ranks=2), (Z, MATRIX)),
    "triplet": (
        lambda q, r: losses.hierarchical_triplet(
            q, q, r, num_ranks=2, generator=torch.Generator().manual_seed(0)
        ), (Z, MATRIX)
    ),
    "x_clr": (lambda q, r: losses.x_clr(q, q, r, num_ranks=2), (Z, MATRIX)),
    "x_clr scores": (lambda q, r, s: losses.x_clr(q, q, r, scores=s), (Z, MATRIX, Z @ Z.T)),
    "both_ways": (
        lambda i, t, r: losses.both_ways(losses.supcon_out, i, t, r), (Z, Z, MATRIX.clamp(0, 1))
    ),
    "rank_n_contrast": (losses.rank_n_contrast, (Z, Z[:, 0])),
    "fast_ap": (losses.fast_ap, (Z, torch.tensor(LABELS))),
    "smoothed_targets": (lambda g: losses.smoothed_targets(g, 0.5), (GROUPS,)),
    "temperature_schedule": (losses.temperature_schedule, (torch.tensor([0.9, 0.5]),)),
    "recall_by_rank": (
        lambda q, r: metrics.recall_by_rank(q, q, r, worst_rank=2)[1], (Z, APART)
    ),
    "rank_agreement": (lambda q, r: [*metrics.rank_agreement(q, q, r).values()], (Z, APART)),
    "rank_correlation": (lambda q, r: metrics.rank_correlation(q, q, r), (Z, APART)),
    "histograms": (lambda q, r: metrics.similarity_histograms(q, q, r).counts[1], (Z, APART)),
    "retrieval": (
        lambda q, y: metrics.retrieval(q, q, y, y, exclude_self=True).recall[1],
        (Z, EDGES.repeat(1, 2)[0]),
    ),
    "hierarchical": (
        lambda q, y: metrics.hierarchical_retrieval(q, q, y, y, exclude_self=True).h_ap,
        (Z, torch.tensor([[0, 0], [1, 0], [1, 0], [2, 1], [2, 1], [3, 1]])),
    ),
    "knn_accuracy": (
        lambda q, y: metrics.knn_accuracy(q, q, y, y, k=2, exclude_self=True),
        (Z, torch.tensor(LABELS)),
    ),
    "knn_ood_score": (lambda q, t: metrics.knn_ood_score(q, t, k=2), (Z[:2], Z[2:])),
    "Gaussians": (
        lambda x, y: metrics.ClassGaussians.fit(x, y).score(x), (Z, torch.tensor(LABELS))
    ),
    "class_cosines": (
        lambda q, y: metrics.mean_class_cosines(q, q, y, y, 3), (Z, torch.tensor(LABELS))
    ),
    "ndcg": (lambda q, g: metrics.ndcg(q, q, g, exclude_self=True)[10], (Z, MATRIX.clamp(0))),
    "probe": (
        lambda x, y: metrics.linear_probe(x, x, y, y, num_classes=3, epochs=2).logits(x),
        (Z, torch.tensor(LABELS)),
    ),
    "energy_score": (metrics.energy_score, (LOGITS,)),
    "msp_score": (metrics.msp_score, (LOGITS,)),
    "auroc": (metrics.auroc, (LOGITS[:, 0], LOGITS[:, 1])),
    "fpr_at_tpr": (metrics.fpr_at_tpr, (LOGITS[:, 0], LOGITS[:, 1])),
    "roc_curve": (
        lambda a, b: metrics.roc_curve(a, b).true_positive_rate, (LOGITS[:, 0], LOGITS[:, 1])
    ),
    "top_down": (metrics.top_down_consistency, (EDGES.T.contiguous(), EDGES.T.contiguous())),
    "video_accuracy": (
        metrics.video_accuracy, (LOGITS, torch.tensor(LABELS), torch.tensor(LABELS))
    ),
}  # fmt: skip
MAY_BE_NONE = {("counts", 0), ("key_valid", 0), ("x_clr scores", 2)}
MUST_CONVERT = {
    "graph_closeness", "label_overlap", "target_closeness", "targets", "Relevance", "ScoreRanks",
    "from_quantiles", "Similarity", "from_matrix", "DenseRanks", "TableRanks", "LevelRanks",
    "ClassRanks", "same_group", "counts", "forget_ranks", "smoothed_targets",
}  # fmt: skip


def framed(x: Tensor) -> Any:
    pandas = pytest.importorskip("pandas")
    return (pandas.Series if x.ndim == 1 else pandas.DataFrame)(x.numpy())


NUMBERS: dict[str, Callable[[Tensor], Any]] = {
    "array": Tensor.numpy,
    "list": Tensor.tolist,
    "tuple": lambda x: tuple(x.tolist()),
    "backwards": lambda x: np.flip(np.flip(x.numpy(), 0).copy(), 0),
    "pandas": framed,
    "tensors": lambda x: [*x],
}
MISTAKES: dict[str, Any] = {"text": "mistaken", "None": None, "a number": 3}


@pytest.mark.parametrize("name", OF_TENSORS)
def test_other_than_tensors_are_taken_or_refused_in_words(name: str) -> None:
    function, given = OF_TENSORS[name]
    expected = np.asarray(function(*given), dtype=float)
    for kind, held in NUMBERS.items():
        for place in range(len(given)):
            try:
                found = function(*(held(x) if i == place else x for i, x in enumerate(given)))
            except ValueError as error:
                assert len(str(error)) > 20  # noqa: PT017
                assert name not in MUST_CONVERT, f"{kind} of argument {place}"
            else:
                np.testing.assert_allclose(np.asarray(found, dtype=float), expected, rtol=1e-5)
    for mistake in MISTAKES.values() if "temperature" not in name else ():
        for place in range(len(given)):
            if mistake is None and (name, place) in MAY_BE_NONE:
                continue
            with pytest.raises(ValueError, match=r".{20}"):
                function(*(mistake if i == place else x for i, x in enumerate(given)))


# ---- ranks ------------------------------------------------------------------------------------

OF_RANKS: dict[str, Callable[[Any], Any]] = {
    "ranked_info_nce": lambda r: rince.ranked_info_nce(Z, Z, r, (0.1, 0.2)),
    "info_nce": lambda r: losses.info_nce(Z, Z, r, 0.1),
    "supcon_in": lambda r: losses.supcon_in(Z, Z, r, 0.1),
    "supcon_out": lambda r: losses.supcon_out(Z, Z, r, 0.1),
    "himulcon": lambda r: losses.himulcon(Z, Z, r, level_weights=[1, 1]),
    "recall_by_rank": lambda r: metrics.recall_by_rank(Z, Z, r, worst_rank=2)[1],
    "rank_agreement": lambda r: list(metrics.rank_agreement(Z, Z, r).values()),
    "rank_correlation": lambda r: metrics.rank_correlation(Z, Z, r),
    "similarity_histograms": lambda r: metrics.similarity_histograms(Z, Z, r).counts[1],
}
RANKS = TREE.ranks(LABELS, LABELS, ignore_self=True).tile(slice(None), slice(None)).long()


def ranks_for(name: str) -> Tensor:
    return (
        torch.where(RANKS > 1, 0, RANKS)
        if name in ("info_nce", "supcon_in", "supcon_out")
        else RANKS
    )


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32])
@pytest.mark.parametrize("name", OF_RANKS)
def test_ranks_of_any_integer_type(name: str, dtype: torch.dtype) -> None:
    ranks = ranks_for(name)
    np.testing.assert_array_equal(OF_RANKS[name](ranks.to(dtype)), OF_RANKS[name](ranks))


@pytest.mark.parametrize(
    "wrong",
    [
        RANKS.float(),
        torch.where(RANKS < 0, NAN, RANKS.double()),
        torch.full((6, 6), 0.3).half(),
        RANKS > 0,
        RANKS.to(torch.uint8),  # -1 became 255
        torch.where(RANKS < 0, -2, RANKS),
    ],
    ids=["float", "NaN", "soft", "bool", "uint8", "-2"],
)
@pytest.mark.parametrize("name", OF_RANKS)
def test_masks_and_soft_labels_are_no_ranks(name: str, wrong: Tensor) -> None:
    with pytest.raises(ValueError, match="ranks must (be integers|lie)"):
        OF_RANKS[name](wrong)


# ---- embeddings -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["ranked_info_nce", "info_nce", "supcon_in", "supcon_out"])
def test_sides_of_two_types_meet_in_the_wider(name: str, dtype: torch.dtype) -> None:
    given: Any = getattr(losses, name)
    temperature = (0.1, 0.2) if name == "ranked_info_nce" else 0.1
    query, wide = Z.to(dtype), torch.promote_types(dtype, torch.float32)
    expected = given(query.to(wide), Z.to(wide), ranks_for(name), temperature)
    found = given(query, Z, ranks_for(name), temperature)
    assert found.dtype == wide
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


# ---- grades -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype",
    [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8, torch.int64],
)
def test_grades_of_any_type(dtype: torch.dtype) -> None:
    grades = torch.tensor([[3, 1, 0, 2], [0, 2, 2, 1]], dtype=dtype)
    expected = metrics.ndcg(Z[:2], Z[2:], grades.double(), ks=(3,))[3]
    assert torch.equal(metrics.ndcg(Z[:2], Z[2:], grades, ks=(3,))[3], expected)
    ranks = rince.Relevance([3, 2, 1]).ranks(grades).matrix
    assert ranks.tolist() == [[1, 3, 0, 2], [0, 2, 2, 3]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_scores_reach_a_threshold_in_their_own_precision(dtype: torch.dtype) -> None:
    """0.7 is another number in each of them, and NaN is unknown in all."""
    scores = torch.tensor([[0.7, 0.69, NAN, -1.0]], dtype=dtype)
    assert ScoreRanks([0.7, 0.5]).ranks(scores).matrix.tolist() == [[1, 2, -1, 0]]


@pytest.mark.parametrize("wrong", [-1, -2, NAN, float("inf")])
def test_gains_that_are_none(wrong: float) -> None:
    gains = torch.tensor([[1.0, wrong], [0, 1]])
    with pytest.raises(ValueError, match=r"gains.*finite.*\b0\b"):
        metrics.ndcg(Z[:2], Z[2:4], gains)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_overlap_and_closeness_do_not_depend_on_autocast(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    sets = torch.randint(-1, 2, (5, 700), generator=generator)  # -1: not known
    expected = label_overlap(sets, sets)
    by_hand = [
        [float(((a == 1) & (b == 1)).sum() / (((a == 1) | (b == 1)) & (a >= 0) & (b >= 0)).sum())
         for b in sets] for a in sets
    ]  # fmt: skip
    torch.testing.assert_close(expected, torch.tensor(by_hand), rtol=1e-6, atol=0)
    unknown = sets.to(dtype).masked_fill(sets == -1, NAN)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(label_overlap(unknown, sets), expected)
        targets = torch.tensor([256.0, 257.0, 300.0])
        assert target_closeness(targets, targets)[0].tolist() == [0, -1, -44]


@pytest.mark.parametrize("wrong", [NAN, float("inf")])
def test_targets_that_are_not_known_have_no_order(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"targets.*finite.*\b1 of 6\b"):
        losses.rank_n_contrast(Z, torch.tensor([1.0, 2, 3, 4, 5, wrong]))


def test_unix_times_as_targets_keep_their_seconds() -> None:
    start = 1_700_000_000
    seconds = torch.tensor([0, 1, 3, 8, 9, 30])
    expected = losses.rank_n_contrast(Z, seconds)
    assert torch.equal(losses.rank_n_contrast(Z, seconds + start), expected)
    assert torch.equal(losses.rank_n_contrast(Z, (seconds + start).double()), expected)


# ---- times ------------------------------------------------------------------------------------

UNIX = [1_700_000_000, 1_700_000_001, 1_700_000_003]


@pytest.mark.parametrize(
    "held",
    [
        list,
        lambda t: [x + 0.25 for x in t],
        np.array,
        lambda t: np.array(t, dtype=np.float64),
        lambda t: torch.tensor(t),
        lambda t: torch.tensor(t, dtype=torch.float64),
    ],
)
def test_unix_times_keep_their_seconds(held: Callable[[list[int]], Any]) -> None:
    items = TimeRanks.items([0, 0, 0], held(UNIX), held(UNIX))
    assert (items[:, 1] - items[0, 1]).tolist() == [0, 1_000_000, 3_000_000]


@pytest.mark.parametrize(
    ("held", "step"),
    [
        (torch.tensor(UNIX, dtype=torch.float32), "128 s"),
        (np.array(UNIX, dtype=np.float32), "128 s"),
        (torch.tensor([0, 3000, 3001]).half(), "2 s"),
    ],
)
def test_times_of_too_few_bits_are_told(held: Any, step: str) -> None:
    with pytest.warns(rince.RinceWarning, match=f"float.* {step} .*float64"):
        TimeRanks.items([0, 0, 0], held, held)


@pytest.mark.parametrize(
    "held",
    [
        np.array(["2024-01-01"] * 3, dtype="datetime64[s]"),
        ["12:01", "12:02", "12:03"],
        [1.0, None, 2.0],
        torch.tensor([True, False, True]),
    ],
)
def test_times_that_are_no_seconds_are_named(held: Any) -> None:
    with pytest.raises(ValueError, match="start.*vector.*seconds"):
        TimeRanks.items([0, 0, 0], held, held)


def test_levels_of_lists_and_of_other_types() -> None:
    levels = [[0, 0], [1, 0], [2, 1]]
    expected = LevelRanks(levels, levels, finest_first=True).tile(slice(None), slice(None))
    for held in (np.array(levels, dtype=np.uint8), torch.tensor(levels, dtype=torch.int16)):
        found = LevelRanks(held, held, finest_first=True).tile(slice(None), slice(None))
        assert torch.equal(found, expected)
    with pytest.raises(ValueError, match="integers"):
        LevelRanks([[0.5, 1]], [[0.5, 1]], finest_first=True)
