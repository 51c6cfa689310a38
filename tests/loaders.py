"""Training and test items by the names of their options alone, whatever the group."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import Tensor

from rince.core.input_spec import InputSpec
from rince.data import kinds
from rince.data.image.decode import decode_all
from rince.data.image.files import image_files
from rince.data.image.kind import IMAGES
from rince.data.items import Items, Splits
from rince.data.kind import Kind
from rince.data.kinds import load_splits
from rince.data.options import ImageOptions, TableOptions, TextOptions, VideoOptions
from rince.data.text.kind import TEXTS
from rince.data.video.kind import CLIPS
from rince.training.config import TrainConfig


def load_dataset(data: str | Path, **given: Any) -> Splits:
    return _load(data, IMAGES, given, ImageOptions, TableOptions)


def load_outliers(
    data: Path,
    size: int,
    channels: int = 3,
    skip_unreadable: bool = False,
    bits: int | None = None,
) -> Tensor:
    """The pixels of all images below a folder, as those of outliers are read."""
    spec = InputSpec.images(channels, size, bits)
    return decode_all(image_files(data), spec, skip_unreadable=skip_unreadable)[0]


def load_test(
    data: str | Path, *, cache: bool | None = None, skip_unreadable: bool = False
) -> Items:
    config = TrainConfig(str(data), images=ImageOptions(cache=cache))
    return kinds.load_test(
        kinds.Request(str(data), config, skip_unreadable=skip_unreadable), "images"
    )


def load_videos(data: str | Path, **given: Any) -> Splits:
    return _load(data, CLIPS, given, VideoOptions, ImageOptions, TableOptions)


def load_texts(data: str | Path, **given: Any) -> Splits:
    return _load(data, TEXTS, given, TableOptions, TextOptions, ImageOptions)


def _load(data: str | Path, kind: Kind, given: dict[str, Any], *groups: type) -> Splits:
    """Each option goes to the first group that has it; the others are of ``load_splits``."""
    names = {
        "images": ImageOptions,
        "videos": VideoOptions,
        "text": TextOptions,
        "table": TableOptions,
    }
    taken: dict[type, dict[str, Any]] = {group: {} for group in groups}
    rest = {}
    for name, value in given.items():
        of = next((g for g in groups if name in {f.name for f in fields(g)}), None)
        (rest if of is None else taken[of])[name] = value
    made: Any = {name: group(**taken.get(group, {})) for name, group in names.items()}
    return load_splits(str(data), TrainConfig(str(data), **made), kind=kind, **rest)
