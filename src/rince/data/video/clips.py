"""Clips of videos: a data set of (C, T, S, S) bytes, decoded when asked for, or kept in a cache."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rince.core.checks import RinceError, require, warn
from rince.data.video import Decoder, VideoInfo, probe, read_frames
from rince.ranks.taxonomy import Taxonomy

_RESERVED = 4  # bytes of a check sum


@dataclass(frozen=True, eq=False)
class VideoClips:
    """Clips of videos: ``frames`` frames, ``steps`` seconds apart.

    Args:
        paths: (N,) files.
        starts: (N,) float64, seconds into the file. steps: (N,) float64, seconds.
        items: (N, 5) int64, see :meth:`TimeRanks.items <rince.TimeRanks.items>`: which source
            video a clip is from, and when.
        labels: (N,) int64 in [0, classes of the taxonomy).
        taxonomy: the class tree; of one class if nothing is labelled.
        name: what to call the data set in reports.
        keys: (N,) names of the clips that are the same wherever the folder lies.
        frames: T. frame_size: S, pixels. channels: 3 (RGB) or 1 (grey).
        cache: keeps decoded clips; None decodes each time.
        decoder: see :func:`read_frames <rince.data.video.read_frames>`.
    """

    paths: tuple[str, ...]
    starts: Tensor
    steps: Tensor
    items: Tensor
    labels: Tensor
    taxonomy: Taxonomy
    name: str
    keys: tuple[str, ...]
    frames: int
    frame_size: int
    channels: int = 3
    cache: ClipCache | None = None
    decoder: Decoder = "pyav"

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """(C, T, S, S) uint8.

        Raises:
            RinceError: the file cannot be read.
        """
        kept = None if self.cache is None else self.cache.get(self.keys[index])
        if kept is not None:
            return kept
        start, step = float(self.starts[index]), float(self.steps[index])
        times = [start + k * step for k in range(self.frames)]
        clip = read_frames(self.paths[index], times, self.frame_size, self.channels, self.decoder)
        if self.cache is not None:
            self.cache.put(self.keys[index], clip)
        return clip

    def subset(self, indices: Tensor | Sequence[int]) -> VideoClips:
        """The clips at these positions, in this order."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return replace(
            self,
            paths=tuple(self.paths[i] for i in chosen.tolist()),
            keys=tuple(self.keys[i] for i in chosen.tolist()),
            **{n: getattr(self, n)[chosen] for n in ("starts", "steps", "items", "labels")},
        )

    def by_video(self) -> VideoClips:
        """The same with the numbers of their source videos, from 0 on, as labels."""
        return replace(self, labels=torch.unique(self.items[:, 0], return_inverse=True)[1])

    def readable(self) -> VideoClips:
        """Decode every clip (into the cache, if there is one); leave out, with a warning, those
        that fail.

        Raises:
            RinceError: none can be read.
        """
        kept, reasons = [], []
        for index in range(len(self)):
            try:
                self[index]
                kept.append(index)
            except RinceError as error:
                reasons.append(str(error))
        warn_left_out(reasons, len(self), "clips")
        return self.subset(kept)

    def fingerprint(self) -> str:
        """A hex digest: names, labels, times and shape of the clips, not their pixels."""
        found = hashlib.blake2b(digest_size=16)
        shape = (self.frames, self.frame_size, self.channels)
        rows = zip(self.keys, self.labels.tolist(), self.items.tolist(), strict=True)
        for part in (shape, *rows):
            found.update(repr(part).encode() + b"\n")
        return found.hexdigest()


