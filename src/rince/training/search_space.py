"""The settings that ``rince tune`` searches, and the points of that space that are tried."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import torch

from rince.core.checks import require
from rince.data.items import Items
from rince.data.options import BatchOptions
from rince.training.config import TrainConfig, flat, to_dict
from rince.training.objectives import OBJECTIVES
from rince.training.options import TuneOptions
from rince.training.ranks import rank_source
from rince.training.step import superclass_level

_OPTIONS = {
    "lr": ("optim.lr",),
    "temperatures": ("loss.temperatures", "loss.temperature"),
    "variant": ("loss.variant",),
    "batches": ("batches.images_per_class", "batches.classes_per_superclass"),
}
"""What a word of tune.search searches."""


def open_options(
    config: TrainConfig, options: TuneOptions, given: Collection[str] = ()
) -> list[str]:
    """What is searched: as asked for, without what is set already: what is not at its default, or
    is named by ``given``."""
    known = [name for name, _ in flat(to_dict(config))]
    unknown = [name for name in given if name not in known]
    require(
        not unknown,
        f"given must hold names of options, such as 'loss.variant', got {', '.join(unknown)}",
    )
    is_set = {*given, *config.chosen()}
    searched: list[str] = [
        word
        for word, names in _OPTIONS.items()
        if word in options.search and is_set.isdisjoint(names)
    ]
    require(
        bool(searched),
        f"there is nothing to search: of tune.search ({', '.join(options.search)}) all "
        f"is set already. Leave one of these options out; the config.yaml of a run sets them all",
    )
    return searched


def trial_configs(
    config: TrainConfig, items: Items, searched: Sequence[str], count: int
) -> list[TrainConfig]:
    """The default, and points spread over the space, without those that are equal to one before:
    more of them leave the first as they are."""
    reads, num_ranks = OBJECTIVES[config.objective].reads, 1
    if "loss.temperatures" in reads:
        num_ranks = rank_source(config, items).num_ranks
        usual = config.loss.temperatures_for(num_ranks)
        config = replace(config, loss=replace(config.loss, temperatures=usual))
    configs = [config]
    make_ups = _batch_make_ups(config, items)
    points = torch.quasirandom.SobolEngine(5, scramble=True, seed=config.seed)  # type: ignore[no-untyped-call]
    drawn = points.draw(count)[: count - len(configs)].tolist()
    for lr, first, ratio, variant, batches in drawn:
        loss, optim, make_up = config.loss, config.optim, config.batches
        if "lr" in searched and config.optim.lr is not None:
            factor = 4 ** (2 * lr - 1)  # from a quarter of the default to four times as much
            optim = replace(optim, lr=_rounded(config.optim.lr * factor))
        if "temperatures" in searched:
            lowest, spread = 0.05 * 4**first, 1.25 * 8**ratio  # to 0.2; the last 1.25 to 10 times
            rising = [lowest * spread ** (i / max(1, num_ranks - 1)) for i in range(num_ranks)]
            if "loss.temperatures" in reads:
                loss = replace(loss, temperatures=tuple(map(_rounded, rising)))
            if "loss.temperature" in reads:
                loss = replace(loss, temperature=_rounded(lowest))
        if "variant" in searched and "loss.variant" in reads:
            loss = replace(loss, variant=("in", "out-in", "out")[int(3 * variant)])
        if "batches" in searched:
            make_up = make_ups[int(len(make_ups) * batches)]
        drawn_config = replace(config, loss=loss, optim=optim, batches=make_up)
        if drawn_config not in configs:
            configs.append(drawn_config)
    return configs


def _batch_make_ups(config: TrainConfig, items: Items) -> list[BatchOptions]:
    """Random batches, and classes x images that fit the data and at least twice in a batch."""
    present = torch.unique(items.labels)
    typical = int(items.labels.bincount()[present].median())
    groups = items.taxonomy.labels_at(superclass_level(items.taxonomy, "rince tune"))[present]
    most = int(groups.bincount().max())
    balanced = [BatchOptions(k, p) for k in (2, 4, 8) for p in (None, 2, 4)]
    fitting = [
        x
        for x in balanced
        if (x.images_per_class or 1) <= typical
        and (x.classes_per_superclass or 1) <= most
        and config.batch_size % x.slot == 0
        and config.batch_size >= 2 * x.slot
    ]
    return [BatchOptions(), *fitting]


def _rounded(x: float) -> float:
    return float(f"{x:.3g}")
