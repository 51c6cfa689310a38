"""How well scores separate outliers (the positive class) from inliers: AUROC, FPR@95, ROC.

Ours rather than scikit-learn's: docs/decisions/0010 says why.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from rince.core.checks import require
from rince.metrics.arrays import Array, tensors
from rince.metrics.curves import RocCurve


def auroc(inlier_scores: Array, outlier_scores: Array) -> float:
    """Probability that an outlier scores higher than an inlier; ties count one half.

    Args:
        inlier_scores: (N,) float. outlier_scores: (M,) float; higher is more outlying.

    Returns:
        In [0, 1]; 0.5 is chance.

    Raises:
        ValueError: no scores on a side, or scores that are NaN.

    >>> auroc(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0]))
    0.875
    """
    inliers, outliers = _scores(inlier_scores, outlier_scores)
    inliers = inliers.sort().values
    below = torch.searchsorted(inliers, outliers) + torch.searchsorted(
        inliers, outliers, right=True
    )
    return float(below.double().mean() / (2 * len(inliers)))


def fpr_at_tpr(inlier_scores: Array, outlier_scores: Array, tpr: float = 0.95) -> float:
    """Share of inliers flagged by the threshold that catches a share ``tpr`` of the outliers.

    Outliers are the positive class: the threshold is the highest score t such that at least
    ``tpr`` of the outliers score t or more; the false positives are inliers that score t or
    more. (So do pytorch-ood and OpenOOD. Where inliers are positive instead, the number is
    ``fpr_at_tpr(-outlier_scores, -inlier_scores)``.)

    Args:
        inlier_scores: (N,) float. outlier_scores: (M,) float; higher is more outlying.
        tpr: true positive rate, above 0 and at most 1.

    Returns:
        In [0, 1]; lower is better.

    Raises:
        ValueError: no scores on a side, scores that are NaN, or ``tpr`` out of range.

    >>> fpr_at_tpr(torch.tensor([0.0, 1.0, 2.0, 3.0]), torch.tensor([2.0, 3.0, 4.0]), tpr=0.6)
    0.25
    """
    require(0 < tpr <= 1, f"tpr must be above 0 and at most 1, got {tpr}")
    inliers, outliers = _scores(inlier_scores, outlier_scores)
    ordered = outliers.sort(descending=True).values
    # The slack keeps 0.95 of 20 at 19: in floats the product may come out just above.
    caught = max(1, math.ceil(tpr * len(ordered) * (1 - 1e-12)))
    return float((inliers >= ordered[caught - 1]).double().mean())


def roc_curve(inlier_scores: Array, outlier_scores: Array, max_points: int = 200) -> RocCurve:
    """The ROC curve (outliers are positive), thinned evenly along its length for drawing.

    Args:
        inlier_scores: (N,) float. outlier_scores: (M,) float; higher is more outlying.
        max_points: at least 2; the corners (0, 0) and (1, 1) are always among them.

    Returns:
        (P,) false and true positive rates, both ascending from 0 to 1.

    Raises:
        ValueError: no scores on a side, or scores that are NaN.

    >>> curve = roc_curve(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0]))
    >>> curve.false_positive_rate.tolist(), curve.true_positive_rate.tolist()
    ([0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 1.0])
    """
    require(max_points >= 2, f"max_points must be at least 2, got {max_points}")
    inliers, outliers = _scores(inlier_scores, outlier_scores)
    thresholds = torch.unique(torch.cat([inliers, outliers]))
    rates = []
    for scores in (inliers, outliers):
        below = torch.searchsorted(scores.sort().values, thresholds)
        share = 1 - below.double() / len(scores)  # that score the threshold or more
        rates.append(np.insert(share.flip(0).cpu().numpy(), 0, 0.0))  # above all: none
    false_positive, true_positive = rates
    if len(false_positive) > max_points:
        # Equal steps in both rates together, as thresholds crowd where nothing happens.
        travelled = false_positive + true_positive
        places = np.unique(np.searchsorted(travelled, np.linspace(0, 2, max_points)))
        false_positive, true_positive = false_positive[places], true_positive[places]
    return RocCurve(false_positive, true_positive)


def _scores(inlier_scores: Array, outlier_scores: Array) -> tuple[Tensor, Tensor]:
    inlier_scores, outlier_scores = tensors(inlier_scores, outlier_scores)
    for name, scores in (("inlier", inlier_scores), ("outlier", outlier_scores)):
        require(
            scores.ndim == 1 and scores.numel() > 0,
            f"{name}_scores must be a non-empty vector, got shape {tuple(scores.shape)}",
        )
        require(
            not bool(scores.isnan().any()),
            f"{int(scores.isnan().sum())} of {len(scores)} {name}_scores are NaN",
        )
    return inlier_scores.double(), outlier_scores.double().to(inlier_scores.device)
