"""Callbacks of the user's: what they keep, and what they do to a run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import (
    EarlyStopping,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from small_runs import STEPS, flat_backbone, small_config

from rince.core.checks import RinceError, RinceWarning
from rince.training import saving
from rince.training.checkpoint import CHECKPOINT_FILE, load_run, read_checkpoint
from rince.training.config import TrainConfig
from rince.training.run import resume, train


def _config(images: Path, output: Path, name: str, **changes: object) -> TrainConfig:
    return small_config(images, output, name=name, knn_every=0, **changes)


class Killed(Exception):
    pass


class Kill(pl.Callback):
    """Ends the program at the beginning of the step after so many."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
        if trainer.global_step == self.steps:
            raise Killed


def _train_in_two(config: TrainConfig, steps: int, callbacks: Any) -> Path:
    """Killed after so many steps, and resumed; ``callbacks`` makes them anew."""
    with pytest.raises(Killed):
        train(config, flat_backbone(), callbacks=[*callbacks(), Kill(steps)])
    folder = Path(config.output) / str(config.name)
    return resume(folder, progress=False, backbone=flat_backbone(), callbacks=callbacks())


def _require_same_weights(found: Path, expected: Path) -> None:
    weights = read_checkpoint(found)["state_dict"]
    for name, value in read_checkpoint(expected)["state_dict"].items():
        assert torch.equal(weights[name], value), name


@pytest.mark.parametrize("killed", [STEPS, 2 * STEPS, 2 * STEPS + 1])
def test_a_resumed_run_stops_where_the_whole_one_stops(
    killed: int, image_tree: Path, tmp_path: Path
) -> None:
    def early() -> list[pl.Callback]:
        return [EarlyStopping("loss", patience=2, min_delta=100.0)]

    changes: dict[str, object] = {"epochs": 8, "checkpoint_every": 1}
    whole = train(
        _config(image_tree, tmp_path, "whole", **changes), flat_backbone(), callbacks=early()
    )
    assert read_checkpoint(whole)["global_step"] == 3 * STEPS
    config = _config(image_tree, tmp_path, "cut", **changes)
    found = _train_in_two(config, killed, early)
    assert read_checkpoint(found)["global_step"] == 3 * STEPS
    _require_same_weights(found, whole)


class Seen(pl.Callback):
    """Counts what it has seen of a run."""

    def __init__(self) -> None:
        self.seen = {"steps": 0, "epochs": 0}

    def on_train_batch_end(self, *_: object) -> None:
        self.seen["steps"] += 1

    def on_train_epoch_end(self, *_: object) -> None:
        self.seen["epochs"] += 1

    def state_dict(self) -> dict[str, Any]:
        return dict(self.seen)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seen = state_dict


@pytest.mark.parametrize("killed", [STEPS, STEPS + 1, 2 * STEPS])
def test_a_callback_sees_each_step_and_epoch_once(
    killed: int, image_tree: Path, tmp_path: Path
) -> None:
    config = _config(image_tree, tmp_path, "run", checkpoint_every=1)
    # A ModelCheckpoint comes last, as the run's own does.
    found = _train_in_two(config, killed, lambda: [Seen(), ModelCheckpoint(tmp_path / "best")])
    states = read_checkpoint(found)["callbacks"]
    assert states["Seen"] == {"steps": 3 * STEPS, "epochs": 3}
    (other,) = (state for name, state in states.items() if "ModelCheckpoint" in name)
    assert Path(other["best_model_path"]).stem.endswith(f"step={3 * STEPS}")


def test_averaged_weights_are_those_of_the_run(image_tree: Path, tmp_path: Path) -> None:
    def average() -> list[pl.Callback]:
        return [EMAWeightAveraging(decay=0.5)]

    config = _config(image_tree, tmp_path, "whole", checkpoint_every=1)
    last: dict[str, torch.Tensor] = {}

    class Look(pl.Callback):
        def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            last.update({name: x.clone() for name, x in pl_module.state_dict().items()})

    whole = train(config, flat_backbone(), callbacks=[*average(), Look()])
    config = _config(image_tree, tmp_path, "cut", checkpoint_every=1)
    _require_same_weights(_train_in_two(config, STEPS + 1, average), whole)
    for name, weights in read_checkpoint(whole)["state_dict"].items():
        assert torch.equal(weights, last[name]), name


