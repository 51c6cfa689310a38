from __future__ import annotations

import contextlib
import math
import warnings
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from losses_helpers import as_numbers, unit
from torch import Tensor
from torch.nn import functional

import rince
from oracles import losses as oracle
from rince import RankedInfoNCE, RinceWarning, ranked_info_nce
from rince.losses.ranked_info_nce import ranked_info_nce_with_terms
from rince.ranks import TableRanks

VARIANTS = ("in", "out", "out-in")
POSITIVES = ("exclusive", "cumulative")
each_variant = pytest.mark.parametrize("variant", VARIANTS)
each_positives = pytest.mark.parametrize("positives", POSITIVES)


@dataclass(frozen=True)
class Case:
    query: Tensor  # (Q, D) float64, unit length
    key: Tensor  # (K, D) float64, unit length
    ranks: Tensor  # (Q, K) int64
    temperatures: tuple[float, ...]  # (R,)
    options: dict[str, Any]

    def oracle(self, query: Any = None, key: Any = None, taus: Any = None) -> list[float | None]:
        return oracle.rince(
            self.query.tolist() if query is None else query,
            self.key.tolist() if key is None else key,
            self.ranks.tolist(),
            self.temperatures if taus is None else taus,
            **self.options,
        )

    def expect_warning(self) -> contextlib.AbstractContextManager[Any]:
        """A batch without anything to learn must say so; any other must be silent."""
        if all(loss is None for loss in self.oracle()):
            return pytest.warns(RinceWarning, match="its gradient")
        return contextlib.nullcontext()


@st.composite
def cases(draw: st.DrawFn, most_ranks: int = 4) -> Case:
    queries, keys = draw(st.integers(1, 4)), draw(st.integers(1, 7))
    num_ranks = draw(st.integers(1, most_ranks))
    steps = draw(st.lists(st.floats(0.05, 0.4), min_size=num_ranks, max_size=num_ranks))
    codes = st.lists(st.integers(-1, num_ranks), min_size=keys, max_size=keys)
    ranks = draw(st.lists(codes, min_size=queries, max_size=queries))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    dimension = draw(st.integers(1, 4))
    query, key = (
        functional.normalize(
            torch.randn(count, dimension, generator=generator, dtype=torch.float64), dim=1
        )
        for count in (queries, keys)
    )
    for j in range(keys):  # keys that lie on a query, opposite to it, or on another key
        source = draw(st.sampled_from(["free", "free", "same", "opposite", "twin"]))
        if source == "same":
            key[j] = query[j % queries]
        elif source == "opposite":
            key[j] = -query[j % queries]
        elif source == "twin":
            key[j] = key[0]
    return Case(
        query,
        key,
        torch.tensor(ranks),
        tuple(sum(steps[: i + 1]) for i in range(num_ranks)),
        {"variant": draw(st.sampled_from(VARIANTS)), "positives": draw(st.sampled_from(POSITIVES))},
    )


def at_cosines(*cosines: float) -> Tensor:
    """Keys (K, 2) that have these cosines to the query (1, 0)."""
    return torch.tensor([[c, math.sqrt(1 - c * c)] for c in cosines])


QUERY = torch.tensor([[1.0, 0.0]])


# ---- against the definition ----------------------------------------------------------------


@given(cases())
def test_value_is_the_formula(case: Case) -> None:
    expected = case.oracle()
    for reduction, number in (
        ("none", as_numbers(expected)),
        ("sum", as_numbers(expected).sum()),
        ("mean", torch.tensor(oracle.mean(expected), dtype=torch.float64)),
    ):
        with case.expect_warning():
            loss = ranked_info_nce(
                case.query,
                case.key,
                case.ranks,
                case.temperatures,
                reduction=reduction,
                **case.options,
            )
        torch.testing.assert_close(loss, number, rtol=1e-10, atol=1e-12)


@given(cases())
def test_gradient_is_that_of_the_formula(case: Case) -> None:
    query, key = case.query.clone().requires_grad_(), case.key.clone().requires_grad_()
    taus = torch.tensor(case.temperatures, dtype=torch.float64, requires_grad=True)
    # Moving a single coordinate leaves the unit sphere, and the formula holds there too.
    ranked_info_nce(query, key, case.ranks, taus, validate=False, **case.options).backward()
    for found, at, mean in (
        (query.grad, case.query.tolist(), lambda x: oracle.mean(case.oracle(query=x))),
        (key.grad, case.key.tolist(), lambda x: oracle.mean(case.oracle(key=x))),
        (taus.grad[None], [case.temperatures], lambda x: oracle.mean(case.oracle(taus=x[0]))),
    ):
        expected = torch.tensor(oracle.central_differences(mean, at), dtype=torch.float64)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@given(cases())
