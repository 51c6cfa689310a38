"""Any rank source and any temperature: the definition, and its gradient written out."""

from __future__ import annotations

import torch
from torch import Tensor

from rince.core.pair_ranks import ALL
from rince.losses.blockwise.block import Block, Inputs
from rince.losses.definition import log_one_plus_exp, sides_of


class ByPair:
    """Any rank source and any temperature: exponents are shifted by the largest of each sum."""

    def __init__(self, inputs: Inputs, *, want_taus: bool) -> None:
        self.inputs = inputs
        self.want_taus = want_taus
        self.each = inputs.each_positive()

    def __call__(self, rows: slice, weight: Tensor | None) -> Block:
        i = self.inputs
        rank = i.source.tile(rows, ALL).to(i.query.device)
        similarity = i.query[rows] @ i.key.T  # (B, K)
        gradient = None if weight is None else torch.zeros_like(similarity)
        tau_gradient = torch.zeros_like(i.taus) if self.want_taus else None
        values, active = [], []
        for j, tau in enumerate(i.taus):
            less_similar, positive = sides_of(rank, j + 1, i.positives)
            count = positive.sum(dim=1)
            learns = (count > 0) & less_similar.any(dim=1)  # (B,)
            exponent = similarity / tau  # (B, K)
            less, less_share = _log_sum_and_shares(exponent, less_similar)
            if j in self.each:
                odds = (less[:, None] - exponent).masked_fill_(~positive, -torch.inf)
                value = log_one_plus_exp(odds).sum(dim=1) / count
                pull = odds.sigmoid_() / count[:, None]  # (B, K)
                push = pull.sum(dim=1)
            else:
                more, pull = _log_sum_and_shares(exponent, positive)
                value = log_one_plus_exp(less - more)
                push = (less - more).sigmoid()
                pull *= push[:, None]
            values.append(torch.where(learns, value, 0))
            active.append(learns)
            if gradient is not None and weight is not None:
                # By the exponents; rows that learn nothing hold 0 / 0.
                of_rank = less_share.mul_(push[:, None]).sub_(pull)
                of_rank = torch.where(learns[:, None], of_rank * weight[:, None], 0)
                gradient += of_rank / tau
                if tau_gradient is not None:
                    tau_gradient[j] = -(of_rank * similarity).sum() / tau.square()
        return Block(torch.stack(values), torch.stack(active), gradient, tau_gradient)


def _log_sum_and_shares(exponent: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Log of the sum of exponentials over a mask (B,), and each one's share of the sum (B, K)."""
    outside = ~mask
    largest = exponent.masked_fill(outside, torch.finfo(exponent.dtype).min).amax(dim=1)
    share = (exponent - largest[:, None]).exp_().masked_fill_(outside, 0)
    total = share.sum(dim=1)
    return largest + total.log(), share.div_(total[:, None])
