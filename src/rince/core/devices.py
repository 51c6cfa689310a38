"""The devices of this machine, and the way to them."""

from __future__ import annotations

import torch
from torch import Tensor


def pinned(x: Tensor, device: torch.device | str) -> Tensor:
    """In memory that a GPU fetches from by itself, if that is where it goes; else as it is."""
    goes = x.device.type == "cpu" and torch.device(device).type == "cuda"
    return x.pin_memory() if goes else x


def sent(x: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on a device; the way from the CPU to a GPU is not waited for."""
    return pinned(x, device).to(device, non_blocking=torch.device(device).type == "cuda")


def known_device(name: str) -> str:
    """The device of this machine that ``--device`` means; "auto" is cuda, or else cpu."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    cuda = ["cuda", *(f"cuda:{index}" for index in range(count))] if count else []
    mps = ["mps"] if torch.backends.mps.is_available() else []
    if name == "auto":
        return "cuda" if cuda else "cpu"
    allowed = ["cpu", *cuda, *mps]
    if name not in allowed:
        raise ValueError(
            f"--device {name} is not on this machine; it has {', '.join(allowed)} (or say auto)"
        )
    return name
