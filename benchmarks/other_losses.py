"""RINCE beside the losses that people use today: time and memory from a batch of 256 up.

    python benchmarks/other_losses.py [--threads 2] [--largest 32768]
        [--output benchmarks/other_losses] [--device cpu]

A batch against itself, D = 128, forward and backward, gradients to the embeddings; the same
embeddings and labels (100 classes, three ranks) for all. Each loss and size has a process of its
own with at most 12 GB of data and five minutes. A process first notes how much its peak resident
memory rises in one call, then takes turns between the loss and the bare matrix products (see
benchmarks/losses.py): the medians' ratio is what counts, as the machine's speed drifts. On a GPU
(--device cuda) memory is what the allocator gave out, and without a limit of its own.

Needs pytorch-metric-learning, sentence-transformers and matplotlib. Writes OUTPUT.md, OUTPUT.csv
and OUTPUT.png.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from devices import peak_bytes, seconds
from torch import Tensor, nn

from losses import Case, Size

DIM, RANKS, FIRST = 128, 3, 256
DATA_BYTES = 12 * 2**30
SECONDS = 300


class Row(NamedTuple):
    loss: str
    batch: int
    milliseconds: float | None  # None: it died
    times_bare: float | None
    extra_mb: float | None
    died_of: str = ""


def _ntxent(case: Case) -> None:
    from pytorch_metric_learning.losses import NTXentLoss

    torch.autograd.grad(NTXentLoss(temperature=0.1)(case.query, case.labels), case.leaves)


def _mnrl(case: Case) -> None:
    from sentence_transformers.losses import MultipleNegativesRankingLoss

    loss = MultipleNegativesRankingLoss(nn.Identity())  # type: ignore[arg-type]
    value = loss.compute_loss_from_embeddings([case.query, case.query], torch.empty(0))
    torch.autograd.grad(value, case.leaves)


def _cached_mnrl(case: Case) -> None:
    from sentence_transformers.losses import CachedMultipleNegativesRankingLoss

    loss = CachedMultipleNegativesRankingLoss(nn.Sequential(nn.Identity()), mini_batch_size=256)  # type: ignore

    def parts() -> list[Tensor]:
        return [x.detach().requires_grad_() for x in case.query.split(256)]

    loss.calculate_loss([parts(), parts()], with_backward=True)


def _fused(case: Case) -> None:
    case.fused("out-in", "fp32")


LOSSES: dict[str, Callable[[Case], None]] = {
    "RINCE out-in": lambda case: case.ours("out-in", "streamed"),
    "RINCE in": lambda case: case.ours("in", "streamed"),
    "RINCE out-in, dense": lambda case: case.ours("out-in", "dense"),
    "InfoNCE, F.cross_entropy": lambda case: case.cross_entropy(),
    "SupConLoss, pytorch-metric-learning": lambda case: case.supcon(),
    "NTXentLoss, pytorch-metric-learning": _ntxent,
    "MultipleNegativesRankingLoss, sentence-transformers": _mnrl,
    "CachedMultipleNegativesRankingLoss, sentence-transformers": _cached_mnrl,
}


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure(name: str, batch: int, device: str) -> Row:
    """In this process."""
    job, case = LOSSES[name], Case(Size(batch, None, DIM, RANKS), device)
    if device == "cpu":
        resource.setrlimit(resource.RLIMIT_DATA, (DATA_BYTES, DATA_BYTES))
    job(Case(Size(64, None, DIM, RANKS), device))
    before = peak()
    first = seconds(lambda: job(case), case.device)
    extra = (peak() - before) / 1024 if device == "cpu" else peak_bytes(lambda: job(case)) / 2**20
    rounds = 7 if first < 2 else 3 if first < 20 else 1
    own, bare = [], []
    case.bare()
    for _ in range(rounds):
        own.append(seconds(lambda: job(case), case.device))
        bare.append(seconds(case.bare, case.device))
    ratio = statistics.median(own) / statistics.median(bare)
    return Row(name, batch, 1000 * statistics.median(own), ratio, extra)


def measure_apart(name: str, batch: int, threads: int, device: str) -> Row:
    command = [sys.executable, __file__, "--threads", str(threads), "--one", name, str(batch)]
    command += ["--device", device]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return Row(name, batch, None, None, None, f"over {SECONDS} s")
    if run.returncode == 0:
        return Row(*json.loads(run.stdout.splitlines()[-1]))
    why = "memory" if "allocate" in run.stderr or run.returncode < 0 else run.stderr[-300:]
    return Row(name, batch, None, None, None, why)


def table(rows: list[Row], value: Callable[[Row], str]) -> list[str]:
    batches = sorted({row.batch for row in rows})
    lines = ["| batch | " + " | ".join(f"{b:,}" for b in batches) + " |"]
    lines.append("|:---|" + "---:|" * len(batches))
    for name in LOSSES:
        of_batch = {row.batch: row for row in rows if row.loss == name}
        cells = [value(of_batch[b]) if b in of_batch else "" for b in batches]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def plot(rows: list[Row], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
    for name in LOSSES:
        mine = [row for row in rows if row.loss == name and row.milliseconds is not None]
        style = {"marker": "o", "markersize": 4, "linewidth": 2 if "RINCE" in name else 1.2}
        batches = [row.batch for row in mine]
        axes[0].plot(batches, [row.milliseconds for row in mine], label=name, **style)
        axes[1].plot(batches, [max(row.extra_mb or 0, 0.5) for row in mine], **style)
    largest = max((row for row in rows if row.milliseconds is not None), key=lambda r: r.batch)
    ends = [FIRST * 4, largest.batch]
    for axis, end, power, text in (
        (axes[0], largest.milliseconds or 1, 2, "quadratic"),
        (axes[1], largest.extra_mb or 1, 1, "linear"),
    ):
        line = [end * (x / largest.batch) ** power / 2 for x in ends]
        axis.plot(ends, line, ":", color="gray", linewidth=1)
        axis.annotate(text, (ends[0], line[0]), color="gray", va="top")
        axis.set(xscale="log", yscale="log", xlabel="batch")
        axis.grid(alpha=0.3, which="both", linewidth=0.5)
    axes[0].set_title("forward and backward, ms", loc="left")
    axes[1].set_title("peak memory above the inputs, MB", loc="left")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--largest", type=int, default=32768)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/other_losses"))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.device == "cuda":
        LOSSES["RINCE out-in, fused"] = _fused
    if options.one:
        print(json.dumps(measure(options.one[0], int(options.one[1]), options.device)))
        return
    rows: list[Row] = []
    batch, alive = FIRST, list(LOSSES)
    while batch <= options.largest:
        for name in list(alive):
            row = measure_apart(name, batch, options.threads, options.device)
            rows.append(row)
            print(row, flush=True)
            if row.milliseconds is None:
                alive.remove(name)
        batch *= 2
    text = [
        "# RINCE beside other losses",
        "",
        f"`python benchmarks/other_losses.py --threads {options.threads} "
        f"--largest {options.largest}` on "
        f"{platform.machine()}, torch {torch.__version__}. What is compared, and how, stands in "
        "the script. A process may take 12 GB and five minutes.",
        "",
        "Time, forward and backward, as a multiple of the bare matrix products:",
        "",
        *table(rows, lambda r: r.died_of or f"{r.times_bare:.2f}"),
        "",
        "Milliseconds:",
        "",
        *table(rows, lambda r: r.died_of or f"{r.milliseconds:,.0f}"),
        "",
        "Peak resident memory above the inputs, MB (gradients included):",
        "",
        *table(rows, lambda r: r.died_of or f"{r.extra_mb:,.0f}"),
        "",
        "The losses do different work: InfoNCE and MultipleNegativesRankingLoss know one positive "
        "a query, SupConLoss and NTXentLoss one rank, RINCE three.",
        "",
        f"![time and memory]({options.output.name}.png)",
        "",
    ]
    options.output.with_suffix(".md").write_text("\n".join(text))
    with options.output.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Row._fields)
        writer.writerows(rows)
    plot(rows, options.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