def test_terms_are_those_of_the_formula(case: Case) -> None:
    similarity = oracle.similarities(case.query.tolist(), case.key.tolist())
    expected = [
        oracle.rince_terms(s, r, case.temperatures, **case.options)
        for s, r in zip(similarity, case.ranks.tolist(), strict=True)
    ]
    with case.expect_warning():
        _, terms = ranked_info_nce_with_terms(
            case.query, case.key, case.ranks, case.temperatures, **case.options
        )
    by_rank = [list(column) for column in zip(*expected, strict=True)]  # (R, Q)
    assert terms.active.tolist() == [[x is not None for x in row] for row in by_rank]
    numbers = torch.stack([as_numbers(row) for row in by_rank])
    torch.testing.assert_close(terms.values, numbers, rtol=1e-10, atol=1e-12)
    assert (terms.values[~terms.active] == 0).all()
    means = torch.tensor([oracle.mean(row) for row in by_rank], dtype=torch.float64)
    torch.testing.assert_close(terms.mean_per_rank(), means, rtol=1e-10, atol=1e-12)


@each_variant
@each_positives
def test_gradcheck_with_learnable_temperatures(variant: Any, positives: Any) -> None:
    ranks = torch.tensor([[1, 1, 2, 3, 0, 0, -1], [2, 2, 3, 0, -1, 0, 3], [1, 0, 0, 0, 1, 2, 2]])
    inputs = (
        unit(0, 3, 3, dtype=torch.float64).requires_grad_(),
        unit(1, 7, 3, dtype=torch.float64).requires_grad_(),
        torch.tensor([0.2, 0.35, 0.6], dtype=torch.float64, requires_grad=True),
    )

    def loss(query: Tensor, key: Tensor, taus: Tensor) -> Tensor:
        return ranked_info_nce(
            query, key, ranks, taus, variant=variant, positives=positives, validate=False
        )

    assert torch.autograd.gradcheck(loss, inputs)


@pytest.mark.parametrize("loss", ["in", "out", "cross_scale"])
def test_second_derivatives_are_those_of_float64(loss: str) -> None:
    """A query without negatives, one without rank 2, and exponents beyond e^88."""
    ranks = torch.tensor([[1, 1, 2, 2], [1, -1, 0, 0], [2, 0, 1, 0]])

    def of(query: Tensor) -> Tensor:
        key = unit(1, 4, 3, dtype=torch.float64).to(query)
        if loss == "cross_scale":
            return rince.losses.cross_scale(query, key, ranks, 0.01, num_ranks=2)
        return ranked_info_nce(query, key, ranks, (0.01, 0.5), variant=loss)  # type: ignore[arg-type]

    query = unit(0, 3, 3, dtype=torch.float64)
    query[1] = unit(1, 4, 3, dtype=torch.float64)[0]  # its positive, far ahead of the others
    exact = torch.autograd.functional.hessian(of, query)
    assert bool((exact != 0).any())
    found = torch.autograd.functional.hessian(of, query.float())
    torch.testing.assert_close(found.double(), exact, rtol=1e-2, atol=1e-2)
    assert torch.autograd.gradgradcheck(of, query.requires_grad_())


@each_variant
def test_queries_that_are_the_keys_too_get_both_gradients(variant: str) -> None:
    z = unit(2, 5, 3, dtype=torch.float64).requires_grad_()
    labels = torch.tensor([0, 0, 1, 2, 1])
    table = torch.tensor([[1, 2, 0], [2, 1, 0], [0, 0, 1]])
    source = TableRanks(labels, labels, table, ignore_self=True)
    ranked_info_nce(z, z, source, (0.2, 0.5), variant=variant).backward()
    ranks = [
        [-1 if i == j else int(table[a, b]) for j, b in enumerate(labels)]
        for i, a in enumerate(labels)
    ]
    expected = oracle.central_differences(
        lambda x: oracle.mean(oracle.rince(x, x, ranks, (0.2, 0.5), variant)), z.tolist()
    )
    torch.testing.assert_close(z.grad, torch.tensor(expected).double(), rtol=1e-5, atol=1e-6)


