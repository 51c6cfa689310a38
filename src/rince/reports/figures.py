"""The drawings of a report: matplotlib figures, and how a page holds them without other files.

A page holds them as SVG whose colours are CSS variables, so that a dark page has dark drawings.
"""

from __future__ import annotations

import base64
import colorsys
import functools
import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

import numpy as np

from rince.core.checks import import_extra
from rince.evaluation.results import Histograms, NumpyArray, RocCurve, TimeCurve
from rince.metrics.ordering import similar_first

# Okabe and Ito's colours, which colour-blind readers can tell apart.
_RANK_COLOURS = ("#009e73", "#0072b2", "#cc79a7", "#56b4e9", "#e69f00", "#4d4d4d")
_NEGATIVE_COLOUR = "#d55e00"
_IGNORED_COLOUR = "#999999"
# Paul Tol's "muted" scheme, the dark ones first: unlike the ranks' colours, so that a class is
# not taken for a rank.
_SERIES_COLOURS = (
    *("#332288", "#cc6677", "#117733", "#aa4499", "#88ccee"),
    *("#999933", "#882255", "#44aa99", "#ddcc77", "#661100"),
)
DASHES = ("solid", "dashed", "dotted")
WIDTH, HEIGHT = 4.2, 2.9  # inches: about the width of a phone, so that text keeps its size


def themed(colour: str) -> str:
    """The CSS of ``"#rrggbb"`` on a light or a dark page; see :func:`theme_rules`."""
    return f"var(--k{colour[1:]})"


def theme_rules(page: str) -> str:
    """CSS that defines every colour of :func:`themed` in a page, lighter on a dark one; but in an
    element ``.true``: what a heat map means by a colour is one value."""
    used = sorted(set(re.findall(r"var\(--k([0-9a-f]{6})\)", page)))
    rules = (f"--k{c}:color-mix(in srgb,#{c} var(--keep),#fff);" for c in used)
    return f":root,.true{{{''.join(rules)}}}"


def rank_colour(rank: int) -> str:
    """The colour of a rank in every drawing and frame: 1 green, 2 blue, ..., 0 (negative)
    dark orange."""
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
    return _SERIES_COLOURS[place], DASHES[turn % len(DASHES)]


def class_colours(labels: NumpyArray, parents: NumpyArray | None = None) -> dict[int, str]:
    """A colour for each label that occurs; labels of one parent get neighbouring hues."""
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


def histogram_figure(
    histograms: Sequence[Histograms], limits: tuple[float, float] | None = None
) -> Any | None:
    """Density of the similarities of each rank, area 1 each, over the runs of one method: mean, and
    a band of one sd about it; None if there are no pairs."""
    limits = limits or similarity_range(histograms)
    curves = mean_densities(histograms)
    if limits is None or not curves:
        return None
    edges = histograms[0].edges
    with drawing():
        figure, axes = new_axes()
        for rank, (mean, sd) in curves.items():
            colour = rank_colour(rank)
            axes.stairs(mean, edges, fill=True, color=colour, alpha=0.25, lw=0)
            if sd.any():
                band = {"baseline": mean - sd, "fill": True, "color": colour, "alpha": 0.4}
                axes.stairs(mean + sd, edges, lw=0, **band)
            axes.stairs(mean, edges, color=colour, lw=1.6, label=rank_name(rank))
        axes.set(xlim=limits, xlabel="cosine similarity to the query", ylabel="density")
        axes.set_ylim(bottom=0)
        add_legend(axes)
        return figure


def mean_densities(histograms: Sequence[Histograms]) -> dict[int, tuple[NumpyArray, NumpyArray]]:
    """rank -> (B,) mean density over the runs with the bins of the first, and its sd."""
    by_rank: dict[int, list[NumpyArray]] = {}
    for histogram in histograms:
        if np.array_equal(histogram.edges, histograms[0].edges):
            for rank, density in densities(histogram).items():
                by_rank.setdefault(rank, []).append(density)
    return {rank: mean_and_sd(by_rank[rank]) for rank in sorted(by_rank, key=similar_first)}


def mean_and_sd(values: Sequence[NumpyArray]) -> tuple[NumpyArray, NumpyArray]:
    """Over the runs, element by element: mean and sample standard deviation (0 of one run)."""
    stacked = np.stack(values)
    mean = stacked.mean(axis=0)
    return mean, stacked.std(axis=0, ddof=1) if len(stacked) > 1 else np.zeros_like(mean)


def densities(histograms: Histograms) -> dict[int, NumpyArray]:
    """(B,) density of each rank that has pairs: ranks 1, 2, ... first, negatives last."""
    widths, counts = np.diff(histograms.edges), histograms.counts
    ranks = sorted((rank for rank in counts if counts[rank].sum() > 0), key=similar_first)
    return {rank: counts[rank] / (counts[rank].sum() * widths) for rank in ranks}


