"""RINCE in sentence-transformers 6 (extra ``sentence-transformers``): loss, collator, evaluator.

model = SentenceTransformer("sentence-transformers/all-MiniLM-L6-v2")
relevance = rince.Relevance(grades=[3, 2, 1])
trainer = SentenceTransformerTrainer(
    model=model,
    train_dataset=dataset,  # query, docs (a list), label (as many grades)
    loss=RankedLoss(model, relevance, temperatures=(0.05, 0.1, 0.2)),
    data_collator=RaggedCollator(model.preprocess),
    evaluator=GradedRetrievalEvaluator(queries, corpus, grades),
)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, wraps
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

from rince.core.checks import import_extra, require
from rince.core.distributed import gather, process_index, world_size
from rince.core.pair_ranks import IGNORED, NEGATIVE, DenseRanks
from rince.losses.options import Positives, Variant
from rince.losses.ranked_info_nce import RankedInfoNCE
from rince.losses.temperatures import check_temperatures, match_num_ranks
from rince.metrics.arrays import checked_ks
from rince.metrics.graded import ndcg
from rince.ranks.score_ranks import ScoreRanks
from rince.training.cached import encode_parts, micro_batches

_LIBRARY = "sentence_transformers.base"
_collators: Any = import_extra(f"{_LIBRARY}.data_collator", "sentence-transformers")
_evaluators: Any = import_extra(f"{_LIBRARY}.evaluation", "sentence-transformers")
_losses: Any = import_extra(
    "sentence_transformers.sentence_transformer.losses", "sentence-transformers"
)
# Others, such as CoSENTLoss, only ask which of two scores is higher.
_OF_COSINES = (_losses.CosineSimilarityLoss, _losses.ContrastiveLoss, _losses.OnlineContrastiveLoss)

Features = dict[str, Any]
_EMBEDDING = itemgetter("sentence_embedding")  # of what a model gives


class RankedLoss(nn.Module):
    """:func:`rince.ranked_info_nce` of queries against graded documents.

    Inputs:
        - ``query, doc_1, ..., doc_n`` with ``label`` (B, n): a grade a document, turned into ranks
          by ``relevance``. NaN: no grade.
        - ``query, docs`` from :class:`RaggedCollator`: any number of documents a query, and columns
          of hard negatives, or of positives, that it knows by name.
        - ``anchor, positive_1, ..., positive_R, negative_1, ...`` without a label, by position: a
          positive of each rank, the best first (as many as temperatures), and any number of hard
          negatives. With one temperature these are the columns of MultipleNegativesRankingLoss.

    Documents of other queries in the batch, hard negatives too, are negatives, unless the batch
    itself says otherwise: a document whose text is graded in a query's own row, or that belongs to
    the same query's text in another row, is ignored there, and so is a hard negative that is a
    positive of the same query's text. Texts are compared by their tokens. Under several processes
    each sees the documents of its own batch, or with ``gather_across_devices`` of all batches.

    Args:
        model: the SentenceTransformer that is trained.
        relevance: :class:`rince.Relevance` (or other thresholds on the label); None for columns
            without label.
        temperatures: one per rank, rising. The trainer's checkpoints do not hold learned ones (an
            ``nn.Parameter``), which begin anew when it goes on: docs/own-trainer.md has a callback.
        variant, positives, validate: as in :func:`rince.ranked_info_nce`.
        micro_batch: number of texts encoded at a time, twice, for batches beyond the memory of the
            device (:func:`rince.cached_encode`); loss and gradient are those of the whole batch.
        micro_batch_tokens: in place of it, a number of tokens: texts of about one length are
            encoded together, as many as hold that many with their padding.
        gather_across_devices: compare the queries with the documents of all processes, however many
            each has; the gradient reaches them where they were encoded.

    Raises:
        ValueError: temperatures that are not one per rank; columns and labels that do not fit; with
            ``micro_batch`` features without a row a text.
    """

    def __init__(
        self,
        model: nn.Module,
        relevance: ScoreRanks | None = None,
        *,
        temperatures: float | Sequence[float] | Tensor,
        variant: Variant = "out-in",
        positives: Positives = "exclusive",
        micro_batch: int | None = None,
        micro_batch_tokens: int | None = None,
        gather_across_devices: bool = False,
        validate: bool = True,
    ) -> None:
        super().__init__()
        self.num_ranks = len(check_temperatures(temperatures, validate))
        if relevance is not None:
            match_num_ranks(self.num_ranks, relevance.num_ranks)
        require(
            micro_batch is None or micro_batch_tokens is None,
            "micro_batch counts texts and micro_batch_tokens tokens: give one of the two",
        )
        for name, size in (
            ("micro_batch", micro_batch),
            ("micro_batch_tokens", micro_batch_tokens),
        ):
            require(size is None or size >= 1, f"{name} must be at least 1, got {size}")
        self.model = model
        self.relevance = relevance
        self.micro_batch = micro_batch
        self.micro_batch_tokens = micro_batch_tokens
        self.gather_across_devices = gather_across_devices
        # Tells MatryoshkaLoss that the backward pass encodes again: it then wraps calculate_loss.
        self.uses_gradient_cache = micro_batch is not None or micro_batch_tokens is not None
        self.loss = RankedInfoNCE(
            temperatures, variant=variant, positives=positives, validate=validate
        )
        self._average_gradient()

    def _average_gradient(self) -> None:
        """Of temperatures that are learned: the trainer wraps the model alone, not the loss."""
        if isinstance(taus := self.loss.temperatures, nn.Parameter):
            taus.register_hook(_averaged_gradient)  # type: ignore[no-untyped-call]

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._average_gradient()  # copies and pickles of a parameter have no hooks

    def forward(
        self, sentence_features: Iterable[Features], labels: Tensor | None = None
    ) -> Tensor:
        columns = [dict(features) for features in sentence_features]
        # Before the model runs: its modules may write into the features.
        texts = [_texts(features) for features in columns]
        embeddings = self._encode(columns)
        if not self.uses_gradient_cache or not torch.is_grad_enabled():
            return self.calculate_loss([embeddings], labels, texts)
        # MatryoshkaLoss shortens embeddings in calculate_loss, and takes the gradient there.
        wide = torch.promote_types(embeddings[0].dtype, torch.float32)
        leaves = [z.detach().to(wide).requires_grad_() for z in embeddings]
        loss = self.calculate_loss([leaves], labels, texts)
        # Its value, and at the embeddings its gradient.
        dot = torch.zeros_like(loss)
        for z, leaf in zip(embeddings, leaves, strict=True):
            dot = dot + (z * leaf.grad).sum()  # type: ignore[operator]  # None only without a loss
        return loss + (dot - dot.detach())

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None, texts: list[list[Any]]
    ) -> Tensor:
        """The loss of one list of columns, (count, D) each; leaves among them get their gradient.

        With ``micro_batch``, MatryoshkaLoss calls it once a length, with shortened columns.
        """
        columns = [functional.normalize(z, dim=1) for z in reps[0]]
        query, *documents = columns
        own = self._own(len(query), [len(z) for z in documents], labels)
        batch = Batch(own, texts[0], [text for column in texts[1:] for text in column])
        key = torch.cat(documents)
        if self.gather_across_devices:
            key, batch = _of_all_processes(key, batch)
        ranks = _with_other_rows(*batch)[: len(query)]
        loss: Tensor = self.loss(query, key, DenseRanks(ranks.to(query.device), self.num_ranks))
        if all(z.is_leaf and z.requires_grad for z in reps[0]):
            # The graph stays for temperatures that are learned.
            for z, gradient in zip(
                reps[0], torch.autograd.grad(loss, reps[0], retain_graph=True), strict=True
            ):
                z.grad = gradient
        return loss

    def _encode(self, columns: list[Features]) -> list[Tensor]:
        """One (count, D) a column."""
        if not self.uses_gradient_cache:
            return [_EMBEDDING(self.model(features)) for features in columns]
        rows = [self._micro_batches(features) for features in columns]
        parts = [
            partial(_rows, features, some)
            for features, of_column in zip(columns, rows, strict=True)
            for some in of_column
        ]
        inputs = [x for features in columns for x in features.values() if isinstance(x, Tensor)]
        z = encode_parts(self.model, parts, made_from=inputs, pick=_EMBEDDING)
        places = [torch.cat(of_column).argsort().to(z.device) for of_column in rows]
        by_column = torch.split(z, [len(x) for x in places])
        return [x[order] for x, order in zip(by_column, places, strict=True)]

    def _micro_batches(self, features: Features) -> list[Tensor]:
        """Which rows of a column are encoded together, a part after the other."""
        if self.micro_batch_tokens is None:
            everything = torch.arange(_count(features))
            return [everything[x] for x in micro_batches(len(everything), self.micro_batch or 1)]
        lengths = _lengths(features).cpu()
        order, parts = lengths.argsort(descending=True, stable=True), []
        while len(order):
            count = max(1, self.micro_batch_tokens // max(1, int(lengths[order[0]])))
            parts.append(order[:count])
            order = order[count:]
        return parts

    def _own(self, num_queries: int, columns: list[int], labels: Tensor | None) -> OwnRanks:
        """The ranks of each query's own documents, from labels or from the columns' places."""
        require(len(columns) >= 1, "there are no documents: give columns after the query's")
        if labels is None:
            require(
                len(columns) >= self.num_ranks,
                f"without a label, {self.num_ranks} temperatures need {self.num_ranks} columns of "
                f"positives after the anchor, one per rank, but there are {len(columns)} columns",
            )
            rank = torch.zeros(num_queries, len(columns), dtype=torch.int8)
            rank[:, : self.num_ranks] = torch.arange(1, self.num_ranks + 1)
        else:
            if self.relevance is None:
                raise ValueError(
                    "there is a label, but RankedLoss has no relevance=rince.Relevance(grades=...) "
                    "to make ranks of it; drop the column if it holds no grades"
                )
            grades = labels.detach().cpu()
            grades = grades[:, None] if grades.ndim == 1 else grades
            rank = self.relevance.ranks(grades).matrix  # (B, n)
        row, place = _places_of(num_queries, columns, rank if labels is None else grades)
        return OwnRanks(row, rank[row, place])

    def get_config_dict(self) -> dict[str, Any]:
        """For the model card."""
        return {
            "relevance": repr(self.relevance),
            "temperatures": self.loss.temperatures,
            "variant": self.loss.variant,
            "positives": self.loss.positives,
            "micro_batch": self.micro_batch,
            "micro_batch_tokens": self.micro_batch_tokens,
            "gather_across_devices": self.gather_across_devices,
        }

    @property
    def citation(self) -> str:
        """For the model card."""
        return """
