"""Metrics of a run in one growing CSV file: ``step,name,value``."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

HISTORY_FILE = "metrics.csv"


class HistoryLogger(Logger):
    """Appends every metric as a line at once, so that a killed run keeps what it measured.

    Long format, because metrics come at different steps; Lightning's CSVLogger keeps them in
    memory, rewrites its file, and starts anew on resume.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._file = folder / HISTORY_FILE
        self._sums: dict[str, tuple[float, int]] = {}

    @property
    def name(self) -> str:
        return "history"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """The run folder holds the configuration already."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        for name, value in metrics.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + float(value), count + 1)
        new = not self._file.exists()
        with self._file.open("a", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            if new:
                writer.writerow(("step", "name", "value"))
            for name, value in metrics.items():
                if name != "epoch":
                    writer.writerow((step, name, repr(float(value))))

    def take_means(self) -> dict[str, float]:
        """Mean of each metric since this was last asked for."""
        means = {name: total / count for name, (total, count) in self._sums.items()}
        self._sums = {}
        return means


def read_history(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """name -> [(step, value)]; empty if nothing was logged.

    A resumed run repeats the steps after its last checkpoint; the later line counts.
    """
    file = folder / HISTORY_FILE
    if not file.exists():
        return {}
    found: dict[str, dict[int, float]] = {}
    with file.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if row["value"]:  # a line cut short by a kill
                found.setdefault(row["name"], {})[int(row["step"])] = float(row["value"])
    return {name: sorted(values.items()) for name, values in found.items()}
