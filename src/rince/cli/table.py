"""``rince table FOLDER``."""

from __future__ import annotations

import csv
from collections.abc import Sequence

from rince.cli.parser import HelpfulParser
from rince.core.files import new_file, written

EXAMPLES = """examples:
  rince table photos/ -o items.csv       photos/<group>/<class>/*.jpg, any depth
  rince table videos/ -o clips.csv       or train/ and val/ with such trees below them
  rince train items.csv                  after you edited it
"""


def run(arguments: Sequence[str]) -> None:
    """Write the table of a tree."""
    parser = HelpfulParser(
        prog="rince table",
        description="Write a table of the images or videos of a folder: a row a file, with its "
        "path, its groups and its class, and its split if the folder holds splits. To look at, to "
        "edit, and to train on.",
        epilog=EXAMPLES,
    )
    parser.add_argument("data", help="a folder of class folders")
    parser.add_argument("-o", "--output", required=True, help="the csv file to write")
    given = parser.parse_args(arguments)

    from rince.data.kinds import folder_table

    output = new_file(given.output)
    header, rows = folder_table(given.data, given.output)
    with (
        written(output, "table") as part,
        part.open("w", newline="", encoding="utf-8") as stream,
    ):
        csv.writer(stream, lineterminator="\n").writerows([header, *rows])
    print(f"{given.output}: {len(rows)} rows, columns {', '.join(header)}")