@inproceedings{hoffmann2022ranking,
    title = {Ranking Info Noise Contrastive Estimation: Boosting Contrastive Learning via Ranked Positives},
    author = {Hoffmann, David T. and Behrmann, Nadine and Gall, Juergen and Brox, Thomas and Noroozi, Mehdi},
    booktitle = {Proceedings of the AAAI Conference on Artificial Intelligence},
    year = {2022}
}
"""  # noqa: E501


class OwnRanks(NamedTuple):
    """The documents of a batch: (N,) which query's row each stands in, and its rank there."""

    row: Tensor
    rank: Tensor


class Batch(NamedTuple):
    """What is known of a batch beside its embeddings: ranks, texts of queries and of documents."""

    own: OwnRanks
    queries: list[Any]
    documents: list[Any]


class GradedPairs(nn.Module):
    """A loss of the library for scored pairs, on graded documents: the nearest baselines.

    Each document with its query is a pair, and the grade is its score. Takes the same data and the
    same :class:`RaggedCollator` as :class:`RankedLoss` with a label.

    Args:
        loss: the library's CoSENTLoss or AnglELoss, which only compare grades with each other;
            CosineSimilarityLoss, for grades in [-1, 1] (divide them by the highest); or another
            that scores pairs from their embeddings (``compute_loss_from_embeddings``). Its model is
            trained.

    Raises:
        ValueError: columns and labels that do not fit, or grades that are no cosines for a loss
            that takes them for such.

    Example::

        loss = GradedPairs(sentence_transformers.sentence_transformer.losses.CoSENTLoss(model))
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        require(
            hasattr(loss, "compute_loss_from_embeddings"),
            f"{type(loss).__name__} does not score pairs by their embeddings, as CoSENTLoss does",
        )
        self.loss = loss

    @property
    def model(self) -> nn.Module:
        """What the trainer wraps."""
        model: Any = self.loss.model
        assert isinstance(model, nn.Module)
        return model

    @model.setter
    def model(self, model: nn.Module) -> None:
        self.loss.model = model

    def forward(self, sentence_features: Iterable[Features], labels: Tensor) -> Tensor:
        query, *documents = [
            _EMBEDDING(self.model(dict(features))) for features in sentence_features
        ]
        row, place = _places_of(len(query), [len(z) for z in documents], labels)
        grades = labels.reshape(len(query), -1)
        pairs = [query[row.to(query.device)], torch.cat(documents)]
        known = grades[row.to(labels.device), place.to(labels.device)]
        kept = ~known.isnan() if known.is_floating_point() else torch.ones_like(known).bool()
        if isinstance(self.loss, _OF_COSINES):
            outside = sorted(set(known[known.abs() > 1].tolist()))
            require(
                not outside,
                f"{type(self.loss).__name__} takes a grade for the cosine of its pair, so grades "
                f"must lie in [-1, 1], got {', '.join(f'{x:g}' for x in outside)}: divide all "
                f"grades by the highest, or take CoSENTLoss, which only compares them",
            )
        loss: Tensor = self.loss.compute_loss_from_embeddings(  # type: ignore[operator]
            [z[kept] for z in pairs], known[kept]
        )
        return loss

    def get_config_dict(self) -> dict[str, Any]:
        """For the model card."""
        return {"loss": type(self.loss).__name__}


@dataclass
class RaggedCollator(_collators.BaseDataCollator):  # type: ignore[misc]
    """Rows with any number of documents, or with hard negatives: no empty place is encoded.

    The first column is the query. The others hold documents: a text each, a list of texts, or None.
    ``label`` has a grade for each of them in turn (a None among the texts has one, too), but not
    for those of columns that ``column_grades`` names. A document without a grade (None, NaN) is
    left out. A column that a row lacks is None there.

    Use it as ``RaggedCollator(model.preprocess)``; other fields are the library's (prompts, ...).
    A prompt for the documents goes by the name of the first of their columns.

    Args:
        column_grades: the grade of all documents of a column, such as ``{"pos": 1, "neg": 0}``;
            with all columns in it there needs to be no label.

    Raises:
        ValueError: columns without grades, numbers of documents and grades that differ, a batch
            without any document, or prompts that differ among the columns of documents.
    """

    column_grades: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        names = [
            x for x in dict.fromkeys(x for row in features for x in row) if x != "dataset_name"
        ]
        label = next((name for name in self.valid_label_columns if name in names), None)
        query, *columns = [name for name in names if name != label]
        graded = [name for name in columns if name not in self.column_grades]
        require(
            bool(columns) and (label is not None or not graded),
            f"RaggedCollator wants a query, documents and a label with grades (or column_grades), "
            f"got the columns {', '.join(names)}",
        )
        self._check_prompts(*columns, dataset=features[0].get("dataset_name"))
        dataset = {name: features[0][name] for name in ("dataset_name",) if name in features[0]}
        require(all(query in row for row in features), f"a row has no {query!r}, the first column")
        documents, grades = [], []
        for row in features:
            texts = [text for name in graded for text in _listed(row.get(name))]
            of_texts = [] if label is None else np.atleast_1d(row.get(label, [])).tolist()
            none = all(x is None for x in [*texts, *of_texts])  # None says the same as []
            require(
                none or len(texts) == len(of_texts),
                f"a row has {len(texts)} documents and {len(of_texts)} grades: there must be a "
                f"grade a document",
            )
            named = [
                (text, self.column_grades[name])
                for name in columns
                if name in self.column_grades
                for text in _listed(row.get(name))
            ]
            known = [
                (text, float(grade))
                for text, grade in [*zip(texts, of_texts, strict=not none), *named]
                if text is not None and grade is not None and not math.isnan(float(grade))
            ]
            documents += [{columns[0]: text, **dataset} for text, _ in known]
            grades.append(torch.tensor([grade for _, grade in known]))
        require(bool(documents), "no row of the batch has a document with a grade")
        batch: dict[str, Any] = super().__call__(
            [{query: row[query], **dataset} for row in features]
        )
        batch |= super().__call__(documents)
        batch["label"] = nn.utils.rnn.pad_sequence(
            grades, batch_first=True, padding_value=float("nan")
        )
        return batch

    def _check_prompts(self, first: str, *others: str, dataset: str | None) -> None:
        prompts = self.prompts if isinstance(self.prompts, dict) else {}
        prompts = prompts.get(dataset, prompts)
        shared = prompts.get(first, "")
        differing = [name for name in others if prompts.get(name, shared) != shared]
        require(
            not differing,
            f"documents share one prompt, that of the column {first}, but prompts has another for "
            f"{', '.join(differing)}",
        )


def _listed(cell: Any) -> list[Any]:
    """The documents of a cell: one, or a list of them."""
    if isinstance(cell, np.ndarray) and cell.dtype.kind in "OUT":  # numbers are a sound
        cell = cell.tolist()
    return list(cell) if isinstance(cell, list | tuple) else [cell]


def _names_the_collator(collate: Any) -> Any:
    """The library's own error about lists of documents says nothing that helps."""

    @wraps(collate)
    def call(self: Any, features: list[dict[str, Any]]) -> Any:
        try:
            return collate(self, features)
        except (TypeError, ValueError) as error:
            lists = [
                name
                for name, x in (features[0] if features else {}).items()
                if isinstance(x, list) and any(isinstance(text, str) for text in x)
            ]
            if not lists:
                raise
            raise ValueError(
                f"the column {lists[0]} holds lists of documents: give the trainer "
                f"data_collator=RaggedCollator(model.preprocess)"
            ) from error

    return call


