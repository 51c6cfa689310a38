"""Pictures of more than 8 bits a value: how many of these bits are used, and the bytes they become.

Scanners, microscopes and cameras store 10, 12 or 14 bits in files of 16. What a file says of itself
counts first, then ``images.bits``, which a data set decides by its highest value.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from rince.core.checks import import_extra, warn

if TYPE_CHECKING:
    from PIL.Image import Image

DEPTHS = (8, 10, 12, 14, 16)
DEEP_SUFFIXES = frozenset((".pgm", ".png", ".ppm", ".tif", ".tiff"))
_MAX_SAMPLE_VALUE, _BITS_PER_SAMPLE, _DESCRIPTION = 281, 258, 270  # tags of TIFF

Values = np.ndarray[Any, np.dtype[Any]]


def is_deep(image: Image) -> bool:
    """Whether a file that is opened, and not decoded yet, holds more than 8 bits a value."""
    return image.mode[0] in "IF" or any(
        ";16" in str(tile[3]) for tile in getattr(image, "tile", ())
    )


def used_bits(image: Image) -> int:
    """The fewest of :data:`DEPTHS` that hold the highest value; 0: it says itself how many, or
    holds fractions."""
    if _declared_bits(image) or _significant_bits(image) or image.mode == "F":
        as_bytes(image, None)
        return 0
    if image.mode[0] == "I":
        highest = int(_checked(image).max())
    else:  # of several channels Pillow gives the upper 8 bits
        highest = int(_colours(image).max()) << 8 | 255
    return next(bits for bits in DEPTHS if highest < 2**bits)


def as_bytes(image: Image, bits: int | None) -> Image:
    """A deep picture with 8 bits a value. ``bits``: that are used, where the file does not say so
    itself; None: 16, with a warning where that makes it nearly black."""
    transparent = image.info.get("transparency")
    significant, bits = _significant_bits(image), _declared_bits(image) or bits
    if image.mode[0] in "IF":
        values = _checked(image)
    elif significant or (bits or 16) < 16 or transparent is not None:
        values = _all_bits(image)
    else:  # the upper 8 bits are all that is needed
        if bits is None:
            _warn_of_dark(int(_colours(image).max()) << 8)
        return image
    if image.mode == "F":
        top = 1
    else:
        highest = int(_colours(image, values).max())
        if significant:
            step = 2 ** (16 - significant)
            # PNG wants them scaled to 16 bits, in multiples of the step; not all programs do.
            scaled = highest >= 2**significant or bool((values % step <= 1).all())
            bits = 16 if scaled else significant
        elif bits is None:
            # 32 bits may hold bytes as well (exports of arrays), which would all become black.
            bits = 8 if image.mode == "I" and highest <= 255 else 16
            if bits == 16:
                _warn_of_dark(highest)
        top = 2**bits - 1
        if highest > top:
            warn(
                f"an image holds values above {top}, the highest of {bits} bits (images.bits): "
                f"they are read as white"
            )
    pixels = (values.astype(np.float64).clip(0, top) * (255 / top)).round().astype(np.uint8)
    if image.mode == "RGBA" and values[..., 3].max() > top:  # of 16 bits, whatever the colours
        pixels[..., 3] = values[..., 3] >> 8
    if transparent is not None:
        hidden = values == np.array(transparent)
        pixels[hidden.all(axis=-1) if values.ndim == 3 else hidden] = 255
    made: Image = import_extra("PIL.Image", "train").fromarray(pixels)
    return made


def _colours(image: Image, values: Values | None = None) -> Values:
    """Without the alpha channel, which is at its highest in any opaque picture."""
    values = np.asarray(image) if values is None else values
    return values[..., :-1] if image.mode[-1] in "Aa" else values


def _warn_of_dark(highest: int) -> None:
    """Without the file's name: Python shows the same warning once."""
    bits = next(bits for bits in DEPTHS if highest < 2**bits)
    if highest > 0 and bits < 16:
        bits = max(bits, 10)
        warn(
            f"an image of 16 bits holds no value above {2**bits - 1}, as {bits} bits in a file of "
            f"16 do: it is read as nearly black. If that is what they are, give images.bits {bits}"
        )


def _checked(image: Image) -> Values:
    """The values of one channel of 16 or 32 bits."""
    values = np.asarray(image)
    low, high = values.min(), values.max()
    top, what = (1, "fractions") if image.mode == "F" else (65535, "whole numbers")
    if not (low >= 0 and high <= top):  # NaN too
        raise ValueError(
            f"its values lie between {low:g} and {high:g}; expected {what} from 0 to {top}, or an "
            f"image of 8 bits"
        )
    return values


def _all_bits(image: Image) -> Values:
    """(H, W, C) of 16 bits: Pillow gives the upper 8, and with the bytes swapped the lower ones."""
    file: Any = image
    again = import_extra("PIL.Image", "train").open(file.filename or file.fp)
    again.tile = [tile._replace(args=_swapped(tile.args)) for tile in again.tile]
    lower = np.asarray(again).astype(np.uint16)
    return lower | np.asarray(image).astype(np.uint16) << 8


def _swapped(part: Any) -> Any:
    """A decoder's arguments with the other order of bytes."""
    if isinstance(part, tuple):
        return tuple(map(_swapped, part))
    if not isinstance(part, str) or ";16" not in part:
        return part
    if part.startswith("LA"):
        raise ValueError("Pillow reads 8 of the 16 bits of grey with alpha: save it without alpha")
    own = "L" if np.little_endian else "B"
    return part[:-1] + ("B" if part[-1].replace("N", own) == "L" else "L")


def _declared_bits(image: Image) -> int | None:
    """What TIFF's tags or OME's description say; PGM's and PPM's values Pillow has scaled."""
    if image.format == "PPM":
        return 16
    tags = getattr(image, "tag_v2", {})
    stored, highest = (np.max(tags.get(tag, 0)) for tag in (_BITS_PER_SAMPLE, _MAX_SAMPLE_VALUE))
    if 8 < stored < 16:
        return int(stored)
    match = re.search(r'SignificantBits="(\d+)"', str(tags.get(_DESCRIPTION, "")))
    bits = int(match[1]) if match else int(highest).bit_length()
    # Some programs write the highest value of this very file, which says nothing of the others.
    right = 8 <= bits <= 16 and (match or highest == 2**bits - 1)
    return bits if right else None


def _significant_bits(image: Image) -> int | None:
    """What the chunk sBIT of a PNG says, if these are fewer than 16."""
    stream = getattr(image, "fp", None)
    if image.format != "PNG" or stream is None:
        return None
    before = stream.tell()
    try:
        stream.seek(8)  # behind the signature
        while len(head := stream.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"sBIT":
                bits = max(stream.read(length), default=16)
                return bits if 8 <= bits < 16 else None
            if kind in (b"PLTE", b"IDAT"):
                return None
            stream.seek(length + 4, 1)  # and its check sum
        return None
    finally:
        stream.seek(before)
