"""X-CLR: the softmax over keys is to be that of their known similarities."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from rince.core.checks import check_temperature, require
from rince.core.labels import numbers
from rince.core.pair_ranks import ALL, MAX_RANK, PairRanks
from rince.losses.by_query import loss_by_query, ranks_and_their_number
from rince.losses.common import Reduction, check_reduction, masked_logsumexp


def x_clr(
    query: Tensor,
    key: Tensor,
    ranks: PairRanks | Tensor,
    temperature: float = 0.1,
    *,
    target_temperature: float = 0.1,
    scores: Tensor | None = None,
    rank_scores: Sequence[float] | None = None,
    num_ranks: int | None = None,
    reduction: Reduction = "mean",
    block_size: int | None = None,
    validate: bool = True,
) -> Tensor:
    r"""Cross-entropy of the keys' softmax against one of known similarities (a graph).

    With A the candidates of query i (all keys but ignored ones) and :math:`G_{ij}` how similar i
    and j are known to be,

    .. math::
        L_i = -\sum_{j \in A} t_{ij}
            \log \frac{e^{s_{ij} / \tau}}{\sum_{k \in A} e^{s_{ik} / \tau}}, \quad
        t_{ij} = \frac{e^{G_{ij} / \tau_t}}{\sum_{k \in A} e^{G_{ik} / \tau_t}}

    Sobal et al., "X-Sample Contrastive Loss", 2024, arXiv 2407.18134. They take G from a text
    encoder; here G is given, or is a score of each rank. Negatives of score 0 keep a share of the
    target: at :math:`\tau_t = 0.1` each has e^-10 of that of a score of 1. One rank and
    :math:`\tau_t \to 0` is :func:`~rince.losses.supcon_out`.

    Args:
        query: (Q, D) unit length. key: (K, D) unit length.
        ranks: (Q, K); 1 most similar, 0 negative, -1 ignored. With scores only -1 counts.
        temperature: tau, positive. target_temperature: tau_t, positive.
        scores: (Q, K) float, G, in any unit; such as ``table[query_labels][:, key_labels]``. Of
            ignored pairs anything, also NaN.
        rank_scores: G of ranks 1, 2, ..., R; negatives have 0. None: 1, (R - 1) / R, ..., 1 / R.
        num_ranks: R; None takes the rank source's.
        reduction: as in :func:`~rince.ranked_info_nce`; a query without another candidate beside
            a positive is exactly 0 and not counted (with scores: without two candidates).
        block_size: queries at a time; None takes all up to 4 million pairs (of a GPU 64 million).
            Where there are several blocks, the backward pass computes each a second time.
        validate: also make the checks that read values.

    Returns:
        A scalar, or (Q,) with ``reduction="none"``; at least float32.

    Raises:
        ValueError: as :func:`~rince.losses.supcon_out`; scores of another shape or not finite, a
            number of ranks that is not known.

    Example:
        >>> query, key = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> loss = x_clr(query, key, torch.tensor([[1, 0]]), 1.0, num_ranks=1)
        >>> target = torch.tensor([1 / 0.1, 0.0]).softmax(dim=0)
        >>> expected = -(target * torch.tensor([1.0, 0.0]).log_softmax(dim=0)).sum()
        >>> bool(torch.isclose(loss, expected))
        True
    """
    check_reduction(reduction)
    check_temperature(temperature)
    check_temperature(target_temperature, "target_temperature")
    require(scores is None or rank_scores is None, "give scores or rank_scores, not both")
    if scores is not None:
        num_ranks = MAX_RANK
    elif rank_scores is not None:
        rank_scores = [float(score) for score in rank_scores]
        require(
            num_ranks in (None, len(rank_scores)) and all(map(math.isfinite, rank_scores)),
            f"rank_scores must be finite, one for each of num_ranks ({num_ranks}), got "
            f"{rank_scores}",
        )
        num_ranks = len(rank_scores)
    source, number = ranks_and_their_number(query, key, ranks, num_ranks, validate)
    if scores is not None:
        scores = numbers(scores, "scores")
        require(
            tuple(scores.shape) == tuple(source.shape) and scores.is_floating_point(),
            f"scores must be floats of the shape (queries, keys) = {tuple(source.shape)}, got "
            f"{tuple(scores.shape)} and {scores.dtype}",
        )
        scores = scores.to(query.device)
        if validate:
            bad = int((~scores.isfinite() & (source.tile(ALL, ALL) >= 0)).sum())
            require(bad == 0, f"{bad} scores are not finite: mark unknown pairs with rank -1")
    of_ranks = [0.0, *(rank_scores or [(number - i) / number for i in range(number)])]

    def rows_loss(
        similarity: Tensor, rank: Tensor, given: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        is_candidate = rank >= 0
        active = is_candidate.sum(dim=1) > 1
        if given is None:
            given = torch.zeros_like(similarity)
            for code, score in enumerate(of_ranks):
                given = torch.where(rank == code, score, given)
            active = active & (rank >= 1).any(dim=1)
        # Less the best of each row, before they are rounded or divided: none overflows.
        graph = given.detach().to(torch.promote_types(given.dtype, similarity.dtype))
        graph = graph.masked_fill(~is_candidate, torch.finfo(graph.dtype).min)
        graph = (graph - graph.amax(dim=1, keepdim=True)).to(similarity)
        target = (graph / target_temperature).softmax(dim=1)
        logits = similarity / temperature
        return masked_logsumexp(logits, is_candidate) - (target * logits).sum(dim=1), active

    return loss_by_query(
        rows_loss,
        query,
        key,
        source,
        *(() if scores is None else (scores,)),
        pairs_per_query=len(key),
        block_size=block_size,
        reduction=reduction,
        validate=validate,
    )
