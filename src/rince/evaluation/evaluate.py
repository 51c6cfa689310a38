"""Judge a frozen backbone on everything: features are extracted once, then all metrics run."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from rince.core.checks import require, warn
from rince.core.pair_ranks import ALL, IGNORED, PairRanks
from rince.data.batches import eval_batches
from rince.data.items import Items, Splits
from rince.evaluation.class_similarity import class_similarity
from rince.evaluation.features import FeatureSet, extract_features
from rince.evaluation.knn import knn_accuracy
from rince.evaluation.linear_probe import linear_probe
from rince.evaluation.ood import (
    ClassGaussians,
    auroc,
    energy_score,
    fpr_at_tpr,
    knn_ood_score,
    msp_score,
    roc_curve,
)
from rince.evaluation.ordering import rank_agreement, rank_correlation, similarity_histograms
from rince.evaluation.results import Evaluation, Gallery, Map2D, RocCurve, TimeCurve
from rince.evaluation.retrieval import retrieval_by_level
from rince.evaluation.times import recall_by_rank, similarity_over_time, video_accuracy
from rince.ranks.class_ranks import ClassRanks
from rince.ranks.taxonomy import Taxonomy
from rince.ranks.time import VIDEO, TimePairRanks, TimeRanks

KS = (1, 5, 10, 20)


@dataclass(frozen=True)
class EvaluationOptions:
    """How much to do.

    Args:
        probe_epochs: of the linear probe (the paper: 100).
        knn_k: neighbours of the kNN accuracy and of the kNN outlier score.
        map_points: test images on the 2-D map; 0 leaves the map out (t-SNE is the slowest part).
        gallery_queries, gallery_neighbours: size of the retrieval gallery.
        near: of clips of videos: seconds up to which they count as near each other. The same for
            all runs, whatever ranks they were trained on.
        seed: of the probe, the map, and the choice of queries.
    """

    probe_epochs: int = 100
    knn_k: int = 20
    map_points: int = 1000
    gallery_queries: int = 10
    gallery_neighbours: int = 8
    near: float = 10.0
    seed: int = 0


def evaluate_backbone(
    backbone: nn.Module,
    splits: Splits,
    outliers: Mapping[str, Items],
    *,
    options: EvaluationOptions | None = None,
    device: torch.device | str = "cpu",
    batch_size: int = 512,
    workers: int = 0,
    classifier: nn.Module | None = None,
    own_classes: bool = True,
    class_ranks: ClassRanks | None = None,
) -> Evaluation:
    """Judge a backbone as the paper does, and by whether it keeps the order of the ranks.

    Clips of videos are judged by their labels, if there is more than one, as images are; and by
    time, among the clips of the test videos: the ranks are then "near", "same video" and negative.

    Args:
        backbone: images to features; frozen here.
        splits: the training images are the gallery and train the probe; the test images are
            queries.
        outliers: name -> items of no known class; see :func:`rince.data.kinds.load_outliers`.
        options: how much to do.
        device: where features are extracted.
        batch_size: of the extraction.
        workers: processes that decode image files; no effect for images in memory.
        classifier: features to logits, (B, D) -> (B, C), of a run that was trained as one: then
            its probabilities (msp) and energies are outlier scores too.
        own_classes: its classes are those of the splits, so that its own accuracy, as after
            fine-tuning, can be told.
        class_ranks: those it was trained on, to be drawn beside what it learned; the taxonomy's
            by default.

    Returns:
        All metrics and what a report draws.

    Raises:
        ValueError: no test images, features that are not finite, or ranks of other classes.
    """
    options = options or EvaluationOptions()
    require(len(splits.test) > 0, "there are no test images to evaluate on")
    started = time.perf_counter()
    taxonomy = splits.train.taxonomy
    train = extract_features(backbone, eval_batches(splits.train, batch_size, workers), device)
    test = extract_features(backbone, eval_batches(splits.test, batch_size, workers), device)
    extracted = time.perf_counter()

    metrics: dict[str, float] = {}
    neighbours = min(options.knn_k, len(train))
    times = _Times.of(splits.test, options.near)
    levels = label_levels(taxonomy, train, test)
    if splits.test.times is not None and taxonomy.num_classes == 1:
        levels = {}  # nothing is labelled
    for level, (train_labels, test_labels, count) in levels.items():
        probe = linear_probe(
            train.features,
            train_labels,
            test.features,
            test_labels,
            num_classes=count,
            epochs=options.probe_epochs,
            seed=options.seed,
        )
        metrics[f"probe/{level}"] = probe.accuracy
        if level == "fine" and splits.test.times is not None:
            logits, videos = probe.logits(test.features), splits.test.times[:, VIDEO]
            metrics["probe/video"] = video_accuracy(logits, test_labels, videos)
        metrics[f"knn/{level}"] = knn_accuracy(
            test.features,
            test_labels,
            train.features,
            train_labels,
            k=neighbours,
        )
    if levels and classifier is not None and own_classes:
        logits = copy.deepcopy(classifier).to(test.features)(test.features).detach()
        hits = logits.argmax(dim=1) == test.labels
        metrics["classifier/fine"] = float(hits.double().mean())
        if splits.test.times is not None:
            videos = splits.test.times[:, VIDEO]
            metrics["classifier/video"] = video_accuracy(logits, test.labels, videos)
    sides = {
        level: (test_labels, train_labels)
        for level, (train_labels, test_labels, _) in levels.items()
    }
    if sides:
        found_by_level = retrieval_by_level(test.features, train.features, sides, ks=KS)
        for level, found in found_by_level.items():
            metrics |= {f"retrieval/{level}/R@{k}": value for k, value in found.recall.items()}
            metrics[f"retrieval/{level}/mAP"] = found.mean_average_precision

    ranks: PairRanks = taxonomy.ranks(test.labels, train.labels)
    gallery, gallery_images = train, splits.train
    if times is not None:
        gallery, gallery_images, ranks = test, splits.test, times.ranks
        metrics |= times.retrieval(test.features)
    if taxonomy.num_classes > 1 or times is not None:  # a single class has no order to keep
        agreement = rank_agreement(test.features, gallery.features, ranks)
        metrics |= {f"ordering/{name}": value for name, value in agreement.items()}
        metrics["ordering/correlation"] = rank_correlation(test.features, gallery.features, ranks)

    roc: dict[tuple[str, str], RocCurve] = {}
    detectors = outlier_detectors(train, neighbours, classifier) if outliers else {}
    inlier_scores = {name: score(test.features) for name, score in detectors.items()}
    for name, unknown in outliers.items():
        out = extract_features(backbone, eval_batches(unknown, batch_size), device).features
        for detector, score in detectors.items():
            inside, scores = inlier_scores[detector], score(out)
            metrics[f"ood/{name}/{detector}/AUROC"] = auroc(inside, scores)
            metrics[f"ood/{name}/{detector}/FPR95"] = fpr_at_tpr(inside, scores)
            roc[name, detector] = roc_curve(inside, scores)

    return Evaluation(
        metrics=metrics,
        info={
            "train_images": len(splits.train),
            "test_images": len(splits.test),
            "outliers": {name: len(found) for name, found in outliers.items()},
            "data": splits.train.name,
            "feature_dim": int(train.features.shape[1]),
            "probe_epochs": options.probe_epochs,
            "extract_seconds": extracted - started,
            "evaluate_seconds": time.perf_counter() - started,
        },
        classes=taxonomy.classes,
        groups=taxonomy.group_names(min(2, taxonomy.num_ranks)),
        histograms=similarity_histograms(test.features, gallery.features, ranks),
        map_2d=_map_2d(test, taxonomy, options),
        gallery=_gallery(splits.test, gallery_images, test, gallery, ranks, options),
        roc=roc,
        time_curve=None if times is None else times.curve(test.features),
        class_similarity=class_similarity(test, train, taxonomy, class_ranks),
    )


@dataclass(frozen=True)
class _Times:
    """The test clips judged against each other by time.

    Clips that share frames are left out: they are found first whatever was learned.
    """

    items: Tensor
    ranks: TimePairRanks

    @classmethod
    def of(cls, test: Items, near: float) -> _Times | None:
        """None where times are not known, or no test video has two clips."""
        items = test.times
        if items is None:
            return None
        rule = TimeRanks([near])
        timed = len(torch.unique(items[:, VIDEO])) < len(items)
        ranks = rule.ranks(items, items, ignore_self=True, ignore_overlaps=True)
        return cls(items, ranks) if timed else None

    def retrieval(self, features: Tensor) -> dict[str, float]:
        """R@k of clips near in time, and of the same video."""
        found: dict[str, float] = {}
        for name, worst in (("near", 2), ("video", 3)):
            recall = recall_by_rank(features, features, self.ranks, worst_rank=worst, ks=KS)
            found |= {f"retrieval/{name}/R@{k}": value for k, value in recall.items()}
        return found

    def curve(self, features: Tensor) -> TimeCurve:
        return similarity_over_time(features, self.items)


def outlier_detectors(
    train: FeatureSet, k: int, classifier: nn.Module | None
) -> dict[str, Callable[[Tensor], Tensor]]:
    """The detectors of an evaluation: name -> features to scores, higher is more outlying.

    Args:
        train: what they are fitted on. k: neighbours of the kNN score.
        classifier: features to logits, for msp and energy; None leaves these out.
    """
    detectors: dict[str, Callable[[Tensor], Tensor]] = {
        "knn": lambda features: knn_ood_score(train.features, features, k=k)
    }
    if classifier is not None:
        head = copy.deepcopy(classifier).to(train.features).requires_grad_(False)
        detectors["msp"] = lambda features: msp_score(head(features))
        detectors["energy"] = lambda features: energy_score(head(features))
    try:
        gaussians = ClassGaussians.fit(train.features, train.labels)
        shared = gaussians.with_shared_covariance()
        return {"gaussian": gaussians.score, "mahalanobis": shared.score, **detectors}
    except (
        ValueError
    ) as error:  # too few images, or a collapsed encoder: no reason to lose the rest
        warn(f"outlier detection by Gaussians is left out: {error}")
        return detectors


def label_levels(
    taxonomy: Taxonomy, train: FeatureSet, test: FeatureSet
) -> dict[str, tuple[Tensor, Tensor, int]]:
    """fine (and, where there are superclasses, coarse): labels of both sides, and their number."""
    levels = {"fine": (train.labels, test.labels, taxonomy.num_classes)}
    if taxonomy.num_ranks >= 2:
        group = taxonomy.labels_at(2)
        levels["coarse"] = (group[train.labels], group[test.labels], int(group.max()) + 1)
    return levels


def _map_2d(test: FeatureSet, taxonomy: Taxonomy, options: EvaluationOptions) -> Map2D:
    """t-SNE of a sample of the unit-length test features."""
    chosen = _sample(len(test.labels), options.map_points, options.seed)
    features = torch.nn.functional.normalize(test.features[chosen], dim=1).numpy()
    # Too few for t-SNE to mean anything; or all in one point, where it divides by zero.
    if len(chosen) < 10 or float(features.std(axis=0).max()) < 1e-6:
        return Map2D(np.zeros((0, 2)), np.zeros(0, dtype=int), np.zeros(0, dtype=int))
    from sklearn.manifold import TSNE

    xy = TSNE(
        perplexity=min(30.0, (len(chosen) - 1) / 3),
        init="pca",
        random_state=options.seed,
    ).fit_transform(features)
    fine = test.labels[chosen]
    coarse = taxonomy.labels_at(min(2, taxonomy.num_ranks))[fine]
    return Map2D(xy, fine.numpy(), coarse.numpy())


def _gallery(
    query_items: Items,
    gallery_items: Items,
    test: FeatureSet,
    train: FeatureSet,
    ranks: PairRanks,
    options: EvaluationOptions,
) -> Gallery:
    """Some test images with the gallery's images nearest to them."""
    queries = _sample(len(test.labels), options.gallery_queries, options.seed)
    normalize = torch.nn.functional.normalize
    similarity = normalize(test.features[queries], dim=1) @ normalize(train.features, dim=1).T
    rank = torch.cat([ranks.tile(slice(i, i + 1), ALL) for i in queries.tolist()])  # (G, N)
    similarity = similarity.masked_fill(rank == IGNORED, -torch.inf)
    count = min(options.gallery_neighbours, int((rank != IGNORED).sum(dim=1).min()))
    similarities, neighbours = similarity.topk(count, dim=1)  # (G, n)
    labels = test.labels[queries]
    found = train.labels[neighbours]
    size = query_items.spec.size
    pictures = query_items.thumbnails(queries, size)
    return Gallery(
        queries=pictures,
        neighbours=gallery_items.thumbnails(neighbours.flatten(), size).reshape(
            *neighbours.shape, *pictures.shape[1:]
        ),
        ranks=rank.gather(1, neighbours).numpy(),
        similarities=similarities.numpy(),
        query_labels=labels.numpy(),
        neighbour_labels=found.numpy(),
    )


def _sample(total: int, count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(total, generator=generator)[:count]