def test_an_example_by_hand() -> None:
    """Cosines 0.8 (rank 1), 0.6 (rank 1), 0.5 (rank 2), 0 (negative), -1 (ignored)."""
    key, ranks = at_cosines(0.8, 0.6, 0.5, 0.0, -1.0), torch.tensor([[1, 1, 2, 0, -1]])

    def e(cosine: float, tau: float) -> float:
        return math.exp(cosine / tau)

    worse_1 = e(0.5, 0.1) + e(0.0, 0.1)
    in_1 = -math.log((e(0.8, 0.1) + e(0.6, 0.1)) / (e(0.8, 0.1) + e(0.6, 0.1) + worse_1))
    out_1 = (
        -math.log(e(0.8, 0.1) / (e(0.8, 0.1) + worse_1))
        - math.log(e(0.6, 0.1) / (e(0.6, 0.1) + worse_1))
    ) / 2
    both_2 = -math.log(e(0.5, 0.2) / (e(0.5, 0.2) + e(0.0, 0.2)))
    union = e(0.8, 0.2) + e(0.6, 0.2) + e(0.5, 0.2)
    in_union = -math.log(union / (union + e(0.0, 0.2)))
    for variant, positives, expected in (
        ("in", "exclusive", in_1 + both_2),
        ("out", "exclusive", out_1 + both_2),
        ("out-in", "exclusive", out_1 + both_2),
        ("in", "cumulative", in_1 + in_union),
        ("out-in", "cumulative", out_1 + in_union),
    ):
        loss = ranked_info_nce(QUERY, key, ranks, (0.1, 0.2), variant=variant, positives=positives)
        assert float(loss) == pytest.approx(expected, rel=1e-5)


# ---- properties ----------------------------------------------------------------------------


def quiet(case: Case, **changed: Any) -> Tensor:
    """The losses of all queries, without the checks."""
    inputs = {
        "query": case.query,
        "key": case.key,
        "ranks": case.ranks,
        "temperatures": case.temperatures,
        "reduction": "none",
        **case.options,
        **changed,
    }
    return ranked_info_nce(validate=False, **inputs)


@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_keys_and_of_queries_does_not_matter(case: Case, random: Any) -> None:
    rows = random.sample(range(len(case.query)), len(case.query))
    cols = random.sample(range(len(case.key)), len(case.key))
    shuffled = quiet(
        case, query=case.query[rows], key=case.key[cols], ranks=case.ranks[rows][:, cols]
    )
    torch.testing.assert_close(shuffled, quiet(case)[rows], rtol=1e-12, atol=1e-12)


@given(cases(), st.integers(1, 3))
def test_ignored_keys_change_nothing_and_get_no_gradient(case: Case, count: int) -> None:
    key = torch.cat([case.key, unit(0, count, case.key.shape[1], dtype=torch.float64)])
    ranks = functional.pad(case.ranks, (0, count), value=-1)
    key.requires_grad_()
    loss = quiet(case, key=key, ranks=ranks)
    torch.testing.assert_close(loss, quiet(case), rtol=1e-12, atol=1e-12)
    loss.sum().backward()
    assert (key.grad[-count:] == 0).all()
    ignored_by_all = (case.ranks == -1).all(dim=0)
    assert (key.grad[: len(case.key)][ignored_by_all] == 0).all()


@given(cases())
def test_a_batch_written_twice_has_the_same_mean_and_twice_the_sum(case: Case) -> None:
    twice = {"query": torch.cat([case.query] * 2), "ranks": torch.cat([case.ranks] * 2)}
    for reduction, factor in (("mean", 1), ("sum", 2)):
        torch.testing.assert_close(
            quiet(case, reduction=reduction, **twice),
            factor * quiet(case, reduction=reduction),
            rtol=1e-12,
            atol=1e-12,
        )


@given(cases())
def test_in_does_not_see_that_every_key_is_there_twice(case: Case) -> None:
    """Numerator and denominator both double; in "out" only the less similar keys do."""
    twice = {"key": torch.cat([case.key] * 2), "ranks": torch.cat([case.ranks] * 2, dim=1)}
    torch.testing.assert_close(
        quiet(case, variant="in", **twice), quiet(case, variant="in"), rtol=1e-12, atol=1e-12
    )


