"""Time and memory of the losses, forward and backward, against the bare matrix products.

    python benchmarks/losses.py [--threads 1] [--rounds 7] [--memory] [--device cpu]

"bare" is what no exact loss can do without: the similarities, computed forward and again
backward, and the two products that give the gradients of queries and keys. All losses of a size
take turns in one process; the table holds medians as multiples of bare. --memory starts a process
for each loss and size, and shows how much its peak resident memory rises over the inputs.

pytorch-metric-learning's SupConLoss joins in if it is installed. On a GPU (--device cuda) the bare
products come in fp32, TF32 and bf16, the fused engine and the compiled dense one join in, and
--memory reads the allocator.
"""

from __future__ import annotations

import argparse
import importlib.util
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

import torch
from devices import about, median_seconds, peak_bytes, seconds
from torch import Tensor
from torch.nn import functional

from rince.core.pair_ranks import ALL, DenseRanks, TableRanks
from rince.losses.blockwise.sizes import Sizes
from rince.losses.ranked_info_nce import RankedInfoNCE, ranked_info_nce


class Size(NamedTuple):
    queries: int
    keys: int | None  # None: the queries are the keys
    dimension: int
    ranks: int

    def __str__(self) -> str:
        sides = f"{self.queries} in-batch" if self.keys is None else f"{self.queries} x {self.keys}"
        return f"{sides}, D={self.dimension}, R={self.ranks}"


SIZES = (
    Size(512, 4096, 128, 2),
    Size(2048, None, 128, 3),
    Size(8192, None, 256, 3),
)
LARGE = Size(32768, None, 256, 3)
GPU_SIZES = (
    Size(512, 4096, 128, 2),
    Size(512, 65536, 128, 2),
    Size(1024, None, 128, 3),
    Size(8192, None, 256, 3),
    LARGE,
)
DENSE_UP_TO = 8192 * 8192
CLASSES = 100
TAUS = (0.1, 0.225, 0.5)


