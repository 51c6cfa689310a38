"""Vectors that a network elsewhere made of its items: what is evaluated without a network."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rince.core.checks import require
from rince.core.digests import digest
from rince.core.input_spec import InputSpec
from rince.data.items import Indices, Items, Marks, checked_labels
from rince.ranks.taxonomy import Taxonomy


@dataclass(frozen=True, eq=False)
class Vectors(Items):
    """Vectors (N, D) float32 with labels, the names of the items, if they have any, and
    what a table says of them.

    As vectors are what a network gives, ``nn.Identity`` is their backbone.
    """

    vectors: Tensor
    labels: Tensor
    taxonomy: Taxonomy
    name: str
    names: tuple[str, ...] = ()
    marks: Marks | None = None
    in_memory = True

    def __post_init__(self) -> None:
        require(
            self.vectors.ndim == 2 and self.vectors.dtype == torch.float32,
            f"vectors must be (items, dimensions) float32, got {tuple(self.vectors.shape)} and "
            f"{self.vectors.dtype}",
        )
        labels = checked_labels(self.labels, len(self.vectors), self.taxonomy)
        object.__setattr__(self, "labels", labels)

    @property
    def spec(self) -> InputSpec:
        return InputSpec("vectors", (int(self.vectors.shape[1]),))

    def __getitem__(self, index: int) -> Tensor:
        return self.vectors[index]

    def batch(self, indices: Tensor) -> Tensor:
        return self.vectors[indices]

    def subset(self, indices: Indices) -> Vectors:
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        names = tuple(self.names[i] for i in chosen.tolist()) if self.names else ()
        vectors, labels = self.vectors[chosen], self.labels[chosen]
        marks = self.marks and self.marks.of(chosen)
        return replace(self, vectors=vectors, labels=labels, names=names, marks=marks)

    def fingerprint(self) -> str:
        return digest([self.taxonomy.paths, self.labels.tolist(), list(self.names)])

    def keys(self) -> list[str] | None:
        return list(self.names) or None
