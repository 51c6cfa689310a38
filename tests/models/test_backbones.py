from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from hub_models import stand_in_weights
from rince.core.checks import RinceError
from rince.core.input_spec import InputSpec
from rince.models.backbones import OneLength, SmallResNet, as_backbone, build_backbone
from rince.models.heads import ProjectionHead


@pytest.mark.parametrize(
    ("name", "channels", "size", "dim"),
    [
        ("small-resnet", 1, 28, 256),
        ("small-resnet", 3, 32, 256),
        ("tiny-resnet", 3, 32, 128),
        ("resnet18-3x3", 1, 28, 512),
        ("resnet50-3x3", 3, 32, 2048),
        ("torchvision/resnet18", 3, 64, 512),
        ("torchvision/resnet18", 1, 64, 512),
        ("torchvision/mobilenet_v3_small", 3, 64, 576),
        ("torchvision/googlenet", 3, 64, 1024),  # in training it has further classifiers
        ("torchvision/googlenet", 1, 64, 1024),
        ("torchvision/mobilenet_v3_small", 1, 64, 576),
        ("torchvision/convnext_tiny", 3, 32, 768),
        ("torchvision/vit_b_16", 3, 32, 768),
    ],
)
def test_names_give_features_and_a_gradient(name: str, channels: int, size: int, dim: int) -> None:
    backbone = build_backbone(name, InputSpec.images(channels, size))
    features = backbone.module(torch.randn(2, channels, size, size))
    assert features.shape == (2, dim) == (2, backbone.feature_dim)
    features.sum().backward()
    first = next(p for p in backbone.module.parameters())
    assert first.grad is not None
    assert backbone.module.training


def test_timm_names() -> None:
    pytest.importorskip("timm", reason="the extra timm is not installed")
    backbone = build_backbone("timm/resnet10t", InputSpec.images(1, 32))
    assert backbone.module(torch.randn(2, 1, 32, 32)).shape == (2, backbone.feature_dim)
    with pytest.raises(ValueError, match=r"no model 'resnet10'. Close: .*resnet1"):
        build_backbone("timm/resnet10")


def test_the_3x3_stem_keeps_the_resolution() -> None:
    module = build_backbone("resnet18-3x3", InputSpec.images(size=32)).module
    stem = nn.Sequential(module.conv1, module.bn1, module.relu, module.maxpool)
    assert stem(torch.randn(1, 3, 32, 32)).shape == (1, 64, 32, 32)


def test_the_small_resnet_is_small() -> None:
    count = sum(p.numel() for p in SmallResNet().parameters())
    assert 1.1e6 < count < 1.3e6


def test_a_module_on_another_device_is_asked_there() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 7, device="meta"))
    assert as_backbone(module, InputSpec.images(size=2)).feature_dim == 7


def test_a_module_of_your_own() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 7))
    backbone = as_backbone(module, InputSpec.images(size=2))
    assert backbone.module is module
    assert backbone.feature_dim == 7
    with pytest.raises(ValueError, match=r"fails.*\b4 x 4\b"):
        as_backbone(module, InputSpec.images(size=4))
    with pytest.raises(ValueError, match=r"\(batch, features\).*\(1, 3, 4, 4\)"):
        as_backbone(nn.Identity(), InputSpec.images(size=4))
    with pytest.raises(ValueError, match=r"nn\.Module, got function"):
        as_backbone(lambda x: x.flatten(1))  # type: ignore[arg-type]


def test_frozen_norms_of_a_module_of_your_own_stay_frozen() -> None:
    module = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.BatchNorm1d(12))
    module[1].eval()
    as_backbone(module, InputSpec.images(size=2))
    assert [part.training for part in module.modules()] == [True, True, False, True]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smal-resnet", "did you mean.*'small-resnet'"),
        ("torchvision/resnet19", "Close: .*resnet18"),
        ("resnet", "All that there are: small-resnet"),
        ("resnet18", r"did you mean 'resnet18-3x3' or 'torchvision/resnet18'[^?]*\? All that"),
    ],
)
def test_unknown_names_are_answered_with_known_ones(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_backbone(name)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("alexnet", 224),
        ("convnext_tiny", 224),
        ("densenet121", 224),
        ("efficientnet_b0", 224),
        ("efficientnet_v2_s", 384),
        ("googlenet", 224),
        ("inception_v3", 299),
        ("maxvit_t", 224),
        ("mnasnet0_5", 224),
        ("mobilenet_v2", 224),
        ("regnet_y_400mf", 224),
        ("resnext50_32x4d", 224),
        ("shufflenet_v2_x0_5", 224),
        ("squeezenet1_1", 224),
        ("swin_t", 224),
        ("swin_v2_t", 256),
        ("vgg11_bn", 224),
        ("vit_b_16", 224),
        ("vit_h_14", 518),
    ],
)
def test_each_family_of_torchvision_takes_colour_and_grey(name: str, size: int) -> None:
    device = "cpu" if name.startswith("regnet") else "meta"  # it computes its widths by torch
    for channels in (3, 1):
        with torch.device(device):
            backbone = build_backbone(f"torchvision/{name}", InputSpec.images(channels, size))
        first = next(x for x in backbone.module.modules() if isinstance(x, nn.Conv2d))
        assert first.in_channels == channels


