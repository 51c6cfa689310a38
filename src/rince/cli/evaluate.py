"""``rince evaluate RUN...``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rince.cli.parser import HelpfulParser, with_underscores
from rince.core.tables import TABLE_SUFFIXES
from rince.evaluation.options import EvaluationOptions

EXAMPLES = """examples:
  rince evaluate runs/latest
  rince evaluate runs/kinetics --data UCF-101/ --splits ucfTrainTestlist/
  rince evaluate runs/intents --ood out-of-scope.csv
  rince evaluate runs/* --ood other-photos/ --ood far=birds/ --ood digits
"""


def run(arguments: Sequence[str]) -> None:
    """Evaluate runs one after the other; results go into their folders."""
    parser = HelpfulParser(
        prog="rince evaluate",
        description="Evaluate trained runs on frozen backbone features: linear probe, kNN, "
        "retrieval, rank order, out-of-distribution detection. Results go into the run's folder.",
        epilog=EXAMPLES,
    )
    parser.add_argument("runs", nargs="+", help="folders of runs")
    parser.add_argument(
        "--ood",
        action="append",
        type=str,
        help="outliers, of no known class: a folder of images or videos, a .csv or .jsonl file of "
        "texts, or digits (scikit-learn's); NAME=FOLDER names them; may be given several times",
    )
    parser.add_argument(
        "--data", type=str, default=None, help="evaluate on these data in place of the run's own"
    )
    parser.add_argument(
        "--splits",
        type=str,
        default=None,
        help="with --data: folder with the split files of UCF101 or HMDB51",
    )
    parser.add_argument(
        "--split", type=int, default=1, help="with --splits: which of the three splits"
    )
    parser.add_argument(
        "--data_root",
        type=str,
        default=None,
        help="folder where a named data set is, if it was moved",
    )
    parser.add_argument(
        "--skip_unreadable",
        action="store_true",
        help="leave out files that cannot be read, outliers too, with a warning",
    )
    parser.add_argument(
        "--near",
        type=float,
        default=10.0,
        help="clips of one video up to this many seconds apart count as near each other",
    )
    parser.add_argument(
        "--probe_epochs", type=int, default=100, help="epochs of the linear probe (the paper: 100)"
    )
    parser.add_argument(
        "--map_points",
        type=int,
        default=1000,
        help="test items on the 2-D map, which is the slowest part; 0: no map",
    )
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--seed", type=int, default=0, help="seed of the probe and of the map")
    parser.add_argument(
        "--skip_done",
        action="store_true",
        help="leave out runs that have results, unless they were trained on since",
    )
    given = parser.parse_args(with_underscores(arguments))
    outliers = named_outliers(given.ood or [])

    from rince.core.devices import known_device
    from rince.training.evaluation import evaluate_run
    from rince.training.folder import is_evaluated

    options = EvaluationOptions(
        probe_epochs=given.probe_epochs,
        map_points=given.map_points,
        seed=given.seed,
        near=given.near,
    )
    device = known_device(given.device)
    done: set[Path] = set()
    for name in given.runs:
        folder = Path(name).resolve()  # runs/latest is a link to another of runs/*
        if folder in done or (given.skip_done and is_evaluated(folder)):
            continue
        done.add(folder)
        evaluation = evaluate_run(
            folder,
            outliers,
            options=options,
            data=given.data,
            data_root=given.data_root,
            splits_folder=given.splits,
            split=given.split,
            skip_unreadable=given.skip_unreadable,
            device=device,
        )
        print(f"{folder.name} ({evaluation.info['evaluate_seconds']:.0f} s)")
        for metric, value in evaluation.metrics.items():
            print(f"  {metric:32}{value:8.4f}")


def named_outliers(sources: Sequence[str]) -> dict[str, str]:
    """Name -> folder (or "digits") from what ``--ood`` was given.

    Raises:
        ValueError: a name that is empty, given twice, or holds a slash.

    Example:
        >>> named_outliers(["other-photos/", "far=birds/", "digits"])
        {'other-photos': 'other-photos/', 'far': 'birds/', 'digits': 'digits'}
    """
    paths: dict[str, str] = {}
    for source in sources:
        name, equals, path = source.partition("=")
        whole = Path(source).expanduser()
        if not equals or whole.is_dir():
            name, path = (
                whole.stem if whole.suffix.lower() in TABLE_SUFFIXES else whole.name,
                source,
            )
        if name.strip() in ("", "..") or not path:
            problem = "it has no name" if path else "it names no folder"
        elif "/" in name:
            problem = f"there is no folder {source}, and the name {name!r} may not hold a slash"
        elif name in paths:
            problem = f"the name {name!r} is that of {paths[name]} already"
        else:
            paths[name] = path
            continue
        raise ValueError(f"--ood {source}: {problem}; use --ood NAME=FOLDER")
    return paths
