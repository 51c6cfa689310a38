"""The section of one method: what its runs learned, as the mean over their seeds."""

from __future__ import annotations

from rince.evaluation.class_similarity import MAX_CLASSES
from rince.reports import figures
from rince.reports.class_maps import class_maps
from rince.reports.gallery import gallery_html
from rince.reports.pieces import (
    chips,
    class_name,
    figure,
    figures_row,
    fold,
    note,
    part,
    section,
)
from rince.reports.table import Row
from rince.reports.training_curves import training_pictures

_MAX_CHIPS = 40  # a longer legend is folded


def method_section(
    row: Row, anchor: str, limits: tuple[float, float] | None, dpi: int, gallery_characters: int
) -> str:
    """All that is drawn of the runs of a row.

    Args:
        anchor: id of the section. limits: of the axis of the histograms.
        dpi: of drawings; 0 draws nothing. gallery_characters: at most.
    """
    evaluations = [run.evaluation for run in row.runs]
    if not dpi:
        return section(anchor, row.label, note("Numbers only: with so many runs, none is drawn."))
    classes = class_maps(evaluations, row.label, dpi)
    parts = [
        _histogram_part(row, limits, dpi),
        _time_part(row, dpi),
        classes,
        _map_part(row, dpi),
        _training_part(row, dpi),
        _gallery_part(row, gallery_characters),
    ]
    if not any(parts):
        parts = [note("Numbers only: this run stored nothing to draw.")]
    elif not classes and 1 < len(evaluations[0].classes) <= MAX_CLASSES:
        again = f"rince evaluate {row.runs[0].folder}"
        parts.append(
            "<h3>Similarity of the classes</h3>"
            + note(
                "Not stored by the rince that evaluated this run. Evaluate it again with the same "
                f"--ood and other options (all its results are replaced): {again}"
            )
        )
    return section(anchor, row.label, *parts)


def _histogram_part(row: Row, limits: tuple[float, float] | None, dpi: int) -> str:
    histograms = [run.evaluation.histograms for run in row.runs]
    picture = figures.histogram_picture(histograms, limits, dpi=dpi)
    if picture is None:
        return ""
    return part(
        "Similarities per rank",
        "the curves should stand in order, rank 1 furthest right and the negatives furthest "
        "left, and overlap little." + _spread(row),
        figures_row([figure(picture, f"similarity histogram of {row.label}")]),
    )


def _time_part(row: Row, dpi: int) -> str:
    curves = [run.evaluation.time_curve for run in row.runs]
    picture = figures.time_picture([curve for curve in curves if curve is not None], dpi=dpi)
    if picture is None:
        return ""
    return part(
        "Similarity over time",
        "the line should fall with the seconds between two clips of a video, and stay above "
        "the dashed one, which is for clips of two videos." + _spread(row),
        figures_row([figure(picture, f"similarity over time of {row.label}")]),
    )


def _map_part(row: Row, dpi: int) -> str:
    evaluation = row.runs[0].evaluation
    points = evaluation.map_2d
    cards = []
    for level, labels, names in (
        ("classes", points.fine, evaluation.classes),
        ("groups", points.coarse, evaluation.groups),
    ):
        colours = figures.class_colours(labels, points.coarse)
        picture = figures.map_picture(points.xy, labels, colours, dpi=dpi)
        if picture is None:
            return ""
        legend = chips(
            ("dot", f"background:{colour}", class_name(names, label))
            for label, colour in colours.items()
        )
        if len(colours) > _MAX_CHIPS:
            legend = fold(f"{len(colours)} colours", legend)
        caption = f"coloured by {level} ({len(colours)})"
        cards.append(figure(picture, f"map of {row.label}, {caption}", caption, legend))
    return part(
        "Map of the features" + _of_first(row),
        "classes should form clumps in the first map, and clumps of one group should be "
        "neighbours in the second; distances across the map mean little.",
        figures_row(cards),
    )


def _training_part(row: Row, dpi: int) -> str:
    curves = training_pictures([run.history for run in row.runs], dpi=dpi)
    if not curves:
        return ""
    return part(
        "Training",
        "the similarity curves should spread out in rank order; a rank with hardly any "
        "positives learns nothing." + _spread(row),
        figures_row(figure(picture, f"{title} of {row.label}", title) for title, picture in curves),
    )


def _gallery_part(row: Row, max_characters: int) -> str:
    evaluation = row.runs[0].evaluation
    shown = gallery_html(evaluation.gallery, evaluation.classes, max_characters)
    if not shown:
        return ""
    return part(
        "Nearest neighbours" + _of_first(row),
        "frames should come in the order of the ranks: green (1), blue (2), and so on; a red one, "
        "a negative, among the first is a mistake worth looking at.",
        shown,
    )


def _spread(row: Row) -> str:
    if len(row.runs) == 1:
        return ""
    return f" Lines are means of {len(row.runs)} runs, bands one standard deviation about them."


def _of_first(row: Row) -> str:
    return f", of {row.runs[0].folder.name}" if len(row.runs) > 1 else ""