def map_figure(xy: NumpyArray, labels: NumpyArray, colours: Mapping[int, str]) -> Any | None:
    """The points of a 2-D map in the colours of their labels; None if there are none."""
    if xy.size == 0:
        return None
    with drawing():
        figure, axes = new_axes(height=WIDTH)
        # In a fixed random order: the class drawn last would hide the others.
        order = np.random.default_rng(0).permutation(len(xy))
        point_colours = [colours[label] for label in labels[order].tolist()]
        size = float(np.clip(6000 / len(xy), 2.5, 18))
        axes.scatter(*xy[order].T, c=point_colours, s=size, lw=0, alpha=0.8)
        axes.set(xticks=[], yticks=[])
        axes.set_aspect("equal", adjustable="datalim")
        axes.grid(False)
        return figure


def roc_figure(curves: Sequence[tuple[RocCurve, str, str]]) -> Any:
    """Curves over each other, each with its colour and line style (:func:`series_style`)."""
    with drawing():
        figure, axes = new_axes(height=WIDTH * 0.85)
        axes.plot([0, 100], [0, 100], color="#aaaaaa", lw=1, ls=(0, (2, 2)))
        for curve, colour, dash in curves:
            x, y = 100 * curve.false_positive_rate, 100 * curve.true_positive_rate
            axes.plot(x, y, color=colour, ls=dash, lw=1.6)
        axes.set(xlim=(-1, 101), ylim=(-1, 101))
        axes.set(xlabel="inliers flagged, %", ylabel="outliers found, %")
        return figure


def time_figure(curves: Sequence[TimeCurve]) -> Any | None:
    """Mean cosine of clips of one video against the seconds between them, with sd over the runs."""
    curves = [c for c in curves if len(c.seconds)]
    if not curves:
        return None
    seconds = curves[0].seconds
    same = [c.similarity for c in curves if np.array_equal(c.seconds, seconds)]
    mean, sd = mean_and_sd(same)
    other = float(np.mean([c.other_videos for c in curves]))
    with drawing():
        figure, axes = new_axes()
        axes.errorbar(seconds, mean, sd, fmt="o-", color=rank_colour(2), label="same video")
        if math.isfinite(other):
            axes.axhline(other, color=rank_colour(0), ls="--", label="other videos")
        axes.set_xscale("symlog", linthresh=0.1)
        axes.set_xlim(left=0)
        axes.set(xlabel="seconds apart", ylabel="mean cosine")
        add_legend(axes)
        return figure


def add_legend(axes: Any) -> None:
    """Above the axes, where it hides no curve."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.02), ncols=4)


@contextmanager
def drawing() -> Iterator[None]:
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
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": "rince",
    }
    with import_extra("matplotlib.style", "train").context(["default", style]):
        yield


def new_axes(height: float = HEIGHT) -> tuple[Any, Any]:
    """A drawing of one panel, its size in inches."""
    # A Figure of its own, without pyplot, needs no display and leaves no global state.
    figure = import_extra("matplotlib.figure", "train").Figure(
        figsize=(WIDTH, height), layout="constrained"
    )
    # Notebooks ask for it; without pyplot nothing else tells them how to show a figure.
    figure._repr_png_ = functools.partial(png_of, figure)
    return figure, figure.subplots()


def png_of(figure: Any) -> bytes:
    stream = io.BytesIO()
    with drawing():
        figure.savefig(stream, format="png", dpi=120)
    return stream.getvalue()


def svg_of(figure: Any, description: str, number: int) -> str:
    """A figure as an ``<svg>`` of a page, half the size of what matplotlib writes; ``number``: of
    this one among all of the page. ``data-box``: left, top, right and bottom of its first axes, as
    shares of its size."""
    stream = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with drawing(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the browser has its own fonts
        figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    root = ElementTree.fromstring(stream.getvalue())
    for element in root.iter():
        element.tag = _local(element.tag)
        if element.tag != "text":
            element.text = None
        element.tail = None
        attributes = {_local(name): value for name, value in element.attrib.items()}
        element.attrib.clear()
        for name, value in attributes.items():
            if name == "id":
                if re.fullmatch(r"[a-z][0-9a-f]{10}", value):  # the others are referred to nowhere
                    element.set(name, f"{value}-{number}")
            elif name == "style":
                value = re.sub(r"font-family:[^;]*;?", "", value)  # the page's
                value = re.sub(r"font: ([\d.]+px)[^;]*", r"font-size:\1", value)
                value = re.sub(r"#[0-9a-f]{6}", lambda m: themed(m[0]), value)
                element.set(name, re.sub(r"(?<=[;:]) ", "", value))
            elif not value.startswith("data:"):
                value = re.sub(r"#[a-z][0-9a-f]{10}", rf"\g<0>-{number}", value)
                value = re.sub(r"(\.\d)\d+", r"\1", value)  # a tenth of a point
                element.set(
                    name, re.sub(r"\s*([MLQCz])\s*", r"\1", value) if name == "d" else value
                )
            else:
                element.set(name, value)
    for name in ("width", "height"):
        del root.attrib[name]
    box = figure.axes[0].get_position()
    root.set("data-box", f"{box.x0:.4f} {1 - box.y1:.4f} {box.x1:.4f} {1 - box.y0:.4f}")
    root.set("role", "img")
    root.set("aria-label", description)
    return ElementTree.tostring(root, encoding="unicode")


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def data_uri(media_type: str, content: bytes) -> str:
    """``data:`` address that holds the content itself.

    >>> data_uri("image/png", b"abc")
    'data:image/png;base64,YWJj'
    """
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"
