"""Metrics of a run, read back from their CSV file: ``step,name,value``."""

from __future__ import annotations

import csv
from pathlib import Path

HISTORY_FILE = "metrics.csv"
HEADER = "step,name,value"


def read_history(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """name -> [(step, value)]; empty if nothing was logged. Lines that are no metric (a kill or a
    full disk cut them short) are left out."""
    file = folder / HISTORY_FILE
    if not file.exists():
        return {}
    values_by_name: dict[str, dict[int, float]] = {}
    with file.open(newline="", encoding="utf-8", errors="replace") as stream:
        for row in csv.reader(line.replace("\0", "") for line in stream):
            try:
                step, name, value = row
                # A resumed run repeats steps: the later line counts.
                values_by_name.setdefault(name, {})[int(step)] = float(value)
            except ValueError:  # the header too
                continue
    return {name: sorted(values.items()) for name, values in values_by_name.items()}