@given(cases())
def test_a_whole_that_has_one_positive_a_rank_is_the_same_in_every_variant(case: Case) -> None:
    """RINCE-uni: with one positive per rank there is no sum to be inside or outside of."""
    ranks = case.ranks.clone()
    for row in ranks:
        for rank in range(1, int(row.max()) + 1):
            row[(row == rank).nonzero().flatten()[1:]] = 0
    uni = [quiet(case, ranks=ranks, variant=v, positives="exclusive") for v in VARIANTS]
    torch.testing.assert_close(uni[1], uni[0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(uni[2], uni[0], rtol=1e-10, atol=1e-12)


@given(cases())
def test_out_asks_at_least_as_much_as_in(case: Case) -> None:
    """-log of a mean is at most the mean of -log, and "in" has the sum in place of the mean."""
    assert (quiet(case, variant="out") >= quiet(case, variant="in") - 1e-12).all()
    terms = {
        v: ranked_info_nce_with_terms(
            case.query,
            case.key,
            case.ranks,
            case.temperatures,
            variant=v,
            positives=case.options["positives"],
            validate=False,
        )[1].values
        for v in VARIANTS
    }
    assert torch.equal(terms["out-in"][0], terms["out"][0])
    assert torch.equal(terms["out-in"][1:], terms["in"][1:])


@given(cases(most_ranks=1))
def test_with_one_rank_exclusive_and_cumulative_are_one(case: Case) -> None:
    assert torch.equal(quiet(case, positives="exclusive"), quiet(case, positives="cumulative"))


@given(cases())
def test_a_source_and_its_matrix_give_the_same(case: Case) -> None:
    for ranks in (rince.ranks.DenseRanks(case.ranks), case.ranks.to(torch.int8), case.ranks.int()):
        assert torch.equal(quiet(case, ranks=ranks), quiet(case))


def test_a_number_a_list_and_a_tensor_of_temperatures_mean_the_same() -> None:
    query, key = unit(3, 2, 4), unit(4, 5, 4)
    ranks = torch.tensor([[1, 0, 0, 1, 0], [0, 0, 1, 0, -1]])
    losses = [
        ranked_info_nce(query, key, ranks, taus)
        for taus in (
            0.2,
            [0.2],
            torch.tensor(0.2),
            torch.tensor([0.2]),
            torch.nn.Parameter(torch.tensor([0.2])),
        )
    ]
    assert [loss.item() for loss in losses] == [losses[0].item()] * 5


# ---- numbers -------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(st.sampled_from([-1.0, -0.9, 0.0, 0.6, 1.0]), st.integers(-1, 2)),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from(VARIANTS),
    st.sampled_from(POSITIVES),
)
def test_fp32_holds_at_temperature_001_for_equal_opposite_and_repeated_vectors(
    keys: list[tuple[float, int]], variant: str, positives: str
) -> None:
    query = QUERY.clone().requires_grad_()
    key = at_cosines(*[cosine for cosine, _ in keys]).requires_grad_()
    ranks = torch.tensor([[rank for _, rank in keys]])
    taus = (0.01, 0.02)
    options = {"variant": variant, "positives": positives}
    loss = ranked_info_nce(query, key, ranks, taus, validate=False, **options)
    loss.backward()
    expected = oracle.mean(
        oracle.rince(query.tolist(), key.tolist(), ranks.tolist(), taus, **options)
    )
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(expected, rel=2e-6, abs=3e-5)
    assert query.grad.isfinite().all()
    assert key.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@each_variant
def test_half_precision_is_computed_as_fp32_of_the_rounded_input(
    dtype: torch.dtype, variant: str
) -> None:
    query, key = unit(5, 6, 16).to(dtype), unit(6, 20, 16).to(dtype)
    ranks = torch.arange(120).reshape(6, 20) % 4 - 1
    half = [x.clone().requires_grad_() for x in (query, key)]
    full = [x.float().requires_grad_() for x in (query, key)]
    loss = ranked_info_nce(*half, ranks, (0.01, 0.05), variant=variant)
    expected = ranked_info_nce(*full, ranks, (0.01, 0.05), variant=variant)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)
    loss.backward()
    expected.backward()
    for a, b in zip(half, full, strict=True):
        assert a.grad.dtype == dtype
        assert torch.equal(a.grad, b.grad.to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@each_variant
def test_autocast_does_not_reach_into_the_loss(dtype: torch.dtype, variant: str) -> None:
    query, key = unit(5, 6, 16).to(dtype), unit(6, 20, 16).to(dtype)
    ranks = torch.arange(120).reshape(6, 20) % 4 - 1
    inside = [x.clone().requires_grad_() for x in (query, key)]
    outside = [x.float().requires_grad_() for x in (query, key)]
    with torch.autocast("cpu", torch.bfloat16):
        loss = ranked_info_nce(*inside, ranks, (0.01, 0.05), variant=variant)
    expected = ranked_info_nce(*outside, ranks, (0.01, 0.05), variant=variant)
    assert torch.equal(loss, expected)
    loss.backward()
    expected.backward()
    for a, b in zip(inside, outside, strict=True):
        assert torch.equal(a.grad, b.grad.to(dtype))


def test_mixed_input_takes_the_wider_type() -> None:
    query, key = unit(3, 2, 4), unit(4, 3, 4, dtype=torch.float64)
    ranks = torch.tensor([[1, 0, 0], [0, 1, 0]])
    wide = ranked_info_nce(query.double(), key, ranks, 0.1)
    assert wide.dtype == torch.float64
    assert torch.equal(ranked_info_nce(query, key, ranks, 0.1), wide)
    assert ranked_info_nce(query.half(), key.bfloat16(), ranks, 0.1).dtype == torch.float32


def test_a_small_loss_keeps_its_digits() -> None:
    """log(1 + x) is taken as such: a difference of two sums of exponentials would give 0."""
    for variant in VARIANTS:
        loss = ranked_info_nce(
            QUERY, at_cosines(1.0, -1.0), torch.tensor([[1, 0]]), 0.1, variant=variant
        )
        assert float(loss) == pytest.approx(math.log1p(math.exp(-20)), rel=1e-5)


# ---- traps of the prototype ----------------------------------------------------------------


@each_variant
def test_trap_a_far_positive_contributes_its_true_value(variant: str) -> None:
    """The prototype drops scores below 1e-7 from the mean: this query counted 0, not 16.8."""
    loss = ranked_info_nce(
        QUERY, at_cosines(-0.84, 0.84), torch.tensor([[1, 0]]), 0.1, variant=variant
    )
    expected = math.log1p(math.exp(2 * 0.84 / 0.1))
    assert expected == pytest.approx(16.8, abs=1e-6)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_trap_a_far_positive_beside_a_near_one_is_not_dropped_from_the_mean() -> None:
    key, ranks = at_cosines(1.0, -1.0, 0.9), torch.tensor([[1, 1, 0]])
    key.requires_grad_()
    loss = ranked_info_nce(QUERY, key, ranks, 0.05, variant="out")
    near, far = math.log1p(math.exp(-0.1 / 0.05)), math.log1p(math.exp(1.9 / 0.05))
    assert float(loss) == pytest.approx((near + far) / 2, rel=1e-5)
    loss.backward()
    # d loss / d s_far = -1/2 * 1/tau * (1 - p), p the tiny softmax share of the far positive
    assert float(key.grad[1, 0]) == pytest.approx(-0.5 / 0.05, rel=1e-5)


@each_variant
@pytest.mark.parametrize("tau", [0.01, 0.001])
def test_trap_exp_does_not_overflow_into_a_silent_zero(variant: str, tau: float) -> None:
    key = at_cosines(-1.0, 1.0).requires_grad_()
    loss = ranked_info_nce(QUERY, key, torch.tensor([[1, 0]]), tau, variant=variant)
    assert float(loss) == pytest.approx(2 / tau, rel=1e-5)  # log(1 + e^(2/tau))
    loss.backward()
    torch.testing.assert_close(key.grad[:, 0], torch.tensor([-1 / tau, 1 / tau]))


@each_variant
@each_positives
def test_trap_a_query_without_a_positive_in_a_rank_skips_that_term(
    variant: str, positives: str
) -> None:
    options = {"variant": variant, "positives": positives}
    query, key = unit(7, 1, 3), unit(8, 4, 3).requires_grad_()
    ranks = torch.tensor([[2, 0, -1, 2]])
    both = ranked_info_nce(query, key, ranks, (0.1, 0.2), **options)
    # Alone, the keys of rank 2 are a rank 1 at the second temperature, and never "out-in"'s out.
    alone = ranked_info_nce(
        query, key, ranks.clamp(max=1), 0.2, variant="in" if variant == "out-in" else variant
    )
    torch.testing.assert_close(both, alone)
    (grad,) = torch.autograd.grad(both, key)
    assert (grad[2] == 0).all()
    assert (grad[[0, 1, 3]] != 0).any(dim=1).all()


NOTHING_TO_LEARN = {
    "no positive": [0, 0, 0, -1],
    "no positive and no negative": [-1, -1, -1, -1],
    "positives only": [1, 1, -1, -1],
    "worst rank only": [2, 2, 2, -1],
}


@each_variant
@each_positives
@pytest.mark.parametrize("row", NOTHING_TO_LEARN.values(), ids=NOTHING_TO_LEARN.keys())
def test_trap_a_query_with_nothing_to_learn_is_exactly_0_with_a_zero_gradient(
    row: list[int], variant: str, positives: str
) -> None:
    options = {"variant": variant, "positives": positives, "validate": True}
    teaching = [1, 2, 0, 0]
    query, key = unit(9, 3, 3).requires_grad_(), unit(10, 4, 3).requires_grad_()
    taus = torch.tensor([0.05, 0.1], requires_grad=True)
    ranks = torch.tensor([teaching, row, teaching])
    losses = ranked_info_nce(query, key, ranks, taus, reduction="none", **options)
    assert losses[1].item() == 0
    assert (losses[[0, 2]] > 0).all()
    for grad in torch.autograd.grad(losses[1], (query, key, taus), retain_graph=True):
        assert (grad == 0).all()
    # Nor does it count in the mean.
    mean = ranked_info_nce(query, key, ranks, taus, **options)
    assert float(mean) == pytest.approx(float(losses[0] + losses[2]) / 2, rel=1e-6)
    without = ranked_info_nce(query[[0, 2]], key, ranks[[0, 2]], taus, **options)
    torch.testing.assert_close(
        torch.autograd.grad(mean, key)[0], torch.autograd.grad(without, key)[0]
    )


@each_variant
@each_positives
@pytest.mark.parametrize(
    ("row", "why"),
    [
        ([0, 0, -1], "has a positive"),
        ([-1, -1, -1], "has a positive"),
        ([1, 1, -1], "key less similar"),
        ([2, 2, 2], "key less similar"),
    ],
)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_trap_a_batch_with_nothing_to_learn_is_a_zero_with_a_graph_and_one_warning(
    row: list[int], why: str, reduction: str, variant: str, positives: str
) -> None:
    query, key = unit(11, 2, 3).requires_grad_(), unit(12, 3, 3).requires_grad_()
    with pytest.warns(RinceWarning) as caught:
        loss = ranked_info_nce(
            query,
            key,
            torch.tensor([row, row]),
            (0.1, 0.2),
            variant=variant,
            positives=positives,
            reduction=reduction,
        )
    assert len(caught) == 1
    assert why in str(caught[0].message)
    assert (loss == 0).all()
    loss.sum().backward()
    assert torch.equal(query.grad, torch.zeros_like(query))
    assert torch.equal(key.grad, torch.zeros_like(key))


def test_trap_a_table_without_positives_takes_any_number_of_temperatures() -> None:
    z = unit(11, 2, 3).requires_grad_()
    ranks = TableRanks([0, 1], [0, 1], [[-1, 0], [0, -1]])
    for temperatures in (0.1, (0.1, 0.2)):
        with pytest.warns(RinceWarning, match="has a positive"):
            loss = ranked_info_nce(z, z, ranks, temperatures)
        assert loss == 0
        assert torch.equal(torch.autograd.grad(loss, z)[0], torch.zeros_like(z))


@each_variant
def test_trap_empty_ranks_do_not_change_the_divisor(variant: str) -> None:
    """A rank that this batch lacks adds 0: the loss is neither divided by 1 more nor by 1 less."""
    query, key = unit(13, 3, 4), unit(14, 6, 4)
    ranks = torch.tensor([[1, 1, 0, 0, 0, 0], [1, 0, 0, -1, 0, 0], [0, 0, 0, 1, 1, 1]])
    one = ranked_info_nce(query, key, ranks, (0.1,), variant=variant)
    for taus in ((0.1, 0.2), (0.1, 0.2, 0.3, 0.4)):
        torch.testing.assert_close(ranked_info_nce(query, key, ranks, taus, variant=variant), one)


def test_trap_the_loss_of_a_query_does_not_depend_on_the_ranks_of_the_others() -> None:
    query, key = unit(13, 2, 4), unit(14, 5, 4)
    losses = [
        ranked_info_nce(
            query, key, torch.tensor([[1, 2, 0, 0, 0], row]), (0.1, 0.2, 0.3), reduction="none"
        )[0].item()
        for row in ([1, 2, 3, 0, 0], [1, 0, 0, 0, 0], [-1, -1, -1, -1, -1])
    ]
    assert losses == [losses[0]] * 3


def test_trap_out_is_a_mean_per_query_and_not_over_all_pairs() -> None:
    """A query with many far positives must not outweigh one with a single near positive."""
    query = QUERY.repeat(2, 1)
    key = at_cosines(-0.2, -0.2, -0.2, 1.0, 0.0)
    ranks = torch.tensor([[1, 1, 1, -1, 0], [-1, -1, -1, 1, 0]])
    many, single = math.log1p(math.exp(0.2 / 0.1)), math.log1p(math.exp(-1 / 0.1))
    loss = float(ranked_info_nce(query, key, ranks, 0.1, variant="out"))
    assert loss == pytest.approx((many + single) / 2, rel=1e-5)
    assert loss < 0.7 * (3 * many + single) / 4  # what a mean over pairs would give


@each_variant
def test_trap_empty_queue_slots_are_no_negatives_and_match_no_label(variant: str) -> None:
    table = torch.tensor([[1, 2, 0], [2, 1, 0], [0, 0, 1]])
    labels = torch.tensor([0, 1, 2])
    query, key = unit(15, 3, 4), unit(16, 3, 4)
    expected = ranked_info_nce(
        query, key, TableRanks(labels, labels, table), (0.1, 0.2), variant=variant
    )
    slots = unit(17, 4, 4).requires_grad_()
    for filler in (-1, 0, 2, 77):
        ranks = TableRanks(
            labels,
            torch.cat([labels, torch.full((4,), filler)]),
            table,
            key_valid=torch.tensor([True] * 3 + [False] * 4),
        )
        loss = ranked_info_nce(query, torch.cat([key, slots]), ranks, (0.1, 0.2), variant=variant)
        torch.testing.assert_close(loss, expected)
        assert (torch.autograd.grad(loss, slots)[0] == 0).all()


def test_trap_positives_of_the_current_batch_are_used_beside_those_of_the_queue() -> None:
    batch, queue = unit(18, 4, 4), unit(19, 3, 4)
    labels, queued = torch.tensor([0, 0, 1, 1]), torch.tensor([1, 0, 2])
    keys, table = torch.cat([batch, queue]).requires_grad_(), torch.eye(3, dtype=torch.int8)
    source = TableRanks(labels, torch.cat([labels, queued]), table, ignore_self=True)
    loss = ranked_info_nce(batch, keys, source, 0.1, variant="out", reduction="none")
    # Query 0: positives are key 1 (batch) and key 5 (queue), itself takes no part.
    ranks = [[-1, 1, 0, 0, 0, 1, 0]]
    (expected,) = oracle.rince(batch[:1].tolist(), keys.tolist(), ranks, (0.1,), "out")
    assert loss[0].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "option",
    [{"variant": "outin"}, {"variant": "out_in"}, {"positives": "all"}, {"reduction": "avg"}],
)
def test_trap_an_unknown_option_is_an_error(option: dict[str, Any]) -> None:
    query, key, ranks = unit(0, 1, 2), unit(1, 2, 2), torch.tensor([[1, 0]])
    (name, value), *_ = option.items()
    with pytest.raises(ValueError, match=f"{name} must be .* got '{value}'"):
        ranked_info_nce(query, key, ranks, 0.1, **option)
    with pytest.raises(ValueError, match=f"{name} must be .* got '{value}'"):
        RankedInfoNCE(0.1, **option)(query, key, ranks)


