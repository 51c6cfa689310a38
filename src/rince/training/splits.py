"""The data of a run, as its configuration says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from rince.core.checks import RinceError, warn
from rince.core.distributed import is_first_process
from rince.core.files import user_path
from rince.core.input_spec import InputSpec, Preprocessing
from rince.data import kinds
from rince.data.given_tree import GivenTree, splits_in
from rince.data.items import Splits
from rince.data.kind import Kind
from rince.training.checkpoint import CHECKPOINT_KEY, read_checkpoint
from rince.training.config import TrainConfig

# Options that only choose among the items that a folder or file holds. Others of data say, too, how
# other data are read when the run is evaluated on them.
_CHOOSE_ITEMS = {
    "images.drop_duplicates",
    "images.per_class",
    "images.test_per_class",
    "videos.split",
    "videos.splits",
}


def warn_of_choices(config: TrainConfig) -> None:
    """Of options that choose items, where the items are given in Python."""
    if unread := [name for name in config.chosen() if name in _CHOOSE_ITEMS]:
        warn(
            f"no effect on items that are given (splits): {', '.join(unread)}. Choose among the "
            f"items before, as with items.subset(positions)"
        )


def with_data(
    config: TrainConfig,
    splits: Splits | None,
    *,
    tree: GivenTree | None = None,
    own_backbone: bool = False,
) -> tuple[TrainConfig, Splits]:
    """A configuration with the defaults of its kind of data, and the data: these or its own, in
    the tree of ``ranks.tree``. Says what a user had better know before a training."""
    kind = _kind(config, splits)
    given = None if splits is None else splits.train.spec.size
    size = config.images.image_size
    if given and size not in (None, given):
        warn(
            f"images.image_size {size} has no effect on items that are given, which are fed at "
            f"{given} pixels: make them with image_size={size}"
        )
    if splits is not None and splits.train.tokens_of is not None:
        backbone, longest = splits.train.tokens_of
        model = replace(config.model, backbone=config.model.backbone or backbone)
        text = replace(config.text, max_tokens=config.text.max_tokens or longest)
        config = replace(config, model=model, text=text)
    config, preprocessing = _preprocessing(config.with_defaults(kind), kind, own_backbone, given)
    if splits is None and is_first_process():
        if advice := kind.advice(config.data, config):
            print(f"note: {advice}")
        kinds.warn_of_unread(config.data, config, kind)
    return config, splits_in(tree, _preprocessed(config, splits, kind, preprocessing))


def with_recorded_data(
    config: TrainConfig,
    splits: Splits | None,
    tree: GivenTree | None,
    preprocessing: Preprocessing | None,
) -> tuple[TrainConfig, Splits]:
    """The same, of a run that recorded how its pictures are fed."""
    kind = _kind(config, splits)
    config = config.with_defaults(kind)
    return config, splits_in(tree, _preprocessed(config, splits, kind, preprocessing))


@contextmanager
def or_given_anew(data: str, moved: str, call: str) -> Iterator[None]:
    """Where the data of a run are not there: ``moved`` says what to do if they are elsewhere.
    Perhaps there never were any: ``call`` takes items given in Python."""
    try:
        yield
    except RinceError as error:
        if user_path(data).exists():
            raise
        elsewhere = "" if data in kinds.NAMED_TREES else f" If the data were moved: {moved}."
        raise RinceError(
            f"{error}.{elsewhere} If the run was trained on items given in Python, go on there: "
            f"rince.training.{call}"
        ) from error


def _kind(config: TrainConfig, splits: Splits | None) -> Kind:
    if splits is not None:
        return kinds.kind_named(splits.train.noun)
    return kinds.kind_of(config.data, config.ranks.by == "time", config.table.encoding)


def _preprocessing(
    config: TrainConfig, kind: Kind, own_backbone: bool, given: int | None
) -> tuple[TrainConfig, Preprocessing | None]:
    """How pictures are fed to pretrained weights, and the configuration with their size: that of
    the items that are ``given``, or the configuration's, or that of the run that it starts from,
    or the library's."""
    model, images = config.model, config.images
    if model.start_from is not None:
        about = read_checkpoint(user_path(model.start_from))[CHECKPOINT_KEY]
        before = InputSpec.from_dict(about)
        if "image_size" in kind.unread or before.noun != kind.noun:
            return config, before.preprocessing
        size = given or images.image_size or before.size or None
        how = before.preprocessing
        if how is not None and size is not None:
            how = how.scaled(before.size, size)
        return replace(config, images=replace(images, image_size=size)), how
    if kind.preprocessing is None or not model.pretrained or own_backbone:
        return config, None
    size, how = kind.preprocessing(str(model.backbone), given or images.image_size)
    return replace(config, images=replace(images, image_size=size)), how


def _preprocessed(
    config: TrainConfig, splits: Splits | None, kind: Kind, preprocessing: Preprocessing | None
) -> Splits:
    """The data of the configuration, or those given, fed like this."""
    if splits is None:
        return load_splits(config, kind=kind, preprocessing=preprocessing)
    return as_fed(splits, config, preprocessing)


def as_fed(splits: Splits, config: TrainConfig, preprocessing: Preprocessing | None) -> Splits:
    """Items given in Python, fed to a run's network: pictures like this, texts in its tokens."""
    parts = [part.preprocessed(preprocessing) for part in (splits.train, splits.test)]
    if splits.train.tokens_of is not None:
        how = (str(config.model.backbone), config.text.max_tokens)
        parts = [part.tokenised(*how) for part in parts]
    return Splits(*parts)


def load_splits(
    config: TrainConfig,
    channels: int = 3,
    kind: Kind | None = None,
    preprocessing: Preprocessing | None = None,
) -> Splits:
    """The data of a run's configuration, by :func:`rince.data.kinds.load_splits`."""
    return kinds.load_splits(
        config.data,
        config,
        seed=config.seed,
        by_time=config.ranks.by == "time",
        channels=channels,
        backbone=config.model.backbone,
        kind=kind,
        preprocessing=preprocessing,
    )
