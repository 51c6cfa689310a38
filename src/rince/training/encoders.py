"""What embeds: the network of a run or of an export, and the data that it takes."""

from __future__ import annotations

from pathlib import Path

from rince.core.checks import RinceError
from rince.data.kinds import embedding_names
from rince.evaluation.embeddings import Embeddings, embed
from rince.models import encoders
from rince.models.encoders import Encoder
from rince.models.exported import EXPORT_FILE
from rince.models.texts import SENTENCE_FILE
from rince.training.checkpoint import load_run, trained_encoder
from rince.training.folder import CHECKPOINT_FILE


def load_encoder(folder: Path) -> Encoder:
    """The network of a run (its backbone) or of an export; any model of sentence-transformers.

    Raises:
        RinceError: the folder is none of them, or damaged.
    """
    exported = encoders.load_encoder(folder)
    if exported is not None:
        return exported
    if not (folder / CHECKPOINT_FILE).exists():
        raise RinceError(
            f"{folder} is neither a run (it holds no {CHECKPOINT_FILE}) nor an export (no "
            f"{EXPORT_FILE} or {SENTENCE_FILE})"
        )
    return trained_encoder(load_run(folder))


def embed_data(
    encoder: Encoder,
    data: str,
    column: str | None,
    device: str,
    batch_size: int = 64,
    *,
    skip: bool = False,
) -> Embeddings:
    """Find what there is to embed in ``data``, of the kind that the encoder takes, and embed it.

    Raises:
        RinceError: there is none, or some cannot be read.
    """
    names = embedding_names(encoder, data, column)
    return embed(
        encoder,
        names,
        device=device,
        batch_size=batch_size,
        on_unreadable="skip" if skip else "error",
    )
