"""Ranking Info Noise Contrastive Estimation (RINCE).

Hoffmann, Behrmann, Gall, Brox, Noroozi: "Ranking Info Noise Contrastive Estimation: Boosting
Contrastive Learning via Ranked Positives", AAAI 2022, arXiv 2201.11736, section 3.

The formula is :func:`rince.losses.definition.rank_terms`; here are its input and its engines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from rince.core.checks import require
from rince.core.pair_ranks import ALL, PairRanks, as_pair_ranks
from rince.losses.blockwise.engine import streamed_loss
from rince.losses.common import (
    Reduction,
    check_inputs,
    highest_rank,
    reduce_over_queries,
    similarities,
    warn_if_nothing_to_learn,
)
from rince.losses.definition import Positives, RankTerms, Variant, rank_terms
from rince.losses.temperatures import check_temperatures, match_num_ranks

Engine = Literal["auto", "dense", "streamed"]

STREAM_FROM = 128 * 128  # pairs: below, the dense engine is about as fast and needs little memory


def ranked_info_nce(
    query: Tensor,
    key: Tensor,
    ranks: PairRanks | Tensor,
    temperatures: float | Sequence[float] | Tensor,
    *,
    variant: Variant = "out-in",
    positives: Positives = "exclusive",
    reduction: Reduction = "mean",
    engine: Engine = "auto",
    block_size: int | None = None,
    validate: bool = True,
) -> Tensor:
    r"""RINCE: pull keys nearer the better their rank, each rank against everything less similar.

    With :math:`P_i` the keys of rank i, N the negatives, s the dot product (the cosine, for unit
    vectors) and :math:`W_i = P_{i+1} \cup \dots \cup P_R \cup N` the keys less similar than
    rank i, the loss of a query is the sum of one term a rank,

    .. math::
        \text{in: }\; l_i = -\log \frac{\sum_{p \in P_i} e^{s_p/\tau_i}}
            {\sum_{p \in P_i} e^{s_p/\tau_i} + \sum_{k \in W_i} e^{s_k/\tau_i}}
        \qquad
        \text{out: }\; l_i = -\frac{1}{|P_i|} \sum_{p \in P_i} \log \frac{e^{s_p/\tau_i}}
            {e^{s_p/\tau_i} + \sum_{k \in W_i} e^{s_k/\tau_i}}

    Keys of a better rank take no part in term i. "in" is content with one good positive, which
    suits noisy ranks; "out" asks it of each positive; "out-in" uses "out" for rank 1 and "in"
    for the rest.

    A term without a positive, or without a less similar key, is exactly 0 with zero gradient. A
    query of only such terms contributes exactly 0 and is not counted in the mean.

    Args:
        query: (Q, D) floating point, unit length.
        key: (K, D) floating point, unit length. May be ``query`` itself: then ignore the pairs
            of a sample and itself (``ignore_self=True`` of the rank source).
        ranks: (Q, K) :class:`~rince.PairRanks` or integer matrix; 1 = most similar, 0 =
            negative, -1 = ignored.
        temperatures: tau_1 < ... < tau_R, positive, one a rank (see
            :func:`~rince.temperature_schedule`). A tensor may require a gradient.
        variant: "in", "out" or "out-in".
        positives: "exclusive" takes P_i as written above; "cumulative" takes the keys of rank 1
            to i in its place, as in the paper's CIFAR-100 results.
        reduction: "mean" over the queries that have something to learn, "sum", or "none".
        engine: "dense" holds a few (Q, K) matrices, "streamed" a block of queries at a time; both
            give the same numbers. "auto" streams from about 128 x 128 pairs on. The streamed
            gradient cannot itself be differentiated: for second derivatives take "dense".
        block_size: queries at a time of the streamed engine; None fits them into about 16 MB. For
            a batch against itself the side of a square tile; None takes 256 to 512.
        validate: also make the checks that read values (and on a GPU wait for them): NaN, zero
            or non-unit embeddings, ranks without a temperature, a batch that teaches nothing.

    Returns:
        A scalar, or (Q,) with ``reduction="none"``; at least float32.

    Raises:
        ValueError: shapes that do not fit, NaN, infinite or zero embeddings, temperatures not
            positive or not one a rank, an unknown option.

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
        validate=validate,
    )
    return loss


