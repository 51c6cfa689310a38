"""An argument parser whose errors help."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, get_args, get_origin

from rince.core.checks import import_extra
from rince.core.options import as_meant_number, expected, near_words, without_none
from rince.models.options import Space

jsonargparse = import_extra("jsonargparse", "train")


class _PlainHelp(jsonargparse.DefaultHelpFormatter):  # type: ignore[name-defined,misc]
    """An option, a word for its value, what it is, its default; texts keep their line breaks."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"max_help_position": 30, **options})

    def _get_help_string(self, action: Any) -> str:
        text: str = action.help or ""
        text = text if text.endswith("...") else text.removesuffix(".")
        if action.required and action.option_strings:
            return f"{text} (required)"
        has_value = action.option_strings and action.nargs != 0
        _, may_be_none = without_none(getattr(action, "_typehint", None))
        no_default = action.default in (argparse.SUPPRESS, None) and not may_be_none
        return text if no_default or not has_value else f"{text} (default: %(default)s)"

    def _expand_help(self, action: Any) -> str:
        text: str = super()._expand_help(action)
        # As it is typed: a list, and None, which the parser is told to read.
        text = re.sub(r"\(default: \(([^()]*?),?\)\)$", r"(default: [\1])", text)
        return text.replace("(default: null)", "(default: None)")

    def _get_default_metavar_for_optional(self, action: Any) -> str:
        kind = self._get_type_str(action) or ""
        words = {"tuple": "LIST", "int": "N", "float": "X", "str": "TEXT"}
        usual: str = super()._get_default_metavar_for_optional(action)
        return next((word for name, word in words.items() if name in kind), usual)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" not in text.strip():
            filled: str = super()._fill_text(text, width, indent)
            return filled
        return "\n".join(indent + line for line in text.split("\n"))


class HelpfulParser(jsonargparse.ArgumentParser):  # type: ignore[name-defined,misc]
    """jsonargparse's parser; an unknown option is an error that names the nearest known one.

    ``aliases``: other names of options, left out of the help.
    """

    def __init__(self, *, aliases: Mapping[str, str] | None = None, **options: Any) -> None:
        self._aliases = dict(aliases or {})
        # An abbreviation that works today would break when an option is added.
        super().__init__(allow_abbrev=False, formatter_class=_PlainHelp, **options)

    def parse_args(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> Any:
        given: list[str] = []
        for argument in self._listed(with_underscores(sys.argv[1:] if args is None else args)):
            name, equals, value = argument.partition("=")
            if name.startswith("--"):
                name = self._aliases.get(name, name)
                argument = name + equals + (self._as_typed(name, value) if equals else "")
            elif given and given[-1].startswith("--"):
                argument = self._as_typed(given[-1], argument)
            given.append(argument)
        return super().parse_args(given, *rest, **options)

    def _listed(self, args: Sequence[str]) -> list[str]:
        """``--option a b`` is ``--option a,b`` where a list is expected, and nothing else may
        follow."""
        joined: list[str] = []
        option = ""
        for argument in args:
            if argument.startswith("--"):
                option = "" if "=" in argument else self._aliases.get(argument, argument)
            elif not joined[-1:] or joined[-1].startswith("--") or not self._takes_list(option):
                pass
            elif all(action.option_strings for action in self._actions):
                joined[-1] += f",{argument}"
                continue
            joined.append(argument)
        return joined

    def _hint(self, option: str) -> Any:
        action = next((a for a in self._actions if option in a.option_strings), None)
        hint, _ = without_none(getattr(action, "_typehint", None) or getattr(action, "type", None))
        return hint

    def _takes_list(self, option: str) -> bool:
        return get_origin(self._hint(option)) is tuple

    def _as_typed(self, option: str, value: str) -> str:
        """A value as jsonargparse takes it: None is null, ``a,b`` a list where one is expected."""
        if value == "None":
            return "null"
        hint = self._hint(option)
        if hint is int or get_args(hint)[:1] == (int,):  # 2.0 and 1e3 are whole numbers
            value = re.sub(r"[^\[\],\s\"]+", _whole, value)
        plain = value not in ("null", "~") and value[:1] != "["
        return f"[{value}]" if plain and self._takes_list(option) else value

    def format_help(self) -> str:
        for action in self._actions:  # --loss FILE and the like: --config does it for all
            if action.help == "Path to a configuration file.":
                action.help = argparse.SUPPRESS
        text: str = super().format_help()
        return text

    def error(self, message: str, exception: Exception | None = None) -> NoReturn:
        known = [o for action in self._actions for o in action.option_strings if len(o) > 2]
        known += self._aliases
        typed = {a.dest: a.option_strings[-1] for a in self._actions if a.option_strings}
        message = re.sub(
            r"(?<=arguments are required: ).*",
            lambda names: ", ".join(typed.get(name, name) for name in names[0].split(", ")),
            message,
        )
        text = re.sub(r"^Parser key \"([^\"]*)\":\s*", r"--\1: ", message.strip())
        key, _, given = text.removeprefix("--").partition(": ")
        hint = next(
            (a._typehint for a in self._actions if getattr(a, "_typehint", 0) and a.dest == key),
            None,
        )
        value = re.search(r"(?:Got value|Given value): (.*)", given)
        if hint is not None and value is not None:
            got = re.sub(r"NestedArg\(key=(.*), val=(.*)\)", r"{\1: \2}", value[1])
            text = f"--{key} must be {expected(hint)}, got {got}{near_words(hint, got)}"
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


def _whole(written: re.Match[str]) -> str:
    meant = as_meant_number(int, written[0])
    return str(meant) if isinstance(meant, int) else written[0]


def add_space(parser: HelpfulParser) -> None:
    """``--space``, the same for all verbs that compare items."""
    parser.add_argument(
        "--space",
        choices=get_args(Space),
        help="embedding: of the projection head, which the loss saw; backbone: its features. By "
        "default the embedding, and of a run that was trained as a classifier the backbone; an "
        "export gives what it was exported with",
    )


def add_skip_unreadable(parser: HelpfulParser) -> None:
    """``--skip_unreadable``, the same for all verbs."""
    parser.add_argument(
        "--skip_unreadable",
        action="store_true",
        help="leave out images and videos that cannot be read, outliers too, with a warning",
    )


def add_table(parser: HelpfulParser, column: str) -> None:
    """``--table.column`` and ``--table.encoding``, the same for all verbs that only look at data;
    ``column``: of what, and its default."""
    parser._aliases["--text.column"] = "--table.column"
    parser.add_argument("--table.column", dest="column", help=column)
    parser.add_argument(
        "--table.encoding",
        dest="encoding",
        help="of tables and files of text, such as cp1252 (default: UTF-8, or what a byte order "
        "mark says)",
    )


def with_underscores(arguments: Sequence[str]) -> list[str]:
    """``--batch-size 8`` means ``--batch_size 8``; values are left alone."""
    return [re.sub(r"(?<=^--)[^=]+", lambda x: x[0].replace("-", "_"), a) for a in arguments]
