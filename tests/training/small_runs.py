"""Runs of seconds, on 16-pixel images with a linear backbone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from rince import Taxonomy
from rince.core.input_spec import InputSpec
from rince.data.arrays import TensorImages
from rince.data.items import Splits
from rince.models.backbones import Backbone, as_backbone
from rince.training.checkpoint import CHECKPOINT_FILE
from rince.training.config import ImageOptions, OptimOptions, TrainConfig

STEPS = 96 * 4 // 5 // 32  # an epoch of small_config; a fifth of the 96 images is held out

# Of the last of four tasks on two machines.
SLURM = {
    "SLURM_NTASKS": "4",
    "SLURM_NNODES": "2",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_JOB_NAME": "train",
    "SLURM_JOB_ID": "1",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_NODELIST": "node[1-2]",
}


def small_config(images: Path, output: Path, **changes: object) -> TrainConfig:
    values: dict[str, object] = {
        "data": str(images),
        "images": ImageOptions(image_size=16),
        "optim": OptimOptions(lr=0.05, warmup_epochs=0.5),
        "epochs": 3,
        "batch_size": 32,
        "output": str(output),
        "accelerator": "cpu",
        "log_every": 1,
        "progress": False,
        **changes,
    }
    return TrainConfig(**values)  # type: ignore[arg-type]


def splits_of(tree: Taxonomy, kind: type[TensorImages] = TensorImages) -> Splits:
    """An image of 16 pixels of each class."""
    count = tree.num_classes
    pixels = torch.zeros(count, 3, 16, 16, dtype=torch.uint8)
    items = kind(pixels, torch.arange(count), tree, "images")
    return Splits(items, items)


def flat_backbone() -> Backbone:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 16))
    return as_backbone(module, InputSpec.images(size=16))


class Disturbed(nn.Module):
    """A backbone to which something happens in a certain training step."""

    def __init__(self, step: int, happens: Callable[[], object]) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 16 * 16, 16)
        self.step = step
        self.happens = happens
        self.steps = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.steps += 1
            if self.steps == self.step:
                self.happens()
        features: torch.Tensor = self.linear(images.flatten(1))
        return features


def disturbed(step: int, happens: Callable[[], object]) -> Backbone:
    return as_backbone(Disturbed(step, happens), InputSpec.images(size=16))


def train_on(run: Path) -> None:
    """Make the weights in a run's folder other ones, its files as old as they were."""
    file = run / CHECKPOINT_FILE
    times, checkpoint = file.stat(), torch.load(file, weights_only=True)
    for weights in checkpoint["state_dict"].values():
        if weights.is_floating_point():
            weights += 0.01
    torch.save(checkpoint, file)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
