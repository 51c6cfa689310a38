"""What the steps of an evaluation look at: features, labels, ranks and outlier scores."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rince.core.checks import warn
from rince.core.pair_ranks import IGNORED, PairRanks
from rince.data.items import Items, Splits
from rince.evaluation.features import FeatureSet
from rince.evaluation.levels import tree_levels
from rince.evaluation.options import EvaluationOptions
from rince.metrics.gaussians import ClassGaussians
from rince.metrics.ood import energy_score, knn_ood_score, msp_score
from rince.ranks.taxonomy import Taxonomy
from rince.ranks.time import VIDEO, TimeRanks

Level = tuple[Tensor, Tensor, int]
"""Training labels (N,) int64, test labels (M,) int64, number of classes."""


class Ranked(NamedTuple):
    """What is ranked for each test item: a gallery, and the ranks (M, G) of its items."""

    gallery: FeatureSet
    items: Items
    ranks: PairRanks


@dataclass(frozen=True)
class Context:
    """What a step can use: test items are the queries, a gallery is searched.

    Args:
        splits: the data; training items are the gallery and train the probe.
        train, test: their features and labels.
        outliers: name -> (K, D) float32 features of items of no known class.
        options: how much to do.
        classifier: features to logits, (B, D) -> (B, C), of a run that was trained as one.
        own_classes: the classifier's classes are those of the splits.
        sequences: (M,) and (N,) int64 of test and gallery items, of an open test: ``train`` are
            then test items too, nothing was trained on them, and items of one sequence are never
            each other's answers. See :class:`~rince.evaluation.OpenTest`.
        own_ranks: (M, N) of test and training items; None: those of the class tree.
    """

    splits: Splits
    train: FeatureSet
    test: FeatureSet
    outliers: Mapping[str, Tensor]
    options: EvaluationOptions
    classifier: nn.Module | None = None
    own_classes: bool = True
    sequences: tuple[Tensor, Tensor] | None = None
    own_ranks: PairRanks | None = None

    @property
    def taxonomy(self) -> Taxonomy:
        """The class tree."""
        return self.splits.train.taxonomy

    @property
    def features(self) -> tuple[Tensor, Tensor]:
        """Test (queries) and training features (gallery), as all metrics take them."""
        return self.test.features, self.train.features

    @property
    def neighbours(self) -> int:
        """k of kNN: as asked for, or the whole gallery if that is smaller."""
        return min(self.options.knn_k, len(self.train))

    @property
    def videos(self) -> Tensor | None:
        """(M,) int64, the video of each test item; None for items without times."""
        times = self.splits.test.times
        return None if times is None else times[:, VIDEO]

    @cached_property
    def levels(self) -> dict[str, Level]:
        """Labels by level, from "fine" to "coarse"; none of recordings that nobody labelled."""
        if self.videos is not None and self.taxonomy.num_classes == 1:
            return {}
        return label_levels(self.taxonomy, self.train, self.test)

    @cached_property
    def by_time(self) -> Ranked | None:
        """Test items against each other by time; None if no two of them are of one video.

        Items that share frames are ignored: they are found first whatever was learned.
        """
        times, videos = self.splits.test.times, self.videos
        if times is None or videos is None or len(torch.unique(videos)) == len(videos):
            return None
        rule = TimeRanks([self.options.near])
        ranks = rule.ranks(times, times, ignore_self=True, ignore_overlaps=True)
        return Ranked(self.test, self.splits.test, ranks)

    @cached_property
    def ranked(self) -> Ranked:
        """By time where that can be; else by the class tree, against the training items."""
        if self.by_time is not None:
            return self.by_time
        ranks = self.own_ranks or self.taxonomy.ranks(self.test.labels, self.train.labels)
        if self.sequences is not None:
            ranks = _Apart(ranks, *self.sequences)
        return Ranked(self.train, self.splits.train, ranks)

    @cached_property
    def outlier_scores(self) -> dict[tuple[str, str], tuple[Tensor, Tensor]]:
        """(outlier set, detector) -> scores of the test items and of the outliers."""
        if not self.outliers:
            return {}
        detectors = outlier_detectors(self.train, self.neighbours, self.classifier)
        inlier_scores = {name: score(self.test.features) for name, score in detectors.items()}
        return {
            (name, detector): (inlier_scores[detector], score(features))
            for name, features in self.outliers.items()
            for detector, score in detectors.items()
        }


@dataclass(frozen=True)
class _Apart:
    """Ranks without the pairs of one sequence, which are ignored."""

    ranks: PairRanks
    query: Tensor
    key: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        return self.ranks.shape

    @property
    def num_ranks(self) -> int | None:
        return self.ranks.num_ranks

    def tile(self, rows: slice, cols: slice) -> Tensor:
        same = self.query[rows, None] == self.key[None, cols]
        return self.ranks.tile(rows, cols).masked_fill(same, IGNORED)


def label_levels(taxonomy: Taxonomy, train: FeatureSet, test: FeatureSet) -> dict[str, Level]:
    """Labels of both sides, and their number, at each level of :func:`tree_levels`."""
    return {
        name: (groups[train.labels], groups[test.labels], int(groups.max()) + 1)
        for name, groups in tree_levels(taxonomy).items()
    }


def outlier_detectors(
    train: FeatureSet, k: int, classifier: nn.Module | None
) -> dict[str, Callable[[Tensor], Tensor]]:
    """The detectors of an evaluation: name -> features to scores, higher is more outlying.

    Args:
        train: what they are fitted on. k: neighbours of the kNN score.
        classifier: features to logits, for msp and energy; None leaves these out.
    """
    detectors: dict[str, Callable[[Tensor], Tensor]] = {
        "knn": lambda features: knn_ood_score(features, train.features, k=k)
    }
    if classifier is not None:
        head = copy.deepcopy(classifier).to(train.features).requires_grad_(False)
        detectors["msp"] = lambda features: msp_score(head(features))
        detectors["energy"] = lambda features: energy_score(head(features))
    try:
        gaussians = ClassGaussians.fit(train.features, train.labels)
    except ValueError as error:  # too few items or a collapsed encoder: the others still work
        warn(f"outlier detection by Gaussians is left out: {error}")
        return detectors
    shared = gaussians.with_shared_covariance()
    return {"gaussian": gaussians.score, "mahalanobis": shared.score, **detectors}
