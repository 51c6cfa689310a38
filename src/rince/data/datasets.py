"""What people have in Python as items: arrays, texts, torch's and Hugging Face's data sets."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rince.core.checks import RinceError, require, warn
from rince.core.digests import digest
from rince.core.input_spec import InputSpec, Preprocessing
from rince.core.labels import are_integers, as_array, integers, require_no_unknown, values_of
from rince.core.tables import repeated
from rince.data.arrays import TensorImages, as_pictures
from rince.data.image.decode import picture_pixels
from rince.data.items import Indices, Items, Thumbnails, positions_of
from rince.data.text.texts import Texts
from rince.data.vectors import Vectors, check_directions
from rince.data.views import ViewConfig, eval_transform, evaluation_pixels, image_views, view_pixels
from rince.ranks.taxonomy import Taxonomy


def from_arrays(
    images: Any,
    labels: Any,
    *,
    taxonomy: Taxonomy | None = None,
    image_size: int | None = None,
    name: str = "arrays",
) -> TensorImages:
    """Images in memory.

    Args:
        images: (N, H, W), (N, H, W, C) or (N, C, H, W), C = 1 or 3: uint8, or floats in [0, 1].
        labels: of each image: (N,) class names, or integers; or (N, L) from coarse to fine. With a
            taxonomy integers are positions among its classes, without one any ids.
        taxonomy: the class tree; None: that of the labels. Give the training's to the test.
        image_size: side of the squares that a network is fed, pixels; None: the shorter side.
        name: what to call them in reports.

    Raises:
        ValueError: other shapes or values, a label that is no class of the taxonomy.

    Example:
        >>> items = from_arrays(np.zeros((3, 8, 8), np.uint8), [["dog", "pug"]] * 3)
        >>> items.spec.shape, items.taxonomy.paths, items.labels.tolist()
        ((1, 8, 8), (('dog', 'pug'),), [0, 0, 0])
    """
    if not isinstance(images, Tensor):
        array = as_array(images, "images")
        require(
            array.dtype.kind in "biuf",
            f"images must be arrays of numbers of one size, got {values_of(array)}",
        )
        array = np.require(array, array.dtype.newbyteorder("="), ("C", "W"))
        images = torch.from_numpy(array)
    pixels: Tensor = images
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    require(pixels.ndim == 4, f"images must be (N, H, W, C) or the like, got {tuple(pixels.shape)}")
    if pixels.shape[1] not in (1, 3) and pixels.shape[3] in (1, 3):
        pixels = pixels.permute(0, 3, 1, 2)
    tree, numbers = labels_in(labels, taxonomy)
    return TensorImages(_bytes(pixels).contiguous(), numbers, tree, name, image_size=image_size)


def from_texts(
    texts: Sequence[str],
    labels: Any,
    *,
    taxonomy: Taxonomy | None = None,
    backbone: str | os.PathLike[str] = "all-MiniLM-L6-v2",
    max_tokens: int | None = None,
    name: str = "texts",
) -> Texts:
    """Texts with the tokens of a backbone.

    Args:
        texts: N strings: a list, a pandas column.
        labels, taxonomy, name: as of :func:`from_arrays`.
        backbone: a model of sentence-transformers. max_tokens: longer texts are cut. A training
            takes both where its options leave them open, and else makes the tokens anew.

    Raises:
        ValueError: a text that is empty or no string, a label that is no class.
    """
    rows = list(texts)
    bad = [i for i, text in enumerate(rows) if not isinstance(text, str) or not text.strip()]
    if bad:
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise ValueError(f"text {bad[0]}{more} is empty or no string")
    tree, numbers = labels_in(labels, taxonomy)
    empty = torch.zeros(len(rows), 0, dtype=torch.int64)
    return Texts(tuple(rows), empty, numbers, tree, name).tokenised(os.fspath(backbone), max_tokens)


def from_dataset(
    dataset: Any,
    *,
    labels: Any = None,
    image: str = "image",
    taxonomy: Taxonomy | None = None,
    image_size: int = 32,
    channels: int = 3,
    name: str = "dataset",
) -> DatasetImages:
    """Images of a data set of torch or Hugging Face, decoded when asked for.

    Args:
        dataset: has a length and gives, by number, (image, label) or a dict; images are Pillow's,
            or uint8 or [0, 1] arrays of (H, W), (H, W, C) or (C, H, W). Leave out random
            transforms: rince makes the views.
        labels: (N,) or (N, L) as of :func:`from_arrays`; of Hugging Face's the names of its label
            columns, from coarse to fine. None: ``targets`` and ``classes`` as torchvision's data
            sets have them.
        image: column of the images.
        taxonomy: the class tree; names of the data set's own classes are looked up in it, so that
            another order of its classes does not matter. None: that of the labels.
        image_size: side of the squares that a network is fed, pixels. channels: 3 or 1 (grey).
        name: what to call the data set in reports.

    Raises:
        ValueError: labels that are not known, or are no classes of the taxonomy.
    """
    if isinstance(dataset, dict):  # what load_dataset gives without a split
        raise ValueError(
            f"data sets were given, by name: take one of them, dataset[NAME], of "
            f"{', '.join(map(repr, dataset))}"
        )
    columns = getattr(dataset, "column_names", None)
    if columns is not None:
        chosen = [labels] if isinstance(labels, str) else labels
        require(
            isinstance(chosen, Sequence) and {image, *chosen} <= set(columns),
            f"name the image and label columns, got {image!r} and {labels!r}; the columns are "
            f"{', '.join(columns)}",
        )
        values = [_column(dataset, column) for column in chosen]
        labels = values[0] if len(values) == 1 else list(zip(*values, strict=True))
    elif labels is None:
        targets = getattr(dataset, "targets", None)
        require(
            targets is not None,
            f"{type(dataset).__name__} has no attribute targets: give its labels, "
            f"from_dataset(..., labels=...)",
        )
        _warn_of_groups(dataset)
        classes = getattr(dataset, "classes", None)
        labels = targets
        if classes is not None:
            numbers = integers(targets, "targets")
            require_no_unknown(numbers, "targets")  # or -1 would be the last class
            high = int(numbers.max()) if len(numbers) else 0
            require(
                high < len(classes), f"targets hold {high}, but there are {len(classes)} classes"
            )
            names = _class_names(classes)
            labels = [names[number] for number in numbers.tolist()]
    tree, known = labels_in(labels, taxonomy)
    return DatasetImages(dataset, known, tree, name, image, image_size, channels)


def from_vectors(
    vectors: Any,
    labels: Any,
    *,
    taxonomy: Taxonomy | None = None,
    names: Sequence[str] = (),
    dropout: float = 0.3,
    name: str = "vectors",
) -> Vectors:
    """Features that another network made, to train a head on them.

    Args:
        vectors: (N, D) numbers: an array, a tensor.
        labels, taxonomy, name: as of :func:`from_arrays`.
        names: N of the items, if they have any.
        dropout: share of the numbers of a vector that a view sets to 0, in [0, 1).

    Raises:
        ValueError: other shapes, values that are not finite, a label that is no class.

    Example:
        >>> items = from_vectors(np.eye(3), ["ash", "elm", "ash"])
        >>> items.spec.shape, items.labels.tolist()
        ((3,), [0, 1, 0])
    """
    given = as_array(vectors.float() if isinstance(vectors, Tensor) else vectors, "vectors")
    require(
        given.ndim == 2 and given.dtype.kind in "fiu",
        f"vectors must be (items, dimensions) numbers, got shape {given.shape} of "
        f"{values_of(given)}",
    )
    with np.errstate(over="ignore"):
        rows = torch.from_numpy(given.astype(np.float32))
    require(bool(rows.isfinite().all()), "vectors must be finite, but hold NaN or infinity")
    check_directions(rows, "vectors")
    tree, numbers = labels_in(labels, taxonomy)
    require(len(names) in (0, len(rows)), f"{len(names)} names were given for {len(rows)} vectors")
    return Vectors(rows, numbers, tree, name, tuple(map(str, names)), dropout=dropout)


def labels_in(labels: Any, taxonomy: Taxonomy | None) -> tuple[Taxonomy, Tensor]:
    """The class tree of some labels, or one that is given, and the (N,) int64 labels in it."""
    try:
        array = as_array(labels)
    except ValueError as error:
        raise ValueError(
            f"{error}. For a ragged tree give taxonomy=rince.Taxonomy(PATHS), and the name of each "
            f"item's class"
        ) from None
    rows = array if array.ndim == 2 else array[:, None]
    if taxonomy is None:
        taxonomy = Taxonomy.from_labels(rows, finest_first=False)
        return taxonomy, taxonomy.index(rows)
    if array.ndim == 1 and are_integers(array):
        own = [path[-1] for path in taxonomy.paths]
        numbered = all(re.fullmatch(r"-?\d+", name) for name in own)
        if numbered and own != list(map(str, range(len(own)))):
            raise ValueError(
                f"labels are integers, and the classes of the taxonomy are called by integers, but "
                f"not by their positions ({', '.join(taxonomy.classes[:3])}, ...): give the names "
                f"as text, list(map(str, labels)), or for positions [taxonomy.classes[i] for i in "
                f"labels]"
            )
        return taxonomy, integers(array)
    return taxonomy, taxonomy.index(array)


def _class_names(classes: Sequence[Any]) -> list[str]:
    """What a data set calls its classes, each by a name of its own: torchvision's ImageNet has
    tuples of synonyms, and two classes that are called crane."""
    names = [", ".join(map(str, x)) if isinstance(x, (tuple, list)) else str(x) for x in classes]
    twice = repeated(names)
    if twice:
        warn(
            f"{len(twice)} names are those of two classes or more, such as {twice[0]!r}: they get "
            f"their numbers behind them"
        )
    return [f"{name} ({i})" if name in twice else name for i, name in enumerate(names)]


@dataclass(frozen=True, eq=False, repr=False)
class DatasetImages(Items):
    """Images of a data set of the user's, see :func:`from_dataset`.

    ``positions``: (N,) int64, which of the data set's they are; None: all.
    """

    dataset: Any
    labels: Tensor
    taxonomy: Taxonomy
    name: str
    image: str
    image_size: int
    channels: int
    positions: Tensor | None = None
    preprocessing: Preprocessing | None = None

    def __post_init__(self) -> None:
        self._check_labels(len(self.dataset if self.positions is None else self.positions))

    @property
    def spec(self) -> InputSpec:
        how = self.preprocessing
        return InputSpec.images(self.channels, self.image_size, preprocessing=how)

    def __getitem__(self, index: int) -> Tensor:
        """(C, H, W) uint8."""
        position = index if self.positions is None else int(self.positions[index])
        row = self.dataset[position]
        picture = row[self.image] if isinstance(row, dict) else row
        if isinstance(picture, (tuple, list)):
            picture = picture[0]
        if hasattr(picture, "convert"):  # Pillow's
            return picture_pixels(picture, self.channels)
        try:
            return self._pixels(picture)
        except ValueError as error:  # which a worker would show with all that it came through
            raise RinceError(f"item {position}: {error}") from error

    def _pixels(self, picture: Any) -> Tensor:
        pixels = picture if isinstance(picture, Tensor) else torch.from_numpy(np.array(picture))
        pixels = pixels[None] if pixels.ndim == 2 else pixels
        require(
            pixels.ndim == 3 and (pixels.shape[0] in (1, 3) or pixels.shape[2] in (1, 3)),
            f"an image must be (H, W), (H, W, C) or (C, H, W), got {tuple(pixels.shape)}",
        )
        pixels = pixels if pixels.shape[0] in (1, 3) else pixels.permute(2, 0, 1)
        require(
            len(pixels) in (1, self.channels),
            f"it has {len(pixels)} channels, expected {self.channels}",
        )
        return _bytes(pixels).expand(self.channels, -1, -1).contiguous()

    def subset(self, indices: Indices) -> DatasetImages:
        chosen = positions_of(indices, len(self))
        positions = chosen if self.positions is None else self.positions[chosen]
        return replace(self, labels=self.labels[chosen], positions=positions)

    def fingerprint(self) -> str:
        """Of the number of the items, their labels and class tree, not the pixels."""
        return digest([self.taxonomy.paths, self.labels.tolist()])

    def thumbnails(self, indices: Indices, size: int) -> Thumbnails:
        side = min(size, 64)
        fit = eval_transform(side)
        shown = torch.zeros(len(indices), self.channels, side, side, dtype=torch.uint8)
        for place, i in enumerate(indices):
            shown[place] = fit(self[int(i)])
        return as_pictures(shown)

    def fitted(self, rows: slice) -> Tensor:
        fit = eval_transform(self.image_size, self.preprocessing)
        return torch.stack([fit(self[i]) for i in range(len(self))[rows]])

    def network_inputs(self, fitted: Tensor) -> Tensor:
        return evaluation_pixels(fitted, self.preprocessing)

    def item_views(self, config: ViewConfig) -> Callable[[Tensor], Tensor]:
        return image_views(self.image_size, self.channels, config)

    def view_inputs(self, views: Tensor) -> Tensor:
        return view_pixels(views, self.preprocessing)


def _warn_of_groups(dataset: Any) -> None:
    """torchvision's ``ImageFolder`` takes the top folders of group/class/ for the classes."""
    folder_of: dict[Any, str] = {}
    samples = getattr(dataset, "samples", None)
    for sample in samples if isinstance(samples, list) else []:
        if not isinstance(sample, tuple) or len(sample) != 2 or not isinstance(sample[0], str):
            return  # not torchvision's
        folder, target = os.path.dirname(sample[0]), sample[1]
        if folder_of.setdefault(target, folder) != folder:
            warn(
                f"{type(dataset).__name__} takes {folder_of[target]} and {folder} for one class; "
                f"rince.data.FileImages.from_folder(FOLDER) reads <group>/<class>/ folders as a "
                f"class tree. If it is one, give labels=[dataset.classes[i] for i in "
                f"dataset.targets]"
            )
            return


def _column(dataset: Any, column: str) -> list[Any]:
    """Hugging Face keeps classes as numbers, and their names with the column."""
    values = list(dataset[column])
    names = getattr(dataset.features[column], "names", None)
    require(
        names is None or all(isinstance(x, int) and 0 <= x < len(names) for x in values),
        f"column {column!r} holds labels that are missing or have no name (-1?)",
    )
    return values if names is None else [names[x] for x in values]


def _bytes(pixels: Tensor) -> Tensor:
    if pixels.dtype == torch.uint8:
        return pixels
    values = pixels.double()  # of uint16 aminmax knows nothing
    low, high = (float(x) for x in torch.aminmax(values)) if pixels.numel() else (0.0, 0.0)
    require(
        pixels.is_floating_point() and low >= 0 and high <= 1,
        f"images must be uint8, or floats in [0, 1], got {pixels.dtype} from {low:g} to {high:g}: "
        f"leave out Normalize and other transforms",
    )
    return (pixels * 255).round().to(torch.uint8)
