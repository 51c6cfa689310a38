from __future__ import annotations

import pytest
import torch
from torch import nn

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
    backbone = build_backbone(name, image_size=32, frames=4)
    assert backbone.feature_dim == dimension
    backbone.module.eval()
    clips = torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = backbone.module(clips)
        backwards = backbone.module(clips.flip(2))
    assert features.shape == (2, dimension)
    assert not torch.allclose(features, backwards)  # the order of the frames matters


def test_the_small_one_is_small() -> None:
    module = build_backbone("small-resnet3d", in_channels=1, image_size=32, frames=8).module
    assert sum(p.numel() for p in module.parameters()) < 400_000


def test_any_module_on_clips() -> None:
    own = nn.Sequential(nn.Conv3d(3, 5, 1), nn.AdaptiveAvgPool3d(1), nn.Flatten())
    assert as_backbone(own, image_size=8, frames=2).feature_dim == 5
    for frames in (None, 4):  # a net for clips on images, and the other way round
        module = nn.Sequential(nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5), nn.Flatten())
        if frames is None:
            module = nn.Sequential(nn.Conv3d(3, 5, 1), nn.BatchNorm3d(5), nn.Flatten())
        with pytest.raises(
            ValueError,
            match="fails on a 3-channel "
            + ("image", "clip of 4.*take small-resnet3d")[bool(frames)],
        ):
            as_backbone(module, image_size=8, frames=frames)
