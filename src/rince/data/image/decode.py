"""Image files decoded: one as it is, or many as they are evaluated, in threads."""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rince.core.checks import RinceError, import_extra, require, warn
from rince.core.files import HEIC_SUFFIXES
from rince.core.input_spec import InputSpec
from rince.data.image.depth import as_bytes, is_deep, used_bits
from rince.data.image.shards import Member
from rince.data.items import Unreadable, report_unreadable
from rince.data.threads import in_threads
from rince.data.views import eval_transform

if TYPE_CHECKING:
    from PIL import Image

_ORIENTATION = 0x0112  # of EXIF


def read_image(
    path: str | Path | Member,
    channels: int = 3,
    at_least: int | None = None,
    bits: int | None = None,
) -> Tensor:
    """(C, H, W) uint8 of a file; ``.heic`` needs the extra ``heic``.

    Args:
        at_least: pixels of the shorter side that are enough; large JPEGs are then decoded at a
            half, a quarter or an eighth of their size, several times faster.
        bits: that are used in files of 16 bits, where they do not say so themselves, 8 to 16;
            None: 16, with a warning if that makes an image nearly black.
    """
    with opened(path) as image:
        if at_least is not None:
            image.draft(None, (at_least, at_least))
        return picture_pixels(image, channels, bits)


def bits_of(path: str | Member, *, only_deep: bool = False) -> int:
    """Decode a file as small as it goes; how many bits its values take, see
    :func:`~rince.data.image.depth.used_bits`; 0 of 8 bits, which ``only_deep`` does not decode."""
    with opened(path) as image:
        if is_deep(image):
            return used_bits(image)
        if not only_deep:
            image.draft(None, (1, 1))
            picture_pixels(image, 3)
        return 0


@contextmanager
def opened(path: str | Path | Member) -> Iterator[Image.Image]:
    """A file of Pillow's; whatever goes wrong inside is told with its name."""
    pil = import_extra("PIL.Image", "train")
    try:
        if str(path).lower().endswith(HEIC_SUFFIXES):
            import_extra("pillow_heif", "heic").register_heif_opener()
        source = io.BytesIO(path.read_bytes()) if isinstance(path, Member) else path
        if source is path and os.path.exists(path) and not os.path.isfile(path):
            raise ValueError("it is not a plain file")  # a pipe would block for good
        with pil.open(source) as image:
            yield image
    except Exception as error:  # Pillow raises whatever its decoders do
        reason = str(error)
        if isinstance(error, pil.UnidentifiedImageError):
            size = None if isinstance(path, Member) else Path(path).stat().st_size
            reason = "it is empty" if size == 0 else "Pillow does not know it as an image"
        raise Unreadable(
            f"cannot read {path}: {reason or type(error).__name__}",
            "the file, or leave out unreadable images (--skip-unreadable)",
        ) from error


def picture_pixels(image: Image.Image, channels: int, bits: int | None = None) -> Tensor:
    """(C, H, W) uint8 of a picture of Pillow's: upright, transparency on white, 8 bits; of an
    animation or several pages the first, with a warning."""
    operations = import_extra("PIL.ImageOps", "train")
    if image.format != "MPO" and getattr(image, "is_animated", False):  # MPO: a photo with extras
        warn("an image is animated, or has several pages: the first one is read")
    # First: to look for EXIF data decodes a PNG, and then nothing tells how deep it was.
    flat = _eight_bit(image, "L" if channels == 1 else "RGB", bits)
    turned, flat.info = _orientation(image), {}
    flat.getexif()[_ORIENTATION] = turned
    pixels = torch.from_numpy(np.array(operations.exif_transpose(flat)))
    return pixels[None] if channels == 1 else pixels.permute(2, 0, 1).contiguous()


def read_fitted(path: str | Path | Member, spec: InputSpec) -> Tensor:
    """(C, S, S) uint8 for evaluation, as :func:`~rince.data.views.eval_transform` makes them. The
    one way for known classes and outliers alike, in memory or not: a detector must not tell them
    apart by how they were decoded."""
    how = spec.preprocessing
    # Twice the size leaves the antialiased resize something to average over.
    enough = 2 * (spec.size if how is None else how.resize)
    pixels = read_image(path, spec.channels, at_least=enough, bits=spec.bits)
    return eval_transform(spec.size, how)(pixels)


def fitted_batches(
    paths: Sequence[str | Member], spec: InputSpec, batch_size: int, *, skip_unreadable: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Image files as they are evaluated, a batch at a time, decoded in threads meanwhile.

    Yields:
        (B, C, S, S) uint8, and the positions (B,) int64 in ``paths``; those that cannot be read
        are missing, and refused at the end, or with ``skip_unreadable`` warned of.
    """
    fitted = _fitted(paths, spec, skip_unreadable)
    while batch := list(itertools.islice(fitted, batch_size)):
        positions, pixels = zip(*batch, strict=True)
        yield torch.stack(pixels), torch.tensor(positions, dtype=torch.int64)


def decode_all(
    paths: Sequence[str | Member], spec: InputSpec, *, skip_unreadable: bool
) -> tuple[Tensor, Tensor]:
    """(N, C, S, S) uint8 of the readable files, and their positions."""
    require(spec.size >= 1, f"image_size must be at least 1 pixel, got {spec.size}")
    pixels = torch.empty(len(paths), *spec.batch_shape()[1:], dtype=torch.uint8)
    kept: list[int] = []
    for index, image in _fitted(paths, spec, skip_unreadable):
        pixels[len(kept)] = image
        kept.append(index)
    return pixels[: len(kept)], torch.tensor(kept, dtype=torch.int64)


def _fitted(
    paths: Sequence[str | Member], spec: InputSpec, skip_unreadable: bool
) -> Iterator[tuple[int, Tensor]]:
    """Position and (C, S, S) uint8 pixels of the readable files, in order."""
    failures: list[RinceError] = []
    decoded = in_threads(partial(read_fitted, spec=spec), paths, "reading images")
    for index, result in enumerate(decoded):
        if isinstance(result, RinceError):
            failures.append(result)
        else:
            yield index, result
    report_unreadable(failures, len(paths), "images", skip_unreadable)


def _orientation(image: Image.Image) -> int:
    """1 to 8, as a camera was held."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # cameras, editors and messengers write anything
        warn("the EXIF data of an image are damaged: it is read as it is stored, not turned")
        return 1


def _eight_bit(image: Image.Image, mode: str, bits: int | None) -> Image.Image:
    from PIL import Image

    if is_deep(image):
        image = as_bytes(image, bits)
    if image.mode in ("RGBa", "La"):
        image = image.convert(image.mode.upper())
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)
