"""Checkpoints that survive kill -9 and a full disk, and errors when one did not."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from torch import nn

from rince.core.checks import RinceError, warn
from rince.models.backbones import Backbone, build_backbone
from rince.ranks.taxonomy import Taxonomy
from rince.training.config import TrainConfig, from_dict
from rince.training.module import BACKBONE_PREFIX, CHECKPOINT_KEY

CHECKPOINT_FILE = "last.ckpt"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the old checkpoint, flushes to disk, then replaces it in one step."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        target = Path(path)
        part = target.with_name(target.name + ".part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as stream:
                torch.save(checkpoint, stream)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(part, target)
        except (OSError, RuntimeError) as error:  # torch wraps a failed write in RuntimeError
            part.unlink(missing_ok=True)
            kept = f"the one before is intact: {target}" if target.exists() else "there is none yet"
            raise RinceError(
                f"could not write a checkpoint to {target.parent} ({error}); {kept}. Free some "
                f"space there, then go on with `rince train --resume {target.parent}`"
            ) from error


class CheckpointEvery(Checkpoint):
    """One checkpoint, renewed every so many steps and at the end of each epoch.

    A write that fails in mid-run is a warning, since the next one may succeed (somebody frees
    space); at the end of the run it is an error.

    Args:
        folder: the run's. steps: between two checkpoints.
    """

    def __init__(self, folder: Path, steps: int) -> None:
        self.path = folder / CHECKPOINT_FILE
        self.steps = steps
        self.failed: RinceError | None = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        if trainer.global_step % self.steps == 0:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.failed is not None:
            raise self.failed

    def _save(self, trainer: pl.Trainer) -> None:
        try:
            trainer.save_checkpoint(self.path)
            self.failed = None
        except RinceError as error:
            self.failed = error
            warn(f"{error}. Training goes on and will try again")


@dataclass(frozen=True)
class TrainedRun:
    """A run read back from its folder.

    Args:
        backbone: in evaluation mode, on the CPU.
        in_channels, image_size: of the images it was trained on.
        step: optimizer steps taken.
    """

    folder: Path
    config: TrainConfig
    taxonomy: Taxonomy
    backbone: Backbone
    in_channels: int
    image_size: int
    step: int


def load_run(folder: Path) -> TrainedRun:
    """Read a run's backbone, strictly: every weight must be there and fit.

    Raises:
        RinceError: no checkpoint, a damaged one, or one that does not fit its configuration.
    """
    checkpoint = read_checkpoint(folder)
    about = checkpoint[CHECKPOINT_KEY]
    config = from_dict(about["config"])
    backbone = build_backbone(
        config.model.backbone, in_channels=about["in_channels"], image_size=about["image_size"]
    )
    weights = {
        name.removeprefix(BACKBONE_PREFIX): x
        for name, x in checkpoint["state_dict"].items()
        if name.startswith(BACKBONE_PREFIX)
    }
    load_strictly(backbone.module, weights, folder / CHECKPOINT_FILE)
    backbone.module.eval()
    return TrainedRun(
        folder=folder,
        config=config,
        taxonomy=Taxonomy(tuple(tuple(path) for path in about["taxonomy"])),
        backbone=backbone,
        in_channels=about["in_channels"],
        image_size=about["image_size"],
        step=checkpoint["global_step"],
    )


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """Read a run's checkpoint as plain data (no code in it is run).

    Raises:
        RinceError: no such run, or a file that is damaged or not rince's.
    """
    path = folder / CHECKPOINT_FILE
    if not path.is_file():
        raise RinceError(
            f"{folder} holds no checkpoint ({CHECKPOINT_FILE}): is it the folder of a run?"
        )
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise RinceError(
            f"{path} is damaged, perhaps cut short while it was copied ({first_line}). Copy it "
            f"again, or train the run again"
        ) from error
    if not isinstance(checkpoint, dict) or CHECKPOINT_KEY not in checkpoint:
        raise RinceError(f"{path} is a checkpoint, but not one written by rince")
    return checkpoint


def load_strictly(module: nn.Module, weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Load all weights or refuse, saying what does not fit.

    Raises:
        RinceError: missing, unexpected or differently shaped weights.
    """
    own = module.state_dict()
    problems = [f"missing {name}" for name in own if name not in weights]
    problems += [f"unexpected {name}" for name in weights if name not in own]
    problems += [
        f"{name} is {tuple(weights[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if problems:
        shown = "; ".join(problems[:3])
        raise RinceError(
            f"{path} comes from another architecture than {type(module).__name__}: {shown}"
            + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
        )
    module.load_state_dict(dict(weights))
