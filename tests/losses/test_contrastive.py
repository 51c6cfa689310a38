from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from losses_helpers import LargestTensor, as_numbers, unit
from torch import Tensor
from torch.nn import functional

import rince
from oracles import losses as oracle
from rince import RinceWarning
from rince.core.pair_ranks import ALL, DenseRanks, IdentityRanks, PairRanks, TableRanks
from rince.losses import info_nce, ranked_info_nce, supcon_in, supcon_out
from rince.losses.blockwise.engine import blockwise_loss
from rince.losses.blockwise.sizes import Sizes
from rince.losses.common import highest_rank, tiles
from rince.losses.contrastive import one_rank_loss

LOSSES: dict[str, Any] = {"info_nce": info_nce, "supcon_in": supcon_in, "supcon_out": supcon_out}
each_loss = pytest.mark.parametrize("name", LOSSES)


@dataclass(frozen=True)
class Case:
    query: Tensor  # (Q, D) float64, unit length
    key: Tensor  # (K, D) float64, unit length
    ranks: Tensor  # (Q, K) int64 in {-1, 0, 1}
    temperature: float

    def for_loss(self, name: str) -> Case:
        """InfoNCE takes the first positive of each query; the others become negatives."""
        if name != "info_nce":
            return self
        first = (self.ranks == 1) & ((self.ranks == 1).cumsum(dim=1) == 1)
        return Case(
            self.query, self.key, first.long() - (self.ranks == -1).long(), self.temperature
        )

    def loss(self, name: str, **changed: Any) -> Tensor:
        inputs = {**vars(self), "reduction": "none", "validate": False, **changed}
        return LOSSES[name](**inputs)

    def oracle(self, name: str, query: Any = None, key: Any = None) -> list[float | None]:
        return getattr(oracle, name)(
            self.query.tolist() if query is None else query,
            self.key.tolist() if key is None else key,
            self.ranks.tolist(),
            self.temperature,
        )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    queries, keys = draw(st.integers(1, 4)), draw(st.integers(1, 7))
    codes = st.lists(st.integers(-1, 1), min_size=keys, max_size=keys)
    ranks = draw(st.lists(codes, min_size=queries, max_size=queries))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    dimension = draw(st.integers(1, 4))
    query, key = (
        functional.normalize(
            torch.randn(count, dimension, generator=generator, dtype=torch.float64), dim=1
        )
        for count in (queries, keys)
    )
    if draw(st.booleans()):  # keys that lie on a query, and opposite to one
        key[0], key[-1] = query[0], -query[-1]
    return Case(query, key, torch.tensor(ranks), draw(st.floats(0.05, 1)))


# ---- against the definition ----------------------------------------------------------------


@each_loss
@given(cases())
def test_value_is_the_formula(name: str, case: Case) -> None:
    case = case.for_loss(name)
    expected = case.oracle(name)
    for reduction, number in (
        ("none", as_numbers(expected)),
        ("sum", as_numbers(expected).sum()),
        ("mean", torch.tensor(oracle.mean(expected), dtype=torch.float64)),
    ):
        loss = case.loss(name, reduction=reduction)
        torch.testing.assert_close(loss, number, rtol=1e-10, atol=1e-12)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        checked = case.loss(name, validate=True)
    assert torch.equal(checked, case.loss(name))
    nothing = all(x is None for x in expected)
    assert ["its gradient" in str(w.message) for w in caught] == [True] * nothing


@each_loss
@given(cases())
def test_gradient_is_that_of_the_formula(name: str, case: Case) -> None:
    case = case.for_loss(name)
    query, key = case.query.clone().requires_grad_(), case.key.clone().requires_grad_()
    case.loss(name, query=query, key=key, reduction="mean").backward()
    for found, at, mean in (
        (query.grad, case.query, lambda x: oracle.mean(case.oracle(name, query=x))),
        (key.grad, case.key, lambda x: oracle.mean(case.oracle(name, key=x))),
    ):
        expected = torch.tensor(oracle.central_differences(mean, at.tolist()), dtype=torch.float64)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@each_loss
