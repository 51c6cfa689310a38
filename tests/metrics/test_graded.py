from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rince.metrics.graded import ndcg


def oracle(similarity: list[float], gains: list[float], k: int) -> float | None:
    """The mean over all orders in which ties may fall, by giving each tie its mean discount."""
    places = sorted(range(len(gains)), key=lambda j: -similarity[j])
    discounts = [1 / math.log2(p + 2) if p < k else 0.0 for p in range(len(gains))]
    total = 0.0
    for j, gain in enumerate(gains):
        mine = [discounts[p] for p, i in enumerate(places) if similarity[i] == similarity[j]]
        total += gain * sum(mine) / len(mine)
    best = sum(g * d for g, d in zip(sorted(gains, reverse=True), discounts, strict=True))
    return total / best if best else None


GAINS = st.integers(1, 7).flatmap(
    lambda width: st.lists(
        st.lists(st.sampled_from([0, 0, 1, 2, 3.5]), min_size=width, max_size=width),
        min_size=1,
        max_size=4,
    )
)


@pytest.mark.filterwarnings("ignore:Sparse")
@given(GAINS, st.integers(0, 10**6), st.integers(1, 8), st.integers(1, 3))
def test_against_the_definition_and_sklearn(
    gains: list[list[float]], seed: int, k: int, chunk_size: int
) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    generator = torch.Generator().manual_seed(seed)
    # Few directions, so that cosines tie; exact in float32.
    directions = torch.tensor([[1.0, 0, 0, 0], [0.5, 0.5, 0.5, 0.5], [0, 0, 1, 0], [-1, 0, 0, 0]])
    gallery = directions[torch.randint(4, (len(gains[0]),), generator=generator)]
    queries = directions[torch.randint(4, (len(gains),), generator=generator)]
    given_gains = torch.tensor(gains)
    if not bool((given_gains > 0).any()):
        with pytest.raises(ValueError, match=r"no query.*gain.* 0\b"):
            ndcg(queries, gallery, given_gains)
        return
    found = ndcg(queries, gallery, given_gains, ks=(k, 2), chunk_size=chunk_size)
    for sparse in (given_gains.to_sparse_coo(), given_gains.to_sparse_csr()):
        of_sparse = ndcg(queries, gallery, sparse, ks=(k, 2), chunk_size=chunk_size)
        assert all(
            torch.equal(of_sparse[at].nan_to_num(9), found[at].nan_to_num(9)) for at in found
        )
    similarity = (queries @ gallery.T).tolist()
    for at in (k, 2):
        expected = [oracle(s, g, at) for s, g in zip(similarity, gains, strict=True)]
        for value, wanted in zip(found[at].tolist(), expected, strict=True):
            if wanted is None:
                assert math.isnan(value)
            else:
                assert value == pytest.approx(wanted, abs=1e-12)
        there = [i for i, wanted in enumerate(expected) if wanted is not None]
        if len(gains[0]) > 1:
            theirs = metrics.ndcg_score(
                [gains[i] for i in there], [similarity[i] for i in there], k=at
            )
            assert float(found[at].nanmean()) == pytest.approx(theirs, abs=1e-9)


def test_a_collapsed_encoder_has_no_better_than_chance() -> None:
    gains = torch.zeros(1, 100)
    gains[0, 0] = 3
    found = ndcg(torch.ones(1, 4), torch.ones(100, 4), gains)[10]
    assert float(found) == pytest.approx(sum(1 / math.log2(p + 2) for p in range(10)) / 100)


def test_gains_near_the_largest_number_are_those_of_small_ones() -> None:
    torch.manual_seed(0)
    query, gallery, grades = torch.randn(5, 4), torch.randn(30, 4), torch.randint(0, 4, (5, 30))
    small, huge = (ndcg(query, gallery, grades.double() * x)[10] for x in (1, 5e307))
    torch.testing.assert_close(huge, small)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.uint32, torch.uint64])
def test_gains_may_be_of_types_without_a_sign(dtype: torch.dtype) -> None:
    gains, z = torch.tensor([[3, 0, 1]]), torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6]])
    query = z[:1].clone()
    assert torch.equal(ndcg(query, z, gains.to(dtype))[10], ndcg(query, z, gains)[10])
    if dtype == torch.uint64:  # a number that int64 does not have
        gains = torch.tensor([[2**63, 0, 2**62]], dtype=dtype)
        assert torch.equal(ndcg(query, z, gains)[10], ndcg(query, z, torch.tensor([[2, 0, 1]]))[10])


def test_what_is_refused() -> None:
    z = torch.eye(3)
    with pytest.raises(ValueError, match=r"gains.*= \(3, 3\)"):
        ndcg(z, z, torch.ones(3, 2))
    with pytest.raises(ValueError, match=r"ks must.*\b1\b.*\(5, 0\)"):
        ndcg(z, z, torch.eye(3), ks=(5, 0))
    for wrong in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"gains.*finite.* 0\b"):
            ndcg(z, z.clone(), torch.eye(3).index_fill(0, torch.tensor([1]), wrong))
