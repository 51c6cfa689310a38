from __future__ import annotations

import logging
import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_runs import flat_backbone, small_config
from torch import nn

from rince import Taxonomy
from rince.core.checks import RinceWarning
from rince.data.arrays import TensorImages
from rince.training import callbacks
from rince.training.callbacks import EpochLine, OnlineKNN
from rince.training.history import read_history
from rince.training.run import train
from rince.training.saving import HistoryLogger


class _Module(SimpleNamespace):
    """As much of a RankedModule as the callbacks touch."""

    device = torch.device("cpu")

    def log(self, *args: Any, **kwargs: Any) -> None: ...


def _measured(count: int, backbone: nn.Module, folder: Path) -> list[tuple[int, float]]:
    images = TensorImages(
        torch.zeros(count, 3, 8, 8, dtype=torch.uint8),
        torch.zeros(count, dtype=torch.int64),
        Taxonomy([("a",), ("b",)]),
        "zeros",
    )
    history = HistoryLogger(folder)
    trainer: Any = SimpleNamespace(
        is_global_zero=True, current_epoch=0, max_epochs=1, global_step=4, loggers=[history]
    )
    module: Any = _Module(backbone=backbone)
    callback = OnlineKNN(images, every=1, limit=100, seed=0)
    callback.on_train_epoch_end(trainer, module)
    return read_history(folder).get("online_knn", [])


@pytest.mark.parametrize(
    ("count", "expected"), [(0, []), (1, []), (2, [(4, 1.0)]), (4, [(4, 1.0)]), (9, [(4, 1.0)])]
)
def test_knn_of_few_images(count: int, expected: object, tmp_path: Path) -> None:
    assert _measured(count, nn.Flatten(), tmp_path) == expected


def test_a_knn_that_fails_does_not_stop_the_training(tmp_path: Path) -> None:
    class Broken(nn.Flatten):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images) * math.nan

    with pytest.warns(RinceWarning, match="kNN .*epoch 1"):
        assert _measured(9, Broken(), tmp_path) == []


def test_a_checkpoint_is_written_before_knn_looks(
    image_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []

    def look(self: OnlineKNN, trainer: Any, module: Any) -> None:
        found.append(torch.load(Path(tmp_path) / "run" / "last.ckpt")["global_step"])

    monkeypatch.setattr(callbacks.OnlineKNN, "on_train_epoch_end", look)
    train(small_config(image_tree, tmp_path, name="run", epochs=2), flat_backbone())
    assert found == [2, 4]


def test_the_speed_is_that_of_the_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    line = EpochLine(HistoryLogger(tmp_path))
    trainer: Any = SimpleNamespace(is_global_zero=True, current_epoch=0, max_epochs=2, world_size=3)
    module: Any = SimpleNamespace(config=SimpleNamespace(batch_size=8))
    with caplog.at_level(logging.INFO, "rince"):
        for epoch in (0, 1):
            trainer.current_epoch = epoch
            line.on_train_epoch_start(trainer, module)
            for _ in range(5):
                now[0] += 2
                line.on_train_batch_end(trainer, module)
            now[0] += 1000  # kNN, a checkpoint
            line.on_train_epoch_end(trainer, module)
    # 5 steps of 8 images on 3 processes in 10 seconds
    assert caplog.messages == ["epoch 1/2 | 12 images/s", "epoch 2/2 | 12 images/s"]
