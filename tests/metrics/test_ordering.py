from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from metric_inputs import FloatArray, cosines, normal_features, random_labels, sign_features
from rince.core.pair_ranks import DenseRanks, IdentityRanks, TableRanks
from rince.metrics.ordering import (
    rank_agreement,
    rank_correlation,
    similar_first,
    similarity_histograms,
)
from rince.ranks.taxonomy import Taxonomy


def random_ranks(seed: int, rows: int, cols: int, low: int = -1, high: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high + 1, (rows, cols), generator=generator)


def oracle_agreement(similarity: FloatArray, ranks: npt.NDArray[np.int64]) -> dict[str, float]:
    strict: dict[str, list[float]] = {}
    pairs: dict[str, list[float]] = {}
    for row, rank in zip(similarity, ranks, strict=True):
        own = [r for r in sorted(set(rank)) if r > 0] + ([0] if (rank == 0).any() else [])
        for a, b in zip(own, own[1:], strict=False):
            better, worse = row[rank == a], row[rank == b]
            strict.setdefault(f"{a}>{b}", []).append(min(better) > max(worse))
            won = np.mean([(x > y) + (x == y) / 2 for x in better for y in worse])
            pairs.setdefault(f"pairs/{a}>{b}", []).append(float(won))
    return {name: float(np.mean(values)) for name, values in (strict | pairs).items()}


def oracle_correlation(similarity: FloatArray, ranks: npt.NDArray[np.int64]) -> list[float]:
    found = []
    for row, rank in zip(similarity, ranks, strict=True):
        grade = np.where(rank == 0, -1000, -rank)  # higher is more similar
        right = wrong = total = 0
        for i in range(len(row)):
            for j in range(i):
                if min(rank[i], rank[j]) >= 0 and rank[i] != rank[j]:
                    product = (row[i] - row[j]) * (grade[i] - grade[j])
                    right, wrong, total = right + (product > 0), wrong + (product < 0), total + 1
        if total:
            found.append((right - wrong) / total)
    return found


@given(
    seed=st.integers(0, 10_000),
    low=st.integers(-1, 1),
    high=st.integers(1, 3),
    cols=st.integers(2, 12),
)
@settings(max_examples=80, deadline=None)
def test_equal_the_slow_definitions_with_many_ties(
    seed: int, low: int, high: int, cols: int
) -> None:
    query, gallery = sign_features(seed, 6), sign_features(seed + 1, cols)
    matrix = random_ranks(seed, 6, cols, low, high)
    similarity, codes = cosines(query, gallery), matrix.numpy()
    ranks = DenseRanks(matrix)
    expected = oracle_agreement(similarity, codes)
    if expected:
        assert rank_agreement(query, gallery, ranks, chunk_size=4) == pytest.approx(expected)
    else:
        with pytest.raises(ValueError, match="two ranks"):
            rank_agreement(query, gallery, ranks, chunk_size=4)
    correlations = oracle_correlation(similarity, codes)
    if correlations:
        found = rank_correlation(query, gallery, ranks, chunk_size=4)
        assert found == pytest.approx(np.mean(correlations))
    else:
        with pytest.raises(ValueError, match="cannot correlate"):
            rank_correlation(query, gallery, ranks, chunk_size=4)


@pytest.mark.parametrize("features", [normal_features, sign_features])
def test_correlation_equals_scipy(features: object) -> None:
    from scipy.stats import somersd

    query, gallery = features(0, 8), features(1, 60)  # type: ignore[operator]
    matrix = random_ranks(0, 8, 60, low=0)
    grades = torch.where(matrix == 0, 4, matrix)
    expected = [
        somersd(-grade, np.round(row, 6)).statistic
        for grade, row in zip(grades.numpy(), cosines(query, gallery), strict=True)
    ]
    found = rank_correlation(query, gallery, DenseRanks(matrix))
    assert found == pytest.approx(np.mean(expected), abs=1e-9)


