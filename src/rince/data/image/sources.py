"""Where data sets are found: a folder of your own, or one of two named sets, offline first."""

from __future__ import annotations

import difflib
import gzip
import hashlib
import os
import pickle
import struct
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from rince.core.checks import RinceError, import_extra, require, warn
from rince.data.clips import VideoClips
from rince.data.images import (
    AnyImages,
    FileImages,
    Images,
    OnUnreadable,
    TensorImages,
    drop_duplicates,
    fingerprint,
)
from rince.data.texts import Texts
from rince.data.views import eval_transform
from rince.ranks.taxonomy import Taxonomy

NAMES = ("fashion-mnist", "cifar100")
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
FOLDER_IMAGE_SIZE = 32
ListedImages = TypeVar("ListedImages", FileImages, Texts)
SPLIT_SEED = 0  # one for all: runs that differ in their seed must share the test images
CACHE_UP_TO = 64  # pixels: larger images lose too much when crops are taken from a small copy
_TEST_FOLDERS = ("val", "validation", "valid", "test")
_FASHION_FILES = {
    True: ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    False: ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


@dataclass(frozen=True, eq=False)
class Splits:
    """A data set in two parts with the same classes.

    Args:
        train: images to train on; at evaluation the gallery.
        test: images held out; at evaluation the queries.
        image_size: side of the square images that a backbone is fed, pixels; 0: texts.
    """

    train: Images
    test: Images
    image_size: int

    @property
    def channels(self) -> int:
        """3 (RGB) or 1 (grey); 0: texts."""
        return self.train.channels

    @property
    def frames(self) -> int | None:
        """T, of clips of videos; None: images."""
        return self.train.frames if isinstance(self.train, VideoClips) else None

    @property
    def kind(self) -> str:
        """images, clips or texts."""
        return {VideoClips: "clips", Texts: "texts"}.get(type(self.train), "images")

    def fingerprint(self) -> str:
        """A hex digest that tells whether these are the images of another time.

        Of a folder it covers class paths, file names, and which of them are test images.
        """
        both = f"{fingerprint(self.train)} {fingerprint(self.test)}"
        return hashlib.blake2b(both.encode(), digest_size=16).hexdigest()


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
) -> Splits:
    """Load training and test images.

    Args:
        data: "fashion-mnist", "cifar100", or a folder. A folder with ``train/`` and ``val/`` or
            ``test/`` below it is taken in these splits (``val/`` if it has both). Any other tree
            ``<group>/.../<class>/*.jpg``, and ``train/`` where there is nothing else, is split
            class by class. The names of the files alone decide, so that images stay on their
            side whatever the seed, and when others come or go.
        data_root: where a named data set is kept or is downloaded to.
        image_size: pixels; None: 28 (Fashion-MNIST), 32 (CIFAR-100, folders).
        channels: 3 (RGB) or 1 (grey) for the images of a folder; named data sets have their own.
        cache: decode a folder's images once and keep them at image_size in memory; None: up to
            64 pixels. Named data sets are always in memory.
        skip_unreadable: leave out files that cannot be read, with a warning, rather than raise.
        without_duplicates: leave out training images that are byte for byte also test images or
            earlier training images.
        per_class: keep so many training images of each class, chosen by the seed.
        test_per_class: likewise for the test images.
        test_fraction: share of each class that becomes test images where a folder has no splits
            of its own; at least one image.
        seed: of the choices per class.

    Raises:
        RinceError: data that cannot be found or read; the message says how to get them.
        ValueError: a number out of its range.
    """
    for name, count in (("per_class", per_class), ("test_per_class", test_per_class)):
        require(count is None or count >= 1, f"{name} must be at least 1, got {count}")
    require(image_size is None or image_size >= 8, f"image_size must be >= 8, got {image_size}")
    require(0 < test_fraction < 1, f"test_fraction must be in (0, 1), got {test_fraction}")
    root = None if data_root is None else Path(data_root).expanduser()
    if str(data) in NAMES:
        named = (_fashion_mnist if str(data) == "fashion-mnist" else _cifar100)(root)
        if without_duplicates:
            named = (drop_duplicates(named[0], named[1]), named[1])
        train, test = (
            _resized(at_most(images, count, seed), image_size)
            for images, count in zip(named, (per_class, test_per_class), strict=True)
        )
        return Splits(train, test, int(train.pixels.shape[-1]))

    files = _folder_splits(_existing_folder(str(data)), test_fraction, channels)
    if without_duplicates:
        files = (drop_duplicates(files[0], files[1]), files[1])
    chosen = (at_most(files[0], per_class, seed), at_most(files[1], test_per_class, seed))
    size = image_size or FOLDER_IMAGE_SIZE
    if size <= CACHE_UP_TO if cache is None else cache:
        mode: OnUnreadable = "skip" if skip_unreadable else "error"
        return Splits(chosen[0].preload(size, mode), chosen[1].preload(size, mode), size)
    if skip_unreadable:
        return Splits(chosen[0].readable(), chosen[1].readable(), size)
    return Splits(*chosen, size)


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


