"""What may be edited in the ``config.yaml`` of a run that goes on, and what may not."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Any

from rince.core.checks import RinceError
from rince.training.config import TrainConfig, differing, from_dict, to_dict
from rince.training.folder import CONFIG_FILE

_USED_FROM_THERE = (
    *("optim.lr", "optim.weight_decay", "optim.clip"),
    *("optim.warmup_epochs", "optim.final_lr_ratio"),
    *("precision", "loss.matmul_precision", "micro_batch", "compile", "images.cache"),
)
# They say where the data are, which must be the same, or change no weight.
_FREE = {
    *("data", "images.root", "images.workers", "images.skip_unreadable", "vectors.labels"),
    *("table.column", "table.labels", "table.empty", "table.encoding"),
    *("text.column", "text.labels"),
    *("videos.splits", "videos.shots", "videos.cache", "videos.cache_gb", "videos.decoder"),
    *("epochs", "checkpoint_every", "log_every", "validate_every", "knn_every"),
}

Edits = dict[str, tuple[Any, Any]]  # dotted name -> (before, now)


def edits_to_use(folder: Path, before: TrainConfig, now: TrainConfig) -> Edits:
    """Options that a run was trained with so far, and others to go on with.

    Args:
        before: of its checkpoint. now: of its ``config.yaml``.

    Raises:
        RinceError: an option that cannot change in mid-run.
    """
    edits = {n: x for n, x in differing(before, now).items() if n not in _FREE}
    # What is trained on is compared as it is in the data: a file of the same ranks may be moved.
    edits = {name: x for name, x in edits.items() if not name.startswith("ranks.")}
    fixed = {name: x for name, x in edits.items() if name not in _USED_FROM_THERE}
    if fixed:
        file = folder / CONFIG_FILE
        raise RinceError(
            f"{folder} cannot go on with other options than it was trained with: "
            f"{', '.join(edit_lines(fixed))} in {file}. Put that back, or start a new run with it "
            f"(rince train --config {quote(str(file))} --name NEW). What a run can go on with is "
            f"another {', '.join(_USED_FROM_THERE)}"
        )
    return edits


def without_edits(config: TrainConfig, edits: Edits) -> TrainConfig:
    """The configuration with these options as they were."""
    plain = to_dict(config)
    for name, (was, _) in edits.items():
        group, _, option = name.rpartition(".")
        (plain[group] if group else plain)[option] = was
    return from_dict(plain)


def edit_lines(edits: Edits) -> list[str]:
    """``optim.lr 0.1 (was 0.5)``."""
    return [f"{name} {now} (was {was})" for name, (was, now) in edits.items()]
