"""The report: one HTML file that needs nothing else, to open, mail or archive.

What is shown stands in ``report.html.j2``; here and in the modules beside it are its numbers and
drawings.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rince.core.checks import import_extra, require, warn
from rince.core.files import written
from rince.evaluation.results import shown_metric
from rince.reports import figures
from rince.reports.methods import SHEET_COLUMNS, method_drawings, with_detail
from rince.reports.origins import differing_options, options_of, origins_of
from rince.reports.run_report import RunReport, distinct_names, one_line
from rince.reports.table import (
    MISSING,
    Comparison,
    comparison_rows,
    data_notes,
    differences,
    differences_to,
    mean_cell,
    own_levels,
    paired_legend,
)

MAX_BYTES = 3_000_000

_DETAILS = (1.0, 0.4, 0.2)

_GALLERY_CHARACTERS = 1_000_000  # of all methods together
_MAX_COLUMNS = 17  # of results that 1280 pixels have room for
_MAX_CHIPS = 40  # a longer legend is folded


def write_report(
    runs: Sequence[RunReport],
    path: Path,
    *,
    title: str = "Comparison of runs",
    baseline: str | None = None,
) -> Path:
    """Write the report of one or more runs as a single HTML file.

    It loads nothing from anywhere and stays below 3 MB (with more runs, maps get coarser and
    galleries shorter; then the first ones alone are drawn). ``baseline``: also show the differences
    to the runs of this label, seed by seed. An older report at ``path``, which is returned, is
    replaced whole or not at all.
    """
    require(len(runs) > 0, "a report needs at least one run, got none")
    page = _page_that_fits(_Report(runs, title, baseline))
    if len(page) >= MAX_BYTES:
        warn(
            f"the report of {len(runs)} runs is {len(page) / 1e6:.1f} MB even without pictures of "
            "each run: compare fewer runs at a time for a page that is easy to mail"
        )
    with written(path, "report") as part:
        part.write_bytes(page)
    return path


def _page_that_fits(report: _Report) -> bytes:
    """With as much detail as the limit allows, or else with the drawings of as many rows."""
    too_many = len(report.rows)
    for detail in _DETAILS:
        with contextlib.suppress(_TooLong):
            return report.page(too_many, detail)
    drawn, page = 0, report.page(0)
    while too_many - drawn > 1:
        count = (drawn + too_many) // 2
        try:
            drawn, page = count, report.page(count, _DETAILS[-1])
        except _TooLong:
            too_many = count
    return page


class _TooLong(Exception):
    """The drawings alone are longer than a page may be, or the page is."""


class _Report:
    """Pages of some runs. What they have in common is made once, drawings too: these take nearly
    all of the time."""

    def __init__(self, runs: Sequence[RunReport], title: str, baseline: str | None) -> None:
        comparison = comparison_rows(runs)
        self.rows = comparison.rows
        limits = figures.similarity_range([run.evaluation.histograms for run in runs])
        self._drawings = functools.cache(lambda i: method_drawings(self.rows[i], limits))
        self._svgs: dict[Any, str] = {}  # of figures
        options = options_of(self.rows)
        self._shown = {
            "title": title,
            "comparison": comparison,
            "differences": differences(runs),
            "data_notes": data_notes(self.rows),
            "baseline": baseline,
            "paired": None if baseline is None else differences_to(comparison, baseline),
            "colours": {
                row.label: figures.themed(figures.series_style(i)[0])
                for i, row in enumerate(self.rows)
            },
            "run_names": distinct_names(runs),
            "metrics": {
                shown_metric(key, own_levels(runs)): [mean_cell(key, [run]).text for run in runs]
                for key in dict.fromkeys(key for run in runs for key in run.evaluation.metrics)
            },
            "outliers": _outliers(comparison),
            "options": options,
            "differing_options": differing_options(options),
            "origins": origins_of(self.rows),
        }

    def page(self, count: int, detail: float = 0) -> bytes:
        """The whole document, with the drawings of the first ``count`` rows; ``detail`` in [0, 1]
        scales their maps and galleries.

        Raises:
            _TooLong: it is, but could be without these drawings.
        """
        left = MAX_BYTES

        def svg(figure: Any, words: str) -> str:
            nonlocal left
            if figure not in self._svgs:
                self._svgs[figure] = figures.svg_of(figure, one_line(words), len(self._svgs))
            left -= len(self._svgs[figure])
            if count and left <= 0:
                raise _TooLong
            return self._svgs[figure]

        characters = int(detail * _GALLERY_CHARACTERS / max(1, count))
        methods = [with_detail(self._drawings(i), characters, detail) for i in range(count)]
        sheets = list(dict.fromkeys(m["map"]["sheet"] for m in methods if m["map"]))
        page = _render(svg, methods=methods, sheets=sheets, **self._shown).encode("utf-8")
        if count and len(page) >= MAX_BYTES:
            raise _TooLong
        return page


def _render(draw: Callable[[Any, str], str], **shown: Any) -> str:
    jinja2 = import_extra("jinja2", "train")
    markup = import_extra("markupsafe", "train").Markup
    folder = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_on_one_line,
    )
    script = (folder / "page.js").read_text(encoding="utf-8")
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    environment.globals.update(
        svg=lambda figure, words: markup(draw(figure, words)),
        script=markup(script),
        script_digest=base64.b64encode(digest).decode("ascii"),
        themed=figures.themed,
        column_blocks=_column_blocks,
        class_order=_class_order,
        paired_legend=paired_legend,
        rank_colour=lambda rank: figures.themed(figures.rank_colour(rank)),
        rank_name=figures.rank_name,
        missing=MISSING,
        max_chips=_MAX_CHIPS,
        sheet_columns=SHEET_COLUMNS,
    )
    page: str = environment.get_template("report.html.j2").render(shown)
    return page.lstrip().replace("/* colours */", figures.theme_rules(page), 1)


def _column_blocks(comparison: Comparison) -> list[list[tuple[str, list[int]]]]:
    """The columns by group, in as many tables as a screen of 1280 pixels asks for."""
    blocks: list[list[tuple[str, list[int]]]] = [[]]
    indices = range(len(comparison.columns))
    for name, group in itertools.groupby(indices, lambda j: comparison.columns[j].group):
        members = list(group)
        if blocks[-1] and sum(len(x) for _, x in blocks[-1]) + len(members) > _MAX_COLUMNS:
            blocks.append([])
        blocks[-1].append((name, members))
    return blocks


def _class_order(methods: Sequence[dict[str, Any]]) -> list[tuple[str, tuple[float, int]]]:
    """Of all classes, the least accurate first: (mean accuracy of the methods, test items)."""
    by_class: dict[str, list[tuple[float, int]]] = {}
    for method in methods:
        for name, of_class in method["confusion"]["accuracy"].items():
            by_class.setdefault(name, []).append(of_class)
    means = {
        name: (sum(accuracy for accuracy, _ in of_class) / len(of_class), of_class[0][1])
        for name, of_class in by_class.items()
    }
    return sorted(means.items(), key=lambda item: item[1][0])


def _on_one_line(value: Any) -> Any:
    """Names lose their line breaks; what is HTML already (``Markup``) stays as it is."""
    return one_line(value) if type(value) is str else value


def _outliers(comparison: Comparison) -> dict[str, list[dict[str, Any]]]:
    """Outlier set -> a drawing for each detector; the legend is of (colour, line style, name)."""
    curves = [
        (pair, i, curve)
        for i, row in enumerate(comparison.rows)
        for run in row.runs
        for pair, curve in run.evaluation.roc.items()
        if curve.false_positive_rate.size
    ]
    cards: dict[str, list[dict[str, Any]]] = {}
    for outliers, detector in dict.fromkeys(pair for pair, _, _ in curves):
        drawn = [(i, curve) for pair, i, curve in curves if pair == (outliers, detector)]
        legend = []
        for i in dict.fromkeys(i for i, _ in drawn):
            row = comparison.rows[i]
            auroc = mean_cell(f"ood/{outliers}/{detector}/AUROC", row.runs).text
            colour, dash = figures.series_style(i)
            legend.append((figures.themed(colour), dash, f"{row.label}: {auroc}"))
        figure = figures.roc_figure([(curve, *figures.series_style(i)) for i, curve in drawn])
        cards.setdefault(outliers, []).append(
            {"detector": detector, "figure": figure, "legend": legend}
        )
    return cards
