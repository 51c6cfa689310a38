"""Linear probe: the accuracy of one linear layer trained on frozen features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from rince.core.checks import require
from rince.metrics.arrays import Array, Labels, check_features, sample_labels, tensor, tensors


@dataclass(frozen=True)
class ProbeResult:
    """A trained linear probe.

    Args:
        accuracy: share of test samples classified correctly after the last epoch.
        train_accuracy: the same on the training samples.
        weight: (C, D) float64 and bias: (C,) float64, for features as they were given.
    """

    accuracy: float
    train_accuracy: float
    weight: Tensor
    bias: Tensor

    def logits(self, features: Array) -> Tensor:
        """Class scores (N, C) float64 of features (N, D), for instance of outliers."""
        features = tensor(features)
        require(
            features.ndim == 2 and features.shape[1] == self.weight.shape[1],
            f"the probe was trained on {self.weight.shape[1]} dimensions, got features of shape "
            f"{tuple(features.shape)}",
        )
        return _logits(features, self.weight, self.bias)


def linear_probe(
    test_features: Array,
    train_features: Array,
    test_labels: Labels,
    train_labels: Labels,
    *,
    num_classes: int,
    epochs: int = 100,
    batch_size: int = 512,
    lr: float = 5.0,
    milestones: tuple[float, ...] = (0.6, 0.75, 0.9),
    gamma: float = 0.2,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    seed: int = 0,
) -> ProbeResult:
    """Train one linear layer on frozen features; report the last epoch, never the best.

    The recipe is that of RINCE (arXiv 2201.11736): SGD, learning rate 5, 100 epochs, times 0.2
    after epochs 60, 75 and 90. A learning rate has a meaning only relative to the scale of the
    features, and losses differ in the scale that they leave behind. So the features are first
    standardised with the statistics of the training set and divided by sqrt(D): their mean
    squared length is 1, at which a rate of 5 is stable (the curvature of the cross-entropy is
    then at most 1/2) whatever the backbone. It is folded into the weights, which apply to the
    features as given.

    Args:
        test_features: (M, D) float. train_features: (N, D) float.
        test_labels: (M,) integers. train_labels: (N,) integers.
        num_classes: C; labels lie in [0, C).
        epochs: passes over the training set.
        batch_size: samples per step.
        lr: learning rate.
        milestones: where the rate is multiplied by ``gamma``, as fractions of the epochs.
        gamma: factor of the rate at a milestone.
        momentum, weight_decay: of SGD.
        seed: of the order of the samples; the weights start at zero.

    Returns:
        Accuracies, and the trained layer.

    Raises:
        ValueError: wrong shapes, labels out of range, values that are not finite, or the
            training diverged.

    >>> x, y = torch.tensor([[-1.0], [-2.0], [1.0], [2.0]]), torch.tensor([0, 0, 1, 1])
    >>> linear_probe(x, x, y, y, num_classes=2, epochs=5).accuracy
    1.0
    """
    test_features, train_features = tensors(test_features, train_features)
    check_features(train_features, "train features")
    check_features(test_features, "test features")
    require(
        train_features.shape[1] == test_features.shape[1],
        f"train and test features must have as many dimensions, got {train_features.shape[1]} "
        f"and {test_features.shape[1]}",
    )
    count = len(train_features)
    train_labels = sample_labels(train_labels, count, "train labels", num_classes)
    test_labels = sample_labels(test_labels, len(test_features), "test labels", num_classes)
    require(epochs >= 1, f"epochs must be at least 1, got {epochs}")
    require(batch_size >= 1, f"batch_size must be at least 1, got {batch_size}")
    device = train_features.device
    train_features, labels = train_features.detach(), train_labels.to(device)
    mean, scale = _standardisation(train_features)
    inputs = functional.pad(((train_features - mean) * scale).float(), (0, 1), value=1.0)

    # The gradient is one line, and this loop then needs neither autograd nor its overhead,
    # which is most of the time at this size. The last column of the layer is the bias.
    layer = inputs.new_zeros(num_classes, inputs.shape[1])
    velocity = torch.zeros_like(layer)
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(epochs):
        rate = lr * gamma ** sum(epoch >= round(part * epochs) for part in milestones)
        order = torch.randperm(len(inputs), generator=generator, device="cpu").to(device)
        for batch in torch.split(order, batch_size):
            x, y = inputs[batch], labels[batch, None]
            error = functional.softmax(x @ layer.T, dim=1)
            error.scatter_add_(1, y, torch.full_like(y, -1, dtype=error.dtype))
            gradient = torch.addmm(layer, error.T, x, beta=weight_decay, alpha=1 / len(x))
            velocity.mul_(momentum).add_(gradient)
            layer.sub_(velocity, alpha=rate)
    require(
        bool(torch.isfinite(layer).all()),
        f"the linear probe diverged at lr={lr}: try a lower learning rate",
    )
    weight = layer[:, :-1].double() * scale
    bias = layer[:, -1].double() - weight @ mean
    return ProbeResult(
        accuracy=_accuracy(_logits(test_features, weight, bias), test_labels),
        train_accuracy=_accuracy(_logits(train_features, weight, bias), labels),
        weight=weight,
        bias=bias,
    )


def _standardisation(features: Tensor) -> tuple[Tensor, Tensor]:
    """(D,) float64 mean, and what to multiply each centred dimension with."""
    deviation, mean = torch.std_mean(features.double(), dim=0, correction=0)
    # A dimension that (all but) never varies says nothing in training and, standardised, would
    # shout at the first test sample that moves it.
    useful = deviation > 1e-5 * deviation.max()
    scale = torch.where(useful, deviation, torch.inf).reciprocal()
    return mean, scale / features.shape[1] ** 0.5


def _logits(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return features.to(weight) @ weight.T + bias


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    return float((logits.argmax(dim=1) == labels.to(logits.device)).double().mean())