_collators.BaseDataCollator.__call__ = _names_the_collator(_collators.BaseDataCollator.__call__)


def _is_finite(grade: Any) -> bool:
    try:
        return not isinstance(grade, str) and math.isfinite(grade)
    except TypeError:  # None, a list
        return False


class GradedRetrievalEvaluator(_evaluators.BaseEvaluator):  # type: ignore[misc]
    """NDCG@k of all queries in the whole corpus, with graded relevance.

    Args:
        queries: id -> text. corpus: id -> text.
        grades: query id -> {document id: grade}, higher = more relevant; grades below 0 (TREC: not
            judged, junk) and documents left out count 0. Queries without any grade above 0 take no
            part.
        ks: how many nearest documents to look at, one number or several; the first is the primary
            metric.
        batch_size: texts encoded at a time.
        name: prefix of the metrics.

    Raises:
        ValueError: a grade of a query or document that is not there, or that is no finite number;
            no grade above 0 at all.

    Source: see :func:`rince.metrics.graded.ndcg`.
    """

    def __init__(
        self,
        queries: Mapping[str, str],
        corpus: Mapping[str, str],
        grades: Mapping[str, Mapping[str, float]],
        *,
        ks: int | Sequence[int] = (10,),
        batch_size: int = 32,
        name: str = "",
    ) -> None:
        super().__init__()
        place = {key: i for i, key in enumerate(corpus)}
        unknown = sorted(set(grades) - set(queries)) + sorted(
            {key for of_query in grades.values() for key in of_query} - set(corpus)
        )
        require(not unknown, f"grades name queries or documents without text: {unknown[:8]}")
        bad = [
            f"{key}: {document}: {grade!r}"
            for key, of_query in grades.items()
            for document, grade in of_query.items()
            if not _is_finite(grade)
        ]
        require(
            not bad,
            f"grades must be finite numbers, got {'; '.join(bad[:8])}; leave out documents that "
            f"have none",
        )
        self.queries = {
            key: text
            for key, text in queries.items()
            if any(grade > 0 for grade in grades.get(key, {}).values())
        }
        require(bool(self.queries), "no query has a document with a grade above 0")
        self.corpus, self.ks = dict(corpus), checked_ks(ks)
        self.batch_size, self.name = batch_size, name
        gains = {
            (i, place[document]): float(grade)
            for i, key in enumerate(self.queries)
            for document, grade in grades[key].items()
            if grade > 0
        }
        self.gains = torch.sparse_coo_tensor(
            torch.tensor(list(gains)).T,
            torch.tensor(list(gains.values())),
            (len(self.queries), len(corpus)),
            check_invariants=True,  # torch warns where neither True nor False is given
        )
        self.primary_metric = f"ndcg@{self.ks[0]}"

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        """Encode and measure; what the trainer calls. Nothing is written to ``output_path``."""
        encode: dict[str, Any] = {
            "batch_size": self.batch_size, "convert_to_tensor": True, "show_progress_bar": False
        }  # fmt: skip
        ndcg_per_query = ndcg(
            model.encode_query(list(self.queries.values()), **encode),
            model.encode_document(list(self.corpus.values()), **encode),
            self.gains,
            ks=self.ks,
        )
        values = {f"ndcg@{k}": float(each.mean()) for k, each in ndcg_per_query.items()}
        metrics: dict[str, float] = self.prefix_name_to_metrics(values, self.name)
        self.store_metrics_in_model_card_data(model, metrics, epoch, steps)
        return metrics


