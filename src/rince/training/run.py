"""One training run: a folder with its configuration, log, metrics and checkpoint."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import yaml

from rince._version import __version__
from rince.core.checks import RinceError
from rince.core.distributed import world_size
from rince.data.batches import BatchPlan, ImageBatch, TrainLoader
from rince.data.images import FileImages
from rince.data.sources import Splits, load_dataset
from rince.models.backbones import Backbone, build_backbone
from rince.training.callbacks import EpochLine, OnlineKNN
from rince.training.checkpoint import (
    CHECKPOINT_FILE,
    AtomicCheckpointIO,
    CheckpointEvery,
    load_strictly,
    read_checkpoint,
)
from rince.training.config import TrainConfig, from_dict, to_dict
from rince.training.history import HistoryLogger
from rince.training.module import CHECKPOINT_KEY, RankedModule

CONFIG_FILE = "config.yaml"
ABOUT_FILE = "about.json"
LOG_FILE = "log.txt"
KNN_IMAGES = 5000

logger = logging.getLogger("rince")


def train(config: TrainConfig, backbone: Backbone | None = None) -> Path:
    """Train from the start.

    Args:
        config: the run.
        backbone: in place of ``config.model.backbone``, any module of your own.

    Returns:
        The run's folder.

    Raises:
        RinceError: the folder holds a run already; data that cannot be found or read.
        ValueError: a configuration that does not fit the data.
    """
    folder = Path(config.output) / config.run_name()
    if (folder / CHECKPOINT_FILE).exists() and _is_main_process():
        raise RinceError(
            f"{folder} holds a run already: go on with it (rince train --resume {folder}), or "
            f"choose another --name"
        )
    pl.seed_everything(config.seed, workers=True, verbose=False)
    splits = load_splits(config)
    module = _build_module(config, splits, backbone)
    if _is_main_process():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG_FILE).write_text(yaml.safe_dump(to_dict(config), sort_keys=False))
    _fit(config, folder, splits, module, checkpoint=None)
    return folder


def resume(folder: Path, *, progress: bool = True, backbone: Backbone | None = None) -> Path:
    """Go on from a stopped run's last checkpoint, to the weights it would have had without.

    Args:
        folder: the run's.
        progress: show the progress bar.
        backbone: the module given to :func:`train`, if one was.

    Raises:
        RinceError: nothing to resume, a damaged checkpoint, or one of another architecture.
    """
    config = read_config(folder)
    config.progress = progress
    checkpoint = read_checkpoint(folder)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    splits = load_splits(config)
    module = _build_module(config, splits, backbone)
    load_strictly(module, checkpoint["state_dict"], folder / CHECKPOINT_FILE)
    classes = [list(path) for path in splits.train.taxonomy.paths]
    if checkpoint[CHECKPOINT_KEY]["taxonomy"] != classes:
        raise RinceError(
            f"the classes in {config.data} are not those that {folder} was trained on: put the "
            f"data back as they were, or start a new run"
        )
    _fit(config, folder, splits, module, checkpoint=folder / CHECKPOINT_FILE)
    return folder


def load_splits(config: TrainConfig) -> Splits:
    """The images of a run's configuration."""
    images = config.images
    return load_dataset(
        config.data,
        data_root=images.root,
        image_size=images.image_size,
        cache=images.cache,
        skip_unreadable=images.skip_unreadable,
        without_duplicates=images.drop_duplicates,
        per_class=images.per_class,
        test_per_class=images.test_per_class,
        seed=config.seed,
    )


def read_config(folder: Path) -> TrainConfig:
    """A run's configuration.

    Raises:
        RinceError: not the folder of a run, or a damaged file.
    """
    file = folder / CONFIG_FILE
    if not file.is_file():
        raise RinceError(f"{folder} is not the folder of a run: it holds no {CONFIG_FILE}")
    try:
        return from_dict(yaml.safe_load(file.read_text()))
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise RinceError(f"{file} is damaged: {error}") from error


