"""Embeddings of images, clips of videos or texts: computed, stored in a file, and searched."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from rince._version import __version__
from rince.core.checks import RinceError, RinceWarning, import_extra, require, warn
from rince.core.digests import digest
from rince.core.files import absent, replacing, require_folder_of, user_path
from rince.core.pair_ranks import ALL
from rince.core.shared_work import in_parts, parts_folder
from rince.data.items import report_unreadable
from rince.data.kinds import embedding_content, embedding_inputs, kind_named
from rince.data.vector_files import MODEL, matrix_of_lists, stored_names
from rince.metrics.arrays import cosine_chunks, unit_features
from rince.models.encoders import Encoder

_Encoded: TypeAlias = tuple[list[str], list[Tensor]]  # names, and their vectors a batch at a time


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
    skip_unreadable: bool = False,
) -> Embeddings:
    """Embed images, clips of videos or texts, fed as those that the encoder was trained on.

    Args:
        encoder: of a run or an export.
        names: image files, videos, or texts; see :func:`rince.data.kinds.embedding_names`.
        device: where the network runs.
        batch_size: inputs at a time; the result does not depend on it, but for rounding.
        skip_unreadable: leave out files that cannot be read, with a warning. Videos shorter than
            a clip count as unreadable.

    Raises:
        RinceError: the first unreadable file, unless skipping; no readable file at all.
        ValueError: embeddings that are not finite.
    """
    encode = partial(_encoded, encoder, names, device, batch_size, skip_unreadable)
    model = encoder.fingerprint()
    parts = parts_folder()
    if parts is None:
        encoded = [encode()]
    else:
        facts = [__version__, model, batch_size, str(device), skip_unreadable, *names]
        key = digest([*facts, *embedding_content(encoder, names)])
        share = partial(_share, encode, skip_unreadable)
        shares = in_parts(parts, key, len(names), batch_size, share)
        left_out = [message for _, messages in shares for message in messages]
        encoded = [share for share, _ in shares]
        if left_out and not any(vectors for _, vectors in encoded):
            raise RinceError(left_out[0])
        for message in left_out:
            warn(message)
    vectors = [x for _, of_part in encoded for x in of_part]
    require(bool(vectors), f"there are no {encoder.noun} to embed")
    unit = unit_features(torch.cat(vectors), "embeddings")
    return Embeddings(tuple(name for part, _ in encoded for name in part), unit, model)


def embed_queries(
    encoder: Encoder, asked: Sequence[str], *, device: torch.device | str, skip_unreadable: bool
) -> tuple[Embeddings, list[tuple[str, range]]]:
    """The embeddings of all queries, and of each query its name and the rows that are its own: of
    a film all its clips. The vectors of a file are a query each. ``skip_unreadable``: leave out
    what cannot be read, with a warning.

    Raises:
        RinceError: queries that cannot be read, all of them told at once.
    """
    failures: list[RinceError] = []
    paths: list[str] = []
    vectors: list[Tensor] = []
    groups: list[tuple[str, range]] = []
    for query in asked:
        try:
            names, vectors_of_query = _encoded(encoder, [query], device, 64, False)
        except RinceError as error:
            failures.append(error)
            continue
        rows = range(len(paths), len(paths) + len(names))
        each = zip(names, (range(i, i + 1) for i in rows), strict=True)
        groups += each if kind_named(encoder.noun).files_of_queries else [(query, rows)]
        paths += names
        vectors += vectors_of_query
    report_unreadable(failures, len(asked), encoder.noun, skip_unreadable)
    unit = unit_features(torch.cat(vectors), "embeddings")
    return Embeddings(tuple(paths), unit, encoder.fingerprint()), groups


def _encoded(
    encoder: Encoder,
    names: Sequence[str],
    device: torch.device | str,
    batch_size: int,
    skip_unreadable: bool,
    rows: slice = ALL,
) -> _Encoded:
    embedded: list[str] = []
    vectors: list[Tensor] = []
    for part, inputs in embedding_inputs(
        encoder, names[rows], batch_size=batch_size, skip_unreadable=skip_unreadable
    ):
        embedded += part
        vectors.append(encoder.encode(inputs, device=device, batch_size=batch_size))
    return embedded, vectors


def _share(
    encode: Callable[[slice], _Encoded], skip_unreadable: bool, rows: slice
) -> tuple[_Encoded, list[str]]:
    """With what is to be warned of: files that were left out, perhaps all of them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RinceWarning)
        try:
            encoded = encode(rows)
        except RinceError as error:
            if not skip_unreadable:
                raise
            return ([], []), [str(error)]
    return encoded, [str(x.message) for x in caught if issubclass(x.category, RinceWarning)]


