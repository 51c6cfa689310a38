"""The devices of this machine."""

from __future__ import annotations

import torch


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
