"""Features on a card, labels wherever they are: the figures of the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from rince import metrics
from rince.ranks import LevelRanks

pytestmark = pytest.mark.gpu

LABELS = [0, 0, 1, 1, 2, 2, 3, 3]
LEVELS = [[label, label // 2] for label in LABELS]
RANKS = LevelRanks(LEVELS, LEVELS, finest_first=True, ignore_self=True)
METRICS: dict[str, Callable[[Any], Any]] = {
    "retrieval": lambda x: (
        metrics.retrieval(x, x, LABELS, LABELS, exclude_self=True).mean_average_precision
    ),
    "hierarchical": lambda x: (
        metrics.hierarchical_retrieval(
            x, x, LEVELS, LEVELS, query_sequence=range(8), gallery_sequence=range(8)
        ).h_ap
    ),
    "knn": lambda x: metrics.knn_accuracy(x, x, LABELS, LABELS, k=3, exclude_self=True),
    "cosines": lambda x: metrics.mean_class_cosines(x, x, LABELS, LABELS, 4).cpu(),
    "probe": lambda x: metrics.linear_probe(x, x, LABELS, LABELS, num_classes=4).accuracy,
    "gaussians": lambda x: metrics.ClassGaussians.fit(x, LABELS).score(x).cpu(),
    "ndcg": lambda x: metrics.ndcg(x, x, torch.ones(8, 8), exclude_self=True)[10].cpu(),
    "agreement": lambda x: list(metrics.rank_agreement(x, x, RANKS).values()),
    "correlation": lambda x: metrics.rank_correlation(x, x, RANKS),
    "recall": lambda x: metrics.recall_by_rank(x, x, RANKS, worst_rank=1)[1],
    "video": lambda x: metrics.video_accuracy(x, LABELS, LABELS),
    "auroc": lambda x: metrics.auroc(x[:, 0], x[:, 1].cpu()),
}


@pytest.mark.parametrize("name", METRICS)
def test_they_are_those_of_the_cpu(name: str, card: torch.device) -> None:
    features = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    found, expected = METRICS[name](features.to(card)), METRICS[name](features)
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=1e-4, atol=1e-4)
