"""What embeds: the network of a run or of an export."""

from __future__ import annotations

from pathlib import Path

from rince.core.checks import RinceError
from rince.models import encoders
from rince.models.encoders import Encoder
from rince.models.exported import EXPORT_FILE, towers_in
from rince.models.options import Space
from rince.models.texts import SENTENCE_FILE
from rince.training.checkpoint import load_run, trained_encoder
from rince.training.folder import CHECKPOINT_FILE


def load_encoder(folder: Path, space: Space | None = None) -> Encoder:
    """The network of a run or of an export; any model of sentence-transformers.

    ``space``: as of :func:`~rince.training.checkpoint.trained_encoder`; an export has one only.
    """
    exported = encoders.load_encoder(folder)
    if exported is not None:
        own = "backbone" if exported.embedding_dim is None else "embedding"
        if space not in (None, own):
            raise RinceError(
                f"{folder} is an export of the {own}, and holds no other space: export the run "
                f"again with --space {space}, or give the run itself"
            )
        return exported
    if not (folder / CHECKPOINT_FILE).exists():
        raise RinceError(
            f"{folder} is neither a run (it holds no {CHECKPOINT_FILE}) nor an export (no "
            f"{EXPORT_FILE} or {SENTENCE_FILE}){towers_in(folder)}"
        )
    return trained_encoder(load_run(folder), space)