def _places_of(num_queries: int, columns: list[int], label: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) of each document, in the order of the columns: its query's row, its place in the label.

    Args:
        columns: documents in each column. label: (Q, n), or (Q,).
    """
    grades = label.detach().cpu().reshape(len(label), -1)
    there = torch.ones_like(grades, dtype=torch.bool)
    if len(columns) == 1:  # documents row by row; where they are fewer, NaN pads the rows
        if sum(columns) < grades.numel() and grades.is_floating_point():
            there = ~grades.isnan()
        row, place = there.nonzero(as_tuple=True)
    else:
        place, row = there.T.nonzero(as_tuple=True)  # column by column
    require(
        len(label) == num_queries and len(row) == sum(columns),
        f"{num_queries} queries and {sum(columns)} documents do not fit a label of shape "
        f"{tuple(grades.shape)}: it holds a grade for each document of a query; lists of "
        f"different lengths go through RaggedCollator",
    )
    return row, place


def _of_all_processes(key: Tensor, batch: Batch) -> tuple[Tensor, Batch]:
    """Documents (N, D) and what is known of them, of all processes, this one's first."""
    world, here = world_size(), process_index()
    if world == 1:
        return key, batch
    known: list[Any] = [None] * world
    dist.all_gather_object(known, batch)
    batches: list[Batch] = [*known[here:], *known[:here]]
    counts = [len(other.documents) for other in batches]
    most = max(counts)
    padded = gather(functional.pad(key, (0, 0, 0, most - len(key))), validate=False)
    starts = [sum(len(other.queries) for other in batches[:i]) for i in range(world)]
    rows = [other.own.row + start for other, start in zip(batches, starts, strict=True)]
    own = OwnRanks(torch.cat(rows), torch.cat([other.own.rank for other in batches]))
    keys = [z[:count] for z, count in zip(torch.split(padded, most), counts, strict=True)]
    return torch.cat(keys), Batch(
        own,
        [text for other in batches for text in other.queries],
        [text for other in batches for text in other.documents],
    )


