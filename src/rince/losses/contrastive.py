"""One-rank relatives of RINCE: InfoNCE and the two supervised contrastive losses.

They differ from :func:`~rince.ranked_info_nce` with one temperature only in the denominator:
here it holds every candidate, the other positives too; in RINCE's "out" form the other positives
step aside, and its "in" form does not divide by the number of positives. With exactly one
positive a query all of them are InfoNCE.

Large batches go a block of queries at a time, computed again in the backward pass, so that memory
grows with the batch and not with its square.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rince.core.checks import require
from rince.core.pair_ranks import ALL, IdentityRanks, PairRanks, as_pair_ranks
from rince.losses.common import (
    Reduction,
    check_inputs,
    check_temperature,
    masked_logsumexp,
    mean_over_mask,
    reduce_over_queries,
    similarities,
    warn_if_nothing_to_learn,
)

PAIRS_AT_ONCE = 2**22
PAIRS_OF_A_BLOCK = 2**20

LossOfBlock = Callable[[Tensor, Tensor], Tensor]
"""Logits and ranks, both (B, K) -> the loss of each query, (B,)."""


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
    return _loss(
        query, key, ranks, temperature, _against_all, reduction, validate, most_positives=1
    )


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
    return _loss(query, key, ranks, temperature, _against_all, reduction, validate)


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
    return _loss(query, key, ranks, temperature, _sum_against_all, reduction, validate)


def _against_all(logits: Tensor, rank: Tensor) -> Tensor:
    return masked_logsumexp(logits, rank >= 0) - mean_over_mask(logits, rank == 1)


def _sum_against_all(logits: Tensor, rank: Tensor) -> Tensor:
    is_positive = rank == 1
    log_count = is_positive.sum(dim=1).clamp(min=1).to(logits.dtype).log()  # (B,)
    return masked_logsumexp(logits, rank >= 0) - masked_logsumexp(logits, is_positive) + log_count


def _loss(
    query: Tensor,
    key: Tensor,
    ranks: PairRanks | Tensor,
    temperature: float,
    of_block: LossOfBlock,
    reduction: Reduction,
    validate: bool,
    most_positives: int | None = None,
) -> Tensor:
    check_temperature(temperature)
    source = as_pair_ranks(ranks)
    check_inputs(query, key, source, validate)
    num_queries, num_keys = source.shape
    whole = num_queries * num_keys <= PAIRS_AT_ONCE
    size = num_queries if whole else max(1, PAIRS_OF_A_BLOCK // num_keys)
    losses, active = [], []
    for start in range(0, num_queries, size):
        rows = slice(start, min(start + size, num_queries))
        rank = source.tile(rows, ALL).to(query.device)
        if validate:
            highest = int(rank.max())
            require(
                highest <= 1,
                f"this loss knows one rank, but a pair has rank {highest}: use ranked_info_nce, or "
                f"flatten the ranks (Taxonomy.flat_table)",
            )
        num_positives = (rank == 1).sum(dim=1)
        if validate and most_positives is not None:
            most = int(num_positives.max())
            require(
                most <= most_positives,
                f"InfoNCE takes one positive a query, but a query has {most}: use supcon_in, "
                f"supcon_out or ranked_info_nce, or ignore the others with rank -1",
            )
        # A positive with no other candidate beside it has nothing to be compared with.
        active.append((num_positives > 0) & ((rank >= 0).sum(dim=1) > 1))
        if whole:
            losses.append(of_block(_logits(query, key, temperature), rank))
        else:
            losses.append(
                checkpoint(
                    _block_again,
                    query[rows],
                    key,
                    source,
                    rows,
                    temperature,
                    of_block,
                    use_reentrant=False,
                    preserve_rng_state=False,  # there is nothing random in it
                )
            )
    learns = torch.cat(active)  # (Q,)
    if validate:
        warn_if_nothing_to_learn(source, learns)
    return reduce_over_queries(torch.where(learns, torch.cat(losses), 0), learns, reduction)


def _block_again(
    query: Tensor,
    key: Tensor,
    source: PairRanks,
    rows: slice,
    temperature: float,
    of_block: LossOfBlock,
) -> Tensor:
    """The losses of a block, from what is held anyway: its ranks are made anew, too."""
    rank = source.tile(rows, ALL).to(query.device)
    return of_block(_logits(query, key, temperature), rank)


def _logits(query: Tensor, key: Tensor, temperature: float) -> Tensor:
    return similarities(query, key) / temperature
