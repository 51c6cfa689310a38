"""Where the numbers come from: options that differ, versions, wall time."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from rince.reports.pieces import fold, guide, key_table, note, section
from rince.reports.run_report import RunReport
from rince.reports.table import MISSING, SEED_KEYS, Row

_NAMES = SEED_KEYS - {"seed", "seed_everything"}  # say nothing about how a run was trained


def config_section(rows: Sequence[Row]) -> str:
    """The options in which the methods differ, and all of them, folded."""
    names = [row.label for row in rows]
    configs = [_config_of(row.runs) for row in rows]
    keys = sorted({key for config in configs for key in config})
    cells = {key: [config.get(key, MISSING) for config in configs] for key in keys}
    differing = {
        key: values
        for key, values in cells.items()
        if len(set(values)) > 1 and key.rpartition(".")[2] not in _NAMES
    }
    if differing:
        body = key_table("option", names, differing)
    elif len(rows) == 1:
        body = note("One method: nothing to compare with.")
    else:
        body = note("All runs have the same configuration.")
    return section(
        "config",
        "Configuration",
        guide(
            "only the options that differ between the methods are listed; a fair comparison "
            "differs in nothing but what it is about."
        ),
        body,
        fold(f"All options ({len(cells)})", key_table("option", names, cells)),
    )


def origin_section(rows: Sequence[Row]) -> str:
    """Wall time, versions, what each evaluation was of, and the runs' folders."""
    runs = [run for row in rows for run in row.runs]
    cells = {"training time": [_times(run.seconds for run in row.runs) for row in rows]}
    for package in sorted({package for run in runs for package in run.versions}):
        cells[f"version of {package}"] = [
            _listed(run.versions.get(package, MISSING) for run in row.runs) for row in rows
        ]
    for key in dict.fromkeys(key for run in runs for key in run.evaluation.info):
        found = [[run.evaluation.info.get(key) for run in row.runs] for row in rows]
        cells[f"evaluation: {key}"] = [
            _times(values)
            if key.endswith("seconds")
            else _listed(MISSING if value is None else _plain(value) for value in values)
            for values in found
        ]
    cells["folder"] = [_listed(str(run.folder) for run in row.runs) for row in rows]
    return section(
        "origin",
        "Versions and time",
        guide(
            "numbers of runs made with different versions, or evaluated on different data, should "
            "not be compared."
        ),
        key_table("", [row.label for row in rows], cells),
    )


def _config_of(runs: Sequence[RunReport]) -> dict[str, str]:
    """Option -> its value, or values where the runs of one method differ (their seeds)."""
    keys = dict.fromkeys(key for run in runs for key in run.config)
    return {key: _listed(_plain(run.config.get(key, MISSING)) for run in runs) for key in keys}


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
