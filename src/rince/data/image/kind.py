"""The row of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rince.core.files import IMAGE_SUFFIXES
from rince.data.kind import Kind, later
from rince.data.networks import (
    build_pixel_backbone,
    embedding_files,
    pixel_encoder,
    pixel_usage,
)

if TYPE_CHECKING:
    from rince.data.image.decode import OnUnreadable
    from rince.models.encoders import Encoder

NAMED = {
    "fashion-mnist": later("rince.ranks.taxonomy:Taxonomy.fashion_mnist"),
    "cifar100": later("rince.ranks.taxonomy:Taxonomy.cifar100"),
}
"""Data sets that are known by their names, with images of their own: their class trees."""
DIGITS = "digits"
"""Outliers by name: scikit-learn's handwritten digits."""
_SOURCES = "rince.data.image.sources"


def embedding_inputs(
    encoder: Encoder, names: Sequence[str], batch_size: int, skip: bool
) -> Iterator[tuple[list[str], Any]]:
    """Image files, decoded as at evaluation."""
    from rince.data.image.decode import fitted_batches

    spec = encoder.spec
    mode: OnUnreadable = "skip" if skip else "error"
    for pixels, positions in fitted_batches(names, spec.size, spec.channels, batch_size, mode):
        yield [names[i] for i in positions.tolist()], pixels


def usage(encoder: Any) -> str:
    """How to feed an encoder of images."""
    size = encoder.spec.size
    return pixel_usage(
        encoder, f"shorter side scaled to {size} pixels (bilinear, antialiased), central square"
    )


IMAGES = Kind(
    noun="images",
    suffixes=IMAGE_SUFFIXES,
    recognise=lambda data, by_time: True,
    load=later(f"{_SOURCES}:load_dataset"),
    load_test=later(f"{_SOURCES}:load_test_images"),
    load_outliers=later(f"{_SOURCES}:load_outlier_images"),
    embedding_names=embedding_files(IMAGE_SUFFIXES, "rince.data.image.files:image_files"),
    embedding_inputs=embedding_inputs,
    build_backbone=build_pixel_backbone,
    encoder=pixel_encoder,
    usage=usage,
    backbone="small-resnet",
    card="library_name: rince\npipeline_tag: image-feature-extraction\n"
    "tags: [rince, contrastive-learning, image-retrieval]",
)
