"""An argument parser that takes dataclasses of options, and whose errors help."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

from rince.core.checks import import_extra
from rince.core.options import expected, taken, without_none
from rince.models.options import Space

docstrings, yaml = (import_extra(name, "train") for name in ("docstring_parser", "yaml"))

_OLDER = {"text.column": "table.column", "text.labels": "table.labels"}
_NOT_SHOWN = (*(f"--{name}" for name in _OLDER), "--videos.decoder")
# What another verb calls an option, by its last word.
_ELSEWHERE = {"levels": "table.labels", "ranks": "by", "root": "data_root", "learning_rate": "lr"}
_WORDS = {int: "N", float: "X"}


class _PlainHelp(argparse.HelpFormatter):
    """An option, a word for its value, what it is, its default; texts keep their line breaks."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"max_help_position": 30, **options})

    def _expand_help(self, action: argparse.Action) -> str:
        text = action.help or ""
        text = text if text.endswith("...") else text.removesuffix(".")
        if not action.option_strings or action.nargs == 0:
            return text
        default = getattr(action, "if_left_out", action.default)
        if action.required or default is MISSING:
            return f"{text} (required)"
        default = list(default) if isinstance(default, tuple) else default
        left_open = default in (None, [], argparse.SUPPRESS)
        return text if left_open else f"{text} (default: {default})"

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        return "LIST" if action.metavar == "LIST" else super()._format_args(action, default_metavar)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" not in text.strip():
            return super()._fill_text(text, width, indent)
        return "\n".join(indent + line for line in text.split("\n"))


class HelpfulParser(argparse.ArgumentParser):
    """argparse's parser, that takes values as options are meant, with - or _ in their names; an
    unknown option is an error that names the nearest known one."""

    def __init__(self, **texts: Any) -> None:
        # An abbreviation that works today would break when an option is added.
        super().__init__(allow_abbrev=False, formatter_class=_PlainHelp, **texts)
        self.hints: dict[str, Any] = {}  # what the values of options are, by their destinations
        self.elsewhere: dict[str, str] = {}  # options of other verbs, for hints
        self.why_unknown = ""  # beside the hints
        self._negative_number_matcher = re.compile(r"-\.?\d")  # argparse's leaves out -1e-3

    def add_argument(
        self, *names: str, type: Any = None, group: Any = None, **more: Any
    ) -> argparse.Action:
        """argparse's; ``type``: an annotation, such as ``float | None``; ``group``: argparse's."""
        to: Any = group or super()
        kind, _ = without_none(type)
        words = ("true", "false") if kind is bool else get_args(kind)
        if get_origin(kind) is tuple:
            more.setdefault("metavar", "LIST")
            # Several words are a list, where nothing else may follow.
            if all(action.option_strings for action in self._actions):
                more.setdefault("nargs", "+")
        elif words:
            more.setdefault("metavar", f"{{{','.join(words)}}}" if len(words) < 9 else "NAME")
        elif names[0].startswith("-") and more.get("action") in (None, "append"):
            more.setdefault("metavar", None if "choices" in more else _WORDS.get(kind, "TEXT"))
        if names[0] in _NOT_SHOWN:
            more["help"] = argparse.SUPPRESS
        action: argparse.Action = to.add_argument(*names, **more)
        if type is not None:
            self.hints[action.dest] = type
        return action

    def add_options(self, cls: Any, prefix: str = "", skip: Collection[str] = ()) -> None:
        """An option for each field of a dataclass and of those inside it, as their docstrings tell;
        what is left out of the command line is left out of what it gives."""
        about, hints = docstrings.parse(cls.__doc__), get_type_hints(cls)
        texts = {option.arg_name: option.description for option in about.params}
        group = self.add_argument_group(about.short_description.removesuffix("."))
        for option in fields(cls):
            name, hint = option.name, hints[option.name]
            if option.default_factory is not MISSING:
                self.add_options(hint, f"{name}.")
            elif name not in skip:
                more = {"help": " ".join(texts[name].split()), "default": argparse.SUPPRESS}
                action = self.add_argument(f"--{prefix}{name}", type=hint, group=group, **more)
                action.if_left_out = option.default  # type: ignore[attr-defined]

    def add_shared(self, *names: str) -> None:
        """Options of :data:`SHARED`."""
        for name in names:
            self.add_argument(name, **SHARED[name])

    def add_alias(self, alias: str, name: str) -> None:
        """Another name of an option, left out of the help."""
        self._option_string_actions[f"--{alias}"] = self._option_string_actions[f"--{name}"]

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        words = with_underscores(sys.argv[1:] if args is None else args)
        given, unknown = self.parse_known_args(words, namespace)
        if unknown:
            late = "data" in self.hints and "data" not in vars(given)
            first = f"must come first: {self.prog} {unknown[0]} ..."
            quotes = "is one too many: names with blanks, and patterns of files, go into quotes"
            self.refuse(unknown, first if late else quotes)
        for name, value in vars(given).items():
            if name in _OLDER:
                print(f"note: --{name} is --{_OLDER[name]} now", file=sys.stderr)
            if name in self.hints and value != self.get_default(name):
                several = isinstance(value, list)
                text = ",".join(x.rstrip(",") for x in value) if several else value
                if str(text).strip("\"'") in ("None", "null", "~"):  # in quotes: of this name
                    text = text.strip("\"'") if text[0] in "\"'" else None
                setattr(given, name, self.taken(name, text))
        return given

    def destination(self, name: str) -> str:
        """What an option is called, of which this is a name: of ``labels`` ``vectors.labels``."""
        option = with_underscores([f"--{name}"])[0]
        action = self._option_string_actions.get(option)
        return option[2:] if action is None else action.dest

    def taken(self, name: str, value: Any) -> Any:
        """The value of an option as its type takes it; ``a b``, ``a,b`` and ``[a, b]`` are one
        list."""
        hint = self.hints[name]
        try:
            if get_origin(without_none(hint)[0]) is tuple and isinstance(value, str):
                text = value.strip()
                if text[:1] in ("", "[", "'", '"'):
                    value = yaml.load(text if text[:1] == "[" else f"[{text}]", yaml.BaseLoader)
            return taken(f"--{name}", hint, value)
        except yaml.YAMLError:
            self.error(f"--{name} must be {expected(hint)}, got {value}")
        except ValueError as error:
            self.error(str(error))

    def refuse(self, unknown: Sequence[str], why: str = "") -> NoReturn:
        """End the program for what there is no option for, with a hint; ``why``: of a word."""
        # A file may hold one that is for the command line alone.
        hidden = {*unknown, *_NOT_SHOWN}
        known = [x for x in self._option_string_actions if len(x) > 2 and x not in hidden]
        hints = []
        for option in dict.fromkeys(x.partition("=")[0] for x in unknown if x.startswith("--")):
            # The last word alone finds --variant -> --loss.variant, --optim.epochs -> --epochs.
            last = option[2:].rpartition(".")[2]
            last = _ELSEWHERE.get(last, last)
            tails = [o for o in known if o == f"--{last}" or o.endswith(f".{last}")]
            # Of a group no name is near for the group alone.
            names = {o: o.rpartition(".")[2] if "." in option else o[2:] for o in known}
            word = last if "." in option else option[2:]
            near = difflib.get_close_matches(word, names.values(), n=1)
            close = tails or [o for o, name in names.items() if name in near]
            hint = f": did you mean {' or '.join(close)}?" if close else ""
            if not tails and last in self.elsewhere:
                hint = f": `{self.elsewhere[last]}` has --{last}"
            hints.append(f"{option} is not an option{hint}")
        if not unknown[0].startswith("-"):
            hints.append(f"{unknown[0]} {why}")
        hints += [self.why_unknown] if self.why_unknown else []
        self.error("\n".join(hints) or f"unrecognized arguments: {' '.join(unknown)}")

    def error(self, message: str) -> NoReturn:
        print(f"{message}\nTry `{self.prog} --help`.", file=sys.stderr)
        sys.exit(2)


