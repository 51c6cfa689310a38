"""Average precision with sigmoids in place of steps: Smooth-AP, and of ranks H-AP."""

from __future__ import annotations

import torch
from torch import Tensor

from rince.core.checks import check_temperature, require
from rince.core.pair_ranks import PairRanks, may_read
from rince.losses.by_query import loss_by_query, ranks_and_their_number
from rince.losses.common import Reduction, check_reduction


def smooth_ap(
    query: Tensor,
    key: Tensor,
    ranks: PairRanks | Tensor,
    temperature: float = 0.01,
    *,
    alpha: float = 1.0,
    num_ranks: int | None = None,
    reduction: Reduction = "mean",
    block_size: int | None = None,
    validate: bool = True,
) -> Tensor:
    r"""1 minus a smooth average precision; with several ranks, of hierarchical average precision.

    With P the keys of rank 1 to R, A all candidates, the sigmoid
    :math:`G(x) = 1 / (1 + e^{-x / \tau})` and the relevance
    :math:`rel(k) = ((R + 1 - rank(k)) / R)^\alpha` of a key, 0 of negatives,

    .. math::
        L_q = 1 - \frac{1}{\sum_{k \in P} rel(k)} \sum_{k \in P} \frac
            {rel(k) + \sum_{j \in P, j \ne k} \min(rel(j), rel(k)) \, G(s_j - s_k)}
            {1 + \sum_{j \in A, j \ne k} G(s_j - s_k)}

    With one rank it is Smooth-AP: Brown, Xie, Kalogeiton, Zisserman, "Smooth-AP: Smoothing the
    Path Towards Large-Scale Image Retrieval", ECCV 2020, arXiv 2007.12163. With more it
    is H-AP, which HAPPIER trains on (Ramzi et al., ECCV 2022, arXiv 2207.04873, equations 2 to 4;
    :func:`rince.metrics.hierarchical_retrieval` has the same relevance), smoothed as Smooth-AP
    smooths AP. HAPPIER itself puts other bounds in place of the steps and adds a clustering loss on
    learned class proxies; neither is here.

    Args:
        query: (Q, D) unit length. key: (K, D) unit length.
        ranks: (Q, K); 1 most similar, 0 negative, -1 ignored.
        temperature: tau, positive; 0.01 in both papers.
        alpha: of the relevance, positive.
        num_ranks: R; None takes the rank source's.
        reduction: as in :func:`~rince.ranked_info_nce`; a query whose candidates are all of one
            relevance, or without a positive, is exactly 0 and not counted.
        block_size: queries at a time; None takes as many as hold 4 million triples (query, key,
            key), on a GPU 64 million. Of several blocks the backward pass computes each a second
            time.
        validate: also make the checks that read values.

    Returns:
        A scalar in [0, 1], or (Q,) with ``reduction="none"``; at least float32.

    Raises:
        ValueError: as :func:`~rince.losses.supcon_out`; a number of ranks that is not known.

    Example:
        >>> query = torch.tensor([[1.0, 0.0]])
        >>> key = torch.nn.functional.normalize(torch.tensor([[3.0, 1.0], [2.0, 1.0], [1.0, 1.0]]))
        >>> loss = smooth_ap(query, key, torch.tensor([[0, 1, 1]]), num_ranks=1)
        >>> round(1 - float(loss), 2)  # places 2 and 3: (1 / 2 + 2 / 3) / 2
        0.58
    """
    check_reduction(reduction)
    check_temperature(temperature)
    require(alpha > 0, f"alpha must be positive, got {alpha}")
    source, number = ranks_and_their_number(query, key, ranks, num_ranks, validate)
    reads = may_read(query, validate)

    def rows_loss(similarity: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
        is_candidate, is_positive = rank >= 0, rank >= 1
        relevance = ((number + 1 - rank.to(similarity.dtype)) / number) ** alpha
        relevance = torch.where(is_positive, relevance, 0)
        highest = relevance.amax(dim=1, keepdim=True)
        active = ((relevance < highest) & is_candidate).any(dim=1)
        pair = torch.arange(is_positive.numel(), device=rank.device)
        if reads:
            pair = pair[is_positive.flatten()]
        rows = pair // rank.shape[1]  # (M,) of each positive
        own, own_relevance = similarity.flatten()[pair, None], relevance.flatten()[pair, None]
        above = torch.sigmoid((similarity[rows] - own) / temperature)  # (M, K)
        columns = torch.arange(rank.shape[1], device=rank.device)
        others = is_candidate[rows] & (columns != (pair % rank.shape[1])[:, None])
        above = torch.where(others, above, 0)
        met = own_relevance[:, 0] + (above * relevance[rows].minimum(own_relevance)).sum(dim=1)
        precision = met / (1 + above.sum(dim=1))  # 0 of what is no positive
        total = torch.zeros_like(similarity[:, 0]).index_add(0, rows, precision)
        best = relevance.sum(dim=1)
        return 1 - total / torch.where(best > 0, best, 1), active

    return loss_by_query(
        rows_loss,
        query,
        key,
        source,
        pairs_per_query=len(key) ** 2,
        block_size=block_size,
        reduction=reduction,
        validate=validate,
    )
