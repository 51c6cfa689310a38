"""Networks of images, clips and vectors: what these rows of :mod:`rince.data.kinds` share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from rince.core.checks import require
from rince.data.kind import DataOptions, TrainedNetwork, later
from rince.data.table import is_table, listed_files

if TYPE_CHECKING:
    from rince.core.input_spec import InputSpec
    from rince.models.backbones import Backbone
    from rince.models.encoders import Encoder
    from rince.models.exported import ImageEncoder


def embedding_files(
    suffixes: frozenset[str], below: str
) -> Callable[[Encoder, str, str | None], list[str]]:
    """What there is to embed in files: those of a table, or what the function ``below`` finds."""

    def names(encoder: Encoder, data: str, column: str | None) -> list[str]:
        if is_table(data):
            return listed_files(data, suffixes, column)
        require(column is None, f"--table.column {column}: {data} is no table")
        files: list[str] = later(below)(data)
        return files

    return names


def build_pixel_backbone(
    name: str, spec: InputSpec, options: DataOptions, pretrained: bool
) -> Backbone:
    """:func:`rince.models.backbones.build_backbone`."""
    from rince.models.backbones import build_backbone

    return build_backbone(name, spec, pretrained=pretrained)


def pixel_encoder(
    network: TrainedNetwork,
    options: DataOptions,
    *,
    stride: int | None = None,
    frame_size: int | None = None,
) -> ImageEncoder:
    """What feeds a network pixels as its evaluation does."""
    from collections import OrderedDict

    from torch import nn

    from rince.core.pixels import normalisation
    from rince.models.exported import ImageEncoder

    module, width = network.module, network.feature_dim
    if network.head is not None:
        module = nn.Sequential(OrderedDict(backbone=module, head=network.head)).eval()
        width = (network.embedding_dim or 0) * network.num_heads
    # Of vectors there is none.
    spec = network.spec
    has_pixels = len(spec.shape) > 1
    mean, std = normalisation(spec.channels, spec.preprocessing) if has_pixels else ((), ())
    return ImageEncoder(
        module=module,
        backbone=network.name,
        output_dim=width,
        embedding_dim=None if network.head is None else network.embedding_dim,
        num_heads=network.num_heads,
        spec=network.spec,
        mean=mean,
        std=std,
        class_paths=network.class_paths,
        stride=stride,
        frame_size=frame_size,
    )


def pixel_usage(encoder: Encoder, folder: str, scaled: str) -> str:
    """How to feed an encoder of images or clips, for a model card; ``scaled``: what is done to a
    file until it is the pixels of an input."""
    encoder = cast("ImageEncoder", encoder)
    spec = encoder.spec
    return _USAGE.format(
        folder=folder,
        own="" if encoder.backbone else "; and backbone=..., the module's code is not in here",
        shape=", ".join(map(str, spec.shape)),
        output="features" if encoder.embedding_dim is None else "embeddings",
        noun=spec.noun,
        colour="grey" if spec.channels == 1 else "RGB",
        scaled=scaled,
        mean=list(encoder.mean),
        std=list(encoder.std),
    )


_USAGE = """```python
import rince

encoder = rince.load_exported("{folder}")  # pip install 'rince[export]'{own}
# pixels: (B, {shape}) uint8
{output} = encoder.module(encoder.normalised(pixels))
encoder.classes  # their names
```

`rince embed {folder} DATA/` embeds a folder of {noun}, `rince search` finds the nearest.

| input | |
|:---|:---|
| {noun} | {colour}, {scaled} |
| values | bytes / 255, minus {mean}, divided by {std}, a channel each |"""
