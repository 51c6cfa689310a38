"""Options that mean the same, written in two ways, are no reason for a row of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rince.evaluation.results import save_evaluation
from rince.reports.alike import written_alike
from rince.reports.origins import alike_methods
from rince.reports.reading import read_run
from rince.reports.table import comparison_rows
from rince.training.config import from_dict
from rince.training.folder import CONFIG_FILE, config_yaml


def groups_of(make_run: Any, folder: Path, *options: dict[str, Any]) -> list[list[int]]:
    """The rows of runs with these options, each a list of their positions."""
    runs = []
    for seed, given in enumerate(options):
        run = folder / f"run{seed}"
        run.mkdir(exist_ok=True)
        config = from_dict({"data": "photos", "seed": seed, **given})
        (run / CONFIG_FILE).write_text(config_yaml(config))
        save_evaluation(make_run("a").evaluation, run)
        runs.append(read_run(run))
    rows = comparison_rows(runs).rows
    if len(rows) == 1:
        assert alike_methods(rows) == []
    return [[runs.index(run) for run in row.runs] for row in rows]


@pytest.mark.parametrize("temperatures", [[0.1], [0.1, 0.225], [0.1, 0.2333, 0.3667, 0.5]])
def test_default_temperatures_that_were_given(make_run, tmp_path, temperatures) -> None:
    given = {"loss": {"temperatures": temperatures}}
    assert groups_of(make_run, tmp_path, {}, given) == [[0, 1]]
    other = {"loss": {"temperatures": [*temperatures[:-1], 0.6]}}
    assert groups_of(make_run, tmp_path, {}, other) == [[0], [1]]


def test_a_default_warm_up_that_was_given(make_run, tmp_path) -> None:
    short = {"epochs": 5, "optim": {"warmup_epochs": 0.5}}
    assert groups_of(make_run, tmp_path, {"epochs": 5}, short) == [[0, 1]]
    assert groups_of(make_run, tmp_path, {"epochs": 50}, {**short, "epochs": 50}) == [[0], [1]]
    long = {"epochs": 50, "optim": {"warmup_epochs": 1}}
    assert groups_of(make_run, tmp_path, {"epochs": 50}, long) == [[0, 1]]


@pytest.mark.parametrize(
    ("group", "option"),
    [
        (None, "data"),
        ("images", "root"),
        ("model", "start_from"),
        ("ranks", "scores"),
        ("vectors", "labels"),
        ("videos", "shots"),
    ],
)
def test_a_path_from_here_and_from_the_root(
    make_run, tmp_path, monkeypatch, group: str | None, option: str
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    def given(path: object) -> dict[str, Any]:
        return {option: str(path)} if group is None else {group: {option: str(path)}}

    ways = ("x/mine.csv", here / "x" / "mine.csv", "./x/../x/mine.csv")
    assert groups_of(make_run, tmp_path, *map(given, ways)) == [[0, 1, 2]]
    above = ("../mine.csv", tmp_path / "mine.csv")
    assert groups_of(make_run, tmp_path, *map(given, above)) == [[0, 1]]
    assert groups_of(make_run, tmp_path, given("x/mine.csv"), given("mine.csv")) == [[0], [1]]
    monkeypatch.setenv("HOME", str(here))
    assert groups_of(make_run, tmp_path, given("~/mine.csv"), given("mine.csv")) == [[0, 1]]


def test_words_stay_as_they_are_and_files_keep_what_was_given(make_run, tmp_path) -> None:
    words = {
        "data": "cifar100",
        "ranks.scores": "wordnet",
        "model.backbone": "torchvision/resnet18",
    }
    assert written_alike(words) == words
    given = {"data": "photos", "loss": {"temperatures": [0.1, 0.225]}}
    groups_of(make_run, tmp_path, given)
    assert read_run(tmp_path / "run0").config["loss.temperatures"] == (0.1, 0.225)
