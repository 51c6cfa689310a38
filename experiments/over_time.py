"""Similarity of two clips of a video against the seconds between them, method by method.

    python experiments/over_time.py FIGURE.png RUN [RUN ...]

The runs are evaluated ones on videos. Runs that differ only in their seed are one line, their mean,
in units that can be compared: 0 is the mean similarity of clips of two videos, 1 that of clips a
fifth of a second apart or so (the first range of gaps that has any).
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from rince.evaluation.results import TimeCurve
from rince.reports.figures import series_style
from rince.reports.reading import read_run
from rince.reports.table import comparison_rows


def scaled(curve: TimeCurve) -> dict[float, float]:
    """seconds (mean of the range, rounded) -> similarity from 0 (other videos) to 1."""
    later = curve.seconds > 0.05  # no time at all does not fit on a logarithmic axis
    seconds, similarity = curve.seconds[later], curve.similarity[later]
    values = (similarity - curve.other_videos) / (similarity[0] - curve.other_videos)
    return {round(float(s), 1): float(value) for s, value in zip(seconds, values, strict=True)}


def main(figure: Path, folders: list[Path]) -> None:
    page, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    for i, row in enumerate(comparison_rows([read_run(folder) for folder in folders]).rows):
        curves = [run.evaluation.time_curve for run in row.runs]
        scaled_curves = [scaled(curve) for curve in curves if curve is not None]
        if not scaled_curves:
            sys.exit(f"{row.label} has no clips of videos")
        seconds = sorted(set.intersection(*map(set, scaled_curves)))
        values = np.array([[one[s] for s in seconds] for one in scaled_curves])
        colour, dash = series_style(i)
        spread = values.std(axis=0, ddof=1) if len(values) > 1 else None
        axis.errorbar(seconds, values.mean(axis=0), spread, color=colour, ls=dash, capsize=2,
                      marker="o", ms=3, label=row.label)  # fmt: skip
    axis.set_xscale("log")
    axis.set(xlabel="seconds apart", ylabel="similarity (0: other videos)")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7)
    page.savefig(figure, dpi=110)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), [Path(folder) for folder in sys.argv[2:]])
