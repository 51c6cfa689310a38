"""A few steps of `rince train` on a card, in each precision; a resume; micro-batches."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from rince.training.config import ModelOptions
from rince.training.history import read_history
from rince.training.run import resume, train
from training.small_runs import disturbed, flat_backbone, small_config

pytestmark = pytest.mark.gpu


class Stopped(Exception):
    """By the test, in the middle of a run."""


def losses_of(folder: Path) -> list[float]:
    """One per step."""
    return [value for _, value in read_history(folder)["train/loss"]]


def config(images: Path, output: Path, name: str, **changes: Any) -> Any:
    changes = {"knn_every": 0, **changes}
    return small_config(images, output, accelerator="gpu", devices="1", name=name, **changes)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_steps_with_a_queue_in_each_precision(
    precision: str, image_tree: Path, tmp_path: Path
) -> None:
    model = ModelOptions(momentum=0.99, queue_size=128)
    given = config(image_tree, tmp_path, "queue", epochs=5, model=model, precision=precision)
    losses = losses_of(train(given, flat_backbone()))
    assert len(losses) >= 10
    assert all(math.isfinite(x) and x > 0 for x in losses)


def test_micro_batches_are_the_whole_batch(image_tree: Path, tmp_path: Path) -> None:
    whole = losses_of(train(config(image_tree, tmp_path, "whole", epochs=2), flat_backbone()))
    given = config(image_tree, tmp_path, "parts", epochs=2, micro_batch=8)
    parts = losses_of(train(given, flat_backbone()))
    assert parts == pytest.approx(whole, rel=1e-3)


def test_a_resumed_run_takes_the_same_steps(image_tree: Path, tmp_path: Path) -> None:
    def stop() -> None:
        raise Stopped

    given = {"epochs": 3, "checkpoint_every": 1}
    torch.manual_seed(0)
    whole = train(config(image_tree, tmp_path, "whole", **given), disturbed(-1, stop))
    torch.manual_seed(0)
    with pytest.raises(Stopped):
        train(config(image_tree, tmp_path, "stopped", **given), disturbed(4, stop))
    folder = resume(tmp_path / "stopped", progress=False, backbone=disturbed(-1, stop))
    assert losses_of(folder) == pytest.approx(losses_of(whole), rel=1e-3)
