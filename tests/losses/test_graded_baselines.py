"""X-CLR, Smooth-AP and H-AP, level-restricted SupCon, cross-scale: each is its oracle."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from losses_helpers import LargestTensor, as_numbers, unit
from torch import Tensor

from oracles import losses as oracle
from rince import RinceWarning, Taxonomy, ranked_info_nce
from rince.core.pair_ranks import ALL, DenseRanks
from rince.losses import (
    by_query,
    cross_scale,
    levels,
    smooth_ap,
    supcon_out,
    supcon_siblings,
    x_clr,
)
from rince.losses.blockwise.sizes import Sizes
from rince.metrics import hierarchical_retrieval

# The function of the same name hides the module.
smooth_ap_module = importlib.import_module("rince.losses.smooth_ap")

Found = Callable[..., Tensor]
Expected = Callable[..., list[float | None]]


@dataclass(frozen=True)
class Case:
    query: Tensor  # (Q, D) float64, unit length
    key: Tensor  # (K, D) float64, unit length
    ranks: Tensor  # (Q, K) int64 in {-1, 0, ..., R}
    number: int  # R
    tau: float
    other: float  # a second temperature, or a margin


@st.composite
def cases(draw: st.DrawFn) -> Case:
    queries, keys = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    number = draw(st.integers(1, 3))
    codes = st.lists(st.integers(-1, number), min_size=keys, max_size=keys)
    ranks = torch.tensor(draw(st.lists(codes, min_size=queries, max_size=queries)))
    seed, width = draw(st.integers(0, 2**31)), draw(st.integers(2, 4))
    query, key = (
        unit(seed + i, n, width, dtype=torch.float64) for i, n in ((0, queries), (1, keys))
    )
    return Case(query, key, ranks, number, draw(st.floats(0.05, 1)), draw(st.floats(0.05, 0.5)))


def graph(case: Case) -> Tensor:
    """Scores that no rank gives."""
    generator = torch.Generator().manual_seed(case.number)
    return torch.rand(case.ranks.shape, generator=generator, dtype=torch.float64)


def with_positive(losses: list[float | None], case: Case) -> list[float | None]:
    has = (case.ranks >= 1).any(dim=1).tolist()
    return [x if positive else None for x, positive in zip(losses, has, strict=True)]


def scores_of_ranks(case: Case) -> list[list[float]]:
    return [
        [(case.number + 1 - r) / case.number if r > 0 else 0.0 for r in row]
        for row in case.ranks.tolist()
    ]


def summed(levels: list[list[float | None]]) -> list[float | None]:
    return [sum(x or 0.0 for x in row) if any(row) else None for row in zip(*levels, strict=True)]


# name -> (loss, its oracle on lists), of a case
LOSSES: dict[str, tuple[Found, Expected]] = {
    "x-clr of ranks": (
        lambda case, q, k, ranks, **more: x_clr(
            q, k, ranks, case.tau, target_temperature=case.other, num_ranks=case.number, **more
        ),
        lambda case, q, k: with_positive(
            oracle.x_clr(q, k, case.ranks.tolist(), case.tau, case.other, scores_of_ranks(case)),
            case,
        ),
    ),
    "x-clr of scores": (
        lambda case, q, k, ranks, scores=None, **more: x_clr(
            q,
            k,
            ranks,
            case.tau,
            target_temperature=case.other,
            scores=graph(case) if scores is None else scores,
            **more,
        ),
        lambda case, q, k: oracle.x_clr(
            q, k, case.ranks.tolist(), case.tau, case.other, graph(case).tolist()
        ),
    ),
    "smooth-ap": (
        lambda case, q, k, ranks, **more: smooth_ap(
            q, k, ranks, case.tau, alpha=3 * case.other, num_ranks=case.number, **more
        ),
        lambda case, q, k: oracle.smooth_ap(
            q, k, case.ranks.tolist(), case.tau, case.number, 3 * case.other
        ),
    ),
    "supcon-siblings": (
        lambda case, q, k, ranks, **more: supcon_siblings(
            q, k, ranks, case.tau, num_ranks=case.number, **more
        ),
        lambda case, q, k: summed(
            oracle.supcon_siblings(q, k, case.ranks.tolist(), case.tau, case.number)
        ),
    ),
    "cross-scale": (
        lambda case, q, k, ranks, **more: cross_scale(
            q, k, ranks, case.tau, case.other, num_ranks=case.number, **more
        ),
        lambda case, q, k: oracle.cross_scale(
            q, k, case.ranks.tolist(), case.tau, case.other, case.number
        ),
    ),
}
every_loss = pytest.mark.parametrize("name", LOSSES)


@every_loss
@given(case=cases())
def test_value_and_reductions(name: str, case: Case) -> None:
    loss, of_oracle = LOSSES[name]
    expected = of_oracle(case, case.query.tolist(), case.key.tolist())
    numbers = as_numbers(expected)

    def found(reduction: str, **more: Any) -> Tensor:
        more = {"validate": False, **more}
        return loss(case, case.query, case.key, case.ranks, reduction=reduction, **more)

    close = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(found("none"), numbers, **close)
    torch.testing.assert_close(found("sum"), numbers.sum(), **close)
    if name == "supcon-siblings":
        levels = oracle.supcon_siblings(
            case.query.tolist(), case.key.tolist(), case.ranks.tolist(), case.tau, case.number
        )
        mean = sum(oracle.mean(level) for level in levels)
    else:
        mean = oracle.mean(expected)
    torch.testing.assert_close(found("mean"), torch.tensor(mean, dtype=torch.float64), **close)
    torch.testing.assert_close(found("none", block_size=1), numbers, **close)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found("mean", validate=True)
    assert len(caught) == all(x is None for x in expected)


@every_loss
@given(case=cases(), blocks=st.booleans())
def test_the_gradient_is_that_of_the_oracle(name: str, case: Case, blocks: bool) -> None:
    loss, of_oracle = LOSSES[name]
    query, key = case.query.clone().requires_grad_(), case.key.clone().requires_grad_()
    options = {"block_size": 1} if blocks else {}
    total = loss(case, query, key, case.ranks, reduction="sum", validate=False, **options)
    total.backward()
    for at, of_side in (
        (query, lambda x: of_oracle(case, x, case.key.tolist())),
        (key, lambda x: of_oracle(case, case.query.tolist(), x)),
    ):
        slope = oracle.central_differences(
            lambda x, f=of_side: sum(y or 0.0 for y in f(x)), at.tolist()
        )
        expected = torch.tensor(slope, dtype=torch.float64)
        torch.testing.assert_close(at.grad, expected, rtol=1e-4, atol=1e-5)


@every_loss
def test_order_of_keys_and_what_is_ignored(name: str) -> None:
    """Keys may come in any order, and an ignored one may be anything."""
    query, key = unit(0, 5, 4, dtype=torch.float64), unit(1, 9, 4, dtype=torch.float64)
    ranks = torch.randint(-1, 4, (5, 9), generator=torch.Generator().manual_seed(2))
    ranks[:, 4] = -1
    case = Case(query, key, ranks, 3, 0.2, 0.3)
    loss, _ = LOSSES[name]
    more = {"scores": graph(case)} if "scores" in name else {}
    expected = loss(case, query, key, ranks, **more)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(3))
    moved = {n: x[:, order] for n, x in more.items()}
    torch.testing.assert_close(loss(case, query, key[order], ranks[:, order], **moved), expected)
    other = key.clone()
    other[4] = -key[4]
    torch.testing.assert_close(loss(case, query, other, ranks, **more), expected)
    kept = torch.arange(9) != 4
    fewer = {n: x[:, kept] for n, x in more.items()}
    torch.testing.assert_close(loss(case, query, key[kept], ranks[:, kept], **fewer), expected)


@every_loss
def test_half_precision_is_that_of_the_rounded_input(name: str) -> None:
    query, key = unit(5, 6, 16).bfloat16(), unit(6, 20, 16).bfloat16()
    ranks = torch.arange(120).reshape(6, 20) % 4 - 1
    case = Case(query, key, ranks, 2, 0.05, 0.1)
    loss, _ = LOSSES[name]
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(case, query, key, ranks)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss(case, query.float(), key.float(), ranks))


@pytest.mark.parametrize("name", [n for n in LOSSES if n != "supcon-siblings"])
def test_blocks_hold_a_part_of_the_pairs(name: str) -> None:
    """Forwards and backwards; siblings go through SupCon, whose blocks are tested there."""
    query, key = unit(0, 64, 4), unit(1, 48, 4)
    tree = Taxonomy([("a", "b"), ("a", "c"), ("d", "e")])
    ranks: Any = tree.ranks(torch.arange(64) % 3, torch.arange(48) % 3)  # no matrix
    case = Case(query, key, torch.zeros(64, 48), 2, 0.2, 0.3)
    loss, _ = LOSSES[name]
    scores = {"scores": graph(case).float()} if "scores" in name else {}
    most = {}
    for block in (64, 2):
        leaf = query.clone().requires_grad_()
        with LargestTensor() as largest:
            loss(case, leaf, key, ranks, block_size=block, validate=False, **scores).backward()
        most[block] = largest.size
    assert most[64] >= 64 * 48
    assert most[2] < 64 * 48 * (48 if name == "smooth-ap" else 1) / 8


@pytest.mark.parametrize(
    ("pairs_per_query", "block_size", "blocks"),
    [(2, None, [6]), (3, None, [4, 2]), (100, None, [1] * 6), (2, 4, [4, 2]), (2, 6, [6])],
)
def test_blocks_hold_the_pairs_that_suit_the_device(
    pairs_per_query: int, block_size: int | None, blocks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve pairs here. A batch of one block is not computed again for its gradient."""
    monkeypatch.setattr(by_query, "sizes_for", lambda device: Sizes(pairs_of_a_check=12))
    seen = []

    def rows_loss(similarity: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(len(similarity))
        return (similarity.exp() * rank).sum(dim=1), (rank > 0).any(dim=1)

    z = unit(0, 6, 4).requires_grad_()
    loss = by_query.loss_by_query(
        rows_loss,
        z,
        z,
        DenseRanks(torch.eye(6, dtype=torch.int8)),
        pairs_per_query=pairs_per_query,
        block_size=block_size,
        reduction="sum",
        validate=False,
    )
    assert seen == blocks
    torch.autograd.grad(loss, z)
    assert sorted(seen) == sorted(blocks * (1 if len(blocks) == 1 else 2))


@every_loss
def test_what_is_refused(name: str) -> None:
    z = unit(0, 3, 4)
    ranks = torch.tensor([[-1, 1, 0], [1, -1, 0], [0, 2, -1]])
    case = Case(z, z, ranks, 2, 0.2, 0.3)
    loss, _ = LOSSES[name]
    scores = {"scores": torch.zeros(3, 3)} if "scores" in name else {}
    with pytest.raises(ValueError, match=r"\(queries, keys\) = \(3, 3\)"):
        loss(case, z, z, ranks[:, :2], **scores)
    for tau in (0, 1e-42):  # whose reciprocal float32 has not
        with pytest.raises(ValueError, match=f"temperature.*positive.* {tau}"):
            loss(Case(z, z, ranks, 2, tau, 0.3), z, z, ranks, **scores)
    with pytest.raises(ValueError, match="reduction.*'avg'"):
        loss(case, z, z, ranks, reduction="avg", **scores)
    with pytest.raises(ValueError, match=r"block_size .*\b0"):
        loss(case, z, z, ranks, block_size=0, **scores)
    broken = z.clone()
    broken[1, 0] = float("nan")
    with pytest.raises(ValueError, match="row 1"):
        loss(case, broken, z, ranks, **scores)
    if not scores:
        with pytest.raises(ValueError, match=r"rank 2\b.*\b1 rank"):
            loss(Case(z, z, ranks, 1, 0.2, 0.3), z, z, ranks)
        nothing = torch.zeros(3, 3, dtype=torch.long)
        leaf = z.clone().requires_grad_()
        with pytest.warns(RinceWarning, match="no query has a positive"):
            loss(case, leaf, z, nothing).backward()
        assert torch.equal(leaf.grad, torch.zeros_like(z))  # type: ignore[arg-type]


def test_numbers_that_no_loss_takes() -> None:
    z = unit(0, 2, 4)
    ranks = torch.tensor([[-1, 1], [1, -1]])
    for loss in (x_clr, smooth_ap, supcon_siblings, cross_scale):
        with pytest.raises(ValueError, match="num_ranks"):
            loss(z, z, ranks)
        with pytest.raises(ValueError, match=r"num_ranks .*\b0"):
            loss(z, z, ranks, num_ranks=0)
    with pytest.raises(ValueError, match="alpha .*-1"):
        smooth_ap(z, z, ranks, alpha=-1, num_ranks=1)
    with pytest.raises(ValueError, match=r"margin .*-0\.1"):
        cross_scale(z, z, ranks, margin=-0.1, num_ranks=1)
    with pytest.raises(ValueError, match="scores or rank_scores"):
        x_clr(z, z, ranks, scores=torch.zeros(2, 2), rank_scores=[1.0])
    for bad in (torch.zeros(2, 3), torch.zeros(2, 2, dtype=torch.long)):
        with pytest.raises(ValueError, match=r"scores .*\(2, 2\)"):
            x_clr(z, z, ranks, scores=bad)
    for known in (ranks, ranks.clamp(max=0)):  # of positives and of negatives
        with pytest.raises(ValueError, match=r"\b1 scores? .*-1"):
            x_clr(z, z, known, scores=torch.tensor([[0.0, float("nan")], [0.0, 0.0]]))
    for rank_scores, num_ranks in (([1.0, 0.5], 3), ([1.0, float("nan")], None)):
        with pytest.raises(ValueError, match=rf"rank_scores .*{num_ranks}.*{rank_scores[-1]}"):
            x_clr(z, z, ranks, rank_scores=rank_scores, num_ranks=num_ranks)
    with pytest.raises(ValueError, match="margin .*inf"):
        cross_scale(z, z, ranks, margin=float("inf"), num_ranks=1)
    for tau in (0, 1e-42):
        with pytest.raises(ValueError, match="target_temperature.*positive"):
            x_clr(z, z, ranks, target_temperature=tau, num_ranks=1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_scores_of_any_unit_and_low_temperatures_give_the_hard_target(dtype: torch.dtype) -> None:
    """Their quotient, and some scores themselves, are beyond float32."""
    query, key = unit(0, 2, 4).requires_grad_(), unit(1, 3, 4)
    scores = torch.tensor([[3.0, 1.0, 2.0], [0.0, 0.0, 1.0]], dtype=dtype)
    scores *= {torch.float16: 1e4, torch.float32: 1e38, torch.float64: 1e300}[dtype]
    ranks = torch.zeros(2, 3, dtype=torch.long)
    found = x_clr(query, key, ranks, scores=scores, target_temperature=1e-30)
    expected = supcon_out(query, key, torch.tensor([[1, 0, 0], [0, 0, 1]]))
    torch.testing.assert_close(found, expected)
    assert torch.autograd.grad(found, query)[0].isfinite().all()


def test_scores_may_lie_anywhere() -> None:
    """Only their differences count, also those that float32 cannot tell apart."""
    query, key = unit(0, 2, 4), unit(1, 3, 4)
    ranks = torch.zeros(2, 3, dtype=torch.long)
    scores = torch.tensor([[0.5, 0.0, 0.25], [0.0, 0.25, 0.5]], dtype=torch.float64)
    found, far = (x_clr(query, key, ranks, scores=x) for x in (scores, scores + 1e9))
    torch.testing.assert_close(found, far)


@pytest.mark.parametrize("block_size", [None, 1])
def test_scores_of_ignored_pairs_may_be_unknown(block_size: int | None) -> None:
    ranks, scores = torch.tensor([[0, -1, 0], [-1, 0, 0]]), unit(0, 2, 3)
    query, key = unit(1, 2, 4).requires_grad_(), unit(2, 3, 4)
    unknown = scores.masked_fill(ranks < 0, float("nan"))
    found, expected = (
        x_clr(query, key, ranks, scores=x, block_size=block_size) for x in (unknown, scores)
    )
    assert found == expected
    assert torch.autograd.grad(found, query)[0].isfinite().all()


def test_x_clr_with_hard_targets_is_supcon_out() -> None:
    z = unit(3, 8, 5)
    ranks = (torch.arange(8)[:, None] % 3 == torch.arange(8) % 3).long().fill_diagonal_(-1)
    found = x_clr(z, z, ranks, 0.2, target_temperature=1e-3, num_ranks=1)
    torch.testing.assert_close(found, supcon_out(z, z, ranks, 0.2))
    halves = x_clr(z, z, ranks, 0.2, rank_scores=[0.5])
    torch.testing.assert_close(halves, x_clr(z, z, ranks, 0.2, scores=ranks.clamp(min=0) * 0.5))
    given = np.array([0.5, 0.25], dtype=np.float32)
    assert x_clr(z, z, ranks, 0.2, rank_scores=given) == halves


def test_smooth_ap_is_the_metric_in_the_limit() -> None:
    """H-AP of rince.metrics, whose relevance it has; one level is average precision."""
    tree = Taxonomy([("a", "b", "c"), ("a", "b", "d"), ("a", "e", "f"), ("g", "h", "i")])
    generator = torch.Generator().manual_seed(0)
    query, key = unit(0, 10, 6, dtype=torch.float64), unit(1, 40, 6, dtype=torch.float64)
    of_query, of_key = (torch.randint(0, 4, (n,), generator=generator) for n in (10, 40))
    for top in (1, 3):
        levels = [
            torch.stack([tree.labels_at(i)[labels] for i in range(1, top + 1)], dim=1)
            for labels in (of_query, of_key)
        ]
        ranks = tree.ranks(of_query, of_key).tile(slice(None), slice(None)).long()
        ranks = torch.where(ranks > top, 0, ranks)
        for alpha in (1.0, 2.0):
            metric = hierarchical_retrieval(query, key, *levels, alpha=alpha).h_ap
            loss = smooth_ap(query, key, ranks, 1e-6, alpha=alpha, num_ranks=top)
            assert 1 - float(loss) == pytest.approx(metric, abs=1e-6)


def test_cross_scale_without_a_margin_is_rince_out_of_one_rank() -> None:
    query, key = unit(0, 5, 4), unit(1, 9, 4)
    ranks = torch.randint(-1, 2, (5, 9), generator=torch.Generator().manual_seed(2))
    found = cross_scale(query, key, ranks, 0.2, 0.0, num_ranks=1)
    expected = ranked_info_nce(query, key, ranks, [0.2], variant="out")
    torch.testing.assert_close(found, expected)


@given(case=cases())
def test_sincere_is_rince_out_of_one_rank(case: Case) -> None:
    """Feeney and Hughes, arXiv 2309.14277: the same numbers, query by query, and on average."""
    ranks = case.ranks.clamp(max=1)
    expected = oracle.sincere(case.query.tolist(), case.key.tolist(), ranks.tolist(), case.tau)
    for reduction, number in (
        ("none", as_numbers(expected)),
        ("mean", torch.tensor(oracle.mean(expected), dtype=torch.float64)),
    ):
        found = ranked_info_nce(
            case.query,
            case.key,
            ranks,
            [case.tau],
            variant="out",
            reduction=reduction,  # type: ignore[arg-type]
            validate=False,
        )
        torch.testing.assert_close(found, number, rtol=1e-9, atol=1e-9)


def test_a_level_against_its_siblings_is_one_rank() -> None:
    source = DenseRanks(torch.tensor([[1, 2, 3, 0, -1]], dtype=torch.int8))
    found = [levels._Siblings(source, level, 3) for level in (1, 2, 3)]
    assert [one.tile(ALL, ALL).tolist() for one in found] == [
        [[1, 0, -1, -1, -1]],
        [[1, 1, 0, -1, -1]],
        [[1, 1, 1, 0, -1]],
    ]
    assert {one.num_ranks for one in found} == {1}


def test_a_loss_that_is_rounded_to_0_is_not_one_without_anything_to_learn() -> None:
    query, key = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.6, 0.8]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for ranks in ([1, 0, -1], [1, -1, 0]):
            loss = supcon_siblings(query, key, torch.tensor([ranks]), 0.01, num_ranks=2)
            assert float(loss) == 0
    with pytest.warns(RinceWarning, match="its gradient"):
        supcon_siblings(query, key, torch.tensor([[1, -1, -1]]), 0.01, num_ranks=2)


def test_smooth_ap_without_a_look_at_the_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a card without checks: pairs that are no positives weigh nothing, nor does a query
    that has none, in the gradient too."""
    query, key = unit(0, 3, 4).requires_grad_(), unit(1, 5, 4).requires_grad_()
    ranks = torch.tensor([[1, 2, 0, -1, 0], [0, 0, -1, 0, 0], [2, 0, 0, 1, 1]])
    found = []
    for looks in (True, False):
        monkeypatch.setattr(smooth_ap_module, "may_read", lambda *_, looks=looks: looks)
        losses = smooth_ap(query, key, ranks, 0.1, num_ranks=2, reduction="none")
        found.append((losses, *torch.autograd.grad(losses.sum(), [query, key])))
    for looked, blind in zip(*found, strict=True):
        torch.testing.assert_close(looked, blind)
    with pytest.raises(ValueError, match="alpha.*positive.* 0"):
        smooth_ap(query, key, ranks, 0.1, num_ranks=2, alpha=0.0)


def test_scores_of_a_teacher_get_no_gradient() -> None:
    query, scores = unit(0, 2, 4).requires_grad_(), unit(1, 2, 3).requires_grad_()
    loss = x_clr(query, unit(2, 3, 4), torch.ones(2, 3).int(), 0.1, scores=scores)
    of_query, of_scores = torch.autograd.grad(loss, [query, scores], allow_unused=True)
    assert of_query.abs().sum() > 0
    assert of_scores is None
