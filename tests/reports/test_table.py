"""The comparison table against numbers worked out by hand."""

from __future__ import annotations

import io
import math
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rince.evaluation.results import format_metric
from rince.reports.origins import alike_methods
from rince.reports.page import write_report
from rince.reports.run_report import distinct_names
from rince.reports.table import comparison_rows, markdown_table, print_table

AUROC = "ood/cifar10/gaussian/AUROC"
FPR95 = "ood/cifar10/gaussian/FPR95"


def cells_of(runs, key):
    comparison = comparison_rows(runs)
    j = [column.key for column in comparison.columns].index(key)
    return {row.label: row.cells[""][j] for row in comparison.rows}


def test_mean_and_sample_deviation_over_seeds(make_run):
    values = (0.70, 0.72, 0.77)
    runs = [make_run("a", seed=i, metrics={"probe/fine": value}) for i, value in enumerate(values)]
    cell = cells_of(runs, "probe/fine")["a (3 runs)"]
    mean = (0.70 + 0.72 + 0.77) / 3
    sd = math.sqrt(sum((value - mean) ** 2 for value in values) / (3 - 1))
    assert cell.mean == pytest.approx(mean)
    assert cell.sd == pytest.approx(sd)
    assert cell.count == 3
    assert cell.text == f"{100 * mean:.1f} ± {100 * sd:.1f}" == "73.0 ± 3.6"


def test_each_space_has_a_line_and_the_table_its_width(make_run, capsys):
    runs = [
        make_run("a", seed=i, metrics={"probe/fine": 0.7 + i / 10, "embedding/probe/fine": 0.9})
        for i in range(2)
    ]
    older = make_run("b", metrics={"probe/fine": 0.85})
    comparison = comparison_rows([*runs, older])
    assert [column.key for column in comparison.columns] == ["probe/fine", "seconds"]
    shown = {label: [cell.text for cell in cells] for label, cells in comparison.lines}
    assert shown == {
        "a (2 runs)": ["75.0 ± 7.1", "4,321 ± 0"],
        "a (2 runs), embedding": ["90.0 ± 0.0", ""],
        "b": ["85.0", "4,321"],
    }
    best = [label for label, cells in comparison.lines if cells[0].best]
    assert best == ["a (2 runs), embedding"]
    print_table([*runs, older])
    assert "a (2 runs), embedding" in capsys.readouterr().out
    assert "| a (2 runs), embedding | **90.0 ± 0.0** |" in markdown_table([*runs, older])


def test_unseen_classes_have_columns(make_run):
    names = ("retrieval/fine/R@1", "retrieval/fine/mAP", "hierarchy/H-AP")
    run = make_run("a", metrics={f"unseen/birds/{name}": 0.5 for name in names})
    columns = [(column.group, column.name) for column in comparison_rows([run]).columns]
    assert columns[-2:] == [("unseen birds", "R@1"), ("unseen birds", "H-AP")]


def test_a_test_without_a_new_class_has_columns_too(make_run):
    names = (
        "seen/cats/retrieval/fine/R@1",
        "seen/birds/hierarchy/H-AP",
        "unseen/birds/hierarchy/H-AP",
    )
    run = make_run("a", metrics=dict.fromkeys(names, 0.5))
    columns = [(column.group, column.name) for column in comparison_rows([run]).columns]
    assert columns[-2:] == [("seen cats", "R@1"), ("unseen birds", "H-AP")]


def test_both_ends_of_the_order_of_ranks_have_columns(make_run):
    names = ("1>2", "1>3", "2>3", "2>0", "3>0")
    run = make_run("a", metrics={f"ordering/pairs/{name}": 0.5 for name in names})
    columns = [column.name for column in comparison_rows([run]).columns]
    assert columns[:-1] == ["pairs 1>2", "pairs 1>3", "pairs 2>0", "pairs 3>0"]


def test_only_runs_with_one_label_and_one_config_share_a_row(make_run):
    def run(label, seed, variant):
        return make_run(label, seed=seed, config={"seed": seed, "loss.variant": variant})

    runs = [run("a", 0, "in"), run("b", 0, "in"), run("a", 1, "in"), run("a", 2, "out")]
    rows = comparison_rows(runs).rows
    assert [row.label for row in rows] == ["a · a-0 (2 runs)", "b", "a · a-2"]
    assert [row.runs for row in rows] == [(runs[0], runs[2]), (runs[1],), (runs[3],)]


def test_a_machine_is_no_method_but_more_devices_are_a_larger_batch(make_run):
    one = {"seed": 0, "accelerator": "auto", "devices": "auto", "name": None, "progress": True}
    other = {"seed": 1, "accelerator": "cpu", "devices": "auto", "name": "x", "progress": False}
    assert len(comparison_rows([make_run("a", config=x) for x in (one, other)]).rows) == 1
    two = {**other, "devices": "2"}
    assert len(comparison_rows([make_run("a", config=x) for x in (one, two)]).rows) == 2


