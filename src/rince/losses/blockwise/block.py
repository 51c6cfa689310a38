"""What the block loop gives to a kernel, and what it gets back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from rince.core.pair_ranks import PairRanks
from rince.losses.blockwise.sizes import Sizes
from rince.losses.definition import sides_of
from rince.losses.options import MatmulPrecision, Positives

# Sums of that many e-folds up and down have a factor of e^7 to spare for the number of keys.
LARGEST_EXPONENT = {torch.float32: 80.0, torch.float64: 600.0}

Form = Literal["in", "out", "supcon-in", "supcon-out"]
"""Of a term: that of RINCE, or that of the one-rank losses, which compare with all candidates."""


@dataclass(frozen=True)
class Inputs:
    """Everything a kernel reads.

    Args:
        query: (Q, D), key: (K, D), in the dtype of the sums, without a graph.
        taus: (R,) on their device.
        known_taus: the same as numbers; None if only the device knows them.
        source: the ranks, on that device.
        forms: (R,).
        positives: of a rank: its own, or those of all better ranks too.
        sizes: of blocks.
        precision: of matrix products.
        may_read: whether values may be read, for which a GPU is waited for.
    """

    query: Tensor
    key: Tensor
    taus: Tensor
    known_taus: Sequence[float] | None
    source: PairRanks
    forms: tuple[Form, ...]
    positives: Positives
    sizes: Sizes
    precision: MatmulPrecision = "fp32"
    may_read: bool = True

    def on(self, query: Tensor, key: Tensor) -> Inputs:
        """The same with other embeddings."""
        return replace(self, query=query, key=key)

    def exponents_fit(self) -> bool:
        """Whether sums of exp(similarity / tau) stay in the range of the dtype, unshifted.

        Where values may not be read, embeddings are taken to be of unit length.
        """
        if self.may_read:
            largest = self.query.norm(dim=1).max() * self.key.norm(dim=1).max()
            exponent = float(largest / self.taus.min())
        elif self.known_taus is not None:
            exponent = 1 / min(self.known_taus)
        else:
            return False
        more_keys = max(0.0, math.log(len(self.key)) - 7)  # than there is a factor for
        return exponent + more_keys <= LARGEST_EXPONENT[self.query.dtype]


class Kernel(Protocol):
    """What the loop calls for one block of queries after the other."""

    def __call__(self, rows: slice) -> Tensor | None:
        """(B, K): gradient of the weighted sum of losses by the similarities, if asked for.

        The next call overwrites it.
        """
        ...

    def terms(self) -> tuple[Tensor, Tensor]:
        """(R, Q) values and which are active, once all blocks have been seen."""
        ...

    @property
    def tau_gradient(self) -> Tensor | None:
        """(R,), once all blocks have been seen, if asked for."""
        ...


def class_masks(table: Tensor, num_ranks: int, positives: Positives, dtype: torch.dtype) -> Tensor:
    """Which keys are less similar (0), which are positives (1), for each rank.

    Args:
        table: (C, C') rank of a key of the second class for a query of the first.

    Returns:
        (2, R, C, C') of zeros and ones.
    """
    each_rank = torch.arange(1, num_ranks + 1, device=table.device)[:, None, None]
    return torch.stack(sides_of(table, each_rank, positives)).to(dtype)


def sum_weights(sums: Tensor, scale: Tensor, forms: tuple[Form, ...]) -> tuple[Tensor, Tensor]:
    """What exponentials are multiplied with: (R, B) of less similar keys, and of positives.

    The latter is to be subtracted. The gradient of log(1 + less / positive) by a less similar
    exponent is its exponential over (less + positive); by a positive one minus its exponential
    times less / (less + positive) / positive. Terms against all candidates have 1 / all and
    1 / positive in their place.

    Args:
        sums: (2, R, B) of exponentials, less similar keys (or all candidates) and positives, not 0.
        scale: (R, B) the weight of the term over its temperature, 0 where it is not active.
    """
    less, positive = sums
    if forms[0] == "supcon-out":
        return scale / less, torch.zeros_like(less)
    if forms[0] == "supcon-in":
        return scale / less, scale / positive
    total = less + positive
    return scale / total, scale / positive * (less / total)


def least_sum(dtype: torch.dtype) -> float:
    """Of a sum that holds a key."""
    return math.exp(-LARGEST_EXPONENT[dtype])
