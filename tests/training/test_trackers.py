"""Trackers by name, loggers and callbacks from Python."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.logger import DummyLogger
from small_runs import STEPS, disturbed, flat_backbone, small_config

from rince.core.checks import RinceError
from rince.training.folder import read_about
from rince.training.history import read_history
from rince.training.run import resume, train
from rince.training.trackers import TRACKERS_FILE


class Kept(DummyLogger):
    """Remembers all that it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.options: list[dict[str, Any]] = []
        self.values: list[tuple[str, int | None, float]] = []

    def log_hyperparams(self, params: Any) -> None:
        self.options.append(params)

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.values += [(name, step, value) for name, value in metrics.items()]


class Stop(Exception):
    """The end of a run that is resumed in a test."""


def stop() -> None:
    raise Stop


def test_a_logger_from_python_gets_what_the_history_holds(image_tree: Path, tmp_path: Path) -> None:
    kept = Kept()
    folder = train(small_config(image_tree, tmp_path), flat_backbone(), loggers=[kept])
    given: dict[str, dict[int | None, float]] = {}
    for name, step, value in kept.values:
        given.setdefault(name, {})[step] = value
    assert {n: list(of_name.items()) for n, of_name in given.items()} == read_history(folder)
    (options,) = kept.options
    assert (options["batch_size"], options["optim"]["lr"]) == (32, 0.05)


def test_a_resumed_run_tells_its_loggers_the_rest(image_tree: Path, tmp_path: Path) -> None:
    config = small_config(image_tree, tmp_path, checkpoint_every=1)
    with pytest.raises(Stop):
        train(config, disturbed(4, stop))
    kept = Kept()
    folder = tmp_path / config.run_name()
    resume(folder, backbone=disturbed(99, stop), loggers=[kept], progress=False)
    steps = [step for name, step, _ in kept.values if name == "train/loss"]
    assert steps == list(range(4, 3 * STEPS + 1))
    assert kept.options == []  # the tracker has them


def test_callbacks_are_called_and_may_stop_the_run(image_tree: Path, tmp_path: Path) -> None:
    seen: list[int] = []

    class Watch(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
            seen.append(trainer.global_step)

    best = ModelCheckpoint(tmp_path / "best", monitor="loss")
    early = EarlyStopping("loss", patience=0, min_delta=1e9, check_on_train_epoch_end=True)
    config = small_config(image_tree, tmp_path, epochs=9)
    folder = train(config, flat_backbone(), callbacks=[Watch(), best, early])
    assert seen == [STEPS, 2 * STEPS]
    assert list((tmp_path / "best").glob("*.ckpt"))
    assert read_about(folder)["steps"] == 2 * STEPS  # it is finished


def test_tensorboard(image_tree: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = small_config(image_tree, tmp_path, logger=("tensorboard",), checkpoint_every=2)
    with pytest.raises(Stop):
        train(config, disturbed(4, stop))
    folder = tmp_path / config.run_name()
    resume(folder, backbone=disturbed(99, stop), progress=False)
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    written = {
        name: [(event.step, pytest.approx(event.value)) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }
    history = read_history(folder)
    assert history["train/loss"] == written["train/loss"]
    assert len(history["train/loss"]) == 3 * STEPS


def test_wandb_offline(image_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = small_config(image_tree, tmp_path, logger=("wandb",), checkpoint_every=1)
    with pytest.raises(Stop):
        train(config, disturbed(4, stop))
    assert wandb.run is None
    folder = tmp_path / config.run_name()
    name = json.loads((folder / TRACKERS_FILE).read_text())["wandb"]
    resume(folder, backbone=disturbed(99, stop), progress=False)
    runs = [file.name for file in folder.glob("wandb/offline-run-*/*.wandb")]
    assert len(runs) == 2
    assert set(runs) == {f"run-{name}.wandb"}  # one run, in two parts
    other = train(small_config(image_tree, tmp_path, seed=1, logger="wandb"), flat_backbone())
    assert json.loads((other / TRACKERS_FILE).read_text())["wandb"] != name
    assert len(list(other.glob("wandb/offline-run-*"))) == 1


def test_mlflow(image_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/store")
    config = small_config(image_tree, tmp_path, logger=("mlflow",), checkpoint_every=1)
    with pytest.raises(Stop):
        train(config, disturbed(4, stop))
    folder = tmp_path / config.run_name()
    resume(folder, backbone=disturbed(99, stop), progress=False)
    client = mlflow.MlflowClient(f"file:{tmp_path}/store")
    (experiment,) = client.search_experiments(filter_string="name = 'rince'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == folder.name
    assert run.info.status == "FINISHED"
    assert run.data.params["optim/lr"] == "0.05"
    losses = client.get_metric_history(run.info.run_id, "train/loss")
    values = sorted({x.step: x.value for x in losses}.items())
    assert values == read_history(folder)["train/loss"]


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_tracker_that_is_not_installed(
    image_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"rince\[{name}\]"):
        train(small_config(image_tree, tmp_path, logger=name), flat_backbone())
    assert not list(tmp_path.iterdir())


def test_unknown_trackers(image_tree: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="logger .*tensorboard, wandb, mlflow.*neptune"):
        train(small_config(image_tree, tmp_path, logger="neptune"), flat_backbone())


def test_lightnings_own_loggers(image_tree: Path, tmp_path: Path) -> None:
    folder = train(
        small_config(image_tree, tmp_path / "runs"),
        flat_backbone(),
        loggers=[CSVLogger(tmp_path, "", "csv")],
    )
    text = (tmp_path / "csv" / "metrics.csv").read_text()
    assert "train/loss" in text
    assert len(text.splitlines()) > len(read_history(folder)["train/loss"])
    assert "batch_size: 32" in (tmp_path / "csv" / "hparams.yaml").read_text()


def test_a_run_that_was_trained_already(image_tree: Path, tmp_path: Path) -> None:
    config = small_config(image_tree, tmp_path, epochs=1)
    train(config, flat_backbone(), loggers=[Kept()])
    with pytest.raises(RinceError, match="--resume"):
        train(config, flat_backbone())
