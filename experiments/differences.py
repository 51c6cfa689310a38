"""All studies in one table: each method minus a baseline, seed by seed, and what can be told.

    python experiments/differences.py RESULTS... [--baseline supcon-out] [--metrics PATTERN...]
        [--mixed OPTION...]

RESULTS are files of raw results (`.jsonl`, a line a run; `.csv`, as of frozen-features), folders
of `.json`, a file a run, or folders of evaluated runs of `rince`. Runs that differ in nothing but
method and seed (or in --mixed) are compared; of a seed that was run with several values of --mixed,
the mean. Prints markdown: mean difference in per cent points (severity and distance: in levels of
the tree; correlations from -1 to 1) ± half of the 95 % interval of Student's t over the seeds, and
"better", "worse" or "cannot be told".
"""

from __future__ import annotations

import argparse
import csv
import fnmatch
import json
import math
import re
import statistics
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rince.evaluation.results import scale_of
from rince.reports.paired import paired_difference
from rince.reports.reading import read_run

# What is measured or noted of a run rather than chosen for it.
NOTED = (
    *("metrics", "seconds", "train_seconds", "broken_off", "machine", "epochs", "commit"),
    *("chosen", "fold"),
)
BASELINES = ("supcon-out", "SupCon-out", "infonce", "frozen")
METRICS = ("*fine/probe", "*fine/R@1", "*coarse/R@1", "*probe/fine", "*probe/coarse", "*mAP")


class Run(NamedTuple):
    study: str
    setting: str  # what all methods of a comparison share
    method: str
    seed: str
    metrics: dict[str, float]
    mixed: str = ""  # values of --mixed


def read(path: Path, mixed: Collection[str] = ()) -> list[Run]:
    """The runs of a file or folder of any of these kinds."""
    if path.suffix == ".csv":
        return list(_csv(path))
    if path.is_dir() and not list(path.glob("*.json")):
        return [_evaluated(folder.parent) for folder in sorted(path.glob("*/results.json"))]
    if path.is_dir():
        lines = [json.loads(file.read_text()) for file in sorted(path.glob("*.json"))]
    else:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
    return list(_lines(path, lines, mixed))


def _csv(path: Path) -> Iterator[Run]:
    with path.open(newline="") as stream:
        for row in csv.DictReader(stream):
            study, method, seed = row.pop("study"), row.pop("name"), row.pop("seed")
            if row.pop("tuning") == "False":
                del row["train_seconds"]
                metrics = {name: float(value) for name, value in row.items() if value}
                yield Run(f"{path.parent.name} {study}", "", method, seed, metrics)


def _lines(path: Path, lines: list[dict[str, Any]], mixed: Collection[str]) -> Iterator[Run]:
    options = {key for line in lines for key in line} - {*NOTED, *mixed, "method", "name", "seed"}
    varied = [key for key in sorted(options) if len({str(x.get(key)) for x in lines}) > 1]
    for line in lines:
        setting = ", ".join(f"{key} {line[key]}" for key in varied if key in line)
        metrics = {k: v for k, v in line["metrics"].items() if isinstance(v, (int, float))}
        seed = f"{line.get('seed')} {line.get('fold', '')}".strip()
        name = path.stem if path.is_dir() or path.stem != "results" else path.parent.name
        method = line.get("method") or line["name"]
        yield Run(name, setting, method, seed, metrics, str([line.get(key) for key in mixed]))


def _evaluated(folder: Path) -> Run:
    run = read_run(folder)
    seed = str(run.config.get("seed"))
    return Run(folder.parent.name, "", run.label, seed, dict(run.evaluation.metrics))


def table(runs: list[Run], baseline: str | None, patterns: list[str]) -> str:
    """Markdown, a row a method, a column a metric."""
    names = list(dict.fromkeys(name for run in runs for name in run.metrics))
    chosen = list(
        dict.fromkeys(n for pattern in patterns for n in names if fnmatch.fnmatchcase(n, pattern))
    )
    rows = [f"| study | {' | '.join(chosen)} |", "|:---|" + "---:|" * len(chosen)]
    for study, setting in dict.fromkeys((run.study, run.setting) for run in runs):
        group = [run for run in runs if (run.study, run.setting) == (study, setting)]
        methods = list(dict.fromkeys(run.method for run in group))
        found = [baseline] if baseline else [name for name in BASELINES if name in methods]
        if not found or found[0] not in methods:
            rows.append(f"| {study} {setting}: no baseline among {', '.join(methods)} |")
            continue
        for method in methods:
            if method != found[0]:
                cells = [_cell(group, method, found[0], name) for name in chosen]
                where = f"{study} {setting}".strip()
                rows.append(f"| {where}: {method} - {found[0]} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _cell(runs: list[Run], method: str, baseline: str, name: str) -> str:
    ours, theirs = (
        _by_seed([run for run in runs if run.method == x], name) for x in (method, baseline)
    )
    in_levels = re.search(r"(severity|distance@\d+)$", name) is not None
    errors = in_levels or name.endswith("FPR95")
    found = paired_difference(ours, theirs, higher_is_better=not errors)
    if found is None:
        return ""
    factor, digits = (1, 2) if in_levels else scale_of(name, found.mean)
    spread = "" if found.half_width is None else f" ± {factor * found.half_width:.{digits}f}"
    return f"{factor * found.mean:+.{digits}f}{spread} {found.verdict} (n={found.count})"


def _by_seed(runs: list[Run], name: str) -> dict[str, float]:
    """Seed -> value of a metric in the runs of one method."""
    values: dict[str, dict[str, float]] = {}
    for run in runs:
        of_seed = values.setdefault(run.seed, {})
        if run.mixed in of_seed:
            raise SystemExit(
                f"{run.study} {run.setting}: {run.method} was run twice with seed {run.seed}; give "
                f"results of one configuration a method"
            )
        of_seed[run.mixed] = run.metrics.get(name, math.nan)
    means = {seed: statistics.fmean(of_seed.values()) for seed, of_seed in values.items()}
    return {seed: mean for seed, mean in means.items() if math.isfinite(mean)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--baseline", help=f"a method; default: the first of {BASELINES}")
    parser.add_argument("--metrics", nargs="+", default=list(METRICS), help="names, with *")
    parser.add_argument(
        "--mixed", nargs="+", default=[], help="options in which seeds differ, such as precision"
    )
    given = parser.parse_args()
    runs = [run for path in given.results for run in read(path, given.mixed)]
    if not runs:
        parser.error(f"no results in {', '.join(map(str, given.results))}")
    print(table(runs, given.baseline, given.metrics))


if __name__ == "__main__":
    main()
