"""Drawings: what goes into them by formula, what comes out by looking at the pixels."""

from __future__ import annotations

import io
import itertools
import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from rince.evaluation.results import Histograms, RocCurve, TimeCurve
from rince.reports import figures


def pixels(figure) -> np.ndarray:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=170)
    return np.asarray(Image.open(stream).convert("RGB"))


def count_near(image: np.ndarray, colour: str, within: int = 12) -> int:
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(image.astype(int) - wanted).max(axis=-1) <= within).sum())


def test_ranks_have_colours_of_their_own_and_names():
    colours = [figures.rank_colour(rank) for rank in (-1, 0, 1, 2, 3, 4, 5, 6)]
    assert len(set(colours)) == len(colours)
    assert [figures.rank_name(rank) for rank in (-1, 0, 1, 12)] == [
        "ignored",
        "negative",
        "rank 1",
        "rank 12",
    ]
    # Green, blue and red must be told apart by deuteranopes: by more than their red and green.
    rgb = {r: [int(figures.rank_colour(r)[i : i + 2], 16) for i in (1, 3, 5)] for r in (0, 1, 2)}
    for a, b in itertools.combinations(rgb.values(), 2):
        assert abs(a[2] - b[2]) > 50


def test_series_styles_do_not_repeat_for_thirty_runs():
    assert len({figures.series_style(i) for i in range(30)}) == 30


def test_densities_have_area_one_and_drop_empty_ranks():
    edges = np.array([-1.0, 0.0, 0.5, 1.0])
    counts = {0: np.array([6, 2, 0]), 1: np.array([0, 1, 3]), 2: np.array([0, 0, 0])}
    found = figures.densities(Histograms(edges, counts))
    assert list(found) == [1, 0]
    np.testing.assert_allclose(found[1], [0, 1 / 4 / 0.5, 3 / 4 / 0.5])
    np.testing.assert_allclose(found[0], [6 / 8 / 1.0, 2 / 8 / 0.5, 0])


def test_similarity_range_spans_all_runs():
    edges = np.linspace(-1, 1, 5)
    first = Histograms(edges, {1: np.array([0, 0, 1, 0])})
    second = Histograms(edges, {0: np.array([0, 2, 0, 0]), 1: np.array([0, 0, 0, 0])})
    assert figures.similarity_range([first, second]) == (-0.5, 0.5)
    assert figures.similarity_range([Histograms(edges, {1: np.zeros(4, int)})]) is None


def test_histogram_draws_each_rank_in_its_colour(make_run):
    histograms = make_run().evaluation.histograms
    image = pixels(figures.histogram_figure([histograms]))
    for rank in (0, 1, 2):
        assert count_near(image, figures.rank_colour(rank)) > 200
    assert count_near(image, figures.rank_colour(3)) < 50
    # The negatives of this run lie left of rank 1.
    left = [
        np.abs(image.astype(int) - [int(c[i : i + 2], 16) for i in (1, 3, 5)]).max(axis=-1) <= 12
        for c in (figures.rank_colour(0), figures.rank_colour(1))
    ]
    below_legend = slice(image.shape[0] // 4, None)
    centres = [np.nonzero(mask[below_legend])[1].mean() for mask in left]
    assert centres[0] < centres[1]


def test_nothing_to_draw_is_none():
    assert figures.histogram_figure([Histograms(np.linspace(-1, 1, 3), {})]) is None
    assert figures.map_figure(np.zeros((0, 2)), np.zeros(0, int), {}) is None


def test_map_colours_points_by_label():
    xy = np.array([[0.0, 0.0], [1.0, 1.0]]).repeat(40, axis=0)
    labels = np.array([3, 7]).repeat(40)
    colours = figures.class_colours(labels)
    assert set(colours) == {3, 7}
    image = pixels(figures.map_figure(xy, labels, colours))
    middle = image.shape[1] // 2
    assert count_near(image[:, :middle], colours[3], 40) > 20
    assert count_near(image[:, middle:], colours[7], 40) > 20
    assert count_near(image[:, :middle], colours[7], 40) == 0


def test_class_colours_are_distinct_and_siblings_are_neighbours():
    labels = np.arange(100)
    parents = labels % 20
    colours = figures.class_colours(labels, parents)
    assert len(set(colours.values())) == 100
    order = list(colours)
    assert [label % 20 for label in order] == sorted(parents.tolist())
    assert figures.class_colours(labels[::-1], parents[::-1]) == colours


def test_roc_draws_every_curve():
    rates = np.linspace(0, 1, 50)
    styles = [figures.series_style(i) for i in range(3)]
    curves = [(RocCurve(rates, rates ** (1 / (i + 2))), *styles[i]) for i in range(3)]
    image = pixels(figures.roc_figure(curves))
    for colour, _ in styles:
        assert count_near(image, colour) > 200
    assert count_near(image, figures.series_style(3)[0]) == 0


def test_densities_of_several_runs_are_their_mean():
    edges = np.array([-1.0, 0.0, 1.0])
    counts = ({1: [1, 3], 0: [2, 0]}, {1: [2, 2], 0: [0, 0]}, {1: [4, 0]})
    runs = [Histograms(edges, {r: np.array(c) for r, c in of.items()}) for of in counts]
    other = Histograms(edges * 2, {1: np.array([9, 0])})  # of other bins: not averaged
    found = figures.mean_densities([*runs, other])
    assert list(found) == [1, 0]
    ones = np.array([[1 / 4, 3 / 4], [2 / 4, 2 / 4], [4 / 4, 0]])  # bins of width 1
    np.testing.assert_allclose(found[1][0], ones.sum(axis=0) / 3)
    sd = np.sqrt(((ones - ones.mean(axis=0)) ** 2).sum(axis=0) / (3 - 1))
    np.testing.assert_allclose(found[1][1], sd)
    np.testing.assert_allclose(found[0], [[1, 0], [0, 0]])  # one run has negatives: no spread


def test_time_curves_of_several_runs_and_those_of_other_clips(make_run):
    one, two = (make_run(quality=q, over_time=True).evaluation.time_curve for q in (0.4, 0.8))
    assert figures.time_figure([]) is None
    alone = pixels(figures.time_figure([one]))
    both = pixels(figures.time_figure([one, two]))
    assert count_near(alone, figures.rank_colour(2)) > 200
    assert count_near(alone, figures.rank_colour(0)) > 100
    assert not np.array_equal(alone, both)
    shorter = TimeCurve(two.seconds[:2], two.similarity[:2], two.pairs[:2], 0.1)
    assert np.array_equal(pixels(figures.time_figure([one, shorter])), alone)


def test_drawings_ignore_the_users_style_leave_it_alone_and_repeat(make_run):
    import matplotlib

    histograms = make_run().evaluation.histograms
    plain = figures.svg_of(figures.histogram_figure([histograms]), "a", 1)
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 20}):
        styled = figures.svg_of(figures.histogram_figure([histograms]), "a", 1)
        assert matplotlib.rcParams["font.size"] == 20
    assert plain == styled


