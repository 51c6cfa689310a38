"""``rince demo``: the whole job on Fashion-MNIST."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from rince.cli.parser import HelpfulParser
from rince.core.files import user_path
from rince.evaluation.options import EvaluationOptions
from rince.training.config import ImageOptions, LossOptions, OptimOptions, TrainConfig

METHODS = ("rince", "supcon-out", "cross-entropy")


def run(arguments: Sequence[str]) -> None:
    """Train RINCE and two baselines at one budget, evaluate all, show the table and the report."""
    parser = HelpfulParser(
        prog="rince demo",
        description="Train RINCE out-in, SupCon and cross-entropy on a part of Fashion-MNIST "
        "(10 classes, superclasses tops and footwear) at the same budget, evaluate all three "
        "(handwritten digits as outliers), print the table and write the report.",
    )
    parser.add_argument("--output", default="runs/demo", help="folder for runs and report")
    parser.add_argument("--data_root", help="folder where Fashion-MNIST is")
    parser.add_argument("--per_class", type=int, default=300, help="training images of each class")
    parser.add_argument("--test_per_class", type=int, default=200, help="test images of each class")
    parser.add_argument("--epochs", type=int, default=8, help="number of passes over them")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random")
    given = parser.parse_args(arguments)

    wanted = user_path(given.output)
    others = (wanted.with_name(f"{wanted.name}-{i}") for i in itertools.count(2))
    folder = next(path for path in itertools.chain([wanted], others) if not path.exists())
    print(
        f"Fashion-MNIST, {given.per_class} training and {given.test_per_class} test images a "
        f"class, {given.epochs} epochs, seed {given.seed}: one seed and a small budget show that "
        f"all works, not which method is best"
    )
    configs = [
        TrainConfig(
            data="fashion-mnist",
            objective=objective,
            loss=LossOptions(variant="out-in"),
            optim=OptimOptions(lr=0.1 if objective == "cross-entropy" else 0.25),
            images=ImageOptions(
                root=given.data_root,
                per_class=given.per_class,
                test_per_class=given.test_per_class,
            ),
            epochs=given.epochs,
            batch_size=min(128, 5 * given.per_class),
            log_every=5,
            devices="1",  # small enough; and on several each process would be a demo of its own
            seed=given.seed,
            output=str(folder),
        )
        for objective in METHODS
    ]
    # Heavy imports after the arguments are known to be right.
    from rince.reports.compare import compare_runs
    from rince.training.evaluation import evaluate_run
    from rince.training.run import train

    runs = [train(config) for config in configs]
    for trained in runs:
        evaluate_run(trained, {"digits": "digits"}, options=EvaluationOptions(map_points=600))
    print()
    compare_runs(runs, folder / "report.html", title="rince demo: Fashion-MNIST")
