"""Ranks from scores between items, and the measures that give such scores; each by a slow loop."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rince import Relevance, ScoreRanks, Similarity, TimeRanks, ranked_info_nce
from rince.ranks import graph_closeness, label_overlap, target_closeness
from rince.ranks.score_ranks import describe_pairs

# A handful of values, so that scores meet thresholds; None: not judged.
SCORES = st.sampled_from([None, -1.0, 0.0, 0.5, 0.7, 0.7 + 2**-52, 1.0, 2.0, 3.0])
MATRICES = st.tuples(st.integers(1, 4), st.integers(4, 6)).flatmap(
    lambda size: st.lists(
        st.lists(SCORES, min_size=size[1], max_size=size[1]),
        min_size=size[0],
        max_size=size[0],
    )
)
THRESHOLDS = st.lists(
    st.sampled_from([-0.5, 0.5, 0.7, 1.0, 2.0, 4.0]), min_size=1, unique=True
).map(lambda found: sorted(found, reverse=True))


def oracle(rows: list[list[float | None]], thresholds: list[float], own: bool) -> list[list[int]]:
    table = []
    for i, row in enumerate(rows):
        table.append([])
        for j, score in enumerate(row):
            rank = 0
            if score is None or (own and i == j):
                rank = -1
            else:
                for number, threshold in enumerate(thresholds, 1):
                    if score >= threshold:
                        rank = number
                        break
            table[-1].append(rank)
    return table


def tensor(rows: list[list[float | None]]) -> torch.Tensor:
    return torch.tensor(
        [[math.nan if x is None else x for x in row] for row in rows], dtype=torch.float64
    )


@given(MATRICES, THRESHOLDS, st.booleans(), st.sampled_from([ScoreRanks, Relevance]))
def test_ranks_and_their_summary(
    rows: list[list[float | None]], thresholds: list[float], own: bool, source: Any
) -> None:
    expected = oracle(rows, thresholds, own)
    found = source(thresholds).ranks(tensor(rows), ignore_self=own)
    assert found.matrix.tolist() == expected
    assert found.num_ranks == len(thresholds)
    summary = source(thresholds).describe(tensor(rows), ignore_self=own)
    codes = (*range(1, len(thresholds) + 1), 0, -1)
    assert summary.pairs == {code: sum(row.count(code) for row in expected) for code in codes}
    assert summary.covered == {code: sum(code in row for row in expected) for code in codes}
    assert (summary.num_queries, summary.num_keys) == (len(rows), len(rows[0]))


def test_thresholds_are_compared_in_the_precision_of_the_scores() -> None:
    assert ScoreRanks([0.7]).ranks(torch.tensor([[0.7, 0.699]])).matrix.tolist() == [[1, 0]]
    grades = torch.tensor([[3, 1, 0]], dtype=torch.uint8)
    assert Relevance([2.5, 0.5]).ranks(grades).matrix.tolist() == [[1, 2, 0]]


def test_quantiles_of_a_sample_are_thresholds_for_any_batch() -> None:
    sample = torch.arange(101.0)[torch.randperm(101)]
    sample = torch.cat([sample, torch.full((7,), math.nan)])
    found = ScoreRanks.from_quantiles(sample, [0.99, 0.9])
    assert found.thresholds == (99, 90)
    for percent in range(101):  # 0.29 * 100 is less than 29 in floats
        assert ScoreRanks.from_quantiles(sample, percent / 100).thresholds == (percent,)
    assert found.ranks(torch.tensor([[100.0, 99, 98, 90, 89]])).matrix.tolist() == [[1, 1, 2, 2, 0]]
    with pytest.raises(ValueError, match=r"fall.*rank 1\b"):
        ScoreRanks.from_quantiles(sample, [0.9, 0.99])
    with pytest.raises(ValueError, match="fall.*scores"):
        ScoreRanks.from_quantiles(torch.ones(5), [0.9, 0.5])
    with pytest.raises(ValueError, match="no score"):
        ScoreRanks.from_quantiles(torch.full((3,), math.nan), [0.5])


@pytest.mark.parametrize(
    "wrong", [[], [1, 1], [1, 2], [math.nan], [math.inf, 0], range(0, -200, -1)]
)
def test_what_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"thresholds.*\b1 to 127\b.*finite.*fall"):
        ScoreRanks(wrong)
    with pytest.raises(ValueError, match=r"grades.*\b1 to 127\b.*finite.*fall"):
        Relevance(grades=wrong)
    with pytest.raises(ValueError, match=r"scores.*\(queries, keys\).*\(3,\)"):
        ScoreRanks([1]).ranks(torch.ones(3))
    with pytest.raises(ValueError, match=r"\b3 queries.*\b2\b"):
        ScoreRanks([1]).ranks(torch.ones(3, 2), ignore_self=True)


def test_as_many_thresholds_as_an_int8_has_ranks() -> None:
    assert ScoreRanks(range(0, -127, -1)).num_ranks == 127


def test_warnings_of_a_summary() -> None:
    (first,) = Relevance([2, 1]).describe(torch.tensor([[1.0, 0.0]])).warnings
    assert "no pair has rank 1" in first
    assert "queries: 0, keys: 2" in str(Relevance([2, 1]).describe(torch.zeros(0, 2)))
    summary = Relevance([2, 1]).describe(torch.tensor([[2.0, 2.0]]))
    empty, alone = summary.warnings
    assert "no pair has rank 2" in empty
    assert "no negatives" in alone
    assert all(warning in str(summary) for warning in summary.warnings)
    assert (
        describe_pairs(torch_ranks := Relevance([1]).ranks(torch.eye(2)), ["same"]).warnings == ()
    )
    assert "same" in str(describe_pairs(torch_ranks, ["same"]))


# ---- measures ----------------------------------------------------------------------------------

ROWS = st.integers(1, 4).flatmap(
    lambda width: st.tuples(
        *(st.lists(st.lists(st.integers(0, 1), min_size=width, max_size=width), min_size=1,
                   max_size=5),) * 2
    )
)  # fmt: skip


@given(ROWS)
def test_label_overlap(sides: tuple[list[list[int]], list[list[int]]]) -> None:
    query, key = ([{c for c, has in enumerate(row) if has} for row in side] for side in sides)
    found = label_overlap(torch.tensor(sides[0]), torch.tensor(sides[1]).bool())
    for i, a in enumerate(query):
        for j, b in enumerate(key):
            if a | b:
                assert float(found[i, j]) == pytest.approx(len(a & b) / len(a | b))
            else:
                assert math.isnan(float(found[i, j]))


@given(st.data())
def test_overlap_of_labels_that_are_not_all_known(data: st.DataObject) -> None:
    width = data.draw(st.integers(1, 5))
    values = st.sampled_from((0.0, 0.25, 0.5, 1.0, -1.0, math.nan))
    row = st.lists(values, min_size=width, max_size=width)
    a, b = data.draw(row), data.draw(row)
    known = [(x, y) for x, y in zip(a, b, strict=True) if x >= 0 and y >= 0]
    least, most = (sum(map(f, known)) for f in (min, max))
    found = float(label_overlap(torch.tensor([a]), torch.tensor([b])))
    assert found == pytest.approx(least / most if most else math.nan, nan_ok=True)


@pytest.mark.parametrize("wrong", [2.0, -0.5, math.inf])
def test_labels_that_are_no_indicators(wrong: float) -> None:
    with pytest.raises(ValueError, match=f"key labels.*0, 1, .* {wrong:g}"):
        label_overlap(torch.eye(2), torch.tensor([[0, wrong]]))


def test_targets_of_any_type() -> None:
    years = torch.tensor([1999, 2001], dtype=torch.int16)
    assert target_closeness(years, years.double()).tolist() == [[0, -2], [-2, 0]]
    assert target_closeness(years, years.float()).dtype == torch.float64
    assert target_closeness(years.half(), years).dtype == torch.float64
    moments = torch.tensor([1_700_000_000, 1_700_000_001])
    assert target_closeness(moments, moments).tolist() == [[0, -1], [-1, 0]]
    assert target_closeness(years.half(), years.bfloat16()).dtype == torch.float32


def test_equal_distances_of_targets_tie() -> None:
    """Whatever the order of their parts; float32 sums of these differ."""
    parts = [list(order) for order in itertools.permutations([0.1, 0.2, 0.7, 0.4])]
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        targets = torch.tensor(parts, dtype=dtype)
        assert len(target_closeness(torch.zeros_like(targets[:1]), targets).unique()) == 1
    tenths = torch.arange(200, 300)
    apart = target_closeness(tenths, tenths)
    assert ScoreRanks([-1]).ranks(apart).matrix.sum() == 100 + 2 * 99


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=5),
       st.lists(st.floats(-50, 50), min_size=1, max_size=5))  # fmt: skip
def test_target_closeness(query: list[float], key: list[float]) -> None:
    q, k = (torch.tensor(x, dtype=torch.float64) for x in (query, key))
    expected = [[-abs(a - b) for b in key] for a in query]
    assert target_closeness(q, k).tolist() == expected
    pairs = target_closeness(torch.stack([q, 2 * q], 1), torch.stack([k, 2 * k], 1))
    torch.testing.assert_close(pairs, 3 * torch.tensor(expected, dtype=torch.float64))


EDGES = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=14)


@given(EDGES, st.lists(st.integers(0, 7), min_size=1, max_size=5), st.integers(1, 4))
def test_graph_closeness(edges: list[tuple[int, int]], queries: list[int], max_hops: int) -> None:
    """Against Floyd and Warshall's distances of all pairs."""
    hops = [[0 if a == b else math.inf for b in range(8)] for a in range(8)]
    for a, b in edges:
        if a != b:
            hops[a][b] = hops[b][a] = 1
    for via in range(8):
        for a in range(8):
            for b in range(8):
                hops[a][b] = min(hops[a][b], hops[a][via] + hops[via][b])
    keys = list(range(7, -1, -1))
    found = graph_closeness(
        torch.tensor(edges, dtype=torch.int64).reshape(-1, 2).T, 8, torch.tensor(queries),
        torch.tensor(keys), max_hops,
    )  # fmt: skip
    expected = [[-hops[q][k] if hops[q][k] <= max_hops else -math.inf for k in keys]
                for q in queries]  # fmt: skip
    assert found.tolist() == expected


