"""Trackers by name, through Lightning's loggers: TensorBoard, Weights & Biases, MLflow."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from rince.core.checks import import_extra
from rince.core.distributed import is_first_process
from rince.core.files import replacing

TRACKERS_FILE = "trackers.json"  # what the trackers call this run, which it goes on in
_PROJECT = "rince"


def require_trackers(names: Sequence[str]) -> None:
    """Refuse a tracker whose library is not installed; its extra has the same name."""
    for name in names:
        import_extra(name, name)


@contextlib.contextmanager
def named_loggers(names: Sequence[str], folder: Path, step: int) -> Iterator[list[Logger]]:
    """The loggers of these trackers for the run in this folder, which stands at this step."""
    file = folder / TRACKERS_FILE
    ids: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    loggers: list[Logger] = []
    with contextlib.ExitStack() as stack:
        if "tensorboard" in names:
            # What an earlier process wrote of the steps to come is not shown.
            options: dict[str, Any] = {"default_hp_metric": False, "purge_step": step + 1}
            loggers.append(TensorBoardLogger(folder, "", "tensorboard", **options))
        if "wandb" in names:
            ids.setdefault("wandb", uuid.uuid4().hex)
            project = os.environ.get("WANDB_PROJECT", _PROJECT)
            loggers.append(
                WandbLogger(folder.name, save_dir=folder, version=ids["wandb"], project=project)
            )
            stack.enter_context(_finished(import_extra("wandb", "wandb")))
        if "mlflow" in names:
            mlflow = MLFlowLogger(
                os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT),
                run_name=folder.name,
                tracking_uri=import_extra("mlflow", "mlflow").get_tracking_uri(),
                run_id=ids.get("mlflow"),
            )
            loggers.append(mlflow)
            if is_first_process():
                ids["mlflow"] = str(mlflow.run_id)
        if ids and is_first_process():
            with replacing(file) as part:
                part.write_text(json.dumps(ids) + "\n")
        yield loggers


@contextlib.contextmanager
def _finished(wandb: Any) -> Iterator[None]:
    """End a run that was begun in here: the next one of this program would be taken for it."""
    theirs, failed = wandb.run, True
    try:
        yield
        failed = False
    finally:
        if wandb.run is not theirs:
            wandb.finish(exit_code=int(failed))