def test_trap_out_in_is_not_in() -> None:
    """The prototype's documented out-in command trained "in"."""
    query, key = unit(20, 1, 4), unit(21, 5, 4)
    ranks = torch.tensor([[1, 1, 2, 2, 0]])
    losses = [float(ranked_info_nce(query, key, ranks, (0.1, 0.2), variant=v)) for v in VARIANTS]
    assert losses[0] < losses[2] < losses[1]


# ---- what is refused and what is warned of ------------------------------------------------


def test_bad_embeddings_are_named() -> None:
    good, ranks = unit(22, 2, 3), torch.tensor([[1, 0], [0, 1]])
    for number in (math.nan, math.inf, -math.inf):
        bad = good.clone()
        bad[1, 2] = number
        with pytest.raises(ValueError, match="1 of 2 query embeddings.*NaN.*row 1"):
            ranked_info_nce(bad, good, ranks, 0.1)
        with pytest.raises(ValueError, match="1 of 2 key embeddings.*NaN.*row 1"):
            ranked_info_nce(good, bad, ranks, 0.1)
    bad = good.clone()
    bad[0] = 0
    with pytest.raises(ValueError, match="1 of 2 query embeddings.*zeros.*row 0"):
        ranked_info_nce(bad, good, ranks, 0.1)
    with pytest.raises(ValueError, match="1 of 2 key embeddings.*zeros.*row 0"):
        ranked_info_nce(good, bad, ranks, 0.1)


