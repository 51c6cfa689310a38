"""The drawings of the report as matplotlib figures, for notebooks and papers.

Each is a ``matplotlib.figure.Figure`` that pyplot does not know of: it need not be closed, and a
notebook shows it as the last value of a cell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rince.core.checks import RinceError, require
from rince.evaluation.results import Evaluation
from rince.reports import figures
from rince.reports.class_maps import class_maps
from rince.reports.frames import run_folders
from rince.reports.run_report import class_name
from rince.reports.training_curves import training_figures
from rince.training.history import read_history

Runs = Evaluation | Sequence[Evaluation]


def plot_similarities(runs: Runs) -> Any:
    """Density of the cosines of each rank.

    Args:
        runs: an evaluation, or those of several seeds: then lines are means, bands one standard
            deviation.

    Raises:
        ValueError: it has no pairs, or is no evaluation.
    """
    figure = figures.histogram_figure([run.histograms for run in _listed(runs)])
    require(figure is not None, "the evaluation holds no similarities to draw")
    return figure


def plot_over_time(runs: Runs) -> Any:
    """Mean cosine of clips of one video against the seconds between them.

    Args:
        runs: as for :func:`plot_similarities`.

    Raises:
        ValueError: the items have no times.
    """
    figure = figures.time_figure([r.time_curve for r in _listed(runs) if r.time_curve is not None])
    require(figure is not None, "the evaluation holds no similarity over time: no clips of videos")
    return figure


def plot_classes(runs: Runs, what: Literal["learned", "given"] = "learned") -> Any:
    """Similarity of all pairs of classes: rows are test items, columns training items.

    Args:
        runs: as for :func:`plot_similarities`; the mean is drawn.
        what: "learned", mean cosines; or "given", the ranks that were trained on.

    Raises:
        ValueError: there is one class, more than a thousand, or another word.
    """
    require(what in ("learned", "given"), f'what must be "learned" or "given", got {what!r}')
    maps = class_maps(_listed(runs))
    if maps is None:
        raise ValueError("the evaluation holds no similarity of classes: one class, or > 1000")
    return maps[what]


def plot_map(run: Evaluation, by: Literal["class", "group"] = "class") -> Any:
    """2-D map (t-SNE) of test items, with a legend of up to 20 names.

    Raises:
        ValueError: there are no points, or another word.
    """
    require(by in ("class", "group"), f'by must be "class" or "group", got {by!r}')
    (run,) = _listed([run])
    points = run.map_2d
    labels, names = (points.fine, run.classes) if by == "class" else (points.coarse, run.groups)
    colours = figures.class_colours(labels, points.coarse)
    figure = figures.map_figure(points.xy, labels, colours)
    require(figure is not None, "the evaluation holds no map: map_points=0, or fewer than 10 items")
    if figure is not None and len(colours) <= 20:
        (axes,) = figure.axes
        for label, colour in colours.items():
            axes.scatter([], [], color=colour, label=class_name(names, label))
        figure.legend(loc="outside lower center", ncols=4, fontsize=7)
    return figure


def plot_roc(runs: Mapping[str, Evaluation], outliers: str, detector: str = "gaussian") -> Any:
    """ROC curves of outlier detection over each other.

    Args:
        runs: name -> evaluation.
        outliers: name of the outlier set.
        detector: "gaussian", "mahalanobis", "knn", "msp" or "energy".

    Raises:
        ValueError: a run has no such curve.
    """
    require(
        isinstance(runs, Mapping),
        f'runs must be a dict, such as {{"rince": evaluation}}, got {type(runs).__name__}',
    )
    _listed(list(runs.values()))
    curves = []
    for i, (name, run) in enumerate(runs.items()):
        known = ", ".join(f"{o}/{d}" for o, d in run.roc) or "none"
        require(
            (outliers, detector) in run.roc,
            f"{name} has no ROC curve of the outliers {outliers!r} by {detector!r}; it has {known}",
        )
        curves.append((run.roc[outliers, detector], *figures.series_style(i)))
    figure = figures.roc_figure(curves)
    (axes,) = figure.axes
    axes.legend(axes.lines[1:], list(runs), loc="lower right")
    return figure


def plot_training(runs: str | Path | Sequence[str | Path]) -> dict[str, Any]:
    """What was logged during training: title -> figure, such as the loss and the mean similarity
    per rank.

    Args:
        runs: the folder of a run, or those of several seeds; ``*`` and ``?`` stand for any.

    Raises:
        RinceError: a folder where nothing was logged. ValueError: no folder.
    """
    histories = []
    for folder in run_folders(runs):
        histories.append(read_history(folder))
        if not histories[-1]:
            raise RinceError(f"nothing was logged in {folder}: expected the folder of a run")
    return dict(training_figures(histories))


def _listed(runs: Any) -> Sequence[Evaluation]:
    listed = list(runs) if isinstance(runs, (list, tuple)) else [runs]
    require(bool(listed), "there is no evaluation to draw: got an empty list")
    for run in listed:
        shown = repr(run) if isinstance(run, str | Path) else type(run).__name__
        require(
            isinstance(run, Evaluation),
            f"expected an evaluation, as rince.evaluation.load_evaluation(FOLDER) gives, got "
            f"{shown}",
        )
    return listed
