"""``rince evaluate RUN...``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rince.cli.parser import (
    SKIP_UNREADABLE,
    HelpfulParser,
    add_skip_unreadable,
    with_underscores,
)
from rince.core.tables import TABLE_SUFFIXES
from rince.evaluation.options import EvaluationOptions

if TYPE_CHECKING:
    from rince.evaluation.results import Evaluation

EXAMPLES = """examples:
  rince evaluate runs/latest
  rince evaluate runs/kinetics --data UCF-101/ --splits ucfTrainTestlist/
  rince evaluate runs/intents --ood out-of-scope.csv
  rince evaluate runs/* --ood other-photos/ --ood far=birds/ --ood digits
  rince evaluate runs/latest --test new-species/            classes that were never trained
  rince evaluate runs/* --skip-done --ood more-photos/      only what is not there yet
  rince evaluate photos.npz --labels photos.csv             embeddings made elsewhere
"""


def run(arguments: Sequence[str]) -> None:
    """Evaluate runs one after the other; results go into their folders."""
    parser = HelpfulParser(
        aliases=SKIP_UNREADABLE,
        prog="rince evaluate",
        description="Evaluate trained runs, frozen: linear probe, kNN, retrieval at every level of "
        "the class tree, rank order, out-of-distribution detection, on the backbone's features and "
        "on the embedding that the loss saw. Results go into the run's folder, beside those that "
        "are there. Also: embeddings made elsewhere.",
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "runs", nargs="+", help="folders of runs; or files of embeddings: .npz, .npy, .parquet"
    )
    parser.add_argument(
        "--test",
        action="append",
        type=str,
        help="labelled items of any classes, also such that were never trained: a folder or a file "
        "as for training; they are searched among each other. NAME=FOLDER names them; may be given "
        "several times",
    )
    parser.add_argument(
        "--labels",
        type=str,
        default=None,
        help="of embeddings: a table with columns of labels from coarse to fine, and optional "
        "path, split, is_query, is_gallery, sequence",
    )
    parser.add_argument(
        "--levels",
        type=str,
        default=None,
        help="with --labels: its columns of labels from coarse to fine, between commas (default: "
        "all others)",
    )
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
    add_skip_unreadable(parser)
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
        help="measure only what the results do not hold yet: of runs that have some, new outliers "
        "and tests. Results are those of the present weights",
    )
    given = parser.parse_args(with_underscores(arguments))
    outliers, tests = named_outliers(given.ood or []), named_outliers(given.test or [], "--test")

    from rince.core.checks import require
    from rince.core.devices import known_device
    from rince.evaluation.elsewhere import VECTOR_SUFFIXES, evaluate_embeddings, results_folder
    from rince.training.evaluation import evaluate_run, not_measured
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
        if folder in done:
            continue
        done.add(folder)
        if folder.suffix in VECTOR_SUFFIXES and not folder.is_dir():
            require(given.labels is not None, f"{name} holds embeddings: give their --labels FILE")
            require(
                not (outliers or tests or given.data),
                f"--ood, --test and --data are for runs, and {name} holds embeddings",
            )
            levels = None if given.levels is None else given.levels.split(",")
            found = evaluate_embeddings(folder, given.labels, levels=levels, options=options)
            _show(f"{folder.name}, results in {results_folder(folder)}", found)
            continue
        require(given.labels is None, f"--labels is for files of embeddings, but {name} is a run")
        only_named = given.skip_done and is_evaluated(folder)
        asked = not_measured(folder, outliers, tests) if only_named else (outliers, tests)
        if only_named and not any(asked):
            continue
        evaluation = evaluate_run(
            folder,
            asked[0],
            tests=asked[1],
            only_named=only_named,
            options=options,
            data=given.data,
            data_root=given.data_root,
            splits_folder=given.splits,
            split=given.split,
            skip_unreadable=given.images.skip_unreadable,
            device=device,
        )
        _show(folder.name, evaluation)


def _show(name: str, evaluation: Evaluation) -> None:
    from rince.evaluation.results import shown_metric

    print(f"{name} ({evaluation.info['evaluate_seconds']:.0f} s)")
    levels = evaluation.info.get("levels", {})
    shown = {shown_metric(key, levels): value for key, value in evaluation.metrics.items()}
    width = max(32, *(len(metric) + 2 for metric in shown))
    for metric, value in shown.items():
        print(f"  {metric:{width}}{value:8.4f}")


def named_outliers(sources: Sequence[str], option: str = "--ood") -> dict[str, str]:
    """Name -> folder (or "digits") from what ``--ood`` or ``--test`` was given.

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
        raise ValueError(f"{option} {source}: {problem}; use {option} NAME=FOLDER")
    return paths
