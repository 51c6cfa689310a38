"""A trained run, read back from its checkpoint. No Lightning here: that takes seconds to import."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import nn

from rince.core.checks import RinceError
from rince.core.files import absent, user_path
from rince.core.input_spec import InputSpec
from rince.core.notebook import html_table
from rince.data.given_tree import GivenTree
from rince.data.kinds import TrainedNetwork, kind_named
from rince.models import encoders
from rince.models.backbones import Backbone, as_backbone
from rince.models.encoders import Encoder
from rince.models.exported import EXPORT_FILE, towers_in
from rince.models.heads import projection_head
from rince.models.options import Space
from rince.models.texts import SENTENCE_FILE
from rince.models.tuning import fine_tuned, merge_updates
from rince.models.weights import load_strictly
from rince.ranks.class_ranks import ClassRanks
from rince.ranks.taxonomy import Taxonomy
from rince.training.config import TrainConfig, from_dict
from rince.training.folder import CHECKPOINT_FILE as CHECKPOINT_FILE
from rince.training.folder import CONFIG_FILE, instead_of_run
from rince.training.objectives import OBJECTIVES, Objective
from rince.training.ranks import kept_ranks, kept_tree

CHECKPOINT_KEY = "rince"  # of what the checkpoint says of the run
OWN_OBJECTIVE = "own_objective"
OWN_BACKBONE = "own_backbone"
BACKBONE_PREFIX, HEAD_PREFIX = "encoder.backbone.", "encoder.head."


@dataclass(frozen=True)
class TrainedRun:
    """A run read back from its folder.

    Args:
        backbone: in evaluation mode, on the CPU.
        spec: what one input is.
        step: optimizer steps taken.
        objective: its row; of a user's own without the code, which a checkpoint does not hold.
        data_fingerprint: of the data it was trained with; "" if it was not recorded.
        classifier: features to the logits of the classes, of a run that was trained with one.
        head: features to embeddings, but of a run that was trained as a classifier alone.
        ranks: of the classes, as the objective rince was trained on; times are not kept.
        own_backbone: the backbone is the user's, not ``config.model.backbone``.
        tree: that of ``ranks.tree``, if one was given.
    """

    folder: Path
    config: TrainConfig
    taxonomy: Taxonomy
    backbone: Backbone
    spec: InputSpec
    step: int
    ranks: ClassRanks | Taxonomy
    objective: Objective
    data_fingerprint: str = ""
    classifier: nn.Linear | None = None
    head: nn.Module | None = None
    own_backbone: bool = False
    tree: GivenTree | None = None

    def _repr_html_(self) -> str:
        network = type(self.backbone.module).__name__
        rows = {
            "method": self.config.label(self.objective),
            "data": f"{self.config.data}, {self.taxonomy.num_classes} classes",
            "backbone": f"{network}, {self.backbone.feature_dim} features",
            "steps": str(self.step),
            "compares by": self.space,
        }
        return html_table(str(self.folder), (), rows.items())

    @property
    def space(self) -> Space:
        """Where items are compared if nothing else is asked: in the embedding that the loss saw;
        of a classifier, which has none, by the backbone's features."""
        return "backbone" if self.head is None else "embedding"


