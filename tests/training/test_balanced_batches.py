"""Training with batches.images_per_class and batches.classes_per_superclass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_runs import STEPS, disturbed, flat_backbone, small_config

from processes import like_torchrun, run_in_processes
from rince.cli.main import main
from rince.core.checks import RinceError
from rince.data.arrays import TensorImages
from rince.data.items import Splits
from rince.ranks.taxonomy import Taxonomy
from rince.training.checkpoint import read_checkpoint
from rince.training.config import BatchOptions, OptimOptions, TrainConfig
from rince.training.folder import read_config
from rince.training.history import read_history
from rince.training.run import _plan, resume, train

BALANCED = BatchOptions(images_per_class=8, classes_per_superclass=2)


def test_every_step_has_the_wished_positives(image_tree: Path, tmp_path: Path) -> None:
    """32 images: two superclasses of two classes of 8 images, two views of each."""
    config = small_config(image_tree, tmp_path, batches=BALANCED)
    history = read_history(train(config, flat_backbone()))
    assert [value for _, value in history["train/positives_rank_1"]] == [15.0] * 3 * STEPS
    assert [value for _, value in history["train/positives_rank_2"]] == [16.0] * 3 * STEPS


def test_on_the_command_line(image_tree: Path, tmp_path: Path) -> None:
    given = ["train", str(image_tree), "--batches.images-per-class", "4", "--batch-size", "16"]
    given += ["--images.image-size", "16", "--output", str(tmp_path), "--name", "run"]
    given += ["--epochs", "1", "--accelerator", "cpu", "--log-every", "1", "--knn-every", "0"]
    assert main(given) == 0
    assert read_config(tmp_path / "run").batches == BatchOptions(4)
    history = read_history(tmp_path / "run")
    assert {value for _, value in history["train/positives_rank_1"]} == {7.0}


def test_superclasses_must_be_there(image_tree: Path, tmp_path: Path) -> None:
    config = small_config(image_tree / "warm", tmp_path, batches=BALANCED)
    with pytest.raises(ValueError, match="batches.classes_per_superclass"):
        train(config, flat_backbone())


def test_a_run_that_stops_resumes_to_the_bit(image_tree: Path, tmp_path: Path) -> None:
    def no() -> None:
        raise RinceError("stopped for the test")

    optim = OptimOptions(lr=0.05, warmup_epochs=0.5)
    config = small_config(
        image_tree, tmp_path, batches=BALANCED, knn_every=0, checkpoint_every=1, optim=optim
    )
    torch.manual_seed(0)
    whole = train(replace(config, name="whole"), disturbed(99, lambda: None))
    torch.manual_seed(0)
    with pytest.raises(RinceError, match="stopped for the test"):
        train(replace(config, name="stopped"), disturbed(STEPS + 2, no))
    folder = tmp_path / "stopped"
    assert read_checkpoint(folder)["global_step"] == STEPS + 1
    resume(folder, progress=False, backbone=disturbed(99, lambda: None))
    expected, found = (read_checkpoint(f)["state_dict"] for f in (whole, folder))
    for name, value in expected.items():
        if "head" in name or "backbone" in name:
            assert torch.equal(found[name], value), name


def _train(index: int, folder: Path, images: Path) -> None:
    like_torchrun(index, 2, folder)
    given = [
        *("train", str(images), "--output", str(folder), "--name", "run"),
        *("--images.image-size", "16", "--batch-size", "8", "--epochs", "1"),
        *("--accelerator", "cpu", "--log-every", "1", "--knn-every", "0"),
        *("--batches.images-per-class", "4", "--batches.classes-per-superclass", "2"),
    ]
    assert main(given) == 0


def test_two_processes(image_tree: Path, tmp_path: Path) -> None:
    """Each has a superclass a step, so its queries meet all of both."""
    run_in_processes(_train, tmp_path, image_tree, count=2)
    history = read_history(tmp_path / "run")
    assert {value for _, value in history["train/positives_rank_1"]} == {7.0}
    assert {value for _, value in history["train/positives_rank_2"]} == {8.0}


def test_superclasses_are_the_top_of_a_ragged_tree() -> None:
    """A slot of two classes lies within one top group, of which dog is but a part."""
    paths = [("animal", "dog", x) for x in "abcd"] + [("animal", x) for x in "efgh"]
    tree = Taxonomy([*paths, *(("car", x) for x in "ijkl")])
    labels = torch.arange(12).repeat_interleave(8)
    items = TensorImages(torch.zeros(96, 3, 4, 4, dtype=torch.uint8), labels, tree, "ragged")
    config = TrainConfig("x", batch_size=8, batches=BatchOptions(4, 2))
    slots = [labels[batch].unique().tolist() for batch in _plan(config, Splits(items, items), 0, 1)]
    assert all((pair[0] < 8) == (pair[1] < 8) for pair in slots)
    assert any(pair[0] < 4 <= pair[1] < 8 for pair in slots)
