"""A queue of past keys with their labels (MoCo's dictionary, labelled)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rince.core.checks import require
from rince.core.labels import integers


class KeyQueue(nn.Module):
    """The last ``size`` keys, oldest overwritten first. All of it is in the state dict.

    Slots not yet filled are marked in ``valid``: give it to the rank source as ``key_valid``, so
    that they are ignored pairs rather than random negatives.

    Args:
        size: number of keys held.
        dim: width D of an embedding.
        num_heads: H; a key may be the embeddings of several heads side by side.

    Attributes:
        embeddings: (size, H * D) float32. labels, ids: (size,) int64. valid: (size,) bool.

    Example:
        >>> queue = KeyQueue(size=4, dim=2)
        >>> queue.push(torch.eye(2), torch.tensor([7, 8]), torch.tensor([0, 1]))
        >>> queue.valid.tolist(), queue.labels[queue.valid].tolist()
        ([True, True, False, False], [7, 8])
    """

    embeddings: Tensor
    labels: Tensor
    ids: Tensor
    valid: Tensor
    position: Tensor

    def __init__(self, size: int, dim: int, num_heads: int = 1) -> None:
        super().__init__()
        require(size > 0, f"a queue needs at least one slot, got {size}")
        self.size = size
        # Unit vectors, not zeros: an empty slot is masked, but its cosine must be defined.
        empty = torch.zeros(size, num_heads * dim)
        empty[:, ::dim] = 1
        self.register_buffer("embeddings", empty)
        self.register_buffer("labels", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("ids", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("valid", torch.zeros(size, dtype=torch.bool))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, embeddings: Tensor, labels: Any, ids: Any) -> None:
        """Write B new keys over the oldest; of more than ``size`` keys the last ones stay.

        Args:
            embeddings: (B, H * D). labels: (B,) integers. ids: (B,) integers.

        Raises:
            ValueError: lengths that differ, another dimension, or labels that are no integers.
        """
        count, labels, ids = len(embeddings), integers(labels), integers(ids, "ids")
        require(
            embeddings.ndim == 2
            and embeddings.shape[1] == self.embeddings.shape[1]
            and labels.shape == (count,)
            and ids.shape == (count,),
            f"the queue takes (B, {self.embeddings.shape[1]}) embeddings with (B,) labels and "
            f"ids, got {tuple(embeddings.shape)}, {tuple(labels.shape)}, {tuple(ids.shape)}",
        )
        kept = min(count, self.size)
        first = self.position + count - kept
        slots = (first + torch.arange(kept, device=embeddings.device)) % self.size
        self.embeddings[slots] = embeddings[count - kept :].to(self.embeddings.dtype)
        self.labels[slots] = labels[count - kept :]
        self.ids[slots] = ids[count - kept :]
        self.valid[slots] = True
        self.position.copy_((self.position + count) % self.size)
