"""What is shown of one method: what its runs learned, as the mean over their seeds."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from rince.evaluation.class_similarity import MAX_CLASSES
from rince.evaluation.drawings import shrunk
from rince.evaluation.results import Confusion, Map2D
from rince.reports import figures
from rince.reports.class_maps import class_maps
from rince.reports.gallery import gallery_view, image_uri
from rince.reports.run_report import RunReport, class_name
from rince.reports.table import Row
from rince.reports.training_curves import training_figures

_MAX_CONFUSED = 10
SHEET_COLUMNS = 32
_MAP_LAYERS = 4


def method_drawings(row: Row, limits: tuple[float, float] | None) -> dict[str, Any]:
    """What is drawn of the runs of a row at any detail; what they did not store is None or empty.
    ``limits``: of the axis of the histograms."""
    evaluations = [run.evaluation for run in row.runs]
    first = evaluations[0]
    time_curves = [e.time_curve for e in evaluations if e.time_curve is not None]
    drawings = {
        "histogram": figures.histogram_figure([e.histograms for e in evaluations], limits),
        "over_time": figures.time_figure(time_curves),
        "class_maps": class_maps(evaluations),
        "curves": dict(training_figures([run.history for run in row.runs])),
        "confusion": _confusion(row),
    }
    return drawings | {
        "label": row.label,
        "runs": row.runs,
        "has_pictures": any(drawings.values()),
        # Evaluating a run again would give them.
        "lacks_class_maps": not drawings["class_maps"] and 1 < len(first.classes) <= MAX_CLASSES,
        "lacks_failures": first.confusion is None,
    }


def with_detail(drawn: dict[str, Any], gallery_characters: int, detail: float) -> dict[str, Any]:
    """:func:`method_drawings` with map and galleries, of the first run."""
    run = drawn["runs"][0]
    worst, classes = run.evaluation.worst_queries, run.evaluation.classes
    more = {
        "map": _map(run, detail),
        "gallery": gallery_view(run.evaluation.gallery, classes, gallery_characters),
        "worst": worst and gallery_view(worst, classes, gallery_characters),
    }
    return {**drawn, **more, "has_pictures": drawn["has_pictures"] or any(more.values())}


def _map(run: RunReport, detail: float) -> dict[str, Any] | None:
    """Points in layers, as a class drawn at once would hide the others; None without points.

    ``paths``: of the points of one class in one layer. ``sheet``: the thumbnails in the order of
    the points, ``SHEET_COLUMNS`` in a row; ``texts``: in their place, of items without a picture.
    ``width`` of a point and ``height`` of the map, whose width is 1000.
    """
    points, evaluation = run.evaluation.map_2d, run.evaluation
    if points.xy.size == 0:
        return None
    centred = points.xy - (points.xy.min(axis=0) + points.xy.max(axis=0)) / 2
    xy = (500 + 480 * centred / max(float(np.abs(centred).max()), 1e-9)).round().astype(int)
    xy[:, 1] = xy[:, 1].max() - xy[:, 1] + 20
    class_colours = figures.class_colours(points.fine, points.coarse)
    group_colours = figures.class_colours(points.coarse)
    paths: list[dict[str, Any]] = []
    order: list[int] = []
    for layer in np.array_split(np.random.default_rng(0).permutation(len(xy)), _MAP_LAYERS):
        for label in np.unique(points.fine[layer]).tolist():
            members = layer[points.fine[layer] == label]
            group = int(points.coarse[members[0]])
            paths.append(
                {
                    "d": "".join(f"M{x} {y}h0" for x, y in xy[members].tolist()),
                    "class": class_name(evaluation.classes, label),
                    "group": class_name(evaluation.groups, group),
                    "colours": (class_colours[label], group_colours[group]),
                }
            )
            order += members.tolist()
    return {
        "paths": paths,
        "classes": [(class_name(evaluation.classes, k), c) for k, c in class_colours.items()],
        "groups": [(class_name(evaluation.groups, k), c) for k, c in group_colours.items()],
        "height": int(xy[:, 1].max()) + 20,
        "width": round(float(np.clip(420 / np.sqrt(len(xy)), 8, 26))),
        **_thumbnails(points, order, detail),
    }


def _thumbnails(points: Map2D, order: list[int], detail: float) -> dict[str, Any]:
    nothing = {"sheet": None, "texts": None, "tile": None}
    if points.thumbnails is None or detail < 0.4:
        return nothing
    shown = points.thumbnails[order]
    if shown.dtype.kind == "U":
        return nothing | {"texts": [text[:100] for text in shown.tolist()]}
    shown = shrunk(shown, round(32 * detail))
    _, height, width, channels = shown.shape
    padded = np.zeros((-len(shown) % SHEET_COLUMNS, height, width, channels), np.uint8)
    grid = np.concatenate([shown, padded]).reshape(-1, SHEET_COLUMNS, height, width, channels)
    sheet = grid.transpose(0, 2, 1, 3, 4).reshape(-1, SHEET_COLUMNS * width, channels)
    return nothing | {"sheet": image_uri(sheet, quality=70), "tile": (width, height)}


def _confusion(row: Row) -> dict[str, Any] | None:
    """Over all runs that stored it: ``accuracy``, class -> (share of nearest neighbours that are
    of the class, queries of the first run); ``pairs``, the most severe ones first."""
    counts: Counter[tuple[str, str]] = Counter()
    ranks: dict[tuple[str, str], int] = {}
    queries: dict[str, int] = {}
    for run in row.runs:
        confusion = run.evaluation.confusion
        if confusion is not None:
            of_run = _by_name(confusion, run.evaluation.classes)
            counts.update({pair: count for pair, (count, _) in of_run.items()})
            ranks |= {pair: rank for pair, (_, rank) in of_run.items()}
            if not queries:
                for (query, _), (count, _) in of_run.items():
                    queries[query] = queries.get(query, 0) + count
    if len(queries) < 2:
        return None
    totals: Counter[str] = Counter()
    for (query, _), count in counts.items():
        totals[query] += count
    wrong = sorted(
        (pair for pair in counts if pair[0] != pair[1]),
        key=lambda pair: (ranks[pair] > 0, -ranks[pair], -counts[pair]),
    )
    return {
        "accuracy": {q: (counts[q, q] / totals[q], queries.get(q, 0)) for q in totals},
        "pairs": [
            (query, nearest, ranks[query, nearest], counts[query, nearest] / totals[query])
            for query, nearest in wrong[:_MAX_CONFUSED]
        ],
        "wrong": len(wrong),
    }


def _by_name(pairs: Confusion, classes: tuple[str, ...]) -> dict[tuple[str, str], tuple[int, int]]:
    """(class of the query, of its nearest neighbour) -> (count, rank)."""
    columns = (pairs.query, pairs.nearest, pairs.count, pairs.rank)
    return {
        (class_name(classes, query), class_name(classes, nearest)): (count, rank)
        for query, nearest, count, rank in zip(*(c.tolist() for c in columns), strict=True)
    }
