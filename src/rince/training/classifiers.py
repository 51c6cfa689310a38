"""Cross-entropy in the harness: a linear classifier on the features, of one label or of two."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from rince.losses.hierarchical import smoothed_targets
from rince.ranks.taxonomy import Taxonomy
from rince.training.config import LossConfig, Objective
from rince.training.objectives import Loss, fine_and_coarse


def classifier_head(objective: Objective, feature_dim: int, taxonomy: Taxonomy) -> nn.Linear:
    """(B, feature_dim) -> (B, C): logits of the classes; with two heads (B, C + G).

    The G logits behind them are those of the superclasses. Rows of one linear map are as
    independent as two maps are, and are encoded and stored as one.
    """
    outputs = taxonomy.num_classes
    if objective == "cross-entropy-two-heads":
        outputs += len(taxonomy.group_names(2))
    return nn.Linear(feature_dim, outputs)


def classification_loss(
    objective: Objective, config: LossConfig, taxonomy: Taxonomy, logits: Tensor, labels: Tensor
) -> Loss:
    """Cross-entropy, with labels smoothed within their superclass; two heads: plus the coarse one.

    Args:
        objective: cross-entropy or cross-entropy-two-heads.
        config: its ``smoothing`` is that of the fine labels.
        taxonomy: C classes.
        logits: (B, C), or (B, C + G) with two heads.
        labels: (B,) int64, the classes.
    """
    logits = logits.float()
    fine, coarse = logits[:, : taxonomy.num_classes], logits[:, taxonomy.num_classes :]
    of_classes = functional.cross_entropy(fine, _targets(config, taxonomy, labels))
    if objective == "cross-entropy":
        return Loss(of_classes)
    superclass = taxonomy.labels_at(2).to(labels.device)[labels]
    of_superclasses = functional.cross_entropy(coarse, superclass)
    return fine_and_coarse(of_classes, of_superclasses)


def _targets(config: LossConfig, taxonomy: Taxonomy, labels: Tensor) -> Tensor:
    """(B,) labels as they are, or (B, C) shares."""
    if config.smoothing == 0:
        return labels
    targets = smoothed_targets(taxonomy.labels_at(2), config.smoothing)
    return targets.to(labels.device)[labels]
