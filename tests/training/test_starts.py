"""The folder that a run starts in: files of a user's, and what a killed run left."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
import pytest
from small_runs import STEPS, disturbed, flat_backbone, small_config

from rince.cli.main import main
from rince.core.checks import RinceError
from rince.training.checkpoint import read_checkpoint
from rince.training.config import TrainConfig
from rince.training.folder import ABOUT_FILE, CONFIG_FILE, LOG_FILE, config_yaml
from rince.training.history import HISTORY_FILE, read_history
from rince.training.run import train
from rince.training.trackers import TRACKERS_FILE


class Stop(pl.Callback):
    """As a kill after some steps, of which a checkpoint knows nothing yet."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
        if trainer.global_step == self.steps:
            raise KeyboardInterrupt


def _content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


RECIPE = "# what I found to be best\ndata: photos/\nepochs: 3\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (CONFIG_FILE, RECIPE),
        (CONFIG_FILE, config_yaml(TrainConfig("photos/"))),  # as --print_config
        (CONFIG_FILE, "[not yaml"),
        (HISTORY_FILE, "my own measurements\n"),
        (TRACKERS_FILE, "{}"),
        (ABOUT_FILE, "{}"),
    ],
)
@pytest.mark.parametrize("noted", [False, True])
def test_files_of_a_user_are_not_written_over(
    name: str, text: str, noted: bool, image_tree: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / name).write_text(text)
    if noted:
        (folder / LOG_FILE).write_text("Monday: tried 0.1\n")
    before = _content(folder)
    with pytest.raises(RinceError, match=f"/mine/{name} .*--name"):
        train(small_config(image_tree, tmp_path, name="mine"), flat_backbone())
    assert _content(folder) == before


def test_a_recipe_in_the_folder_of_its_run(
    image_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "mine" / CONFIG_FILE
    recipe.parent.mkdir()
    recipe.write_text(RECIPE.replace("photos/", str(image_tree)))
    before = _content(recipe.parent)
    assert main(["train", "--config", str(recipe), "--name=mine", f"--output={tmp_path}"]) == 1
    assert f"{recipe} was there before" in capsys.readouterr().err
    assert _content(recipe.parent) == before


def test_notes_in_the_log_are_kept(image_tree: Path, tmp_path: Path) -> None:
    config = small_config(image_tree, tmp_path, name="mine", epochs=1, knn_every=0)
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / LOG_FILE).write_text("Monday: tried 0.1\n")
    (folder / "notes.txt").write_text("more")
    before = _content(folder)

    def fail() -> None:
        raise ValueError("out of memory")

    with pytest.raises(ValueError, match="out of memory"):
        train(config, disturbed(1, fail))
    assert _content(folder) == before
    train(config, flat_backbone())
    assert (folder / LOG_FILE).read_text().startswith("Monday: tried 0.1\n20")
    assert (folder / "notes.txt").exists()


def test_a_killed_run_is_started_again_with_its_own_configuration(
    image_tree: Path, tmp_path: Path
) -> None:
    config = small_config(image_tree, tmp_path, name="run", epochs=1, knn_every=0)
    with pytest.raises(KeyboardInterrupt, match=f"step 1 of {STEPS}; .*start it again"):
        train(config, callbacks=[Stop(1)])
    folder = tmp_path / "run"
    before = _content(folder)
    assert set(before) == {CONFIG_FILE, LOG_FILE, HISTORY_FILE}
    with pytest.raises(KeyboardInterrupt, match="step 0"):  # and leaves what was there
        train(config, callbacks=[Stop(0)])
    assert _content(folder) == before
    assert main(["train", "--config", str(folder / CONFIG_FILE), "--name", "run"]) == 0
    assert read_checkpoint(folder)["global_step"] == STEPS
    assert [step for step, _ in read_history(folder)["train/loss"]] == [1, 2]


def test_what_was_edited_after_a_kill_is_a_users(image_tree: Path, tmp_path: Path) -> None:
    config = small_config(image_tree, tmp_path, name="run", epochs=1, knn_every=0)
    with pytest.raises(KeyboardInterrupt):
        train(config, callbacks=[Stop(1)])
    file = tmp_path / "run" / CONFIG_FILE
    file.write_text(file.read_text() + "# the batch was too large\n")
    before = _content(file.parent)
    with pytest.raises(RinceError, match="config.yaml .*--name"):
        train(config)
    assert _content(file.parent) == before
