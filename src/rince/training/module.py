"""The LightningModule: views in, queries and keys, the loss of an objective out."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, AdamW, Optimizer

from rince._version import __version__
from rince.core.checks import RinceError, require
from rince.core.devices import pinned, sent
from rince.core.distributed import gather, process_index, world_size
from rince.data.batches import BatchViews, ImageBatch
from rince.data.given_tree import GivenTree
from rince.data.items import Splits
from rince.data.plan import batch_seed
from rince.data.views import WEAK_VIEWS, ViewConfig
from rince.models.backbones import Backbone
from rince.models.momentum import MomentumEncoder
from rince.models.queue import KeyQueue
from rince.models.tuning import keep_frozen_norms, parameter_groups
from rince.ranks.time import ItemTimes
from rince.training.cached import Part, encode_parts, micro_batches
from rince.training.checkpoint import CHECKPOINT_KEY, own_facts
from rince.training.classifiers import training_head
from rince.training.config import TrainConfig, to_dict
from rince.training.objectives import OBJECTIVES, Objective
from rince.training.ranks import to_checkpoint
from rince.training.step import (
    Pairs,
    RankSource,
    Step,
    objective_loss,
    rank_statistics,
    superclass_level,
)

ONE_BATCH_A_STEP = (
    "a step of a run is one batch, to whose number the data and the learning rate belong. For a "
    "batch that does not fit into memory set micro_batch: it is encoded in parts, and the loss "
    "sees the whole"
)
_CHECKED_FIRST = 10  # steps of a run: wrong data and a wrong learning rate show early


class RankedModule(pl.LightningModule):
    """Trains a backbone with any objective.

    Without ``model.momentum`` both views of every image are queries and keys at once (SimCLR).
    With it the first view is the query, the second goes through the momentum encoder and is a
    key, and so are the queued keys (MoCo). Over several processes the keys of all are gathered.
    With ``micro_batch`` the batch is encoded in parts (:mod:`rince.training.cached`); the loss
    sees the whole batch all the same.

    A step draws its random numbers from (seed, epoch, batch, process) alone, so that a run that
    is killed and resumed takes the same steps.

    Args:
        objective: your own; None takes that of ``config.objective``.
        rank_source: what the objective rince trains on; None takes the taxonomy's.
        tree: that of ``ranks.tree``: for the checkpoint.
        own_backbone: the backbone is the user's: for the checkpoint.
    """

    def __init__(
        self,
        backbone: Backbone,
        splits: Splits,
        config: TrainConfig,
        *,
        objective: Objective | None = None,
        rank_source: RankSource | None = None,
        tree: GivenTree | None = None,
        own_backbone: bool = False,
    ) -> None:
        super().__init__()
        items = splits.train
        self.config = config
        self.taxonomy = taxonomy = items.taxonomy
        self.objective = OBJECTIVES[config.objective] if objective is None else objective
        self.rank_source = taxonomy if rank_source is None else rank_source
        self.spec = splits.spec
        self.augmentation = items.augmentation(view_config(config))
        self.view_inputs = items.view_inputs
        self.data_fingerprint = splits.fingerprint()
        self.own_backbone = own_backbone
        self.tree = tree
        self._unread: list[tuple[str, int, Tensor]] = []  # (what, step, value): to be finite
        self._seconds_before = 0.0
        self._peak_rates: list[float] = []  # of the groups of weights
        self._started = time.perf_counter()
        self._sizes_unknown = self._unread_weights_unknown = True
        self._check_objective()
        self.num_heads = self.objective.num_heads
        model, contrastive = config.model, not self.objective.classifier
        head = training_head(self.objective, backbone.feature_dim, taxonomy, model)
        self.encoder = nn.Sequential(OrderedDict(backbone=backbone.module, head=head))
        self.momentum_encoder: MomentumEncoder | None = None
        self.queue: KeyQueue | None = None
        if contrastive and model.momentum is not None:
            self.momentum_encoder = MomentumEncoder(self.encoder, model.momentum)
        if contrastive and model.queue_size:
            self.queue = KeyQueue(model.queue_size, model.embedding_dim, self.num_heads)

    @property
    def backbone(self) -> nn.Module:
        """The part that is kept and evaluated."""
        return self.encoder.get_submodule("backbone")

    def train(self, mode: bool = True) -> RankedModule:
        super().train(mode)
        self._keep_frozen_norms()
        return self

    def _keep_frozen_norms(self) -> None:
        if self.config.model.layers is not None or self.config.model.lora is not None:
            slow = self.momentum_encoder
            keep_frozen_norms(self.encoder, None if slow is None else slow.module)

    def compile_encoders(self) -> None:
        """In place, so that the weights keep their names."""
        (self.backbone if self.objective.classifier else self.encoder).compile()
        if self.momentum_encoder is not None:
            self.momentum_encoder.module.compile()

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, C, [T,] H, W) -> (B, feature_dim)."""
        features: Tensor = self.backbone(inputs)
        return features

    def transfer_batch_to_device(
        self, batch: ImageBatch, device: torch.device, dataloader_idx: int
    ) -> ImageBatch:
        # Of several micro-batches the items follow one at a time.
        move = sent if len(self._rows(batch)) == 1 else pinned
        return batch._replace(
            views=tuple(move(x, device) for x in batch.views),
            labels=sent(batch.labels, device),
            indices=sent(batch.indices, device),
        )

    def on_train_batch_start(self, batch: ImageBatch, batch_idx: int) -> None:
        accumulated = self.trainer.accumulate_grad_batches  # which callbacks can set
        require(
            accumulated == 1, f"accumulate_grad_batches is {accumulated}, but {ONE_BATCH_A_STEP}"
        )
        # Dropout and the like: a function of the step, not of what happened before it.
        torch.manual_seed(
            batch_seed(self.config.seed, self.current_epoch, batch_idx, process_index())
        )

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        # Images arrive as bytes: making floats, or views, of them here uses the GPU, if any.
        views = BatchViews(batch, self.augmentation, self.view_inputs)
        if self.objective.classifier:
            make = self._classify
        else:
            make = self._momentum_pairs if self.momentum_encoder else self._pairs
        pairs, logits = make(batch, views)
        number, config = self.global_step + 1, self.config
        validate = number <= _CHECKED_FIRST or number % config.validate_every == 0
        distinct = config.batches.images_per_class is None
        pairs = replace(pairs, validate=validate, distinct=distinct)
        step = Step(
            pairs, self.taxonomy, self.rank_source, config.loss, logits, compiled=config.compile
        )
        loss = objective_loss(self.objective, step)
        self._unread.append(("the loss", number - 1, loss.total.detach()))
        due = number % config.log_every == 0 or self.trainer.is_last_batch
        if due and self.loggers:
            statistics = rank_statistics(pairs.head(0), self.rank_source)
            shown = self._read({"loss": loss.total.detach(), **loss.parts, **statistics})
            # A batch may hold no pair of a rank.
            shown = {n: x for n, x in shown.items() if n not in statistics or not math.isnan(x)}
            # In float32, as the others are, and as it is recorded of all runs so far.
            shown["lr"] = float(torch.tensor(self._current_lr()))
            for tracker in self.loggers:
                tracker.log_metrics({f"train/{n}": x for n, x in shown.items()}, number)
            # On the CPU: Lightning reads it at each step.
            self.log("loss", torch.tensor(shown["loss"]), prog_bar=True, logger=False)
        elif validate:
            self._read({})
        return loss.total

    def on_after_backward(self) -> None:
        if world_size() == 1 or not self._unread_weights_unknown:
            return
        self._unread_weights_unknown = False
        weights = self.named_parameters()
        lost = [name for name, x in weights if x.requires_grad and x.grad is None]
        if lost:
            raise RinceError(
                f"the loss does not depend on {', '.join(lost)}, for whose gradient several "
                f"processes would wait: freeze these weights (requires_grad_(False)), or train "
                f"with devices 1"
            )

    def configure_optimizers(self) -> Any:
        optim = self.config.optim
        assert optim.lr is not None  # TrainConfig.sized has chosen one
        weights: list[Any] = [p for p in self.parameters() if p.requires_grad]
        if optim.layer_decay is not None:
            weights = parameter_groups(self.encoder, self.backbone, optim.lr, optim.layer_decay)
        sgd = optim.optimizer == "sgd"
        make: Callable[..., Optimizer] = partial(SGD, momentum=0.9) if sgd else AdamW
        optimizer = make(weights, lr=optim.lr, weight_decay=optim.weight_decay)
        self._peak_rates = [group["lr"] for group in optimizer.param_groups]
        total = int(self.trainer.estimated_stepping_batches)
        warmup = round(total * optim.warmup(self.config.epochs) / self.config.epochs)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: lr_factor(step, total, warmup, optim.final_lr_ratio)
        )
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        weights = torch.stack([p.detach().float().sum() for p in self.parameters()])
        self._unread.append(("the sum of the weights", self.global_step, weights.sum()))
        self._read({})
        checkpoint[CHECKPOINT_KEY] = {
            "version": __version__,
            "config": to_dict(self.config),
            "taxonomy": [list(path) for path in self.taxonomy.paths],
            "ranks": to_checkpoint(self.rank_source),
            "tree": None if self.tree is None else [list(x) for x in self.tree.taxonomy.paths],
            **self.spec.to_dict(),
            "own_backbone": self.own_backbone,
            "data_fingerprint": self.data_fingerprint,
            "steps_per_epoch": int(self.trainer.num_training_batches),
            "world_size": world_size(),
            "train_seconds": self.train_seconds(),
            **own_facts(self.objective),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._seconds_before = checkpoint[CHECKPOINT_KEY]["train_seconds"]

    def on_train_start(self) -> None:
        self._started = time.perf_counter()
        self._keep_frozen_norms()  # Lightning calls no train(), but leaves modes as they are
        # A checkpoint also holds the rate of the next step, which in a run of fewer epochs was
        # another one; and what was edited since in the configuration.
        schedule: Any = self.lr_schedulers()
        schedule.base_lrs = list(self._peak_rates)
        for group, lr in zip(schedule.optimizer.param_groups, self._peak_rates, strict=True):
            group["initial_lr"] = lr
            group["lr"] = lr * schedule.lr_lambdas[0](schedule.last_epoch)
            group["weight_decay"] = self.config.optim.weight_decay

    def train_seconds(self) -> float:
        """Wall time of training, the parts before a resume included (up to the checkpoint)."""
        return self._seconds_before + time.perf_counter() - self._started

    def _read(self, shown: Mapping[str, Tensor]) -> dict[str, float]:
        """The values of some scalars, and a check that those not read so far are finite: a GPU is
        waited for once."""
        unread, self._unread = self._unread, []
        values = [*(x for _, _, x in unread), *shown.values()]
        numbers = torch.stack([x.float().reshape(()).to(self.device) for x in values]).tolist()
        for (what, step, _), number in zip(unread, numbers, strict=False):
            if not math.isfinite(number):
                raise FloatingPointError(
                    f"{what} is {number} at step {step}: lower optim.lr (now "
                    f"{self.config.optim.lr}), set optim.clip, or use precision 32-true. The last "
                    f"checkpoint is untouched: change one of these in the run's config.yaml, and "
                    f"`rince train --resume` goes on from it"
                )
        return dict(zip(shown, numbers[len(unread) :], strict=True))

    def _rows(self, batch: ImageBatch) -> list[slice]:
        """The micro-batches: which items are encoded at a time."""
        count = len(batch.labels)
        return micro_batches(count, self.config.micro_batch or count)

    def _parts(self, batch: ImageBatch, views: BatchViews, *which: int) -> list[Part]:
        """One function per micro-batch, which makes the views of its items."""

        def made(rows: slice) -> Tensor:
            return torch.cat([views.part(view, rows, self.device) for view in which])

        return [partial(made, rows) for rows in self._rows(batch)]

    def _encode_both(
        self, encoder: nn.Module, batch: ImageBatch, views: BatchViews
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(2B, ...), (2B,), (2B,): both views of every image with their labels and ids; those of a
        micro-batch are encoded together, so batch norm sees both."""
        z = encode_parts(encoder, self._parts(batch, views, 0, 1), made_from=batch.views)
        device = batch.labels.device
        rows = [torch.arange(r.start, r.stop, device=device) for r in self._rows(batch)]
        order = torch.cat([x.repeat(2) for x in rows])
        return z, batch.labels[order], batch.indices[order]

    def _apart(self, encoded: Tensor) -> tuple[Tensor, Tensor | None]:
        """Embeddings, and the logits behind them, of a classifier beside the projection head."""
        if not self.objective.classifier_beside:
            return encoded, None
        width = self.num_heads * self.config.model.embedding_dim
        return encoded[:, :width], encoded[:, width:]

    def _pairs(self, batch: ImageBatch, views: BatchViews) -> tuple[Pairs, Tensor | None]:
        encoded, labels, ids = self._encode_both(self.encoder, batch, views)
        z, logits = self._apart(encoded)
        key, key_labels, key_ids = self._gathered(z, labels, ids)
        given = (z, key, labels, key_labels, ids, key_ids)
        return Pairs(*given, ignore_self=True, num_heads=self.num_heads), logits

    def _momentum_pairs(self, batch: ImageBatch, views: BatchViews) -> tuple[Pairs, Tensor | None]:
        assert self.momentum_encoder is not None
        # Before the keys are made, not after the optimizer step: the checkpoint between two
        # steps then holds one consistent state.
        self.momentum_encoder.update(self.encoder)
        parts = self._parts(batch, views, 0)
        query, logits = self._apart(encode_parts(self.encoder, parts, made_from=batch.views))
        key = torch.cat([self.momentum_encoder(part()) for part in self._parts(batch, views, 1)])
        key, _ = self._apart(key)
        key, labels, ids = self._gathered(key, batch.labels, batch.indices)
        valid, num_queued = None, 0
        fresh = (key, labels, ids)
        if self.queue is not None:
            num_queued = self.queue.size
            valid = torch.cat([torch.ones_like(labels, dtype=torch.bool), self.queue.valid])
            key = torch.cat([key, self.queue.embeddings])
            labels = torch.cat([labels, self.queue.labels])
            ids = torch.cat([ids, self.queue.ids])
            # The gathered order starts with the own part; the queue must be the same everywhere.
            shift = process_index() * batch.labels.shape[0]
            self.queue.push(*(x.roll(shift, dims=0) for x in fresh))
        pairs = Pairs(
            *(query, key, batch.labels, labels, batch.indices, ids),
            ignore_self=False,
            num_queued=num_queued,
            key_valid=valid,
            num_heads=self.num_heads,
        )
        return pairs, logits

    def _gathered(self, z: Tensor, labels: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Those of all processes, in two collectives; the sizes are compared once, as the batches
        of the plan are all of one size."""
        if world_size() == 1:
            return z, labels, ids
        packed = torch.stack([labels, ids], dim=1)
        key_labels, key_ids = gather(packed, validate=self._sizes_unknown).T.contiguous()
        self._sizes_unknown = False
        return gather(z, validate=False), key_labels, key_ids

    def _classify(self, batch: ImageBatch, views: BatchViews) -> tuple[Pairs, Tensor | None]:
        # (2B, F): the same budget of views
        features, labels, ids = self._encode_both(self.backbone, batch, views)
        logits = self.encoder.get_submodule("head")(features)
        z = functional.normalize(features.detach().float(), dim=1)
        return Pairs(z, z, labels, labels, ids, ids, ignore_self=True), logits

    def _check_objective(self) -> None:
        objective, taxonomy = self.objective, self.taxonomy
        objective.function()  # or a package is missing, which is said now
        if "loss.temperatures" in objective.reads:
            num_ranks = self.rank_source.num_ranks
            given = self.config.loss.temperatures_for(num_ranks)
            require(
                len(given) == num_ranks,
                f"loss.temperatures holds {len(given)} numbers, but these data have "
                f"{num_ranks} rank(s) (see `rince ranks`): give one per rank",
            )
        if isinstance(self.rank_source, ItemTimes):
            by_time = [name for name, row in OBJECTIVES.items() if row.by_time is not None]
            require(
                objective.by_time is not None,
                f"{objective.name} needs labels, and does not work with ranks by time: leave out "
                f"ranks.by, or take one of {', '.join(by_time)}",
            )
            return
        smoothed = "loss.smoothing" in objective.reads and self.config.loss.smoothing > 0
        if objective.needs_superclasses or smoothed:
            asking = "loss.smoothing" if smoothed else objective.name
            superclass_level(taxonomy, asking)
        if objective.needs_labels:
            require(
                taxonomy.num_classes > 1,
                f"there is only one class ({taxonomy.classes[0]}): without a second one nothing "
                f"is less similar than anything else. Add classes, or use objective infonce",
            )

    def _current_lr(self) -> float:
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        return float(optimizer.param_groups[0]["lr"])


def view_config(config: TrainConfig) -> ViewConfig:
    """How strong the views of a run are."""
    return WEAK_VIEWS if config.images.augmentation == "weak" else ViewConfig()


def lr_factor(step: int, total: int, warmup: int, final_ratio: float) -> float:
    """Linear warm-up to 1, then a cosine down to ``final_ratio`` at the last step."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total - 1 - warmup)
    return final_ratio + (1 - final_ratio) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
