"""Gathering over processes. ``process_index`` and ``world_size``: "rank" means similarity here."""

from __future__ import annotations

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


def gather(x: Tensor) -> Tensor:
    """Concatenate a tensor over all processes along dimension 0, this process's part first.

    The gradient flows back to every process: each receives the sum of what all processes ask of
    its part. With a loss that is a mean over local queries, and DDP's mean of gradients, the
    result is the gradient of the mean over all queries; nothing is multiplied by world_size.

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


class _GatherWithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        # all_reduce and a slice rather than reduce_scatter, which gloo lacks.
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(world_size())[process_index()]
