"""``rince check DATA``."""

from __future__ import annotations

from collections.abc import Sequence

from rince.cli.data import add_data_options, data_config
from rince.cli.parser import HelpfulParser

EXAMPLES = """examples:
  rince check photos/                    every image is decoded once
  rince check videos/ --videos.frames 8 --videos.stride 2      every clip that training would take
  rince check items.csv --data-root /data/shop                 the table, then the files it lists
  rince check photos/ > bad.txt          the list alone; the summary goes to the terminal

train, ranks and evaluate refuse such data with the same list, before they do anything else; with
--skip-unreadable they leave out the images and videos on it. Rows of tables have to be corrected.
Images that could be read and have not changed since (size and time) are not opened again by any
verb; to have all read anew, remove ~/.cache/rince/checked.
"""


def run(arguments: Sequence[str]) -> None:
    """List what cannot be used of a data set."""
    parser = HelpfulParser(
        prog="rince check",
        description="Read all of a data set once, as training would, and list what cannot be "
        "used: images and videos that are damaged, empty, or too short for a clip; all bad rows of "
        "a table. What lies beside the data and is left out is counted by suffix. The exit status "
        "is 1 if something is wrong.",
        epilog=EXAMPLES,
    )
    parser.add_argument("data", help="whatever `rince train` takes")
    add_data_options(parser)
    parser.add_argument(
        "--ranks.tree",
        dest="tree",
        metavar="FILE",
        help="that `rince train` is to be given: a table of superclasses for the classes",
    )
    given = parser.parse_args(arguments)

    from rince.core.checks import BadItems, RinceError
    from rince.data.given_tree import parts_in, read_tree
    from rince.data.kinds import NAMED_TREES, all_items, class_tree, kind_of
    from rince.evaluation.levels import warn_of_empty_levels

    config = data_config(given)
    tree = read_tree(given.tree, config.table.encoding)
    classes = None if given.data in NAMED_TREES else class_tree(given.data, config)
    if classes is not None:
        if tree is not None:
            tree.places(classes, given.data)
        print(f"{given.data}: {classes.num_classes} classes")
        return
    problems: list[str] = []
    try:
        parts = all_items(given.data, config)
        for items in parts:
            try:
                items.read_all()
            except BadItems as error:
                problems += error.problems
    except BadItems as error:
        problems += error.problems
    if problems:
        print("\n".join(problems))
        raise RinceError(
            f"{given.data}: {len(problems)} that cannot be used. Fix or remove them; images and "
            f"videos that are damaged can be left out (--skip-unreadable of train, ranks and "
            f"evaluate). Rows of a table are checked kind by kind: check again"
        )
    parts = parts_in(tree, parts)
    warn_of_empty_levels(parts[0], side="training " if parts[1:] else "")
    counts = " and ".join(
        f"{len(items)} {name}{items.noun}"
        for name, items in zip(("training ", "test ") if parts[1:] else ("",), parts, strict=True)
    )
    count = parts[-1].taxonomy.num_classes
    print(f"{given.data}: {counts} of {count} classes, and all of them can be read")
    if advice := kind_of(given.data, encoding=config.table.encoding).advice(given.data, config):
        print(f"note: {advice}")
