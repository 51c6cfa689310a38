"""Rank-N-Contrast: ranking by continuous targets, the limit of many ranks.

Zha, Cao, Son, Yang, Katabi: "Rank-N-Contrast: Learning Continuous Representations for Regression",
NeurIPS 2023 (arXiv 2210.01189), equations 1 and 2.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rince.core.checks import check_temperature, require
from rince.core.labels import numbers
from rince.losses.common import check_embeddings, check_finite, dtype_of_sums


def rank_n_contrast(embeddings: Tensor, targets: Any, temperature: float = 2.0) -> Tensor:
    r"""Each other sample j against all that are at least as far from sample i in their targets.

    With :math:`s_{ij} = -\|v_i - v_j\|_2` and d the L1 distance of targets,

    .. math::
        L = \frac{1}{N (N - 1)} \sum_i \sum_{j \ne i} -\log \frac{e^{s_{ij} / \tau}}
            {\sum_{k \ne i,\; d_{ik} \ge d_{ij}} e^{s_{ik} / \tau}}

    Where no two distances tie this is RINCE with a rank for every distance and one temperature,
    over N - 1: of each rank there is one key, and those farther away are less similar. Two views of
    a sample are two samples with the same target, as in the paper. Distances tie where they are
    equal in float64, without a tolerance: those of integers do, but 0.3 - 0.2 and 0.2 - 0.1 differ
    in their last bits. Give tenths as integers if they shall tie.

    Args:
        embeddings: (N, D) float, N at least 2; not normalised here, nor in the paper.
        targets: (N,) or (N, T) numbers: a tensor, an array or lists.
        temperature: tau; 2 in the paper.

    Returns:
        A scalar, at least float32.

    Raises:
        ValueError: shapes that do not fit, targets or embeddings that are not finite, a temperature
            that is not positive.

    Example:
        >>> from math import exp, log
        >>> line = torch.tensor([[0.0], [1.0], [3.0]])
        >>> loss = rank_n_contrast(line, torch.tensor([10.0, 11.0, 13.0]), temperature=1)
        >>> by_hand = [-log(exp(-1) / (exp(-1) + exp(-3))), -log(exp(-1) / (exp(-1) + exp(-2))),
        ...            -log(exp(-2) / (exp(-2) + exp(-3)))]  # the farthest alone costs nothing
        >>> abs(float(loss) - sum(by_hand) / 6) < 1e-6
        True
    """
    check_embeddings(embeddings, embeddings)
    check_temperature(temperature)
    count = len(embeddings)
    require(count >= 2, "there must be at least two samples to compare")
    targets = numbers(targets, "targets")
    targets = targets[:, None] if targets.ndim == 1 else targets
    require(
        targets.ndim == 2 and len(targets) == count,
        f"targets must be one row per sample, ({count},) or ({count}, T), got "
        f"{tuple(targets.shape)}",
    )
    check_finite("targets", targets)
    check_finite("embeddings", embeddings)
    others = ~torch.eye(count, dtype=torch.bool, device=embeddings.device)
    targets = targets.to(embeddings.device, torch.float64)
    with torch.autocast(embeddings.device.type, enabled=False):
        z = embeddings.to(dtype_of_sums(embeddings, embeddings))
        # Not by the matrix product that cdist prefers: it is inexact where points are near.
        distance = torch.cdist(z, z, compute_mode="donot_use_mm_for_euclid_dist")
        logits = (-distance / temperature)[others].view(count, count - 1)
        apart = torch.cdist(targets, targets, p=1)[others].view(count, count - 1)
        apart, order = apart.sort(dim=1)
        logits = logits.gather(1, order)
        # Sums over all from place j on; where distances tie, from the first of them.
        at_least = logits.flip(1).logcumsumexp(dim=1).flip(1)
        first = torch.searchsorted(apart, apart)
        return (at_least.gather(1, first) - logits).mean()
