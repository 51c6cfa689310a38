"""Files that are replaced whole or not at all; and which files are texts."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

TEXT_SUFFIXES = (".csv", ".jsonl")


def is_text_file(data: str | Path) -> bool:
    """Whether the name is that of a file of labelled texts."""
    return str(data).lower().endswith(TEXT_SUFFIXES)


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A file beside ``target`` to write; it takes the target's place once the block is done.

    Raises:
        OSError: it cannot be written or moved; what was at ``target`` is untouched.
    """
    part = target.with_name(target.name + ".part")
    try:
        yield part
        os.replace(part, target)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise
