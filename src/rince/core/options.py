"""What all option objects share: words out of a list, and building one from plain data (YAML)."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from rince.core.checks import require

Options = TypeVar("Options")


def check_choices(options: Any, prefix: str = "", skip: Collection[str] = ()) -> None:
    """Refuse a value that is not one of the words of its ``Literal`` type.

    Types are not checked at run time, and a wrong word would fail late, or choose a default.

    Args:
        options: a dataclass. prefix: before the names in the message, as ``loss.``.
        skip: fields not to look at.

    Raises:
        ValueError: the message names the field and the words.
    """
    for name, hint in get_type_hints(type(options)).items():
        if get_origin(hint) is Literal and name not in skip:
            given, allowed = getattr(options, name), get_args(hint)
            require(
                given in allowed,
                f"{prefix}{name} must be one of {', '.join(allowed)}, got {given!r}",
            )


def from_plain(cls: type[Options], data: Mapping[str, Any], prefix: str = "") -> Options:
    """Build a dataclass of options, and those inside it, from nested plain data.

    Lists become tuples where the field is one. Values are not checked: an option object's own
    ``check()`` does that.

    Args:
        cls: the dataclass. data: name -> value; fields left out take their defaults.
        prefix: before the names in the message, as ``loss.``.

    Raises:
        ValueError: an unknown or missing entry; the message names the nearest known one.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Options:
        ...     temperatures: tuple[float, ...] | None = None
        >>> from_plain(Options, {"temperatures": [0.1, 0.3]})
        Options(temperatures=(0.1, 0.3))
        >>> from_plain(Options, {"temperature": 0.1})
        Traceback (most recent call last):
        ValueError: there is no option temperature: did you mean temperatures?
    """
    require(
        isinstance(data, Mapping),
        f"{prefix.rstrip('.') or 'the configuration'} must be a group of options, got {data!r}",
    )
    known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]
    for name in data:
        near = difflib.get_close_matches(str(name), known, n=1)
        hint = f"did you mean {prefix}{near[0]}?" if near else f"known are {', '.join(known)}"
        require(name in known, f"there is no option {prefix}{name}: {hint}")
    for name, field in known.items():
        has_default = field.default is not MISSING or field.default_factory is not MISSING
        require(name in data or has_default, f"the option {prefix}{name} is missing")
    hints = get_type_hints(cls)
    return cls(**{name: _converted(hints[name], x, f"{prefix}{name}.") for name, x in data.items()})


def _converted(hint: Any, value: Any, prefix: str) -> Any:
    if is_dataclass(hint):
        return from_plain(hint, value, prefix)  # type: ignore[arg-type]
    if isinstance(value, list) and any(
        get_origin(each) is tuple for each in (hint, *get_args(hint))
    ):
        return tuple(value)
    return value
