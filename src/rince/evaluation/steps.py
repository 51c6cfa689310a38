"""The metrics of an evaluation, one step each: a function of the context to named numbers."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from rince.core.checks import require, warn
from rince.evaluation.context import Context
from rince.metrics.hierarchy import LevelResult, hierarchical_retrieval
from rince.metrics.knn import knn_accuracy
from rince.metrics.ordering import rank_agreement, rank_correlation
from rince.metrics.probe import linear_probe
from rince.metrics.recall import RetrievalResult, recall_by_rank, retrieval_by_level
from rince.metrics.roc import auroc, fpr_at_tpr
from rince.metrics.video import video_accuracy

Step: TypeAlias = Callable[[Context], Mapping[str, float]]
"""Metrics by name; {} where the data have no answer."""

KS = (1, 5, 10, 20)


def probe_and_knn(context: Context) -> dict[str, float]:
    """Accuracy of a linear probe and of the nearest neighbours, for classes and superclasses."""
    metrics: dict[str, float] = {}
    options = context.options
    if context.sequences is not None:  # nothing was trained on the gallery
        return {}
    for level, (train_labels, test_labels, num_classes) in context.levels.items():
        if level not in ("fine", "coarse"):  # a probe a level would take hours in a deep tree
            continue
        sides = (*context.features, test_labels, train_labels)
        probe = linear_probe(
            *sides, num_classes=num_classes, epochs=options.probe_epochs, seed=options.seed
        )
        metrics[f"probe/{level}"] = probe.accuracy
        if level == "fine":
            metrics |= _by_video("probe", context, probe.logits(context.test.features))
        metrics[f"knn/{level}"] = knn_accuracy(*sides, k=context.neighbours)
    return metrics


def own_classifier(context: Context) -> dict[str, float]:
    """Accuracy of the head that a run was trained with, as after fine-tuning."""
    if not context.levels or context.classifier is None or not context.own_classes:
        return {}
    features, labels = context.test.features, context.test.labels
    logits = copy.deepcopy(context.classifier).to(features)(features).detach()
    accuracy = float((logits.argmax(dim=1) == labels).double().mean())
    return {"classifier/fine": accuracy, **_by_video("classifier", context, logits)}


def class_retrieval(context: Context) -> dict[str, float]:
    """Recall at k and mean average precision at every level of the class tree."""
    labels = {level: (test, train) for level, (train, test, _) in context.levels.items()}
    if not labels or context.sequences is not None:  # of an open test tree_retrieval says it all
        return {}
    metrics: dict[str, float] = {}
    for level, result in retrieval_by_level(*context.features, labels, ks=KS).items():
        metrics |= named_retrieval(level, result)
    return metrics


def named_retrieval(level: str, result: RetrievalResult | LevelResult) -> dict[str, float]:
    """``retrieval/fine/R@1``, ..., ``retrieval/fine/mAP`` of the level fine."""
    recall = {f"retrieval/{level}/R@{k}": value for k, value in result.recall.items()}
    return {**recall, f"retrieval/{level}/mAP": result.mean_average_precision}


def tree_retrieval(context: Context) -> dict[str, float]:
    """What else there is to say of every level, and where there are several, of the whole."""
    if not context.levels:
        return {}
    levels = context.levels.values()
    train = torch.stack([of_train for of_train, _, _ in levels], dim=1)
    test = torch.stack([of_test for _, of_test, _ in levels], dim=1)
    query_sequence, gallery_sequence = context.sequences or (None, None)
    result = hierarchical_retrieval(
        *context.features,
        test,
        train,
        ks=KS,
        query_sequence=query_sequence,
        gallery_sequence=gallery_sequence,
    )
    metrics: dict[str, float] = {}
    for level, at_level in zip(context.levels, result.levels, strict=True):
        if context.sequences is not None:
            metrics |= named_retrieval(level, at_level)
            if at_level.num_skipped:
                metrics[f"retrieval/{level}/asked"] = 1 - at_level.num_skipped / len(test)
        of_level = {"R-precision": at_level.r_precision, "MAP@R": at_level.map_at_r}
        if level != "fine":  # where nothing is better, it is the mAP
            of_level["only"] = at_level.only_level
        metrics |= {f"retrieval/{level}/{name}": value for name, value in of_level.items()}
    if len(result.levels) > 1:
        whole = {"H-AP": result.h_ap, "ASI": result.asi, "NDCG": result.ndcg}
        whole["mistake-severity"] = result.mistake_severity
        whole |= {f"distance@{k}": value for k, value in result.distance.items()}
        metrics |= {f"hierarchy/{name}": value for name, value in whole.items()}
    return {name: value for name, value in metrics.items() if not math.isnan(value)}


def time_retrieval(context: Context) -> dict[str, float]:
    """Recall at k of items near in time, and of the same video."""
    if context.by_time is None:
        return {}
    metrics: dict[str, float] = {}
    features, ranks = context.test.features, context.by_time.ranks
    for name, worst_rank in (("near", 2), ("video", 3)):
        recall = recall_by_rank(features, features, ranks, worst_rank=worst_rank, ks=KS)
        metrics |= {f"retrieval/{name}/R@{k}": value for k, value in recall.items()}
    return metrics


def rank_order(context: Context) -> dict[str, float]:
    """Whether similarities keep the order of the ranks; a single class has no order to keep."""
    if context.taxonomy.num_classes == 1 and context.by_time is None:
        return {}
    gallery, _, ranks = context.ranked
    sides = (context.test.features, gallery.features, ranks)
    try:
        agreement = {f"ordering/{name}": value for name, value in rank_agreement(*sides).items()}
    except ValueError as error:
        if context.by_time is None and context.sequences is None:
            raise
        items = context.splits.test
        warn(f"the order of the {items.noun} of {items.name} is left out: {error}")
        return {}
    return {**agreement, "ordering/correlation": rank_correlation(*sides)}


def outlier_detection(context: Context) -> dict[str, float]:
    """AUROC and FPR@95 of every detector on every outlier set."""
    metrics: dict[str, float] = {}
    for (name, detector), scores in context.outlier_scores.items():
        metrics[f"ood/{name}/{detector}/AUROC"] = auroc(*scores)
        metrics[f"ood/{name}/{detector}/FPR95"] = fpr_at_tpr(*scores)
    return metrics


STEPS: tuple[Step, ...] = (
    probe_and_knn,
    own_classifier,
    class_retrieval,
    tree_retrieval,
    time_retrieval,
    rank_order,
    outlier_detection,
)


def measured(context: Context, steps: Sequence[Step]) -> dict[str, float]:
    """The metrics of all steps, each name once, as plain numbers."""
    metrics: dict[str, float] = {}
    for step in steps:
        gives = f"the evaluation step {getattr(step, '__name__', step)} gives"
        of_step = step(context)
        require(isinstance(of_step, Mapping), f"{gives} {of_step!r} in place of name -> number")
        for name, value in of_step.items():
            require(
                name not in metrics,
                f"{gives} {name}, which an earlier step gives too: choose other names",
            )
            try:
                number = float(value)
            except (TypeError, ValueError, RuntimeError) as error:  # the last: a tensor of many
                raise ValueError(f"{gives} {value!r} for {name}: give one number") from error
            if math.isfinite(number):
                metrics[str(name)] = number
            else:  # no reason to lose what the other steps measured
                warn(f"{gives} {number} for {name}: it is left out of the results")
    return metrics


def _by_video(name: str, context: Context, logits: Tensor) -> dict[str, float]:
    """The accuracy over videos of clip by clip logits; {} for items without times."""
    if context.videos is None:
        return {}
    return {f"{name}/video": video_accuracy(logits, context.test.labels, context.videos)}
