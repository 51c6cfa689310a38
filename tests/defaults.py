"""The numbers that public functions take where nothing is said."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable
from typing import Any


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
