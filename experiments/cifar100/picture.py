"""The lines of crossing.py over the labels a class, as a picture: where do they cross?

usage: python experiments/cifar100/picture.py crossing.jsonl FIGURE.png
"""

import json
import statistics
import sys

import matplotlib.pyplot as plt

COLORS = {"rince": "C0", "rince-shuffled": "C7", "supcon-out": "C1", "cross-entropy": "C2"}
SHOWN = {
    "fine probe, backbone": ("backbone/fine/probe",),
    "fine R@1, backbone": ("backbone/fine/R@1",),
    # A classifier has no embedding.
    "coarse mAP, embedding\n(cross-entropy: backbone)": (
        "embedding/coarse/mAP",
        "backbone/coarse/mAP",
    ),
}


def main(results, figure):
    with open(results, encoding="utf-8") as lines:
        runs = [json.loads(line) for line in lines]
    runs = [run for run in runs if run["images"] == 400_000 and run["method"] in COLORS]
    page, axes = plt.subplots(2, 3, figsize=(9, 5), sharex=True, sharey="col", layout="constrained")
    for row, views in zip(axes, ("weak", "strong"), strict=True):
        for axis, (title, keys) in zip(row, SHOWN.items(), strict=True):
            for method, color in COLORS.items():
                points = {}
                for run in runs:
                    if run["method"] == method and run["views"] == views:
                        value = next(run["metrics"][key] for key in keys if key in run["metrics"])
                        points.setdefault(run["labels"], []).append(100 * value)
                labels = sorted(points)
                means = [statistics.mean(points[x]) for x in labels]
                ends = [(min(points[x]), max(points[x])) for x in labels]  # of the seeds
                axis.vlines(labels, *zip(*ends, strict=True), color=color)
                axis.plot(labels, means, "o-", color=color, label=method, ms=4)
            axis.set_title(f"{title}; {views} views", fontsize=9)
            axis.set_xscale("log")
            axis.set_xticks((10, 25, 50, 100, 250, 500), ("10", "25", "50", "100", "250", "500"))
            axis.grid(alpha=0.3)
    for axis in axes[1]:
        axis.set_xlabel("labelled images a class")
    axes[0][0].legend(fontsize=8)
    page.savefig(figure, dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:])
