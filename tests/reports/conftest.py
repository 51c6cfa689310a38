"""Synthetic runs: everything an evaluation can hold, without training anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rince.evaluation.results import (
    ClassSimilarity,
    Confusion,
    Evaluation,
    Gallery,
    Histograms,
    Map2D,
    RocCurve,
    TimeCurve,
)
from rince.reports.run_report import RunReport

MakeRun = Callable[..., RunReport]

CLASSES = ("cat <wild> & tame", "dog", "fox", "car", "bus", "tram", "oak", "elm", "fir", "rose")
GROUP_OF = (0, 0, 0, 1, 1, 1, 2, 2, 2, 2)


def build_run(
    label: str = "rince out-in",
    *,
    seed: int = 0,
    quality: float = 0.6,
    metrics: Mapping[str, float] | None = None,
    config: Mapping[str, Any] | None = None,
    channels: int = 3,
    side: int = 28,
    queries: int = 3,
    neighbours: int = 5,
    points: int = 200,
    classes: Sequence[str] = CLASSES,
    outliers: Sequence[str] = ("cifar10",),
    steps: int = 40,
    seconds: float | None = 4321.0,
    folder: str | None = None,
    old: bool = False,
    over_time: bool = False,
) -> RunReport:
    """A run whose drawings look as good as ``quality`` in [0, 1] says.

    old: evaluated by a rince that stored less.
    """
    rng = np.random.default_rng(seed)
    if metrics is None:
        metrics = {
            "probe/fine": quality,
            "probe/coarse": quality + 0.1,
            "retrieval/fine/R@1": quality - 0.05,
            "retrieval/coarse/R@1": quality + 0.05,
            "retrieval/fine/mAP": quality - 0.2,
            "retrieval/coarse/mAP": quality - 0.1,
            "ordering/pairs/1>2": quality + 0.15,
            "ordering/correlation": quality - 0.15,
        }
        for name in outliers:
            for detector in ("gaussian", "knn"):
                metrics[f"ood/{name}/{detector}/AUROC"] = quality + 0.2
                metrics[f"ood/{name}/{detector}/FPR95"] = 0.9 - quality
    edges = np.linspace(-1, 1, 81)
    spread = {1: 0.4 + 0.4 * quality, 2: 0.3, 0: 0.0}
    counts = {
        rank: np.histogram(np.clip(rng.normal(mean, 0.12, 5000), -1, 1), edges)[0]
        for rank, mean in spread.items()
    }
    fine = rng.integers(0, len(classes), points)
    group_of = (
        np.resize(GROUP_OF, len(classes)) if len(classes) == 10 else np.arange(len(classes)) // 5
    )
    centres = rng.normal(0, 4, (int(group_of.max()) + 1, 2))
    offsets = rng.normal(0, 1.5 * quality, (len(classes), 2))
    xy = centres[group_of[fine]] + offsets[fine] + rng.normal(0, 0.35, (points, 2))
    ramp = np.linspace(0, 255, side, dtype=np.uint8)
    shape = (queries, 1 + neighbours, side, side, channels)
    tiles = np.clip(ramp[:, None, None] * 0.7 + rng.integers(0, 70, shape), 0, 255).astype(np.uint8)
    thumbnails = tiles[np.arange(points) % queries, np.arange(points) % (1 + neighbours), :8, :8]
    gallery = Gallery(
        queries=tiles[:, 0],
        neighbours=tiles[:, 1:],
        ranks=np.minimum(np.arange(neighbours) // 2 + 1, 3)[None].repeat(queries, 0) % 3,
        similarities=np.linspace(0.97, 0.4, neighbours)[None].repeat(queries, 0),
        query_labels=np.arange(queries) % len(classes),
        neighbour_labels=rng.integers(0, len(classes), (queries, neighbours)),
    )
    rates = np.linspace(0, 1, 100)
    same = group_of[:, None] == group_of
    given = np.where(np.eye(len(classes), dtype=bool), 1, np.where(same, 2, 0))
    learned = np.choose(given, [0.0, 0.3 + 0.4 * quality, 0.3]) + 0.02 * rng.normal(size=same.shape)
    return RunReport(
        label=label,
        folder=Path(folder or f"runs/{label.replace(' ', '-')}-{seed}"),
        evaluation=Evaluation(
            metrics=metrics,
            info={"gallery size": 60000, "data": "fashion-mnist"},
            classes=tuple(classes),
            groups=tuple(f"group {i}" for i in range(int(group_of.max()) + 1)),
            histograms=Histograms(edges, counts),
            map_2d=Map2D(xy, fine, group_of[fine], None if old else thumbnails),
            gallery=gallery,
            worst_queries=None if old else replace(gallery, ranks=0 * gallery.ranks),
            confusion=None if old else _confusion(group_of, quality),
            roc={
                (name, detector): RocCurve(rates, rates ** (1 - quality))
                for name in outliers
                for detector in ("gaussian", "knn")
            },
            time_curve=TimeCurve(
                seconds=np.array([0.0, 1.0, 10.0]),
                similarity=np.array([0.9, quality, 0.2]),
                pairs=np.array([10, 20, 30]),
                other_videos=0.1,
            )
            if over_time
            else None,
            class_similarity=ClassSimilarity(
                order=np.arange(len(classes)),
                groups=group_of,
                learned=learned.astype(np.float16),
                given=given,
            )
            if not old
            else None,
        ),
        config={"seed": seed, "loss.variant": "out-in", "data.root": "photos"}
        if config is None
        else config,
        history=_history(rng, steps, quality) if steps else {},
        seconds=seconds,
        versions={"torch": "2.14.1", "rince": "0.1.0"},
    )


def _confusion(group_of: np.ndarray, quality: float) -> Confusion:
    """Of 100 queries a class: right ones, and the rest half of the group and half of the next."""
    rows = []
    for label, group in enumerate(group_of):
        right = round(100 * quality)
        near = next((i for i, g in enumerate(group_of) if g == group and i != label), label)
        far = (label + 5) % len(group_of)
        for other, count in ((label, right), (near, 60 - right // 2), (far, 40 - right // 2)):
            rank = 1 if other == label else 2 if group_of[other] == group else 0
            if count > 0:
                rows.append((label, other, count, rank))
    return Confusion(*np.array(rows).T)


def _history(
    rng: np.random.Generator, steps: int, quality: float
) -> dict[str, list[tuple[int, float]]]:
    def curve(start: float, end: float) -> list[tuple[int, float]]:
        fade = np.exp(-np.linspace(0, 4, steps))
        values = end + (start - end) * fade + rng.normal(0, 0.02, steps)
        return [(10 * i, float(value)) for i, value in enumerate(values)]

    return {
        "train/loss": curve(9, 4),
        "train/loss_rank_1": curve(5, 2.5),
        "train/loss_rank_2": curve(4, 1.5),
        "train/similarity_rank_1": curve(0.2, quality),
        "train/similarity_rank_2": curve(0.15, 0.3),
        "train/similarity_rank_0": curve(0.1, 0.0),
        "train/positives_rank_1": curve(50, 52),
        "train/positives_rank_2": curve(200, 210),
        "online_knn": curve(0.2, quality)[::8],
    }


def empty_run(label: str = "empty") -> RunReport:
    """A run evaluated on data that has nothing to draw: zero-size arrays everywhere."""
    full = build_run(label, steps=0)
    none = np.zeros((0,))
    return RunReport(
        label=label,
        folder=full.folder,
        evaluation=Evaluation(
            metrics={"probe/fine": 0.5},
            info={},
            classes=full.evaluation.classes,
            groups=full.evaluation.groups,
            histograms=Histograms(np.linspace(-1, 1, 11), {1: np.zeros(10, dtype=int)}),
            map_2d=Map2D(np.zeros((0, 2)), none.astype(int), none.astype(int)),
            gallery=Gallery(*([none] * 6)),
        ),
    )


@pytest.fixture(scope="session")
def make_run() -> MakeRun:
    return build_run


@pytest.fixture(scope="session")
def make_empty_run() -> Callable[..., RunReport]:
    return empty_run
