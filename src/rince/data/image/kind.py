"""The row of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rince.core.files import IMAGE_SUFFIXES
from rince.data.kind import Kind, Request, require_no_column
from rince.data.networks import build_pixel_backbone, pixel_encoder, pixel_usage
from rince.data.table import is_table, listed_files

if TYPE_CHECKING:
    from rince.data.image.decode import OnUnreadable
    from rince.data.items import Items, Splits
    from rince.models.encoders import Encoder

NAMED = ("fashion-mnist", "cifar100")
"""Data sets that are known by their names, with training and test images of their own."""
DIGITS = "digits"
"""Outliers by name: scikit-learn's handwritten digits."""


def load(request: Request) -> Splits:
    """Training and test images."""
    from rince.data.image.sources import load_dataset

    images = request.options.images
    return load_dataset(
        request.data,
        data_root=images.root,
        image_size=images.image_size,
        channels=request.channels,
        cache=images.cache,
        skip_unreadable=images.skip_unreadable,
        without_duplicates=images.drop_duplicates,
        per_class=images.per_class,
        test_per_class=images.test_per_class,
        seed=request.seed,
        column=request.options.table.column,
        labels=request.labels,
    )


def load_test(request: Request) -> Items:
    """All images of a table, or of a folder of class folders."""
    from rince.data.image.sources import load_test_images

    images = request.options.images
    return load_test_images(
        request.data,
        data_root=images.root,
        image_size=images.image_size,
        channels=request.channels,
        cache=images.cache,
        skip_unreadable=request.skip_unreadable,
        column=request.options.table.column,
        labels=request.labels,
    )


def load_outliers(request: Request, items: Items) -> Items:
    """All images below a folder; or :data:`DIGITS`."""
    from rince.data.arrays import unlabelled
    from rince.data.image import sources

    size, channels = items.spec.size, items.spec.channels
    if request.data == DIGITS:
        return unlabelled(sources.digits_outliers(size, channels), items.taxonomy)
    folder = Path(request.data).expanduser()
    mode: OnUnreadable = "skip" if request.skip_unreadable else "error"
    return unlabelled(sources.load_outliers(folder, size, channels, mode), items.taxonomy)


def embedding_names(encoder: Encoder, data: str, column: str | None) -> Sequence[Any]:
    """The images of a table or of shards, or all below a folder."""
    from rince.data.image.files import image_files

    if is_table(data):
        return listed_files(data, IMAGE_SUFFIXES, column)
    require_no_column(encoder, column)
    return image_files(data)


def embedding_inputs(
    encoder: Encoder, names: Sequence[Any], batch_size: int, skip: bool
) -> Iterator[tuple[list[str], Any]]:
    """Image files, decoded as at evaluation."""
    from rince.data.image.decode import fitted_batches

    spec = encoder.spec
    mode: OnUnreadable = "skip" if skip else "error"
    for pixels, positions in fitted_batches(names, spec.size, spec.channels, batch_size, mode):
        yield [str(names[i]) for i in positions.tolist()], pixels


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
    load=load,
    load_test=load_test,
    load_outliers=load_outliers,
    embedding_names=embedding_names,
    embedding_inputs=embedding_inputs,
    build_backbone=build_pixel_backbone,
    encoder=pixel_encoder,
    usage=usage,
    backbone="small-resnet",
    card="library_name: rince\npipeline_tag: image-feature-extraction\n"
    "tags: [rince, contrastive-learning, image-retrieval]",
)
