"""The drawings of a report, each as a data URI that a page can hold without other files.

Drawn on a fixed white card, so that they read the same on a light and on a dark page. They hold
no names: those stand beside them in HTML, where they wrap, can be searched and need no font.
"""

from __future__ import annotations

import base64
import colorsys
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rince.core.checks import import_extra
from rince.evaluation.results import Histograms, RocCurve, TimeCurve

Array = npt.NDArray[Any]
History = Mapping[str, Sequence[tuple[int, float]]]

# Okabe and Ito's colours, which colour-blind readers can tell apart.
_RANK_COLOURS = ("#009e73", "#0072b2", "#cc79a7", "#56b4e9", "#e69f00", "#4d4d4d")
_NEGATIVE_COLOUR = "#d55e00"
_IGNORED_COLOUR = "#999999"
# Paul Tol's "muted" scheme, the dark ones first: unlike the ranks' colours, so that a class is
# not taken for a rank.
_SERIES_COLOURS = (
    "#332288",
    "#cc6677",
    "#117733",
    "#aa4499",
    "#88ccee",
    "#999933",
    "#882255",
    "#44aa99",
    "#ddcc77",
    "#661100",
)
_DASHES = ("solid", "dashed", "dotted")
_WIDTH, _HEIGHT = 4.2, 2.9  # inches: about the width of a phone, so that text keeps its size
DPI = 170  # sharp on a phone, where a CSS pixel is two or three of the screen's
_MAX_POINTS = 300


@dataclass(frozen=True)
class Picture:
    """A drawing: ``uri`` for an ``<img src>``, and its size in CSS pixels."""

    uri: str
    width: int
    height: int


def rank_colour(rank: int) -> str:
    """The colour of a rank in every drawing and frame: 1 green, 2 blue, ..., 0 (negative) red."""
    if rank < 1:
        return _NEGATIVE_COLOUR if rank == 0 else _IGNORED_COLOUR
    return _RANK_COLOURS[(rank - 1) % len(_RANK_COLOURS)]


def rank_name(rank: int) -> str:
    """``"rank 1"``, ``"negative"`` for 0, ``"ignored"`` for -1."""
    if rank < 1:
        return "negative" if rank == 0 else "ignored"
    return f"rank {rank}"


def series_style(index: int) -> tuple[str, str]:
    """(colour, line style) of the ``index``-th run; the style has the same name in CSS."""
    turn, place = divmod(index, len(_SERIES_COLOURS))
    return _SERIES_COLOURS[place], _DASHES[turn % len(_DASHES)]


def class_colours(labels: Array, parents: Array | None = None) -> dict[int, str]:
    """A colour for each label that occurs; labels of one parent get neighbouring hues.

    Args:
        labels: (M,) int. parents: (M,) int, the group of each; None to go by label alone.
    """
    parents = labels if parents is None else parents
    parent_of = dict(zip(labels.tolist(), parents.tolist(), strict=True))
    order = sorted(parent_of, key=lambda label: (parent_of[label], label))
    if len(order) <= len(_SERIES_COLOURS):
        return {label: _SERIES_COLOURS[i] for i, label in enumerate(order)}
    colours = {}
    for i, label in enumerate(order):
        # Neighbours in hue differ in lightness.
        rgb = colorsys.hls_to_rgb(i / len(order), (0.36, 0.55, 0.7)[i % 3], 0.65)
        colours[label] = "#" + "".join(f"{round(255 * part):02x}" for part in rgb)
    return colours


def similarity_range(histograms: Sequence[Histograms]) -> tuple[float, float] | None:
    """The cosines between which any of them has pairs (None if none has), to share an axis."""
    ends = []
    for histogram in histograms:
        for counts in histogram.counts.values():
            filled = np.flatnonzero(counts)
            if filled.size:
                ends += [histogram.edges[filled[0]], histogram.edges[filled[-1] + 1]]
    return (float(min(ends)), float(max(ends))) if ends else None


