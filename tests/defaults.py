"""What public functions take where nothing is said, of their own and of torch."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

# What a user may have set; meta as a GPU, whose tensors cannot be mixed with those of the CPU.
TORCH_DEFAULTS = ("float64", "bfloat16", "meta")


@contextmanager
def torch_default(name: str) -> Iterator[None]:
    """Another dtype, or device, of all tensors that are made without a word about it."""
    if name == "meta":
        with torch.device(name):
            yield
        return
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, name))
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def default_numbers(namespace: Any, name: str) -> dict[str, Any]:
    """Of a function, class or method; but for chunk_size, which changes no result."""
    parameters = inspect.signature(functools.reduce(getattr, name.split("."), namespace)).parameters
    found = {key: parameter.default for key, parameter in parameters.items() if key != "chunk_size"}
    return {
        key: value
        for key, value in found.items()
        if isinstance(value, (int, float, tuple)) and value != ()
    }


def without_a_row(namespace: Any, rows: Iterable[str]) -> list[str]:
    """Functions and classes of a public namespace that have such numbers, but are not listed."""
    public = (name for name in dir(namespace) if callable(getattr(namespace, name)))
    return [n for n in public if n[0] != "_" and n not in rows and default_numbers(namespace, n)]