def given_of(cls: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a dataclass that were given."""
    return {x.name: given[x.name] for x in fields(cls) if x.name in given}


def nested(options: Mapping[str, Any]) -> dict[str, Any]:
    """Plain data of groups from dotted names.

    >>> nested({"data": "photos", "loss.variant": "in"})
    {'data': 'photos', 'loss': {'variant': 'in'}}
    """
    groups: dict[str, Any] = {}
    for name, value in options.items():
        group, _, option = name.rpartition(".")
        (groups.setdefault(group, {}) if group else groups)[option] = value
    return groups


SHARED: dict[str, dict[str, Any]] = {  # the same for all verbs that have them
    "--space": {
        "choices": get_args(Space),
        "help": "embedding: of the projection head, which the loss saw; backbone: its features. By "
        "default the embedding, and of a run that was trained as a classifier the backbone; an "
        "export gives what it was exported with",
    },
    "--skip_unreadable": {
        "action": "store_true",
        "help": "leave out images and videos that cannot be read, outliers too, with a warning",
    },
    "--device": {"default": "auto", "help": "auto, cpu, cuda, cuda:1, mps"},
}


def add_table(parser: HelpfulParser, column: str) -> None:
    """``--table.column`` and ``--table.encoding``, the same for all verbs that only look at data;
    ``column``: of what, and its default."""
    parser.add_argument("--table.column", dest="column", help=column)
    parser.add_alias("text.column", "table.column")
    parser.add_argument(
        "--table.encoding",
        dest="encoding",
        help="of tables and files of text, such as cp1252 (default: UTF-8, or what a byte order "
        "mark says)",
    )


def with_underscores(arguments: Sequence[str]) -> list[str]:
    """``--batch-size 8`` means ``--batch_size 8``; and ``--output=~/runs`` what it does without the
    ``=``, behind which shells leave the ``~``."""
    given = [re.sub(r"(?<=^--)[^=]+", lambda x: x[0].replace("-", "_"), a) for a in arguments]
    return [re.sub(r"^(--[^=]+=)~/", lambda x: x[1] + os.path.expanduser("~/"), a) for a in given]
