"""What the variants and the temperatures do, seen without images in about a minute.

40 classes in 8 superclasses, 8 samples a class. A sample is a free unit vector in 32 dimensions,
moved by gradient descent on RINCE alone; rank 1 is the same class, rank 2 the same superclass.

    python examples/toy.py

"ordered" is the share of samples whose least similar sample of rank 1 is still nearer than their
most similar one of rank 2: the order that RINCE is there to teach. "sibling cosine" is the mean
cosine of two samples of rank 2: how strongly a superclass holds together.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

import rince
from rince.losses.definition import Positives, Variant

SUPERCLASSES, CLASSES_EACH, SAMPLES_EACH, DIMENSION = 8, 5, 8, 32

SETTINGS: tuple[tuple[Variant, Positives, tuple[float, float]], ...] = (
    ("in", "exclusive", (0.1, 0.1)),
    ("in", "exclusive", (0.1, 0.225)),
    ("in", "cumulative", (0.1, 0.225)),
    ("out", "exclusive", (0.1, 0.1)),
    ("out", "exclusive", (0.1, 0.225)),
    ("out-in", "exclusive", (0.1, 0.1)),
    ("out-in", "exclusive", (0.1, 0.225)),
)


@dataclass(frozen=True)
class Outcome:
    """Both in [0, 1] or [-1, 1]: see the top of this file."""

    ordered: float
    sibling_cosine: float


def train(
    variant: Variant,
    positives: Positives,
    temperatures: Sequence[float],
    *,
    steps: int = 200,
    seed: int = 0,
) -> Outcome:
    """Train free vectors, all of them in every step, and evaluate the order of their ranks."""
    tree = rince.Taxonomy(
        (f"super{i}", f"class{i}.{j}") for i in range(SUPERCLASSES) for j in range(CLASSES_EACH)
    )
    labels = torch.arange(tree.num_classes).repeat_interleave(SAMPLES_EACH)
    ranks = tree.ranks(labels, labels, ignore_self=True)
    # validate=False: equal temperatures, which are half the point here, earn a warning.
    criterion = rince.RankedInfoNCE(
        temperatures, variant=variant, positives=positives, validate=False
    )
    start = torch.randn(len(labels), DIMENSION, generator=torch.Generator().manual_seed(seed))
    z = functional.normalize(start, dim=1).requires_grad_()
    optimizer = torch.optim.SGD([z], lr=3.0, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        unit = functional.normalize(z, dim=1)
        criterion(unit, unit, ranks).backward()
        optimizer.step()
        with torch.no_grad():  # long vectors would turn ever more slowly
            z.copy_(functional.normalize(z, dim=1))
    return evaluate(z.detach(), ranks)


def evaluate(z: torch.Tensor, ranks: rince.ranks.PairRanks) -> Outcome:
    """z: (N, D) unit length; ranks: (N, N), 1 and 2 somewhere in each row."""
    similarity, rank = z @ z.T, ranks.tile(slice(None), slice(None))
    worst_same = similarity.masked_fill(rank != 1, torch.inf).amin(dim=1)
    best_sibling = similarity.masked_fill(rank != 2, -torch.inf).amax(dim=1)
    return Outcome(
        ordered=float((worst_same > best_sibling).float().mean()),
        sibling_cosine=float(similarity[rank == 2].mean()),
    )


def main(seeds: Sequence[int] = (0, 1, 2), steps: int = 200) -> None:
    torch.set_num_threads(1)  # these matrices are too small to share
    start = time.perf_counter()
    print(
        f"{'variant':<9}{'positives':<12}{'temperatures':<14}{'ordered':>8}{'sibling cosine':>16}"
    )
    for variant, positives, temperatures in SETTINGS:
        outcomes = [
            train(variant, positives, temperatures, seed=seed, steps=steps) for seed in seeds
        ]
        ordered = sum(outcome.ordered for outcome in outcomes) / len(seeds)
        cosine = sum(outcome.sibling_cosine for outcome in outcomes) / len(seeds)
        print(
            f"{variant:<9}{positives:<12}{temperatures!s:<14}{ordered:>8.1%}{cosine:>16.3f}",
            flush=True,
        )
    print(f"means over {len(seeds)} seeds, {steps} steps, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
