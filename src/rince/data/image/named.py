"""Fashion-MNIST and CIFAR-100 by name: found on this machine, or downloaded by torchvision."""

from __future__ import annotations

import gzip
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rince.core.checks import RinceError, import_extra
from rince.core.files import cache_folder, user_path
from rince.data.arrays import TensorImages
from rince.ranks.taxonomy import Taxonomy

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
_FASHION_FILES = {
    True: ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    False: ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def read_idx(path: str | Path) -> Tensor:
    """Read a file of bytes in MNIST's idx format, gzipped or not."""
    file = user_path(path)
    try:
        raw = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise RinceError(f"{file} is damaged: {error}; download it again") from error
    if len(raw) < 4 or raw[:3] != b"\0\0\x08" or len(raw) < 4 + 4 * raw[3]:
        raise RinceError(f"{file} is not an idx file of bytes (it starts with {raw[:4]!r})")
    shape = struct.unpack(f">{raw[3]}I", raw[4 : 4 + 4 * raw[3]])
    expected, given = int(np.prod(shape)), len(raw) - 4 - 4 * raw[3]
    if expected != given:
        raise RinceError(
            f"{file} is truncated or damaged: its header says {' x '.join(map(str, shape))} = "
            f"{expected} bytes, but {given} follow; download it again"
        )
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).copy()).view(shape)


def _fashion_mnist(root: Path | None) -> tuple[TensorImages, TensorImages]:
    raw = Path("FashionMNIST", "raw")
    folders = [] if root is None else [root, root / "fashion-mnist", root / raw]
    folders += [DEBIAN_FASHION_MNIST, cache_folder() / raw]
    names = [name for pair in _FASHION_FILES.values() for name in pair]
    folder = next((x for x in folders if all(_idx_file(x, n).is_file() for n in names)), None)
    folder = folder or _download("FashionMNIST", root) / raw
    return _fashion_split(folder, train=True), _fashion_split(folder, train=False)


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


def _cifar100(root: Path | None) -> tuple[TensorImages, TensorImages]:
    folders = [] if root is None else [root, root / "cifar-100-python"]
    folders += [cache_folder() / "cifar-100-python"]
    folder = next((f for f in folders if all((f / n).is_file() for n in ("train", "test"))), None)
    folder = folder or _download("CIFAR100", root) / "cifar-100-python"
    return _cifar100_split(folder / "train"), _cifar100_split(folder / "test")


def _cifar100_split(file: Path) -> TensorImages:
    """With its coarse labels, which prove that the taxonomy is the right one."""
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
    folder = root or cache_folder()
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


NAMED = {"fashion-mnist": _fashion_mnist, "cifar100": _cifar100}
"""Name -> training and test images, found or put below a folder; None: rince's own."""
