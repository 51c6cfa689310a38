"""A run that is killed and resumed ends with the weights of one that was not."""

from __future__ import annotations

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import STEPS as SMALL_STEPS
from small_runs import disturbed, flat_backbone, small_config

from rince.cli.main import main
from rince.core.checks import RinceError
from rince.core.input_spec import InputSpec
from rince.models.backbones import Backbone
from rince.training import run
from rince.training.checkpoint import CHECKPOINT_FILE, read_checkpoint
from rince.training.config import ModelOptions, OptimOptions
from rince.training.folder import plain_yaml, read_about
from rince.training.history import read_history
from rince.training.module import lr_factor
from rince.training.run import resume, train

EPOCHS, BATCH = 3, 8
STEPS = 96 * 4 // 5 // BATCH  # an epoch; a fifth of the 96 images is held out


def _arguments(images: Path, output: Path, name: str) -> list[str]:
    return [
        *("train", str(images), "--output", str(output), "--name", name),
        *("--images.image-size", "16", "--epochs", str(EPOCHS), "--batch-size", str(BATCH)),
        *("--knn-every", "2", "--model.momentum", "0.9", "--model.queue-size", "24"),
        *("--optim.lr", "0.05", "--checkpoint-every", "1", "--log-every", "1"),
        *("--accelerator", "cpu"),
    ]


def _last_step(folder: Path) -> int:
    file = folder / "metrics.csv"
    if not file.exists():
        return 0
    with file.open(newline="") as stream:
        steps = [int(row["step"]) for row in csv.DictReader(stream) if row["value"]]
    return max(steps, default=0)


