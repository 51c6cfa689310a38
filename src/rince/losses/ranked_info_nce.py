"""Ranking Info Noise Contrastive Estimation (RINCE): the definition.

Hoffmann, Behrmann, Gall, Brox, Noroozi: "Ranking Info Noise Contrastive Estimation: Boosting
Contrastive Learning via Ranked Positives", AAAI 2022, arXiv 2201.11736, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rince.core.checks import require
from rince.core.pair_ranks import PairRanks, as_pair_ranks
from rince.losses.masked import (
    Reduction,
    masked_logsumexp,
    mean_over_mask,
    reduce_over_queries,
    similarities_and_ranks,
    warn_if_nothing_to_learn,
)
from rince.losses.temperatures import check_temperatures, match_num_ranks

Variant = Literal["in", "out", "out-in"]
Positives = Literal["exclusive", "cumulative"]


def ranked_info_nce(
    query: Tensor,
    key: Tensor,
    ranks: PairRanks | Tensor,
    temperatures: float | Sequence[float] | Tensor,
    *,
    variant: Variant = "out-in",
    positives: Positives = "exclusive",
    reduction: Reduction = "mean",
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
    terms = ranked_info_nce_terms(
        query, key, ranks, temperatures, variant=variant, positives=positives, validate=validate
    )
    return reduce_over_queries(terms.values.sum(dim=0), terms.active.any(dim=0), reduction)


@dataclass(frozen=True)
class RankTerms:
    """The terms l_i(q) of the loss.

    Args:
        values: (R, Q), exactly 0 where not active.
        active: (R, Q) bool: the query has a positive of that rank and a less similar key.
    """

    values: Tensor
    active: Tensor

    def mean_per_rank(self) -> Tensor:
        """(R,): mean of each rank's term over the queries where it is active."""
        return self.values.sum(dim=1) / self.active.sum(dim=1).clamp(min=1)


def ranked_info_nce_terms(
    query: Tensor,
    key: Tensor,
    ranks: PairRanks | Tensor,
    temperatures: float | Sequence[float] | Tensor,
    *,
    variant: Variant = "out-in",
    positives: Positives = "exclusive",
    validate: bool = True,
) -> RankTerms:
    """The terms of :func:`ranked_info_nce` rank by rank, to log them or to weigh them.

    Takes and raises the same as :func:`ranked_info_nce`.
    """
    require(
        variant in ("in", "out", "out-in"),
        f'variant must be "in", "out" or "out-in", got {variant!r}',
    )
    require(
        positives in ("exclusive", "cumulative"),
        f'positives must be "exclusive" or "cumulative", got {positives!r}',
    )
    taus = check_temperatures(temperatures, validate)
    source = as_pair_ranks(ranks)
    match_num_ranks(len(taus), source.num_ranks)
    similarity, rank = similarities_and_ranks(query, key, source, validate)  # (Q, K) both
    if validate:
        match_num_ranks(len(taus), source.num_ranks, highest=int(rank.max()))

    values, active = [], []
    for i, tau in enumerate(taus, start=1):
        logits = similarity / tau  # (Q, K)
        is_positive = (rank >= 1) & (rank <= i) if positives == "cumulative" else rank == i
        is_less_similar = (rank > i) | (rank == 0)
        learns = is_positive.any(dim=1) & is_less_similar.any(dim=1)  # (Q,)
        less_similar = masked_logsumexp(logits, is_less_similar)  # (Q,)
        # Either form is -log(e^a / (e^a + e^b)) = log(1 + e^(b - a)), b the less similar keys.
        if variant == "out" or (variant == "out-in" and i == 1):
            per_key = log_one_plus_exp(less_similar[:, None] - logits)  # (Q, K)
            term = mean_over_mask(per_key, is_positive)
        else:
            term = log_one_plus_exp(less_similar - masked_logsumexp(logits, is_positive))
        values.append(torch.where(learns, term, 0))
        active.append(learns)
    terms = RankTerms(torch.stack(values), torch.stack(active))
    if validate:
        warn_if_nothing_to_learn(rank, terms.active)
    return terms


def log_one_plus_exp(x: Tensor) -> Tensor:
    """log(1 + e^x) without overflow, and exact for x far below 0, where the loss is small."""
    return torch.logaddexp(x, torch.zeros_like(x))
