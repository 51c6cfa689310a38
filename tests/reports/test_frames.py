"""Results of runs as frames and csv files."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import pytest

import rince
from rince.evaluation.results import save_evaluation
from rince.reports.compare import compare_runs
from rince.reports.frames import write_results
from rince.reports.origins import alike_methods
from rince.reports.table import comparison_rows
from rince.training.config import TrainConfig, to_dict

yaml = pytest.importorskip("yaml")


def stored(make_run: Any, folder: Path, config: TrainConfig, **options: Any) -> None:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(to_dict(config)))
    save_evaluation(make_run(steps=0, **options).evaluation, folder)


@pytest.fixture
def runs(make_run: Any, tmp_path: Path) -> Path:
    for seed in (0, 1):
        config = TrainConfig("photos", seed=seed)
        config.loss.temperatures = (0.1, 0.225)
        stored(make_run, tmp_path / "runs" / f"r-{seed}", config, quality=0.5 + 0.2 * seed)
    other = TrainConfig("photos", objective="supcon-out")
    stored(make_run, tmp_path / "runs" / "s-0", other, metrics={"probe/fine": 0.25})
    (tmp_path / "runs" / "notes").mkdir()
    (tmp_path / "runs" / "latest").symlink_to("r-1")
    return tmp_path / "runs"


def test_a_row_a_run(runs: Path) -> None:
    pytest.importorskip("pandas")
    with pytest.warns(match="left out.*notes"):
        frame = rince.results(str(runs / "*"))
    assert list(frame["run"]) == [str(runs / name) for name in ("r-1", "notes")[:1]] + [
        str(runs / name) for name in ("r-0", "s-0")
    ]  # latest comes first, and is the run that it points to
    assert list(frame.columns[:5]) == ["run", "method", "seed", "seconds", "probe/fine"]
    of_method = frame.groupby("method")["probe/fine"].agg(["mean", "std", "count"])
    expected = (0.6, math.sqrt(0.02), 2)
    assert tuple(of_method.loc["rince out-in"]) == pytest.approx(expected)
    row = frame.set_index("method").loc["supcon-out"]
    assert (row["probe/fine"], row["objective"], row["optim.weight_decay"]) == (
        0.25, "supcon-out", 1e-4
    )  # fmt: skip
    assert math.isnan(row["retrieval/fine/mAP"])
    assert frame["loss.temperatures"][0] == (0.1, 0.225)
    two = rince.results([runs / "r-0", str(runs / "s-*")])
    assert list(two["method"]) == ["rince out-in", "supcon-out"]


def test_names_of_runs_that_are_none(runs: Path) -> None:
    pytest.importorskip("pandas")
    with pytest.raises(rince.RinceError, match=r"x-\*"):
        rince.results(runs / "x-*")
    with pytest.raises(rince.RinceError, match="nowhere"):
        rince.results([runs / "r-0", runs / "nowhere"])
    (runs / "r-0").rename(runs / "r[0]")  # a pattern, but that it is there
    assert list(rince.results(runs / "r[0]")["seed"]) == [0]


@pytest.mark.usefixtures("undrawn")
def test_csv_beside_the_page(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [runs / name for name in ("r-0", "r-1", "s-0")]
    compare_runs(folders, tmp_path / "page.html", title="t", csv=str(tmp_path / "out.csv"))
    with (tmp_path / "out.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["probe/fine"]) for row in rows] == pytest.approx([0.5, 0.7, 0.25])
    assert [row["seed"] for row in rows] == ["0", "1", "0"]
    assert rows[0]["loss.temperatures"] == "[0.1, 0.225]"
    assert rows[2]["retrieval/fine/mAP"] == ""
    assert "differ in" not in capsys.readouterr().out


def test_a_csv_that_cannot_be_written(make_run: Any, tmp_path: Path) -> None:
    with pytest.raises(rince.RinceError, match="cannot write the results to"):
        write_results([make_run()], tmp_path)


def test_methods_that_look_alike_say_what_differs(make_run: Any) -> None:
    configs = [
        {"seed": 0, "optim.lr": 0.1, "name": "a", "logger": ("wandb",)},
        {"seed": 1, "optim.lr": 0.1, "name": "b", "logger": ()},
        {"seed": 0, "optim.lr": 0.5, "name": "c"},
    ]
    runs = [make_run("rince\nout", config=config) for config in configs]
    rows = comparison_rows([*runs, make_run("other", config={"optim.lr": 7})]).rows
    assert len(rows) == 3  # a tracker makes no other method
    assert alike_methods(rows) == ["the rows of rince out differ in optim.lr: 0.1 | 0.5"]


@pytest.mark.usefixtures("undrawn")
def test_compare_prints_what_differs(
    make_run: Any, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = TrainConfig("photos", objective="supcon-out", epochs=7)
    stored(make_run, runs / "s-1", config)
    compare_runs([runs / "s-0", runs / "s-1"], tmp_path / "page.html", title="t")
    assert "the rows of supcon-out differ in epochs: 20 | 7\n" in capsys.readouterr().out


def test_all_folders_without_results_are_in_one_warning(runs: Path) -> None:
    pytest.importorskip("pandas")
    for number in range(3):
        (runs / f"bare-{number}").mkdir()
    with pytest.warns(match="left out") as warned:
        rince.results(str(runs / "*"))
    (text,) = [str(one.message) for one in warned if "left out" in str(one.message)]
    assert all(name in text for name in ("bare-0", "bare-1", "bare-2", "notes"))
