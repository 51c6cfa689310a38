"""Runs put side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rince.core.files import written
from rince.reports.frames import write_results
from rince.reports.origins import alike_methods
from rince.reports.page import write_report
from rince.reports.reading import read_runs
from rince.reports.table import comparison_rows, markdown_table, print_table


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
        baseline: also show the differences to the runs of this label, seed by seed.
    """
    runs = read_runs(folders)
    print_table(runs, baseline)
    for line in alike_methods(comparison_rows(runs).rows):
        print(line)
    if csv is not None:
        write_results(runs, Path(csv))
    if markdown is not None:
        with written(Path(markdown), "table") as part:
            part.write_text(markdown_table(runs, baseline) + "\n", encoding="utf-8")
    print(f"report: {write_report(runs, output, title=title, baseline=baseline)}")
