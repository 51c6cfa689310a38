"""RINCE against pytorch-metric-learning's SupConLoss on small batches, with one rank and three.

    python benchmarks/small_batches.py

A batch against itself, D = 128, forward and backward; both take turns in one process, medians of
31 rounds, milliseconds.
"""

from __future__ import annotations

import statistics
import time

import torch

from losses import Case, Size

ROUNDS = 31


def main() -> None:
    print("| threads | batch | RINCE out-in, 3 ranks | RINCE out, 1 rank | SupConLoss, 1 rank |")
    print("|---:|---:|---:|---:|---:|")
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for batch in (128, 256, 512, 1024):
            three, one = (Case(Size(batch, None, 128, ranks)) for ranks in (3, 1))
            jobs = (
                lambda case=three: case.ours("out-in", "auto"),
                lambda case=one: case.ours("out", "auto"),
                one.supcon,
            )
            seconds: list[list[float]] = [[] for _ in jobs]
            for _ in range(ROUNDS):
                for own, job in zip(seconds, jobs, strict=True):
                    start = time.perf_counter()
                    job()
                    own.append(time.perf_counter() - start)
            cells = [f"{1000 * statistics.median(own):.2f}" for own in seconds]
            print(f"| {threads} | {batch:,} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
