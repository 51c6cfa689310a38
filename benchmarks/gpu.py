"""Everything that a card must answer, in order of importance, into one markdown file.

    python benchmarks/gpu.py [--output benchmarks/gpu.md] [--budget 600]

Needs PyTorch and the sources alone (PYTHONPATH=src). The file is written anew after each step, and
no step starts that would not fit into the budget (seconds): what is missing is named. Without a
card it says so. First of all the kernels are compiled, by as many processes as there are cores.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from devices import about, launches, median_seconds, peak_bytes, waits

from losses import DENSE_UP_TO, GPU_SIZES, Case, Size, gpu_contenders

ROOT = Path(__file__).parents[1]


class Report:
    """The file, step by step."""

    def __init__(self, output: Path, budget: float) -> None:
        self.output, self.budget, self.start = output, budget, time.monotonic()
        self.lines: list[str] = []

    def left(self) -> float:
        return self.budget - (time.monotonic() - self.start)

    def add(self, *lines: str) -> None:
        self.lines += lines
        print("\n".join(lines), flush=True)
        self.output.parent.mkdir(parents=True, exist_ok=True)
        self.output.write_text("\n".join(self.lines) + "\n", encoding="utf-8")

    def step(self, title: str, needs: float, work: Callable[[], None]) -> None:
        """One section; an error is a finding, and no reason to stop."""
        self.add("", f"## {title}", "")
        if self.left() < needs:
            self.add(f"not run: it needs {needs:.0f} s, and {max(0, self.left()):.0f} s were left")
            return
        begin = time.monotonic()
        try:
            work()
        except Exception as error:
            trace = traceback.extract_tb(error.__traceback__)[-1]
            self.add("", f"failed: {type(error).__name__}: {str(error)[:600]}", f"at {trace}")
            torch.cuda.empty_cache()
        self.add("", f"({time.monotonic() - begin:.0f} s)")

    def table(self, header: list[str], rows: list[list[str]]) -> None:
        self.add("| " + " | ".join(header) + " |", "|:---|" + "---:|" * (len(header) - 1))
        for row in rows:
            self.add("| " + " | ".join(row) + " |")


def compile_kernels(job: tuple[Size, str]) -> str:
    """In a process of its own, into Triton's cache: kernels depend on no number of rows.

    Returns what went wrong, or nothing.
    """
    size, name = job
    small = size._replace(queries=64, keys=None if size.keys is None else 64)
    try:
        gpu_contenders(Case(small, "cuda"), small)[name]()
        torch.cuda.synchronize()
    except Exception as error:
        return f"{name}, {small}: {_short(error)}"
    return ""


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[-300:]}".replace("|", "/")


def compile_all(report: Report) -> None:
    kinds: dict[tuple[bool, int, int], Size] = {}
    for size in GPU_SIZES:
        kinds[size.keys is None, size.dimension, size.ranks] = size
    names = ("fused out-in", "fused out-in, bf16", "fused in", "fused out-in, TF32")
    jobs = [(size, name) for name in names for size in kinds.values()]
    workers = min(len(jobs), max(1, (os.cpu_count() or 2) - 2))
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        faults = pool.map(compile_kernels, jobs, chunksize=1)
    report.add(f"{len(jobs)} sets of kernels, by {workers} processes", *filter(None, faults))


def run_tests(report: Report, files: list[str], seconds: float) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-m", "gpu", *files]
    command += ["--tb=line", "-W", "ignore"]
    if importlib.util.find_spec("xdist"):
        command += ["-n", "12", "--dist", "worksteal"]
    paths = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    try:
        run = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds
        )
        output = run.stdout + run.stderr[-2000:]
    except subprocess.TimeoutExpired as error:
        output = f"stopped after {seconds:.0f} s\n{(error.stdout or b'').decode()}"
    wanted = re.compile(r"^(FAILED|ERROR|/|E )|passed|failed|stopped|rror")
    report.add("```text", *[x[:400] for x in output.splitlines() if wanted.search(x)][-40:], "```")


def errors(report: Report) -> None:
    """Of one problem, by engine: norm of the error over the norm, against float64 on the CPU."""
    sys.path.insert(0, str(ROOT / "tests"))
    from card_problems import Problem, error, outcome

    rows = []
    for name, problem in (
        ("tau 0.1, 0.225, 0.5", Problem(queries=512, keys=2048, dimension=128)),
        ("tau 0.01, 0.02, 0.05", Problem(512, 2048, 128, taus=(0.01, 0.02, 0.05))),
    ):
        wanted = problem.expected()
        for engine in ("dense", "streamed", "fused-fp32", "fused-tf32", "fused-bf16"):
            try:
                given = outcome(problem, engine, "cuda")
            except Exception as error:
                rows.append([f"{engine}, {name}", _short(error), "", ""])
                continue
            parts = [given.loss, *given.gradients[:2]]
            right = [wanted.loss, *wanted.gradients[:2]]
            cells = [f"{error(a, b):.1e}" for a, b in zip(parts, right, strict=True)]
            rows.append([f"{engine}, {name}", *cells])
    report.table(["512 x 2,048, D = 128, out-in", "loss", "d query", "d key"], rows)


def timings(report: Report, size: Size) -> None:
    """Milliseconds of forward and backward, and how many bare fp32 products that is."""
    case = Case(size, "cuda")
    measured: dict[str, float] = {}
    for name, job in gpu_contenders(case, size).items():
        try:
            measured[name] = median_seconds(job, case.device, budget=0.3)
        except Exception as error:
            measured[name] = math.nan
            report.add(f"{name} failed: {_short(error)}", "")
    again = median_seconds(case.bare, case.device, budget=0.3)
    bare = measured["bare"]
    rows = [[n, f"{1000 * s:.3f}", f"{s / bare:.2f}"] for n, s in measured.items()]
    rows.append(["bare, once more", f"{1000 * again:.3f}", f"{again / bare:.2f}"])
    report.table([str(size), "ms", "x bare"], rows)


def compiled(report: Report, size: Size) -> None:
    case = Case(size, "cuda")
    value = median_seconds(case.compiled_dense(), case.device, budget=0.3)
    report.table([str(size), "ms"], [["dense out-in, compiled, fullgraph", f"{1000 * value:.3f}"]])


def memory(report: Report) -> None:
    rows: dict[str, list[str]] = {}
    for index, size in enumerate(GPU_SIZES):
        case = Case(size, "cuda")
        for name, job in gpu_contenders(case, size).items():
            try:
                job()
                text = f"{peak_bytes(job) / 2**20:,.0f}"
            except Exception as error:
                text = _short(error)[:40]
            rows.setdefault(name, [""] * len(GPU_SIZES))[index] = text
    report.table(
        ["peak MB above the inputs", *map(str, GPU_SIZES)], [[n, *row] for n, row in rows.items()]
    )


def by_kernel(report: Report) -> None:
    """Milliseconds of each kernel of the fused engine, by PyTorch's profiler."""
    from torch.profiler import ProfilerActivity, profile

    rows = []
    for size in GPU_SIZES:
        case = Case(size, "cuda")
        for precision in ("fp32", "bf16"):
            case.fused("out-in", precision)
            torch.cuda.synchronize()
            with profile(activities=[ProfilerActivity.CUDA]) as seen:
                case.fused("out-in", precision)
                torch.cuda.synchronize()
            spent = {e.key: e.self_device_time_total / 1000 for e in seen.key_averages()}
            names = ("pass_1_sums", "pass_2_each_positive", "finish", "gradient")
            ours = [spent.pop(name, 0.0) for name in names]
            cells = [f"{value:.3f}" for value in (*ours, sum(spent.values()))]
            rows.append([f"{size}, {precision}", *cells])
    report.table(["ms on the card", "pass 1", "pass 2", "finish", "gradient", "others"], rows)


