"""What evaluation asks of each kind of data."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from rince.data.clips import VideoClips
from rince.data.images import FileImages, Images, TensorImages
from rince.data.texts import Texts
from rince.ranks.taxonomy import Taxonomy

_TEXT_SHOWN = 300  # characters of a text in the gallery


def times_of(images: Images) -> Tensor | None:
    return images.items if isinstance(images, VideoClips) else None


def unlabelled(given: Tensor | Texts, taxonomy: Taxonomy) -> TensorImages | Texts:
    if isinstance(given, Texts):
        return given
    return TensorImages(given, torch.zeros(len(given), dtype=torch.int64), taxonomy, "outliers")


def thumbnails(
    images: Images, indices: Tensor, size: int
) -> np.ndarray[tuple[int, ...], np.dtype[Any]]:
    """(n, H, W, C) bytes; of texts (n,) strings."""
    chosen = images.subset(indices)
    if isinstance(chosen, Texts):
        return np.array([text[:_TEXT_SHOWN] for text in chosen.texts])
    if isinstance(chosen, FileImages):
        chosen = chosen.preload(min(size, 64))
    if isinstance(chosen, TensorImages):
        stacked = chosen.pixels
    else:  # four frames of a clip, side by side
        frames = torch.linspace(0, chosen.frames - 1, 4).long()
        strips = [chosen[i][:, frames].permute(0, 2, 1, 3).flatten(2) for i in range(len(chosen))]
        stacked = torch.stack(strips)
    pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]] = stacked.permute(0, 2, 3, 1).numpy()
    return pixels
