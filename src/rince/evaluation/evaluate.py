"""Evaluate a frozen backbone: features are extracted once, then every step measures on them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from rince.core.checks import require
from rince.core.moved import moved_names
from rince.data.arrays import unlabelled
from rince.data.batches import eval_batches
from rince.data.items import Items, Splits
from rince.evaluation.class_similarity import class_similarity
from rince.evaluation.context import Context
from rince.evaluation.drawings import feature_map, nearest_neighbours, roc_curves, time_curve
from rince.evaluation.features import FeatureSet, extract_features
from rince.evaluation.levels import coarse_level
from rince.evaluation.options import EvaluationOptions
from rince.evaluation.results import Evaluation
from rince.evaluation.steps import STEPS, Step
from rince.metrics.ordering import similarity_histograms
from rince.ranks.class_ranks import ClassRanks
from rince.ranks.taxonomy import Taxonomy

__getattr__ = moved_names(
    __name__,
    {name: f"rince.evaluation.{name}" for name in ("label_levels", "outlier_detectors")},
)


def evaluate_backbone(
    backbone: nn.Module,
    splits: Splits,
    outliers: Mapping[str, Items | Tensor],
    *,
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
        backbone: items to features; frozen here.
        splits: the training items are the gallery and train the probe; the test items are
            queries.
        outliers: name -> items of no known class (see :func:`rince.data.kinds.load_outliers`), or
            their uint8 pixels (N, C, H, W).
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
    options, taxonomy = options or EvaluationOptions(), splits.train.taxonomy
    unseen = int((splits.test.labels >= taxonomy.num_classes).sum())
    require(
        unseen == 0,
        f"{unseen} of {len(splits.test)} test {splits.test.noun} are of classes that were never "
        f"trained, which a probe and kNN cannot tell",
    )
    require(len(splits.test) > 0, f"there are no test {splits.test.noun} to evaluate on")

    def features_of(items: Items | Tensor, workers: int = 0) -> FeatureSet:
        if isinstance(items, Tensor):
            items = unlabelled(items, taxonomy, image_size=splits.spec.size)
        return extract_features(backbone, eval_batches(items, batch_size, workers), device)

    started = time.perf_counter()
    train, test = (features_of(items, workers) for items in (splits.train, splits.test))
    extracted = time.perf_counter()
    outlying = {name: features_of(items).features for name, items in outliers.items()}
    context = Context(splits, train, test, outlying, options, classifier, own_classes)
    metrics = _measured(context, steps)
    gallery, _, ranks = context.ranked
    return Evaluation(
        metrics=metrics,
        info={
            "train_images": len(splits.train),
            "test_images": len(splits.test),
            "outliers": {name: len(items) for name, items in outliers.items()},
            "data": splits.train.name,
            "feature_dim": int(train.features.shape[1]),
            "probe_epochs": options.probe_epochs,
            "extract_seconds": extracted - started,
            "evaluate_seconds": time.perf_counter() - started,
        },
        classes=taxonomy.classes,
        groups=taxonomy.group_names(coarse_level(taxonomy)),
        histograms=similarity_histograms(test.features, gallery.features, ranks),
        map_2d=feature_map(context),
        gallery=nearest_neighbours(context),
        roc=roc_curves(context),
        time_curve=time_curve(context),
        class_similarity=class_similarity(test, train, taxonomy, class_ranks),
    )


def _measured(context: Context, steps: Sequence[Step]) -> dict[str, float]:
    """The metrics of all steps, each name once."""
    metrics: dict[str, float] = {}
    for step in steps:
        measured = step(context)
        twice = sorted(metrics.keys() & measured.keys())
        require(
            not twice,
            f"the evaluation step {getattr(step, '__name__', step)} gives {', '.join(twice)}, "
            "which an earlier step gives too: choose other names",
        )
        metrics |= measured
    return metrics
