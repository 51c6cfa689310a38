"""What a user sees while training: one line per epoch, and an online kNN accuracy."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch

from rince.core.checks import RinceError, warn
from rince.data.batches import eval_batches
from rince.data.items import Items
from rince.evaluation.features import extract_features
from rince.metrics.knn import knn_accuracy
from rince.training.collapse import warn_if_collapsed
from rince.training.logs import logger
from rince.training.saving import HistoryLogger


class OnlineKNN(pl.Callback):
    """kNN accuracy of the backbone on training items that are held out of the gallery.

    For monitoring only, do not report it: the encoder was trained on these items. The test set
    stays unseen. Where it fails, or there are fewer than two items, training goes on without it.
    A fixed fifth of at most ``limit`` training items are queries, the rest the gallery.
    """

    def __init__(self, items: Items, *, every: int, limit: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.items = items.subset(torch.randperm(len(items), generator=generator)[:limit])
        self.every = every

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        due = epoch % self.every == 0 or epoch == trainer.max_epochs
        if not trainer.is_global_zero or not due or len(self.items) < 2:
            return
        try:
            accuracy = self._measure(pl_module)
        except (ValueError, RinceError, torch.cuda.OutOfMemoryError) as error:
            warn(f"no kNN accuracy after epoch {epoch}: {error}. Training goes on")
            return
        for target in trainer.loggers:
            target.log_metrics({"online_knn": accuracy}, trainer.global_step)
        pl_module.log("knn", accuracy, prog_bar=True, logger=False, rank_zero_only=True)

    def _measure(self, pl_module: pl.LightningModule) -> float:
        backbone: Any = pl_module.backbone
        config: Any = pl_module.config
        # A training step encodes two views of each item, and has gradients beside them.
        at_once = min(512, 2 * (config.micro_batch or config.batch_size))
        batches = eval_batches(self.items, at_once, config.images.workers, pl_module.device)
        known = extract_features(backbone, batches, pl_module.device)
        queries = max(1, len(known.labels) // 5)
        return knn_accuracy(
            known.features[:queries],
            known.features[queries:],
            known.labels[:queries],
            known.labels[queries:],
            k=min(20, len(known.labels) - queries),
        )


class EpochLine(pl.Callback):
    """Logs one line per epoch: loss, and per rank its loss, similarity and positives. Warns at the
    end of a training that has collapsed."""

    def __init__(self, history: HistoryLogger, noun: str = "images") -> None:
        self.history = history
        self.noun = noun
        self._started: float | None = None  # stays None for the rest of a resumed epoch
        self._ended = 0.0
        self._steps = 0
        self._means: Mapping[str, float] = {}  # of the last epoch

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._steps = 0
        self._started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        self._steps += 1
        self._ended = time.perf_counter()  # what follows the last step is not training

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        speed = None
        if self._started is not None:
            config: Any = pl_module.config
            count = self._steps * config.batch_size * trainer.world_size
            speed = count / (self._ended - self._started)
        self._means = means = self.history.take_means()
        epoch, epochs = trainer.current_epoch + 1, int(trainer.max_epochs or 0)
        logger.info(epoch_line(epoch, epochs, means, speed, self.noun))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        objective: Any = pl_module.objective
        # What a classifier compares are logits: its features may all point one way.
        prefix = "train/similarity_rank_"
        similarities = [x for name, x in self._means.items() if name.startswith(prefix)]
        if similarities and not objective.classifier:
            advice = (
                "Lower optim.lr, lengthen the warm-up (optim.warmup_epochs), or clip (optim.clip "
                "1); see 'The loss is flat' in docs/troubleshooting.md"
            )
            warn_if_collapsed(min(similarities), trainer.global_step, self.noun, advice)


def epoch_line(
    epoch: int, epochs: int, means: Mapping[str, float], speed: float | None, noun: str = "images"
) -> str:
    """``epoch 3/20 | loss 4.21 | rank 1: loss 2.10, similarity 0.63, positives 5.1 | ...``."""
    parts = [f"epoch {epoch}/{epochs}"]
    if "train/loss" in means:
        parts.append(f"loss {means['train/loss']:.3f}")
    rank = 1
    while f"train/positives_rank_{rank}" in means:
        digits = {"loss": 3, "similarity": 2, "positives": 1}
        values = {name: means.get(f"train/{name}_rank_{rank}") for name in digits}
        shown = [f"{n} {x:.{digits[n]}f}" for n, x in values.items() if x is not None]
        parts.append(f"rank {rank}: " + ", ".join(shown))
        rank += 1
    if "train/similarity_rank_0" in means:
        parts.append(f"negatives: similarity {means['train/similarity_rank_0']:.2f}")
    if "online_knn" in means:
        parts.append(f"kNN {100 * means['online_knn']:.1f}%")
    if speed is not None:
        parts.append(f"{speed:.0f} {noun}/s")
    return " | ".join(parts)
