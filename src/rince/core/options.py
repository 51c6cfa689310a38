"""What all options objects share: values as they are meant, one check of types and ranges.

Types are the annotations; a range stands beside its field: ``epochs: int = limited(20, low=1)``.
"""

from __future__ import annotations

import difflib
import math
import operator
import os
from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from datetime import date
from numbers import Real
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from rince.core.checks import require

Built = TypeVar("Built")

_LIMITS = {
    "low": (operator.ge, "at least"),
    "above": (operator.gt, "above"),
    "high": (operator.le, "at most"),
    "below": (operator.lt, "below"),
}
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
_TRUE, _FALSE = ("true", "yes", "on"), ("false", "no", "off")


def limited(default: Any, *, shortest: int = 0, **limits: float) -> Any:
    """A field of a number, or of a list of numbers, of which ``shortest`` is the fewest; limits
    are low and high, which belong to the range, above and below, which do not."""
    return field(default=default, metadata={"limits": limits, "shortest": shortest})


@dataclass  # as all that inherit from it are
class Options:
    """The base of dataclasses of options: building one never fails, ``check()`` does.

    Values are taken as they are meant: a list, or a text ``a,b``, is a tuple, a ``Path`` is text,
    and of what a file holds ``"1e-3"`` is a number where the annotation says so.

    Example:
        >>> @dataclass
        ... class Optim(Options):
        ...     prefix = "optim."
        ...     lr: float | None = limited(None, above=0)
        >>> Optim("1e-3")
        Optim(lr=0.001)
        >>> Optim(-1).check()
        Traceback (most recent call last):
        ValueError: optim.lr must be a number, above 0 (or None), got -1
    """

    prefix = ""  # of the names in messages

    def __post_init__(self) -> None:
        self._convert()

    def _convert(self) -> None:
        """What is meant, in place of what was given: a tuple for a list, a number for its text."""
        for name, hint in get_type_hints(type(self)).items():
            setattr(self, name, _meant(hint, getattr(self, name)))

    def check(self) -> None:
        """Refuse values of another type, out of range, or that do not go together.

        Raises:
            ValueError: the message names the option, what it takes and what was given.
        """
        self._check_fields()

    def _check_fields(self, *, any_word: Collection[str] = (), types_only: bool = False) -> None:
        """Each field by itself, and the options inside. ``any_word``: fields that may hold other
        words than those of their annotation; ``types_only``: nor are ranges looked at."""
        self._convert()  # fields may have been set since the options were built
        hints = get_type_hints(type(self))
        _refuse_unknown(vars(self), [option.name for option in fields(self)], self.prefix)
        for option in fields(self):
            value, loose = getattr(self, option.name), types_only or option.name in any_word
            name = f"{self.prefix}{option.name}"
            _require_fits(name, hints[option.name], value, option.metadata, loose)
            if isinstance(value, Options):
                value._check_fields(types_only=True) if types_only else value.check()


def expected(kind: Any, metadata: Mapping[str, Any] | None = None) -> str:
    """What a field takes, in words: "a whole number, at least 1"."""
    metadata = metadata or {}
    limits = " and ".join(f"{_LIMITS[n][1]} {x:g}" for n, x in metadata.get("limits", {}).items())
    limits = limits and f", {limits}"
    kind, _ = without_none(kind)
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    if get_origin(kind) is tuple:
        some = " of one or more" if metadata.get("shortest") else " of"
        inner = get_args(kind)[0]
        if get_origin(inner) is Literal:
            return f"a list{some} {', '.join(get_args(inner))}"
        of_text = inner is str
        return f"a list{some} {'texts, as [a, b]' if of_text else f'numbers{limits}, as [1, 2]'}"
    return _KINDS.get(kind, "a group of options") + limits


def from_plain(cls: type[Built], data: Mapping[str, Any] | None, prefix: str = "") -> Built:
    """Build a dataclass of options, and those inside it, from nested plain data.

    Values are taken as :class:`Options` takes them; ``check()`` refuses what is wrong. None is an
    empty group, as YAML reads a name with nothing behind it. ``prefix``: of names in messages.

    Example:
        >>> @dataclass
        ... class Loss(Options):
        ...     temperatures: tuple[float, ...] | None = None
        >>> from_plain(Loss, {"temperatures": [0.1, 0.3]})
        Loss(temperatures=(0.1, 0.3))
        >>> from_plain(Loss, {"temperature": 0.1})
        Traceback (most recent call last):
        ValueError: there is no option temperature: did you mean temperatures?
    """
    data = {} if data is None else data
    require(
        isinstance(data, Mapping),
        f"{prefix.rstrip('.') or 'the configuration'} must be a group of options, got {data!r}",
    )
    known = {option.name: option for option in fields(cls)}  # type: ignore[arg-type]
    _refuse_unknown(data, known, prefix)
    for name, option in known.items():
        has_default = option.default is not MISSING or option.default_factory is not MISSING
        require(name in data or has_default, f"the option {prefix}{name} is missing")
    kinds = {name: without_none(hint)[0] for name, hint in get_type_hints(cls).items()}
    return cls(
        **{
            name: from_plain(kinds[name], x, f"{prefix}{name}.") if is_dataclass(kinds[name]) else x
            for name, x in data.items()
        }
    )


