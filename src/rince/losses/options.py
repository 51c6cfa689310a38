"""What a run can choose about its loss. No torch here: ``rince --help`` reads this file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from rince.core.checks import HIGHEST_TEMPERATURE as HIGHEST
from rince.core.checks import LOWEST_TEMPERATURE as LOWEST
from rince.core.options import Options, limited

Variant = Literal["in", "out", "out-in"]
Positives = Literal["exclusive", "cumulative"]
MatmulPrecision = Literal["fp32", "tf32", "bf16"]
# The temperatures of the paper's CIFAR-100 study, and its setting for three ranks.
DEFAULT_TEMPERATURES = (0.1, 0.225, 0.5)


@dataclass
class LossOptions(Options):
    """The loss.

    Args:
        variant: form of RINCE: "in" needs one near positive per rank (the paper's choice for
            noisy ranks), "out" every positive, "out-in" is "out" for rank 1, "in" for the others.
        positives: "exclusive" takes rank i alone in term i, "cumulative" all ranks up to i.
        temperatures: RINCE, one per rank, rising; None takes (0.1, 0.225, 0.5) up to the number
            of ranks, and equal steps from 0.1 to 0.5 for more than three.
        temperature: of supcon-*, infonce, himulcon, x-clr and cross-scale.
        target_temperature: of x-clr: of the softmax of known similarities, which is its target.
        step_width: of smooth-ap and smooth-hap: temperature of the sigmoids in place of steps.
        margin: of triplet-hierarchical, on squared distances of unit vectors, and of cross-scale,
            on cosines; for each step of rank.
        smoothing: share of a label that cross-entropy spreads over the classes of its superclass,
            itself included (0: none).
        cross_entropy_weight: of the cross-entropy in rince-and-cross-entropy; RINCE has weight 1.
        matmul_precision: of rince, supcon-* and infonce: "tf32" and "bf16" let a GPU's tensor cores
            round the factors of products, to 10 and 7 bits; sums are float32. None takes bf16 where
            the training's precision is bf16-mixed, else fp32.
    """

    prefix = "loss."

    variant: Variant = "out-in"
    positives: Positives = "exclusive"
    temperatures: tuple[float, ...] | None = limited(None, shortest=1, low=LOWEST, high=HIGHEST)
    temperature: float = limited(0.1, low=LOWEST, high=HIGHEST)
    target_temperature: float = limited(0.1, low=LOWEST, high=HIGHEST)
    step_width: float = limited(0.01, low=LOWEST, high=HIGHEST)
    margin: float = limited(0.2, above=0)
    smoothing: float = limited(0.0, low=0, below=1)
    cross_entropy_weight: float = limited(1.0, above=0)
    matmul_precision: MatmulPrecision | None = None

    def resolved(self, training: str) -> LossOptions:
        """The same, with a precision of products, where it was left open, by the training's."""
        if self.matmul_precision is not None:
            return self
        return replace(self, matmul_precision="bf16" if training == "bf16-mixed" else "fp32")

    def temperatures_for(self, num_ranks: int) -> tuple[float, ...]:
        """The temperatures given, or the paper's for this number of ranks; of more than three,
        which the paper does not have, equal steps from its first to its last."""
        if self.temperatures is not None:
            return self.temperatures
        if num_ranks <= len(DEFAULT_TEMPERATURES):
            return DEFAULT_TEMPERATURES[:num_ranks]
        first, last = DEFAULT_TEMPERATURES[0], DEFAULT_TEMPERATURES[-1]
        step = (last - first) / (num_ranks - 1)
        return tuple(round(first + i * step, 4) for i in range(num_ranks))
