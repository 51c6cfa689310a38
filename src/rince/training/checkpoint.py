"""Checkpoints that survive kill -9 and a full disk, and errors when one did not."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from torch import nn

from rince.core.checks import RinceError, warn
from rince.models.backbones import Backbone, build_backbone
from rince.ranks.taxonomy import Taxonomy
from rince.training.config import CLASSIFIERS, TrainConfig, from_dict
from rince.training.module import BACKBONE_PREFIX, CHECKPOINT_KEY

CHECKPOINT_FILE = "last.ckpt"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the old checkpoint, flushes to disk, then replaces it in one step.

    Only process 0 writes, while the others wait for it at a barrier: an error raised here would
    leave them there for good. So it is kept.

    Attributes:
        failed: why the last write failed; None after one that did not.
    """

    failed: RinceError | None = None

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
            self.failed = None
        except Exception as error:  # whatever it is, the other processes wait
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            there = os.path.exists(target)
            kept = f"the one before is intact: {target}" if there else "there is none yet"
            self.failed = RinceError(
                f"could not write a checkpoint to {target.parent} ({error}); {kept}. Free some "
                f"space there, then go on with `rince train --resume {target.parent}`"
            )


class CheckpointEvery(pl.Callback):
    """One checkpoint, renewed every so many steps and at the end of each epoch.

    A write that fails in mid-run is a warning, since the next one may succeed (somebody frees
    space); at the end of the run it is an error, on every process.

    Not one of Lightning's ``Checkpoint`` callbacks, which it moves behind all others: an epoch is
    to be safe before something else looks at it.

    Args:
        folder: the run's. steps: between two checkpoints. io: the trainer's.
    """

    def __init__(self, folder: Path, steps: int, io: AtomicCheckpointIO) -> None:
        self.path = folder / CHECKPOINT_FILE
        self.steps = steps
        self.io = io

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        if trainer.global_step % self.steps == 0:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Only process 0 knows, and all are to end alike.
        problem = trainer.strategy.broadcast(str(self.io.failed or ""))
        if problem:
            raise RinceError(problem)

    def _save(self, trainer: pl.Trainer) -> None:
        trainer.save_checkpoint(self.path)
        if self.io.failed is not None:
            warn(f"{self.io.failed}. Training goes on and will try again")


@dataclass(frozen=True)
class TrainedRun:
    """A run read back from its folder.

    Args:
        backbone: in evaluation mode, on the CPU.
        in_channels, image_size: of the images it was trained on. frames: of its clips, if it was
            trained on those.
        step: optimizer steps taken.
        data_fingerprint: of the images it was trained with; "" if it was not recorded.
        classifier: features to the logits of the classes, of a run that was trained as one.
    """

    folder: Path
    config: TrainConfig
    taxonomy: Taxonomy
    backbone: Backbone
    in_channels: int
    image_size: int
    step: int
    frames: int | None = None
    data_fingerprint: str = ""
    classifier: nn.Linear | None = None


def load_run(folder: Path, backbone: Backbone | None = None) -> TrainedRun:
    """Read a run's backbone, strictly: every weight must be there and fit.

    Args:
        folder: the run's.
        backbone: one like that given to :func:`~rince.training.run.train`, if one was; the
            weights are loaded into it.

    Raises:
        RinceError: no checkpoint, a damaged one, or one that does not fit its configuration.
    """
    checkpoint = read_checkpoint(folder)
    about = checkpoint[CHECKPOINT_KEY]
    require_own_backbone(about, backbone, folder, f"load_run({str(folder)!r}, backbone=...)")
    config = from_dict(about["config"], quiet=True)
    if backbone is None:
        backbone = build_backbone(
            config.model.backbone,
            in_channels=about["in_channels"],
            image_size=about["image_size"],
            frames=about.get("frames"),
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
        frames=about.get("frames"),
        data_fingerprint=about.get("data_fingerprint") or "",
        classifier=_classifier(config, checkpoint["state_dict"], len(about["taxonomy"])),
    )


def _classifier(
    config: TrainConfig, weights: Mapping[str, torch.Tensor], num_classes: int
) -> nn.Linear | None:
    """The logits of the classes; those of superclasses, which come behind, are left out."""
    if config.objective not in CLASSIFIERS:
        return None
    weight, bias = (weights[f"encoder.head.{name}"][:num_classes] for name in ("weight", "bias"))
    classifier = nn.Linear(weight.shape[1], num_classes)
    classifier.load_state_dict({"weight": weight, "bias": bias})
    return classifier.requires_grad_(False)


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
    except Exception as error:  # a damaged pickle raises anything
        first_line = str(error).strip().partition("\n")[0]
        raise RinceError(
            f"{path} is damaged, perhaps cut short while it was copied "
            f"({type(error).__name__}: {first_line}). Copy it again, or train the run again"
        ) from error
    if not isinstance(checkpoint, dict) or CHECKPOINT_KEY not in checkpoint:
        raise RinceError(f"{path} is a checkpoint, but not one written by rince")
    return checkpoint


def require_own_backbone(
    about: Mapping[str, Any], backbone: Backbone | None, folder: Path, call: str
) -> None:
    """A module of the user's own is code, which the run's folder does not hold.

    Raises:
        RinceError: the run was trained with one, and none is given.
    """
    if backbone is None and about.get("own_backbone"):
        raise RinceError(
            f"{folder} was trained with a module of your own, which its folder does not hold: "
            f"build it as it was built for training and pass it, in Python: {call}"
        )


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
