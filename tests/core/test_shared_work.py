"""Work in parts: of one process, of one among several, and what the others wait for."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from rince.core import shared_work
from rince.core.checks import RinceError
from rince.core.distributed import world_size
from rince.core.shared_work import in_parts, lead, parts_folder, parts_in


@pytest.mark.parametrize(
    ("parts", "bounds"),
    [(256, [(0, 2), (2, 4), (4, 6), (6, 7)]), (2, [(0, 4), (4, 7)]), (1, [(0, 7)])],
)
def test_parts_are_whole_batches_and_made_once(
    parts: int, bounds: list[tuple[int, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_work, "PARTS", parts)
    made: list[list[int]] = []

    def make(rows: slice) -> list[int]:
        made.append(list(range(7))[rows])
        return made[-1]

    folder = tmp_path / "new" / "folder"
    expected = [list(range(a, b)) for a, b in bounds]
    assert in_parts(folder, "key", 7, 2, make) == expected
    assert in_parts(folder, "key", 7, 2, make) == expected
    assert made == expected  # read the second time
    assert in_parts(folder, "other", 7, 2, make) == expected
    assert len(made) == 2 * len(expected)


def test_a_process_makes_its_own(tmp_path: Path) -> None:
    rows = [slice(i, i + 1) for i in range(5)]
    task = shared_work._MakeParts(tmp_path, "k", rows, lambda rows: rows.start)
    task(1, 3)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["k-1.pt", "k-4.pt"]
    assert torch.load(task.file(4), weights_only=True) == 4


@pytest.mark.parametrize("count", [20_000, 100_000])  # torch says of one this, of the other that
def test_a_full_disk_is_told_of_the_part(count: int, tmp_path: Path, small_disk: None) -> None:
    with pytest.raises(OSError, match=re.escape(f"File too large: '{tmp_path / 'k-0.pt'}'")):
        in_parts(tmp_path, "k", 1, 1, lambda rows: torch.zeros(count))
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_is_not_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_work, "_SECONDS_UNTIL_SEEN", 0.0)
    with pytest.raises(RinceError, match="k-0.pt"):
        shared_work._read(tmp_path / "k-0.pt")


def test_a_part_is_waited_for_as_long_as_it_is_said_and_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_work, "_SECONDS_UNTIL_SEEN", 1.0)
    now, waits = [0.0], []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += 0.5

    monkeypatch.setattr("time.sleep", sleep)
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with pytest.raises(RinceError, match="all machines share"):
        shared_work._read(tmp_path / "k-0.pt")
    assert waits == [0.2] * 3  # at 0, 0.5 and 1.0


def test_a_part_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save(world_size, tmp_path / "k-0.pt")  # a function
    with pytest.raises(pickle.UnpicklingError):
        shared_work._read(tmp_path / "k-0.pt")


def test_a_part_that_is_seen_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "k-0.pt"
    monkeypatch.setattr("time.sleep", lambda seconds: torch.save(3, file))
    assert shared_work._read(file) == 3


def test_the_folder_of_parts_is_of_several_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    with parts_in(folder):
        assert parts_folder() is None
    assert folder.exists()
    monkeypatch.setattr(shared_work, "world_size", lambda: 2)
    monkeypatch.chdir(tmp_path)

    def stopped() -> None:
        with parts_in(Path("parts")):
            assert parts_folder() == folder
            raise KeyError

    with pytest.raises(KeyError):
        stopped()
    assert folder.exists()  # to go on from
    with parts_in(folder):
        pass
    assert not folder.exists()
    with parts_in(folder):  # in which nothing had to be made
        pass
    assert parts_folder() is None


def test_the_first_process_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.setenv(name, str(int(name == "WORLD_SIZE")))
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "0")
    seen: list[tuple[bool, int]] = []
    lead(lambda: seen.append((dist.is_initialized(), world_size())))
    assert seen == [(True, 1)]
    assert not dist.is_initialized()


class Others:
    """Stands in for torch.distributed: what the other processes send."""

    def __init__(self, *sent: Any, answers: tuple[str | None, ...] = (None, None)) -> None:
        self.sent, self.answers = list(sent), answers
        self.told: list[str | None] = []

    def broadcast_object_list(self, objects: list[Any], src: int) -> None:
        assert src == 0
        if self.sent:
            objects[0] = self.sent.pop(0)
            if isinstance(objects[0], RuntimeError):
                raise objects[0]

    def destroy_process_group(self) -> None:
        self.told.append("end")

    def all_gather_object(self, answers: list[Any], own: Any) -> None:
        self.told.append(own)
        answers[:] = [own, *self.answers[1:]] if len(answers) == 2 else [own]


def failing(error: Exception) -> Any:
    def task(process_index: int, world_size: int) -> None:
        raise error

    return task


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> Any:
    def set_up(index: int, others: Others) -> Others:
        monkeypatch.setattr(shared_work, "dist", others)
        monkeypatch.setattr(shared_work, "world_size", lambda: 2)
        monkeypatch.setattr(shared_work, "process_index", lambda: index)
        return others

    return set_up


def test_the_others_do_their_part_until_it_ends(two: Any) -> None:
    done: list[tuple[int, int]] = []
    tasks = [lambda *who: done.append(who), failing(ValueError("bad")), failing(TypeError("odd"))]
    others = two(1, Others(*tasks, None))
    shared_work._follow()
    assert done == [(1, 2)]
    assert others.told[:2] == [None, "bad"]  # known errors in their words
    assert "Traceback" in others.told[2]


def test_all_are_told_of_the_end(two: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_work, "_start", lambda: None)
    ran: list[int] = []
    for index, sent in ((1, None), (0, "the end"), (0, RuntimeError("gone"))):
        others = two(index, Others(sent))
        lead(lambda: ran.append(0))
        assert (others.sent, others.told) == ([], ["end"])
    assert ran == [0, 0]  # in the first process alone


def test_what_goes_wrong_elsewhere_is_said_here(two: Any, tmp_path: Path) -> None:
    two(0, Others(answers=(None, "disk full")))
    with pytest.raises(RinceError, match="process 1: disk full"):
        in_parts(tmp_path, "k", 1, 1, lambda rows: 0)
    two(0, Others(answers=(None, None)))
    with pytest.raises(KeyError, match="own"):
        in_parts(tmp_path, "new", 1, 1, lambda rows: {}["own"])
    two(0, Others(RuntimeError("connection closed")))
    with pytest.raises(RinceError, match="connection closed"):
        in_parts(tmp_path, "k", 1, 1, lambda rows: 0)


def test_processes_of_a_machine_take_its_cards_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "13", "WORLD_SIZE": "16", "LOCAL_RANK": "5"}.items():
        monkeypatch.setenv(name, value)
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(dist, "init_process_group", lambda *_, **given: taken.append(given["rank"]))
    shared_work._start()
    monkeypatch.setenv("LOCAL_RANK", "3")
    shared_work._start()
    assert taken == [1, 13, 3, 13]


def test_srun_says_who_is_who(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lightning", reason="the extra train is not installed")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    variables = {"SLURM_PROCID": 3, "SLURM_STEP_NUM_TASKS": 8, "SLURM_LOCALID": 1}
    for name, value in {**variables, "SLURM_JOB_ID": 7, "SLURM_NODELIST": "node[5-6]"}.items():
        monkeypatch.setenv(name, str(value))
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(
        dist, "init_process_group", lambda backend, **given: asked.append({backend: given})
    )
    before = dict(os.environ)
    shared_work._start()
    (given,) = asked[0].values()
    assert (given["rank"], given["world_size"]) == (3, 8)
    monkeypatch.delenv("SLURM_PROCID")
    shared_work._start()
    assert asked[1]["gloo"]["rank"] == 0
    assert os.environ["MASTER_ADDR"] == "node5"
    assert os.environ["MASTER_PORT"].isdecimal()
    for name in set(os.environ) - set(before):
        monkeypatch.delenv(name)
