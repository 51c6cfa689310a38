"""The report: one HTML file that needs nothing else, to open, mail or archive.

What is shown stands in ``report.html.j2``; here and in the modules beside it are its numbers and
drawings.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rince.core.checks import import_extra, require, warn
from rince.core.files import written
from rince.evaluation.results import shown_metric
from rince.reports import figures
from rince.reports.methods import SHEET_COLUMNS, method_drawings
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

    It loads nothing from anywhere and stays below 3 MB (with more runs, drawings get coarser and
    galleries shorter). ``baseline``: also show the differences to the runs of this label, seed by
    seed. An older report at ``path``, which is returned, is replaced whole or not at all.
    """
    require(len(runs) > 0, "a report needs at least one run, got none")
    for detail in (1.0, 0.4, 0.2, 0.0):
        page = _page(runs, title, baseline, detail).encode("utf-8")
        if len(page) < MAX_BYTES:
            break
    else:
        warn(
            f"the report of {len(runs)} runs is {len(page) / 1e6:.1f} MB even without pictures of "
            "each run: compare fewer runs at a time for a page that is easy to mail"
        )
    with written(path, "report") as part:
        part.write_bytes(page)
    return path


def _page(runs: Sequence[RunReport], title: str, baseline: str | None, detail: float) -> str:
    """The whole document; ``detail`` in [0, 1] scales what costs bytes, 0 draws no single run."""
    comparison = comparison_rows(runs)
    rows = comparison.rows
    limits = figures.similarity_range([run.evaluation.histograms for run in runs])
    gallery_characters = int(detail * _GALLERY_CHARACTERS / len(rows))
    options = options_of(rows)
    methods = [method_drawings(row, limits, gallery_characters, detail) for row in rows if detail]
    return _render(
        title=title,
        comparison=comparison,
        differences=differences(runs),
        data_notes=data_notes(rows),
        baseline=baseline,
        paired=None if baseline is None else differences_to(comparison, baseline),
        colours={
            row.label: figures.themed(figures.series_style(i)[0]) for i, row in enumerate(rows)
        },
        run_names=distinct_names(runs),
        metrics={
            shown_metric(key, own_levels(runs)): [mean_cell(key, [run]).text for run in runs]
            for key in dict.fromkeys(key for run in runs for key in run.evaluation.metrics)
        },
        methods=methods,
        sheets=list(dict.fromkeys(m["map"]["sheet"] for m in methods if m["map"])),
        outliers=_outliers(comparison),
        options=options,
        differing_options=differing_options(options),
        origins=origins_of(rows),
    )


def _render(**shown: Any) -> str:
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
    numbers = itertools.count()
    script = (folder / "page.js").read_text(encoding="utf-8")
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    environment.globals.update(
        svg=lambda figure, words: markup(figures.svg_of(figure, one_line(words), next(numbers))),
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
