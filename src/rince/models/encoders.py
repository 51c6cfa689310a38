"""What every trained encoder answers, whichever kind of inputs it takes; and reading one back."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from rince.core.files import user_path
from rince.core.input_spec import InputSpec
from rince.core.text_models import load_text_model
from rince.models.exported import EXPORT_FILE, WEIGHTS_FILE, load_exported
from rince.models.onnx_file import ONNX_FILE
from rince.models.texts import SENTENCE_FILE, SentenceModel, head_width


class Encoder(Protocol):
    """A trained network with all that it takes to feed it: of images, clips and vectors an
    :class:`~rince.models.exported.ImageEncoder`, of texts a
    :class:`~rince.models.texts.SentenceModel`.
    """

    @property
    def backbone(self) -> str | None:
        """Name of what was trained; None: the user's own."""

    @property
    def spec(self) -> InputSpec:
        """What one input is."""

    @property
    def noun(self) -> str:
        """What inputs are called: images, clips, texts, vectors."""

    @property
    def output_dim(self) -> int:
        """Width of what :meth:`encode` gives."""

    @property
    def embedding_dim(self) -> int | None:
        """Of its projection head, if it ends with one: then it gives embeddings of length 1. None:
        it gives the backbone's features, of any length."""

    @property
    def num_heads(self) -> int:
        """Projection heads side by side."""

    @property
    def class_paths(self) -> tuple[tuple[str, ...], ...]:
        """The classes it was trained on, each from its top group down; () if not known."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in label order."""

    def encode(
        self, inputs: Any, *, device: torch.device | str = "cpu", batch_size: int = 64
    ) -> Tensor:
        """(N, output_dim) float32 on the CPU, of N inputs: uint8 pixels, float32
        vectors, or strings."""

    def fingerprint(self) -> str:
        """The same for two encoders that give the same numbers for the same input."""

    def save(self, folder: str | Path) -> None:
        """Write it into a folder that is there; :func:`load_encoder` reads it."""

    def write_onnx(self, file: Path) -> float | None:
        """Write it as ONNX; the largest difference to torch, as a share of the largest output.
        None: there is no such file of this kind."""


def load_encoder(folder: str | Path) -> Encoder | None:
    """Read an export, or any model of sentence-transformers; None: the folder holds neither.

    Raises:
        RinceError: it is damaged.
    """
    folder = user_path(folder)
    if not is_export(folder):
        return None
    if (folder / EXPORT_FILE).exists():
        return load_exported(folder)
    model = load_text_model(str(folder))
    return SentenceModel(model, embedding_dim=head_width(model))


def is_export(folder: str | Path) -> bool:
    """Whether :func:`load_encoder` finds one there."""
    return any((user_path(folder) / name).exists() for name in (EXPORT_FILE, SENTENCE_FILE))


def export_in(folder: Path) -> str:
    """For a message that a folder is no run: that it is an export, and of which formats."""
    formats = {
        SENTENCE_FILE: "sentence-transformers",
        WEIGHTS_FILE: "safetensors",
        ONNX_FILE: "ONNX",
    }
    there = " and ".join(name for file, name in formats.items() if (folder / file).exists())
    return (
        f"; it is an export already ({there}), which `rince embed`, `rince evaluate` and `rince "
        f"export --push` take as it is; to export or to train again give the folder of its run"
        if is_export(folder)
        else ""
    )
