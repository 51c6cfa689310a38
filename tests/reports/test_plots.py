"""Figures for notebooks: what stands in them, read from matplotlib's own objects."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

import rince.reports
from rince.evaluation.results import Histograms, Map2D
from rince.reports.figures import rank_colour


def test_each_gives_a_figure_that_pyplot_does_not_hold(make_run):
    import matplotlib.pyplot

    run = make_run(over_time=True).evaluation
    drawn = [
        rince.reports.plot_similarities(run),
        rince.reports.plot_over_time(run),
        rince.reports.plot_classes(run),
        rince.reports.plot_classes(run, "given"),
        rince.reports.plot_map(run),
        rince.reports.plot_roc({"rince": run}, "cifar10"),
    ]
    for figure in drawn:
        assert isinstance(figure, Figure)
        assert figure._repr_png_().startswith(b"\x89PNG")
    assert not matplotlib.pyplot.get_fignums()


def test_similarities_of_one_run_and_of_seeds(make_run):
    runs = [make_run(seed=seed).evaluation for seed in (0, 1)]
    (axes,) = rince.reports.plot_similarities(runs[0]).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        *("rank 1", "rank 2", "negative")
    ]
    (both,) = rince.reports.plot_similarities(runs).axes
    assert len(both.patches) == len(axes.patches) + 3  # a band for each rank


def test_classes_are_drawn_as_they_are_stored(make_run):
    run = make_run().evaluation
    learned = rince.reports.plot_classes(run).axes[0]
    np.testing.assert_array_equal(learned.images[0].get_array(), run.class_similarity.learned)
    names = [label.get_text() for label in learned.get_yticklabels()]
    assert names[1:3] == ["dog", "fox"]
    given = rince.reports.plot_classes(run, "given").axes[0].images[0].get_array()
    order = {0: 0, 2: 1, 1: 2}  # the better the brighter
    wanted = np.vectorize(order.get)(run.class_similarity.given)
    np.testing.assert_array_equal(given, wanted)


def test_map_has_all_points_and_a_legend(make_run):
    run = make_run(points=50).evaluation
    for by, names in (("class", run.classes), ("group", run.groups)):
        figure = rince.reports.plot_map(run, by)
        points = figure.axes[0].collections[0].get_offsets()
        assert sorted(map(tuple, points.tolist())) == sorted(map(tuple, run.map_2d.xy.tolist()))
        (legend,) = figure.legends
        labels = set((run.map_2d.fine if by == "class" else run.map_2d.coarse).tolist())
        assert {text.get_text() for text in legend.get_texts()} == {names[i] for i in labels}


def test_roc_names_its_curves(make_run):
    runs = {"one": make_run(quality=0.3).evaluation, "two": make_run(quality=0.8).evaluation}
    (axes,) = rince.reports.plot_roc(runs, "cifar10", "knn").axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one", "two"]
    for line, run in zip(axes.lines[1:], runs.values(), strict=True):
        curve = run.roc["cifar10", "knn"]
        np.testing.assert_allclose(line.get_ydata(), 100 * curve.true_positive_rate)
    handles = axes.get_legend().legend_handles
    assert [h.get_color() for h in handles] == [line.get_color() for line in axes.lines[1:]]


def test_training_reads_the_history_of_runs(make_run, tmp_path, monkeypatch):
    history = make_run().history
    read = []
    monkeypatch.setattr(
        "rince.reports.plots.read_history", lambda folder: read.append(folder) or history
    )
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    figures = rince.reports.plot_training(str(tmp_path))
    assert len(figures) == 4
    (axes,) = figures["Mean similarity per rank"].axes
    assert [line.get_color() for line in axes.lines] == [rank_colour(rank) for rank in (1, 2, 0)]
    rince.reports.plot_training([tmp_path / "a", tmp_path / "b"])
    assert [folder.name for folder in read] == [tmp_path.name, "a", "b"]


def test_what_is_not_there_is_refused(make_run):
    run = make_run(old=True).evaluation
    empty = replace(
        run,
        histograms=Histograms(np.linspace(-1, 1, 3), {}),
        map_2d=Map2D(np.zeros((0, 2)), np.zeros(0, int), np.zeros(0, int)),
    )
    for draw in (
        *(rince.reports.plot_similarities, rince.reports.plot_over_time),
        *(rince.reports.plot_classes, rince.reports.plot_map),
    ):
        with pytest.raises(ValueError, match="holds no"):
            draw(empty)
    with pytest.raises(ValueError, match="photos.*cifar10/gaussian"):
        rince.reports.plot_roc({"a": run}, "photos")
    with pytest.raises(ValueError, match="colour"):
        rince.reports.plot_map(run, "colour")
    with pytest.raises(ValueError, match="ranks"):
        rince.reports.plot_classes(run, "ranks")


@pytest.mark.parametrize("given", ["runs/a", Path("runs/a"), [Path("runs/a")], None, 3, [], {}])
def test_other_kinds_of_input_are_refused(make_run, given):
    for draw in (
        *(rince.reports.plot_similarities, rince.reports.plot_over_time),
        *(rince.reports.plot_classes, rince.reports.plot_map),
    ):
        with pytest.raises(ValueError, match="evaluation"):
            draw(given)
    with pytest.raises(ValueError, match="evaluation"):
        rince.reports.plot_roc(given, "cifar10")
    run = make_run().evaluation
    for wrong in (run, [run]):
        with pytest.raises(ValueError, match="dict"):
            rince.reports.plot_roc(wrong, "cifar10")
        with pytest.raises(ValueError, match="folders of runs"):
            rince.reports.plot_training(wrong)
        with pytest.raises(ValueError, match="folders of runs"):
            rince.results(wrong)


def test_a_folder_without_a_training(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(rince.RinceError, match=f"nothing was logged in {folder}"):
            rince.reports.plot_training(folder)