class ClipCache:
    """Decoded clips in one file, at most so many bytes; loader workers and later runs share it.

    A file mapped into memory: a set that fits into free memory is read from there. Each clip has
    one place, written once, so that a full cache stays useful: it holds a fixed part of the set.
    A check sum guards every clip, so one that was written halfway is decoded again.

    Args:
        folder: where the file lies; made if need be.
        keys: (N,) names of all clips. stamp: what else tells one set of clips from another.
        shape: (C, T, S, S).
        max_bytes: the first clips that fit are kept, the others never.

    Raises:
        RinceError: the file cannot be made.
    """

    def __init__(
        self,
        folder: Path,
        keys: Sequence[str],
        stamp: object,
        shape: tuple[int, int, int, int],
        max_bytes: int,
    ) -> None:
        self.shape = shape
        size = _RESERVED + int(np.prod(shape))
        # In the order of their hashes, so that a part of them is no part of the videos.
        order = sorted(keys, key=lambda key: hashlib.blake2b(key.encode()).digest())
        self._place = {key: i for i, key in enumerate(order[: max(0, max_bytes // size)])}
        name = hashlib.blake2b(repr((shape, stamp, order)).encode(), digest_size=16).hexdigest()
        self.file = folder / f"{name}.clips"
        self._places: np.memmap[tuple[int, int], np.dtype[np.uint8]] | None = None
        self._rows = (len(self._place), size)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with self.file.open("ab") as stream:  # a sparse file: only what is written takes room
                stream.truncate(len(self._place) * size)
        except OSError as error:
            raise RinceError(
                f"cannot make the cache of decoded clips {self.file} ({error}): choose another "
                f"folder (videos.cache), or none (videos.cache_gb 0)"
            ) from error

    def get(self, key: str) -> Tensor | None:
        """The clip, or None where it is not kept, or not whole."""
        place = self._place.get(key)
        if place is None:
            return None
        row = np.array(self._mapped()[place])  # a copy: it is handed out
        pixels = row[_RESERVED:]
        if int.from_bytes(row[:_RESERVED].tobytes(), "little") != _check_sum(pixels):
            return None
        return torch.from_numpy(pixels.reshape(self.shape))

    def put(self, key: str, clip: Tensor) -> None:
        """Keep a clip, if it has a place."""
        place = self._place.get(key)
        if place is not None:
            pixels = clip.numpy().reshape(-1)
            row = self._mapped()[place]
            row[_RESERVED:] = pixels
            check = _check_sum(pixels).to_bytes(_RESERVED, "little")
            row[:_RESERVED] = np.frombuffer(check, np.uint8)

    def _mapped(self) -> np.memmap[tuple[int, int], np.dtype[np.uint8]]:
        if self._places is None:  # in the process that uses it: a worker gets the name alone
            self._places = np.memmap(self.file, np.uint8, "r+", shape=self._rows)
        return self._places

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_places": None}


def _check_sum(pixels: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> int:
    """Never 0, which an empty place holds."""
    return zlib.crc32(pixels.tobytes()) or 1


def default_cache_folder() -> Path:
    """``~/.cache/rince/clips``, or where XDG_CACHE_HOME says."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "rince" / "clips"


def clip_starts(
    seconds: float, span: float, hop: float, most: int | None = None, first: float = 0.0
) -> list[float]:
    """Where the clips of a video begin: every ``hop`` seconds as long as a whole one fits.

    Args:
        seconds: of the video. span: of a clip. hop: from one start to the next.
        most: of more than so many, these, spread evenly. first: the first start.

    Returns:
        Seconds; none if not one clip fits.

    Example:
        >>> clip_starts(10.0, span=2.0, hop=3.0), clip_starts(10.0, span=2.0, hop=1.0, most=3)
        ([0.0, 3.0, 6.0], [0.0, 4.0, 8.0])
    """
    require(span > 0 and hop > 0, f"span and hop must be positive seconds, got {span}, {hop}")
    room = seconds - span + 1e-6  # lengths are rounded in files
    count = int(room / hop) + 1 if room >= 0 else 0
    chosen = range(count) if most is None or count <= most else _spread(count, most)
    return [first + i * hop for i in chosen]


def cut(
    info: VideoInfo, frames: int, stride: int, hop: float | None = None, most: int | None = None
) -> tuple[list[float], float, float]:
    """Where the clips of a video begin, the step from frame to frame, and how long a clip is.

    Args:
        info: of the video. frames, stride: a clip is so many frames, each the stride-th.
        hop: from one start to the next; None: clips touch. most: see :func:`clip_starts`.

    Returns:
        Seconds, all of them; no start if not one clip fits.
    """
    step = stride / info.rate
    span = (frames - 1) * step + 1 / info.rate
    return clip_starts(info.seconds, span, hop or span, most), step, span


def decoded_clips(
    files: Iterable[str], frames: int, stride: int, size: int, channels: int, *, skip: bool = False
) -> Iterator[tuple[str, Tensor]]:
    """All clips of some videos, one after the other and each where the last one ends.

    Args:
        files: paths. frames, stride, channels: as of a training. size: of the decoded square.
        skip: leave out, with a warning at the end, what cannot be read or is too short.

    Yields:
        ``FILE@START`` in seconds, and (C, T, size, size) uint8.

    Raises:
        RinceError: the first such file, unless skipping; nothing can be read.
    """
    reasons, count = [], 0
    for file in files:
        try:
            info = probe(file)
            starts, step, span = cut(info, frames, stride)
            if not starts:
                raise RinceError(
                    f"{file} is {info.seconds:.2f} s long, and a clip takes {span:.2f} s. Mend or "
                    f"remove the file, or leave such videos out (--skip-unreadable)"
                )
            for start in starts:
                times = [start + k * step for k in range(frames)]
                yield f"{file}@{start:.3f}", read_frames(file, times, size, channels)
                count += 1
        except RinceError as error:
            if not skip:
                raise
            reasons.append(str(error))
    warn_left_out(reasons, count + len(reasons), "clips")


def warn_left_out(reasons: Iterable[str], total: int, what: str) -> None:
    """Say what is left out and why.

    Raises:
        RinceError: everything is.
    """
    short = [reason.partition(". Mend")[0] for reason in reasons]
    if total and len(short) == total:
        raise RinceError(f"none of the {total} {what} can be read; the first: {short[0]}")
    if short:
        more = f" (and {len(short) - 3} more)" if len(short) > 3 else ""
        warn(f"{len(short)} of {total} {what} are left out: {'; '.join(short[:3])}{more}")


def _spread(count: int, most: int) -> list[int]:
    return [round(i * (count - 1) / max(1, most - 1)) for i in range(most)]
