"""Seconds and memory of retrieval in a tree of five levels, leave-one-out among 60,000 items.

    python benchmarks/hierarchy.py [--queries 2000] [--threads 2]

60,000 items of 10,000 classes in 2,500, 500, 100 and 20 groups, 128 dimensions. The first
``--queries`` of them ask all others (60,000: the whole of it); seconds grow with the queries.

"rince" is ``rince.metrics.hierarchical_retrieval``: R@k, mAP, R-precision, MAP@R, the average
precision of a level alone, H-AP, ASI, NDCG, mistake severity, distance. pytorch-metric-learning is
its AccuracyCalculator with precision at 1, R-precision and MAP@R, once a level, and torch in place
of faiss. faiss is R@k alone, by an exact index, where it can be imported. Each has a process of its
own, and what two of them measure must be equal.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from evaluation import Numbers, job_measured
from rince.metrics import hierarchical_retrieval

ITEMS, DIM, KS = 60_000, 128, (1, 10, 20)
GROUPS = (10_000, 2_500, 500, 100, 20)


def items() -> tuple[Tensor, Tensor]:
    """Features (N, D) of length 1 and groups (N, 5), finest first; noise about nested centres."""
    generator = torch.Generator().manual_seed(0)
    classes = torch.randint(0, GROUPS[0], (ITEMS,), generator=generator)
    levels = torch.stack([classes * count // GROUPS[0] for count in GROUPS], dim=1)
    features = 2 * torch.randn(ITEMS, DIM, generator=generator)
    for level, count in enumerate(GROUPS):
        features += torch.randn(count, DIM, generator=generator)[levels[:, level]]
    return functional.normalize(features, dim=1), levels


def by_rince(queries: int) -> Callable[[], Numbers]:
    features, levels = items()

    def job() -> Numbers:
        result = hierarchical_retrieval(
            features[:queries], features, levels[:queries], levels, ks=KS, exclude_self=True
        )
        numbers = {"H-AP": result.h_ap, "ASI": result.asi, "NDCG": result.ndcg}
        for level, of_level in enumerate(result.levels, start=1):
            numbers |= {f"{level}/R@{k}": recall for k, recall in of_level.recall.items()}
            numbers[f"{level}/R-precision"] = of_level.r_precision
            numbers[f"{level}/MAP@R"] = of_level.map_at_r
        return numbers

    return job


def by_metric_learning(queries: int) -> Callable[[], Numbers]:
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import CustomKNN

    features, levels = items()
    names = {
        "precision_at_1": "R@1",
        "r_precision": "R-precision",
        "mean_average_precision_at_r": "MAP@R",
    }

    def job() -> Numbers:
        calculator = AccuracyCalculator(
            include=tuple(names),
            k="max_bin_count",
            device=torch.device("cpu"),
            knn_func=CustomKNN(CosineSimilarity(), batch_size=256),
        )
        numbers: Numbers = {}
        for level, groups in enumerate(levels.unbind(dim=1), start=1):
            values = calculator.get_accuracy(
                features[:queries], groups[:queries], features, groups, ref_includes_query=True
            )
            numbers |= {f"{level}/{names[name]}": value for name, value in values.items()}
        return numbers

    return job


def by_faiss(queries: int) -> Callable[[], Numbers]:
    import faiss

    features, levels = items()
    faiss.omp_set_num_threads(torch.get_num_threads())

    def job() -> Numbers:
        index = faiss.IndexFlatIP(DIM)
        index.add(features.numpy())
        _, near = index.search(features[:queries].numpy(), max(KS) + 1)
        others = near[near != np.arange(queries)[:, None]].reshape(queries, -1)
        numbers: Numbers = {}
        for level, groups in enumerate(levels.unbind(dim=1), start=1):
            asked = np.bincount(groups)[groups[:queries]] > 1
            hit = (groups.numpy()[others] == groups[:queries].numpy()[:, None])[asked]
            numbers |= {f"{level}/R@{k}": float(hit[:, :k].any(axis=1).mean()) for k in KS}
        return numbers

    return job


CONTENDERS: dict[str, tuple[str, Callable[[int], Callable[[], Numbers]]]] = {
    "rince": ("rince", by_rince),
    "pytorch-metric-learning": ("pytorch_metric_learning", by_metric_learning),
    "faiss": ("faiss", by_faiss),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=2000, help=f"of the {ITEMS:,} items")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.one:
        print(json.dumps(job_measured(lambda: CONTENDERS[given.one][1](given.queries))))
        return
    print(
        f"| {given.queries:,} queries of {ITEMS:,}, {given.threads} thread(s) "
        "| seconds | CPU seconds | extra MB | numbers |\n|:---|---:|---:|---:|---:|"
    )
    seen: Numbers = {}
    for name, (module, _) in CONTENDERS.items():
        if importlib.util.find_spec(module) is None:
            print(f"| {name} | not installed | | | |")
            continue
        options = ("--queries", str(given.queries), "--threads", str(given.threads), "--one", name)
        run = subprocess.run(
            [sys.executable, __file__, *options], stdout=subprocess.PIPE, text=True, check=True
        )
        seconds, cpu_seconds, megabytes, numbers = json.loads(run.stdout)
        for key in numbers.keys() & seen.keys():
            if abs(numbers[key] - seen[key]) > 1e-4:  # a near tie may be ordered otherwise
                raise SystemExit(f"{key}: {name} gives {numbers[key]}, rince {seen[key]}")
        seen = numbers | seen
        print(
            f"| {name} | {seconds:.1f} | {cpu_seconds:.1f} | {megabytes:,.0f} | {len(numbers)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
