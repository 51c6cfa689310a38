"""The Triton engine: values and gradients in the interpreter, registers and memory by ptxas."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from losses.fused_cases import CASES, Case
from losses.fused_compiler import LIMIT, compile_kernel, ptxas
from losses.losses_helpers import unit
from rince.core.checks import RinceWarning
from rince.core.pair_ranks import DenseRanks, IdentityRanks, TableRanks
from rince.losses.blockwise import fused
from rince.losses.blockwise.fused import Tiles, default_tiles, fused_loss, reason_against
from rince.losses.blockwise.sizes import Sizes
from rince.losses.ranked_info_nce import ranked_info_nce_with_terms
from rince.ranks.level_ranks import LevelRanks

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)


@pytest.fixture(scope="module")
def errors() -> Iterator[Iterator[dict[str, Any]]]:
    """Of each case, as it comes; all in one process, as triton asks for its mode on import."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    script = Path(__file__).with_name("fused_cases.py")
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield map(json.loads, process.stdout)
        process.kill()


@needs_triton
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_values_and_gradients_are_those_of_the_oracle(
    case: Case, errors: Iterator[dict[str, Any]]
) -> None:
    found = next((line for line in errors if line["case"] == case.name), {"active": "it crashed"})
    assert found["active"] is True
    assert found["some"] > 0 or case.keys == 1
    # At tau = 0.01 an exponent of 100 has an error of 100 units in the last place.
    widen = 1000 if case.precision == "tf32" else 20 if case.tau < 0.05 else 1
    assert found["loss"] < 2e-6 * widen
    assert found["terms"] < 2e-6 * widen
    for side in ("query", "key", "taus"):
        assert found.get(side, 0) < 1e-5 * widen, side


