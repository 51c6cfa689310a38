"""Training with --micro-batch: the steps of the whole batch, a part of it encoded at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_runs import STEPS, flat_backbone, small_config, splits_of
from torch import Tensor, nn

from processes import like_torchrun, run_in_processes
from rince.cli.main import main
from rince.cli.train import parse_with_seeds
from rince.core.checks import RinceError
from rince.core.input_spec import InputSpec
from rince.data.batches import ImageBatch
from rince.models.backbones import Backbone, as_backbone
from rince.ranks.taxonomy import Taxonomy
from rince.training.callbacks import EpochLine
from rince.training.checkpoint import read_checkpoint
from rince.training.config import (
    ImageOptions,
    LossOptions,
    ModelOptions,
    OptimOptions,
    TrainConfig,
)
from rince.training.folder import read_config
from rince.training.history import read_history
from rince.training.module import RankedModule
from rince.training.run import resume, train

BATCH, PART = 32, 5


class Recorded(nn.Module):
    """No batch norm, so that parts equal the whole; notes how many images it gets."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3 * 16 * 16, 16)
        self.sizes: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.sizes.append(len(images))
        features: Tensor = self.linear(images.flatten(1))
        return features


def trained(
    tree: Path, output: Path, micro_batch: int | None, **changes: object
) -> tuple[dict[str, Tensor], list[float], list[int]]:
    """Weights, losses, and how many images each forward pass got."""
    changes = {"knn_every": 0, "epochs": 1, "micro_batch": micro_batch, **changes}
    config = replace(small_config(tree, output), name=f"micro-{micro_batch}", **changes)
    module = Recorded()
    folder = train(config, as_backbone(module, InputSpec.images(size=16)))
    losses = [value for _, value in read_history(folder)["train/loss"]]
    return read_checkpoint(folder)["state_dict"], losses, module.sizes


CASES: list[dict[str, object]] = [
    {"objective": "rince"},
    {"objective": "supcon-in"},
    {"objective": "supcon-out"},
    {"objective": "supcon-coarse"},
    {"objective": "infonce"},
    {"objective": "cross-entropy"},
    {"objective": "supcon-sum"},
    {"objective": "supcon-two-heads", "model": ModelOptions(momentum=0.9, queue_size=40)},
    {"objective": "himulcon"},
    {"objective": "fastap"},
    {"objective": "cross-entropy-two-heads", "loss": LossOptions(smoothing=0.2)},
    {"objective": "rince-and-cross-entropy", "model": ModelOptions(momentum=0.9, queue_size=40)},
    {"objective": "rince-and-cross-entropy", "loss": LossOptions(cross_entropy_weight=0.3)},
    {"loss": LossOptions("in", "cumulative", (0.2, 0.4))},
    {"model": ModelOptions(momentum=0.9, queue_size=40)},
    {"objective": "infonce", "model": ModelOptions(momentum=0.9, queue_size=40)},
    {"optim": OptimOptions(lr=0.5, warmup_epochs=0, clip=0.01)},
    {"images": ImageOptions(image_size=16, cache=False, workers=0)},
]


@pytest.mark.parametrize("changes", CASES, ids=lambda changes: "-".join(map(str, changes)))
def test_parts_take_the_steps_of_the_whole(
    changes: dict[str, object], image_tree: Path, tmp_path: Path
) -> None:
    expected, losses, sizes = trained(image_tree, tmp_path, None, **changes)
    found, found_losses, found_sizes = trained(image_tree, tmp_path, PART, **changes)
    views = 1 if "model" in changes else 2
    assert set(sizes) == {views * BATCH}
    assert max(found_sizes) == views * PART
    # Twice: without a graph and with one.
    assert sum(found_sizes) == 2 * sum(sizes)
    assert found_losses == pytest.approx(losses, rel=1e-5)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=name)
    start = Recorded().linear.weight
    moved = (expected["encoder.backbone.linear.weight"] - start).norm()
    off = found["encoder.backbone.linear.weight"] - expected["encoder.backbone.linear.weight"]
    assert off.norm() < 1e-4 * moved


def test_triplets_are_drawn_anew_for_parts_but_teach(image_tree: Path, tmp_path: Path) -> None:
    """Parts come in another order, so the draws differ; the loss is the same on average."""
    changes = {"objective": "triplet-hierarchical", "epochs": 4}
    _, expected, _ = trained(image_tree, tmp_path, None, **changes)
    _, found, sizes = trained(image_tree, tmp_path, PART, **changes)
    assert max(sizes) == 2 * PART
    assert found != expected
    assert found[0] == pytest.approx(expected[0], rel=0.05)
    assert found[-1] == pytest.approx(expected[-1], rel=0.2)


def test_a_part_as_large_as_the_batch_is_the_plain_run(image_tree: Path, tmp_path: Path) -> None:
    """To the bit, with batch norm: the small ResNet."""
    states = []
    for name, micro_batch in (("plain", None), ("equal", BATCH), ("larger", 500)):
        config = small_config(
            image_tree, tmp_path, name=name, micro_batch=micro_batch, epochs=1, knn_every=0
        )
        states.append(read_checkpoint(train(config))["state_dict"])
    for state in states[1:]:
        for name, value in states[0].items():
            assert torch.equal(state[name], value), name


def test_batch_norm_counts_every_image_once(image_tree: Path, tmp_path: Path) -> None:
    config = small_config(image_tree, tmp_path, micro_batch=8, epochs=1, knn_every=0)
    state = read_checkpoint(train(config))["state_dict"]
    assert int(state["encoder.backbone.stem.1.num_batches_tracked"]) == STEPS * BATCH // 8


