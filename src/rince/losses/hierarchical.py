"""Baselines that know the class tree: HiMulConE, and labels smoothed within a superclass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rince.core.checks import check_temperature, require
from rince.core.labels import integers
from rince.core.pair_ranks import ALL, PairRanks
from rince.losses.by_query import ranks_and_their_number
from rince.losses.common import (
    Reduction,
    check_reduction,
    masked_logsumexp,
    mean_over_mask,
    reduce_over_queries,
    similarities,
    warn_if_nothing_to_learn,
)


def himulcon(
    query: Tensor,
    key: Tensor,
    ranks: PairRanks | Tensor,
    temperature: float = 0.1,
    *,
    level_weights: Sequence[float] | None = None,
    reduction: Reduction = "mean",
    validate: bool = True,
) -> Tensor:
    r"""HiMulConE: SupCon-out at each level, no pair below the worst pair of the finer level.

    With :math:`P_l(i)` the keys that meet query i at level l of the tree and not below (rank l: 1
    = same class), A all candidates and L the number of levels,

    .. math::
        \ell(i, p) = -\log \frac{e^{s_{ip}/\tau}}{\sum_{a \in A} e^{s_{ia}/\tau}}, \quad
        M_l = \max_{i,\, p \in P_l(i)} \ell(i, p), \quad
        L_i = \frac{1}{L} \sum_l \frac{\lambda_l}{|P_l(i)|}
            \sum_{p \in P_l(i)} \max(\ell(i, p), M_{l-1})

    :math:`M_{l-1}` is over all queries given, and minus infinity for l = 1 and where no pair has
    rank l - 1. Where it is the larger one, the gradient goes to the pair that it comes from.

    Zhang, Xu, Xiong, Ramaiah, "Use All The Labels: A Hierarchical Multi-Label Contrastive Learning
    Framework", CVPR 2022, arXiv 2204.13207, section 3. Their sum over queries is a mean here,
    as in all losses of this library. Holds a few (Q, K) matrices.

    Args:
        query: (Q, D) unit length. key: (K, D) unit length.
        ranks: (Q, K); 1, 2, ... from the finest level on, 0 negative, -1 ignored.
        temperature: positive.
        level_weights: lambda_1 (finest), lambda_2, ..., one per level, each at least 0. None takes
            e^(1/l) for as many levels as the rank source can give (``num_ranks``).
        reduction: as in :func:`~rince.ranked_info_nce`; a query without any positive, or without
            another candidate beside it, is exactly 0 and not counted.
        validate: also make the checks that read values.

    Returns:
        A scalar, or (Q,) with ``reduction="none"``; at least float32.

    Raises:
        ValueError: as :func:`~rince.losses.supcon_out`; ranks beyond the number of levels, or a
            number of levels that is not known.

    Example:
        >>> import rince
        >>> from math import exp, log
        >>> query, key = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> ranks = rince.ranks.DenseRanks(torch.tensor([[1, 2]]), num_ranks=2)
        >>> loss = himulcon(query, key, ranks, temperature=1.0)
        >>> fine, coarse = log((exp(1) + 1) / exp(1)), log(exp(1) + 1)
        >>> bool(abs(loss - (exp(1) * fine + exp(1 / 2) * max(coarse, fine)) / 2) < 1e-6)
        True
    """
    check_reduction(reduction)
    check_temperature(temperature)
    given = None if level_weights is None else _checked_weights(level_weights)
    levels = len(given) if given else None
    source, number = ranks_and_their_number(query, key, ranks, levels, validate, "level_weights")
    weights = given or [math.exp(1 / level) for level in range(1, number + 1)]
    rank = source.tile(ALL, ALL)  # (Q, K)
    logits = similarities(query, key) / temperature
    pair_loss = masked_logsumexp(logits, rank >= 0)[:, None] - logits  # (Q, K)
    # A positive with no other candidate beside it has nothing to be compared with.
    is_compared = (rank >= 0).sum(dim=1, keepdim=True) > 1  # (Q, 1)
    total = pair_loss.new_zeros(len(rank))
    active = torch.zeros_like(is_compared[:, 0])
    worst_finer = pair_loss.new_full((), -torch.inf)
    for level, weight in enumerate(weights, start=1):
        is_positive = (rank == level) & is_compared
        constrained = torch.maximum(pair_loss, worst_finer)
        total = total + weight / len(weights) * mean_over_mask(constrained, is_positive)
        active = active | is_positive.any(dim=1)
        worst_finer = pair_loss.masked_fill(~is_positive, -torch.inf).max()
    if validate:
        warn_if_nothing_to_learn(source, active)
    return reduce_over_queries(total, active, reduction)


def smoothed_targets(groups: Any, smoothing: float) -> Tensor:
    r"""Targets of a classifier that share some of a label's mass with its superclass.

    For a class y in a superclass S: :math:`t_c = (1 - \epsilon) [c = y] + \epsilon / |S|` for c in
    S, and 0 elsewhere. That is the label smoothing of Szegedy et al., "Rethinking the Inception
    Architecture for Computer Vision", CVPR 2016, section 7, with the uniform distribution over
    the superclass in place of that over all classes. A class alone in its superclass keeps 1.

    Args:
        groups: (C,) integers, the superclass of each class.
        smoothing: epsilon in [0, 1).

    Returns:
        (C, C) float32, row y the target of class y; rows add up to 1.

    Raises:
        ValueError: smoothing outside [0, 1), or groups that are no vector.

    Example:
        >>> smoothed_targets(torch.tensor([0, 0, 1]), 0.5)
        tensor([[0.7500, 0.2500, 0.0000],
                [0.2500, 0.7500, 0.0000],
                [0.0000, 0.0000, 1.0000]])
    """
    require(0 <= smoothing < 1, f"smoothing must be at least 0 and below 1, got {smoothing}")
    groups = integers(groups, "groups")
    require(groups.ndim == 1, f"groups must be (classes,), got shape {tuple(groups.shape)}")
    same = (groups[:, None] == groups[None, :]).float()  # (C, C)
    own = torch.eye(len(groups), dtype=same.dtype, device=groups.device)
    # The matrix is symmetric.
    targets: Tensor = (1 - smoothing) * own + smoothing * same / same.sum(dim=1)
    return targets


def _checked_weights(given: Sequence[float]) -> Sequence[float]:
    require(
        len(given) > 0 and all(w >= 0 and math.isfinite(w) for w in given),
        f"level_weights must be numbers of at least 0, one per level, got {tuple(given)}",
    )
    return tuple(given)
