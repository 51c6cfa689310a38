"""Images of a folder or of a named data set, split into training and test."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from rince.core.checks import BadItems, RinceError, import_extra, warn
from rince.core.files import IMAGE_SUFFIXES, absent, files_below, user_path
from rince.data.arrays import TensorImages, unlabelled
from rince.data.image.checked import checked_bits
from rince.data.image.decode import decode_all
from rince.data.image.files import IMAGE_SIZE, FileImages, image_files, loaded
from rince.data.image.kind import DIGITS
from rince.data.image.named import NAMED
from rince.data.image.shards import is_shards, read_shards
from rince.data.items import (
    Items,
    Splits,
    chosen_items,
    class_root,
    report_unreadable,
    split_by_hash,
    split_folders,
)
from rince.data.kind import Request
from rince.data.table import ItemTable, is_table, split_rows
from rince.data.views import eval_transform
from rince.ranks.taxonomy import Taxonomy

CACHE_UP_TO = 64  # pixels: larger images lose too much when crops are taken from a small copy


def load_dataset(request: Request) -> Splits:
    """Training and test images: of a named data set, a table, or a folder.

    A folder with ``train/`` and ``val/`` or ``test/`` below it is taken in these splits. Any other
    tree ``<group>/.../<class>/*.jpg``, and ``train/`` where there is nothing else, is split class
    by class, by the names of the files.
    """
    images = request.options.images
    if request.data in NAMED:
        named = NAMED[request.data](_root(request))
        parts = chosen_items(*named, images, request.seed)
        return Splits(*(_resized(part, request) for part in parts))
    if (table := _image_table(request)) is not None:
        files = split_rows(table, partial(_of_rows, request))
        trained, tested = ({os.path.abspath(str(x)) for x in side.paths} for side in files)
        if both := sorted(trained & tested):
            warn(
                f"{request.data}: {len(both)} images are in the training and in the test, such as "
                f"{both[0]}"
            )
    else:
        files = _folder_splits(request)
    train_files, test_files = chosen_items(*files, images, request.seed)
    return Splits(*_kept([train_files, test_files], request))


def load_test_images(request: Request) -> Items:
    """All images of a folder of class folders or a table, with a class tree of their own; of one
    with splits those of the test."""
    if (table := _image_table(request)) is not None:
        return _kept([_of_rows(request, table.test_rows())], request)[0]
    folder = _existing_folder(request.data)
    splits = split_folders(folder)
    return _kept([_of_folder(request, splits[1] if splits else class_root(folder))], request)[0]


def load_outlier_images(request: Request, items: Items) -> Items:
    """All images below a folder, or :data:`DIGITS`, as large as the items."""
    spec = items.spec
    if request.data == DIGITS:
        pixels = digits_outliers(spec.size, spec.channels)
    else:
        files = image_files(user_path(request.data))
        pixels, _ = decode_all(files, spec, skip_unreadable=request.skip_unreadable)
    return unlabelled(pixels, items.taxonomy).preprocessed(spec.preprocessing)


def digits_outliers(image_size: int, channels: int = 1) -> Tensor:
    """scikit-learn's 1,797 handwritten digits, enlarged: (1797, C, S, S) uint8, bright on black."""
    datasets = import_extra("sklearn.datasets", "train")
    digits = torch.tensor(datasets.load_digits().images, dtype=torch.float32)[:, None]  # 0 .. 16
    enlarged = torch.nn.functional.interpolate(
        digits * (255 / 16), size=(image_size, image_size), mode="bilinear", antialias=True
    )
    return enlarged.round().clamp(0, 255).to(torch.uint8).repeat(1, channels, 1, 1)


def _existing_folder(data: str) -> Path:
    folder = user_path(data)
    if not folder.is_dir():
        close = difflib.get_close_matches(data.lower(), NAMED, n=1, cutoff=0.7)
        hint = f"did you mean {close[0]}?" if close else f"or one of {', '.join(NAMED)}"
        raise RinceError(
            f"{absent('folder', data)}; expected a folder of class folders, or a table (.csv, "
            f".tsv, .jsonl, .parquet), {hint}"
        )
    return folder


def _root(request: Request) -> Path | None:
    root = request.options.images.root
    return None if root is None else user_path(root)


def _size(request: Request) -> int:
    return request.options.images.image_size or IMAGE_SIZE


def _kept(parts: Sequence[FileImages], request: Request) -> list[Items]:
    """All read once, and kept in memory if they are small or that is asked for."""
    options = request.options.images
    in_memory = parts[0].image_size <= CACHE_UP_TO if options.cache is None else options.cache
    how = request.preprocessing
    known = [replace(images, bits=options.bits, preprocessing=how) for images in parts]
    return loaded(known, in_memory, request.skip_unreadable)


def _image_table(request: Request) -> ItemTable | None:
    """The images of a table, or of shards; None: it is neither."""
    if is_shards(request.data):
        return read_shards(request.data, request.options.table.column, request.labels)
    return request.item_table(IMAGE_SUFFIXES) if is_table(request.data) else None


def _of_rows(request: Request, table: ItemTable, known: Taxonomy | None = None) -> FileImages:
    files, names = table.files(_root(request))
    taxonomy, labels = table.classes(known)
    return FileImages(
        tuple(str(file) if isinstance(file, Path) else file for file in files),
        torch.tensor(labels),
        taxonomy,
        table.table.file.stem,
        request.channels,
        _size(request),
        tuple(names),
        table.marks(),
    )


def _folder_splits(request: Request) -> tuple[FileImages, FileImages]:
    folder = _existing_folder(request.data)
    splits = split_folders(folder)
    root = splits[0] if splits else class_root(folder)
    train = _of_folder(request, root, beside=(splits or ())[1:])
    if splits is None:
        return split_by_hash(train)
    return train, _of_folder(request, splits[1], train.taxonomy)


def _of_folder(
    request: Request, root: Path, known: Taxonomy | None = None, beside: Sequence[Path] = ()
) -> FileImages:
    """The images of a class tree. Where some of its classes have none, all are decoded, and those
    of the folders ``beside``, so that whatever is wrong is told at once."""
    try:
        images = FileImages.from_folder(root, known, channels=request.channels, unseen=True)
    except BadItems as error:
        files = [str(x) for folder in (root, *beside) for x in files_below(folder, IMAGE_SUFFIXES)]
        bits_or_errors = checked_bits([] if request.skip_unreadable else files, only_deep=False)
        failures = [x for x in bits_or_errors if isinstance(x, RinceError)]
        try:
            report_unreadable(failures, len(files), "images", skip_unreadable=False)
        except BadItems as other:
            raise BadItems(f"{error}; {other}", (*error.problems, *other.problems)) from None
        raise
    name = user_path(request.data).resolve().name
    return replace(images, name=name, image_size=_size(request))


def _resized(images: TensorImages, request: Request) -> TensorImages:
    images, size = images.preprocessed(request.preprocessing), request.options.images.image_size
    if size is None or images.pixels.shape[-2:] == (size, size):
        return images
    fit = eval_transform(size, request.preprocessing)
    pixels = torch.cat([fit(images.pixels[i : i + 1024]) for i in range(0, len(images), 1024)])
    return replace(images, pixels=pixels)
