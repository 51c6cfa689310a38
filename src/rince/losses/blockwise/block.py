"""What the block loop gives to a kernel, and what a kernel gives back."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from rince.core.pair_ranks import PairRanks
from rince.losses.definition import Positives, Variant, sides_of, takes_each_positive

LARGEST_EXPONENT = {torch.float32: 80.0, torch.float64: 600.0}


class Block(NamedTuple):
    """What a kernel finds for the B queries of a block.

    Args:
        values, active: (R, B), as in :class:`~rince.losses.definition.RankTerms`.
        gradient: (B, K) of the weighted sum of losses by the similarities; None if not asked
            for. Overwritten by the next block.
        tau_gradient: (R,), or None.
    """

    values: Tensor
    active: Tensor
    gradient: Tensor | None
    tau_gradient: Tensor | None


class Kernel(Protocol):
    def __call__(self, rows: slice, weight: Tensor | None) -> Block:
        """Args: rows: the block. weight: (B,) of each query's loss; None: no gradient wanted."""
        ...


class Inputs(NamedTuple):
    """Everything a kernel reads; query and key in the dtype of the sums, without a graph."""

    query: Tensor
    key: Tensor
    taus: Tensor  # (R,)
    source: PairRanks
    variant: Variant
    positives: Positives

    def each_positive(self) -> list[int]:
        """Indices of the ranks whose term has the "out" form."""
        return [j for j in range(len(self.taus)) if takes_each_positive(self.variant, j + 1)]

    def exponents_fit(self) -> bool:
        """Whether sums of exp(similarity / tau) stay in the range of the dtype, unshifted."""
        largest = self.query.norm(dim=1).max() * self.key.norm(dim=1).max()
        exponent = float(largest / self.taus.min())
        limit = LARGEST_EXPONENT[self.query.dtype]
        return exponent <= limit and exponent + math.log(len(self.key)) <= limit + 7


def class_masks(table: Tensor, num_ranks: int, positives: Positives, dtype: torch.dtype) -> Tensor:
    """Which keys are less similar (0), which are positives (1), for each rank.

    Args:
        table: (C, C') rank of a key of the second class for a query of the first.

    Returns:
        (2, R, C, C') of zeros and ones.
    """
    each_rank = torch.arange(1, num_ranks + 1, device=table.device)[:, None, None]
    return torch.stack(sides_of(table, each_rank, positives)).to(dtype)


def sum_factors(
    sums: Tensor, odds: Tensor, scale: Tensor, shares: Tensor, each: list[int]
) -> Tensor:
    """What the gradient multiplies exponentials with: (2, R, B), less similar keys and positives.

    The gradient of log(1 + less / positive) by a less similar exponent is 1 / (less + positive),
    by a positive one minus its sigmoid(odds) / positive. Terms of the "out" form give the former
    summed over positives; what they give to each positive is not a factor of its exponential.

    Args:
        sums: (2, R, B) of exponentials, less similar keys and positives.
        odds: (R, B) log(less / positive).
        scale: (R, B) the weight of the term over its temperature, 0 where it is not active.
        shares: (R, B), for ranks in ``each``: sum over positives of sigmoid(their odds), divided
            by their number.
    """
    less, positive = sums
    push = scale / (less + positive)
    pull = scale * odds.sigmoid() / positive
    for j in each:
        push[j] = scale[j] * shares[j] / less[j]
        pull[j] = 0
    # Sums may be 0 where nothing is learnt.
    return torch.where(scale == 0, 0, torch.stack([push, -pull]))
