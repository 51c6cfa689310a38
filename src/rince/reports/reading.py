"""Runs read from their folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from rince.core.checks import RinceError, warn
from rince.core.files import is_vector_file
from rince.evaluation.elsewhere import results_folder
from rince.evaluation.results import RESULTS_FILE, load_evaluation
from rince.models.exported import EXPORT_FILE
from rince.reports.run_report import RunReport
from rince.training.config import flat, to_dict
from rince.training.folder import outdated, read_about, read_config, warn_if_unfinished
from rince.training.history import read_history


def read_runs(folders: Sequence[Path]) -> list[RunReport]:
    """Runs; folders that are there but hold no results are left out, with a warning."""
    runs, left_out = [], []
    for folder in folders:
        try:
            runs.append(read_run(folder))
            warn_if_unfinished(folder)
        except RinceError as error:
            if not folder.exists() or len(folders) == 1:
                raise
            left_out.append((folder, error))
    if left_out:
        others = ", ".join(str(folder) for folder, _ in left_out[1:])
        warn(f"left out: {left_out[0][1]}" + (f"; and so {others}" if others else ""))
    if not runs:
        raise RinceError("none of these can be compared: evaluate them first, rince evaluate RUN")
    return runs


def read_run(folder: Path) -> RunReport:
    """All that a report shows of a run, or of a file of embeddings."""
    of_file = is_vector_file(folder)  # embeddings made elsewhere
    results = results_folder(folder) if of_file else folder
    there = (results / RESULTS_FILE).exists()
    if there and (reason := outdated(results, folder if of_file else None)):
        warn(f"the results of {folder} {reason}: `rince evaluate {quote(str(folder))}` again")
    if of_file:
        if not results.is_dir():
            raise RinceError(
                f"{folder} has no results: `rince evaluate {quote(str(folder))} "
                f"--labels FILE` makes them"
            )
        return RunReport(
            folder.stem, results, load_evaluation(results, folder), {"embeddings": folder.name}
        )
    if (folder / EXPORT_FILE).exists():  # of a network that may have been trained elsewhere
        return RunReport(folder.name, folder, load_evaluation(folder), {"export": folder.name})
    config = read_config(folder)
    about = read_about(folder)
    options = dict(flat(to_dict(config)))
    if isinstance(options["data"], str):  # photos/ is photos
        options["data"] = os.path.normpath(options["data"])
    return RunReport(
        label=about.get("label") or config.label(),  # of an objective from outside, by its row
        folder=folder,
        evaluation=load_evaluation(folder),
        config=options,
        history=read_history(folder),
        seconds=about.get("train_seconds"),
        versions=about.get("versions", {}),
    )