def histogram_picture(
    histograms: Histograms, limits: tuple[float, float] | None = None, *, dpi: int = DPI
) -> Picture | None:
    """Density of the similarities of each rank, area 1 each; None if there are no pairs."""
    limits = limits or similarity_range([histograms])
    curves = densities(histograms)
    if limits is None or not curves:
        return None
    with _style():
        figure, axes = _new_axes()
        for rank, density in curves.items():
            colour = rank_colour(rank)
            axes.stairs(density, histograms.edges, fill=True, color=colour, alpha=0.25, lw=0)
            axes.stairs(density, histograms.edges, color=colour, lw=1.6, label=rank_name(rank))
        axes.set(xlim=limits, xlabel="cosine similarity to the query", ylabel="density")
        axes.set_ylim(bottom=0)
        _add_legend(axes)
        return _encode(figure, dpi)


def densities(histograms: Histograms) -> dict[int, Array]:
    """(B,) density of each rank that has pairs: ranks 1, 2, ... first, negatives last."""
    widths = np.diff(histograms.edges)
    return {
        rank: counts / (counts.sum() * widths)
        for rank, counts in sorted(histograms.counts.items(), key=lambda item: _order(item[0]))
        if counts.sum() > 0
    }


def map_picture(
    xy: Array, labels: Array, colours: Mapping[int, str], *, dpi: int = DPI
) -> Picture | None:
    """The points of a 2-D map in the colours of their labels; None if there are none.

    Args:
        xy: (M, 2) float. labels: (M,) int. colours: label -> colour.
    """
    if xy.size == 0:
        return None
    with _style():
        figure, axes = _new_axes(height=_WIDTH)
        # In a fixed random order: the class drawn last would hide the others.
        order = np.random.default_rng(0).permutation(len(xy))
        point_colours = [colours[label] for label in labels[order].tolist()]
        size = float(np.clip(6000 / len(xy), 2.5, 18))
        axes.scatter(*xy[order].T, c=point_colours, s=size, lw=0, alpha=0.8)
        axes.set(xticks=[], yticks=[])
        axes.set_aspect("equal", adjustable="datalim")
        axes.grid(False)
        return _encode(figure, dpi)


def roc_picture(curves: Sequence[tuple[RocCurve, str, str]], *, dpi: int = DPI) -> Picture:
    """ROC curves over each other.

    Args:
        curves: (curve, colour, line style) each, as from :func:`series_style`.
    """
    with _style():
        figure, axes = _new_axes(height=_WIDTH * 0.85)
        axes.plot([0, 100], [0, 100], color="#aaaaaa", lw=1, ls=(0, (2, 2)))
        for curve, colour, dash in curves:
            x, y = 100 * curve.false_positive_rate, 100 * curve.true_positive_rate
            axes.plot(x, y, color=colour, ls=dash, lw=1.6)
        axes.set(xlim=(-1, 101), ylim=(-1, 101))
        axes.set(xlabel="inliers flagged, %", ylabel="outliers found, %")
        return _encode(figure, dpi)


def training_pictures(history: History, *, dpi: int = DPI) -> list[tuple[str, Picture]]:
    """(title, curves over the training steps) for each quantity that was logged."""
    accuracies = {
        name: name.removeprefix("online_knn").strip("/")
        for name in sorted(history)
        if name.startswith("online_knn")
    }
    panels: tuple[tuple[str, str, dict[str, str], str], ...] = (
        ("Loss: all and per rank", "loss", {"train/loss": "all"}, "train/loss_rank_"),
        ("Mean similarity per rank", "cosine", {}, "train/similarity_rank_"),
        ("Positives per query, per rank", "keys", {}, "train/positives_rank_"),
        ("Online nearest-neighbour accuracy", "%", accuracies, ""),
    )
    pictures = []
    for title, unit, plain, prefix in panels:
        lines = []
        for i, (metric, name) in enumerate(plain.items()):
            points = thin(history.get(metric, ())) * (1, 100 if unit == "%" else 1)
            lines.append(_Line(points, "#222222", name, _DASHES[i % len(_DASHES)]))
        for rank in _ranks_of(history, prefix):
            points = thin(history[f"{prefix}{rank}"])
            lines.append(_Line(points, rank_colour(rank), rank_name(rank)))
        lines = [line for line in lines if len(line.points)]
        if lines:
            pictures.append((title, _lines_picture(lines, unit, dpi)))
    return pictures


