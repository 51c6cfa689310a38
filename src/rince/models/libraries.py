"""What libraries say of the pictures that their weights were trained on."""

from __future__ import annotations

from typing import Any

from rince.core.checks import RinceError, import_extra, require, warn
from rince.core.hub import hub_for
from rince.core.input_spec import Preprocessing
from rince.models.backbones import hub_error, require_known
from rince.models.options import LIBRARIES

_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
# torchvision has them map what ImageNet's mean and std gave to [-1, 1], on which they were trained.
_TO_ONE = ("googlenet", "inception_v3")
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
    size: dict[str, Any] = facts.get("size") or {}
    shortest = size.get("shortest_edge")
    squash = shortest is None
    resize = size.get("height", size.get("width")) if squash else shortest
    crop = facts.get("crop_size") if facts.get("do_center_crop") else None
    side = crop["height"] if crop else resize
    if resize is None or side is None or size.get("width", resize) != resize:
        raise RinceError(f"hf/{model}: its image processor gives {size}, which is no square")
    kind = _supported(_RESAMPLE[int(facts.get("resample", 2))], f"hf/{model}")
    mean, std = (tuple(map(float, facts[f"image_{x}"])) for x in ("mean", "std"))
    return int(side), Preprocessing(mean, std, int(resize), kind, squash)


def _supported(interpolation: str, name: str) -> str:
    if interpolation in _SUPPORTED:
        return interpolation
    if interpolation == "random":
        return "bilinear"
    warn(f"{name} scales pictures by {interpolation}, which is taken as bicubic here")
    return "bicubic"