def read_idx(path: str | Path) -> Tensor:
    """Read a file of bytes in MNIST's idx format, gzipped or not.

    Raises:
        RinceError: another format, a wrong length, a damaged file.
    """
    file = Path(path)
    try:
        raw = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise RinceError(f"{file} is damaged: {error}; fetch it again") from error
    if len(raw) < 4 or raw[:3] != b"\0\0\x08" or len(raw) < 4 + 4 * raw[3]:
        raise RinceError(f"{file} is not an idx file of bytes (it starts with {raw[:4]!r})")
    shape = struct.unpack(f">{raw[3]}I", raw[4 : 4 + 4 * raw[3]])
    expected, found = int(np.prod(shape)), len(raw) - 4 - 4 * raw[3]
    if expected != found:
        raise RinceError(
            f"{file} is truncated or damaged: its header says {' x '.join(map(str, shape))} = "
            f"{expected} bytes, but {found} follow; fetch it again"
        )
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).copy()).view(shape)


def _fashion_mnist(root: Path | None) -> tuple[TensorImages, TensorImages]:
    folders = [DEBIAN_FASHION_MNIST, _cache_folder() / "FashionMNIST" / "raw"]
    if root is not None:
        folders[:0] = [root, root / "fashion-mnist", root / "FashionMNIST" / "raw"]
    found = next((folder for folder in folders if _has_fashion_mnist(folder)), None)
    if found is None:
        found = _download("FashionMNIST", root) / "FashionMNIST" / "raw"
    return _fashion_split(found, train=True), _fashion_split(found, train=False)


def _fashion_split(folder: Path, *, train: bool) -> TensorImages:
    files = [_idx_file(folder, name) for name in _FASHION_FILES[train]]
    images, labels = (read_idx(file) for file in files)
    if images.ndim != 3 or images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
        raise RinceError(
            f"{folder} does not hold Fashion-MNIST: expected (N, 28, 28) images and (N,) labels, "
            f"got {tuple(images.shape)} and {tuple(labels.shape)}"
        )
    taxonomy = Taxonomy.fashion_mnist()
    return _checked_images(images[:, None], labels.long(), taxonomy, "fashion-mnist", files[1])


def _idx_file(folder: Path, name: str) -> Path:
    plain = folder / name
    return plain if plain.is_file() else folder / f"{name}.gz"


def _has_fashion_mnist(folder: Path) -> bool:
    names = [name for pair in _FASHION_FILES.values() for name in pair]
    return all(_idx_file(folder, name).is_file() for name in names)


def _cifar100(root: Path | None) -> tuple[TensorImages, TensorImages]:
    folders = [_cache_folder() / "cifar-100-python"]
    if root is not None:
        folders[:0] = [root, root / "cifar-100-python"]
    found = next((f for f in folders if all((f / n).is_file() for n in ("train", "test"))), None)
    if found is None:
        found = _download("CIFAR100", root) / "cifar-100-python"
    return _cifar100_split(found / "train"), _cifar100_split(found / "test")


def _cifar100_split(file: Path) -> TensorImages:
    """torchvision drops the coarse labels; here they prove that the taxonomy is the right one."""
    taxonomy = Taxonomy.cifar100()
    try:
        with file.open("rb") as stream:
            content = _PlainUnpickler(stream, encoding="latin1").load()
        pixels = torch.from_numpy(np.asarray(content["data"], np.uint8)).reshape(-1, 3, 32, 32)
        fine, coarse = (
            torch.tensor(content[key], dtype=torch.int64)
            for key in ("fine_labels", "coarse_labels")
        )
    except Exception as error:  # a damaged pickle raises anything
        raise RinceError(f"{file} is not a CIFAR-100 file, or is damaged: {error}") from error
    images = _checked_images(pixels, fine, taxonomy, "cifar100", file)
    if not torch.equal(taxonomy.labels_at(2)[fine], coarse):
        raise RinceError(f"{file}: its coarse labels are not the 20 superclasses of CIFAR-100")
    return images


