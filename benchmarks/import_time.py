"""How long `import rince` takes beyond torch and numpy, in fresh processes.

    python benchmarks/import_time.py [--runs N]

"import" is what every user pays; "all names" what one pays who uses the whole public namespace;
"read a run" is what reads its checkpoint, configuration, metrics and data, and "train" what
`rince train` needs (extra `train`). All start when torch and numpy are loaded.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys

CODE = """
import time, numpy, torch
start = time.perf_counter()
import rince
imported = time.perf_counter()
for name in rince.__all__:
    getattr(rince, name)
named = time.perf_counter()
import rince.training.checkpoint, rince.training.folder
import rince.training.history, rince.training.splits
read = time.perf_counter()
import rince.training.run
print(*(t - start for t in (imported, named, read, time.perf_counter())))
"""
NAMES = ("import", "all names", "read a run", "train")
LIMIT = 0.3  # seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--runs", type=int, default=9, help="fresh processes; the first is left out"
    )
    options = parser.parse_args()
    times = []
    for _ in range(options.runs):
        out = subprocess.run(
            [sys.executable, "-c", CODE], capture_output=True, text=True, check=True
        )
        times.append(tuple(map(float, out.stdout.split())))
    medians = [statistics.median(x) for x in zip(*times[1:], strict=True)]
    worst = [max(x) for x in zip(*times[1:], strict=True)]
    print(f"Python {platform.python_version()}, {platform.machine()}, {options.runs - 1} processes")
    for name, median, most in zip(NAMES, medians, worst, strict=True):
        print(f"{name:10} median {median * 1e3:6.1f} ms, slowest {most * 1e3:6.1f} ms")
    return int(medians[0] > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
