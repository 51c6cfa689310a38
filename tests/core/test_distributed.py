"""Processes over gloo against one process that holds the whole batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional
from torch.testing._internal.distributed.fake_pg import FakeStore

from collectives import Collectives
from processes import run_in_processes
from rince import gather, mean_over_processes, ranked_info_nce
from rince.core.checks import RinceError
from rince.core.distributed import (
    is_first_process,
    launched_processes,
    process_index,
    world_size,
)
from rince.losses.ranked_info_nce import ranked_info_nce_with_terms
from rince.models.momentum import MomentumEncoder
from rince.ranks import TableRanks

COUNT = 240
TABLE = torch.tensor([[1, 2, 0, 0], [2, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.int8)
TAUS = (0.2, 0.5)
CASES = [
    (variant, positives, engine, dtype, every_query_learns)
    for variant, positives in (("in", "exclusive"), ("out", "exclusive"), ("out-in", "cumulative"))
    for engine, dtype in (
        ("dense", torch.float64),
        ("streamed", torch.float64),
        ("streamed", torch.float32),
    )
    for every_query_learns in (True, False)
]


def _data(dtype: torch.dtype, every_query_learns: bool) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(COUNT, 6, generator=generator, dtype=torch.float64)
    weights = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (COUNT,), generator=generator)
    if not every_query_learns:
        # Nothing to learn for one sample: it is alone in its class. The first process has it.
        labels[7] = 3
    return inputs.to(dtype), weights.to(dtype), labels


def _loss(weights: torch.Tensor, rows: slice, case: tuple) -> torch.Tensor:
    variant, positives, engine, dtype, every_query_learns = case
    inputs, _, labels = _data(dtype, every_query_learns)
    z = functional.normalize(inputs[rows] @ weights, dim=1)
    ranks = TableRanks(labels[rows], gather(labels[rows]), TABLE, ignore_self=True, num_ranks=2)
    options = {"variant": variant, "positives": positives, "engine": engine, "block_size": 33}
    if every_query_learns:
        return ranked_info_nce(z, gather(z), ranks, TAUS, **options)
    total, terms = ranked_info_nce_with_terms(z, gather(z), ranks, TAUS, **options, reduction="sum")
    return mean_over_processes(total, terms.active.any(dim=0).sum())


def _worker(index: int, world: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=index, world_size=world
    )
    assert (process_index(), world_size()) == (index, world)
    own = torch.full((2, 1), float(index))
    following = [(index + step) % world for step in range(world)]
    assert gather(own).flatten().tolist() == [i for i in following for _ in range(2)]
    with pytest.raises(ValueError, match=r"rows.*\[1, 2"):
        gather(torch.zeros(index + 1, 1))
    mean = mean_over_processes(torch.tensor(2.0), index)
    assert float(mean) == pytest.approx(2 * world / sum(range(world)))
    pairs = [dist.new_group([first, first + 1]) for first in range(0, world, 2)]
    pair, first = pairs[index // 2], index // 2 * 2
    both = [first + (index + step) % 2 for step in range(2)]
    assert gather(own, group=pair).flatten().tolist() == [i for i in both for _ in range(2)]
    mean = mean_over_processes(torch.tensor(2.0), index + 1, group=pair)
    assert float(mean) == pytest.approx(2 * 2 / (2 * first + 3))
    found = []
    share = COUNT // world
    for number, case in enumerate(CASES):
        if number == len(CASES) // 2 and hasattr(dist, "all_gather_single"):
            # What NCCL is asked for; gloo can do it too, since torch 2.14.
            dist.get_backend_config = lambda group=None: "cpu:nccl"
        weights = _data(*case[3:])[1].requires_grad_()
        loss = _loss(weights, slice(share * index, share * (index + 1)), case)
        loss.backward()
        assert weights.grad is not None
        # What DDP does: the mean over processes.
        total = loss.detach().clone()
        dist.all_reduce(total)
        dist.all_reduce(weights.grad)
        found.append((total / world, weights.grad / world))
    torch.save(found, f"{folder}/result{index}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("world", [2, 4])
def test_processes_equal_one(world: int, tmp_path: Path) -> None:
    run_in_processes(_worker, world, str(tmp_path), count=world)
    results = [torch.load(tmp_path / f"result{index}.pt") for index in range(world)]
    for number, case in enumerate(CASES):
        weights = _data(*case[3:])[1].requires_grad_()
        loss = _loss(weights, slice(0, COUNT), case)
        loss.backward()
        assert weights.grad is not None
        single = case[3] == torch.float32
        for found in results:
            found_loss, found_gradient = found[number]
            torch.testing.assert_close(
                found_loss, loss.detach(), rtol=1e-6 if single else 1e-12, atol=1e-12
            )
            error = (found_gradient - weights.grad).abs().max() / weights.grad.abs().max()
            # In fp32 the gradient of either side is 1e-6 away from the exact one.
            assert float(error) < (5e-6 if single else 1e-11), case


def test_one_process_gathers_nothing() -> None:
    x = torch.randn(3, 2)
    assert gather(x) is x
    assert (process_index(), world_size()) == (0, 1)
    assert float(mean_over_processes(torch.tensor(6.0), 4)) == 6 / 4
    assert float(mean_over_processes(torch.tensor(0.0), torch.tensor(0))) == 0


def _two_steps(index: int, world: int, shard: Callable[..., object]) -> list[torch.Tensor]:
    """Weights of an encoder and of its momentum encoder after two steps."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)).double()
    momentum = MomentumEncoder(encoder, 0.5)
    shard(encoder)
    shard(momentum.module)
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.5)
    inputs, _, labels = _data(torch.float64, True)
    x, labels = (part[:24].chunk(world)[index] for part in (inputs, labels))
    for _ in range(2):
        momentum.update(encoder)
        query, key = (functional.normalize(f(x), dim=1) for f in (encoder, momentum))
        ranks = TableRanks(labels, gather(labels), TABLE, num_ranks=2)
        optimizer.zero_grad()
        ranked_info_nce(query, gather(key), ranks, TAUS).backward()
        optimizer.step()
    both = [*encoder.parameters(), *momentum.module.parameters()]
    return [p.full_tensor() if hasattr(p, "full_tensor") else p.detach() for p in both]


