"""Curves over the training: means over the runs by formula, and what is drawn."""

from __future__ import annotations

import numpy as np
from test_figures import count_near, pixels

from rince.reports.figures import rank_colour
from rince.reports.training_curves import mean_curve, thin, training_figures


def test_mean_curve_is_of_the_steps_that_all_runs_logged():
    runs = [
        [(0, 1.0), (10, 2.0), (20, float("nan")), (30, 7.0)],
        [(0, 4.0), (10, 6.0), (20, 5.0)],
        [],  # a run that did not log it, does not count
        [(10, 1.0), (0, 1.0)],
    ]
    found = mean_curve(runs)
    values = np.array([[1.0, 4.0, 1.0], [2.0, 6.0, 1.0]])  # at steps 0 and 10
    np.testing.assert_allclose(found[:, 0], [0, 10])
    np.testing.assert_allclose(found[:, 1], values.sum(axis=1) / 3)
    mean = values.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(found[:, 2], np.sqrt(((values - mean) ** 2).sum(axis=1) / (3 - 1)))
    np.testing.assert_allclose(mean_curve(runs[:1]), [[0, 1, 0], [10, 2, 0], [30, 7, 0]])
    lost = [[(0, 1.0), (5, float("nan")), (9, 4.0)], [(0, 3.0), (5, 2.0), (9, 4.0)]]
    assert mean_curve(lost)[:, :2].tolist() == [[0, 2], [9, 4]]
    assert mean_curve([]).shape == mean_curve([[]]).shape == (0, 3)
    assert mean_curve([[(0, 1.0)], [(5, 1.0)]]).shape == (0, 3)


def test_long_curves_are_thinned_before_they_are_averaged():
    runs = [[(i, float(i % 2 + k)) for i in range(1200)] for k in (0, 2)]
    found = mean_curve(runs)
    assert found.shape == (300, 3)
    np.testing.assert_allclose(found[:, 1], 0.5 + 1)  # means of 4 steps, then of both runs
    np.testing.assert_allclose(found[:, 2], np.sqrt(2.0))


def test_nothing_to_draw():
    assert training_figures([]) == training_figures([{}]) == []
    assert training_figures([{"train/loss": [(0, float("nan"))], "lr": [(0, 1.0)]}]) == []
    assert training_figures([{"online_knn": [(1250, 0.14)]}]) == []  # a point is no curve
    assert len(training_figures([{"online_knn": [(0, 0.1), (1250, 0.14)]}])) == 1


def test_a_second_run_gives_a_band(make_run):
    one, two = (dict(make_run(seed=s, quality=q).history) for s, q in ((0, 0.3), (1, 0.9)))
    alone, both = (
        pixels(dict(training_figures(runs))["Mean similarity per rank"])
        for runs in ([one], [one, two])
    )
    blend = 0.25  # of the band, over white
    green = [int(rank_colour(1)[i : i + 2], 16) for i in (1, 3, 5)]
    light = "#" + "".join(f"{round(255 + blend * (part - 255)):02x}" for part in green)
    assert count_near(both, light) > count_near(alone, light) + 500


def test_training_panels(make_run):
    history = dict(make_run().history)
    titles = [title for title, _ in training_figures([history])]
    assert len(titles) == 4
    similarity = dict(training_figures([history]))["Mean similarity per rank"]
    image = pixels(similarity)
    assert all(count_near(image, rank_colour(rank)) > 100 for rank in (0, 1, 2))
    del history["train/similarity_rank_0"]
    image = pixels(dict(training_figures([history]))["Mean similarity per rank"])
    assert count_near(image, rank_colour(0)) == 0
    only_knn = {"online_knn": history["online_knn"]}
    assert [title for title, _ in training_figures([only_knn])] == titles[3:]


def test_thin_keeps_short_curves_and_averages_long_ones():
    short = [(0, 1.0), (5, 2.0), (6, float("inf"))]
    assert thin(short).tolist() == [[0, 1], [5, 2]]
    long = thin([(i, float(i % 2)) for i in range(3000)])
    assert long.shape == (300, 2)
    np.testing.assert_allclose(long[:, 1], 0.5)
    np.testing.assert_allclose(long[:, 0], np.arange(3000).reshape(300, 10).mean(axis=1))
    assert thin([]).shape == (0, 2)
