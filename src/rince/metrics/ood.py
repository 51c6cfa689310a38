"""Out-of-distribution scores by neighbours and by logits; higher is more outlying."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from rince.core.checks import check_temperature, require
from rince.metrics.arrays import (
    Array,
    check_features,
    cosine_chunks,
    self_excluded,
    tensor,
    tensors,
)


def knn_ood_score(
    features: Array,
    train_features: Array,
    *,
    k: int = 20,
    exclude_self: bool | None = None,
    chunk_size: int = 256,
) -> Tensor:
    """Euclidean distance to the k-th nearest training sample, both L2-normalised.

    Source: Sun et al., ICML 2022, arXiv 2204.06507.

    Args:
        features: (M, D) float, the samples to score. train_features: (N, D) float.
        k: which neighbour, 1 to N (N - 1 with ``exclude_self``); 20 as in `rince evaluate`, the
            paper's 50 was for more data.
        exclude_self: True: the first M training samples are the samples themselves, whose distance
            to themselves, 0, is left out. None: False, with a warning where that is so (they share
            their memory).
        chunk_size: samples at a time; changes memory and speed, not the result.

    Returns:
        (M,) float32 in [0, 2].

    Raises:
        ValueError: wrong shapes, values that are not finite, or k out of range.

    >>> train = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    >>> knn_ood_score(torch.tensor([[3.0, 0.0], [-1.0, 0.0]]), train, k=1)
    tensor([0.0000, 1.4142])
    """
    features, train_features = tensors(features, train_features)
    exclude_self = self_excluded(exclude_self, features, train_features, "training samples")
    most = len(train_features) - exclude_self
    others = "other training samples" if exclude_self else "training samples"
    require(1 <= k <= most, f"k must lie between 1 and the {most} {others}, got {k}")
    chunks = cosine_chunks(features, train_features, chunk_size, exclude_self)
    nearest = torch.cat([cosine.topk(k, dim=1).values[:, -1] for _, cosine in chunks])
    return (2 - 2 * nearest).clamp(min=0).sqrt()


def msp_score(logits: Array) -> Tensor:
    """1 minus the highest class probability (Hendrycks and Gimpel, arXiv 1610.02136).

    Args:
        logits: (M, C) float, finite.

    Returns:
        (M,) float64 in [0, 1 - 1/C].

    Raises:
        ValueError: wrong shape or values that are not finite.

    >>> msp_score(torch.tensor([[0.0, 0.0], [0.0, 100.0]])).round(decimals=4)
    tensor([0.5000, 0.0000], dtype=torch.float64)
    """
    logits = tensor(logits)
    check_features(logits, "logits")
    probability, best = functional.softmax(logits.double(), dim=1), logits.argmax(dim=1)
    # The sum of the others, as 1 - p would round all confident samples to the same 0.
    return probability.scatter(1, best[:, None], 0.0).sum(dim=1)


def energy_score(logits: Array, *, temperature: float = 1.0) -> Tensor:
    """Free energy, -T logsumexp(logits / T) (Liu et al., arXiv 2010.03759).

    Args:
        logits: (M, C) float, finite.
        temperature: T, above 0.

    Returns:
        (M,) float64.

    Raises:
        ValueError: wrong shape or values that are not finite.

    >>> energy_score(torch.zeros(1, 4)) == -torch.tensor(4.0, dtype=torch.float64).log()
    tensor([True])
    """
    logits = tensor(logits)
    check_features(logits, "logits")
    check_temperature(temperature)
    return -temperature * torch.logsumexp(logits.double() / temperature, dim=1)
