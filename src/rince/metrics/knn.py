"""k nearest neighbours: the accuracy of a vote among the most similar gallery items."""

from __future__ import annotations

import torch
from torch import Tensor

from rince.core.checks import check_temperature, require
from rince.metrics.arrays import (
    Array,
    Labels,
    check_features,
    cosine_chunks,
    sample_labels,
    self_excluded,
    tensors,
)


def knn_accuracy(
    query_features: Array,
    gallery_features: Array,
    query_labels: Labels,
    gallery_labels: Labels,
    *,
    k: int = 20,
    temperature: float | None = None,
    num_classes: int | None = None,
    exclude_self: bool | None = None,
    chunk_size: int = 256,
) -> float:
    """Share of queries whose class wins the vote of their k nearest gallery items (by cosine).

    A neighbour of similarity s has one vote, or exp(s / temperature) votes if a temperature is
    given (Wu et al., arXiv 1805.01978, use 0.07). Items that tie for the last places share them,
    so the order of the gallery plays no part; classes that tie go to the lower number.

    Args:
        query_features: (Q, D) float. gallery_features: (G, D) float.
        query_labels: (Q,) integers. gallery_labels: (G,) integers.
        k: neighbours that vote, 1 to G; to G - 1 with ``exclude_self``.
        temperature: above 0; None counts all neighbours alike.
        num_classes: labels lie in [0, num_classes); None: labels are ids of any size from 0 on.
        exclude_self: True: the first Q gallery items are the queries themselves; a query then
            does not find itself. None: False, with a warning where that is so (they share their
            memory).
        chunk_size: queries at a time; changes memory and speed, not the result.

    Returns:
        Accuracy in [0, 1].

    Raises:
        ValueError: wrong shapes, values that are not finite, or an option out of its range.

    >>> gallery = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    >>> knn_accuracy(torch.eye(2), gallery, torch.tensor([0, 1]), torch.tensor([0, 0, 1]), k=1)
    1.0
    """
    query_features, gallery_features = tensors(query_features, gallery_features)
    check_features(query_features, "query features")
    exclude_self = self_excluded(exclude_self, query_features, gallery_features)
    num_items = len(gallery_features)
    most = num_items - exclude_self
    others = "other items" if exclude_self else "items"
    require(1 <= k <= most, f"k must lie between 1 and the gallery's {most} {others}, got {k}")
    if temperature is not None:
        check_temperature(temperature)
    query_labels = sample_labels(query_labels, len(query_features), "query labels", num_classes)
    gallery_labels = sample_labels(gallery_labels, num_items, "gallery labels", num_classes)
    device = query_features.device
    # A column of votes for each class that occurs, whatever its number is.
    both = torch.cat([query_labels.cpu(), gallery_labels.cpu()])
    classes, both = torch.unique(both, return_inverse=True)
    num_classes, query_labels = len(classes), both[: len(query_features)]
    gallery_labels = both[len(query_features) :]
    gallery_labels = gallery_labels.to(device)
    correct = 0
    for rows, similarity in cosine_chunks(
        query_features, gallery_features, chunk_size, exclude_self
    ):
        votes = _votes(similarity, gallery_labels, k, temperature, num_classes)
        # Rounded, so that equal votes added up in another order still tie.
        winner = votes.round(decimals=9).argmax(dim=1)
        correct += int((winner == query_labels[rows].to(device)).sum())
    return correct / len(query_features)


def _votes(
    similarity: Tensor, labels: Tensor, k: int, temperature: float | None, num_classes: int
) -> Tensor:
    """(rows, C) float64 votes of the k most similar items of each row."""
    nearest = similarity.topk(min(k + 1, similarity.shape[1]), dim=1)
    values, items = nearest.values[:, :k].double(), nearest.indices[:, :k]
    votes = values.new_zeros(len(values), num_classes)
    votes.scatter_add_(1, labels[items], _weights(values, values[:, :1], temperature))
    # Rare: more items tie for the last places than there are places. They share them.
    last = nearest.values[:, k - 1]
    (tied,) = torch.where(nearest.values[:, -1] == last)  # all rows, where all items vote
    if len(tied):
        rows, last = similarity[tied], last[tied, None]
        at_last = rows == last
        above = rows > last
        # In float64: thirds of a vote in float32 would no longer add up to a tie with a whole one.
        places = (k - above.sum(dim=1, keepdim=True)).double()
        share = places / at_last.sum(dim=1, keepdim=True)
        weights = _weights(rows.double(), values[tied, :1], temperature)
        weights *= above + at_last * share
        votes[tied] = torch.zeros_like(votes[tied]).index_add_(1, labels, weights)
    return votes


def _weights(values: Tensor, best: Tensor, temperature: float | None) -> Tensor:
    if temperature is None:
        return torch.ones_like(values)
    return ((values - best) / temperature).exp()  # shifted by the best, so it cannot overflow
