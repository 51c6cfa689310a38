"""Embeddings in an index of faiss: galleries of millions, searched approximately."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from rince.core.checks import import_extra, require
from rince.core.files import replacing, require_folder_of, user_path
from rince.evaluation.embeddings import Embeddings, reading
from rince.metrics.arrays import cosine_chunks, unit_features

INDEX_SUFFIX = ".faiss"
IndexForm = Literal["flat", "hnsw", "ivf-pq"]

_FLAT_TO, _HNSW_TO = 50_000, 1_000_000  # items
# Product quantisation learns 256 codes a part, each from the 39 items that faiss asks for.
_LEAST_FOR_CODES = 39 * 256
_FOR_A_LIST = 64  # items, from which its centre is learned; faiss takes 256, for four times as long


@dataclass(frozen=True, eq=False)
class VectorIndex:
    """Embeddings in an index of faiss.

    Args:
        paths: N names, as of :class:`Embeddings`.
        index: of faiss, of N vectors by their inner products.
        model: fingerprint of the encoder.
        form: "flat": all cosines, exact. "hnsw": a graph of neighbours, with the vectors. "ivf-pq":
            lists of compressed vectors, whose cosines are approximate too.
    """

    paths: tuple[str, ...]
    index: Any
    model: str
    form: IndexForm

    def nearest(self, query: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """What :func:`~rince.evaluation.nearest` gives, approximately.

        Args:
            query: (Q, D) vectors of the same encoder. k: at least 1; all N if there are fewer.

        Returns:
            (Q, min(k, N)) float32 cosines and int64 positions, -1 where fewer were found.

        Raises:
            ValueError: another dimension; vectors that are not finite.
        """
        require(k >= 1, f"top_k must be at least 1, got {k}")
        unit = unit_features(query, "query features")
        require(
            unit.shape[1] == self.index.d,
            f"the queries have {unit.shape[1]} dimensions, and the index {self.index.d}: they come "
            f"from different networks",
        )
        cosines, positions = self.index.search(unit.cpu().numpy(), min(k, len(self.paths)))
        return torch.from_numpy(cosines), torch.from_numpy(positions)


def build_index(embeddings: Embeddings, form: IndexForm | None = None) -> VectorIndex:
    """An index of all embeddings.

    Args:
        embeddings: N of D dimensions.
        form: see :class:`VectorIndex`; None: flat up to 50,000 items, hnsw up to a million (it
            takes 4 D + 260 bytes an item), ivf-pq (D / 2 + 8 bytes) beyond.

    Raises:
        ImportError: faiss is not installed; the message names the extra.
        ValueError: fewer than 9,984 items for ivf-pq.
    """
    faiss = import_extra("faiss", "search")
    count, width = embeddings.vectors.shape
    if form is None:
        form = "flat" if count <= _FLAT_TO else "hnsw" if count <= _HNSW_TO else "ivf-pq"
    require(
        form != "ivf-pq" or count >= _LEAST_FOR_CODES,
        f"ivf-pq learns its codes from at least {_LEAST_FOR_CODES} items, got {count}: take hnsw",
    )
    lists = min(int(4 * count**0.5), count // 39)
    parts = max(part for part in range(1, width // 2 + 1 + (width == 1)) if width % part == 0)
    recipe = {"flat": "Flat", "hnsw": "HNSW32", "ivf-pq": f"IVF{lists},PQ{parts}"}[form]
    index = faiss.index_factory(width, recipe, faiss.METRIC_INNER_PRODUCT)
    if form == "hnsw":
        index.hnsw.efSearch = 128
    vectors = embeddings.vectors.numpy()
    if form == "ivf-pq":  # the others have nothing to learn
        index.nprobe = max(1, lists // 16)
        index.train(vectors[:: max(1, count // (_FOR_A_LIST * lists))])
    index.add(vectors)
    return VectorIndex(embeddings.paths, index, embeddings.model, form)


def index_recall(
    index: VectorIndex, embeddings: Embeddings, *, k: int = 10, most: int = 1000
) -> tuple[float, int]:
    """The share of the k nearest that an index finds, an item itself left out.

    An item that is as near as the k-th nearest is as good as it.

    Args:
        index: of these embeddings. k: at most N - 1 count. most: of the items that ask, which lie
            evenly spaced in the gallery.

    Returns:
        In [0, 1], 1 where there is a single item; and the k that were asked for.
    """
    count = len(embeddings)
    k = min(k, count - 1)
    if k == 0:
        return 1.0, 0
    asked = torch.linspace(0, count - 1, min(most, count), dtype=torch.float64).long()
    queries = embeddings.vectors[asked]
    _, positions = index.nearest(queries, k + 1)
    hits = 0
    for rows, cosines in cosine_chunks(queries, embeddings.vectors, chunk_size=64):
        cosines.scatter_(1, asked[rows, None], -2.0)
        least = cosines.topk(k).values[:, -1:] - 1e-6
        right = (cosines.gather(1, positions[rows].clamp_min(0)) >= least) & (positions[rows] >= 0)
        hits += int(right.sum(dim=1).clamp_max(k).sum())
    return hits / (k * len(asked)), k


def require_index_file(file: Path) -> None:
    """Check, before any work is done, that :func:`save_index` can write this file."""
    require(
        file.suffix.lower() == INDEX_SUFFIX,
        f"an index is a {INDEX_SUFFIX} file, got {str(file)!r}",
    )
    require_folder_of(file)
    import_extra("faiss", "search")


def save_index(index: VectorIndex, file: str | Path) -> None:
    """Write one file, replaced whole or not at all: arrays of numpy, of which ``index`` is what
    ``faiss.deserialize_index`` reads.

    Raises:
        ValueError: it does not end in .faiss. RinceError: there is no such folder.
        ImportError: faiss is not installed. OSError: it cannot be written.
    """
    file = user_path(file)
    require_index_file(file)
    # JSON, as an array of names takes the longest one's room for each.
    names = np.frombuffer(json.dumps(index.paths).encode(), dtype=np.uint8)
    stored = import_extra("faiss", "search").serialize_index(index.index)
    with replacing(file) as part, part.open("wb") as stream:
        np.savez(
            stream,
            allow_pickle=False,
            paths=names,
            index=stored,
            model=np.array(index.model),
            form=np.array(index.form),
        )


def load_index(file: str | Path) -> VectorIndex:
    """Read what :func:`save_index` wrote.

    Raises:
        RinceError: no such file, a damaged one, or one that rince did not write.
        ImportError: faiss is not installed.
    """
    file = user_path(file)
    faiss = import_extra("faiss", "search")
    with reading(file, "rince index EMBEDDINGS"), np.load(file, allow_pickle=False) as stored:
        paths = tuple(json.loads(stored["paths"].tobytes()))
        index = faiss.deserialize_index(stored["index"])
        require(index.ntotal == len(paths), f"{index.ntotal} vectors, but {len(paths)} names")
        return VectorIndex(paths, index, str(stored["model"]), str(stored["form"]))  # type: ignore[arg-type]
