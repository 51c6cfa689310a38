"""Out-of-distribution detection by one Gaussian per class; higher scores are more outlying."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from rince.core.checks import require
from rince.metrics.arrays import Array, Labels, sample_labels, tensor, unit_features

_BLOCK = 4096  # samples in float64 at a time


@dataclass(frozen=True)
class ClassGaussians:
    """One full-covariance Gaussian per class on L2-normalised features (as in RINCE).

    A class of 500 samples in 2048 dimensions has no invertible covariance of its own, so it is
    regularised in two steps, neither of which is tuned on outliers:

    1. The covariance pooled over classes is shrunk towards a multiple of the identity, by the
       amount of Ledoit and Wolf (2004); with many samples next to nothing.
    2. Each class is shrunk towards that pooled covariance by ``shrinkage``. The default,
       D / (D + n) for a class of n samples in D dimensions, treats the pooled covariance as D
       samples' worth of prior knowledge.

    ``shrinkage=1`` is the shared covariance of the Mahalanobis detector (Lee et al., 2018).

    All of it takes 8 D^2 bytes and, for each class of n samples, 8 D min(n, D): where there are
    fewer samples than dimensions, a class is held as its difference from the pooled covariance.

    Args:
        classes: (C,) int64, the labels that occur.
        means: (C, D) float64.
        shrinkage: (C,) float64, the weight of the pooled covariance in each class.
        pooled_factor: (D, D) float64, lower Cholesky factor of the pooled covariance.
        shapes: each class's covariance, relative to the pooled one.

    >>> features = torch.tensor([[3.0, 0.0], [4.0, 1.0], [0.0, 3.0], [1.0, 4.0]])
    >>> gaussians = ClassGaussians.fit(features, torch.tensor([0, 0, 1, 1]))
    >>> near, far = gaussians.score(torch.tensor([[4.0, 0.5], [-1.0, -1.0]]))
    >>> bool(far > near)
    True
    """

    classes: Tensor
    means: Tensor
    shrinkage: Tensor
    pooled_factor: Tensor
    shapes: tuple[ClassShape, ...]

    @classmethod
    def fit(
        cls, features: Array, labels: Labels, *, shrinkage: float | None = None
    ) -> ClassGaussians:
        """Estimate the Gaussians.

        Args:
            features: (N, D) float; normalised here.
            labels: (N,) integers from 0 on. Classes without samples are left out.
            shrinkage: weight of the pooled covariance, 0 to 1; None takes D / (D + n).

        Returns:
            The fitted detector.

        Raises:
            ValueError: wrong shapes, values that are not finite, or a covariance that is not
                positive definite.
        """
        require(
            shrinkage is None or 0 <= shrinkage <= 1,
            f"shrinkage must lie between 0 and 1, or be None, got {shrinkage}",
        )
        features = tensor(features)
        labels = sample_labels(labels, len(features), "labels")
        unit = unit_features(features, "features")
        dim = unit.shape[1]
        classes, index, count = torch.unique(
            labels.to(unit.device), return_inverse=True, return_counts=True
        )
        # In float64, but never all samples at once.
        blocks = list(zip(torch.split(unit, _BLOCK), torch.split(index, _BLOCK), strict=True))
        means = unit.new_zeros(len(classes), dim, dtype=torch.float64)
        for rows, of_class in blocks:
            means.index_add_(0, of_class, rows.double())
        means /= count[:, None]
        pooled = _ledoit_wolf(rows.double() - means[of_class] for rows, of_class in blocks)
        factor, failed = torch.linalg.cholesky_ex(pooled)
        weights = dim / (dim + count.double())
        if shrinkage is not None:
            weights.fill_(shrinkage)
        members = torch.split(index.argsort(stable=True), count.tolist())
        shapes = []
        for c, (own, weight) in enumerate(zip(members, weights.tolist(), strict=True)):
            # A class varies in no direction in which the pooled covariance does not.
            shape = None if int(failed) else _shape(unit[own].double() - means[c], weight, factor)
            if shape is None:
                other = "" if shrinkage is None else "leave shrinkage=None, or "
                raise ValueError(
                    f"the covariance of class {int(classes[c])} ({len(own)} samples in {dim} "
                    f"dimensions) is not positive definite at shrinkage {weight:.3g}: {other}give "
                    "more samples that differ within their classes"
                )
            shapes.append(shape)
        return cls(classes, means, weights, factor, tuple(shapes))

    def with_shared_covariance(self) -> ClassGaussians:
        """The Mahalanobis detector: as fitted with ``shrinkage=1``, without fitting again."""
        # Whitened by the pooled covariance, the pooled covariance is the identity.
        shape = ClassShape(self.means[:0], ball=1.0, log_volume=0.0)
        return replace(
            self, shrinkage=torch.ones_like(self.shrinkage), shapes=(shape,) * len(self.shapes)
        )

    def score(self, features: Array, *, chunk_size: int = 2048) -> Tensor:
        """Minus the highest log-likelihood among the classes: higher is more outlying.

        Args:
            features: (M, D) float; normalised here.
            chunk_size: samples at a time; changes memory and speed, not the result.

        Returns:
            (M,) float64, in nats.

        Raises:
            ValueError: wrong shapes or values that are not finite.
        """
        require(chunk_size >= 1, f"chunk_size must be at least 1, got {chunk_size}")
        features = tensor(features)
        dim = self.means.shape[1]
        unit = unit_features(features, "features").to(self.means.device)
        require(
            unit.shape[1] == dim,
            f"the Gaussians were fitted on {dim} dimensions, got features of {unit.shape[1]}",
        )
        # log of sqrt(det(2 pi pooled covariance)), from the diagonal of the factor
        pooled_volume = float(self.pooled_factor.diagonal().log().sum())
        pooled_volume += dim / 2 * math.log(2 * math.pi)
        means = _whitened(self.means, self.pooled_factor)
        scores = []
        for part in torch.split(unit, chunk_size):
            white = _whitened(part.double(), self.pooled_factor)
            best = white.new_full((len(part),), torch.inf)
            for mean, shape in zip(means, self.shapes, strict=True):
                log_volume = pooled_volume + shape.log_volume
                best = torch.minimum(best, shape.distance(white - mean) / 2 + log_volume)
            scores.append(best)
        return torch.cat(scores).to(features.device)


class ClassShape(NamedTuple):
    """A class's covariance S after whitening by the pooled one, which would be the identity."""

    rows: Tensor  # (min(n, D), D) float64; see distance()
    ball: float  # 0 where there are no fewer samples than dimensions; see distance()
    log_volume: float  # log of sqrt(det S)

    def distance(self, white: Tensor) -> Tensor:
        """x' S^-1 x = ball |x|^2 - |rows x|^2, or |rows x|^2 without a ball: (M, D) to (M,)."""
        inside = (white @ self.rows.T).square_().sum(1)
        return self.ball * white.square().sum(1) - inside if self.ball else inside


