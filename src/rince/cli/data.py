"""The options of verbs that look at data before any training."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from rince.cli.parser import HelpfulParser, nested
from rince.core.options import from_plain
from rince.data.options import ImageOptions, TableOptions, TextOptions, VideoOptions
from rince.training.config import TrainConfig

_NOT_READ = {f.name for f in fields(ImageOptions)} - {"bits"}


def add_data_options(parser: HelpfulParser) -> None:
    """What :func:`data_config` reads."""
    parser.add_options(VideoOptions, "videos.")
    parser.add_options(TableOptions, "table.")
    parser.add_options(TextOptions, "text.", skip={"layers", "max_tokens"})
    parser.add_options(ImageOptions, "images.", skip=_NOT_READ)
    parser.add_argument("--labels", help="table of labels of stored features")
    parser.add_argument("--data_root", help="where the relative paths of a table begin")


def data_config(given: Any) -> TrainConfig:
    """What the data are loaded by; images are read one at a time, not kept."""
    groups = nested(vars(given))
    plain = {name: groups.get(name, {}) for name in ("videos", "table", "text", "images")}
    skip = getattr(given, "skip_unreadable", False)
    plain["images"] |= {"cache": False, "root": given.data_root, "skip_unreadable": skip}
    return from_plain(
        TrainConfig, {"data": given.data, **plain, "vectors": {"labels": given.labels}}
    )
