"""What libraries say of the pictures that their weights were trained on."""

from __future__ import annotations

from typing import Any

import torch

from rince.core.checks import RinceError, import_extra, require, warn
from rince.core.hub import hub_for
from rince.core.input_spec import Preprocessing
from rince.models.backbones import hub_error, require_known
from rince.models.options import LIBRARIES

_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
# torchvision has them map what ImageNet's mean and std gave to [-1, 1], on which they were trained.
_TO_ONE = ("googlenet", "inception_v3")
_NO_CROP_FROM = (
    384  # pixels: ConvNeXt's processor of transformers; scaled to a square from there on
)
_ROUNDING = 0.01  # between two ways to scale a smooth picture, of values in [0, 1]
_SUPPORTED = ("bilinear", "bicubic", "nearest")


def library_preprocessing(name: str, size: int | None = None) -> tuple[int, Preprocessing]:
    """Side of the input in pixels, and how a picture is made one, as the default weights say.

    Args:
        name: torchvision/NAME or timm/NAME, of images; or hf/NAME, of Hugging Face or a folder.
        size: another side, which shows as much of the picture; None: the library's.
    """
    own_size, how = _own_preprocessing(name)
    size = size or own_size
    return size, how.scaled(own_size, size)


def _own_preprocessing(name: str) -> tuple[int, Preprocessing]:
    library, _, model = name.partition("/")
    require(library in LIBRARIES, f"{name} is of none of {', '.join(LIBRARIES)}")
    if library == "hf":
        return _of_hugging_face(model)
    require_known(library, model)
    if library == "torchvision":
        models = import_extra("torchvision.models", "train")
        facts = models.get_model_weights(model).DEFAULT.transforms()
        if not hasattr(facts, "resize_size"):
            raise RinceError(f"{name} is no model of images: choose one that is")
        mean, std = tuple(facts.mean), tuple(facts.std)
        if model in _TO_ONE:
            mean = std = (0.5,) * 3
        return facts.crop_size[0], Preprocessing(
            mean, std, facts.resize_size[0], facts.interpolation.value
        )
    timm = import_extra("timm", "timm")
    known = timm.get_pretrained_cfg(model)
    facts = timm.data.resolve_data_config(pretrained_cfg=known.to_dict() if known else {})
    size = facts["input_size"][1]
    # timm scales the shorter side to size / crop_pct, rounded down, and cuts the square out of it.
    how = Preprocessing(
        tuple(facts["mean"]),
        tuple(facts["std"]),
        int(size / facts["crop_pct"]),
        _supported(facts["interpolation"], name),
        facts["crop_mode"] == "squash",
    )
    return size, how


def _of_hugging_face(model: str) -> tuple[int, Preprocessing]:
    transformers = import_extra("transformers", "hf")
    try:
        with hub_for(model):
            processor = transformers.AutoImageProcessor.from_pretrained(model, use_fast=False)
        facts = processor.to_dict()
    except (OSError, ValueError) as error:
        raise hub_error(model, error) from error
    if facts.get("do_flip_channel_order"):
        raise RinceError(
            f"hf/{model}: it was trained on blue, green, red in this order, as its image processor "
            f"says; rince feeds red, green, blue. Choose another model"
        )
    size: dict[str, Any] = facts.get("size") or {}
    shortest, cropped = size.get("shortest_edge"), facts.get("crop_pct")
    squash = shortest is None
    resize = size.get("height", size.get("width")) if squash else shortest
    crop = facts.get("crop_size") if facts.get("do_center_crop") else None
    side = crop["height"] if crop else resize
    if resize is None or side is None or size.get("width", resize) != resize:
        raise RinceError(f"hf/{model}: its image processor gives {size}, which is no square")
    kind_of = type(processor).__name__
    if shortest is not None and cropped:
        if crop or shortest < _NO_CROP_FROM:
            resize = shortest / cropped
        else:
            squash = True
    elif shortest is not None and kind_of.startswith("Levit"):
        resize = shortest * 256 / 224
    kind = _supported(_RESAMPLE[int(facts.get("resample", 2))], f"hf/{model}")
    how = Preprocessing(*_mean_and_std(facts), int(resize), kind, squash)
    if not _fed_alike(processor, int(side), how):
        warn(
            f"hf/{model}: its image processor ({kind_of}) makes other inputs of a picture than "
            f"rince, which scales it to {how.resize} pixels, cuts out the central {int(side)}, and "
            f"normalises by mean {how.mean} and std {how.std}: features will differ from those of "
            f"transformers"
        )
    return int(side), how


def _mean_and_std(facts: dict[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of pixels in [0, 1], as an image processor of transformers normalises."""
    mean, std = [0.0] * 3, [1.0] * 3
    if facts.get("do_normalize"):
        mean, std = (list(map(float, facts[f"image_{x}"])) for x in ("mean", "std"))
        if facts.get("include_top"):  # EfficientNet's divides once more
            std = [x * x for x in std]
    white = (
        255 * float(facts.get("rescale_factor", 1 / 255))
        if facts.get("do_rescale", True)
        else 255.0
    )
    return tuple(x / white for x in mean), tuple(x / white for x in std)


def _fed_alike(processor: Any, side: int, how: Preprocessing) -> bool:
    """Whether an image processor makes the same of a picture; of one that brightens evenly from
    left to right (R), from top to bottom (G), and both (B), so that filters make no difference."""
    image = import_extra("PIL.Image", "train")
    height, width = 300, 400
    down, right = torch.linspace(0, 255, height)[:, None], torch.linspace(0, 255, width)
    ramps = torch.stack([right.expand(height, -1), down.expand(-1, width), (down + right) / 2])
    picture = image.fromarray(ramps.round().byte().permute(1, 2, 0).numpy())
    found = processor(images=[picture], return_tensors="pt")["pixel_values"]
    if tuple(found.shape) != (1, 3, side, side):
        return False
    seen = []
    for pixels in (height, width):
        scaled = how.resize if how.squash else pixels * how.resize / min(height, width)
        at = (torch.arange(side) + 0.5 + (scaled - side) / 2) * pixels / scaled
        value = ((at - 0.5) / (pixels - 1)).clamp(0, 1)
        seen.append(torch.where((at > 0) & (at < pixels), value, -1))  # beyond it there is black
    y, x = torch.meshgrid(*seen, indexing="ij")
    expected = torch.stack([x, y, (x + y) / 2]).where((x >= 0) & (y >= 0), 0)
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (how.mean, how.std))
    return float((found[0] * std + mean - expected).abs().mean()) < _ROUNDING


def _supported(interpolation: str, name: str) -> str:
    if interpolation in _SUPPORTED:
        return interpolation
    if interpolation == "random":
        return "bilinear"
    warn(f"{name} scales pictures by {interpolation}, which is taken as bicubic here")
    return "bicubic"
