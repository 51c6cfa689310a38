"""Ranks from scores, against definitions in loops over Python floats."""

from __future__ import annotations

import contextlib
import itertools
import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rince import RinceWarning, Similarity, Taxonomy
from rince.ranks.class_ranks import ClassRanks
from rince.ranks.score_summary import ScoredPair, SimilaritySummary
from rince.ranks.similarity import SimilarityRanks

NAN = math.nan
NAMES = ["husky", "malamute", "tabby", "siamese", "carp"]
# Asymmetric (tabby and siamese), with a missing score (carp for husky).
SCORES = [
    [1.0, 0.9, 0.5, 0.3, NAN],
    [0.9, 1.0, 0.4, 0.3, 0.1],
    [0.5, 0.4, 1.0, 0.8, 0.2],
    [0.3, 0.3, 0.6, 1.0, 0.2],
    [0.1, 0.1, 0.2, 0.2, 1.0],
]


@pytest.fixture
def animals() -> Similarity:
    return Similarity.from_matrix(SCORES, NAMES)


# A handful of values, so that ties are common; None is a missing score.
VALUES = st.sampled_from([None, -1.5, 0.0, 0.1, 0.25, 0.5, 0.7, 0.7 + 2**-52, 3.0])


@st.composite
def matrices(draw: st.DrawFn) -> list[list[float | None]]:
    size = draw(st.integers(1, 6))
    return draw(st.lists(st.lists(VALUES, min_size=size, max_size=size), min_size=size,
                         max_size=size))  # fmt: skip


def _similarity(rows: list[list[float | None]]) -> Similarity:
    # The diagonal is never read; a high one does not look like distances.
    values = [
        [100.0 if a == b else NAN if x is None else x for b, x in enumerate(row)]
        for a, row in enumerate(rows)
    ]
    return Similarity.from_matrix(values, [f"c{i}" for i in range(len(rows))])


def _oracle(
    rows: list[list[float | None]], cuts: list[list[float]], missing: int
) -> list[list[int]]:
    """Pair by pair: rank i for the first i from 2 on whose cut of the row the score reaches."""
    table = []
    for a, row in enumerate(rows):
        table.append([])
        for b, score in enumerate(row):
            rank = 0
            if a == b:
                rank = 1
            elif score is None:
                rank = missing
            else:
                for i, cut in enumerate(cuts[a], start=2):
                    if score >= cut:
                        rank = i
                        break
            table[-1].append(rank)
    return table


@given(matrices(), st.lists(st.sampled_from([-2.0, 0.1, 0.5, 0.7, 4.0]), min_size=1, unique=True),
       st.sampled_from(["ignore", "negative"]))  # fmt: skip
def test_thresholds(rows: list[list[float | None]], cuts: list[float], missing: str) -> None:
    cuts = sorted(cuts, reverse=True)
    found = _similarity(rows).by_thresholds(cuts, missing=missing)  # type: ignore[arg-type]
    code = -1 if missing == "ignore" else 0
    assert found.table.tolist() == _oracle(rows, [cuts] * len(rows), code)
    assert found.num_ranks == len(cuts) + 1
    assert found.table.dtype == torch.int8


@given(matrices(), st.lists(st.sampled_from([0.0, 0.2, 0.5, 0.57, 0.9, 1.0]), min_size=1,
                            max_size=3, unique=True))  # fmt: skip
def test_quantiles(rows: list[list[float | None]], quantiles: list[float]) -> None:
    quantiles = sorted(quantiles, reverse=True)
    scores = sorted(
        x for a, r in enumerate(rows) for b, x in enumerate(r) if a != b and x is not None
    )
    similarity = _similarity(rows)
    if not scores:
        with pytest.raises(ValueError, match="no score of two"):
            similarity.by_quantiles(quantiles)
        return
    cuts = [scores[math.floor(Fraction(str(q)) * (len(scores) - 1))] for q in quantiles]
    if len(set(cuts)) < len(cuts):
        with pytest.raises(ValueError, match="fall.*scores.*empty"):
            similarity.by_quantiles(quantiles)
        return
    found = similarity.by_quantiles(quantiles)
    assert found.table.tolist() == _oracle(rows, [cuts] * len(rows), -1)
    assert found.num_ranks == len(cuts) + 1


