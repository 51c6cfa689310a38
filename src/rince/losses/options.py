"""What a run can choose about its loss. No torch here: ``rince --help`` reads this file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from rince.core.checks import require

# The temperatures of the paper's CIFAR-100 study, and its setting for three ranks.
DEFAULT_TEMPERATURES = (0.1, 0.225, 0.5)


@dataclass
class LossOptions:
    """The loss.

    Args:
        variant: form of RINCE: "in" needs one near positive per rank (suits noisy ranks), "out"
            needs every positive near, "out-in" is "out" for rank 1 and "in" for the others.
        positives: "exclusive" takes rank i alone in term i, "cumulative" all ranks up to i.
        temperatures: RINCE, one per rank, rising; None takes (0.1, 0.225, 0.5) up to the number
            of ranks.
        temperature: of supcon-*, infonce and himulcon.
        margin: of triplet-hierarchical, on squared distances of unit vectors, for each step of
            rank.
        smoothing: share of a label that cross-entropy spreads over the classes of its superclass,
            itself included (0: none).
    """

    variant: Literal["in", "out", "out-in"] = "out-in"
    positives: Literal["exclusive", "cumulative"] = "exclusive"
    temperatures: tuple[float, ...] | None = None
    temperature: float = 0.1
    margin: float = 0.2
    smoothing: float = 0.0

    def check(self) -> None:
        """Refuse numbers out of range.

        Raises:
            ValueError: a temperature or margin that is not positive, smoothing outside [0, 1).
        """
        for name, given in (
            ("loss.temperature", (self.temperature,)),
            ("loss.temperatures", self.temperatures or ()),
        ):
            require(
                all(t > 0 and math.isfinite(t) for t in given),
                f"{name} must be positive, got {', '.join(map(str, given))}",
            )
        require(self.margin > 0, f"loss.margin must be positive, got {self.margin}")
        require(
            0 <= self.smoothing < 1,
            f"loss.smoothing must be at least 0 and below 1, got {self.smoothing}",
        )

    def temperatures_for(self, num_ranks: int) -> tuple[float, ...]:
        """The temperatures given, or the paper's for this number of ranks.

        Raises:
            ValueError: none given and more than three ranks.
        """
        if self.temperatures is not None:
            return self.temperatures
        require(
            num_ranks <= len(DEFAULT_TEMPERATURES),
            f"these data have {num_ranks} ranks; the default temperatures are known for up to 3: "
            f"give --loss.temperatures, {num_ranks} rising numbers",
        )
        return DEFAULT_TEMPERATURES[:num_ranks]
