"""Seconds and memory of retrieval and of the per-class Gaussians, against the plain ways.

    python benchmarks/evaluation.py [--threads 2] [--rounds 3]

Retrieval: 10,000 queries, 50,000 gallery items, 512 dimensions; recall and average precision by
100 fine and 20 coarse labels in one pass. The plain way sorts the indices of the whole gallery
for every query, 256 queries at a time, so that it fits into memory at all.

Gaussians: 100 classes of 500 samples in 2048 dimensions, full covariance; fit, then score 10,000
samples. "a D x D factor a class" is the textbook way to the same numbers. scikit-learn's
GaussianMixture, one component for each class, is regularised differently (a constant on the
diagonal), so its scores differ; it is fitted to a tenth of the classes.

Every contender runs in a process of its own, so that its peak of resident memory can be told from
the others'; a round is all contenders in turn, and the table holds the best round. Contenders that
must give the same numbers are compared, and the run fails if they do not.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rince.metrics import ClassGaussians, retrieval_by_level

QUERIES, GALLERY, RETRIEVAL_DIM = 10_000, 50_000, 512
CLASSES, PER_CLASS, GAUSSIAN_DIM, SCORED = 100, 500, 2048, 10_000
SHARE = 10  # classes of the contenders that would take too long on all of them
KS = (1, 5, 10, 20)
CHUNK = 256

Numbers = dict[str, float]


class Measured(NamedTuple):
    """Wall time, that of all threads together, and memory above that before the job."""

    seconds: float
    cpu_seconds: float
    megabytes: float
    numbers: Numbers


def retrieval_data() -> tuple[Tensor, Tensor, dict[str, tuple[Tensor, Tensor]]]:
    """Queries, gallery, and (query labels, gallery labels) by level; noisy clusters."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(CLASSES, RETRIEVAL_DIM, generator=generator)
    centres += torch.randn(CLASSES // 5, RETRIEVAL_DIM, generator=generator).repeat_interleave(5, 0)
    sides, labels = [], []
    for count in (QUERIES, GALLERY):
        label = torch.randint(0, CLASSES, (count,), generator=generator)
        noise = 8 * torch.randn(count, RETRIEVAL_DIM, generator=generator)
        sides.append(functional.normalize(centres[label] + noise, dim=1))
        labels.append(label)
    query, gallery = labels
    return sides[0], sides[1], {"fine": (query, gallery), "coarse": (query // 5, gallery // 5)}


def rince_retrieval() -> Callable[[], Numbers]:
    query, gallery, labels = retrieval_data()

    def job() -> Numbers:
        by_level = retrieval_by_level(query, gallery, labels, ks=KS)
        numbers: Numbers = {}
        for level, result in by_level.items():
            numbers[f"{level}/mAP"] = result.mean_average_precision
            numbers |= {f"{level}/R@{k}": recall for k, recall in result.recall.items()}
        return numbers

    return job


def argsort_retrieval(order_of: Callable[[Tensor], Tensor]) -> Callable[[], Numbers]:
    """Sort all items for every query, look up whether they are positives, and count."""
    query, gallery, labels = retrieval_data()

    def job() -> Numbers:
        places = torch.arange(1, GALLERY + 1)
        sums: dict[str, float] = {}
        for start in range(0, QUERIES, CHUNK):
            rows = slice(start, start + CHUNK)
            order = order_of(query[rows] @ gallery.T)
            for level, (own, others) in labels.items():
                hit = others[order] == own[rows, None]
                precision = hit.cumsum(1) / places
                average = (precision * hit).sum(1) / hit.sum(1)
                measured = {"mAP": average} | {f"R@{k}": hit[:, :k].any(1) for k in KS}
                for name, values in measured.items():
                    key = f"{level}/{name}"
                    sums[key] = sums.get(key, 0.0) + float(values.double().sum())
        return {name: value / QUERIES for name, value in sums.items()}

    return job


def torch_order(similarity: Tensor) -> Tensor:
    return similarity.argsort(dim=1, descending=True)


def numpy_order(similarity: Tensor) -> Tensor:
    """The rows shared out to threads, which numpy does not do by itself."""
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads) as pool:
        parts = np.array_split(-similarity.numpy(), threads)
        return torch.from_numpy(
            np.concatenate(list(pool.map(lambda part: np.argsort(part, axis=1), parts)))
        )


def gaussian_data(classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Training features and labels, and features to score; the spread decays as in a network."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.arange(1, GAUSSIAN_DIM + 1) ** -0.5
    centres = 0.3 * torch.randn(classes, GAUSSIAN_DIM, generator=generator) * spread
    labels = torch.arange(classes).repeat(PER_CLASS)
    train = centres[labels] + spread * torch.randn(len(labels), GAUSSIAN_DIM, generator=generator)
    test = spread * torch.randn(SCORED, GAUSSIAN_DIM, generator=generator)
    return functional.normalize(train, dim=1), labels, functional.normalize(test, dim=1)


def summary(scores: Tensor) -> Numbers:
    """A few numbers that would tell if a score differed."""
    picked = {f"score {i}": float(scores[i]) for i in range(0, SCORED, SCORED // 20)}
    return {"mean": float(scores.mean()), **picked}


def rince_gaussians(classes: int) -> Callable[[], Numbers]:
    train, labels, test = gaussian_data(classes)
    return lambda: summary(ClassGaussians.fit(train, labels).score(test))


def factor_gaussians(classes: int) -> Callable[[], Numbers]:
    """The same Gaussians, each with a Cholesky factor of its own, all of them held."""
    train, labels, test = gaussian_data(classes)

    def job() -> Numbers:
        x, dim = train.double(), GAUSSIAN_DIM
        means = torch.stack([x[labels == c].mean(0) for c in range(classes)])
        centred = x - means[labels]
        pooled = centred.T @ centred / len(x)
        target = pooled.diagonal().mean() * torch.eye(dim).double()
        spread = (centred.square().sum(1).square().mean() - pooled.square().sum()) / len(x)
        share = (spread / (pooled - target).square().sum()).clamp(0, 1)
        pooled = (1 - share) * pooled + share * target
        weight = dim / (dim + PER_CLASS)
        factors = torch.empty(classes, dim, dim).double()
        for c in range(classes):
            own = centred[labels == c]
            covariance = (1 - weight) * (own.T @ own / PER_CLASS) + weight * pooled
            factors[c] = torch.linalg.cholesky(covariance)
        best = torch.full((SCORED,), torch.inf).double()
        for mean, factor in zip(means, factors, strict=True):
            white = torch.linalg.solve_triangular(factor, (test.double() - mean).T, upper=False)
            volume = factor.diagonal().log().sum() + dim / 2 * math.log(2 * math.pi)
            best = torch.minimum(best, white.square().sum(0) / 2 + volume)
        return summary(best)

    return job


def sklearn_gaussians(classes: int) -> Callable[[], Numbers]:
    from sklearn.mixture import GaussianMixture

    train, labels, test = gaussian_data(classes)

    def job() -> Numbers:
        x, t = train.double().numpy(), test.double().numpy()
        mixtures = [
            GaussianMixture(1, covariance_type="full", reg_covar=1e-5).fit(x[labels.numpy() == c])
            for c in range(classes)
        ]
        return summary(torch.from_numpy(-np.max([m.score_samples(t) for m in mixtures], axis=0)))

    return job


# task -> name -> its set-up, which gives the job; those of one task must agree in their numbers.
TASKS: dict[str, dict[str, Callable[[], Callable[[], Numbers]]]] = {
    "retrieval, 10,000 x 50,000 x 512": {
        "rince": rince_retrieval,
        "full argsort, torch": lambda: argsort_retrieval(torch_order),
        "full argsort, numpy": lambda: argsort_retrieval(numpy_order),
    },
    "Gaussians, 100 classes x 2048": {
        "rince": lambda: rince_gaussians(CLASSES),
        "a D x D factor a class": lambda: factor_gaussians(CLASSES),
    },
    "Gaussians, 10 classes x 2048": {
        "rince": lambda: rince_gaussians(SHARE),
        "a D x D factor a class": lambda: factor_gaussians(SHARE),
        "scikit-learn GaussianMixture (other regularisation)": lambda: sklearn_gaussians(SHARE),
    },
}


def job_measured(set_up: Callable[[], Callable[[], Numbers]]) -> Measured:
    """Run a job after its set-up, which does not count."""
    torch.mm(torch.ones(512, 512), torch.ones(512, 512))  # starts the threads
    job = set_up()
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far, of the set-up, is forgotten
    before = memory("VmRSS")
    start, cpu_start = time.perf_counter(), time.process_time()
    numbers = job()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    return Measured(seconds, cpu_seconds, memory("VmHWM") - before, numbers)


def memory(field: str) -> float:
    """VmRSS (now) or VmHWM (peak) of this process, MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def in_own_process(task: str, name: str, threads: int) -> Measured:
    command = [sys.executable, __file__, "--threads", str(threads), "--one", task, name]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    environment["OPENBLAS_NUM_THREADS"] = str(threads)  # numpy's and scipy's
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return Measured(*json.loads(run.stdout))


def check_equal(task: str, by_name: dict[str, Numbers]) -> None:
    """Names that say "(other ...)" are another model's numbers."""
    same = {name: numbers for name, numbers in by_name.items() if "(other" not in name}
    reference = same["rince"]
    for name, numbers in same.items():
        for key, value in numbers.items():
            if not math.isclose(value, reference[key], rel_tol=1e-6, abs_tol=1e-6):
                raise SystemExit(f"{task}, {key}: {name} gives {value}, rince {reference[key]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="tasks whose name holds this")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.one:
        task, name = options.one
        print(json.dumps(job_measured(TASKS[task][name])))
        return
    print(
        f"| best of {options.rounds}, {options.threads} thread(s) "
        "| seconds | x rince | CPU seconds | extra MB |\n|:---|---:|---:|---:|---:|"
    )
    for task, contenders in TASKS.items():
        if options.only not in task:
            continue
        runs: dict[str, list[Measured]] = {name: [] for name in contenders}
        for _ in range(options.rounds):
            for name in contenders:
                run = in_own_process(task, name, options.threads)
                runs[name].append(run)
                print(f"{task}: {name}: {run.seconds:.1f} s", file=sys.stderr)
        check_equal(task, {name: of_name[0].numbers for name, of_name in runs.items()})
        ours = min(run.seconds for run in runs["rince"])
        for name, of_name in runs.items():
            best = min(of_name, key=lambda run: run.seconds)
            print(
                f"| {task}: {name} | {best.seconds:.1f} | {best.seconds / ours:.1f} "
                f"| {best.cpu_seconds:.1f} | {best.megabytes:,.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