def load_run(folder: str | Path, backbone: Backbone | nn.Module | None = None) -> TrainedRun:
    """Read a run's backbone, strictly: every weight must be there and fit.

    Args:
        folder: the run's.
        backbone: one like that given to :func:`~rince.training.run.train`, if one was; the
            weights are loaded into it.

    Raises:
        RinceError: no checkpoint, a damaged one, or one that does not fit its configuration.
    """
    folder = user_path(folder)
    checkpoint = read_checkpoint(folder)
    about = checkpoint[CHECKPOINT_KEY]
    call = f"load_run({str(folder)!r}, backbone=...)"
    require_own(backbone, about, OWN_BACKBONE, folder, call)
    spec = InputSpec.from_dict(about)
    config = from_dict(about["config"]).with_defaults(kind_named(spec.noun))
    objective = recorded_objective(about, config, folder)
    backbone, weights = backbone_to_train(config, spec, backbone), checkpoint["state_dict"]
    load_strictly(backbone.module, _below(BACKBONE_PREFIX, weights), folder / CHECKPOINT_FILE)
    merge_updates(backbone.module.eval())
    taxonomy, model = Taxonomy(about["taxonomy"]), config.model
    of_head = _below(HEAD_PREFIX, weights)
    head, of_classifier = None, of_head if objective.classifier else None
    if objective.classifier_beside:
        of_head, of_classifier = (_below(part, of_head) for part in ("projection.", "classifier."))
    if not objective.classifier:
        width, count, linear = model.embedding_dim, objective.num_heads, model.head == "linear"
        head = projection_head(backbone.feature_dim, width, count, linear=linear).eval()
        load_strictly(head, of_head, folder / CHECKPOINT_FILE)
    classifier = None if of_classifier is None else _linear(of_classifier, taxonomy.num_classes)
    return TrainedRun(
        folder=folder,
        config=config,
        taxonomy=taxonomy,
        backbone=backbone,
        spec=spec,
        step=checkpoint["global_step"],
        data_fingerprint=about.get("data_fingerprint") or "",
        objective=objective,
        classifier=classifier,
        head=head,
        ranks=kept_ranks(about, taxonomy),
        own_backbone=bool(about.get(OWN_BACKBONE)),
        tree=kept_tree(about),
    )


def backbone_to_train(
    config: TrainConfig,
    spec: InputSpec,
    own: Backbone | nn.Module | None = None,
    *,
    pretrained: bool = False,
) -> Backbone:
    """The user's own, or else that of ``config.model.backbone``, frozen as far as it says."""
    if own is None:
        name = str(config.model.backbone)
        own = kind_named(spec.noun).build_backbone(name, spec, config, pretrained)
    elif not isinstance(own, Backbone):
        own = as_backbone(own, spec)
    fine_tuned(own.module, config.model.layers, config.model.lora)
    return own


def trained_encoder(trained: TrainedRun, space: Space | None = None) -> Encoder:
    """A run's network with all that it takes to feed it: what is exported and embeds.

    ``space``: what it gives; None: :attr:`TrainedRun.space`.
    """
    config, objective = trained.config, trained.objective
    head = trained.head if (space or trained.space) == "embedding" else None
    if space == "embedding" and head is None:
        raise RinceError(
            f"{trained.folder} was trained with {config.objective}: it has a classifier in place "
            f"of a projection head. Leave out --space embedding (or --head) to take its features"
        )
    network = TrainedNetwork(
        module=trained.backbone.module,
        name=None if trained.own_backbone else config.model.backbone,
        feature_dim=trained.backbone.feature_dim,
        spec=trained.spec,
        class_paths=trained.taxonomy.paths,
        head=head,
        embedding_dim=config.model.embedding_dim,
        num_heads=1 if objective.classifier else objective.num_heads,
    )
    return kind_named(trained.spec.noun).encoder(network, config)


def load_encoder(folder: Path, space: Space | None = None) -> Encoder:
    """The network of a run or of an export; any model of sentence-transformers.

    ``space``: as of :func:`trained_encoder`; an export has one only.
    """
    exported = encoders.load_encoder(folder)
    if exported is not None:
        own = "backbone" if exported.embedding_dim is None else "embedding"
        if space not in (None, own):
            raise RinceError(
                f"{folder} is an export of the {own}, and holds no other space: export the run "
                f"again with --space {space}, or give the run itself"
            )
        return exported
    if not folder.is_dir():
        raise RinceError(absent("folder", folder))
    if not (folder / CHECKPOINT_FILE).exists():
        raise RinceError(
            f"{folder} is neither a run (it holds no {CHECKPOINT_FILE}) nor an export (no "
            f"{EXPORT_FILE} or {SENTENCE_FILE}){towers_in(folder)}"
        )
    return trained_encoder(load_run(folder), space)


