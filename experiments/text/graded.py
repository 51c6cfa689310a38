"""Graded relevance on Cranfield: forms of RINCE on grades, losses of sentence-transformers, frozen.

    python experiments/text/graded.py DATA/cranfield OUTPUT [--seeds 0 1 2]
    python experiments/text/graded.py DATA/cranfield OUTPUT --table

225 questions, 1,400 abstracts, grades 4 (complete answer) to 1. Cross-validated: the questions are
cut into 5 folds, by the seed; a model trained on four of them is measured by NDCG@10 on the fifth,
over all abstracts, with the grades as gains. Nothing is tuned: learning rate, epochs and
temperatures were set beforehand and are the same everywhere. Every step sees as many abstracts
with any method: 16 questions with up to 4 judged ones each, or 64 pairs of a question and one.
Where unjudged abstracts join as negatives (+), there are 12 more a question.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from common import Results, add_study_arguments, encode, load_model, table, train
from torch import Tensor

import rince
from rince.adapters.sentence_transformers import RaggedCollator, RankedLoss
from rince.metrics import ndcg

METHODS = ("frozen", "mnrl", "rince binary", "rince grades", "rince cumulative", "rince in")
METHODS += ("rince grade 3 up", "rince binary +", "rince grades +", "cosent +", "angle +")
NEGATIVES = 12  # of a question, drawn from the unjudged abstracts
GRADES = [4, 3, 2, 1]
FOLDS, QUERIES, DOCUMENTS = 5, 16, 4
LR, EPOCHS, LAYERS, MAX_LENGTH = 2e-4, 2, 2, 64
TAU = 0.05
TEMPERATURES = (0.05, 0.08, 0.12, 0.2)

Judged = dict[int, dict[int, float]]  # question -> abstract -> grade


def load(folder: Path) -> tuple[dict[int, str], dict[int, str], Judged]:
    import pandas

    documents = pandas.read_parquet(folder / "docs.parquet")
    queries = pandas.read_parquet(folder / "queries.parquet")
    qrels = pandas.read_parquet(folder / "qrels.parquet").dropna(subset="gain")
    judged: Judged = {}
    for row in qrels.itertuples():
        judged.setdefault(int(row.query_id), {})[int(row.doc_id)] = float(row.gain)
    texts = {int(row.query_id): row.text for row in queries.itertuples()}
    corpus = {int(row.doc_id): row.text or row.title or "empty" for row in documents.itertuples()}
    return {key: texts[key] for key in sorted(judged)}, corpus, judged


def rows(
    questions: list[int], judged: Judged, documents: int, generator: torch.Generator
) -> Iterator[tuple[int, list[int]]]:
    """Every question once, in random order, with some of its abstracts, all grades in turn."""
    for i in torch.randperm(len(questions), generator=generator).tolist():
        of_question = judged[questions[i]]
        keys = list(of_question)
        order = [keys[j] for j in torch.randperm(len(keys), generator=generator).tolist()]
        # The first of each grade before the second of any: rare grades are not missed.
        seen: dict[float, int] = {}
        turn = {}
        for key in order:
            turn[key] = seen.get(of_question[key], 0)
            seen[of_question[key]] = turn[key] + 1
        yield questions[i], sorted(order, key=lambda key: turn[key])[:documents]


def fit(
    method: str, queries: dict[int, str], corpus: dict[int, str], judged: Judged,
    questions: list[int], seed: int, epochs: int, layers: int, max_length: int,
) -> tuple[Any, float]:  # fmt: skip
    torch.manual_seed(seed)
    model = load_model(layers, max_length)
    if method == "frozen":
        return model.eval(), 0.0
    generator = torch.Generator().manual_seed(seed)
    per_step = min(QUERIES, len(questions))
    steps = epochs * max(1, len(questions) // per_step)
    if method == "mnrl":
        from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

        mnrl = MultipleNegativesRankingLoss(model, scale=1 / TAU)
        pairs = min(QUERIES * DOCUMENTS, len(questions))

        def mnrl_batches() -> Iterator[list[tuple[int, list[int]]]]:
            for _ in range(steps):  # different questions, one relevant abstract each
                yield list(rows(questions, judged, 1, generator))[:pairs]

        def mnrl_loss(batch: list[tuple[int, list[int]]]) -> Tensor:
            sides = ([queries[q] for q, _ in batch], [corpus[d] for _, (d,) in batch])
            loss: Tensor = mnrl([model.preprocess(side) for side in sides], None)
            return loss

        return model, train(model, mnrl_batches(), mnrl_loss, steps, LR)

    def labelled() -> Iterator[list[dict[str, Any]]]:
        """Batches of a question, abstracts, and a grade each."""
        for _ in range(epochs):
            drawn = list(rows(questions, judged, DOCUMENTS, generator))
            for start in range(0, steps // epochs * per_step, per_step):
                batch = []
                for q, keys in drawn[start : start + per_step]:
                    grades = [judged[q][d] for d in keys]
                    if method == "rince grade 3 up":  # what is a little relevant is no negative
                        grades = [x if x >= 3 else math.nan for x in grades]
                    if method.endswith("+"):
                        others = [d for d in corpus if d not in judged[q]]
                        order = torch.randperm(len(others), generator=generator)[:NEGATIVES]
                        keys = keys + [others[i] for i in order.tolist()]
                        grades += [0.0] * len(order)
                    docs = [corpus[d] for d in keys]
                    batch.append({"query": queries[q], "docs": docs, "label": grades})
                yield batch

    if method in ("cosent +", "angle +"):
        from sentence_transformers.sentence_transformer import losses

        pairs_loss = (losses.CoSENTLoss if method == "cosent +" else losses.AnglELoss)(model)

        def scored(batch: list[dict[str, Any]]) -> Tensor:
            texts = [(row["query"], doc) for row in batch for doc in row["docs"]]
            scores = torch.tensor([grade / GRADES[0] for row in batch for grade in row["label"]])
            sides = [model.preprocess(list(side)) for side in zip(*texts, strict=True)]
            loss: Tensor = pairs_loss(sides, scores)
            return loss

        return model, train(model, labelled(), scored, steps, LR)

    graded = method not in ("rince binary", "rince binary +", "rince grade 3 up")
    loss = RankedLoss(
        model,
        rince.Relevance(GRADES if graded else [1]),
        temperatures=TEMPERATURES if graded else TAU,
        variant="in" if method == "rince in" else "out-in",
        positives="cumulative" if method == "rince cumulative" else "exclusive",
    )
    collate = RaggedCollator(model.preprocess)

    def batches() -> Iterator[dict[str, Any]]:
        return map(collate, labelled())

    def loss_of(batch: dict[str, Any]) -> Tensor:
        columns = [
            {k.removeprefix(f"{name}_"): x for k, x in batch.items() if k.startswith(f"{name}_")}
            for name in ("query", "docs")
        ]
        value: Tensor = loss(columns, batch["label"])
        return value

    return model, train(model, batches(), loss_of, steps, LR)


def evaluate(
    model: Any, queries: dict[int, str], corpus: dict[int, str], judged: Judged, test: list[int]
) -> list[float]:
    """NDCG@10 of each question."""
    z = encode(model, [queries[question] for question in test])
    gains = gains_of(corpus, judged, test)
    return [float(x) for x in ndcg(z, encode(model, list(corpus.values())), gains)[10]]


def gains_of(corpus: dict[int, str], judged: Judged, test: list[int]) -> Tensor:
    """(questions, abstracts): the grade, 0 where it was not judged."""
    place = {key: i for i, key in enumerate(corpus)}
    gains = torch.zeros(len(test), len(corpus))
    for i, question in enumerate(test):
        for key, grade in judged[question].items():
            gains[i, place[key]] = grade
    return gains


def split(names: list[int], seed: int, fold: int, folds: int) -> tuple[list[int], list[int]]:
    """The questions to evaluate and to train on: the seed shuffles, a fold is every n-th."""
    shuffled = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))
    test = [names[i] for i in shuffled[fold::folds].tolist()]
    return test, [name for name in names if name not in set(test)]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_study_arguments(parser, METHODS)
    options = parser.parse_args(arguments)
    results = Results(options.output)
    if not options.table:
        queries, corpus, judged = load(options.folder)
        folds, epochs, layers, max_length = FOLDS, EPOCHS, LAYERS, MAX_LENGTH
        if options.smoke:
            folds, epochs, layers, max_length = 2, 1, 1, 8
            queries = dict(list(queries.items())[:12])
            needed = {key for question in queries for key in judged[question]}
            corpus = {key: text for key, text in corpus.items() if key in needed}
        for seed in options.seeds:
            for fold in range(folds):
                test, rest = split(list(queries), seed, fold, folds)
                for method in options.methods:
                    key = {"method": method, "seed": seed, "fold": fold}
                    if not results.has(**key):
                        model, seconds = fit(
                            method, queries, corpus, judged, rest, seed, epochs, layers, max_length
                        )
                        each = evaluate(model, queries, corpus, judged, test)
                        results.add(**key, seconds=seconds, questions=test, ndcg=each)
    # The questions of all folds make one figure a seed; differences are taken question by question.
    print(table(list(per_seed(results.lines())), ("method",)))
    print(differences(results.lines()))


def per_seed(lines: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One line a method and seed: the mean over all questions."""
    for method in METHODS:
        for seed in sorted({line["seed"] for line in lines}):
            values = [
                value
                for line in lines
                if line["method"] == method and line["seed"] == seed
                for value in line["ndcg"]
            ]
            if values:
                yield {"method": method, "metrics": {"NDCG@10": sum(values) / len(values)}}


def differences(lines: list[dict[str, Any]]) -> str:
    """RINCE on grades minus each other method, with a 95 % interval over questions.

    A question's values of all seeds are averaged first: the questions are what varies.
    """
    of: dict[str, dict[int, list[float]]] = {}
    for line in lines:
        for question, value in zip(line["questions"], line["ndcg"], strict=True):
            of.setdefault(line["method"], {}).setdefault(question, []).append(value)
    text = []
    ours = of.pop("rince grades", {})
    for method, theirs in of.items():
        both = sorted(set(ours) & set(theirs))
        if len(both) > 1:
            gaps = torch.tensor([
                sum(ours[q]) / len(ours[q]) - sum(theirs[q]) / len(theirs[q]) for q in both
            ])  # fmt: skip
            half = 1.96 * float(gaps.std()) / len(gaps) ** 0.5
            text.append(
                f"rince grades - {method}: {100 * float(gaps.mean()):+.1f} "
                f"± {100 * half:.1f} points NDCG@10 over {len(gaps)} questions"
            )
    return "\n".join(text)


if __name__ == "__main__":
    main()
