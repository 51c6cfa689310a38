"""The streamed engine: the numbers of the definition, and never a queries-by-keys matrix."""

from __future__ import annotations

import importlib
import math
import subprocess
import sys
import warnings
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from losses_helpers import LargestTensor, unit
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

import rince
from oracles import losses as oracle
from rince import RinceWarning
from rince.core.pair_ranks import ALL, DenseRanks, IdentityRanks, PairRanks, TableRanks
from rince.losses.blockwise import in_batch
from rince.losses.blockwise.block import Inputs
from rince.losses.blockwise.by_class import ByClass
from rince.losses.blockwise.by_pair import ByPair
from rince.losses.blockwise.engine import _even, blockwise_loss
from rince.losses.blockwise.positive_pairs import positive_pairs
from rince.losses.blockwise.sizes import Sizes
from rince.losses.definition import form_of_term
from rince.losses.ranked_info_nce import ranked_info_nce_with_terms

# The function of the same name hides the module.
ranked_info_nce_module = importlib.import_module("rince.losses.ranked_info_nce")

# Small batches have many positives a query; the kernels for large ones serve them all the same, and
# visit them in many small pieces.
SMALL = Sizes(
    by_class_pairs=0, in_batch=0, most_positives=1.0, positive_pairs=40, queries_per_run=3
)


def ranked_info_nce(*given: Any, **options: Any) -> Tensor:
    return ranked_info_nce_with_terms(*given, **{"sizes": SMALL, **options})[0]


VARIANTS = ("in", "out", "out-in")
POSITIVES = ("exclusive", "cumulative")
TAUS = (0.1, 0.225, 0.5, 0.7)


@dataclass(frozen=True)
class Case:
    query: Tensor  # (Q, D) float64, unit length; may be the keys themselves
    key: Tensor  # (K, D)
    source: PairRanks
    taus: tuple[float, ...]
    options: dict[str, Any]
    block_size: int

    def loss(self, query: Tensor, key: Tensor, **changed: Any) -> Tensor:
        return ranked_info_nce(
            query,
            key,
            **{
                "ranks": self.source,
                "temperatures": self.taus,
                "engine": "streamed",
                "block_size": self.block_size,
                "validate": False,
                **self.options,
                **changed,
            },
        )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A batch with itself goes to the in-batch kernel, labels with few classes to the one by
    class, all else to the one by pair."""
    own = draw(st.booleans())
    num_queries, num_classes = draw(st.integers(1, 9)), draw(st.integers(1, 3))
    num_keys = num_queries if own else draw(st.integers(1, 24))
    num_ranks = draw(st.integers(1, 3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))

    def integers(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=generator)

    def unit(count: int) -> Tensor:
        x = torch.randn(count, 3, generator=generator, dtype=torch.float64)
        return functional.normalize(x, dim=1)

    query = unit(num_queries)
    # The same numbers in another tensor go to the kernel by class, not to the in-batch one.
    key = query if own and draw(st.booleans()) else query.clone() if own else unit(num_keys)
    if not own and draw(st.booleans()):
        key[0] = -query[0]
    labels = integers(0, num_classes, num_queries)
    source: PairRanks = TableRanks(
        labels,
        labels if own else integers(0, num_classes, num_keys),
        integers(-1, num_ranks + 1, num_classes, num_classes),
        ignore_self=own and draw(st.integers(0, 3)) > 0,
        key_valid=integers(0, 3, num_keys) > 0 if draw(st.integers(0, 2)) == 0 else None,
        num_ranks=num_ranks,
    )
    if draw(st.booleans()):
        source = DenseRanks(source.tile(ALL, ALL), num_ranks)
    return Case(
        query,
        key,
        source,
        TAUS[:num_ranks],
        {"variant": draw(st.sampled_from(VARIANTS)), "positives": draw(st.sampled_from(POSITIVES))},
        draw(st.integers(1, 10)),
    )


def labelled(
    num_queries: int, num_keys: int | None = None, num_classes: int = 10, **options: Any
) -> TableRanks:
    """Labels in turn; five classes share a superclass. Without num_keys queries are the keys."""
    c = torch.arange(num_classes)
    table = torch.where(c[:, None] // 5 == c // 5, 2, 0).fill_diagonal_(1)
    labels = torch.arange(num_queries) % num_classes
    if num_keys is None:
        return TableRanks(labels, labels, table, ignore_self=True, **options)
    return TableRanks(labels, torch.arange(num_keys) % num_classes, table, **options)


# ---- against the definition ----------------------------------------------------------------


@given(cases())
def test_value_is_the_formula(case: Case) -> None:
    expected = oracle.rince(
        case.query.tolist(),
        case.key.tolist(),
        case.source.tile(ALL, ALL).tolist(),
        case.taus,
        **case.options,
    )
    numbers = torch.tensor([0.0 if x is None else x for x in expected], dtype=torch.float64)
    mean = torch.tensor(oracle.mean(expected), dtype=torch.float64)
    for reduction, number in (("none", numbers), ("sum", numbers.sum()), ("mean", mean)):
        loss = case.loss(case.query, case.key, reduction=reduction)
        torch.testing.assert_close(loss, number, rtol=1e-9, atol=1e-12)


@given(cases(), st.sampled_from(["mean", "sum", "none"]))
def test_gradients_are_those_of_the_dense_engine(case: Case, reduction: str) -> None:
    """The dense engine's are checked against finite differences of the formula."""
    upstream = torch.linspace(-1, 2, len(case.query), dtype=torch.float64)
    found = []
    for engine in ("dense", "streamed"):
        query = case.query.clone().requires_grad_()
        key = query if case.key is case.query else case.key.clone().requires_grad_()
        loss = case.loss(query, key, engine=engine, reduction=reduction)
        (loss * upstream if reduction == "none" else loss * 1.7).sum().backward()
        found.append((query.grad, key.grad))
    for dense, other in zip(*found, strict=True):
        torch.testing.assert_close(other, dense, rtol=1e-9, atol=1e-10)


