"""Metrics of a run in one growing CSV file: ``step,name,value``."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from rince.core.checks import warn

HISTORY_FILE = "metrics.csv"


class HistoryLogger(Logger):
    """Appends every metric as a line at once, so that a killed run keeps what it measured.

    Long format, because metrics come at different steps; Lightning's CSVLogger keeps them in
    memory, rewrites its file, and starts anew on resume.

    A write that fails is warned of once, and training goes on without these lines.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._file = folder / HISTORY_FILE
        self._sums: dict[str, tuple[float, int]] = {}
        self._warned = False

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
        rows = [(step, name, repr(float(x))) for name, x in metrics.items() if name != "epoch"]
        try:
            self._append(rows)
        except OSError as error:
            if not self._warned:
                self._warned = True
                warn(
                    f"could not write metrics to {self._file} ({error}): training goes on, and "
                    f"what cannot be written will be missing there"
                )

    def take_means(self) -> dict[str, float]:
        """Mean of each metric since this was last asked for."""
        means = {name: total / count for name, (total, count) in self._sums.items()}
        self._sums = {}
        return means

    def _append(self, rows: list[tuple[int | None, str, str]]) -> None:
        text = io.StringIO()
        writer = csv.writer(text)
        with self._file.open("a+b") as stream:
            if stream.tell() == 0:
                writer.writerow(("step", "name", "value"))
            else:
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":  # a kill or a full disk cut the last line short
                    text.write("\n")
            writer.writerows(rows)
            stream.write(text.getvalue().encode())


def read_history(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """name -> [(step, value)]; empty if nothing was logged.

    A resumed run repeats the steps after its last checkpoint; the later line counts. Lines that
    are no metric (a kill or a full disk cut them short) are left out.
    """
    file = folder / HISTORY_FILE
    if not file.exists():
        return {}
    found: dict[str, dict[int, float]] = {}
    with file.open(newline="", encoding="utf-8", errors="replace") as stream:
        for row in csv.reader(line.replace("\0", "") for line in stream):
            try:
                step, name, value = row
                found.setdefault(name, {})[int(step)] = float(value)
            except ValueError:  # the header too
                continue
    return {name: sorted(values.items()) for name, values in found.items()}
