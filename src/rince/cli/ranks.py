"""``rince ranks DATA``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rince.cli.parser import HelpfulParser, with_underscores

EXAMPLES = """examples:
  rince ranks photos/                    photos/<superclass>/<class>/*.jpg, any depth
  rince ranks classes.csv --batch-size 512
  rince ranks cifar100
"""


def run(arguments: Sequence[str]) -> None:
    """Describe the ranks of a data set."""
    parser = HelpfulParser(
        prog="rince ranks",
        description="Show the ranks of a data set before any training: classes, superclasses, and "
        "how many positives of each rank a batch will hold.",
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "data", help="a folder of class folders, a csv file, fashion-mnist, or cifar100"
    )
    parser.add_argument("--batch_size", type=int, default=256, help="images a step")
    parser.add_argument("--names", action="store_true", help="also list classes by superclass")
    found = parser.parse_args(with_underscores(arguments))

    from rince.ranks.taxonomy import Taxonomy

    path = Path(found.data)
    if found.data == "fashion-mnist":
        taxonomy = Taxonomy.fashion_mnist()
    elif found.data == "cifar100":
        taxonomy = Taxonomy.cifar100()
    elif path.suffix == ".csv":
        taxonomy = Taxonomy.from_csv(path)
    else:
        train = path / "train"
        taxonomy = Taxonomy.from_folders(train if train.is_dir() else path)
    print(taxonomy.describe(batch_size=found.batch_size))
    if found.names:
        for names in taxonomy.paths:
            print("  " + " > ".join(names))
