from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from small_runs import flat_backbone, small_config
from torch import nn

from rince.core.checks import RinceError, RinceWarning
from rince.models.weights import load_strictly
from rince.training.checkpoint import (
    CHECKPOINT_FILE,
    CHECKPOINT_KEY,
    load_run,
    read_checkpoint,
)
from rince.training.folder import ABOUT_FILE, read_about
from rince.training.run import train
from rince.training.saving import AtomicCheckpointIO, CheckpointEvery


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, small_disk: None) -> None:
    path = tmp_path / "last.ckpt"
    writer = AtomicCheckpointIO(tmp_path)
    writer.save_checkpoint({"weights": torch.ones(10)}, path)
    assert writer.failed is None
    # Kept, not raised: the other processes of a run wait for this one.
    writer.save_checkpoint({"weights": torch.ones(100_000)}, path)
    assert f"is intact: {path}" in str(writer.failed)
    assert f"(File too large: '{path}')" in str(writer.failed).replace("[Errno 27] ", "")
    assert torch.equal(torch.load(path)["weights"], torch.ones(10))
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]
    writer.save_checkpoint({"weights": torch.ones(20)}, path)
    assert writer.failed is None


def test_the_first_checkpoint_fails(tmp_path: Path, small_disk: None) -> None:
    writer = AtomicCheckpointIO(tmp_path)
    writer.save_checkpoint({"x": torch.ones(100_000)}, tmp_path / "last.ckpt")
    assert "none yet" in str(writer.failed)
    assert list(tmp_path.iterdir()) == []


def test_no_failure_leaves_the_other_processes_waiting(tmp_path: Path) -> None:
    writer = AtomicCheckpointIO(tmp_path)
    writer.save_checkpoint({"x": lambda: 0}, tmp_path / "last.ckpt")  # cannot be pickled
    assert "--resume" in str(writer.failed)
    assert "lambda" in str(writer.failed)
    assert "space" not in str(writer.failed)
    (tmp_path / "file").write_text("")
    writer = AtomicCheckpointIO(tmp_path / "file")
    writer.save_checkpoint({}, tmp_path / "file" / "last.ckpt")  # below a file
    assert "none yet" in str(writer.failed)


def test_another_checkpoint_does_not_hide_that_the_runs_own_failed(tmp_path: Path) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    writer = AtomicCheckpointIO(run)
    writer.save_checkpoint({"x": lambda: 0}, run / CHECKPOINT_FILE)
    writer.save_checkpoint({}, elsewhere / CHECKPOINT_FILE)
    assert f"--resume {run}`" in str(writer.failed)
    writer.save_checkpoint({}, run / CHECKPOINT_FILE)
    assert writer.failed is None
    with pytest.warns(RinceWarning, match=rf"{elsewhere} .*is intact.*goes on without") as found:
        writer.save_checkpoint({"x": lambda: 0}, elsewhere / CHECKPOINT_FILE)
    assert writer.failed is None
    assert "--resume" not in str(found[0].message)  # nothing there can be resumed


class _Trainer:
    """As much of a Trainer as the callback touches: its step, and a write that can fail."""

    def __init__(self, io: AtomicCheckpointIO) -> None:
        self.io = io
        self.global_step = 0
        self.full = self.is_last_batch = False
        self.is_global_zero = True
        self.saved: list[int] = []
        self.strategy = SimpleNamespace(broadcast=lambda x: x)

    def save_checkpoint(self, path: Path) -> None:
        self.io.failed = None
        if self.full:
            self.io.failed = RinceError(f"could not write a checkpoint to {path.parent}")
        else:
            self.saved.append(self.global_step)

    def take_steps(self, callback: CheckpointEvery, count: int) -> None:
        for _ in range(count):
            self.global_step += 1
            callback.on_train_batch_end(self, None)  # type: ignore[arg-type]


