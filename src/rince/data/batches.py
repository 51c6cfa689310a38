"""Batches of items: two random views of each for training, or as they are for evaluation.

A run that stops in the middle of an epoch goes on and sees exactly the pixels it would have seen:
see :class:`~rince.data.plan.BatchPlan`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from rince.core.checks import RinceError, require
from rince.core.devices import sent
from rince.core.pair_ranks import ALL
from rince.data.items import Items
from rince.data.plan import BatchPlan, mixed_seed
from rince.data.views import Augmentation, ViewConfig


class ImageBatch(NamedTuple):
    """What a training step gets: two (B, ...) views as a network takes them, normalised float32
    pixels, or twice the same int64 tokens. With ``augment="later"`` (see :class:`BatchViews`)
    bytes: two views, or one tensor of the items as they are kept, (B, C, [T,] H, W) uint8, say."""

    views: tuple[Tensor, ...]
    labels: Tensor  # (B,) int64
    indices: Tensor  # (B,) int64, which items of the data set these are
    seed: int  # of the views' randomness


class TrainLoader:
    """Training batches with two random views of every image; a dataloader for Lightning.

    Items in memory are augmented a batch at a time in this process (or later, on the device);
    others are read one by one in worker processes, and augmented there where they differ in size.
    Either way a batch depends on the plan's seed, epoch and batch number alone: not on the number
    of workers, nor on what was drawn before, nor on torch's global generators, which are left as
    they were. An item that comes again in the epoch, or in the batch, gets other views.

    Args:
        items: the data set.
        plan: which items come when.
        workers: processes that read items; 0: this one. No effect for items in memory.
        config: how strong the views are; None: the defaults.
        augment: "now"; "later": batches of items as they are kept, for :func:`augmented` on the
            device, where they can wait (files of different sizes cannot).
        pin_memory: what workers read is put where a GPU fetches it from without a wait.

    Raises:
        ValueError: a plan for another number of items.
    """

    def __init__(
        self,
        items: Items,
        plan: BatchPlan,
        *,
        workers: int = 0,
        config: ViewConfig | None = None,
        augment: Literal["now", "later"] = "now",
        pin_memory: bool = False,
    ) -> None:
        require(
            plan.num_samples == len(items),
            f"the plan is for {plan.num_samples} {items.noun}, but there are {len(items)}",
        )
        require(workers >= 0, f"workers must be at least 0, got {workers}")
        config = config or ViewConfig()
        item_views = items.item_views(config)
        self.items = items
        self.plan = plan
        self.augment = augment
        self._augmentation = items.augmentation(config)
        self._workers: DataLoader[Any] | None = None
        self._keys = _Keys()
        if not items.in_memory:
            self._workers = DataLoader(
                _Read(len(items), partial(_sample, items, item_views, plan.seed)),
                batch_sampler=self._keys,
                num_workers=workers,
                persistent_workers=workers > 0,
                collate_fn=_collated,
                pin_memory=pin_memory,
                generator=torch.Generator(),  # not the global one, which belongs to the training
            )

    def __len__(self) -> int:
        """Batches of a whole epoch, whatever ``start_batch`` says."""
        return len(self.plan)

    @property
    def start_batch(self) -> int:
        """Batches to leave out at the start of the next pass only: where a run resumes."""
        return self.plan.start_batch

    @start_batch.setter
    def start_batch(self, value: int) -> None:
        self.plan.start_batch = value

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass."""
        self.plan.set_epoch(epoch)

    def __iter__(self) -> Iterator[ImageBatch]:
        # A generator, so that epoch and start are read when the first batch is asked for:
        # Lightning calls iter() before it sets the epoch.
        plan, epoch = self.plan, self.plan.epoch
        batches = plan.take()
        read: Iterator[Any] | None = None
        if self._workers is not None:
            earlier = torch.split(plan.earlier_draws(epoch), plan.batch_size)
            self._keys.batches = [
                [(epoch, *key) for key in zip(chosen.tolist(), earlier[k].tolist(), strict=True)]
                for k, chosen in batches
            ]
            read = iter(self._workers)
        for number, indices in batches:
            seed = mixed_seed("views", plan.seed, epoch, number, plan.process_index)
            # One tensor: items as they are kept. Two: their views.
            views = (self.items.batch(indices),) if read is None else tuple(_raised(next(read)))
            if len(views) == 1 and self._augmentation is None:
                views *= 2
            batch = ImageBatch(views, self.items.labels[indices], indices, seed)
            if self.augment == "now":
                batch = augmented(batch, self._augmentation, self.items.view_inputs)
            yield batch


def augmented(
    batch: ImageBatch,
    augmentation: Augmentation | None,
    view_inputs: Callable[[Tensor], Tensor] | None = None,
) -> ImageBatch:
    """Two views, as a network takes them, in place of bytes; on their device."""
    views = BatchViews(batch, augmentation, view_inputs)
    return batch._replace(views=(views.part(0), views.part(1)))


