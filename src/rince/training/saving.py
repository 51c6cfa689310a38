"""What a run writes as it trains: metrics; checkpoints that survive kill -9 and a full disk."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only
from lightning_utilities.core.apply_func import apply_to_collection

from rince.core.checks import RinceError, warn
from rince.core.files import replacing
from rince.training.checkpoint import CHECKPOINT_FILE, read_plainly
from rince.training.history import HEADER, HISTORY_FILE

_STATES = "callbacks"  # Lightning's name in a checkpoint


class HistoryLogger(Logger):
    """Appends every metric as a line at once, so that a killed run keeps what it measured.

    Lightning's CSVLogger keeps them in memory, rewrites its file, and starts anew on resume.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._file = folder / HISTORY_FILE
        self._sums: dict[str, tuple[float, int]] = {}
        self._warned = False

    @property
    def name(self) -> str:
        return "history"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """The run folder holds the configuration already."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        for name, value in metrics.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + float(value), count + 1)
        rows = [(step, name, repr(float(x))) for name, x in metrics.items() if name != "epoch"]
        try:
            self._append(rows)
        except OSError as error:
            if not self._warned:
                self._warned = True
                warn(
                    f"could not write metrics to {self._file} ({error}): training goes on, and "
                    f"what cannot be written will be missing there"
                )

    def take_means(self) -> dict[str, float]:
        """Mean of each metric since this was last asked for."""
        means = {name: total / count for name, (total, count) in self._sums.items()}
        self._sums = {}
        return means

    def _append(self, rows: list[tuple[int | None, str, str]]) -> None:
        text = io.StringIO()
        writer = csv.writer(text)
        with self._file.open("a+b") as stream:
            if stream.tell() == 0:
                writer.writerow(HEADER.split(","))
            else:
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":  # a kill or a full disk cut the last line short
                    text.write("\n")
            writer.writerows(rows)
            stream.write(text.getvalue().encode())


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the old checkpoint, flushes to disk, then replaces it in one step.

    Only process 0 writes, while the others wait for it at a barrier: an error raised here would
    leave them there for good. So that of the run's own checkpoint is kept; another one, which a
    callback of the user's asks for, is warned of.
    """

    def __init__(self, folder: Path) -> None:
        self.own = folder / CHECKPOINT_FILE
        self.failed: RinceError | None = None  # why the last write of the run's own did

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        target = Path(path)
        if target == self.own:
            self.failed = None
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with replacing(target) as part, part.open("wb") as stream:
                torch.save(checkpoint, stream)
        except Exception as error:  # whatever it is, the other processes wait
            there = os.path.exists(target)
            kept = f"the one before is intact: {target}" if there else "there is none yet"
            problem = f"could not write a checkpoint to {target.parent} ({error}); {kept}"
            if target != self.own:
                warn(f"{problem}. Training goes on without it")
                return
            self.failed = RinceError(
                f"{problem}. Fix that, then go on with `rince train --resume "
                f"{quote(str(target.parent))}`"
            )


class CheckpointEvery(pl.Callback):
    """One checkpoint, renewed every ``steps`` steps and at the end of each epoch.

    A write that fails in mid-run is a warning, since the next one may succeed (somebody frees
    space); at the end of the run it is an error, on every process.

    Not one of Lightning's ``Checkpoint`` callbacks, which it moves behind all others: an epoch is
    to be safe before something else looks at it. But see :class:`CheckpointBehind`.

    Args:
        output: where ``latest`` leads to the run; None: the folder above.
    """

    def __init__(
        self, folder: Path, steps: int, io: AtomicCheckpointIO, output: Path | None = None
    ) -> None:
        self.path = folder / CHECKPOINT_FILE
        self.steps = steps
        self.io = io
        self.output = output or folder.parent
        self._linked = False

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        # The last batch of an epoch is saved below, when its epoch is over for whoever resumes.
        if trainer.global_step % self.steps == 0 and not trainer.is_last_batch:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_last_batch:
            self._save(trainer)
            return
        # A callback has stopped it in mid-epoch. Lightning counts that epoch as done all the same,
        # and whoever resumes would begin the next one.
        epochs: Any = trainer.fit_loop.epoch_progress
        for count in (epochs.total, epochs.current):
            count.processed -= 1
        try:
            self._save(trainer)
        finally:
            for count in (epochs.total, epochs.current):
                count.processed += 1

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Only process 0 knows, and all must end alike.
        problem = trainer.strategy.broadcast(str(self.io.failed or ""))
        if problem:
            raise RinceError(problem)

    def _save(self, trainer: pl.Trainer) -> None:
        trainer.save_checkpoint(self.path)
        if self.io.failed is not None:
            warn(f"{self.io.failed}. Training goes on and will try again")
        elif trainer.is_global_zero and not self._linked:
            self._linked = True
            _link_latest(self.path.parent, self.output)


class CheckpointBehind(CheckpointEvery, Checkpoint):
    """The same for a run with callbacks of the user's: they see a step or an epoch first, so that
    their states in the checkpoint are those after it. An epoch in which one of them fails is
    repeated from the checkpoint before. What they add to a checkpoint must be readable again."""

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # On every process, so that all end alike.
        parts = {f"checkpoint's {name!r}": x for name, x in checkpoint.items() if name != _STATES}
        for name, state in checkpoint[_STATES].items():
            numbers = {key: x.item() for key, x in state.items() if isinstance(x, np.generic)}
            if numbers:  # in a copy: the state may be what the callback works with
                checkpoint[_STATES][name] = state = {**state, **numbers}
            parts[f"state_dict of the callback {name}"] = state
        for name, part in parts.items():
            _require_plain(part, name)


def _require_plain(part: object, name: str) -> None:
    """Refuse what could be saved, but not be read again, as no code in a checkpoint is run."""
    stream = io.BytesIO()
    try:
        torch.save(apply_to_collection(part, torch.Tensor, lambda _: None), stream)
        stream.seek(0)
        read_plainly(stream)
    except Exception as error:  # as many kinds as there are objects
        reason = str(error).strip().partition("\n")[0]
        raise RinceError(
            f"the {name} holds what a checkpoint cannot ({reason}): only numbers, strings, lists, "
            f"dicts and tensors are read again, as no code of a file is run. Keep str(x) of a "
            f"path, x.item() of a number of numpy, torch.from_numpy(x) of an array"
        ) from error


def _link_latest(folder: Path, output: Path) -> None:
    """``runs/latest``: a convenience, which some file systems do not have."""
    output = output.resolve()
    latest = output / "latest"
    with contextlib.suppress(OSError, ValueError):  # on another drive of Windows
        if latest.is_symlink() or not latest.exists():
            target = os.path.relpath(folder.resolve(), output)
            latest.unlink(missing_ok=True)
            latest.symlink_to(target)
