"""The comparison table of runs, for the terminal, markdown and HTML."""

from __future__ import annotations

import itertools
import math
import re
import statistics
import sys
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rince.core.checks import import_extra, require
from rince.evaluation.results import EMBEDDING, SECONDS, format_metric, of_space, scale_of
from rince.reports.alike import written_alike
from rince.reports.paired import BETTER, paired_difference
from rince.reports.run_report import RunReport, distinct_names, one_line
from rince.training.config import OF_MACHINE

MISSING = "\N{EN DASH}"
OF_EMBEDDING = ", embedding"  # after the name of a method; its features stand without

# Options in which the runs of a row may differ. More devices make a larger batch: another row.
OF_A_RUN = OF_MACHINE - {"devices", "num_nodes"} | {"seed"}

_PLAIN_WIDTH = 100  # columns, where the output is not a terminal
_LABEL_WIDTH = 34  # columns of a terminal for the names of the rows
_DETECTORS = ("gaussian", "knn")


@dataclass(frozen=True)
class Column:
    """One metric of the table."""

    key: str  # metric name in Evaluation.metrics, or SECONDS
    group: str  # heading shared with its neighbours
    name: str  # heading of its own
    higher_is_better: bool | None = True  # None: a short training is not a good one


@dataclass(frozen=True)
class Cell:
    """Mean and sample standard deviation over the runs of a row that measured this metric."""

    mean: float | None  # None if no run measured it
    sd: float | None  # None below two values
    count: int  # of values
    text: str  # as printed
    best: bool = False  # no row is better, as printed


@dataclass(frozen=True)
class Row:
    """One method: a run, or several runs that differ only in their seed."""

    label: str
    runs: tuple[RunReport, ...]
    cells: Mapping[str, tuple[Cell, ...]]  # of the features, "", and of the EMBEDDING, if measured

    @property
    def names(self) -> tuple[str, ...]:
        """What it may be called: with its number of runs, and without."""
        return self.label, one_line(self.runs[0].label)

    @property
    def lines(self) -> list[tuple[str, tuple[Cell, ...]]]:
        """Its lines in a table, (name, cells)."""
        return [(self.label + OF_EMBEDDING * bool(x), cells) for x, cells in self.cells.items()]


@dataclass(frozen=True)
class Comparison:
    """The rows, and the columns that at least one run has a value for."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]

    @property
    def lines(self) -> list[tuple[str, tuple[Cell, ...]]]:
        return [line for row in self.rows for line in row.lines]


def comparison_rows(runs: Sequence[RunReport]) -> Comparison:
    """Group the runs into rows and find the best value of each column.

    Runs with one label whose options agree, but for the seed and the folder
    (:data:`OF_A_RUN`), share a row. Those that are not finished have a row of their own, and so has
    a second run of a seed: it would count twice.
    """
    require(len(runs) > 0, "a comparison needs at least one run, got none")
    groups: dict[tuple[Hashable, ...], list[RunReport]] = {}
    seeds: Counter[tuple[Hashable, ...]] = Counter()
    for run in runs:
        alike = (one_line(run.label), _method(run.config), run.seconds is None)
        seed = (*alike, run.config.get("seed"))
        groups.setdefault((*alike, seeds[seed]), []).append(run)
        seeds[seed] += 1
    names = distinct_names([members[0] for members in groups.values()])
    names = _without_seeds(names, [len(members) for members in groups.values()])
    columns = _columns(runs)

    def cell(space: str, column: Column, members: Sequence[RunReport]) -> Cell:
        if space and column.key == SECONDS:  # no measure of a space: it stands once
            return Cell(None, None, 0, "")
        return mean_cell(space + column.key, members)

    rows = []
    for name, members in zip(names, groups.values(), strict=True):
        label = name if len(members) == 1 else f"{name} ({len(members)} runs)"
        embedded = any(of_space(x.evaluation.metrics, "embedding") for x in members)
        spaces = ("", EMBEDDING) if embedded else ("",)
        cells = {space: tuple(cell(space, x, members) for x in columns) for space in spaces}
        rows.append(Row(label, tuple(members), cells))
    comparison = Comparison(columns, tuple(rows))
    # A best of other data is none.
    return comparison if differences(runs) else _with_best(comparison)


def _without_seeds(names: Sequence[str], counts: Sequence[int]) -> tuple[str, ...]:
    """A row of several seeds should not be called by the first one's folder, NAME-seed0."""
    short = [
        re.sub(r"[-_/]seed[-_]?\d+$", "", name) if count > 1 else name
        for name, count in zip(names, counts, strict=True)
    ]
    return tuple(s if short.count(s) == 1 else n for s, n in zip(short, names, strict=True))


