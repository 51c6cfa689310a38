"""The data of a run, as its configuration says."""

from __future__ import annotations

from rince.core.distributed import is_first_process
from rince.data import kinds
from rince.data.items import Splits
from rince.data.kind import Kind
from rince.training.config import TrainConfig


def with_data(
    config: TrainConfig, splits: Splits | None, *, advise: bool = False
) -> tuple[TrainConfig, Splits]:
    """A configuration with the defaults of its kind of data, and the data: these or its own.

    ``advise``: say what a user had better know before a training.
    """
    if splits is not None:
        return config.with_defaults(kinds.kind_named(splits.train.noun)), splits
    kind = kinds.kind_of(config.data, config.ranks.by == "time")
    config = config.with_defaults(kind)
    if advise and is_first_process() and (advice := kind.advice(config.data, config)):
        print(f"note: {advice}")
    return config, load_splits(config, kind=kind)


def load_splits(config: TrainConfig, channels: int = 3, kind: Kind | None = None) -> Splits:
    """The data of a run's configuration; ``channels`` are those that image files are decoded to.

    ``kind`` is theirs, if it is known already.
    """
    return kinds.load_splits(
        config.data,
        config,
        seed=config.seed,
        by_time=config.ranks.by == "time",
        channels=channels,
        backbone=config.model.backbone,
        kind=kind,
    )
