"""Pictures are fed to a library's backbone as the library feeds them; nothing is downloaded."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from hub_models import pixels, stand_in_weights, tiny_folder
from refusals import refusal
from rince import RinceError, RinceWarning
from rince.cli.main import main
from rince.core.input_spec import InputSpec, Preprocessing
from rince.core.pixels import normalised
from rince.data.image.decode import read_fitted
from rince.data.views import eval_transform
from rince.evaluation.embeddings import load_embeddings
from rince.models import layouts
from rince.models.backbones import build_backbone
from rince.models.exported import load_exported
from rince.models.layouts import library_encoder
from rince.models.libraries import library_preprocessing

SIZES = ((300, 400), (97, 260), (224, 224), (640, 480))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vit_b_16", "efficientnet_b0", "swin_t"])
def test_torchvision_resizes_crops_and_normalises(name: str) -> None:
    """By the weights' own transforms, resize 256 and crop 224 among them, which take pictures of
    Pillow's; its filters differ from ours by rounding."""
    models = pytest.importorskip("torchvision.models")
    transform = models.get_model_weights(name).DEFAULT.transforms()
    size, how = library_preprocessing(f"torchvision/{name}")
    for height, width in SIZES:
        image = pixels(height, width)
        ours = normalised(eval_transform(size, how)(image)[None], how.mean, how.std)[0]
        theirs = transform(Image.fromarray(image.permute(1, 2, 0).numpy()))
        assert ours.shape == theirs.shape == (3, size, size)
        assert float((ours - theirs).abs().mean()) < 0.01
    if name == "resnet18":
        assert (size, how.resize, how.interpolation) == (224, 256, "bilinear")
        assert library_preprocessing(f"torchvision/{name}", 112) == (112, replace(how, resize=128))


