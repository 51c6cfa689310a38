"""Ranks by levels: each pair against the definition, and against the tables of class trees."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rince import Taxonomy, ranked_info_nce
from rince.core.pair_ranks import ALL, PairRanks
from rince.ranks import LevelRanks, TableRanks

Labels = list[list[int]]


@st.composite
def sides(draw: st.DrawFn) -> tuple[Labels, Labels, bool, list[bool] | None]:
    """Rows of labels, whether the first keys are the queries, which keys are valid."""
    levels = draw(st.integers(1, 4))
    rows = st.lists(st.sampled_from([0, 1, 7, 2**40]), min_size=levels, max_size=levels)
    queries = draw(st.lists(rows, min_size=1, max_size=5))
    keys = draw(st.lists(rows, min_size=len(queries), max_size=8))
    valid = draw(st.none() | st.lists(st.booleans(), min_size=len(keys), max_size=len(keys)))
    return queries, keys, draw(st.booleans()), valid


def by_definition(
    queries: Labels, keys: Labels, ignore_self: bool, valid: list[bool] | None
) -> list[list[int]]:
    """Finest level first; the finest level at which all coarser ones agree too."""
    ranks = []
    for i, query in enumerate(queries):
        row = []
        for j, key in enumerate(keys):
            agreeing = [level for level in range(len(query)) if query[level:] == key[level:]]
            ignored = (ignore_self and i == j) or (valid is not None and not valid[j])
            row.append(-1 if ignored else min(agreeing) + 1 if agreeing else 0)
        ranks.append(row)
    return ranks


@given(sides(), st.booleans())
def test_each_pair_is_as_defined(
    drawn: tuple[Labels, Labels, bool, list[bool] | None], finest_first: bool
) -> None:
    queries, keys, ignore_self, valid = drawn
    columns = slice(None) if finest_first else slice(None, None, -1)
    source = LevelRanks(
        torch.tensor([row[columns] for row in queries]),
        torch.tensor([row[columns] for row in keys]),
        finest_first=finest_first,
        ignore_self=ignore_self,
        key_valid=None if valid is None else torch.tensor(valid),
    )
    expected = by_definition(queries, keys, ignore_self, valid)
    assert isinstance(source, PairRanks)
    assert source.shape == (len(queries), len(keys))
    assert source.num_ranks == len(queries[0])
    assert source.tile(ALL, ALL).dtype == torch.int8
    assert source.tile(ALL, ALL).tolist() == expected
    assert source.tile(slice(1, 3), slice(2, 5)).tolist() == [row[2:5] for row in expected[1:3]]
    assert source.to(torch.device("cpu")).tile(ALL, ALL).tolist() == expected


def test_a_loss_and_its_gradient_are_those_of_a_table() -> None:
    tree = Taxonomy.cifar100()
    labels = torch.arange(150) * 7 % 100
    z = torch.nn.functional.normalize(
        torch.randn(150, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), dim=1
    )
    columns = torch.stack([tree.labels_at(2), tree.labels_at(1)], dim=1)[labels]
    sources = (
        tree.ranks(labels, labels, ignore_self=True),
        LevelRanks(columns, columns, finest_first=False, ignore_self=True),
    )
    results = []
    for ranks in sources:
        leaf = z.clone().requires_grad_()
        loss = ranked_info_nce(leaf, leaf, ranks, (0.1, 0.225))
        loss.backward()
        results.append((loss, leaf.grad))
    torch.testing.assert_close(*results)


# ---- class trees from label columns ----------------------------------------------------------


@given(sides(), st.booleans())
def test_a_tree_from_labels_has_their_ranks(
    drawn: tuple[Labels, Labels, bool, list[bool] | None], finest_first: bool
) -> None:
    _, rows, _, _ = drawn  # finest first
    labels = torch.tensor(rows)
    tree = Taxonomy.from_labels(
        labels if finest_first else labels.flip(1), finest_first=finest_first
    )
    assert tree.num_ranks == labels.shape[1]
    assert [tuple(map(int, path[:-1])) for path in tree.paths] == [
        row[:0:-1] for row in sorted({tuple(row) for row in rows})
    ]
    of_item = torch.unique(labels, dim=0, return_inverse=True)[1]
    expected = by_definition(rows, rows, False, None)
    assert tree.ranks(of_item, of_item).tile(ALL, ALL).tolist() == expected
    assert torch.equal(
        tree.table, LevelRanks(tree.codes, tree.codes, finest_first=True).tile(ALL, ALL)
    )


def test_names_of_a_tree_from_labels() -> None:
    rows = [[0, 5, 1], [0, 6, 1], [9, 5, 1], [0, 5, 1]]
    tree = Taxonomy.from_labels(rows, finest_first=True)
    assert tree.paths == (("1", "5", "0"), ("1", "6", "0"), ("1", "5", "9"))
    coarse_first = Taxonomy.from_labels([row[::-1] for row in rows], finest_first=False)
    assert coarse_first == tree
    for wrong, fact in (([1, 2], r"\(2,\)"), ([[0.5]], "float"), (torch.zeros(0, 2), r"\(0, 2\)")):
        with pytest.raises(ValueError, match=fact):
            Taxonomy.from_labels(wrong, finest_first=True)


def test_a_large_tree_needs_no_table() -> None:
    """Of 200,000 classes a table would take 40 GB."""
    size = 200_000
    classes = torch.arange(size)
    columns = torch.stack([classes, classes // 10, classes // 1000], dim=1)
    tree = Taxonomy.from_labels(columns, finest_first=True)
    assert tree.classes[-1] == str(size - 1)
    query, key = torch.tensor([0, 199_999, 5]), torch.tensor([0, 199_999, 7, 900, 1000, -4])
    valid = torch.tensor([True, True, True, True, True, False])
    ranks = tree.ranks(query, key, ignore_self=True, key_valid=valid)
    assert isinstance(ranks, LevelRanks)
    assert ranks.tile(ALL, ALL).tolist() == [
        [-1, 0, 2, 3, 0, -1],
        [0, -1, 0, 0, 0, -1],
        [2, 0, -1, 3, 0, -1],
    ]
    summary = tree.describe(batch_size=11)
    assert summary.groups == (200_000, 20_000, 200)
    assert summary.pairs[:3] == (200_000, 20_000 * 45, 200 * (1000 * 999 // 2 - 100 * 45))
    assert summary.expected[:3] == pytest.approx((10 / size, 90 / size, 9900 / size))
    for wrong in (-1, size):
        with pytest.raises(ValueError, match=f"query_labels .*200000.*hold {wrong}"):
            tree.ranks(torch.tensor([0, wrong]), key)


@pytest.mark.parametrize("size", [2048, 2049])
def test_small_and_large_trees_give_the_same_ranks(size: int) -> None:
    tree = Taxonomy((f"g{i % 7}", f"c{i}") if i % 5 else (f"c{i}",) for i in range(size))
    labels = torch.randint(size, (60,), generator=torch.Generator().manual_seed(1))
    ranks = tree.ranks(labels, labels, ignore_self=True)
    assert isinstance(ranks, TableRanks if size == 2048 else LevelRanks)
    expected = tree.class_ranks.ranks(labels, labels, ignore_self=True)
    assert torch.equal(ranks.tile(ALL, ALL), expected.tile(ALL, ALL))
    assert ranks.num_ranks == expected.num_ranks


@pytest.mark.parametrize(
    ("query", "key", "fact"),
    [
        (torch.zeros(3, dtype=torch.int64), torch.zeros(3, 2, dtype=torch.int64), r"\(3,\)"),
        (torch.zeros(3, 1, dtype=torch.int64), torch.zeros(3, 2, dtype=torch.int64), r"\(3, 1\)"),
        (torch.zeros(3, 0, dtype=torch.int64), torch.zeros(3, 0, dtype=torch.int64), r"\(3, 0\)"),
        (torch.zeros(2, 128, dtype=torch.int8), torch.zeros(2, 128, dtype=torch.int8), "127"),
        (torch.zeros(3, 2), torch.zeros(3, 2, dtype=torch.int64), "float32"),
        (torch.zeros(3, 2, dtype=torch.int64), torch.zeros(2, 2, dtype=torch.int64), "3 queries"),
    ],
)
def test_what_is_refused(query: Tensor, key: Tensor, fact: str) -> None:
    with pytest.raises(ValueError, match=fact):
        LevelRanks(query, key, finest_first=True, ignore_self=True)


def test_the_most_levels_fit_int8() -> None:
    row = torch.zeros(1, 127, dtype=torch.int64)
    other = row.clone()
    other[0, :126] = 1
    both = torch.cat([row, other])
    source = LevelRanks(both, both, finest_first=True)
    assert source.tile(ALL, ALL).tolist() == [[1, 127], [127, 1]]


def test_negative_ids_are_refused() -> None:
    """They say that a label is not known, and two unknown ones are not alike."""
    labels = torch.tensor([[0, 1], [3, -1]])
    second = torch.tensor([False, True])
    for make in (
        lambda: LevelRanks(labels, labels.abs(), finest_first=True),
        lambda: LevelRanks(labels.abs(), labels, finest_first=True),
        lambda: LevelRanks(labels.abs(), labels, finest_first=True, key_valid=second),
        lambda: Taxonomy.from_labels(labels, finest_first=True),
    ):
        with pytest.raises(ValueError, match="row 1 holds -1"):
            make()
    valid = torch.tensor([True, False])  # other keys may carry anything
    assert LevelRanks(labels.abs(), labels, finest_first=True, key_valid=valid).shape == (2, 2)


def test_labels_on_another_device_are_not_read() -> None:
    labels = torch.zeros(3, 2, dtype=torch.int64, device="meta")  # where there is nothing to read
    assert LevelRanks(labels, labels, finest_first=True).tile(ALL, ALL).shape == (3, 3)