def _sharded_worker(index: int, folder: str) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=index, world_size=2
    )
    mesh = init_device_mesh("cpu", (2,))
    alike = partial(fully_shard, mesh=mesh, reshard_after_forward=True)
    torch.save(_two_steps(index, 2, alike), f"{folder}/result{index}.pt")
    encoder = nn.Linear(4, 4)
    momentum = MomentumEncoder(encoder)
    alike(encoder)
    with pytest.raises(ValueError, match="sharded.*reshard_after_forward=True"):
        momentum.update(encoder)
    dist.destroy_process_group()


def test_sharded_weights_equal_one_process(tmp_path: Path) -> None:
    if not hasattr(pytest.importorskip("torch.distributed.fsdp"), "fully_shard"):
        pytest.skip("needs torch 2.6")
    run_in_processes(_sharded_worker, str(tmp_path), count=2)
    expected = _two_steps(0, 1, lambda module: None)
    for index in range(2):
        for weight, one in zip(torch.load(tmp_path / f"result{index}.pt"), expected, strict=True):
            torch.testing.assert_close(weight, one, rtol=1e-10, atol=1e-12)


@pytest.fixture
def many_processes() -> Iterator[None]:
    """As process 3 of 64: torch's stand-in for a backend, whose collectives move nothing."""
    dist.init_process_group("fake", store=FakeStore(), rank=3, world_size=64)
    yield
    dist.destroy_process_group()


def test_collectives_of_one_gather(many_processes: None) -> None:
    x = torch.ones(2, 3, requires_grad=True)
    with Collectives() as sizes_unknown:
        gather(x)
    with Collectives() as counted:
        gathered = gather(x, validate=False)
        gathered.sum().backward()
    assert gathered.shape == (128, 3)
    assert counted.names == ["_allgather_base_", "_reduce_scatter_base_"]
    assert sizes_unknown.names == ["_allgather_base_"] * 2


def test_a_tensor_that_the_backend_does_not_take(
    many_processes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dist, "get_backend_config", lambda group=None: "cuda:nccl")
    for ask in (gather, lambda x: mean_over_processes(x.sum(), 1)):
        with pytest.raises(ValueError, match=r"cuda:nccl.* on the cpu: .*labels\.to\(z\.device\)"):
            ask(torch.zeros(4, dtype=torch.int64))


LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_", "NODE_", "SLURM_", "PMI", "OMPI_", "MV2_")


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    def set_variables(variables: dict[str, str]) -> None:
        for name in [name for name in os.environ if name.startswith(LAUNCHERS)]:
            monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_variables


