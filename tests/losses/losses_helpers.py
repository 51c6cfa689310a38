"""What several tests of the losses draw or watch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode


def unit(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random vectors of length 1."""
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(*shape, generator=generator, dtype=dtype), dim=-1)


def as_numbers(losses: list[float | None]) -> Tensor:
    """The oracle's losses, 0 for a query that has nothing to learn."""
    return torch.tensor([0.0 if x is None else x for x in losses], dtype=torch.float64)


class LargestTensor(TorchDispatchMode):
    """Notes the largest number of elements that any operation gives."""

    size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for x in found if isinstance(found, (tuple, list)) else (found,):
            if isinstance(x, Tensor):
                self.size = max(self.size, x.numel())
        return found
