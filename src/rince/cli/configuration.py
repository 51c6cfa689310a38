"""A training configuration on the command line: flags, and files of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields
from typing import Any

from rince.cli.parser import HelpfulParser, nested, with_underscores
from rince.core.checks import RinceError, require
from rince.core.files import user_path
from rince.core.tables import read_text
from rince.training.config import TrainConfig
from rince.training.options import TuneOptions

GROUPS = [option.name for option in fields(TrainConfig) if option.default_factory is not MISSING]
_SHORT = {  # and what the other verbs call it
    "data_root": "images.root",
    "ranks": "ranks.by",
    "labels": "vectors.labels",
    "captions": "vectors.captions",
}


def configuration_parser(**texts: str) -> HelpfulParser:
    """A parser of all options of ``TrainConfig``; ``texts`` are argparse's."""
    parser = HelpfulParser(**texts)
    parser.add_argument(
        "--config", action="append", default=[], help="YAML file with any of the options"
    )
    parser.add_options(TrainConfig)
    for alias, name in _SHORT.items():
        parser.add_alias(alias, name)
    parser.elsewhere = {option.name: "rince tune" for option in fields(TuneOptions)}
    return parser


def parsed_options(parser: HelpfulParser, arguments: Sequence[str]) -> dict[str, Any]:
    """Flags and YAML to nested plain data of what is given; what is wrong ends the program with a
    hint. Flags and DATA win over a file, wherever it was given."""
    short = {"--skip_unreadable": "--images.skip_unreadable=true"}  # as of the other verbs
    given = [short.get(argument, argument) for argument in with_underscores(arguments)]
    first = 0
    while given[first:] and given[first].partition("=")[0] == "--config":
        first += 1 if "=" in given[first] else 2
    if given[first:] and not given[first].startswith("-"):
        given.insert(first, "--data")
    flags = vars(parser.parse_args(given))
    files: list[str] = flags.pop("config")
    in_files: dict[str, Any] = {}
    from rince.training.folder import plain_yaml

    try:
        for file in files:
            options = plain_yaml(read_text(user_path(file), "options", "utf-8"))
            entries = list(_entries(parser, options))
            spellings: dict[str, list[str]] = {}
            for name, _ in entries:
                spellings.setdefault(parser.destination(name), []).append(name)
            for name, *others in spellings.values():
                same = f"{name} is given twice"
                if others != [name]:
                    same = f"{' and '.join([name, *others])} are one option: give it once"
                require(not others, same)
            in_files |= {parser.destination(name): value for name, value in entries}
    except (RinceError, ValueError) as error:
        parser.error(f"--config {file}: {error}")
    if unknown := [f"--{name}" for name in in_files if name not in parser.hints]:
        parser.refuse(unknown)
    values = {name: parser.taken(name, value) for name, value in in_files.items()} | flags
    if "data" not in values:
        parser.error("the following arguments are required: --data")
    return nested(values)


def _entries(parser: HelpfulParser, options: Any) -> Iterator[tuple[str, Any]]:
    """What a file holds, by the names of the command line."""
    require(isinstance(options, dict), f"a file of options was expected, got {options!r}")
    for name, value in options.items():
        if name in GROUPS:
            require(
                value is None or isinstance(value, dict),
                f"{name} must be a group of options, such as {name}: {{NAME: VALUE}}, got "
                f"{value!r}",
            )
        elif not isinstance(value, dict) or not value or parser.destination(name) in parser.hints:
            yield name, value
            continue
        yield from ((f"{name}.{option}", x) for option, x in (value or {}).items())
