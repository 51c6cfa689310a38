"""What every loss here shares: checked input, masked log-sum-exp, the mean over queries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from rince.core.checks import require, warn
from rince.core.pair_ranks import ALL, PairRanks, as_pair_ranks, is_batched
from rince.losses.options import MatmulPrecision
from rince.losses.products import product

Reduction = Literal["mean", "sum", "none"]
Engine = Literal["auto", "dense", "streamed"]
# Read from the types here: torch.compile of torch 2.6 cannot follow get_args in a step.
REDUCTIONS, ENGINES = get_args(Reduction), get_args(Engine)


def checked_ranks(query: Tensor, key: Tensor, ranks: Any, validate: bool) -> PairRanks:
    """The ranks as a source, where the embeddings are; both sides are checked against each other
    and against it."""
    check_embeddings(query, key)
    given = [x for x in (query, key, ranks) if isinstance(x, Tensor)]
    require(
        not (validate and any(map(is_batched, given))),
        "under torch.func.vmap values cannot be checked: pass validate=False",
    )
    source = as_pair_ranks(ranks, query.device, validate)
    expected = (query.shape[0], key.shape[0])
    require(
        tuple(source.shape) == expected,
        f"ranks must be (queries, keys) = {expected}, got {tuple(source.shape)}",
    )
    if validate:
        check_values("query", query)
        if key is not query:
            check_values("key", key)
    return source


def check_words(**options: tuple[str, tuple[str, ...]]) -> None:
    """Refuse a word that is not known: name=(given, those that are)."""
    for name, (given, known) in options.items():
        require(given in known, f"{name} must be one of {known}, got {given!r}")


def check_reduction(reduction: Reduction) -> None:
    """Refuse an unknown one, before any work is done."""
    check_words(reduction=(reduction, REDUCTIONS))


def check_block_size(block_size: int | None) -> None:
    """Refuse blocks without a query."""
    require(
        block_size is None or block_size >= 1, f"block_size must be at least 1, got {block_size}"
    )


def similarities(query: Tensor, key: Tensor, precision: MatmulPrecision = "fp32") -> Tensor:
    """(Q, K) dot products, at least fp32 whatever comes in, and outside autocast.

    Half precision has too few bits for a logit of 100 (temperature 0.01), where one unit in the
    last place is 6 percent of the loss.
    """
    dtype = dtype_of_sums(query, key)
    with torch.autocast(query.device.type, enabled=False):
        return product(query.to(dtype), key.to(dtype).T, precision)


def dtype_of_sums(query: Tensor, key: Tensor) -> torch.dtype:
    """The wider dtype of both sides, at least fp32."""
    return torch.promote_types(torch.promote_types(query.dtype, key.dtype), torch.float32)


def check_embeddings(query: Tensor, key: Tensor) -> None:
    """Checks that cost nothing: shapes, dtypes, devices."""
    for side, x in (("query", query), ("key", key)):
        require(
            isinstance(x, Tensor),
            f"{side} embeddings must be a torch tensor, through which the gradient flows, got "
            f"{type(x).__name__}",
        )
        require(
            x.ndim == 2 and x.is_floating_point(),
            f"{side} embeddings must be a floating-point (count, dimension) matrix, got shape "
            f"{tuple(x.shape)} and {x.dtype}",
        )
        require(x.shape[0] > 0, f"there are no {side} embeddings: shape {tuple(x.shape)}")
    require(
        query.shape[1] == key.shape[1],
        f"query and key embeddings differ in dimension: {query.shape[1]} and {key.shape[1]}",
    )
    require(
        query.device == key.device,
        f"query is on {query.device} but key is on {key.device}: move one with .to()",
    )


def check_values(side: str, x: Tensor) -> None:
    """Checks that read values (on a GPU: wait for them)."""
    wide = x.detach().to(torch.promote_types(x.dtype, torch.float32))
    norms = torch.linalg.vector_norm(wide, dim=1)  # (count,)
    bad, zero, far = ~torch.isfinite(norms), norms == 0, (norms - 1).abs() > 0.02
    has_bad, has_zero, has_far = torch.stack([bad.any(), zero.any(), far.any()]).tolist()
    if has_bad:
        row = int(bad.nonzero()[0, 0])
        raise ValueError(
            f"{int(bad.sum())} of {x.shape[0]} {side} embeddings hold NaN or infinite values "
            f"(first: row {row}). The encoder has diverged or its input is broken: lower the "
            f"learning rate, clip gradients, or check the input for NaN"
        )
    if has_zero:
        row = int(zero.nonzero()[0, 0])
        raise ValueError(
            f"{int(zero.sum())} of {x.shape[0]} {side} embeddings are all zeros (first: row "
            f"{row}), and the cosine of a zero vector is undefined. Does the encoder end in a "
            f"ReLU that died, or is this padding? Mark padded keys with rank -1 and give them "
            f"any non-zero vector"
        )
    if has_far:
        warn(
            # Without numbers, by which each step's warning would be another one, and be shown.
            f"{side} embeddings are not of unit length: the loss takes dot products, which are "
            f"cosines only after torch.nn.functional.normalize(x, dim=1)"
        )


def check_finite(name: str, x: Tensor) -> None:
    """Of (count, ...) embeddings or targets that need no unit length; reads values."""
    if is_batched(x):
        return
    bad = int((~x.isfinite()).any(dim=1).sum())
    require(
        bad == 0,
        f"{name} must be finite numbers, but {bad} of {len(x)} samples have none: leave them out "
        f"of the batch",
    )


def masked_logsumexp(logits: Tensor, mask: Tensor) -> Tensor:
    """Log of the sum of exponentials over the True entries of each row.

    Args:
        logits: (Q, K). mask: (Q, K) bool.

    Returns:
        (Q,); a row with no True entry gives about the lowest finite number of the dtype, so that
        a later ``exp`` of it is exactly 0, and no gradient.
    """
    lowest = torch.finfo(logits.dtype).min
    return torch.logsumexp(logits.masked_fill(~mask, lowest), dim=1)


def mean_over_mask(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the True entries of each row of (Q, K) values; 0 for a row without any."""
    return torch.where(mask, values, 0).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


