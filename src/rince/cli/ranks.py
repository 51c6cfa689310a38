"""``rince ranks DATA``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rince.cli.data import add_data_options, data_config
from rince.cli.parser import HelpfulParser, given_of
from rince.core.checks import require
from rince.core.files import new_file
from rince.ranks.options import RankOptions
from rince.training.config import TrainConfig

EXAMPLES = """examples:
  rince ranks photos/                    photos/<superclass>/<class>/*.jpg, any depth
  rince ranks classes.csv --batch-size 512               a table of classes
  rince ranks intents.csv                                texts with columns text,domain,intent
  rince ranks cifar100
  rince ranks photos/ --scores text --top-k "[3]"        from the class names
  rince ranks videos/ --by time --near "[5, 60]"   clips of videos by when they were recorded
  rince ranks photos/ --scores mine.csv --thresholds "[0.8, 0.5]"
  rince ranks photos/ --tree classes.csv       photos/<class>/*.jpg, superclasses from a table
"""
# Without a rule the histogram is still worth a look, and something has to be drawn.
SHOWN_QUANTILES = (0.95,)
NOISE = {"score_noise", "move_classes", "forget"}


def _parser() -> HelpfulParser:
    parser = HelpfulParser(
        prog="rince ranks",
        description="Show the ranks of a data set before any training: classes, superclasses, and "
        "how many positives of each rank a batch will hold. With --scores: of similarity scores, "
        "and which pairs are doubtful.",
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "data",
        help="a folder of class folders or of videos, a table of classes, or of texts, images or "
        "clips with their labels (.csv, .tsv, .jsonl, .parquet), fashion-mnist, or cifar100",
    )
    parser.add_argument(
        "--batch_size",
        type=int,
        default=256,
        help="items of a step, for the expected numbers of positives",
    )
    parser.add_argument("--names", action="store_true", help="also list classes by superclass")
    parser.add_options(RankOptions, skip=NOISE)
    parser.add_alias("ranks.tree", "tree")  # as the other verbs call it
    parser.add_argument(
        "--save_scores",
        metavar="CSV",
        help="write the scores to a table to look at, edit, and give back as --scores",
    )
    add_data_options(parser)
    parser.add_shared("--skip_unreadable")
    return parser


def run(arguments: Sequence[str]) -> None:
    """Describe the ranks of a data set."""
    given = _parser().parse_args(arguments)
    config, chosen = RankOptions(**given_of(RankOptions, vars(given))), True
    if config.scores is not None and not config.rules():
        config, chosen = replace(config, quantiles=SHOWN_QUANTILES), False
    config.check()
    require(
        given.save_scores is None or config.scores is not None,
        "--save_scores writes the scores of --scores: give both",
    )
    saved = new_file(given.save_scores) if given.save_scores else None

    data = replace(data_config(given), ranks=config)
    if config.by == "time":
        _describe_time(data, given.batch_size)
        return

    from rince.core.tables import read_as
    from rince.data.given_tree import parts_in, read_tree
    from rince.data.kinds import all_items, class_tree

    tree = read_tree(config.tree, data.table.encoding)
    taxonomy, counts = class_tree(given.data, data), None
    if taxonomy is not None and tree is not None:
        taxonomy = tree.places(taxonomy, given.data)
    if taxonomy is None:
        parts = parts_in(tree, all_items(given.data, data))
        train, which = parts[0], "training " if parts[1:] else ""
        taxonomy = train.taxonomy
        if config.scores is None:
            from rince.evaluation.levels import warn_of_empty_levels

            warn_of_empty_levels(train, side=which)
        counts = train.labels.bincount(minlength=taxonomy.num_classes)
        print(f"{len(train)} {which}{train.noun} in {given.data}")
    batch_size = given.batch_size if counts is None else min(given.batch_size, int(counts.sum()))
    if config.scores is None:
        print(taxonomy.describe(batch_size=batch_size, counts=counts))
    else:
        from rince.training.ranks import class_scores, ranks_by_rule

        with read_as(data.table.encoding):
            scores = class_scores(config, taxonomy)
        if saved:
            scores.to_csv(saved)
        groups = taxonomy if taxonomy.num_ranks > 1 else None
        print(ranks_by_rule(config, scores).describe(batch_size, counts, groups))
        if not chosen:
            print(
                f"no rule was given: shown with --quantiles {list(SHOWN_QUANTILES)}; choose "
                f"--thresholds, --quantiles or --top-k"
            )
    if given.names:
        for names in taxonomy.paths:
            print("  " + " > ".join(names))


def _describe_time(config: TrainConfig, batch_size: int) -> None:
    from rince.ranks.time import ItemTimes
    from rince.training.ranks import rank_source
    from rince.training.splits import load_splits

    clips = load_splits(config).train
    source = rank_source(config, clips)
    assert isinstance(source, ItemTimes)
    print(f"{len(clips)} training {clips.noun} of {clips.spec.frames} frames in {config.data}")
    print(source.rule.describe(source.items, min(batch_size, len(clips))))
