"""Is one method better than another? Differences between runs of the same seeds."""

from __future__ import annotations

import statistics
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from rince.core.checks import import_extra

BETTER, WORSE, UNCLEAR = "better", "worse", "cannot be told"
_CONFIDENCE = 0.95  # of the intervals


@dataclass(frozen=True)
class PairedDifference:
    """A method minus the baseline, over the seeds that both have."""

    mean: float  # difference, in the unit of the metric
    half_width: float | None  # of the confidence interval of the mean; None of one pair
    count: int  # of pairs
    verdict: str  # BETTER or WORSE where the interval leaves out 0, else UNCLEAR


def paired_difference(
    values: Mapping[Hashable, float],
    baseline: Mapping[Hashable, float],
    *,
    higher_is_better: bool = True,
) -> PairedDifference | None:
    """Compare two methods run with the same seeds, hence the same splits and batches.

    The interval is Student's t for the mean of paired differences, as differences of one seed
    have much in common that means over seeds do not show. It speaks of new seeds, not of new data.
    Of many comparisons at 95 %, one in twenty says too much. ``values``, ``baseline``: seed ->
    value of the metric; None if they have no seed in common.
    """
    common = [seed for seed in values if seed in baseline]
    if not common:
        return None
    pairs = [values[seed] - baseline[seed] for seed in common]
    mean = statistics.fmean(pairs)
    if len(pairs) == 1:
        return PairedDifference(mean, None, 1, UNCLEAR)
    quantile = import_extra("scipy.stats", "train").t.ppf((1 + _CONFIDENCE) / 2, len(pairs) - 1)
    half_width = float(quantile) * statistics.stdev(pairs) / len(pairs) ** 0.5
    # Equal differences, as of shares of few items, do not tell how far others would lie apart;
    # rounding alone makes them unequal.
    rounding = 1e-9 * max(abs(x[seed]) for x in (values, baseline) for seed in common)
    if abs(mean) <= half_width or half_width <= rounding:
        verdict = UNCLEAR
    else:
        verdict = BETTER if (mean > 0) == higher_is_better else WORSE
    return PairedDifference(mean, half_width, len(pairs), verdict)
