"""Image files decoded: one as it is, or many as they are evaluated, in threads."""

from __future__ import annotations

import io
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from rince.core.checks import RinceError, import_extra, require, warn
from rince.data.image.shards import Member
from rince.data.items import HINT, warn_left_out
from rince.data.views import eval_transform

if TYPE_CHECKING:
    from PIL import Image

OnUnreadable = Literal["error", "skip"]
_PROGRESS_FROM = 2000  # files
_SLICE = 1024  # files decoded between two looks at what went wrong
_T = TypeVar("_T")
_P = TypeVar("_P")


def read_image(path: str | Path | Member, channels: int = 3, at_least: int | None = None) -> Tensor:
    """Decode a file: turned as its EXIF data say, transparency on white, 16 bits cut to 8.

    Args:
        path: anything Pillow reads, also in a shard; of an animation the first frame.
        channels: 3 (RGB) or 1 (grey).
        at_least: pixels of the shorter side that are enough; large JPEGs are then decoded at a
            half, a quarter or an eighth of their size, several times faster.

    Returns:
        (C, H, W) uint8.

    Raises:
        RinceError: the file is missing, damaged, truncated or not an image.
    """
    pil = import_extra("PIL.Image", "train")
    try:
        source = io.BytesIO(path.read_bytes()) if isinstance(path, Member) else path
        with pil.open(source) as image:
            if at_least is not None:
                image.draft(None, (at_least, at_least))
            return picture_pixels(image, channels)
    except Exception as error:  # Pillow raises whatever its decoders do
        reason = "Pillow does not know it as an image" if "identify" in str(error) else str(error)
        raise RinceError(
            f"cannot read {path}: {reason or type(error).__name__}{HINT}the file, or leave out "
            f"unreadable images (images.skip_unreadable)"
        ) from error


def picture_pixels(image: Image.Image, channels: int) -> Tensor:
    """(C, H, W) uint8 of a picture of Pillow's: upright, transparency on white, 8 bits."""
    operations = import_extra("PIL.ImageOps", "train")
    upright = operations.exif_transpose(image)
    pixels = torch.from_numpy(np.array(_eight_bit(upright, "L" if channels == 1 else "RGB")))
    return pixels[None] if channels == 1 else pixels.permute(2, 0, 1).contiguous()


def read_fitted(path: str | Path | Member, image_size: int, channels: int = 3) -> Tensor:
    """Decode a file for evaluation: shorter side to ``image_size``, central square.

    The one way for known classes and outliers alike, in memory or not: a detector must not tell
    them apart by how they were decoded.

    Returns:
        (C, S, S) uint8.

    Raises:
        RinceError: the file cannot be read.
    """
    # Twice the size leaves the antialiased resize something to average over.
    pixels = read_image(path, channels, at_least=2 * image_size)
    return eval_transform(image_size)(pixels)


def fitted_batches(
    paths: Sequence[str | Member],
    image_size: int,
    channels: int,
    batch_size: int,
    on_unreadable: OnUnreadable = "error",
) -> Iterator[tuple[Tensor, Tensor]]:
    """Image files as they are evaluated, a batch at a time, decoded in threads meanwhile.

    Yields:
        (B, C, S, S) uint8, and the positions (B,) int64 in ``paths``; those that cannot be read
        are missing, with a warning at the end.

    Raises:
        RinceError: the first unreadable file, unless skipping; no readable file at all.
    """
    fitted = _fitted(paths, image_size, channels, on_unreadable)
    while batch := list(itertools.islice(fitted, batch_size)):
        positions, pixels = zip(*batch, strict=True)
        yield torch.stack(pixels), torch.tensor(positions, dtype=torch.int64)


def decode_all(
    paths: Sequence[str | Member], image_size: int, channels: int, on_unreadable: OnUnreadable
) -> tuple[Tensor, Tensor]:
    """(N, C, S, S) uint8 of the readable files, and their positions."""
    require(image_size >= 1, f"image_size must be at least 1 pixel, got {image_size}")
    pixels = torch.empty(len(paths), channels, image_size, image_size, dtype=torch.uint8)
    kept: list[int] = []
    for index, image in _fitted(paths, image_size, channels, on_unreadable):
        pixels[len(kept)] = image
        kept.append(index)
    return pixels[: len(kept)], torch.tensor(kept, dtype=torch.int64)


def in_threads(work: Callable[[_P], _T], paths: Sequence[_P], what: str) -> Iterator[_T]:
    """Results in order, with a progress bar where it takes a while and somebody looks."""
    from rich.console import Console
    from rich.progress import Progress

    hidden = len(paths) < _PROGRESS_FROM or not sys.stderr.isatty()
    with (
        Progress(console=Console(stderr=True), disable=hidden, transient=True) as progress,
        ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool,
    ):
        task = progress.add_task(f"{what} images", total=len(paths))
        for start in range(0, len(paths), _SLICE):
            for result in pool.map(work, paths[start : start + _SLICE]):
                progress.advance(task)
                yield result


def _fitted(
    paths: Sequence[str | Member], image_size: int, channels: int, on_unreadable: OnUnreadable
) -> Iterator[tuple[int, Tensor]]:
    """Position and (C, S, S) uint8 pixels of the readable files, in order."""

    def decode(path: str | Member) -> Tensor | RinceError:
        try:
            return read_fitted(path, image_size, channels)
        except RinceError as error:
            if on_unreadable == "error":
                raise
            return error

    failures: list[RinceError] = []
    for index, result in enumerate(in_threads(decode, paths, "reading")):
        if isinstance(result, RinceError):
            failures.append(result)
        else:
            yield index, result
    warn_left_out(map(str, failures), len(paths), "images")


def _warn_of_dark(bits: int) -> None:
    # Without the file's name: Python shows the same warning once.
    warn(
        f"an image of 16 bits holds no value above {2**bits - 1}, as {bits} bits in a file of 16 "
        f"do: it is read as nearly black. If that is what they are, multiply such files by "
        f"{2 ** (16 - bits)} first"
    )


def _eight_bit(image: Image.Image, mode: str) -> Image.Image:
    from PIL import Image

    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range; save it as PNG")
    if image.mode.startswith("I"):  # Pillow's own conversion would clip 16 bits at 255
        deep = np.asarray(image).astype(np.float64).clip(0, 65535)
        # 32 bits may hold bytes as well (exports of arrays), which would all become black.
        scale = 1 if image.mode == "I" and deep.max() <= 255 else 257
        if scale == 257 and 0 < deep.max() < 2**14:
            _warn_of_dark(max(10, int(deep.max()).bit_length()))
        image = Image.fromarray((deep / scale).round().astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)
