"""What the examples train on: scikit-learn's 1,797 handwritten digits, 8 x 8, in three groups.

Rank 1 is the same digit, rank 2 a digit of the same group. The groups are ours, by shape.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn
from torch.nn import functional

import rince
import rince.metrics

TREE = rince.Taxonomy.from_dict(
    {"round": ["0", "6", "8", "9"], "straight": ["1", "4", "7"], "curved": ["2", "3", "5"]}
)
TEMPERATURES = (0.1, 0.225)


def load() -> tuple[torch.utils.data.TensorDataset, torch.utils.data.TensorDataset]:
    """Training and test set of (64 pixels, label); labels are positions in TREE.classes."""
    from sklearn.datasets import load_digits

    pixels, digits = load_digits(return_X_y=True)
    x = torch.tensor(pixels, dtype=torch.float32) / 16
    labels = torch.tensor([TREE.index(str(digit)) for digit in digits])
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    parts = (order[:1297], order[1297:])
    train, test = (torch.utils.data.TensorDataset(x[i], labels[i]) for i in parts)
    return train, test


class Encoder(nn.Sequential):
    """64 pixels -> 16 numbers of unit length."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 16))

    def forward(self, pixels: Tensor) -> Tensor:
        return functional.normalize(super().forward(pixels), dim=1)


@torch.no_grad()
def evaluate(encoder: nn.Module, test: torch.utils.data.TensorDataset) -> dict[str, float]:
    """R@1 of the digit, and how often pairs of neighbouring ranks are in the right order."""
    x, labels = test.tensors
    z = encoder(x)
    ranks = TREE.ranks(labels, labels, ignore_self=True)
    result = rince.metrics.retrieval(z, z, labels, labels, ks=(1,), exclude_self=True)
    agreement = rince.metrics.rank_agreement(z, z, ranks)
    return {"R@1": result.recall[1]} | {name: agreement[f"pairs/{name}"] for name in ("1>2", "2>0")}


def arguments(description: str) -> argparse.Namespace:
    """``--epochs``, and ``--smoke`` for one."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--smoke", action="store_true", help="one epoch: does it run?")
    options = parser.parse_args()
    options.epochs = 1 if options.smoke else options.epochs
    return options


def report(name: str, before: dict[str, float], after: dict[str, float]) -> None:
    for title, values in (("untrained", before), (name, after)):
        print(f"{title:<14}" + "  ".join(f"{key} {value:6.1%}" for key, value in values.items()))