@pytest.mark.parametrize("side", ["query", "key"])
def test_embeddings_that_are_not_of_unit_length_are_warned_of(side: str) -> None:
    ranks = torch.tensor([[1, 0], [0, 1]])
    inputs = {"query": unit(22, 2, 3), "key": unit(23, 2, 3)}
    inputs[side] = inputs[side] * torch.tensor([[1.0], [1.5]])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):  # as in a training
            ranked_info_nce(**inputs, ranks=ranks, temperatures=0.1)
            inputs[side] = inputs[side] * torch.tensor([[1.0], [1.1]])
    (warning,) = caught
    assert str(warning.message).startswith(f"{side} embeddings are not of unit length")
    # What rounding to half precision does is no reason to warn.
    rounded = ranked_info_nce(
        unit(22, 50, 8).bfloat16(), unit(23, 50, 8).half(), torch.eye(50).int(), 0.1
    )
    assert rounded.isfinite()


def test_shapes_and_types_that_do_not_fit_are_refused() -> None:
    query, key, ranks = unit(0, 2, 3), unit(1, 4, 3), torch.tensor([[1, 0, 0, 0], [0, 0, 1, 0]])

    def refused(match: str, *inputs: Any) -> None:
        for validate in (True, False):
            with pytest.raises(ValueError, match=match):
                ranked_info_nce(*inputs, 0.1, validate=validate)

    refused(r"query embeddings must be a floating-point .* \(6,\)", query.flatten(), key, ranks)
    refused(r"key embeddings must be a floating-point .* torch.int64", query, key.long(), ranks)
    refused(r"there are no query embeddings: shape \(0, 3\)", query[:0], key, ranks[:0])
    refused(r"there are no key embeddings: shape \(0, 3\)", query, key[:0], ranks[:, :0])
    refused(r"differ in dimension: 3 and 2", query, key[:, :2], ranks)
    refused(r"\(queries, keys\) = \(2, 4\), got \(4, 2\)", query, key, ranks.T)
    refused(r"\(queries, keys\) = \(2, 4\), got \(2, 3\)", query, key, ranks[:, :3])
    refused(r"ranks must be integers", query, key, ranks.float())
    refused(r"rank source .* got dict", query, key, {})