def test_a_second_run_of_a_seed_and_one_that_is_not_finished_do_not_count(make_run):
    def run(folder, seed, **options):
        made = make_run(
            "a", metrics={"probe/fine": 0.5 + seed / 10}, config={"seed": seed, "name": folder}
        )
        return replace(made, folder=Path(folder), **options)

    runs = [run("x", 0), run("again", 0), run("y", 1), run("part", 2, seconds=None)]
    rows = comparison_rows(runs).rows
    assert [[x.folder.name for x in row.runs] for row in rows] == [["x", "y"], ["again"], ["part"]]
    assert [row.label for row in rows] == ["a · x (2 runs)", "a · again", "a · part"]
    assert cells_of(runs, "probe/fine")["a · x (2 runs)"].mean == pytest.approx(0.55)
    assert alike_methods(rows) == [
        "x and again agree in all options, the seed too: they stand in rows of their own"
    ]
    # A line for all that are equal, not for each two of them.
    runs = [run(folder, seed) for seed in (0, 1) for folder in ("a", "b", "c", "d")]
    runs += [run("e", 2)]
    assert alike_methods(comparison_rows(runs).rows) == [
        "a, b, c and d agree in all options, the seed too: they stand in rows of their own"
    ]


def test_a_row_is_not_called_by_the_seed_of_its_first_run(make_run):
    def run(folder, **config):
        return replace(make_run("a", config=config), folder=Path(folder))

    def labels(*runs):
        return [row.label for row in comparison_rows(runs).rows]

    x = [run(f"x-seed{seed}", variant="in", seed=seed) for seed in (0, 1)]
    y = run("y-seed0", variant="out", seed=0)
    assert labels(*x, y) == ["a · x (2 runs)", "a · y-seed0"]
    # Folders of one name but for the seed are not two rows of one name; others are still short.
    z = [run(f"x_seed{seed}", variant="out-in", seed=seed) for seed in (0, 1)]
    w = [run(f"w-seed{seed}", variant="none", seed=seed) for seed in (0, 1)]
    assert labels(*x, *z, *w) == [
        "a · x-seed0 (2 runs)",
        "a · x_seed0 (2 runs)",
        "a · w (2 runs)",
    ]


def test_a_seed_without_the_metric_is_counted_out_and_said(make_run, capsys):
    runs = [
        make_run("a", seed=0, metrics={"probe/fine": 0.5, AUROC: 0.9}),
        make_run("a", seed=1, metrics={"probe/fine": 0.6, AUROC: float("nan")}),
        make_run("b", metrics={"probe/fine": 0.1}),
    ]
    found = cells_of(runs, AUROC)
    assert found["a (2 runs)"].text == "90.0 (n=1)"
    assert found["a (2 runs)"].sd is None
    assert found["b"].text == "\N{EN DASH}"
    print_table(runs)
    assert "nan" not in capsys.readouterr().out.lower()


def test_higher_is_better_except_for_fpr95(make_run):
    runs = [
        make_run("low", metrics={AUROC: 0.6, FPR95: 0.2}),
        make_run("high", metrics={AUROC: 0.9, FPR95: 0.7}),
    ]
    assert {label: cell.best for label, cell in cells_of(runs, AUROC).items()} == {
        "low": False,
        "high": True,
    }
    assert {label: cell.best for label, cell in cells_of(runs, FPR95).items()} == {
        "low": True,
        "high": False,
    }


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_marks_are_the_best_as_printed(values):
    from conftest import build_run  # hypothesis does not take function fixtures

    runs = [
        build_run(f"r{i}", metrics={"probe/fine": x, FPR95: x}, points=1, queries=1, steps=0)
        for i, x in enumerate(values)
    ]
    printed = [round(100 * x, 1) for x in values]
    for key, best in (("probe/fine", max(printed)), (FPR95, min(printed))):
        marks = [cell.best for cell in cells_of(runs, key).values()]
        tied = min(printed) == max(printed)
        assert marks == [not tied and value == best for value in printed]


@pytest.mark.usefixtures("undrawn")
def test_nothing_is_best_across_other_data(make_run, tmp_path, capsys):
    runs = [make_run("one", quality=0.7), make_run("two", quality=0.5)]
    info = {**runs[1].evaluation.info, "data": "cifar100"}
    runs[1] = replace(runs[1], evaluation=replace(runs[1].evaluation, info=info))
    assert not any(cell.best for _, of_line in comparison_rows(runs).lines for cell in of_line)
    print_table(runs)
    note = "different data sets: fashion-mnist, cifar100"
    assert note in capsys.readouterr().out
    page = write_report(runs, tmp_path / "report.html").read_text()
    assert note in page
    assert 'class="best"' not in page


def test_the_levels_between_have_columns(make_run):
    run = make_run("one")
    measured = {f"retrieval/depth-{d}/{m}": 0.5 for d in (2, 3) for m in ("R@1", "mAP")}
    metrics = {**run.evaluation.metrics, **measured}
    run = replace(run, evaluation=replace(run.evaluation, metrics=metrics))
    assert measured.keys() <= {column.key for column in comparison_rows([run]).columns}


