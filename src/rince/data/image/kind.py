"""The row of images."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rince.core.checks import RinceError
from rince.core.files import IMAGE_SUFFIXES, files_below, user_path
from rince.data.kind import DataOptions, Kind, later
from rince.data.networks import (
    build_pixel_backbone,
    embedding_files,
    pixel_encoder,
    pixel_usage,
)

if TYPE_CHECKING:
    from rince.data.image.shards import Member
    from rince.models.encoders import Encoder

NAMED_TREES = {
    "fashion-mnist": later("rince.ranks.taxonomy:Taxonomy.fashion_mnist"),
    "cifar100": later("rince.ranks.taxonomy:Taxonomy.cifar100"),
}
"""Data sets that are known by their names, with images of their own: their class trees."""
DIGITS = "digits"
"""Outliers by name: scikit-learn's handwritten digits."""
_SOURCES = "rince.data.image.sources"
_LOOKED_AT = 50  # images by which their size is known


def advice(data: str, options: DataOptions) -> str:
    """Photos lose most of what they show at the size that suits small images."""
    from rince.data.image.decode import opened
    from rince.data.image.files import IMAGE_SIZE

    if options.images.image_size is not None:
        return ""
    sizes = []
    try:
        with warnings.catch_warnings():  # so will they warn
            warnings.simplefilter("ignore")
            some = _some_images(data, options)
    except (RinceError, LookupError):  # whoever reads all of them will say so
        return ""
    for file in some:
        with contextlib.suppress(RinceError), opened(file) as image:
            sizes.append(image.size)
    if not sizes:
        return ""
    width, height = sorted(sizes, key=min)[(len(sizes) - 1) // 2]
    smaller = min(width, height)
    if smaller < 2 * IMAGE_SIZE:
        return ""
    typical = ", in the median" if len(set(sizes)) > 1 else ""
    said = f"these images ({width} x {height} pixels{typical}) are scaled down to {IMAGE_SIZE} "
    said += "pixels"
    if smaller < 3 * IMAGE_SIZE:
        return f"{said}: --images.image-size {smaller} trains on all of theirs"
    return (
        f"{said}. Photos are better trained from pretrained weights at 224: "
        f"--images.image-size 224 --model.backbone torchvision/resnet18 --model.pretrained true "
        f"--optim.lr 0.01"
    )


def _some_images(data: str, options: DataOptions) -> list[Path | Member]:
    """Of a folder or a table from all over its first 5,000, of shards (which are shuffled, and slow
    to list) the first; none of a name."""
    from rince.core.tables import composed, read_as, read_table
    from rince.data.image.shards import each_image, is_shards
    from rince.data.table import ItemTable, column_of_paths, is_table

    path = user_path(data)
    if is_shards(data):
        return list(itertools.islice(each_image(data), _LOOKED_AT))
    if not is_table(data):
        files = files_below(path, IMAGE_SUFFIXES) if path.is_dir() else iter(())
        return _spread(list(itertools.islice(files, 100 * _LOOKED_AT)))
    with read_as(options.table.encoding):
        table = read_table(path, "items", fill_short_rows=True, most=100 * _LOOKED_AT)
    column = options.table.column or column_of_paths(table, IMAGE_SUFFIXES) or ""
    rows = ItemTable(table, composed(column), ()).rows(_spread(range(len(table.rows))))
    return rows.files(options.images.root)[0]


def _spread(values: Sequence[Any]) -> list[Any]:
    """At most :data:`_LOOKED_AT` of them, at equal distances."""
    return [*values[:: -(-len(values) // _LOOKED_AT) or 1]]


def embedding_inputs(
    encoder: Encoder, names: Sequence[Any], batch_size: int, skip_unreadable: bool
) -> Iterator[tuple[list[str], Any]]:
    from rince.data.image.decode import fitted_batches

    for pixels, positions in fitted_batches(
        names, encoder.spec, batch_size, skip_unreadable=skip_unreadable
    ):
        yield [str(names[i]) for i in positions.tolist()], pixels


def usage(encoder: Encoder, folder: str) -> str:
    size, mode = encoder.spec.size, "L" if encoder.spec.channels == 1 else "RGB"
    highest = 2 ** (encoder.spec.bits or 16) - 1
    how = encoder.spec.preprocessing
    resize, filtering = (size, "bilinear") if how is None else (how.resize, how.interpolation)
    filtered = f"({filtering}, antialiased: Pillow's `{filtering.upper()}`)"
    scaled = f"shorter side scaled to {resize} pixels {filtered}, the longer one in proportion, "
    scaled += "rounded down"
    if how is not None and how.squash:
        scaled = f"scaled to {resize} x {resize} pixels {filtered}, whatever the proportions"
    rows = (
        f"{scaled}; then the central square{f' of {size} pixels' if resize != size else ''}, from "
        f"`round((side - {size}) / 2)` on",
        f"decoding | in this order: the first frame of an animation; JPEGs by Pillow's "
        f"`draft(None, ({2 * resize}, {2 * resize}))`; turned upright as EXIF says "
        f"(`ImageOps.exif_transpose`); values of files of 16 bits times 255 / {highest}, rounded; "
        f"what is transparent, also in a palette, laid on white (`convert('RGBA')`, "
        f"`alpha_composite`); CMYK, palettes and all others by `convert('{mode}')`",
    )
    return pixel_usage(encoder, folder, " |\n| ".join(rows))


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
    preprocessing=later("rince.models.libraries:library_preprocessing"),
    backbone="small-resnet",
    advice=advice,
    card="library_name: rince\npipeline_tag: image-feature-extraction\n"
    "tags: [rince, contrastive-learning, image-retrieval]",
)