class RankedInfoNCE(nn.Module):
    """:func:`rince.ranked_info_nce` with its options held; see there for their meaning.

    Example:
        >>> import torch, rince
        >>> criterion = rince.RankedInfoNCE(temperatures=(0.1, 0.225), variant="out-in")
        >>> z = torch.nn.functional.normalize(torch.randn(8, 4), dim=1)
        >>> ranks = rince.Taxonomy.from_dict({"dog": ["husky", "malamute"], "cat": ["manx"]}).ranks(
        ...     torch.arange(8) % 3, torch.arange(8) % 3, ignore_self=True)
        >>> criterion(z, z, ranks).shape
        torch.Size([])
    """

    def __init__(
        self,
        temperatures: float | Sequence[float] | Tensor = (0.1, 0.225),
        *,
        variant: Variant = "out-in",
        positives: Positives = "exclusive",
        reduction: Reduction = "mean",
        engine: Engine = "auto",
        block_size: int | None = None,
        validate: bool = True,
    ) -> None:
        super().__init__()
        check_temperatures(temperatures, validate)
        self.temperatures = temperatures
        self.variant: Variant = variant
        self.positives: Positives = positives
        self.reduction: Reduction = reduction
        self.engine: Engine = engine
        self.block_size = block_size
        self.validate = validate

    def forward(self, query: Tensor, key: Tensor, ranks: PairRanks | Tensor) -> Tensor:
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
            validate=self.validate,
        )

    def extra_repr(self) -> str:
        return (
            f"temperatures={self.temperatures}, variant={self.variant!r}, "
            f"positives={self.positives!r}, reduction={self.reduction!r}, engine={self.engine!r}"
        )


def ranked_info_nce_with_terms(
    query: Tensor,
    key: Tensor,
    ranks: PairRanks | Tensor,
    temperatures: float | Sequence[float] | Tensor,
    *,
    variant: Variant = "out-in",
    positives: Positives = "exclusive",
    reduction: Reduction = "mean",
    engine: Engine = "auto",
    block_size: int | None = None,
    validate: bool = True,
) -> tuple[Tensor, RankTerms]:
    """:func:`ranked_info_nce` and its terms rank by rank, without a graph, to log them.

    Takes and raises the same as :func:`ranked_info_nce`.
    """
    for name, given, known in (
        ("variant", variant, ("in", "out", "out-in")),
        ("positives", positives, ("exclusive", "cumulative")),
        ("reduction", reduction, ("mean", "sum", "none")),
        ("engine", engine, ("auto", "dense", "streamed")),
    ):
        require(given in known, f"{name} must be one of {known}, got {given!r}")
    require(
        block_size is None or block_size >= 1, f"block_size must be at least 1, got {block_size}"
    )
    taus = check_temperatures(temperatures, validate)
    source = as_pair_ranks(ranks)
    match_num_ranks(len(taus), source.num_ranks)
    check_inputs(query, key, source, validate)
    if validate and source.num_ranks is None:
        match_num_ranks(len(taus), None, highest=highest_rank(source))
    if engine == "auto":
        engine = "streamed" if query.shape[0] * key.shape[0] >= STREAM_FROM else "dense"
    if engine == "streamed":
        loss, terms = streamed_loss(
            query,
            key,
            source,
            taus,
            variant,
            positives,
            reduction=reduction,
            block_size=block_size,
        )
    else:
        rank = source.tile(ALL, ALL).to(query.device)
        terms = rank_terms(similarities(query, key), rank, taus, variant, positives)
        loss = reduce_over_queries(terms.values.sum(dim=0), terms.active.any(dim=0), reduction)
        terms = RankTerms(terms.values.detach(), terms.active)
    if validate:
        warn_if_nothing_to_learn(source, terms.active)
    return loss, terms
