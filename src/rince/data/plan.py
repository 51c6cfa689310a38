"""Which items are in which batch: a pure function of (seed, epoch, batch, process).

A run that stops in the middle of an epoch goes on with ``set_epoch`` and ``start_batch``.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import BatchSampler

from rince.core.checks import require
from rince.core.digests import short_digest


class BatchPlan(BatchSampler):
    """Which images are in which batch: a batch sampler that has no state but the epoch.

    The order of an epoch follows from (seed, epoch). Processes take turns in it, so that P
    processes with batches of B together see the batches of one process with P * B.

    It is the ``batch_sampler`` of any DataLoader; a pass to its end makes the next one that of the
    next epoch.

    Args:
        num_samples: N, images of the data set.
        batch_size: B, images in a batch of one process.
        seed: of the order; 0 is a seed like any other.
        process_index: this process, in [0, world_size).
        world_size: number of processes. Every one gets N // world_size images an epoch.
        drop_last: leave out a last batch that would be smaller than the others.

    Attributes:
        epoch: the current epoch; see :meth:`set_epoch`.
        start_batch: batches to leave out at the start of the next pass only.

    Raises:
        ValueError: a number out of its range, or fewer images than a batch needs.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        seed: int,
        process_index: int = 0,
        world_size: int = 1,
        drop_last: bool = True,
    ) -> None:
        require(batch_size >= 1, f"batch_size must be at least 1, got {batch_size}")
        require(
            0 <= process_index < world_size,
            f"process_index must be in [0, {world_size}), got {process_index}",
        )
        share = num_samples // world_size
        processes = f" for each of {world_size} processes" if world_size > 1 else ""
        require(
            share >= (batch_size if drop_last else 1),
            f"batch_size {batch_size} is more than the {share} training items there are"
            f"{processes}; take a smaller batch_size (or more items)",
        )
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.seed = seed
        self.process_index = process_index
        self.world_size = world_size
        self.drop_last = drop_last
        self.epoch = 0
        self.start_batch = 0

    def __len__(self) -> int:
        """Batches of a whole epoch, whatever ``start_batch`` says."""
        share = self.num_samples // self.world_size
        return share // self.batch_size if self.drop_last else -(-share // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        """The indices of this process, batch by batch, from ``start_batch`` on."""
        epoch = self.epoch
        for _, indices in self.take():
            yield indices.tolist()
        self.epoch = epoch + 1

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass."""
        self.epoch = epoch

    def start_at(self, step: int) -> None:
        """Stand where a training does after ``step`` batches: the next pass is the rest of that
        epoch, from the batch that comes next. That is all it takes to go on with a training.

        Raises:
            ValueError: a negative step.
        """
        require(step >= 0, f"step must be at least 0, got {step}")
        self.epoch, self.start_batch = divmod(step, len(self))

    def order(self, epoch: int) -> Tensor:
        """(N // world_size,) int64: the images of this process in an epoch."""
        generator = torch.Generator().manual_seed(mixed_seed("order", self.seed, epoch))
        shuffled = torch.randperm(self.num_samples, generator=generator)
        whole = self.num_samples // self.world_size * self.world_size
        return shuffled[self.process_index : whole : self.world_size]

    def earlier_draws(self, epoch: int) -> Tensor:
        """(N // world_size,) int64: how often each image of :meth:`order` came before in the
        epoch, in any process; all 0 here, where an image comes once."""
        return repeats(self.order(epoch))

    def take(self) -> list[tuple[int, Tensor]]:
        """(number, indices) of the batches of the next pass; ``start_batch`` is used up."""
        first, self.start_batch = self.start_batch, 0
        require(
            0 <= first <= len(self),
            f"start_batch must be in [0, {len(self)}], the batches of an epoch, got {first}",
        )
        order, size = self.order(self.epoch), self.batch_size
        return [(k, order[k * size : (k + 1) * size]) for k in range(first, len(self))]


def batch_seed(seed: int, epoch: int, batch_index: int, process_index: int = 0) -> int:
    """A seed in [0, 2^63) for one step of one process; neighbours have nothing in common.

    Example:
        >>> batch_seed(0, 0, 0) == batch_seed(0, 0, 0) != batch_seed(0, 0, 1)
        True
    """
    return mixed_seed("batch", seed, epoch, batch_index, process_index)


def repeats(values: Tensor) -> Tensor:
    """(N,) int64: how often each value occurs before its place.

    Example:
        >>> repeats(torch.tensor([7, 3, 7, 7]))
        tensor([0, 0, 1, 2])
    """
    _, group, counts = torch.unique(values, return_inverse=True, return_counts=True)
    order = group.argsort(stable=True)
    found = torch.empty_like(order)
    found[order] = torch.arange(len(order)) - (counts.cumsum(0) - counts)[group[order]]
    return found


def mixed_seed(*parts: str | int) -> int:
    """A well mixed 63-bit number; the word in front keeps streams of different use apart."""
    return int.from_bytes(short_digest(*parts), "little") >> 1
