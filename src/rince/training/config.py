"""Everything a training run can be told. No torch here: ``rince --help`` reads this file."""

from __future__ import annotations

import math
import warnings
from copy import copy
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from rince.core.checks import RinceWarning, require, warn
from rince.core.files import TEXT_SUFFIXES, is_text_file
from rince.ranks.options import RULES, RankOptions

Objective = Literal[
    "rince",
    "supcon-in",
    "supcon-out",
    "supcon-coarse",
    "supcon-sum",
    "supcon-two-heads",
    "himulcon",
    "infonce",
    "triplet-hierarchical",
    "fastap",
    "cross-entropy",
    "cross-entropy-two-heads",
]
# Those that are no loss on pairs: a linear classifier stands in place of the projection head.
CLASSIFIERS = ("cross-entropy", "cross-entropy-two-heads")
# Those that take ranks by time, or that need no labels.
BY_TIME = ("rince", "infonce", "supcon-in", "supcon-out")
NEED_SUPERCLASSES = (
    "supcon-coarse",
    "supcon-sum",
    "supcon-two-heads",
    "cross-entropy-two-heads",
)

# The temperatures of the paper's CIFAR-100 study, and its setting for three ranks.
DEFAULT_TEMPERATURES = {1: (0.1,), 2: (0.1, 0.225), 3: (0.1, 0.225, 0.5)}


IMAGE_BACKBONE, CLIP_BACKBONE = "small-resnet", "small-resnet3d"
TEXT_BACKBONE = "all-MiniLM-L6-v2"
DEFAULT_LR = {"sgd": 0.5, "adamw": 1e-3}

RanksConfig = RankOptions  # its name in earlier releases


@dataclass
class DataConfig:
    """Which images, and how large.

    Args:
        root: folder where named data sets are kept or downloaded to; None looks in the usual
            places.
        image_size: side in pixels fed to the backbone; None keeps 28 (Fashion-MNIST) or 32
            (CIFAR-100), and takes 32 for a folder.
        augmentation: of the views: "strong" crops, flips and changes colours (the paper's),
            "weak" crops and flips only.
        per_class: use only so many training images of each class (chosen by the seed).
        test_per_class: likewise for the test images.
        cache: hold all images in memory as bytes at image_size and augment whole batches, much
            faster for small images; None does so up to 64 pixels.
        skip_unreadable: leave out images that cannot be read, with a warning; otherwise the
            first one is an error.
        drop_duplicates: leave out training images that are byte for byte among the test images, or
            twice in the training images.
        workers: processes that decode images when they are not held in memory.
    """

    root: str | None = None
    image_size: int | None = None
    augmentation: Literal["strong", "weak"] = "strong"
    per_class: int | None = None
    test_per_class: int | None = None
    cache: bool | None = None
    skip_unreadable: bool = False
    drop_duplicates: bool = False
    workers: int = 2


@dataclass
class VideoConfig:
    """How videos are cut into clips, for data that are a folder of videos.

    Args:
        frames: of a clip.
        stride: frames of the video from one of the clip's to the next.
        hop: seconds from the start of a clip to that of the next; None: clips touch.
        per_video: of a video with more clips than this, so many, spread evenly.
        frame_size: side in pixels of the decoded frames; None takes images.image_size.
        shots: detect (the extra shots), or a csv file of video, start_s, end_s.
        splits: folder with the split files of UCF101 or HMDB51.
        split: which of their three.
        cache: folder of decoded clips; None takes ~/.cache/rince/clips.
        cache_gb: most that it holds of this data set; 0 decodes each clip each time.
        decoder: torchcodec needs the extra torchcodec and FFmpeg; it returns the same frames.
    """

    frames: int = 8
    stride: int = 4
    hop: float | None = None
    per_video: int | None = None
    frame_size: int | None = None
    shots: str | None = None
    splits: str | None = None
    split: int = 1
    cache: str | None = None
    cache_gb: float = 2.0
    decoder: Literal["pyav", "torchcodec"] = "pyav"


