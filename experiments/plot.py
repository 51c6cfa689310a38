"""Methods against metrics, mean and standard deviation over seeds, as a picture.

    python experiments/plot.py FIGURE.png METRIC [METRIC ...] -- RUN [RUN ...]

The runs are evaluated ones; a metric is a column's key in `results.json`, as `retrieval/fine/R@1`.
Runs that differ only in their seed are one method, as in `rince compare`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt

from rince.reports.reading import read_run
from rince.reports.table import comparison_rows


def main(figure: Path, metrics: list[str], folders: list[Path]) -> None:
    comparison = comparison_rows([read_run(folder) for folder in folders])
    places = {column.key: i for i, column in enumerate(comparison.columns)}
    missing = [metric for metric in metrics if metric not in places]
    if missing:
        sys.exit(f"no {', '.join(missing)} in these runs; they have {', '.join(places)}")
    names = [row.label for row in comparison.rows]
    height = 0.6 + 0.28 * len(names)
    width = 2.4 + 2.0 * len(metrics)
    page, axes = plt.subplots(
        1, len(metrics), figsize=(width, height), sharey=True, squeeze=False, layout="constrained"
    )
    for axis, metric in zip(axes[0], metrics, strict=True):
        for y, row in enumerate(comparison.rows):
            cell = row.cells[""][places[metric]]
            if cell.mean is not None:
                x, sd = 100 * cell.mean, 100 * (cell.sd or 0)
                axis.errorbar(x, y, xerr=sd, marker="o", capsize=3, color=f"C{y % 10}")
        axis.set_title(metric.removeprefix("retrieval/").replace("/", " "), fontsize=9)
        axis.grid(axis="x", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_yticks(range(len(names)), names)
    axes[0][0].invert_yaxis()
    page.savefig(figure, dpi=110)


if __name__ == "__main__":
    given = sys.argv[1:]
    if "--" not in given[2:] or given[-1] == "--":
        sys.exit(__doc__)
    cut = given.index("--")
    main(Path(given[0]), given[1:cut], [Path(folder) for folder in given[cut + 1 :]])