class BatchViews:
    """Both views of a batch, whole or some of the images at a time: the same pixels either way.

    Raw pixels are augmented when a part is asked for, so that the float views of a large batch
    need never be in memory together; only their random numbers are drawn at once. ``view_inputs``:
    that of the items.
    """

    def __init__(
        self,
        batch: ImageBatch,
        augmentation: Augmentation | None,
        view_inputs: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._batch = batch
        self._view_inputs = view_inputs
        self._augmentation = augmentation
        self._draws: list[Any] = []
        if len(batch.views) == 1:
            assert augmentation is not None
            generator = torch.Generator().manual_seed(batch.seed)
            self._draws = [augmentation.draw(batch.views[0], generator) for _ in range(2)]

    def part(self, view: int, rows: slice = ALL, device: torch.device | None = None) -> Tensor:
        """View 0 or 1 of some images, (b, C, S, S) float32, made on ``device`` (None: theirs)."""
        if self._augmentation is None or not self._draws:
            made = self._sent(view, rows, device)
            return made if self._view_inputs is None else self._view_inputs(made)
        pixels = self._sent(0, rows, device)
        return self._augmentation.apply(pixels, self._draws[view].rows(rows))

    def _sent(self, view: int, rows: slice, device: torch.device | None) -> Tensor:
        items = self._batch.views[view][rows]
        return sent(items, device or items.device)


def eval_batches(
    items: Items, batch_size: int, workers: int = 0, device: torch.device | str = "cpu"
) -> Iterator[tuple[Tensor, Tensor]]:
    """All items in order without augmentation, as a network takes them.

    Args:
        items: the data set.
        batch_size: items at a time; the last batch may be smaller.
        workers: processes that read items; 0: this one. No effect for items in memory.
        device: where the inputs are to be; pixels go there as bytes.

    Yields:
        (B, *spec.shape): float32 normalised pixels, or int64 tokens; and (B,) int64 labels, which
        stay on the CPU.

    Raises:
        RinceError: an item that cannot be read.
    """
    require(batch_size >= 1, f"batch_size must be at least 1, got {batch_size}")
    starts = range(0, len(items), batch_size)
    batches = [slice(start, start + batch_size) for start in starts]
    fitted: Iterator[Any] = map(items.fitted, batches)
    if not items.in_memory:
        fitted = map(
            _raised,
            DataLoader(
                _Read(len(items), partial(_fitted, items)),
                batch_size,
                num_workers=workers,
                collate_fn=_collated,
                pin_memory=torch.device(device).type == "cuda",
                generator=torch.Generator(),
            ),
        )
    for rows, batch in zip(batches, fitted, strict=True):
        yield items.network_inputs(sent(batch, device)), items.labels[rows]


_Key: TypeAlias = tuple[int, int, int]
"""Epoch, item, and how often it was drawn before in the epoch."""


class _Keys:
    """Batch sampler of the current pass; a key holds the epoch, so that workers need no state."""

    batches: list[list[_Key]]

    def __iter__(self) -> Iterator[list[_Key]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


_Sample: TypeAlias = Tensor | tuple[Tensor, ...] | RinceError


class _Read(Dataset[_Sample]):
    """What a function reads of an item. An error travels as a value: raised in a worker, it would
    arrive as a wall of text."""

    def __init__(self, count: int, read: Callable[[Any], _Sample]) -> None:
        self.count, self.read = count, read

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: Any) -> _Sample:
        try:
            return self.read(key)
        except RinceError as error:
            return error


def _sample(
    items: Items, views: Callable[[Tensor], Tensor] | None, seed: int, key: _Key
) -> _Sample:
    """An item as it is kept, or two views of it; torch's global generator is left as it was."""
    epoch, index, earlier = key
    item = items[index]
    if views is None:
        return (item,)
    before = torch.get_rng_state()
    drawn = []
    try:
        for view in (0, 1):
            # Not torch.manual_seed, which would also reseed every GPU.
            parts = (seed, epoch, index, view, *([earlier] if earlier else []))
            torch.default_generator.manual_seed(mixed_seed("view", *parts))
            drawn.append(views(item))
    finally:
        torch.set_rng_state(before)
    return tuple(drawn)


def _fitted(items: Items, index: int) -> Tensor:
    """An item at the size that a network is fed."""
    return items.fitted(slice(index, index + 1))[0]


def _collated(samples: list[_Sample]) -> Any:
    errors = [sample for sample in samples if isinstance(sample, RinceError)]
    return errors[0] if errors else default_collate(samples)


def _raised(batch: Any) -> Any:
    if isinstance(batch, RinceError):
        raise batch
    return batch