def test_gradcheck(name: str) -> None:
    ranks = torch.tensor([[1, 0, 0, -1, 0], [0, 0, 1, 0, -1], [0, 0, 0, -1, -1]])
    if name != "info_nce":
        ranks[0, 1] = ranks[1, 0] = 1
    inputs = (
        unit(0, 3, 3, dtype=torch.float64).requires_grad_(),
        unit(1, 5, 3, dtype=torch.float64).requires_grad_(),
    )
    assert torch.autograd.gradcheck(
        lambda query, key: LOSSES[name](query, key, ranks, 0.3, validate=False), inputs
    )


@given(st.integers(1, 5), st.integers(0, 4), st.integers(0, 1000), st.floats(0.05, 1))
def test_info_nce_without_ranks_is_cross_entropy_of_the_similarities(
    queries: int, more: int, seed: int, tau: float
) -> None:
    assume(queries + more > 1)
    query, key = unit(seed, queries, 3), unit(seed + 1, queries + more, 3)
    query.requires_grad_()
    for reduction in ("none", "sum", "mean"):
        loss = info_nce(query, key, temperature=tau, reduction=reduction)
        expected = functional.cross_entropy(
            query @ key.T / tau, torch.arange(queries), reduction=reduction
        )
        torch.testing.assert_close(loss, expected)
    (grad,) = torch.autograd.grad(loss, query, retain_graph=True)
    torch.testing.assert_close(grad, torch.autograd.grad(expected, query)[0], rtol=1e-4, atol=1e-5)


@each_loss
@given(case=cases())
def test_the_streamed_engine_gives_the_same(name: str, case: Case) -> None:
    case = case.for_loss(name)
    upstream = torch.linspace(-1, 2, len(case.query), dtype=torch.float64)
    for reduction in ("mean", "none"):
        found = []
        for engine in ("dense", "streamed"):
            query, key = case.query.clone().requires_grad_(), case.key.clone().requires_grad_()
            options = {"query": query, "key": key, "engine": engine, "block_size": 2}
            loss = case.loss(name, reduction=reduction, **options)
            (loss * upstream if reduction == "none" else loss).sum().backward()
            found.append((loss.detach(), query.grad, key.grad))
        torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("form", ["supcon-in", "supcon-out"])
@given(seed=st.integers(0, 2**16), may_read=st.booleans(), own=st.booleans())
def test_sums_by_class_give_the_same(form: Any, seed: int, may_read: bool, own: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    classes = int(torch.randint(1, 4, (), generator=generator))

    def integers(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=generator)

    labels, num_keys = integers(0, classes, 7), 7 if own else 19
    source: PairRanks = TableRanks(
        labels,
        labels if own else integers(0, classes, num_keys),
        integers(-1, 2, classes, classes),
        ignore_self=own,
        key_valid=integers(0, 3, num_keys) > 0,
        num_ranks=1,
    )
    found = []
    for ranks in (DenseRanks(source.tile(ALL, ALL)), source):
        query = unit(seed, 7, 3, dtype=torch.float64).requires_grad_()
        key = query if own else unit(seed + 1, num_keys, 3, dtype=torch.float64).requires_grad_()
        loss, terms = blockwise_loss(
            query,
            key,
            ranks,
            [0.2],
            (form,),
            reduction="mean",
            sizes=Sizes(block=3, by_class_pairs=0),
            may_read=may_read,
        )
        loss.backward()
        found.append((loss.detach(), query.grad, key.grad, terms.values, terms.active))
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-11)


