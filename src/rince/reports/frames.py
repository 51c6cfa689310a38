"""Results of runs as a table for a program: a row a run."""

from __future__ import annotations

import csv
import glob
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rince.core.checks import RinceError, import_extra, require
from rince.core.files import leading_to, user_path, written
from rince.reports.run_report import RunReport

if TYPE_CHECKING:
    import pandas


def results(runs: str | Path | Sequence[str | Path]) -> pandas.DataFrame:
    """Results of evaluated runs, a row a run.

    Columns: ``run`` (folder), ``method`` (the same for all seeds), ``seed``, ``seconds`` (of the
    training); then each metric by its name in ``results.json``, NaN where a run did not measure
    it; then each option by its dotted name, such as ``loss.temperatures``.

    Args:
        runs: folders of runs, of their results on other data (``runs/a/photos.results``), or files
            of embeddings, that were evaluated; ``*`` and ``?`` stand for any. Folders without
            results are left out, with a warning.

    Raises:
        RinceError: a pattern that fits nothing, a folder that is not there, or none with results.
        ValueError: no folder.
        ImportError: pandas is not installed.

    Example::

        frame = rince.results("runs/*")
        frame.groupby("method")["retrieval/fine/R@1"].agg(["mean", "std"])
    """
    from rince.reports.reading import read_runs  # `import rince` needs torch and numpy alone

    pandas = import_extra("pandas", "pandas")
    columns, rows = result_rows(read_runs(run_folders(runs)))
    return pandas.DataFrame(rows, columns=columns)


def result_rows(runs: Sequence[RunReport]) -> tuple[list[str], list[dict[str, Any]]]:
    """The columns, and a row a run without those that it has no value for."""
    rows = []
    for run in runs:
        about = {"run": str(run.folder), "method": run.label, "seed": run.config.get("seed")}
        rows.append((about | {"seconds": run.seconds}, run.evaluation.metrics, run.config))
    columns = dict.fromkeys(name for part in zip(*rows, strict=True) for x in part for name in x)
    return list(columns), [{**options, **metrics, **about} for about, metrics, options in rows]


def write_results(runs: Sequence[RunReport], file: Path) -> None:
    """:func:`results` as a csv file; lists in it are written as JSON."""
    columns, rows = result_rows(runs)
    with written(file, "results") as part, part.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            plain = {n: json.dumps(x) if isinstance(x, tuple) else x for n, x in row.items()}
            writer.writerow(plain)


def run_folders(runs: str | Path | Sequence[str | Path]) -> list[Path]:
    """Those that are given, or that fit, each once.

    Raises:
        RinceError: a pattern that fits nothing. ValueError: something else than folders.
    """
    given = list(runs) if isinstance(runs, (list, tuple)) else [runs]
    for one in given:
        require(
            isinstance(one, (str, Path)),
            f"runs must be one or more folders of runs, got {type(one).__name__}",
        )
    require(bool(given), "runs must be one or more folders of runs, got an empty list")
    fitting: list[str] = []
    for pattern in map(str, given):
        is_pattern = glob.has_magic(pattern) and not user_path(pattern).exists()
        # Not as a path, which would drop a slash at its end.
        fits = sorted(glob.glob(os.path.expanduser(pattern))) if is_pattern else [pattern]
        if not fits:
            raise RinceError(f"nothing is called {pattern}")
        fitting += fits
    return list(leading_to(fitting))