def nearest(gallery: Embeddings, query: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k items of the gallery that are most similar to each query, best first.

    Items that tie come in the gallery's order.

    Args:
        gallery: N items.
        query: (Q, D) vectors of the same encoder.
        k: at least 1; all N if there are fewer.

    Returns:
        (Q, min(k, N)) float32 cosines, and positions in the gallery int64.
    """
    require(k >= 1, f"top_k must be at least 1, got {k}")
    best = []
    for _, cosine in cosine_chunks(query, gallery.vectors, chunk_size=256):
        ordered = cosine.sort(dim=1, descending=True, stable=True)
        best.append([x[:, :k].clone() for x in ordered])  # a view would keep all N
    cosines, places = (torch.cat(parts) for parts in zip(*best, strict=True))
    return cosines, places


def require_writable(file: Path) -> None:
    """Check, before any work is done, that :func:`save_embeddings` can write this file."""
    _require_suffix(file)
    require_folder_of(file)
    if file.suffix.lower() == ".parquet":
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
    file = user_path(file)
    require_writable(file)
    vectors = embeddings.vectors.numpy()
    if file.suffix.lower() == ".npz":
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
        parquet.write_table(table.replace_schema_metadata({MODEL: embeddings.model}), part)


def load_embeddings(file: str | Path) -> Embeddings:
    """Read what :func:`save_embeddings` wrote.

    Raises:
        RinceError: no such file, a damaged one, or one that rince did not write.
        ValueError: it ends neither in .npz nor in .parquet.
        ImportError: pyarrow is not installed, for parquet.
    """
    file = user_path(file)
    _require_suffix(file)
    with reading(file, "rince embed RUN FOLDER"):
        if file.suffix.lower() == ".npz":
            with np.load(file, allow_pickle=False) as stored:
                if "embeddings" in stored and "model" not in stored:
                    raise RinceError(
                        f"{file} is not of `rince embed`: rince embed RUN {file} -o FILE"
                    )
                paths, vectors = stored_names(stored), torch.from_numpy(stored["embeddings"])
                return Embeddings(tuple(paths or ()), vectors, str(stored["model"]))
        table = import_extra("pyarrow.parquet", "parquet").read_table(file)
        vectors = torch.from_numpy(matrix_of_lists(table.column("embedding")))
        paths = table.column("path").to_pylist()
        return Embeddings(tuple(paths), vectors, table.schema.metadata[MODEL.encode()].decode())


@contextmanager
def reading(file: Path, writer: str) -> Iterator[None]:
    """Say what is wrong with a file that a verb of rince wrote, and which: ``rince embed RUN``."""
    if not file.is_file():
        raise RinceError(f"{absent('file', file)}: `{writer} -o {file}` writes it")
    try:
        yield
    except (RinceError, ImportError):
        raise
    except Exception as error:  # of damaged files numpy and pyarrow raise anything
        verb = " ".join(writer.split()[:2])
        raise RinceError(
            f"{file} is damaged, or was not written by `{verb}` ({type(error).__name__}: "
            f"{error}): write it again"
        ) from error


def _require_suffix(file: Path) -> None:
    require(
        file.suffix.lower() in (".npz", ".parquet"),
        f"embeddings are stored in a .npz or a .parquet file, got {str(file)!r}",
    )