@given(cases())
def test_terms_are_those_of_the_dense_engine(case: Case) -> None:
    found = [
        ranked_info_nce_with_terms(
            case.query,
            case.key,
            case.source,
            case.taus,
            **case.options,
            engine=engine,
            block_size=case.block_size,
            validate=False,
            sizes=SMALL,
        )[1]
        for engine in ("dense", "streamed")
    ]
    assert torch.equal(found[1].active, found[0].active)
    torch.testing.assert_close(found[1].values, found[0].values, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("own", [True, False])
def test_terms_have_no_gradient(own: bool) -> None:
    query = unit(0, 60, 4).requires_grad_()
    key = query if own else unit(1, 60, 4)
    for sizes in (SMALL, Sizes()):
        loss, terms = blockwise_loss(
            query,
            key,
            labelled(60),
            (0.1,),
            ("in",),
            reduction="mean",
            sizes=sizes,
            may_read=True,
        )
        assert loss.requires_grad
        assert not terms.values.requires_grad


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("positives", POSITIVES)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_gradcheck(variant: str, positives: str, reduction: str) -> None:
    inputs = [
        unit(0, 5, 3, dtype=torch.float64).requires_grad_(),
        unit(1, 24, 3, dtype=torch.float64).requires_grad_(),
    ]

    def loss(query: Tensor, key: Tensor, taus: Any = (0.2, 0.5)) -> Tensor:
        return ranked_info_nce(
            query,
            key,
            labelled(5, 24),
            taus,
            variant=variant,
            positives=positives,
            reduction=reduction,
            engine="streamed",
            block_size=2,
            validate=False,
        )

    assert torch.autograd.gradcheck(loss, inputs)

    def in_batch(z: Tensor) -> Tensor:
        return ranked_info_nce(
            z,
            z,
            labelled(8, num_classes=6),
            (0.2, 0.5),
            variant=variant,
            positives=positives,
            reduction=reduction,
            engine="streamed",
            block_size=5,
        )

    assert torch.autograd.gradcheck(in_batch, [unit(2, 8, 3, dtype=torch.float64).requires_grad_()])
    learnable = torch.tensor([0.2, 0.5], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, [*inputs, learnable], fast_mode=True)


@given(cases(), st.sampled_from(["mean", "none"]), st.booleans())
def test_without_reading_values_the_numbers_are_the_same(
    case: Case, reduction: str, float_taus: bool
) -> None:
    """As on a GPU with validate=False: no list of positives, no in-batch kernel."""
    variant = case.options["variant"]
    forms = tuple(form_of_term(variant, i + 1) for i in range(len(case.taus)))
    found = []
    for may_read in (True, False):
        query = case.query.clone().requires_grad_()
        key = query if case.key is case.query else case.key.clone().requires_grad_()
        taus = list(case.taus) if float_taus else list(torch.tensor(case.taus).double())
        loss, _ = blockwise_loss(
            query,
            key,
            case.source,
            taus,
            forms,
            positives=case.options["positives"],
            reduction=reduction,
            sizes=replace(SMALL, block=case.block_size),
            may_read=may_read,
        )
        loss.sum().backward()
        found.append((loss.detach(), query.grad, key.grad))
    for other, exact in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(other, exact, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("variant", VARIANTS)
def test_vectors_that_are_too_long_stay_finite_where_lengths_are_not_read(variant: str) -> None:
    forms = tuple(form_of_term(variant, i) for i in (1, 2))
    source = labelled(60)
    # Exponents up to 80 are exact: squares of 2.8 over 0.1. One class is opposite to itself.
    of_each = torch.linspace(0.1, 40, 60)[:, None]
    for length, exact in ((1.0, True), (2.8, True), (3.5, False), (40.0, False), (of_each, False)):
        losses = []
        for may_read in (True, False):
            z = unit(30, 60, 8)
            z[10::10] = -z[0]
            z = (z * length).requires_grad_()
            options = {"reduction": "mean", "sizes": SMALL, "may_read": may_read}
            loss, _ = blockwise_loss(z, z, source, (0.1, 0.2), forms, **options)
            loss.backward()
            assert torch.isfinite(loss)
            assert torch.isfinite(z.grad).all()
            losses.append((loss.detach(), z.grad))
        if exact:
            torch.testing.assert_close(losses[1], losses[0], rtol=2e-5, atol=1e-5)


# ---- fp32 ------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("tau", [0.1, 0.02, 0.0125, 0.01])
def test_fp32_is_near_fp64(variant: str, tau: float) -> None:
    """At 0.01 exponents leave the range of the kernel by class, and the one by pair takes over."""
    z = unit(2, 300, 16)
    z[1], z[2] = z[0], -z[0]  # the same class has neighbours only ten further on: all negatives
    z[10], z[20] = -z[0], z[0]
    source = labelled(300)
    exact, single = z.double().requires_grad_(), z.clone().requires_grad_()
    taus = (tau, 2 * tau)
    expected = ranked_info_nce(exact, exact, source, taus, variant=variant, engine="dense")
    loss = ranked_info_nce(
        single, single, source, taus, variant=variant, engine="streamed", block_size=64
    )
    expected.backward()
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    error = (single.grad - exact.grad).abs().max() / exact.grad.abs().max()
    assert float(error) < 1e-5


def inputs_of(
    z: Tensor, source: PairRanks, taus: tuple[float, ...] = (0.1, 0.2), **changed: Any
) -> Inputs:
    options = {"forms": ("out", "in"), "positives": "exclusive", "sizes": SMALL, **changed}
    return Inputs(z, z, torch.tensor(taus, dtype=z.dtype), taus, source, **options)


def test_exponents_fit_by_the_longest_embeddings_and_the_lowest_temperature() -> None:
    source = labelled(2)
    z = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    for taus, fit in (((0.15, 1.0), True), ((0.1, 1.0), False), ((1.0, 0.1), False)):
        assert inputs_of(z, source, taus).exponents_fit() == fit  # 9 / 0.15 = 60, 9 / 0.1 = 90
        assert (
            Inputs(
                z[:1] / 3,
                9 * z,
                torch.tensor(taus),
                taus,
                source,
                ("out", "in"),
                "exclusive",
                SMALL,
            ).exponents_fit()
            == fit
        )
    # Unread, embeddings are of length 1, and the temperatures those that are known.
    for taus, fit in (((0.02, 1.0), True), ((0.01, 1.0), False), ((0.0125, 0.5), True)):
        assert inputs_of(z, source, taus, may_read=False).exponents_fit() == fit
    unknown = Inputs(
        z, z, torch.ones(2), None, source, ("out", "in"), "exclusive", SMALL, may_read=False
    )
    assert not unknown.exponents_fit()


def test_the_kernel_by_class_serves_where_its_exponents_fit() -> None:
    def serves(tau: float, source: PairRanks, scale: float = 1.0, **sizes: Any) -> bool:
        z = unit(2, 300, 16) * scale
        return ByClass.can_serve(inputs_of(z, source, (tau, 0.5), sizes=replace(SMALL, **sizes)))

    assert serves(0.1, labelled(300))
    assert serves(0.0127, labelled(300))
    assert not serves(0.01, labelled(300))
    assert not serves(0.1, labelled(300), scale=3.0)
    # e^79.9 is in range, 2,000 of them are not: 79.9 + log(2000) > 80 + 7.
    one = unit(2, 1, 16)
    few = inputs_of(one, labelled(1), (1 / 79.9, 0.5))
    assert few.exponents_fit()
    assert not replace(few, key=one.expand(2000, -1)).exponents_fit()
    edge = inputs_of(one, labelled(1), (1 / 80, 0.5), may_read=False)
    assert replace(edge, key=one.expand(1096, -1)).exponents_fit()  # log(1096) = 6.9994
    assert not replace(edge, key=one.expand(1097, -1)).exponents_fit()  # 7.0003
    assert not serves(0.1, labelled(300), by_class_pairs=300 * 300 + 1)
    assert serves(0.1, labelled(300), by_class_pairs=300 * 300)
    masks = 2 * 2 * 10 * 10 * 4
    assert serves(0.1, labelled(300), class_mask_bytes=masks)
    assert not serves(0.1, labelled(300), class_mask_bytes=masks - 1)
    assert serves(0.1, labelled(300, num_classes=75))
    assert not serves(0.1, labelled(300, num_classes=76))  # more classes than keys / 4
    assert not serves(0.1, IdentityRanks(torch.arange(300), torch.arange(300)))
    # Of 12 queries and 300 keys: masks of 30^2 pairs of classes cost what the pairs do.
    z = unit(2, 300, 16)
    for classes, fit in ((30, True), (31, False)):
        given = inputs_of(z, labelled(300, num_classes=classes), (0.1, 0.5), sizes=SMALL)
        assert ByClass.can_serve(replace(given, query=z[:12])) == fit


@pytest.mark.parametrize("scale", [0.3, 4.0])
def test_unnormalised_input(scale: float) -> None:
    z = unit(3, 200, 8, dtype=torch.float64) * scale
    losses = [
        ranked_info_nce(z, z, labelled(200), (0.05, 0.1), engine=e, validate=False)
        for e in ("dense", "streamed")
    ]
    assert float(losses[1]) == pytest.approx(float(losses[0]), rel=1e-10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast_are_summed_in_fp32(dtype: torch.dtype) -> None:
    rounded = [unit(4, 100, 16).to(dtype), unit(5, 200, 16).to(dtype)]
    half = [x.clone().requires_grad_() for x in rounded]
    full = [x.float().requires_grad_() for x in rounded]
    source, taus = labelled(100, 200), (0.02, 0.05)
    expected = ranked_info_nce(*full, source, taus, engine="streamed")
    with torch.autocast("cpu", torch.bfloat16):
        loss = ranked_info_nce(*half, source, taus, engine="streamed")
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)
    loss.backward()
    expected.backward()
    for a, b in zip(half, full, strict=True):
        assert a.grad.dtype == dtype
        assert torch.equal(a.grad, b.grad.to(dtype))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("positives", POSITIVES)
def test_the_kernel_by_class_ignores_pairs_of_a_sample_and_itself(
    variant: str, positives: str
) -> None:
    query = unit(19, 60, 4, dtype=torch.float64)
    found = []
    for engine in ("dense", "streamed"):
        q, k = query.clone().requires_grad_(), query.clone().requires_grad_()
        loss = ranked_info_nce(
            q,
            k,
            labelled(60),
            (0.1, 0.2),
            variant=variant,
            positives=positives,
            engine=engine,
            block_size=16,
        )
        found.append((loss.detach(), *torch.autograd.grad(loss, (q, k))))
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("variant", ["in", "out"])
def test_a_sum_of_the_least_exponential_in_range_is_kept(variant: str, own: bool) -> None:
    """The one positive lies opposite: e^-80 of it, against six keys of 1."""
    z = torch.eye(8)
    z[1] = -z[0]
    labels, key = torch.tensor([0, 0, *[1] * 6]), z if own else z.clone()
    source = TableRanks(labels, labels, torch.eye(2).long(), ignore_self=True)
    losses = ranked_info_nce(
        z, key, source, 0.0125, variant=variant, reduction="none", engine="streamed"
    )
    assert losses[0].item() == pytest.approx(80 + math.log(6), rel=1e-6)


@pytest.mark.parametrize("positives", POSITIVES)
@pytest.mark.parametrize("form", ["out", "supcon-in", "supcon-out"])
def test_the_kernel_by_class_divides_by_one_positive(form: Any, positives: Any) -> None:
    """Of one dimension, as nothing else asks for two."""
    query, key = torch.linspace(-1, 1, 9)[:, None].double(), torch.linspace(0.2, 0.9, 9)[:, None]
    labels = torch.tensor([0, *[1] * 8])
    source = TableRanks(labels, labels, torch.eye(2).long())
    losses, terms = blockwise_loss(
        query,
        key.double(),
        source,
        [0.5],
        (form,),
        positives=positives,
        reduction="none",
        sizes=SMALL,
        may_read=True,
    )
    similarity = (query[0] * key[:, 0].double() / 0.5).tolist()
    against = similarity[1:] if form == "out" else similarity
    less = math.log(sum(math.exp(s) for s in against)) - similarity[0]
    expected = math.log1p(math.exp(less)) if form == "out" else less
    assert terms.active[0, 0]
    assert float(losses[0]) == pytest.approx(expected, rel=1e-12)


# ---- a batch with itself -----------------------------------------------------------------------


def served_in_batch(query: Tensor, key: Tensor, source: PairRanks, **options: Any) -> bool:
    served = []
    original = in_batch.SelfPairs.terms
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(in_batch.SelfPairs, "terms", lambda own: served.append(own) or original(own))
        options = {"temperatures": (0.1, 0.2), "engine": "streamed", "validate": False} | options
        ranked_info_nce(query, key, source, **options)
    return bool(served)


def test_the_in_batch_kernel_serves_a_batch_with_itself() -> None:
    z, source = unit(20, 60, 8), labelled(60)
    valid = torch.ones(60, dtype=torch.bool)
    labels = source.query_labels
    learnable = torch.tensor([0.1, 0.2], requires_grad=True)

    def served(key: Tensor = z, source: PairRanks = source, **options: Any) -> bool:
        return served_in_batch(z, key, source, **options)

    assert served()
    assert served(variant="out")
    assert served(temperatures=(0.0127, 0.2))
    assert not served(temperatures=(0.01, 0.2))
    assert not served(temperatures=learnable)
    assert not served(key=z.clone())
    assert not served(source=TableRanks(labels, labels, source.table, key_valid=valid))
    assert not served(source=TableRanks(labels, labels.roll(1), source.table))
    assert not served(source=DenseRanks(source.tile(ALL, ALL)))
    masks = 2 * 2 * 10 * 10 * 4
    assert served(sizes=replace(SMALL, in_batch_mask_bytes=masks))
    assert not served(sizes=replace(SMALL, in_batch_mask_bytes=masks - 1))
    assert not served(sizes=replace(SMALL, in_batch=61))
    # Of rank 1 a tenth are positives, of rank 2 four tenths.
    few = replace(SMALL, in_batch=60, most_positives=0.2)
    assert served(sizes=few)
    assert not served(sizes=few, variant="out")
    assert served(sizes=replace(few, most_positives=0.5), variant="out")


def test_half_of_the_similarities_are_computed() -> None:
    count, dim, panel = 512, 24, 32
    products = []

    class Noted(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if func is torch.ops.aten.mm.out and args[0].shape[1] == dim:
                products.append(args[0].shape[0] * args[1].shape[1])
            return func(*args, **(kwargs or {}))

    z = unit(21, count, dim).requires_grad_()
    with Noted():
        loss = ranked_info_nce(
            z, z, labelled(count), (0.1, 0.2), engine="streamed", block_size=panel
        )
    assert sum(products) == count * (count + panel) // 2
    with Noted():
        loss.backward()
    assert sum(products) == count * (count + panel)


def test_in_batch_no_tensor_is_larger_than_the_embeddings() -> None:
    z = unit(21, 256, 32).requires_grad_()
    with LargestTensor() as largest:
        ranked_info_nce(
            z, z, labelled(256), (0.1, 0.2), engine="streamed", block_size=64
        ).backward()
    assert largest.size <= z.numel()


def test_related_classes_become_neighbours_whatever_their_numbers() -> None:
    superclass = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2])
    group = torch.tensor([0, 1, 0, 0, 1, 0, 0, 1, 0])
    table = (superclass[:, None] == superclass) * 2 + 3 * (
        (superclass[:, None] != superclass) & (group[:, None] == group)
    )
    table.fill_diagonal_(1)
    order = in_batch._neighbours_together(table, 3)
    assert sorted(order.tolist()) == list(range(9))
    for code in (superclass, group):
        _, runs = torch.unique_consecutive(code[order], return_counts=True)
        assert len(runs) == len(code.unique())
    # Of rank 1, a class may be related to others than itself: 0 to 2, and 1 to 3.
    table = torch.full((4, 4), 2)
    table[[0, 2], [2, 0]] = table[[1, 3], [3, 1]] = 1
    table.fill_diagonal_(1)
    assert in_batch._neighbours_together(table, 2).tolist() == [0, 2, 1, 3]


def test_samples_are_sorted_by_class_and_keep_their_order_within_one() -> None:
    labels = torch.arange(200) % 2
    source = TableRanks(labels, labels, torch.eye(2, dtype=torch.int8))
    order = in_batch.SelfPairs(inputs_of(unit(22, 200, 3), source)).order.tolist()
    assert order == [*range(0, 200, 2), *range(1, 200, 2)]


def test_tiles_of_one_rank_are_found_and_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = torch.arange(9).repeat(10)
    table = torch.zeros(9, 9, dtype=torch.int8)
    table[torch.arange(9)[:, None] % 3 == torch.arange(9) % 3] = 2
    table.fill_diagonal_(1)
    source = TableRanks(labels, labels, table, ignore_self=True)
    z = unit(22, 90, 8, dtype=torch.float64)
    inputs = inputs_of(z, source, sizes=replace(SMALL, block=15))
    # 30 samples a superclass: panels of 15 never hold two of them.
    others = {(n, m) for m in range(6) for n in range(m) if n // 2 != m // 2}
    assert in_batch.SelfPairs(inputs).uniform == others
    found = []
    for uniform in (True, False):
        if not uniform:
            monkeypatch.setattr(in_batch.SelfPairs, "_uniform_tiles", lambda *unused: set())
        x = z.clone().requires_grad_()
        loss = ranked_info_nce(x, x, source, (0.1, 0.2), engine="streamed", block_size=15)
        found.append((loss.detach(), torch.autograd.grad(loss, x)[0]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("related", "order"),
    [
        # Class 2 has a rank 2 in the panel before its own, which has none there.
        ([(2, 1), (3, 0), (2, 3)], [0, 3, 1, 2]),
        # Class 0 has one in the panel behind its own.
        ([(0, 2)], [0, 1, 2, 3]),
    ],
)
def test_a_tile_of_one_rank_in_one_direction_only_is_not_of_one_rank(
    related: list[tuple[int, int]], order: list[int]
) -> None:
    table = torch.eye(4, dtype=torch.int8)
    for pair in related:
        table[pair] = 2
    assert in_batch._neighbours_together(table, 2).tolist() == order
    labels = torch.arange(4).repeat_interleave(8)
    source = TableRanks(labels, labels, table, ignore_self=True)
    z = unit(24, 32, 4, dtype=torch.float64)
    found = []
    for engine in ("dense", "streamed"):
        x = z.clone().requires_grad_()
        loss = ranked_info_nce(x, x, source, (0.1, 0.2), engine=engine, block_size=16)
        found.append((loss.detach(), torch.autograd.grad(loss, x)[0]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-12)


def test_a_batch_of_one_huge_and_many_small_classes() -> None:
    labels = torch.cat([torch.zeros(200, dtype=torch.int64), torch.arange(1, 50).repeat(2)])
    table = torch.zeros(50, 50, dtype=torch.int8).fill_diagonal_(1)
    table[0, 1:] = 2  # not symmetric: the huge class is similar to all, but not they to it
    source = TableRanks(labels, labels, table, ignore_self=True)
    z = unit(23, len(labels), 8, dtype=torch.float64)
    for variant in VARIANTS:
        found = []
        for engine in ("dense", "streamed"):
            x = z.clone().requires_grad_()
            loss = ranked_info_nce(x, x, source, (0.1, 0.2), variant=variant, engine=engine)
            found.append((loss.detach(), torch.autograd.grad(loss, x)[0]))
        torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-12)


def test_positives_are_visited_once_in_pieces_that_fill_the_limit() -> None:
    """Classes with 4, 1 and 6 positives, in turn; class 1 has class 3's, and is nobody's."""
    labels = torch.arange(7).repeat_interleave(torch.tensor([4, 1, 4, 1, 4, 1, 6]))
    positive = torch.eye(7, dtype=torch.bool)
    positive[1, 1], positive[1, 3] = False, True
    z = unit(25, len(labels), 3)
    pieces = list(positive_pairs(z, labels, positive, Sizes(positive_pairs=16, queries_per_run=2)))
    assert [tuple(p.real.shape) for p in pieces] == [(3, 1, 1), *[(2, 2, 4)] * 3, *[(1, 2, 6)] * 3]
    times, similarity = torch.zeros(2, len(z), len(z))
    for p in pieces:
        places = (
            p.queries[:, :, None].expand_as(p.real)[p.real],
            p.keys[:, None, :].expand_as(p.real)[p.real],
        )
        times.index_put_(places, torch.ones(()), accumulate=True)
        similarity[places] = p.similarity[p.real]
    assert torch.equal(times, positive[labels][:, labels].float())
    torch.testing.assert_close(similarity, (z @ z.T) * times)


# ---- graph -------------------------------------------------------------------------------------


def test_gradients_to_queries_alone_and_to_keys_alone() -> None:
    query, key = unit(5, 30, 8), unit(6, 50, 8)
    source = labelled(30, 50)
    for wanted in ((True, False), (False, True)):
        grads = []
        for engine in ("dense", "streamed"):
            q, k = (x.clone().requires_grad_(w) for x, w in zip((query, key), wanted, strict=True))
            ranked_info_nce(q, k, source, (0.1, 0.2), engine=engine).backward()
            grads.append((q.grad, k.grad))
        for dense, other, want in zip(*grads, wanted, strict=True):
            assert (other is not None) == want
            if want:
                torch.testing.assert_close(other, dense, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        assert not ranked_info_nce(query, key, source, (0.1, 0.2), engine="streamed").requires_grad


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_second_backward_pass_through_the_same_graph_adds_the_same(reduction: str) -> None:
    z = unit(7, 60, 8).double().requires_grad_()  # in float32 3 x is rounded otherwise
    loss = ranked_info_nce(
        z, z, labelled(60), (0.1, 0.2), engine="streamed", reduction=reduction
    ).sum()
    loss.backward(retain_graph=True)
    once = z.grad.clone()
    (3 * loss).backward()
    torch.testing.assert_close(z.grad, 4 * once)


def test_input_changed_before_a_recomputing_backward_pass_is_an_error() -> None:
    z, key = unit(7, 60, 8).requires_grad_(), unit(8, 60, 8)
    loss = ranked_info_nce(
        z, key, labelled(60, 60), (0.1, 0.2), engine="streamed", reduction="none"
    ).sum()
    key.zero_()
    with pytest.raises(RuntimeError, match="inplace operation"):
        loss.backward()


def test_second_derivatives_are_refused() -> None:
    z = unit(8, 60, 8).requires_grad_()
    loss = ranked_info_nce(z, z, labelled(60), (0.1, 0.2), engine="streamed")
    with pytest.raises(RuntimeError, match='second derivatives .* engine="dense"'):
        torch.autograd.grad(loss, z, create_graph=True)


def test_numbers_are_read_without_a_graph() -> None:
    """Torch warns of any other, once a process unless it is told to warn always."""
    z = (2 * unit(9, 60, 8)).requires_grad_()
    torch.set_warn_always(True)
    try:
        for sizes in (SMALL, Sizes()):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                ranked_info_nce(z, z, labelled(60), (0.1, 0.2), engine="streamed", sizes=sizes)
            assert [w.category for w in caught] == [RinceWarning]  # of their length
    finally:
        torch.set_warn_always(False)


def test_torch_func_gets_a_clear_refusal() -> None:
    z, source = unit(9, 60, 8), labelled(60)
    with pytest.raises(ValueError, match='engine="dense"'):
        torch.func.grad(
            lambda x: ranked_info_nce(x, x, source, (0.1, 0.2), engine="streamed", validate=False)
        )(z)


def test_torch_compile_breaks_the_callers_graph_once() -> None:
    source = labelled(60)

    def step(x: Tensor) -> Tensor:
        z = functional.normalize(x * 2, dim=1)
        return ranked_info_nce(z, z, source, (0.1, 0.2), engine="streamed", validate=False) * 2

    x = unit(10, 60, 8)
    explained = torch._dynamo.explain(step)(x)
    assert explained.graph_break_count <= 1
    assert torch.compile(step, backend="eager")(x).item() == pytest.approx(step(x).item())


def test_the_compiler_is_not_imported_for_those_who_do_not_compile() -> None:
    """It takes seconds."""
    code = (
        "import sys, torch, rince, rince.core.pair_ranks\n"
        "z = torch.eye(9).requires_grad_()\n"
        "labels = torch.arange(9) % 3\n"
        "ranks = rince.core.pair_ranks.TableRanks(labels, labels, torch.eye(3).to(int))\n"
        "rince.ranked_info_nce(z, z, ranks, (0.1,), engine='streamed').backward()\n"
        "print('torch._dynamo' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "False\n", result.stderr


# ---- memory ------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("dense_source", [False, True])
def test_no_queries_by_keys_matrix_is_ever_alive(reduction: str, dense_source: bool) -> None:
    count, block = 600, 16
    z = unit(11, count, 8).requires_grad_()
    source: PairRanks = labelled(count)
    if dense_source:  # a source that is no table
        source = IdentityRanks(torch.arange(count) // 3, torch.arange(count) // 3, ignore_self=True)
    taus = (0.1,) if dense_source else (0.1, 0.2)
    sizes = {}
    for engine in ("dense", "streamed"):
        with LargestTensor() as largest:
            ranked_info_nce(
                z, z, source, taus, reduction=reduction, engine=engine, block_size=block
            ).sum().backward()
        sizes[engine] = largest.size
    assert sizes["dense"] >= count * count
    assert sizes["streamed"] <= 4 * block * count


def test_blocks_shrink_as_keys_grow() -> None:
    z = unit(24, 8, 4)
    for keys in (100, 2048, 8192, 32768, 262144):
        inputs = inputs_of(z.expand(1, -1, -1)[0], labelled(8)).on(z, z[:1].expand(keys, 4))
        for kernel in (ByClass, ByPair):
            need = kernel.bytes_per_query(inputs)
            assert need >= keys * 3 * 4
            block = Sizes().queries_per_block(need)
            assert 16 <= block <= 512
            assert block == 16 or block * need <= Sizes().scratch_bytes
            assert block == 512 or (block + 16) * need > Sizes().scratch_bytes
    assert Sizes().queries_per_block(800) == 512
    assert Sizes(block=7).queries_per_block(800) == 7


def test_panels_are_an_eighth_of_the_batch_within_limits() -> None:
    counts = (100, 2048, 3200, 4096, 10000)
    assert [Sizes().samples_per_panel(n) for n in counts] == [256, 256, 400, 512, 512]
    assert Sizes(block=7).samples_per_panel(3200) == 7


# ---- what users see --------------------------------------------------------------------------


def test_auto_streams_large_batches_and_names_choose() -> None:
    seen = []
    original = ranked_info_nce_module.blockwise_loss

    def noted(*args: Any, **options: Any) -> Any:
        seen.append(True)
        return original(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranked_info_nce_module, "blockwise_loss", noted)
        for count, engine, streams in (
            (127, "auto", False),
            (128, "auto", True),
            (20, "streamed", True),
            (512, "dense", False),
        ):
            z = unit(12, count, 8)
            rince.RankedInfoNCE((0.1, 0.2), engine=engine)(z, z, labelled(count))
            assert bool(seen) == streams, (count, engine)
            seen.clear()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"engine": "fast"}, "engine.*'fast'"),
        ({"block_size": 0}, r"block_size.*\b1\b.* 0\b"),
    ],
)
def test_bad_options(option: dict[str, Any], message: str) -> None:
    z = unit(13, 4, 2)
    with pytest.raises(ValueError, match=message):
        ranked_info_nce(z, z, labelled(4), (0.1, 0.2), **option)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("code", [-1, 0, 1])
def test_a_batch_with_nothing_to_learn(variant: str, code: int) -> None:
    z = unit(14, 8, 3).requires_grad_()
    source = TableRanks(
        torch.zeros(8, dtype=torch.int64),
        torch.zeros(8, dtype=torch.int64),
        torch.tensor([[code]]),
        num_ranks=1,
    )
    with pytest.warns(RinceWarning, match="its gradient"):
        loss = ranked_info_nce(z, z, source, 0.1, variant=variant, engine="streamed")
    assert loss.item() == 0
    loss.backward()
    assert torch.equal(z.grad, torch.zeros_like(z))


def test_an_example_by_hand() -> None:
    """Eight keys of two classes: cosine 0.6 within, 0 across."""
    query = torch.tensor([[1.0, 0.0]])
    key = torch.tensor([[0.6, 0.8]] * 4 + [[0.0, 1.0]] * 4)
    source = TableRanks(
        torch.tensor([0]), torch.tensor([0] * 4 + [1] * 4), torch.eye(2, dtype=torch.int8)
    )
    less = 4 * math.exp(0)
    for variant, expected in (
        ("in", -math.log(4 * math.exp(6) / (4 * math.exp(6) + less))),
        ("out", -math.log(math.exp(6) / (math.exp(6) + less))),
    ):
        loss = ranked_info_nce(query, key, source, 0.1, variant=variant, engine="streamed")
        assert loss.item() == pytest.approx(expected, rel=1e-5)


@given(st.integers(1, 10_000), st.integers(1, 600))
def test_blocks_are_about_equal_and_no_more_than_have_to_be(count: int, most: int) -> None:
    size = _even(count, most)
    assert size <= most
    assert math.ceil(count / size) == math.ceil(count / most)
    # None smaller would do: a bit less, and there is a block more.
    assert size == 1 or math.ceil(count / (size - 1)) > math.ceil(count / most)