def test_svg_keeps_labels_and_shapes_and_names_nothing_twice():
    """Numbers of the drawing are rounded, those that are read are not."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 4))
    axes = figure.add_axes((0.25, 0.1, 0.5, 0.8))
    axes.plot([0, 1], [0, 1], "o", color="#123456")
    axes.set_xticks([0.125], ["0.125 <#654321>"])
    texts = [figures.svg_of(figure, "a < b", number) for number in (1, 2)]
    roots = [ElementTree.fromstring(text) for text in texts]
    assert [root.get("aria-label") for root in roots] == ["a < b"] * 2
    assert roots[0].get("data-box") == "0.2500 0.1000 0.7500 0.9000"
    for root, text in zip(roots, texts, strict=True):
        assert "0.125 <#654321>" in [e.text for e in root.iter("text")]
        ids = [e.get("id") for e in root.iter() if e.get("id")]
        uses = [e.get("href") for e in root.iter("use")]
        assert len(ids) == len(set(ids))
        assert uses
        assert {use[1:] for use in uses} <= set(ids)
        assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(ids)
        # The marker of the point (1, 1), in points of 1/72 inch from the upper left.
        at = [(float(e.get("x")), float(e.get("y"))) for e in root.iter("use")]
        inner = 1 / 1.1 * 0.5 + 0.5 / 22  # matplotlib leaves a margin of 5 % about the data
        wanted = (288 * (0.25 + inner), 288 * (0.9 - inner * 0.8 / 0.5))
        assert min(abs(x - wanted[0]) + abs(y - wanted[1]) for x, y in at) < 0.5
        assert "var(--k123456)" in text
        assert not re.search(r"[:;\" ]#[0-9a-f]{6}[;\"]", text)
    assert not {e.get("id") for e in roots[0].iter()} & {e.get("id") for e in roots[1].iter()} - {
        None
    }
    rules = figures.theme_rules(f"{texts[0]} {figures.themed('#abcdef')}")
    assert "--k123456:color-mix(in srgb,#123456 " in rules
    assert "--kabcdef:" in rules
    assert "--k654321" not in rules


def test_a_notebook_shows_a_figure(make_run):
    figure = figures.histogram_figure([make_run().evaluation.histograms])
    shown = Image.open(io.BytesIO(figure._repr_png_()))
    assert shown.size == (round(4.2 * 120), round(2.9 * 120))


def test_no_pyplot_and_no_matplotlib_until_drawn():
    code = (
        "import sys, rince.reports.page as page, rince.reports.figures as f, numpy as np\n"
        "assert 'matplotlib' not in sys.modules\n"
        "f.map_figure(np.ones((2, 2)), np.zeros(2, int), {0: '#000000'})\n"
        "assert 'matplotlib.figure' in sys.modules\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