SRUN = {"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "train"}


@pytest.mark.parametrize(
    ("variables", "first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "3", "LOCAL_RANK": "0"}, False),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_JOB_NAME": "train"}, False),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_JOB_NAME": "train"}, True),
        # A shell of the job, and one task: nothing was started by srun.
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_JOB_NAME": "bash"}, True),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_JOB_NAME": "train"}, True),
        # torchrun inside a task of SLURM: its own variables count.
        ({"RANK": "0", "LOCAL_RANK": "0", "SLURM_NTASKS": "2", "SLURM_PROCID": "1"}, True),
        ({"OMPI_COMM_WORLD_RANK": "2"}, False),
        ({"MV2_COMM_WORLD_RANK": "1"}, False),
        ({"PMI_RANK": "1"}, False),
        ({"PMIX_RANK": "1"}, False),
        ({"RANK": "", "LOCAL_RANK": ""}, True),
        # mpirun inside a job of SLURM: the tasks of SLURM are its daemons, one a node.
        ({**SRUN, "SLURM_PROCID": "0", "OMPI_COMM_WORLD_RANK": "1"}, False),
        ({**SRUN, "SLURM_PROCID": "1", "OMPI_COMM_WORLD_RANK": "0"}, True),
        # srun --mpi=pmi2 sets both, alike.
        ({**SRUN, "SLURM_PROCID": "1", "PMI_RANK": "1"}, False),
    ],
)
def test_who_is_first_by_the_variables_of_launchers(
    variables: dict[str, str], first: bool, launched: Callable[[dict[str, str]], None]
) -> None:
    launched(variables)
    assert is_first_process() == first


def test_who_is_first_once_processes_know_of_each_other(
    launched: Callable[[dict[str, str]], None], tmp_path: Path
) -> None:
    launched({"RANK": "1"})  # of a launcher that started something else
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        assert is_first_process()
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize(
    ("variables", "processes"),
    [
        ({}, None),
        ({"SLURM_NTASKS": "8", "SLURM_NNODES": "2", "SLURM_JOB_NAME": "train"}, (2, 4)),
        ({"SLURM_NTASKS": "8", "SLURM_NNODES": "2", "SLURM_JOB_NAME": "interactive"}, None),
        ({"SLURM_NTASKS": "", "SLURM_JOB_NAME": "train"}, None),
        ({"LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8"}, (2, 4)),
        ({"LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8", "SLURM_NTASKS": "2"}, (2, 4)),
        ({"LOCAL_WORLD_SIZE": "2"}, (1, 2)),
    ],
)
def test_processes_by_node(
    variables: dict[str, str],
    processes: tuple[int, int] | None,
    launched: Callable[[dict[str, str]], None],
) -> None:
    launched(variables)
    assert launched_processes() == processes


@pytest.mark.parametrize(
    ("variables", "fact"),
    [
        ({"SLURM_NTASKS": "5", "SLURM_NNODES": "2"}, "5 .*2 nodes.*--ntasks-per-node"),
        ({"SLURM_NTASKS": "two"}, "SLURM_NTASKS .*'two'"),
        ({"LOCAL_WORLD_SIZE": "0"}, "LOCAL_WORLD_SIZE .*'0'"),
        ({"LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "3"}, "WORLD_SIZE is 3 and LOCAL_WORLD_SIZE 2"),
    ],
)
def test_variables_that_cannot_be(
    variables: dict[str, str], fact: str, launched: Callable[[dict[str, str]], None]
) -> None:
    launched(variables)
    with pytest.raises(ValueError, match=fact):
        launched_processes()


def test_processes_that_do_not_know_of_each_other_do_not_train(
    launched: Callable[[dict[str, str]], None],
    image_tree: Path,
    tmp_path: Path,
) -> None:
    """mpirun without mpi4py: each would think that it is alone, and write the same folder."""
    from rince.training.config import from_dict
    from rince.training.run import train

    pytest.importorskip("lightning")
    launched({"OMPI_COMM_WORLD_RANK": "1"})
    config = {"data": str(image_tree), "output": str(tmp_path), "accelerator": "cpu"}
    with pytest.raises(RinceError, match="mpi4py"):
        train(from_dict({**config, "batch_size": 8, "images": {"image_size": 16}}))
    assert not list(tmp_path.iterdir())
