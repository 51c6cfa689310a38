from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from rince.core.checks import RinceWarning
from rince.training.history import HISTORY_FILE, read_history
from rince.training.saving import HistoryLogger


def test_a_file_that_cannot_be_written_is_warned_of_once(tmp_path: Path) -> None:
    history = HistoryLogger(tmp_path)
    (tmp_path / HISTORY_FILE).mkdir()
    with pytest.warns(RinceWarning, match="metrics.csv"):
        history.log_metrics({"loss": 3.0}, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history.log_metrics({"loss": 2.0}, 2)
    assert history.take_means() == {"loss": 2.5}  # the line of the epoch has them all the same
    (tmp_path / HISTORY_FILE).rmdir()
    history.log_metrics({"loss": 1.0}, 3)
    assert read_history(tmp_path) == {"loss": [(3, 1.0)]}


def test_a_line_cut_short_does_not_spoil_the_next(tmp_path: Path) -> None:
    file = tmp_path / HISTORY_FILE
    HistoryLogger(tmp_path).log_metrics({"loss": 3.0, "lr": 0.5}, 1)
    for cut in ("2,lo", "2", "2,loss,"):
        whole = file.read_bytes()
        file.write_bytes(whole + cut.encode())
        HistoryLogger(tmp_path).log_metrics({"loss": 1.0}, 2)
        assert read_history(tmp_path) == {"loss": [(1, 3.0), (2, 1.0)], "lr": [(1, 0.5)]}
        assert file.read_bytes() == whole + f"{cut}\n2,loss,1.0\r\n".encode()
        file.write_bytes(whole)


def test_lines_that_are_no_metric_are_left_out(tmp_path: Path) -> None:
    lines = [
        *("step,name,value", "1,loss,3.0", "one,loss,2.0", "2,loss,abc", "3,loss", "4,loss,1.0,7"),
        *(",loss,1.0", "", "5,lo\0ss,0.5", "6,loss,0.25"),
    ]
    (tmp_path / HISTORY_FILE).write_bytes("\n".join(lines).encode() + b"\n7,\xff")
    assert read_history(tmp_path) == {"loss": [(1, 3.0), (5, 0.5), (6, 0.25)]}


def test_the_later_of_two_lines_of_a_step_counts(tmp_path: Path) -> None:
    history = HistoryLogger(tmp_path)
    for value in (3.0, 2.0):
        history.log_metrics({"loss": value, "epoch": 0}, 1)
    assert read_history(tmp_path) == {"loss": [(1, 2.0)]}
