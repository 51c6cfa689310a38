"""The formula of RINCE on similarities and ranks: what both engines compute.

Hoffmann et al., AAAI 2022, arXiv 2201.11736, section 3; see :func:`rince.ranked_info_nce`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rince.losses.common import masked_logsumexp, mean_over_mask
from rince.losses.options import Positives, Variant


@dataclass(frozen=True)
class RankTerms:
    """The terms l_i(q) of the loss.

    Args:
        values: (R, Q), exactly 0 where not active.
        active: (R, Q) bool: the query has a positive of that rank and a less similar key.
    """

    values: Tensor
    active: Tensor

    def mean_per_rank(self) -> Tensor:
        """(R,): mean of each rank's term over the queries where it is active."""
        return self.values.sum(dim=1) / self.active.sum(dim=1).clamp(min=1)


def rank_terms(
    similarity: Tensor,
    rank: Tensor,
    taus: Sequence[float | Tensor],
    variant: Variant,
    positives: Positives,
) -> RankTerms:
    """The definition.

    Args:
        similarity: (Q, K) float. rank: (Q, K) integer codes.
        taus: one temperature per rank.
    """
    values, active = [], []
    for i, tau in enumerate(taus, start=1):
        logits = similarity / tau  # (Q, K)
        is_less_similar, is_positive = sides_of(rank, i, positives)
        learns = is_positive.any(dim=1) & is_less_similar.any(dim=1)  # (Q,)
        less_similar = masked_logsumexp(logits, is_less_similar)  # (Q,)
        # Either form is -log(e^a / (e^a + e^b)) = log(1 + e^(b - a)), b the less similar keys.
        if form_of_term(variant, i) == "out":
            per_key = softplus(bounded(less_similar[:, None] - logits))  # (Q, K)
            term = mean_over_mask(per_key, is_positive)
        else:
            term = softplus(bounded(less_similar - masked_logsumexp(logits, is_positive)))
        values.append(torch.where(learns, term, 0))
        active.append(learns)
    return RankTerms(torch.stack(values), torch.stack(active))


def sides_of(rank: Tensor, i: int | Tensor, positives: Positives) -> tuple[Tensor, Tensor]:
    """Which pairs are less similar than rank i, and which are the positives of its term.

    Args:
        rank: integer codes, any shape. i: a rank, or several in a shape to broadcast.
    """
    less_similar = (rank > i) | (rank == 0)
    positive = (rank >= 1) & (rank <= i) if positives == "cumulative" else rank == i
    return less_similar, positive


def form_of_term(variant: Variant, rank: int) -> Literal["in", "out"]:
    """Whether the sum over positives of a rank's term stands outside the log or inside it."""
    return "out" if variant == "out" or (variant == "out-in" and rank == 1) else "in"


def bounded(x: Tensor) -> Tensor:
    """For :func:`softplus` with a graph: below, its derivative is 0, but the second inf / inf."""
    return x.clamp(min=-math.log(torch.finfo(x.dtype).max))


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x) without overflow, and exact for x far below 0, where the loss is small.

    (torch's softplus stops at x = 20, which float64 can tell.)
    """
    return torch.logaddexp(x, torch.zeros_like(x))