@given(matrices(), st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_top_k(rows: list[list[float | None]], numbers: list[int]) -> None:
    """By counting: rank i where fewer than k_2 + ... + k_i others of the row score higher."""
    expected = []
    for a, row in enumerate(rows):
        expected.append([])
        for b, score in enumerate(row):
            rank = 0
            if a == b:
                rank = 1
            elif score is None:
                rank = -1
            else:
                better = sum(x is not None and x > score for c, x in enumerate(row) if c != a)
                for i in range(len(numbers), 0, -1):
                    if better < sum(numbers[:i]):
                        rank = i + 1
            expected[-1].append(rank)
    found = _similarity(rows).by_top_k(numbers)
    assert found.table.tolist() == expected
    assert found.num_ranks == len(numbers) + 1


@given(matrices(), st.randoms(use_true_random=False))
def test_the_order_of_the_classes_does_not_matter(
    rows: list[list[float | None]], random: object
) -> None:
    similarity = _similarity(rows)
    order = list(range(len(rows)))
    random.shuffle(order)  # type: ignore[attr-defined]
    other = similarity.aligned_to([similarity.classes[i] for i in order])
    for rule in (lambda s: s.by_top_k([1, 2]), lambda s: s.by_thresholds([0.5, 0.1])):
        assert torch.equal(rule(other).table, rule(similarity).table[order][:, order])


def test_by_hand(animals: Similarity) -> None:
    assert animals.by_thresholds([0.8, 0.4]).table.tolist() == [
        [1, 2, 3, 0, -1],
        [2, 1, 3, 0, 0],
        [3, 3, 1, 2, 0],
        [0, 0, 3, 1, 0],
        [0, 0, 0, 0, 1],
    ]
    # Each row's best, all that tie for it included: carp has two.
    assert animals.by_top_k([1], missing="negative").table.tolist() == [
        [1, 2, 0, 0, 0],
        [2, 1, 0, 0, 0],
        [0, 0, 1, 2, 0],
        [0, 0, 2, 1, 0],
        [0, 0, 2, 2, 1],
    ]


def test_a_float32_score_reaches_the_threshold_it_is_written_as() -> None:
    scores = torch.tensor([[1, 0.7], [0.7, 1]], dtype=torch.float32)
    assert float(scores[0, 1]) < 0.7
    assert Similarity.from_matrix(scores, ["a", "b"]).by_thresholds([0.7]).table[0, 1] == 2


def test_ranks_of_labels_are_the_tables(animals: Similarity) -> None:
    found = animals.by_thresholds([0.8, 0.4])
    assert isinstance(found, ClassRanks)
    query, key = torch.tensor([4, 0, 2]), torch.tensor([4, 0, 2, 1, 99])
    valid = torch.tensor([True, True, True, True, False])
    ranks = found.ranks(query, key, ignore_self=True, key_valid=valid)
    assert ranks.num_ranks == 3
    tile = ranks.tile(slice(None), slice(None))
    assert tile.tolist() == [[-1, 0, 0, 0, -1], [-1, -1, 3, 2, -1], [0, 3, -1, 3, -1]]


def test_num_ranks_does_not_depend_on_the_scores() -> None:
    found = Similarity.from_matrix([[1.0, 0.1], [0.1, 1.0]], ["a", "b"]).by_thresholds([0.9, 0.8])
    assert (found.num_ranks, found.ranks(*[torch.tensor([0, 1])] * 2).num_ranks) == (3, 3)


def test_from_a_function() -> None:
    asked = []

    def shared_letters(a: str, b: str) -> float | None:
        asked.append((a, b))
        return None if (a, b) == ("cat", "dog") else len(set(a) & set(b))

    similarity = Similarity.from_function(["cat", "cow", "dog"], shared_letters)
    assert len(asked) == 6  # both orders, and no class with itself
    assert similarity.scores.nan_to_num(-9).tolist() == [[-9, 1, -9], [1, -9, 1], [0, 1, -9]]
    assert similarity.by_thresholds([1]).table.tolist() == [[1, 2, -1], [2, 1, 2], [0, 2, 1]]


def test_aligned_by_name_and_not_by_place(animals: Similarity) -> None:
    other = animals.aligned_to(["carp", "husky", "tabby"])
    assert other.classes == ("carp", "husky", "tabby")
    assert other.scores.nan_to_num(-9).tolist() == [[1, 0.1, 0.2], [-9, 1, 0.5], [0.2, 0.5, 1]]


def test_a_class_without_scores_is_named_with_its_neighbour(animals: Similarity) -> None:
    message = (
        r"2 of 3 classes have no scores: huskie, boat; near names with scores: 'huskie' \(did you "
        r"mean 'husky'\?\); names .*: husky, malamute, tabby, siamese"
    )
    with pytest.raises(ValueError, match=message):
        animals.aligned_to(["huskie", "boat", "carp"])


def test_as_many_names_with_a_neighbour_are_hinted_at_as_are_listed() -> None:
    known, wanted = ([f"{letter * 6}{end}" for letter in "abcdefghi"] for end in ("", "x"))
    with pytest.raises(ValueError, match="near names") as error:
        Similarity.from_matrix(torch.eye(9), known).aligned_to(wanted)
    assert str(error.value).count("did you mean") == 8


def test_what_is_kept_is_a_tuple_and_plain_floats() -> None:
    kept = Similarity(["a", "b"], torch.eye(2, dtype=torch.int64))  # type: ignore[arg-type]
    assert kept.classes == ("a", "b")
    assert kept.scores.dtype == torch.float64
    learned = torch.eye(2, requires_grad=True)
    assert not Similarity.from_matrix(learned, ["a", "b"]).scores.requires_grad


def test_rules_in_words(animals: Similarity) -> None:
    assert animals.by_thresholds([0.8, 0.4]).rule == "score >= 0.8 (rank 2), 0.4 (rank 3)"
    assert animals.by_quantiles([0.75, 0.5]).rule == (
        "score in the top 0.25 (rank 2, >= 0.5), 0.5 (rank 3, >= 0.3)"
    )
    assert torch.equal(animals.by_top_k(np.array([1, 2])).table, animals.by_top_k([1, 2]).table)
    assert animals.by_top_k([1, 2]).rule == "each class's most similar 1 (rank 2), 2 (rank 3)"


@pytest.mark.parametrize(
    ("scores", "names", "message"),
    [
        ([[1.0, 0.0]], ["a", "b"], r"\(2, 2\).*\(1, 2\)"),
        ([[1.0]], ["a", "b"], r"\(2, 2\).*\(1, 1\)"),
        ([[1.0, math.inf], [0.0, 1.0]], ["a", "b"], "finite, or NaN"),
        ([[1.0, 0.0], [0.0, 1.0]], ["a", "a"], "given twice: a"),
        ([[1.0, 0.0], [0.0, 1.0]], ["a", " "], "not empty, got ' '"),
        (np.zeros((0, 0)), [], "one class"),
    ],
)
def test_a_matrix_that_cannot_be(scores: object, names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Similarity.from_matrix(scores, names)  # type: ignore[arg-type]


def test_rules_that_cannot_be(animals: Similarity) -> None:
    for cuts in ([0.4, 0.8], [0.5, 0.5], [NAN], [math.inf, 0.1]):
        with pytest.raises(ValueError, match="thresholds.*finite.*fall"):
            animals.by_thresholds(cuts)
    for quantiles in ([0.5, 0.9], [0.5, 0.5], [1.1], [-0.1], [1.1, 0.5], [0.5, -0.1]):
        with pytest.raises(ValueError, match=r"quantiles.*\[0, 1\].*fall.*rank 2\b"):
            animals.by_quantiles(quantiles)
    with pytest.raises(ValueError, match=r"at least 1, got 2, 0"):
        animals.by_top_k([2, 0])
    for rule in (animals.by_thresholds, animals.by_quantiles, animals.by_top_k):
        with pytest.raises(ValueError, match=r"from 2\b.*\b1 to 126\b"):
            rule([])
        with pytest.raises(ValueError, match="'ignore'.*'negative'.*'drop'"):
            rule([1], missing="drop")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"must have shape \(5, 5\)"):
        ClassRanks(animals.classes, torch.ones(4, 4, dtype=torch.int8), 1)
    with pytest.raises(ValueError, match="between -1"):
        ClassRanks(("a",), torch.tensor([[3]]), 2)


def test_distances_are_noticed() -> None:
    distances = [[0.0, 2.0, 3.0], [2.0, 0.0, 1.0], [3.0, 1.0, 0.0]]
    with pytest.warns(RinceWarning, match="are these distances"):
        Similarity.from_matrix(distances, ["a", "b", "c"])
    Similarity.from_matrix([[-x for x in row] for row in distances], ["a", "b", "c"])


@given(st.integers(1, 3), st.data())
def test_distances_are_those_where_each_class_is_nearest_to_itself(
    count: int, data: st.DataObject
) -> None:
    values = st.sampled_from([0.0, 0.5, 1.0, NAN])
    rows = [[data.draw(values) for _ in range(count)] for _ in range(count)]
    others = [(a, x) for a, row in enumerate(rows) for b, x in enumerate(row) if a != b]
    compared = [x > rows[a][a] for a, x in others if not math.isnan(x)]
    wanted = bool(compared) and all(compared)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        Similarity.from_matrix(rows, [str(i) for i in range(count)])
    assert bool(seen) == wanted


def test_there_may_be_as_many_ranks_as_int8_holds(animals: Similarity) -> None:
    for count, fits in ((126, True), (127, False)):
        falling = [1 - i / 1000 for i in range(count)]
        with contextlib.nullcontext() if fits else pytest.raises(ValueError, match=r"\b127\b"):
            assert animals.by_thresholds(falling).num_ranks == 127


def test_quantiles_may_be_the_lowest_and_the_highest_score(animals: Similarity) -> None:
    assert animals.by_quantiles([1.0, 0.0]).table.tolist() == [
        [1, 2, 3, 3, -1], [2, 1, 3, 3, 3], [3, 3, 1, 3, 3], [3, 3, 3, 1, 3], [3, 3, 3, 3, 1]
    ]  # fmt: skip


# ---- describe -----------------------------------------------------------------------------


def test_describe_counts(animals: Similarity) -> None:
    found = animals.by_thresholds([0.8, 0.4]).describe(batch_size=11)
    assert found.codes == (1, 2, 3, 0, -1)
    # By hand, from the table above; two different classes, both orders.
    assert found.pairs == (0, 3, 5, 11, 1)
    assert found.covered == (0, 3, 4, 5, 1)
    assert found.most == (0, 1, 2, 4, 1)
    # 10 others of a batch of 11; each ordered pair of classes has a chance of 1/25.
    assert found.expected == pytest.approx((2.0, 1.2, 2.0, 4.4, 0.4))
    assert found.without_sibling == ("siamese", "carp")
    assert (found.missing, found.one_sided) == (1, 2)  # tabby-siamese, husky-carp
    assert sum(found.histogram) == 19
    assert (found.edges[0], found.edges[-1]) == (0.1, 0.9)
    assert found.histogram[0] == 3  # 0.1 thrice
    assert found.histogram[-1] == 2  # 0.9 twice: the last bin is closed
    text = str(found)
    assert "classes without a rank-2 partner (2): siamese, carp" in text
    assert "pairs without a score: 1" in text
    assert "0.860 to   0.900        2 #" in text
    assert text.splitlines()[0] == ("classes: 5, ranks: 3, by score >= 0.8 (rank 2), 0.4 (rank 3)")


def _summary_by_loops(ranks: SimilarityRanks, tree: Taxonomy | None) -> SimilaritySummary:
    """Of a batch of 2, every number and list of pairs by its definition."""
    names, scores, table = ranks.classes, ranks.similarity.scores.tolist(), ranks.table.tolist()
    classes = range(len(names))
    codes = (*range(1, ranks.num_ranks + 1), 0, -1)
    keys = {
        code: [[b for b in classes if a != b and table[a][b] == code] for a in classes]
        for code in codes
    }
    pairs = list(itertools.permutations(classes, 2))
    scored = [(a, b) for a, b in pairs if not math.isnan(scores[a][b])]
    values = [scores[a][b] for a, b in scored]
    edges: tuple[float, ...] = ()
    histogram: tuple[int, ...] = ()
    if len(set(values)) == 1:
        edges, histogram = (values[0], values[0]), (len(values),)
    elif values:
        low, high = min(values), max(values)
        edges = (*(low + (high - low) * i / 20 for i in range(20)), high)
        bins = [sum(edge <= value for edge in edges[1:20]) for value in values]
        histogram = tuple(bins.count(i) for i in range(20))

    def doubt(pair: tuple[int, int]) -> float:
        a, b = pair
        return min(abs(scores[a][b] - border) for border in ranks.borders[a].tolist())

    def first(
        some: list[tuple[int, int]], by: Callable[[tuple[int, int]], float]
    ) -> tuple[ScoredPair, ...]:
        shown: list[ScoredPair] = []
        for a, b in sorted(some, key=by):
            score, rank = scores[a][b], table[a][b]
            if (names[b], names[a], score, rank) not in shown:
                shown.append(ScoredPair(names[a], names[b], score, rank))
        return tuple(shown[:8])

    groups = None if tree is None else tree.table.tolist()
    cross = [(a, b) for a, b in pairs if groups and groups[a][b] == 0 and table[a][b] > 0]
    within = [(a, b) for a, b in scored if groups and groups[a][b] > 0 and table[a][b] == 0]
    return SimilaritySummary(
        rule=ranks.rule,
        num_classes=len(names),
        num_ranks=ranks.num_ranks,
        batch_size=2,
        edges=edges,
        histogram=histogram,
        codes=codes,
        pairs=tuple(sum(map(len, keys[code])) for code in codes),
        covered=tuple(sum(map(bool, keys[code])) for code in codes),
        most=tuple(max(map(len, keys[code])) for code in codes),
        expected=tuple(sum(row.count(code) for row in table) / len(names) ** 2 for code in codes),
        without_sibling=tuple(names[a] for a in classes if not keys[2][a]),
        missing=len(pairs) - len(scored),
        one_sided=sum(table[a][b] != table[b][a] for a, b in pairs) // 2,
        doubtful=first([pair for pair in scored if doubt(pair) < math.inf], doubt),
        cross_group_positives=first(cross, lambda pair: -scores[pair[0]][pair[1]]),
        within_group_negatives=first(within, lambda pair: scores[pair[0]][pair[1]]),
        totals=None if tree is None else (len(cross), len(within)),
    )


@pytest.mark.parametrize("seed", range(12))
def test_the_summary_is_its_definition(seed: int) -> None:
    """Few different scores, so that many tie and meet edges of bins; some missing or one-sided."""
    random = Random(seed)
    size = (1, 2, 4, 6, 9, 12)[seed % 6]
    levels = [NAN, *(i / 20 for i in range(0, 21, 5 if seed < 6 else 1))]
    scores = [[random.choice(levels) for _ in range(size)] for _ in range(size)]
    for a, b in itertools.combinations(range(size), 2):
        if random.random() < 0.5:
            scores[a][b] = scores[b][a]
    names = [f"c{i}" for i in range(size)]
    tree = Taxonomy([(f"g{random.randrange(3)}", name) for name in names])
    similarity = Similarity.from_matrix(scores, names)
    for ranks in (similarity.by_thresholds([0.7, 0.25], missing="negative"),
                  similarity.by_thresholds([0.5]), similarity.by_top_k([1, 2])):  # fmt: skip
        for groups in (None, tree):
            found, expected = ranks.describe(2, tree=groups), _summary_by_loops(ranks, groups)
            assert found.expected == pytest.approx(expected.expected)
            assert replace(found, expected=expected.expected) == expected


def test_expected_keys_by_enumeration(animals: Similarity) -> None:
    """Every ordered pair of different images is equally likely to sit in a batch."""
    counts = [3, 1, 2, 0, 4]
    images = [label for label, count in enumerate(counts) for _ in range(count)]
    ranks = animals.by_thresholds([0.8, 0.4])
    pairs = list(itertools.permutations(range(len(images)), 2))
    tally = [int(ranks.table[images[i], images[j]]) for i, j in pairs]
    found = ranks.describe(4, counts)
    assert found.expected == pytest.approx(
        [3 * tally.count(code) / len(pairs) for code in found.codes]
    )


def test_the_summary_as_a_page() -> None:
    """No pair is ignored, so there is no line of rank -1."""
    doubtful = (ScoredPair("a", "b", 0.5, 2),)
    page = SimilaritySummary(
        "a rule", 3, 2, 11, (0.0, 0.5, 1.0), (2, 4), (1, 2, 0, -1), (0, 2, 4, 0), (0, 2, 3, 0),
        (0, 1, 2, 0), (3.3, 2.2, 4.4, 0.0), ("c",), 0, 1, doubtful, (), doubtful, (0, 1),
    )  # fmt: skip
    assert str(page).splitlines() == [
        "classes: 3, ranks: 2, by a rule",
        "scores of two different classes:",
        "    0.000 to   0.500        2 ####################",
        "    0.500 to   1.000        4 ########################################",
        "rank     pairs  classes  key classes, mean  most     keys per item, batch 11",
        "1            0        0                0.0     0                         3.3",
        "2            2        2                0.7     1                         2.2",
        "0            4        3                1.3     2                         4.4",
        "pairs of classes whose rank depends on the order: 1",
        "classes without a rank-2 partner (1): c",
        "doubtful, nearest to where a rank ends:",
        "  a -> b 0.500 (rank 2)",
        "in a common group, negative by score (1), lowest:",
        "  a -> b 0.500 (rank 2)",
    ]
    assert "depends on the order" not in str(replace(page, one_sided=0))


def test_the_histogram_is_numpys() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(30, 30, generator=generator, dtype=torch.float64)
    found = Similarity.from_matrix(scores, [str(i) for i in range(30)]).by_top_k([3]).describe()
    values = scores[~torch.eye(30, dtype=torch.bool)].numpy()
    counts, edges = np.histogram(values, bins=20)
    assert found.histogram == tuple(counts.tolist())
    assert found.edges == pytest.approx(edges.tolist())


def test_doubtful_pairs_lie_nearest_to_a_threshold(animals: Similarity) -> None:
    found = animals.by_thresholds([0.79, 0.42]).describe().doubtful
    shown = [(p.query, p.key, p.score, p.rank) for p in found[:3]]
    assert shown == [  # 0.01 above; 0.02 below, the same both ways and so shown once; 0.08
        ("tabby", "siamese", 0.8, 2),
        ("malamute", "tabby", 0.4, 0),
        ("husky", "tabby", 0.5, 3),
    ]
    assert [p.score for p in found].count(0.4) == 1


def test_doubtful_pairs_of_the_top_k_lie_at_a_narrow_gap() -> None:
    scores = [[9, 5.0, 1.0, 0.0], [3.0, 9, 2.9, 0.0], [7.0, 1.0, 9, 0.0], [4.0, 1.0, 1.0, 9]]
    found = Similarity.from_matrix(scores, list("abcd")).by_top_k([1]).describe().doubtful
    assert [(p.query, p.key, p.rank) for p in found[:2]] == [("b", "a", 2), ("b", "c", 0)]
    # A row whose every score has a rank has no edge, and no doubt.
    assert Similarity.from_matrix(scores, list("abcd")).by_top_k([3]).describe().doubtful == ()


def test_pairs_on_which_a_tree_disagrees(animals: Similarity) -> None:
    tree = Taxonomy([("dog", "husky"), ("dog", "malamute"), ("cat", "tabby"), ("cat", "siamese"),
                     ("carp",)])  # fmt: skip
    found = animals.by_thresholds([0.7, 0.45]).describe(tree=tree)
    assert [(p.query, p.key, p.score) for p in found.cross_group_positives] == [
        ("husky", "tabby", 0.5)
    ]
    assert found.within_group_negatives == ()
    found = animals.by_thresholds([0.7]).describe(tree=tree)
    assert [(p.query, p.key, p.score) for p in found.within_group_negatives] == [
        ("siamese", "tabby", 0.6)
    ]
    assert found.totals == (0, 1)
    assert "in a common group, negative by score (1), lowest:\n  siamese -> tabby" in str(found)
    with pytest.raises(ValueError, match="in another order"):
        animals.by_top_k([1]).describe(tree=Taxonomy([(n,) for n in reversed(NAMES)]))


def test_likely_mistakes_are_said(animals: Similarity) -> None:
    assert any("have rank 2" in w for w in
               animals.by_thresholds([2.0, 0.5]).describe().warnings)  # fmt: skip
    assert any("are negatives" in w for w in
               animals.by_thresholds([-1.0]).describe().warnings)  # fmt: skip
    assert any("0.48 keys of rank 2" in w for w in
               animals.by_thresholds([0.8]).describe(batch_size=5).warnings)  # fmt: skip
    assert animals.by_thresholds([0.4]).describe().warnings == ()
    (alone,) = Similarity.from_matrix([[1.0]], ["a"]).by_top_k([1]).describe().warnings
    assert "have rank 2" in alone  # of one class nobody expects negatives
    (both,) = Similarity.from_matrix(torch.ones(2, 2), ["a", "b"]).by_top_k([1]).describe().warnings
    assert "are negatives" in both


def test_no_score_at_all_is_no_crash() -> None:
    found = Similarity.from_matrix([[1, NAN], [NAN, 1]], ["a", "b"]).by_top_k([1])
    assert found.table.tolist() == [[1, -1], [-1, 1]]
    assert "have a score" in str(found.describe())
    alone: SimilarityRanks = Similarity.from_matrix([[1.0]], ["a"]).by_thresholds([0.5])
    assert alone.table.tolist() == [[1]]
    assert alone.describe().pairs == (0, 0, 0, 0)


def test_two_unicode_forms_are_one_name() -> None:
    one, two = "caf\u00e9", "cafe\u0301"
    scores = Similarity.from_matrix([[1, 0.5], [0.25, 1]], [two, "eau"])
    assert scores.aligned_to(["eau", one]).scores.tolist() == [[1, 0.25], [0.5, 1]]
    assert scores.aligned_to(["eau", one]).classes == ("eau", one)
    with pytest.raises(ValueError, match="given twice"):
        Similarity.from_matrix([[1, 0.5], [0.25, 1]], [one, two])
