"""Baselines that ask something of each level of a class tree: its siblings, or a margin."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rince.core.checks import check_temperature, require
from rince.core.pair_ranks import PairRanks
from rince.losses.blockwise.sizes import sizes_for
from rince.losses.by_query import loss_by_query, ranks_and_their_number
from rince.losses.common import (
    Reduction,
    check_reduction,
    masked_logsumexp,
    mean_over_mask,
    tiles,
    warn_if_nothing_to_learn,
)
from rince.losses.contrastive import is_active, supcon_out
from rince.losses.definition import bounded, softplus
from rince.losses.options import MatmulPrecision


def supcon_siblings(
    query: Tensor,
    key: Tensor,
    ranks: PairRanks | Tensor,
    temperature: float = 0.1,
    *,
    num_ranks: int | None = None,
    reduction: Reduction = "mean",
    block_size: int | None = None,
    matmul_precision: MatmulPrecision = "fp32",
    validate: bool = True,
) -> Tensor:
    r"""SupCon at each level against the siblings alone: a group's negatives have its parent.

    .. math::
        L = \sum_{l=1}^R \text{SupCon-out}(P_1 \cup \dots \cup P_l, \; P_{l+1}),
        \quad P_{R+1} = \text{the negatives}

    Level l takes the keys of a query's group of that level as positives, and as negatives those
    that meet it one level higher; all others take no part in it. It is the plain form of
    level-restricted contrast, ours to compare with and not the formula of one paper. (HiMulConE of
    "Use All The Labels", which bounds levels by each other, is :func:`~rince.losses.himulcon`.)

    Args:
        query: (Q, D) unit length. key: (K, D) unit length.
        ranks: (Q, K); 1 most similar (the same class), 2, ..., R, 0 negative, -1 ignored.
        temperature: positive.
        num_ranks: R; None takes the rank source's.
        reduction: "mean" is the sum of the levels' means, each over the queries that have
            something to learn at that level; "sum"; "none".
        block_size, matmul_precision, validate: as in :func:`~rince.losses.supcon_out`.

    Returns:
        A scalar, or (Q,) with ``reduction="none"``.

    Raises:
        ValueError: as :func:`~rince.losses.supcon_out`; a number of ranks that is not known.
    """
    check_reduction(reduction)
    source, number = ranks_and_their_number(query, key, ranks, num_ranks, validate)
    levels = [_Siblings(source, level, number) for level in range(1, number + 1)]
    total = query.new_zeros(())
    for level in levels:
        total = total + supcon_out(
            query,
            key,
            level,
            temperature,
            reduction=reduction,
            block_size=block_size,
            matmul_precision=matmul_precision,
            validate=False,
        )
    if validate and not bool((total > 0).any()):  # it may be rounded to 0 as well
        pairs = sizes_for(query.device).pairs_of_a_check
        active = torch.cat([is_active(tile) for level in levels for tile in tiles(level, pairs)])
        warn_if_nothing_to_learn(source, active)
    return total


class _Siblings:
    """A level of other ranks, as one rank."""

    num_ranks = 1

    def __init__(self, source: PairRanks, level: int, number: int) -> None:
        self.source, self.level = source, level
        self.shape, self.negative = source.shape, level + 1 if level < number else 0

    def tile(self, rows: slice, cols: slice) -> Tensor:
        rank = self.source.tile(rows, cols)
        others = torch.where(rank == self.negative, 0, -1)
        return torch.where((rank >= 1) & (rank <= self.level), 1, others).to(torch.int8)


def cross_scale(
    query: Tensor,
    key: Tensor,
    ranks: PairRanks | Tensor,
    temperature: float = 0.1,
    margin: float = 0.2,
    *,
    num_ranks: int | None = None,
    reduction: Reduction = "mean",
    block_size: int | None = None,
    validate: bool = True,
) -> Tensor:
    r"""Cross-Scale Learning: one reference, the finest positives, with a margin for each level.

    With :math:`W_l` the keys less similar than rank l,

    .. math::
        L_q = \sum_{l=1}^R \frac{1}{|P_1|} \sum_{p \in P_1} \log\Big(1 + \sum_{k \in W_l}
            e^{(s_k - s_p + l \, m) / \tau}\Big)

    Sun et al., "Dynamic Metric Learning: Towards a Scalable Metric Space to Accommodate Multiple
    Semantic Scales", CVPR 2021, arXiv 2103.11781: the similarity within the finest class
    is the reference that all scales share, and the margin to it grows with the scale. From memory
    of the paper, whose text was not at hand: there s is that of a sample to learned weight vectors
    of the finest classes and the margins are chosen one by one; here it is that of a query to keys,
    and a step of rank adds m. With R = 1 and m = 0 it is RINCE's "out".

    Args:
        query: (Q, D) unit length. key: (K, D) unit length.
        ranks: (Q, K); 1 most similar, 0 negative, -1 ignored.
        temperature: positive. margin: m, of cosines, at least 0.
        num_ranks: R; None takes the rank source's.
        reduction: as in :func:`~rince.ranked_info_nce`; a query without a key of rank 1, or with
            nothing less similar, is exactly 0 and not counted.
        block_size: as in :func:`~rince.losses.x_clr`.
        validate: also make the checks that read values.

    Returns:
        A scalar, or (Q,) with ``reduction="none"``; at least float32.

    Raises:
        ValueError: as :func:`~rince.losses.supcon_out`; a margin below 0, a number of ranks that
            is not known.
    """
    check_reduction(reduction)
    check_temperature(temperature)
    require(0 <= margin < math.inf, f"margin must be at least 0, and finite, got {margin}")
    source, number = ranks_and_their_number(query, key, ranks, num_ranks, validate)

    def rows_loss(similarity: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
        is_positive, logits = rank == 1, similarity / temperature
        loss = torch.zeros_like(logits[:, 0])
        active = torch.zeros_like(is_positive[:, 0])
        for level in range(1, number + 1):
            less_similar = (rank == 0) | (rank > level)
            worst = masked_logsumexp(logits, less_similar)[:, None] + level * margin / temperature
            term = mean_over_mask(softplus(bounded(worst - logits)), is_positive)
            learns = is_positive.any(dim=1) & less_similar.any(dim=1)
            loss, active = loss + term, active | learns  # a term that learns nothing is 0
        return loss, active

    return loss_by_query(
        rows_loss,
        query,
        key,
        source,
        pairs_per_query=len(key),
        block_size=block_size,
        reduction=reduction,
        validate=validate,
    )
