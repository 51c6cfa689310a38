"""What ranks of a class tree cost by the number of classes: building it, a summary, a step.

    python benchmarks/ranks.py

Building is in seconds of the processor. The labels of a step are of 100 classes anywhere in the
tree, anew each time; the sizes take turns, so that a busy machine slows all of them alike, and the
smallest of many times counts. Up to 2,048 classes ranks are looked up in a table, above they are
compared by level.
"""

from __future__ import annotations

import argparse
import platform
import resource
import subprocess
import sys
import time

import torch

from rince.data.sampler import BalancedPlan
from rince.ranks import LevelRanks, Taxonomy

SIZES = (100, 10_000, 1_000_000)
LEVELS = 4


def paths(size: int) -> list[tuple[str, ...]]:
    """``size`` classes in groups of 10, 100 and 1,000."""
    return [(f"top {c // 1000}", f"mid {c // 100}", f"low {c // 10}", f"{c}") for c in range(size)]


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def build(size: int) -> None:
    """Time and memory of one size; in a process of its own, as memory is that of the process."""
    rows = paths(size)
    before, start = peak_mb(), time.process_time()
    tree = Taxonomy(rows)
    _ = tree.codes
    built, memory = time.process_time() - start, peak_mb() - before
    start = time.process_time()
    tree.describe(256)
    described, whole = time.process_time() - start, peak_mb() - before
    labels = torch.arange(size).repeat(4)
    start = time.process_time()
    if len(labels) >= 1024:
        plan = BalancedPlan(labels, tree.labels_at(LEVELS), 256, 4, 4, seed=0)
        plan.order(0)
    epoch = time.process_time() - start
    print(
        f"| {size:,} | {built:.2f} | {memory:.0f} | {described:.2f} | {whole:.0f} | {epoch:.2f} |",
        flush=True,
    )


def steps(batch: int, rounds: int) -> None:
    """Ranks of all pairs of a batch by the number of classes."""
    trees = {size: Taxonomy(paths(size)) for size in SIZES}
    for tree in trees.values():
        assert isinstance(tree.ranks([0], [0]), LevelRanks) == (tree.num_classes > 2048)
    milliseconds: dict[int, list[float]] = {size: [] for size in SIZES}
    for _ in range(rounds):
        for size, tree in trees.items():
            first = int(torch.randint(0, size - 99, ()))
            labels = first + torch.randint(0, 100, (batch,))
            start = time.perf_counter()
            tree.ranks(labels, labels, ignore_self=True).tile(slice(None), slice(None))
            milliseconds[size].append(1000 * (time.perf_counter() - start))
    print("| classes | ranks, ms | ratio |")
    print("|---:|---:|---:|")
    for size in SIZES:
        best = min(milliseconds[size])
        print(f"| {size:,} | {best:.2f} | {best / min(milliseconds[SIZES[0]]):.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=int, help="one size only, in this process")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=200)
    given = parser.parse_args()
    if given.build:
        build(given.build)
        return
    print(f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} thread(s)\n")
    print("| classes | built, CPU s | MB | summary, s | MB | balanced epoch of 4 C images, s |")
    print("|---:|---:|---:|---:|---:|---:|", flush=True)
    for size in SIZES:
        subprocess.run([sys.executable, __file__, "--build", str(size)], check=True)
    print(f"\nA step of {given.batch} items, {LEVELS} levels:\n", flush=True)
    steps(given.batch, given.rounds)


if __name__ == "__main__":
    main()
