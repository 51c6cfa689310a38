"""Many small heads on frozen features: every method, variant, rank source and noise level.

    python experiments/frozen-features/study.py FEATURES.npz OUTPUT [--seeds 3] [--jobs 2]
    python experiments/frozen-features/study.py FEATURES.npz OUTPUT --only temperatures --tuning

A trunk (linear, batch norm, ReLU) maps the features of features.py to 256 dimensions, which are
evaluated; the losses see a projection of them, as in `rince train`. Two views of an image are two
dropout masks on its features. Every method has the same batches, steps, optimizer and augmentation.
`--tuning` splits a fifth off the training images and measures on that, so that choices can be made
without the test images. One line of JSON a run goes to OUTPUT/runs.jsonl; runs that are there
already are left out, so a stopped study goes on. tables.py makes the tables.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from rince import Taxonomy
from rince.data.plan import BatchPlan
from rince.data.sampler import BalancedPlan
from rince.evaluation import FeatureSet, label_levels, outlier_detectors
from rince.metrics import auroc, fpr_at_tpr, linear_probe, rank_agreement, retrieval_by_level
from rince.models.heads import ProjectionAndClassifier, projection_head
from rince.ranks import ClassRanks
from rince.training.classifiers import classifier_head
from rince.training.config import (
    BatchOptions,
    LossOptions,
    RankOptions,
    TrainConfig,
)
from rince.training.module import lr_factor
from rince.training.objectives import OBJECTIVES
from rince.training.ranks import training_ranks
from rince.training.step import Pairs, Step, objective_loss

EPOCHS, BATCH, WIDTH, EMBEDDING, DROPOUT = 8, 256, 256, 128, 0.3
PROBE_EPOCHS, NEIGHBOURS = 20, 20
ORDER_QUERIES = 1000  # test images whose order of ranks is measured; all are for the other metrics
LR, WEIGHT_DECAY, WARMUP_STEPS = 0.25, 1e-4, 20


class Data(NamedTuple):
    train: FeatureSet
    test: FeatureSet
    outliers: dict[str, Tensor]
    taxonomy: Taxonomy


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


def load(file: Path, tuning: bool) -> Data:
    with np.load(file) as stored:
        sets = {
            name: FeatureSet(torch.tensor(stored[name]), torch.tensor(stored[f"{name}_labels"]))
            for name in ("train", "test", "near", "far")
        }
        taxonomy = Taxonomy([tuple(path.split("/")) for path in stored["paths"].tolist()])
    train, test = sets["train"], sets["test"]
    scale = train.features.std()  # one for all: cosines of the features stay what they are
    if tuning:
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
        held = len(train) // 5
        train, test = (
            FeatureSet(train.features[rows], train.labels[rows])
            for rows in (order[held:], order[:held])
        )
    outliers = {} if tuning else {name: sets[name].features / scale for name in ("near", "far")}
    train, test = (FeatureSet(part.features / scale, part.labels) for part in (train, test))
    return Data(train, test, outliers, taxonomy)


def plan_of(config: TrainConfig, data: Data) -> BatchPlan:
    images, classes = config.batches.images_per_class, config.batches.classes_per_superclass
    if images is None:
        return BatchPlan(len(data.train), BATCH, config.seed)
    groups = data.taxonomy.labels_at(2)
    return BalancedPlan(data.train.labels, groups, BATCH, images, classes or 1, seed=config.seed)


def train(config: TrainConfig, data: Data, ranks: ClassRanks, epochs: int) -> nn.Sequential:
    """A trunk, trained with any objective of rince; and its head."""
    torch.manual_seed(config.seed)
    objective = OBJECTIVES[config.objective]
    head: nn.Module
    if objective.classifier:
        head = classifier_head(objective, WIDTH, data.taxonomy)
    else:
        head = projection_head(WIDTH, EMBEDDING, objective.num_heads)
    if objective.classifier_beside:
        head = ProjectionAndClassifier(head, classifier_head(objective, WIDTH, data.taxonomy))
    trunk = nn.Sequential(
        nn.Linear(data.train.features.shape[1], WIDTH, bias=False), nn.BatchNorm1d(WIDTH), nn.ReLU()
    )
    model = nn.Sequential(OrderedDict(trunk=trunk, head=head))
    optimizer = torch.optim.SGD(model.parameters(), LR, momentum=0.9, weight_decay=WEIGHT_DECAY)
    plan = plan_of(config, data)
    total = epochs * len(plan)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: lr_factor(step, total, WARMUP_STEPS, 1e-3)
    )
    for rows in _rows(plan, epochs):
        both = torch.cat([rows, rows])
        labels = data.train.labels[both]
        x = functional.dropout(data.train.features[both], DROPOUT)  # (2B, F): two views
        z = model(x)
        logits = z if objective.classifier else None
        if objective.classifier_beside:
            z, logits = z[:, :EMBEDDING], z[:, EMBEDDING:]
        heads = objective.num_heads
        pairs = Pairs(z, z, labels, labels, both, both, ignore_self=True, num_heads=heads)
        loss = objective_loss(objective, Step(pairs, data.taxonomy, ranks, config.loss, logits))
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def _rows(plan: BatchPlan, epochs: int) -> Iterator[Tensor]:
    for epoch in range(epochs):
        plan.set_epoch(epoch)
        yield from (rows for _, rows in plan.take())


def evaluate(
    train: FeatureSet, test: FeatureSet, data: Data, classifier: nn.Module | None, seed: int
) -> dict[str, float]:
    """The metrics of `rince evaluate`, with a shorter probe and fewer queries for the order."""
    metrics: dict[str, float] = {}
    levels = label_levels(data.taxonomy, train, test)
    for level, (of_train, of_test, count) in levels.items():
        metrics[f"probe/{level}"] = linear_probe(
            test.features,
            train.features,
            of_test,
            of_train,
            num_classes=count,
            epochs=PROBE_EPOCHS,
            seed=seed,
        ).accuracy
    sides = {level: (of_test, of_train) for level, (of_train, of_test, _) in levels.items()}
    for level, result in retrieval_by_level(test.features, train.features, sides).items():
        metrics |= {f"retrieval/{level}/R@{k}": x for k, x in result.recall.items()}
        metrics[f"retrieval/{level}/mAP"] = result.mean_average_precision
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[:ORDER_QUERIES]
    ranks = data.taxonomy.ranks(test.labels[order], train.labels)
    agreement = rank_agreement(test.features[order], train.features, ranks)
    metrics |= {f"ordering/{name}": value for name, value in agreement.items()}
    detectors = outlier_detectors(train, NEIGHBOURS, classifier) if data.outliers else {}
    for detector, score in detectors.items():
        with torch.no_grad():
            inside = score(test.features)
            for name, features in data.outliers.items():
                outside = score(features)
                metrics[f"ood/{name}/{detector}/AUROC"] = auroc(inside, outside)
                metrics[f"ood/{name}/{detector}/FPR95"] = fpr_at_tpr(inside, outside)
    return metrics


def run(file: Path, study: str, name: str, seed: int, tuning: bool) -> dict[str, Any]:
    torch.set_num_threads(1)
    data, config = load(file, tuning), STUDIES[study][name]
    started = time.perf_counter()
    classifier = None
    parts = {"train": data.train, "test": data.test}
    if config is not None:
        config.seed = seed
        ranks = training_ranks(config.ranks, data.taxonomy, seed)
        epochs = config.epochs if study == "budget" else EPOCHS
        model = train(config, data, ranks, epochs)
        trunk = model.get_submodule("trunk")
        if OBJECTIVES[config.objective].classifier_beside:
            classifier = model.get_submodule("head.classifier")
        elif config.objective == "cross-entropy":
            classifier = model.get_submodule("head")
        with torch.no_grad():
            parts = {k: FeatureSet(trunk(v.features), v.labels) for k, v in parts.items()}
            data = data._replace(outliers={k: trunk(v) for k, v in data.outliers.items()})
    seconds = time.perf_counter() - started
    metrics = evaluate(parts["train"], parts["test"], data, classifier, seed)
    about = {"study": study, "name": name, "seed": seed, "tuning": tuning, "train_seconds": seconds}
    return about | {"metrics": metrics}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("features", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--only", nargs="+", choices=STUDIES, default=list(STUDIES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--tuning", action="store_true", help="use held-out training images")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    file = given.output / "runs.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    done = {(x["study"], x["name"], x["seed"], x["tuning"]) for x in lines}
    wanted = [
        (study, name, seed, given.tuning)
        for seed in range(given.seeds)
        for study in given.only
        for name, config in STUDIES[study].items()
        if config is not None or seed == 0  # features as they are know no seed
    ]
    left = [key for key in wanted if key not in done]
    with ProcessPoolExecutor(given.jobs) as pool, file.open("a") as out:
        futures = [pool.submit(run, given.features, *key) for key in left]
        for count, future in enumerate(as_completed(futures), 1):
            result = future.result()
            print(json.dumps(result), file=out, flush=True)
            shown = ("probe/fine", "retrieval/fine/R@1", "retrieval/coarse/R@1")
            numbers = ", ".join(f"{k} {100 * result['metrics'][k]:.1f}" for k in shown)
            print(
                f"{count}/{len(left)} {result['study']}: {result['name']}, seed {result['seed']}: "
                f"{numbers} ({result['train_seconds']:.0f} s)",
                flush=True,
            )


if __name__ == "__main__":
    main()
