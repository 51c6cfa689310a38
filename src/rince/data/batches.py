"""Batches that are a pure function of (seed, epoch, batch, process), so that a run can resume.

A run that stops in the middle of an epoch goes on with ``set_epoch`` and ``start_batch``, and
sees exactly the pixels it would have seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from rince.core.checks import RinceError, require
from rince.core.pair_ranks import ALL
from rince.data.clips import VideoClips
from rince.data.images import FileImages, Images, TensorImages, read_fitted
from rince.data.texts import Texts
from rince.data.views import (
    BatchAugmentation,
    ViewConfig,
    ViewDraws,
    eval_transform,
    evaluation_pixels,
    image_views,
)


class ImageBatch(NamedTuple):
    """What a training step gets.

    Args:
        views: two (B, C, [T,] S, S) float32 tensors, normalised; or, with ``augment="later"``, one
            tensor of the images (or clips of T frames) as they are, (B, C, [T,] H, W) uint8 (see
            :func:`augmented`). Of texts: twice the same tokens, (B, L) int64.
        labels: (B,) int64.
        indices: (B,) int64, which images of the data set these are.
        seed: of the views' randomness.
    """

    views: tuple[Tensor, ...]
    labels: Tensor
    indices: Tensor
    seed: int


def batch_seed(seed: int, epoch: int, batch_index: int, process_index: int = 0) -> int:
    """A seed in [0, 2^63) for one step of one process; neighbours have nothing in common.

    Example:
        >>> batch_seed(0, 0, 0) == batch_seed(0, 0, 0) != batch_seed(0, 0, 1)
        True
    """
    return mixed_seed("batch", seed, epoch, batch_index, process_index)


class BatchPlan:
    """Which images are in which batch: a batch sampler that has no state but the epoch.

    The order of an epoch follows from (seed, epoch). Processes take turns in it, so that P
    processes with batches of B together see the batches of one process with P * B.

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
            f"batch_size {batch_size} is more than the {share} training images there are"
            f"{processes}; take a smaller batch_size (or more images)",
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
        for _, indices in self.take():
            yield indices.tolist()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass."""
        self.epoch = epoch

    def order(self, epoch: int) -> Tensor:
        """(N // world_size,) int64: the images of this process in an epoch."""
        generator = torch.Generator().manual_seed(mixed_seed("order", self.seed, epoch))
        shuffled = torch.randperm(self.num_samples, generator=generator)
        whole = self.num_samples // self.world_size * self.world_size
        return shuffled[self.process_index : whole : self.world_size]

    def take(self) -> list[tuple[int, Tensor]]:
        """(number, indices) of the batches of the next pass; ``start_batch`` is used up."""
        first, self.start_batch = self.start_batch, 0
        require(
            0 <= first <= len(self),
            f"start_batch must be in [0, {len(self)}], the batches of an epoch, got {first}",
        )
        order, size = self.order(self.epoch), self.batch_size
        return [(k, order[k * size : (k + 1) * size]) for k in range(first, len(self))]


class TrainLoader:
    """Training batches with two random views of every image; a dataloader for Lightning.

    Images in memory are augmented a batch at a time in this process (or later, on the device);
    image files are decoded and augmented one by one in worker processes; clips of videos are
    decoded there, and augmented as images in memory are. Either way a batch
    depends on the plan's seed, epoch and batch number alone: not on the number of workers, nor on
    what was drawn before, nor on torch's global generators, which are left as they were.

    Args:
        images: the data set.
        plan: which images come when.
        image_size: side S of the views, pixels.
        workers: processes that decode image files; 0: this one. No effect for images in memory.
        config: how strong the views are; None: the defaults.
        augment: "now", or "later": batches of raw uint8 pixels for :func:`augmented` on the
            device. Image files cannot wait.
        pin_memory: page-locked memory for faster copies to a GPU (image files only).

    Raises:
        ValueError: a plan for another number of images, or files with ``augment="later"``.
    """

    def __init__(
        self,
        images: Images,
        plan: BatchPlan,
        *,
        image_size: int,
        workers: int = 0,
        config: ViewConfig | None = None,
        augment: Literal["now", "later"] = "now",
        pin_memory: bool = False,
    ) -> None:
        require(
            plan.num_samples == len(images),
            f"the plan is for {plan.num_samples} images, but there are {len(images)}",
        )
        require(workers >= 0, f"workers must be at least 0, got {workers}")
        require(
            augment == "now" or not isinstance(images, FileImages),
            "image files of different sizes cannot be augmented later; preload them, or "
            'augment="now"',
        )
        self.images = images
        self.plan = plan
        self.augment = augment
        config = config or ViewConfig()
        self._augmentation = BatchAugmentation(image_size, images.channels, config)
        self._files: DataLoader[Any] | None = None
        self._keys = _Keys()
        decoded: Dataset[_Sample] | None = None
        if isinstance(images, FileImages):
            transform = image_views(image_size, images.channels, config)
            decoded = _FileViews(images, transform, plan.seed)
        elif isinstance(images, VideoClips):
            decoded = _Clips(images)
        if decoded is not None:
            self._files = DataLoader(
                decoded,
                batch_sampler=self._keys,
                num_workers=workers,
                persistent_workers=workers > 0,
                pin_memory=pin_memory,
                collate_fn=_collated,
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
        found: Iterator[Any] | None = None
        if self._files is not None:
            self._keys.batches = [[(epoch, i) for i in chosen.tolist()] for _, chosen in batches]
            found = iter(self._files)
        for number, indices in batches:
            seed = mixed_seed("views", plan.seed, epoch, number, plan.process_index)
            if found is not None:
                views = _raised(next(found))
            elif isinstance(self.images, Texts):
                views = (self.images.tokens[indices],) * 2  # dropout makes them differ
            else:
                assert isinstance(self.images, TensorImages)
                views = (self.images.pixels[indices],)
            batch = ImageBatch(tuple(views), self.images.labels[indices], indices, seed)
            raw = len(views) == 1 and self.augment == "now"
            yield augmented(batch, self._augmentation) if raw else batch


def augmented(batch: ImageBatch, augmentation: BatchAugmentation) -> ImageBatch:
    """Two views in place of a batch's raw pixels, on their device; the same on every call."""
    views = BatchViews(batch, augmentation)
    return batch._replace(views=(views.part(0), views.part(1)))


class BatchViews:
    """Both views of a batch, whole or some of the images at a time: the same pixels either way.

    Raw pixels are augmented when a part is asked for, so that the float views of a large batch
    need never be in memory together; only their random numbers are drawn at once.

    Args:
        batch: with raw pixels, or with views that are made already.
        augmentation: for raw pixels.
    """

    def __init__(self, batch: ImageBatch, augmentation: BatchAugmentation) -> None:
        self._batch = batch
        self._augmentation = augmentation
        self._draws: list[ViewDraws] = []
        if len(batch.views) == 1:
            generator = torch.Generator().manual_seed(batch.seed)
            self._draws = [augmentation.draw(batch.views[0], generator) for _ in range(2)]

    def part(self, view: int, rows: slice = ALL, device: torch.device | None = None) -> Tensor:
        """View 0 or 1 of some images, (b, C, S, S) float32, made on ``device`` (None: theirs)."""
        if not self._draws:
            return self._batch.views[view][rows].to(device=device)
        pixels = self._batch.views[0][rows].to(device=device)
        return self._augmentation.apply(pixels, self._draws[view].rows(rows))


def eval_batches(
    images: Images, batch_size: int, image_size: int, workers: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """All images in order without augmentation: shorter side to ``image_size``, central square.

    Args:
        images: the data set.
        batch_size: images at a time; the last batch may be smaller.
        image_size: side S, pixels.
        workers: processes that decode image files; 0: this one. No effect for images in memory.

    Yields:
        (B, C, [T,] S, S) float32 normalised pixels, or of texts (B, L) int64 tokens; and (B,)
        int64 labels.
    """
    require(batch_size >= 1, f"batch_size must be at least 1, got {batch_size}")
    if isinstance(images, Texts):
        for start in range(0, len(images), batch_size):
            part = slice(start, start + batch_size)
            yield images.tokens[part], images.labels[part]
        return
    fit = eval_transform(image_size)
    if not isinstance(images, TensorImages):
        loader: DataLoader[Any] = DataLoader(
            _FittedFiles(images, image_size),
            batch_size,
            num_workers=workers,
            collate_fn=_collated,
            generator=torch.Generator(),
        )
        for batch in loader:
            pixels, labels = _raised(batch)
            yield evaluation_pixels(pixels), labels
    else:
        for start in range(0, len(images), batch_size):
            part = slice(start, start + batch_size)
            yield evaluation_pixels(fit(images.pixels[part])), images.labels[part]


class _Keys:
    """Batch sampler of the current pass; a key holds the epoch, so that workers need no state."""

    batches: list[list[tuple[int, int]]]

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


_Sample: TypeAlias = tuple[Tensor, ...] | RinceError


class _FileViews(Dataset[_Sample]):
    """Two views of an image file."""

    def __init__(
        self, images: FileImages, transform: Callable[[Tensor], Tensor], seed: int
    ) -> None:
        self.images = images
        self.transform = transform
        self.seed = seed

    def __getitem__(self, key: tuple[int, int]) -> _Sample:
        epoch, index = key
        try:
            pixels = self.images[index]
        except RinceError as error:
            return error
        first, second = (
            _drawn(self.transform, pixels, mixed_seed("view", self.seed, epoch, index, view))
            for view in (0, 1)
        )
        return first, second


class _Clips(Dataset[_Sample]):
    """A clip as it is decoded."""

    def __init__(self, clips: VideoClips) -> None:
        self.clips = clips

    def __getitem__(self, key: tuple[int, int]) -> _Sample:
        try:
            return (self.clips[key[1]],)
        except RinceError as error:
            return error


class _FittedFiles(Dataset[_Sample]):
    """An image file or a clip, resized and cropped, and its label."""

    def __init__(self, images: FileImages | VideoClips, image_size: int) -> None:
        self.images = images
        self.image_size = image_size

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> _Sample:
        try:
            if isinstance(self.images, VideoClips):
                fitted = eval_transform(self.image_size)(self.images[index])
            else:
                path, channels = self.images.paths[index], self.images.channels
                fitted = read_fitted(path, self.image_size, channels)
        except RinceError as error:
            return error
        return fitted, self.images.labels[index]


def _collated(samples: list[_Sample]) -> Any:
    """An error travels as a value: raised in a worker, it would arrive as a wall of text."""
    errors = [sample for sample in samples if isinstance(sample, RinceError)]
    return errors[0] if errors else default_collate(samples)


def _raised(batch: Any) -> Any:
    if isinstance(batch, RinceError):
        raise batch
    return batch


def _drawn(transform: Callable[[Tensor], Tensor], pixels: Tensor, seed: int) -> Tensor:
    """Apply a transform that draws from torch's global generator, and put that back."""
    before = torch.get_rng_state()
    # Not torch.manual_seed, which would also reseed every GPU.
    torch.default_generator.manual_seed(seed)
    try:
        return transform(pixels)
    finally:
        torch.set_rng_state(before)


def mixed_seed(*parts: str | int) -> int:
    """A well mixed 63-bit number; the word in front keeps streams of different use apart."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
