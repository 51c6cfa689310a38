"""``rince train DATA``."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from rince.cli.configuration import configuration_parser, parsed_options
from rince.cli.parser import HelpfulParser, with_underscores
from rince.core.checks import require
from rince.training.config import TrainConfig, from_dict
from rince.training.objectives import OBJECTIVES

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
  rince train images.npz --captions captions.npz        images and texts in one space
  rince train --config recipe.yaml --seed 1             flags win over the file
  rince train photos/ --seeds 0 1 2                     a run each; again: what is left of them
  rince train photos/ --logger tensorboard wandb        beside metrics.csv
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
        parser.why_unknown = (
            "A run that goes on keeps its own options, in its config.yaml (where optim.lr and a "
            "few others may be changed): leave these out, or leave out --resume to start a new run."
        )
        parser.add_argument(
            "--epochs",
            type=int,
            help="lengthen the run to this many; the learning rate follows the longer schedule",
        )
        parser.add_argument("--resume", required=True, help="folder of the run")
        parser.add_argument("--progress", type=bool, default=True, help="show the progress bar")
        # Only to say what is wrong with it.
        parser.add_argument("data", nargs="?", help=argparse.SUPPRESS)
        parsed = parser.parse_args(given)
        if parsed.data is not None:
            parser.error(
                f"{parsed.data}: data are not given when a run goes on, it has its own; leave them "
                f"out (rince train --resume {shlex.quote(parsed.resume)}), or leave out --resume "
                f"to start a new run"
            )
        from rince.training.run import resume

        _say(resume(Path(parsed.resume), epochs=parsed.epochs, progress=parsed.progress))
        return
    printed = "--print_config" in given
    config, seeds = parse_with_seeds([one for one in given if one != "--print_config"])
    config.check_values()  # before anything heavy is imported
    if printed:
        from rince.training.folder import config_yaml

        print(config_yaml(config), end="")
        return
    if seeds is None:
        from rince.training.run import train

        folders = [train(config)]
    else:
        from rince.training.seeds import train_seeds

        folders = train_seeds(config, seeds)
    _say(*folders) if config.vectors.captions is None else _show_towers(folders)


def _say(*folders: Path) -> None:
    """Once, however many processes there are."""
    from rince.core.distributed import is_first_process

    if is_first_process():
        print("\n".join(f"run: {folder}" for folder in folders))
        print(f"next: rince evaluate {shlex.join(map(str, folders))}")


def _show_towers(folders: Sequence[Path]) -> None:
    """They are evaluated already."""
    from rince.reports.reading import read_run
    from rince.reports.table import print_table

    print()
    print_table([read_run(folder) for folder in folders])
    image, text = (shlex.quote(str(folders[0] / "export" / x)) for x in ("image", "text"))
    print("\n".join(f"run: {folder}" for folder in folders))
    print(f"next: rince embed {image} IMAGES.npz -o gallery.npz")
    print(f"      rince search TEXT.npy --gallery gallery.npz --run {text}")


def parse_with_seeds(arguments: Sequence[str]) -> tuple[TrainConfig, tuple[int, ...] | None]:
    """Flags and YAML to a configuration, and the seeds to train it with; None: its own. Wrong ones
    end the program with a hint."""
    values = parsed_options(build_parser(), arguments)
    seeds = values.pop("seeds", None)
    alone = any(one.partition("=")[0] == "--seed" for one in arguments)
    require(
        seeds is None or not alone,
        f"--seeds {' '.join(map(str, seeds or ()))} and --seed {values.get('seed')}: give one of "
        f"the two, --seed for a single run",
    )
    return from_dict(values), seeds


def build_parser() -> HelpfulParser:
    """The parser of ``rince train``."""
    parser = configuration_parser(
        prog="rince train",
        usage="rince train DATA [OPTIONS] | rince train --resume RUN",
        description="Train an encoder on images, videos, texts or stored features with ranked "
        "positives. Options may be written with - or _.",
        epilog=f"{_objectives()}\n{EXAMPLES}",
    )
    parser.add_argument(
        "--print_config",
        action="store_true",
        default=argparse.SUPPRESS,
        help="print all options as YAML, and train nothing",
    )
    parser.add_argument(
        "--seeds",
        type=tuple[int, ...] | None,
        default=argparse.SUPPRESS,  # which would win over those of a file
        help="train with each of these, as NAME-seedN; given again, runs that are finished are "
        "left as they are, and one that stopped goes on",
    )
    return parser


def _objectives() -> str:
    """The table, for the help."""
    lines = [
        f"  {row.name:25}{row.summary}"
        + (f" (needs pip install 'rince[{row.package[1]}]')" if row.package else "")
        for row in OBJECTIVES.values()
    ]
    return "\n".join(["objectives:", *lines, ""])
