"""The recipes that are too large for here start and take steps on stand-in data."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from rince import Taxonomy
from rince.cli.evaluate import evaluate_run
from rince.cli.train import parse
from rince.core.checks import RinceError
from rince.evaluation.evaluate import EvaluationOptions
from rince.evaluation.results import load_evaluation
from rince.models.backbones import SmallResNet3D, as_backbone
from rince.training.checkpoint import load_run
from rince.training.history import read_history
from rince.training.run import train
from video_files import write_video

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture(scope="module")
def cifar100_stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CIFAR-100's files with 2 random images a class."""
    root = tmp_path_factory.mktemp("data")
    folder = root / "cifar-100-python"
    folder.mkdir()
    tree = Taxonomy.cifar100()
    fine = torch.arange(200) % 100
    for name in ("train", "test"):
        pixels = np.random.default_rng(0).integers(0, 256, (200, 3072), dtype=np.uint8)
        content = {
            "data": pixels,
            "fine_labels": fine.tolist(),
            "coarse_labels": tree.labels_at(2)[fine].tolist(),
        }
        (folder / name).write_bytes(pickle.dumps(content))
    return root


def test_the_papers_cifar100_recipe_starts(cifar100_stand_in: Path, tmp_path: Path) -> None:
    config = parse(
        [
            *("cifar100", "--config", str(EXPERIMENTS / "cifar100" / "paper.yaml")),
            *("--images.root", str(cifar100_stand_in), "--output", str(tmp_path)),
            *("--epochs", "1", "--optim.warmup_epochs", "0", "--batch_size", "8"),
            *("--images.per_class", "1", "--log_every", "1", "--knn_every", "0"),
            *("--model.backbone", "resnet18-3x3", "--accelerator", "cpu"),
        ]
    )
    assert (config.model.momentum, config.model.queue_size) == (0.99, 4096)
    history = read_history(train(config))
    losses = [value for _, value in history["train/loss"]]
    assert len(losses) == 100 // 8
    assert np.isfinite(losses).all()


def test_kinetics_to_ucf101(tmp_path: Path) -> None:
    """Pre-trained by time, judged on other data, fine-tuned: on stand-ins of the same layout."""
    pytest.importorskip("av")
    kinetics, ucf, lists = (tmp_path / name for name in ("kinetics", "UCF-101", "lists"))
    for i, side in enumerate(["train"] * 4 + ["val"] * 2):
        folder = kinetics / side / ("run", "jump")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        write_video(folder / f"{i}.mp4", 50, shades=[40 * i + t // 2 for t in range(50)])
    names = [f"{c}/v_{c}_g{g:02}_c01.avi" for c in ("Archery", "Biking") for g in (1, 2, 3)]
    for i, name in enumerate(names):
        (ucf / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(ucf / name, 50, shades=[40 * i + t // 2 for t in range(50)])
    lists.mkdir()
    (lists / "trainlist01.txt").write_text("".join(f"{n} 1\n" for n in names if "g01" not in n))
    (lists / "testlist01.txt").write_text("".join(f"{n}\n" for n in names if "g01" in n))
    small = [
        *("--epochs", "1", "--optim.warmup_epochs", "0", "--videos.frames", "4"),
        *("--images.image_size", "16", "--videos.frame_size", "20", "--images.workers", "0"),
        *("--videos.cache_gb", "0", "--model.backbone", "small-resnet3d", "--batch_size", "8"),
        *("--precision", "32-true", "--accelerator", "cpu", "--output", str(tmp_path / "runs")),
    ]
    recipe = str(EXPERIMENTS / "video" / "kinetics400.yaml")
    config = parse([str(kinetics), "--config", recipe, *small])
    assert (config.ranks.by, config.model.queue_size) == ("time", 16384)
    folder = train(config)
    history = read_history(folder)
    assert np.isfinite([value for _, value in history["train/loss"]]).all()
    assert "train/loss_rank_3" in history
    options = EvaluationOptions(probe_epochs=2, map_points=0, gallery_queries=1)
    evaluate_run(folder, [], options=options, data=str(ucf), splits_folder=str(lists))
    found = load_evaluation(folder)
    assert found.classes == ("Archery", "Biking")
    assert {"retrieval/fine/R@1", "probe/video", "retrieval/video/R@5"} <= found.metrics.keys()

    recipe = str(EXPERIMENTS / "video" / "ucf101.yaml")
    given = [str(ucf), "--config", recipe, *small, "--videos.splits", str(lists)]
    given += ["--model.start_from", str(folder), "--optim.lr", "1e-30"]
    tuned = train(parse(given))
    before, after = (load_run(f).backbone.module.state_dict() for f in (folder, tuned))
    weight = "stages.0.time.0.weight"
    assert torch.equal(before[weight], after[weight])  # started from, and moved by nothing
    config = parse([*given, "--name", "other", "--model.start_from", str(tuned)])
    with pytest.raises(RinceError, match="comes from another architecture than SmallResNet"):
        train(config, as_backbone(SmallResNet3D(widths=(8, 8, 8)), image_size=16, frames=4))


@pytest.mark.parametrize(
    "path", sorted(EXPERIMENTS.glob("*/*.yaml")), ids=lambda p: f"{p.parent.name}-{p.stem}"
)
def test_every_recipe_is_understood(path: Path) -> None:
    config = parse(["x", "--config", str(path)])
    assert config.data == "x"
