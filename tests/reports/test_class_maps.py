"""Heat maps of the classes: means over the runs by formula, and what is drawn where."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_figures import pixels

from rince.reports.class_maps import (
    class_maps,
    given_figure,
    group_starts,
    learned_figure,
    mean_learned,
    rank_levels,
)

GROUPS = np.array([0, 0, 1, 1])
GIVEN = np.array([[1, 2, 0, 0], [2, 1, 0, -1], [0, 0, 1, 2], [0, 0, 2, 1]])


def test_learned_is_the_mean_over_runs_of_the_same_classes(make_run):
    runs = [make_run(seed=seed).evaluation for seed in range(3)]
    moved = replace(runs[2].class_similarity, order=runs[2].class_similarity.order[::-1])
    other = replace(runs[2], class_similarity=moved)  # its rows are other classes
    old = make_run(old=True).evaluation
    mean, count = mean_learned([old, *runs[:2], other])
    each = [run.class_similarity.learned.astype(np.float64) for run in runs[:2]]
    np.testing.assert_allclose(mean, (each[0] + each[1]) / 2)
    assert count == 2


def test_captions_say_of_how_many_runs_and_rows_are_named_by_group(make_run):
    def learned_caption(evaluations):
        return class_maps(evaluations)["caption"]

    runs = [make_run(seed=seed).evaluation for seed in range(2)]
    maps = class_maps(runs)
    assert len(maps["groups"]) == len(set(runs[0].class_similarity.groups.tolist()))
    assert maps["groups"][0] == "group 0: cat <wild> & tame, dog, fox"
    old = make_run(old=True).evaluation
    assert class_maps([old]) is None
    assert class_maps([]) is None
    assert "2 runs" in learned_caption(runs)
    assert "runs" not in learned_caption(runs[:1])
    assert "1 of 3 runs" in learned_caption([old, runs[0], old])
    assert "2 of 3 runs" in learned_caption([*runs, old])


def test_levels_and_starts():
    assert rank_levels(GIVEN) == [0, 2, 1]
    assert rank_levels(np.array([[1, -1], [3, 2]])) == [3, 2, 1]
    assert group_starts(GROUPS) == [0, 2, 4]
    assert group_starts(np.arange(3)) == [0, 1, 2, 3]


def block(picture, i, j, count=4):
    """The colour in the middle of a cell."""
    image = pixels(picture).astype(int)
    # The map is the largest square that is not white at its border: found by its own pixels.
    dark = np.abs(image - 255).max(axis=-1) > 40
    columns = np.nonzero(dark[: image.shape[0] // 2].mean(axis=0) > 0.6)[0]
    rows = np.nonzero(dark[:, columns[0] : columns[-1]].mean(axis=1) > 0.8)[0]
    left, right, top = columns[0], columns[-1], rows[0]
    side = (right - left) / count
    y, x = round(top + (i + 0.3) * side), round(left + (j + 0.3) * side)
    return image[y, x]


def test_given_ranks_are_brighter_the_better_and_ignored_pairs_grey():
    picture = given_figure(GIVEN, GROUPS)
    light = {
        rank: block(picture, *place).sum()
        for rank, place in {1: (0, 0), 2: (0, 1), 0: (0, 2)}.items()
    }
    assert light[1] > light[2] > light[0]
    assert block(picture, 1, 3) == pytest.approx([0xBB] * 3, abs=6)
    assert (block(picture, 0, 0) == block(picture, 3, 3)).all()


def test_learned_similarities_are_brighter_the_higher_and_unknown_ones_grey():
    learned = np.array([[0.9, 0.5, 0.1, 0.1], [0.5, 0.9, 0.1, np.nan], *[[0.1] * 4] * 2])
    picture = learned_figure(learned, GROUPS)
    high, middle, low = (block(picture, 0, j).sum() for j in (0, 1, 2))
    assert high > middle > low
    assert block(picture, 1, 3) == pytest.approx([0xBB] * 3, abs=6)
    learned_figure(np.full((2, 2), np.nan), np.array([0, 1]))  # no class has both sides
