"""What embeds: the network of a run or of an export, and the data that it takes."""

from __future__ import annotations

from pathlib import Path

from rince.core.checks import RinceError
from rince.core.text_models import load_text_model
from rince.data.images import OnUnreadable, image_files
from rince.data.texts import read_texts
from rince.data.video_sources import video_files
from rince.evaluation.embeddings import Embeddings, embed
from rince.models.exported import EXPORT_FILE, ImageEncoder, load_exported
from rince.models.texts import SENTENCE_FILE, SentenceModel
from rince.training.checkpoint import load_run, trained_encoder
from rince.training.folder import CHECKPOINT_FILE


def load_encoder(folder: Path) -> ImageEncoder | SentenceModel:
    """The network of a run (its backbone) or of an export; any model of sentence-transformers.

    Raises:
        RinceError: the folder is none of them, or damaged.
    """
    if (folder / EXPORT_FILE).exists():
        return load_exported(folder)
    if (folder / SENTENCE_FILE).exists():
        return SentenceModel(load_text_model(str(folder)))
    if not (folder / CHECKPOINT_FILE).exists():
        raise RinceError(
            f"{folder} is neither a run (it holds no {CHECKPOINT_FILE}) nor an export (no "
            f"{EXPORT_FILE} or {SENTENCE_FILE})"
        )
    return trained_encoder(load_run(folder))


def embed_data(
    encoder: ImageEncoder | SentenceModel,
    data: str,
    column: str | None,
    device: str,
    batch_size: int = 64,
    *,
    skip: bool = False,
) -> Embeddings:
    """Find the images, videos or texts in ``data``, whichever the encoder takes, and embed them.

    Raises:
        RinceError: there are none, or some cannot be read.
    """
    if isinstance(encoder, SentenceModel):
        items = read_texts(data, column or encoder.column)
    elif column is not None:
        raise RinceError(f"--text.column is for texts, but the network takes {encoder.inputs}")
    else:
        items = image_files(data) if encoder.frames is None else video_files(data)
    on_unreadable: OnUnreadable = "skip" if skip else "error"
    return embed(encoder, items, device=device, batch_size=batch_size, on_unreadable=on_unreadable)
