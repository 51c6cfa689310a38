"""A training draws from generators of its own seed, and leaves the caller's as they were."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.pytorch.utilities.seed import isolate_rng

# What Lightning's seed_everything tells processes that are started later.
_VARIABLES = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")


@contextmanager
def callers_randomness() -> Iterator[None]:
    """Behind it Python, numpy and torch draw what they would have drawn without: a program that
    draws options between two trainings must not draw the same ones again."""
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