def versions() -> dict[str, str]:
    """Of Python and of what a result depends on."""
    found = {"rince": __version__, "python": platform.python_version()}
    for name in ("torch", "torchvision", "lightning", "timm", "scikit-learn", "numpy"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


class _PositionedLoader:
    """Starts wherever the run stands: epoch and batch follow from the global step alone."""

    def __init__(self, loader: TrainLoader, position: Callable[[], int]) -> None:
        self._loader = loader
        self._position = position

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[ImageBatch]:
        epoch, batch = divmod(self._position(), len(self._loader))
        self._loader.set_epoch(epoch)
        self._loader.start_batch = batch
        yield from self._loader

    # Lightning asks for these before it resumes in mid-epoch; the position is in the step count.
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def _build_module(config: TrainConfig, splits: Splits, backbone: Backbone | None) -> RankedModule:
    channels, size = splits.channels, splits.image_size
    if backbone is None:
        backbone = build_backbone(
            config.model.backbone,
            in_channels=channels,
            image_size=size,
            pretrained=config.model.pretrained,
        )
    # Convolutions on CPUs and on tensor cores are faster with the channels last.
    backbone.module.to(memory_format=torch.channels_last)
    return RankedModule(
        backbone, splits.train.taxonomy, config, in_channels=channels, image_size=size
    )


def _fit(
    config: TrainConfig,
    folder: Path,
    splits: Splits,
    module: RankedModule,
    checkpoint: Path | None,
) -> None:
    history = HistoryLogger(folder)
    callbacks: list[pl.Callback] = []
    if config.knn_every:
        callbacks.append(
            OnlineKNN(
                splits.train,
                every=config.knn_every,
                image_size=splits.image_size,
                limit=KNN_IMAGES,
                seed=config.seed,
            )
        )
    callbacks += [
        EpochLine(history, len(splits.train)),
        CheckpointEvery(folder, config.checkpoint_every),
    ]
    with _logging_to(folder / LOG_FILE), _quiet_lightning():
        trainer = pl.Trainer(
            accelerator=config.accelerator,
            **_processes(config),
            precision=config.precision,
            max_epochs=config.epochs,
            gradient_clip_val=config.optim.clip,
            callbacks=callbacks,
            logger=history,
            plugins=[AtomicCheckpointIO()],
            enable_progress_bar=config.progress and sys.stderr.isatty(),
            enable_model_summary=False,
            enable_checkpointing=True,
            log_every_n_steps=1,  # the module decides
            use_distributed_sampler=False,
        )
        plan = BatchPlan(
            len(splits.train),
            config.batch_size,
            config.seed,
            process_index=trainer.global_rank,
            world_size=trainer.world_size,
        )
        loader = _PositionedLoader(
            TrainLoader(
                splits.train,
                plan,
                image_size=splits.image_size,
                workers=config.images.workers,
                # Images in memory travel as bytes and are augmented on the device.
                augment="now" if isinstance(splits.train, FileImages) else "later",
            ),
            lambda: trainer.global_step,
        )
        logger.info(
            "%s on %s: %d images of %d classes, %d px, %d rank(s); %d epochs of %d steps; "
            "%d process(es)",
            config.label(),
            splits.train.name,
            len(splits.train),
            splits.train.taxonomy.num_classes,
            splits.image_size,
            splits.train.taxonomy.num_ranks,
            config.epochs,
            len(loader),
            trainer.world_size,
        )
        trainer.fit(module, loader, ckpt_path=checkpoint, weights_only=True)
        if trainer.is_global_zero:
            _write_about(folder, config, trainer, module.train_seconds())


def _write_about(folder: Path, config: TrainConfig, trainer: pl.Trainer, seconds: float) -> None:
    file = folder / ABOUT_FILE
    about = {
        "label": config.label(),
        "seed": config.seed,
        "steps": trainer.global_step,
        "train_seconds": seconds,
        "world_size": world_size(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {trainer.strategy.root_device}",
        "versions": versions(),
    }
    part = file.with_name(file.name + ".part")
    part.write_text(json.dumps(about, indent=2) + "\n")
    os.replace(part, file)
    latest = folder.parent / "latest"
    if latest.is_symlink() or not latest.exists():
        latest.unlink(missing_ok=True)
        latest.symlink_to(folder.name)


def _processes(config: TrainConfig) -> dict[str, Any]:
    """Under torchrun its processes, whatever ``devices`` says; else Lightning's choice."""
    if "LOCAL_WORLD_SIZE" not in os.environ:
        return {"devices": config.devices}
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    nodes = int(os.environ["WORLD_SIZE"]) // local
    return {
        "devices": local,
        "num_nodes": nodes,
        "strategy": "ddp" if local * nodes > 1 else "auto",
    }


def _is_main_process() -> bool:
    """Also before torch.distributed starts: torchrun and Lightning set these variables."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK"))


@contextlib.contextmanager
def _logging_to(file: Path) -> Iterator[None]:
    """Log to the screen and to the run's log, which a resumed run continues."""
    handlers: list[logging.Handler] = []
    if _is_main_process():
        handlers = [logging.FileHandler(file), logging.StreamHandler(sys.stdout)]
        handlers[0].setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.setLevel(logging.INFO)
    for handler in handlers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()


@contextlib.contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Leave out Lightning's hints that do not apply to how it is used here."""
    noisy = [
        logging.getLogger("lightning.pytorch.utilities.rank_zero"),
        logging.getLogger("lightning.pytorch.trainer.connectors.checkpoint_connector"),
    ]
    levels = [one.level for one in noisy]
    for one in noisy:
        one.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*LeafSpec.*")
        try:
            yield
        finally:
            for one, level in zip(noisy, levels, strict=True):
                one.setLevel(level)
