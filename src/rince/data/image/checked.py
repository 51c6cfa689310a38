"""Images that were read before and have not changed since: they are not opened again."""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Sequence

import numpy as np

from rince._version import __version__
from rince.core.checks import RinceError, import_extra
from rince.core.digests import content_digest, short_digest
from rince.core.files import cache_folder, replacing
from rince.data.image.decode import bits_of
from rince.data.image.shards import Member
from rince.data.threads import in_threads

_ENTRY = np.dtype([("file", "<u8"), ("bits", "u1")])
_SUM = 16  # bytes of a check sum, before the entries
_SETTLED = 2e9  # nanoseconds: times of files are no finer on some systems


def checked_bits(paths: Sequence[str | Member], *, only_deep: bool) -> list[int | RinceError]:
    """What :func:`~rince.data.image.decode.bits_of` says of each file, or why it cannot be read.

    Files that could be read, without a warning, are noted by path, size and time of their last
    change, in ``checked`` of rince's cache folder; without such a note, or where it is damaged,
    they are read. A file that was damaged without a trace in its time is only found by removing
    that folder.
    """
    names = [_name(path, only_deep) for path in paths]
    note = cache_folder("checked") / content_digest(_root(paths).encode()).hex()
    known = _read(note)
    result: list[int | RinceError] = [known.get(name, -1) for name in names]
    new = [i for i, bits in enumerate(result) if bits == -1]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")

        def look(path: str | Member) -> tuple[int, bool]:
            before = len(caught)
            bits = bits_of(path, only_deep=only_deep)
            # A warning of a file that another thread reads counts too: read once more, next time.
            return bits, len(caught) == before

        outcomes = list(in_threads(look, [paths[i] for i in new], "checking images"))
    for said in {str(x.message): x for x in caught}.values():
        warnings.warn_explicit(said.message, said.category, said.filename, said.lineno)
    fresh: dict[int, int] = {}
    for i, of_file in zip(new, outcomes, strict=True):
        if isinstance(of_file, RinceError):
            result[i] = of_file
            continue
        result[i], silent = of_file
        if silent and names[i]:
            fresh[names[i]] = of_file[0]
    if fresh:
        entries = np.array([*(known | fresh).items()], dtype=_ENTRY).tobytes()
        with contextlib.suppress(OSError):  # costs time, nothing else
            note.parent.mkdir(parents=True, exist_ok=True)
            with replacing(note) as part:
                part.write_bytes(content_digest(entries) + entries)
    return result


def _name(path: str | Member, only_deep: bool) -> int:
    """Of a file as it is now; 0: it is not there, or was changed a moment ago."""
    part = (path.offset, path.size) if isinstance(path, Member) else ()
    file = os.path.abspath(path.shard if isinstance(path, Member) else path)
    try:
        facts = os.stat(file)
    except (OSError, ValueError):
        return 0
    if time.time_ns() - facts.st_mtime_ns < _SETTLED:
        return 0
    reader = __version__, import_extra("PIL", "train").__version__, only_deep
    name = short_digest("checked", file, part, facts.st_size, facts.st_mtime_ns, *reader)
    return int.from_bytes(name, "little")


def _root(paths: Sequence[str | Member]) -> str:
    """The folder that all are in."""
    files = [os.path.abspath(x.shard if isinstance(x, Member) else x) for x in paths]
    try:
        return os.path.commonpath(files)
    except ValueError:  # no file, or several drives
        return ""


def _read(note: os.PathLike[str]) -> dict[int, int]:
    try:
        with open(note, "rb") as stream:
            content = stream.read()
    except OSError:
        return {}
    entries = content[_SUM:]
    if content_digest(entries) != content[:_SUM] or len(entries) % _ENTRY.itemsize:
        return {}
    table = np.frombuffer(entries, _ENTRY)
    return dict(zip(table["file"].tolist(), table["bits"].tolist(), strict=True))
