"""The page, parsed as a browser would."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from rince.core.checks import RinceError, RinceWarning
from rince.evaluation.results import Confusion, Gallery, Map2D, format_metric
from rince.reports import figures
from rince.reports.figures import rank_colour, themed
from rince.reports.gallery import gallery_view
from rince.reports.origins import duration
from rince.reports.page import MAX_BYTES, write_report
from rince.reports.table import comparison_rows

SCRIPT = "<script>alert(1)</script>"
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Elements with their attributes and text; fails on tags that do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[dict] = []
        self.elements: list[dict] = []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {[e['tag'] for e in self.open]}"

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names))
        element = {"tag": tag, "attrs": dict(attrs), "text": "", "within": list(self.open)}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert tag not in VOID
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def find(self, tag, within=None, **attrs):
        return [
            e
            for e in self.elements
            if e["tag"] == tag
            and (within is None or any(outer is within for outer in e["within"]))
            and all(v in e["attrs"].get(k.rstrip("_"), "").split() for k, v in attrs.items())
        ]

    def section(self, name):
        """The section that is linked as #name."""
        (section,) = self.find("section", id=name)
        return section

    def rows(self, table):
        """The first cell of each row of a table -> the other cells, as elements."""
        rows = {}
        for row in self.find("tr", table):
            head, *cells = [e for tag in ("th", "td") for e in self.find(tag, row)]
            if head["attrs"].get("scope") == "row":
                rows[head["text"].strip()] = cells
        return rows

    def key_tables(self, section, folded):
        """The tables of options or versions: key -> texts of its cells."""
        return [
            {key: [cell["text"] for cell in cells] for key, cells in self.rows(table).items()}
            for table in self.find("table", self.section(section), class_="keys")
            if any(e["tag"] == "details" for e in table["within"]) == folded
        ]

    def result_rows(self):
        """label -> [(text, best)] of the results, whose columns are in as many tables as needed."""
        rows = {}
        for table in self.find("table", class_="results"):
            for label, cells in self.rows(table).items():
                rows.setdefault(label, []).extend(
                    (cell["text"].strip(), cell["attrs"].get("class") == "best") for cell in cells
                )
        return rows

    def cards(self, section):
        """The captions of what a section shows side by side."""
        return [e["text"].strip() for e in self.find("figcaption", self.section(section))]