@pytest.fixture(scope="module")
def runs(image_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of one configuration: "whole", and "killed" with SIGKILL in mid-epoch."""
    output = tmp_path_factory.mktemp("runs")
    assert main(_arguments(image_tree, output, "whole")) == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "rince", *_arguments(image_tree, output, "killed")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while _last_step(output / "killed") < STEPS + 3:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return output


def test_killed_and_resumed_equals_uninterrupted(runs: Path) -> None:
    whole = read_checkpoint(runs / "whole")
    killed = read_checkpoint(runs / "killed")
    assert killed["global_step"] % STEPS != 0, "killed between two epochs: nothing is shown"
    assert STEPS < killed["global_step"] < whole["global_step"]
    weight = "encoder.backbone.stem.0.weight"
    assert not torch.equal(killed["state_dict"][weight], whole["state_dict"][weight])
    assert main(["train", "--resume", str(runs / "killed")]) == 0
    resumed = read_checkpoint(runs / "killed")
    assert resumed["global_step"] == whole["global_step"] == EPOCHS * STEPS
    assert resumed["state_dict"].keys() == whole["state_dict"].keys()
    for name, expected in whole["state_dict"].items():
        assert torch.equal(resumed["state_dict"][name], expected), name
    momenta = [c["optimizer_states"][0]["state"] for c in (resumed, whole)]
    for index, state in momenta[1].items():
        assert torch.equal(momenta[0][index]["momentum_buffer"], state["momentum_buffer"])


def test_a_truncated_checkpoint_is_named(runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text((runs / "whole" / "config.yaml").read_text())
    whole = (runs / "whole" / CHECKPOINT_FILE).read_bytes()
    for kept in (0, 100, len(whole) // 2, len(whole) - 50):
        (folder / CHECKPOINT_FILE).write_bytes(whole[:kept])
        with pytest.raises(RinceError, match=r"last.ckpt"):
            resume(folder)


def test_a_checkpoint_of_another_architecture_is_refused(runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    text = (runs / "whole" / "config.yaml").read_text()
    (folder / CHECKPOINT_FILE).write_bytes((runs / "whole" / CHECKPOINT_FILE).read_bytes())
    for name, before, after, misfit in (
        ("backbone", "small-resnet", "resnet18-3x3", "last.ckpt .*RankedModule"),
        ("embedding_dim", "128", "64", r"\(128, 256\).*\(64, 256\)"),
    ):
        edited = text.replace(f"{name}: {before}", f"{name}: {after}")
        (folder / "config.yaml").write_text(edited)
        with pytest.raises(RinceError, match=rf"model.{name} {after} \(was {before}\)"):
            resume(folder)
        # Weights that do not fit what the checkpoint itself says, too.
        whole = read_checkpoint(folder)["rince"]["config"]
        _edited(folder, config={**whole, "model": plain_yaml(edited)["model"]})
        with pytest.raises(RinceError, match=misfit):
            resume(folder)
        _edited(folder, config=whole)


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RinceError, match=r"config.yaml"):
        resume(tmp_path)
    (tmp_path / CHECKPOINT_FILE).write_bytes(b"")
    torch.save({"state_dict": {}}, tmp_path / CHECKPOINT_FILE)
    with pytest.raises(RinceError, match="last.ckpt"):
        read_checkpoint(tmp_path)


def _edited(folder: Path, **about: Any) -> None:
    """Change what a checkpoint says of its run; None takes the entry out, as in older ones."""
    checkpoint = torch.load(folder / CHECKPOINT_FILE)
    for key, value in about.items():
        del checkpoint["rince"][key]
        if value is not None:
            checkpoint["rince"][key] = value
    torch.save(checkpoint, folder / CHECKPOINT_FILE)


@pytest.fixture
def small_run(image_tree: Path, tmp_path: Path) -> Path:
    """A finished run with a module of one's own, on a copy of the images in tmp_path/images."""
    shutil.copytree(image_tree, tmp_path / "images")
    config = small_config(tmp_path / "images", tmp_path, name="run", epochs=1, knn_every=0)
    return train(config, flat_backbone())


def test_other_images_are_refused(small_run: Path, tmp_path: Path) -> None:
    moved = tmp_path / "images" / "warm" / "red" / "00.png"
    moved.rename(moved.with_name("new.png"))
    with pytest.raises(RinceError, match=r"/images .*/run "):
        resume(small_run, progress=False, backbone=flat_backbone())
    moved.with_name("new.png").rename(moved)
    resume(small_run, progress=False, backbone=flat_backbone())


def test_other_steps_or_processes_are_refused(small_run: Path) -> None:
    _edited(small_run, world_size=2, steps_per_epoch=SMALL_STEPS - 1)
    message = (
        f"was trained by 2 process.es. in {SMALL_STEPS - 1} steps an epoch; "
        f"this would be 1 process.es. in {SMALL_STEPS} steps"
    )
    with pytest.raises(RinceError, match=message):
        resume(small_run, progress=False, backbone=flat_backbone())
    config = (small_run / "config.yaml").read_text()
    _edited(small_run, world_size=1, steps_per_epoch=SMALL_STEPS)
    edited = config.replace("batch_size: 32", "batch_size: 16")
    (small_run / "config.yaml").write_text(edited)
    with pytest.raises(RinceError, match=r"batch_size 16 \(was 32\)"):
        resume(small_run, progress=False, backbone=flat_backbone())
    _edited(small_run, config=plain_yaml(edited))  # as where the data are fewer
    with pytest.raises(RinceError, match=f" {SMALL_STEPS} steps .* 1[0-9]* process"):
        resume(small_run, progress=False, backbone=flat_backbone())


def _stopped(image_tree: Path, tmp_path: Path, **changes: Any) -> Path:
    """A run of 3 epochs that was stopped after the first."""

    def stop() -> None:
        raise KeyboardInterrupt

    config = small_config(image_tree, tmp_path, name="run", knn_every=0, **changes)
    with pytest.raises(KeyboardInterrupt):
        train(config, disturbed(SMALL_STEPS + 1, stop))
    return tmp_path / "run"


def _edit(folder: Path, *words: tuple[str, str]) -> None:
    text = (folder / "config.yaml").read_text()
    for before, after in words:
        assert text.count(before) == 1
        text = text.replace(before, after)
    (folder / "config.yaml").write_text(text)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_an_edited_learning_rate_is_used_from_there_on(
    optimizer: Any, image_tree: Path, tmp_path: Path
) -> None:
    optim = OptimOptions(optimizer=optimizer, lr=0.05, warmup_epochs=0.5)
    folder = _stopped(image_tree, tmp_path, optim=optim)
    edits = ("lr: 0.05", "lr: 0.02 # too high"), ("weight_decay: 0.0001", "weight_decay: 0.5")
    _edit(folder, *edits, ("clip: null", "clip: 3"), ("log_every: 1", "log_every: 2"))
    resume(folder, progress=False, backbone=disturbed(0, list))
    total = 3 * SMALL_STEPS
    warmup = round(total * 0.5 / 3)
    rates = [lr for _, lr in read_history(folder)["train/lr"]]
    expected = [0.05 * lr_factor(step, total, warmup, 1e-3) for step in range(SMALL_STEPS)] + [
        0.02 * lr_factor(step, total, warmup, 1e-3) for step in range(SMALL_STEPS + 1, total, 2)
    ]
    assert rates == pytest.approx(expected, rel=1e-6)
    checkpoint = read_checkpoint(folder)
    assert checkpoint["global_step"] == total
    assert checkpoint["rince"]["config"]["optim"]["lr"] == 0.02
    (group,) = checkpoint["optimizer_states"][0]["param_groups"]
    assert (group["weight_decay"], group["initial_lr"]) == (0.5, 0.02)
    assert (
        f"from step {SMALL_STEPS + 1} on: optim.lr 0.02 (was 0.05), optim.weight_decay 0.5 (was "
        f"0.0001), optim.clip 3 (was None)\n"
    ) in (folder / "log.txt").read_text()
    assert "# too high" in (folder / "config.yaml").read_text()


def test_an_edit_of_a_run_that_is_finished_has_no_effect_and_is_told_so(
    small_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was recorded, as if the run had been trained with it."""
    trained = read_about(small_run)["config"]
    assert trained["optim"]["lr"] == 0.05
    _edit(
        small_run,
        ("lr: 0.05", "lr: 0.02"),
        ("clip: null", "clip: 3"),
        ("log_every: 1", "log_every: 2"),
    )
    moved = (small_run.parent / "images").rename(small_run.parent / "moved")
    _edit(small_run, (f"{small_run.parent}/images", str(moved)))
    resume(small_run, progress=False, backbone=flat_backbone())
    said = capsys.readouterr().out
    assert "optim.lr 0.02 (was 0.05), optim.clip 3 (was None) in its config.yaml" in said
    assert "no effect, as no step is left" in said
    assert read_about(small_run)["config"] == {**trained, "data": str(moved), "log_every": 2}
    assert "optim.lr 0.02" not in (small_run / "log.txt").read_text()
    # Where steps are left they are used.
    resume(small_run, epochs=2, progress=False, backbone=flat_backbone())
    assert "no effect" not in capsys.readouterr().out
    assert read_about(small_run)["config"]["optim"]["lr"] == 0.02
    _edit(small_run, ("\nepochs: 2", "\nepochs: 1"))
    with pytest.raises(ValueError, match=r"trained for 2 epochs: epochs in .* at least, got 1"):
        resume(small_run, progress=False, backbone=flat_backbone())


def test_other_options_are_refused_by_name(image_tree: Path, tmp_path: Path) -> None:
    folder = _stopped(image_tree, tmp_path)
    text = (folder / "config.yaml").read_text()
    for before, after, told in (
        ("optimizer: sgd", "optimizer: adamw", r"optim.optimizer adamw \(was sgd\)"),
        ("objective: rince", "objective: infonce", r"objective infonce \(was rince\)"),
        ("variant: out-in", "variant: in", r"loss.variant in \(was out-in\)"),
        ("\nseed: 0", "\nseed: 7", r"seed 7 \(was 0\)"),
        ("batch_size: 32", "batch_size: 30", r"batch_size 30 \(was 32\)"),  # in as many steps
        ("augmentation: strong", "augmentation: weak", r"images.augmentation weak \(was strong\)"),
    ):
        _edit(folder, (before, after), ("lr: 0.05", "lr: 0.02"))
        message = rf"/run cannot go on .*: {told} in .*config.yaml.*--name NEW.* another optim.lr"
        with pytest.raises(RinceError, match=message):
            resume(folder, progress=False, backbone=disturbed(0, list))
        (folder / "config.yaml").write_text(text)
    # What is taken out is at its default, which for the learning rate follows the batch.
    _edit(folder, ("  lr: 0.05\n", ""), ("  optimizer: sgd\n", ""))
    resume(folder, progress=False, backbone=disturbed(0, list))
    assert read_checkpoint(folder)["rince"]["config"]["optim"]["lr"] == 0.5 * 32 / 512


def test_fewer_epochs_than_a_run_was_started_for_are_said(
    small_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small_run / "config.yaml"
    config.write_text(re.sub("^epochs: 1$", "epochs: 4", config.read_text(), flags=re.M))
    resume(small_run, epochs=2, progress=False, backbone=flat_backbone())
    said = capsys.readouterr().out
    assert re.search(r"run was started for 4 epochs, and ends after 2 now", said)
    assert read_checkpoint(small_run)["global_step"] == 2 * SMALL_STEPS
    resume(small_run, epochs=4, progress=False, backbone=flat_backbone())
    assert "ends after" not in capsys.readouterr().out


def test_an_older_checkpoint_is_accepted(small_run: Path) -> None:
    _edited(
        small_run, world_size=None, steps_per_epoch=None, data_fingerprint=None, own_backbone=None
    )
    resume(small_run, progress=False, backbone=flat_backbone())


def test_a_module_of_ones_own_must_be_passed_again(small_run: Path) -> None:
    with pytest.raises(RinceError, match=r"resume\(folder, backbone="):
        resume(small_run, progress=False)


def test_pretrained_weights_are_not_fetched_to_be_overwritten(
    image_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def build(name: str, spec: InputSpec, *, pretrained: bool, **_: Any) -> Backbone:
        asked.append(pretrained)
        return flat_backbone()

    monkeypatch.setattr("rince.models.backbones.build_backbone", build)
    model = ModelOptions(backbone="torchvision/resnet18", pretrained=True)
    folder = train(small_config(image_tree, tmp_path, model=model, epochs=1, knn_every=0))
    resume(folder, progress=False)
    assert asked == [True, False]


def test_a_checkpoint_is_not_held_during_training(
    small_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Checkpoint(dict[str, Any]):
        """A dict that can be watched."""

    watched: list[weakref.ref[Checkpoint]] = []

    def read(folder: Path) -> Checkpoint:
        found = Checkpoint(read_checkpoint(folder))
        watched.append(weakref.ref(found))
        return found

    def fit(*_: Any, **__: Any) -> None:
        assert watched[0]() is None

    monkeypatch.setattr(run, "read_checkpoint", read)
    monkeypatch.setattr(run, "_fit", fit)
    resume(small_run, progress=False, backbone=flat_backbone())
    assert watched
