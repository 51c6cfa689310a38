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
    print(taxonomy.describe(batch_size=batch_size, counts=counts))
    if found.names:
        for names in taxonomy.paths:
            print("  " + " > ".join(names))
