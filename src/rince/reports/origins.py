"""Where the numbers come from: options that differ, versions, wall time."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rince.reports.alike import written_alike
from rince.reports.run_report import RunReport, one_line
from rince.reports.table import MISSING, OF_A_RUN, Row

_NOT_CHOSEN = OF_A_RUN - {"seed"}  # says nothing about how a run was trained


def options_of(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Option -> its value in each row, or values where the runs of a row differ (their seeds)."""
    options = [[written_alike(run.config) for run in row.runs] for row in rows]
    keys = sorted({key for of_row in options for of_run in of_row for key in of_run})
    return {
        key: [_listed(_plain(x.get(key, MISSING)) for x in of_row) for of_row in options]
        for key in keys
    }


def differing_options(options: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    """Those of :func:`options_of` in which the rows differ; the machine's own are left out."""
    return {
        key: values
        for key, values in options.items()
        if len(set(values)) > 1 and key not in _NOT_CHOSEN
    }


def alike_methods(rows: Sequence[Row]) -> list[str]:
    """Lines for each method that has several rows: in which options they differ, or that they are
    of one seed."""
    by_method: dict[str, list[Row]] = {}
    for row in rows:
        by_method.setdefault(one_line(row.runs[0].label), []).append(row)
    lines = []
    for method, alike in by_method.items():
        lines += [
            f"the rows of {method} differ in {option}: {' | '.join(values)}"
            for option, values in differing_options(options_of(alike)).items()
            if option != "seed"
        ]
        equal: dict[str, list[str]] = {}
        for row in alike:
            equal.setdefault(_chosen(row.runs[0]), []).append(row.runs[0].folder.name)
        lines += [
            f"{', '.join(names)} and {last} agree in all options, the seed too: they stand in rows "
            f"of their own"
            for *names, last in equal.values()
            if names
        ]
    return lines


def _chosen(run: RunReport) -> str:
    chosen = {key: x for key, x in written_alike(run.config).items() if key not in _NOT_CHOSEN}
    return repr(sorted(chosen.items(), key=lambda option: option[0]))


def origins_of(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Wall time, versions, what each evaluation was of, and the runs' folders: a cell per row."""
    runs = [run for row in rows for run in row.runs]
    cells = {"training time": [_times(run.seconds for run in row.runs) for row in rows]}
    for package in sorted({package for run in runs for package in run.versions}):
        cells[f"version of {package}"] = [
            _listed(run.versions.get(package, MISSING) for run in row.runs) for row in rows
        ]
    for key in dict.fromkeys(key for run in runs for key in run.evaluation.info):
        values_by_row = [[run.evaluation.info.get(key) for run in row.runs] for row in rows]
        cells[f"evaluation: {key}"] = [
            _times(values)
            if key.endswith("seconds")
            else _listed(MISSING if value is None else _plain(value) for value in values)
            for values in values_by_row
        ]
    cells["folder"] = [_listed(str(run.folder) for run in row.runs) for row in rows]
    return cells


def _listed(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))


def _times(seconds: Iterable[float | None]) -> str:
    """Mean wall time and its sample standard deviation."""
    known = [value for value in seconds if value is not None and math.isfinite(value)]
    if not known:
        return MISSING
    spread = f" ± {duration(statistics.stdev(known))}" if len(known) > 1 else ""
    return duration(statistics.fmean(known)) + spread


def duration(seconds: float | None) -> str:
    """Wall time for people.

    >>> duration(4321), duration(75.2), duration(8.21)
    ('1 h 12 min', '1 min 15 s', '8.2 s')
    """
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
