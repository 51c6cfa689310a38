"""A training draws from generators of its own seed, and leaves the caller's as they were."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import torch
from lightning.pytorch.utilities.seed import isolate_rng

# What Lightning's seed_everything tells processes that are started later.
_VARIABLES = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")


_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


def leaves_randomness(function: Callable[_Given, _Result]) -> Callable[_Given, _Result]:
    """Behind the function Python, numpy and torch draw what they would have drawn without it: a
    program that draws options between two trainings must not draw the same ones again."""

    @functools.wraps(function)
    def leaving(*args: _Given.args, **kwargs: _Given.kwargs) -> _Result:
        with _kept():
            return function(*args, **kwargs)

    return leaving


@contextmanager
def _kept() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _VARIABLES}
    # Looking at the generators of GPUs would take memory of all of them, in each process.
    with_gpus = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    with isolate_rng(include_cuda=with_gpus):
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value
