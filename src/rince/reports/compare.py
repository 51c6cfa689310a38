"""Runs put side by side."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rince.core.files import (
    is_vector_file,
    leading_to,
    require_no_folder,
    require_not_read,
    user_path,
    written,
)
from rince.core.tables import TABLE_SUFFIXES
from rince.evaluation.results import ARRAYS_FILE, RESULTS_FILE
from rince.reports.frames import write_results
from rince.reports.origins import alike_methods
from rince.reports.page import write_report
from rince.reports.reading import read_run, read_runs
from rince.reports.run_report import RunReport
from rince.reports.table import (
    comparison_rows,
    differences_to,
    markdown_table,
    print_table,
)
from rince.training.folder import ABOUT_FILE, CHECKPOINT_FILE, CONFIG_FILE, run_of
from rince.training.history import HISTORY_FILE


def compare_runs(
    folders: Sequence[Path],
    output: Path,
    *,
    title: str,
    markdown: str | None = None,
    csv: str | None = None,
    baseline: str | None = None,
) -> None:
    """Print the table of evaluated runs, write the page and, to ``markdown``, the table.

    Args:
        csv: where to write what :func:`~rince.reports.frames.results` gives.
        baseline: also show the differences to the runs of this label, seed by seed; or the path of
            a run, which is compared too.
    """
    for option, file in (("-o", output), ("--markdown", markdown), ("--csv", csv)):
        if file is not None:
            require_no_folder(user_path(file), f"{option} FILE")
            read = (x for folder in folders for x in _read_of(folder))
            require_not_read(user_path(file), read, f"{option} FILE")
    runs = read_runs(folders)
    if baseline is not None:
        runs, baseline = _with_baseline(runs, baseline)
        differences_to(comparison_rows(runs), baseline)  # refused before anything is shown
    print_table(runs, baseline)
    for line in alike_methods(comparison_rows(runs).rows):
        print(line)
    if csv is not None:
        write_results(runs, user_path(csv))
    if markdown is not None:
        with written(user_path(markdown), "table") as part:
            part.write_text(markdown_table(runs, baseline) + "\n", encoding="utf-8")
    print(f"report: {write_report(runs, output, title=title, baseline=baseline)}")


def _read_of(folder: Path) -> list[Path]:
    """The files of a run, and of what it was; of embeddings also tables of the same name, which are
    read as their labels."""
    if is_vector_file(folder):
        return [folder, *(folder.with_suffix(suffix) for suffix in TABLE_SUFFIXES)]
    names = (RESULTS_FILE, ARRAYS_FILE, CONFIG_FILE, ABOUT_FILE, HISTORY_FILE, CHECKPOINT_FILE)
    return [x / name for x in {folder, run_of(folder)} for name in names]


def _with_baseline(runs: list[RunReport], baseline: str) -> tuple[list[RunReport], str]:
    """The runs, with the one that a path leads to; and the label of its row."""
    path = user_path(baseline)
    labels = (label for row in comparison_rows(runs).rows for label in row.names)
    if baseline in labels or not os.path.lexists(path):
        return runs, baseline
    named = read_run(*leading_to([path]))
    if named.folder not in [run.folder for run in runs]:
        runs = [*runs, named]
    rows = comparison_rows(runs).rows
    return runs, next(x.label for x in rows if named.folder in [run.folder for run in x.runs])
