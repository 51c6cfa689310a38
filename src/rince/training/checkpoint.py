"""A trained run, read back from its checkpoint. No Lightning here: that takes seconds to import."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rince.core.checks import RinceError
from rince.core.options import check_choices
from rince.data.views import NORMALISATION
from rince.models.backbones import Backbone, build_backbone
from rince.models.exported import ImageEncoder
from rince.models.heads import projection_head
from rince.models.texts import SentenceModel, TextEncoder, text_backbone
from rince.models.weights import load_strictly
from rince.ranks.class_ranks import ClassRanks
from rince.ranks.taxonomy import Taxonomy
from rince.training.config import TrainConfig, from_dict
from rince.training.folder import CHECKPOINT_FILE as CHECKPOINT_FILE
from rince.training.objectives import OBJECTIVES, Objective
from rince.training.ranks import kept_ranks

CHECKPOINT_KEY = "rince"  # of what the checkpoint says of the run
OWN_OBJECTIVE = "own_objective"
BACKBONE_PREFIX = "encoder.backbone."
HEAD_PREFIX = "encoder.head."


@dataclass(frozen=True)
class TrainedRun:
    """A run read back from its folder.

    Args:
        backbone: in evaluation mode, on the CPU.
        in_channels, image_size: of the images it was trained on. frames: of its clips, if it was
            trained on those.
        step: optimizer steps taken.
        objective: its row; of a user's own without the code, which a checkpoint does not hold.
        data_fingerprint: of the images it was trained with; "" if it was not recorded.
        classifier: features to the logits of the classes, of a run that was trained as one.
        head: features to embeddings, of any other run.
        ranks: of the classes, as the objective rince was trained on; times are not kept.
        own_backbone: the backbone is the user's, not ``config.model.backbone``.
    """

    folder: Path
    config: TrainConfig
    taxonomy: Taxonomy
    backbone: Backbone
    in_channels: int
    image_size: int
    step: int
    ranks: ClassRanks
    objective: Objective
    frames: int | None = None
    data_fingerprint: str = ""
    classifier: nn.Linear | None = None
    head: nn.Module | None = None
    own_backbone: bool = False

    @property
    def on_texts(self) -> bool:
        """Whether it was trained on texts, which have no channels."""
        return self.in_channels == 0


def load_run(folder: Path, backbone: Backbone | None = None) -> TrainedRun:
    """Read a run's backbone, strictly: every weight must be there and fit.

    Args:
        folder: the run's.
        backbone: one like that given to :func:`~rince.training.run.train`, if one was; the
            weights are loaded into it.

    Raises:
        RinceError: no checkpoint, a damaged one, or one that does not fit its configuration.
    """
    checkpoint = read_checkpoint(folder)
    about = checkpoint[CHECKPOINT_KEY]
    require_own_backbone(about, backbone, folder, f"load_run({str(folder)!r}, backbone=...)")
    config = from_dict(about["config"]).with_defaults(about.get("frames"))
    objective = recorded_objective(about, config)
    if backbone is None:
        backbone = configured_backbone(
            config, about["in_channels"], about["image_size"], about.get("frames")
        )
    weights = checkpoint["state_dict"]
    load_strictly(backbone.module, _below(BACKBONE_PREFIX, weights), folder / CHECKPOINT_FILE)
    backbone.module.eval()
    head = None
    if not objective.classifier:
        head = projection_head(
            backbone.feature_dim, config.model.embedding_dim, objective.num_heads
        ).eval()
        load_strictly(head, _below(HEAD_PREFIX, weights), folder / CHECKPOINT_FILE)
    taxonomy = Taxonomy(tuple(tuple(path) for path in about["taxonomy"]))
    return TrainedRun(
        folder=folder,
        config=config,
        taxonomy=taxonomy,
        backbone=backbone,
        in_channels=about["in_channels"],
        image_size=about["image_size"],
        step=checkpoint["global_step"],
        frames=about.get("frames"),
        data_fingerprint=about.get("data_fingerprint") or "",
        objective=objective,
        classifier=_classifier(objective, weights, taxonomy.num_classes),
        head=head,
        ranks=kept_ranks(about, taxonomy),
        own_backbone=bool(about.get("own_backbone")),
    )


def configured_backbone(
    config: TrainConfig, channels: int, size: int, frames: int | None, *, pretrained: bool = False
) -> Backbone:
    """That of ``config.model.backbone``; without channels (0) the data are texts."""
    name = str(config.model.backbone)
    if channels == 0:
        return text_backbone(name, config.text.layers)
    return build_backbone(
        name, in_channels=channels, image_size=size, frames=frames, pretrained=pretrained
    )


def image_encoder(trained: TrainedRun, *, head: bool = False) -> ImageEncoder:
    """A run's network with all that it takes to feed it: what is exported.

    Args:
        trained: the run.
        head: with the projection head: embeddings, not features.

    Raises:
        RinceError: the head of a run that was trained as a classifier.
    """
    module, width = trained.backbone.module, trained.backbone.feature_dim
    embedding_dim, objective = trained.config.model.embedding_dim, trained.objective
    num_heads = 1 if objective.classifier else objective.num_heads
    if head:
        if trained.head is None:
            raise RinceError(
                f"{trained.folder} was trained with {trained.config.objective}: it has a "
                f"classifier in place of a projection head. Leave out --head to take its features"
            )
        module = nn.Sequential(OrderedDict(backbone=module, head=trained.head)).eval()
        width = embedding_dim * num_heads
    mean, std = NORMALISATION[trained.in_channels]
    clips: dict[str, int] = {}
    if trained.frames is not None:
        videos = trained.config.videos
        size = videos.frame_size or trained.image_size
        clips = {"frames": trained.frames, "stride": videos.stride, "frame_size": size}
    return ImageEncoder(
        module=module,
        backbone=None if trained.own_backbone else trained.config.model.backbone,
        output_dim=width,
        embedding_dim=embedding_dim if head else None,
        num_heads=num_heads,
        in_channels=trained.in_channels,
        image_size=trained.image_size,
        mean=mean,
        std=std,
        class_paths=trained.taxonomy.paths,
        **clips,
    )


def trained_encoder(trained: TrainedRun, *, head: bool = False) -> ImageEncoder | SentenceModel:
    """:func:`image_encoder`, or of a run on texts its model as it was trained: no prompts before
    the texts, which are cut where they were.

    Raises:
        RinceError: as :func:`image_encoder`; the head, or a module of the user's own, of a run on
            texts.
    """
    if not trained.on_texts:
        return image_encoder(trained, head=head)
    encoder, text = trained.backbone.module, trained.config.text
    if head or not isinstance(encoder, TextEncoder):
        raise RinceError(
            f"{trained.folder} was trained on texts: what is exported and embeds is a model of "
            f"sentence-transformers, with no projection head (leave out --head) and no module of "
            f"your own. In Python there is load_run({str(trained.folder)!r})"
        )
    model: Any = encoder.model
    model.prompts, model.default_prompt_name = {}, None
    bounds = [bound for bound in (text.max_tokens, model.max_seq_length) if bound is not None]
    if bounds:
        model.max_seq_length = min(bounds)
    backbone = str(trained.config.model.backbone)
    return SentenceModel(model, backbone, text.column, trained.taxonomy.paths)


def _below(prefix: str, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {n.removeprefix(prefix): x for n, x in weights.items() if n.startswith(prefix)}


def _classifier(
    objective: Objective, weights: Mapping[str, torch.Tensor], num_classes: int
) -> nn.Linear | None:
    """The logits of the classes; those of superclasses, which come behind, are left out."""
    if not objective.classifier:
        return None
    weight, bias = (weights[HEAD_PREFIX + name][:num_classes] for name in ("weight", "bias"))
    classifier = nn.Linear(weight.shape[1], num_classes)
    classifier.load_state_dict({"weight": weight, "bias": bias})
    return classifier.requires_grad_(False)


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """Read a run's checkpoint as plain data (no code in it is run).

    Raises:
        RinceError: no such run, or a file that is damaged or not rince's.
    """
    path = folder / CHECKPOINT_FILE
    if not path.is_file():
        raise RinceError(
            f"{folder} holds no checkpoint ({CHECKPOINT_FILE}): is it the folder of a run?"
        )
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises anything
        first_line = str(error).strip().partition("\n")[0]
        raise RinceError(
            f"{path} is damaged, perhaps cut short while it was copied "
            f"({type(error).__name__}: {first_line}). Copy it again, or train the run again"
        ) from error
    if not isinstance(checkpoint, dict) or CHECKPOINT_KEY not in checkpoint:
        raise RinceError(f"{path} is a checkpoint, but not one written by rince")
    return checkpoint


def require_own_backbone(
    about: Mapping[str, Any], backbone: Backbone | None, folder: Path, call: str
) -> None:
    """A module of the user's own is code, which the run's folder does not hold.

    Raises:
        RinceError: the run was trained with one, and none is given.
    """
    if backbone is None and about.get("own_backbone"):
        raise RinceError(
            f"{folder} was trained with a module of your own, which its folder does not hold: "
            f"build it as it was built for training and pass it, in Python: {call}"
        )


def own_facts(objective: Objective) -> dict[str, Any]:
    """What a checkpoint says of a user's own objective: enough to read its head, not its code."""
    if objective.name in OBJECTIVES:
        return {}
    return {OWN_OBJECTIVE: {"classifier": objective.classifier, "num_heads": objective.num_heads}}


def recorded_objective(about: Mapping[str, Any], config: TrainConfig) -> Objective:
    """The objective of a run, as its checkpoint tells it."""
    own = about.get(OWN_OBJECTIVE)
    if own is not None:
        return Objective(config.objective, **own)
    check_choices(config)
    return OBJECTIVES[config.objective]


def resumed_objective(
    about: Mapping[str, Any], config: TrainConfig, objective: Objective | None, folder: Path
) -> Objective:
    """The objective to go on with: a user's own is code, which the run's folder does not hold.

    Raises:
        RinceError: the run was trained with one and none is given; or another one is given.
    """
    recorded = recorded_objective(about, config)
    if objective is not None and objective.name != recorded.name:
        raise RinceError(
            f"{folder} was trained with the objective {recorded.name}, not with {objective.name}: "
            f"give that one, or start a new run"
        )
    if objective is None and OWN_OBJECTIVE in about:
        raise RinceError(
            f"{folder} was trained with an objective of your own, {recorded.name}, which its "
            f"folder does not hold: pass it, in Python: resume(folder, objective=...)"
        )
    return objective or recorded
