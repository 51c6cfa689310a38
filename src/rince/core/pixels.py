"""From pixels as bytes to the floats that a network is fed, and by which numbers.

Views are normalised where they are made: :func:`rince.data.views.view_pixels`, and together with
their colours, :func:`rince.data.crops_and_colors.adjusted_colors`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rince.core.checks import require
from rince.core.devices import sent
from rince.core.input_spec import Preprocessing

# RGB: mean and standard deviation of ImageNet; grey: maps [0, 1] to [-2, 2] whatever the data set.
# Keyed by the number of channels.
NORMALISATION: dict[int, tuple[tuple[float, ...], tuple[float, ...]]] = {
    3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    1: ((0.5,), (0.25,)),
}


def normalisation(
    channels: int, preprocessing: Preprocessing | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of pixels in [0, 1], one number per channel; ``preprocessing``
    has its own, of which grey images take the mean over R, G and B."""
    if preprocessing is not None:
        mean, std = preprocessing.mean, preprocessing.std
        if channels == 1:
            return (sum(mean) / len(mean),), (sum(std) / len(std),)
        return mean, std
    known = " or ".join(map(str, sorted(NORMALISATION)))
    require(channels in NORMALISATION, f"images must have {known} channels, got {channels}")
    return NORMALISATION[channels]


def normalised(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(pixels / 255 - mean) / std: (B, C, ...) uint8 to float32; C numbers each.

    Example:
        >>> normalised(torch.tensor([[[0, 255]]], dtype=torch.uint8), [0.5], [0.25]).tolist()
        [[[-2.0, 2.0]]]
    """
    per_channel = (-1,) + (1,) * (pixels.ndim - 2)
    shift, scale = (sent(torch.tensor(x).view(per_channel), pixels.device) for x in (mean, std))
    return (pixels.float() / 255 - shift) / scale
