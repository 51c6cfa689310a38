"""Slow, obvious definitions and inputs whose cosines are exact, shared by these tests."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

FloatArray = npt.NDArray[np.float64]


def sign_features(seed: int, size: int, dim: int = 4) -> Tensor:
    """Rows of +1 and -1: with dim 4 or 16 all cosines are exact in any precision, and most tie."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2, (size, dim), generator=generator).float() * 2 - 1


def normal_features(seed: int, size: int, dim: int = 8) -> Tensor:
    return torch.randn(size, dim, generator=torch.Generator().manual_seed(seed))


def random_labels(seed: int, size: int, classes: int) -> Tensor:
    return torch.randint(0, classes, (size,), generator=torch.Generator().manual_seed(seed))


def cosines(query: Tensor, gallery: Tensor) -> FloatArray:
    q, g = query.double().numpy(), gallery.double().numpy()
    q = q / np.linalg.norm(q, axis=1, keepdims=True)
    g = g / np.linalg.norm(g, axis=1, keepdims=True)
    result: FloatArray = q @ g.T
    return result
