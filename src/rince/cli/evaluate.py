"""``rince evaluate RUN...``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rince.cli.parser import HelpfulParser, with_underscores
from rince.data.kinds import kind_by_name, may_be

if TYPE_CHECKING:
    from rince.data.items import Splits
    from rince.training.checkpoint import TrainedRun

DIGITS = "digits"
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
        description="Judge trained runs on frozen backbone features: linear probe, kNN, retrieval, "
        "rank order, out-of-distribution detection. Results go into the run's folder.",
        epilog=EXAMPLES,
    )
    parser.add_argument("runs", nargs="+", help="folders of runs")
    parser.add_argument(
        "--ood",
        action="append",
        type=str,
        help="images (or videos) of no known class: FOLDER, NAME=FOLDER, or digits "
        "(scikit-learn's); texts: a .csv or .jsonl FILE or NAME=FILE; may be given several times",
    )
    parser.add_argument("--data", type=str, default=None, help="in place of the run's own data")
    parser.add_argument(
        "--splits", type=str, default=None, help="with --data: UCF101's or HMDB51's split files"
    )
    parser.add_argument("--split", type=int, default=1, help="which of the three")
    parser.add_argument(
        "--data_root", type=str, default=None, help="where a named data set lies, if elsewhere now"
    )
    parser.add_argument(
        "--skip_unreadable",
        action="store_true",
        help="leave out images that cannot be read, with a warning, outliers too",
    )
    parser.add_argument(
        "--near", type=float, default=10.0, help="clips of videos: seconds that count as near"
    )
    parser.add_argument("--probe_epochs", type=int, default=100, help="of the linear probe")
    parser.add_argument("--map_points", type=int, default=1000, help="on the 2-D map; 0: no map")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, mps")
    parser.add_argument("--seed", type=int, default=0, help="of the probe and the map")
    parser.add_argument(
        "--skip_done",
        action="store_true",
        help="leave out runs that have results, unless they were trained on since",
    )
    found = parser.parse_args(with_underscores(arguments))
    outlier_sources = found.ood or []
    named_outliers(outlier_sources)  # refused before any work

    from rince.evaluation.options import EvaluationOptions

    options = EvaluationOptions(
        probe_epochs=found.probe_epochs,
        map_points=found.map_points,
        seed=found.seed,
        near=found.near,
    )
    device = known_device(found.device)
    done: set[Path] = set()
    for name in found.runs:
        folder = Path(name).resolve()  # runs/latest is a link to another of runs/*
        if folder in done or (found.skip_done and is_evaluated(folder)):
            continue
        done.add(folder)
        evaluate_run(
            folder,
            outlier_sources,
            options=options,
            data=found.data,
            data_root=found.data_root,
            splits_folder=found.splits,
            split=found.split,
            skip_unreadable=found.skip_unreadable,
            device=device,
        )


def evaluate_run(
    folder: Path,
    outlier_sources: Sequence[str],
    *,
    options: object,
    data: str | None = None,
    data_root: str | None = None,
    splits_folder: str | None = None,
    split: int = 1,
    skip_unreadable: bool = False,
    device: str = "auto",
) -> None:
    """Evaluate one run and write its results.

    Raises:
        RinceError: no such run or data; or, where ``data`` are not given, images that are no
            longer split as they were when the run was trained.
    """
    from rince.core.checks import warn
    from rince.data.kinds import load_outliers
    from rince.evaluation.evaluate import evaluate_backbone
    from rince.evaluation.options import EvaluationOptions
    from rince.evaluation.results import save_evaluation
    from rince.training.checkpoint import load_run
    from rince.training.folder import ABOUT_FILE

    assert isinstance(options, EvaluationOptions)
    device = known_device(device)
    trained = load_run(folder)
    if not (folder / ABOUT_FILE).exists():  # written when the training ends
        warn(
            f"{folder.name} is not finished: it stopped at step {trained.step}, or is still at "
            f"work. If it stopped, `rince train --resume {folder}` goes on with it"
        )
    images = trained.config.images
    images.root = data_root or images.root
    images.skip_unreadable = images.skip_unreadable or skip_unreadable
    if data is not None:
        trained.config.videos.splits, trained.config.videos.split = splits_folder, split
    splits = _own_splits(trained) if data is None else _other_splits(trained, data)
    outliers = {
        name: load_outliers(
            path,
            splits.test,
            trained.config,
            skip_unreadable=skip_unreadable,
            backbone=trained.config.model.backbone,
        )
        for name, path in named_outliers(outlier_sources).items()
    }
    classes = splits.train.taxonomy.classes
    evaluation = evaluate_backbone(
        trained.backbone.module,
        splits,
        outliers,
        options=options,
        device=device,
        workers=images.workers,
        classifier=trained.classifier,
        own_classes=trained.taxonomy.classes == classes,
        class_ranks=trained.ranks if trained.ranks.classes == classes else None,
    )
    save_evaluation(evaluation, folder)
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
    found: dict[str, str] = {}
    for source in sources:
        name, equals, path = source.partition("=")
        whole = Path(source).expanduser()
        if not equals or whole.is_dir():
            name, path = whole.stem if kind_by_name(str(whole)) else whole.name, source
        if name.strip() in ("", "..") or not path:
            problem = "it has no name" if path else "it names no folder"
        elif "/" in name:
            problem = f"there is no folder {source}, and the name {name!r} may not hold a slash"
        elif name in found:
            problem = f"the name {name!r} is that of {found[name]} already"
        else:
            found[name] = path
            continue
        raise ValueError(f"--ood {source}: {problem}; use --ood NAME=FOLDER")
    return found


def known_device(name: str) -> str:
    """The device of this machine that ``--device`` means.

    Raises:
        ValueError: the machine has no such device.
    """
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    cuda = ["cuda", *(f"cuda:{index}" for index in range(count))] if count else []
    mps = ["mps"] if torch.backends.mps.is_available() else []
    if name == "auto":
        return "cuda" if cuda else "cpu"
    allowed = ["cpu", *cuda, *mps]
    if name not in allowed:
        raise ValueError(
            f"--device {name} is not on this machine; it has {', '.join(allowed)} (or say auto)"
        )
    return name


def is_evaluated(folder: Path) -> bool:
    """Whether the results are there, and not older than the checkpoint."""
    from rince.evaluation.results import RESULTS_FILE
    from rince.training.checkpoint import CHECKPOINT_FILE

    results, checkpoint = folder / RESULTS_FILE, folder / CHECKPOINT_FILE
    return results.exists() and not (
        checkpoint.exists() and results.stat().st_mtime < checkpoint.stat().st_mtime
    )


def _own_splits(trained: TrainedRun) -> Splits:
    """The images that the run was trained with, if they are still the same."""
    from rince.core.checks import RinceError, warn
    from rince.data.kinds import NAMED
    from rince.training.splits import load_splits

    data, name = trained.config.data, trained.folder.name
    splits = load_splits(trained.config)
    changed = splits.train.taxonomy.paths != trained.taxonomy.paths
    if trained.data_fingerprint:
        changed = changed or splits.fingerprint() != trained.data_fingerprint
    elif data not in NAMED:
        warn(
            f"{name} was trained by an older rince, which did not record its images: if "
            f"{data} has no val/ or test/ of its own, test images may have been trained on"
        )
    if changed:
        raise RinceError(
            f"{data} no longer holds the images that {name} was trained with (now "
            f"{len(splits.train)} for training and {len(splits.test)} for the test), so test "
            f"images may have been trained on. Put the data back as they were, train again, or "
            f"give other images with --data"
        )
    _check_fit(trained, splits, data)
    return splits


def _other_splits(trained: TrainedRun, data: str) -> Splits:
    """Other images, in the size and colours that the run's backbone knows; or other texts."""
    from rince.core.checks import RinceError
    from rince.training.splits import load_splits

    if not may_be(data, trained.spec.noun):
        raise RinceError(
            f"{data} holds no {trained.spec.noun}, which {trained.folder.name} was trained on; "
            f"evaluate it on data of its own kind"
        )
    trained.config.data = data
    trained.config.images.image_size = trained.image_size
    splits = load_splits(trained.config, trained.in_channels)
    if splits.train.taxonomy.paths != trained.taxonomy.paths:
        print(f"note: {data} has other classes than {trained.folder.name} was trained on")
    _check_fit(trained, splits, data)
    return splits


def _check_fit(trained: TrainedRun, splits: Splits, data: str) -> None:
    from rince.core.checks import RinceError

    if splits.spec != trained.spec:
        raise RinceError(
            f"{data} holds {splits.spec}, but {trained.folder.name} was trained on "
            f"{trained.spec}; evaluate it on data of its own kind"
        )
