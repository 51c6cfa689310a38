from __future__ import annotations

import pytest
import torch

from rince.core.input_spec import Preprocessing
from rince.core.pixels import normalisation, normalised


def test_colours_are_normalised_as_weights_of_imagenet_expect() -> None:
    models = pytest.importorskip("torchvision.models")
    as_trained = models.ResNet18_Weights.DEFAULT.transforms()
    assert normalisation(3) == (tuple(as_trained.mean), tuple(as_trained.std))


def test_grey_lies_between_minus_2_and_2() -> None:
    pixels = torch.tensor([[[[0, 255]]]], dtype=torch.uint8)
    assert normalised(pixels, *normalisation(1)).tolist() == [[[[-2.0, 2.0]]]]


def test_a_network_of_a_library_has_its_own() -> None:
    assert normalisation(3, Preprocessing((0.5,) * 3, (0.2,) * 3, 9)) == ((0.5,) * 3, (0.2,) * 3)


def test_grey_images_take_the_mean_over_the_colours() -> None:
    how = Preprocessing((0.25, 0.5, 0.75), (0.125, 0.25, 0.375), 9)
    assert normalisation(1, how) == ((0.5,), (0.25,))
    assert normalisation(1, Preprocessing((0.25,), (0.125,), 9)) == ((0.25,), (0.125,))


@pytest.mark.parametrize("channels", [0, 2, 4])
def test_other_numbers_of_channels_are_refused(channels: int) -> None:
    with pytest.raises(ValueError, match=rf"1 or 3\b.*got {channels}"):
        normalisation(channels)


def test_each_channel_of_pictures_and_of_clips_has_its_own() -> None:
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    for shape in ((2, 3, 4, 5), (2, 3, 6, 4, 5)):
        pixels = torch.randint(256, shape, dtype=torch.uint8)
        found = normalised(pixels, mean, std)
        for i in range(3):
            wanted = (pixels[:, i].double() / 255 - mean[i]) / std[i]
            torch.testing.assert_close(found[:, i].double(), wanted, atol=1e-6, rtol=1e-6)
