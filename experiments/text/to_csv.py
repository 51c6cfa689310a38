"""CLINC150 as a table for `rince train`, and its out-of-scope test sentences for `--ood`.

python experiments/text/to_csv.py DATA/clinc150 clinc.csv out-of-scope.csv
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path


def write_tables(folder: Path, known: Path, outliers: Path) -> None:
    """Training and test sentences; those of the validation are left out."""
    data = json.loads((folder / "data_full.json").read_text())
    domains = json.loads((folder / "domains.json").read_text())
    domain_of = {intent: domain for domain, intents in domains.items() for intent in intents}
    with known.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("text", "domain", "intent", "split"))
        for split in ("train", "test"):
            writer.writerows((text, domain_of[i], i, split) for text, i in data[split])
    with outliers.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("text",), *((text,) for text, _ in data["oos_test"])])


if __name__ == "__main__":
    write_tables(*map(Path, sys.argv[1:]))
