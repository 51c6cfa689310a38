"""Crops and colour changes of a whole batch, each image by its own numbers, on any device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rince.core.devices import sent
from rince.core.input_spec import Preprocessing
from rince.core.pixels import normalisation

_LUMA = {3: (0.2989, 0.587, 0.114), 1: (1.0,)}  # ITU-R 601-2 with torchvision's rounding


def resized_crops(pixels: Tensor, box: Tensor, flip: Tensor, image_size: int) -> Tensor:
    """Cut a box out of every image and scale it to a square, mirrored where asked.

    Args:
        pixels: (B, C, H, W) float. box: (B, 4) top, left, height, width in pixels, inside the
            image. flip: (B,) bool.

    Returns:
        (B, C, S, S): bilinear, antialiased where it shrinks; nothing outside a box leaks in.
    """
    height, width = pixels.shape[-2:]
    top, left, box_height, box_width = box.to(pixels.dtype).unbind(1)
    steps = torch.arange(image_size, device=pixels.device, dtype=pixels.dtype) + 0.5
    across = torch.where(flip[:, None], image_size - steps, steps)
    x = left[:, None] + across * (box_width / image_size)[:, None]  # (B, S) source positions
    y = top[:, None] + steps * (box_height / image_size)[:, None]
    if max(height, width) > image_size:
        # A box may shrink: interpolate with triangles as wide as the step, a matrix for each axis.
        from_columns = _axis_weights(x, left, box_width, width, image_size).transpose(1, 2)
        from_rows = _axis_weights(y, top, box_height, height, image_size)
        narrow = (pixels.flatten(1, 2) @ from_columns).view(*pixels.shape[:3], image_size)
        shrunk: Tensor = from_rows[:, None] @ narrow  # (B, 1, S, H) @ (B, C, H, S)
        return shrunk
    # No box is larger than its view: plain bilinear sampling, three times as fast on a CPU.
    # Positions stop at the box's outermost pixel centres.
    x = x.clamp(left[:, None] + 0.5, (left + box_width)[:, None] - 0.5) * (2 / width) - 1
    y = y.clamp(top[:, None] + 0.5, (top + box_height)[:, None] - 0.5) * (2 / height) - 1
    shape = (len(x), image_size, image_size)
    grid = torch.stack([x[:, None, :].expand(shape), y[:, :, None].expand(shape)], dim=-1)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)


def adjusted_colors(
    pixels: Tensor,
    colors: Tensor,
    grayscale: Tensor,
    preprocessing: Preprocessing | None = None,
) -> Tensor:
    """Change every image's colours by its own factors, clamp and normalise.

    With L the luma weights and m the image's mean luma, brightness b, contrast c, saturation s
    and hue rotation H (about the grey axis) together are x -> b c ((1 - s) 1 L' + s H) x
    + b (1 - c) m: one matrix an image, because the first three commute and H keeps greys.

    Args:
        pixels: (B, C, H, W) floating point in [0, 255].
        colors: (B, 4) factors of brightness, contrast and saturation (1 = unchanged) and the
            hue shift in turns (0 = unchanged). grayscale: (B,) bool.
    """
    channels = pixels.shape[1]
    mean, std = (
        _constant(x, pixels)[:, None, None] for x in normalisation(channels, preprocessing)
    )
    luma = _constant(_LUMA[channels], pixels)
    brightness, contrast, saturation, hue = (x[:, None, None] for x in colors.to(pixels).T)
    to_grey = luma.expand(channels, channels)
    matrix = (1 - saturation) * to_grey + saturation * _hue_rotation(hue, channels)
    matrix = brightness * contrast * matrix  # (B, C, C)
    matrix = torch.where(grayscale[:, None, None], to_grey @ matrix, matrix)
    mean_luma = pixels.mean((2, 3)) @ luma / 255  # (B,)
    offset = brightness * (1 - contrast) * mean_luma[:, None, None]
    mapped = torch.baddbmm(offset, matrix / 255, pixels.flatten(2)).view_as(pixels)
    return mapped.clamp_(0, 1).sub_(mean).div_(std)


def _constant(numbers: Sequence[Any], like: Tensor) -> Tensor:
    return sent(torch.tensor(numbers, dtype=like.dtype), like.device)


def _axis_weights(position: Tensor, start: Tensor, length: Tensor, size: int, out: int) -> Tensor:
    """(B, out, size): how much of each source pixel goes into each output pixel."""
    reach = (length / out).clamp(min=1)[:, None, None]
    pixel = torch.arange(size, device=position.device, dtype=position.dtype) + 0.5
    weights = (1 - (pixel - position[:, :, None]).abs() / reach).clamp(min=0)
    inside = (pixel > start[:, None]) & (pixel < (start + length)[:, None])
    weights = weights * inside[:, None, :]
    return weights / weights.sum(dim=2, keepdim=True)


def _hue_rotation(turns: Tensor, channels: int) -> Tensor:
    """Rotation about (1, 1, 1), (B, C, C); a third of a turn takes red to green to blue."""
    if channels == 1:
        return torch.ones_like(turns)
    angle = 2 * math.pi * turns
    cross = _constant(((0, -1, 1), (1, 0, -1), (-1, 1, 0)), turns)
    eye = torch.eye(3, device=turns.device, dtype=turns.dtype)
    return angle.cos() * eye + (1 - angle.cos()) / 3 + angle.sin() / math.sqrt(3) * cross
