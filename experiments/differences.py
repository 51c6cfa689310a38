"""All studies in one table: each method minus a baseline, seed by seed, and what can be told.

    python experiments/differences.py RESULTS... [--baseline supcon-out] [--metrics PATTERN...]
        [--mixed OPTION...]

RESULTS are files of raw results (`.jsonl`, a line a run; `.csv`, as of frozen-features), folders
of `.json`, a file a run, or folders of evaluated runs of `rince`. Runs that differ in nothing but
method and seed (or in --mixed) are compared. Prints markdown: mean difference in per cent points
± half of the 95 % interval of Student's t over the seeds, and "better", "worse" or "cannot be
told".
"""

from __future__ import annotations

import argparse
import csv
import fnmatch
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

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
        yield Run(name, setting, line.get("method") or line["name"], seed, metrics)


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
        {run.seed: run.metrics[name] for run in runs if run.method == x and name in run.metrics}
        for x in (method, baseline)
    )
    errors = name.endswith(("FPR95", "severity"))
    found = paired_difference(ours, theirs, higher_is_better=not errors)
    if found is None:
        return ""
    spread = "" if found.half_width is None else f" ± {100 * found.half_width:.1f}"
    return f"{100 * found.mean:+.1f}{spread} {found.verdict} (n={found.count})"


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
