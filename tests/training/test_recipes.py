"""The recipes that are too large for here start and take steps on stand-in data."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from rince import Taxonomy
from rince.cli.train import parse
from rince.training.history import read_history
from rince.training.run import train

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture(scope="module")
def cifar100_stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CIFAR-100's files with 2 random images a class."""
    root = tmp_path_factory.mktemp("data")
    folder = root / "cifar-100-python"
    folder.mkdir()
    tree = Taxonomy.cifar100()
    fine = torch.arange(200) % 100
    for name in ("train", "test"):
        pixels = np.random.default_rng(0).integers(0, 256, (200, 3072), dtype=np.uint8)
        content = {
            "data": pixels,
            "fine_labels": fine.tolist(),
            "coarse_labels": tree.labels_at(2)[fine].tolist(),
        }
        (folder / name).write_bytes(pickle.dumps(content))
    return root


def test_the_papers_cifar100_recipe_starts(cifar100_stand_in: Path, tmp_path: Path) -> None:
    config = parse(
        [
            *("cifar100", "--config", str(EXPERIMENTS / "cifar100" / "paper.yaml")),
            *("--images.root", str(cifar100_stand_in), "--output", str(tmp_path)),
            *("--epochs", "1", "--optim.warmup_epochs", "0", "--batch_size", "8"),
            *("--images.per_class", "1", "--log_every", "1", "--knn_every", "0"),
            *("--model.backbone", "resnet18-3x3", "--accelerator", "cpu"),
        ]
    )
    assert (config.model.momentum, config.model.queue_size) == (0.99, 4096)
    history = read_history(train(config))
    losses = [value for _, value in history["train/loss"]]
    assert len(losses) == 100 // 8
    assert np.isfinite(losses).all()


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*/*.yaml")), ids=lambda p: p.parent.name)
def test_every_recipe_is_understood(path: Path) -> None:
    config = parse(["x", "--config", str(path)])
    assert config.data == "x"
