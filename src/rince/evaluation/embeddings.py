"""Embeddings of images, clips of videos or texts: computed, stored in a file, and searched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from rince.core.checks import RinceError, import_extra, require
from rince.core.files import replacing, require_folder_of
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
    require_folder_of(file)
    if file.suffix == ".parquet":
        import_extra("pyarrow.parquet", "parquet")


def save_embeddings(embeddings: Embeddings, file: str | Path) -> None:
    """Write ``paths``, ``embeddings`` (N, D) and ``model`` to a .npz file, or a parquet table.

    The table has the columns ``path`` and ``embedding``, a list of D floats, and the model in its
    metadata. The file is replaced whole or not at all.

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
                paths=np.array(embeddings.paths),
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
    with reading(file, "rince embed RUN FOLDER"):
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as stored:
                paths, vectors, model = (stored[n] for n in ("paths", "embeddings", "model"))
            return Embeddings(tuple(map(str, paths)), torch.from_numpy(vectors), str(model))
        table = import_extra("pyarrow.parquet", "parquet").read_table(file)
        flat = table.column("embedding").combine_chunks().flatten().to_numpy()
        vectors = torch.from_numpy(flat.copy()).view(len(table), -1)
        paths = table.column("path").to_pylist()
        return Embeddings(tuple(paths), vectors, table.schema.metadata[_MODEL.encode()].decode())


@contextmanager
def reading(file: Path, writer: str) -> Iterator[None]:
    """Say what is wrong with a file that a verb of rince wrote, and which: ``rince embed RUN``.

    Raises:
        RinceError: no such file; whatever the block raises about what it holds.
    """
    if not file.is_file():
        raise RinceError(f"there is no file {file}: `{writer} -o {file}` writes it")
    try:
        yield
    except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile) as error:
        verb = " ".join(writer.split()[:2])
        raise RinceError(
            f"{file} is damaged, or was not written by `{verb}` ({type(error).__name__}: "
            f"{error}): write it again"
        ) from error


def _require_suffix(file: Path) -> None:
    require(
        file.suffix in (".npz", ".parquet"),
        f"embeddings are stored in a .npz or a .parquet file, got {str(file)!r}",
    )