def _averaged_gradient(gradient: Tensor) -> Tensor:
    total = gradient.clone()
    if world_size() > 1:
        dist.all_reduce(total)
    return total / world_size()


def _with_other_rows(own: OwnRanks, queries: list[Any], documents: list[Any]) -> Tensor:
    """(Q, N): documents of other rows are negatives, or ignored where the batch grades the pair."""
    ranks = torch.full((len(queries), len(documents)), NEGATIVE, dtype=torch.int8)
    rows_of, places_of = _places(queries), _places(documents)
    pairs = [(queries[row], text) for row, text in zip(own.row.tolist(), documents, strict=True)]
    for query, text in pairs:
        rows, places = rows_of[query], places_of[text]
        if len(rows) * len(places) > 1:
            ranks[torch.tensor(rows)[:, None], torch.tensor(places)] = IGNORED
    positive = {pair for pair, rank in zip(pairs, own.rank.tolist(), strict=True) if rank > 0}
    mined = torch.tensor([pair in positive for pair in pairs]) & (own.rank == NEGATIVE)
    ranks[own.row, torch.arange(len(documents))] = own.rank.masked_fill(mined, IGNORED)
    return ranks


def _places(texts: list[Any]) -> dict[Any, list[int]]:
    places: dict[Any, list[int]] = {}
    for i, text in enumerate(texts):
        places.setdefault(text, []).append(i)
    return places


