"""The options of verbs that look at data before any training."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from rince.cli.parser import HelpfulParser
from rince.core.options import from_plain
from rince.data.options import ImageOptions, TableOptions, TextOptions, VideoOptions
from rince.training.config import TrainConfig

_NOT_READ = {f.name for f in fields(ImageOptions)} - {"bits"}


def add_data_options(parser: HelpfulParser) -> None:
    """What :func:`data_config` reads."""
    parser.add_class_arguments(VideoOptions, "videos")
    parser.add_class_arguments(TableOptions, "table")
    parser.add_class_arguments(TextOptions, "text", skip={"layers", "max_tokens"})
    parser.add_class_arguments(ImageOptions, "images", skip=_NOT_READ)
    parser.add_argument("--labels", type=str, help="table of labels of stored features")
    parser.add_argument("--data_root", type=str, help="where the relative paths of a table begin")


def data_config(given: Any, *, skip_unreadable: bool = False) -> TrainConfig:
    """What the data are loaded by; images are read one at a time, not kept."""
    images = {"cache": False, "root": given.data_root, "skip_unreadable": skip_unreadable}
    groups = {name: getattr(given, name).as_dict() for name in ("videos", "table", "text")}
    groups["images"] = images | {"bits": given.images.bits}
    groups["vectors"] = {"labels": given.labels}
    return from_plain(TrainConfig, {"data": given.data, **groups})
