"""Functions run in processes of their own, which start at once.

A new Python spends seconds on imports. multiprocessing's fork server spends them once: it imports,
does nothing else, and is copied. (A copy of the process of the tests itself would have what they
have left behind: threads, open files, a backend.)
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp

# Slow to import, and none of our own code; the tests have most of them imported by now.
PACKAGES = ("torch", "numpy", "pytest", "hypothesis.strategies", "torchvision", "lightning.pytorch")


def run_in_processes(function: Callable[..., object], *arguments: object, count: int) -> None:
    """Run ``function(index, *arguments)`` in ``count`` processes; an error is raised here.

    They have this process's environment, and one thread each.
    """
    multiprocessing.set_forkserver_preload([name for name in PACKAGES if name in sys.modules])
    # First into one process, so that the module of the function is imported once for all.
    mp.start_processes(
        _share, (function, arguments, count, dict(os.environ)), start_method="forkserver"
    )


def _share(
    _: int,
    function: Callable[..., object],
    arguments: tuple[object, ...],
    count: int,
    environment: dict[str, str],
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    mp.start_processes(_run, (function, arguments), nprocs=count, start_method="fork")


def _run(index: int, function: Callable[..., object], arguments: tuple[object, ...]) -> None:
    # The first call after a fork replaces torch's pool of threads, and two threads must not do it
    # at once ("Invalid thread pool!"), as those of a first backward would.
    torch.set_num_threads(1)
    function(index, *arguments)


def like_torchrun(index: int, count: int, folder: Path) -> None:
    """What torchrun sets for a process; what it prints goes to folder/out0, err0, out1, ..."""
    values: dict[str, Any] = {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": count}
    values |= {"LOCAL_WORLD_SIZE": count, "GROUP_RANK": 0, "TORCHELASTIC_RUN_ID": "tests"}
    os.environ |= {name: str(value) for name, value in values.items()}
    # In the place of an address: who is asked for one, finds the processes connected.
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=index, world_size=count
    )
    for name, stream in (("out", sys.stdout), ("err", sys.stderr)):
        stream.flush()
        file = os.open(folder / f"{name}{index}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, stream.fileno())
    # Lightning has read of it at its import.
    if module := sys.modules.get("lightning_utilities.core.rank_zero"):
        module.rank_zero_only.rank = index
