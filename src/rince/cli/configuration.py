"""A training configuration on the command line: flags, and files of them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from rince.cli.parser import HelpfulParser, jsonargparse, with_underscores
from rince.core.checks import require
from rince.training.config import TrainConfig

GROUPS = [option.name for option in fields(TrainConfig) if option.default_factory is not MISSING]


def configuration_parser(**texts: str) -> HelpfulParser:
    """A parser of all options of ``TrainConfig``; ``texts`` are argparse's."""
    # What the other verbs call it; and --ranks time for short.
    aliases = {"--data_root": "--images.root", "--ranks": "--ranks.by"}
    aliases |= {f"--{name}": f"--vectors.{name}" for name in ("labels", "captions")}
    parser = HelpfulParser(aliases=aliases, **texts)
    parser.add_argument(
        "--config", action=jsonargparse.ActionConfigFile, help="YAML file with any of the options"
    )
    parser.add_class_arguments(TrainConfig)
    return parser


def parsed_options(parser: HelpfulParser, arguments: Sequence[str]) -> dict[str, Any]:
    """Flags and YAML to nested plain data; wrong ones end the program with a hint."""
    of_files = argparse.ArgumentParser(prog=parser.prog, add_help=False, allow_abbrev=False)
    of_files.add_argument("--config", action="append", default=[])
    known, given = of_files.parse_known_args(with_underscores(arguments))
    short = {"--skip_unreadable": "--images.skip_unreadable=true"}  # as of the other verbs
    given = [short.get(argument, argument) for argument in given]
    if given and not given[0].startswith("-"):
        given[0:1] = ["--data", given[0]]
    from rince.training.folder import plain_yaml

    try:
        in_files = [
            flag
            for file in known.config
            for flag in _flags(plain_yaml(Path(file).read_text(encoding="utf-8")))
        ]
    except (OSError, ValueError) as error:
        parser.error(f"--config {' '.join(known.config)}: {error}")
    # The parser lets the last one win: flags and DATA win over the file wherever it was given.
    parsed = parser.parse_args([*in_files, *given])
    values: dict[str, Any] = parsed.as_dict()
    values.pop("config", None)
    return values


def _flags(options: Any, prefix: str = "--") -> list[str]:
    """What a file holds, as on the command line, where the same text means the same."""
    require(isinstance(options, dict), f"a file of options was expected, got {options!r}")
    flags = []
    for name, value in options.items():
        group = name in GROUPS and prefix == "--"
        require(
            not group or value is None or isinstance(value, dict),
            f"{name} must be a group of options, such as {name}: {{NAME: VALUE}}, got {value!r}",
        )
        if value is None and group:
            continue
        if isinstance(value, dict) and (value or name in GROUPS):
            flags += _flags(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            flags.append(f"{prefix}{name}={json.dumps(value)}")
        else:
            flags.append(f"{prefix}{name}={'null' if value is None else value}")
    return flags
