"""``rince train IMAGES --captions CAPTIONS``: two towers, evaluated, in a run's folder."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rince.core.checks import RinceError, require, warn
from rince.core.distributed import launched_processes
from rince.core.files import new_folder
from rince.core.pair_ranks import ALL, PairRanks
from rince.data.items import Splits
from rince.data.plan import BatchPlan
from rince.evaluation.context import Context
from rince.evaluation.evaluate import draw
from rince.evaluation.features import FeatureSet
from rince.evaluation.levels import level_names, warn_of_empty_levels
from rince.evaluation.options import EvaluationOptions
from rince.evaluation.results import Evaluation, save_evaluation
from rince.losses.both_ways import PairLoss
from rince.losses.contrastive import info_nce
from rince.losses.ranked_info_nce import RankedInfoNCE
from rince.models.card import recipe
from rince.training.config import TrainConfig, flat, to_dict, without_machine
from rince.training.folder import ABOUT_FILE, CONFIG_FILE, config_yaml, versions
from rince.training.images_and_texts import ImagesAndTexts, read_images_and_captions
from rince.training.towers import OwnTexts, Towers, retrieval_metrics, train_towers

_READ = {
    *("data", "objective", "epochs", "batch_size", "seed", "name", "output", "progress"),
    *("loss.variant", "loss.positives", "loss.temperatures", "loss.temperature"),
    *("optim.lr", "optim.weight_decay"),
    *("model.embedding_dim", "model.head", "ranks.scores", "ranks.thresholds", "table.labels"),
    *("vectors.captions", "vectors.labels", "vectors.dropout"),
}
# What towers are, whatever else runs can be; as it is recorded it is taken again.
_FIXED: dict[str, Any] = {
    "model.backbone": "identity",
    "optim.optimizer": "adamw",
    "optim.warmup_epochs": 0.0,
    "optim.final_lr_ratio": 0.0,
}


def train_towers_run(config: TrainConfig, folder: Path) -> Path:
    """Train towers, evaluate them, and write a run's folder.

    Returns:
        ``folder``, with options and results, and in ``export`` the towers with their card.

    Raises:
        RinceError: the folder is there already; files that are missing, damaged or do not fit.
        ValueError: options that towers do not read, or that do not fit the data.
    """
    _require_fit(config)
    if folder.exists():  # before the work
        raise RinceError(f"{folder} is there already: choose another --name, or remove it")
    train, test = _read(config)
    counts = (
        f"{len(train.images)} images with {len(train.texts)} captions for training, "
        f"{len(test.images)} with {len(test.texts)} for the test"
    )
    print(counts)
    untested = len(test.images) - len(set(test.texts.names))
    if untested == len(test.images):
        raise RinceError(
            f"{config.vectors.captions} has no caption of a test image: nothing is measured"
        )
    if untested:
        warn(f"{untested} test images have no caption, and are not asked for their own")
    config = as_trained(config, len(train.images))
    size = config.batch_size
    near = config.ranks.thresholds
    ranks = train.ranks if near is None else train.ranks_by_texts(near)
    if near is None:
        warn_of_empty_levels(train.images, side="training ")
    _, images = BatchPlan(len(train.images), size, config.seed).take()[0]
    texts = OwnTexts(train).drawn(images, torch.Generator().manual_seed(config.seed))
    first_batch = ranks(images, texts)
    told = _shown_ranks(config, train, first_batch)
    loss = _loss(config, len(told))
    loss(torch.ones(size, 1), torch.ones(size, 1), first_batch)  # or it is refused
    with new_folder(folder) as part:  # now: perhaps there is no place to write to
        started = time.perf_counter()
        towers = train_towers(
            train,
            loss,
            ranks=ranks,
            batches=size,
            epochs=config.epochs,
            embedding_dim=config.model.embedding_dim,
            head=config.model.head,
            lr=float(config.optim.lr or 0),
            weight_decay=config.optim.weight_decay,
            seed=config.seed,
            progress=config.progress,
        )
        about = {
            "label": config.label(),
            "seed": config.seed,
            "config": to_dict(config),
            "train_seconds": time.perf_counter() - started,
            "versions": versions(),
        }
        results = towers.evaluate(test)
        drawn = _drawn(towers, test)
        info = {**drawn.info, "data": config.data_name(), "train_images": len(train.images)}
        evaluation = replace(drawn, metrics=retrieval_metrics(results), info=info)
        made_by = recipe(without_machine(to_dict(config)), versions())
        notes = f"{counts}; seed {config.seed}.\n\n{made_by}"
        towers.save(part / "export", results, Ranks="  \n".join(told), Training=notes)
        (part / CONFIG_FILE).write_text(config_yaml(config), encoding="utf-8")
        (part / ABOUT_FILE).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        save_evaluation(evaluation, part)
    return folder


def as_trained(config: TrainConfig, count: int | None = None) -> TrainConfig:
    """The same, with all that was left open as towers are trained: what a run records.

    ``count``: of training images; None: the files are read for it.
    """
    _require_fit(config)
    fixed = {name.partition(".")[2]: x for name, x in _FIXED.items() if name.startswith("optim.")}
    count = len(_read(config)[0].images) if count is None else count
    model = replace(config.model, backbone=_FIXED["model.backbone"])
    config = replace(config, model=model, optim=replace(config.optim, **fixed))
    return config.sized(count, processes=1)


def _read(config: TrainConfig) -> tuple[ImagesAndTexts, ImagesAndTexts]:
    return read_images_and_captions(
        config.data,
        str(config.vectors.captions),
        config.vectors.labels,
        config.table.labels,
        dropout=config.vectors.dropout,
        option="table.labels",
    )


def _require_fit(config: TrainConfig) -> None:
    """Refuse what towers do not read or do."""
    values = dict(flat(to_dict(config)))
    chosen = {x for x in config.chosen() if x not in _FIXED or values[x] != _FIXED[x]}
    unread = ", ".join(sorted(chosen - _READ))
    require(not unread, f"{unread}: not with vectors.captions, which reads only {sorted(_READ)}")
    require(
        config.objective in ("rince", "infonce"),
        f"with vectors.captions the objective is rince or infonce, got {config.objective}",
    )
    require(
        config.ranks.scores in (None, "captions"),
        f"with vectors.captions ranks.scores is captions, their cosines, got {config.ranks.scores}",
    )
    require(
        (launched_processes() or (1, 1)) == (1, 1),
        "towers are trained on the CPU, in one process: leave out torchrun, or srun's tasks",
    )


def _shown_ranks(config: TrainConfig, train: ImagesAndTexts, batch: PairRanks) -> list[str]:
    """A line for each rank, printed: what it is, and how often the first batch has it."""
    names = [f"cosine from {x:g} on" for x in config.ranks.thresholds or ()]
    if config.ranks.thresholds is None:
        marks = train.images.marks
        columns = level_names(train.images.taxonomy, marks.levels if marks else None)
        names = [f"{n} ({columns[n]})" if n in columns else n for n in [*train.levels][1:]]
    require(
        bool(names) or config.objective == "infonce",
        f"{config.data} has no labels, or those of one class, so there is one rank: give --labels "
        f"FILE, cosines of captions (--ranks.scores captions --ranks.thresholds 0.8 0.6), or "
        f"--objective infonce",
    )
    tile = batch.tile(ALL, ALL)
    met = [int((tile == i + 1).sum()) / len(tile) for i in range(len(names) + 1)]
    lines = [
        f"rank {i}, {n}: {x:.1f} captions for an image of a batch"
        for i, (n, x) in enumerate(zip(["own caption", *names], met, strict=True), 1)
    ]
    print("\n".join(lines))
    if 0 in met:
        warn(f"the first batch has no pair of rank {met.index(0) + 1}: take a larger --batch-size")
    return lines


def _loss(config: TrainConfig, num_ranks: int) -> PairLoss:
    options = config.loss
    if config.objective == "infonce":
        return lambda image, text, ranks: info_nce(image, text, temperature=options.temperature)
    return RankedInfoNCE(
        options.temperatures_for(num_ranks), variant=options.variant, positives=options.positives
    )


def _drawn(towers: Towers, data: ImagesAndTexts) -> Evaluation:
    """What a report draws: images that search captions, by their ranks."""
    images, texts = (
        replace(side, vectors=tower.encode(side.vectors, batch_size=1024))
        for tower, side in ((towers.image, data.images), (towers.text, data.texts))
    )
    test, gallery = (FeatureSet(side.vectors, side.labels) for side in (images, texts))
    options, splits = EvaluationOptions(map_points=0), Splits(texts, images)
    return draw(Context(splits, gallery, test, {}, options, own_ranks=data.ranks()), {})