def test_a_normalisation_within_the_network_is_that_of_the_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchvision's GoogLeNet and Inception have one, but without their weights; each build here,
    also from an export, is the same network, and gives what torchvision's with weights gives."""
    pytest.importorskip("safetensors")
    models = pytest.importorskip("torchvision.models")
    stand_in_weights("googlenet", tmp_path, monkeypatch)
    encoder = library_encoder("torchvision/googlenet", size=64)
    images = pixels(64, 64)[None]
    found = encoder.encode(images)
    theirs = models.get_model("googlenet", weights="DEFAULT").eval()
    theirs.fc = torch.nn.Identity()
    known = models.GoogLeNet_Weights.DEFAULT.transforms()
    with torch.no_grad():
        expected = theirs(normalised(images, known.mean, known.std))
    torch.testing.assert_close(found, expected)
    (tmp_path / "export").mkdir()
    encoder.save(tmp_path / "export")
    torch.testing.assert_close(load_exported(tmp_path / "export").encode(images), found)
    _, how = library_preprocessing("torchvision/inception_v3")
    assert (how.mean, how.std) == ((0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize("pretrained", [True, False])
def test_hugging_face_trains_in_training_mode(pretrained: bool, tmp_path: Path) -> None:
    """Batch norms, too, which have learnt nothing from the blank picture of a trial."""
    folder = tiny_folder("resnet", tmp_path / "model")
    spec = InputSpec.images(3, 32)
    module = build_backbone(f"hf/{folder}", spec, pretrained=pretrained).module
    assert all(part.training for part in module.modules())
    norms = [part for part in module.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(norm.num_batches_tracked for norm in norms)
    with pytest.raises(ValueError, match="takes images of 3 channels, got grey images"):
        build_backbone(f"hf/{folder}", InputSpec.images(1, 32), pretrained=pretrained)


@pytest.mark.parametrize(
    "name",
    ["resnet50", "vit_base_patch16_clip_224", "vit_tiny_patch16_224", "mobilenetv3_large_100"],
)
def test_timm_resizes_crops_and_normalises(name: str) -> None:
    timm = pytest.importorskip("timm")
    known = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    transform = timm.data.create_transform(**known)
    size, how = library_preprocessing(f"timm/{name}")
    for height, width in SIZES:
        image = pixels(height, width)
        ours = normalised(eval_transform(size, how)(image)[None], how.mean, how.std)[0]
        theirs = transform(Image.fromarray(image.permute(1, 2, 0).numpy()))
        assert float((ours - theirs).abs().mean()) < 0.01


def features_by_transformers(kind: str, folder: Path, inputs: Tensor) -> Tensor:
    import transformers

    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        if kind in ("clip", "siglip"):
            found: Any = model.get_image_features(pixel_values=inputs)
            return found if isinstance(found, Tensor) else found.pooler_output
        if kind == "siglip-vision":
            pooled: Tensor = model(pixel_values=inputs).pooler_output
            return pooled
        hidden: Tensor = model(pixel_values=inputs).last_hidden_state[:, 0]
        return hidden


@pytest.mark.parametrize("kind", ["clip", "siglip", "siglip-vision", "vit", "dinov2", "dinov3"])
def test_hugging_face_from_a_local_folder(kind: str, tmp_path: Path) -> None:
    """Features, and how a picture is fed, are those of transformers itself."""
    folder = tiny_folder(kind, tmp_path / "model")
    encoder = library_encoder(f"hf/{folder}")
    assert encoder.spec.shape == (3, 32, 32)
    import transformers

    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    image = pixels(60, 90)
    theirs = processor(
        images=[Image.fromarray(image.permute(1, 2, 0).numpy())], return_tensors="pt"
    )["pixel_values"]
    fitted = eval_transform(32, encoder.spec.preprocessing)(image)[None]
    assert float((encoder.normalised(fitted) - theirs).abs().mean()) < 0.02
    expected = features_by_transformers(kind, folder, encoder.normalised(fitted))
    torch.testing.assert_close(encoder.encode(fitted), expected)
    # All weights that are trained have a gradient: several processes wait for each.
    output = encoder.module(encoder.normalised(fitted))
    output.sum().backward()
    lost = [n for n, p in encoder.module.named_parameters() if p.requires_grad and p.grad is None]
    assert not lost
    fresh = build_backbone(f"hf/{folder}", encoder.spec)  # its architecture, other weights
    assert fresh.feature_dim == encoder.output_dim


@pytest.mark.parametrize("kind", ["clip", "dinov2", "resnet"])
def test_an_export_needs_no_folder_of_transformers(kind: str, tmp_path: Path) -> None:
    """It holds the configuration, of the whole model, and not where that lay."""
    pytest.importorskip("safetensors")
    folder = tiny_folder(kind, tmp_path / "model")
    encoder = library_encoder(f"hf/{folder}")
    images = pixels(*encoder.spec.shape[1:])[None]
    expected = encoder.encode(images)
    export, again = tmp_path / "export", tmp_path / "again"
    export.mkdir()
    encoder.save(export)
    shutil.rmtree(folder)
    loaded = load_exported(export)
    torch.testing.assert_close(loaded.encode(images), expected)
    assert loaded.backbone == "hf/model"
    assert loaded.fingerprint() == encoder.fingerprint()
    again.mkdir()
    loaded.save(again)
    torch.testing.assert_close(load_exported(again).encode(images), expected)
    texts = [file.read_text() for file in export.rglob("*.json")]
    assert len(texts) == 2
    assert not any(str(tmp_path) in text for text in texts)


def processor_folder(folder: Path, kind: str, **facts: Any) -> Path:
    pytest.importorskip("transformers")
    folder.mkdir()
    stored = {"image_processor_type": f"{kind}ImageProcessor", **facts}
    (folder / "preprocessor_config.json").write_text(json.dumps(stored))
    return folder


@pytest.mark.parametrize(
    ("kind", "facts", "expected"),
    [
        ("ConvNext", {"size": {"shortest_edge": 224}, "crop_pct": 0.875}, (224, 256, False)),
        ("ConvNext", {"size": {"shortest_edge": 384}, "crop_pct": 0.875}, (384, 384, True)),
        ("PoolFormer", {}, (224, 248, False)),
        ("Levit", {}, (224, 256, False)),
        ("ViT", {"do_normalize": False}, (224, 224, True)),
        ("ViT", {"do_rescale": False}, (224, 224, True)),
        ("ViT", {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3}, (224, 224, True)),
        ("EfficientNet", {"size": {"height": 224, "width": 224}}, (224, 224, True)),
        ("DeiT", {}, (224, 256, True)),
        ("MobileNetV2", {}, (224, 256, False)),
        ("MobileViT", {"do_flip_channel_order": False}, (256, 224, False)),  # with a black frame
    ],
)
def test_each_image_processor_of_hugging_face(
    kind: str, facts: dict[str, Any], expected: tuple[int, int, bool], tmp_path: Path
) -> None:
    """What it makes of a picture that brightens evenly, corner to corner, is made here."""
    folder = processor_folder(tmp_path / "model", kind, **facts)
    import transformers

    size, how = library_preprocessing(f"hf/{folder}")
    assert (size, how.resize, how.squash) == expected
    ramps = torch.stack(
        [
            torch.linspace(0, 255, 260).expand(200, -1),
            torch.linspace(0, 255, 200)[:, None].expand(-1, 260),
            torch.linspace(255, 0, 260).expand(200, -1),
        ]
    ).byte()
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    picture = Image.fromarray(ramps.permute(1, 2, 0).numpy())
    theirs = processor(images=[picture], return_tensors="pt")["pixel_values"][0]
    ours = normalised(eval_transform(size, how)(ramps)[None], how.mean, how.std)[0]
    assert ours.shape == theirs.shape
    assert float(((ours - theirs) * torch.tensor(how.std)[:, None, None]).abs().max()) < 0.02


def test_image_processors_that_feed_otherwise_are_told(tmp_path: Path) -> None:
    folder = processor_folder(tmp_path / "flipped", "MobileViT")
    with pytest.raises(RinceError, match="hf/.*flipped.*blue, green, red"):
        library_preprocessing(f"hf/{folder}")
    folder = processor_folder(tmp_path / "crops", "Perceiver")  # first, and then scales
    with pytest.warns(RinceWarning, match=r"hf/.*crops.*\(Perceiver.*other inputs"):
        library_preprocessing(f"hf/{folder}")


def test_what_hugging_face_lacks_is_said(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RinceError, match="hf/.*empty cannot be read"):
        library_preprocessing(f"hf/{tmp_path / 'empty'}")
    with pytest.raises(RinceError, match="hf/.*empty cannot be read"):
        build_backbone(f"hf/{tmp_path / 'empty'}")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for i, (height, width) in enumerate(SIZES):
        (tmp_path / "photos" / f"class{i % 2}").mkdir(parents=True, exist_ok=True)
        file = tmp_path / "photos" / f"class{i % 2}" / f"{i}.png"
        Image.fromarray(pixels(height, width).permute(1, 2, 0).numpy()).save(file)
    return tmp_path / "photos"


def test_embed_by_a_backbone_then_train_a_head(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The features of ``rince embed --backbone`` are those of the library, file by file; weights
    are drawn here in place of a download."""
    pytest.importorskip("timm")
    build = layouts.build_backbone

    def without_download(name: str, spec: InputSpec, *, pretrained: bool) -> Any:
        assert pretrained
        torch.manual_seed(0)
        return build(name, spec)

    monkeypatch.setattr(layouts, "build_backbone", without_download)
    name = "timm/test_vit"
    given = ["embed", "--backbone", name, str(photos), "-o", str(tmp_path / "features.npz")]
    assert main(given) == 0
    assert "rince train" in capsys.readouterr().out
    found = load_embeddings(tmp_path / "features.npz")
    encoder = library_encoder(name)
    assert encoder.spec == InputSpec.images(3, library_preprocessing(name)[0])
    assert encoder.spec.preprocessing == library_preprocessing(name)[1]
    for path, vector in zip(found.paths, found.vectors, strict=True):
        features = encoder.encode(read_fitted(path, encoder.spec)[None])[0]
        torch.testing.assert_close(vector, features / features.norm())


def test_what_cannot_be_embedded_is_said_before_a_backbone_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(layouts, "library_encoder", lambda *_, **__: pytest.fail("it was built"))
    np.savez(tmp_path / "features.npz", embeddings=np.eye(3))
    for name, message in (("features.npz", "rince train"), ("nowhere", "no file or folder")):
        given = ["embed", "--backbone", "timm/test_vit", str(tmp_path / name)]
        said = refusal([*given, "-o", str(tmp_path / "x.npz")], capsys)
        assert message in said
        assert name in said


def test_an_export_keeps_how_it_is_fed(photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    folder = tiny_folder("dinov2", tmp_path / "model")
    export = ["export", f"hf/{folder}", "-o", str(tmp_path / "net"), "--no-onnx"]
    assert main(export) == 0
    encoder = load_exported(tmp_path / "net")
    expected = Preprocessing((0.4, 0.5, 0.6), (0.2, 0.25, 0.3), 40, "bicubic")
    assert encoder.spec.preprocessing == expected
    assert (encoder.mean, encoder.std) == (expected.mean, expected.std)
    card = (tmp_path / "net" / "README.md").read_text()
    for fact in ("scaled to 40 pixels", "BICUBIC", "square of 32 pixels", "[0.4, 0.5, 0.6]"):
        assert fact in card
    for source in (str(tmp_path / "net"), f"hf/{folder}"):
        assert main(["embed", source, str(photos), "-o", str(tmp_path / "x.npz")]) == 0
    quick = ["--probe-epochs", "1", "--map-points", "0"]
    assert main(["evaluate", str(tmp_path / "net"), "--data", str(photos), *quick]) == 0