def _shape(centred: Tensor, weight: float, pooled_factor: Tensor) -> ClassShape | None:
    """Covariance of the (n, D) centred samples of a class, shrunk and whitened; None: singular.

    With B the whitened samples times sqrt((1 - w) / n) it is S = w + B'B. For n < D the matrix
    inversion lemma needs an n x n factor only, T T' = w + B B': then w S^-1 = 1 - (T^-1 B)'(T^-1 B)
    and det S = w^(D - n) det(T T').
    """
    size, dim = centred.shape
    white = _whitened(centred, pooled_factor) * math.sqrt((1 - weight) / size)
    few = size < dim
    gram = white @ white.T if few else white.T @ white
    gram.diagonal().add_(weight)
    factor, failed = torch.linalg.cholesky_ex(gram)
    # Pivots of the covariance as it was before whitening; of few samples, bounds of them.
    highest = pooled_factor.diagonal()
    lowest = highest * math.sqrt(weight)
    if not few:
        highest = lowest = highest * factor.diagonal()
    # Rounding can make a singular matrix pass as definite, with a pivot of next to 0.
    if int(failed) or not bool(lowest.min() > 1e-6 * highest.max()):
        return None
    log_volume = float(factor.diagonal().log().sum())
    if few:
        rows = torch.linalg.solve_triangular(factor, white, upper=False) / math.sqrt(weight)
        return ClassShape(rows, 1 / weight, log_volume + (dim - size) / 2 * math.log(weight))
    inverse = torch.linalg.solve_triangular(factor, torch.eye(dim).to(factor), upper=False)
    return ClassShape(inverse, 0.0, log_volume)


def _whitened(rows: Tensor, factor: Tensor) -> Tensor:
    """(N, D) times the inverse transposed of the (D, D) lower factor of their covariance."""
    white: Tensor = torch.linalg.solve_triangular(factor, rows.T, upper=False)
    return white.T


def _ledoit_wolf(blocks: Iterable[Tensor]) -> Tensor:
    """Covariance (D, D) of centred rows, shrunk towards the identity times the mean variance.

    The weight of the identity is (variance of the entries of the estimate) / (squared distance
    of the estimate from its target), at most 1 (Ledoit and Wolf, J. Multivariate Analysis 2004).
    """
    size, fourth, products = 0, 0.0, torch.zeros(())
    for rows in blocks:
        size += len(rows)
        fourth += float(rows.square().sum(1).square().sum())
        products = rows.T @ rows + products.to(rows)
    covariance = products / size
    target = torch.eye(len(covariance)).to(covariance)
    target *= covariance.diagonal().mean()
    distance = (covariance - target).square().sum()
    variance = (fourth / size - covariance.square().sum()) / size
    weight = (variance / distance).clamp(0, 1) if float(distance) > 0 else distance.new_ones(())
    return (1 - weight) * covariance + weight * target
