from __future__ import annotations

import logging
import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_runs import STEPS, flat_backbone, small_config
from torch import nn

from rince import Taxonomy
from rince.core.checks import RinceWarning
from rince.core.input_spec import InputSpec
from rince.data.arrays import TensorImages
from rince.data.batches import eval_batches
from rince.data.items import Items
from rince.models.backbones import as_backbone
from rince.training import callbacks
from rince.training.callbacks import EpochLine, OnlineKNN
from rince.training.config import ImageOptions, OptimOptions, TrainConfig
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
    module: Any = _Module(backbone=backbone, config=TrainConfig("zeros"))
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


def test_a_knn_that_needs_too_much_memory_does_not_stop_it_either(tmp_path: Path) -> None:
    class Large(nn.Flatten):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise torch.cuda.OutOfMemoryError("out of memory")

    with pytest.warns(RinceWarning, match="kNN .*epoch 1.*out of memory"):
        assert _measured(9, Large(), tmp_path) == []


@pytest.mark.parametrize(
    ("batch_size", "micro_batch", "expected"), [(4, None, 8), (64, 3, 6), (1000, None, 512)]
)
def test_knn_takes_no_more_at_once_than_a_step(
    batch_size: int, micro_batch: int | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def batches(items: Items, size: int, *given: Any) -> Any:
        sizes.append(size)
        return eval_batches(items, size, *given)

    monkeypatch.setattr(callbacks, "eval_batches", batches)
    images = torch.zeros(20, 3, 8, 8, dtype=torch.uint8)
    labels = torch.zeros(20, dtype=torch.int64)
    knn = OnlineKNN(
        TensorImages(images, labels, Taxonomy([("a",)]), "zeros"), every=1, limit=100, seed=0
    )
    config = TrainConfig("zeros", batch_size=batch_size, micro_batch=micro_batch)
    knn._measure(_Module(backbone=nn.Flatten(), config=config))  # type: ignore[arg-type]
    assert sizes == [expected]


@pytest.mark.parametrize("workers", [0, 1])
def test_knn_reads_files_with_the_workers_of_the_training(
    workers: int, image_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []

    def batches(items: Items, size: int, workers: int, *device: Any) -> Any:
        found.append(workers)
        return eval_batches(items, size, 0, *device)

    monkeypatch.setattr(callbacks, "eval_batches", batches)
    config = small_config(image_tree, tmp_path, epochs=1)
    config.images = ImageOptions(image_size=16, cache=False, workers=workers)
    train(config, flat_backbone())
    assert found == [workers]


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


def _deep() -> nn.Module:
    """Layers in which a learning rate that is too high leaves nothing but their biases."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(3 * 16 * 16, 32)]
    for _ in range(3):
        layers += [nn.ReLU(), nn.Linear(32, 32)]
    return nn.Sequential(*layers)


def _train_ten_epochs(images: Path, folder: Path, lr: float) -> dict[str, float]:
    """20 steps; the mean similarities of the last epoch."""
    optim = OptimOptions(lr=lr, warmup_epochs=0.5)
    config = small_config(images, folder, name="run", epochs=10, optim=optim)
    history = read_history(train(config, as_backbone(_deep(), InputSpec.images(size=16))))
    return {
        name: sum(value for _, value in values[-STEPS:]) / STEPS
        for name, values in history.items()
        if "similarity" in name
    }


def test_a_training_that_has_collapsed_says_so(image_tree: Path, tmp_path: Path) -> None:
    with pytest.warns(RinceWarning, match="has collapsed") as caught:
        similarities = _train_ten_epochs(image_tree, tmp_path, lr=500.0)
    assert len(caught) == 1
    assert min(similarities.values()) > 0.99
    assert f"{min(similarities.values()):.3f}" in str(caught[0].message)


def test_a_healthy_training_is_silent(image_tree: Path, tmp_path: Path) -> None:
    similarities = _train_ten_epochs(image_tree, tmp_path, lr=0.05)  # RinceWarnings are errors
    assert similarities["train/similarity_rank_0"] < similarities["train/similarity_rank_1"] - 0.1


def test_what_untrained_encoders_and_classifiers_compare_is_no_collapse(
    tmp_path: Path,
) -> None:
    line = EpochLine(HistoryLogger(tmp_path))

    def end(steps: int, *, classifier: bool, negatives: float) -> None:
        line.history.log_metrics(
            {"train/similarity_rank_0": negatives, "train/similarity_rank_1": 0.999}
        )
        trainer: Any = SimpleNamespace(
            is_global_zero=True, current_epoch=0, max_epochs=1, world_size=1, global_step=steps
        )
        module: Any = SimpleNamespace(objective=SimpleNamespace(classifier=classifier))
        line.on_train_epoch_end(trainer, module)
        line.on_train_end(trainer, module)

    end(19, classifier=False, negatives=0.995)
    end(20, classifier=True, negatives=0.995)
    end(20, classifier=False, negatives=0.98)
    with pytest.warns(RinceWarning, match="has collapsed"):
        end(20, classifier=False, negatives=0.995)