# Bytes in local memory, of kernels of R = 3 at the sizes that are shipped.
CEILING = 1280
SHIPPED = [(p, d) for p in ("fp32", "tf32", "bf16") for d in (64, 128, 256, 1024)]


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize("capability", sorted(LIMIT))
@pytest.mark.parametrize(("precision", "dimension"), SHIPPED)
def test_the_compiler_fits_the_kernels_into_the_card(
    precision: Any, dimension: int, capability: int
) -> None:
    if ptxas(capability) is None:
        pytest.skip("this triton comes without ptxas")
    forward, backward = default_tiles(dimension, precision, (capability // 10, capability % 10))
    for name, tiles, options in (
        ("pass_1_sums", forward, {}),
        ("pass_2_each_positive", forward, {}),
        ("gradient", backward, {"AS_QUERY": True}),
        ("gradient", backward, {"AS_QUERY": True, "TAUS": True}),
        ("gradient", backward, {"AS_QUERY": False, "AS_KEY": True}),
        ("gradient", backward, {"AS_KEY": True, "OWN": True}),
    ):
        report = compile_kernel(name, capability, tiles, dimension, precision, **options)
        assert report.shared <= LIMIT[capability], (name, options)
        assert report.spilled <= CEILING, (name, options, report.registers)
        assert ("wgmma" if capability == 90 else "mma.sync") in report.ptx, (name, options)


def _case(
    dimension: int = 8, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, TableRanks]:
    labels = torch.arange(6) % 3
    z = unit(0, 6, dimension).to(dtype)
    return z, TableRanks(labels, labels, torch.eye(3, dtype=torch.int8), ignore_self=True)


def test_without_a_card_it_says_so() -> None:
    z, ranks = _case()
    reason = reason_against(z, z, ranks, 1)
    assert reason is not None
    assert "cpu" in reason
    with pytest.raises(ValueError, match="cpu"):
        fused_loss(z, z, ranks, [0.1], "in", "exclusive", reduction="mean")


@needs_triton
def test_it_says_what_it_cannot_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    z, ranks = _case()
    assert reason_against(z, z, ranks, 1) is None
    assert reason_against(z, z, IdentityRanks(ranks.query_labels, ranks.key_labels), 1) is None
    nine = torch.zeros(6, 9, dtype=torch.long)
    wide, _ = _case(dimension=1025)
    for case, fact in (
        ((z, z, DenseRanks(torch.eye(6, dtype=torch.int8)), 1), "DenseRanks"),
        ((z, z, ranks, 9), "9"),
        ((z, z, LevelRanks(nine, nine, finest_first=True), 8), "9"),
        ((wide, wide, ranks, 1), "1025"),
        ((z.double(), z.double(), ranks, 1), "float64"),
    ):
        reason = reason_against(*case)
        assert reason is not None
        assert fact in reason


def test_it_names_a_triton_that_is_missing_or_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    z, ranks = _case()
    monkeypatch.setitem(sys.modules, "triton", None)
    reason = reason_against(z, z, ranks, 1)
    assert reason is not None
    assert "pip install" in reason
    monkeypatch.setitem(sys.modules, "triton", SimpleNamespace(__version__="2.1.0"))
    reason = reason_against(z, z, ranks, 1)
    assert reason is not None
    assert "2.1.0" in reason


@pytest.mark.parametrize(
    ("version", "serves"),
    [("3.6.0", True), ("3.7.1", True), ("4.0", True), ("3.6.0+git1a2b", True), ("3.5.9", False)],
)
def test_which_triton_serves(version: str, serves: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", SimpleNamespace(__version__=version))
    reason = fused.why_no_triton()
    assert (reason is None) == serves
    assert reason is None or (">= 3.6" in reason and version in reason)


@pytest.mark.parametrize(
    ("capability", "serves"), [((7, 5), False), ((8, 0), True), ((8, 6), True), ((9, 0), True)]
)
def test_which_cards_serve(
    capability: tuple[int, int], serves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setitem(sys.modules, "triton", SimpleNamespace(__version__="3.6.0"))
    z, ranks = _case()
    card = SimpleNamespace(shape=z.shape, dtype=z.dtype, device=SimpleNamespace(type="cuda"))
    reason = reason_against(card, card, ranks, 1)  # type: ignore[arg-type]
    assert (reason is None) == serves
    assert reason is None or "capability 8.0" in reason
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    reason = reason_against(card, card, ranks, 1)  # type: ignore[arg-type]
    assert reason is not None
    assert "finds none" in reason


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize(("rows", "serves"), [(2**21, False), (2**21 - 1, True)])
def test_how_many_numbers_it_can_count(
    rows: int, serves: bool, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setitem(sys.modules, "triton", SimpleNamespace(__version__="3.6.0"))
    _, ranks = _case()
    given = [torch.zeros(1, 1).expand(4, 1024), torch.zeros(1, 1).expand(rows, 1024)]
    reason = reason_against(given[side], given[1 - side], ranks, 1)
    assert (reason is None) == serves
    assert reason is None or "2^31" in reason


def test_it_cannot_be_transformed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "reason_against", lambda *given: None)
    z, ranks = _case()

    def loss(query: torch.Tensor) -> torch.Tensor:
        return fused_loss(query, z, ranks, [0.1], "in", "exclusive", reduction="mean")[0]

    with pytest.raises(ValueError, match="torch.func"):
        torch.func.grad(loss)(z)


@pytest.mark.parametrize("given", [None, (Tiles(16, 16, 128, 4, 1), Tiles(32, 16, 128, 4, 1))])
def test_tiles_are_those_given_or_those_of_the_card(
    given: tuple[Tiles, Tiles] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = []

    def applied(query: torch.Tensor, *others: Any) -> tuple[torch.Tensor, ...]:
        plans.append(others[-1])
        return query.sum(dim=1), query.T, query.T > 0

    monkeypatch.setattr(fused, "reason_against", lambda *given: None)
    monkeypatch.setattr(fused._Fused, "apply", applied)
    z, ranks = _case(dimension=200)
    options = {"reduction": "none", "precision": "tf32", "tiles": given}
    fused_loss(z, z, ranks, [0.1], "in", "exclusive", **options)  # type: ignore[arg-type]
    assert plans[0].tiles == (given or default_tiles(200, "tf32", fused.OLDEST_CARD))


def _plan(*products: str, dtype: torch.dtype = torch.float32) -> Any:
    return SimpleNamespace(dtype=dtype, tiles=[SimpleNamespace(products=x) for x in products])


def test_tf32_is_rounded_to_the_nearest() -> None:
    """Eleven binary digits, the first of which is not stored."""
    x = torch.cat([unit(0, 200, 5).flatten(), torch.tensor([0.0, 1 + 2**-11, -1 - 2**-11])])
    digits, exponents = (part.double() for part in torch.frexp(x))
    away_from_zero = torch.where(digits < 0, -1, 1) * (digits.abs() * 2**11 + 0.5).floor()
    expected = (away_from_zero * 2.0 ** (exponents - 11)).float()
    assert torch.equal(fused._rounded(x, _plan("tf32", "tf32x3")), expected)
    assert torch.equal(fused._rounded(x, _plan("tf32x3", "tf32")), x)
    assert torch.equal(fused._rounded(x, _plan("tf32", "tf32", dtype=torch.bfloat16)), x.bfloat16())


def test_there_is_no_second_derivative() -> None:
    with torch.enable_grad(), pytest.raises(RuntimeError, match="second.*dense"):
        fused._Fused.backward(None, torch.ones(2))


@pytest.mark.parametrize("compiling", [False, True])
def test_a_compiler_leaves_it_alone(compiling: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []

    def applied(query: torch.Tensor, *given: object) -> tuple[torch.Tensor, ...]:
        return query.sum(dim=1), query.T, query.T > 0

    def disable(function: Any) -> Any:
        kept.append(function)
        return function

    monkeypatch.setattr(fused, "reason_against", lambda *given: None)
    monkeypatch.setattr(fused._Fused, "apply", applied)
    monkeypatch.setattr(torch.compiler, "disable", disable)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    z, ranks = _case()
    loss, _ = fused_loss(z, z, ranks, [0.1], "in", "exclusive", reduction="none")
    assert torch.equal(loss, z.sum(dim=1))
    assert kept == [applied] * compiling


def test_auto_says_once_why_a_card_goes_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a card whose Triton is too old: blocks serve, one warning names what to do."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "triton", SimpleNamespace(__version__="2.0.9"))
    z, ranks = _case()
    given = {"sizes": Sizes(fused_pairs=0), "validate": False}
    with pytest.warns(RinceWarning, match="2.0.9") as seen:
        found = [ranked_info_nce_with_terms(z, z, ranks, 0.1, **given)[0] for _ in range(3)]
    assert len(seen) == 1
    assert torch.equal(found[0], found[2])
