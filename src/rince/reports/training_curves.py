"""Curves over the training of a method: mean and standard deviation over its runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rince.evaluation.results import NumpyArray
from rince.metrics.ordering import similar_first
from rince.reports.figures import (
    DASHES,
    add_legend,
    drawing,
    mean_and_sd,
    new_axes,
    rank_colour,
    rank_name,
)

History = Mapping[str, Sequence[tuple[int, float]]]

_MAX_POINTS = 300


def training_figures(histories: Sequence[History]) -> list[tuple[str, Any]]:
    """(title, curves over the training steps) for each quantity that was logged by the runs of one
    method: a line is their mean, the band one sd about it."""
    logged = sorted({name for history in histories for name in history})
    accuracies = {
        name: name.removeprefix("online_knn").strip("/")
        for name in logged
        if name.startswith("online_knn")
    }
    panels: tuple[tuple[str, str, dict[str, str], str], ...] = (
        ("Loss: all and per rank", "loss", {"train/loss": "all"}, "train/loss_rank_"),
        ("Mean similarity per rank", "cosine", {}, "train/similarity_rank_"),
        ("Positives of a query in its batch, per rank", "keys", {}, "train/positives_rank_"),
        ("Online nearest-neighbour accuracy", "%", accuracies, ""),
    )
    figures = []
    for title, unit, plain, prefix in panels:
        lines = []
        for i, (metric, name) in enumerate(plain.items()):
            points = mean_curve([history.get(metric, ()) for history in histories])
            points[:, 1:] *= 100 if unit == "%" else 1
            lines.append(_Line(points, "#222222", name, DASHES[i % len(DASHES)]))
        for rank in _ranks_of(logged, prefix):
            points = mean_curve([h.get(f"{prefix}{rank}", ()) for h in histories])
            lines.append(_Line(points, rank_colour(rank), rank_name(rank)))
        lines = [line for line in lines if len(line.points) > 1]  # a point is no curve
        if lines:
            figures.append((title, _lines_figure(lines, unit)))
    return figures


def mean_curve(curves: Sequence[Sequence[tuple[int, float]]]) -> NumpyArray:
    """(P, 3): steps, mean and sd over the runs, at the steps that all which logged it have.

    >>> mean_curve([[(0, 1.0), (5, 2.0)], [(0, 3.0)], []])[:, :2].tolist()
    [[0.0, 2.0]]
    """
    logged = [{step: value for step, value in curve if math.isfinite(value)} for curve in curves]
    logged = [run for run in logged if run]
    steps = sorted(set.intersection(*map(set, logged))) if logged else []
    if not steps:
        return np.zeros((0, 3))
    runs = [thin([(step, run[step]) for step in steps]) for run in logged]
    return np.column_stack([runs[0][:, 0], *mean_and_sd([run[:, 1] for run in runs])])


def thin(points: Sequence[tuple[int, float]]) -> NumpyArray:
    """(P, 2) steps and values, of many the means of neighbours; only finite values.

    >>> thin([(0, 1.0), (1, 3.0), (2, float("nan"))]).tolist()
    [[0.0, 1.0], [1.0, 3.0]]
    """
    kept = np.array([p for p in points if math.isfinite(p[1])], dtype=np.float64).reshape(-1, 2)
    if len(kept) <= _MAX_POINTS:
        return kept
    return np.stack([part.mean(axis=0) for part in np.array_split(kept, _MAX_POINTS)])


def _ranks_of(logged: Sequence[str], prefix: str) -> list[int]:
    tails = (name.removeprefix(prefix) for name in logged if prefix and name.startswith(prefix))
    return sorted((int(tail) for tail in tails if tail.isdecimal()), key=similar_first)


@dataclass(frozen=True)
class _Line:
    points: NumpyArray  # (P, 3) steps, means and sds
    colour: str
    name: str = ""
    dash: str = "solid"


def _lines_figure(lines: Sequence[_Line], unit: str) -> Any:
    with drawing():
        figure, axes = new_axes()
        for line in lines:
            steps, mean, sd = line.points.T
            axes.fill_between(steps, mean - sd, mean + sd, color=line.colour, alpha=0.25, lw=0)
            style = {"ls": line.dash, "marker": "o" if len(line.points) <= 30 else ""}
            axes.plot(steps, mean, color=line.colour, lw=1.5, ms=3, label=line.name, **style)
        if any(line.name for line in lines):
            add_legend(axes)
        axes.set(xlabel="step", ylabel=unit)
        axes.locator_params(axis="x", nbins=6)
        if unit == "keys":
            values = np.concatenate([line.points[:, 1] for line in lines])
            if values.min() > 0 and values.max() > 20 * values.min():
                axes.set_yscale("log")
            else:
                axes.set_ylim(bottom=0)
        return figure