def load(path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(make_run, make_empty_run, tmp_path_factory):
    """Two methods, one with two seeds, and a run that has hardly anything."""
    runs = [
        make_run("rince <out-in> & co", seed=0, quality=0.7),
        make_run("supcon", seed=0, quality=0.5, channels=1, config={"loss.variant": "<none>"}),
        make_run("rince <out-in> & co", seed=1, quality=0.72),
        make_empty_run("empty"),
    ]
    path = tmp_path_factory.mktemp("report") / "new" / "report.html"
    assert write_report(runs, path, title=f'A "title" {SCRIPT}') == path
    return runs, path, load(path)


def test_nothing_is_loaded_from_elsewhere(page):
    _, path, parsed = page
    for element in parsed.elements:
        assert element["tag"] not in {"link", "iframe", "object", "base"}
        for name, value in element["attrs"].items():
            assert not name.startswith("on")
            if name in {"src", "href", "srcset", "action", "poster"}:
                assert value.startswith(("data:image/", "#")), value[:80]
    html = path.read_text(encoding="utf-8")
    assert not re.search(r"https?:|@import|(?<!\n)//[a-z]", re.sub(r"base64,[^\")]*", "", html))
    for target in re.findall(r"url\(([^)]*)", html):
        assert target.startswith(("data:image/", "#"))
    (policy,) = (e["attrs"]["content"] for e in parsed.find("meta") if "http-equiv" in e["attrs"])
    assert policy.startswith("default-src 'none'")
    (script,) = parsed.find("script")  # the page's own, and no other may run
    digest = base64.b64encode(hashlib.sha256(script["text"].encode()).digest()).decode()
    assert policy.endswith(f"script-src 'sha256-{digest}'")
    ids = [e["attrs"]["id"] for e in parsed.elements if "id" in e["attrs"]]
    assert len(ids) == len(set(ids))
    sections = {e["attrs"]["id"] for e in parsed.find("section")}
    assert {e["attrs"]["href"] for e in parsed.find("a")} == {
        f"#{i}" for i in sections - {"results"}
    }


def test_names_are_text_wherever_they_stand(make_run, tmp_path):
    """Of classes, groups, runs, files, outlier sets, options, versions, and texts themselves."""
    evil = f'" onload="x" {SCRIPT} {{{{ 7 * 7 }}}}\n'
    shown = " ".join(evil.split())
    run = make_run(
        f"label {evil}",
        classes=[f"class {i} {evil}" for i in range(10)],
        outliers=(f"outliers {evil}",),
        config={f"option {evil}": f"value {evil}"},
        folder=f"runs/folder {evil}",
        points=20,
        metrics={f"metric {evil}": 0.5},
    )
    evaluation = replace(
        run.evaluation,
        info={f"info {evil}": f"about {evil}"},
        groups=tuple(f"group {i} {evil}" for i in range(10)),
    )
    images = replace(run, evaluation=evaluation, versions={f"package {evil}": f"1 {evil}"})
    gallery = evaluation.gallery
    texts = replace(
        images,
        folder=run.folder / "b",
        evaluation=replace(
            evaluation,
            gallery=replace(
                gallery,
                queries=np.array([f"query {evil}"] * len(gallery.queries)),
                neighbours=np.full(gallery.neighbours.shape[:2], f"neighbour {evil}"),
            ),
        ),
        config={f"option {evil}": f"other value {evil}"},
    )
    parsed = load(write_report([images, texts], tmp_path / f"{SCRIPT[:8]}.html", title=evil))
    assert len(parsed.find("script")) == 1
    assert not [e for e in parsed.elements if any(name.startswith("on") for name in e["attrs"])]
    body = next(e["text"] for e in parsed.elements if e["tag"] == "body")
    for said in (
        *("label", "class 3", "group 1", "outliers", "option", "value", "other value"),
        *("runs/folder", "metric", "about", "package", "1", "query", "neighbour"),
    ):
        assert f"{said} {shown}" in body
    assert any(shown in e["attrs"].get("title", "") for e in parsed.find("figure"))
    assert any(shown in e["attrs"].get("aria-label", "") for e in parsed.find("svg"))
    assert any(shown in e["attrs"].get("data-class", "") for e in parsed.find("path"))
    (first, *_) = (
        e["attrs"]["data-cells"] for e in parsed.find("div") if "data-cells" in e["attrs"]
    )
    assert f"class 3 {shown}" in json.loads(first)["names"]
    (heading,) = parsed.find("h1")
    assert heading["text"] == parsed.find("title")[0]["text"] == shown


def test_table_holds_every_value_and_the_true_best(page):
    runs, _, parsed = page
    comparison = comparison_rows(runs)
    shown = parsed.result_rows()
    assert list(shown) == [row.label for row in comparison.rows]
    assert list(shown) == ["rince <out-in> & co (2 runs)", "supcon", "empty"]
    mean, sd = (0.7 + 0.72) / 2, abs(0.7 - 0.72) / np.sqrt(2)
    assert shown["rince <out-in> & co (2 runs)"][0] == (f"{100 * mean:.1f} ± {100 * sd:.1f}", True)
    assert shown["supcon"][0] == ("50.0", False)
    assert shown["empty"][1] == ("\N{EN DASH}", False)
    compared = 0
    for j, column in enumerate(comparison.columns):
        column_cells = [cells[j] for cells in shown.values()]
        values = {
            i: float(text.split(" ")[0].replace(",", ""))
            for i, (text, _) in enumerate(column_cells)
            if text != "\N{EN DASH}"
        }
        marked = {i for i, (_, best) in enumerate(column_cells) if best}
        if column.key == "seconds":
            assert not marked
            continue
        pick = min if column.key.endswith("FPR95") else max
        assert marked == {i for i, value in values.items() if value == pick(values.values())}
        compared += 1
    assert compared == 8 + 4


def test_every_metric_of_every_run_is_somewhere(page):
    runs, _, parsed = page
    cells = {e["text"] for e in parsed.find("td")}
    keys = {e["text"] for e in parsed.find("th", scope="row")}
    for run in runs:
        for key, value in run.evaluation.metrics.items():
            assert key in keys
            assert format_metric(key, value) in cells


def test_each_section_shows_all_methods_side_by_side(page):
    _, _, parsed = page
    headings = [e["text"] for e in parsed.find("h2")]
    assert headings == [
        "Results",
        "Similarities per rank",
        "Failures",
        "Similarity of the classes",
        "Map of the features",
        "Nearest neighbours",
        "Training",
        "Outliers (out-of-distribution)",
        "Configuration",
        "Versions and time",
    ]
    two = "rince <out-in> & co (2 runs)"
    cards = parsed.cards("similarities")
    assert [card.split(" means")[0] for card in cards] == [two, "supcon"]
    assert "means of 2 runs" in cards[0]
    assert "runs" not in cards[1]
    of_first = "of rince-<out-in>-&-co-0"
    assert parsed.cards("map") == [f"{two} {of_first}", "supcon"]
    assert f"{two} {of_first}" in parsed.cards("neighbours")
    learned, _, given = parsed.cards("classes")  # the ranks that were given to both
    assert "mean of 2 runs" in learned
    assert two in given
    assert "supcon" in given
    sections = {e["attrs"]["id"]: e for e in parsed.find("section")}
    assert "empty: numbers only" in sections["results"]["text"]
    drawings = {name: len(parsed.find("svg", section)) for name, section in sections.items()}
    assert {name: count for name, count in drawings.items() if count} == {
        "similarities": 2,
        "classes": 3,
        "map": 2,
        "training": 2 * 4,
        "ood": 2,  # one a detector
    }
    assert all(e["attrs"]["aria-label"] for e in parsed.find("svg"))
    for section in sections.values():
        assert "What to look at:" in section["text"]


def test_roc_legend_has_one_entry_a_row_with_its_auroc(page):
    runs, _, parsed = page
    key = "ood/cifar10/gaussian/AUROC"
    mean = (runs[0].evaluation.metrics[key] + runs[2].evaluation.metrics[key]) / 2
    shown = parsed.section("ood")["text"]
    assert shown.count(f"rince <out-in> & co (2 runs): {100 * mean:.1f} ± ") == 2
    assert shown.count("supcon: 70.0") == 2
    assert "empty" not in shown


def test_config_lists_only_differences_and_folds_the_rest(page):
    _, _, parsed = page
    (differing,) = parsed.key_tables("config", folded=False)
    (everything,) = parsed.key_tables("config", folded=True)
    assert list(differing) == list(everything) == ["data.root", "loss.variant", "seed"]
    assert differing["seed"] == ["0, 1", "\N{EN DASH}", "\N{EN DASH}"]
    assert differing["loss.variant"] == ["out-in", "<none>", "\N{EN DASH}"]


@pytest.mark.usefixtures("undrawn")
def test_time_and_versions_of_several_runs(make_run, tmp_path):
    runs = [make_run("a", seed=s, points=5, steps=0, seconds=60.0 * (1 + s)) for s in (0, 1)]
    runs.append(make_run("b", points=5, steps=0, seconds=None))
    parsed = load(write_report(runs, tmp_path / "report.html"))
    origin = parsed.section("origin")
    assert f"1 min 30 s ± {60 / np.sqrt(2):.0f} s" in origin["text"]  # of 60 and 120 seconds
    assert "runs/a-0, runs/a-1" in origin["text"]
    assert origin["text"].count("2.14.1") == 2  # not once a run


@pytest.mark.usefixtures("undrawn")
def test_seconds_of_evaluations_are_times_and_what_some_lack_is_said(make_run, tmp_path):
    infos = ({"evaluate_seconds": 20.123456}, {"evaluate_seconds": 40.0, "data": "photos"})
    runs = [make_run("a", seed=s, points=5, steps=0) for s in (0, 1)]
    runs = [
        replace(run, evaluation=replace(run.evaluation, info=info))
        for run, info in zip(runs, infos, strict=True)
    ]
    parsed = load(write_report(runs, tmp_path / "report.html"))
    (cells,) = parsed.key_tables("origin", folded=False)
    sd = (40 - 20.123456) / np.sqrt(2)
    assert cells["evaluation: evaluate_seconds"] == [f"30 s ± {sd:.0f} s"]
    assert cells["evaluation: data"] == ["\N{EN DASH}, photos"]


@pytest.mark.usefixtures("undrawn")
def test_names_and_folders_are_no_difference_between_methods(make_run, tmp_path):
    runs = [
        make_run(
            label, points=5, steps=0, config={"name": label, "output": label, "epochs": epochs}
        )
        for label, epochs in (("a", 1), ("b", 2))
    ]
    parsed = load(write_report(runs, tmp_path / "report.html"))
    tables = [parsed.key_tables("config", folded) for folded in (False, True)]
    assert tables == [
        [{"epochs": ["1", "2"]}],
        [{"epochs": ["1", "2"], "name": ["a", "b"], "output": ["a", "b"]}],
    ]


@pytest.mark.usefixtures("undrawn")
def test_each_detector_has_its_auroc_in_the_legend_though_the_table_shows_two(make_run, tmp_path):
    run = make_run(points=5, steps=0)
    curve = run.evaluation.roc["cifar10", "knn"]
    other = replace(
        run.evaluation,
        roc={**run.evaluation.roc, ("cifar10", "energy"): curve},
        metrics={**run.evaluation.metrics, "ood/cifar10/energy/AUROC": 0.625},
    )
    parsed = load(write_report([replace(run, evaluation=other)], tmp_path / "report.html"))
    assert "62.5" not in {text for cells in parsed.result_rows().values() for text, _ in cells}
    (card,) = (e for e in parsed.find("figure") if "energy detector" in e["text"])
    assert f"{run.label}: 62.5" in card["text"]


def test_over_time_and_runs_evaluated_before_class_maps(make_run, tmp_path):
    run = make_run(old=True, over_time=True, points=5, steps=0)
    parsed = load(write_report([run], tmp_path / "report.html"))
    assert parsed.cards("time") == [run.label]
    shown = parsed.section("classes")
    again = "with the same --ood and other options (all its results are replaced): rince evaluate "
    assert again + str(run.folder) in shown["text"]
    full = load(write_report([make_run(points=5, steps=0)], tmp_path / "report.html"))
    assert not full.find("section", id="time")
    assert again not in full.section("classes")["text"]


@pytest.mark.usefixtures("undrawn")
def test_same_config_and_one_run(make_run, tmp_path):
    one = load(write_report([make_run(outliers=(), steps=0)], tmp_path / "one.html"))
    sections = {e["attrs"]["id"]: e["text"] for e in one.find("section")}
    assert "One method" in sections["config"]
    assert not one.find("td", class_="best")
    assert "ood" not in sections
    assert "1 h 12 min" in sections["origin"]
    assert "2.14.1" in sections["origin"]
    assert "fashion-mnist" in sections["origin"]
    runs = [make_run("a", points=5, steps=0), make_run("b", points=5, steps=0)]
    two = load(write_report(runs, tmp_path / "two.html"))
    assert "All runs have the same configuration." in two.section("config")["text"]
    assert two.key_tables("config", folded=False) == []
    mixed = [runs[0], make_run("b", points=5, steps=0, config={"seed": 0, "loss.variant": "in"})]
    three = load(write_report(mixed, tmp_path / "three.html"))
    assert three.key_tables("config", folded=False) == [
        {"data.root": ["photos", "\N{EN DASH}"], "loss.variant": ["out-in", "in"]}
    ]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [28, 100])