class Keeps(pl.Callback):
    """Keeps something in its state."""

    def __init__(self, **kept: object) -> None:
        self.kept = kept

    def state_dict(self) -> dict[str, Any]:
        return self.kept

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.kept = state_dict


def test_numbers_of_numpy_are_kept(image_tree: Path, tmp_path: Path) -> None:
    callback = Keeps(best=np.float32(0.1), steps=np.int64(3), name=np.str_("a"))
    config = _config(image_tree, tmp_path, "run", epochs=1)
    folder = train(config, flat_backbone(), callbacks=[callback])
    assert isinstance(callback.kept["best"], np.float32)
    load_run(folder, flat_backbone())
    again = Keeps()
    resume(folder, epochs=2, progress=False, backbone=flat_backbone(), callbacks=[again])
    assert again.kept == {"best": float(np.float32(0.1)), "steps": 3, "name": "a"}


class Adds(pl.Callback):
    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["mine"] = {"at": Path("x")}


@pytest.mark.parametrize(
    ("callback", "named"),
    [
        (Keeps(at=Path("x")), "state_dict of the callback Keeps .*Path"),
        (Keeps(best=[np.float64(1)]), r"callback Keeps .*scalar.*x\.item"),
        (Keeps(all=np.ones(2)), r"callback Keeps .*from_numpy"),
        (Keeps(read=lambda: 0), "callback Keeps .*lambda"),
        (Adds(), "checkpoint's 'mine' .*Path"),
    ],
)
def test_what_could_not_be_read_again_is_named_at_the_first_save(
    callback: pl.Callback, named: str, image_tree: Path, tmp_path: Path
) -> None:
    config = _config(image_tree, tmp_path, "run", checkpoint_every=1)
    with pytest.raises(RinceError, match=named):
        train(config, flat_backbone(), callbacks=[callback])
    assert not (tmp_path / "run" / CHECKPOINT_FILE).exists()


def test_tensors_may_be_kept(image_tree: Path, tmp_path: Path) -> None:
    kept = Keeps(weights={"a": torch.ones(2), "b": [torch.zeros(1)]}, names=("a", None))
    folder = train(
        _config(image_tree, tmp_path, "run", epochs=1), flat_backbone(), callbacks=[kept]
    )
    assert torch.equal(read_checkpoint(folder)["callbacks"]["Keeps"]["weights"]["a"], torch.ones(2))


def test_a_disk_that_is_full_is_not_forgotten_for_another_checkpoint(
    image_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, replacing = tmp_path / "run" / CHECKPOINT_FILE, saving.replacing

    @contextlib.contextmanager
    def replaced(target: Path) -> Iterator[Path]:
        if target == full:
            raise OSError(28, "No space left on device")
        with replacing(target) as part:
            yield part

    monkeypatch.setattr(saving, "replacing", replaced)
    other = ModelCheckpoint(tmp_path / "other", save_top_k=-1)
    with (
        pytest.warns(RinceWarning, match="will try again"),
        pytest.raises(RinceError, match=rf"No space left.*--resume {full.parent}`"),
    ):
        train(_config(image_tree, tmp_path, "run"), flat_backbone(), callbacks=[other])
    assert len(list((tmp_path / "other").iterdir())) == 3


class Accumulate(pl.Callback):
    def on_train_epoch_start(self, trainer: pl.Trainer, *_: object) -> None:
        trainer.accumulate_grad_batches = 2


@pytest.mark.parametrize(
    ("callbacks", "named"),
    [
        ([GradientAccumulationScheduler({9: 2})], "GradientAccumulationScheduler.*micro_batch"),
        ([Seen(), Accumulate()], "accumulate_grad_batches is 2.*micro_batch"),
        ([StochasticWeightAveraging(0.1)], "StochasticWeightAveraging.*EMAWeightAveraging"),
    ],
)
def test_callbacks_that_are_refused(
    callbacks: Sequence[pl.Callback], named: str, image_tree: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=named):
        train(_config(image_tree, tmp_path, "run"), flat_backbone(), callbacks=callbacks)
    assert not (tmp_path / "run").exists()
