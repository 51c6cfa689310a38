"""What is evaluated: the network of a run or of an export, and the data that it is measured on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from shlex import quote

from torch import nn

from rince.core.checks import RinceError, warn
from rince.core.input_spec import InputSpec, Preprocessing
from rince.data.given_tree import GivenTree, splits_in
from rince.data.items import Splits
from rince.data.kinds import NAMED_TREES, kind_named, require_kind
from rince.models.backbones import Backbone, as_backbone
from rince.models.exported import EXPORT_FILE, load_exported
from rince.models.texts import SENTENCE_FILE
from rince.ranks.taxonomy import Taxonomy
from rince.training.checkpoint import TrainedRun, load_run
from rince.training.config import TrainConfig
from rince.training.folder import CHECKPOINT_FILE, warn_if_unfinished
from rince.training.objectives import OBJECTIVES
from rince.training.splits import as_fed, load_splits, or_given_anew

UNKNOWN_CLASSES = (("unknown",),)
"""Of a network that was trained elsewhere."""


def network_in(folder: Path, backbone: Backbone | nn.Module | None) -> TrainedRun:
    """A run, or an export as if it were one."""
    if (folder / EXPORT_FILE).exists():
        return _of_export(folder, backbone)
    if (folder / SENTENCE_FILE).exists() and not (folder / CHECKPOINT_FILE).exists():
        raise RinceError(
            f"{folder} is an export of texts, which is not evaluated by itself: evaluate the run "
            f"that it is of; or embed texts with it (rince embed) and evaluate the file"
        )
    trained = load_run(folder, backbone)
    warn_if_unfinished(folder, f" at step {trained.step}")
    return trained


def _of_export(folder: Path, backbone: Backbone | nn.Module | None) -> TrainedRun:
    """The network of an export of images or clips, as if it were that of a run."""
    module = backbone.module if isinstance(backbone, Backbone) else backbone
    encoder = load_exported(folder, module)
    features, head = encoder.module, None
    if encoder.embedding_dim is not None:
        head = encoder.module.get_submodule("head")
        features = encoder.module.get_submodule("backbone")
    spec = encoder.spec
    if spec.preprocessing is None and encoder.mean:  # of an older rince, or as ours
        how = Preprocessing(encoder.mean, encoder.std, spec.size)
        spec = replace(spec, preprocessing=how)
    config = TrainConfig("").with_defaults(kind_named(encoder.noun))
    videos = replace(
        config.videos,
        frames=encoder.spec.frames or config.videos.frames,
        stride=encoder.stride or config.videos.stride,
        frame_size=encoder.frame_size,
    )
    config = replace(config, videos=videos, model=replace(config.model, backbone=encoder.backbone))
    taxonomy = Taxonomy(encoder.class_paths or UNKNOWN_CLASSES)
    return TrainedRun(
        folder=folder,
        config=config,
        taxonomy=taxonomy,
        backbone=as_backbone(features, spec),
        spec=spec,
        step=0,
        objective=OBJECTIVES[config.objective],
        head=head,
        ranks=taxonomy,
        own_backbone=encoder.backbone is None,
    )


def given_splits(trained: TrainedRun, splits: Splits, tree: GivenTree | None) -> Splits:
    """Items given in Python, prepared as the run's backbone takes them."""
    splits = as_fed(splits, trained.config, trained.spec.preprocessing)
    check_fit(trained, splits.spec, "splits")
    return splits_in(tree, splits)


def own_splits(trained: TrainedRun, config: TrainConfig) -> Splits:
    """The data that the run was trained on, if they are still the same."""
    data, name = config.data, trained.folder.name
    moved = f"rince evaluate {quote(str(trained.folder))} --data WHERE"
    with or_given_anew(data, moved, f"evaluate_run({str(trained.folder)!r}, splits=...)"):
        splits = load_splits(config, preprocessing=trained.spec.preprocessing)
    splits = splits_in(trained.tree, splits)
    changed = splits.train.taxonomy.paths != trained.taxonomy.paths
    if trained.data_fingerprint:
        changed = changed or splits.fingerprint() != trained.data_fingerprint
    elif data not in NAMED_TREES:
        warn(
            f"{name} was trained by an older rince, which did not record its data: if "
            f"{data} has no val/ or test/ of its own, test items may have been trained on"
        )
    if changed:
        raise RinceError(
            f"{data} no longer holds the {trained.spec.noun} that {name} was trained with (now "
            f"{len(splits.train)} for training and {len(splits.test)} for the test), so test "
            f"items may have been trained on. Put the data back as they were, train again, or "
            f"give other data with --data"
        )
    check_fit(trained, splits.spec, data)
    return splits


def other_splits(trained: TrainedRun, config: TrainConfig, tree: GivenTree | None = None) -> Splits:
    """Other data, in the size and colours that the run's backbone knows; or other texts."""
    data = config.data
    require_kind(data, trained.spec.noun, config.ranks.by == "time", config.table.encoding)
    spec, config = trained.spec, in_size_of(trained, config)
    splits = load_splits(config, spec.channels, preprocessing=spec.preprocessing)
    splits = splits_in(tree, splits)
    if trained.taxonomy.paths not in (UNKNOWN_CLASSES, splits.train.taxonomy.paths):
        print(f"note: {data} has other classes than {trained.folder.name} was trained on")
    check_fit(trained, splits.spec, data)
    return splits


def of_trained_classes(splits: Splits, folder: str | Path = "RUN") -> Splits:
    """Without test items of classes that no training item is of, where there are others."""
    test, unseen = splits.test, splits.never_trained
    if not unseen.any() or unseen.all():
        return splits
    warn(
        f"{int(unseen.sum())} of {len(test)} test {test.noun} are of classes that were never "
        f"trained, which a probe and kNN cannot tell: they are left out here, and "
        f"`rince evaluate {quote(str(folder))} --test DATA` measures them"
    )
    return Splits(splits.train, test.subset((~unseen).nonzero()[:, 0]))


def in_size_of(trained: TrainedRun, config: TrainConfig) -> TrainConfig:
    """Other items are taken in the size that the run's backbone knows."""
    return replace(config, images=replace(config.images, image_size=trained.spec.size or None))


def check_fit(trained: TrainedRun, spec: InputSpec, data: str) -> None:
    """Refuse items of another shape than the run was trained on."""
    if spec != trained.spec:
        raise RinceError(
            f"{data} holds {spec}, but {trained.folder.name} was trained on "
            f"{trained.spec}; evaluate it on data of its own kind"
        )
