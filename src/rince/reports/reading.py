"""Runs read from their folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from rince.core.checks import RinceError, warn
from rince.core.files import is_vector_file
from rince.evaluation.elsewhere import results_folder
from rince.evaluation.results import FOLDER_SUFFIX, RESULTS_FILE, evaluating, load_evaluation
from rince.models.exported import EXPORT_FILE
from rince.reports.run_report import RunReport
from rince.training.config import flat, to_dict
from rince.training.folder import outdated, read_about, run_of, trained_config, warn_if_unfinished
from rince.training.history import read_history


def read_runs(folders: Sequence[Path]) -> list[RunReport]:
    """Runs; folders that are there but hold no results are left out, with a warning."""
    runs, left_out = [], []
    for folder in folders:
        try:
            runs.append(read_run(folder))
            warn_if_unfinished(run_of(folder))
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
    """All that a report shows of a run, of one on other data than its own, or of a file of
    embeddings."""
    of_file = is_vector_file(folder)  # embeddings made elsewhere
    results = results_folder(folder) if of_file else folder
    run = run_of(folder)
    on = "" if run == folder else f" on {folder.stem}"
    there = (results / RESULTS_FILE).exists()
    if there and (reason := outdated(results, folder if of_file else None)):
        warn(f"the results of {run}{on} {reason}: {evaluating(results, run)} again")
    if of_file:
        if not results.is_dir():
            raise RinceError(
                f"{folder} has no results: `rince evaluate {quote(str(folder))} "
                f"--labels FILE` makes them"
            )
        return RunReport(
            folder.stem, results, load_evaluation(results, folder), {"embeddings": folder.name}
        )
    if not there and (others := _on_other_data(folder)):
        raise RinceError(
            f"{folder} has no results on its own data: `rince evaluate {quote(str(folder))}` makes "
            f"them. On other data there are {', '.join(quote(str(x)) for x in others)}"
        )
    if (run / EXPORT_FILE).exists():  # of a network that may have been trained elsewhere
        return RunReport(run.name + on, folder, load_evaluation(folder, run), {"export": run.name})
    about = read_about(run)
    config = trained_config(run, about)
    evaluation = load_evaluation(folder, run)
    options = dict(flat(to_dict(config)))
    if isinstance(options["data"], str):  # photos/ is photos
        options["data"] = os.path.normpath(options["data"])
    if on and "data_path" in evaluation.info:
        options["evaluate.data"] = evaluation.info["data_path"]
    label = about.get("label") or config.label()  # of an objective from outside, by its row
    return RunReport(
        label=label + on,
        folder=folder,
        evaluation=evaluation,
        config=options,
        history=read_history(run),
        seconds=about.get("train_seconds"),
        versions=about.get("versions", {}),
    )


def _on_other_data(run: Path) -> list[Path]:
    """The folders of a run's results on other data than its own."""
    folders = (x.parent for x in sorted(run.glob(f"*{FOLDER_SUFFIX}/{RESULTS_FILE}")))
    return [folder for folder in folders if run_of(folder) == run]
