"""Everything a training run can be told, composed of the options of the rooms.

No torch here: ``rince --help`` reads this file. Building a configuration neither warns nor refuses
a value; :meth:`TrainConfig.check` does both, and ``rince train`` and :func:`rince.training.train`
call it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, Literal

from rince.core.checks import require, warn
from rince.core.files import VECTOR_SUFFIXES, user_path
from rince.core.options import Options, from_plain, limited
from rince.core.tables import TABLE_SUFFIXES
from rince.data.kind import Kind
from rince.data.options import BatchOptions as BatchOptions
from rince.data.options import ImageOptions as ImageOptions
from rince.data.options import TableOptions as TableOptions
from rince.data.options import TextOptions as TextOptions
from rince.data.options import VectorOptions as VectorOptions
from rince.data.options import VideoOptions as VideoOptions
from rince.losses.options import LossOptions as LossOptions
from rince.models.options import ModelOptions as ModelOptions
from rince.ranks.options import RankOptions as RankOptions
from rince.training.objectives import OBJECTIVES, Objective, ObjectiveName
from rince.training.options import OptimOptions as OptimOptions

# Options of the machine, of its folders, or of what is shown meanwhile: with others the run is
# the same.
OF_MACHINE = frozenset(
    {"accelerator", "devices", "num_nodes", "name", "output", "logger", "progress"}
)


@dataclass
class TrainConfig(Options):
    """Train an encoder on images, clips of videos, or texts, with ranked positives.

    Args:
        data: a folder of images in class folders (nested folders are superclasses; train/ and
            val/ or test/ below it are taken as splits), or fashion-mnist, or cifar100; or a
            folder of videos, in class folders or not; or a table (.csv, .tsv, .jsonl, .parquet)
            of texts, images or clips and their labels (see table); or a file of features that
            another network made (.npz, .npy, .parquet; see vectors).
        objective: the loss to train with: rince, or a baseline trained and evaluated in the same
            way; the list below says what each is.
        epochs: number of passes over the training images.
        batch_size: images per process and step; each gives two views. Lowered, with a warning, to
            as many as there are.
        micro_batch: number of images encoded at a time, for a batch_size beyond the memory of the
            device: the loss still sees the whole batch. Costs a second forward pass. Batch norm
            normalises each micro-batch by itself, so take the largest that fits. None encodes
            the batch at once.
        seed: of everything random; the same seed gives the same weights on a CPU.
        name: of the run's folder below output; None makes one of data, objective and seed.
        output: folder that holds the runs.
        accelerator: Lightning's: auto, cpu, gpu, mps, ...
        devices: Lightning's: auto, a number, or a list of devices, [0, 1]; of each machine.
        num_nodes: number of machines, where neither torchrun nor srun says it; `rince train` is
            then started on each, with MASTER_ADDR, MASTER_PORT and NODE_RANK set.
        precision: of the arithmetic, by Lightning's names.
        compile: compile the encoder with torch.compile, and the loss where its matrix of all pairs
            fits; takes a minute at the start, and a C++ compiler.
        checkpoint_every: steps between two checkpoints; there is one after each epoch too.
        log_every: steps between two records of metrics; there is one after each epoch too.
        validate_every: steps between two checks of values (is the loss finite, are embeddings,
            has a batch anything to learn), for which a GPU is waited for. The first ten steps are
            checked too. Each record of metrics and each checkpoint checks the loss alone.
        knn_every: epochs between two online kNN accuracies, for monitoring only (on training
            images, never on the test set); 0: none.
        logger: trackers that get the options and all metrics, beside metrics.csv: tensorboard,
            wandb, mlflow. A resumed run goes on in them.
        progress: show the progress bar.
    """

    data: str
    objective: ObjectiveName = "rince"
    loss: LossOptions = field(default_factory=LossOptions)
    ranks: RankOptions = field(default_factory=RankOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    optim: OptimOptions = field(default_factory=OptimOptions)
    images: ImageOptions = field(default_factory=ImageOptions)
    videos: VideoOptions = field(default_factory=VideoOptions)
    text: TextOptions = field(default_factory=TextOptions)
    table: TableOptions = field(default_factory=TableOptions)
    vectors: VectorOptions = field(default_factory=VectorOptions)
    batches: BatchOptions = field(default_factory=BatchOptions)
    epochs: int = limited(20, low=1)
    batch_size: int = limited(256, low=1)
    micro_batch: int | None = limited(None, low=1)
    seed: int = limited(0, low=0, high=2**32 - 1)
    name: str | None = None
    output: str = "runs"
    accelerator: str = "auto"
    devices: str = "auto"
    num_nodes: int = limited(1, low=1)
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    compile: bool = False
    checkpoint_every: int = limited(200, low=1)
    log_every: int = limited(10, low=1)
    validate_every: int = limited(100, low=1)
    knn_every: int = limited(1, low=0)
    logger: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    progress: bool = True

    def _convert(self) -> None:
        super()._convert()
        given: Any = self.devices
        if isinstance(given, str) and given.startswith("["):
            given = [int(x) if x.strip().isdigit() else x for x in given.strip("[]").split(",")]
        # As Lightning reads a list from text; "1," is the device 1, and "1" one device.
        if isinstance(given, list | tuple) and given and all(type(x) is int for x in given):
            self.devices = ",".join(map(str, given)) + "," * (len(given) == 1)

    def check(self, objective: Objective | None = None) -> None:
        """Refuse what cannot be trained, and warn of options that have no effect.

        Args:
            objective: your own, if it is none of the table.

        Raises:
            ValueError: a value out of range, or options that do not go together; the message
                names the option.
        """
        self.check_values(objective)
        unread = self._unread_options(objective or OBJECTIVES[self.objective])
        if unread:
            has, it = ("has", "it") if len(unread) == 1 else ("have", "them")
            warn(
                f"{', '.join(unread)} {has} no effect with objective {self.objective}, which does "
                f"not read {it}"
            )

    def check_values(self, objective: Objective | None = None) -> None:
        """:meth:`check` without the warning: for a run that goes on, and was warned of before.

        Raises:
            ValueError: as :meth:`check`.
        """
        self._check_fields(any_word=() if objective is None else ("objective",))
        require(bool(self.data), "data must be a folder, a file or a name, got ''")
        parts = PurePath(self.name or "x").parts
        require(
            bool(parts) and ".." not in parts and not PurePath(self.name or "").root,
            f"name must be a folder below output, got {self.name!r}: choose another output for it",
        )
        require(
            self.ranks.scores != "captions" or self.vectors.captions is not None,
            "ranks.scores captions are those of vectors.captions: give --captions FILE",
        )
        self.optim.check_warmup(self.epochs)
        self.batches.check_batch(self.batch_size)
        require(
            self.ranks.by != "time" or self.batches.classes_per_superclass is None,
            "batches.classes_per_superclass is for ranks by classes: by time "
            "batches.images_per_class chooses clips of recordings, which have no superclass. Leave "
            "it out",
        )
        row = objective or OBJECTIVES[self.objective]
        require(
            not row.within_batch or self.model.momentum is None,
            f"{self.objective} compares a batch with itself: leave out model.momentum and "
            f"model.queue_size",
        )

    def run_name(self, objective: Objective | None = None) -> str:
        """Name of the run's folder; ``objective`` as in :meth:`check`."""
        if self.name:
            return self.name
        reads, parts = self._row(objective).reads, [self.data_name(), self.objective]
        if self.vectors.captions is not None:
            parts.insert(1, "towers")
        if "loss.variant" in reads:
            parts.append(self.loss.variant)
        if ("ranks" in reads or self.ranks.by == "time") and self.ranks.label():
            parts.append(self.ranks.slug())
        if "loss.smoothing" in reads and self.loss.smoothing:
            parts.append("smoothed")
        if self.images.augmentation == "weak":
            parts.append("weak")
        return "-".join([*parts, f"seed{self.seed}"])

    def folder(self, objective: Objective | None = None) -> Path:
        """The run's folder; ``objective`` as in :meth:`check`."""
        return user_path(self.output) / self.run_name(objective)

    def data_name(self) -> str:
        """What folders call the data: the name of their own folder or file, and of ranks.tree."""
        data = os.path.basename(os.path.abspath(user_path(self.data))) or "data"
        stem, suffix = os.path.splitext(data)
        name = stem if suffix.lower() in (*TABLE_SUFFIXES, *VECTOR_SUFFIXES) else data
        return name if self.ranks.tree is None else f"{name}-{PurePath(self.ranks.tree).stem}"

    def of_objective(self, name: str) -> TrainConfig:
        """The same with another objective; options that it does not read are at their defaults."""
        plain = to_dict(replace(self, objective=name))
        for unread in self._unread_options(OBJECTIVES[name]):
            group, _, option = unread.partition(".")
            del plain[group][option]
        return from_plain(TrainConfig, plain)

    def label(self, objective: Objective | None = None) -> str:
        """What a table calls this method, the same for all seeds; as :meth:`run_name`."""
        row, method, parts = self._row(objective), self.objective, []
        if self.vectors.captions is not None:
            method = f"towers {method}"
        reads = row.reads
        if "loss.variant" in reads:
            method += f" {self.loss.variant}"
        if "loss.positives" in reads and self.loss.positives == "cumulative":
            method += " cumulative"
        if "loss.smoothing" in reads and self.loss.smoothing:
            method += " smoothed"
        if "ranks" in reads and self.ranks.label():
            parts.append(self.ranks.label())
        if self.ranks.by == "time" and row.by_time == "video":
            parts.append("all of the video")
        if self.images.augmentation == "weak":
            parts.append("weak augmentation")
        return ", ".join([method, *parts])

    def with_defaults(self, kind: Kind) -> TrainConfig:
        """The same; a backbone and an optimizer that were left open are those of the kind, and the
        precision of the loss's products follows the training's."""
        auto = self.optim.optimizer == "auto"
        return replace(
            self,
            loss=self.loss.resolved(self.precision),
            model=replace(self.model, backbone=self.model.backbone or kind.backbone),
            optim=replace(self.optim, optimizer=kind.optimizer) if auto else self.optim,
        )

    def sized(self, count: int, processes: int) -> TrainConfig:
        """The same, with a batch no larger than the data, which is warned of, and a learning rate
        that follows the batch where it was left open.

        Args:
            count: of training items. processes: among which they are divided.
        """
        size = min(self.batch_size, self.batches.multiple_below(count // processes))
        if 0 < size < self.batch_size:
            each = f", {count // processes} for each of {processes} processes" * (processes > 1)
            warn(
                f"batch_size {self.batch_size} is more than the {count} training items there are"
                f"{each}: it is lowered to {size}"
            )
        size = size or self.batch_size
        return replace(self, batch_size=size, optim=self.optim.for_batches(size * processes))

    def chosen(self) -> list[str]:
        """The options that are not at their defaults, by their dotted names."""
        default = dict(flat(to_dict(TrainConfig(self.data))))
        return [name for name, value in flat(to_dict(self)) if value != default[name]]

    def _row(self, objective: Objective | None) -> Objective:
        """That of the objective; of one that is known by its name alone: it reads the ranks."""
        by_name = Objective(self.objective, reads=("ranks",))
        return objective or OBJECTIVES.get(self.objective, by_name)

    def _unread_options(self, objective: Objective) -> list[str]:
        """Options that were set, but that the objective does not read."""
        # By time they also choose the positives of supcon, and what is logged.
        of_ranks = "ranks" not in objective.reads and self.ranks.by != "time"
        unread: tuple[str, ...] = ("loss.", "ranks.") if of_ranks else ("loss.",)
        if objective.classifier:
            unread += ("model.momentum", "model.queue_size", "model.embedding_dim", "model.head")
        read = {*objective.reads, "ranks.tree"}  # all are evaluated by it
        return [x for x in self.chosen() if x.startswith(unread) and x not in read]


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """Plain nested data, for YAML and the checkpoint."""
    return asdict(config)


def flat(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of each option of :func:`to_dict`'s form."""
    for name, value in nested.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def output_of(folder: Path, config: TrainConfig) -> Path:
    """The folder of the runs, one of which is this; that run's name may be of several folders."""
    parts = PurePath(config.name or folder.name).parts
    inside = folder.parts[-len(parts) :] == parts  # it may have been moved
    return folder.parents[len(parts) - 1] if inside else folder.parent


def without_machine(options: Mapping[str, Any]) -> dict[str, Any]:
    """Of :func:`to_dict`'s or :func:`flat`'s options those that say how a run was trained."""
    return {name: value for name, value in options.items() if name not in OF_MACHINE}


def differing(before: TrainConfig, now: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """Options with other values, but for those of the machine: dotted name -> (before, now)."""
    options = [without_machine(dict(flat(to_dict(x)))) for x in (before, now)]
    for one in options:  # where a run of an older rince left this open, it was fp32
        one["loss.matmul_precision"] = one["loss.matmul_precision"] or "fp32"
    was, is_now = options
    return {name: (was[name], x) for name, x in is_now.items() if x != was[name]}


def from_dict(data: Mapping[str, Any]) -> TrainConfig:
    """Back from :func:`to_dict`'s form, or YAML. Ranges and words are not checked: see
    :meth:`TrainConfig.check`.
    """
    try:
        config = from_plain(TrainConfig, data)
        config._check_fields(types_only=True)
        return config
    except ValueError as error:
        raise ValueError(f"not a training configuration: {error}") from None
