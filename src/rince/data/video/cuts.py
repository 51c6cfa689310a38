"""Where the clips of a video begin, and all of its clips one after the other."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace

from torch import Tensor

from rince.core.checks import RinceError, require
from rince.core.tables import as_number
from rince.data.items import Unreadable, report_unreadable
from rince.data.video.decode import VideoInfo, probe, read_frames


def clip_starts(seconds: float, span: float, hop: float, most: int | None = None) -> list[float]:
    """Where the clips of a video begin: every ``hop`` seconds as long as a whole one fits; at most
    ``most``, evenly spaced.

    Example:
        >>> clip_starts(10.0, span=2.0, hop=3.0), clip_starts(10.0, span=2.0, hop=1.0, most=3)
        ([0.0, 3.0, 6.0], [0.0, 4.0, 8.0])
    """
    require(span > 0 and hop > 0, f"span and hop must be positive seconds, got {span}, {hop}")
    room = seconds - span + 1e-6  # lengths are rounded in files
    count = int(room / hop) + 1 if room >= 0 else 0
    chosen: Iterable[int] = range(count)
    if most is not None and count > most:
        chosen = (round(i * (count - 1) / max(1, most - 1)) for i in range(most))
    return [i * hop for i in chosen]


def cut(
    info: VideoInfo, frames: int, stride: int, hop: float | None = None, most: int | None = None
) -> tuple[list[float], float, float]:
    """Seconds: where the clips of a video begin, from frame to frame, and of a whole clip; without
    ``hop`` each starts where the last one ends."""
    step = stride / info.rate
    span = (frames - 1) * step + 1 / info.rate
    return clip_starts(info.seconds, span, hop or span, most), step, span


def decoded_clips(
    files: Iterable[str],
    frames: int,
    stride: int,
    size: int,
    channels: int,
    *,
    skip_unreadable: bool = False,
) -> Iterator[tuple[str, Tensor]]:
    """All clips of some videos, or of ``FILE@SECONDS`` the one that begins there: ``FILE@START`` in
    seconds, and (C, T, size, size) uint8. What cannot be read or is too short is refused at the
    end, or with ``skip_unreadable`` warned of."""
    failures: list[RinceError] = []
    count = 0
    for name in files:
        try:
            file, at = _asked(name)
            info = probe(file)
            if at is not None and not 0 <= at < info.seconds:
                raise RinceError(f"{name}: the file has the seconds 0 to {info.seconds:.2f}")
            first, most = (0.0, None) if at is None else (at, 1)
            part = replace(info, seconds=info.seconds - first)
            starts, step, span = cut(part, frames, stride, most=most)
            if not starts:
                raise Unreadable(
                    f"{name} is {part.seconds:.2f} s long, and a clip takes {span:.2f} s",
                    "the file, or leave out such videos (--skip-unreadable)",
                )
            for start in (first + start for start in starts):
                times = [start + k * step for k in range(frames)]
                yield f"{file}@{start:.3f}", read_frames(file, times, size, channels)
                count += 1
        except RinceError as error:
            failures.append(error)
    report_unreadable(failures, count + len(failures), "clips", skip_unreadable)


def _asked(name: str) -> tuple[str, float | None]:
    """A file, and where its clip begins in seconds; None: all of it."""
    file, _, seconds = name.rpartition("@")
    if os.path.isfile(name) or not os.path.isfile(file):
        return name, None
    try:
        return file, as_number(seconds)
    except ValueError as error:
        raise RinceError(f"{name}: expected FILE@SECONDS, got {seconds!r} seconds") from error
