"""Decoded clips kept in one file, shared by loader workers and later runs."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rince.core.checks import RinceError, warn
from rince.core.digests import content_digest

_RESERVED = 4  # bytes of a check sum


class ClipCache:
    """Decoded clips in one file of bounded size; loader workers and later runs share it.

    The file is mapped into memory: a set that fits into free memory is read from there. Each clip
    has one place, written once, so that a full cache stays useful: it holds a fixed part of the
    set. A check sum guards every clip, so one that was written halfway is decoded again.

    Args:
        keys: (N,) names of all clips. stamp: what else tells one set of clips from another.
        shape: (C, T, S, S). max_bytes: the first clips that fit are kept, the others never.
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
        name = content_digest(repr((shape, stamp, order)).encode()).hex()
        self.file = folder / f"{name}.clips"
        self._places: np.memmap[tuple[int, int], np.dtype[np.uint8]] | None = None
        self._rows = (len(self._place), size)
        self._is_full = False
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
        """Keep a clip, if it has a place; none is kept any more once the disk is full."""
        place = self._place.get(key)
        if place is None or self._is_full:
            return
        pixels = clip.numpy().reshape(-1)
        try:  # not through the mapped file: what a full disk does to that ends the process
            with self.file.open("r+b") as stream:
                stream.seek(place * self._rows[1])
                stream.write(_check_sum(pixels).to_bytes(_RESERVED, "little") + pixels.tobytes())
        except OSError as error:
            self._is_full = True
            warn(
                f"cannot write to the cache of decoded clips {self.file} ({error}): further clips "
                f"are decoded each time. Free space, or choose another folder (videos.cache)"
            )

    def _mapped(self) -> np.memmap[tuple[int, int], np.dtype[np.uint8]]:
        if self._places is None:  # in the process that uses it: a worker gets the name alone
            self._places = np.memmap(self.file, np.uint8, "r", shape=self._rows)
        return self._places

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_places": None}


def _check_sum(pixels: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> int:
    """Never 0, which an empty place holds."""
    return zlib.crc32(pixels.tobytes()) or 1