def _refuse_unknown(given: Collection[str], known: Collection[str], prefix: str) -> None:
    for name in given:
        near = difflib.get_close_matches(str(name), known)
        hint = f"did you mean {prefix}{near[0]}?" if near else f"known are {', '.join(known)}"
        require(name in known, f"there is no option {prefix}{name}: {hint}")


def taken(name: str, hint: Any, given: Any) -> Any:
    """A value as a field of this type takes it, whatever its range.

    Raises:
        ValueError: "NAME must be a number, got 'x'".
    """
    value = _meant(hint, given)
    _require_fits(name, hint, value, {}, loose=False)
    return value


def _require_fits(
    name: str, hint: Any, value: Any, metadata: Mapping[str, Any], loose: bool
) -> None:
    kind, optional = without_none(hint)
    require(
        (value is None and optional) or _fits(kind, value, metadata, loose),
        f"{name} must be {expected(kind, metadata)}{' (or None)' * optional}, got {value!r}"
        f"{near_words(kind, value)}",
    )


def near_words(kind: Any, given: object) -> str:
    """For a message: which of the words that a field takes are near to what was given."""
    kind, _ = without_none(kind)
    kind = get_args(kind)[0] if get_origin(kind) is tuple else kind
    words = list(map(str, get_args(kind))) if get_origin(kind) is Literal else []
    each = given if isinstance(given, list | tuple) else [given]
    wrong = next((str(x) for x in each if x not in words), "")
    near = difflib.get_close_matches(wrong, words, n=3)
    return f": did you mean {' or '.join(near)}?" if near else ""


def without_none(hint: Any) -> tuple[Any, bool]:
    """A type without None, and whether that was one of its values."""
    kinds = get_args(hint)
    return (kinds[0], True) if NoneType in kinds else (hint, False)


def _meant(kind: Any, value: Any) -> Any:
    """The value as this type, if it can mean one; otherwise as it is, for the check to refuse."""
    kind, _ = without_none(kind)
    if isinstance(value, bool):
        return value
    if get_origin(kind) is tuple and isinstance(value, str | Real):
        value = [part.strip() for part in str(value).split(",")]
    if get_origin(kind) is tuple and isinstance(value, list | tuple):
        return tuple(_meant(get_args(kind)[0], x) for x in value)
    if kind is str and isinstance(value, os.PathLike):
        return os.fspath(value)
    if kind is str and isinstance(value, str | int | float | date):
        return str(value)  # a plain one of numpy's too, which YAML does not know
    if kind is bool and isinstance(value, str) and value.lower() in _TRUE + _FALSE:
        return value.lower() in _TRUE
    return (
        as_meant_number(kind, value)
        if kind in (int, float) and isinstance(value, str | Real)
        else value
    )


def as_meant_number(kind: type, given: Any) -> Any:
    """An int where all digits are given, or a whole number is wanted and meant (2.0, 1e3); else a
    float; what is no number, as it is."""
    text = str(given).strip()
    try:
        number = int(text) if text.lstrip("+-").isdigit() else float(given)
    except ValueError:
        return given
    return int(number) if kind is int and float(number).is_integer() else number


def _fits(kind: Any, value: Any, metadata: Mapping[str, Any], loose: bool) -> bool:
    if get_origin(kind) is Literal:
        return isinstance(value, str) if loose else value in get_args(kind)
    if get_origin(kind) is tuple:
        return (
            isinstance(value, tuple)
            and (loose or len(value) >= metadata.get("shortest", 0))
            and all(_fits(get_args(kind)[0], x, metadata, loose) for x in value)
        )
    if isinstance(value, bool) and kind is not bool:
        return False
    if kind is str:
        return isinstance(value, str) and (loose or value.strip() != "")
    if not isinstance(value, (int, float) if kind is float else kind):
        return False
    if kind not in (int, float) or loose:
        return True
    limits = metadata.get("limits", {})
    return math.isfinite(value) and all(_LIMITS[n][0](value, x) for n, x in limits.items())
