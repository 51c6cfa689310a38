"""Memory and time of training steps with --micro-batch, by size of the batch.

    python benchmarks/micro_batch.py [--threads 1] [--objective rince]

Each row is a process of its own. It trains the small ResNet by `rince.training.run`'s own module
and trainer on random 32-pixel images of 100 classes in 20 groups (two views each), two steps of
which the second is timed. Memory is the peak of the resident memory over what was resident when
training started, the images in memory. CPU time is less disturbed by other work than wall time.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MICRO_BATCH = 256
STEPS = 2
# (batch, micro-batch); None: all at once
ROWS = (
    (1024, None),
    (2048, None),
    (1024, MICRO_BATCH),
    (4096, MICRO_BATCH),
    (16384, MICRO_BATCH),
)


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(batch_size: int, micro_batch: int | None, objective: Any, threads: int) -> Any:
    """(MB over the start; wall and CPU seconds of the last step), in a process of its own."""
    import torch

    from rince.data.arrays import TensorImages
    from rince.data.items import Splits
    from rince.ranks.taxonomy import Taxonomy
    from rince.training import run
    from rince.training.callbacks import EpochLine
    from rince.training.config import OptimOptions, TrainConfig

    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    tree = Taxonomy([(f"group{i // 5:02}", f"class{i:02}") for i in range(100)])
    ends: list[tuple[float, float]] = []
    start = [0.0]

    def random_images(count: int) -> TensorImages:
        pixels = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
        labels = torch.randint(0, 100, (count,), generator=generator)
        return TensorImages(pixels, labels, tree, "random")

    class Watch(EpochLine):
        def on_train_start(self, *given: Any) -> None:
            start[0] = resident_mb()

        def on_train_batch_end(self, *given: Any) -> None:
            super().on_train_batch_end(*given)
            ends.append((time.perf_counter(), time.process_time()))

    splits = Splits(random_images(STEPS * batch_size), random_images(10))
    run.EpochLine = Watch  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        config = TrainConfig(
            "random",
            objective=objective,
            optim=OptimOptions(lr=0.05, warmup_epochs=0),
            epochs=1,
            batch_size=batch_size,
            micro_batch=micro_batch,
            name="run",
            output=folder,
            accelerator="cpu",
            knn_every=0,
            progress=False,
        )
        run.train(config, splits=splits)
    wall, cpu = (b - a for a, b in zip(*ends[-2:], strict=True))
    return peak_mb() - start[0], wall, cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--objective", default="rince")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        batch_size, micro_batch = ROWS[options.one]
        print(*measure(batch_size, micro_batch, options.objective, options.threads))
        return
    print("| batch | micro-batch | peak extra MB | s a step | CPU ms an image |")
    print("|---:|---:|---:|---:|---:|")
    for index, (batch_size, micro_batch) in enumerate(ROWS):
        command = [sys.executable, __file__, "--one", str(index)]
        command += ["--objective", options.objective, "--threads", str(options.threads)]
        shown = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if shown.returncode == 0:
            memory, wall, cpu = (float(x) for x in shown.stdout.split())
            text = f"{memory:,.0f} | {wall:,.1f} | {1000 * cpu / batch_size:.2f}"
        else:
            text = "died | |"
        print(f"| {batch_size:,} | {micro_batch or 'none'} | {text} |", flush=True)


if __name__ == "__main__":
    main()
