"""Clips of videos: a data set of (C, T, S, S) bytes, decoded when asked for."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rince.core.checks import RinceError
from rince.core.digests import digest
from rince.core.input_spec import InputSpec
from rince.data.arrays import as_pictures
from rince.data.items import (
    SPLIT_SEED,
    Indices,
    Items,
    Marks,
    Thumbnails,
    held_out,
    linked,
    positions_of,
    report_unreadable,
)
from rince.data.threads import in_threads
from rince.data.video.cache import ClipCache
from rince.data.video.decode import read_frames
from rince.data.views import BatchAugmentation, ViewConfig, eval_transform, evaluation_pixels
from rince.ranks.taxonomy import Taxonomy


@dataclass(frozen=True, eq=False, repr=False)
class VideoClips(Items):
    """Clips of videos: ``frames`` frames, ``steps`` seconds apart.

    Args:
        paths: (N,) files.
        starts: (N,) float64, seconds into the file. steps: (N,) float64, seconds.
        clip_times: (N, 5) int64, see :meth:`TimeRanks.items <rince.TimeRanks.items>`: which source
            video a clip is from, and when.
        labels: (N,) int64 in [0, classes of the taxonomy).
        taxonomy: the class tree; of one class if nothing is labelled.
        name: what to call the data set in reports.
        clip_keys: (N,) names of the clips that are the same wherever the folder lies.
        frames: T. frame_size: side of the decoded squares, pixels. channels: 3 (RGB) or 1 (grey).
        cache: keeps decoded clips; None decodes each time.
        image_size: side of the squares that a network is fed, pixels; None: frame_size.
        marks: what a table says of them.
    """

    paths: tuple[str, ...]
    starts: Tensor
    steps: Tensor
    clip_times: Tensor
    labels: Tensor
    taxonomy: Taxonomy
    name: str
    clip_keys: tuple[str, ...]
    frames: int
    frame_size: int
    channels: int = 3
    cache: ClipCache | None = None
    image_size: int | None = None
    marks: Marks | None = None

    @property
    def spec(self) -> InputSpec:
        return InputSpec.clips(self.channels, self.frames, self.image_size or self.frame_size)

    @property
    def times(self) -> Tensor:
        return self.clip_times

    def read_from(self) -> tuple[str, ...]:
        return self.paths

    def keys(self) -> list[str]:
        """``FILE@START``, the file below its folder."""
        return list(self.clip_keys)

    def held_out(self) -> Tensor:
        """(N,) bool: the clips of some source videos, of each class its share; videos of one
        sequence go together."""
        clips_of: dict[int, list[int]] = defaultdict(list)  # by source video
        videos = self.times[:, 0]
        sequences = None if self.marks is None else self.marks.own_sequences()
        if sequences is not None:
            videos = linked(videos, sequences)
        for index, video in enumerate(videos.tolist()):
            clips_of[video].append(index)
        # In the order of the hashes of their first clips' files, so that others move none of them.
        names = {v: self.clip_keys[mine[0]].rpartition("@")[0] for v, mine in clips_of.items()}
        order = sorted(
            clips_of, key=lambda v: hashlib.blake2b(repr((SPLIT_SEED, names[v])).encode()).digest()
        )
        by_class = defaultdict(list)
        for video in order:
            by_class[int(self.labels[clips_of[video]].mode().values)].append(video)
        test = torch.zeros(len(self), dtype=torch.bool)
        for of_class in by_class.values():
            for video in held_out(of_class):
                test[clips_of[video]] = True
        return test

    def __getitem__(self, index: int) -> Tensor:
        """(C, T, S, S) uint8."""
        key = self.clip_keys[index]
        kept = None if self.cache is None else self.cache.get(key)
        if kept is not None:
            return kept
        start, step = float(self.starts[index]), float(self.steps[index])
        times = [start + k * step for k in range(self.frames)]
        clip = read_frames(self.paths[index], times, self.frame_size, self.channels)
        if self.cache is not None:
            self.cache.put(key, clip)
        return clip

    def subset(self, indices: Indices) -> VideoClips:
        names = ("paths", "starts", "steps", "clip_times", "labels", "clip_keys", "marks")
        return self._rows(indices, *names)

    def readable(self, *, skip_unreadable: bool) -> VideoClips:
        """Decode all clips once, into the cache if there is one; those that fail are refused, or
        left out with a warning."""
        failures = self._failures(range(len(self)))
        report_unreadable([*failures.values()], len(self), "clips", skip_unreadable)
        return self.subset([i for i in range(len(self)) if i not in failures])

    def cut_short(self) -> list[RinceError]:
        """Of files that are: decodes the last clip of each, into the cache if there is one."""
        last = {path: index for index, path in enumerate(self.paths)}
        return [*self._failures(sorted(last.values())).values()]

    def _failures(self, looked: Sequence[int]) -> dict[int, RinceError]:
        def look(index: int) -> None:
            self[index]

        results = zip(looked, in_threads(look, looked, "checking clips"), strict=True)
        return {i: x for i, x in results if x is not None}

    def read_all(self) -> None:
        self.readable(skip_unreadable=False)

    def fingerprint(self) -> str:
        """Of names, labels, times and shape of the clips, not their pixels."""
        shape = (self.frames, self.frame_size, self.channels)
        rows = zip(self.clip_keys, self.labels.tolist(), self.clip_times.tolist(), strict=True)
        return digest([shape, *rows])

    def thumbnails(self, indices: Indices, size: int) -> Thumbnails:
        if not len(indices):  # of which no batch can be made
            side = self.frame_size
            nothing = torch.zeros(0, self.channels, self.frames, side, side, dtype=torch.uint8)
            return as_pictures(nothing)
        return as_pictures(self.batch(positions_of(indices, len(self))))

    def fitted(self, rows: slice) -> Tensor:
        return eval_transform(self.spec.size)(super().fitted(rows))

    def network_inputs(self, fitted: Tensor) -> Tensor:
        return evaluation_pixels(fitted)

    def augmentation(self, config: ViewConfig) -> BatchAugmentation:
        return BatchAugmentation(self.spec.size, self.channels, config)
