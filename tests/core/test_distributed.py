from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn import functional

from rince import TableRanks, ranked_info_nce
from rince.core.distributed import gather, process_index, world_size

WORLD = 3  # with two, forwards and backwards are the same
TABLE = torch.tensor([[1, 2, 0], [2, 1, 0], [0, 0, 1]], dtype=torch.int8)


def _data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(12, 4, generator=generator, dtype=torch.float64)
    weights = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    # Every query has a positive somewhere, so that all processes hold as many active queries.
    return inputs, weights, torch.tensor([0, 0, 1, 2, 1, 1, 0, 2, 2, 0, 0, 1])


def _loss(weights: torch.Tensor, rows: slice) -> torch.Tensor:
    inputs, _, labels = _data()
    z = functional.normalize(inputs[rows] @ weights, dim=1)
    ranks = TableRanks(labels[rows], gather(labels[rows]), TABLE, ignore_self=True)
    return ranked_info_nce(z, gather(z), ranks, (0.2, 0.5))


def _worker(index: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=index, world_size=WORLD
    )
    assert (process_index(), world_size()) == (index, WORLD)
    own = torch.full((2, 1), float(index))
    following = [(index + step) % WORLD for step in range(WORLD)]
    assert gather(own).flatten().tolist() == [i for i in following for _ in range(2)]
    with pytest.raises(ValueError, match=r"same number of rows to gather, got \[1, 2, 3\]"):
        gather(torch.zeros(index + 1, 1))
    weights = _data()[1].requires_grad_()
    loss = _loss(weights, slice(4 * index, 4 * index + 4))
    loss.backward()
    assert weights.grad is not None
    # What DDP does: the mean over processes.
    total = torch.stack([loss.detach(), torch.zeros((), dtype=torch.float64)])
    dist.all_reduce(total)
    dist.all_reduce(weights.grad)
    torch.save((total[0] / WORLD, weights.grad / WORLD), f"{folder}/result{index}.pt")
    dist.destroy_process_group()


def test_three_processes_equal_one(tmp_path: Path) -> None:
    mp.spawn(_worker, args=(str(tmp_path),), nprocs=WORLD)
    weights = _data()[1].requires_grad_()
    loss = _loss(weights, slice(0, 12))
    loss.backward()
    assert weights.grad is not None
    for index in range(WORLD):
        found_loss, found_gradient = torch.load(tmp_path / f"result{index}.pt")
        torch.testing.assert_close(found_loss, loss.detach(), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found_gradient, weights.grad, rtol=1e-10, atol=1e-12)


def test_one_process_gathers_nothing() -> None:
    x = torch.randn(3, 2)
    assert gather(x) is x
    assert (process_index(), world_size()) == (0, 1)
