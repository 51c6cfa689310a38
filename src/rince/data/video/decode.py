"""Frames out of a video file: only those that are asked for, or an error that says why not."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rince.core.checks import RinceError, import_extra
from rince.data.items import Unreadable

_PLAUSIBLE_RATE = 120  # frames a second; more is asked of the packets
_COVER = 0x400  # FFmpeg's AV_DISPOSITION_ATTACHED_PIC: the picture of an album is no video


@dataclass(frozen=True)
class VideoInfo:
    """What a file says of its picture: seconds from its first frame on, frames a second."""

    seconds: float
    rate: float


def probe(path: str | Path) -> VideoInfo:
    """Read the header of a video, and its packets where the header does not know its length, or
    gives a rate that no camera has: browsers write 1000 frames a second, the unit of their times.
    """
    with _opened(path) as video:
        stream = video.stream
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        seconds = None if stream.duration is None else float(stream.duration * stream.time_base)
        if seconds is None or not 0 < rate <= _PLAUSIBLE_RATE:
            seconds, rate = video.measured(rate)
        if not rate or seconds <= 0:
            raise ValueError("it holds no frames with times")
        return VideoInfo(seconds, rate)


def read_frames(path: str | Path, times: Sequence[float], size: int, channels: int = 3) -> Tensor:
    """(C, T, S, S) uint8: the frames that are shown at some times, shorter side to ``size``,
    central square, turned upright as the metadata say.

    Starts at the last key frame before the first time and stops after the last one; frames in
    between are decoded, but not converted. Times, rising seconds from the first frame on, not
    numbers of frames: a variable frame rate then needs no care. A frame that begins within a
    quarter of a frame after a time counts as shown, so that rounded time stamps do not matter.
    """
    av = import_extra("av", "video")
    with _opened(path) as video:
        try:
            frames = [_square(frame, size, channels) for frame in video.shown_at(times)]
        except av.FFmpegError as error:
            raise ValueError(
                f"it is damaged at {times[0]:.2f} to {times[-1]:.2f} s, or shortly before ({error})"
            ) from error
    return torch.from_numpy(np.stack(frames, axis=1))


@contextmanager
def _opened(path: str | Path) -> Iterator[_Video]:
    """A container and its picture; whatever goes wrong inside is told with the file's name."""
    av = import_extra("av", "video")
    try:
        if not os.path.isfile(path):  # a pipe would block for good
            other = os.path.exists(path)
            raise ValueError("it is not a plain file" if other else "there is no such file")
        if os.path.getsize(path) == 0:
            raise ValueError("it is empty (0 bytes)")
        with closing(av.open(str(path), metadata_errors="ignore")) as container:
            videos = [s for s in container.streams.video if not s.disposition & _COVER]
            if not videos:
                only = "only sound" if container.streams.audio else "no stream of pictures"
                raise ValueError(f"it holds {only}")
            # One thread a file: the workers of a loader are the parallel part.
            videos[0].codec_context.thread_count = 1
            yield _Video(container, videos[0])
    except RinceError:
        raise
    except Exception as error:
        own = isinstance(error, ValueError) and not isinstance(error, av.FFmpegError)
        reason = str(error) if own else f"{type(error).__name__}: {error}"
        if isinstance(error, av.error.InvalidDataError):
            reason = "it is damaged, or FFmpeg does not know it as a video"
        raise Unreadable(
            f"cannot read {path}: {reason}",
            "the file, or leave out unreadable videos (--skip-unreadable)",
        ) from error


@dataclass(frozen=True)
class _Video:
    container: Any
    stream: Any

    @property
    def origin(self) -> Fraction:
        """When the first frame is shown, in the container's own time."""
        return Fraction(self.stream.start_time or 0) * self.stream.time_base  # type: ignore[no-any-return]

    def measured(self, rate: float) -> tuple[float, float]:
        """Seconds, and frames a second, by the packets; ``rate`` if it is about the same."""
        tick = self.stream.time_base
        times = sorted(
            (p.pts, p.duration or 0) for p in self.container.demux(self.stream) if p.pts is not None
        )
        if not times:
            return 0.0, rate
        # The container's own length would count a longer sound too.
        end = max(pts + duration for pts, duration in times)
        apart = float((times[-1][0] - times[0][0]) * tick)
        mean = (len(times) - 1) / apart if apart > 0 else rate
        if abs(mean - rate) > 0.05 * mean:
            rate = mean
        return float(end * tick - self.origin), rate

    @property
    def _early(self) -> float:
        """So many seconds before it begins a frame counts as shown."""
        return 0.25 / float(self.stream.average_rate or self.stream.guessed_rate or 25)

    def shown_at(self, times: Sequence[float]) -> Iterator[Any]:
        """The frame of each time, in order."""
        if times[0] > 0:
            place = (Fraction(times[0] + self._early) + self.origin) / self.stream.time_base
            self.container.seek(int(place), stream=self.stream, backward=True)
            frames = self._from_here(times)
            # An index by decoding order may lead behind the time: then from the start.
            if (first := next(frames, None)) is not None:
                yield first
                yield from frames
                return
            self._rewind()
        yield from self._from_here(times, from_start=True)

    def _rewind(self) -> None:
        # Not to the first frame's own time: a transport stream, sought by the earlier time of
        # decoding, would begin behind it. Nor before 0, which AVI refuses.
        start = min(0, self.stream.start_time or 0)
        self.container.seek(start, stream=self.stream, backward=True)

    def _from_here(self, times: Sequence[float], *, from_start: bool = False) -> Iterator[Any]:
        """The frames, decoding on from where the container stands; none if that is too late."""
        early, origin = self._early, self.origin
        waiting, shown, end = list(times), None, 0.0
        for frame in self.container.decode(self.stream):
            if frame.pts is None:
                raise ValueError("its frames have no times; pack it into another container")
            time = float(frame.pts * self.stream.time_base - origin)
            if shown is None and not from_start and time > waiting[0] + early:
                return
            while waiting and shown is not None and time > waiting[0] + early:
                yield shown
                waiting.pop(0)
            if not waiting:
                return
            shown = frame
            end = time + (float(frame.duration * frame.time_base) if frame.duration else 4 * early)
        if shown is None and not from_start:  # no key frame after a place that was too late
            return
        if shown is None or waiting[-1] > end + early:
            known = "" if shown is None else f" (its frames end at {end:.2f} s)"
            raise ValueError(
                f"there is no frame at {waiting[-1]:.2f} s{known}: it was cut short, or is damaged"
            )
        yield from (shown for _ in waiting)


def _square(frame: Any, size: int, channels: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(C, S, S): scaled by the decoder's own scaler, which is faster than any after it."""
    scale = size / min(frame.width, frame.height)
    width, height = (max(size, round(scale * x)) for x in (frame.width, frame.height))
    small = frame.reformat(
        width, height, "gray" if channels == 1 else "rgb24", interpolation="AREA"
    )
    pixels = small.to_ndarray().reshape(height, width, channels)
    upright = np.rot90(pixels, round(frame.rotation / 90))  # degrees, counter-clockwise as here
    top, left = (upright.shape[0] - size) // 2, (upright.shape[1] - size) // 2
    square = upright[top : top + size, left : left + size]
    return np.ascontiguousarray(square.transpose(2, 0, 1))
