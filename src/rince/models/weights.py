"""Weights into a module: all of them, or an error that says what does not fit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from rince.core.checks import RinceError


def load_strictly(module: nn.Module, weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Load all weights or refuse, saying what does not fit."""
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
