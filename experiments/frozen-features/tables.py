"""Tables and plots of the results of study.py.

    python experiments/frozen-features/tables.py OUTPUT

Reads OUTPUT/*.json; writes tables.md, noise.png and runs.csv (every number) there.
"""

from __future__ import annotations

import csv
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

Runs = list[dict[str, Any]]

COLUMNS = {
    "probe fine": "probe/fine",
    "probe coarse": "probe/coarse",
    "R@1 fine": "retrieval/fine/R@1",
    "R@1 coarse": "retrieval/coarse/R@1",
    "mAP fine": "retrieval/fine/mAP",
    "mAP coarse": "retrieval/coarse/mAP",
    "pairs 1>2": "ordering/pairs/1>2",
    "pairs 2>0": "ordering/pairs/2>0",
    "near AUROC": "ood/near/gaussian/AUROC",
    "near kNN": "ood/near/knn/AUROC",
    "CIFAR-10 AUROC": "ood/far/gaussian/AUROC",
    "CIFAR-10 kNN": "ood/far/knn/AUROC",
}


def main(folder: Path) -> None:
    runs = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
    test = [run for run in runs if not run["tuning"]]
    tuning = [run for run in runs if run["tuning"]]
    text = ["# Tables\n", "Per cent, mean ± sample standard deviation over seeds.\n"]
    for study in dict.fromkeys(run["study"] for run in test):
        text += [f"## {study}\n", table([run for run in test if run["study"] == study])]
    for study in dict.fromkeys(run["study"] for run in tuning):
        chosen = [run for run in tuning if run["study"] == study]
        text += [f"## {study}, on held-out training images\n", table(chosen)]
    (folder / "tables.md").write_text("\n".join(text))
    write_csv(folder / "runs.csv", runs)
    if any(run["study"] == "moved" for run in test):
        noise_plot(test, folder / "noise.png")


def table(runs: Runs) -> str:
    columns = {name: key for name, key in COLUMNS.items() if key in runs[0]["metrics"]}
    rows = {name: [run for run in runs if run["name"] == name] for name in _names(runs)}
    means = {
        (row, name): [100 * run["metrics"][key] for run in members]
        for row, members in rows.items()
        for name, key in columns.items()
    }
    best = {name: max(_rounded(means[row, name]) for row in rows) for name in columns}
    seeds = sorted({len(members) for members in rows.values()})
    lines = [
        f"{' or '.join(map(str, seeds))} seed(s).\n",
        f"| | {' | '.join(columns)} |",
        f"|:---|{'---:|' * len(columns)}",
    ]
    for row in rows:
        cells = []
        for name in columns:
            values = means[row, name]
            shown = f"{statistics.mean(values):.1f}"
            if len(values) > 1:
                shown += f" ± {statistics.stdev(values):.1f}"
            cells.append(f"**{shown}**" if _rounded(values) == best[name] else shown)
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_csv(file: Path, runs: Runs) -> None:
    metrics = sorted({key for run in runs for key in run["metrics"]})
    about = ["study", "name", "seed", "tuning", "train_seconds"]
    with file.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow([*about, *metrics])
        for run in sorted(runs, key=lambda r: (r["tuning"], r["study"], r["name"], r["seed"])):
            numbers = [f"{run['metrics'][m]:.5f}" if m in run["metrics"] else "" for m in metrics]
            writer.writerow(
                [*(run[x] for x in about[:-1]), f"{run['train_seconds']:.1f}", *numbers]
            )


def noise_plot(runs: Runs, file: Path) -> None:
    """Each kind of noise is a column, each measure a row; without noise the methods' own runs."""
    kinds = {
        "moved": ("share of classes in a wrong superclass", "rince {variant}", "methods"),
        "forgotten": ("share of pairs of classes without a rank", "rince {variant}", "methods"),
        "score-noise": ("sd of noise on text scores", "text top-k 4, {variant}", "scores"),
    }
    shown = {x: COLUMNS[x] for x in ("R@1 fine", "R@1 coarse", "mAP coarse", "near AUROC")}
    figure, axes = plt.subplots(
        len(shown), len(kinds), figsize=(11, 10), sharey="row", layout="constrained"
    )
    reference = {
        "supcon-out (no ranks)": ("supcon-out", "0.5"),
        "supcon-coarse": ("supcon-coarse", "0.75"),
    }
    for column, (kind, (label, clean, clean_study)) in enumerate(kinds.items()):
        for row, (name, key) in enumerate(shown.items()):
            axis = axes[row][column]
            for variant in ("out", "out-in"):
                points: dict[float, list[float]] = {}
                for run in runs:
                    level, _, of = run["name"].rpartition(" ")
                    if run["study"] == kind and of == variant:
                        points.setdefault(float(level), []).append(100 * run["metrics"][key])
                    elif run["study"] == clean_study and run["name"] == clean.format(
                        variant=variant
                    ):
                        points.setdefault(0.0, []).append(100 * run["metrics"][key])
                x = sorted(points)
                axis.errorbar(
                    x,
                    [statistics.mean(points[level]) for level in x],
                    [_sd(points[level]) for level in x],
                    marker="o",
                    capsize=3,
                    label=f"rince {variant}",
                )
            for text, (method, colour) in reference.items():
                values = [100 * r["metrics"][key] for r in runs if r["name"] == method]
                if values:
                    axis.axhline(statistics.mean(values), color=colour, ls="--", label=text)
            axis.set_ylabel(name if column == 0 else "")
            axis.set_xlabel(label if row == len(shown) - 1 else "")
            axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].legend(frameon=False)
    figure.savefig(file, dpi=110)


def _names(runs: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(run["name"] for run in sorted(runs, key=_order())))


def _order() -> Callable[[dict[str, Any]], int]:
    from study import STUDIES

    places = [name for study in STUDIES.values() for name in study]
    return lambda run: places.index(run["name"])


def _rounded(values: list[float]) -> float:
    return round(statistics.mean(values), 1)


def _sd(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