@dataclass
class TextConfig:
    """Where the texts and labels are, for data that are a .csv or .jsonl file.

    Args:
        column: of the texts.
        labels: columns of the labels, from coarse to fine; None: all others but "split", in the
            file's order.
        layers: train so many of the last transformer layers, and the projection; None: all, and
            the token embeddings.
        max_tokens: cut longer texts; None: where the model does.
    """

    column: str = "text"
    labels: tuple[str, ...] | None = None
    layers: int | None = 2
    max_tokens: int | None = None


@dataclass
class LossConfig:
    """The loss.

    Args:
        variant: form of RINCE: "in" is content with one good positive a rank (noisy ranks),
            "out" asks each positive, "out-in" asks each of rank 1 and one of the others.
        positives: "exclusive" takes rank i alone in term i, "cumulative" all ranks up to i.
        temperatures: RINCE, one a rank, rising; None takes (0.1, 0.225, 0.5) up to the number of
            ranks.
        temperature: of supcon-*, infonce and himulcon.
        margin: of triplet-hierarchical, on squared distances of unit vectors, a step of rank.
        smoothing: share of a label that cross-entropy spreads over the classes of its superclass,
            itself included (0: none).
    """

    variant: Literal["in", "out", "out-in"] = "out-in"
    positives: Literal["exclusive", "cumulative"] = "exclusive"
    temperatures: tuple[float, ...] | None = None
    temperature: float = 0.1
    margin: float = 0.2
    smoothing: float = 0.0


@dataclass
class BatchConfig:
    """Batches with a wished number of positives a rank; without these, images are drawn at random.

    Args:
        images_per_class: n: classes come in packs of n different images.
        classes_per_superclass: m: packs come in groups of m different classes of a superclass;
            None takes no heed of superclasses. batch_size is a multiple of m n.
    """

    images_per_class: int | None = None
    classes_per_superclass: int | None = None


@dataclass
class ModelConfig:
    """The encoder.

    Args:
        backbone: small-resnet (for CPUs), tiny-resnet (half the channels), resnet18-3x3,
            resnet50-3x3 (the paper's for 32 pixels), torchvision/NAME or timm/NAME; for clips of
            videos small-resnet3d, torchvision/r3d_18 and the like; for texts a model of
            sentence-transformers, by name or folder. None takes small-resnet, small-resnet3d, or
            all-MiniLM-L6-v2, which the extra rince[text] brings along.
        pretrained: start from the library's weights (torchvision and timm names only; a text
            model always does).
        start_from: folder of a run whose backbone to start from, of the same architecture: with
            an objective of labels, this is fine-tuning.
        embedding_dim: width of the projection that the loss sees.
        momentum: keys come from a slow copy of the encoder that follows with this momentum (the
            paper: 0.99); None makes both views queries and keys of the current batch (SimCLR).
        queue_size: so many past keys serve as keys too (the paper: 4096); needs momentum.
    """

    backbone: str | None = None
    pretrained: bool = False
    start_from: str | None = None
    embedding_dim: int = 128
    momentum: float | None = None
    queue_size: int = 0


@dataclass
class OptimConfig:
    """The optimizer: the paper's SGD with warm-up and cosine, or AdamW.

    Args:
        optimizer: "sgd" (momentum 0.9) or "adamw"; "auto" is sgd, and adamw for texts.
        lr: peak learning rate; None takes 0.5 of sgd (the paper's, for batches of 512), and
            1e-3 of adamw.
        weight_decay: as in the optimizer.
        warmup_epochs: the learning rate rises linearly over these (the paper: 10 of 1000); None
            takes 1, or a tenth of a run of fewer than 10 epochs.
        final_lr_ratio: the cosine ends at lr times this.
        clip: largest gradient norm; None does not clip.
    """

    optimizer: Literal["auto", "sgd", "adamw"] = "auto"
    lr: float | None = None
    weight_decay: float = 1e-4
    warmup_epochs: float | None = None
    final_lr_ratio: float = 1e-3
    clip: float | None = None


