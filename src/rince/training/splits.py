"""The data of a run: images, clips or texts, as its configuration says."""

from __future__ import annotations

from dataclasses import asdict, replace

from rince.core.checks import require
from rince.core.files import is_text_file
from rince.data.images import Images
from rince.data.sources import Splits, load_dataset
from rince.data.text_sources import load_texts
from rince.data.texts import Texts
from rince.data.video_sources import holds_videos, load_videos
from rince.models.texts import tokenise
from rince.training.config import TrainConfig


def load_splits(config: TrainConfig, channels: int = 3) -> Splits:
    """The data of a run's configuration; ``channels`` are those that image files are decoded to."""
    images = config.images
    if is_text_file(config.data):
        for option in ("root", "image_size", "cache", "skip_unreadable", "augmentation"):
            require(
                getattr(images, option) in (None, False, 0, "strong"),
                f"images.{option} is for images, and {config.data} holds texts: see text.*",
            )
        found = load_texts(
            config.data,
            column=config.text.column,
            labels=config.text.labels,
            without_duplicates=images.drop_duplicates,
            per_class=images.per_class,
            test_per_class=images.test_per_class,
            seed=config.seed,
        )
        return replace(
            found, train=tokenised(config, found.train), test=tokenised(config, found.test)
        )
    if holds_videos(config.data, by_time=config.ranks.by == "time"):
        for option in ("root", "per_class", "test_per_class", "cache", "drop_duplicates"):
            require(
                not getattr(images, option),
                f"images.{option} is for images, and {config.data} holds videos: see videos.*",
            )
        return load_videos(
            config.data,
            **asdict(config.videos),
            image_size=images.image_size,
            skip_unreadable=images.skip_unreadable,
            channels=channels,
        )
    return load_dataset(
        config.data,
        data_root=images.root,
        image_size=images.image_size,
        channels=channels,
        cache=images.cache,
        skip_unreadable=images.skip_unreadable,
        without_duplicates=images.drop_duplicates,
        per_class=images.per_class,
        test_per_class=images.test_per_class,
        seed=config.seed,
    )


def tokenised(config: TrainConfig, texts: Images) -> Texts:
    """With the tokens of the run's backbone."""
    assert isinstance(texts, Texts)
    name, most = str(config.model.backbone), config.text.max_tokens
    return replace(texts, tokens=tokenise(name, list(texts.texts), most))
