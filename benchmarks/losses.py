"""Time and memory of the losses, forward and backward, against the bare matrix products.

    python benchmarks/losses.py [--threads 1] [--rounds 7] [--memory]

"bare" is what no exact loss can do without: the similarities, computed forward and again
backward, and the two products that give the gradients of queries and keys. All losses of a size
take turns in one process; the table holds medians as multiples of bare. --memory starts a process
for each loss and size, and shows how much its peak resident memory rises over the inputs.

pytorch-metric-learning's SupConLoss joins in if it is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

import rince
from rince.losses.blockwise.engine import default_block_size


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
DENSE_UP_TO = 8192 * 8192
CLASSES = 100
TAUS = (0.1, 0.225, 0.5)


class Case:
    """100 classes in groups of 5 (rank 2) and 25 (rank 3)."""

    def __init__(self, size: Size) -> None:
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
        self.labels, self.key_labels = labels, others
        self.ranks = rince.ranks.TableRanks(
            labels, others, table, ignore_self=own, num_ranks=size.ranks
        )
        self.taus = TAUS[: size.ranks]
        self.leaves = [self.query] if own else [self.query, self.key]

    @staticmethod
    def _unit(count: int, dimension: int, generator: torch.Generator) -> Tensor:
        x = torch.randn(count, dimension, generator=generator)
        return functional.normalize(x, dim=1).requires_grad_()

    def bare(self) -> None:
        query, key = self.query.detach(), self.key.detach()
        block = default_block_size(len(key), 1, query.dtype)
        d_query, d_key = torch.empty_like(query), torch.zeros_like(key)
        scratch = torch.empty(block, len(key))
        for backward in (False, True):
            for part, out in zip(query.split(block), d_query.split(block), strict=True):
                similarity = torch.mm(part, key.T, out=scratch[: len(part)])
                if backward:
                    torch.mm(similarity, key, out=out)
                    d_key.addmm_(similarity.T, part)

    def ours(self, variant: str, engine: str) -> None:
        loss = rince.ranked_info_nce(
            self.query, self.key, self.ranks, self.taus, variant=variant, engine=engine
        )
        torch.autograd.grad(loss, self.leaves)

    def cross_entropy(self) -> None:
        """InfoNCE as everybody writes it; one positive, so less work than any of the others."""
        logits = self.query @ self.key.T / 0.1
        torch.autograd.grad(
            functional.cross_entropy(logits, torch.arange(len(self.query))), self.leaves
        )

    def supcon(self) -> None:
        from pytorch_metric_learning.losses import SupConLoss

        own = self.key is self.query
        extra = {} if own else {"ref_emb": self.key, "ref_labels": self.key_labels}
        loss = SupConLoss(temperature=0.1)(self.query, self.labels, **extra)
        torch.autograd.grad(loss, self.leaves)


def contenders(case: Case, size: Size) -> dict[str, Callable[[], None]]:
    found: dict[str, Callable[[], None]] = {
        "bare": case.bare,
        "streamed in": lambda: case.ours("in", "streamed"),
        "streamed out-in": lambda: case.ours("out-in", "streamed"),
        "streamed out": lambda: case.ours("out", "streamed"),
    }
    if size.queries * (size.keys or size.queries) <= DENSE_UP_TO:
        found["dense out-in"] = lambda: case.ours("out-in", "dense")
        found["InfoNCE (F.cross_entropy)"] = case.cross_entropy
        if importlib.util.find_spec("pytorch_metric_learning"):
            found["SupConLoss (pytorch-metric-learning)"] = case.supcon
    return found


def times(size: Size, rounds: int) -> dict[str, float]:
    jobs = contenders(Case(size), size)
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds + 1):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


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
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    found = parser.parse_args()
    torch.set_num_threads(found.threads)
    sizes = (*SIZES, LARGE) if found.memory else SIZES
    if found.one:
        print(peak_memory(sizes[int(found.one[0])], found.one[1]))
        return
    rows: dict[str, dict[Size, str]] = {}
    for index, size in enumerate(sizes):
        if found.memory:
            for name in contenders(Case(Size(64, 64, 8, size.ranks)), size):
                command = [sys.executable, __file__, "--memory", "--one", str(index), name]
                run = subprocess.run(command, capture_output=True, text=True)
                text = f"{float(run.stdout):,.0f}" if run.returncode == 0 else "died"
                rows.setdefault(name, {})[size] = text
        else:
            measured = times(size, found.rounds if size.queries < 8192 else 3)
            for name, value in measured.items():
                ratio = f"{value / measured['bare']:.2f}"
                text = f"{1000 * value:,.0f} ms" if name == "bare" else ratio
                rows.setdefault(name, {})[size] = text
    what = "peak extra MB" if found.memory else f"x bare, {found.threads} thread(s)"
    print(f"| {what} | " + " | ".join(map(str, sizes)) + " |")
    print("|:---|" + "---:|" * len(sizes))
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(row.get(size, "") for size in sizes) + " |")


if __name__ == "__main__":
    main()