@dataclass
class TrainConfig:
    """Train an encoder on images, clips of videos, or texts, with ranked positives.

    Args:
        data: a folder of images in class folders (nested folders are superclasses; train/ and
            val/ or test/ below it are taken as splits), or fashion-mnist, or cifar100; or a
            folder of videos, in class folders or not; or a .csv or .jsonl file of texts and
            their labels (see text).
        objective: rince, or a rival in the same harness: supcon-in, supcon-out, supcon-coarse
            (on the superclasses), supcon-sum and supcon-two-heads (supcon-out on both), himulcon
            (on all levels), infonce (no labels), triplet-hierarchical and fastap (they need the
            extra metric-learning), cross-entropy, cross-entropy-two-heads (of both labels).
        epochs: passes over the training images.
        batch_size: images a process and step; each gives two views.
        micro_batch: encode so many images at a time, for a batch_size beyond the device's memory:
            the loss still sees the whole batch. Costs a second forward pass. Batch norm normalises
            each micro-batch by itself, so take as many as fit. None encodes the batch at once.
        seed: of everything random; the same seed gives the same weights on a CPU.
        name: of the run's folder below output; None makes one of data, objective and seed.
        output: folder that holds the runs.
        accelerator: Lightning's: auto, cpu, gpu, mps, ...
        devices: Lightning's: auto, a number, or a list of devices.
        precision: Lightning's: 32-true, bf16-mixed, 16-mixed.
        checkpoint_every: steps between two checkpoints (also at the end of each epoch).
        log_every: steps between two records of metrics (and one at the end of each epoch).
        knn_every: epochs between two online kNN accuracies (train images held out from the
            gallery, never the test set); 0 never.
        progress: show the progress bar.
    """

    data: str
    objective: Objective = "rince"
    loss: LossConfig = field(default_factory=LossConfig)
    ranks: RanksConfig = field(default_factory=RanksConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    images: DataConfig = field(default_factory=DataConfig)
    videos: VideoConfig = field(default_factory=VideoConfig)
    text: TextConfig = field(default_factory=TextConfig)
    batches: BatchConfig = field(default_factory=BatchConfig)
    epochs: int = 20
    batch_size: int = 256
    micro_batch: int | None = None
    seed: int = 0
    name: str | None = None
    output: str = "runs"
    accelerator: str = "auto"
    devices: str = "auto"
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    checkpoint_every: int = 200
    log_every: int = 10
    knn_every: int = 1
    progress: bool = True

    def __post_init__(self) -> None:
        for prefix, part in (
            ("", self),
            ("loss.", self.loss),
            ("optim.", self.optim),
            ("images.", self.images),
        ):
            _check_choices(prefix, part)
        self.ranks.check()
        texts = is_text_file(self.data)
        if texts and self.model.backbone is None:
            self.model = replace(self.model, backbone=TEXT_BACKBONE)
        if self.optim.optimizer == "auto":
            self.optim = replace(self.optim, optimizer="adamw" if texts else "sgd")
        if self.optim.lr is None:
            self.optim = replace(self.optim, lr=DEFAULT_LR[self.optim.optimizer])
        for name in ("epochs", "batch_size", "checkpoint_every", "log_every"):
            require(
                getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}"
            )
        require(
            self.micro_batch is None or self.micro_batch >= 1,
            f"micro_batch must be at least 1 image, got {self.micro_batch}: leave it out to encode "
            f"the batch at once",
        )
        require(
            self.model.queue_size == 0 or self.model.momentum is not None,
            "model.queue_size needs a momentum encoder (keys of an encoder that changes fast "
            "grow stale): set model.momentum, for instance 0.99",
        )
        require(self.model.queue_size >= 0, f"model.queue_size is {self.model.queue_size}")
        momentum = self.model.momentum
        require(
            momentum is None or 0 <= momentum <= 1,
            f"model.momentum must lie between 0 and 1, got {momentum}",
        )
        require((self.optim.lr or 0) > 0, f"optim.lr must be positive, got {self.optim.lr}")
        require(
            0 <= self.warmup_epochs() < self.epochs,
            f"optim.warmup_epochs must be at least 0 and below epochs ({self.epochs}), got "
            f"{self.optim.warmup_epochs}",
        )
        for name, given in (
            ("loss.temperature", (self.loss.temperature,)),
            ("loss.temperatures", self.loss.temperatures or ()),
        ):
            require(
                all(t > 0 and math.isfinite(t) for t in given),
                f"{name} must be positive, got {', '.join(map(str, given))}",
            )
        self._check_batches()
        require(self.loss.margin > 0, f"loss.margin must be positive, got {self.loss.margin}")
        require(
            0 <= self.loss.smoothing < 1,
            f"loss.smoothing must be at least 0 and below 1, got {self.loss.smoothing}",
        )
        require(
            self.objective != "fastap" or self.model.momentum is None,
            "fastap judges a batch against itself: leave out model.momentum and model.queue_size",
        )
        unread = self._unread_options()
        if unread:
            warn(
                f"{', '.join(unread)} {'has' if len(unread) == 1 else 'have'} no effect with "
                f"objective {self.objective}, which does not read "
                f"{'it' if len(unread) == 1 else 'them'}"
            )

    def warmup_epochs(self) -> float:
        """Epochs of warm-up: those given, or else 1, or a tenth of a short run."""
        given = self.optim.warmup_epochs
        return min(1.0, self.epochs / 10) if given is None else given

    def num_heads(self) -> int:
        """Projection heads side by side."""
        return 2 if self.objective == "supcon-two-heads" else 1

    def run_name(self) -> str:
        """Name of the run's folder."""
        if self.name:
            return self.name
        data = self.data.rstrip("/").rpartition("/")[2] or "data"
        for suffix in TEXT_SUFFIXES:
            data = data.removesuffix(suffix)
        variant = f"-{self.loss.variant}" if self.objective == "rince" else ""
        if (variant or self.ranks.by == "time") and self.ranks.label():
            variant += f"-{self.ranks.slug()}"
        smoothed = "-smoothed" if self.loss.smoothing and self.objective in CLASSIFIERS else ""
        weak = "-weak" if self.images.augmentation == "weak" else ""
        return f"{data}-{self.objective}{variant}{smoothed}{weak}-seed{self.seed}"

    def label(self) -> str:
        """What a table calls this method, the same for all seeds."""
        weak = ", weak augmentation" if self.images.augmentation == "weak" else ""
        if self.objective in CLASSIFIERS and self.loss.smoothing:
            return f"{self.objective} smoothed{weak}"
        if self.objective != "rince":
            by = ", all of the video" if self._by_video() else ""
            return f"{self.objective}{by}{weak}"
        cumulative = " cumulative" if self.loss.positives == "cumulative" else ""
        ranks = f", {self.ranks.label()}" if self.ranks.label() else ""
        return f"rince {self.loss.variant}{cumulative}{ranks}{weak}"

    def with_backbone(self, frames: int | None) -> TrainConfig:
        """The same; where no backbone is chosen, with the default one of the data.

        Args:
            frames: of a clip, if the data are videos.
        """
        if self.model.backbone is not None:
            return self
        found = copy(self)  # not replace(), which would warn of unread options once more
        default = IMAGE_BACKBONE if frames is None else CLIP_BACKBONE
        found.model = replace(self.model, backbone=default)
        return found

    def _by_video(self) -> bool:
        return self.ranks.by == "time" and self.objective.startswith("supcon")

    def _check_batches(self) -> None:
        images, classes = self.batches.images_per_class, self.batches.classes_per_superclass
        for name, value in (("images_per_class", images), ("classes_per_superclass", classes)):
            require(
                value is None or value >= 1,
                f"batches.{name} must be at least 1, got {value}: leave it out for random batches",
            )
        require(
            classes is None or images is not None,
            "batches.classes_per_superclass needs batches.images_per_class: how many images of "
            "each of these classes?",
        )
        slot = (images or 1) * (classes or 1)
        require(
            self.batch_size % slot == 0,
            f"batch_size {self.batch_size} is no multiple of {slot}, "
            f"batches.images_per_class times batches.classes_per_superclass",
        )

    def _unread_options(self) -> list[str]:
        """Options that were set, but that the objective does not read."""
        unread = []
        if self.objective != "rince":
            unread += [("loss", name) for name in ("variant", "positives", "temperatures")]
            # By time they also choose the positives of supcon, and what is logged.
            by_time = self.ranks.by == "time"
            unread += [("ranks", option.name) for option in fields(RanksConfig) if not by_time]
        if self.objective in ("rince", "triplet-hierarchical", "fastap", *CLASSIFIERS):
            unread.append(("loss", "temperature"))
        if self.objective != "triplet-hierarchical":
            unread.append(("loss", "margin"))
        if self.objective in CLASSIFIERS:
            unread += [("model", name) for name in ("momentum", "queue_size")]
        else:
            unread.append(("loss", "smoothing"))
        defaults = {"loss": LossConfig(), "model": ModelConfig(), "ranks": RanksConfig()}
        return [
            f"{part}.{name}"
            for part, name in unread
            if getattr(getattr(self, part), name) != getattr(defaults[part], name)
        ]


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """Plain nested data, for YAML and the checkpoint."""
    return asdict(config)


