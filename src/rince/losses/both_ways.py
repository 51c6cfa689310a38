"""A loss between two sides, such as images and texts: each is once the query and once the key."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

from rince.core.checks import require
from rince.core.pair_ranks import ALL, DenseRanks, PairRanks, as_pair_ranks
from rince.losses.common import check_embeddings

PairLoss: TypeAlias = Callable[[Tensor, Tensor, PairRanks], Tensor]
"""A scalar of (Q, D) queries, (K, D) keys and their (Q, K) ranks."""


def both_ways(loss: PairLoss, image: Tensor, text: Tensor, ranks: PairRanks | Tensor) -> Tensor:
    """(loss(image, text, ranks) + loss(text, image, ranks transposed)) / 2.

    With InfoNCE it is CLIP's symmetric loss (Radford et al. 2021, arXiv 2103.00020, figure 3).

    Args:
        loss: such as :class:`~rince.RankedInfoNCE`; of one scalar.
        image: (Q, D) unit length. text: (K, D) unit length.
        ranks: (Q, K) of each text for each image; 1 = most similar, 0 = negative, -1 = ignored.
            The way back takes them as a matrix of Q K bytes.

    Raises:
        ValueError: as the loss, or a loss that gives no scalar.

    Example:
        >>> import torch, rince
        >>> image, text = torch.eye(3)[:2], torch.eye(3)
        >>> ranks = torch.tensor([[1, 2, 0], [2, 1, 0]])
        >>> loss = rince.RankedInfoNCE((0.5, 1.0))
        >>> there, back = loss(image, text, ranks), loss(text, image, ranks.T)
        >>> bool(rince.losses.both_ways(loss, image, text, ranks) == (there + back) / 2)
        True
    """
    check_embeddings(image, text)
    there = as_pair_ranks(ranks, image.device, validate=False)
    back = DenseRanks(there.tile(ALL, ALL).T, there.num_ranks, validate=False)
    ways = (loss(image, text, there), loss(text, image, back))
    require(
        all(way.ndim == 0 for way in ways),
        f"the loss must give a scalar, got shapes {tuple(ways[0].shape)} and "
        f"{tuple(ways[1].shape)} (reduction='none'?)",
    )
    return (ways[0] + ways[1]) / 2