def time_picture(curve: TimeCurve, *, dpi: int = DPI) -> Picture | None:
    """Mean cosine of clips of one video against the seconds between them."""
    if not len(curve.seconds):
        return None
    with _style():
        figure, axes = _new_axes()
        axes.plot(curve.seconds, curve.similarity, "o-", color=rank_colour(2), label="same video")
        if math.isfinite(curve.other_videos):
            axes.axhline(curve.other_videos, color=rank_colour(0), ls="--", label="other videos")
        axes.set_xscale("symlog", linthresh=0.1)
        axes.set_xlim(left=0)
        axes.set(xlabel="seconds apart", ylabel="mean cosine")
        _add_legend(axes)
        return _encode(figure, dpi)


def thin(points: Sequence[tuple[int, float]], limit: int = _MAX_POINTS) -> Array:
    """(P, 2) steps and values, P <= ``limit``, by averaging neighbours; only finite values.

    >>> thin([(0, 1.0), (1, 3.0), (2, float("nan")), (3, 5.0), (4, 7.0)], limit=2).tolist()
    [[0.5, 2.0], [3.5, 6.0]]
    """
    kept = np.array([p for p in points if math.isfinite(p[1])], dtype=np.float64).reshape(-1, 2)
    if len(kept) <= limit:
        return kept
    return np.stack([part.mean(axis=0) for part in np.array_split(kept, limit)])


def _order(rank: int) -> tuple[bool, int]:
    return rank < 1, rank


def _ranks_of(history: History, prefix: str) -> list[int]:
    tails = (name.removeprefix(prefix) for name in history if prefix and name.startswith(prefix))
    return sorted((int(tail) for tail in tails if tail.isdecimal()), key=_order)


@dataclass(frozen=True)
class _Line:
    points: Array  # (P, 2) steps and values
    colour: str
    name: str = ""
    dash: str = "solid"


def _lines_picture(lines: Sequence[_Line], unit: str, dpi: int) -> Picture:
    with _style():
        figure, axes = _new_axes()
        for line in lines:
            marker = "o" if len(line.points) <= 30 else ""
            axes.plot(
                *line.points.T,
                color=line.colour,
                ls=line.dash,
                lw=1.5,
                marker=marker,
                ms=3,
                label=line.name,
            )
        if any(line.name for line in lines):
            _add_legend(axes)
        axes.set(xlabel="step", ylabel=unit)
        axes.locator_params(axis="x", nbins=6)
        if unit == "keys":
            values = np.concatenate([line.points[:, 1] for line in lines])
            if values.min() > 0 and values.max() > 20 * values.min():
                axes.set_yscale("log")
            else:
                axes.set_ylim(bottom=0)
        return _encode(figure, dpi)


def _add_legend(axes: Any) -> None:
    """Above the axes, where it hides no curve."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.02), ncols=4)


@contextmanager
def _style() -> Iterator[None]:
    """matplotlib's own defaults for the time of one drawing, whatever the user has set."""
    style = {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.edgecolor": "#666666",
        "grid.color": "#e4e4e4",
        "legend.frameon": False,
        "legend.borderaxespad": 0,
        "legend.handlelength": 1.4,
        "legend.columnspacing": 1.2,
    }
    with import_extra("matplotlib.style", "train").context(["default", style]):
        yield


def _new_axes(width: float = _WIDTH, height: float = _HEIGHT) -> tuple[Any, Any]:
    # A Figure of its own, without pyplot, needs no display and leaves no global state.
    figure = import_extra("matplotlib.figure", "train").Figure(
        figsize=(width, height), layout="constrained"
    )
    return figure, figure.subplots()


def _encode(figure: Any, dpi: int) -> Picture:
    """As PNG with a palette: drawings have few colours, and it is half the size of their SVG."""
    image_module = import_extra("PIL.Image", "train")
    drawn, stream = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi)
    with image_module.open(drawn) as image:
        flat = image.convert("RGB").quantize(128, dither=image_module.Dither.NONE)
    flat.save(stream, "PNG", optimize=True)
    width, height = figure.get_size_inches()
    uri = data_uri("image/png", stream.getvalue())
    return Picture(uri, round(96 * width), round(96 * height))


def data_uri(media_type: str, content: bytes) -> str:
    """``data:`` address that holds the content itself.

    >>> data_uri("image/png", b"abc")
    'data:image/png;base64,YWJj'
    """
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"
