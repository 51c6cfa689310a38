"""Values and gradients of every engine on a card against float64 on the CPU."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch

from card_problems import Outcome, Problem, by_name, error, outcome

pytestmark = pytest.mark.gpu

# Of the loss, of gradients: norm of the error over the norm.
EXACT = (1e-5, 2e-5)
BOUNDS = {"fused-tf32": (3e-4, 3e-3), "fused-bf16": (1e-3, 3e-2)}
ENGINES = (
    "dense", "streamed", "streamed-pairs", "fused-fp32", "fused-levels", "fused-tf32", "fused-bf16",
)  # fmt: skip
SORTED = ("fused-fp32-sorted", "fused-bf16-sorted")
FUSED = tuple(e for e in ENGINES if e.startswith("fused"))


@cache
def expected(problem: Problem) -> Outcome:
    return problem.expected()


def check(found: Outcome, problem: Problem, bounds: tuple[float, float] = EXACT) -> None:
    wanted = expected(problem)
    assert error(found.loss, wanted.loss) < bounds[0]
    for got, right in zip(found.gradients, wanted.gradients, strict=False):
        assert error(got, right) < bounds[1]


@pytest.mark.parametrize("keys", [1000, None], ids=["queue", "in-batch"])
@pytest.mark.parametrize("positives", ["exclusive", "cumulative"])
@pytest.mark.parametrize("variant", ["in", "out", "out-in"])
@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_variant_and_positives(
    engine: str, variant: str, positives: str, keys: int | None, card: torch.device
) -> None:
    if engine in ("fused-tf32", "fused-bf16", "fused-levels") and (
        positives == "cumulative" or variant != "out-in"
    ):
        pytest.skip("would compile for minutes what fp32 covers")
    problem = Problem(variant=variant, positives=positives, keys=keys)
    check(outcome(problem, engine, card), problem, BOUNDS.get(engine, EXACT))


@pytest.mark.parametrize("engine", ["dense", "streamed", "streamed-pairs", "fused-fp32"])
def test_a_global_tf32_switch_does_not_change_the_loss(engine: str, card: torch.device) -> None:
    torch.backends.cuda.matmul.allow_tf32 = True
    problem = Problem(dimension=128)
    check(outcome(problem, engine, card), problem)


@pytest.mark.parametrize("engine", ["dense", "streamed", "fused-fp32"])
def test_a_large_batch_against_itself(engine: str, card: torch.device) -> None:
    problem = Problem(queries=2500, keys=None, dimension=128)
    check(outcome(problem, engine, card), problem)


@pytest.mark.parametrize("engine", ["dense", "streamed", "fused-fp32"])
def test_sharp_temperatures(engine: str, card: torch.device) -> None:
    problem = Problem(taus=(0.01, 0.02, 0.05))
    check(outcome(problem, engine, card), problem, (1e-4, 2e-4))


@pytest.mark.parametrize("engine", ["dense", "streamed", "fused-fp32"])
def test_gradients_of_temperatures(engine: str, card: torch.device) -> None:
    problem = Problem()
    found = outcome(problem, engine, card, learn_taus=True)
    assert len(found.gradients) == 3
    check(found, problem, (1e-5, 1e-4))


@pytest.mark.parametrize("engine", ["dense", "streamed", "fused-fp32"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_embeddings(engine: str, dtype: torch.dtype, card: torch.device) -> None:
    """Only the embeddings are rounded: the same as float64 on the rounded ones."""
    problem = Problem()
    query, key, ranks = problem.tensors(card)
    halves = [x.detach().to(dtype).requires_grad_() for x in (query, key)]
    loss = by_name(engine)(problem, *halves, ranks, problem.taus)
    assert loss.dtype == torch.float32
    d_query, d_key = torch.autograd.grad(loss, halves)
    wide = [x.detach().cpu().double().requires_grad_() for x in halves]
    right = by_name("dense")(problem, *wide, problem.tensors("cpu")[2], problem.taus)
    assert error(loss, right.detach()) < 1e-5
    for got, want in zip((d_query, d_key), torch.autograd.grad(right, wide), strict=True):
        assert got.dtype == dtype
        assert error(got, want) < torch.finfo(dtype).eps


@pytest.mark.parametrize(
    ("precision", "dimension"),
    [("fp32", 24), ("fp32", 150), ("fp32", 1024), ("bf16", 256), ("tf32", 1024)],
)
def test_fused_of_every_width(precision: str, dimension: int, card: torch.device) -> None:
    problem = Problem(dimension=dimension, queries=130, keys=300)
    engine = f"fused-{precision}"
    check(outcome(problem, engine, card), problem, BOUNDS.get(engine, EXACT))


@pytest.mark.parametrize("keys", [1000, None], ids=["queue", "in-batch"])
@pytest.mark.parametrize("engine", SORTED)
def test_fused_sorted_by_class(engine: str, keys: int | None, card: torch.device) -> None:
    problem = Problem(keys=keys)
    bounds = BOUNDS.get(engine.removesuffix("-sorted"), EXACT)
    check(outcome(problem, engine, card), problem, bounds)


@pytest.mark.parametrize("engine", FUSED)
def test_fused_gives_the_same_bits_twice(engine: str, card: torch.device) -> None:
    problem = replace(Problem(), keys=None, queries=700)
    first, second = (outcome(problem, engine, card) for _ in range(2))
    assert torch.equal(first.loss, second.loss)
    assert torch.equal(first.gradients[0], second.gradients[0])


@pytest.mark.parametrize("engine", ["dense", "streamed", "fused-fp32"])
def test_labels_on_the_cpu(engine: str, card: torch.device) -> None:
    problem = Problem()
    query, key, _ = problem.tensors(card)
    ranks = problem.tensors("cpu")[2]
    loss = by_name(engine)(problem, query, key, ranks, problem.taus)
    found = Outcome(loss.detach(), list(torch.autograd.grad(loss, [query, key])))
    check(found, problem)


def test_grad_scaler_with_fp16(card: torch.device) -> None:
    """A loss scale of 65,536 passes through, and comes out again."""
    problem = Problem()
    query, key, ranks = problem.tensors(card)
    scaler = torch.amp.GradScaler("cuda", init_scale=65536.0)
    optimizer = torch.optim.SGD([query], lr=0.0)
    with torch.autocast("cuda", dtype=torch.float16):
        loss = by_name("dense")(problem, query, key, ranks, problem.taus)
    scaled = scaler.scale(loss)
    torch.autograd.backward(scaled, inputs=[query])
    scaler.unscale_(optimizer)
    assert query.grad is not None
    assert error(query.grad, expected(problem).gradients[0]) < EXACT[1]
