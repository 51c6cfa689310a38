"""One-rank relatives of RINCE: InfoNCE and the two supervised contrastive losses.

They differ from :func:`~rince.ranked_info_nce` with one temperature only in the denominator:
here it holds every candidate, the other positives too; in RINCE's "out" form the other positives
step aside, and its "in" form does not divide by the number of positives. With exactly one
positive a query all of them are InfoNCE.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rince.core.checks import require
from rince.core.pair_ranks import ALL, DenseRanks, IdentityRanks, PairRanks, as_pair_ranks
from rince.losses.masked import (
    Reduction,
    check_inputs,
    masked_logsumexp,
    mean_over_mask,
    reduce_over_queries,
    similarities,
    warn_if_nothing_to_learn,
)


def info_nce(
    query: Tensor,
    key: Tensor,
    ranks: PairRanks | Tensor | None = None,
    temperature: float = 0.1,
    *,
    reduction: Reduction = "mean",
    validate: bool = True,
) -> Tensor:
    r"""InfoNCE: :math:`-\log e^{s_p/\tau} / \sum_{k} e^{s_k/\tau}`, one positive a query.

    van den Oord et al. 2018 (arXiv 1807.03748), equation 4; with keys from a momentum encoder
    and a queue it is MoCo's loss, with both views of a batch SimCLR's (NT-Xent).

    Args:
        query: (Q, D) unit length. key: (K, D) unit length.
        ranks: (Q, K); rank 1 marks the positive, -1 pairs to ignore. None: key i is the positive
            of query i, further keys are negatives.
        temperature: positive.
        reduction: as in :func:`~rince.ranked_info_nce`.
        validate: also make the checks that read values.

    Returns:
        A scalar, or (Q,) with ``reduction="none"``.

    Raises:
        ValueError: as :func:`~rince.ranked_info_nce`; also a query with two positives.

    Example:
        >>> import torch, rince
        >>> z = torch.eye(3)
        >>> loss = rince.info_nce(z, z, temperature=1.0)
        >>> expected = -torch.log(torch.e / (torch.exp(torch.tensor(1.0)) + 2))
        >>> bool(torch.isclose(loss, expected))
        True
    """
    if ranks is None:
        require(
            key.shape[0] >= query.shape[0],
            f"without ranks key i is the positive of query i, but there are {query.shape[0]} "
            f"queries and only {key.shape[0]} keys",
        )
        ranks = IdentityRanks(
            torch.arange(query.shape[0], device=query.device),
            torch.arange(key.shape[0], device=key.device),
        )
    logits, rank = _logits_and_ranks(query, key, ranks, temperature, validate)
    is_positive = rank == 1
    if validate:
        most = int(is_positive.sum(dim=1).max())
        require(
            most <= 1,
            f"InfoNCE takes one positive a query, but a query has {most}: use supcon_in, "
            f"supcon_out or ranked_info_nce, or ignore the others with rank -1",
        )
    per_query = masked_logsumexp(logits, rank >= 0) - mean_over_mask(logits, is_positive)
    return _finish(per_query, rank, reduction, validate)


def supcon_out(
    query: Tensor,
    key: Tensor,
    ranks: PairRanks | Tensor,
    temperature: float = 0.1,
    *,
    reduction: Reduction = "mean",
    validate: bool = True,
) -> Tensor:
    r"""SupCon, sum outside the log: :math:`-\frac{1}{|P|}\sum_{p \in P} \log \frac{e^{s_p/\tau}}
    {\sum_{a \in A} e^{s_a/\tau}}`, where A holds every candidate, all positives included.

    Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, equation 2; the usual SupCon.

    Args:
        query: (Q, D) unit length. key: (K, D) unit length.
        ranks: (Q, K); 1 positive, 0 negative, -1 ignored; no other rank.
        temperature: positive.
        reduction: as in :func:`~rince.ranked_info_nce`.
        validate: also make the checks that read values.

    Returns:
        A scalar, or (Q,) with ``reduction="none"``.

    Raises:
        ValueError: as :func:`~rince.ranked_info_nce`; also ranks beyond 1.
    """
    logits, rank = _logits_and_ranks(query, key, ranks, temperature, validate)
    per_query = masked_logsumexp(logits, rank >= 0) - mean_over_mask(logits, rank == 1)
    return _finish(per_query, rank, reduction, validate)


def supcon_in(
    query: Tensor,
    key: Tensor,
    ranks: PairRanks | Tensor,
    temperature: float = 0.1,
    *,
    reduction: Reduction = "mean",
    validate: bool = True,
) -> Tensor:
    r"""SupCon, sum inside the log: :math:`-\log \frac{1}{|P|} \sum_{p \in P} \frac{e^{s_p/\tau}}
    {\sum_{a \in A} e^{s_a/\tau}}`, where A holds every candidate, all positives included.

    Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, equation 3. Its gradient is
    that of :func:`~rince.ranked_info_nce` with one rank and "in"; the value differs by log |P|.

    Takes, returns and raises the same as :func:`supcon_out`.
    """
    logits, rank = _logits_and_ranks(query, key, ranks, temperature, validate)
    is_positive = rank == 1
    log_count = is_positive.sum(dim=1).clamp(min=1).to(logits.dtype).log()  # (Q,)
    per_query = (
        masked_logsumexp(logits, rank >= 0) - masked_logsumexp(logits, is_positive) + log_count
    )
    return _finish(per_query, rank, reduction, validate)


def _logits_and_ranks(
    query: Tensor, key: Tensor, ranks: PairRanks | Tensor, temperature: float, validate: bool
) -> tuple[Tensor, Tensor]:
    require(
        temperature > 0 and math.isfinite(temperature),
        f"temperature must be a positive number, got {temperature}",
    )
    source = as_pair_ranks(ranks)
    check_inputs(query, key, source, validate)
    rank = source.tile(ALL, ALL).to(query.device)
    if validate:
        highest = int(rank.max())
        require(
            highest <= 1,
            f"this loss knows one rank, but a pair has rank {highest}: use ranked_info_nce, or "
            f"flatten the ranks (Taxonomy.flat_table)",
        )
    return similarities(query, key) / temperature, rank


def _finish(per_query: Tensor, rank: Tensor, reduction: Reduction, validate: bool) -> Tensor:
    # A positive with no other candidate beside it has nothing to be compared with.
    active = (rank == 1).any(dim=1) & ((rank >= 0).sum(dim=1) > 1)  # (Q,)
    if validate:
        warn_if_nothing_to_learn(DenseRanks(rank), active)
    return reduce_over_queries(torch.where(active, per_query, 0), active, reduction)
