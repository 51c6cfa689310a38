"""Under torch.func.vmap losses are those of a loop, or say why they cannot be."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from losses_helpers import unit

from rince import losses
from rince.core.pair_ranks import DenseRanks, IdentityRanks

RANKED = DenseRanks(torch.tensor([[1, 2, 0, -1], [0, 1, 2, 0], [2, 0, 1, 1]]), num_ranks=2)
OWN = IdentityRanks(torch.arange(3), torch.arange(4))
LOSSES: dict[str, Any] = {
    "ranked_info_nce": partial(losses.ranked_info_nce, ranks=RANKED, temperatures=(0.1, 0.2)),
    "info_nce": losses.info_nce,
    "supcon_in": partial(losses.supcon_in, ranks=OWN),
    "supcon_out": partial(losses.supcon_out, ranks=OWN),
    "supcon_siblings": partial(losses.supcon_siblings, ranks=RANKED),
    "himulcon": partial(losses.himulcon, ranks=RANKED),
    "cross_scale": partial(losses.cross_scale, ranks=RANKED),
    "smooth_ap": partial(losses.smooth_ap, ranks=RANKED),
    "x_clr": partial(losses.x_clr, ranks=RANKED),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_those_of_a_loop_where_no_values_are_checked(name: str) -> None:
    query, key = unit(0, 2, 3, 5), unit(1, 2, 4, 5)
    loss = partial(LOSSES[name], validate=False)
    alone = torch.stack([loss(q, k) for q, k in zip(query, key, strict=True)])
    torch.testing.assert_close(torch.func.vmap(loss)(query, key), alone)
    gradients = torch.func.vmap(torch.func.grad(loss))(query, key)
    torch.testing.assert_close(gradients[1], torch.func.grad(loss)(query[1], key[1]))
    for checked in (LOSSES[name], torch.func.grad(LOSSES[name])):
        with pytest.raises(ValueError, match=r"torch\.func\.vmap .*validate=False"):
            torch.func.vmap(checked)(query, key)


def test_ranks_may_be_what_differs() -> None:
    query, key = unit(0, 3, 5), unit(1, 4, 5)
    matrices = torch.stack([RANKED.matrix, RANKED.matrix.flip(0)])
    loss = partial(losses.ranked_info_nce, query, key, temperatures=(0.1, 0.2))
    alone = torch.stack([loss(ranks=ranks) for ranks in matrices])
    found = torch.func.vmap(lambda ranks: loss(ranks=ranks, validate=False))(matrices)
    torch.testing.assert_close(found, alone)
    with pytest.raises(ValueError, match="validate=False"):
        torch.func.vmap(lambda ranks: loss(ranks=ranks))(matrices)


def test_rank_n_contrast_needs_no_option() -> None:
    z, targets = unit(0, 2, 5, 3), torch.arange(10.0).view(2, 5) ** 2
    alone = [losses.rank_n_contrast(*pair) for pair in zip(z, targets, strict=True)]
    found = torch.func.vmap(losses.rank_n_contrast)(z, targets)
    torch.testing.assert_close(found, torch.stack(alone))
