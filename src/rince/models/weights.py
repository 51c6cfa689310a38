"""Weights into a module: all of them, or an error that says what does not fit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from rince.core.checks import RinceError, require


def require_initialised(module: nn.Module) -> None:
    """Raise ``ValueError`` where weights wait for a first batch to get their shapes."""
    lazy = [name for name, p in module.named_parameters() if is_lazy(p)]
    require(
        not lazy,
        f"{type(module).__name__} has weights without a shape yet ({', '.join(lazy[:3])}): call it "
        f"once on a batch of real size before it is used here",
    )


def take_shapes_of_buffers(module: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Make buffers as large as stored ones: those of some modules grow while they train."""
    for prefix, owner in module.named_modules():
        for name, buffer in list(owner._buffers.items()):
            stored = weights.get(f"{prefix}.{name}".lstrip("."))
            if stored is None or (buffer is not None and buffer.shape == stored.shape):
                continue
            device = None if buffer is None else buffer.device
            setattr(owner, name, torch.empty_like(stored, device=device))


def load_strictly(module: nn.Module, weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Load all weights or refuse, saying what does not fit."""
    take_shapes_of_buffers(module, weights)
    own = module.state_dict()
    problems = [f"missing {name}" for name in own if name not in weights]
    problems += [f"unexpected {name}" for name in weights if name not in own]
    problems += [
        f"{name} is {tuple(weights[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if problems:
        shown = "; ".join(problems[:3])
        raise RinceError(
            f"{path} comes from another architecture than {type(module).__name__}: {shown}"
            + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
        )
    module.load_state_dict(dict(weights))


def fingerprint(facts: tuple[object, ...], module: nn.Module) -> str:
    """A hex digest of these facts and of all weights and buffers."""
    digest = hashlib.blake2b(repr(facts).encode(), digest_size=16)
    for name, x in module.state_dict().items():
        digest.update(f"{name} {tuple(x.shape)} {x.dtype}".encode())
        digest.update(x.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