def test_what_measures_refuse() -> None:
    nodes = torch.arange(2)
    with pytest.raises(ValueError, match=r"max_hops.*\b1\b"):
        graph_closeness(torch.zeros(2, 1).long(), 2, nodes, nodes, 0)
    with pytest.raises(ValueError, match=r"edges.*\(2, .*\(1, 2\)"):
        graph_closeness(torch.zeros(1, 2).long(), 2, nodes, nodes, 1)
    with pytest.raises(ValueError, match=r"key_nodes.*\[0, 2\)"):
        graph_closeness(torch.zeros(2, 1).long(), 2, nodes, nodes + 1, 1)
    with pytest.raises(ValueError, match=r"query_nodes.*\[0, 2\)"):
        graph_closeness(torch.zeros(2, 1).long(), 2, nodes - 1, nodes, 1)
    with pytest.raises(ValueError, match="targets.*sides"):
        target_closeness(torch.zeros(3, 2), torch.zeros(3))
    with pytest.raises(ValueError, match="indicators"):
        label_overlap(torch.zeros(3), torch.zeros(3, 1))


# ---- on real data ------------------------------------------------------------------------------


def test_neighbourhoods_of_the_karate_club() -> None:
    """Zachary 1977, 34 members who split into two clubs; nearer members are more often of one."""
    networkx = pytest.importorskip("networkx")
    graph = networkx.karate_club_graph()
    edges, nodes = torch.tensor(list(graph.edges)).T, torch.arange(34)
    closeness = graph_closeness(edges, 34, nodes, nodes, max_hops=3)
    hops = dict(networkx.all_pairs_shortest_path_length(graph))
    for a in range(34):
        for b in range(34):
            assert float(closeness[a, b]) == (-hops[a][b] if hops[a][b] <= 3 else -math.inf)
    ranks = ScoreRanks([-1, -2]).ranks(closeness, ignore_self=True).matrix
    club = torch.tensor([graph.nodes[n]["club"] == "Officer" for n in graph])
    same = club[:, None] == club[None]
    agreement = [float(same[ranks == code].float().mean()) for code in (1, 2, 0)]
    assert agreement[0] > agreement[1] > agreement[2]  # measured: 0.87, 0.57, 0.11
    z = torch.nn.functional.normalize(torch.randn(34, 4), dim=1)
    assert bool(ranked_info_nce(z, z, ranks, (0.1, 0.3)).isfinite())


