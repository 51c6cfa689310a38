"""A run that stopped before its end must not pass for a finished one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_runs import STEPS, disturbed, flat_backbone, small_config

from rince.cli.main import main
from rince.core.checks import RinceError, RinceWarning
from rince.training.checkpoint import read_checkpoint
from rince.training.folder import ABOUT_FILE, CONFIG_FILE, LOG_FILE, read_config
from rince.training.history import HISTORY_FILE, read_history
from rince.training.logs import logger, logging_to
from rince.training.module import lr_factor
from rince.training.run import resume, train


def _stop() -> None:
    raise KeyboardInterrupt


def _terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_finished_run_says_so(image_tree: Path, tmp_path: Path) -> None:
    folder = train(small_config(image_tree, tmp_path, name="run", knn_every=0), flat_backbone())
    about = json.loads((folder / ABOUT_FILE).read_text())
    assert about["steps"] == about["planned_steps"] == 3 * STEPS
    # Killed between the last checkpoint and this file, it is finished by resuming.
    (folder / ABOUT_FILE).unlink()
    resume(folder, progress=False, backbone=flat_backbone())
    assert json.loads((folder / ABOUT_FILE).read_text())["steps"] == 3 * STEPS


def test_ctrl_c_is_not_success(image_tree: Path, tmp_path: Path) -> None:
    config = small_config(image_tree, tmp_path, name="run", knn_every=0)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match=f"{STEPS} of .*--resume .*/run "):
        train(config, disturbed(STEPS + 1, _stop))
    assert signal.getsignal(signal.SIGINT) is handler
    folder = tmp_path / "run"
    assert not (folder / ABOUT_FILE).exists()
    assert (tmp_path / "latest").resolve() == folder.resolve()
    # The link itself can be resumed, and still leads there afterwards.
    resumed = resume(tmp_path / "latest", progress=False, backbone=disturbed(99, _stop))
    assert resumed == folder.resolve() == (tmp_path / "latest").resolve()
    assert read_checkpoint(folder)["global_step"] == 3 * STEPS
    assert (folder / ABOUT_FILE).exists()


def test_latest_leads_into_folders_of_runs(image_tree: Path, tmp_path: Path) -> None:
    before = train(small_config(image_tree, tmp_path, name="old", epochs=1), flat_backbone())
    assert (tmp_path / "latest").resolve() == before.resolve()
    config = small_config(image_tree, tmp_path, name="a/b", epochs=1)
    folder = train(config, flat_backbone())
    assert (tmp_path / "latest").readlink() == Path("a", "b")
    assert (tmp_path / "latest").resolve() == folder.resolve() == (tmp_path / "a" / "b").resolve()
    train(small_config(image_tree, tmp_path, name="new", epochs=1), flat_backbone())
    resume(folder, epochs=2, progress=False, backbone=flat_backbone())
    assert (tmp_path / "latest").readlink() == Path("a", "b")
    assert sorted(x.name for x in (tmp_path / "a").iterdir()) == ["b"]


def test_a_run_that_was_moved_is_the_latest_beside_it(image_tree: Path, tmp_path: Path) -> None:
    config = small_config(image_tree, tmp_path / "runs", name="a/b", epochs=1)
    moved = train(config, flat_backbone()).rename(tmp_path / "runs" / "c")
    resume(moved, epochs=2, progress=False, backbone=flat_backbone())
    assert (tmp_path / "runs" / "latest").readlink() == Path("c")


def test_ctrl_c_before_there_is_a_run(
    image_tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = small_config(image_tree, tmp_path, name="run", knn_every=0)
    with pytest.raises(KeyboardInterrupt, match="start it again"):
        train(config, disturbed(1, _stop))
    assert not (tmp_path / "latest").is_symlink()
    monkeypatch.setattr("rince.training.splits.load_splits", lambda *_, **__: _stop())
    assert main(["train", str(image_tree)]) == 130
    assert "--resume" not in capsys.readouterr().err


def test_the_first_step_fails(image_tree: Path, tmp_path: Path) -> None:
    def fail() -> None:
        raise ValueError("out of memory")

    good = train(
        small_config(image_tree, tmp_path, name="good", knn_every=0, epochs=1), flat_backbone()
    )
    with pytest.raises(ValueError, match="out of memory"):
        train(small_config(image_tree, tmp_path, name="bad", knn_every=0), disturbed(1, fail))
    assert not (tmp_path / "bad").exists()
    assert (tmp_path / "latest").resolve() == good.resolve()


def test_a_finished_run_is_lengthened(
    image_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small_config(image_tree, tmp_path, name="run", knn_every=0)
    folder = train(config, flat_backbone())
    before = (folder / CONFIG_FILE).read_text()
    resume(folder, progress=False, backbone=flat_backbone())  # nothing is left to do
    assert "--epochs" in capsys.readouterr().out
    for epochs in (2, 3):
        with pytest.raises(ValueError, match=rf"3 epochs.*got {epochs}"):
            resume(folder, epochs=epochs, progress=False, backbone=flat_backbone())
    assert (folder / CONFIG_FILE).read_text() == before
    resume(folder, epochs=5, progress=False, backbone=flat_backbone())
    assert read_checkpoint(folder)["global_step"] == 5 * STEPS
    assert read_config(folder).epochs == 5
    assert json.loads((folder / ABOUT_FILE).read_text())["planned_steps"] == 5 * STEPS
    # From the first step on, the rate of a run of so many epochs.
    rates = [lr for step, lr in read_history(folder)["train/lr"] if step > 3 * STEPS]
    total = 5 * STEPS
    assert config.optim.lr is not None
    wanted = [
        config.optim.lr * lr_factor(step, total, round(total * 0.5 / 5), 1e-3)
        for step in range(3 * STEPS, total)
    ]
    assert rates == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(
    ("step", "advice"),
    [
        (1, "no checkpoint.*start"),
        (STEPS + 1, r"--resume .*/run\b"),
        (3 * STEPS, r"--resume .*/run\b"),  # about.json was not written
    ],
)
def test_sigterm_is_not_success(step: int, advice: str, image_tree: Path, tmp_path: Path) -> None:
    config = small_config(image_tree, tmp_path, name="run", knn_every=0)
    with pytest.raises(RinceError, match=rf"{step} of {3 * STEPS}.*{advice}"):
        train(config, disturbed(step, _terminate))
    assert not (tmp_path / "run" / ABOUT_FILE).exists()
    if step == 1:
        with pytest.raises(RinceError, match="no checkpoint.*start it again"):
            resume(tmp_path / "run")


def test_what_another_run_left_does_not_mix_in(image_tree: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / HISTORY_FILE).write_text("step,name,value\n77,train/loss,9.0\n")
    config = small_config(image_tree, tmp_path, name="run", epochs=1, knn_every=0)
    train(config, flat_backbone())
    assert [step for step, _ in read_history(folder)["train/loss"]] == [1, 2]


_LOCK = (
    "import fcntl, sys; f = open(sys.argv[1], 'ab'); fcntl.flock(f, fcntl.LOCK_EX | "
    "fcntl.LOCK_NB); print('held', flush=True); sys.stdin.read()"
)


@pytest.mark.skipif(sys.platform == "win32", reason="no locks of POSIX")
def test_two_trainings_do_not_share_a_folder(image_tree: Path, tmp_path: Path) -> None:
    config = small_config(image_tree, tmp_path, name="run", knn_every=0)
    folder = tmp_path / "run"
    other = [sys.executable, "-c", _LOCK, str(folder / LOG_FILE)]
    found: list[int] = []

    def start_another() -> None:
        (folder / LOG_FILE).read_text()  # as a notebook does, or a tracker that keeps it
        done = subprocess.run(other, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        found.append(done.returncode)

    train(config, disturbed(2, start_another))
    assert found == [1]
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with subprocess.Popen(other, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holding:
        assert holding.stdout is not None
        assert holding.stdout.readline() == b"held\n"
        with pytest.raises(RinceError, match=r"another process .*run"):
            resume(folder, progress=False, epochs=9, backbone=disturbed(99, _stop))
        (folder / "last.ckpt").rename(tmp_path / "moved.ckpt")
        with pytest.raises(RinceError, match=r"another process .*run"):
            train(config, flat_backbone())
        (tmp_path / "moved.ckpt").rename(folder / "last.ckpt")
        holding.communicate()
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_configuration_is_replaced_whole_or_not_at_all(
    image_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(image_tree, tmp_path, name="run", knn_every=0)
    folder = train(config, flat_backbone())
    before = read_config(folder)

    def full(file: Path, text: str) -> None:
        file.open("w").close()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(RinceError, match="No space left"):
            resume(folder, progress=False, epochs=4, backbone=flat_backbone())
    assert read_config(folder) == before


def test_a_folder_that_cannot_be_written_is_named(image_tree: Path, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("not a folder")
    config = small_config(image_tree, tmp_path, name="run")
    with pytest.raises(RinceError, match="/run .*--output"):
        train(config, flat_backbone())


def test_a_summary_that_cannot_be_written_leaves_the_run(image_tree: Path, tmp_path: Path) -> None:
    config = small_config(image_tree, tmp_path, name="run", epochs=1, knn_every=0)

    def block() -> None:
        (tmp_path / "run" / ABOUT_FILE).mkdir()

    with pytest.raises(RinceError, match=r"about.json.*--resume"):
        train(config, disturbed(1, block))
    assert read_checkpoint(tmp_path / "run")["global_step"] == STEPS
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        *(CONFIG_FILE, ABOUT_FILE, LOG_FILE, HISTORY_FILE, "last.ckpt")
    }


def test_a_log_that_cannot_be_written_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        pytest.warns(RinceWarning, match="Is a directory"),
        logging_to(tmp_path),  # a folder
    ):
        logger.info("hello")
    assert capsys.readouterr().out == "hello\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
def test_a_disk_that_fills_up_is_warned_of_once(capsys: pytest.CaptureFixture[str]) -> None:
    with logging_to(Path("/dev/full")):
        with pytest.warns(RinceWarning, match="/dev/full"):
            logger.info("hello")
        logger.info("again")  # a second warning would be an error here
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("hello\nagain\n", "")


def test_a_screen_that_nobody_reads_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr("sys.stdout", open(writer, "w", buffering=1))  # noqa: SIM115
    with logging_to(Path(os.devnull)):
        logger.info("epoch 1")
    assert capsys.readouterr().err == ""
