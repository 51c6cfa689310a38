"""Work that the processes of torchrun or srun share: the first leads, the others do their part.

Only the first reads options and data, measures, prints and writes results; it sends each task to
the others. What a task makes goes through files, so that a program that was killed goes on where
it was.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

import torch
import torch.distributed as dist

from rince.core.checks import RinceError, import_extra
from rince.core.distributed import process_index, world_size
from rince.core.files import replacing

Task: TypeAlias = Callable[[int, int], None]
"""Of process_index and world_size; it can be pickled."""

PARTS = 256  # of a data set at most: enough for many processes, and not too many files
_PATIENCE = timedelta(days=7)  # the first process may measure for hours between two tasks
_SECONDS_UNTIL_SEEN = 90.0  # a file that another machine wrote, over a network
_folder: Path | None = None


def lead(run: Callable[[], None]) -> None:
    """Call ``run`` on the first process; all others do their part of its tasks until it ends."""
    _start()
    try:
        if process_index() > 0:
            _follow()
            return
        try:
            run()
        finally:
            with contextlib.suppress(RuntimeError):  # another process is gone
                dist.broadcast_object_list([None], src=0)
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def parts_in(folder: Path) -> Iterator[None]:
    """If other processes wait for tasks, what is made goes through this folder, which all see. It
    is removed at the end; if something goes wrong it stays, to go on from."""
    global _folder
    _folder = folder.absolute() if world_size() > 1 else None
    try:
        yield
        if _folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        _folder = None


def parts_folder() -> Path | None:
    """That of :func:`parts_in`; None: this process does all, and keeps it to itself."""
    return _folder


def in_parts(
    folder: Path, key: str, count: int, batch_size: int, make: Callable[[slice], Any]
) -> list[Any]:
    """What ``make`` gives for some of ``count`` items after the other, each part made by one of
    the processes; a part that is there is read.

    Args:
        key: tells these parts from all others, also from those of other inputs or weights.
        batch_size: a part is a multiple of it, whatever the number of processes.
        make: can be pickled; gives tensors, texts, numbers, and lists, dicts and tuples of them.
    """
    size = batch_size * max(1, -(-count // (batch_size * PARTS)))
    rows = [slice(start, start + size) for start in range(0, count, size)]
    task = _MakeParts(folder, key, rows, make)
    problems: list[str | None] = []
    if world_size() > 1:
        with _all_there():
            dist.broadcast_object_list([task], src=0)
        problems = _done(task)
    else:
        task(0, 1)
    for index, problem in enumerate(problems):
        if problem is not None:
            raise RinceError(f"process {index}: {problem}")
    return [_read(task.file(part)) for part in range(len(rows))]


@dataclass(frozen=True)
class _MakeParts:
    folder: Path
    key: str
    rows: list[slice]
    make: Callable[[slice], Any]

    def file(self, part: int) -> Path:
        return self.folder / f"{self.key}-{part}.pt"

    def __call__(self, process_index: int, world_size: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for part in range(process_index, len(self.rows), world_size):
            if not self.file(part).exists():
                made = self.make(self.rows[part])
                with replacing(self.file(part)) as file, file.open("wb") as stream:
                    torch.save(made, stream)


def _start() -> None:
    if "RANK" in os.environ:  # torchrun
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    else:
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
        plugins = import_extra("lightning.fabric.plugins.environments", "train")
        slurm = plugins.SLURMEnvironment()
        os.environ.setdefault("MASTER_ADDR", slurm.main_address)
        os.environ.setdefault("MASTER_PORT", str(slurm.main_port))
    index, count, local = (int(os.environ.get(name, 0)) for name in names)
    if torch.cuda.is_available():
        torch.cuda.set_device(local % torch.cuda.device_count())  # what "cuda" means here
    dist.init_process_group("gloo", rank=index, world_size=count, timeout=_PATIENCE)


def _follow() -> None:
    while True:
        received: list[Task | None] = [None]
        with _all_there():
            dist.broadcast_object_list(received, src=0)
        if received[0] is None:
            return
        _done(received[0])


def _done(task: Task) -> list[str | None]:
    """What went wrong in each process; what goes wrong in the first is raised there."""
    problem, own = None, None
    try:
        task(process_index(), world_size())
    except Exception as error:  # whatever it is, the other processes wait
        own, known = error, isinstance(error, (RinceError, ValueError, OSError))
        problem = str(error) if known else traceback.format_exc()
    problems: list[str | None] = [None] * world_size()
    with _all_there():
        dist.all_gather_object(problems, problem)
    if own is not None and process_index() == 0:
        raise own
    return problems


@contextlib.contextmanager
def _all_there() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise RinceError(
            f"another process is gone, perhaps killed or out of memory ({error}): what was encoded "
            f"is kept, so give the command again to go on"
        ) from error


def _read(file: Path) -> Any:
    give_up = time.monotonic() + _SECONDS_UNTIL_SEEN
    while not file.exists():
        if time.monotonic() > give_up:
            raise RinceError(
                f"{file} was written by another process, but is not seen by the first: the folder "
                f"must lie on a disk that all machines share"
            )
        time.sleep(0.2)
    return torch.load(file, weights_only=True)
