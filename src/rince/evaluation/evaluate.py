"""Evaluate a frozen backbone: features are extracted once, then every step measures on them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rince.core.checks import require
from rince.data.arrays import unlabelled
from rince.data.items import Items, Splits
from rince.evaluation.class_similarity import class_similarity
from rince.evaluation.context import Context
from rince.evaluation.drawings import (
    failures,
    feature_map,
    nearest_neighbours,
    roc_curves,
    time_curve,
)
from rince.evaluation.features import FeatureSet, Network
from rince.evaluation.levels import coarse_level, level_names
from rince.evaluation.options import EvaluationOptions, require_name
from rince.evaluation.results import EMBEDDING, Evaluation
from rince.evaluation.steps import STEPS, Step, measured
from rince.metrics.ordering import similarity_histograms
from rince.models.backbones import Backbone
from rince.ranks.class_ranks import ClassRanks
from rince.ranks.taxonomy import Taxonomy


def evaluate_backbone(
    backbone: nn.Module | Backbone,
    splits: Splits,
    outliers: Mapping[str, Items | Tensor],
    *,
    head: nn.Module | None = None,
    options: EvaluationOptions | None = None,
    device: torch.device | str = "cpu",
    batch_size: int = 512,
    workers: int = 0,
    classifier: nn.Module | None = None,
    own_classes: bool = True,
    class_ranks: ClassRanks | Taxonomy | None = None,
    steps: Sequence[Step] = STEPS,
) -> Evaluation:
    """Evaluate a backbone as the paper does, and by whether it keeps the order of the ranks.

    Items without times are ranked by their classes against the training items. Clips of videos
    are ranked by time among the clips of the test videos ("near", "same video", negative); where
    they have more than one class, accuracy and retrieval by class are measured too.

    Args:
        backbone: items to features; frozen here. A run's ``backbone`` will do.
        splits: the training items are the gallery and train the probe; the test items are
            queries.
        outliers: name -> items of no known class (see :func:`rince.data.kinds.load_outliers`), or
            their uint8 pixels (N, C, H, W).
        head: features to embeddings. All is then measured of these too, by names that begin with
            ``embedding/``; drawings are of the features.
        options: how much to do.
        device: where features are extracted.
        batch_size: of the extraction.
        workers: processes that read items; no effect for items in memory.
        classifier: features to logits, (B, D) -> (B, C), of a run that was trained as one: then
            its probabilities (msp) and energies are outlier scores too.
        own_classes: its classes are those of the splits, so its own accuracy, as after
            fine-tuning, can be measured.
        class_ranks: those it was trained on, to be drawn beside what it learned; the taxonomy's
            by default.
        steps: what measures the metrics, in this order: each is a function of a
            :class:`Context` that returns name -> number. ``[*STEPS, my_step]`` adds one.

    Returns:
        All metrics and what a report draws.

    Raises:
        ValueError: no test items, features that are not finite, ranks of other classes, or two
            steps that give a metric of the same name.
    """
    started = time.perf_counter()
    module = backbone.module if isinstance(backbone, Backbone) else backbone
    result = measure(
        Network(module, head, device, batch_size, workers),
        splits,
        outliers,
        options=options,
        classifier=classifier,
        own_classes=own_classes,
        steps=steps,
    )
    drawn = draw(result.context, result.metrics, class_ranks)
    seconds = {"extract_seconds": result.seconds, "evaluate_seconds": time.perf_counter() - started}
    return replace(drawn, info={**drawn.info, **seconds})


class Measured(NamedTuple):
    """Metrics of both spaces, the context of the features, and seconds of their extraction."""

    context: Context
    metrics: dict[str, float]
    seconds: float


def measure(
    network: Network,
    splits: Splits,
    outliers: Mapping[str, Items | Tensor],
    *,
    options: EvaluationOptions | None = None,
    classifier: nn.Module | None = None,
    own_classes: bool = True,
    steps: Sequence[Step] = STEPS,
) -> Measured:
    """The numbers of :func:`evaluate_backbone`, which has the other arguments."""
    options, taxonomy = options or EvaluationOptions(), splits.train.taxonomy
    options.check()
    for name in outliers:
        require_name(name, "outliers")
    unseen = int((splits.test.labels >= taxonomy.num_classes).sum())
    require(
        unseen == 0,
        f"{unseen} of {len(splits.test)} test {splits.test.noun} are of classes that were never "
        f"trained, which a probe and kNN cannot tell: evaluate on data of trained classes, and add "
        f"these as a test of any classes (rince evaluate RUN --data TRAINED --test THESE)",
    )
    require(len(splits.test) > 0, f"there are no test {splits.test.noun} to evaluate on")
    started = time.perf_counter()
    train, test = network.features(splits.train), network.features(splits.test)
    seconds = time.perf_counter() - started
    outlying = {}
    for name, items in outliers.items():
        if isinstance(items, Tensor):
            items = unlabelled(items, taxonomy, image_size=splits.spec.size)
            items = items.preprocessed(splits.test.preprocessing)
        outlying[name] = network.features(items).features
    context = Context(splits, train, test, outlying, options, classifier, own_classes)
    metrics = measured(context, steps)
    if network.head is not None:
        of_train, of_test = (
            FeatureSet(network.spaces(x.features)[EMBEDDING], x.labels) for x in (train, test)
        )
        outlying = {name: network.spaces(x)[EMBEDDING] for name, x in outlying.items()}
        embedded = Context(splits, of_train, of_test, outlying, options)
        metrics |= {EMBEDDING + name: x for name, x in measured(embedded, steps).items()}
    return Measured(context, metrics, seconds)


def draw(
    context: Context,
    metrics: Mapping[str, float],
    class_ranks: ClassRanks | Taxonomy | None = None,
) -> Evaluation:
    """Metrics with what a report draws of the features of ``context``."""
    splits, taxonomy, options = context.splits, context.taxonomy, context.options
    gallery, _, ranks = context.ranked
    between, marks = None, splits.train.marks
    names = level_names(taxonomy, None if marks is None else marks.levels)
    if context.sequences is None:
        between = class_similarity(context.test, context.train, taxonomy, class_ranks)
    worst, confusion = failures(context)
    probed = any(name.startswith("probe/") for name in metrics)
    return Evaluation(
        metrics=metrics,
        info={
            "train_images": len(splits.train),
            "test_images": len(splits.test),
            "outliers": {name: len(items) for name, items in context.outliers.items()},
            "data": splits.train.name,
            "feature_dim": int(context.train.features.shape[1]),
            **({"probe_epochs": options.probe_epochs} if probed else {}),
            **({"levels": names} if names else {}),
        },
        classes=taxonomy.classes,
        groups=taxonomy.group_names(coarse_level(taxonomy)),
        histograms=similarity_histograms(context.test.features, gallery.features, ranks),
        map_2d=feature_map(context),
        gallery=nearest_neighbours(context),
        roc=roc_curves(context),
        time_curve=time_curve(context),
        class_similarity=between,
        worst_queries=worst,
        confusion=confusion,
    )