def test_a_wrong_number_of_temperatures_is_refused() -> None:
    query, labels = unit(0, 2, 3), torch.tensor([0, 1])
    table = TableRanks(labels, labels, torch.tensor([[1, 2], [2, 1]]))
    for given_, taus in ((1, (0.1,)), (3, (0.1, 0.2, 0.3))):
        with pytest.raises(ValueError, match=rf"\b2 temperatures.* {given_}\b"):
            ranked_info_nce(query, query, table, taus)
        with pytest.raises(ValueError, match=rf"\b2 temperatures.* {given_}\b"):
            ranked_info_nce(query, query, table, taus, validate=False)
    # A plain matrix does not say how far its ranks go: only a rank without a temperature is wrong.
    matrix = torch.tensor([[1, 0], [3, 0]])
    with pytest.raises(ValueError, match=r"rank 3\b.*\b2 temperatures"):
        ranked_info_nce(query, query, matrix, (0.1, 0.2))
    assert ranked_info_nce(query, query, matrix, (0.1, 0.2, 0.3, 0.4)) > 0
    with pytest.raises(ValueError, match=r"\b4 temperatures"):
        ranked_info_nce(query, query, rince.ranks.DenseRanks(matrix, num_ranks=4), (0.1, 0.2, 0.3))


def test_without_validation_the_numbers_are_the_same_and_nobody_warns() -> None:
    query, key = 1.5 * unit(24, 3, 4), unit(25, 5, 4)
    for ranks, taus in (
        (torch.tensor([[1, 2, 0, 0, -1]] * 3), (0.1, 0.2)),  # not of unit length
        (torch.tensor([[1, 2, 0, 0, -1]] * 3), (0.3, 0.2)),  # and falling temperatures
        (torch.tensor([[0, 0, 0, 0, -1]] * 3), (0.1, 0.2)),  # and nothing to learn
    ):
        with pytest.warns(RinceWarning):
            expected = ranked_info_nce(query, key, ranks, taus)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loss = ranked_info_nce(query, key, ranks, taus, validate=False)
            RankedInfoNCE(taus, validate=False)(query, key, ranks)
            ranked_info_nce(query, key, ranks, torch.tensor(taus), validate=False)
        assert torch.equal(loss, expected)


