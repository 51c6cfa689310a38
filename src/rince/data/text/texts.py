"""Labelled texts: strings, and the tokens that a backbone is fed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from rince.core.digests import content_digest, digest
from rince.core.input_spec import InputSpec
from rince.data.items import Indices, Items, Marks
from rince.models.texts import tokenise
from rince.ranks.taxonomy import Taxonomy


@dataclass(frozen=True, eq=False, repr=False)
class Texts(Items):
    """Labelled texts.

    Args:
        texts: N of them.
        tokens: (N, L) int64, -1 where a text has ended; (N, 0) before they are tokenised.
        labels: (N,) int64 in [0, classes of the taxonomy).
        taxonomy: the class tree.
        name: what to call the data set in reports.
        marks: what a table says of them.
        tokens_of: the backbone and ``max_tokens`` of :meth:`tokenised`.

    Raises:
        ValueError: labels that are not one class for each text.
    """

    texts: tuple[str, ...]
    tokens: Tensor
    labels: Tensor
    taxonomy: Taxonomy
    name: str
    marks: Marks | None = None
    tokens_of: tuple[str, int | None] | None = None
    in_memory = True

    def __post_init__(self) -> None:
        self._check_labels(len(self.texts))

    @property
    def spec(self) -> InputSpec:
        return InputSpec.texts()

    @property
    def size(self) -> str:
        return f"{self.tokens.shape[1]} tokens"

    def __getitem__(self, index: int) -> Tensor:
        """(L,) the tokens of a text."""
        return self.tokens[index]

    def keys(self) -> list[str]:
        """The texts themselves."""
        return list(self.texts)

    def subset(self, indices: Indices) -> Texts:
        return self._rows(indices, "texts", "tokens", "labels", "marks")

    def fingerprint(self) -> str:
        """Of the texts, their order, labels and class tree."""
        rows = zip(self.texts, self.labels.tolist(), strict=True)
        return digest([self.taxonomy.paths, *rows])

    def content_hashes(self) -> Iterator[bytes]:
        for text in self.texts:
            yield content_digest(text.encode())

    def batch(self, indices: Tensor) -> Tensor:
        return self.tokens[indices]

    def tokenised(self, backbone: str, max_tokens: int | None = None) -> Texts:
        """With the tokens of a backbone.

        Args, Raises: as :func:`rince.models.texts.tokenise`.
        """
        how = (backbone, max_tokens)
        if how == self.tokens_of:
            return self
        tokens = tokenise(backbone, list(self.texts), max_tokens)
        return replace(self, tokens=tokens, tokens_of=how)
