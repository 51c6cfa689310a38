"""Cross-entropy: a linear classifier on the features, of one label or of two; or beside RINCE."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from rince.core.devices import sent
from rince.evaluation.levels import coarse_level
from rince.losses.hierarchical import smoothed_targets
from rince.ranks.taxonomy import Taxonomy
from rince.training.objectives import Objective
from rince.training.pair_losses import rince
from rince.training.step import Loss, Step, fine_and_coarse


def classifier_head(objective: Objective, feature_dim: int, taxonomy: Taxonomy) -> nn.Linear:
    """(B, feature_dim) -> (B, C): logits of the classes; with two heads (B, C + G).

    The G logits behind them are those of the superclasses. Rows of one linear map are as
    independent as two maps are, and are encoded and stored as one.
    """
    count = taxonomy.num_classes
    if objective.num_heads == 2:
        count += len(taxonomy.group_names(coarse_level(taxonomy)))
    return nn.Linear(feature_dim, count)


def cross_entropy(step: Step) -> Loss:
    """Cross-entropy of the classes, smoothed within their superclass; plus, where there are logits
    of superclasses too, theirs.
    """
    if step.logits is None:
        raise ValueError("cross-entropy is not a loss on pairs: it needs a classifier's logits")
    taxonomy, labels, logits = step.taxonomy, step.pairs.query_labels, step.logits.float()
    fine, coarse = logits[:, : taxonomy.num_classes], logits[:, taxonomy.num_classes :]
    targets = _targets(step.options.smoothing, taxonomy, labels)
    of_classes = functional.cross_entropy(fine, targets)
    if coarse.shape[1] == 0:
        return Loss(of_classes)
    superclass = sent(_superclasses(taxonomy), labels.device)[labels]
    return fine_and_coarse(of_classes, functional.cross_entropy(coarse, superclass))


def rince_and_cross_entropy(step: Step) -> Loss:
    """RINCE on the embeddings plus the weighted cross-entropy of a classifier on the features."""
    ranked, of_classes = rince(step), cross_entropy(step).total
    total = ranked.total + step.options.cross_entropy_weight * of_classes
    return Loss(total, {**ranked.parts, "loss_cross_entropy": of_classes.detach()})


def _superclasses(taxonomy: Taxonomy) -> Tensor:
    """(C,) int64."""
    return taxonomy.labels_at(coarse_level(taxonomy))


def _targets(smoothing: float, taxonomy: Taxonomy, labels: Tensor) -> Tensor:
    """(B,) labels as they are, or (B, C) probabilities."""
    if smoothing == 0:
        return labels
    targets = smoothed_targets(_superclasses(taxonomy), smoothing)
    return sent(targets, labels.device)[labels]
