"""Gathering over processes. ``process_index`` and ``world_size``: "rank" means similarity here."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rince.core.checks import require


def world_size() -> int:
    """Number of processes; 1 without torch.distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_index() -> int:
    """This process, from 0; 0 without torch.distributed."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def is_first_process() -> bool:
    """Whether this process writes for all; also before torch.distributed starts.

    torchrun and Lightning set RANK, LOCAL_RANK, NODE_RANK; else MPI's and SLURM's variables count,
    mpirun's before SLURM's: inside a job the tasks of SLURM are mpirun's own daemons.
    """
    if dist.is_available() and dist.is_initialized():
        return process_index() == 0
    srun = ("SLURM_PROCID",) if slurm_tasks() else ()
    for names in (("RANK", "LOCAL_RANK", "NODE_RANK"), *_MPIRUN, srun, *_PMI):
        given = [os.environ[name] for name in names if name in os.environ]
        if given:
            return all(index == "0" for index in given)
    return True


_MPIRUN = (("OMPI_COMM_WORLD_RANK",), ("MV2_COMM_WORLD_RANK",))
_PMI = (("PMI_RANK",), ("PMIX_RANK",))  # of mpiexec (MPICH, Intel), and of srun


def launched_processes() -> tuple[int, int] | None:
    """(nodes, processes a node) that torchrun or srun have started; None elsewhere.

    Raises:
        ValueError: variables that are no numbers, or nodes of different numbers of processes.
    """
    if "LOCAL_WORLD_SIZE" not in os.environ:
        return slurm_tasks()
    local = _number("LOCAL_WORLD_SIZE")
    return _number("WORLD_SIZE", local) // local, local


def slurm_tasks() -> tuple[int, int] | None:
    """(nodes, tasks per node) under srun with several tasks; None elsewhere.

    An interactive shell of a job holds its variables, too, but starts no tasks of it.

    Raises:
        ValueError: as :func:`launched_processes`.
    """
    tasks = _number("SLURM_NTASKS")
    if tasks < 2 or os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return None
    nodes = _number("SLURM_NNODES")
    require(
        tasks % nodes == 0,
        f"every node must have as many processes, but SLURM_NTASKS is {tasks} on SLURM_NNODES = "
        f"{nodes} nodes: give sbatch or srun --ntasks-per-node",
    )
    return nodes, tasks // nodes


def _number(name: str, default: int = 1) -> int:
    text = os.environ.get(name, "") or str(default)
    require(
        text.isdecimal() and int(text) > 0,
        f"the environment variable {name} must be a number of at least 1, got {text!r}",
    )
    return int(text)


def gather(x: Tensor) -> Tensor:
    """Concatenate a tensor over all processes along dimension 0, this process's part first.

    The gradient flows back to every process: each receives the sum of what all processes ask of
    its part. A loss over local queries against gathered keys, averaged over processes as DDP
    averages gradients, is the loss of the whole batch; nothing is multiplied by world_size.

    >>> import rince, torch
    >>> z, labels = torch.eye(4), torch.tensor([0, 0, 1, 1])  # of this process
    >>> table = torch.tensor([[1, 0], [0, 1]])
    >>> ranks = rince.ranks.TableRanks(labels, rince.gather(labels), table, ignore_self=True)
    >>> loss = rince.ranked_info_nce(z, rince.gather(z), ranks, 0.1)

    That is exact where all processes have as many queries with something to learn, which holds if
    every sample has two views. Otherwise see :func:`mean_over_processes`.

    Args:
        x: (B, ...), the same shape on every process.

    Returns:
        (world_size * B, ...). Own part first, so that key i is query i's own on each process.

    Raises:
        ValueError: the processes hold different numbers of rows.
    """
    if world_size() == 1:
        return x
    counts = [torch.zeros((), dtype=torch.int64, device=x.device) for _ in range(world_size())]
    dist.all_gather(counts, torch.tensor(x.shape[0], device=x.device))
    rows = [int(count) for count in counts]
    require(
        len(set(rows)) == 1,
        f"every process must hold the same number of rows to gather, got {rows}: drop the last, "
        f"uneven batch (drop_last=True)",
    )
    gathered: Tensor = _GatherWithGradient.apply(x)
    return gathered.roll(-process_index() * x.shape[0], dims=0)


def mean_over_processes(total: Tensor, count: Tensor | int) -> Tensor:
    """A sum over local items as a loss whose mean over processes is the mean over all items.

    For losses that count their queries (a query without positives takes no part): the mean of
    local means would give queries of a process with few of them more weight.

    Args:
        total: scalar, the sum over this process's items (``reduction="sum"``).
        count: how many items it has; may differ between processes, and be 0.

    Returns:
        total * world_size / (sum of the counts of all processes); 0 if there is no item at all.
    """
    everywhere = torch.as_tensor(count, device=total.device).detach().to(torch.int64).clone()
    if world_size() > 1:
        dist.all_reduce(everywhere)
    return total * world_size() / everywhere.clamp(min=1)


class _GatherWithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous()
        rows = total.shape[0] // world_size()
        if hasattr(dist, "reduce_scatter_single"):  # since torch 2.14
            own = total.new_empty(rows, *total.shape[1:])
            dist.reduce_scatter_single(own, total)
            return own
        total = total.clone()
        dist.all_reduce(total)  # gloo had no reduce_scatter
        return total[process_index() * rows :][:rows]
