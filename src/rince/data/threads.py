"""Many files read in threads, with a progress bar."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rince.core.checks import RinceError

_PROGRESS_FROM = 200  # files
_SLICE = 1024  # results that may wait to be taken
_Given = TypeVar("_Given")
_Result = TypeVar("_Result")


def in_threads(
    work: Callable[[_Given], _Result], inputs: Sequence[_Given], what: str
) -> Iterator[_Result | RinceError]:
    """Results in order, errors too; a progress bar where it takes a while and somebody looks."""
    from rich.console import Console
    from rich.progress import Progress

    def attempt(given: _Given) -> _Result | RinceError:
        try:
            return work(given)
        except RinceError as error:
            return error

    hidden = len(inputs) < _PROGRESS_FROM or not sys.stderr.isatty()
    with (
        Progress(console=Console(stderr=True), disable=hidden, transient=True) as progress,
        ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool,
    ):
        task = progress.add_task(what, total=len(inputs))
        for start in range(0, len(inputs), _SLICE):
            for result in pool.map(attempt, inputs[start : start + _SLICE]):
                progress.advance(task)
                yield result
