"""Any rank source and any temperature: the definition, and its gradient written out."""

from __future__ import annotations

import torch
from torch import Tensor

from rince.core.pair_ranks import ALL
from rince.losses.blockwise.block import Inputs
from rince.losses.definition import sides_of, softplus
from rince.losses.products import mm


class ByPair:
    """Exponents are shifted by the largest of each sum.

    weight: (Q,) of each query's loss; None: no gradient is wanted.
    """

    def __init__(self, inputs: Inputs, weight: Tensor | None, *, want_taus: bool) -> None:
        self.inputs, self.weight = inputs, weight
        self.values = inputs.query.new_empty(len(inputs.forms), len(inputs.query))
        self.active = torch.empty_like(self.values, dtype=torch.bool)
        self.tau_gradient = torch.zeros_like(inputs.taus) if want_taus else None

    @staticmethod
    def bytes_per_query(inputs: Inputs) -> int:
        """Of the buffers that grow with the block: (block, keys), one per rank and one more."""
        return len(inputs.key) * (len(inputs.forms) + 1) * inputs.query.element_size()

    def terms(self) -> tuple[Tensor, Tensor]:
        return self.values, self.active

    def __call__(self, rows: slice) -> Tensor | None:
        i = self.inputs
        rank = i.source.tile(rows, ALL)  # (B, K), as all matrices below
        similarity = mm(i.query[rows], i.key.T, i.precision)
        gradient = None if self.weight is None else torch.zeros_like(similarity)
        for j, (tau, form) in enumerate(zip(i.taus, i.forms, strict=True)):
            less_similar, positive = sides_of(rank, j + 1, i.positives)
            exponent = similarity / tau
            if form in ("in", "out"):
                learns = positive.any(dim=1) & less_similar.any(dim=1)  # (B,)
                value, of_rank = _ranked_term(exponent, less_similar, positive, form == "out")
            else:
                candidate = less_similar | positive
                learns = positive.any(dim=1) & (candidate.sum(dim=1) > 1)
                each = form == "supcon-out"
                value, of_rank = _term_against_all(exponent, candidate, positive, each)
            self.values[j, rows] = torch.where(learns, value, 0)
            self.active[j, rows] = learns
            if gradient is not None:
                assert self.weight is not None
                # By the exponents; rows that learn nothing hold 0 / 0.
                of_rank = torch.where(learns[:, None], of_rank * self.weight[rows, None], 0)
                gradient += of_rank / tau
                if self.tau_gradient is not None:
                    self.tau_gradient[j] -= (of_rank * similarity).sum() / tau.square()
        return gradient


def _ranked_term(
    exponent: Tensor, less_similar: Tensor, positive: Tensor, each: bool
) -> tuple[Tensor, Tensor]:
    """The term of RINCE (B,), and its gradient by the exponents (B, K)."""
    less, less_share = _log_sum_and_shares(exponent, less_similar)
    if each:
        count = positive.sum(dim=1)
        log_odds = (less[:, None] - exponent).masked_fill_(~positive, -torch.inf)
        value = softplus(log_odds).sum(dim=1) / count
        pull = log_odds.sigmoid_() / count[:, None]
        push = pull.sum(dim=1)
    else:
        more, pull = _log_sum_and_shares(exponent, positive)
        value = softplus(less - more)
        push = (less - more).sigmoid()
        pull *= push[:, None]
    return value, less_share.mul_(push[:, None]).sub_(pull)


def _term_against_all(
    exponent: Tensor, candidate: Tensor, positive: Tensor, each: bool
) -> tuple[Tensor, Tensor]:
    """The loss of SupCon (B,), and its gradient by the exponents (B, K)."""
    everything, share = _log_sum_and_shares(exponent, candidate)
    count = positive.sum(dim=1)
    if each:
        pull = positive.to(exponent.dtype) / count[:, None]
        return everything - torch.where(positive, exponent, 0).sum(dim=1) / count, share.sub_(pull)
    more, pull = _log_sum_and_shares(exponent, positive)
    return everything - more + count.to(exponent.dtype).log(), share.sub_(pull)


def _log_sum_and_shares(exponent: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Log of the sum of exponentials over a mask (B,), and each one's share of the sum (B, K)."""
    outside = ~mask
    largest = exponent.masked_fill(outside, torch.finfo(exponent.dtype).min).amax(dim=1)
    share = (exponent - largest[:, None]).exp_().masked_fill_(outside, 0)
    total = share.sum(dim=1)
    return largest + total.log(), share.div_(total[:, None])