def reduce_over_queries(loss: Tensor, active: Tensor, reduction: Reduction) -> Tensor:
    """Sum, or mean over the queries that have something to learn.

    Args:
        loss: (Q,), exactly 0 where not active. active: (Q,) bool.
    """
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    return loss.sum() / active.sum().clamp(min=1)


def warn_if_nothing_to_learn(ranks: PairRanks, active: Tensor, pairs_at_once: int = 2**22) -> None:
    """One warning for a batch whose loss is 0 for lack of pairs, saying which pairs it lacks."""
    if bool(active.any()):
        return
    if highest_rank(ranks, pairs_at_once) < 1:
        why = (
            "no query has a positive (a key of rank 1 or more). Batches are too small for the "
            "number of classes, or labels of both sides do not match"
        )
    else:
        why = (
            "no query with a positive has a key less similar than it. Is there only one class "
            "in the batch?"
        )
    warn(f"the loss of this batch is 0, and so is its gradient: {why}")


def highest_rank(ranks: PairRanks, pairs_at_once: int = 2**22) -> int:
    """The highest code of a batch, without its whole matrix."""
    return max(int(tile.max()) for tile in tiles(ranks, pairs_at_once))


def tiles(ranks: PairRanks, pairs_at_once: int) -> Iterator[Tensor]:
    """The ranks of some queries and all keys, int8, one after the other."""
    num_queries, num_keys = ranks.shape
    step = max(1, pairs_at_once // num_keys)
    for start in range(0, num_queries, step):
        yield ranks.tile(slice(start, min(start + step, num_queries)), ALL)