def _below(prefix: str, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {n.removeprefix(prefix): x for n, x in weights.items() if n.startswith(prefix)}


def _linear(weights: Mapping[str, torch.Tensor], num_classes: int) -> nn.Linear:
    """The logits of the classes; those of superclasses, which come behind, are left out."""
    kept = {name: x[:num_classes] for name, x in weights.items()}
    classifier = nn.Linear(kept["weight"].shape[1], num_classes)
    classifier.load_state_dict(kept)
    return classifier.requires_grad_(False)


class HoldsCode(Exception):
    """A file of torch.save holds more than plain data; what, is the message."""


def read_plainly(source: Path | BinaryIO) -> Any:
    """What torch.save has written, as plain data (no code in it is run)."""
    try:
        return torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch says no more than by its text whether this is damage.
        if found := re.search(r"\bGLOBAL ([\w.]+\w) was\b", str(error)):
            raise HoldsCode(found[1]) from error
        raise


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """Read a run's checkpoint as plain data (no code in it is run)."""
    path = folder / CHECKPOINT_FILE
    if not folder.is_dir():
        raise RinceError(absent("folder", folder))
    if not path.is_file():
        begun = (folder / CONFIG_FILE).is_file()
        why = "it stopped before its first, so start it again" if begun else "is it a run's folder?"
        instead = instead_of_run(folder) or f": {why}"
        raise RinceError(f"{folder} holds no checkpoint ({CHECKPOINT_FILE}){instead}")
    try:
        checkpoint: dict[str, Any] = read_plainly(path)
    except HoldsCode as error:
        raise RinceError(
            f"{path} holds {error}, which is no plain data, and running code of a file is not "
            f"safe: rince has not written it so. If you trust the file: read it with torch.load("
            f"..., weights_only=False), take out what is no number, string, list, dict or tensor, "
            f"and torch.save it"
        ) from error
    except Exception as error:  # a damaged pickle raises anything
        first_line = str(error).strip().partition("\n")[0]
        raise RinceError(
            f"{path} is damaged, perhaps cut short while it was copied "
            f"({type(error).__name__}: {first_line}). Copy it again, or train the run again"
        ) from error
    if not isinstance(checkpoint, dict) or CHECKPOINT_KEY not in checkpoint:
        raise RinceError(f"{path} is a checkpoint, but not one written by rince")
    held = {*checkpoint, *checkpoint[CHECKPOINT_KEY]}
    lost = [x for x in ("state_dict", "global_step", "config", "taxonomy") if x not in held]
    if lost:
        raise RinceError(
            f"{path} is damaged, it holds no {', '.join(lost)}: copy it again, or train the run "
            f"again"
        )
    return checkpoint


def require_own(
    part: object | None, about: Mapping[str, Any], key: str, folder: Path, call: str
) -> None:
    """Refuse to go on without a module or an objective of the user's own (``part``), whose code the
    run's folder does not hold; ``call``: what to write, for the message."""
    if part is None and about.get(key):
        raise RinceError(
            f"{folder} was trained with {_OWN[key].format(**about['config'])} of your own, which "
            f"its folder does not hold: build it as for the training and pass it, in Python: {call}"
        )


_OWN = {OWN_BACKBONE: "a module", OWN_OBJECTIVE: "an objective ({objective})"}


def own_facts(objective: Objective) -> dict[str, Any]:
    """What a checkpoint says of a user's own objective: its row, but for its code."""
    if objective.name in OBJECTIVES:
        return {}
    facts = ("classifier", "classifier_beside", "num_heads", "reads", "by_time")
    return {OWN_OBJECTIVE: {name: getattr(objective, name) for name in facts}}


def recorded_objective(
    about: Mapping[str, Any], config: TrainConfig, folder: Path, given: Objective | None = None
) -> Objective:
    """The objective of a run, as its checkpoint tells it; or the same one, given with its code."""
    name, own = config.objective, about.get(OWN_OBJECTIVE)
    if given is not None:
        if given.name != name:
            raise RinceError(
                f"{folder} was trained with the objective {name}, not with {given.name}: give that "
                f"one, or start a new run"
            )
        return given
    if own is not None:
        return Objective(name, **{"reads": ("ranks",), **own})
    if name not in OBJECTIVES:
        raise RinceError(f"{folder} has the objective {name!r}, which is not known")
    return OBJECTIVES[name]