@pytest.mark.parametrize(
    ("name", "size", "head"),
    [
        ("resnet18", 32, "fc"),
        ("mobilenet_v3_small", 32, "classifier"),
        ("densenet121", 32, "classifier"),
        ("swin_t", 32, "head"),
        ("convnext_tiny", 32, "classifier.2"),
        ("maxvit_t", 224, "classifier.5"),
    ],
)
def test_the_features_are_what_the_classifier_takes(name: str, size: int, head: str) -> None:
    models = pytest.importorskip("torchvision.models")
    module = build_backbone(f"torchvision/{name}", InputSpec.images(3, size)).module.eval()
    whole = models.get_model(name).eval()
    whole.load_state_dict(module.state_dict(), strict=False)
    images = torch.randn(1, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(
            whole.get_submodule(head)(module(images)), whole(images), rtol=0, atol=0
        )


def test_grey_images_have_the_pretrained_weights_summed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A grey picture gives what its three equal channels give."""
    for name in ("resnet18", "mobilenet_v3_small"):
        stand_in_weights(name, tmp_path, monkeypatch)
        colour, grey = (
            build_backbone(f"torchvision/{name}", InputSpec.images(x, 32), pretrained=True).module
            for x in (3, 1)
        )
        pictures = torch.randn(2, 1, 32, 32)
        with torch.no_grad():
            expected = colour.eval()(pictures.expand(-1, 3, -1, -1))
            torch.testing.assert_close(grey.eval()(pictures), expected)
    with pytest.raises(ValueError, match=r"torchvision/resnet18 are for RGB.*not for 2 channels"):
        build_backbone("torchvision/resnet18", InputSpec.images(2, 32), pretrained=True)


@pytest.mark.parametrize(
    ("name", "pretrained", "size"),
    [
        ("torchvision/vit_b_16", True, 224),  # its positions are those of one size
        ("torchvision/vit_b_16", False, 224),  # 28 pixels are no patches of 16
        ("torchvision/maxvit_t", False, 224),
        ("timm/vit_tiny_patch16_224", False, 224),
        ("timm/swin_tiny_patch4_window7_224", False, 224),
        ("timm/mixer_s32_224", False, 224),
    ],
)
def test_a_network_of_another_size_says_which(name: str, pretrained: bool, size: int) -> None:
    if name.startswith("timm/"):
        pytest.importorskip("timm", reason="the extra timm is not installed")
    with pytest.raises(ValueError, match=rf"made for {size} x {size} pixels.*image-size {size}$"):
        build_backbone(name, InputSpec.images(3, 28), pretrained=pretrained)


def test_pretrained_names() -> None:
    with pytest.raises(ValueError, match="no pretrained weights"):
        build_backbone("small-resnet", pretrained=True)


@pytest.mark.parametrize("name", ["torchvision/resnet18", "timm/resnet18"])
def test_pretrained_without_a_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    library, _, model = name.partition("/")
    pytest.importorskip(library)

    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    target = "torchvision.models.get_model" if library == "torchvision" else "timm.create_model"
    monkeypatch.setattr(target, offline)
    with pytest.raises(RinceError, match=rf"no route to host.*{model}") as caught:
        build_backbone(name, pretrained=True)
    where = "checkpoints/resnet18" if library == "torchvision" else "hf download timm/resnet18"
    assert where in str(caught.value)


@pytest.mark.parametrize("said", ["", "1"])
def test_an_unreached_hub_is_not_tried_for_a_minute(
    said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither where HF_HUB_OFFLINE says so, which then is not even looked at."""
    timm = pytest.importorskip("timm", reason="the extra timm is not installed")
    from huggingface_hub import constants

    asked: list[object] = []
    offline: list[bool] = []
    create_model = timm.create_model

    def created(*given: object, **named: object) -> object:
        offline.append(constants.HF_HUB_OFFLINE)
        return create_model(*given, **named)

    def refused(where: object, timeout: float) -> None:
        asked.append(where)
        raise OSError("name not known")

    monkeypatch.setattr("urllib.request.getproxies", dict)
    monkeypatch.setattr("socket.create_connection", refused)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", bool(said))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "/nowhere/hub")
    monkeypatch.setattr(constants, "ENDPOINT", "http://mirror.example:8080")
    monkeypatch.setattr("timm.create_model", created)
    with pytest.raises(RinceError, match=r"hf download timm/resnet18.*/nowhere/hub"):
        build_backbone("timm/resnet18", InputSpec.images(3, 32), pretrained=True)
    assert offline == [True]  # so that huggingface_hub looks into its cache alone
    assert asked == ([] if said else [("mirror.example", 8080)])
    assert constants.HF_HUB_OFFLINE is bool(said)


def test_embeddings_have_unit_length_in_fp32() -> None:
    head = ProjectionHead(16, 8)
    with torch.autocast("cpu", torch.bfloat16):
        z = head(torch.randn(5, 16))
    assert z.dtype == torch.float32
    torch.testing.assert_close(z.norm(dim=1), torch.ones(5))


def test_vectors_of_any_length_are_fed_at_one() -> None:
    generator = torch.Generator().manual_seed(0)
    usual = torch.randn(20, 16, generator=generator) * torch.logspace(-6, 6, 20)[:, None]
    expected = functional.normalize(usual, dim=1) * 4
    assert torch.equal(OneLength()(usual), expected)  # every bit
    for factor in (1e-38, 1e-30, 1e-13, 1e-9, 1e9, 1e13, 1e19, 1e37):
        torch.testing.assert_close(OneLength()(usual.sign() * factor), usual.sign())
    assert OneLength()(torch.zeros(1, 16)).tolist() == [[0.0] * 16]
