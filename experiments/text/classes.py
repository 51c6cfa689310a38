"""Texts with classes in groups: RINCE, SupCon, MultipleNegativesRankingLoss, the frozen encoder.

    python experiments/text/classes.py clinc DATA/clinc150 OUTPUT [--seeds 0 1 2]
    python experiments/text/classes.py newsgroups DATA/newsgroups20 OUTPUT
    python experiments/text/classes.py newsgroups DATA/newsgroups20 OUTPUT --table

All methods see the same texts in the same batches (two texts of each of many classes) for the same
number of steps. Learning rate and temperature are tuned for each method by itself, on validation
texts and training texts drawn for that alone (seed 100), by the mean R@1 over the levels; the test
texts are looked at once, with what was chosen. A study that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from common import Results, add_study_arguments, encode, load_model, table, train
from newsgroups import posts
from torch import Tensor

import rince
from rince.data.sampler import BalancedPlan
from rince.metrics import (
    ClassGaussians,
    auroc,
    knn_ood_score,
    linear_probe,
    rank_agreement,
    retrieval_by_level,
)

METHODS = ("frozen", "mnrl", "supcon-out", "rince out-in")
STEPS_BETWEEN_TEMPERATURES = (1.0, 2.25, 5.0)  # the paper's 0.1, 0.225, and 0.5 for a third rank
GRID = tuple((lr, tau) for lr in (1e-4, 5e-4) for tau in (0.05, 0.1))
TUNING_SEED = 100

Split = tuple[list[str], Tensor]


@dataclass(frozen=True)
class Study:
    """A data set and its budget.

    Args:
        tree: the classes. levels: name -> (C,) group of each class.
        train, val, test: texts and labels. outliers: texts of no class, maybe none.
        settings: name -> (texts a class, epochs); tuned: the setting that is used for tuning.
        batch_size: two texts a class. layers: that are trained. max_length: tokens.
    """

    tree: rince.Taxonomy
    levels: dict[str, Tensor]
    train: Split
    val: Split
    test: Split
    outliers: list[str]
    settings: dict[str, tuple[int, int]]
    tuned: str
    batch_size: int
    layers: int
    max_length: int
    probe_epochs: int = 100
    grid: tuple[tuple[float, float], ...] = GRID


def clinc(folder: Path) -> Study:
    """150 intents in 10 domains, 15,000 / 3,000 / 4,500 sentences, 1,000 out-of-scope ones."""
    data = json.loads((folder / "data_full.json").read_text())
    domains = json.loads((folder / "domains.json").read_text())
    tree = rince.Taxonomy((domain, name) for domain in domains for name in domains[domain])

    def split(name: str) -> Split:
        texts, intents = zip(*data[name], strict=True)
        return list(texts), torch.tensor([tree.index(intent) for intent in intents])

    return Study(
        tree, {"intent": tree.labels_at(1), "domain": tree.labels_at(2)},
        split("train"), split("val"), split("test"), [text for text, _ in data["oos_test"]],
        # About as many steps in both few-shot settings, nearly three times as many with all texts.
        {"5 a class": (5, 8), "10 a class": (10, 4), "100 a class": (100, 1)},
        tuned="10 a class", batch_size=128, layers=2, max_length=32,
    )  # fmt: skip


def newsgroups(folder: Path) -> Study:
    """20 groups: 13 hang right below the top, 7 one level deeper (rec.sport, talk.politics, ...).

    Validation texts are taken from the training split, 40 a group.
    """
    frame = posts(folder)
    paths = {}
    for row in frame[["top", "coarse", "group"]].drop_duplicates().itertuples():
        middle = [] if row.coarse in (row.top, row.group) else [row.coarse]
        paths[row.group] = (row.top, *middle, row.group)
    tree = rince.Taxonomy(paths[name] for name in sorted(paths))

    def split(part: Any) -> Split:
        return list(part["text"]), torch.tensor([tree.index(name) for name in part["group"]])

    shuffled = frame.sample(frac=1, random_state=0)
    of_training = shuffled[shuffled["split"] == "train"]
    number = of_training.groupby("group").cumcount()
    test = shuffled[shuffled["split"] == "test"].groupby("group").head(100)
    return Study(
        tree,
        {"group": tree.labels_at(1), "middle": tree.labels_at(2), "top": tree.labels_at(3)},
        split(of_training[number >= 40].groupby("group").head(100)),
        split(of_training[number < 40]), split(test), [],
        {"10 a class": (10, 8), "100 a class": (100, 1)},
        tuned="10 a class", batch_size=40, layers=2, max_length=64,
    )  # fmt: skip


def draw(split: Split, tree: rince.Taxonomy, of_class: int, seed: int) -> Split:
    """So many texts of each class, at random."""
    texts, labels = split
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    chosen = torch.cat([order[labels[order] == c][:of_class] for c in range(tree.num_classes)])
    return [texts[i] for i in chosen.tolist()], labels[chosen]


def fit(study: Study, method: str, split: Split, epochs: int, lr: float, tau: float, seed: int,
        ) -> tuple[Any, float]:  # fmt: skip
    """The encoder after training, and the seconds."""
    torch.manual_seed(seed)
    model = load_model(study.layers, study.max_length)
    if method == "frozen":
        return model.eval(), 0.0
    texts, labels = split
    taus = tuple(tau * step for step in STEPS_BETWEEN_TEMPERATURES[: study.tree.num_ranks])
    mnrl = None
    if method == "mnrl":
        from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

        mnrl = MultipleNegativesRankingLoss(model, scale=1 / tau)
    plan = BalancedPlan(labels, None, study.batch_size, 2, seed=seed)

    def batches() -> Iterator[Tensor]:
        for epoch in range(epochs):
            yield from plan.order(epoch).view(-1, study.batch_size)

    def loss_of(rows: Tensor) -> Tensor:
        z = model(model.preprocess([texts[i] for i in rows.tolist()]))["sentence_embedding"]
        y = labels[rows]
        if mnrl is not None:
            pairs = y.argsort(stable=True).view(-1, 2).T  # (2, classes): the two texts of each
            loss: Tensor = mnrl.compute_loss_from_embeddings([z[pairs[0]], z[pairs[1]]], y)
            return loss
        if method == "supcon-out":
            return rince.losses.supcon_out(
                z, z, rince.ranks.IdentityRanks(y, y, ignore_self=True), tau
            )
        return rince.ranked_info_nce(z, z, study.tree.ranks(y, y, ignore_self=True), taus)

    seconds = train(model, batches(), loss_of, epochs * len(plan), lr)
    return model, seconds


def tune(study: Study, method: str, results: Results) -> tuple[float, float]:
    """The learning rate and temperature that are best on the validation texts."""
    if method == "frozen":
        return 0.0, 0.0
    of_class, epochs = study.settings[study.tuned]
    split = draw(study.train, study.tree, of_class, TUNING_SEED)
    for lr, tau in study.grid:
        key = {"method": method, "kind": "tuning", "lr": lr, "tau": tau}
        if not results.has(**key):
            model, seconds = fit(study, method, split, epochs, lr, tau, TUNING_SEED)
            recall = recalls(study, encode(model, split[0]), split[1], encode(model, study.val[0]),
                            study.val[1])  # fmt: skip
            results.add(**key, seconds=seconds, score=sum(recall.values()) / len(recall))
    tried = [x for x in results.lines() if x["kind"] == "tuning" and x["method"] == method]
    best = max(tried, key=lambda line: line["score"])
    return best["lr"], best["tau"]


def recalls(
    study: Study, gallery: Tensor, gallery_labels: Tensor, queries: Tensor, labels: Tensor
) -> dict[str, float]:
    levels = {name: (of[labels], of[gallery_labels]) for name, of in study.levels.items()}
    by_level = retrieval_by_level(queries, gallery, levels, ks=(1,))
    return {f"R@1 {name}": result.recall[1] for name, result in by_level.items()}


def evaluate(study: Study, model: Any, split: Split, seed: int) -> dict[str, float]:
    """On the test texts; the texts that were trained on are the gallery and train the probes."""
    gallery, queries = encode(model, split[0]), encode(model, study.test[0])
    labels, gallery_labels = study.test[1], split[1]
    metrics = {}
    for name, of in study.levels.items():
        probe = linear_probe(
            queries, gallery, of[labels], of[gallery_labels],
            num_classes=int(of.max()) + 1, epochs=study.probe_epochs, seed=seed,
        )  # fmt: skip
        metrics[f"probe {name}"] = probe.accuracy
    metrics |= recalls(study, gallery, gallery_labels, queries, labels)
    agreement = rank_agreement(queries, gallery, study.tree.ranks(labels, gallery_labels))
    metrics |= {key: value for key, value in agreement.items() if key.startswith("pairs/")}
    if study.outliers:
        outliers = encode(model, study.outliers)
        gaussians = ClassGaussians.fit(gallery, gallery_labels, shrinkage=1)
        metrics["AUROC Mahalanobis"] = auroc(gaussians.score(queries), gaussians.score(outliers))
        scores = (knn_ood_score(x, gallery, k=1) for x in (queries, outliers))
        metrics["AUROC nearest"] = auroc(*scores)
    return metrics


def smaller(study: Study) -> Study:
    """Seconds rather than minutes: does it run? Its numbers mean nothing."""

    def few(split: Split) -> Split:
        return draw(split, study.tree, 1, 0)

    return replace(
        study, val=few(study.val), test=few(study.test), outliers=study.outliers[:20],
        settings={"2 a class": (2, 1)}, tuned="2 a class", max_length=8, layers=1,
        probe_epochs=2, grid=GRID[:1], batch_size=study.tree.num_classes // 10 * 20,
    )  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=("clinc", "newsgroups"))
    add_study_arguments(parser, METHODS)
    options = parser.parse_args(arguments)
    results = Results(options.output)
    if not options.table:
        study = {"clinc": clinc, "newsgroups": newsgroups}[options.data](options.folder)
        study = smaller(study) if options.smoke else study
        for method in options.methods:
            lr, tau = tune(study, method, results)
            for setting, (of_class, epochs) in study.settings.items():
                for seed in options.seeds:
                    key = {"method": method, "kind": "test", "setting": setting, "seed": seed}
                    if not results.has(**key):
                        split = draw(study.train, study.tree, of_class, seed)
                        model, seconds = fit(study, method, split, epochs, lr, tau, seed)
                        metrics = evaluate(study, model, split, seed)
                        results.add(**key, lr=lr, tau=tau, seconds=seconds, metrics=metrics)
    print(table([x for x in results.lines() if x["kind"] == "test"], ("setting", "method")))


if __name__ == "__main__":
    main()
