"""Baselines from pytorch-metric-learning (the extra ``metric-learning``), fed with ranks."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from rince.core.checks import import_extra, require
from rince.core.labels import integers, require_no_unknown
from rince.core.pair_ranks import ALL, PairRanks
from rince.losses.by_query import ranks_and_their_number
from rince.losses.common import check_embeddings, check_finite, dtype_of_sums

EXTRA = "metric-learning"


def hierarchical_triplet(
    query: Tensor,
    key: Tensor,
    ranks: PairRanks | Tensor,
    margin: float = 0.2,
    *,
    num_ranks: int | None = None,
    generator: torch.Generator | None = None,
    validate: bool = True,
) -> Tensor:
    r"""Triplet loss whose margin grows with the distance of the ranks.

    For a key p of rank i and a key n of a worse rank j (negatives count as rank R + 1),
    :math:`\max(0, |q - p|^2 - |q - n|^2 + (j - i)\, m)`. With m = 0.2 and one rank it is the loss
    of Schroff et al., "FaceNet", CVPR 2015, equation 3; margins that add up over the steps between
    ranks follow Zhang et al., "Embedding Label Structures for Fine-Grained Feature
    Representation", CVPR 2016, equation 4.

    Every positive pair meets one key of each worse rank, drawn anew each call: all triplets would
    be Q x K x K. The loss is TripletMarginLoss of pytorch-metric-learning, called once per margin
    and averaged over the triplets that violate theirs, over all margins together.

    Args:
        query: (Q, D) unit length. key: (K, D) unit length.
        ranks: (Q, K); 1 most similar, 0 negative, -1 ignored.
        margin: m, positive, of one step between ranks, on squared Euclidean distances (0 to 4).
        num_ranks: R; None takes the rank source's.
        generator: of the draws; None takes torch's global one.
        validate: also make the checks that read values.

    Returns:
        A scalar; 0, with a graph, where no triplet violates its margin.

    Raises:
        ImportError: pytorch-metric-learning is not installed.
        ValueError: a margin that is not positive, a number of ranks that is not known, or input
            as in :func:`~rince.losses.supcon_out`.
    """
    losses: Any = import_extra("pytorch_metric_learning.losses", EXTRA)
    distances: Any = import_extra("pytorch_metric_learning.distances", EXTRA)
    reducers: Any = import_extra("pytorch_metric_learning.reducers", EXTRA)
    require(margin > 0 and math.isfinite(margin), f"margin must be a positive number, got {margin}")
    source, highest = ranks_and_their_number(query, key, ranks, num_ranks, validate)
    rank = source.tile(ALL, ALL).long()
    level = torch.where(rank == 0, highest + 1, rank)  # (Q, K): higher is less similar, -1 ignored
    with torch.autocast(query.device.type, enabled=False):
        dtype = dtype_of_sums(query, key)
        query, key = query.to(dtype), key.to(dtype)
        total = (query.sum() + key.sum()) * 0.0
        violated = query.new_zeros((), dtype=torch.int64)
        for step in range(1, highest + 1):
            triplets = _triplets(level, step, highest, generator)
            loss = losses.TripletMarginLoss(
                margin=step * margin,
                distance=distances.LpDistance(power=2, normalize_embeddings=False),
                reducer=reducers.DoNothingReducer(),
            )
            per_triplet = loss(query, indices_tuple=triplets, ref_emb=key)["loss"]["losses"]
            if isinstance(per_triplet, Tensor):  # 0 where there are no triplets
                total, violated = total + per_triplet.sum(), violated + (per_triplet > 0).sum()
    return total / violated.clamp(min=1)


def fast_ap(embeddings: Tensor, labels: Tensor) -> Tensor:
    """FastAP of a batch against itself: 1 minus a soft average precision, averaged over queries.

    Cakir, He, Xia, Kulis, Sclaroff, "Deep Metric Learning to Rank", CVPR 2019; FastAPLoss of
    pytorch-metric-learning, with its 10 bins. It knows one rank: same label or not.

    Args:
        embeddings: (B, D) float, unit length. labels: (B,) integers from 0 on.

    Returns:
        A scalar.

    Raises:
        ValueError: labels that are no integers or negative, embeddings that are not finite.
        ImportError: pytorch-metric-learning is not installed.
    """
    losses: Any = import_extra("pytorch_metric_learning.losses", EXTRA)
    check_embeddings(embeddings, embeddings)
    check_finite("embeddings", embeddings)
    labels = integers(labels)
    require_no_unknown(labels)
    with torch.autocast(embeddings.device.type, enabled=False):
        loss: Tensor = losses.FastAPLoss()(
            embeddings.to(dtype_of_sums(embeddings, embeddings)), labels
        )
    return loss


def _triplets(
    level: Tensor, step: int, highest: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor, Tensor]:
    """(T,) each: query, positive, and a key ``step`` levels less similar, one for each pair."""
    triplets = []
    for better in range(1, highest + 2 - step):
        is_worse = level == better + step  # (Q, K)
        count = is_worse.sum(dim=1)
        pairs = (level == better) & (count > 0)[:, None]
        anchor, positive = pairs.nonzero(as_tuple=True)
        # The worse keys of each query first, so that the i-th of them is a look-up.
        order = is_worse.to(torch.int8).argsort(dim=1, descending=True, stable=True)
        device = None if generator is None else generator.device
        draw = torch.rand(len(anchor), generator=generator, dtype=torch.float32, device=device).to(
            level.device
        )
        # A draw is at most 1 - 2**-24: no product is rounded up to the count itself.
        place = (draw * count[anchor]).long()
        triplets.append((anchor, positive, order[anchor, place]))
    a, p, n = (torch.cat(parts) for parts in zip(*triplets, strict=True))
    return a, p, n