def test_pairs_equal_mann_whitney() -> None:
    from scipy.stats import mannwhitneyu

    query, gallery = normal_features(0, 8), normal_features(1, 60)
    matrix = random_ranks(0, 8, 60, high=2)
    expected = []
    for rank, row in zip(matrix.numpy(), cosines(query, gallery), strict=True):
        one, two = row[rank == 1], row[rank == 2]
        expected.append(mannwhitneyu(one, two).statistic / (len(one) * len(two)))
    found = rank_agreement(query, gallery, DenseRanks(matrix))
    assert found["pairs/1>2"] == pytest.approx(np.mean(expected), abs=1e-9)


def fan(*angles: float) -> Tensor:
    a = torch.tensor(angles)
    return torch.stack([a.cos(), a.sin()], 1)


def test_worked_example() -> None:
    """One query; its keys fall off in similarity in this order: 1 2 1 2 0 0."""
    gallery = fan(0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    ranks = DenseRanks(torch.tensor([[1, 2, 1, 2, 0, 0]]))
    assert rank_agreement(fan(0.0), gallery, ranks) == {
        "1>2": 0.0,
        "2>0": 1.0,
        "pairs/1>2": 3 / 4,
        "pairs/2>0": 1.0,
    }
    # Pairs: 4 (1, 2), 4 (1, 0), 4 (2, 0); one of the first is wrong.
    assert rank_correlation(fan(0.0), gallery, ranks) == pytest.approx((11 - 1) / 12)


def test_a_tie_is_not_a_win() -> None:
    ranks = DenseRanks(torch.tensor([[1, 0]]))
    found = rank_agreement(torch.ones(1, 4), torch.ones(2, 4), ranks)
    assert found == {"1>0": 0.0, "pairs/1>0": 0.5}
    assert rank_correlation(torch.ones(1, 4), torch.ones(2, 4), ranks) == 0.0


def test_perfect_and_reversed_orders_reach_the_bounds() -> None:
    gallery = fan(*(0.01 * i for i in range(1, 101)))
    matrix = torch.tensor([[1] * 2 + [2] * 8 + [3] * 20 + [0] * 70])
    names = ["1>2", "2>3", "3>0"]
    for sign, value in ((1, 1.0), (-1, 0.0)):
        query = fan(0.0) if sign > 0 else fan(1.2)
        found = rank_agreement(query, gallery, DenseRanks(matrix))
        assert found == {**dict.fromkeys(names, value)} | {f"pairs/{n}": value for n in names}
        assert rank_correlation(query, gallery, DenseRanks(matrix)) == sign


def test_only_queries_with_both_ranks_count() -> None:
    gallery = fan(0.1, 0.2, 0.3)
    ranks = DenseRanks(torch.tensor([[1, 2, 0], [2, 1, -1], [0, 0, 0], [-1, -1, 1]]))
    found = rank_agreement(fan(0.0, 0.0, 0.0, 0.0), gallery, ranks, chunk_size=1)
    assert found == {"1>2": 0.5, "2>0": 1.0, "pairs/1>2": 0.5, "pairs/2>0": 1.0}
    correlation = rank_correlation(fan(0.0, 0.0, 0.0, 0.0), gallery, ranks, chunk_size=1)
    assert correlation == (1 - 1) / 2


def test_an_absent_rank_is_passed_over_and_an_ignored_pair_ignored() -> None:
    gallery = fan(0.1, 0.2, 0.3, 0.4)
    ranks = DenseRanks(torch.tensor([[3, 1, -1, 3]]), num_ranks=5)
    assert rank_agreement(fan(0.0), gallery, ranks) == {"1>3": 0.0, "pairs/1>3": 0.5}
    apart = DenseRanks(torch.tensor([[1, 0, -1, -1], [2, 0, -1, -1]]))
    found = rank_agreement(fan(0.0, 0.0), gallery, apart)
    assert found == dict.fromkeys(("1>0", "2>0", "pairs/1>0", "pairs/2>0"), 1.0)


def test_a_ragged_tree_is_asked_of_each_query_s_own_next_rank() -> None:
    """Four of six classes have siblings of rank 3 and none of rank 2; those come first here."""
    tree = Taxonomy.from_dict(
        {
            "dogs": ["husky", "malamute"],
            "cats": ["siamese", "sphynx"],
            "vehicles": {"cars": ["coupe", "van"]},
        }
    )
    labels = torch.arange(6)
    sibling = labels + 1 - 2 * (labels % 2)
    nearest = torch.where(labels < 4, sibling, labels)  # dogs and cats see their siblings first
    query = 2 * torch.eye(6)[nearest] + torch.eye(6)[sibling] + torch.eye(6)[labels]
    found = rank_agreement(query, torch.eye(6), tree.ranks(labels, labels))
    names = {"1>2": 1.0, "1>3": 0.0, "2>0": 1.0, "3>0": 1.0}
    assert found == names | {f"pairs/{name}": value for name, value in names.items()}


def test_label_tables_and_identities_are_as_good_as_matrices() -> None:
    table = torch.tensor([[1, 2, 0, 0], [2, 1, 0, 0], [0, 0, 1, 2], [0, 0, 2, 1]])
    features, labels = normal_features(0, 30), random_labels(0, 30, 4)
    tables = TableRanks(labels[:20], labels, table, ignore_self=True)
    matrix = table[labels[:20, None], labels[None]].clone()
    matrix.fill_diagonal_(-1)
    for function in (rank_agreement, rank_correlation):
        assert (
            function(features[:20], features, tables, chunk_size=7)
            == pytest.approx(  # type: ignore[operator]
                function(features[:20], features, DenseRanks(matrix))  # type: ignore[operator]
            )
        )
    found = rank_agreement(
        features[:20].clone(), features, IdentityRanks(torch.arange(20), torch.arange(30))
    )
    assert found == {"1>0": 1.0, "pairs/1>0": 1.0}


@given(seed=st.integers(0, 1000), chunk_size=st.integers(1, 20))
@settings(max_examples=20, deadline=None)
def test_chunks_and_the_order_of_both_sides_play_no_part(seed: int, chunk_size: int) -> None:
    query, gallery, matrix = sign_features(0, 15), sign_features(1, 30), random_ranks(0, 15, 30)
    generator = torch.Generator().manual_seed(seed)
    p, q = torch.randperm(15, generator=generator), torch.randperm(30, generator=generator)
    plain = (query, gallery, DenseRanks(matrix))
    moved = (query[p], gallery[q], DenseRanks(matrix[p][:, q]))
    for function in (rank_agreement, rank_correlation):
        assert function(*moved, chunk_size=chunk_size) == pytest.approx(function(*plain), rel=1e-12)  # type: ignore[operator]
    one, other = similarity_histograms(*plain), similarity_histograms(*moved, chunk_size=chunk_size)
    assert one.counts.keys() == other.counts.keys()
    assert all((one.counts[r] == other.counts[r]).all() for r in one.counts)


@pytest.mark.parametrize("chunk_size", [3, 100])
def test_histograms_equal_numpy(chunk_size: int) -> None:
    query, gallery = normal_features(0, 20, 3), normal_features(1, 50, 3)
    matrix = random_ranks(0, 20, 50)
    matrix[:5][matrix[:5] == 3] = -1  # the highest rank is missing from the first chunk
    found = similarity_histograms(
        query, gallery, DenseRanks(matrix), bins=60, chunk_size=chunk_size
    )
    assert found.edges == pytest.approx(np.linspace(-1, 1, 61))
    assert list(found.counts) == [0, 1, 2, 3]
    for rank, counts in found.counts.items():
        chosen = cosines(query, gallery)[matrix.numpy() == rank]
        assert counts.tolist() == np.histogram(chosen, bins=60, range=(-1, 1))[0].tolist()


@given(
    seed=st.integers(0, 1000),
    bins=st.sampled_from([1, 2, 3, 4, 8]),
    chunk_size=st.integers(1, 5),
    worst=st.integers(-1, 3),
)
@settings(max_examples=40, deadline=None)
def test_histograms_equal_counting_one_by_one(
    seed: int, bins: int, chunk_size: int, worst: int
) -> None:
    """Cosines -1, -1/2, 0, 1/2 and 1: most of them on an edge."""
    query, gallery = sign_features(seed, 4), sign_features(seed + 1, 9)
    matrix = random_ranks(seed, 4, 9, high=worst)
    expected: dict[int, list[int]] = {}
    for i in range(4):
        for j in range(9):
            if (rank := int(matrix[i, j])) >= 0:
                cosine = Fraction(int(query[i] @ gallery[j]), 4)
                inside = [k for k in range(bins) if Fraction(2 * k, bins) - 1 <= cosine]
                expected.setdefault(rank, [0] * bins)[inside[-1]] += 1
    found = similarity_histograms(query, gallery, matrix, bins=bins, chunk_size=chunk_size)
    assert {rank: counts.tolist() for rank, counts in found.counts.items()} == expected
    assert list(found.counts) == sorted(expected)


def test_histogram_edges_and_ignored_pairs() -> None:
    """Cosines of the first row with the others: 1, 1/2, 0, -1/2, -1."""
    rows = torch.ones(5, 4).tril(-1)
    gallery = 1 - 2 * rows
    ranks = DenseRanks(torch.tensor([[2, 2, 2, 2, 2]]))
    found = similarity_histograms(gallery[:1].clone(), gallery, ranks, bins=4)
    assert {r: c.tolist() for r, c in found.counts.items()} == {2: [1, 1, 1, 2]}
    masked = DenseRanks(torch.tensor([[-1, 2, -1, 0, -1]]))
    found = similarity_histograms(gallery[:1], gallery, masked, bins=2)
    assert {r: c.tolist() for r, c in found.counts.items()} == {0: [1, 0], 2: [0, 1]}
    found = similarity_histograms(gallery[:1], gallery, masked, bins=8)  # the last bin is empty
    counts = {r: c.tolist() for r, c in found.counts.items()}
    assert counts == {0: [0, 0, 1, 0, 0, 0, 0, 0], 2: [0, 0, 0, 0, 0, 0, 1, 0]}


def test_errors() -> None:
    query, gallery = normal_features(0, 3), normal_features(1, 5)
    good = DenseRanks(random_ranks(0, 3, 5))
    for function in (rank_agreement, rank_correlation, similarity_histograms):
        with pytest.raises(ValueError, match=r"= \(3, 5\), got \(5, 3\)"):
            function(query, gallery, DenseRanks(random_ranks(0, 5, 3)))  # type: ignore[operator]
        with pytest.raises(ValueError, match="query features hold NaN"):
            function(query * torch.nan, gallery, good)  # type: ignore[operator]
        with pytest.raises(ValueError, match="as many dimensions"):
            function(query[:, :4], gallery, good)  # type: ignore[operator]
    for code in (-1, 0, 1):
        single = DenseRanks(torch.full((3, 5), code))
        with pytest.raises(ValueError, match="two ranks"):
            rank_agreement(query, gallery, single)
        with pytest.raises(ValueError, match="cannot correlate"):
            rank_correlation(query, gallery, single)
    with pytest.raises(ValueError, match=r"bins.*\b1\b.* 0\b"):
        similarity_histograms(query, gallery, good, bins=0)


def test_ranks_are_sorted_by_what_is_similar_and_negatives_are_last() -> None:
    assert sorted([0, 2, -1, 1], key=similar_first) == [1, 2, -1, 0]