def _texts(features: Features) -> list[Any]:
    """What tells texts apart: their tokens, or without a row of tokens a text, nothing."""
    tokens, mask = features.get("input_ids"), features.get("attention_mask")
    if not isinstance(tokens, Tensor) or not isinstance(mask, Tensor) or mask.ndim != 2:
        return [object() for _ in range(_count(features))]
    rows = zip(tokens.tolist(), mask.tolist(), strict=True)
    return [tuple(t for t, real in zip(*row, strict=True) if real) for row in rows]


def _count(features: Features) -> int:
    """Texts of a column."""
    if "offsets" in features:  # a bag of tokens a text (StaticEmbedding)
        return len(features["offsets"])
    for name in ("attention_mask", "input_ids"):
        if isinstance(features.get(name), Tensor):
            return len(features[name])
    return next(len(x) for x in features.values() if isinstance(x, Tensor) and x.ndim > 0)


def _lengths(features: Features) -> Tensor:
    """(N,) tokens of each text."""
    mask = features.get("attention_mask")
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        raise ValueError("micro_batch_tokens needs texts with an attention mask: take micro_batch")
    return mask.sum(dim=1)


def _rows(features: Features, rows: Tensor) -> Features:
    """A micro-batch of a column, without padding behind its longest text."""
    count = _count(features)
    misfits = [
        name
        for name, x in features.items()
        if isinstance(x, Tensor) and x.ndim > 0 and len(x) != count
    ]
    require(
        not misfits,
        f"micro_batch needs features with a row a text; these are not: {', '.join(misfits)}",
    )
    some = {
        name: x[rows.to(x.device)] if isinstance(x, Tensor) and x.ndim > 0 else x
        for name, x in features.items()
    }
    mask = some.get("attention_mask")
    if isinstance(mask, Tensor) and mask.ndim == 2:
        width, real = mask.shape[1], mask.bool().any(dim=0).nonzero()
        longest = int(real.max()) + 1 if len(real) else width
        for name, x in some.items():
            if isinstance(x, Tensor) and x.ndim == 2 and x.shape[1] == width:
                some[name] = x[:, :longest]
    return some