def test_gallery_frames_and_tiles(channels, side, make_run, tmp_path):
    """Each tile shows the right image, in the frame of its own rank."""
    ranks = np.array([[1, 0, 2], [0, 3, -1]])
    greys = np.array([[10, 60, 110, 160], [30, 80, 130, 180]], dtype=np.uint8)
    images = np.broadcast_to(greys[..., None, None, None], (2, 4, side, side + 4, channels)).copy()
    labels = np.array([[1, 0, 2], [0, 2, 1]])
    gallery = Gallery(
        images[:, 0],
        images[:, 1:],
        ranks,
        np.array([[0.91, 0.82, 0.73], [0.64, 0.55, 0.46]]),
        np.array([1, 0]),
        labels,
    )
    names = ("a<b", "c", "d")
    run = make_run(classes=names, points=5, steps=0, outliers=(), old=True)
    run = replace(run, evaluation=replace(run.evaluation, gallery=gallery))
    parsed = load(write_report([run], tmp_path / "report.html"))
    strips = parsed.find("div", class_="strip")
    tiles = [e for e in parsed.elements if e["tag"] == "span" and "role" in e["attrs"]]
    assert (len(strips), len(tiles)) == (2, 8)
    for i, strip in enumerate(strips):
        body = re.search(r"base64,([^)]*)", strip["attrs"]["style"]).group(1)
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(body))).convert("L"))
        width = picture.shape[1] // 4
        assert max(picture.shape[0], width) <= 64
        for j in range(4):
            tile = tiles[4 * i + j]["attrs"]
            colour, place = re.fullmatch(r"--c:(\S+);--x:(\S+)%", tile["style"]).groups()
            # CSS: a background at x % starts x % of (box - image) left of the box.
            left = round(float(place) / 100 * (picture.shape[1] - width))
            np.testing.assert_allclose(picture[:, left : left + width].mean(), greys[i, j], atol=2)
            if j == 0:
                assert colour == "transparent"
                assert "query" in tile["aria-label"]
            else:
                assert colour == themed(rank_colour(int(ranks[i, j - 1])))
                assert tile["aria-label"].startswith(names[labels[i, j - 1]] + ", ")
                assert f"similarity {gallery.similarities[i, j - 1]:.2f}" in tile["aria-label"]
    legend = [e["attrs"]["style"] for e in parsed.find("i", class_="frame")]
    assert legend == [f"--c:{themed(rank_colour(rank))}" for rank in (1, 2, 3, -1, 0)]


