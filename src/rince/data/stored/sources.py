"""Which vectors are for training, and the class tree of their label columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rince.core.checks import RinceError, require
from rince.core.digests import content_digest
from rince.core.files import user_path
from rince.core.input_spec import InputSpec
from rince.data.items import Items, Splits, chosen_items
from rince.data.kind import Request
from rince.data.table import split_rows
from rince.data.vector_files import LabelledVectors, maker_of, read_labelled, read_vectors
from rince.data.vectors import Vectors

if TYPE_CHECKING:
    from rince.models.encoders import Encoder


def load_vectors(request: Request) -> Splits:
    """Training and test vectors of a file, split as the table says, or by their names; those
    without names by their numbers."""
    labelled = _labelled(request)
    make = partial(labelled.items, dropout=request.options.vectors.dropout)
    train, test = split_rows(labelled.table, make)
    return Splits(*chosen_items(train, test, request.options.images, request.seed))


def load_test_vectors(request: Request) -> Vectors:
    """All vectors of a file with their labels; of one with splits the test's."""
    labelled = _labelled(request)
    return labelled.items(labelled.table.test_rows())


def load_vector_outliers(request: Request, items: Items) -> Vectors:
    """All vectors of a file; their labels are not looked at."""
    vectors, names = vectors_for(request.data, items.spec)
    labels = torch.zeros(len(vectors), dtype=torch.int64)
    return Vectors(vectors, labels, items.taxonomy, "outliers", tuple(names or ()))


def vectors_for(file: str, spec: InputSpec) -> tuple[Tensor, list[str] | None]:
    """The vectors of a file, as wide as a network takes them, and their names."""
    vectors, names = read_vectors(user_path(file))
    if vectors.shape[1:] != spec.shape:
        raise RinceError(
            f"{file} holds vectors of {vectors.shape[1]} dimensions, but the network takes "
            f"{spec.shape[0]}: give vectors of the network that made those of the training (of two "
            f"towers, each takes those of its own side)"
        )
    return vectors, names


def inputs_for(encoder: Encoder, file: str) -> tuple[Tensor, list[str] | None]:
    """:func:`vectors_for` an encoder, which its own outputs are not."""
    maker = maker_of(user_path(file))
    if maker is not None and maker == encoder.fingerprint():
        raise RinceError(
            f"{file} holds embeddings that this network made, and it would embed them a second "
            f"time: give the features that they were made of"
        )
    return vectors_for(file, encoder.spec)


@dataclass(frozen=True, eq=False)
class StoredNames(Sequence[str]):
    """The N names of vectors, with the vectors (N, D): a slice keeps both."""

    names: tuple[str, ...]
    vectors: Tensor

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return StoredNames(self.names[place], self.vectors[place])
        return self.names[place]

    def __len__(self) -> int:
        return len(self.names)

    def content(self) -> bytes:
        """A digest of the vectors."""
        return content_digest(self.vectors.contiguous().view(-1).numpy().data)


def embedding_names(encoder: Encoder, data: str, column: str | None) -> StoredNames:
    """What there is to embed: the vectors by their names, or by their numbers from 0."""
    require(column is None, f"--table.column {column}: {data} is no table, but a file of vectors")
    vectors, names = inputs_for(encoder, data)
    return StoredNames(tuple(names or map(str, range(len(vectors)))), vectors)


def _labelled(request: Request) -> LabelledVectors:
    table = request.options.table
    return read_labelled(
        user_path(request.data),
        request.options.vectors.labels,
        request.labels,
        column=table.column,
        empty=table.empty,
    )
