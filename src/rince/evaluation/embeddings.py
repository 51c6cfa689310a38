"""Embeddings of images, clips of videos or texts: computed, stored in a file, and searched."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from rince.core.checks import RinceError, import_extra, require
from rince.core.files import replacing
from rince.core.moved import moved_names
from rince.data.kinds import embedding_inputs
from rince.metrics.arrays import cosine_chunks, unit_features
from rince.models.encoders import Encoder

_ONE_FUNCTION = ("embed_images", "embed_clips", "embed_texts")
__getattr__ = moved_names(__name__, dict.fromkeys(_ONE_FUNCTION, "rince.evaluation.embed"))

_MODEL = "rince_model"  # in the metadata of a parquet file


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Images, clips or texts and where they lie in the space of one encoder.

    Args:
        paths: N files, of clips ``FILE@SECONDS``; of texts the texts.
        vectors: (N, D) float32, each of length 1.
        model: fingerprint of the encoder; two sides compare only if it is the same.

    Raises:
        ValueError: not one vector per path.
    """

    paths: tuple[str, ...]
    vectors: Tensor
    model: str

    def __post_init__(self) -> None:
        require(
            self.vectors.ndim == 2 and len(self.vectors) == len(self.paths),
            f"expected one vector for each of {len(self.paths)} paths, got shape "
            f"{tuple(self.vectors.shape)}",
        )

    def __len__(self) -> int:
        return len(self.paths)


def embed(
    encoder: Encoder,
    names: Sequence[str],
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
    on_unreadable: Literal["error", "skip"] = "error",
) -> Embeddings:
    """Embed images, clips of videos or texts, fed as those that the encoder was trained on.

    Args:
        encoder: of a run or an export.
        names: image files, videos, or texts; see :func:`rince.data.kinds.embedding_names`.
        device: where the network runs.
        batch_size: inputs at a time; the result does not depend on it, but for rounding.
        on_unreadable: "skip" leaves out files that cannot be read, with a warning. Videos shorter
            than a clip count as unreadable.

    Raises:
        RinceError: the first unreadable file, unless skipping; no readable file at all.
        ValueError: embeddings that are not finite.
    """
    embedded: list[str] = []
    vectors: list[Tensor] = []
    skip = on_unreadable == "skip"
    for part, inputs in embedding_inputs(
        encoder, names, batch_size=batch_size, skip_unreadable=skip
    ):
        embedded += part
        vectors.append(encoder.encode(inputs, device=device, batch_size=batch_size))
    require(bool(vectors), f"there are no {encoder.noun} to embed")
    unit = unit_features(torch.cat(vectors), "embeddings")
    return Embeddings(tuple(embedded), unit, encoder.fingerprint())


def nearest(gallery: Embeddings, query: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k items of the gallery that are most similar to each query, best first.

    Args:
        gallery: N items.
        query: (Q, D) vectors of the same encoder.
        k: at least 1; all N if there are fewer.

    Returns:
        (Q, min(k, N)) float32 cosines, and positions in the gallery int64.
    """
    require(k >= 1, f"top_k must be at least 1, got {k}")
    best = [
        cosine.topk(min(k, len(gallery)), dim=1)
        for _, cosine in cosine_chunks(query, gallery.vectors, chunk_size=256)
    ]
    return torch.cat([part.values for part in best]), torch.cat([part.indices for part in best])


def require_writable(file: Path) -> None:
    """Check, before any work is done, that :func:`save_embeddings` can write this file.

    Raises:
        ValueError: it ends neither in .npz nor in .parquet.
        RinceError: there is no such folder.
        ImportError: pyarrow is not installed, for parquet.
    """
    _require_suffix(file)
    if not file.parent.is_dir():
        raise RinceError(f"there is no folder {file.parent} to write {file.name} to")
    if file.suffix == ".parquet":
        import_extra("pyarrow.parquet", "parquet")


def save_embeddings(embeddings: Embeddings, file: str | Path) -> None:
    """Write ``paths_json``, ``embeddings`` (N, D) and ``model`` to a .npz file, or a parquet table.

    The paths are one JSON list, ``json.loads(bytes(file["paths_json"]))``: numpy's own strings are
    all as wide as the longest, and lose NUL characters at their ends. The table has the columns
    ``path`` and ``embedding``, a list of D floats, and the model in its metadata. The file is
    replaced whole or not at all.

    Raises:
        RinceError, ImportError: as :func:`require_writable`.
        OSError: it cannot be written.
    """
    file = Path(file)
    require_writable(file)
    vectors = embeddings.vectors.numpy()
    if file.suffix == ".npz":
        with replacing(file) as part, part.open("wb") as stream:
            np.savez(
                stream,
                allow_pickle=False,
                paths_json=np.frombuffer(json.dumps(embeddings.paths).encode(), np.uint8),
                embeddings=vectors,
                model=np.array(embeddings.model),
            )
        return
    arrow, parquet = import_extra("pyarrow", "parquet"), import_extra("pyarrow.parquet", "parquet")
    lists = arrow.FixedSizeListArray.from_arrays(arrow.array(vectors.ravel()), vectors.shape[1])
    try:
        paths = arrow.array(embeddings.paths, arrow.string())
    except UnicodeEncodeError as error:
        raise RinceError(
            f"the name {error.object!r} is not valid Unicode, which parquet requires: rename the "
            f"file, or write a .npz"
        ) from error
    table = arrow.table({"path": paths, "embedding": lists})
    with replacing(file) as part:
        parquet.write_table(table.replace_schema_metadata({_MODEL: embeddings.model}), part)


def load_embeddings(file: str | Path) -> Embeddings:
    """Read what :func:`save_embeddings` wrote.

    Raises:
        RinceError: no such file, a damaged one, or one that rince did not write.
        ValueError: it ends neither in .npz nor in .parquet.
        ImportError: pyarrow is not installed, for parquet.
    """
    file = Path(file)
    _require_suffix(file)
    if not file.is_file():
        raise RinceError(f"there is no file {file}: `rince embed RUN FOLDER -o {file}` writes it")
    try:
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as stored:
                paths, vectors = stored_names(stored), torch.from_numpy(stored["embeddings"])
                return Embeddings(tuple(paths or ()), vectors, str(stored["model"]))
        table = import_extra("pyarrow.parquet", "parquet").read_table(file)
        flat = table.column("embedding").combine_chunks().flatten().to_numpy()
        vectors = torch.from_numpy(flat.copy()).view(len(table), -1)
        paths = table.column("path").to_pylist()
        return Embeddings(tuple(paths), vectors, table.schema.metadata[_MODEL.encode()].decode())
    except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile) as error:
        raise RinceError(
            f"{file} is damaged, or was not written by `rince embed` ({type(error).__name__}: "
            f"{error}): write it again"
        ) from error


def stored_names(stored: Mapping[str, Any]) -> list[str] | None:
    """The names in a .npz file, of earlier versions and other programs too; None: it has none."""
    if "paths_json" in stored:
        return list(map(str, json.loads(bytes(stored["paths_json"]))))
    return list(map(str, stored["paths"])) if "paths" in stored else None


def _require_suffix(file: Path) -> None:
    require(
        file.suffix in (".npz", ".parquet"),
        f"embeddings are stored in a .npz or a .parquet file, got {str(file)!r}",
    )
