"""Images of a folder or of a named data set, split into training and test."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from rince.core.checks import RinceError, import_extra, require
from rince.core.files import IMAGE_SUFFIXES, passed_over
from rince.data.arrays import TensorImages
from rince.data.image.decode import OnUnreadable, decode_all
from rince.data.image.files import IMAGE_SIZE, FileImages, image_files
from rince.data.image.named import NAMED, load_named
from rince.data.image.shards import is_shards, read_shards
from rince.data.items import Items, Splits, at_most, drop_duplicates, split_by_hash, split_folders
from rince.data.table import ItemTable, is_table, path_column, read_items, split_rows
from rince.data.views import eval_transform
from rince.ranks.taxonomy import Taxonomy

_INSTEAD = "a column 'split'"
CACHE_UP_TO = 64  # pixels: larger images lose too much when crops are taken from a small copy


def load_dataset(
    data: str | Path,
    *,
    data_root: str | Path | None = None,
    image_size: int | None = None,
    channels: int = 3,
    cache: bool | None = None,
    skip_unreadable: bool = False,
    without_duplicates: bool = False,
    per_class: int | None = None,
    test_per_class: int | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
    column: str | None = None,
    labels: Sequence[str] | None = None,
) -> Splits:
    """Load training and test images.

    Args:
        data: "fashion-mnist", "cifar100", a table of images (see :mod:`rince.data.table`), tar
            shards (see :func:`~rince.data.image.shards.read_shards`), or a folder. A folder with
            ``train/`` and ``val/`` or ``test/`` below it is taken in these splits (``val/`` if it
            has both). Any other tree ``<group>/.../<class>/*.jpg``, and ``train/`` where there is
            nothing else, is split class by class. The names of the files alone decide, so that
            images stay on their side whatever the seed, and when others come or go.
        data_root: where a named data set is kept or is downloaded to; where the relative paths of
            a table begin.
        image_size: pixels; None: 28 (Fashion-MNIST), 32 (CIFAR-100, folders).
        channels: 3 (RGB) or 1 (grey) for the images of a folder; named data sets have their own.
        cache: decode a folder's images once and keep them at image_size in memory; None: up to
            64 pixels. Named data sets are always in memory.
        skip_unreadable: leave out files that cannot be read, with a warning, rather than raise.
        without_duplicates: leave out training images that are byte for byte also test images or
            earlier training images.
        per_class: largest number of training images of each class, chosen by the seed.
        test_per_class: the same for the test images.
        test_fraction: share of each class that becomes test images where a folder has no splits
            of its own; at least one image.
        seed: of the choices per class.
        column, labels: of a table: of the paths, and of the labels from coarse to fine.

    Raises:
        RinceError: data that cannot be found or read; the message says how to get them.
        ValueError: a number out of its range.
    """
    for name, count in (("per_class", per_class), ("test_per_class", test_per_class)):
        require(count is None or count >= 1, f"{name} must be at least 1, got {count}")
    require(image_size is None or image_size >= 8, f"image_size must be >= 8, got {image_size}")
    require(0 < test_fraction < 1, f"test_fraction must be in (0, 1), got {test_fraction}")
    root = None if data_root is None else Path(data_root).expanduser()
    if str(data) in NAMED:
        named = load_named(str(data), root)
        if without_duplicates:
            named = (drop_duplicates(named[0], named[1]), named[1])
        train, test = (
            _resized(at_most(images, count, seed), image_size)
            for images, count in zip(named, (per_class, test_per_class), strict=True)
        )
        return Splits(train, test)

    size = image_size or IMAGE_SIZE
    if (table := _table(data, column, labels)) is not None:
        made = list(split_rows(table, partial(_of_rows, root=root, channels=channels, size=size)))
        files = made if len(made) == 2 else split_by_hash(made[0], test_fraction, _INSTEAD)
    else:
        files = _folder_splits(_existing_folder(str(data)), test_fraction, channels, size)
    if without_duplicates:
        files = (drop_duplicates(files[0], files[1]), files[1])
    chosen = (at_most(files[0], per_class, seed), at_most(files[1], test_per_class, seed))
    return Splits(*(_kept(images, cache, skip_unreadable) for images in chosen))


def load_test_images(
    data: str | Path,
    *,
    data_root: str | Path | None = None,
    image_size: int | None = None,
    channels: int = 3,
    cache: bool | None = None,
    skip_unreadable: bool = False,
    column: str | None = None,
    labels: Sequence[str] | None = None,
) -> Items:
    """All images of a folder of class folders or a table, with a class tree of their own; of one
    with splits those of the test.

    Args, Raises: as of :func:`load_dataset`.
    """
    size = image_size or IMAGE_SIZE
    if (table := _table(data, column, labels)) is not None:
        table = table.test_rows()
        root = None if data_root is None else Path(data_root).expanduser()
        return _kept(_of_rows(table, None, root, channels, size), cache, skip_unreadable)
    folder = _existing_folder(str(data))
    splits = split_folders(folder)
    images = FileImages.from_folder(splits[1] if splits else folder, channels=channels)
    named = replace(images, name=folder.resolve().name, image_size=size)
    return _kept(named, cache, skip_unreadable)


def load_outliers(
    path: str | Path, image_size: int, channels: int = 3, on_unreadable: OnUnreadable = "error"
) -> Tensor:
    """All images below a folder, whatever its structure, without labels.

    Returns:
        (N, C, S, S) uint8: shorter side to ``image_size``, central square. A folder that can be
        reached twice, by a link, is read once.

    Raises:
        RinceError: no such folder, no image in it, or one that cannot be read.
    """
    return decode_all(image_files(path), image_size, channels, on_unreadable)[0]


def digits_outliers(image_size: int, channels: int = 1) -> Tensor:
    """scikit-learn's 1,797 handwritten digits (8 x 8 pixels), enlarged.

    Returns:
        (1797, C, S, S) uint8, bright digits on black.
    """
    datasets = import_extra("sklearn.datasets", "train")
    digits = torch.tensor(datasets.load_digits().images, dtype=torch.float32)[:, None]  # 0 .. 16
    enlarged = torch.nn.functional.interpolate(
        digits * (255 / 16), size=(image_size, image_size), mode="bilinear", antialias=True
    )
    return enlarged.round().clamp(0, 255).to(torch.uint8).repeat(1, channels, 1, 1)


def _existing_folder(data: str) -> Path:
    folder = Path(data).expanduser()
    if not folder.is_dir():
        close = difflib.get_close_matches(data.lower(), NAMED, n=1, cutoff=0.7)
        hint = f"did you mean {close[0]}?" if close else f"or one of {', '.join(NAMED)}"
        raise RinceError(f"there is no folder {data}; expected a folder of class folders, {hint}")
    return folder


def _kept(images: FileImages, cache: bool | None, skip_unreadable: bool) -> Items:
    """In memory, if they are small or that is asked for."""
    size = images.image_size
    if size <= CACHE_UP_TO if cache is None else cache:
        return images.preload(size, "skip" if skip_unreadable else "error")
    return images.readable() if skip_unreadable else images


def _table(data: str | Path, column: str | None, labels: Sequence[str] | None) -> ItemTable | None:
    """The images of a table, or of shards; None: it is neither."""
    if is_shards(data):
        return read_shards(data, column, labels)
    if not is_table(data):
        return None
    of_paths = column or path_column(data, IMAGE_SUFFIXES)
    if of_paths is None:
        raise RinceError(f"{data} has no column of paths to images")
    return read_items(Path(data).expanduser(), of_paths, labels, "table.column")


def _of_rows(
    table: ItemTable, known: Taxonomy | None, root: Path | None, channels: int, size: int
) -> FileImages:
    files, names = table.files(root)
    taxonomy, labels = table.classes(known)
    return FileImages(
        tuple(str(file) if isinstance(file, Path) else file for file in files),
        torch.tensor(labels),
        taxonomy,
        table.table.file.stem,
        channels,
        size,
        tuple(names),
        table.marks(),
    )


def _folder_splits(
    folder: Path, test_fraction: float, channels: int, image_size: int
) -> tuple[FileImages, FileImages]:
    splits = split_folders(folder)
    inside = [f for f in folder.iterdir() if f.is_dir() and not passed_over(f.name)]
    # A train/ among other folders, none of them a split, is a class of vehicles.
    alone = [f.name for f in inside] == ["train"]
    root = splits[0] if splits else inside[0] if alone else folder
    images = FileImages.from_folder(root, channels=channels)
    train = replace(images, name=folder.resolve().name, image_size=image_size)
    if splits is None:
        return split_by_hash(train, test_fraction)
    test = FileImages.from_folder(splits[1], train.taxonomy, channels=channels, unseen=True)
    return train, replace(test, name=train.name, image_size=image_size)


def _resized(images: TensorImages, image_size: int | None) -> TensorImages:
    if image_size is None or images.pixels.shape[-2:] == (image_size, image_size):
        return images
    fit = eval_transform(image_size)
    pixels = torch.cat([fit(images.pixels[i : i + 1024]) for i in range(0, len(images), 1024)])
    return replace(images, pixels=pixels)