class Case:
    """100 classes in groups of 5 (rank 2) and 25 (rank 3)."""

    def __init__(self, size: Size, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        generator = torch.Generator().manual_seed(0)
        own = size.keys is None
        self.query = self._unit(size.queries, size.dimension, generator)
        num_keys = size.keys or size.queries
        self.key = self.query if own else self._unit(num_keys, size.dimension, generator)
        labels = torch.randint(0, CLASSES, (size.queries,), generator=generator)
        others = labels if own else torch.randint(0, CLASSES, (num_keys,), generator=generator)
        c = torch.arange(CLASSES)
        table = torch.zeros(CLASSES, CLASSES, dtype=torch.int8)
        for rank, group in ((3, 25), (2, 5), (1, 1)):
            if rank <= size.ranks:
                table[c[:, None] // group == c // group] = rank
        labels, others, table = (x.to(self.device) for x in (labels, others, table))
        self.labels, self.key_labels = labels, labels if own else others
        self.ranks = TableRanks(
            labels, self.key_labels, table, ignore_self=own, num_ranks=size.ranks
        )
        self.taus = TAUS[: size.ranks]
        self.leaves = [self.query] if own else [self.query, self.key]

    def _unit(self, count: int, dimension: int, generator: torch.Generator) -> Tensor:
        x = torch.randn(count, dimension, generator=generator)
        return functional.normalize(x, dim=1).to(self.device).requires_grad_()

    def bare(self, dtype: torch.dtype = torch.float32) -> None:
        query, key = self.query.detach().to(dtype), self.key.detach().to(dtype)
        on_gpu = self.device.type == "cuda"
        block = 4096 if on_gpu else Sizes().queries_per_block(8 * len(key))
        d_query, d_key = torch.empty_like(query), torch.zeros_like(key)
        scratch = query.new_empty(block, len(key))
        for backward in (False, True):
            for part, out in zip(query.split(block), d_query.split(block), strict=True):
                similarity = torch.mm(part, key.T, out=scratch[: len(part)])
                if backward:
                    torch.mm(similarity, key, out=out)
                    d_key.addmm_(similarity.T, part)

    def bare_tf32(self) -> None:
        torch.backends.cuda.matmul.allow_tf32 = True
        try:
            self.bare()
        finally:
            torch.backends.cuda.matmul.allow_tf32 = False

    def ours(
        self, variant: str, engine: str, *, validate: bool = True, precision: str = "fp32"
    ) -> None:
        loss = ranked_info_nce(
            self.query, self.key, self.ranks, self.taus,
            variant=variant, engine=engine, validate=validate, matmul_precision=precision,
        )  # fmt: skip
        torch.autograd.grad(loss, self.leaves)

    def fused(self, variant: str, precision: str) -> None:
        from rince.losses.blockwise.fused import fused_loss

        loss, _ = fused_loss(
            self.query, self.key, self.ranks, self.taus, variant, "exclusive",
            reduction="mean", precision=precision,
        )  # fmt: skip
        torch.autograd.grad(loss, self.leaves)

    def compiled_dense(self) -> Callable[[], None]:
        """The ranks are made outside, once."""
        matrix = DenseRanks(self.ranks.tile(ALL, ALL), num_ranks=len(self.taus))
        criterion = RankedInfoNCE(self.taus, engine="dense", validate=False)
        compiled = torch.compile(criterion, fullgraph=True, dynamic=False)

        def work() -> None:
            torch.autograd.grad(compiled(self.query, self.key, matrix), self.leaves)

        return work

    def cross_entropy(self) -> None:
        """InfoNCE as everybody writes it; one positive, so less work than any of the others."""
        logits = self.query @ self.key.T / 0.1
        target = torch.arange(len(self.query), device=self.device)
        torch.autograd.grad(functional.cross_entropy(logits, target), self.leaves)

    def supcon(self) -> None:
        from pytorch_metric_learning.losses import SupConLoss

        own = self.key is self.query
        extra = {} if own else {"ref_emb": self.key, "ref_labels": self.key_labels}
        loss = SupConLoss(temperature=0.1)(self.query, self.labels, **extra)
        torch.autograd.grad(loss, self.leaves)


def contenders(case: Case, size: Size) -> dict[str, Callable[[], None]]:
    jobs: dict[str, Callable[[], None]] = {
        "bare": case.bare,
        "streamed in": lambda: case.ours("in", "streamed"),
        "streamed out-in": lambda: case.ours("out-in", "streamed"),
        "streamed out": lambda: case.ours("out", "streamed"),
    }
    if size.queries * (size.keys or size.queries) <= DENSE_UP_TO:
        jobs["dense out-in"] = lambda: case.ours("out-in", "dense")
        jobs["InfoNCE (F.cross_entropy)"] = case.cross_entropy
        if importlib.util.find_spec("pytorch_metric_learning"):
            jobs["SupConLoss (pytorch-metric-learning)"] = case.supcon
    return jobs


def gpu_contenders(case: Case, size: Size) -> dict[str, Callable[[], None]]:
    """Without the checks that read values, as a training step would."""
    jobs: dict[str, Callable[[], None]] = {
        "bare": case.bare,
        "bare, TF32": case.bare_tf32,
        "bare, bf16": lambda: case.bare(torch.bfloat16),
        "fused out-in": lambda: case.fused("out-in", "fp32"),
        "fused in": lambda: case.fused("in", "fp32"),
        "fused out-in, TF32": lambda: case.fused("out-in", "tf32"),
        "fused out-in, bf16": lambda: case.fused("out-in", "bf16"),
        "streamed out-in": lambda: case.ours("out-in", "streamed", validate=False),
        "streamed out-in, TF32": lambda: case.ours(
            "out-in", "streamed", validate=False, precision="tf32"
        ),
        "streamed out-in, bf16": lambda: case.ours(
            "out-in", "streamed", validate=False, precision="bf16"
        ),
        "auto out-in": lambda: case.ours("out-in", "auto", validate=False),
    }
    if size.queries * (size.keys or size.queries) <= DENSE_UP_TO:
        jobs["dense out-in"] = lambda: case.ours("out-in", "dense", validate=False)
        jobs["InfoNCE (F.cross_entropy)"] = case.cross_entropy
        if importlib.util.find_spec("pytorch_metric_learning"):
            jobs["SupConLoss (pytorch-metric-learning)"] = case.supcon
    return jobs


def gpu_table(memory: bool) -> list[str]:
    """Milliseconds, or peak MB above the inputs, of every loss and size."""
    rows: dict[str, list[str]] = {}
    for size in GPU_SIZES:
        case = Case(size, "cuda")
        jobs = gpu_contenders(case, size)
        if not memory and "dense out-in" in jobs:
            jobs["dense out-in, compiled"] = case.compiled_dense()
        for name, job in jobs.items():
            rows.setdefault(name, [""] * len(GPU_SIZES))[GPU_SIZES.index(size)] = (
                f"{peak_bytes(job) / 2**20:,.0f}"
                if memory
                else f"{1000 * median_seconds(job, case.device):.3f}"
            )
    what = "peak extra MB" if memory else "ms"
    return [
        f"| {what} | " + " | ".join(map(str, GPU_SIZES)) + " |",
        "|:---|" + "---:|" * len(GPU_SIZES),
        *(f"| {name} | " + " | ".join(row) + " |" for name, row in rows.items()),
    ]


def times(size: Size, rounds: int) -> dict[str, float]:
    case = Case(size)
    jobs = contenders(case, size)
    measured: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds + 1):
        for name, job in jobs.items():
            measured[name].append(seconds(job, case.device))
    return {name: statistics.median(values[1:]) for name, values in measured.items()}


def peak_memory(size: Size, name: str) -> float:
    """MB above the resident memory before the loss was called; in a process of its own."""
    case = Case(size)
    warm = Case(Size(64, None if size.keys is None else 64, size.dimension, size.ranks))
    contenders(warm, size)[name]()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    contenders(case, size)[name]()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.device == "cuda":
        print("\n".join([*about(torch.device("cuda")), "", *gpu_table(options.memory)]))
        return
    sizes = (*SIZES, LARGE) if options.memory else SIZES
    if options.one:
        print(peak_memory(sizes[int(options.one[0])], options.one[1]))
        return
    rows: dict[str, dict[Size, str]] = {}
    for index, size in enumerate(sizes):
        if options.memory:
            for name in contenders(Case(Size(64, 64, 8, size.ranks)), size):
                command = [sys.executable, __file__, "--memory", "--one", str(index), name]
                run = subprocess.run(command, capture_output=True, text=True)
                text = f"{float(run.stdout):,.0f}" if run.returncode == 0 else "died"
                rows.setdefault(name, {})[size] = text
        else:
            measured = times(size, options.rounds if size.queries < 8192 else 3)
            for name, value in measured.items():
                ratio = f"{value / measured['bare']:.2f}"
                text = f"{1000 * value:,.0f} ms" if name == "bare" else ratio
                rows.setdefault(name, {})[size] = text
    what = "peak extra MB" if options.memory else f"x bare, {options.threads} thread(s)"
    print(f"| {what} | " + " | ".join(map(str, sizes)) + " |")
    print("|:---|" + "---:|" * len(sizes))
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(row.get(size, "") for size in sizes) + " |")


if __name__ == "__main__":
    main()
