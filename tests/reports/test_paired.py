"""Differences of the same seeds, against scipy's paired t-test and numbers by hand."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from rince.reports.page import write_report
from rince.reports.paired import BETTER, UNCLEAR, WORSE, paired_difference
from rince.reports.table import (
    MISSING,
    comparison_rows,
    differences_to,
    markdown_table,
    print_table,
)

PERCENT = st.floats(0, 100).map(lambda value: round(value, 2))
OUTLIERS = "ood/cifar10/gaussian"


@given(st.lists(st.tuples(PERCENT, PERCENT), min_size=2, max_size=8), st.booleans())
def test_the_verdict_is_that_of_a_paired_t_test(pairs, higher_is_better):
    differences = [a - b for a, b in pairs]
    assume(len({round(x, 6) for x in differences}) > 1)
    test = stats.ttest_rel(*zip(*pairs, strict=True))
    assume(abs(test.pvalue - 0.05) > 1e-6)
    found = paired_difference(
        {seed: a for seed, (a, _) in enumerate(pairs)},
        {seed: b for seed, (_, b) in enumerate(pairs)},
        higher_is_better=higher_is_better,
    )
    low, high = test.confidence_interval(0.95)
    assert (found.mean, found.count) == (pytest.approx(sum(differences) / len(pairs)), len(pairs))
    assert found.half_width == pytest.approx((high - low) / 2)
    if test.pvalue > 0.05:
        assert found.verdict == UNCLEAR
    else:
        assert found.verdict == (BETTER if (found.mean > 0) == higher_is_better else WORSE)


def test_seeds_are_paired_by_name_and_others_left_out():
    found = paired_difference({2: 5.0, 1: 3.0, 7: 100.0}, {1: 1.0, 2: 2.0, 9: -50.0})
    assert (found.mean, found.count) == (2.5, 2)
    # One pair says nothing of other seeds; no pair says nothing at all.
    alone = paired_difference({1: 3.0}, {1: 1.0})
    assert (alone.half_width, alone.verdict) == (None, UNCLEAR)
    assert paired_difference({1: 3.0}, {2: 1.0}) is None
    # Differences that are all alike, as of shares of few items, do not tell how far others are.
    assert paired_difference({1: 3.0, 2: 4.0}, {1: 1.0, 2: 2.0}).verdict == UNCLEAR
    assert paired_difference({1: 3.0, 2: 4.0}, {1: 3.0, 2: 4.0}).verdict == UNCLEAR


@given(st.integers(2, 1000), st.lists(st.integers(0, 998), min_size=2, max_size=5))
def test_one_more_right_item_in_each_seed_tells_nothing(items, counts):
    """The differences are equal, but for what a float rounds."""
    more = {seed: (count % items + 1) / items for seed, count in enumerate(counts)}
    less = {seed: (count % items) / items for seed, count in enumerate(counts)}
    assert paired_difference(more, less).verdict == UNCLEAR
    assert paired_difference(less, more).verdict == UNCLEAR
    # Where they do differ, however small the values are, it can be told.
    small = {seed: 1e-12 * (2 + seed / 100) for seed in range(3)}
    assert paired_difference(small, dict.fromkeys(small, 1e-12)).verdict == BETTER


@pytest.fixture
def runs(make_run):
    """Seeds differ by ten points and more, the methods by about two in each of them."""
    values = {
        "rince": ((0.52, 0.10, 0.30), (0.64, 0.11, 0.45), (0.71, 0.12, 0.36)),
        "supcon": ((0.50, 0.13, 0.44), (0.62, 0.15, 0.31), (0.69, 0.16, 0.39)),
    }
    return [
        make_run(
            label,
            seed=seed,
            config={"objective": label, "seed": seed},
            metrics={
                "probe/fine": fine + seed / 1000 * (label == "rince"),
                f"{OUTLIERS}/FPR95": fpr,
                "retrieval/fine/R@1": recall,
            }
            | ({"embedding/probe/fine": 0.9} if label == "rince" else {}),
        )
        for label, of_seed in values.items()
        for seed, (fine, fpr, recall) in enumerate(of_seed)
    ]


def test_differences_to_a_baseline_in_words(runs):
    paired = differences_to(comparison_rows(runs), "supcon")
    (row,) = paired.rows
    assert row.label == "rince (3 runs)"
    cells = dict(zip((column.key for column in paired.columns), row.cells[""], strict=True))
    assert "seconds" not in cells  # neither end is better
    mean, sd = 2.1, 0.1  # 2.0, 2.1, 2.2 points
    half = 4.302653 * sd / math.sqrt(3)
    assert cells["probe/fine"].text == f"+{mean:.1f} ± {half:.1f} better"
    # Fewer false alarms are better; what goes both ways cannot be told.
    assert cells[f"{OUTLIERS}/FPR95"].text.startswith("-3.7")
    assert cells[f"{OUTLIERS}/FPR95"].text.endswith("better")
    assert cells["retrieval/fine/R@1"].text.endswith("cannot be told")
    assert [cell.best for cell in cells.values()].count(True) == 2
    # The baseline has no embedding.
    assert {cell.text for cell in row.cells["embedding/"]} == {MISSING}
    back = differences_to(comparison_rows(runs), "rince (3 runs)")
    assert back.rows[0].cells[""][0].text == f"-{mean:.1f} ± {half:.1f} worse"


def test_of_other_data_there_is_no_verdict(runs):
    for number, run in enumerate(runs):
        run.evaluation.info["data"] = "easy" if number < 3 else "hard"
    paired = differences_to(comparison_rows(runs), "supcon")
    cells = dict(zip((x.key for x in paired.columns), paired.rows[0].cells[""], strict=True))
    assert cells["probe/fine"].text == "+2.1 ± 0.2"
    assert not any(cell.best for cell in cells.values())


def test_a_baseline_that_is_not_there_names_the_rows(runs):
    with pytest.raises(ValueError, match=r"cross-entropy.*rince.*supcon"):
        differences_to(comparison_rows(runs), "cross-entropy")
    with pytest.raises(ValueError, match="supcon"):
        differences_to(comparison_rows(runs[3:]), "supcon")


@pytest.mark.usefixtures("undrawn")
def test_all_three_outputs_show_it(runs, capsys, tmp_path):
    print_table(runs, "supcon")
    page = write_report(runs, tmp_path / "page.html", baseline="supcon").read_text()
    page = re.sub("</?small>", "", page)
    for text in (capsys.readouterr().out, markdown_table(runs, "supcon"), page):
        assert "+2.1 ± 0.2 better" in text
        assert "cannot be told" in text
        assert "Student" in text
    print_table(runs)
    assert (
        "Student"
        not in capsys.readouterr().out + write_report(runs, tmp_path / "page.html").read_text()
    )
