"""``rince tune DATA``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rince.cli.configuration import configuration_parser, parsed_options
from rince.cli.parser import HelpfulParser, given_of
from rince.training.config import flat, from_dict
from rince.training.options import TuneOptions

_SHOWN = ("help", "config", "data", "objective", "epochs", "batch_size", "seed", "output")
EXAMPLES = """All options of `rince train` are taken too (`rince train --help`), also from a file:
they hold for all trials, and what you set is not searched. Trials are trained on four fifths of
the training items and measured on the last fifth; the test is never used. Scores are kept: after
Ctrl-C, or with more --trials or another --fine-weight, the same command trains nothing twice.

examples:
  rince tune photos/                              12 trials each of RINCE, SupCon, cross-entropy
  rince tune photos/ --fine-weight 0.8            the fine classes matter more: nothing is trained
  rince tune photos/ --epochs 40 --trials 24 --batch-size 512 --model.backbone resnet18-3x3
  rince tune photos/ --search "[lr, batches]" --loss.variant out    what is searched, and what not
  rince tune photos/ --config recipe.yaml --baselines "[]"          no comparison
  rince train --config runs/tune-photos/rince.yaml                  what was chosen, on all of train

What is searched, how, and what it costs: docs/tuning.md.
"""


def run(arguments: Sequence[str]) -> None:
    """Search, show the front, say what was chosen."""
    values = parsed_options(build_parser(), arguments)
    given = given_of(TuneOptions, values)
    options = TuneOptions(**given)
    shared = {name: x for name, x in values.items() if name not in given}
    config = from_dict(shared)
    options.check()
    config.check_values()  # before anything heavy is imported
    from rince.reports.tuning import show_tuned
    from rince.training.tuning import tune

    tuned = tune(config, options, given=[name for name, _ in flat(shared)])
    show_tuned(tuned, config.objective, options.fine_weight)


def build_parser() -> HelpfulParser:
    """The parser of ``rince tune``: all options of ``rince train``, of which it shows the few that
    say how much is trained."""
    parser = configuration_parser(
        prog="rince tune",
        usage="rince tune DATA [OPTIONS]",
        description="Search the settings that trade fine classes against coarse ones: learning "
        "rate, temperatures, variant, and classes x images of a batch. By successive halving: all "
        "trials are trained for a quarter of --epochs, the better quarter anew for all of them. "
        "Draws the front of fine against coarse mAP, with the baselines at the same budget, and "
        "writes the best of each objective as YAML.",
        epilog=EXAMPLES,
    )
    for action in parser._actions:
        if action.dest not in _SHOWN:
            action.help = argparse.SUPPRESS
    parser.add_options(TuneOptions)
    return parser
