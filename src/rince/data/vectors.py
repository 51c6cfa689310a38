"""Vectors that a network elsewhere made of its items: the features that a head is trained on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rince.core.checks import require, warn
from rince.core.devices import sent
from rince.core.digests import content_digest, digest
from rince.core.input_spec import InputSpec
from rince.data.items import Indices, Items, Marks, Thumbnails
from rince.data.views import ViewConfig
from rince.ranks.taxonomy import Taxonomy


@dataclass(frozen=True, eq=False, repr=False)
class Vectors(Items):
    """Vectors with their labels.

    Args:
        vectors: (N, D) float32, of any length: networks of vectors scale them alike.
        labels: (N,) int64 in [0, classes of the taxonomy).
        taxonomy: the class tree.
        name: what to call the data set in reports.
        names: N of the items, if they have any; () otherwise.
        marks: what a table says of them.
        dropout: share of the numbers of a vector that a view sets to 0, in [0, 1).

    Raises:
        ValueError: wrong shapes or dtypes, or a label outside the taxonomy.
    """

    vectors: Tensor
    labels: Tensor
    taxonomy: Taxonomy
    name: str
    names: tuple[str, ...] = ()
    marks: Marks | None = None
    dropout: float = 0.3
    in_memory = True

    def __post_init__(self) -> None:
        require(
            self.vectors.ndim == 2 and self.vectors.dtype == torch.float32,
            f"vectors must be (items, dimensions) float32, got {tuple(self.vectors.shape)} and "
            f"{self.vectors.dtype}",
        )
        require(0 <= self.dropout < 1, f"dropout must be in [0, 1), got {self.dropout}")
        self._check_labels(len(self.vectors))

    @property
    def spec(self) -> InputSpec:
        return InputSpec("vectors", (int(self.vectors.shape[1]),))

    @property
    def size(self) -> str:
        return f"{self.vectors.shape[1]} dimensions"

    def __getitem__(self, index: int) -> Tensor:
        return self.vectors[index]

    def batch(self, indices: Tensor) -> Tensor:
        return self.vectors[indices]

    def subset(self, indices: Indices) -> Vectors:
        return self._rows(indices, "vectors", "labels", "names", "marks")

    def fingerprint(self) -> str:
        """Of names, labels and class tree; of the vectors only where they have no names."""
        return digest([self.taxonomy.paths, self.labels.tolist(), self.keys()])

    def keys(self) -> list[str]:
        """Their names; of vectors without any a digest of their numbers."""
        return list(self.names) or [content.hex() for content in self.content_hashes()]

    def content_hashes(self) -> Iterator[bytes]:
        for row in self.vectors.numpy():
            yield content_digest(row.tobytes())

    def thumbnails(self, indices: Indices, size: int) -> Thumbnails:
        if self.names:
            return super().thumbnails(indices, size)
        return np.array([f"vector {int(i)}" for i in indices], dtype=np.str_)

    def augmentation(self, config: ViewConfig) -> VectorDropout | None:
        return VectorDropout(self.dropout) if self.dropout else None


def check_directions(vectors: Tensor, what: str) -> None:
    """Warn of vectors of zeros, which have no direction; refuse them if all are."""
    zero = (~vectors.any(dim=1)).nonzero().flatten()
    if len(zero):
        text = (
            f"{what}: {len(zero)} of {len(vectors)} are zero vectors, the first is that of item "
            f"{int(zero[0])} (from 0): they have no direction to compare"
        )
        require(len(zero) < len(vectors), text)
        warn(f"{text}, and their cosines count as 0")


class _Kept(NamedTuple):
    """(B, D) bool: the numbers that a view keeps."""

    kept: Tensor

    def rows(self, rows: slice) -> _Kept:
        return _Kept(self.kept[rows])


@dataclass(frozen=True)
class VectorDropout:
    """A view of a vector: ``share`` of its numbers are 0, the others larger to make up for it."""

    share: float

    def draw(self, batch: Tensor, generator: torch.Generator) -> _Kept:
        return _Kept(torch.rand(batch.shape, generator=generator) >= self.share)

    def apply(self, batch: Tensor, draws: _Kept) -> Tensor:
        return batch * sent(draws.kept, batch.device) / (1 - self.share)
