"""Several seeds in one command, in one go or in many."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_runs import small_config

from refusals import refusal
from rince.cli.main import main
from rince.cli.train import parse_with_seeds
from rince.core.checks import RinceError
from rince.training import seeds
from rince.training.checkpoint import CHECKPOINT_FILE
from rince.training.config import BatchOptions, ImageOptions, ModelOptions, TrainConfig
from rince.training.folder import ABOUT_FILE, read_about
from rince.training.run import train
from rince.training.seeds import train_seeds


def tiny(images: Path, output: Path, **changes: object) -> TrainConfig:
    changes = {"model": ModelOptions(backbone="tiny-resnet"), "epochs": 2, **changes}
    return small_config(images, output, **changes)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(folder / CHECKPOINT_FILE, weights_only=True)["state_dict"])


def test_each_seed_is_the_run_of_that_seed(
    image_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [
        *("train", str(image_tree), "--images.image-size", "16", "--batch-size", "32"),
        *("--model.backbone", "tiny-resnet", "--epochs", "2", "--optim.lr", "0.05"),
        *("--optim.warmup-epochs", "0.5", "--accelerator", "cpu", "--log-every", "1"),
        *("--progress", "false", "--output", str(tmp_path / "all"), "--seeds", "3", "0"),
    ]
    assert main(given) == 0
    alone = train(tiny(image_tree, tmp_path / "one"))
    folders = [tmp_path / "all" / f"{alone.name[:-1]}{seed}" for seed in (3, 0)]
    torch.testing.assert_close(weights(folders[1]), weights(alone), rtol=0, atol=0)
    assert [read_about(folder)["seed"] for folder in folders] == [3, 0]
    assert f"rince evaluate {folders[0]} {folders[1]}\n" in capsys.readouterr().out
    before = [(folder / CHECKPOINT_FILE).stat().st_mtime_ns for folder in folders]
    assert main(given) == 0  # nothing is left to do
    assert before == [(folder / CHECKPOINT_FILE).stat().st_mtime_ns for folder in folders]
    assert capsys.readouterr().out.count("finished already") == 2
    assert "epochs 2, not 3" in refusal([*given, "--epochs", "3"], capsys)


def test_what_stopped_goes_on(
    image_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(image_tree, tmp_path / "a", checkpoint_every=1, name="mine")
    whole = train_seeds(replace(config, output=str(tmp_path / "b")), [0, 1])

    class Stop(Exception):
        pass

    with monkeypatch.context() as patch:
        usual = torch.optim.SGD.step
        steps: list[int] = []

        def step(self: torch.optim.SGD, closure: object = None) -> object:
            steps.append(0)
            if len(steps) == 7:  # the third of the second run
                raise Stop
            return usual(self, closure)  # type: ignore[arg-type, call-overload]

        patch.setattr(torch.optim.SGD, "step", step)
        with pytest.raises(Stop):
            train_seeds(config, [0, 1])
    folders = [tmp_path / "a" / f"mine-seed{seed}" for seed in (0, 1)]
    assert [(folder / ABOUT_FILE).exists() for folder in folders] == [True, False]
    trained = [weights(folders[0])]
    assert train_seeds(replace(config, progress=True, logger=()), [0, 1]) == folders
    for folder, other in zip(folders, whole, strict=True):
        torch.testing.assert_close(weights(folder), weights(other), rtol=0, atol=0)
    torch.testing.assert_close(trained[0], weights(folders[0]), rtol=0, atol=0)


def test_data_are_read_once_unless_the_seed_chooses_them(
    image_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rince.training import splits

    loaded: list[int] = []
    usual = splits.load_splits

    def load(config: TrainConfig, *args: object, **options: object) -> object:
        loaded.append(config.seed)
        return usual(config, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(splits, "load_splits", load)
    train_seeds(tiny(image_tree, tmp_path / "all", epochs=1), [0, 1])
    assert loaded == [0]
    few = tiny(image_tree, tmp_path / "few", epochs=1)
    few.images = ImageOptions(image_size=16, per_class=8)
    folders = train_seeds(few, [0, 1])
    assert loaded == [0, 0, 1]
    prints = [torch.load(f / CHECKPOINT_FILE)["rince"]["data_fingerprint"] for f in folders]
    assert prints[0] != prints[1]


def test_a_run_with_other_options_is_not_taken_for_this_one(
    image_tree: Path, tmp_path: Path
) -> None:
    config = tiny(image_tree, tmp_path, epochs=1, batch_size=500)
    with pytest.warns(match="lowered") as said:
        first = train_seeds(config, [5])
    assert ["lowered" in str(one.message) for one in said].count(True) == 1
    with pytest.warns(match="lowered"):
        assert train_seeds(config, [5]) == first
    other = replace(config, batch_size=16, batches=BatchOptions(images_per_class=2))
    with pytest.raises(RinceError, match=r"batches.images_per_class None, not 2; batch_size"):
        train_seeds(other, [5])


@pytest.mark.parametrize("given", [[], [1, 1]])
def test_seeds_that_are_no_choice(given: list[int], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="seeds .*different"):
        train_seeds(TrainConfig("photos", output=str(tmp_path)), given)


@pytest.mark.parametrize("given", [["--seed", "4"], ["--seed=4"]])
def test_one_seed_beside_several_is_refused(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(["train", "photos/", "--seeds", "0", "1", *given], capsys)
    assert "--seeds 0 1" in said
    assert "--seed 4" in said
    # A file that a run or a search wrote always holds one.
    (tmp_path / "recipe.yaml").write_text("data: photos/\nseed: 4\n")
    _, several = parse_with_seeds(["--config", str(tmp_path / "recipe.yaml"), "--seeds", "0", "1"])
    assert several == (0, 1)


def test_every_seed_is_looked_at_before_the_first_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeds, "prepared", lambda *_: pytest.fail("it began"))
    with pytest.raises(ValueError, match="seed .*-1"):
        train_seeds(TrainConfig("photos", output=str(tmp_path)), [0, -1])


def test_ctrl_c_says_that_the_same_command_goes_on(
    image_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*args: object, **options: object) -> None:
        raise KeyboardInterrupt("stopped at step 3 of 8")

    monkeypatch.setattr(seeds, "train_prepared", stopped)
    with pytest.raises(KeyboardInterrupt, match="step 3 of 8.* the same command"):
        train_seeds(tiny(image_tree, tmp_path), [0, 1])
