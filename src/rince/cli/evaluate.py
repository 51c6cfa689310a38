"""``rince evaluate RUN...``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rince.cli.parser import HelpfulParser, add_table, given_of
from rince.core.checks import RinceError, require, warn
from rince.core.files import absent, is_vector_file, leading_to, user_path
from rince.core.tables import TABLE_SUFFIXES
from rince.evaluation.options import EvaluationOptions, wrong_name

if TYPE_CHECKING:
    from rince.evaluation.results import Evaluation

EXAMPLES = """examples:
  rince evaluate runs/latest
  rince evaluate runs/kinetics --data UCF-101/ --splits ucfTrainTestlist/   on other data, too
  rince evaluate runs/intents --ood out-of-scope.csv
  rince evaluate runs/* --ood other-photos/ --ood far=birds/ --ood digits
  rince evaluate runs/latest --test new-species/            classes that were never trained
  rince evaluate runs/* --skip-done --ood more-photos/      only what is not there yet
  rince evaluate photos.npz --labels photos.csv             embeddings made elsewhere
  rince evaluate runs/latest/export --data photos/          any export, on other data
  torchrun --nproc-per-node 8 -m rince evaluate runs/latest several GPUs
"""
NOT_ASKED = {"knn_k", "gallery_queries", "gallery_neighbours"}  # in Python only


def _parser() -> HelpfulParser:
    parser = HelpfulParser(
        prog="rince evaluate",
        description="Evaluate trained runs, frozen: linear probe, kNN, retrieval at every level of "
        "the class tree, rank order, out-of-distribution detection, on the backbone's features and "
        "on the embedding that the loss saw. Results go into the run's folder, beside those that "
        "are there; those of other data into a folder of their name in it. Also: embeddings made "
        "elsewhere. What each number means: docs/evaluation.md.",
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "runs",
        nargs="+",
        help="folders of runs; of exports, with --data; or files of embeddings: .npz, .npy, "
        ".parquet",
    )
    parser.add_argument(
        "--test",
        action="append",
        help="labelled items of any classes, also such that were never trained: a folder or a file "
        "as for training; they are searched among each other. NAME=FOLDER names them; may be given "
        "several times",
    )
    parser.add_argument(
        "--labels",
        help="of embeddings, also those of --data: a table with columns of labels from coarse to "
        "fine, and optional path, split, is_query, is_gallery, sequence (default: arrays in the "
        "file itself, or the table of the same name beside it)",
    )
    parser.add_argument(
        "--levels",
        type=tuple[str, ...] | None,
        help="of embeddings, with --labels: its columns of labels from coarse to fine, between "
        "commas (default: all others)",
    )
    parser.add_argument(
        "--ood",
        action="append",
        help="outliers, of no known class: a folder of images or videos, a .csv or .jsonl file of "
        "texts, or digits (scikit-learn's); NAME=FOLDER names them; may be given several times",
    )
    parser.add_argument("--data", help="evaluate on these data in place of the run's own")
    add_table(
        parser,
        "column of the texts or paths in the tables of --ood, --test and --data (default: as at "
        "the training)",
    )
    parser.add_argument(
        "--splits", help="with --data: folder with the split files of UCF101 or HMDB51"
    )
    parser.add_argument(
        "--split", type=int, default=1, help="with --splits: which of the three splits"
    )
    parser.add_argument(
        "--ranks.tree",
        dest="tree",
        metavar="FILE",
        help="superclasses for the classes of --data, --test or embeddings, as of rince train "
        "(default: of runs theirs)",
    )
    parser.add_argument("--data_root", help="folder where a named data set is, if it was moved")
    parser.add_shared("--skip_unreadable")
    parser.add_options(EvaluationOptions, skip=NOT_ASKED)
    parser.add_shared("--device")
    parser.add_argument(
        "--skip_done",
        action="store_true",
        help="measure only what the results do not hold yet: of runs that have some, new outliers "
        "and tests. Results are those of the present weights",
    )
    parser.add_argument(
        "--verbose", action="store_true", help="print every number, not only the table"
    )
    return parser


def run(arguments: Sequence[str]) -> None:
    """Evaluate runs one after the other, the others also where one fails; results go into their
    folders."""
    given = _parser().parse_args(arguments)
    outliers, tests = named_outliers(given.ood or []), named_outliers(given.test or [], "--test")

    from rince.core.devices import known_device

    options = EvaluationOptions(**given_of(EvaluationOptions, vars(given)))
    device = known_device(given.device)
    named = leading_to(given.runs)  # runs/latest is a link to another of runs/*
    for folder, name in named.items():  # before any work is done
        if not folder.exists():
            raise RinceError(absent("file" if is_vector_file(folder) else "folder", name))
        require(
            not (is_vector_file(folder) and (outliers or tests or given.data)),
            f"--ood, --test and --data are for runs, and {name} holds embeddings",
        )
    runs = {x: name for x, name in named.items() if is_vector_file(x) or _is_run(x, name, given)}
    require(bool(runs), "none of these is a run: `rince train` makes one")
    evaluated: list[Path] = []  # files of embeddings, and folders of results
    failed: list[str] = []
    for folder, name in runs.items():
        try:
            if is_vector_file(folder):
                _evaluate_file(folder, given, options)
                evaluated.append(folder)
            elif results := _evaluate_run(folder, given, outliers, tests, options, device):
                evaluated.append(results)
        except BrokenPipeError:  # nobody reads on
            raise
        except (RinceError, ValueError, OSError, ImportError, FloatingPointError) as error:
            if len(runs) == 1:
                raise
            failed.append(f"\n  {name}: {error}")
    if evaluated:
        from rince.reports.reading import read_run
        from rince.reports.table import print_table

        print()
        print_table([read_run(folder) for folder in evaluated])
    if failed:
        count = f"{len(failed)} of {len(runs)} could not be evaluated"
        raise RinceError(f"{count}:{''.join(failed)}")


def _evaluate_file(file: Path, given: argparse.Namespace, options: EvaluationOptions) -> None:
    """Embeddings made elsewhere."""
    from rince.core.tables import read_as
    from rince.evaluation.elsewhere import evaluate_embeddings, results_folder

    with read_as(given.encoding):
        found = evaluate_embeddings(
            file, given.labels, levels=given.levels, tree=given.tree, options=options
        )
    _say(results_folder(file).name, found, given.verbose)


def _is_run(folder: Path, name: str, given: argparse.Namespace) -> bool:
    """False: it is neither a run nor an export, and left out, as there are others."""
    from rince.models.exported import EXPORT_FILE, towers_in
    from rince.training.folder import CHECKPOINT_FILE, results_in

    require(
        given.labels is None or given.data is not None,
        f"--labels is for files of embeddings, but {name} is a run, which needs --data with it",
    )
    require(
        given.levels is None,
        f"--levels is for files of embeddings, but {name} is a run: the columns of labels are "
        f"those of its training",
    )
    holds_one = any((folder / file).is_file() for file in (CHECKPOINT_FILE, EXPORT_FILE))
    if len(given.runs) > 1 and not holds_one:
        why = towers_in(folder) or results_in(folder) or ", so it is no run yet"
        warn(f"left out: {name} holds no checkpoint ({CHECKPOINT_FILE}){why}")
        return False
    return True


def _evaluate_run(
    folder: Path,
    given: argparse.Namespace,
    outliers: Mapping[str, str],
    tests: Mapping[str, str],
    options: EvaluationOptions,
    device: str,
) -> Path | None:
    """The folder of the results; None: there was nothing new to measure."""
    from rince.core.shared_work import parts_in
    from rince.training.evaluation import evaluate_run
    from rince.training.kept_results import (
        options_of_tables,
        present_results,
        unmeasured_outliers,
        unmeasured_tests,
    )

    done = present_results(folder) if given.skip_done and given.data is None else None
    tables = options_of_tables(given.column, given.encoding)
    if done is not None and not (
        unmeasured_outliers(done, outliers, tables)
        or unmeasured_tests(done, tests, given.tree, tables)
    ):
        print(f"{folder.name}: nothing new is asked, its results stay")
        return None
    with parts_in(folder / "encoded"):
        evaluation = evaluate_run(
            folder,
            outliers,
            tests=tests,
            skip_done=given.skip_done,
            options=options,
            data=given.data,
            data_root=given.data_root,
            column=given.column,
            labels=given.labels,
            encoding=given.encoding,
            splits_folder=given.splits,
            split=given.split,
            tree=given.tree,
            skip_unreadable=given.skip_unreadable,
            device=device,
        )
    _say(folder.name, evaluation, given.verbose)
    return evaluation.folder


def _say(name: str, evaluation: Evaluation, verbose: bool) -> None:
    from rince.evaluation.results import RESULTS_FILE, shown_metric

    seconds, metrics = evaluation.info["evaluate_seconds"], evaluation.metrics
    file = f"{evaluation.folder}/{RESULTS_FILE}"
    print(f"{name} ({seconds:.0f} s): all {len(metrics)} numbers are in {file}")
    if verbose:
        levels = evaluation.info.get("levels", {})
        shown = {shown_metric(key, levels): value for key, value in metrics.items()}
        width = max(32, *(len(metric) + 2 for metric in shown))
        for metric, value in shown.items():
            print(f"  {metric:{width}}{value:8.4f}")


def named_outliers(sources: Sequence[str], option: str = "--ood") -> dict[str, str]:
    """Name -> folder (or "digits") from what ``--ood`` or ``--test`` was given.

    Example:
        >>> named_outliers(["other-photos/", "far=birds/", "digits"])
        {'other-photos': 'other-photos/', 'far': 'birds/', 'digits': 'digits'}
    """
    paths: dict[str, str] = {}
    for source in sources:
        name, equals, path = source.partition("=")
        whole = user_path(source)
        if not equals or whole.exists():
            name, path = (
                whole.stem if whole.suffix.lower() in TABLE_SUFFIXES else whole.name,
                source,
            )
        if not path:
            problem = "it names no folder"
        elif problem := wrong_name(name):
            problem = f"there is no folder {source}, and {problem}" if "/" in name else problem
        elif name in paths:
            problem = f"the name {name!r} is that of {paths[name]} already"
        else:
            paths[name] = path
            continue
        raise ValueError(f"{option} {source}: {problem}; use {option} NAME=FOLDER")
    return paths
