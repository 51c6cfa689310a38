"""Clips a second: only the frames that are needed, against a loader that decodes everything.

    python benchmarks/video.py FOLDER [--frames 8] [--stride 2] [--size 64] [--clips 64]

Both take the same clips from the same files in this process, on one decoding thread:

- everything: the plain way. Decode the whole file, convert every frame to RGB, pick the clip's,
  resize them with torch (antialiased, central square);
- needed: rince. Seek, decode up to the last frame needed, convert and shrink only those;
- cached: rince, the second time.

Prints clips a second and ratios, medians of the repeats, interleaved.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from rince.core.checks import import_extra
from rince.data import load_splits
from rince.data.video.clips import VideoClips
from rince.data.views import eval_transform
from rince.training.config import ImageOptions, TrainConfig, VideoOptions


def everything(clips: VideoClips, index: int) -> Tensor:
    """(C, T, S, S) uint8 of a clip by decoding its whole file."""
    av = import_extra("av", "video")
    with av.open(clips.paths[index]) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    rate = len(frames) / float(stream.duration * stream.time_base)
    start, step = float(clips.starts[index]), float(clips.steps[index])
    chosen = [min(len(frames) - 1, round((start + k * step) * rate)) for k in range(clips.frames)]
    pixels = torch.stack([torch.from_numpy(frames[i]) for i in chosen])  # (T, H, W, C)
    return eval_transform(clips.frame_size)(pixels.permute(0, 3, 1, 2)).transpose(0, 1)


def seconds(work: Callable[[int], Tensor], chosen: list[int]) -> float:
    start = time.perf_counter()
    for index in chosen:
        work(index)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--stride", type=int, default=2)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as cache:
        config = TrainConfig(
            str(options.folder),
            images=ImageOptions(image_size=options.size),
            videos=VideoOptions(frames=options.frames, stride=options.stride, cache=cache),
        )
        splits = load_splits(config.data, config)
        cached = splits.train
        assert isinstance(cached, VideoClips)
        needed = replace(cached, cache=None)
        generator = torch.Generator().manual_seed(0)
        chosen = torch.randperm(len(cached), generator=generator)[: options.clips].tolist()
        for index in chosen:  # fills the cache, and the disk's
            cached[index]
        everything(needed, chosen[0])  # imports
        ways: dict[str, Callable[[int], Tensor]] = {
            "everything": lambda i: everything(needed, i),
            "needed": needed.__getitem__,
            "cached": cached.__getitem__,
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.repeats):
            for name, work in ways.items():
                taken[name].append(seconds(work, chosen))
    plain = statistics.median(taken["everything"])
    print(f"{len(chosen)} clips of {options.frames} x {options.size} px, stride {options.stride}")
    for name, times in taken.items():
        middle = statistics.median(times)
        spread = f"{min(times):.2f} to {max(times):.2f} s"
        print(
            f"{name:<12}{len(chosen) / middle:>9.1f} clips/s{plain / middle:>8.1f} x   ({spread})"
        )


if __name__ == "__main__":
    main()