def test_grades_of_cranfield(shared_data: Path) -> None:
    pandas = pytest.importorskip("pandas")
    qrels = pandas.read_parquet(shared_data / "cranfield" / "qrels.parquet").dropna()
    queries, documents = qrels.query_id.astype("category"), qrels.doc_id.astype("category")
    gains = torch.zeros(queries.nunique(), documents.nunique())
    gains[torch.tensor(queries.cat.codes.to_numpy()).long(),
          torch.tensor(documents.cat.codes.to_numpy()).long()] = torch.tensor(
        qrels.gain.to_numpy("float32"))  # fmt: skip
    summary = Relevance(grades=[4, 3, 2, 1]).describe(gains)
    counted = qrels.gain.value_counts()
    assert [summary.pairs[rank] for rank in (1, 2, 3, 4)] == [int(counted[g]) for g in (4, 3, 2, 1)]
    assert summary.warnings == ()


def test_one_rank_takes_a_number_alone() -> None:
    """As the losses take one temperature."""
    scores = torch.rand(9, 9, generator=torch.Generator().manual_seed(0))
    assert ScoreRanks(0.5).thresholds == ScoreRanks([0.5]).thresholds
    quantile = ScoreRanks.from_quantiles(scores, 0.9)
    assert quantile.thresholds == ScoreRanks.from_quantiles(scores, [0.9]).thresholds
    assert TimeRanks(10) == TimeRanks([10])
    classes = Similarity.from_matrix(scores, list("abcdefghi"))
    for rule, number in (("by_thresholds", 0.5), ("by_quantiles", 0.9), ("by_top_k", 3)):
        one, many = (getattr(classes, rule)(x) for x in (number, [number]))
        assert torch.equal(one.table, many.table)
