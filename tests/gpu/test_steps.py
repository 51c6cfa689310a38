"""A step's waits, launches, memory, compilation and graph capture on a card."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from card_problems import Problem, by_name, launches, peak_bytes
from rince.core.pair_ranks import ALL, DenseRanks, TableRanks
from rince.losses.ranked_info_nce import RankedInfoNCE, ranked_info_nce

pytestmark = pytest.mark.gpu

MB = 2**20
QUEUE = Problem(queries=512, keys=4096, dimension=128)
LONG_QUEUE = Problem(queries=512, keys=65536, dimension=128)


def step(problem: Problem, engine: str, device: torch.device) -> Callable[[], list[Tensor]]:
    """Ranks from labels that are on the card, the loss without checks, the gradients."""
    query, key, given = problem.tensors(device)
    leaves = [query] if key is query else [query, key]

    def work() -> list[Tensor]:
        ranks = TableRanks(
            given.query_labels,
            given.key_labels,
            given.table,
            ignore_self=given.ignore_self,
            key_valid=given.key_valid,
            num_ranks=len(problem.taus),
            validate=False,
        )
        loss = by_name(engine)(problem, query, key, ranks, problem.taus)
        return list(torch.autograd.grad(loss, leaves))

    return work


@pytest.mark.parametrize("keys", [4096, None], ids=["queue", "in-batch"])
@pytest.mark.parametrize("engine", ["dense", "streamed", "fused-fp32", "fused-bf16"])
def test_a_step_never_waits_for_the_card(engine: str, keys: int | None, card: torch.device) -> None:
    work = step(Problem(queries=512, keys=keys, dimension=128), engine, card)
    work()  # compiles, and fills caches
    torch.cuda.set_sync_debug_mode("error")
    work()


@pytest.mark.parametrize(
    ("problem", "engine", "most"),
    [
        (QUEUE, "auto", 160),
        (LONG_QUEUE, "auto", 160),
        (Problem(1024, None, 128), "auto", 160),
        (Problem(8192, None, 256), "auto", 160),
        (Problem(32768, None, 256), "auto", 800),
        (QUEUE, "fused-fp32", 60),
        (Problem(8192, None, 256), "fused-fp32", 60),
    ],
    ids=lambda x: f"{x.queries}x{x.keys}" if isinstance(x, Problem) else str(x),
)
def test_launches_of_a_step(problem: Problem, engine: str, most: int, card: torch.device) -> None:
    count = launches(step(problem, engine, card))
    assert 0 < count <= most


@pytest.mark.parametrize(
    ("problem", "engine", "most"),
    [
        (Problem(8192, None, 256), "fused-fp32", 200 * MB),
        (Problem(32768, None, 256), "fused-fp32", 400 * MB),
        (Problem(32768, None, 256), "streamed", 4000 * MB),
        (LONG_QUEUE, "fused-fp32", 400 * MB),
        (LONG_QUEUE, "streamed", 3000 * MB),
    ],
    ids=lambda x: f"{x.queries}x{x.keys}" if isinstance(x, Problem) else str(x),
)
def test_memory_of_a_step(problem: Problem, engine: str, most: int, card: torch.device) -> None:
    assert peak_bytes(step(problem, engine, card)) <= most


def test_compiled_without_a_break(card: torch.device) -> None:
    problem = Problem(keys=500)
    query, key, ranks = problem.tensors(card)
    matrix = DenseRanks(ranks.tile(ALL, ALL), num_ranks=3)
    criterion = RankedInfoNCE(problem.taus, validate=False, engine="dense")
    compiled = torch.compile(criterion, fullgraph=True)
    plain, fast = criterion(query, key, matrix), compiled(query, key, matrix)
    torch.testing.assert_close(fast, plain)
    torch.testing.assert_close(
        torch.autograd.grad(fast, [query, key]), torch.autograd.grad(plain, [query, key])
    )


@pytest.mark.parametrize("engine", ["dense", "fused-fp32"])
def test_replayed_from_a_cuda_graph(engine: str, card: torch.device) -> None:
    problem = Problem()
    query, key, ranks = problem.tensors(card)

    def work() -> list[Tensor]:
        loss = by_name(engine)(problem, query, key, ranks, problem.taus)
        return [loss.detach(), *torch.autograd.grad(loss, [query, key])]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = work()
    with torch.no_grad():
        query.copy_(query.roll(1, dims=0))
    graph.replay()
    for got, wanted in zip(captured, work(), strict=True):
        torch.testing.assert_close(got, wanted)


def test_validate_finds_nan_on_a_card(card: torch.device) -> None:
    query, key, ranks = Problem().tensors(card)
    with torch.no_grad():
        query[3, 0] = torch.nan
    with pytest.raises(ValueError, match="row 3"):
        ranked_info_nce(query, key, ranks, (0.1, 0.225, 0.5))