def test_gallery_of_texts(make_run, tmp_path):
    run = make_run(queries=3, neighbours=2, points=5, steps=0, classes=("a", "b", "c"), old=True)
    gallery = replace(
        run.evaluation.gallery,
        queries=np.array(["how?", "why?", "when?"]),
        neighbours=np.array([["by car", "by bus"], ["so", "thus"], ["now", "later"]]),
        ranks=np.array([[1, 0], [2, 1], [0, -1]]),
        neighbour_labels=np.array([[0, 1], [2, 1], [1, 0]]),
    )
    run = replace(run, evaluation=replace(run.evaluation, gallery=gallery))
    parsed = load(write_report([run], tmp_path / "report.html"))
    method = parsed.section("neighbours")
    asked = [fold for fold in parsed.find("details", method) if "?" in fold["text"]]
    cells = [[cell["text"] for cell in parsed.find("td", fold)] for fold in asked]
    assert [parsed.find("summary", fold)[0]["text"] for fold in asked] == [
        "how? (a)",
        "why? (b)",
        "when? (c)",
    ]
    assert cells[0] == ["rank 1", "0.97", "by car", "a", "negative", "0.40", "by bus", "b"]
    assert cells[1] == ["rank 2", "0.97", "so", "c", "rank 1", "0.40", "thus", "b"]
    assert cells[2] == ["negative", "0.97", "now", "b", "ignored", "0.40", "later", "a"]
    assert not parsed.find("div", class_="strip")


