"""Losses of a query against all keys, a block of queries at a time, and their common arguments."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rince.core.checks import require
from rince.core.pair_ranks import ALL, PairRanks
from rince.losses.blockwise.sizes import sizes_for
from rince.losses.common import (
    Reduction,
    check_block_size,
    checked_ranks,
    highest_rank,
    reduce_over_queries,
    similarities,
    warn_if_nothing_to_learn,
)

# (B, K) similarities, (B, K) ranks, (B, ...) more of these queries: (B,) losses, (B,) active.
Rows = Callable[..., tuple[Tensor, Tensor]]


def ranks_and_their_number(
    query: Tensor,
    key: Tensor,
    ranks: PairRanks | Tensor,
    num_ranks: int | None,
    validate: bool,
    option: str = "num_ranks",
) -> tuple[PairRanks, int]:
    """The checked ranks, and the highest that any batch can have.

    Args:
        option: of the caller, by which ``num_ranks`` is told.

    Raises:
        ValueError: it is not known, or a pair has a higher one.
    """
    source = checked_ranks(query, key, ranks, validate)
    number = source.num_ranks if num_ranks is None else num_ranks
    # Not the highest rank of the batch: then the loss would depend on what happens to be in it.
    if number is None:
        raise ValueError(
            f"the number of ranks is not known: give {option}, or ranks that know their number, "
            f"such as Taxonomy.ranks(...) or DenseRanks(matrix, num_ranks=2)"
        )
    require(number >= 1, f"num_ranks must be at least 1, got {number}")
    if validate:
        highest = highest_rank(source)
        require(
            highest <= number, f"a pair has rank {highest}, but there are only {number} rank(s)"
        )
    return source, number


def loss_by_query(
    rows_loss: Rows,
    query: Tensor,
    key: Tensor,
    source: PairRanks,
    *per_query: Tensor,
    pairs_per_query: int,
    block_size: int | None,
    reduction: Reduction,
    validate: bool,
) -> Tensor:
    """The reduced loss. Of several blocks the backward pass computes each again, so that the
    memory of one is in use.

    Args:
        query, key, source: checked, on one device.
        per_query: (Q, ...), cut as the queries are.
        pairs_per_query: size of what ``rows_loss`` holds for a query.
        block_size: queries at a time; None: as many as suit the device.
    """
    check_block_size(block_size)
    most = sizes_for(query.device).pairs_of_a_check
    step = block_size or max(1, most // pairs_per_query)

    def block(rows: slice, query: Tensor, key: Tensor, *more: Tensor) -> tuple[Tensor, Tensor]:
        return rows_loss(similarities(query, key), source.tile(rows, ALL), *more)

    parts = []
    for start in range(0, len(query), step):
        rows = slice(start, min(start + step, len(query)))
        given = (query[rows], key, *(x[rows] for x in per_query))
        if step >= len(query):
            parts.append(block(rows, *given))
        else:
            parts.append(
                checkpoint(block, rows, *given, use_reentrant=False, preserve_rng_state=False)
            )
    loss, active = (torch.cat(x) for x in zip(*parts, strict=True))
    if validate:
        warn_if_nothing_to_learn(source, active)
    return reduce_over_queries(torch.where(active, loss, 0), active, reduction)
