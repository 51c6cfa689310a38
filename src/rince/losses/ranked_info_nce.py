"""Ranking Info Noise Contrastive Estimation (RINCE).

Hoffmann, Behrmann, Gall, Brox, Noroozi: "Ranking Info Noise Contrastive Estimation: Boosting
Contrastive Learning via Ranked Positives", AAAI 2022, arXiv 2201.11736, section 3.

The formula is :func:`rince.losses.definition.rank_terms`; here are its input and its engines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from rince.core.checks import check_temperature, require, warn
from rince.core.pair_ranks import ALL, PairRanks, TableRanks, may_read
from rince.losses.blockwise.engine import blockwise_loss
from rince.losses.blockwise.fused import codes_of, fused_loss, reason_against
from rince.losses.blockwise.sizes import DENSE_BYTES, Sizes, free_bytes, sizes_for
from rince.losses.common import (
    REDUCTIONS,
    Reduction,
    check_block_size,
    check_words,
    checked_ranks,
    dtype_of_sums,
    highest_rank,
    reduce_over_queries,
    similarities,
    warn_if_nothing_to_learn,
)
from rince.losses.definition import RankTerms, form_of_term, rank_terms
from rince.losses.options import MatmulPrecision, Positives, Variant
from rince.losses.products import check_precision
from rince.losses.temperatures import (
    as_parameter_or_numbers,
    check_temperatures,
    match_num_ranks,
)

_warn_once = cache(warn)
RankedEngine = Literal["auto", "dense", "streamed", "fused"]
_VARIANTS, _POSITIVES, _ENGINES = map(get_args, (Variant, Positives, RankedEngine))


def ranked_info_nce(
    query: Tensor,
    key: Tensor,
    ranks: PairRanks | Tensor,
    temperatures: float | Sequence[float | Tensor] | Tensor,
    *,
    variant: Variant = "out-in",
    positives: Positives = "exclusive",
    reduction: Reduction = "mean",
    engine: RankedEngine = "auto",
    block_size: int | None = None,
    matmul_precision: MatmulPrecision = "fp32",
    validate: bool = True,
) -> Tensor:
    r"""RINCE: pull keys nearer the better their rank, each rank against everything less similar.

    With :math:`P_i` the keys of rank i, N the negatives, s the dot product (the cosine, for unit
    vectors) and :math:`W_i = P_{i+1} \cup \dots \cup P_R \cup N` the keys less similar than
    rank i, the loss of a query is the sum of one term per rank,

    .. math::
        \text{in: }\; l_i = -\log \frac{\sum_{p \in P_i} e^{s_p/\tau_i}}
            {\sum_{p \in P_i} e^{s_p/\tau_i} + \sum_{k \in W_i} e^{s_k/\tau_i}}
        \qquad
        \text{out: }\; l_i = -\frac{1}{|P_i|} \sum_{p \in P_i} \log \frac{e^{s_p/\tau_i}}
            {e^{s_p/\tau_i} + \sum_{k \in W_i} e^{s_k/\tau_i}}

    Keys of a better rank take no part in term i. "in" is small as soon as one positive is near,
    the paper's choice for noisy ranks; "out" needs every positive near; "out-in" uses "out" for
    rank 1 and "in" for the others.

    A term without a positive, or without a less similar key, is exactly 0 with zero gradient. A
    query of only such terms contributes exactly 0 and is not counted in the mean.

    Args:
        query: (Q, D) floating point, unit length.
        key: (K, D) floating point, unit length. May be ``query`` itself: then ignore the pairs
            of a sample and itself (``ignore_self=True`` of the rank source).
        ranks: (Q, K) :class:`~rince.ranks.PairRanks` or integer matrix; 1 = most similar, 0 =
            negative, -1 = ignored.
        temperatures: tau_1 < ... < tau_R, positive, one per rank (see
            :func:`~rince.losses.temperature_schedule`). A tensor, or tensors in the list, may
            require a gradient.
        variant: "in", "out" or "out-in".
        positives: "exclusive" takes P_i as written above; "cumulative" takes the keys of rank 1
            to i in its place, as in the paper's CIFAR-100 results.
        reduction: "mean" over the queries that have something to learn, "sum", or "none".
        engine: "dense" holds a few (Q, K) matrices, "streamed" a block of queries at a time,
            "fused" none: Triton kernels on a CUDA card, ranks from labels. All give the same
            numbers. "auto" streams from about 128 x 128 pairs on; on a GPU it prefers "fused" where
            that is faster. An engine that cannot serve warns, and "streamed" serves.
            For second derivatives take "dense".
        block_size: queries per block of the streamed engine, or samples per side of a square tile
            where a batch stands against itself. None takes what fits a CPU's caches, or a tenth of
            a GPU's free memory.
        matmul_precision: "fp32"; "tf32" and "bf16" let tensor cores round the factors of matrix
            products, to 10 and 7 bits, and sum in float32. A CPU computes "tf32" as "fp32". A
            global switch (``torch.set_float32_matmul_precision``) changes nothing.
        validate: also make the checks that read values (and on a GPU wait for them): NaN, zero
            or non-unit embeddings, ranks without a temperature, a batch without anything to learn.
            Without them nothing is read from a GPU; embeddings must then be of unit length.

    Returns:
        A scalar, or (Q,) with ``reduction="none"``; at least float32.

    Raises:
        ValueError: shapes that do not fit, NaN, infinite or zero embeddings, temperatures not
            positive or not one per rank, an unknown option.

    Example:
        >>> import torch, rince
        >>> from math import exp, log
        >>> query = torch.tensor([[1.0, 0.0]])
        >>> key = torch.tensor([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]])
        >>> loss = rince.ranked_info_nce(query, key, torch.tensor([[1, 2, 0]]), (0.5, 1.0))
        >>> against_all = -log(exp(2) / (exp(2) + exp(1.2) + exp(-2)))  # rank 1, tau 0.5
        >>> against_negative = -log(exp(0.6) / (exp(0.6) + exp(-1)))  # rank 2, tau 1
        >>> abs(float(loss) - (against_all + against_negative)) < 1e-6, round(float(loss), 4)
        (True, 0.5676)
    """
    loss, _ = ranked_info_nce_with_terms(
        query,
        key,
        ranks,
        temperatures,
        variant=variant,
        positives=positives,
        reduction=reduction,
        engine=engine,
        block_size=block_size,
        matmul_precision=matmul_precision,
        validate=validate,
    )
    return loss


class RankedInfoNCE(nn.Module):
    """RINCE as a module: a contrastive loss that knows that some positives are nearer than others.

    InfoNCE and SupCon know positives and negatives. Here each pair of a query and a key has a
    rank: 1 = most similar (the same class, say), 2, 3, ... = less and less similar (the same
    superclass), 0 = negative, -1 = ignored (an item and itself). A query should be nearer to its
    keys of rank 1 than to those of rank 2, nearer to these than to those of rank 3, and furthest
    from the negatives. With one rank and one positive a query it is InfoNCE; with several it is
    SINCERE (variant "out"), and not SupCon, which is :func:`rince.losses.supcon_out`.

    Call it with ``(query, key, ranks)``: embeddings (Q, D) and (K, D) of unit length (use
    ``torch.nn.functional.normalize``), floating point, and (Q, K) integers, or what
    :meth:`rince.Taxonomy.ranks`, :class:`rince.ScoreRanks` or :class:`rince.TimeRanks` make of
    labels, scores or times. It gives a scalar of at least float32. :func:`rince.ranked_info_nce`
    is the same as a function, and has the formula.

    Args:
        temperatures: tau_1 < ... < tau_R, one per rank, positive; a lower one makes its rank
            stricter. A number for one rank; ``rince.losses.temperature_schedule`` spreads them
            for more than two. Or an ``nn.Parameter`` to learn them: then it is one of this
            module's parameters, trained, saved and moved with it.
        variant: "out" pulls every positive of a rank near; "in" asks for one of them, the paper's
            choice for noisy ranks; "out-in" takes "out" for rank 1 and "in" for the others.
        positives: "exclusive": term i pulls the keys of rank i; "cumulative": those of rank 1 to i.
        reduction: "mean" over the queries that have something to learn, "sum", or "none", (Q,).
        engine: how it is computed, with the same numbers: "dense", "streamed", "fused" (a CUDA
            card) or "auto".
        block_size: queries per block of the streamed engine; None chooses by the memory.
        matmul_precision: "fp32", "tf32" or "bf16".
        validate: check the values too (NaN, lengths, ranks without a temperature), for which a
            GPU is waited for.
        learn_temperatures: make a parameter of the numbers given.
        min_temperature: learned temperatures are kept from falling below, and may start no lower.

    Learned temperatures stay float32, whatever ``.half()`` or ``.to(torch.bfloat16)`` do to the
    module: their gradient would overflow under a loss scale.

    Raises:
        ValueError: as :func:`~rince.ranked_info_nce`; also temperatures that are computed from a
            parameter (pass the parameter, or call the function), not float32, or learned from below
            ``min_temperature`` on.

    Example:
        A step of training on a batch of 8 images of 3 classes, two of them dogs:

        >>> import torch, rince
        >>> tree = rince.Taxonomy.from_dict({"dog": ["husky", "malamute"], "cat": ["manx"]})
        >>> labels = torch.tensor([0, 0, 1, 1, 2, 2, 0, 1])  # places in tree.classes
        >>> ranks = tree.ranks(labels, labels, ignore_self=True)
        >>> ranks.tile(slice(0, 1), slice(None))  # itself, a husky, malamutes, manxes, ...
        tensor([[-1,  1,  2,  2,  0,  0,  1,  2]], dtype=torch.int8)
        >>> criterion = rince.RankedInfoNCE(temperatures=(0.1, 0.225), variant="out-in")
        >>> encoder = torch.nn.Linear(12, 4)
        >>> z = torch.nn.functional.normalize(encoder(torch.randn(8, 12)), dim=1)
        >>> loss = criterion(z, z, ranks)
        >>> loss.backward()
        >>> loss.shape, encoder.weight.grad.shape
        (torch.Size([]), torch.Size([4, 12]))
    """

    def __init__(
        self,
        temperatures: float | Sequence[float | Tensor] | Tensor = (0.1, 0.225),
        *,
        variant: Variant = "out-in",
        positives: Positives = "exclusive",
        reduction: Reduction = "mean",
        engine: RankedEngine = "auto",
        block_size: int | None = None,
        matmul_precision: MatmulPrecision = "fp32",
        validate: bool = True,
        learn_temperatures: bool = False,
        min_temperature: float = 0.01,
    ) -> None:
        super().__init__()
        _check_words(variant, positives, reduction, engine, block_size)
        check_temperatures(temperatures, validate)
        check_temperature(min_temperature, "min_temperature")
        self.min_temperature = min_temperature
        self.temperatures = as_parameter_or_numbers(temperatures, learn_temperatures)
        learned = self.temperatures
        if isinstance(learned, nn.Parameter) and not learned.is_meta:
            start = ", ".join(f"{t:g}" for t in learned.reshape(-1).tolist())
            require(
                bool((learned >= min_temperature).all()),
                f"learned temperatures are kept from falling below min_temperature, "
                f"{min_temperature:g}, but these start at {start}: give higher ones, or a lower "
                f"min_temperature",
            )
        self.variant: Variant = variant
        self.positives: Positives = positives
        self.reduction: Reduction = reduction
        self.engine: RankedEngine = engine
        self.block_size = block_size
        self.matmul_precision: MatmulPrecision = matmul_precision
        self.validate = validate

    def forward(self, query: Tensor, key: Tensor, ranks: PairRanks | Tensor) -> Tensor:
        """The loss of (Q, D) queries and (K, D) keys of unit length with (Q, K) ranks."""
        if isinstance(self.temperatures, nn.Parameter):
            # As data: a loss that was computed before keeps its graph.
            self.temperatures.data.clamp_(min=self.min_temperature)
        return ranked_info_nce(
            query,
            key,
            ranks,
            self.temperatures,
            variant=self.variant,
            positives=self.positives,
            reduction=self.reduction,
            engine=self.engine,
            block_size=self.block_size,
            matmul_precision=self.matmul_precision,
            validate=self.validate,
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RankedInfoNCE:
        def kept_wide(x: Tensor) -> Tensor:
            moved = fn(x)
            return moved if moved.dtype.itemsize >= 4 else x.to(moved.device, torch.float32)

        super()._apply(kept_wide, recurse)  # type: ignore[no-untyped-call]
        return self

    def extra_repr(self) -> str:
        taus = self.temperatures
        shown = f"learned {taus.tolist()}" if isinstance(taus, nn.Parameter) else taus
        return (
            f"temperatures={shown}, variant={self.variant!r}, positives={self.positives!r}, "
            f"reduction={self.reduction!r}, engine={self.engine!r}"
        )


def ranked_info_nce_with_terms(
    query: Tensor,
    key: Tensor,
    ranks: PairRanks | Tensor,
    temperatures: float | Sequence[float | Tensor] | Tensor,
    *,
    variant: Variant = "out-in",
    positives: Positives = "exclusive",
    reduction: Reduction = "mean",
    engine: RankedEngine = "auto",
    block_size: int | None = None,
    matmul_precision: MatmulPrecision = "fp32",
    validate: bool = True,
    sizes: Sizes | None = None,
) -> tuple[Tensor, RankTerms]:
    """:func:`ranked_info_nce` and its terms rank by rank, without a graph, to log them.

    Takes and raises the same as :func:`ranked_info_nce`, and ``sizes``, where blocks pay and how
    large they are; None takes what suits the device.
    """
    _check_words(variant, positives, reduction, engine, block_size)
    taus = check_temperatures(temperatures, validate)
    source = checked_ranks(query, key, ranks, validate)
    match_num_ranks(len(taus), source.num_ranks)
    check_precision(matmul_precision, dtype_of_sums(query, key))
    if validate and source.num_ranks is None:
        match_num_ranks(len(taus), None, highest=highest_rank(source))
    sizes = (sizes or sizes_for(query.device)).with_block(block_size)
    engine = _served_by(engine, query, key, source, len(taus), matmul_precision, sizes)
    if engine == "fused":
        loss, terms = fused_loss(
            query,
            key,
            source,
            taus,
            variant,
            positives,
            reduction=reduction,
            precision=matmul_precision,
        )
    elif engine == "streamed":
        loss, terms = blockwise_loss(
            query,
            key,
            source,
            taus,
            tuple(form_of_term(variant, i) for i in range(1, len(taus) + 1)),
            positives=positives,
            reduction=reduction,
            sizes=sizes,
            precision=matmul_precision,
            may_read=may_read(query, validate),
        )
    else:
        rank = source.tile(ALL, ALL)
        similarity = similarities(query, key, matmul_precision)
        terms = rank_terms(similarity, rank, taus, variant, positives)
        loss = reduce_over_queries(terms.values.sum(dim=0), terms.active.any(dim=0), reduction)
        terms = RankTerms(terms.values.detach(), terms.active)
    if validate:
        warn_if_nothing_to_learn(source, terms.active)
    return loss, terms


def _check_words(
    variant: str, positives: str, reduction: str, engine: str, block_size: int | None
) -> None:
    check_words(
        variant=(variant, _VARIANTS),
        positives=(positives, _POSITIVES),
        reduction=(reduction, REDUCTIONS),
        engine=(engine, _ENGINES),
    )
    check_block_size(block_size)


def _served_by(
    engine: RankedEngine,
    query: Tensor,
    key: Tensor,
    source: PairRanks,
    num_ranks: int,
    precision: MatmulPrecision,
    sizes: Sizes,
) -> RankedEngine:
    """The engine for "auto", and for one that cannot serve the one in its place."""
    pairs = query.shape[0] * key.shape[0]
    if engine == "fused":
        reason = reason_against(query, key, source, num_ranks)
        if reason is not None:
            _warn_once(f'engine="fused" cannot serve here, "streamed" does: {reason}')
            return "streamed"
    if engine == "dense" and not torch.compiler.is_compiling():
        need = pairs * num_ranks * DENSE_BYTES
        if query.is_cuda and need > 2**28 and need > free_bytes(query.device):
            _warn_once(
                f'engine="dense" would need about {need / 2**30:.1f} GB for {query.shape[0]} x '
                f'{key.shape[0]} pairs, more than {query.device} has free: "streamed" serves'
            )
            return "streamed"
    if engine != "auto":
        return engine
    if torch.compiler.is_compiling():
        # The dense engine leaves the caller's graph whole, the others break it once.
        return "dense" if pairs < sizes.dense_pairs else "streamed"
    is_light = precision != "fp32" or pairs * query.shape[1] <= sizes.fused_products
    if sizes.fused_pairs is not None and pairs >= sizes.fused_pairs and is_light:
        reason = reason_against(query, key, source, num_ranks)
        if reason is None:
            return "fused"
        if codes_of(source) is not None and torch.cuda.is_available():
            _warn_once(
                f'the fused engine, the fastest on a GPU, is not taken by engine="auto": {reason}'
            )
    by_labels = isinstance(source, TableRanks)
    dense_pairs = sizes.dense_pairs_of_labels if by_labels else sizes.dense_pairs
    return "dense" if pairs < dense_pairs else "streamed"
