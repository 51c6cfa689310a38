"""Where the numbers come from: options that differ, versions, wall time."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rince.reports.pieces import fold, guide, key_table, note, section
from rince.reports.run_report import RunReport
from rince.reports.table import MISSING, SEED_KEYS, Row


def _config_section(runs: Sequence[RunReport], names: Sequence[str]) -> str:
    keys = sorted({key for run in runs for key in run.config})
    rows = {
        key: [_plain(run.config[key]) if key in run.config else MISSING for run in runs]
        for key in keys
    }
    differing = {key: cells for key, cells in rows.items() if len(set(cells)) > 1}
    if differing:
        body = key_table("option", names, differing)
    elif len(runs) == 1:
        body = note("One run: nothing to compare with.")
    else:
        body = note("All runs have the same configuration.")
    return section(
        "config",
        "Configuration",
        guide(
            "only the options that differ between the runs are listed; a fair comparison differs "
            "in nothing but what it is about."
        ),
        body,
        fold(f"All options ({len(rows)})", key_table("option", names, rows)),
    )


def _origin_section(runs: Sequence[RunReport], names: Sequence[str]) -> str:
    rows = {
        "training time": [duration(run.seconds) for run in runs],
        "folder": [str(run.folder) for run in runs],
    }
    for package in sorted({package for run in runs for package in run.versions}):
        rows[f"version of {package}"] = [run.versions.get(package, MISSING) for run in runs]
    for key in dict.fromkeys(key for run in runs for key in run.evaluation.info):
        rows[f"evaluation: {key}"] = [
            _plain(run.evaluation.info[key]) if key in run.evaluation.info else MISSING
            for run in runs
        ]
    return section(
        "origin",
        "Versions and time",
        guide(
            "numbers of runs made with different versions, or evaluated on different data, should "
            "not be compared."
        ),
        key_table("", names, rows),
    )


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
