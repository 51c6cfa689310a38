"""Gathering over processes. ``process_index`` and ``world_size``: "rank" means similarity here."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rince.core.checks import require


def world_size(group: dist.ProcessGroup | None = None) -> int:
    """Number of processes, of the group or of all; 1 without torch.distributed."""
    started = dist.is_available() and dist.is_initialized()
    return dist.get_world_size(group) if started else 1


def process_index(group: dist.ProcessGroup | None = None) -> int:
    """This process, from 0, in the group or among all; 0 without torch.distributed."""
    return dist.get_rank(group) if dist.is_available() and dist.is_initialized() else 0


def is_first_process() -> bool:
    """Whether this process writes for all; also before torch.distributed starts.

    torchrun and Lightning set RANK, LOCAL_RANK, NODE_RANK; else MPI's and SLURM's variables count,
    mpirun's before SLURM's: inside a job the tasks of SLURM are mpirun's own daemons.
    """
    if dist.is_available() and dist.is_initialized():
        return process_index() == 0
    srun = ("SLURM_PROCID",) if slurm_tasks() else ()
    for names in (("RANK", "LOCAL_RANK", "NODE_RANK"), *_MPIRUN, srun, *_PMI):
        given = [os.environ[name] for name in names if os.environ.get(name)]
        if given:
            return all(index == "0" for index in given)
    return True


_MPIRUN = (("OMPI_COMM_WORLD_RANK",), ("MV2_COMM_WORLD_RANK",))
_PMI = (("PMI_RANK",), ("PMIX_RANK",))  # of mpiexec (MPICH, Intel), and of srun


def launched_processes() -> tuple[int, int] | None:
    """(nodes, processes a node) that torchrun or srun have started; None elsewhere."""
    if "LOCAL_WORLD_SIZE" not in os.environ:
        return slurm_tasks()
    local = _number("LOCAL_WORLD_SIZE")
    world = _number("WORLD_SIZE", local)
    require(
        world % local == 0,
        f"every node must have as many processes, but WORLD_SIZE is {world} and LOCAL_WORLD_SIZE "
        f"{local}: give torchrun the same --nproc-per-node on each",
    )
    return world // local, local


def slurm_tasks() -> tuple[int, int] | None:
    """(nodes, tasks per node) under srun with several tasks; None elsewhere: an interactive shell
    of a job holds its variables, too, but starts no tasks of it."""
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


def gather(x: Tensor, *, group: dist.ProcessGroup | None = None, validate: bool = True) -> Tensor:
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
        x: (B, ...), the same shape on every process, on a device that the backend of the group
            serves: NCCL takes tensors on GPUs only.
        group: the processes to gather from, such as ``mesh.get_group("data")``; None: all.
        validate: compare the numbers of rows first, which costs one more collective and a wait
            for the device. Without it rows must agree, or the processes hang.

    Returns:
        (world_size * B, ...). Own part first, so that key i is query i's own on each process.

    Raises:
        ValueError: the processes hold different numbers of rows; the backend does not serve the
            tensor's device.
    """
    if world_size(group) == 1:
        return x
    backend = _backend(x, group)
    if validate:
        counts = _all_gathered(torch.tensor([x.shape[0]], device=x.device), group, backend)
        rows = counts.tolist()
        require(
            len(set(rows)) == 1,
            f"every process must hold the same number of rows to gather, got {rows}: drop the "
            f"last, uneven batch (drop_last=True)",
        )
    gathered: Tensor = _GatherWithGradient.apply(x, group, backend)
    return gathered.roll(-process_index(group) * x.shape[0], dims=0)


def mean_over_processes(
    total: Tensor, count: Tensor | int, *, group: dist.ProcessGroup | None = None
) -> Tensor:
    """A sum over local items as a loss whose mean over processes is the mean over all items.

    For losses that count their queries (a query without positives takes no part): the mean of
    local means would give queries of a process with few of them more weight.

    Args:
        total: scalar, the sum over this process's items (``reduction="sum"``).
        count: how many items it has; may differ between processes, and be 0.
        group: as of :func:`gather`.

    Returns:
        total * world_size / (sum of the counts of all processes); 0 if there is no item at all.

    Raises:
        ValueError: the backend does not serve the device of ``total``.
    """
    everywhere = torch.as_tensor(count, device=total.device).to(torch.int64).clone()
    if world_size(group) > 1:
        _backend(total, group)
        dist.all_reduce(everywhere, group=group)
    return total * world_size(group) / everywhere.clamp(min=1)


def _backend(x: Tensor, group: dist.ProcessGroup | None) -> str:
    """The backend for a tensor's device: a group may have one for each."""
    config = dist.get_backend_config(group)  # such as "cpu:gloo,cuda:nccl"
    by_device = dict(pair.split(":") for pair in config.split(","))
    device = x.device.type
    require(
        device in by_device,
        f"the processes' backend ({config}) takes no tensors on the {device}: move labels and "
        f"counts to the device of the embeddings before they are gathered, labels.to(z.device)",
    )
    return by_device[device]


def _all_gathered(x: Tensor, group: dist.ProcessGroup | None, backend: str) -> Tensor:
    """(world_size * B, ...), in the order of the processes."""
    world = world_size(group)
    out = x.new_empty(world * x.shape[0], *x.shape[1:])
    if backend == "gloo":  # in one tensor not in every torch that rince takes
        dist.all_gather(list(out.chunk(world)), x.contiguous(), group=group)
    else:
        into_tensor = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)  # 2.14's name
        into_tensor(out, x.contiguous(), group=group)
    return out


class _GatherWithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup | None, backend: str) -> Tensor:
        ctx.group, ctx.backend = group, backend
        return _all_gathered(x, group, backend)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        group = ctx.group
        total = gradients[0].contiguous()
        rows = total.shape[0] // world_size(group)
        if ctx.backend == "gloo":
            total = total.clone()
            dist.all_reduce(total, group=group)
            return total[process_index(group) * rows :][:rows], None, None
        own = total.new_empty(rows, *total.shape[1:])
        scatter = getattr(dist, "reduce_scatter_single", dist.reduce_scatter_tensor)  # 2.14's name
        scatter(own, total, group=group)
        return own, None, None
