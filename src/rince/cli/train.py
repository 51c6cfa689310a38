"""``rince train DATA``."""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from rince.cli.parser import HelpfulParser, jsonargparse, with_underscores
from rince.core.checks import require
from rince.training.config import TrainConfig, from_dict
from rince.training.objectives import OBJECTIVES

GROUPS = [option.name for option in fields(TrainConfig) if option.default_factory is not MISSING]
EXAMPLES = """examples:
  rince train photos/                                   RINCE out-in on nested class folders
  rince train photos/ --objective supcon-out            a baseline, trained in the same way
  rince train photos/ --loss.variant in --loss.temperatures "[0.1, 0.225, 0.5]"
  rince train photos/ --ranks.scores text --ranks.top-k "[3]"  ranks from the class names
  rince train cifar100 --model.backbone resnet50-3x3 --model.momentum 0.99 --model.queue-size 4096
  rince train photos/ --batch-size 4096 --micro-batch 256  a batch larger than the memory
  rince train videos/ --ranks time                      without labels
  rince train intents.csv                               texts with columns text,domain,intent
  rince train features.npz --labels items.csv           a head on features that you have
  rince train --config recipe.yaml --seed 1             flags win over the file
  rince train --resume runs/latest                      go on with a run that stopped
  rince train --resume runs/latest --epochs 60          lengthen one that is finished
  torchrun --nproc-per-node 8 -m rince train photos/    several GPUs
"""


def run(arguments: Sequence[str]) -> None:
    """Train, or go on with a run."""
    given = with_underscores(arguments)
    if any(a == "--resume" or a.startswith("--resume=") for a in given):
        parser = HelpfulParser(
            prog="rince train --resume",
            description="Go on with a run from its last checkpoint, with its own configuration.",
        )
        parser.add_argument(
            "--epochs",
            type=int,
            default=None,
            help="lengthen the run to this many; the learning rate follows the longer schedule",
        )
        parser.add_argument("--resume", type=str, required=True, help="folder of the run")
        parser.add_argument("--progress", type=bool, default=True, help="show the progress bar")
        # Only to say what is wrong with it.
        parser.add_argument("data", nargs="?", default=None, help=argparse.SUPPRESS)
        parsed = parser.parse_args(given)
        if parsed.data is not None:
            parser.error(
                f"{parsed.data}: data are not given when a run goes on, it has its own; leave them "
                f"out (rince train --resume {parsed.resume}), or leave out --resume to start a new "
                "run"
            )
        from rince.training.run import resume

        _say(resume(Path(parsed.resume), epochs=parsed.epochs, progress=parsed.progress))
        return
    config = parse(given)
    config.check_values()  # before anything heavy is imported
    from rince.training.run import train

    _say(train(config))


def _say(folder: Path) -> None:
    """Once, however many processes there are."""
    from rince.core.distributed import is_first_process

    if is_first_process():
        print(f"run: {folder}\nnext: rince evaluate {folder}")


def parse(arguments: Sequence[str]) -> TrainConfig:
    """Flags and YAML to a configuration; wrong ones end the program with a hint."""
    files, given = _without_config(with_underscores(arguments))
    short = {"--skip_unreadable": "--images.skip_unreadable=true"}  # as of the other verbs
    given = [short.get(argument, argument) for argument in given]
    if given and not given[0].startswith("-"):
        given[0:1] = ["--data", given[0]]
    from rince.training.folder import plain_yaml

    parser = build_parser()
    try:
        in_files = [
            flag
            for file in files
            for flag in _flags(plain_yaml(Path(file).read_text(encoding="utf-8")))
        ]
    except (OSError, ValueError) as error:
        parser.error(f"--config {' '.join(files)}: {error}")
    # The parser lets the last one win: flags and DATA win over the file wherever it was given.
    parsed = parser.parse_args([*in_files, *given])
    values: dict[str, Any] = parsed.as_dict()
    values.pop("config", None)
    return from_dict(values)


def _without_config(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The files of ``--config FILE``, however often, and all the rest."""
    files: list[str] = []
    rest: list[str] = []
    waiting = iter(arguments)
    for argument in waiting:
        if argument == "--config":
            files += itertools.islice(waiting, 1)
        elif argument.startswith("--config="):
            files.append(argument.removeprefix("--config="))
        else:
            rest.append(argument)
    return files, rest


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


def build_parser() -> Any:
    """The parser of ``rince train``."""
    parser = HelpfulParser(
        prog="rince train",
        usage="rince train DATA [OPTIONS] | rince train --resume RUN",
        description="Train an encoder on images, videos, texts or stored features with ranked "
        "positives. Options may be written with - or _.",
        epilog=f"{_objectives()}\n{EXAMPLES}",
        # What the other verbs call it; and --ranks time for short.
        aliases={
            "--data_root": "--images.root",
            "--ranks": "--ranks.by",
            "--labels": "--vectors.labels",
        },
    )
    parser.add_argument(
        "--config", action=jsonargparse.ActionConfigFile, help="YAML file with any of the options"
    )
    parser.add_class_arguments(TrainConfig)
    next(a for a in parser._actions if a.dest == "objective").metavar = "NAME"  # listed below
    return parser


def _objectives() -> str:
    """The table, for the help."""
    lines = [
        f"  {row.name:25}{row.summary}"
        + (f" (needs pip install 'rince[{row.package[1]}]')" if row.package else "")
        for row in OBJECTIVES.values()
    ]
    return "\n".join(["objectives:", *lines, ""])
