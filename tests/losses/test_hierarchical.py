from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from oracles import losses as oracle
from rince import RinceWarning, Taxonomy
from rince.losses import himulcon, supcon_out
from rince.losses.hierarchical import smoothed_targets
from rince.ranks import DenseRanks, TableRanks


@dataclass(frozen=True)
class Case:
    query: Tensor  # (Q, D) float64, unit length
    key: Tensor  # (K, D) float64, unit length
    ranks: Tensor  # (Q, K) int64 in {-1, 0, ..., L}
    temperature: float
    weights: list[float]  # L of them

    def loss(self, **changed: Any) -> Tensor:
        inputs = {
            "query": self.query,
            "key": self.key,
            "ranks": self.ranks,
            "temperature": self.temperature,
            "level_weights": self.weights,
            "reduction": "none",
            "validate": False,
            **changed,
        }
        return himulcon(**inputs)

    def oracle(self, query: Any = None, key: Any = None) -> list[float | None]:
        return oracle.himulcon(
            self.query.tolist() if query is None else query,
            self.key.tolist() if key is None else key,
            self.ranks.tolist(),
            self.temperature,
            self.weights,
        )


def unit(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(
        torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1
    )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    queries, keys, levels = (
        draw(st.integers(1, 4)),
        draw(st.integers(1, 7)),
        draw(st.integers(1, 4)),
    )
    codes = st.lists(st.integers(-1, levels), min_size=keys, max_size=keys)
    ranks = torch.tensor(draw(st.lists(codes, min_size=queries, max_size=queries)))
    seed, dimension = draw(st.integers(0, 2**31)), draw(st.integers(2, 4))
    weights = draw(st.lists(st.floats(0, 3), min_size=levels, max_size=levels))
    query, key = unit(seed, queries, dimension), unit(seed + 1, keys, dimension)
    return Case(query, key, ranks, draw(st.floats(0.05, 1)), weights)


# ---- HiMulConE -----------------------------------------------------------------------------


@given(cases())
def test_himulcon_is_the_formula(case: Case) -> None:
    expected = case.oracle()
    numbers = torch.tensor([0.0 if x is None else x for x in expected], dtype=torch.float64)
    torch.testing.assert_close(case.loss(), numbers, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(case.loss(reduction="sum"), numbers.sum(), rtol=1e-9, atol=1e-10)
    mean = torch.tensor(oracle.mean(expected), dtype=torch.float64)
    torch.testing.assert_close(case.loss(reduction="mean"), mean, rtol=1e-9, atol=1e-10)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert torch.equal(case.loss(validate=True), case.loss())
    nothing = all(x is None for x in expected)
    assert ["its gradient" in str(w.message) for w in caught] == [True] * nothing


@given(cases())
def test_the_gradient_is_that_of_the_formula(case: Case) -> None:
    """Random vectors: no two pairs tie for the maximum."""
    query, key = case.query.clone().requires_grad_(), case.key.clone().requires_grad_()
    case.loss(query=query, key=key, reduction="mean").backward()
    for found, at, mean in (
        (query.grad, case.query, lambda x: oracle.mean(case.oracle(query=x))),
        (key.grad, case.key, lambda x: oracle.mean(case.oracle(key=x))),
    ):
        expected = torch.tensor(oracle.central_differences(mean, at.tolist()), dtype=torch.float64)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@given(cases())
def test_one_level_is_supcon_out(case: Case) -> None:
    ranks = case.ranks.clamp(max=1)
    found = case.loss(ranks=ranks, level_weights=[1.0])
    expected = supcon_out(
        case.query, case.key, ranks, case.temperature, reduction="none", validate=False
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_a_finer_pair_that_is_far_holds_up_the_coarser_ones() -> None:
    """Query 1 has a bad rank-1 pair; the rank-2 pair of query 0 costs at least as much."""
    z = torch.eye(3, dtype=torch.float64)
    query = z[:2]
    key = torch.stack([z[0], z[0], -z[1], z[2]])
    ranks = torch.tensor([[1, 2, 0, 0], [0, 0, 1, 0]])
    alone = himulcon(query[:1], key, ranks[:1], 0.5, level_weights=[0.0, 2.0])
    held = himulcon(query, key, ranks, 0.5, level_weights=[0.0, 2.0], reduction="none")[0]
    worst = math.log(3 + math.exp(-2)) + 2  # cosines 0, 0, -1, 0 over 0.5
    assert float(held) == pytest.approx(worst)
    assert float(alone) < worst


def test_the_number_of_levels_comes_from_the_tree_and_weights_fall_with_the_level() -> None:
    tree = Taxonomy([("a", "b", "c"), ("a", "b", "d"), ("a", "e", "f"), ("g", "h", "i")])
    labels = torch.tensor([0, 0, 1, 2, 3])
    z = unit(3, 5, 4)
    ranks = tree.ranks(labels, labels, ignore_self=True)
    weights = [math.exp(1), math.exp(1 / 2), math.exp(1 / 3)]
    found = himulcon(z, z, ranks)
    torch.testing.assert_close(found, himulcon(z, z, ranks, level_weights=weights))
    # A batch without rank 3 still has three levels.
    fewer = tree.ranks(labels[:3], labels[:3], ignore_self=True)
    torch.testing.assert_close(
        himulcon(z[:3], z[:3], fewer), himulcon(z[:3], z[:3], fewer, level_weights=weights)
    )


def test_himulcon_in_half_precision_is_that_of_the_rounded_input() -> None:
    query, key = unit(5, 6, 16).to(torch.bfloat16), unit(6, 20, 16).to(torch.bfloat16)
    ranks = DenseRanks(torch.arange(120).reshape(6, 20) % 3, num_ranks=2)
    with torch.autocast("cpu", torch.bfloat16):
        loss = himulcon(query, key, ranks, 0.01)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, himulcon(query.float(), key.float(), ranks, 0.01))


def test_what_himulcon_cannot_take() -> None:
    z = unit(0, 2, 3)
    ranks = torch.tensor([[-1, 2], [2, -1]])
    with pytest.raises(ValueError, match="ranks is not known: give level_weights,"):
        himulcon(z, z, ranks)
    with pytest.raises(ValueError, match=r"rank 2\b.*\b1 rank"):
        himulcon(z, z, ranks, level_weights=[1.0])
    for bad in ([], [1.0, -1.0], [math.nan, 1.0]):
        with pytest.raises(ValueError, match=r"level_weights.*\b0\b"):
            himulcon(z, z, ranks, level_weights=bad)
    with pytest.raises(ValueError, match=r"temperature.*positive.* 0\b"):
        himulcon(z, z, ranks, 0, level_weights=[1.0, 1.0])
    with pytest.raises(ValueError, match=r"\(queries, keys\) = \(2, 2\)"):
        himulcon(z, z, ranks[:, :1], level_weights=[1.0, 1.0])


def test_a_batch_without_positives_is_a_zero_with_a_graph() -> None:
    z = unit(0, 3, 3).requires_grad_()
    nothing = torch.zeros(3, 3, dtype=torch.long)
    with pytest.warns(RinceWarning, match="gradient.*no query.*positive"):
        loss = himulcon(z, z, DenseRanks(nothing, num_ranks=2))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(z.grad, torch.zeros_like(z))
    with pytest.raises(ValueError, match="not known: give level_weights"):
        himulcon(z, z, TableRanks(range(3), range(3), nothing))


# ---- label smoothing -----------------------------------------------------------------------


@given(st.lists(st.integers(0, 4), min_size=1, max_size=8), st.floats(0, 0.99))
def test_smoothed_targets_are_the_formula(groups: list[int], smoothing: float) -> None:
    found = smoothed_targets(torch.tensor(groups), smoothing)
    for y, row in enumerate(found.tolist()):
        size = groups.count(groups[y])
        for c, share in enumerate(row):
            own = (1 - smoothing) * (c == y)
            expected = own + (smoothing / size if groups[c] == groups[y] else 0)
            assert share == pytest.approx(expected, abs=1e-6)
        assert sum(row) == pytest.approx(1, abs=1e-5)


def test_smoothing_out_of_range() -> None:
    for bad in (-0.1, 1.0):
        with pytest.raises(ValueError, match=r"smoothing.*\b0\b.*\b1\b"):
            smoothed_targets(torch.tensor([0, 0]), bad)
    with pytest.raises(ValueError, match=r"groups.*\(classes,\).*\(1, 2\)"):
        smoothed_targets(torch.tensor([[0, 0]]), 0.1)
