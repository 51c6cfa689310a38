"""Errors for people: one place for how rince refuses and warns."""

from __future__ import annotations

import importlib
import math
import sys
import types
import warnings
from collections.abc import Sequence


class RinceWarning(UserWarning):
    """Something is legal but most likely not what was meant."""


class RinceError(Exception):
    """A user's mistake outside Python's own categories (a broken file, a bad run folder)."""


class BadItems(RinceError):
    """Several items that cannot be used; ``problems``: a line for each, of which the message shows
    some."""

    def __init__(self, message: str, problems: Sequence[str]) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


# Far enough from both ends of float32 that sums of quotients are numbers.
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 1e-30, 1e30


def require(condition: bool, message: str) -> None:
    """Raise ``ValueError(message)`` unless ``condition`` holds."""
    if not condition:
        raise ValueError(message)


def check_temperature(temperature: float, name: str = "temperature") -> None:
    """Refuse a temperature by which float32 cannot divide; also a tensor that is learned."""
    require(
        usable_temperature(temperature),
        f"{name} must be a positive number, from 1e-30 to 1e30, got {temperature}",
    )


def usable_temperature(temperature: float) -> bool:
    """A positive number within the limits."""
    # In float16, which a tensor may be of, these are 0 and infinite.
    within = LOWEST_TEMPERATURE <= temperature <= HIGHEST_TEMPERATURE
    return 0 < temperature < math.inf and within


def warn(message: str) -> None:
    """Issue a :class:`RinceWarning` that points at the caller's code.

    That is the innermost line outside rince, torch and Lightning, which call back what they hold.
    """
    level, frame, inside = 1, sys._getframe(), ("rince.", "torch.", "lightning.")
    while frame.f_back and frame.f_globals.get("__name__", "").startswith(inside):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, RinceWarning, stacklevel=level)


def import_extra(module: str, extra: str) -> types.ModuleType:
    """Import an optional dependency, or say which extra brings it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        name = module.partition(".")[0]
        missing = "which" if error.name in (name, None) else f"and {error.name}, which"
        raise ImportError(
            f"this needs {name}, {missing} is not installed: pip install 'rince[{extra}]'"
        ) from error
