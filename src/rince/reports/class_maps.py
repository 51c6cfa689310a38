"""Learned against given similarity of the classes, as two heat maps in the order of the groups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rince.core.checks import import_extra
from rince.evaluation.results import Evaluation, NumpyArray
from rince.reports.figures import WIDTH, drawing, new_axes
from rince.reports.run_report import class_name, one_line

_MAX_TICKS = 20
_MAX_NAMES = 40  # more are too small to read
_MAX_HOVERED = 100  # classes: 10,000 values are 30 kB


def class_maps(evaluations: Sequence[Evaluation]) -> dict[str, Any] | None:
    """The maps of a method, the mean over its runs; None if none stored similarities. ``key``:
    equal where the given ranks are. ``cosines`` in per cent and ``ranks``: the values, row by row;
    None if they are many."""
    first = next((e for e in evaluations if e.class_similarity is not None), None)
    if first is None or first.class_similarity is None:
        return None
    shown, learned, runs = first.class_similarity, *mean_learned(evaluations)
    of_runs = f", mean of {runs} runs" if runs > 1 else ""
    if runs < len(evaluations):
        of_runs = f", of {runs} of {len(evaluations)} runs (not stored by the others)"
    names = [one_line(class_name(first.classes, label)) for label in shown.order.tolist()]
    values = [None if math.isnan(x) else round(100 * x) for x in learned.ravel().tolist()]
    few = len(names) <= _MAX_HOVERED
    return {
        "learned": learned_figure(learned, shown.groups, names),
        "given": given_figure(shown.given, shown.groups, names),
        "key": shown.given.tobytes(),
        "caption": f"mean cosine{of_runs}",
        "names": names,
        "groups": tuple(_names_by_group(names, shown.groups, first.groups)),
        "cosines": values if few else None,
        "ranks": shown.given.ravel().tolist() if few else None,
    }


def mean_learned(evaluations: Sequence[Evaluation]) -> tuple[NumpyArray, int]:
    """(C, C) mean cosines over the runs that have them, of the first one's classes; how many."""
    stored = [e.class_similarity for e in evaluations if e.class_similarity is not None]
    order = stored[0].order
    same = [s.learned.astype(np.float64) for s in stored if np.array_equal(s.order, order)]
    return np.mean(same, axis=0), len(same)


def learned_figure(learned: NumpyArray, groups: NumpyArray, names: Sequence[str] = ()) -> Any:
    """(C, C) cosines; the scale leaves out the outermost hundredth at either end, NaN is grey."""
    known = learned[np.isfinite(learned)]
    low, high = np.percentile(known, (1, 99)) if known.size else (0.0, 1.0)
    scale = {"vmin": low, "vmax": max(high, low + 1e-3), "cmap": "viridis"}
    return _figure(learned, groups, names, scale, {"extend": "both"})


def given_figure(given: NumpyArray, groups: NumpyArray, names: Sequence[str] = ()) -> Any:
    """(C, C) ranks, the better the brighter; ignored pairs are grey."""
    levels = rank_levels(given)
    count = len(levels)
    place = np.full(given.shape, np.nan)
    for i, rank in enumerate(levels):
        place[given == rank] = i
    colours = import_extra("matplotlib", "train").colormaps["viridis"].resampled(max(count, 1))
    scale = {"vmin": -0.5, "vmax": max(count, 1) - 0.5, "cmap": colours}
    bar = {"ticks": range(count), "format": lambda i, _: str(levels[int(i)] or "negative")}
    return _figure(place, groups, names, scale, bar, "rank")


def rank_levels(given: NumpyArray) -> list[int]:
    """The ranks that occur, least similar first: negatives (0), then the highest rank down to 1.

    >>> rank_levels(np.array([[1, 2], [-1, 0]]))
    [0, 2, 1]
    """
    ranks = set(given.ravel().tolist()) - {-1}
    return sorted(ranks, key=lambda rank: (rank > 0, -rank))


def group_starts(groups: NumpyArray) -> list[int]:
    """The first row of each group, and the number of rows.

    >>> group_starts(np.array([4, 4, 0, 2]))
    [0, 2, 3, 4]
    """
    return [0, *(np.flatnonzero(np.diff(groups)) + 1).tolist(), len(groups)]


def _figure(
    matrix: NumpyArray,
    groups: NumpyArray,
    names: Sequence[str],
    scale: dict[str, Any],
    bar: dict[str, Any],
    unit: str = "",
) -> Any:
    starts = group_starts(groups)
    with drawing():
        figure, axes = new_axes(height=WIDTH * 1.13)
        axes.set_facecolor("#bbbbbb")
        axes.grid(False)
        image = axes.imshow(matrix, interpolation="none", **scale)
        if len(starts) <= len(groups):  # else each class is a group of its own
            for start in starts[1:-1]:
                axes.axhline(start - 0.5, color="white", lw=0.7)
                axes.axvline(start - 0.5, color="white", lw=0.7)
        if 0 < len(names) <= _MAX_NAMES:
            ticks: NumpyArray = np.arange(len(names))
            words = list(map(_short, names))
        else:  # numbers of the groups
            every = -(-(len(starts) - 1) // _MAX_TICKS)
            ticks = (np.array(starts[1:]) + starts[:-1] - 1)[::every] / 2
            words = list(map(str, range(1, len(starts), every)))
        axes.set_xticks(ticks, words, fontsize=7, rotation=90 if names else 0, parse_math=False)
        axes.set_yticks(ticks, words, fontsize=7, parse_math=False)
        axes.tick_params(length=0)
        figure.colorbar(image, location="bottom", shrink=0.8, aspect=30, label=unit, **bar)
        return figure


def _short(name: str) -> str:
    return name if len(name) <= 14 else f"{name[:13]}\N{HORIZONTAL ELLIPSIS}"


def _names_by_group(
    names: Sequence[str], groups: NumpyArray, group_names: Sequence[str]
) -> list[str]:
    starts = group_starts(groups)
    lines = []
    for a, b in zip(starts, starts[1:], strict=False):
        title = f"{class_name(group_names, int(groups[a]))}: " if b - a > 1 else ""
        lines.append(title + ", ".join(names[a:b]))
    return lines
