"""An argument parser whose errors help."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from rince.core.checks import import_extra

jsonargparse = import_extra("jsonargparse", "train")


class _KeepLines(jsonargparse.DefaultHelpFormatter):  # type: ignore[name-defined,misc]
    """Leaves the line breaks of descriptions and examples as they are written."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" not in text.strip():
            filled: str = super()._fill_text(text, width, indent)
            return filled
        return "".join(indent + line for line in text.splitlines(keepends=True))


class HelpfulParser(jsonargparse.ArgumentParser):  # type: ignore[name-defined,misc]
    """jsonargparse's parser; an unknown option is an error that names the nearest known one.

    Args:
        aliases: other names of options, left out of the help.
        options: as in jsonargparse.
    """

    def __init__(self, *, aliases: Mapping[str, str] | None = None, **options: Any) -> None:
        self._aliases = dict(aliases or {})
        # An abbreviation that works today would break when an option is added.
        super().__init__(allow_abbrev=False, formatter_class=_KeepLines, **options)

    def parse_args(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> Any:
        given = []
        for argument in sys.argv[1:] if args is None else args:
            name, equals, value = argument.partition("=")
            given.append(self._aliases.get(name, name) + equals + value)
        return super().parse_args(given, *rest, **options)

    def error(self, message: str, exception: Exception | None = None) -> NoReturn:
        known = [o for action in self._actions for o in action.option_strings if len(o) > 2]
        known += self._aliases
        text = re.sub(r"^Parser key \"([^\"]*)\":\s*", r"--\1: ", message.strip())
        text = text.replace("typing.Literal", "one of ")
        hints = []
        named = re.findall(r"--[\w.]+|(?<=Key ')[\w.]+|(?<=key ')[\w.]+", text)
        in_files = re.findall(r"Group '([\w.]+)' does not accept option '([\w.]+)'", text)
        for name in [*named, *map(".".join, in_files)]:
            option = name if name.startswith("--") else f"--{name}"
            if option in known:
                continue
            # The last word alone finds --variant -> --loss.variant, --optim.epochs -> --epochs.
            last = option[2:].rpartition(".")[2]
            tails = [o for o in known if o == f"--{last}" or o.endswith(f".{last}")]
            close = tails or difflib.get_close_matches(option, known, n=1, cutoff=0.6)
            if close:
                hints.append(f"{option} is not an option: did you mean {' or '.join(close)}?")
        for name in re.findall(r"^unrecognized arguments: ([^-\s]\S*)", text):
            hints.append(f"{name} must come first: {self.prog} {name} ...")
        print("\n".join(hints) or text, file=sys.stderr)
        print(f"Try `{self.prog} --help`.", file=sys.stderr)
        sys.exit(2)


def with_underscores(arguments: Sequence[str]) -> list[str]:
    """``--batch-size 8`` means ``--batch_size 8``; values are left alone."""
    found = []
    for argument in arguments:
        if argument.startswith("--"):
            name, equals, value = argument.partition("=")
            argument = "--" + name[2:].replace("-", "_") + equals + value
        found.append(argument)
    return found
