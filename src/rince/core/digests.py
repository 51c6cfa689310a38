"""Digests: the same bytes for the same content, on every machine and in every release."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable
from pathlib import Path


def digest(parts: Iterable[object]) -> str:
    """32 hex digits of the ``repr`` of each part, in this order: the fingerprint of a data set.

    ``repr``, since file names need not be valid Unicode; of strings, numbers, bytes, and tuples of
    these, for which it is stable.

    Example:
        >>> digest(["a", 1])
        '3f91b716ca9eab322da70f4533693209'
    """
    lines = hashlib.blake2b(digest_size=16)
    for part in parts:
        lines.update(repr(part).encode() + b"\n")
    return lines.hexdigest()


def file_digest(file: Path) -> str:
    """32 hex digits of what a file holds, whatever its times. Of a zip archive, as checkpoints and
    .npz files are, by the checksums that it keeps of its parts: they need not be read."""
    try:
        with zipfile.ZipFile(file) as archive:
            return digest((x.filename, x.CRC, x.file_size) for x in archive.infolist())
    except zipfile.BadZipFile:
        found = hashlib.blake2b(digest_size=16)
        with file.open("rb") as stream:
            while part := stream.read(2**20):
                found.update(part)
        return found.hexdigest()


def content_digest(content: bytes | memoryview) -> bytes:
    """16 bytes that tell one content (a file, an image, a text) from all others."""
    return hashlib.blake2b(content, digest_size=16).digest()


def short_digest(*parts: object) -> bytes:
    """8 bytes: places in a hashed order, seeds. A word in front keeps different uses apart."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
