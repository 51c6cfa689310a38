"""One configuration with several seeds, in one go or in many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rince.core.checks import RinceError, require
from rince.core.distributed import is_first_process
from rince.training.config import TrainConfig, differing
from rince.training.folder import CHECKPOINT_FILE, read_about, read_config
from rince.training.run import prepared, resume, train, train_prepared
from rince.training.towers_run import as_trained


def train_seeds(config: TrainConfig, seeds: Sequence[int]) -> list[Path]:
    """Train with each of the seeds: what is finished is left as it is, what stopped goes on.

    Args:
        config: the runs, but for the seed; a ``name`` is that of all, with ``-seedN`` behind it.
        seeds: different ones.

    Returns:
        The runs' folders, in the order of the seeds.

    Raises:
        RinceError: a folder that holds a run with other options; and as
            :func:`~rince.training.train`.
        ValueError: no seed, or the same twice; and as :func:`~rince.training.train`.
    """
    require(
        len(seeds) > 0 and len(set(seeds)) == len(seeds),
        f"seeds must be one or more different whole numbers, got {list(seeds)}",
    )
    runs = [
        replace(config, seed=seed, name=config.name and f"{config.name}-seed{seed}")
        for seed in seeds
    ]
    for one in runs:
        one.check_values()
    folders, splits, run = [], None, None
    for one in runs:
        folder = one.folder()
        if config.images.per_class is not None or config.images.test_per_class is not None:
            splits = None  # the seed chooses the items
        if config.vectors.captions is None:
            run = prepared(one, folder, splits)
            splits = run.splits
        try:
            # Towers have no checkpoint: their folder is there when they are trained.
            if (folder / CHECKPOINT_FILE if run else folder).exists():
                _check_same(folder, run.config if run else as_trained(one))
                if not read_about(folder):
                    resume(folder, progress=config.progress, splits=splits)
                elif is_first_process():
                    print(f"{folder} is finished already, and left as it is")
            elif run:
                one.check()
                train_prepared(run)
            else:
                train(one)
        except KeyboardInterrupt as stop:
            why = str(stop) or "stopped"
            text = f"{why}. Or the same command, which trains all seeds that are left"
            raise KeyboardInterrupt(text) from None
        folders.append(folder)
    return folders


def _check_same(folder: Path, asked: TrainConfig) -> None:
    other = differing(read_config(folder), asked)
    if other:
        told = "; ".join(f"{name} {was}, not {now}" for name, (was, now) in other.items())
        raise RinceError(
            f"{folder} holds a run with other options ({told}): choose another --name "
            f"for these, or give the options of that run"
        )
