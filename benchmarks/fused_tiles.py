"""Which tile sizes suit the fused engine on this card: the numbers behind default_tiles.

    python benchmarks/fused_tiles.py [--output benchmarks/fused-tiles.md] [--batch 8192]
        [--precisions fp32 bf16]

A batch against itself, three ranks, "out-in". Forward tiles are timed by the forward pass alone,
backward tiles by both with the default forward tiles. Compiled by as many processes as there are
cores; a tile that the card cannot take is named with its error.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from devices import about, median_seconds

from losses import Case, Size
from rince.losses.blockwise.fused import Tiles, default_tiles, fused_loss

FORWARD = {
    "fp32": (
        (128, 64, 64, 8, 2, "tf32x3"), (128, 64, 64, 8, 2, "bf16x6"), (64, 64, 128, 4, 2, "bf16x6"),
        (128, 64, 128, 8, 1, "bf16x6"), (128, 64, 64, 8, 2, "bf16x3"),
    ),
    "bf16": (
        (64, 64, 128, 4, 2), (128, 64, 128, 8, 2), (128, 128, 128, 8, 2), (128, 64, 128, 8, 3),
    ),
}  # fmt: skip
BACKWARD = {
    "fp32": (
        (128, 32, 128, 8, 1, "tf32x3"), (64, 32, 128, 4, 2, "tf32x3"),
        (128, 32, 128, 8, 1, "bf16x6"), (64, 32, 128, 4, 2, "bf16x6"),
        (64, 64, 128, 8, 1, "bf16x6"), (64, 32, 256, 8, 2, "bf16x6"),
        (64, 32, 256, 8, 2, "bf16x3"), (128, 32, 256, 8, 1, "bf16x3"),
    ),
    "bf16": (
        (64, 32, 128, 4, 2), (128, 32, 128, 8, 3), (64, 32, 256, 8, 2), (128, 32, 256, 8, 2),
        (64, 64, 256, 8, 2),
    ),
}  # fmt: skip


class Trial(NamedTuple):
    dimension: int
    precision: str
    backward: bool
    tiles: Tiles


def work(trial: Trial, batch: int) -> Any:
    case = Case(Size(batch, None, trial.dimension, 3), "cuda")
    precision: Any = trial.precision
    forward, backward = default_tiles(trial.dimension, precision, (9, 0))
    chosen = (forward, trial.tiles) if trial.backward else (trial.tiles, backward)

    def run() -> None:
        loss, _ = fused_loss(
            case.query, case.key, case.ranks, case.taus, "out-in", "exclusive",
            reduction="mean", precision=precision, tiles=chosen,
        )  # fmt: skip
        if trial.backward:
            torch.autograd.grad(loss, case.leaves)

    return run


def compiles(trial: Trial) -> str:
    """Nothing, or what went wrong."""
    try:
        work(trial, 64)()
        torch.cuda.synchronize()
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:120]}"
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("benchmarks/fused-tiles.md"))
    parser.add_argument("--batch", type=int, default=8192)
    parser.add_argument("--precisions", nargs="+", choices=sorted(FORWARD), default=["fp32"])
    given = parser.parse_args()
    if not torch.cuda.is_available():
        print("not run: PyTorch finds no CUDA card here")
        return
    trials = [
        Trial(dimension, precision, backward, Tiles(*tiles))
        for precision in given.precisions
        for dimension in (128, 256)
        for backward, candidates in ((False, FORWARD), (True, BACKWARD))
        for tiles in candidates[precision]
        if tiles[2] <= dimension
    ]
    workers = min(len(trials), os.cpu_count() or 2)
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        faults = pool.map(compiles, trials, chunksize=1)
    lines = [*about(torch.device("cuda")), ""]
    lines += [
        f"{given.batch:,} in-batch, R = 3, out-in",
        "Tiles: (rows, columns, components, warps, stages, products)",
    ]
    lines += ["", "| D | products | pass | tiles | ms |", "|---:|:---|:---|:---|---:|"]
    for trial, fault in zip(trials, faults, strict=True):
        cell = fault.replace("\n", " ").replace("|", "/")
        if not fault:
            seconds = median_seconds(work(trial, given.batch), torch.device("cuda"), budget=0.1)
            cell = f"{1000 * seconds:.3f}"
        which = "both" if trial.backward else "forward"
        start = f"| {trial.dimension} | {trial.precision} | {which} "
        lines.append(f"{start}| {tuple(trial.tiles)} | {cell} |")
        given.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
