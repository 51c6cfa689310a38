"""What the streamed and the fused engine have in common: how they take temperatures, and what only
the dense one can do."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rince.core.checks import require


def stacked(taus: Sequence[float | Tensor], device: torch.device, dtype: torch.dtype) -> Tensor:
    """(R,) temperatures, with the graph of those that are tensors."""
    # full: a number copied from memory would make the host wait for the device.
    return torch.stack(
        [
            t.to(device, dtype)
            if isinstance(t, Tensor)
            else torch.full((), t, dtype=dtype, device=device)
            for t in taus
        ]
    )


def refuse_functorch(engine: str) -> None:
    """Raise ``ValueError`` under a transform of torch.func."""
    require(
        not torch._C._are_functorch_transforms_active(),
        f'the {engine} engine does not work under torch.func (grad, vmap, ...): use engine="dense"',
    )


def refuse_second_derivatives(engine: str) -> None:
    """Raise ``RuntimeError`` in a backward pass that is to have a graph of its own."""
    if torch.is_grad_enabled():  # create_graph=True
        raise RuntimeError(
            f'the {engine} engine has no second derivatives (create_graph=True): use engine="dense"'
        )
