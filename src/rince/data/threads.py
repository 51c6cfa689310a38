"""Many files read in threads, with a progress bar."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rince.core.checks import RinceError
from rince.core.notebook import is_watched, progress_bar

_PROGRESS_FROM = 200  # files
_SLICE = 1024  # results that may wait to be taken
_Given = TypeVar("_Given")
_Result = TypeVar("_Result")


def in_threads(
    work: Callable[[_Given], _Result], inputs: Sequence[_Given], what: str
) -> Iterator[_Result | RinceError]:
    """Results in order, errors too; a progress bar where it takes a while and somebody looks."""

    def attempt(given: _Given) -> _Result | RinceError:
        try:
            return work(given)
        except RinceError as error:
            return error

    hidden = len(inputs) < _PROGRESS_FROM or not is_watched()
    with (
        progress_bar(what, len(inputs), hidden=hidden) as bar,
        ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool,
    ):
        for start in range(0, len(inputs), _SLICE):
            for result in pool.map(attempt, inputs[start : start + _SLICE]):
                bar.update()
                yield result