def from_dict(data: dict[str, Any], *, quiet: bool = False) -> TrainConfig:
    """Back from :func:`to_dict`'s form.

    Args:
        data: nested, as in YAML.
        quiet: do not warn; for a run's own configuration, of which was warned as it started.

    Raises:
        ValueError: an unknown or missing entry.
    """
    if quiet:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RinceWarning)
            return from_dict(data)
    data = dict(data)
    try:
        loss = dict(data.pop("loss", {}))
        if loss.get("temperatures") is not None:
            loss["temperatures"] = tuple(loss["temperatures"])
        text = dict(data.pop("text", {}))
        if text.get("labels") is not None:
            text["labels"] = tuple(text["labels"])
        ranks = dict(data.pop("ranks", {}))
        given = [name for name in (*RULES, "near") if ranks.get(name) is not None]
        ranks |= {name: tuple(ranks[name]) for name in given}
        return TrainConfig(
            loss=LossConfig(**loss),
            ranks=RanksConfig(**ranks),
            model=ModelConfig(**data.pop("model", {})),
            optim=OptimConfig(**data.pop("optim", {})),
            images=DataConfig(**data.pop("images", {})),
            videos=VideoConfig(**data.pop("videos", {})),
            text=TextConfig(**text),
            batches=BatchConfig(**data.pop("batches", {})),
            **data,
        )
    except TypeError as error:
        raise ValueError(f"not a training configuration: {error}") from error


def rank_temperatures(config: LossConfig, num_ranks: int) -> tuple[float, ...]:
    """The temperatures given, or the paper's for this number of ranks.

    Raises:
        ValueError: none given and more than three ranks.
    """
    if config.temperatures is not None:
        return config.temperatures
    require(
        num_ranks in DEFAULT_TEMPERATURES,
        f"these data have {num_ranks} ranks; the default temperatures are known for up to 3: "
        f"give --loss.temperatures, {num_ranks} rising numbers",
    )
    return DEFAULT_TEMPERATURES[num_ranks]


def _check_choices(prefix: str, part: Any) -> None:
    """Types are not checked at run time, and a wrong word would fail late, or choose a default."""
    for name, hint in get_type_hints(type(part)).items():
        if get_origin(hint) is Literal:
            given, allowed = getattr(part, name), get_args(hint)
            require(
                given in allowed,
                f"{prefix}{name} must be one of {', '.join(allowed)}, got {given!r}",
            )