# ---- the module ----------------------------------------------------------------------------


@given(cases(), st.sampled_from(["mean", "sum", "none"]))
def test_the_module_is_the_function_with_its_options_held(case: Case, reduction: Any) -> None:
    module = RankedInfoNCE(case.temperatures, reduction=reduction, validate=False, **case.options)
    assert torch.equal(module(case.query, case.key, case.ranks), quiet(case, reduction=reduction))
    assert list(module.parameters()) == []
    for name, value in {**case.options, "reduction": reduction}.items():
        assert f"{name}={value!r}" in repr(module)


def test_the_module_learns_temperatures_given_as_a_parameter() -> None:
    taus = torch.nn.Parameter(torch.tensor([0.1, 0.3]))
    module = RankedInfoNCE(taus)
    assert list(module.parameters()) == [taus]
    module(unit(26, 2, 3), unit(27, 4, 3), torch.tensor([[1, 2, 0, 0]] * 2)).backward()
    assert (taus.grad != 0).all()


def test_the_module_checks_its_temperatures_at_once() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        RankedInfoNCE((0.1, -0.2))
    with pytest.warns(RinceWarning, match="do not rise"):
        RankedInfoNCE((0.2, 0.1))


def test_the_module_checks_its_input_unless_told_otherwise() -> None:
    query, key, ranks = unit(26, 1, 3), unit(27, 2, 3), torch.tensor([[0, 0]])
    with pytest.warns(RinceWarning, match="its gradient"):
        RankedInfoNCE(0.1)(query, key, ranks)
    assert RankedInfoNCE(0.1, validate=False)(query, key, ranks) == 0


@pytest.mark.parametrize(
    "option", [{"variant": "inout"}, {"positives": "all"}, {"engine": "fast"}, {"block_size": 0}]
)
def test_a_module_refuses_an_unknown_word_when_it_is_made(option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        rince.RankedInfoNCE((0.1, 0.2), **option)


@pytest.mark.parametrize(
    ("length", "far"), [(0.9, True), (0.985, False), (1.015, False), (1.1, True)]
)
def test_lengths_may_be_a_fiftieth_off(length: float, far: bool) -> None:
    z, ranks = unit(0, 4, 3) * length, torch.tensor([[1, 2, 0, -1]] * 4)
    says = pytest.warns(RinceWarning, match="unit length")
    with says if far else contextlib.nullcontext():
        ranked_info_nce(z, z, ranks, (0.1, 0.2))
