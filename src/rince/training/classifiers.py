"""Cross-entropy: a linear classifier on the features, of one label or of two; or beside RINCE."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from rince.core.devices import sent
from rince.evaluation.levels import coarse_level
from rince.losses.hierarchical import smoothed_targets
from rince.models.heads import ProjectionAndClassifier, projection_head
from rince.models.options import ModelOptions
from rince.ranks.taxonomy import Taxonomy
from rince.training.objectives import Objective
from rince.training.pair_losses import rince
from rince.training.step import Loss, Step, fine_and_coarse


def classifier_head(objective: Objective, feature_dim: int, taxonomy: Taxonomy) -> nn.Linear:
    """(B, feature_dim) -> (B, C): logits of the classes; with two heads those of the superclasses
    behind them: rows of one linear map are as independent as two maps are."""
    count = taxonomy.num_classes
    if objective.num_heads == 2:
        count += len(taxonomy.group_names(coarse_level(taxonomy)))
    return nn.Linear(feature_dim, count)


def training_head(
    objective: Objective, feature_dim: int, taxonomy: Taxonomy, model: ModelOptions
) -> nn.Module:
    """What a training puts on the features: a projection head, a classifier, or both."""
    if objective.classifier:
        return classifier_head(objective, feature_dim, taxonomy)
    linear = model.head == "linear"
    head = projection_head(feature_dim, model.embedding_dim, objective.num_heads, linear=linear)
    if objective.classifier_beside:
        return ProjectionAndClassifier(head, classifier_head(objective, feature_dim, taxonomy))
    return head


def cross_entropy(step: Step) -> Loss:
    """Cross-entropy of the classes, smoothed within their superclass; plus that of the
    superclasses, where they have logits."""
    if step.logits is None:
        raise ValueError("cross-entropy is not a loss on pairs: it needs a classifier's logits")
    taxonomy, labels, logits = step.taxonomy, step.pairs.query_labels, step.logits.float()
    fine, coarse = logits[:, : taxonomy.num_classes], logits[:, taxonomy.num_classes :]
    targets = labels
    if step.options.smoothing > 0:
        probabilities = smoothed_targets(_superclasses(taxonomy), step.options.smoothing)
        targets = sent(probabilities, labels.device)[labels]
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
