"""From uint8 images to the float tensors a network sees: random views and plain evaluation pixels.

Two ways to the same recipe (random resized crop, flip, colour jitter, grayscale):
:class:`BatchAugmentation` for small images, a whole batch in a handful of tensor operations on
any device; :func:`image_views` for large ones, an image at a time in loader workers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from rince.core.checks import require
from rince.core.devices import sent
from rince.core.input_spec import Preprocessing
from rince.core.options import Options, limited
from rince.core.pixels import normalisation, normalised
from rince.data.crops_and_colors import adjusted_colors, resized_crops

_CROP_TRIES = 10  # as torchvision: then the largest centre crop of a legal shape
_EXTREME = 8  # sides of a picture of which no more than the middle is scaled


@dataclass
class ViewConfig(Options):
    """How strongly a view may differ from its image; the defaults are those of RINCE and SimCLR.

    Args:
        crop_scale: share of the image's area that a crop keeps, (low, high) in (0, 1].
        crop_ratio: width over height of a crop, (low, high).
        flip: probability of a mirror image.
        jitter: strength of (brightness, contrast, saturation, hue): factors are drawn from
            [max(0, 1 - s), 1 + s], the hue shift from [-s, s] turns (s at most 0.5).
        jitter_probability: share of the views whose colours are changed at all.
        grayscale: probability of losing the colours.
    """

    crop_scale: tuple[float, float] = limited((0.2, 1.0), above=0, high=1)
    crop_ratio: tuple[float, float] = limited((3 / 4, 4 / 3), above=0)
    flip: float = limited(0.5, low=0, high=1)
    jitter: tuple[float, float, float, float] = limited((0.4, 0.4, 0.4, 0.1), low=0)
    jitter_probability: float = limited(0.8, low=0, high=1)
    grayscale: float = limited(0.2, low=0, high=1)

    def check(self) -> None:
        super().check()
        for name, length in (("crop_scale", 2), ("crop_ratio", 2), ("jitter", 4)):
            value = getattr(self, name)
            require(len(value) == length, f"{name} must be {length} numbers, got {value}")
            require(
                name == "jitter" or value[0] <= value[1], f"{name} must be (low, high), got {value}"
            )
        require(self.jitter[3] <= 0.5, f"jitter's hue must be at most 0.5, got {self.jitter}")


class ViewDraws(NamedTuple):
    """The random part of one view of every image of a batch: a few numbers an image."""

    box: Tensor  # (B, 4) top, left, height, width of the crop, pixels
    flip: Tensor  # (B,) bool
    colors: Tensor  # (B, 4) brightness, contrast, saturation, hue; see adjusted_colors()
    grayscale: Tensor  # (B,) bool

    def rows(self, rows: slice) -> ViewDraws:
        return ViewDraws(*(x[rows] for x in self))


class Augmentation(Protocol):
    """One random view of every item of a batch, in two steps.

    The random numbers of a batch are drawn at once, on the CPU, so that they are the same on every
    device; the views are made where and when they are needed, some of the items at a time.
    """

    def draw(self, batch: Tensor, generator: torch.Generator) -> Any:
        """The random numbers of a view; an object with ``rows(slice)``, those of some items."""

    def apply(self, batch: Tensor, draws: Any) -> Tensor:
        """(B, ...) what a network takes, from the (B, ...) items as they are kept."""


WEAK_VIEWS = ViewConfig(jitter_probability=0.0, grayscale=0.0)
"""The crops and flips alone; colours stay as they are."""


@dataclass(frozen=True)
class BatchAugmentation:
    """One random view of every image of a batch, all drawn at once.

    Crop, resize and flip are one interpolation; jitter and grayscale are one affine colour map
    an image. Colours are clamped to [0, 1] once, at the end, and the jitter's order is fixed
    (brightness, contrast, saturation, hue); hue turns about the grey axis, which differs a
    little from a shift of HSV's hue. Otherwise the numbers are torchvision's.

    Args:
        image_size: side S of the square views, pixels.
        channels: 3 (RGB) or 1 (grey).
        config: strengths and probabilities.
        preprocessing: whose mean and std the views are normalised with; None: rince's own.
    """

    image_size: int
    channels: int = 3
    config: ViewConfig = field(default_factory=ViewConfig)
    preprocessing: Preprocessing | None = None

    def __post_init__(self) -> None:
        self.config.check()

    def __call__(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """Draw a view of every image.

        Args:
            pixels: (B, C, H, W) uint8, any device; or clips (B, C, T, H, W), all frames of which
                get the same crop, flip and colours.
            generator: the only source of randomness, on the CPU whatever the pixels' device, so
                that every device sees the same crops.

        Returns:
            (B, C, S, S) or (B, C, T, S, S) float32, normalised.

        Raises:
            ValueError: not such a batch.
        """
        return self.apply(pixels, self.draw(pixels, generator))

    def draw(self, pixels: Tensor, generator: torch.Generator) -> ViewDraws:
        """The random numbers of a call alone, on the CPU; takes and raises what the call does."""
        _check_pixels(pixels, self.channels)
        config = self.config
        table = torch.rand(len(pixels), 2 * _CROP_TRIES + 9, generator=generator)
        crops, other = table[:, 7:], table[:, :7]
        strength = torch.tensor(config.jitter)
        neutral = torch.tensor([1.0, 1.0, 1.0, 0.0])
        low = torch.cat([(1 - strength[:3]).clamp(min=0), -strength[3:]])
        high = neutral + strength
        jittered = other[:, 1:2] < config.jitter_probability
        return ViewDraws(
            box=_crop_boxes(config, crops, *pixels.shape[-2:]),
            flip=other[:, 0] < config.flip,
            colors=torch.where(jittered, low + other[:, 2:6] * (high - low), neutral),
            grayscale=other[:, 6] < config.grayscale,
        )

    def apply(self, pixels: Tensor, draws: ViewDraws) -> Tensor:
        """The views that were drawn; takes (with one draw an image) and gives what the call does.

        In fp32 whatever autocast says: pixels are data.
        """
        _check_pixels(pixels, self.channels)
        # In one piece: each piece is a copy of its own.
        drawn = torch.cat([x.reshape(len(x), -1).float() for x in draws], dim=1)
        box, flip, colors, grayscale = torch.split(sent(drawn, pixels.device), [4, 1, 4, 1], dim=1)
        flip, grayscale = flip[:, 0] > 0, grayscale[:, 0] > 0
        with torch.autocast(pixels.device.type, enabled=False):
            # The frames of a clip (if any) are cropped as channels, and coloured as one tall image.
            planes = pixels.float().flatten(1, -3)  # (B, C T, H, W)
            cropped = resized_crops(planes, box, flip, self.image_size)
            tall = cropped.view(len(pixels), self.channels, -1, self.image_size)  # (B, C, T S, S)
            colored = adjusted_colors(tall, colors, grayscale, self.preprocessing)
            return colored.view(*pixels.shape[:-2], *cropped.shape[-2:])


def image_views(
    image_size: int, channels: int = 3, config: ViewConfig | None = None
) -> Callable[[Tensor], Tensor]:
    """The same recipe for one image of any size, from torchvision, for loader workers:
    (C, H, W) uint8 -> (C, S, S) uint8 for :func:`view_pixels`, drawn from torch's global generator.
    """
    from torchvision.transforms import v2

    config = config or ViewConfig()
    config.check()
    steps = [
        v2.RandomResizedCrop(image_size, config.crop_scale, config.crop_ratio, antialias=True),
        v2.RandomHorizontalFlip(config.flip),
        v2.RandomApply([v2.ColorJitter(*config.jitter)], p=config.jitter_probability),
        v2.RandomGrayscale(config.grayscale if channels == 3 else 0.0),
    ]
    transform: Callable[[Tensor], Tensor] = v2.Compose(steps)
    return transform


def view_pixels(views: Tensor, preprocessing: Preprocessing | None = None) -> Tensor:
    """Normalise what :func:`image_views` made, as torchvision does, whose numbers differ from those
    of :func:`evaluation_pixels` in the last bit: (B, C, S, S) uint8 -> float32."""
    _check_pixels(views, views.shape[1])
    mean, std = (
        sent(torch.tensor(x)[:, None, None], views.device)
        for x in normalisation(views.shape[1], preprocessing)
    )
    return views.float().mul_(1 / 255).sub_(mean).div_(std)


def evaluation_pixels(pixels: Tensor, preprocessing: Preprocessing | None = None) -> Tensor:
    """Normalise (B, C, [T,] H, W) uint8 without any augmentation.

    Example:
        >>> evaluation_pixels(torch.tensor([[[[0, 255]]]], dtype=torch.uint8)).flatten().tolist()
        [-2.0, 2.0]
    """
    _check_pixels(pixels, pixels.shape[1] if pixels.ndim > 1 else 3)
    return normalised(pixels, *normalisation(pixels.shape[1], preprocessing))


def eval_transform(
    image_size: int, preprocessing: Preprocessing | None = None
) -> Callable[[Tensor], Tensor]:
    """(..., H, W) uint8 -> (..., S, S) uint8: shorter side to ``image_size``, central square; or as
    the ``preprocessing`` of a library does."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional

    how = preprocessing or Preprocessing((), (), image_size)
    mode = InterpolationMode(how.interpolation)

    def transform(pixels: Tensor) -> Tensor:
        if preprocessing is None and tuple(pixels.shape[-2:]) == (image_size, image_size):
            return pixels
        if how.squash:
            pixels = functional.resize(pixels, [how.resize] * 2, mode, antialias=True)
        else:
            short = min(pixels.shape[-2:])
            if max(pixels.shape[-2:]) > _EXTREME * short:  # a strip would be scaled to a huge one
                near = [min(x, _EXTREME * short + x % 2) for x in pixels.shape[-2:]]
                pixels = functional.center_crop(pixels, near)
            if short != how.resize:
                pixels = functional.resize(pixels, [how.resize], mode, antialias=True)
        squared: Tensor = functional.center_crop(pixels, [image_size, image_size])
        return squared

    return transform


