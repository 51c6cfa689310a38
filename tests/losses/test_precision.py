"""matmul_precision: what is rounded is what was asked for, whatever a global switch says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from fake_card import fake_card, gradients
from losses_helpers import unit
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rince.core.pair_ranks import ALL, DenseRanks, PairRanks, TableRanks
from rince.losses import (
    RankedInfoNCE,
    info_nce,
    products,
    ranked_info_nce,
    ranked_info_nce_with_terms,
    supcon_in,
    supcon_out,
)
from rince.losses.blockwise.sizes import Sizes
from rince.losses.contrastive import one_rank_loss
from rince.losses.products import _switch, add_mm, mm, product, products_in

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
TABLE = torch.tensor([[1, 2, 0], [2, 1, 0], [0, 0, 1]])


@pytest.fixture(autouse=True)
def switches() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


def rounded(x: Tensor) -> Tensor:
    return x.bfloat16().to(x.dtype)


def test_bf16_rounds_the_factors_and_not_the_sum() -> None:
    a, b = unit(0, 5, 64), unit(1, 64, 7)
    exact = rounded(a).double() @ rounded(b).double()
    out, total = torch.empty(5, 7), torch.ones(5, 7)
    add_mm(total, a, b, "bf16")
    for result in (product(a, b, "bf16"), mm(a, b, "bf16"), mm(a, b, "bf16", out=out), total - 1):
        assert result.dtype == torch.float32
        torch.testing.assert_close(result.double(), exact, rtol=0, atol=1e-6)
    assert torch.equal(out, mm(a, b, "bf16"))


def test_a_product_can_be_differentiated_twice() -> None:
    a, b = unit(2, 3, 4).requires_grad_(), unit(3, 4, 2).requires_grad_()
    grads = torch.autograd.grad(product(a, b, "bf16").square().sum(), (a, b), create_graph=True)
    upstream = 2 * (rounded(a) @ rounded(b))
    torch.testing.assert_close(grads[0], rounded(upstream) @ rounded(b).T)
    torch.testing.assert_close(grads[1], rounded(a).T @ rounded(upstream))
    second = torch.autograd.grad(grads[0].sum(), (a, b))
    assert all(torch.isfinite(x).all() for x in second)


@pytest.mark.parametrize("device", [CPU, CUDA])
@pytest.mark.parametrize("switch", ["highest", "high", "medium"])
@pytest.mark.parametrize("per_device", [True, False])
def test_the_switch_is_set_for_the_products_and_put_back(
    device: Any, switch: str, per_device: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by the one switch that torch had before 2.9."""
    if not per_device:
        monkeypatch.setattr(products, "_has_switch_per_device", lambda: False)
    torch.set_float32_matmul_precision(switch)
    before = _switch(device)
    for precision in ("fp32", "tf32", "bf16"):
        with products_in(precision, device):
            exact = precision == "fp32" or device.type == "cpu"
            assert _switch(device) in (("ieee", "none") if exact else ("tf32",))
            if not per_device:
                assert (torch.get_float32_matmul_precision() == "highest") == exact
        assert _switch(device) == before
    assert torch.get_float32_matmul_precision() == switch
    with pytest.raises(KeyError), products_in("fp32", device):
        raise KeyError
    assert _switch(device) == before
    assert torch.get_float32_matmul_precision() == switch


class Products(TorchDispatchMode):
    """Notes what the switch says at each matrix product: (operation, columns of the first)."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.seen: dict[tuple[str, int], set[str]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__.strip("_")
        factors = {"mm": 0, "mv": 0, "bmm": 0, "addmm": 1, "baddbmm": 1, "addmv": 1}
        if name in factors:
            place = name, args[factors[name]].shape[-1]
            self.seen.setdefault(place, set()).add(_switch(self.device))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("source", ["by class", "by pair", "in-batch", "supcon"])
def test_no_product_of_a_loss_follows_the_global_switch(source: str) -> None:
    """In the forward and in the backward pass."""
    torch.set_float32_matmul_precision("medium")
    labels, own = torch.arange(60) % 3, source in ("in-batch", "supcon")
    query = unit(4, 60, 8).requires_grad_()
    key = query if own else unit(5, 60, 8).requires_grad_()
    ranks: PairRanks = TableRanks(labels, labels, TABLE, ignore_self=own)
    if source == "by pair":
        ranks = DenseRanks(ranks.tile(ALL, ALL), 2)
    sizes = Sizes(by_class_pairs=0, in_batch=0, most_positives=1.0, dense_pairs_of_one_rank=0)
    with Products(CPU) as noted_products:
        if source == "supcon":
            flat = TableRanks(labels, labels, (TABLE == 1).long(), ignore_self=True)
            loss = one_rank_loss(
                query, key, flat, 0.1, "supcon-out", reduction="mean", validate=True, sizes=sizes
            )
        else:
            loss, _ = ranked_info_nce_with_terms(
                query,
                key,
                ranks,
                (0.1, 0.2),
                engine="streamed",
                sizes=sizes,
            )
        loss.backward()
    assert len(noted_products.seen) >= 2
    assert {x for seen in noted_products.seen.values() for x in seen} == {"ieee"}
    assert _switch(CPU) != "ieee"


def test_no_product_of_the_dense_engine_follows_the_global_switch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An operation of its own hides them from the mode above."""
    torch.set_float32_matmul_precision("medium")
    seen, original = [], torch.mm

    def noted(*given: Any, **options: Any) -> Tensor:
        seen.append(_switch(CPU))
        return original(*given, **options)

    monkeypatch.setattr(torch, "mm", noted)
    z = unit(4, 6, 8).requires_grad_()
    with Products(CPU) as others:
        ranked_info_nce(z, z, torch.eye(6).long(), 0.1, engine="dense").backward()
    assert seen == ["ieee"] * 3
    assert not others.seen
    assert _switch(CPU) != "ieee"


