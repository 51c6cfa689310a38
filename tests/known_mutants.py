"""What tests/mutants.py is told: mutants made by hand, and those that change nothing."""

from __future__ import annotations

from typing import NamedTuple


class Hand(NamedTuple):
    """A mutant made by hand: the one place in a function that fits a pattern.

    Args:
        room: or module, below the package. function: with its class. pattern: an expression; a
            name of one capital letter stands for any expression. replacement: with these names.
    """

    room: str
    function: str
    pattern: str
    replacement: str
    why: str


HAND_MADE: tuple[Hand, ...] = ()

# (module, function, operator, occurrence in the function) -> why no test can tell it apart.
EQUIVALENT: dict[tuple[str, str, str, int], str] = {}
