"""A run that a callback has ended in mid-epoch goes on where it stood."""

from __future__ import annotations

import json
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from small_runs import flat_backbone, small_config

from rince.core.checks import RinceError
from rince.training.checkpoint import read_checkpoint
from rince.training.config import TrainConfig
from rince.training.folder import ABOUT_FILE
from rince.training.history import read_history
from rince.training.run import resume, train

STEPS = 4  # an epoch
TOTAL = 3 * STEPS


class Halt(pl.Callback):
    """Ends the training at a step, as Lightning's Timer does."""

    def __init__(self, step: int, hook: str) -> None:
        self.step = step
        self.hook = hook

    def _halt(self, trainer: pl.Trainer, hook: str) -> None:
        if (trainer.global_step, hook) == (self.step, self.hook):
            trainer.should_stop = True

    def on_train_start(self, trainer: pl.Trainer, *_: object) -> None:
        self._halt(trainer, "train")

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: object) -> None:
        self._halt(trainer, "epoch")

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        self._halt(trainer, "batch")


def _config(images: Path, output: Path, name: str) -> TrainConfig:
    return small_config(images, output, name=name, batch_size=16, knn_every=0)


@pytest.fixture(scope="module")
def whole(image_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(_config(image_tree, tmp_path_factory.mktemp("whole"), "run"), flat_backbone())


@pytest.mark.parametrize(
    ("step", "hook"),
    [
        (1, "batch"),
        (STEPS, "epoch"),  # of an epoch without a step
        (6, "batch"),
        (2 * STEPS, "batch"),  # the last one of an epoch
        (TOTAL - 2, "batch"),
    ],
)
def test_a_halted_run_can_be_finished(
    step: int, hook: str, whole: Path, image_tree: Path, tmp_path: Path
) -> None:
    config = _config(image_tree, tmp_path, "run")
    folder = train(config, flat_backbone(), callbacks=[Halt(step, hook)])
    assert json.loads((folder / ABOUT_FILE).read_text())["steps"] == step  # it counts as finished
    assert read_checkpoint(folder)["global_step"] == step
    resume(folder, progress=False, backbone=flat_backbone())
    found, expected = read_checkpoint(folder), read_checkpoint(whole)
    assert found["global_step"] == TOTAL
    assert json.loads((folder / ABOUT_FILE).read_text())["steps"] == TOTAL
    for name, weights in expected["state_dict"].items():
        assert torch.equal(found["state_dict"][name], weights), name
    assert read_history(folder) == read_history(whole)


def test_a_halted_run_can_be_halted_again_and_lengthened(
    whole: Path, image_tree: Path, tmp_path: Path
) -> None:
    config = _config(image_tree, tmp_path, "run")
    folder = train(config, flat_backbone(), callbacks=[Halt(5, "batch")])
    halt = Halt(6, "batch")
    resume(folder, progress=False, backbone=flat_backbone(), callbacks=[halt])
    assert read_checkpoint(folder)["global_step"] == 6
    resume(folder, epochs=5, progress=False, backbone=flat_backbone())
    assert read_checkpoint(folder)["global_step"] == 5 * STEPS
    about = json.loads((folder / ABOUT_FILE).read_text())
    assert about["steps"] == about["planned_steps"] == 5 * STEPS


def test_a_run_that_is_halted_before_its_first_step(image_tree: Path, tmp_path: Path) -> None:
    config = _config(image_tree, tmp_path, "run")
    with pytest.raises(RinceError, match=f"step 0 of {TOTAL}; there is no checkpoint"):
        train(config, flat_backbone(), callbacks=[Halt(0, "train")])
    assert not (tmp_path / "run").exists()