def test_gallery_keeps_to_its_budget(make_run):
    gallery = make_run(queries=10).evaluation.gallery
    full = gallery_view(gallery, (), 10**9)
    assert len(full["queries"]) == full["total"] == 10
    half = gallery_view(gallery, (), sum(len(query["strip"]) for query in full["queries"]) // 2)
    assert 4 <= len(half["queries"]) <= 5
    assert half["total"] == 10
    # The last query is still there: spread, not cut.
    assert half["queries"][-1] == full["queries"][-1]
    assert half["queries"][-1]["name"] == "class 9"
    assert len(gallery_view(gallery, (), 1)["queries"]) == 1
    texts = replace(
        gallery,
        queries=np.array(["x" * 10] * 10),
        neighbours=np.full(gallery.neighbours.shape[:2], "y" * 6),
    )
    each = 10 + 5 * 6
    assert [len(gallery_view(texts, (), n * each)["queries"]) for n in (10, 5, 1, 0)] == [
        10,
        5,
        1,
        1,
    ]


@pytest.mark.usefixtures("undrawn")
def test_queries_left_out_are_counted(make_run, tmp_path, monkeypatch):
    run = make_run(queries=10, points=5, steps=0, old=True)
    parsed = load(write_report([run], tmp_path / "report.html"))
    assert "of 10 queries" not in parsed.section("neighbours")["text"]
    monkeypatch.setattr("rince.reports.page._GALLERY_CHARACTERS", 1)
    parsed = load(write_report([run], tmp_path / "report.html"))
    assert "1 of 10 queries" in parsed.section("neighbours")["text"]
    assert len(parsed.find("div", class_="strip")) == 1


def test_large_runs_stay_small(make_run, tmp_path):
    names = [f"class number {i}" for i in range(100)]
    runs = [
        make_run(
            f"method {i}",
            seed=i,
            side=96,
            queries=12,
            neighbours=10,
            points=2000,
            classes=names,
            outliers=("near", "far"),
        )
        for i in range(4)
    ]
    path = write_report(runs, tmp_path / "report.html")
    assert path.stat().st_size < MAX_BYTES == 3_000_000
    parsed = load(path)
    assert len(parsed.find("svg")) == 4 * (1 + 1 + 1 + 4) + 1 + 4  # the given ranks are the same
    assert len(parsed.find("div", class_="strip")) >= 4


def test_detail_goes_before_the_limit_does(make_run, tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 255, (200, 32, 32, 3)).astype(np.uint8)
    run = make_run(steps=0, queries=1, outliers=())
    thumbnails = replace(run.evaluation.map_2d, thumbnails=noise)
    run = replace(run, evaluation=replace(run.evaluation, map_2d=thumbnails))
    path = write_report([run], tmp_path / "report.html")
    full = path.stat().st_size

    def shrunk(limit):
        monkeypatch.setattr("rince.reports.page.MAX_BYTES", limit)
        return load(write_report([run], path))

    assert len(shrunk(full).find("svg")) == 4
    assert path.stat().st_size < full
    assert not shrunk(40_000).find("svg")
    assert path.stat().st_size < 40_000
    assert "Numbers only" in load(path).section("results")["text"]
    with pytest.warns(RinceWarning, match=r"\d MB"):
        shrunk(10)


def test_nothing_is_drawn_twice_and_as_many_rows_as_fit(make_run, tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 255, (200, 32, 32, 3)).astype(np.uint8)
    runs = []
    for i in range(3):
        run = make_run(f"m{i}", seed=i, steps=0, queries=1, outliers=(), old=True)
        map_2d = replace(run.evaluation.map_2d, thumbnails=noise)
        runs.append(replace(run, evaluation=replace(run.evaluation, map_2d=map_2d)))
    path, drawn = tmp_path / "report.html", []

    def counted(figure, words, number):
        drawn.append(figure)
        return f'<svg id="a{number}" data-drawn="{"x" * 20_000}"></svg>'

    monkeypatch.setattr(figures, "svg_of", counted)

    def written(limit):
        drawn.clear()
        monkeypatch.setattr("rince.reports.page.MAX_BYTES", limit)
        page = load(write_report(runs, path))
        assert path.stat().st_size < limit
        assert len(drawn) == len(set(drawn)) <= 3  # a histogram each, whatever was tried
        ids = [x["attrs"]["id"] for x in page.elements if "id" in x["attrs"]]
        assert len(ids) == len(set(ids))
        return path.stat().st_size, page.section("results")["text"], len(page.find("svg")) / 2

    full, text, shown = written(MAX_BYTES)
    assert ("there are too many" in text, shown) == (False, 3)
    coarse, text, shown = written(full)
    assert ("there are too many" in text, shown) == (False, 3)
    assert coarse < full
    least, text, shown = written(coarse * 3 // 4)
    assert 0 < shown < 3
    assert f"of the first {shown:.0f} of the 3 rows: there are too many" in text
    assert written(least)[2] == shown - 1


@pytest.mark.usefixtures("undrawn")
def test_an_old_report_is_replaced_whole_or_not_at_all(make_run, tmp_path, monkeypatch):
    run = make_run(points=5, steps=0, queries=1)
    path = tmp_path / "report.html"
    path.write_text("old")

    def fail(source, target):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(RinceError, match=r"report\.html.*No space left on device"):
            write_report([run], path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    write_report([run], path)
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("undrawn")
def test_refusals(make_run, tmp_path):
    run = make_run(points=5, steps=0, queries=1)
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "report.html", tmp_path / "folder"):
        with pytest.raises(RinceError, match=re.escape(str(path))):
            write_report([run], path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]
    with pytest.raises(ValueError, match="run"):
        write_report([], tmp_path / "report.html")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "\N{EN DASH}"),
        (float("nan"), "\N{EN DASH}"),
        (0.04, "0.0 s"),
        (59.7, "1 min 0 s"),
        (3599.6, "1 h 0 min"),
        (90061, "25 h 1 min"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_failures_by_class_and_by_pair(make_run, tmp_path):
    """Accuracies over all runs of a method, and the pairs with the most severe ones first."""
    one = Confusion(*np.array([[0, 0, 6, 1], [0, 1, 3, 2], [0, 2, 1, 0], [1, 1, 9, 1]]).T)
    two = Confusion(*np.array([[0, 0, 8, 1], [0, 2, 2, 0], [1, 1, 5, 1], [1, 0, 4, 2]]).T)
    runs = [
        make_run("a", seed=seed, classes=("cat", "<dog>", "car"), points=5, steps=0, outliers=())
        for seed in (0, 1)
    ]
    runs = [
        replace(run, evaluation=replace(run.evaluation, confusion=confusion))
        for run, confusion in zip(runs, (one, two), strict=True)
    ]
    right = replace(one, query=np.array([0, 1]), nearest=np.array([0, 1]))
    right = replace(right, count=np.array([1, 2]), rank=np.array([1, 1]))
    none = replace(runs[0].evaluation.worst_queries, queries=np.zeros(0, np.int64))
    perfect = replace(runs[0].evaluation, confusion=right, worst_queries=none)
    others = [
        replace(runs[0], label="perfect", evaluation=perfect),
        make_run("old", old=True, points=5, steps=0, outliers=(), classes=("cat", "<dog>", "car")),
    ]
    parsed = load(write_report([*runs, *others], tmp_path / "report.html"))
    section = parsed.section("failures")
    (table,) = parsed.find("table", section, class_="classes")
    cells = {name: [e["text"] for e in row] for name, row in parsed.rows(table).items()}
    # Of the class cat 6 of 10 and 8 of 10; the least accurate class first.
    assert cells == {"cat": ["70.0", "100.0", "10"], "<dog>": ["77.8", "100.0", "9"]}
    assert list(cells) == ["cat", "<dog>"]
    (table,) = parsed.find("table", section, class_="confused")
    shown = [
        [e["text"].strip() for tag in ("th", "td") for e in parsed.find(tag, row)]
        for row in parsed.find("tr", table)[1:]
    ]
    assert shown == [
        ["cat", "car", "negative", "15.0 %"],
        ["<dog>", "cat", "rank 2", "22.2 %"],
        ["cat", "<dog>", "rank 2", "15.0 %"],
    ]
    assert "Every nearest neighbour is of the class of its query" in section["text"]
    assert "perfect: the nearest neighbour of every query is of rank 1" in section["text"]
    assert "old: not stored" in section["text"]
    assert "a (2 runs): " not in section["text"]
    of_first = [card for card in parsed.cards("failures") if "of a-0" in card]
    assert [card.startswith("a (2 runs)") for card in of_first] == [True]


def test_map_points_have_their_class_their_place_and_their_thumbnail(make_run, tmp_path):
    """Point i in the order of the page is shown by the i-th tile of the sheet."""
    count = 70
    greys = np.linspace(10, 250, count).astype(np.uint8)
    angle = np.linspace(0, 6, count)
    xy = np.stack([np.cos(angle), 0.5 * np.sin(angle)], axis=1)
    fine = np.arange(count) % 3
    pictures = np.broadcast_to(greys[:, None, None, None], (count, 8, 8, 1)).copy()
    run = make_run(classes=("a", "b", "c"), steps=0, outliers=())
    points = Map2D(xy, fine, fine // 2, pictures)
    named = replace(run.evaluation, map_2d=points, groups=("group 0", "group 1"))
    parsed = load(write_report([replace(run, evaluation=named)], tmp_path / "report.html"))
    (map_2d,) = parsed.find("svg", class_="map")
    (sheet,) = parsed.find("img", id=map_2d["attrs"]["data-sheet"])
    body = sheet["attrs"]["src"].partition(",")[2]
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(body))).convert("L"))
    width, height = map(int, map_2d["attrs"]["data-tile"].split())
    columns = int(map_2d["attrs"]["data-columns"])
    assert picture.shape == (-(-count // columns) * height, columns * width)
    found = []
    for path in parsed.find("path", map_2d):
        for x, y in re.findall(r"M(\d+) (\d+)h0", path["attrs"]["d"]):
            found.append((int(x), int(y), path["attrs"]["data-class"], path["attrs"]["data-group"]))
    assert len(found) == count
    top = max(y for _, y, *_ in found)
    assert map_2d["attrs"]["viewbox"] == f"0 0 1000 {top + 20}"
    scale = 960 / (xy[:, 0].max() - xy[:, 0].min())
    shown = []
    for i, (x, y, name, group) in enumerate(found):
        row, column = divmod(i, columns)
        tile = picture[row * height : (row + 1) * height, column * width : (column + 1) * width]
        item = int(np.abs(greys.astype(int) - tile.mean()).argmin())
        shown.append(item)
        assert name == "abc"[fine[item]]
        assert group == f"group {fine[item] // 2}"
        assert abs(x - 20 - scale * (xy[item, 0] - xy[:, 0].min())) <= 2
        assert abs(y - 20 - scale * (xy[:, 1].max() - xy[item, 1])) <= 2
    assert sorted(shown) == list(range(count))


def test_texts_stand_beside_the_points_of_a_map(make_run, tmp_path):
    run = make_run(steps=0, points=6, outliers=())
    texts = np.array([f"text {i} <b>" for i in range(6)])
    points = replace(run.evaluation.map_2d, thumbnails=texts)
    run = replace(run, evaluation=replace(run.evaluation, map_2d=points))
    (map_2d,) = load(write_report([run], tmp_path / "report.html")).find("svg", class_="map")
    assert sorted(json.loads(map_2d["attrs"]["data-texts"])) == sorted(texts)


def test_cells_of_the_class_matrix_hold_their_values(make_run, tmp_path):
    run = make_run(steps=0, points=5, outliers=())
    shown = run.evaluation.class_similarity
    order = np.array([3, 1, 2, 0, 4, 5, 6, 7, 8, 9])
    learned = shown.learned.copy()
    learned[2, 5] = np.nan
    shown = replace(shown, order=order, learned=learned)
    run = replace(run, evaluation=replace(run.evaluation, class_similarity=shown))
    parsed = load(write_report([run], tmp_path / "report.html"))
    first, second = (
        json.loads(e["attrs"]["data-cells"])
        for e in parsed.find("div")
        if "data-cells" in e["attrs"]
    )
    assert first["names"] == second["names"] == [run.evaluation.classes[i] for i in order]
    assert first["ranks"] == second["ranks"] == shown.given.ravel().tolist()
    assert second["cosines"] is None
    for value, cosine in zip(first["cosines"], learned.ravel().tolist(), strict=True):
        assert value is None if np.isnan(cosine) else abs(value - 100 * cosine) <= 0.51
    # Names are on the axes too.
    (svg,) = parsed.find("svg", parsed.section("classes"))[:1]
    labels = [e["text"] for e in parsed.find("text", svg)]
    assert labels.count("bus") == labels.count("cat <wild> & \N{HORIZONTAL ELLIPSIS}") == 2


def test_of_more_classes_than_fit_the_page_holds_the_names(make_run, tmp_path):
    names = [f"class number {i}" for i in range(101)]
    run = make_run(steps=0, points=5, outliers=(), classes=names)
    parsed = load(write_report([run], tmp_path / "report.html"))
    (cells, _) = (
        json.loads(e["attrs"]["data-cells"])
        for e in parsed.find("div")
        if "data-cells" in e["attrs"]
    )
    assert cells == {"names": names, "cosines": None, "ranks": None}
    assert "class number 17" in parsed.section("classes")["text"]


@pytest.mark.usefixtures("undrawn")
def test_rows_and_cards_say_what_they_were_measured_on_where_it_differs(make_run, tmp_path):
    runs = [make_run(label, points=5, outliers=(), steps=0) for label in "abc"]
    infos = ({"data": "birds", "test_images": 7}, {"data": "birds", "test_images": 8}, {})
    runs = [
        replace(run, evaluation=replace(run.evaluation, info=info))
        for run, info in zip(runs, infos, strict=True)
    ]
    parsed = load(write_report(runs, tmp_path / "report.html"))
    named = ["a birds, 7 test items", "b birds, 8 test items", "c"]
    assert list(parsed.result_rows()) == named
    assert parsed.cards("similarities") == named
    assert (
        "NOTE: the runs were measured with different numbers of test items: 7, 8"
        in (parsed.section("results")["text"])
    )
    alike = load(write_report([runs[0], runs[2]], tmp_path / "report.html"))
    assert list(alike.result_rows()) == ["a", "c"]


@pytest.mark.usefixtures("undrawn")
def test_results_are_cut_into_tables_that_fit_between_groups_of_columns(make_run, tmp_path):
    run = make_run(points=5, steps=0, outliers=[f"set {i}" for i in range(6)])
    parsed = load(write_report([run], tmp_path / "report.html"))
    tables = parsed.find("table", class_="results")
    sizes = [len(next(iter(parsed.rows(table).values()))) for table in tables]
    assert max(sizes) <= 17
    comparison = comparison_rows([run])
    assert sum(sizes) == len(comparison.columns)
    groups = [e["text"] for t in tables for e in parsed.find("th", t, scope="colgroup")]
    assert groups == list(dict.fromkeys(c.group for c in comparison.columns))
    for table in tables:  # a click on a heading finds its column
        places = [int(e["attrs"]["data-column"]) for e in parsed.find("button", table)]
        assert places == list(range(len(places)))


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_a_browser_sorts_and_shows_what_is_under_the_pointer(make_run, tmp_path):
    few = {"steps": 0, "outliers": ()}
    runs = [make_run(f"run {i}", seed=i, quality=q, **few) for i, q in enumerate((0.5, 0.9, 0.7))]
    missing = {k: v for k, v in runs[0].evaluation.metrics.items() if k != "probe/fine"}
    runs.append(make_run("none", metrics=missing, **few))
    html = write_report(runs, tmp_path / "report.html").read_text(encoding="utf-8")
    probe = """<script>{
    const out = [];
    const rows = () => [...document.querySelector(".results").tBodies[0].rows]
      .map((row) => row.cells[0].textContent.trim()).join();
    const button = document.querySelectorAll(".results button")[1];
    for (let i = 0; i < 2; i++) { button.click(); out.push(rows()); }
    const point = (element, x, y) => {
      const box = element.getBoundingClientRect();
      element.dispatchEvent(new PointerEvent("pointermove",
        { clientX: box.left + x * box.width, clientY: box.top + y * box.height }));
      const tip = document.getElementById("tip");
      out.push(tip.hidden ? "hidden" : [...tip.querySelectorAll("div")].map((e) => e.textContent));
    };
    const map = document.querySelector("svg.map"), path = map.querySelector("path");
    const [, x, y] = path.getAttribute("d").match(/M([0-9]+) ([0-9]+)/);
    const height = Number(map.getAttribute("viewBox").split(" ")[3]);
    point(map, x / 1000, y / height);
    out.push([path.dataset.class, path.dataset.group]);
    out.push(document.querySelectorAll("#tip canvas").length);
    const cells = document.querySelector("[data-cells] svg");
    const [left, top, right, bottom] = cells.dataset.box.split(" ").map(Number);
    point(cells, left + 0.35 * (right - left), top + 0.05 * (bottom - top));
    point(cells, 0.01, 0.01);
    document.body.textContent = "<<" + JSON.stringify(out) + ">>";
    }</script></body>"""
    page = re.sub(r"script-src '[^']*'", "script-src 'unsafe-inline'", html)
    probe_page = tmp_path / "probe.html"
    probe_page.write_text(page.replace("</body>", probe), encoding="utf-8")
    done = subprocess.run(
        [
            *["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"],
            str(probe_page),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = json.loads(unescape(re.search(r"&lt;&lt;(.*)&gt;&gt;", done.stdout).group(1)))
    falling, rising, point, named, thumbnails, cell, outside = found
    assert falling == "run 1,run 2,run 0,none"
    assert rising == "run 0,run 2,run 1,none"
    assert point == named
    assert thumbnails == 1
    classes = runs[0].evaluation.classes
    learned = runs[0].evaluation.class_similarity.learned[0, 3]
    assert cell == [
        f"test: {classes[0]}",
        f"training: {classes[3]}",
        f"mean cosine {learned:.2f}",
        "given: negative",
    ]
    assert outside == "hidden"
