"""What a metric gives to draw, as numpy arrays; reading a stored evaluation needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt


@dataclass(frozen=True)
class Histograms:
    """Similarities between queries and gallery, counted per rank.

    Args:
        edges: (B + 1,) float, bin edges over the cosine.
        counts: rank -> (B,) int; key 0 holds the negatives.
    """

    edges: npt.NDArray[Any]
    counts: Mapping[int, npt.NDArray[Any]]


@dataclass(frozen=True)
class RocCurve:
    """(P,) false and true positive rates, both ascending from 0 to 1."""

    false_positive_rate: npt.NDArray[Any]
    true_positive_rate: npt.NDArray[Any]
