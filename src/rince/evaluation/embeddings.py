"""Embeddings of images, clips of videos or texts: made, kept in a file, and searched."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from rince.core.checks import RinceError, import_extra, require
from rince.core.files import replacing
from rince.data.clips import decoded_clips
from rince.data.images import OnUnreadable, fitted_batches
from rince.data.views import eval_transform
from rince.evaluation.features import extract_features
from rince.metrics.arrays import cosine_chunks, unit_features
from rince.models.exported import ImageEncoder
from rince.models.texts import SentenceModel

_MODEL = "rince_model"  # in the metadata of a parquet file


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Images, clips or texts and where they lie in the space of one encoder.

    Args:
        paths: N files, of clips ``FILE@SECONDS``; of texts the texts.
        vectors: (N, D) float32, each of length 1.
        model: fingerprint of the encoder; two sides compare only if it is the same.

    Raises:
        ValueError: not one vector a path.
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
    encoder: ImageEncoder | SentenceModel,
    items: Sequence[str],
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
    on_unreadable: OnUnreadable = "error",
) -> Embeddings:
    """Embed images, clips or texts, whichever the encoder takes.

    Args and errors: as :func:`embed_images`, :func:`embed_clips`, :func:`embed_texts`.
    """
    if isinstance(encoder, SentenceModel):
        return embed_texts(encoder, items, device=device, batch_size=batch_size)
    by = embed_images if encoder.frames is None else embed_clips
    return by(encoder, items, device=device, batch_size=batch_size, on_unreadable=on_unreadable)


def embed_images(
    encoder: ImageEncoder,
    files: Sequence[str],
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
    on_unreadable: OnUnreadable = "error",
) -> Embeddings:
    """Embed image files, fitted and normalised as the encoder's own training images.

    Args:
        encoder: of a run or an export.
        files: N paths.
        device: where the network runs.
        batch_size: images at a time; the result does not depend on it, but for rounding.
        on_unreadable: "skip" leaves out files that cannot be read, with a warning.

    Raises:
        RinceError: the first unreadable file, unless skipping; no readable file at all.
        ValueError: embeddings that are not finite.
    """
    size, channels = encoder.image_size, encoder.in_channels
    batches = fitted_batches(files, size, channels, batch_size, on_unreadable)
    # The positions travel as labels would.
    pairs = ((encoder.normalised(pixels), positions) for pixels, positions in batches)
    found = extract_features(encoder.module, pairs, device)
    return Embeddings(
        tuple(files[i] for i in found.labels.tolist()),
        unit_features(found.features, "embeddings"),
        encoder.fingerprint(),
    )


def embed_clips(
    encoder: ImageEncoder,
    files: Sequence[str],
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
    on_unreadable: OnUnreadable = "error",
) -> Embeddings:
    """Embed all clips of videos, cut, fitted and normalised as those of its evaluation.

    Args and errors: as :func:`embed_images`; videos shorter than a clip count as unreadable.
    """
    assert encoder.frames is not None
    assert encoder.stride is not None
    names: list[str] = []
    clips = decoded_clips(
        files,
        encoder.frames,
        encoder.stride,
        encoder.frame_size or encoder.image_size,
        encoder.in_channels,
        skip=on_unreadable == "skip",
    )
    fit = eval_transform(encoder.image_size)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        while batch := list(itertools.islice(clips, batch_size)):
            names.extend(name for name, _ in batch)
            pixels = fit(torch.stack([clip for _, clip in batch]))
            yield encoder.normalised(pixels), torch.arange(len(batch))

    found = extract_features(encoder.module, batches(), device)
    vectors = unit_features(found.features, "embeddings")
    return Embeddings(tuple(names), vectors, encoder.fingerprint())


def embed_texts(
    model: SentenceModel,
    texts: Sequence[str],
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
) -> Embeddings:
    """Embed texts by the model's own ``encode``.

    Raises:
        ValueError: embeddings that are not finite.
    """
    given = {"batch_size": batch_size, "device": str(device), "show_progress_bar": False}
    found = model.model.encode(list(texts), convert_to_tensor=True, **given).float().cpu()
    return Embeddings(tuple(texts), unit_features(found, "embeddings"), model.fingerprint())


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
    found = [
        cosine.topk(min(k, len(gallery)), dim=1)
        for _, cosine in cosine_chunks(query, gallery.vectors, chunk_size=256)
    ]
    return torch.cat([x.values for x in found]), torch.cat([x.indices for x in found])


def require_writable(file: Path) -> None:
    """Find out before the work whether :func:`save_embeddings` will take this name.

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


def save_embeddings(embeddings: Embeddings, file: Path) -> None:
    """Write ``paths``, ``embeddings`` (N, D) and ``model`` to a .npz file, or a parquet table.

    The table has the columns ``path`` and ``embedding``, a list of D floats, and the model in its
    metadata. The file is replaced whole or not at all.

    Raises:
        RinceError, ImportError: as :func:`require_writable`.
        OSError: it cannot be written.
    """
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
            f"the name {error.object!r} is not valid Unicode, which parquet asks for: rename the "
            f"file, or write a .npz"
        ) from error
    table = arrow.table({"path": paths, "embedding": lists})
    with replacing(file) as part:
        parquet.write_table(table.replace_schema_metadata({_MODEL: embeddings.model}), part)


def load_embeddings(file: Path) -> Embeddings:
    """Read what :func:`save_embeddings` wrote.

    Raises:
        RinceError: no such file, a damaged one, or one that rince did not write.
        ValueError: it ends neither in .npz nor in .parquet.
        ImportError: pyarrow is not installed, for parquet.
    """
    _require_suffix(file)
    if not file.is_file():
        raise RinceError(f"there is no file {file}: `rince embed RUN FOLDER -o {file}` makes it")
    try:
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as stored:
                paths, vectors, model = (stored[n] for n in ("paths", "embeddings", "model"))
            return Embeddings(tuple(map(str, paths)), torch.from_numpy(vectors), str(model))
        table = import_extra("pyarrow.parquet", "parquet").read_table(file)
        flat = table.column("embedding").combine_chunks().flatten().to_numpy()
        vectors = torch.from_numpy(flat.copy()).view(len(table), -1)
        paths = table.column("path").to_pylist()
        return Embeddings(tuple(paths), vectors, table.schema.metadata[_MODEL.encode()].decode())
    except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile) as error:
        raise RinceError(
            f"{file} is damaged, or was not written by `rince embed` ({type(error).__name__}: "
            f"{error}): make it again"
        ) from error


def _require_suffix(file: Path) -> None:
    require(
        file.suffix in (".npz", ".parquet"),
        f"embeddings are kept in a .npz or a .parquet file, got {str(file)!r}",
    )