@each_loss
def test_large_batches_hold_no_queries_by_keys_matrix(name: str) -> None:
    count = 300
    sizes = Sizes(
        dense_pairs_of_one_rank=count * count,
        scratch_bytes=16 * count * 8,
        pairs_of_a_check=16 * count,
    )
    z = unit(7, count, 4).requires_grad_()
    labels = torch.arange(count) // 2
    source = IdentityRanks(labels, labels, ignore_self=True)
    form: Any = "supcon-in" if name == "supcon_in" else "supcon-out"
    with LargestTensor() as most:
        one_rank_loss(
            z, z, source, 0.1, form, reduction="mean", validate=True, sizes=sizes
        ).backward()
    assert most.size <= 16 * count


def test_large_batches_are_served_by_the_shared_loop() -> None:
    z = unit(8, 2049, 2).requires_grad_()
    labels = torch.arange(2049) % 10
    loss = supcon_out(z, z, TableRanks(labels, labels, torch.eye(10).long(), ignore_self=True))
    with pytest.raises(RuntimeError, match='engine="dense"'):
        torch.autograd.grad(loss, z, create_graph=True)
    few = z[:64].detach().requires_grad_()
    ranks = TableRanks(labels[:64], labels[:64], torch.eye(10).long(), ignore_self=True)
    (grad,) = torch.autograd.grad(supcon_out(few, few, ranks), few, create_graph=True)
    assert torch.isfinite(torch.autograd.grad(grad.square().sum(), few)[0]).all()


def test_the_default_temperature_is_a_tenth() -> None:
    query, key, ranks = unit(2, 2, 3), unit(3, 4, 3), torch.tensor([[1, 0, 0, 0], [0, 0, 1, 0]])
    for loss in LOSSES.values():
        assert torch.equal(loss(query, key, ranks), loss(query, key, ranks, 0.1))


# ---- relatives -----------------------------------------------------------------------------


@given(cases())
def test_with_one_positive_all_five_are_the_same(case: Case) -> None:
    case = case.for_loss("info_nce")
    expected = case.loss("info_nce", reduction="mean")
    for name in ("supcon_in", "supcon_out"):
        loss = case.loss(name, reduction="mean")
        torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-11)
    for variant in ("in", "out"):
        loss = ranked_info_nce(
            case.query, case.key, case.ranks, case.temperature, variant=variant, validate=False
        )
        torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-11)


