"""Many small heads on frozen features: every method, variant, rank source and noise level.

    python experiments/frozen-features/study.py OUTPUT --data FEATURES/items.npz \\
        --outliers near=FEATURES/near.npz far=FEATURES/far.npz [--seeds 3] [--workers 2]
    python experiments/frozen-features/study.py OUTPUT --data FEATURES/items.npz \\
        --only temperatures --tuning

FEATURES are those of features.py. A run is `rince train FEATURES/items.npz --epochs 8 --batch-size
256` with the options of a row of STUDIES, and the features of its network are evaluated. Every
method has the same batches, steps, optimizer and augmentation. `--tuning` holds out a fifth of the
training images and measures on that, so that choices can be made without the test images. One .json
a run goes to OUTPUT; those that are there already are left out, so a stopped study goes on.
tables.py makes the tables.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from rince.data import Splits, load_outliers, load_splits
from rince.data.items import split_by_hash
from rince.evaluation import Context, EvaluationOptions
from rince.evaluation.evaluate import measure
from rince.evaluation.features import Network
from rince.evaluation.steps import class_retrieval, outlier_detection, probe_and_knn
from rince.metrics import rank_agreement
from rince.models.backbones import Backbone, build_backbone
from rince.training import (
    OBJECTIVES,
    BatchOptions,
    LossOptions,
    RankOptions,
    TrainConfig,
    load_run,
    train,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "cifar100"))

from runs import queue_options, run_all

EPOCHS, BATCH, PROBE_EPOCHS = 8, 256, 20
ORDER_QUERIES = 1000  # test images whose order of ranks is measured; all are for the other metrics


def _rince(variant: str = "out-in", positives: str = "exclusive", **ranks: Any) -> TrainConfig:
    loss = LossOptions(variant=variant, positives=positives)  # type: ignore[arg-type]
    return TrainConfig("", loss=loss, ranks=RankOptions(**ranks))


def _temperatures(objective: str, *temperatures: float) -> TrainConfig:
    if objective == "rince":
        return TrainConfig("", loss=LossOptions(temperatures=temperatures))
    return TrainConfig("", objective, loss=LossOptions(temperature=temperatures[0]))  # type: ignore[arg-type]


def _batches(objective: str, images: int, classes: int) -> TrainConfig:
    return TrainConfig("", objective, batches=BatchOptions(images, classes))  # type: ignore[arg-type]


BASELINES = tuple(name for name in OBJECTIVES if name != "rince")
NEAREST = (
    "supcon-out",
    "cross-entropy",
    "rince-and-cross-entropy",
    "x-clr",
    "smooth-ap",
    "smooth-hap",
    "cross-scale",
    "supcon-siblings",
)
# study -> name of the row -> what is trained (None: the features as they are)
STUDIES: dict[str, dict[str, TrainConfig | None]] = {
    "methods": {
        "no head": None,
        **{
            f"rince {variant}{' cumulative' * (positives == 'cumulative')}": _rince(
                variant, positives
            )
            for positives in ("exclusive", "cumulative")
            for variant in ("in", "out", "out-in")
        },
        **{name: TrainConfig("", name) for name in BASELINES},  # type: ignore[arg-type]
        "cross-entropy smoothed": TrainConfig("", "cross-entropy", loss=LossOptions(smoothing=0.2)),
    },
    # Rows of "methods" again, for a part of the data.
    "nearest": {
        "no head": None,
        "rince out-in": _rince(),
        **{name: TrainConfig("", name) for name in NEAREST},  # type: ignore[arg-type]
    },
    "scores": {
        config.ranks.label() + ", " + config.loss.variant: config
        for rule in (
            {"scores": "text", "thresholds": (0.4,)},
            {"scores": "text", "top_k": (4,)},
            {"scores": "text", "top_k": (4, 15)},
            {"scores": "wordnet", "top_k": (4,)},
            {"scores": "wordnet", "top_k": (4, 15)},
        )
        for config in (_rince(variant, **rule) for variant in ("in", "out", "out-in"))
    },
    "moved": {
        f"{share:g} {variant}": _rince(variant, move_classes=share)
        for share in (0.1, 0.2, 0.4, 0.7, 1.0)
        for variant in ("out", "out-in")
    },
    "forgotten": {
        f"{share:g} {variant}": _rince(variant, forget=share)
        for share in (0.25, 0.5, 0.75)
        for variant in ("out", "out-in")
    },
    "score-noise": {
        f"{sd:g} {variant}": _rince(variant, scores="text", top_k=(4,), score_noise=sd)
        for sd in (0.1, 0.2, 0.4)
        for variant in ("out", "out-in")
    },
    "temperatures": {
        **{
            f"rince {first:g} {second:g}": _temperatures("rince", first, second)
            for first in (0.05, 0.1, 0.2)
            for second in (0.1, 0.15, 0.225, 0.35, 0.6)
            if second > first
        },
        **{
            f"{objective} {tau:g}": _temperatures(objective, tau)
            for objective in ("supcon-out", "supcon-coarse")
            for tau in (0.05, 0.1, 0.2, 0.4)
        },
    },
    # The best of the above by fine R@1 on held-out training images, and the paper's beside it.
    "tuned": {
        "rince 0.05 0.6": _temperatures("rince", 0.05, 0.6),
        "rince 0.1 0.225": _temperatures("rince", 0.1, 0.225),
        "supcon-out 0.05": _temperatures("supcon-out", 0.05),
        "supcon-out 0.1": _temperatures("supcon-out", 0.1),
    },
    "batches": {
        f"{objective} {images} x {classes}": _batches(objective, images, classes)
        for objective in ("rince", "supcon-out")
        for images, classes in ((4, 1), (4, 4), (8, 1), (16, 2))
    },
    "budget": {
        f"{objective} {epochs} epochs": TrainConfig("", objective, epochs=epochs)  # type: ignore[arg-type]
        for epochs in (3, 30)
        for objective in ("rince", "supcon-out", "supcon-coarse", "cross-entropy")
    },
}


@cache
def data_of(data: str, tuning: bool) -> Splits:
    splits = load_splits(data, TrainConfig(data))
    return Splits(*split_by_hash(splits.train)) if tuning else splits


def order_of_ranks(context: Context) -> dict[str, float]:
    """That of `rince evaluate`, of fewer queries."""
    test, gallery = context.test, context.train
    rows = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[:ORDER_QUERIES]
    ranks = context.taxonomy.ranks(test.labels[rows], gallery.labels)
    found = rank_agreement(test.features[rows], gallery.features, ranks)
    return {f"ordering/{name}": value for name, value in found.items()}


def run(setting: dict[str, Any], arguments: Any, outliers: Mapping[str, str]) -> dict[str, Any]:
    """Train and evaluate one row of a study."""
    splits = data_of(arguments.data, setting["tuning"])
    config = STUDIES[setting["study"]][setting["name"]]
    started = time.perf_counter()
    classifier, backbone = None, build_backbone("identity", splits.spec)
    if config is not None:
        backbone, classifier = trained(config, setting, arguments.data, splits)
    seconds = time.perf_counter() - started
    measured = measure(
        Network(backbone.module),
        splits,
        {}
        if setting["tuning"]
        else {
            name: load_outliers(path, splits.test, TrainConfig(path))
            for name, path in outliers.items()
        },
        classifier=classifier,
        options=EvaluationOptions(probe_epochs=PROBE_EPOCHS, seed=setting["seed"]),
        steps=[probe_and_knn, class_retrieval, order_of_ranks, outlier_detection],
    )
    return {"train_seconds": seconds, "metrics": measured.metrics}


def trained(
    config: TrainConfig, setting: dict[str, Any], data: str, splits: Splits
) -> tuple[Backbone, torch.nn.Module | None]:
    """A backbone, and the classifier behind or beside it, if there is one."""
    with tempfile.TemporaryDirectory() as output:
        config = replace(
            config,
            data=data,
            seed=setting["seed"],
            epochs=config.epochs if setting["study"] == "budget" else EPOCHS,
            batch_size=BATCH,
            output=output,
            accelerator="cpu",
            knn_every=0,
            progress=False,
        )
        found = load_run(train(config, splits=splits))
    return found.backbone, found.classifier


def name_of(setting: dict[str, Any]) -> str:
    tuning = " tuning" * setting["tuning"]
    return f"{setting['study']} {setting['name']} seed{setting['seed']}{tuning}"


def main() -> None:
    parser = queue_options(__doc__)
    parser.add_argument("--data", required=True, help="items.npz of features.py")
    parser.add_argument("--only", nargs="+", choices=STUDIES, default=list(STUDIES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tuning", action="store_true", help="use held-out training images")
    given = parser.parse_args()
    settings = [
        {"study": study, "name": name, "seed": seed, "tuning": given.tuning}
        for seed in range(given.seeds)
        for study in given.only
        for name, config in STUDIES[study].items()
        if config is not None or seed == 0  # features as they are know no seed
    ]
    run_all(settings, run, name_of, given, outliers_of=str)


if __name__ == "__main__":
    main()
