"""The drawings of one method: what its runs learned, as the mean over their seeds."""

from __future__ import annotations

from dataclasses import dataclass

from rince.evaluation.class_similarity import MAX_CLASSES
from rince.reports import figures
from rince.reports.class_maps import ClassMaps, class_maps
from rince.reports.figures import Picture
from rince.reports.gallery import GalleryView, gallery_view
from rince.reports.run_report import RunReport, class_name
from rince.reports.table import Row
from rince.reports.training_curves import training_pictures


@dataclass(frozen=True)
class ColouredMap:
    """The 2-D map, coloured by ``level``; the legend holds (name, colour) of each label."""

    level: str
    picture: Picture
    legend: list[tuple[str, str]]


@dataclass(frozen=True)
class MethodDrawings:
    """All that is drawn of the runs of a row; what they did not store is None or empty.

    Args:
        label, runs: of the row.
        histogram: similarities per rank. over_time: similarity by the seconds between clips.
        class_maps: learned and given similarity of the classes.
        maps, gallery: of the first run. curves: (title, drawing) each, over the training.
        lacks_class_maps: evaluating the run again would give them.
    """

    label: str
    runs: tuple[RunReport, ...]
    histogram: Picture | None
    over_time: Picture | None
    class_maps: ClassMaps | None
    maps: list[ColouredMap]
    curves: list[tuple[str, Picture]]
    gallery: GalleryView | None
    lacks_class_maps: bool

    @property
    def has_pictures(self) -> bool:
        shown = (self.histogram, self.over_time, self.class_maps, self.maps, self.curves)
        return any(shown) or self.gallery is not None


def method_drawings(
    row: Row, limits: tuple[float, float] | None, dpi: int, gallery_characters: int
) -> MethodDrawings:
    """Draw the runs of a row.

    Args:
        limits: of the axis of the histograms. dpi: of drawings.
        gallery_characters: at most.
    """
    evaluations = [run.evaluation for run in row.runs]
    first = evaluations[0]
    time_curves = [e.time_curve for e in evaluations if e.time_curve is not None]
    maps_of_classes = class_maps(evaluations, dpi)
    return MethodDrawings(
        label=row.label,
        runs=row.runs,
        histogram=figures.histogram_picture([e.histograms for e in evaluations], limits, dpi=dpi),
        over_time=figures.time_picture(time_curves, dpi=dpi),
        class_maps=maps_of_classes,
        maps=_coloured_maps(row.runs[0], dpi),
        curves=training_pictures([run.history for run in row.runs], dpi=dpi),
        gallery=gallery_view(first.gallery, first.classes, gallery_characters),
        lacks_class_maps=maps_of_classes is None and 1 < len(first.classes) <= MAX_CLASSES,
    )


def _coloured_maps(run: RunReport, dpi: int) -> list[ColouredMap]:
    """By class and by group; none if there are no points."""
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
            maps.append(ColouredMap(level, picture, legend))
    return maps