def launches_and_waits(report: Report) -> None:
    rows = []
    for size in GPU_SIZES:
        case = Case(size, "cuda")
        for name, job in gpu_contenders(case, size).items():
            if "bare" in name:
                continue
            try:
                cells = [f"{launches(job):,}", waits(job)]
            except Exception as error:
                cells = ["", _short(error)[:80]]
            rows.append([f"{size}: {name}", *cells])
    report.table(["a step without checks", "launches", "waits for the card at"], rows)


def training(report: Report) -> None:
    """Steps of `rince train` on images of noise: what is asked is the speed."""
    from training import BATCH, rince_run, write_noise

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_noise(Path(folder))
        for precision in ("32-true", "bf16-mixed"):
            parts = rince_run(folder, device="cuda", precision=precision)
            step = parts["step"]
            rows.append([precision, f"{1000 * step:.1f}", f"{BATCH / step:,.0f}"])
    report.table([f"rince train, batch {BATCH}, 32 px", "ms a step", "images/s"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/gpu.md")
    parser.add_argument("--budget", type=float, default=600, help="seconds")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        print("not run: PyTorch finds no CUDA card here")
        return
    report = Report(given.output, given.budget)
    report.add("# On a GPU", "", *about(torch.device("cuda")))
    engines = ["tests/gpu/test_engines.py"]
    report.step("Compiling the kernels", 60, lambda: compile_all(report))
    report.step(
        "Engines against float64 (pytest)", 60,
        lambda: run_tests(report, engines, min(120, report.left() - 30)),
    )  # fmt: skip
    report.step("Errors", 10, lambda: errors(report))
    for size in GPU_SIZES:
        report.step(f"Time of {size}", 10, lambda size=size: timings(report, size))  # type: ignore[misc]
    report.step("Time by kernel", 8, lambda: by_kernel(report))
    report.step("Memory", 12, lambda: memory(report))
    report.step("Launches and waits", 15, lambda: launches_and_waits(report))
    report.step(
        "Steps: waits, launches, memory, compiler, graphs (pytest)", 45,
        lambda: run_tests(report, ["tests/gpu/test_steps.py"], min(100, report.left() - 5)),
    )  # fmt: skip
    report.step("Training speed", 40, lambda: training(report))
    report.step(
        "Training (pytest)", 45,
        lambda: run_tests(report, ["tests/gpu/test_training.py"], report.left() - 5),
    )  # fmt: skip
    for size in GPU_SIZES:
        if size.queries * (size.keys or size.queries) <= DENSE_UP_TO:
            report.step(
                f"Compiled: {size}",
                40,
                lambda size=size: compiled(report, size),  # type: ignore[misc]
            )
    report.add("", f"{time.monotonic() - report.start:.0f} s of {given.budget:.0f} s")


if __name__ == "__main__":
    main()
