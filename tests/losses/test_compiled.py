"""torch.compile of the module with fullgraph=True: dense engine, ranks built outside."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from losses_helpers import unit
from torch import Tensor
from torch.nn import functional

from rince import RankedInfoNCE
from rince.ranks import DenseRanks, IdentityRanks, PairRanks, TableRanks

LABELS = torch.arange(12) % 3
TABLE = torch.tensor([[1, 2, 0], [2, 1, 0], [0, 0, 1]])
BACKENDS = ("eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow))


def sources() -> list[tuple[PairRanks, tuple[float, ...]]]:
    return [
        (TableRanks(LABELS, LABELS, TABLE, ignore_self=True), (0.1, 0.2)),
        (DenseRanks(TABLE[LABELS][:, LABELS]), (0.1, 0.2)),
        (IdentityRanks(LABELS, LABELS, ignore_self=True), (0.1,)),
    ]


def value_and_gradient(criterion: Any, x: Tensor, *given: Any) -> tuple[Tensor, ...]:
    x = x.clone().requires_grad_()
    z = functional.normalize(x, dim=1)
    loss = criterion(z, z, *given)
    return loss.detach(), *torch.autograd.grad(loss, x)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("place", "options"),
    [
        (0, {"variant": "in", "engine": "auto"}),
        (0, {"variant": "out", "positives": "cumulative"}),
        (0, {"variant": "out-in", "matmul_precision": "bf16"}),
        (1, {"variant": "out-in", "reduction": "sum"}),
        (2, {"variant": "out-in"}),
    ],
)
def test_the_dense_engine_compiles_whole(backend: str, place: int, options: dict[str, Any]) -> None:
    torch.compiler.reset()
    x = unit(0, 12, 8)
    source, taus = sources()[place]
    criterion = RankedInfoNCE(taus, validate=False, **{"engine": "dense", **options})
    compiled = torch.compile(criterion, fullgraph=True, backend=backend)
    torch.testing.assert_close(
        value_and_gradient(compiled, x, source), value_and_gradient(criterion, x, source)
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_learned_temperatures_compile_too(backend: str) -> None:
    torch.compiler.reset()
    source, taus = sources()[0]
    criterion = RankedInfoNCE(taus, learn_temperatures=True, engine="dense", validate=False)
    criterion.temperatures.data[0] = -1.0
    z = unit(1, 12, 8)
    compiled = torch.compile(criterion, fullgraph=True, backend=backend)
    compiled(z, z, source).backward()
    found = criterion.temperatures.grad.clone()
    assert float(criterion.temperatures[0].detach()) == pytest.approx(0.01)
    criterion.temperatures.grad = None
    criterion(z, z, source).backward()
    torch.testing.assert_close(found, criterion.temperatures.grad)
