"""The row of texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from rince.core.checks import RinceError, require
from rince.core.files import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from rince.data.kind import DataOptions, Kind, TrainedNetwork, column_of_texts, later
from rince.data.options import TextOptions
from rince.data.table import is_table, path_column

if TYPE_CHECKING:
    from rince.core.input_spec import InputSpec
    from rince.models.backbones import Backbone
    from rince.models.encoders import Encoder
    from rince.models.texts import SentenceModel


def recognise(data: str, by_time: bool) -> bool:
    """Whether this is a table, but none of files."""
    return is_table(data) and path_column(data, IMAGE_SUFFIXES | VIDEO_SUFFIXES) is None


def embedding_names(encoder: Encoder, data: str, column: str | None) -> list[str]:
    from rince.data.text.sources import read_texts

    return read_texts(data, column or cast("SentenceModel", encoder).column)


def embedding_inputs(
    encoder: Encoder, names: Sequence[str], batch_size: int, skip_unreadable: bool
) -> Iterator[tuple[list[str], Any]]:
    """All at once: the model sorts them by length, for batches with little padding."""
    yield list(names), list(names)


def build_backbone(name: str, spec: InputSpec, options: DataOptions, pretrained: bool) -> Backbone:
    """A model of sentence-transformers; its weights are pretrained whatever is asked."""
    from rince.models.texts import text_backbone

    layers, model, default = options.text.layers, options.model, TextOptions.layers
    require(
        model.layers is None,
        f"of texts, text.layers says how many final layers are trained ({default} by default, 0: "
        f"none, null: all): give text.layers in place of model.layers {model.layers}",
    )
    require(
        model.lora is None or layers in (default, None),
        f"model.lora {model.lora} trains low-rank updates of all layers, and text.layers {layers} "
        f"says which layers are trained: leave out one of the two",
    )
    return text_backbone(name, layers)


def encoder(network: TrainedNetwork, options: DataOptions) -> Encoder:
    """The model as it was trained: no prompts before the texts, which are cut where they were."""
    from rince.models.heads import ProjectionHead
    from rince.models.texts import SentenceModel, TextEncoder, with_head

    module, text, head = network.module, options.text, network.head
    if not isinstance(module, TextEncoder):
        raise RinceError(
            "a network of texts is exported and embeds as a model of sentence-transformers, not "
            "with a module of your own; in Python there is rince.training's load_run(folder)"
        )
    if head is not None and not (isinstance(head, ProjectionHead) and len(head.layers) == 3):
        raise RinceError(
            f"a model of sentence-transformers ends with one projection head of two layers, not "
            f"with {network.num_heads} of other layers: give --space backbone"
        )
    model: Any = module.model if head is None else with_head(module.model, head)
    model.prompts, model.default_prompt_name = {}, None
    bounds = [bound for bound in (text.max_tokens, model.max_seq_length) if bound is not None]
    if bounds:
        model.max_seq_length = min(bounds)
    width = None if head is None else network.embedding_dim
    return SentenceModel(model, network.name, column_of_texts(options), network.class_paths, width)


def usage(encoder: Encoder, folder: str) -> str:
    bound = cast("SentenceModel", encoder).model.max_seq_length
    return _USAGE.format(folder=folder, cut=f", cut after {bound} tokens" if bound else "")


_USAGE = """```python
from sentence_transformers import SentenceTransformer

features = SentenceTransformer("{folder}").encode(["some words"])
```

`rince embed {folder} FILE` embeds the texts of a .csv, .jsonl or .txt file, `rince search` finds
the nearest.

| input | |
|:---|:---|
| texts | without a prompt in front{cut} |"""
TEXTS = Kind(
    noun="texts",
    recognise=recognise,
    load=later("rince.data.text.sources:load_texts"),
    load_test=later("rince.data.text.sources:load_test_texts"),
    load_outliers=later("rince.data.text.sources:load_text_outliers"),
    embedding_names=embedding_names,
    embedding_inputs=embedding_inputs,
    build_backbone=build_backbone,
    encoder=encoder,
    usage=usage,
    backbone="all-MiniLM-L6-v2",
    optimizer="adamw",
    files=False,
    group="text",
    unread=("root", "image_size", "cache", "skip_unreadable", "augmentation", "bits"),
    card="library_name: sentence-transformers\npipeline_tag: sentence-similarity\n"
    "tags: [sentence-transformers, rince, contrastive-learning]",
)
