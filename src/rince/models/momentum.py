"""The momentum encoder: a slow copy of the encoder that makes the keys (MoCo)."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from rince.core.checks import require
from rince.models.weights import require_initialised


class MomentumEncoder(nn.Module):
    """A true copy of an encoder whose weights follow it: w <- m * w + (1 - m) * w_online.

    He et al., "Momentum Contrast", CVPR 2020, equation 2.

    Buffers: batch-norm running statistics are the copy's own. In training mode it normalises
    with the statistics of the batch it sees (as in MoCo) and gathers its running statistics from
    those; they are neither copied nor averaged, and all are in the checkpoint.

    Args:
        online: the encoder to follow; copied, not shared. To train both under FSDP
            (``fully_shard``), copy first, then shard both alike.
        momentum: m in [0, 1]; 0.99 in the paper's CIFAR-100 study. 0 copies, 1 never moves.

    Raises:
        ValueError: momentum outside [0, 1], or weights without a shape yet (LazyLinear).
    """

    def __init__(self, online: nn.Module, momentum: float = 0.99) -> None:
        super().__init__()
        require(0 <= momentum <= 1, f"momentum must lie in [0, 1], got {momentum}")
        require_initialised(online)
        self.momentum = momentum
        # What a hook computes from weights before each call (torch.nn.utils.weight_norm) stands
        # beside them with a graph, which deepcopy refuses.
        computed = {
            id(x): x.detach().clone()
            for module in online.modules()
            for x in vars(module).values()
            if isinstance(x, torch.Tensor) and not x.is_leaf
        }
        self.module = copy.deepcopy(online, computed).requires_grad_(False)

    @torch.no_grad()
    def update(self, online: nn.Module) -> None:
        """Move every weight a step towards the online encoder's; call after its optimizer step.

        Raises:
            ValueError: weights of other shapes, or only one of the two is sharded.
        """
        mine: list[torch.Tensor] = list(self.module.parameters())
        theirs = [p.detach() for p in online.parameters()]
        layouts = [[(p.shape, getattr(p, "placements", None)) for p in x] for x in (mine, theirs)]
        require(
            layouts[0] == layouts[1],
            "the online encoder holds other weights than the momentum encoder, or one of them is "
            "sharded and the other not: build the MomentumEncoder from the whole encoder, then "
            "shard both alike, fully_shard(encoder, reshard_after_forward=True) and "
            "fully_shard(momentum_encoder.module, reshard_after_forward=True)",
        )
        torch._foreach_lerp_(mine, theirs, 1 - self.momentum)

    @torch.no_grad()
    def forward(self, *inputs: Any) -> Any:
        return self.module(*inputs)
