"""Networks of other tools: files of their layouts that are made here, read back and measured."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from rince.cli.main import main
from rince.core.checks import RinceError, RinceWarning
from rince.core.input_spec import InputSpec
from rince.core.pixels import normalised
from rince.evaluation.results import load_evaluation
from rince.models.backbones import build_backbone
from rince.models.exported import load_exported
from rince.models.layouts import CIFAR100, read_checkpoint_of

NETWORK = "resnet18-3x3"


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """With statistics of its batch norms that show if they are lost."""
    torch.manual_seed(0)
    module = build_backbone(NETWORK, InputSpec.images(size=32)).module
    with torch.no_grad():
        module.train()(torch.randn(16, 3, 32, 32))
    return module.eval()


def stored(network: nn.Module, layout: str, parallel: bool) -> dict[str, object]:
    """As the other tool stores it: shortcuts by its name, a head, a slow copy, options, a queue."""
    weights = {n.replace(".downsample.", ".shortcut."): x for n, x in network.state_dict().items()}
    other = {n: torch.zeros_like(x) for n, x in weights.items()}
    if layout == "rince-prototype":
        start = "module." if parallel else ""
        model = {f"{start}backbone_q.encoder.{n}": x for n, x in weights.items()}
        model |= {f"{start}backbone_k.encoder.{n}": x for n, x in other.items()}
        model |= {
            f"{start}backbone_q.head.0.weight": torch.ones(2, 2),
            f"{start}queue": torch.ones(3),
        }
    else:
        start = "encoder.module." if parallel else "encoder."
        model = {f"{start}{n}": x for n, x in weights.items()} | {"head.0.weight": torch.ones(2, 2)}
    options = argparse.Namespace(batch_size=512, tau=[0.1, 0.225])
    return {"opt": options, "model": model, "optimizer": {"state": {}}, "epoch": 1000}


@pytest.mark.parametrize("layout", ["rince-prototype", "supcontrast"])
@pytest.mark.parametrize("parallel", [True, False])
def test_the_query_encoder_is_read_and_nothing_else(network, layout, parallel, tmp_path):
    file = tmp_path / "last.pth"
    torch.save(stored(network, layout, parallel), file)
    encoder = read_checkpoint_of(file, layout, backbone=NETWORK)
    pixels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        expected = network(normalised(pixels, *CIFAR100))
    assert torch.equal(encoder.encode(pixels), expected)


class Evil:
    """What a pickle can do when it is read."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_files_that_do_not_fit_are_refused_by_name(network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "last.pth"
    content = stored(network, "supcontrast", False)
    torch.save(content, file)
    for options, facts in (
        ({"layout": "rince-prototype", "backbone": NETWORK}, "last.pth.*backbone_q.encoder"),
        ({"layout": "supcontrast"}, "last.pth.*layer1"),  # a resnet50
    ):
        with pytest.raises(RinceError, match=facts):
            read_checkpoint_of(file, **options)
    with pytest.raises(ValueError, match="simclr"):
        read_checkpoint_of(file, "simclr")
    with pytest.raises(ValueError, match="std"):
        read_checkpoint_of(file, "supcontrast", backbone=NETWORK, std=(0.0, 1.0, 1.0))
    with pytest.raises(RinceError, match="nowhere.pth"):
        read_checkpoint_of(tmp_path / "nowhere.pth", "supcontrast")
    for broken in (content | {"opt": Evil()}, {"model": [1]}, [content]):
        torch.save(broken, file)
        with pytest.raises(RinceError, match="last.pth"):
            read_checkpoint_of(file, "supcontrast", backbone=NETWORK)
    assert not (tmp_path / "executed").exists()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two groups of two classes, told by their colours."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for i, name in enumerate(("warm/red", "warm/orange", "cold/blue", "cold/green")):
            colour = ((200, 30, 30), (200, 120, 30), (30, 30, 200), (30, 200, 60))[i]
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for j in range(4):
                noise = rng.integers(-30, 30, (32, 32, 3)) + np.array(colour)
                Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(folder / f"{j}.png")
    return tmp_path / "photos"


def test_export_then_evaluate_then_compare(network, photos, tmp_path, capsys):
    pytest.importorskip("safetensors")
    file, folder = tmp_path / "last.pth", tmp_path / "theirs"
    torch.save(stored(network, "supcontrast", True), file)
    export = ["export", str(file), "--layout", "supcontrast", "--backbone", NETWORK, "--no-onnx"]
    assert main(export) == 1
    assert "-o" in capsys.readouterr().err
    assert main([*export, "-o", str(folder)]) == 0
    card = (folder / "README.md").read_text()
    assert "taken from `last.pth` by" in card
    assert tmp_path.name not in card
    assert main(["evaluate", str(folder)]) == 1
    assert "--data" in capsys.readouterr().err
    quick = ["--probe-epochs", "2", "--map-points", "0"]
    assert main(["evaluate", str(folder), "--data", str(photos), *quick]) == 0
    found = load_evaluation(folder)
    assert {"probe/fine", "retrieval/coarse/R@1"} <= found.metrics.keys()
    assert found.info["train_images"] == found.info["test_images"] == 16

    # The same numbers from the features themselves.
    from rince.metrics import retrieval

    features, labels = {}, torch.arange(4).repeat_interleave(4)
    encoder = load_exported(folder)
    for split in ("train", "val"):
        paths = sorted((photos / split).glob("*/*/*.png"))
        pixels = torch.stack([torch.from_numpy(np.array(Image.open(path))) for path in paths])
        features[split] = encoder.encode(pixels.permute(0, 3, 1, 2))
    expected = retrieval(features["val"], features["train"], labels, labels, ks=(1,))
    assert found.metrics["retrieval/fine/R@1"] == expected.recall[1]
    page = tmp_path / "page.html"
    assert main(["compare", str(folder), "-o", str(page)]) == 0
    assert "theirs" in page.read_text()


def test_an_export_of_a_run_gives_the_numbers_of_the_run(photos, tmp_path, monkeypatch):
    pytest.importorskip("safetensors")
    monkeypatch.chdir(tmp_path)
    train = ["train", "photos", "--model.backbone", "tiny-resnet", "--epochs", "1", "--name", "a"]
    assert main([*train, "--batch_size", "16", "--images.image_size", "32"]) == 0
    with pytest.warns(RinceWarning, match="no results"):
        assert main(["export", "runs/a", "--no-onnx", "-o", "net"]) == 0
    for folder, options in (("runs/a", []), ("net", ["--data", "photos"])):
        assert main(["evaluate", folder, *options, "--probe-epochs", "2", "--map-points", "0"]) == 0
    run, export = (load_evaluation(Path(folder)).metrics for folder in ("runs/a", "net"))
    assert export.keys() == run.keys()
    assert export == pytest.approx(run)


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_a_name_that_a_library_lacks_is_refused_with_close_ones(library, capsys):
    pytest.importorskip(library)
    assert main(["export", f"{library}/resnet81", "-o", "x"]) == 1
    assert re.search(f"{library}.*'resnet81'.*resnet18", capsys.readouterr().err)


def test_options_that_have_no_effect_are_refused(tmp_path, capsys):
    assert main(["export", str(tmp_path), "--mean", "0.5", "0.5", "0.5"]) == 1
    assert "--mean" in capsys.readouterr().err
    assert main(["export", "torchvision/resnet18", "--space", "embedding", "-o", "x"]) == 1
    assert "--space" in capsys.readouterr().err