def differences_to(comparison: Comparison, baseline: str) -> Comparison:
    """Each method minus the baseline, over the seeds that both have; better ones are marked, but
    not where :func:`differences` has a reason. ``baseline``: the label of a row, with or without
    its number of runs."""
    rows = [row for row in comparison.rows if baseline in row.names]
    labels = ", ".join(row.label for row in comparison.rows)
    require(
        len(rows) == 1,
        f"the baseline {baseline!r} fits {len(rows)} of the rows, give one of {labels}, or the "
        f"path of a run",
    )
    others = [row for row in comparison.rows if row is not rows[0]]
    require(len(others) > 0, f"there is only {labels}: nothing to compare it with")
    columns = tuple(c for c in comparison.columns if c.higher_is_better is not None)

    def minus(row: Row, space: str) -> tuple[Cell, ...]:
        fair = not differences([*row.runs, *rows[0].runs])
        return tuple(_difference(x, space, row.runs, rows[0].runs, fair) for x in columns)

    differing = (replace(x, cells={space: minus(x, space) for space in x.cells}) for x in others)
    return Comparison(columns, tuple(differing))


def _difference(
    column: Column,
    space: str,
    runs: Sequence[RunReport],
    baseline: Sequence[RunReport],
    fair: bool,
) -> Cell:
    key, higher = space + column.key, bool(column.higher_is_better)
    values, others = _by_seed(runs, key), _by_seed(baseline, key)
    difference = paired_difference(values, others, higher_is_better=higher)
    if difference is None:
        return Cell(None, None, 0, MISSING)
    factor, digits = scale_of(key, difference.mean)
    text = f"{round(factor * difference.mean, digits) + 0.0:+,.{digits}f}"
    if difference.half_width is not None:
        text += f" ± {factor * difference.half_width:,.{digits}f}"
    if fair:
        text += f" {difference.verdict}"
    best = fair and difference.verdict == BETTER
    return Cell(difference.mean, None, difference.count, text, best)


def _by_seed(runs: Sequence[RunReport], key: str) -> dict[object, float]:
    """Seed -> value; the mean, where a seed was run twice."""
    values: dict[object, list[float]] = {}
    for run in runs:
        value = _value(run, key)
        if value is not None:
            values.setdefault(run.config.get("seed"), []).append(value)
    return {seed: statistics.fmean(of_seed) for seed, of_seed in values.items()}


def print_table(runs: Sequence[RunReport], baseline: str | None = None) -> None:
    """Print the table, as many blocks below each other as the width of the terminal takes.

    Where the output is not a terminal, it is plain text: blocks of about 100 columns, one line
    per row whatever its length, no colours. A second table shows the differences to ``baseline``.
    """
    comparison = comparison_rows(runs)
    _print(comparison, _legend(comparison))
    if baseline is not None:
        _print(differences_to(comparison, baseline), [paired_legend(baseline)])


def paired_legend(baseline: str) -> str:
    """How to read the table of differences."""
    return (
        f"minus {baseline}, same seeds: mean ± half of the 95 % interval over seeds (Student's t); "
        "* better"
    )


def _print(comparison: Comparison, legend: Sequence[str]) -> None:
    new_console = import_extra("rich.console", "train").Console
    if sys.stdout.isatty():
        console, label_width = new_console(), _LABEL_WIDTH
    else:
        console, label_width = new_console(color_system=None, width=_PLAIN_WIDTH), None
    blocks = _blocks(comparison, console, label_width)
    if label_width is None:
        console.width = max(_PLAIN_WIDTH, *(_width_of(block, console) for block in blocks))
    for block in blocks:
        console.print(block)
        console.print()
    for line in legend:
        console.out(line, highlight=False)
    console.print()


def _blocks(comparison: Comparison, console: Any, label_width: int | None) -> list[Any]:
    """Tables no wider than the console, if a group of columns, which is kept together, is not."""
    blocks = []
    columns: list[int] = []
    indices = range(len(comparison.columns))
    for _, group in itertools.groupby(indices, key=lambda j: comparison.columns[j].group):
        members = list(group)
        longer = _rich_table(comparison, columns + members, label_width)
        if columns and _width_of(longer, console) > console.width:
            blocks.append(_rich_table(comparison, columns, label_width))
            columns = []
        columns += members
    return [*blocks, _rich_table(comparison, columns, label_width)]


def _rich_table(comparison: Comparison, columns: Sequence[int], label_width: int | None) -> Any:
    """The given columns of the comparison; names are wrapped at ``label_width``, never cut."""
    text = import_extra("rich.text", "train").Text  # a plain str would be read as markup
    box = import_extra("rich.box", "train").SIMPLE_HEAD
    table = import_extra("rich.table", "train").Table(box=box, show_edge=False, pad_edge=False)
    table.add_column("run", max_width=label_width, vertical="bottom", overflow="fold")
    for j in columns:
        header = text("\n".join(_header_lines(comparison.columns[j])))
        table.add_column(header, justify="right", vertical="bottom", overflow="fold")
    for label, cells_of_line in comparison.lines:
        cells = (cells_of_line[j] for j in columns)
        table.add_row(
            text(label),
            *(text("*" + c.text, "bold green") if c.best else text(c.text) for c in cells),
        )
    return table