def test_seconds_are_shown_but_none_is_best(make_run):
    runs = [make_run("a", seconds=4321.0), make_run("b", seconds=8.25)]
    found = cells_of(runs, "seconds")
    assert [cell.text for cell in found.values()] == ["4,321", "8.2"]
    assert not any(cell.best for cell in found.values())


def test_columns_follow_what_was_measured(make_run):
    metrics = {
        FPR95: 0.3,
        "ood/x/knn/AUROC": 0.5,
        "ood/x/other/AUROC": 0.5,
        "ordering/pairs/1>2": 0.8,
        "retrieval/fine/R@5": 0.9,
        "probe/fine": 0.5,
    }
    run = make_run(metrics=metrics, seconds=None)
    assert [column.key for column in comparison_rows([run]).columns] == [
        "probe/fine",
        "ordering/pairs/1>2",
        FPR95,
        "ood/x/knn/AUROC",
    ]


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("probe/fine", 0.78249, "78.2"),
        ("probe/fine", 1.0, "100.0"),
        ("ordering/correlation", -0.0001, "0.000"),
        ("ordering/correlation", -0.512, "-0.512"),
        ("seconds", 12345.6, "12,346"),
    ],
)
def test_format(key, value, text):
    assert format_metric(key, value) == text


def blocks_of(printed):
    """The tables of what was printed, each as its lines; and the remarks below them."""
    *blocks, remarks = printed.rstrip("\n").split("\n\n")
    return [block.splitlines() for block in blocks], remarks


def test_printed_to_a_file_nothing_is_lost_and_columns_line_up(make_run, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")  # of a terminal that is not written to
    long_label = "a method with a name of more than a hundred characters " + "x" * 60
    runs = [
        make_run(f"{long_label} {i}", seed=s, quality=0.5 + 0.01 * (i + s), config={"i": i})
        for i in range(4)
        for s in range(2)
    ] + [make_run("[b]short[/b] :smile:", metrics={"probe/fine": 0.9}, config={"i": 9})]
    print_table(runs)
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "…" not in printed
    comparison = comparison_rows(runs)
    blocks, _ = blocks_of(printed)
    assert len(blocks) > 1
    cells = {row.label: [] for row in comparison.rows}
    for lines in blocks:
        (*body,) = lines[-len(comparison.rows) :]
        assert len({len(line) for line in body}) == 1  # columns end at one place
        for row, line in zip(comparison.rows, body, strict=True):
            assert line.startswith(row.label)
            cells[row.label] += re.split(r"\s{2,}", line.removeprefix(row.label).strip())
    for row in comparison.rows:
        assert cells[row.label] == [("*" if c.best else "") + c.text for c in row.cells[""]]


def test_a_terminal_gets_colours_and_whole_names(make_run, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.delenv("NO_COLOR", raising=False)
    name = "a name of many words, longer than the terminal is wide, to be wrapped"
    runs = [make_run(name, quality=0.7), make_run("b", quality=0.5)]
    print_table(runs)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue())
    assert plain != terminal.getvalue()
    blocks, _ = blocks_of(plain)
    for lines in blocks:
        assert max(map(len, lines)) <= 60
        for word in name.split():
            assert any(word in line for line in lines)
    for row in comparison_rows(runs).rows:
        for cell in row.cells[""]:
            assert ("*" if cell.best else " ") + cell.text in plain


def test_printed_exactly(make_run, capsys):
    runs = [
        make_run("a", metrics={"probe/fine": 0.5, FPR95: 0.25}, seconds=None),
        make_run("bcd", metrics={"probe/fine": 0.725}, seconds=None),
    ]
    print_table(runs)
    assert capsys.readouterr().out == (
        "              OOD cifar10\n"
        "      probe      gaussian\n"
        "run    fine       FPR95 ↓\n"
        "─────────────────────────\n"
        "a      50.0          25.0\n"
        "bcd   *72.5             \N{EN DASH}\n"
        "\n"
        "per cent, but for corr. (-1 to 1) and seconds; ↓ lower is better\n"
        "* best of its column\n"
        "\N{EN DASH} not measured\n"
        "\n"
    )


def test_markdown(make_run):
    runs = [
        make_run("a|b <i>", metrics={"probe/fine": 0.5}, seconds=None),
        make_run("c_d", metrics={"probe/fine": 0.75}, seconds=None),
    ]
    assert markdown_table(runs) == (
        "| run | probe fine |\n|:---|---:|\n| a\\|b \\<i\\> | 50.0 |\n| c\\_d | **75.0** |\n"
    )


def test_names_are_made_longer_only_where_needed(make_run):
    runs = [
        make_run("a", folder="x/one"),
        make_run("a", folder="y/one"),
        make_run("a", folder="y/two"),
        make_run("b\n c", folder="y/two"),
        make_run("a", folder="y/one"),
    ]
    assert distinct_names(runs) == ("a · x/one", "a · y/one #2", "a · two", "b c", "a · y/one #5")


def test_no_runs():
    with pytest.raises(ValueError, match="run"):
        comparison_rows([])