def _crop_boxes(config: ViewConfig, table: Tensor, height: int, width: int) -> Tensor:
    """(B, 4) top, left, height, width: the first try that fits, else a centre crop."""
    place, scale, ratio = table[:, :2], table[:, 2 : 2 + _CROP_TRIES], table[:, 2 + _CROP_TRIES :]
    low, high = config.crop_scale
    area = height * width * (low + scale * (high - low))
    low, high = (math.log(x) for x in config.crop_ratio)
    ratio = torch.exp(low + ratio * (high - low))
    tries = torch.stack([(area / ratio).sqrt().round(), (area * ratio).sqrt().round()], dim=2)
    image = torch.tensor([height, width])
    fits = ((tries > 0) & (tries <= image)).all(dim=2)  # (B, tries)
    first = fits.int().argmax(dim=1)
    size = tries[torch.arange(len(table)), first]  # (B, 2)
    start = (place * (image - size + 1)).floor()
    low, high = config.crop_ratio
    shape = width / height
    fallback = torch.tensor(
        [
            min(height, max(1, round(width / low))) if shape < low else height,
            min(width, max(1, round(height * high))) if shape > high else width,
        ]
    )
    fitting = fits.any(dim=1, keepdim=True)
    size = torch.where(fitting, size, fallback)
    return torch.cat([torch.where(fitting, start, (image - fallback) // 2), size], dim=1)


def _check_pixels(pixels: Tensor, channels: int) -> None:
    require(
        pixels.ndim in (4, 5) and pixels.shape[1] == channels and pixels.dtype == torch.uint8,
        f"pixels must be a uint8 batch (B, {channels}, H, W) or (B, {channels}, T, H, W), got "
        f"{tuple(pixels.shape)} and {pixels.dtype}",
    )