@given(cases())
def test_supcon_in_is_rince_in_plus_log_of_the_number_of_positives(case: Case) -> None:
    counts = (case.ranks == 1).sum(dim=1)
    # A query without negatives is a constant log |P| to supcon_in and skipped by RINCE.
    rows = (counts > 0) & (case.ranks == 0).any(dim=1)
    assume(bool(rows.any()))
    query, key = case.query[rows].requires_grad_(), case.key.requires_grad_()
    supcon = supcon_in(query, key, case.ranks[rows], case.temperature, reduction="none")
    ranked = ranked_info_nce(
        query, key, case.ranks[rows], case.temperature, variant="in", reduction="none"
    )
    torch.testing.assert_close(supcon - ranked, counts[rows].double().log(), rtol=1e-9, atol=1e-9)
    ours = torch.autograd.grad(supcon.mean(), (query, key))
    for a, b in zip(ours, torch.autograd.grad(ranked.mean(), (query, key)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@given(cases())
def test_supcon_out_asks_more_than_rince_out_for_the_other_positives_are_in_the_way(
    case: Case,
) -> None:
    supcon = case.loss("supcon_out")
    ranked = ranked_info_nce(
        case.query,
        case.key,
        case.ranks,
        case.temperature,
        variant="out",
        reduction="none",
        validate=False,
    )
    several = (case.ranks == 1).sum(dim=1) > 1
    assert (supcon[several] >= ranked[several] - 1e-12).all()


# ---- properties ----------------------------------------------------------------------------


@each_loss
@given(case=cases(), random=st.randoms(use_true_random=False))
def test_the_order_of_keys_and_of_queries_does_not_matter(
    name: str, case: Case, random: Any
) -> None:
    case = case.for_loss(name)
    rows = random.sample(range(len(case.query)), len(case.query))
    cols = random.sample(range(len(case.key)), len(case.key))
    shuffled = case.loss(
        name, query=case.query[rows], key=case.key[cols], ranks=case.ranks[rows][:, cols]
    )
    torch.testing.assert_close(shuffled, case.loss(name)[rows], rtol=1e-12, atol=1e-12)


@each_loss
@given(case=cases(), count=st.integers(1, 3))
def test_ignored_keys_change_nothing_and_get_no_gradient(name: str, case: Case, count: int) -> None:
    case = case.for_loss(name)
    key = torch.cat([case.key, unit(0, count, case.key.shape[1], dtype=torch.float64)])
    key.requires_grad_()
    loss = case.loss(name, key=key, ranks=functional.pad(case.ranks, (0, count), value=-1))
    torch.testing.assert_close(loss, case.loss(name), rtol=1e-12, atol=1e-12)
    loss.sum().backward()
    assert (key.grad[-count:] == 0).all()


@pytest.mark.parametrize("name", ["supcon_in", "supcon_out"])
@given(case=cases())
def test_every_key_twice_adds_log_2(name: str, case: Case) -> None:
    """Each share p / sum_a is half of what it was."""
    active = torch.tensor([x is not None for x in case.oracle(name)])
    twice = case.loss(name, key=torch.cat([case.key] * 2), ranks=torch.cat([case.ranks] * 2, dim=1))
    expected = case.loss(name)[active] + math.log(2)
    torch.testing.assert_close(twice[active], expected, rtol=1e-10, atol=1e-10)


# ---- numbers -------------------------------------------------------------------------------


@each_loss
def test_fp32_holds_at_temperature_001(name: str) -> None:
    query = torch.tensor([[1.0, 0.0]]).requires_grad_()
    for key in ([[-1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [-1.0, 0.0]]):
        ranks = torch.tensor([[1, 0]])
        loss = LOSSES[name](query, torch.tensor(key), ranks, 0.01)
        (expected,) = getattr(oracle, name)([[1.0, 0.0]], key, [[1, 0]], 0.01)
        assert float(loss) == pytest.approx(expected, rel=1e-5, abs=3e-5)
        assert torch.autograd.grad(loss, query)[0].isfinite().all()


@each_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_and_autocast_give_fp32_of_the_rounded_input(
    name: str, dtype: torch.dtype, autocast: bool
) -> None:
    query, key = unit(5, 6, 16).to(dtype), unit(6, 20, 16).to(dtype)
    ranks = torch.eye(6, 20, dtype=torch.int8)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = LOSSES[name](query, key, ranks, 0.01)
    expected = LOSSES[name](query.float(), key.float(), ranks, 0.01)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)


@each_loss
def test_autocast_does_not_reach_into_the_loss(name: str) -> None:
    query, key, ranks = unit(5, 6, 16), unit(6, 20, 16), torch.eye(6, 20, dtype=torch.int8)
    with torch.autocast("cpu", torch.bfloat16):
        loss = LOSSES[name](query, key, ranks, 0.01)
    assert torch.equal(loss, LOSSES[name](query, key, ranks, 0.01))


# ---- traps of the prototype, nothing to learn ----------------------------------------------


@each_loss
def test_trap_a_far_positive_contributes_its_true_value(name: str) -> None:
    key = torch.tensor([[-0.84, math.sqrt(1 - 0.84**2)], [0.84, math.sqrt(1 - 0.84**2)]])
    loss = LOSSES[name](torch.tensor([[1.0, 0.0]]), key, torch.tensor([[1, 0]]), 0.1)
    assert float(loss) == pytest.approx(math.log1p(math.exp(16.8)), rel=1e-5)


@each_loss
@pytest.mark.parametrize("row", [[0, 0, 0], [-1, -1, -1], [1, -1, -1], [0, -1, -1]])
def test_trap_a_query_with_nothing_to_learn_is_exactly_0_and_not_in_the_mean(
    name: str, row: list[int]
) -> None:
    query, key = unit(9, 3, 3).requires_grad_(), unit(10, 3, 3).requires_grad_()
    ranks = torch.tensor([[1, 0, 0], row, [0, 0, 1]])
    losses = LOSSES[name](query, key, ranks, 0.1, reduction="none")
    assert losses[1].item() == 0
    for grad in torch.autograd.grad(losses[1], (query, key), retain_graph=True):
        assert (grad == 0).all()
    mean = LOSSES[name](query, key, ranks, 0.1)
    torch.testing.assert_close(mean, (losses[0] + losses[2]) / 2)


@each_loss
@pytest.mark.parametrize(
    ("row", "why"),
    [
        ([0, 0, 0], "has a positive"),
        ([-1, -1, -1], "has a positive"),
        ([1, -1, -1], "key less similar"),
    ],
)
def test_trap_a_batch_with_nothing_to_learn_is_a_zero_with_a_graph_and_one_warning(
    name: str, row: list[int], why: str
) -> None:
    query, key = unit(11, 2, 3).requires_grad_(), unit(12, 3, 3).requires_grad_()
    with pytest.warns(RinceWarning) as caught:
        loss = LOSSES[name](query, key, torch.tensor([row, row]), 0.1)
    assert len(caught) == 1
    assert why in str(caught[0].message)
    assert loss.item() == 0
    loss.backward()
    assert torch.equal(query.grad, torch.zeros_like(query))
    assert torch.equal(key.grad, torch.zeros_like(key))


@pytest.mark.parametrize("name", ["supcon_in", "supcon_out"])
def test_only_positives_still_teach_uniformity_or_nothing_but_never_nan(name: str) -> None:
    """All candidates positive: supcon_in is the constant log |P|, supcon_out evens them out."""
    query, key = unit(13, 1, 3), unit(14, 3, 3).requires_grad_()
    loss = LOSSES[name](query, key, torch.tensor([[1, 1, 1]]), 0.1)
    (grad,) = torch.autograd.grad(loss, key)
    if name == "supcon_in":
        assert float(loss) == pytest.approx(math.log(3), rel=1e-5)
        torch.testing.assert_close(grad, torch.zeros_like(grad), rtol=0, atol=1e-5)
    else:
        (expected,) = oracle.supcon_out(query.tolist(), key.tolist(), [[1, 1, 1]], 0.1)
        assert float(loss) == pytest.approx(expected, rel=1e-5)
        assert (grad != 0).any()


@each_loss
def test_trap_empty_queue_slots_are_no_negatives(name: str) -> None:
    labels, query, key = torch.tensor([0, 1]), unit(15, 2, 3), unit(16, 4, 3)
    source = TableRanks(
        labels,
        torch.tensor([0, 1, -1, 0]),
        torch.eye(2, dtype=torch.int8),
        key_valid=torch.tensor([True, True, False, False]),
    )
    expected = LOSSES[name](query, key[:2], torch.eye(2, dtype=torch.int8), 0.1)
    torch.testing.assert_close(LOSSES[name](query, key, source, 0.1), expected)


# ---- what is refused -----------------------------------------------------------------------


@each_loss
@pytest.mark.parametrize("engine", ["dense", "streamed"])
def test_a_temperature_may_be_learned(name: str, engine: str) -> None:
    query, key, ranks = unit(0, 3, 4).double(), unit(1, 3, 4).double(), torch.eye(3).int()
    temperature = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LOSSES[name](query, key, ranks, temperature, engine=engine).backward()
    more, less = (LOSSES[name](query, key, ranks, 0.5 + step) for step in (1e-5, -1e-5))
    assert float(temperature.grad) == pytest.approx(float(more - less) / 2e-5, rel=1e-4)


@each_loss
def test_wrong_input_is_refused(name: str) -> None:
    loss, query, ranks = LOSSES[name], unit(0, 2, 3), torch.tensor([[1, 0], [0, 1]])
    for bad in (0.0, -0.1, math.nan, math.inf, 1e-42, 1e-310):
        with pytest.raises(ValueError, match=f"temperature.*positive.* {bad}"):
            loss(query, query, ranks, bad)
    for overflown in (0.0, math.inf):  # of float16, in which the limits are these, too
        with pytest.raises(ValueError, match="temperature.*positive"):
            loss(query, query, ranks, torch.tensor(overflown, dtype=torch.float16))
    with pytest.raises(ValueError, match=r"rank 2\b.*ranked_info_nce"):
        loss(query, query, torch.tensor([[1, 2], [0, 1]]))
    with pytest.raises(ValueError, match=r"\(queries, keys\) = \(2, 2\), got \(2, 1\)"):
        loss(query, query, ranks[:, :1])
    for engine in ("dense", "streamed"):
        with pytest.raises(ValueError, match="reduction.*'avg'"):
            loss(query, query, ranks, reduction="avg", engine=engine)
    with pytest.raises(ValueError, match="engine.*'fast'"):
        loss(query, query, ranks, engine="fast")
    with pytest.raises(ValueError, match=r"block_size .*\b0"):
        loss(query, query, ranks, block_size=0)
    with pytest.raises(ValueError, match="1 of 2 query embeddings.*NaN"):
        loss(torch.tensor([[1.0, 0.0], [math.nan, 0.0]]), torch.eye(2), ranks)
    with pytest.raises(ValueError, match="1 of 2 key embeddings.*zeros"):
        loss(torch.eye(2), torch.tensor([[1.0, 0.0], [0.0, 0.0]]), ranks)


def test_ranks_are_read_in_tiles_of_whole_queries() -> None:
    ranks = DenseRanks(torch.tensor([[0, 1, 0, 1], [0, 0, 3, 0], [2, 0, 0, 0]]))
    for pairs, sizes in ((3, [1, 1, 1]), (8, [2, 1]), (9, [2, 1]), (12, [3])):
        found = list(tiles(ranks, pairs))
        assert [len(tile) for tile in found] == sizes
        assert torch.equal(torch.cat(found), ranks.tile(ALL, ALL))
        assert highest_rank(ranks, pairs) == 3


def test_info_nce_takes_one_positive_a_query() -> None:
    query, key = unit(0, 2, 3), unit(1, 3, 3)
    with pytest.raises(ValueError, match=r"\b2: .*supcon_in"):
        info_nce(query, key, torch.tensor([[1, 0, 0], [1, 1, 0]]))
    ignored = torch.tensor([[1, 0, 0], [1, -1, 0]])
    assert torch.equal(info_nce(query, key, ignored), supcon_out(query, key, ignored))


def test_info_nce_without_ranks_needs_a_key_a_query() -> None:
    with pytest.raises(ValueError, match=r"3 queries.*\b2 keys"):
        info_nce(unit(0, 3, 4), unit(1, 2, 4))


def test_the_public_names_are_these_functions() -> None:
    assert (rince.losses.info_nce, rince.losses.supcon_in, rince.losses.supcon_out) == tuple(
        LOSSES.values()
    )


@pytest.mark.parametrize("loss", [info_nce, supcon_in, supcon_out, ranked_info_nce])
def test_embeddings_that_are_no_tensors_are_refused(loss: Any) -> None:
    z = unit(0, 3, 4)
    more = {"temperatures": 0.1} if loss is ranked_info_nce else {}
    for query, key, side in ((z.tolist(), z, "query"), (z, z.numpy(), "key")):
        with pytest.raises(ValueError, match=f"{side} embeddings must be a torch tensor"):
            loss(query, key, ranks=torch.eye(3).int(), **more)
    with pytest.raises(ValueError, match="query embeddings must be a torch tensor"):
        info_nce(z.tolist(), z)  # type: ignore[arg-type]
