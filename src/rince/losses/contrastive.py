"""One-rank relatives of RINCE: InfoNCE and the two supervised contrastive losses.

They differ from :func:`~rince.ranked_info_nce` with one temperature only in the denominator:
here it holds every candidate, the other positives too; in RINCE's "out" form the other positives
step aside, and its "in" form does not divide by the number of positives. With exactly one
positive per query all of them are InfoNCE.

Large batches go a block of queries at a time, in the loop that RINCE takes, so that memory grows
with the batch and not with its square.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rince.core.checks import check_temperature, require
from rince.core.pair_ranks import ALL, IdentityRanks, PairRanks, may_read
from rince.losses.blockwise.engine import blockwise_loss
from rince.losses.blockwise.sizes import Sizes, sizes_for
from rince.losses.common import (
    ENGINES,
    REDUCTIONS,
    Engine,
    Reduction,
    check_block_size,
    check_embeddings,
    check_words,
    checked_ranks,
    dtype_of_sums,
    masked_logsumexp,
    mean_over_mask,
    reduce_over_queries,
    similarities,
    tiles,
    warn_if_nothing_to_learn,
)
from rince.losses.options import MatmulPrecision
from rince.losses.products import check_precision


def info_nce(
    query: Tensor,
    key: Tensor,
    ranks: PairRanks | Tensor | None = None,
    temperature: float = 0.1,
    *,
    reduction: Reduction = "mean",
    engine: Engine = "auto",
    block_size: int | None = None,
    matmul_precision: MatmulPrecision = "fp32",
    validate: bool = True,
) -> Tensor:
    r"""InfoNCE: :math:`-\log e^{s_p/\tau} / \sum_{k} e^{s_k/\tau}`, one positive per query.

    van den Oord et al. 2018 (arXiv 1807.03748), equation 4; with keys from a momentum encoder
    and a queue it is MoCo's loss, with both views of a batch SimCLR's (NT-Xent).

    Args:
        query: (Q, D) unit length. key: (K, D) unit length.
        ranks: (Q, K); rank 1 marks the positive, -1 pairs to ignore. None: key i is the positive
            of query i, further keys are negatives.
        temperature: positive.
        reduction, engine, block_size, matmul_precision, validate: as in
            :func:`~rince.ranked_info_nce`; "auto" takes blocks from 2,048 x 2,048 pairs on.

    Returns:
        A scalar, or (Q,) with ``reduction="none"``.

    Raises:
        ValueError: as :func:`~rince.ranked_info_nce`; also a query with two positives.

    Example:
        >>> import torch, rince
        >>> z = torch.eye(3)
        >>> loss = rince.losses.info_nce(z, z, temperature=1.0)
        >>> expected = -torch.log(torch.e / (torch.exp(torch.tensor(1.0)) + 2))
        >>> bool(torch.isclose(loss, expected))
        True
    """
    if ranks is None:
        check_embeddings(query, key)
        require(
            key.shape[0] >= query.shape[0],
            f"without ranks key i is the positive of query i, but there are {query.shape[0]} "
            f"queries and only {key.shape[0]} keys",
        )
        ranks = IdentityRanks(
            torch.arange(query.shape[0], device=query.device),
            torch.arange(key.shape[0], device=key.device),
        )
    return one_rank_loss(
        query,
        key,
        ranks,
        temperature,
        "supcon-out",
        reduction=reduction,
        engine=engine,
        block_size=block_size,
        matmul_precision=matmul_precision,
        validate=validate,
        most_positives=1,
    )


def supcon_out(
    query: Tensor,
    key: Tensor,
    ranks: PairRanks | Tensor,
    temperature: float = 0.1,
    *,
    reduction: Reduction = "mean",
    engine: Engine = "auto",
    block_size: int | None = None,
    matmul_precision: MatmulPrecision = "fp32",
    validate: bool = True,
) -> Tensor:
    r"""SupCon, sum outside the log: :math:`-\frac{1}{|P|}\sum_{p \in P} \log \frac{e^{s_p/\tau}}
    {\sum_{a \in A} e^{s_a/\tau}}`, where A holds every candidate, all positives included.

    Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, equation 2; the usual SupCon.

    Args:
        query: (Q, D) unit length. key: (K, D) unit length.
        ranks: (Q, K); 1 positive, 0 negative, -1 ignored; no other rank.
        temperature: positive.
        reduction, engine, block_size, matmul_precision, validate: as in
            :func:`~rince.ranked_info_nce`; "auto" takes blocks from 2,048 x 2,048 pairs on.

    Returns:
        A scalar, or (Q,) with ``reduction="none"``.

    Raises:
        ValueError: as :func:`~rince.ranked_info_nce`; also ranks beyond 1.
    """
    return one_rank_loss(
        query,
        key,
        ranks,
        temperature,
        "supcon-out",
        reduction=reduction,
        engine=engine,
        block_size=block_size,
        matmul_precision=matmul_precision,
        validate=validate,
    )


def supcon_in(
    query: Tensor,
    key: Tensor,
    ranks: PairRanks | Tensor,
    temperature: float = 0.1,
    *,
    reduction: Reduction = "mean",
    engine: Engine = "auto",
    block_size: int | None = None,
    matmul_precision: MatmulPrecision = "fp32",
    validate: bool = True,
) -> Tensor:
    r"""SupCon, sum inside the log: :math:`-\log \frac{1}{|P|} \sum_{p \in P} \frac{e^{s_p/\tau}}
    {\sum_{a \in A} e^{s_a/\tau}}`, where A holds every candidate, all positives included.

    Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, equation 3. Its gradient is
    that of :func:`~rince.ranked_info_nce` with one rank and "in"; the value differs by log |P|.

    Takes, returns and raises the same as :func:`supcon_out`.
    """
    return one_rank_loss(
        query,
        key,
        ranks,
        temperature,
        "supcon-in",
        reduction=reduction,
        engine=engine,
        block_size=block_size,
        matmul_precision=matmul_precision,
        validate=validate,
    )


def _against_all(logits: Tensor, rank: Tensor) -> Tensor:
    return masked_logsumexp(logits, rank >= 0) - mean_over_mask(logits, rank == 1)


def _sum_against_all(logits: Tensor, rank: Tensor) -> Tensor:
    is_positive = rank == 1
    log_count = is_positive.sum(dim=1).clamp(min=1).to(logits.dtype).log()  # (Q,)
    return masked_logsumexp(logits, rank >= 0) - masked_logsumexp(logits, is_positive) + log_count


def is_active(rank: Tensor) -> Tensor:
    """(Q,) of ranks (Q, K): has a positive, and another candidate that it is compared with."""
    return (rank == 1).any(dim=1) & ((rank >= 0).sum(dim=1) > 1)


# The definitions, by the name that the block loop knows them by.
_DEFINITIONS = {"supcon-in": _sum_against_all, "supcon-out": _against_all}


def one_rank_loss(
    query: Tensor,
    key: Tensor,
    ranks: PairRanks | Tensor,
    temperature: float,
    form: Literal["supcon-in", "supcon-out"],
    *,
    reduction: Reduction,
    engine: Engine = "auto",
    block_size: int | None = None,
    matmul_precision: MatmulPrecision = "fp32",
    validate: bool,
    most_positives: int | None = None,
    sizes: Sizes | None = None,
) -> Tensor:
    """What the three have in common.

    Args:
        most_positives: per query; None: any number.
        sizes: of blocks; None takes those that suit the device.
    """
    check_temperature(temperature)
    check_words(reduction=(reduction, REDUCTIONS), engine=(engine, ENGINES))
    check_block_size(block_size)
    source = checked_ranks(query, key, ranks, validate)
    check_precision(matmul_precision, dtype_of_sums(query, key))
    sizes = (sizes or sizes_for(query.device)).with_block(block_size)
    if validate:
        _check_ranks(source, most_positives, sizes.pairs_of_a_check)
    if engine == "auto":
        few = query.shape[0] * key.shape[0] < sizes.dense_pairs_of_one_rank
        engine = "dense" if few else "streamed"
    if engine == "streamed":
        loss, terms = blockwise_loss(
            query,
            key,
            source,
            [temperature],
            (form,),
            reduction=reduction,
            sizes=sizes,
            precision=matmul_precision,
            may_read=may_read(query, validate),
        )
        active = terms.active[0]
    else:
        rank = source.tile(ALL, ALL)  # (Q, K)
        logits = similarities(query, key, matmul_precision) / temperature
        losses = _DEFINITIONS[form](logits, rank)
        active = is_active(rank)
        loss = reduce_over_queries(torch.where(active, losses, 0), active, reduction)
    if validate:
        warn_if_nothing_to_learn(source, active, sizes.pairs_of_a_check)
    return loss


def _check_ranks(source: PairRanks, most_positives: int | None, pairs_at_once: int) -> None:
    for tile in tiles(source, pairs_at_once):
        highest = int(tile.max())
        require(
            highest <= 1,
            f"this loss knows one rank, but a pair has rank {highest}: use ranked_info_nce, or "
            f"flatten the ranks (Taxonomy.flat_table)",
        )
        if most_positives is not None:
            most = int((tile == 1).sum(dim=1).max())
            require(
                most <= most_positives,
                f"InfoNCE takes one positive per query, but a query has {most}: use supcon_in, "
                f"supcon_out or ranked_info_nce, or ignore the others with rank -1",
            )
