"""The report: one HTML file that needs nothing else, to open, mail or archive."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence
from pathlib import Path

from rince.core.checks import RinceError, require, warn
from rince.reports import figures
from rince.reports.methods import method_section
from rince.reports.origins import config_section, origin_section
from rince.reports.pieces import (
    chips,
    figure,
    figures_row,
    fold,
    guide,
    key_table,
    note,
    section,
    table,
    text,
)
from rince.reports.run_report import RunReport, distinct_names
from rince.reports.table import MISSING, Cell, Comparison, comparison_rows, mean_cell

MAX_BYTES = 3_000_000

_GALLERY_CHARACTERS = 1_000_000  # of all methods together


def write_report(
    runs: Sequence[RunReport], path: Path, *, title: str = "Comparison of runs"
) -> Path:
    """Write the report of one or more runs as a single HTML file.

    It loads nothing from anywhere and stays below 3 MB (with more runs, drawings get coarser and
    galleries shorter). An older report at ``path`` is replaced whole or not at all.

    Args:
        runs: in the order to be shown. path: the file; its folder is created if need be.
        title: heading of the page.

    Returns:
        ``path``.

    Raises:
        ValueError: no runs.
        RinceError: the file cannot be written there.
    """
    require(len(runs) > 0, "a report needs at least one run, got none")
    for detail in (1.0, 0.4, 0.2, 0.0):
        page = _page(runs, title, detail).encode("utf-8")
        if len(page) < MAX_BYTES:
            break
    else:
        warn(
            f"the report of {len(runs)} runs is {len(page) / 1e6:.1f} MB even without pictures of "
            "each run: compare fewer runs at a time for a page that is easy to mail"
        )
    _write_whole(path, page)
    return path


def _write_whole(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        os.replace(part, path)
    except OSError as error:
        if part.is_file():
            part.unlink()
        raise RinceError(
            f"cannot write the report to {path} ({error.strerror or error}): name a file in a "
            "folder that you may write to"
        ) from error


def _page(runs: Sequence[RunReport], title: str, detail: float) -> str:
    """The whole document; ``detail`` in [0, 1] scales what costs bytes, 0 draws no single run."""
    comparison = comparison_rows(runs)
    rows = comparison.rows
    limits = figures.similarity_range([run.evaluation.histograms for run in runs])
    dpi = max(80, round(figures.DPI * math.sqrt(detail)))
    outliers = _outlier_section(comparison, dpi)
    links = [(f"#method-{i}", row.label) for i, row in enumerate(rows, 1)]
    links += [("#ood", "Outliers")] if outliers else []
    links += [("#config", "Configuration"), ("#origin", "Versions and time")]
    gallery = int(detail * _GALLERY_CHARACTERS / len(rows))
    body = [
        f"<h1>{text(title)}</h1>",
        "<nav>" + "".join(f'<a href="{to}">{text(name)}</a>' for to, name in links) + "</nav>",
        _results_section(comparison, runs, distinct_names(runs)),
        *(
            method_section(row, f"method-{i}", limits, dpi if detail else 0, gallery)
            for i, row in enumerate(rows, 1)
        ),
        outliers,
        config_section(rows),
        origin_section(rows),
    ]
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # The browser itself makes sure that nothing is fetched.
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        f"<title>{text(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body>\n</html>\n"
    )


def _results_section(
    comparison: Comparison, runs: Sequence[RunReport], names: Sequence[str]
) -> str:
    groups = itertools.groupby(comparison.columns, key=lambda column: column.group)
    heads = [
        '<tr><th rowspan="2" scope="col">run</th>',
        *(
            f'<th colspan="{len(list(members))}" scope="colgroup">{text(group)}</th>'
            for group, members in groups
        ),
        "</tr><tr>",
        *(
            f'<th scope="col">{text(column.name)}'
            f"{' ↓' if column.higher_is_better is False else ''}</th>"
            for column in comparison.columns
        ),
        "</tr>",
    ]
    body = []
    for i, row in enumerate(comparison.rows):
        dot = f'<i class="dot" style="background:{figures.series_style(i)[0]}"></i>'
        cells = "".join(_result_cell(cell) for cell in row.cells)
        body.append(f'<tr><th scope="row">{dot}{text(row.label)}</th>{cells}</tr>')
    remarks = "Per cent, except corr. (-1 to 1) and seconds; ↓ lower is better; "
    remarks += f"{MISSING} not measured."
    if any(len(row.runs) > 1 for row in comparison.rows):
        remarks += " ± is the sample standard deviation over the runs of a row."
    metrics = dict.fromkeys(key for run in runs for key in run.evaluation.metrics)
    everything = {key: [mean_cell(key, [run]).text for run in runs] for key in metrics}
    return section(
        "results",
        "Results",
        guide(
            "the shaded bold number is the best of its column; a good ranking loss keeps the fine "
            "columns high while it raises the coarse, the ranks and the OOD ones."
        ),
        table("results", heads, body),
        note(remarks),
        fold(f"Every number measured ({len(everything)})", key_table("metric", names, everything)),
    )


def _result_cell(cell: Cell) -> str:
    if cell.best:
        return f'<td class="best"><strong>{text(cell.text)}</strong></td>'
    return f"<td>{text(cell.text)}</td>"


def _outlier_section(comparison: Comparison, dpi: int) -> str:
    curves = [
        (pair, i, curve)
        for i, row in enumerate(comparison.rows)
        for run in row.runs
        for pair, curve in run.evaluation.roc.items()
        if curve.false_positive_rate.size
    ]
    if not curves:
        return ""
    parts = []
    for outliers in dict.fromkeys(pair[0] for pair, _, _ in curves):
        cards = []
        for detector in dict.fromkeys(pair[1] for pair, _, _ in curves if pair[0] == outliers):
            drawn = [(i, curve) for pair, i, curve in curves if pair == (outliers, detector)]
            styled = [(curve, *figures.series_style(i)) for i, curve in drawn]
            legend = []
            for i in dict.fromkeys(i for i, _ in drawn):
                row, (colour, dash) = comparison.rows[i], figures.series_style(i)
                score = mean_cell(f"ood/{outliers}/{detector}/AUROC", row.runs).text
                legend.append(("line", f"border-top:3px {dash} {colour}", f"{row.label}: {score}"))
            cards.append(
                figure(
                    figures.roc_picture(styled, dpi=dpi),
                    f"ROC for outliers from {outliers}, {detector} detector",
                    f"{detector} detector (AUROC in the legend)",
                    chips(legend),
                )
            )
        parts.append(f"<h3>{text(outliers)}</h3>{figures_row(cards)}")
    return section(
        "ood",
        "Outliers (out-of-distribution)",
        guide(
            "the curve nearest to the upper left corner finds the most outliers for the fewest "
            "false alarms; the grey diagonal is guessing."
        ),
        *parts,
    )
