"""Pretrained backbones: fed as their library says from the training to the card, trained in part.

Weights are read from a folder, drawn at random; downloads from hubs are not run here.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

import rince
from hub_models import pixels, stand_in_weights, tiny_folder
from rince import RinceWarning
from rince.cli.main import main
from rince.core.input_spec import Preprocessing
from rince.core.pixels import normalised
from rince.data.datasets import from_arrays
from rince.data.image.decode import read_fitted
from rince.data.items import Splits
from rince.evaluation.results import load_evaluation
from rince.models.backbones import build_backbone
from rince.reports.export import export_run
from rince.training.checkpoint import load_run, read_checkpoint, trained_encoder
from rince.training.config import ImageOptions, ModelOptions, OptimOptions, TrainConfig
from rince.training.evaluation import evaluate_run
from rince.training.run import resume, train
from rince.training.splits import with_data

HOW = Preprocessing((0.4, 0.5, 0.6), (0.2, 0.25, 0.3), 40, "bicubic")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder("dinov2", tmp_path_factory.mktemp("hf") / "model")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i in range(20):
        target = folder / f"group{i % 2}" / f"class{i % 4}"
        target.mkdir(parents=True, exist_ok=True)
        picture = pixels(48 + i, 60 + 3 * i).permute(1, 2, 0).numpy()
        Image.fromarray(picture).save(target / f"{i}.png")
    return folder


def config(photos: Path, model: Path, output: Path, **changes: Any) -> TrainConfig:
    options = changes.pop("tuning", {})
    values: dict[str, Any] = {
        "model": ModelOptions(backbone=f"hf/{model}", pretrained=True, embedding_dim=8, **options),
        "images": ImageOptions(workers=0),
        "optim": OptimOptions(lr=0.05, warmup_epochs=0),
        "epochs": 2,
        "batch_size": 8,
        "output": str(output),
        "accelerator": "cpu",
        "knn_every": 0,
        "progress": False,
        **changes,
    }
    return TrainConfig(str(photos), **values)


def started_from(model: Path) -> dict[str, torch.Tensor]:
    return build_backbone(f"hf/{model}", pretrained=True).module.state_dict()


@pytest.mark.parametrize("cache", [False, True])
def test_fed_alike_in_training_evaluation_and_export(
    photos: Path, model: Path, tmp_path: Path, cache: bool
) -> None:
    pytest.importorskip("safetensors")
    images = ImageOptions(workers=0, cache=cache)
    folder = train(config(photos, model, tmp_path, images=images, epochs=1, name="run"))
    trained = load_run(folder)
    assert (trained.spec.shape, trained.spec.preprocessing) == ((3, 32, 32), HOW)
    assert trained.config.images.image_size == 32
    # What the evaluation measured is the network on files fed as transformers feeds them.
    found = evaluate_run(folder, device="cpu")
    export = export_run(folder, onnx=False)
    encoder = rince.load_exported(export)
    assert encoder.spec.preprocessing == HOW
    assert (encoder.mean, encoder.std) == (HOW.mean, HOW.std)
    files = sorted(photos.glob("*/*/*.png"))
    fitted = torch.stack([read_fitted(str(x), encoder.spec) for x in files])
    assert trained.head is not None
    with torch.no_grad():
        inputs = normalised(fitted, HOW.mean, HOW.std)
        expected = trained.head(trained.backbone.module(inputs))
    torch.testing.assert_close(encoder.encode(fitted), expected)
    output = str(tmp_path / "x.npz")
    assert main(["embed", str(folder), str(photos), "-o", output]) == 0
    by_path = rince.evaluation.load_embeddings(output)
    order = [by_path.paths.index(str(x)) for x in files]
    torch.testing.assert_close(by_path.vectors[order], expected)
    again = evaluate_run(export, data=str(photos), device="cpu")
    shared = {n for n in found.metrics if n.startswith(("retrieval", "embedding/retrieval"))}
    assert shared
    for name in shared & again.metrics.keys():
        assert again.metrics[name] == pytest.approx(found.metrics[name]), name
    assert load_evaluation(folder).metrics.keys() == found.metrics.keys()


def test_frozen_last_blocks_and_rates(photos: Path, model: Path, tmp_path: Path) -> None:
    before = started_from(model)
    folder = train(config(photos, model, tmp_path, name="frozen", tuning={"layers": 0}))
    after = load_run(folder).backbone.module.state_dict()
    assert all(torch.equal(after[n], x) for n, x in before.items())

    folder = train(config(photos, model, tmp_path, name="last", tuning={"layers": 1}))
    after = load_run(folder).backbone.module.state_dict()
    changed = {n for n, x in before.items() if not torch.equal(after[n], x)}
    assert changed
    assert all("layer.2." in n or "layernorm" in n for n in changed)
    assert any("layer.2." in n for n in changed)

    optim = OptimOptions(lr=0.05, warmup_epochs=0, layer_decay=0.1)
    folder = train(config(photos, model, tmp_path, name="decay", optim=optim, epochs=1))
    state = read_checkpoint(folder)["optimizer_states"][0]
    rates = [group["initial_lr"] for group in state["param_groups"]]
    assert rates == pytest.approx([5e-6, 5e-5, 5e-4, 5e-3, 0.05])
    resume(folder, epochs=2, progress=False)


@pytest.mark.parametrize(
    ("tuning", "momentum"), [({"layers": 0}, None), ({"layers": 0}, 0.9), ({"lora": 2}, 0.9)]
)
def test_frozen_batch_norms_stay(
    photos: Path, tmp_path: Path, tuning: dict[str, int], momentum: float | None
) -> None:
    if "lora" in tuning:
        pytest.importorskip("peft", reason="needs the extra lora")
    given = config(photos, tmp_path, tmp_path, name="run", epochs=1)
    given.model = ModelOptions(**tuning, embedding_dim=8, momentum=momentum)  # type: ignore[arg-type]
    built = build_backbone("tiny-resnet")
    without_weights = nn.BatchNorm1d(built.feature_dim, affine=False)
    module = nn.Sequential(built.module, without_weights, nn.Linear(built.feature_dim, 8))
    before = {name: x.clone() for name, x in module.state_dict().items()}
    train(given, module)
    after = module.state_dict()
    assert {name for name in before if name not in after} <= {"2.weight", "2.bias"}  # of updates
    assert [n for n, x in before.items() if n in after and not torch.equal(after[n], x)] == []


def test_low_rank_updates_train_resume_and_export(
    photos: Path, model: Path, tmp_path: Path
) -> None:
    pytest.importorskip("peft", reason="needs the extra lora")
    pytest.importorskip("safetensors")
    before = started_from(model)
    whole = train(config(photos, model, tmp_path, name="whole", tuning={"lora": 2}))
    after = load_run(whole).backbone.module.state_dict()
    assert after.keys() == before.keys()
    changed = {n for n, x in before.items() if not torch.allclose(after[n], x, atol=1e-7)}
    assert changed
    assert all(n.endswith("weight") and after[n].ndim == 2 for n in changed)
    stopped = train(config(photos, model, tmp_path, name="stopped", tuning={"lora": 2}, epochs=1))
    resume(stopped, epochs=2, progress=False)
    assert load_run(stopped).step == load_run(whole).step
    with pytest.warns(RinceWarning, match="no results"):
        export = export_run(whole, onnx=False)
    encoder = rince.load_exported(export)
    exported = encoder.module.state_dict()
    assert all(torch.equal(exported[f"backbone.{n}"], x) for n, x in after.items())


def test_other_runs_start_from_it_fed_alike(photos: Path, model: Path, tmp_path: Path) -> None:
    first = train(config(photos, model, tmp_path, name="first", epochs=1))
    given = config(photos, model, tmp_path, name="second", epochs=1)
    given.model = ModelOptions(backbone=f"hf/{model}", start_from=str(first), embedding_dim=8)
    given.images.image_size = 32
    assert load_run(train(given)).spec.preprocessing == HOW


def test_other_runs_start_at_its_size(photos: Path, tmp_path: Path) -> None:
    """Where no other is given; with pretrained weights an input shows as much of a picture."""
    output = str(tmp_path)
    given = TrainConfig(
        str(photos),
        model=ModelOptions(backbone="tiny-resnet", embedding_dim=8),
        images=ImageOptions(workers=0, image_size=24),
        epochs=1,
        batch_size=8,
        output=output,
        accelerator="cpu",
        knn_every=0,
        progress=False,
        name="first",
    )
    given.model.start_from = str(train(given))
    for size, expected in ((None, 24), (16, 16)):
        given.images.image_size = size
        started, splits = with_data(given, None)
        assert started.images.image_size == splits.test.spec.size == expected
        assert splits.train.spec.preprocessing is None


def test_other_runs_start_from_pretrained_weights_at_its_size(
    photos: Path, model: Path, tmp_path: Path
) -> None:
    first = train(config(photos, model, tmp_path, name="first", epochs=1))
    given = config(photos, model, tmp_path, name="second", epochs=1)
    given.model = ModelOptions(backbone=f"hf/{model}", start_from=str(first), embedding_dim=8)
    for size, resize in ((None, 40), (32, 40), (64, 80), (16, 20)):
        given.images.image_size = size
        started, splits = with_data(given, None)
        assert started.images.image_size == splits.test.spec.size == (size or 32)
        assert splits.train.spec.preprocessing == replace(HOW, resize=resize)
    pictures = torch.zeros(8, 3, 48, 48, dtype=torch.uint8)
    items = from_arrays(pictures, [["a", "b"]] * 4 + [["c", "d"]] * 4, image_size=16)
    _, splits = with_data(given, Splits(items, items))
    assert splits.train.spec.size == 16
    assert splits.train.spec.preprocessing == replace(HOW, resize=20)


def test_grey_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fed by the mean of the library's three numbers, in training and after."""
    stand_in_weights("resnet18", tmp_path, monkeypatch)
    labels = [["a", "b"], ["a", "c"], ["d", "e"], ["d", "f"]] * 4
    items = from_arrays(torch.randint(0, 256, (16, 1, 32, 32), dtype=torch.uint8), labels)
    given = config(tmp_path, tmp_path, tmp_path, name="grey", epochs=1)
    given.model = ModelOptions(backbone="torchvision/resnet18", pretrained=True, embedding_dim=8)
    trained = load_run(train(given, splits=Splits(items, items)))
    assert trained.spec.shape == (1, 32, 32)
    encoder = trained_encoder(trained)
    assert (encoder.mean, encoder.std) == (
        (pytest.approx((0.485 + 0.456 + 0.406) / 3),),
        (pytest.approx((0.229 + 0.224 + 0.225) / 3),),
    )


def test_without_pretrained_weights_nothing_changes(photos: Path, tmp_path: Path) -> None:
    given = config(photos, tmp_path, tmp_path, name="own", epochs=1)
    given.model = ModelOptions(backbone="tiny-resnet", embedding_dim=8)
    trained = load_run(train(given))
    assert trained.spec.preprocessing is None
    assert "preprocessing" not in trained.spec.to_dict()


def test_lora_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from rince.models.tuning import fine_tuned

    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r"rince\[lora\]"):
        fine_tuned(torch.nn.Linear(2, 2), None, 1)
