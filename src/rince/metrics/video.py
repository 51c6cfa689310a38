"""Accuracy of videos from the logits of their clips."""

from __future__ import annotations

import torch

from rince.metrics.arrays import Array, Labels, check_features, sample_labels, tensor


def video_accuracy(logits: Array, labels: Labels, videos: Labels) -> float:
    """Accuracy over videos: the probabilities of a video's clips are averaged.

    Args:
        logits: (N, C) float, finite. labels: (N,) integers. videos: (N,) integers; clips of one
            video but of two labels count as two videos.

    Returns:
        In [0, 1].

    Raises:
        ValueError: wrong shapes, no clip, or values that are not finite.

    Example:
        >>> logits = torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
        >>> video_accuracy(logits, torch.tensor([0, 0, 0]), torch.tensor([7, 7, 8]))
        0.5
    """
    logits = tensor(logits)
    check_features(logits, "logits")
    labels = sample_labels(labels, len(logits), "labels", logits.shape[1])
    videos = sample_labels(videos, len(logits), "videos")
    pairs = torch.stack([videos.cpu(), labels.cpu()], dim=1)
    groups, number = torch.unique(pairs, dim=0, return_inverse=True)
    total = groups.new_zeros(len(groups), logits.shape[1], dtype=torch.float64)
    total.index_add_(0, number, logits.double().softmax(dim=1).cpu())
    return float((total.argmax(dim=1) == groups[:, 1]).double().mean())