def _width_of(table: Any, console: Any) -> int:
    """The columns that a table takes where there is room for all of it."""
    width: int = console.measure(table, options=console.options.update(width=100_000)).maximum
    return width


def markdown_table(runs: Sequence[RunReport], baseline: str | None = None) -> str:
    """The same tables in markdown, best values in bold."""
    comparison = comparison_rows(runs)
    text = _markdown(comparison)
    if baseline is not None:
        paired = _markdown(differences_to(comparison, baseline))
        text += f"\n{markdown_escape(paired_legend(baseline))}\n\n{paired}"
    return text


def _markdown(comparison: Comparison) -> str:
    heads = [" ".join(_header_lines(column)) for column in comparison.columns]
    lines = [
        "| run | " + "".join(markdown_escape(head) + " | " for head in heads).rstrip(),
        "|:---|" + "---:|" * len(heads),
    ]
    for label, cells_of_line in comparison.lines:
        cells = (f"**{cell.text}**" if cell.best else cell.text for cell in cells_of_line)
        lines.append(f"| {markdown_escape(label)} | " + " | ".join(cells) + " |")
    return "\n".join(line.rstrip() for line in lines) + "\n"


def mean_cell(key: str, runs: Sequence[RunReport]) -> Cell:
    """A metric (or :data:`SECONDS`) of the runs of one row: mean ± sample standard deviation."""
    values = [value for value in (_value(run, key) for run in runs) if value is not None]
    if not values:
        return Cell(None, None, 0, MISSING)
    mean, sd = statistics.fmean(values), None
    text = format_metric(key, mean)
    if len(values) > 1:
        sd = statistics.stdev(values)
        factor, digits = scale_of(key, mean)
        text += f" ± {factor * sd:,.{digits}f}"
    if len(values) < len(runs):
        text += f" (n={len(values)})"
    return Cell(mean, sd, len(values), text)


def _method(config: Mapping[str, Any]) -> str:
    """What makes two configs the same method, as one comparable text."""
    kept = {k: v for k, v in written_alike(config).items() if k not in OF_A_RUN}
    return repr(sorted((key, repr(value)) for key, value in kept.items()))


def _columns(runs: Sequence[RunReport]) -> tuple[Column, ...]:
    measured = list(dict.fromkeys(key for run in runs for key in run.evaluation.metrics))
    own = own_levels(runs)
    chosen = [
        *(Column(f"probe/{level}", "probe", level) for level in ("fine", "coarse", "video")),
        Column("classifier/video", "classifier", "video"),
        *(Column(f"knn/{level}", "kNN", level) for level in ("fine", "coarse")),
        *(
            Column(f"retrieval/{level}/{measure}", measure, level)
            for levels in (("fine", "coarse", "near", "video"), _inner_levels(measured))
            for measure in ("R@1", "mAP")
            for level in levels
        ),
        *(
            Column(key, way, f"{measure} {own.get(level, level)}")
            for key in sorted(measured, key=lambda key: key.split("/")[0])  # of two towers
            for way, level, measure in re.findall(r"^(\w+->\w+)/retrieval/(.*)/(R@1|mAP)$", key)
        ),
        Column("hierarchy/H-AP", "tree", "H-AP"),
        *(Column(f"ordering/pairs/{order}", "ranks", f"pairs {order}") for order in _orders(runs)),
        Column("ordering/correlation", "ranks", "corr."),
        Column(SECONDS, "train", "s", None),
    ]
    splits = [key.split("/") for key in measured]
    sides = {p[1]: p[0] for p in splits if p[0] == "seen"}  # of tests without a new class
    sides |= {p[1]: p[0] for p in splits if p[0] == "unseen"}
    for name, side in sides.items():
        for key, heading in (("retrieval/fine/R@1", "R@1"), ("hierarchy/H-AP", "H-AP")):
            column = Column(f"{side}/{name}/{key}", f"{side} {one_line(name)}", heading)
            chosen.append(column)
    outlier_sets = dict.fromkeys(p[1] for p in splits if p[0] == "ood" and len(p) == 4)
    for outliers, detector in itertools.product(outlier_sets, _DETECTORS):
        for measure in ("AUROC", "FPR95"):
            key = f"ood/{outliers}/{detector}/{measure}"
            name = f"{detector} {measure}"
            chosen.append(Column(key, f"OOD {one_line(outliers)}", name, measure == "AUROC"))
    return tuple(
        replace(column, name=one_line(own.get(column.name, column.name)))
        for column in chosen
        if any(_value(x, p + column.key) is not None for x in runs for p in ("", EMBEDDING))
    )


