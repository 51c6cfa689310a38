"""``rince evaluate RUN...``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rince.cli.parser import HelpfulParser, with_underscores

EXAMPLES = """examples:
  rince evaluate runs/latest
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
        help="images of no known class: FOLDER, NAME=FOLDER, or digits (scikit-learn's); may be "
        "given several times",
    )
    parser.add_argument("--data", type=str, default=None, help="in place of the run's own data")
    parser.add_argument("--probe_epochs", type=int, default=100, help="of the linear probe")
    parser.add_argument("--map_points", type=int, default=1000, help="on the 2-D map; 0: no map")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, mps")
    parser.add_argument("--seed", type=int, default=0, help="of the probe and the map")
    parser.add_argument("--skip_done", action="store_true", help="leave out runs that have results")
    found = parser.parse_args(with_underscores(arguments))

    from rince.evaluation.evaluate import EvaluationOptions
    from rince.evaluation.results import RESULTS_FILE

    options = EvaluationOptions(
        probe_epochs=found.probe_epochs, map_points=found.map_points, seed=found.seed
    )
    done: set[Path] = set()
    for name in found.runs:
        folder = Path(name).resolve()  # runs/latest is a link to another of runs/*
        if folder in done or (found.skip_done and (folder / RESULTS_FILE).exists()):
            continue
        done.add(folder)
        evaluate_run(folder, found.ood or [], options=options, data=found.data, device=found.device)


def evaluate_run(
    folder: Path,
    outlier_sources: Sequence[str],
    *,
    options: object,
    data: str | None = None,
    device: str = "auto",
) -> None:
    """Evaluate one run and write its results."""
    import torch

    from rince.data.images import load_outliers
    from rince.data.sources import digits_outliers
    from rince.evaluation.evaluate import EvaluationOptions, evaluate_backbone
    from rince.evaluation.results import save_evaluation
    from rince.training.checkpoint import load_run
    from rince.training.run import load_splits

    assert isinstance(options, EvaluationOptions)
    trained = load_run(folder)
    config = trained.config
    if data is not None:
        config.data = data
    splits = load_splits(config)
    if splits.train.taxonomy.classes != trained.taxonomy.classes:
        print(f"note: {config.data} has other classes than {folder.name} was trained on")
    outliers = {}
    for source in outlier_sources:
        name, _, path = source.rpartition("=")
        if path == "digits":
            outliers[name or "digits"] = digits_outliers(trained.image_size, trained.in_channels)
        else:
            outliers[name or Path(path).name] = load_outliers(
                path, trained.image_size, trained.in_channels
            )
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    evaluation = evaluate_backbone(
        trained.backbone.module, splits, outliers, options=options, device=device
    )
    save_evaluation(evaluation, folder)
    print(f"{folder.name} ({evaluation.info['evaluate_seconds']:.0f} s)")
    for metric, value in evaluation.metrics.items():
        print(f"  {metric:32}{value:8.4f}")
