"""The drawings of one method: what its runs learned, as the mean over their seeds."""

from __future__ import annotations

from typing import Any

from rince.evaluation.class_similarity import MAX_CLASSES
from rince.reports import figures
from rince.reports.class_maps import class_maps
from rince.reports.gallery import gallery_view
from rince.reports.run_report import RunReport, class_name
from rince.reports.table import Row
from rince.reports.training_curves import training_pictures


def method_drawings(
    row: Row, limits: tuple[float, float] | None, dpi: int, gallery_characters: int
) -> dict[str, Any]:
    """All that is drawn of the runs of a row; what they did not store is None or empty.

    Maps and gallery are of the first run. limits: of the axis of the histograms.
    """
    evaluations = [run.evaluation for run in row.runs]
    first = evaluations[0]
    time_curves = [e.time_curve for e in evaluations if e.time_curve is not None]
    histograms = [e.histograms for e in evaluations]
    drawings = {
        "histogram": figures.histogram_picture(histograms, limits, dpi=dpi),
        "over_time": figures.time_picture(time_curves, dpi=dpi),
        "class_maps": class_maps(evaluations, dpi),
        "maps": _coloured_maps(row.runs[0], dpi),
        "curves": training_pictures([run.history for run in row.runs], dpi=dpi),
        "gallery": gallery_view(first.gallery, first.classes, gallery_characters),
    }
    return drawings | {
        "label": row.label,
        "runs": row.runs,
        "has_pictures": any(drawings.values()),
        # Evaluating a run again would give them.
        "lacks_class_maps": not drawings["class_maps"] and 1 < len(first.classes) <= MAX_CLASSES,
    }


def _coloured_maps(run: RunReport, dpi: int) -> list[dict[str, Any]]:
    """By class and by group, with the name and colour of each label; none without points."""
    points = run.evaluation.map_2d
    maps = []
    for level, labels, names in (
        ("classes", points.fine, run.evaluation.classes),
        ("groups", points.coarse, run.evaluation.groups),
    ):
        colours = figures.class_colours(labels, points.coarse)
        picture = figures.map_picture(points.xy, labels, colours, dpi=dpi)
        if picture is not None:
            legend = [(class_name(names, label), colour) for label, colour in colours.items()]
            maps.append({"level": level, "picture": picture, "legend": legend})
    return maps