def _inner_levels(names: Sequence[str]) -> list[str]:
    """Of the class tree, between its top and the classes."""
    levels = re.findall(r"^retrieval/(depth-\d+)/R@1$", "\n".join(names), re.MULTILINE)
    return sorted(set(levels))


def own_levels(runs: Sequence[RunReport]) -> Mapping[str, str]:
    """What the data of all runs call the levels of the class tree; {} if they differ."""
    names = [run.evaluation.info.get("levels", {}) for run in runs]
    return names[0] if all(x == names[0] for x in names) else {}


def _orders(runs: Sequence[RunReport]) -> list[str]:
    """Both ends of the order of ranks: the best rank against each next one, and all against the
    negatives. By pairs, not strictly: one outlier in a large gallery spoils a whole query."""
    names = dict.fromkeys(name for run in runs for name in run.evaluation.metrics)
    pairs = re.findall(r"^ordering/pairs/(\d+)>(\d+)$", "\n".join(names), re.MULTILINE)
    orders = sorted((int(better), int(worse) or 128, int(worse)) for better, worse in pairs)
    return [f"{a}>{b}" for a, _, b in orders if a == orders[0][0] or not b]


def _value(run: RunReport, key: str) -> float | None:
    value = run.seconds if key == SECONDS else run.evaluation.metrics.get(key)
    return None if value is None or not math.isfinite(value) else float(value)


def _with_best(comparison: Comparison) -> Comparison:
    """Marks what cannot be told from the best as printed; nothing if all are alike, or alone."""
    best: list[str | None] = []
    for j, column in enumerate(comparison.columns):
        means = [cells[j].mean for _, cells in comparison.lines]
        known = [mean for mean in means if mean is not None]
        ends = [format_metric(column.key, pick(known)) for pick in (min, max) if known]
        differ = column.higher_is_better is not None and len(set(ends)) > 1
        best.append(ends[bool(column.higher_is_better)] if differ else None)

    def marked(cells: tuple[Cell, ...]) -> tuple[Cell, ...]:
        return tuple(
            replace(cell, best=cell.mean is not None and format_metric(column.key, cell.mean) == x)
            for cell, column, x in zip(cells, comparison.columns, best, strict=True)
        )

    rows = (
        replace(row, cells={space: marked(cells) for space, cells in row.cells.items()})
        for row in comparison.rows
    )
    return replace(comparison, rows=tuple(rows))


def _header_lines(column: Column) -> list[str]:
    arrow = " ↓" if column.higher_is_better is False else ""
    return [column.group, *f"{column.name}{arrow}".split(" ", maxsplit=1)]


def _legend(comparison: Comparison) -> list[str]:
    cells = [cell for _, of_line in comparison.lines for cell in of_line]
    lines = ["per cent, but for corr. (-1 to 1) and seconds; ↓ lower is better"]
    if len(comparison.lines) > len(comparison.rows):
        lines.append("of runs, lines without `, embedding` are of the backbone's features")
    runs = [run for row in comparison.rows for run in row.runs]
    lines += [f"NOTE: {note}" for note in differences(runs)]
    if any(cell.best for cell in cells):
        lines.append("* best of its column")
    if any(cell.text == MISSING for cell in cells):
        lines.append(f"{MISSING} not measured")
    if any(cell.sd is not None for cell in cells):
        lines.append("± sample standard deviation over the runs of a row")
    return lines


def differences(runs: Sequence[RunReport]) -> list[str]:
    """Why the numbers of these runs cannot be compared fairly; empty if they can."""
    reasons = []
    for key, what in (
        ("data", "data sets"),
        ("train_images", "numbers of training items"),
        ("test_images", "numbers of test items"),
        ("probe_epochs", "epochs of the linear probe"),
    ):
        known = (run.evaluation.info.get(key) for run in runs)
        values = dict.fromkeys(str(value) for value in known if value is not None)
        if len(values) > 1:
            reasons.append(f"the runs were measured with different {what}: {', '.join(values)}")
    return reasons


def data_notes(rows: Sequence[Row]) -> dict[str, str]:
    """Label -> the data that its runs were measured on; empty if they are the same for all."""
    notes = {
        row.label: "; ".join(
            dict.fromkeys(filter(None, (_data(x.evaluation.info) for x in row.runs)))
        )
        for row in rows
    }
    known = {label: note for label, note in notes.items() if note}
    return known if len(set(known.values())) > 1 else {}


def _data(info: Mapping[str, Any]) -> str:
    count = f"{info['test_images']} test items" if "test_images" in info else ""
    return ", ".join(filter(None, (info.get("data"), count)))


def markdown_escape(text: str) -> str:
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", text)