class _PlainUnpickler(pickle.Unpickler):
    """Builds arrays and nothing else: a data file must not run code."""

    _ALLOWED = frozenset(
        {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
        | {(f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")}
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no data file needs")
        return super().find_class(module, name)


def _checked_images(
    pixels: Tensor, labels: Tensor, taxonomy: Taxonomy, name: str, file: Path
) -> TensorImages:
    try:
        return TensorImages(pixels, labels, taxonomy, name)
    except ValueError as error:
        raise RinceError(f"{file} is damaged or another data set: {error}") from error


def _download(name: str, root: Path | None) -> Path:
    """Fetch a data set with torchvision; returns the folder it was put into."""
    datasets = import_extra("torchvision.datasets", "train")
    folder = root or _cache_folder()
    try:
        getattr(datasets, name)(str(folder), download=True)
    except (OSError, RuntimeError) as error:  # no network, a proxy's page in place of the file
        ways = {
            "FashionMNIST": (
                "its four idx files (train-images-idx3-ubyte.gz, ...) from "
                "https://github.com/zalandoresearch/fashion-mnist in FOLDER; on Debian or Ubuntu: "
                "apt-get install dataset-fashion-mnist"
            ),
            "CIFAR100": (
                "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz unpacked in FOLDER"
            ),
        }
        raise RinceError(
            f"{name} is not on this machine and cannot be downloaded to {folder} ({error}). With "
            f"a network, try again; otherwise give --images.root FOLDER with {ways[name]}"
        ) from error
    return folder


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rince"


def _existing_folder(data: str) -> Path:
    folder = Path(data).expanduser()
    if not folder.is_dir():
        close = difflib.get_close_matches(data.lower(), NAMES, n=1, cutoff=0.7)
        hint = f"did you mean {close[0]}?" if close else f"or one of {', '.join(NAMES)}"
        raise RinceError(f"there is no folder {data}; expected a folder of class folders, {hint}")
    return folder


def _folder_splits(
    folder: Path, test_fraction: float, channels: int
) -> tuple[FileImages, FileImages]:
    inside = {f.name: f for f in folder.iterdir() if f.is_dir() and not f.name.startswith(".")}
    tests = [name for name in _TEST_FOLDERS if name in inside]
    split = "train" in inside and bool(tests)
    # A train/ among other folders, none of them a split, is a class of vehicles.
    root = inside["train"] if split or list(inside) == ["train"] else folder
    found = FileImages.from_folder(root, channels=channels)
    train = replace(found, name=folder.resolve().name)
    if not split:
        return stratified(train, test_fraction)
    if len(tests) > 1:
        warn(f"{folder} holds {' and '.join(tests)}: {tests[0]} is used for testing")
    test = FileImages.from_folder(inside[tests[0]], train.taxonomy, channels=channels)
    return train, replace(test, name=train.name)


def stratified(
    images: ListedImages, test_fraction: float, instead: str = "train/ and val/ folders"
) -> tuple[ListedImages, ListedImages]:
    """Split every class by its items' hashes; a class of one item stays in training.

    One item more moves one of its neighbours over the border at most.
    """
    chosen: list[int] = []
    single: list[str] = []
    for label, members in _hashed_by_class(images, "split", SPLIT_SEED):
        if len(members) < 2:
            single.append(images.taxonomy.classes[label])
        else:
            count = max(1, min(len(members) - 1, round(test_fraction * len(members))))
            chosen += members[:count].tolist()
    if not chosen:
        raise RinceError(
            f"{images.name}: no class has two members, so none can be held out for the test; give "
            f"{instead}, or more data"
        )
    if single:
        warn(f"{len(single)} classes have one member and are not tested: {', '.join(single[:5])}")
    test = torch.zeros(len(images), dtype=torch.bool)
    test[chosen] = True
    return images.subset((~test).nonzero()[:, 0]), images.subset(test.nonzero()[:, 0])


def at_most(images: AnyImages, per_class: int | None, seed: int) -> AnyImages:
    """A seeded choice of images of each class, in their old order."""
    if per_class is None:
        return images
    if isinstance(images, FileImages | Texts):
        classes = _hashed_by_class(images, "choice", seed)
    else:
        classes = _shuffled_by_class(images.labels, seed)
    kept = [members[:per_class] for _, members in classes]
    return images.subset(torch.cat(kept).sort().values)


def _hashed_by_class(images: FileImages | Texts, use: str, seed: int) -> list[tuple[int, Tensor]]:
    """Each label that occurs, with the positions of its images in the order of their hashes.

    A file's place among others follows from its name, a text's from itself, so those that come or
    go move no other.
    """
    members: dict[int, list[tuple[bytes, int]]] = {}
    for index, (key, label) in enumerate(zip(images.keys(), images.labels.tolist(), strict=True)):
        place = hashlib.blake2b(repr((use, seed, key)).encode(), digest_size=8).digest()
        members.setdefault(label, []).append((place, index))
    return [
        (label, torch.tensor([index for _, index in sorted(members[label])]))
        for label in sorted(members)
    ]


def _shuffled_by_class(labels: Tensor, seed: int) -> list[tuple[int, Tensor]]:
    """Each label that occurs, with the positions of its images in random order."""
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator)
    order = shuffled[labels[shuffled].argsort(stable=True)]
    ends = labels.bincount().cumsum(0)
    groups = enumerate(torch.tensor_split(order, ends[:-1]))
    return [(label, members) for label, members in groups if len(members)]


def _resized(images: TensorImages, image_size: int | None) -> TensorImages:
    if image_size is None or images.pixels.shape[-2:] == (image_size, image_size):
        return images
    fit = eval_transform(image_size)
    pixels = torch.cat([fit(images.pixels[i : i + 1024]) for i in range(0, len(images), 1024)])
    return replace(images, pixels=pixels)