def test_a_disk_that_is_full_for_a_while(tmp_path: Path) -> None:
    io = AtomicCheckpointIO(tmp_path)
    trainer, callback = _Trainer(io), CheckpointEvery(tmp_path, 3, io)
    trainer.take_steps(callback, 4)
    trainer.full = True
    with pytest.warns(RinceWarning, match="test_a_disk_that_is_full"):
        trainer.take_steps(callback, 2)
    with pytest.raises(RinceError, match="test_a_disk_that_is_full"):
        callback.on_train_end(trainer, None)  # type: ignore[arg-type]
    trainer.full = False
    trainer.take_steps(callback, 3)
    callback.on_train_end(trainer, None)  # type: ignore[arg-type]
    assert trainer.saved == [3, 9]


def test_the_end_of_an_epoch_is_written_once(tmp_path: Path) -> None:
    io = AtomicCheckpointIO(tmp_path)
    trainer, callback = _Trainer(io), CheckpointEvery(tmp_path, 3, io)
    trainer.take_steps(callback, 5)
    trainer.is_last_batch = True
    trainer.take_steps(callback, 1)
    callback.on_train_epoch_end(trainer, None)  # type: ignore[arg-type]
    assert trainer.saved == [3, 6]


def test_all_processes_end_alike(tmp_path: Path) -> None:
    io = AtomicCheckpointIO(tmp_path)  # of a process that writes nothing
    trainer, callback = _Trainer(io), CheckpointEvery(tmp_path, 3, io)
    trainer.strategy.broadcast = lambda _: "no space on process 0"
    with pytest.raises(RinceError, match="no space on process 0"):
        callback.on_train_end(trainer, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [KeyError("x"), IndexError("y"), pickle.UnpicklingError("z")])
def test_whatever_a_damaged_file_raises(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object, **__: object) -> None:
        raise error

    (tmp_path / CHECKPOINT_FILE).write_bytes(b"x")
    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(RinceError, match=rf"last.ckpt .*{type(error).__name__}"):
        read_checkpoint(tmp_path)


def test_a_checkpoint_that_holds_code_is_not_called_damaged(tmp_path: Path) -> None:
    torch.save({"at": Path("x")}, tmp_path / CHECKPOINT_FILE)
    with pytest.raises(RinceError, match=r"last.ckpt holds pathlib\S*Path, .*trust") as found:
        read_checkpoint(tmp_path)
    assert "damaged" not in str(found.value)
    assert "train the run again" not in str(found.value)


def test_strict_loading_names_what_does_not_fit() -> None:
    module = nn.Linear(3, 2)
    good = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}
    load_strictly(module, good, Path("a.ckpt"))
    assert torch.equal(module.weight, torch.ones(2, 3))
    for weights, problem in (
        ({"weight": good["weight"]}, "missing bias"),
        ({**good, "scale": torch.ones(1)}, "unexpected scale"),
        ({**good, "weight": torch.ones(2, 4)}, r"weight is \(2, 4\), expected \(2, 3\)"),
    ):
        with pytest.raises(RinceError, match=problem):
            load_strictly(module, weights, Path("a.ckpt"))


def test_a_checkpoint_without_its_parts_is_damaged(image_tree: Path, tmp_path: Path) -> None:
    folder = train(small_config(image_tree, tmp_path, epochs=1), flat_backbone())
    file = folder / CHECKPOINT_FILE
    whole = torch.load(file, weights_only=True)
    for lost in ("state_dict", "global_step"):
        torch.save({name: part for name, part in whole.items() if name != lost}, file)
        with pytest.raises(RinceError, match=rf"last\.ckpt.*{lost}"):
            load_run(folder, flat_backbone())
    for lost in ("config", "taxonomy"):
        about = {name: part for name, part in whole[CHECKPOINT_KEY].items() if name != lost}
        torch.save(whole | {CHECKPOINT_KEY: about}, file)
        with pytest.raises(RinceError, match=rf"last\.ckpt.*{lost}"):
            load_run(folder, flat_backbone())
    (folder / ABOUT_FILE).write_text("[" * 5000)
    with pytest.raises(RinceError, match=r"about\.json"):
        read_about(folder)
