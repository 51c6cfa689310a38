"""What a run's folder holds beside its checkpoint and its metrics."""

from __future__ import annotations

from pathlib import Path

import yaml

from rince.core.checks import RinceError
from rince.evaluation.results import RESULTS_FILE
from rince.training.config import TrainConfig, from_dict

CONFIG_FILE = "config.yaml"
ABOUT_FILE = "about.json"
LOG_FILE = "log.txt"
CHECKPOINT_FILE = "last.ckpt"


def read_config(folder: Path) -> TrainConfig:
    """A run's configuration.

    Raises:
        RinceError: not the folder of a run, or a damaged file.
    """
    file = folder / CONFIG_FILE
    if not file.is_file():
        raise RinceError(f"{folder} is not the folder of a run: it holds no {CONFIG_FILE}")
    try:
        return from_dict(yaml.safe_load(file.read_text()))
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise RinceError(f"{file} is damaged: {error}") from error


def is_evaluated(folder: Path) -> bool:
    """Whether the results are there, and not older than the checkpoint."""
    results, checkpoint = folder / RESULTS_FILE, folder / CHECKPOINT_FILE
    return results.exists() and not (
        checkpoint.exists() and results.stat().st_mtime < checkpoint.stat().st_mtime
    )
