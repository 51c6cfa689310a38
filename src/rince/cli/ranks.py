"""``rince ranks DATA``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from rince.cli.parser import HelpfulParser, with_underscores
from rince.training.config import RanksConfig

EXAMPLES = """examples:
  rince ranks photos/                    photos/<superclass>/<class>/*.jpg, any depth
  rince ranks classes.csv --batch-size 512
  rince ranks cifar100
  rince ranks photos/ --scores text --top-k "[3]"        from the class names
  rince ranks photos/ --scores mine.csv --thresholds "[0.8, 0.5]"
"""
# Without a rule the histogram is still worth a look, and something has to be drawn.
SHOWN_QUANTILES = (0.95,)
NOISE = {"score_noise", "move_classes", "forget"}


def run(arguments: Sequence[str]) -> None:
    """Describe the ranks of a data set."""
    parser = HelpfulParser(
        prog="rince ranks",
        description="Show the ranks of a data set before any training: classes, superclasses, and "
        "how many positives of each rank a batch will hold. With --scores: of similarity scores, "
        "and which pairs are doubtful.",
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "data", help="a folder of class folders, a csv file, fashion-mnist, or cifar100"
    )
    parser.add_argument("--batch_size", type=int, default=256, help="images a step")
    parser.add_argument("--names", action="store_true", help="also list classes by superclass")
    parser.add_class_arguments(RanksConfig, skip=NOISE)
    parser.add_argument(
        "--save_scores",
        type=str,
        default=None,
        metavar="CSV",
        help="write the scores to a table to look at, edit, and give back as --scores",
    )
    found = parser.parse_args(with_underscores(arguments))
    options = {f.name: getattr(found, f.name) for f in fields(RanksConfig) if f.name not in NOISE}
    config, chosen = RanksConfig(**options), True
    if config.scores is not None and not config.rules():
        config, chosen = replace(config, quantiles=SHOWN_QUANTILES), False
    config.check()

    from rince.data.sources import load_dataset
    from rince.ranks.taxonomy import Taxonomy

    path, counts = Path(found.data), None
    if found.data == "fashion-mnist":
        taxonomy = Taxonomy.fashion_mnist()
    elif found.data == "cifar100":
        taxonomy = Taxonomy.cifar100()
    elif path.suffix == ".csv":
        taxonomy = Taxonomy.from_csv(path)
    else:
        train = load_dataset(path, cache=False).train  # lists the files, decodes none
        taxonomy = train.taxonomy
        counts = train.labels.bincount(minlength=taxonomy.num_classes)
        print(f"{len(train)} training images in {found.data}")
    batch_size = found.batch_size if counts is None else min(found.batch_size, int(counts.sum()))
    if config.scores is None:
        print(taxonomy.describe(batch_size=batch_size, counts=counts))
    else:
        from rince.training.ranks import class_scores, ranks_by_rule

        scores = class_scores(config, taxonomy.classes)
        if found.save_scores:
            scores.to_csv(found.save_scores)
        tree = taxonomy if taxonomy.num_ranks > 1 else None
        print(ranks_by_rule(config, scores).describe(batch_size, counts, tree))
        if not chosen:
            print(
                f"no rule was given: shown with --quantiles {list(SHOWN_QUANTILES)}; choose "
                f"--thresholds, --quantiles or --top-k"
            )
    if found.names:
        for names in taxonomy.paths:
            print("  " + " > ".join(names))