def test_mixed_precision(image_tree: Path, tmp_path: Path) -> None:
    changes = {"precision": "bf16-mixed", "epochs": 2}
    expected, losses, _ = trained(image_tree, tmp_path, None, **changes)
    found, found_losses, _ = trained(image_tree, tmp_path, PART, **changes)
    assert found_losses == pytest.approx(losses, rel=0.01)
    start = Recorded().linear.weight
    name = "encoder.backbone.linear.weight"
    moved = (expected[name] - start).norm()
    assert (found[name] - expected[name]).norm() < 0.05 * moved
    assert found[name].dtype == torch.float32


def test_on_the_command_line(image_tree: Path, tmp_path: Path) -> None:
    given = ["train", str(image_tree), "--micro-batch", "8", "--batch-size", "24"]
    given += ["--images.image-size", "16", "--output", str(tmp_path), "--name", "run"]
    given += ["--epochs", "6", "--optim.lr", "0.1", "--accelerator", "cpu", "--log-every", "1"]
    assert main(given) == 0
    assert read_config(tmp_path / "run").micro_batch == 8
    losses = [value for _, value in read_history(tmp_path / "run")["train/loss"]]
    assert sum(losses[-3:]) < sum(losses[:3])


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match=r"micro_batch .*0"):
        parse_with_seeds(["photos/", "--micro-batch", "0"])[0].check()


@pytest.mark.parametrize("raw", [True, False])
def test_images_stay_on_the_host_until_their_turn(raw: bool) -> None:
    """The "meta" device stands for a GPU: what arrives there is what would take its memory."""
    pixels = torch.zeros(8, 3, 16, 16, dtype=torch.uint8)
    views = (pixels,) if raw else (pixels.float(), pixels.float())
    labels = torch.arange(8) % 2
    batch = ImageBatch(views, labels, torch.arange(8), seed=0)
    meta = torch.device("meta")
    for micro_batch, expected in ((None, "meta"), (8, "meta"), (4, "cpu")):
        config = TrainConfig(data="x", micro_batch=micro_batch)
        tree = Taxonomy([("a",), ("b",)])
        module = RankedModule(flat_backbone(), splits_of(tree), config)
        moved = module.transfer_batch_to_device(batch, meta, 0)
        assert {x.device.type for x in moved.views} == {expected}
        assert {x.device.type for x in (moved.labels, moved.indices)} == {"meta"}
        assert moved.seed == 0


class Stopping(nn.Module):
    """Dropout and batch norm: a random number or a statistic out of step would show."""

    def __init__(self, stop_at: int | None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(3 * 16 * 16, 16), nn.BatchNorm1d(16), nn.Dropout(0.3)
        )
        self.stop_at = stop_at
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
            if self.calls == self.stop_at:
                raise RinceError("stopped for the test")
        features: Tensor = self.layers(images)
        return features


def stopping(stop_at: int | None = None) -> Backbone:
    return as_backbone(Stopping(stop_at), InputSpec.images(size=16))


def test_a_run_that_stops_resumes_to_the_bit(image_tree: Path, tmp_path: Path) -> None:
    changes: dict[str, object] = {
        "micro_batch": 8,
        "model": ModelOptions(momentum=0.9, queue_size=40),
        "checkpoint_every": 1,
    }
    whole = train(small_config(image_tree, tmp_path, name="whole", **changes), stopping())
    # 4 parts in two passes a step (the keys go through another module): in the second step of
    # the second epoch, in the pass with a graph.
    stop_at = 8 * (STEPS + 1) + 6
    config = small_config(image_tree, tmp_path, name="stopped", **changes)
    with pytest.raises(RinceError, match="stopped for the test"):
        train(config, stopping(stop_at))
    folder = tmp_path / "stopped"
    assert read_checkpoint(folder)["global_step"] == STEPS + 1
    resume(folder, progress=False, backbone=stopping())
    expected, found = (read_checkpoint(f) for f in (whole, folder))
    assert found["global_step"] == expected["global_step"] == 3 * STEPS
    for name, value in expected["state_dict"].items():
        assert torch.equal(found["state_dict"][name], value), name


def _train_whole_and_in_parts(index: int, folder: Path, images: Path) -> None:
    """Two trainings in one pair of processes: the whole batch at once, and in parts."""
    like_torchrun(index, 2, folder)

    def on_train_end(self: EpochLine, trainer: object, module: RankedModule) -> None:
        torch.save(module.state_dict(), folder / f"{module.config.name}-{index}.pt")

    EpochLine.on_train_end = on_train_end  # type: ignore[method-assign]
    for model in (ModelOptions(), ModelOptions(momentum=0.9, queue_size=40)):
        for micro_batch in (None, 3):
            name = f"{model.queue_size}-{micro_batch}"
            options = OptimOptions(lr=0.05)
            config = small_config(
                images, folder, model=model, micro_batch=micro_batch, batch_size=8, epochs=1,
                name=name, knn_every=0, optim=options,
            )  # fmt: skip
            train(config, flat_backbone())


def test_two_processes(image_tree: Path, tmp_path: Path) -> None:
    run_in_processes(_train_whole_and_in_parts, tmp_path, image_tree, count=2)
    for kind in ("0", "40"):
        expected, *found = (
            torch.load(tmp_path / f"{kind}-{name}.pt") for name in ("None-0", "3-0", "3-1")
        )
        for name, value in expected.items():
            assert torch.equal(found[0][name], found[1][name]), name
            torch.testing.assert_close(found[0][name], value, rtol=1e-4, atol=1e-5, msg=name)
