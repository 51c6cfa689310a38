"""The evaluation of a trained run: its data or others, outliers, and the results in its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rince.core.checks import RinceError, warn
from rince.core.devices import known_device
from rince.data.items import Splits
from rince.data.kinds import NAMED, kind_of, load_outliers
from rince.evaluation.evaluate import evaluate_backbone
from rince.evaluation.options import EvaluationOptions
from rince.evaluation.results import Evaluation, save_evaluation
from rince.evaluation.steps import STEPS, Step
from rince.models.backbones import Backbone
from rince.training.checkpoint import TrainedRun, load_run
from rince.training.config import TrainConfig
from rince.training.folder import ABOUT_FILE
from rince.training.splits import load_splits


def evaluate_run(
    folder: Path,
    outliers: Mapping[str, str] | None = None,
    *,
    options: EvaluationOptions | None = None,
    data: str | None = None,
    data_root: str | None = None,
    splits_folder: str | None = None,
    split: int = 1,
    skip_unreadable: bool = False,
    device: str = "auto",
    backbone: Backbone | None = None,
    steps: Sequence[Step] = STEPS,
    splits: Splits | None = None,
) -> Evaluation:
    """Evaluate one run and write its results.

    Args:
        folder: the run's.
        outliers: name -> where they are: a folder, a file of texts, or "digits".
        options: how much to do.
        data: evaluate on these in place of the run's own.
        data_root: where a named data set is now.
        splits_folder, split: with data: the split files of UCF101 or HMDB51, and which split.
        skip_unreadable: leave out, with a warning, what cannot be read.
        device: where features are extracted.
        backbone: a module like the one that was trained, if it was your own.
        steps: what measures the metrics; ``[*STEPS, my_step]`` adds one of your own, a function
            of a :class:`~rince.evaluation.context.Context` to name -> number.
        splits: items of your own in place of data, as given to
            :func:`~rince.training.run.train`.

    Raises:
        RinceError: no such run or data; or, where ``data`` are not given, data that are no
            longer split as they were when the run was trained.
    """
    device = known_device(device)
    trained = load_run(folder, backbone)
    if not (folder / ABOUT_FILE).exists():  # written when the training ends
        warn(
            f"{folder.name} is not finished: it stopped at step {trained.step}, or is still at "
            f"work. If it stopped, `rince train --resume {folder}` goes on with it"
        )
    # A copy: the run keeps the configuration that it was trained with.
    config = trained.config
    images = replace(
        config.images,
        root=data_root or config.images.root,
        skip_unreadable=config.images.skip_unreadable or skip_unreadable,
    )
    config = replace(config, images=images)
    if splits is not None:
        _check_fit(trained, splits, "splits")
    elif data is None:
        splits = _own_splits(trained, config)
    else:
        videos = replace(config.videos, splits=splits_folder, split=split)
        splits = other_splits(trained, replace(config, data=data, videos=videos))
    classes = splits.train.taxonomy.classes
    evaluation = evaluate_backbone(
        trained.backbone.module,
        splits,
        {
            name: load_outliers(
                path,
                splits.test,
                config,
                skip_unreadable=skip_unreadable,
                backbone=config.model.backbone,
            )
            for name, path in (outliers or {}).items()
        },
        options=options,
        device=device,
        workers=images.workers,
        classifier=trained.classifier,
        own_classes=trained.taxonomy.classes == classes,
        steps=steps,
        class_ranks=trained.ranks if trained.ranks.classes == classes else None,
    )
    save_evaluation(evaluation, folder)
    return evaluation


def other_splits(trained: TrainedRun, config: TrainConfig) -> Splits:
    """Other data, in the size and colours that the run's backbone knows; or other texts.

    Raises:
        RinceError: data of another kind, or that do not fit.
    """
    data = config.data
    if kind_of(data, config.ranks.by == "time").noun != trained.spec.noun:
        raise RinceError(
            f"{data} holds no {trained.spec.noun}, which {trained.folder.name} was trained on; "
            f"evaluate it on data of its own kind"
        )
    config = replace(config, images=replace(config.images, image_size=trained.spec.size))
    splits = load_splits(config, trained.spec.channels)
    if splits.train.taxonomy.paths != trained.taxonomy.paths:
        print(f"note: {data} has other classes than {trained.folder.name} was trained on")
    _check_fit(trained, splits, data)
    return splits


def _own_splits(trained: TrainedRun, config: TrainConfig) -> Splits:
    """The data that the run was trained on, if they are still the same."""
    data, name = config.data, trained.folder.name
    splits = load_splits(config)
    changed = splits.train.taxonomy.paths != trained.taxonomy.paths
    if trained.data_fingerprint:
        changed = changed or splits.fingerprint() != trained.data_fingerprint
    elif data not in NAMED:
        warn(
            f"{name} was trained by an older rince, which did not record its data: if "
            f"{data} has no val/ or test/ of its own, test items may have been trained on"
        )
    if changed:
        raise RinceError(
            f"{data} no longer holds the {trained.spec.noun} that {name} was trained with (now "
            f"{len(splits.train)} for training and {len(splits.test)} for the test), so test "
            f"items may have been trained on. Put the data back as they were, train again, or "
            f"give other data with --data"
        )
    _check_fit(trained, splits, data)
    return splits


def _check_fit(trained: TrainedRun, splits: Splits, data: str) -> None:
    if splits.spec != trained.spec:
        raise RinceError(
            f"{data} holds {splits.spec}, but {trained.folder.name} was trained on "
            f"{trained.spec}; evaluate it on data of its own kind"
        )
