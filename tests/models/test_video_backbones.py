from __future__ import annotations

import pytest
import torch
from torch import nn

from rince.core.input_spec import InputSpec
from rince.models.backbones import as_backbone, build_backbone


@pytest.mark.parametrize(
    ("name", "dimension"),
    [
        ("small-resnet3d", 128),
        ("torchvision/r3d_18", 512),
        ("torchvision/mc3_18", 512),
        ("torchvision/r2plus1d_18", 512),
    ],
)
def test_backbones_take_clips(name: str, dimension: int) -> None:
    backbone = build_backbone(name, InputSpec.clips(3, 4, 32))
    assert backbone.feature_dim == dimension
    backbone.module.eval()
    clips = torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = backbone.module(clips)
        backwards = backbone.module(clips.flip(2))
    assert features.shape == (2, dimension)
    assert not torch.allclose(features, backwards)  # the order of the frames matters


def test_the_small_one_is_small() -> None:
    module = build_backbone("small-resnet3d", InputSpec.clips(1, 8, 32)).module
    assert sum(p.numel() for p in module.parameters()) < 400_000


def test_any_module_on_clips() -> None:
    own = nn.Sequential(nn.Conv3d(3, 5, 1), nn.AdaptiveAvgPool3d(1), nn.Flatten())
    assert as_backbone(own, InputSpec.clips(3, 2, 8)).feature_dim == 5
    flat = nn.Sequential(nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5), nn.Flatten())
    deep = nn.Sequential(nn.Conv3d(3, 5, 1), nn.BatchNorm3d(5), nn.Flatten())
    with pytest.raises(ValueError, match=r"fails.*clips of 4\b.*\n?.*small-resnet3d"):
        as_backbone(flat, InputSpec.clips(3, 4, 8))
    with pytest.raises(ValueError, match="fails.*images of 8 x 8"):
        as_backbone(deep, InputSpec.images(size=8))
