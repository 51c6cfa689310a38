"""The row of vectors: features that another network made, stored in a file."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rince.core.checks import import_extra
from rince.core.files import VECTOR_SUFFIXES, user_path
from rince.data.kind import Kind, later
from rince.data.networks import build_pixel_backbone, pixel_encoder

if TYPE_CHECKING:
    from rince.models.encoders import Encoder


def recognise(data: str, by_time: bool) -> bool:
    """Whether this is a file of vectors; a .parquet is one by its column ``embedding``."""
    suffix = Path(data).suffix.lower()
    if suffix != ".parquet":
        return suffix in VECTOR_SUFFIXES
    if importlib.util.find_spec("pyarrow") is None:
        return False
    parquet = import_extra("pyarrow.parquet", "parquet")
    try:
        return "embedding" in parquet.read_schema(user_path(data)).names
    except Exception:  # of damaged files pyarrow raises anything; who reads the table will say so
        return False


def embedding_inputs(
    encoder: Encoder, names: Sequence[str], batch_size: int, skip_unreadable: bool
) -> Iterator[tuple[list[str], Any]]:
    """Vectors of a file; of a query, which is a file, each of several by its own name or number."""
    from rince.data.stored.sources import StoredNames, inputs_for

    if isinstance(names, StoredNames):
        yield list(names), names.vectors
        return
    for name in names:
        vectors, own = inputs_for(encoder, name)
        several = [f"{name}: {x}" for x in own or range(len(vectors))]
        yield several if len(vectors) > 1 else [name], vectors


def usage(encoder: Encoder, folder: str) -> str:
    """How to feed an encoder of vectors."""
    return _USAGE.format(
        folder=folder,
        width=encoder.spec.shape[0],
        output="features" if encoder.embedding_dim is None else "embeddings",
    )


_USAGE = """```python
import rince

encoder = rince.load_exported("{folder}")  # pip install 'rince[export]'
{output} = encoder.module(vectors)  # vectors: (B, {width}) float32
encoder.classes  # their names
```

`rince embed {folder} VECTORS.npz` embeds the vectors of a file, as those that it was trained on
were made.

| input | |
|:---|:---|
| vectors | {width} numbers each, of any length: the network scales them alike |"""

VECTORS = Kind(
    noun="vectors",
    recognise=recognise,
    load=later("rince.data.stored.sources:load_vectors"),
    load_test=later("rince.data.stored.sources:load_test_vectors"),
    load_outliers=later("rince.data.stored.sources:load_vector_outliers"),
    embedding_names=later("rince.data.stored.sources:embedding_names"),
    embedding_inputs=embedding_inputs,
    build_backbone=build_pixel_backbone,
    encoder=pixel_encoder,
    usage=usage,
    backbone="mlp",
    files_of_queries=True,
    group="vectors",
    unread=("root", "image_size", "cache", "skip_unreadable", "augmentation", "bits"),
)
