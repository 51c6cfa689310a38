"""One training run: a folder with its configuration, log, metrics and checkpoint."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import (
    Checkpoint,
    GradientAccumulationScheduler,
    StochasticWeightAveraging,
    TQDMProgressBar,
)
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import nn

from rince.core.checks import RinceError, require, warn
from rince.core.distributed import is_first_process, launched_processes, world_size
from rince.core.files import leading_to, replacing, user_path
from rince.core.input_spec import InputSpec
from rince.core.notebook import in_notebook, is_interactive, is_watched
from rince.data.batches import ImageBatch, TrainLoader
from rince.data.given_tree import GivenTree, read_tree
from rince.data.items import Items, Splits
from rince.data.kinds import kind_named
from rince.data.plan import BatchPlan
from rince.data.sampler import BalancedPlan
from rince.evaluation.levels import warn_of_empty_levels
from rince.models.backbones import Backbone
from rince.models.weights import load_strictly
from rince.ranks.taxonomy import Taxonomy
from rince.ranks.time import ItemTimes
from rince.training.callbacks import EpochLine, OnlineKNN
from rince.training.checkpoint import (
    BACKBONE_PREFIX,
    CHECKPOINT_FILE,
    CHECKPOINT_KEY,
    OWN_BACKBONE,
    OWN_OBJECTIVE,
    backbone_to_train,
    load_run,
    read_checkpoint,
    recorded_objective,
    require_own,
)
from rince.training.config import TrainConfig, from_dict, output_of, to_dict
from rince.training.edits import Edits, edit_lines, edits_to_use, without_edits
from rince.training.folder import ABOUT_FILE, CONFIG_FILE, LOG_FILE, read_config, versions
from rince.training.logs import logger, logging_to, quiet_lightning
from rince.training.module import ONE_BATCH_A_STEP, RankedModule, view_config
from rince.training.objectives import Objective, own_objective
from rince.training.randomness import leaves_randomness
from rince.training.ranks import other_than_trained, rank_source, resumed_ranks, resumed_tree
from rince.training.saving import (
    AtomicCheckpointIO,
    CheckpointBehind,
    CheckpointEvery,
    HistoryLogger,
)
from rince.training.splits import (
    or_given_anew,
    warn_of_choices,
    with_data,
    with_recorded_data,
)
from rince.training.starts import (
    alone_in,
    as_before_unless,
    require_no_run,
    require_nothing_to_lose,
    write_start,
)
from rince.training.step import RankSource, superclass_level
from rince.training.trackers import named_loggers, require_trackers

if TYPE_CHECKING:
    from rince.training.objectives import LossFunction

KNN_IMAGES = 5000
_REFUSED_CALLBACKS: dict[type[pl.Callback], str] = {
    GradientAccumulationScheduler: ONE_BATCH_A_STEP,
    StochasticWeightAveraging: "it averages after the last checkpoint, and has a learning rate of "
    "its own. WeightAveraging and EMAWeightAveraging of Lightning average at each step, and their "
    "averages are the weights of the run",
}


class Stopped(RinceError):
    """A run was told to stop (SIGTERM) before its last step."""


@dataclass(frozen=True)
class Run:
    """A run that can be trained: its configuration with all that it left open, its data, and who
    trains. Nothing is written yet."""

    config: TrainConfig
    splits: Splits
    trainer: pl.Trainer
    folder: Path
    tree: GivenTree | None


def train(
    config: TrainConfig,
    backbone: Backbone | nn.Module | None = None,
    *,
    objective: Objective | LossFunction | None = None,
    splits: Splits | None = None,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[pl.Callback] = (),
) -> Path:
    """Train from the start.

    Args:
        config: the run.
        backbone: in place of ``config.model.backbone``, any module of your own: (B, *shape) of
            the data's :class:`~rince.core.input_spec.InputSpec` to (B, features).
        objective: in place of ``config.objective``, your own: a function of query (Q, D), key
            (K, D) and their ranks (a :class:`~rince.core.pair_ranks.PairRanks`) to a scalar, or a
            row of the table for one that needs more.
        splits: in place of the data that ``config.data`` names, items of your own, such as from
            :func:`rince.data.from_dataset`; ``config.data`` is then what to call them,
            and options that choose items (``images.per_class``) have no effect, with a warning.
        loggers: Lightning's, beside the run's own and those that ``config.logger`` names; they get
            the options and every metric.
        callbacks: Lightning's, called after the run's own, but before a checkpoint is written. One
            that stops the training ends the run, which then counts as finished; :func:`resume`
            goes on from there.

    Returns:
        The run's folder.

    Raises:
        RinceError: the folder holds a run already, or files that a run would write over, or
            cannot be written; data that cannot be found or read; weights to start from that do
            not fit; a run that was told to stop (SIGTERM) before its last step.
        KeyboardInterrupt: likewise by Ctrl-C.
        ValueError: a configuration that does not fit the data.
    """
    require(
        isinstance(config, TrainConfig),
        f"config must be a TrainConfig, got {type(config).__name__}: "
        f"rince.training.config.from_dict builds one from plain data",
    )
    own = None if objective is None else own_objective(objective)
    if own is not None:
        config = replace(config, objective=own.name)
    config.check(own)
    folder = config.folder(own)
    if config.vectors.captions is not None:
        from rince.training.towers_run import train_towers_run

        require(
            not (backbone or objective or splits or loggers or callbacks),
            "vectors.captions: `rince train` alone trains towers, without parts of your own",
        )
        return train_towers_run(config, folder)
    if is_first_process():
        require_no_run(folder)
        require_nothing_to_lose(folder)
    if splits is not None:
        warn_of_choices(config)
    run = prepared(config, folder, splits, loggers, callbacks, own_backbone=backbone is not None)
    train_prepared(run, backbone, own)
    return folder


@leaves_randomness
def train_prepared(
    run: Run, backbone: Backbone | nn.Module | None = None, own: Objective | None = None
) -> None:
    """:func:`train` with what :func:`prepared` gave."""
    model = run.config.model
    pl.seed_everything(run.config.seed, workers=True, verbose=False)
    ranks = rank_source(run.config, run.splits.train)
    module = _build_module(run, ranks, backbone, own, pretrained=model.pretrained)
    if "ranks" in module.objective.reads:
        _warn_of_empty_ranks(ranks, run.splits.train)
    if model.start_from is not None:
        _start_from(module, user_path(model.start_from))
    _fit(run, module)


def _warn_of_empty_ranks(ranks: RankSource, items: Items) -> None:
    """Name the ranks whose part of the loss is never there."""
    if isinstance(ranks, Taxonomy):
        warn_of_empty_levels(items, ranks, "training ")
    elif isinstance(ranks, ItemTimes):
        for rank in ranks.rule.empty_ranks(ranks.items):
            warn(
                f"no two training {items.noun} have {rank}, so its part of the loss is always left "
                f"out: give other ranks.near, or more clips a video (videos.hop)"
            )


def prepared(
    config: TrainConfig,
    folder: Path,
    splits: Splits | None = None,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[pl.Callback] = (),
    *,
    own_backbone: bool = False,
) -> Run:
    """What is to be known of a run before it is trained."""
    tree = read_tree(config.ranks.tree, config.table.encoding)
    config, splits = with_data(config, splits, tree=tree, own_backbone=own_backbone)
    # What the data decided is what their evaluation reads by.
    config = replace(config, images=replace(config.images, bits=splits.spec.bits))
    return _run(config, folder, splits, tree, loggers, callbacks)


@leaves_randomness
def resume(
    folder: str | Path,
    *,
    epochs: int | None = None,
    progress: bool = True,
    backbone: Backbone | nn.Module | None = None,
    objective: Objective | LossFunction | None = None,
    splits: Splits | None = None,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[pl.Callback] = (),
) -> Path:
    """Go on from a stopped run's last checkpoint, to the weights it would have had without.

    What was edited in its ``config.yaml`` meanwhile is used from here on (such as ``optim.lr``), or
    refused.

    Args:
        folder: the run's.
        epochs: in place of those of its configuration, to lengthen it. From here on the learning
            rate is that of a run of so many epochs: after the end of a shorter one it rises again.
        progress: show the progress bar.
        backbone, objective, splits, loggers, callbacks: those given to :func:`train`, if any.

    Raises:
        RinceError: nothing to resume, a damaged checkpoint, or one of another architecture, other
            options, data or ranks, or another number of processes or steps; and as :func:`train`.
        ValueError: no more epochs than it was trained already.
        KeyboardInterrupt: as :func:`train`.
    """
    (folder,) = leading_to([folder])  # runs/latest may soon be another run
    config = replace(read_config(folder), progress=progress)
    if config.loss.matmul_precision is None:  # a run of an older rince
        config.loss.matmul_precision = "fp32"
    checkpoint = read_checkpoint(folder)
    about = checkpoint[CHECKPOINT_KEY]
    step = checkpoint["global_step"]
    config, edits = _edited(folder, config, about)
    if epochs is not None:
        done = step / about.get("steps_per_epoch", step)
        require(
            epochs > done,
            f"{folder} was trained for {done:g} epochs: epochs must be more to go on, got {epochs}",
        )
        if epochs < config.epochs and is_first_process():
            print(
                f"note: {folder.name} was started for {config.epochs} epochs, and ends after "
                f"{epochs} now; the learning rate follows the shorter schedule"
            )
        config = replace(config, epochs=epochs)
    told = ""
    if step == config.epochs * about.get("steps_per_epoch", step + 1):
        told = (
            f"note: {folder.name} has trained all its {config.epochs} epochs. To lengthen it: "
            f"rince train --resume {quote(str(folder))} --epochs {2 * config.epochs}"
        )
        if edits:
            told += (
                f"\nnote: {', '.join(edit_lines(edits))} in its {CONFIG_FILE} has no effect, as no "
                f"step is left"
            )
            config, edits = without_edits(config, edits), {}
    pl.seed_everything(config.seed, workers=True, verbose=False)
    own = None if objective is None else own_objective(objective)
    require_own(backbone, about, OWN_BACKBONE, folder, "resume(folder, backbone=...)")
    require_own(own, about, OWN_OBJECTIVE, folder, "resume(folder, objective=...)")
    row = recorded_objective(about, config, folder, own)
    config.check_values(row)
    preprocessing = InputSpec.from_dict(about).preprocessing
    tree = resumed_tree(about, config)
    moved = f"write where they are to data in {folder / CONFIG_FILE}"
    with or_given_anew(config.data, moved, f"resume({str(folder)!r}, splits=...)"):
        config, splits = with_recorded_data(config, splits, tree, preprocessing)
    run = _run(config, folder, splits, tree, loggers, callbacks)
    _check_data(about, run)
    ranks = resumed_ranks(about, splits.train, run.config, folder)
    # No pretrained weights, which the checkpoint's would only overwrite.
    module = _build_module(run, ranks, backbone, row, pretrained=False)
    load_strictly(module, checkpoint["state_dict"], folder / CHECKPOINT_FILE)
    del checkpoint  # Lightning reads it again; weights and optimizer need not be held twice
    if told and is_first_process():
        print(told)
    _fit(run, module, resumed=about, step=step, edits=edits)
    return folder


def _edited(
    folder: Path, config: TrainConfig, about: Mapping[str, Any]
) -> tuple[TrainConfig, Edits]:
    """The configuration to go on with, and what is other than it was."""
    kind = kind_named(InputSpec.from_dict(about).noun)
    config = config.with_defaults(kind)  # of what was taken out of it
    config = replace(
        config, optim=config.optim.for_batches(config.batch_size * about.get("world_size", 1))
    )
    before = from_dict(about["config"]).with_defaults(kind)
    return config, edits_to_use(folder, before, config)


class _PositionedLoader:
    """Starts wherever the run stands: epoch and batch follow from the global step alone."""

    def __init__(self, loader: TrainLoader, position: Callable[[], int]) -> None:
        self._loader = loader
        self._position = position

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[ImageBatch]:
        self._loader.plan.start_at(self._position())
        yield from self._loader

    # Lightning asks for these before it resumes in mid-epoch; the position is in the step count.
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def _check_data(about: Mapping[str, Any], run: Run) -> None:
    """The data are those that the run was trained on; the oldest checkpoints do not say."""
    train, data = run.splits.train, run.config.data
    if Taxonomy(about["taxonomy"]) != train.taxonomy:
        by_tree = f" and their superclasses in {run.tree.file}" if run.tree else ""
        raise other_than_trained(f"classes in {data}{by_tree} are", run.folder)
    if about.get("data_fingerprint") not in (None, "", run.splits.fingerprint()):
        raise other_than_trained(f"{train.noun} in {data} are", run.folder)


def _check_steps(about: Mapping[str, Any], run: Run, steps: int) -> None:
    """The position in an epoch follows from the steps alone, so they must mean the same."""
    processes = run.trainer.world_size
    before = (about.get("world_size", processes), about.get("steps_per_epoch", steps))
    if before != (processes, steps):
        raise RinceError(
            f"{run.folder} was trained by {before[0]} process(es) in {before[1]} steps an epoch; "
            f"this would be {processes} process(es) in {steps} steps: start it as before (number "
            f"of processes, batch_size in {CONFIG_FILE}), or start a new run"
        )


def _build_module(
    run: Run,
    ranks: RankSource,
    backbone: Backbone | nn.Module | None,
    objective: Objective | None,
    *,
    pretrained: bool,
) -> RankedModule:
    config, spec = run.config, run.splits.spec
    built = backbone_to_train(config, spec, backbone, pretrained=pretrained)
    # Convolutions on CPUs and on tensor cores are faster with the channels last.
    built.module.to(memory_format=getattr(torch, spec.memory_format))
    return RankedModule(
        built,
        run.splits,
        config,
        objective=objective,
        rank_source=ranks,
        tree=run.tree,
        own_backbone=backbone is not None,
    )


def _start_from(module: RankedModule, folder: Path) -> None:
    """Take over the backbone of another run; the momentum encoder, if any, follows at once."""
    path = folder / CHECKPOINT_FILE
    checkpoint = read_checkpoint(folder)
    weights = checkpoint["state_dict"]
    if checkpoint[CHECKPOINT_KEY]["config"]["model"].get("lora"):  # with its updates added
        whole = load_run(folder).backbone.module.state_dict()
        weights = {BACKBONE_PREFIX + name: x for name, x in whole.items()}
    named = {k.removeprefix(BACKBONE_PREFIX): x for k, x in weights.items()}
    own = {k: x for k, x in named.items() if k not in weights}
    load_strictly(module.backbone, own, path)
    if module.momentum_encoder is not None:
        module.momentum_encoder.module.load_state_dict(module.encoder.state_dict())


def _run(
    config: TrainConfig,
    folder: Path,
    splits: Splits,
    tree: GivenTree | None,
    loggers: Sequence[Logger],
    own_callbacks: Sequence[pl.Callback],
) -> Run:
    items = splits.train
    require_trackers(config.logger)
    for one in own_callbacks:
        for refused, why in _REFUSED_CALLBACKS.items():
            require(not isinstance(one, refused), f"{refused.__name__} is refused: {why}")
    history, checkpoint_io = HistoryLogger(folder), AtomicCheckpointIO(folder)
    every, output = config.checkpoint_every, output_of(folder, config)
    callbacks: list[pl.Callback] = []
    if config.knn_every:
        # Without any label, the recording that an item is from is the class to find.
        unlabelled = items.times is not None and items.taxonomy.num_classes == 1
        known = items.by_recording() if unlabelled else items
        knn = OnlineKNN(known, every=config.knn_every, limit=KNN_IMAGES, seed=config.seed)
        callbacks.append(knn)
    callbacks += [EpochLine(history, items.noun), *own_callbacks]
    if config.progress and in_notebook():  # that of rich, the default, asks for ipywidgets
        callbacks.append(TQDMProgressBar())
    if own_callbacks:
        callbacks.append(CheckpointBehind(folder, every, checkpoint_io, output))
    else:
        callbacks.insert(0, CheckpointEvery(folder, every, checkpoint_io, output))
    with quiet_lightning():
        trainer = pl.Trainer(
            **_processes(config),
            precision=config.precision,
            max_epochs=config.epochs,
            gradient_clip_val=config.optim.clip,
            callbacks=callbacks,
            logger=[history, *loggers],
            plugins=[checkpoint_io],
            enable_progress_bar=config.progress and is_watched(),
            enable_model_summary=False,
            # CheckpointEvery does it; Lightning asks for this beside its own kind.
            enable_checkpointing=any(isinstance(one, Checkpoint) for one in callbacks),
            log_every_n_steps=1,  # the module decides
            use_distributed_sampler=False,
        )
    return Run(config.sized(len(items), trainer.world_size), splits, trainer, folder, tree)


def _fit(
    run: Run,
    module: RankedModule,
    resumed: Mapping[str, Any] | None = None,
    step: int = 0,
    edits: Edits | None = None,
) -> None:
    """Train to the end; ``resumed``: what the checkpoint says of a run that goes on from it, with
    these ``edits``."""
    config, splits, trainer, folder = run.config, run.splits, run.trainer, run.folder
    first = is_first_process()
    if trainer.is_global_zero and not first:
        raise RinceError(
            "several processes were started (by mpirun?), but each would train by itself and "
            "write the same folder: start them with torchrun or srun, or pip install mpi4py"
        )
    device = trainer.strategy.root_device
    if config.compile:
        # torch compiles a function for a few sets of options, those of other trainings too.
        torch.compiler.reset()
        _check_compiler(device)
        module.compile_encoders()
    loader = _PositionedLoader(
        TrainLoader(
            splits.train,
            _plan(config, splits, trainer.global_rank, trainer.world_size),
            workers=config.images.workers,
            config=view_config(config),
            augment="later",  # on the device, where the items can wait
            pin_memory=device.type == "cuda",
        ),
        lambda: trainer.global_step,
    )
    steps, fresh = len(loader), resumed is None
    planned = config.epochs * steps
    if resumed is not None:
        _check_steps(resumed, run, steps)
        require(
            step <= planned,
            f"{folder} was trained for {step / steps:g} epochs: epochs in its {CONFIG_FILE} must "
            f"be as many at least, got {config.epochs}",
        )
    with contextlib.ExitStack() as stack:
        if first and fresh:
            require_nothing_to_lose(folder)  # before the lock makes a log
        if first:
            stack.enter_context(alone_in(folder))
        if first and fresh:
            stack.enter_context(as_before_unless(lambda: trainer.global_step > 0, folder))
        if first and (resumed is None or config.epochs != resumed["config"]["epochs"]):
            write_start(folder, config, fresh=fresh)
        stack.enter_context(logging_to(folder / LOG_FILE if first else None))
        stack.enter_context(quiet_lightning())
        trainer.loggers += stack.enter_context(named_loggers(config.logger, folder, step))
        if fresh:
            for tracker in trainer.loggers:
                tracker.log_hyperparams(to_dict(config))
        logger.info(
            f"{config.label(module.objective)} on {splits.train.name}: {len(splits.train)} "
            f"{splits.train.noun} of {splits.train.taxonomy.num_classes} classes, "
            f"{splits.train.size}, {module.rank_source.num_ranks} rank(s); {config.epochs} epochs "
            f"of {steps} steps; {trainer.world_size} process(es)"
        )
        if edits and step < planned:
            logger.info(f"from step {step + 1} on: {', '.join(edit_lines(edits))}")
        _run_to_the_end(run, module, loader, planned, fresh=fresh)
        if trainer.is_global_zero:
            _write_about(run, module, planned)


def _check_compiler(device: torch.device) -> None:
    try:
        torch.compile(torch.neg)(torch.ones(2, device=device))
    except Exception as error:  # of many kinds, some private
        reason = str(error).strip().partition("\n")[0]
        raise RinceError(
            f"--compile: PyTorch's compiler does not work here ({reason}): install a C++ compiler, "
            f"and for a GPU triton, or leave out --compile"
        ) from error


def _plan(config: TrainConfig, splits: Splits, process_index: int, world_size: int) -> BatchPlan:
    share: dict[str, Any] = {"seed": config.seed}
    share |= {"process_index": process_index, "world_size": world_size}
    per_class, classes = config.batches.images_per_class, config.batches.classes_per_superclass
    if per_class is None:
        return BatchPlan(len(splits.train), config.batch_size, **share)
    labels, taxonomy = splits.train.labels, splits.train.taxonomy
    if config.ranks.by == "time":
        labels = splits.train.by_recording().labels
    groups = None
    if classes is not None:
        groups = taxonomy.labels_at(superclass_level(taxonomy, "batches.classes_per_superclass"))
    return BalancedPlan(labels, groups, config.batch_size, per_class, classes or 1, **share)


def _run_to_the_end(
    run: Run, module: RankedModule, loader: _PositionedLoader, planned: int, *, fresh: bool
) -> None:
    """A run that stopped before must not pass for a finished one: Lightning ends the program at
    Ctrl-C, and at SIGTERM even with the status of success."""
    trainer, checkpoint = run.trainer, run.folder / CHECKPOINT_FILE
    interrupted = terminated = False
    try:
        trainer.fit(module, loader, ckpt_path=None if fresh else checkpoint, weights_only=True)
        interrupted = trainer.interrupted
    except SIGTERMException:
        terminated = True
    except SystemExit as stop:
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        interrupted = True
    next_step = "there is no checkpoint yet, so start it again"
    if checkpoint.exists():
        next_step = (
            f"rince train --resume {quote(str(run.folder))} goes on from the last checkpoint"
        )
    stopped = f"stopped at step {trainer.global_step} of {planned}; {next_step}"
    if interrupted:
        raise KeyboardInterrupt(stopped)
    ended = trainer.should_stop and trainer.global_step > 0  # by a callback
    if terminated or (trainer.global_step < planned and not ended):
        raise Stopped(stopped)


def _write_about(run: Run, module: RankedModule, planned: int) -> None:
    """Only a finished run has this file."""
    file, device = run.folder / ABOUT_FILE, run.trainer.strategy.root_device
    about = {
        "label": run.config.label(module.objective),
        "seed": run.config.seed,
        "config": to_dict(run.config),
        "steps": run.trainer.global_step,
        "planned_steps": planned,
        "train_seconds": module.train_seconds(),
        "world_size": world_size(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {device}",
        "versions": versions(),
    }
    try:
        with replacing(file) as part:
            part.write_text(json.dumps(about, indent=2) + "\n")
    except OSError as error:
        raise RinceError(
            f"the run is trained and its checkpoint is whole, but {file} could not be written "
            f"({error}): fix that, then `rince train --resume {quote(str(run.folder))}` writes it"
        ) from error


def _processes(config: TrainConfig) -> dict[str, Any]:
    """Under torchrun or srun their processes, whatever ``devices`` and ``num_nodes`` say; where
    there is no script to start again, one."""
    chosen: dict[str, Any] = {"devices": config.devices, "num_nodes": config.num_nodes}
    chosen["accelerator"] = config.accelerator
    if (launched := launched_processes()) is not None:
        require(
            "LOCAL_WORLD_SIZE" in os.environ or "SLURM_NTASKS_PER_NODE" in os.environ,
            "srun was given a number of tasks, but not how many run on a node: start it with "
            "--nodes and --ntasks-per-node, a task for each GPU",
        )
        chosen["num_nodes"], chosen["devices"] = launched
    # Only Lightning knows how many devices "auto" are.
    try:
        probe = pl.Trainer(**chosen, logger=False, enable_checkpointing=False)
    except (TypeError, ValueError) as error:  # a list of CPUs, or what is no number
        raise ValueError(
            f"accelerator {config.accelerator} cannot take devices {config.devices}: {error}"
        ) from error
    if probe.world_size == 1:
        return chosen
    if launched is None and is_interactive():
        if (config.devices, config.num_nodes) != ("auto", 1):
            raise RinceError(
                f"a notebook or an interactive Python cannot start {probe.world_size} processes, "
                f"as there is no script for them to run: set devices to 1, or train with "
                f"`rince train` or a script, under torchrun if you like"
            )
        warn(
            f"a notebook or an interactive Python trains on one of the {probe.world_size} devices: "
            f"for all of them use `rince train`, or a script"
        )
        return {**chosen, "devices": 1}
    device = probe.strategy.root_device.type
    require(
        not config.model.sync_batch_norm or device == "cuda",
        f"model.sync_batch_norm needs GPUs (torch has no SyncBatchNorm for the {device}): leave it "
        f"out, or train on GPUs",
    )
    # No buffer needs to travel: the queue is the same everywhere, as all push the same gathered
    # keys, and running statistics of batch norm are read at evaluation alone, by process 0, whose
    # are in the checkpoint. DDP would send all of them at every step.
    takes = inspect.signature(nn.parallel.DistributedDataParallel).parameters
    newer = "forward_sync_buffers"  # torch 2.14 has it, and warns of the older name
    buffers: dict[str, Any] = {newer if newer in takes else "broadcast_buffers": False}
    chosen["strategy"] = DDPStrategy(**buffers)
    chosen["sync_batchnorm"] = config.model.sync_batch_norm
    return chosen
