"""Names that moved: the old place works for one more release, and says where they are now."""

from __future__ import annotations

import functools
import importlib
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def moved_names(
    old_module: str,
    new_places: Mapping[str, str],
    old_orders: Mapping[str, Sequence[str]] | None = None,
    otherwise: Callable[[str], Any] | None = None,
) -> Callable[[str], Any]:
    """The ``__getattr__`` of a module whose names live elsewhere now: it warns, and gives them.

    Args:
        old_orders: of functions whose arguments changed their order: name -> parameters as they
            could be given by position before. The old place keeps that order.
        otherwise: the ``__getattr__`` of names that did not move.

    Example:
        >>> getattr_of_old_module = moved_names("old", {"sqrt": "math.sqrt"})
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     getattr_of_old_module("sqrt")(4.0)
        2.0
        >>> print(caught[0].message)
        old.sqrt moved to math.sqrt; the old name goes with the next release
    """

    def getattr_of_module(name: str) -> Any:
        if name not in new_places:
            if otherwise is not None:
                return otherwise(name)
            raise AttributeError(f"module {old_module!r} has no attribute {name!r}")
        place = new_places[name]
        module, _, new_name = place.rpartition(".")
        value = getattr(importlib.import_module(module), new_name)
        message = f"{old_module}.{name} moved to {place}"
        order = (old_orders or {}).get(name)
        if order:
            new_order = list(inspect.signature(value).parameters)[: len(order)]
            message += f", which takes {', '.join(new_order)} in this order"
            value = _by_position(value, order)
        message += "; the old name goes with the next release"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return value

    return getattr_of_module


def _by_position(function: Callable[..., Any], parameters: Sequence[str]) -> Callable[..., Any]:
    """The function, with the positional arguments in this order."""

    @functools.wraps(function)
    def in_old_order(*given: Any, **named: Any) -> Any:
        if len(given) > len(parameters):
            raise TypeError(
                f"{function.__name__} takes {len(parameters)} positional arguments, got "
                f"{len(given)}"
            )
        return function(**dict(zip(parameters, given, strict=False)), **named)

    return in_old_order
