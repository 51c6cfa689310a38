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
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from rince.core.checks import RinceError, warn
from rince.core.files import replacing
from rince.training.checkpoint import CHECKPOINT_FILE
from rince.training.history import HEADER, HISTORY_FILE


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
    leave them there for good. So it is kept.
    """

    failed: RinceError | None = None  # why the last write did

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with replacing(target) as part, part.open("wb") as stream:
                torch.save(checkpoint, stream)
            self.failed = None
        except Exception as error:  # whatever it is, the other processes wait
            there = os.path.exists(target)
            kept = f"the one before is intact: {target}" if there else "there is none yet"
            self.failed = RinceError(
                f"could not write a checkpoint to {target.parent} ({error}); {kept}. Fix "
                f"that, then go on with `rince train --resume {quote(str(target.parent))}`"
            )


class CheckpointEvery(pl.Callback):
    """One checkpoint, renewed every ``steps`` steps and at the end of each epoch.

    A write that fails in mid-run is a warning, since the next one may succeed (somebody frees
    space); at the end of the run it is an error, on every process.

    Not one of Lightning's ``Checkpoint`` callbacks, which it moves behind all others: an epoch is
    to be safe before something else looks at it.

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


def _link_latest(folder: Path, output: Path) -> None:
    """``runs/latest``: a convenience, which some file systems do not have."""
    output = output.resolve()
    latest = output / "latest"
    with contextlib.suppress(OSError, ValueError):  # on another drive of Windows
        if latest.is_symlink() or not latest.exists():
            target = os.path.relpath(folder.resolve(), output)
            latest.unlink(missing_ok=True)
            latest.symlink_to(target)
