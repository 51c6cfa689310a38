"""The projection head: feature in, embedding of unit length out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class ProjectionHead(nn.Module):
    """Linear, ReLU, Linear, then unit length; used in training only (the paper evaluates features).

    Args:
        feature_dim: width of the backbone's feature.
        embedding_dim: width of the embedding.
        linear: one linear layer in place of the two.

    Forward: (B, feature_dim) -> (B, embedding_dim), each row of length 1.
    """

    def __init__(self, feature_dim: int, embedding_dim: int = 128, *, linear: bool = False) -> None:
        super().__init__()
        hidden = [] if linear else [nn.Linear(feature_dim, feature_dim), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*hidden, nn.Linear(feature_dim, embedding_dim))

    def forward(self, features: Tensor) -> Tensor:
        # fp32: half precision keeps too few bits of a cosine that is divided by 0.1 or less.
        return functional.normalize(self.layers(features).float(), dim=1)


class ParallelHeads(nn.Module):
    """``count`` projection heads on one feature, such as one for classes and one for superclasses.

    Forward: (B, feature_dim) -> (B, H * D), the embeddings side by side, each of length 1: one
    tensor, so that it is encoded, gathered and queued as any embedding is.
    """

    def __init__(
        self, feature_dim: int, embedding_dim: int = 128, count: int = 2, *, linear: bool = False
    ) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            ProjectionHead(feature_dim, embedding_dim, linear=linear) for _ in range(count)
        )

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([head(features) for head in self.heads], dim=1)


class ProjectionAndClassifier(nn.Module):
    """A projection head and a linear classifier beside it, on one feature.

    Forward: (B, feature_dim) -> (B, D + C), the embedding and behind it the logits, float32.
    """

    def __init__(self, projection: nn.Module, classifier: nn.Linear) -> None:
        super().__init__()
        self.projection = projection
        self.classifier = classifier

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([self.projection(features), self.classifier(features).float()], dim=1)


def projection_head(
    feature_dim: int, embedding_dim: int, count: int = 1, *, linear: bool = False
) -> nn.Module:
    """One projection head, or several side by side."""
    if count == 1:
        return ProjectionHead(feature_dim, embedding_dim, linear=linear)
    return ParallelHeads(feature_dim, embedding_dim, count, linear=linear)
