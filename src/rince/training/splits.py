"""The data of a run, as its configuration says."""

from __future__ import annotations

from rince.core.input_spec import Preprocessing
from rince.data import kinds
from rince.data.items import Splits
from rince.data.kind import Kind
from rince.training.config import TrainConfig


def load_splits(
    config: TrainConfig,
    channels: int = 3,
    kind: Kind | None = None,
    preprocessing: Preprocessing | None = None,
) -> Splits:
    """The data of a run's configuration; ``channels`` are those that image files are decoded to.

    ``kind`` is theirs, if it is known already; ``preprocessing`` as of
    :func:`rince.data.load_splits`.
    """
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