@pytest.mark.parametrize("loss", [ranked_info_nce, supcon_out])
def test_tensor_cores_take_products_of_embeddings_and_no_sums(loss: Any) -> None:
    table = torch.ones(20, 20, dtype=torch.int8)
    with fake_card(), Products(CUDA) as noted_products:
        labels = torch.zeros(96, dtype=torch.int64, device="cuda")
        z = torch.randn(96, 8, device="cuda").requires_grad_()
        ranks = TableRanks(labels, labels, table.cuda(), num_ranks=1, validate=False)
        options = {"engine": "streamed", "matmul_precision": "tf32", "validate": False}
        gradients(loss(z, z, ranks, 0.1, **options))
    embeddings = {place for place in noted_products.seen if place[1] in (8, 96)}
    assert {x for place in embeddings for x in noted_products.seen[place]} == {"tf32"}
    sums = noted_products.seen.keys() - embeddings  # of keys per class: 21 columns
    assert {x for place in sums for x in noted_products.seen[place]} <= {"ieee", "none"}
    assert sums


@pytest.mark.parametrize("engine", ["dense", "streamed"])
@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_the_error_is_that_of_the_rounding(engine: str, precision: Any) -> None:
    labels = torch.arange(200) % 3
    source = TableRanks(labels, labels, TABLE, ignore_self=True)
    z = unit(5, 200, 32)
    exact = z.double().requires_grad_()
    expected = ranked_info_nce(exact, exact, source, (0.1, 0.2), engine="dense")
    expected.backward()
    x = z.clone().requires_grad_()
    module = RankedInfoNCE((0.1, 0.2), engine=engine, matmul_precision=precision)
    loss = module(x, x, source)
    loss.backward()
    error = float((x.grad - exact.grad).abs().max() / exact.grad.abs().max())
    if precision == "bf16":
        assert 1e-5 < error < 1e-2
        assert abs(loss.item() / expected.item() - 1) < 1e-3
    else:  # which a CPU does not have
        assert error < 1e-5


@pytest.mark.parametrize("loss", [supcon_in, supcon_out, info_nce])
@pytest.mark.parametrize("engine", ["dense", "streamed"])
def test_losses_with_one_rank_take_it_too(loss: Any, engine: str) -> None:
    query, key = unit(6, 20, 16), unit(7, 20, 16)
    ranks = torch.eye(20, dtype=torch.int8)
    exact = loss(query, key, ranks, engine=engine)
    other = loss(query, key, ranks, engine=engine, matmul_precision="bf16")
    assert 0 < abs(float(exact) - float(other)) < 0.02


@pytest.mark.parametrize(
    ("dtype", "precision", "facts"),
    [
        (torch.float32, "fp16", "matmul_precision .* 'fp16'"),
        (torch.float64, "bf16", "float64"),
        (torch.float64, "tf32", "float64"),
    ],
)
def test_what_cannot_be_is_refused(dtype: torch.dtype, precision: Any, facts: str) -> None:
    z = unit(8, 4, 3, dtype=dtype)
    for loss in (ranked_info_nce, supcon_out):
        with pytest.raises(ValueError, match=facts):
            loss(z, z, torch.eye(4, dtype=torch.int8), 0.1, matmul_precision=precision)


@pytest.mark.skipif(not products._has_switch_per_device(), reason="torch before 2.9 has one")
def test_each_device_has_its_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert products._backend(CUDA) is torch.backends.cuda.matmul
    assert products._backend(CPU) is torch.backends.mkldnn.matmul
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert products._needs_switch(CUDA)
    assert not products._needs_switch(CPU)


def test_a_switch_that_was_never_set_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(products, "_switch", lambda device: "none")
    monkeypatch.setattr(products, "_set_switch", lambda device, value: said.append(value))
    with products_in("fp32", CUDA):
        assert said == []
    with products_in("tf32", CUDA):
        assert said == ["tf32"]
    assert said == ["tf32", "none"]
