"""Labelled images: in memory as bytes (:class:`TensorImages`) or in files (:class:`FileImages`)."""

from __future__ import annotations

import hashlib
import itertools
import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from rince.core.checks import RinceError, import_extra, require, warn
from rince.core.files import files_below
from rince.data.clips import VideoClips, warn_left_out
from rince.data.texts import Texts
from rince.data.views import eval_transform
from rince.ranks.readers import IMAGE_SUFFIXES, Names, checked_paths, class_folders
from rince.ranks.taxonomy import Taxonomy

if TYPE_CHECKING:
    from PIL import Image

OnUnreadable = Literal["error", "skip"]
_PROGRESS_FROM = 2000  # files
_SLICE = 1024  # files decoded between two looks at what went wrong


@dataclass(frozen=True, eq=False)
class TensorImages:
    """Images of one size, in memory.

    Args:
        pixels: (N, C, H, W) uint8, C = 1 or 3; or clips, (N, C, T, H, W).
        labels: (N,) int64 in [0, classes of the taxonomy).
        taxonomy: the class tree.
        name: what to call the data set in reports.
        source: :func:`fingerprint` of the files the pixels were read from; "" if from none.

    Raises:
        ValueError: wrong shapes or dtypes, or a label outside the taxonomy.
    """

    pixels: Tensor
    labels: Tensor
    taxonomy: Taxonomy
    name: str
    source: str = ""

    def __post_init__(self) -> None:
        shape = tuple(self.pixels.shape)
        require(
            self.pixels.dtype == torch.uint8 and len(shape) in (4, 5) and shape[1] in (1, 3),
            f"pixels must be uint8 (N, 1 or 3, H, W) or (N, 1 or 3, T, H, W), got {shape} "
            f"and {self.pixels.dtype}",
        )
        _check_labels(self.labels, shape[0], self.taxonomy)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Tensor:
        return self.pixels[index]

    @property
    def channels(self) -> int:
        """C, 3 (RGB) or 1 (grey)."""
        return int(self.pixels.shape[1])

    def subset(self, indices: Tensor | Sequence[int]) -> TensorImages:
        """The images at these positions, in this order."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        source = self.source and _digest([self.source, chosen.tolist()])
        pixels, labels = self.pixels[chosen], self.labels[chosen]
        return replace(self, pixels=pixels, labels=labels, source=source)


@dataclass(frozen=True, eq=False)
class FileImages:
    """Images in files, decoded when asked for.

    Args:
        paths: (N,) files.
        labels: (N,) int64 in [0, classes of the taxonomy).
        taxonomy: the class tree.
        name: what to call the data set in reports.
        channels: 3 (RGB) or 1 (grey); files of another kind are converted.

    Raises:
        ValueError: wrong shapes or dtypes, or a label outside the taxonomy.
    """

    paths: tuple[str, ...]
    labels: Tensor
    taxonomy: Taxonomy
    name: str
    channels: int = 3

    def __post_init__(self) -> None:
        require(self.channels in (1, 3), f"channels must be 1 or 3, got {self.channels}")
        _check_labels(self.labels, len(self.paths), self.taxonomy)

    @classmethod
    def from_folder(
        cls,
        root: str | Path,
        taxonomy: Taxonomy | None = None,
        on_unreadable: OnUnreadable = "error",
        channels: int = 3,
    ) -> FileImages:
        """List ``root/<group>/.../<class>/*.jpg``; the folders are the class tree.

        Args:
            root: the folder.
            taxonomy: classes to use instead of the folders' own, so that labels agree between
                splits. A folder is then the class whose path ends as the folder's does:
                ``val/dog/husky`` and ``val/husky`` are both (animal, dog, husky). A folder
                without images is then passed over with a warning.
            on_unreadable: "error" checks nothing now and raises once a damaged file is read;
                "skip" decodes every file now and leaves out, with a warning, those that fail.
            channels: 3 (RGB) or 1 (grey).

        Raises:
            RinceError: a folder that is no class tree (see :meth:`Taxonomy.from_folders`), or
                that holds a class the taxonomy does not have.
        """
        folder = Path(root)
        if taxonomy is None:
            taxonomy = Taxonomy.from_folders(folder)
            label_of = {path: label for label, path in enumerate(taxonomy.paths)}
        else:
            label_of = _labels_of_folders(folder, taxonomy)
        paths: list[str] = []
        labels: list[int] = []
        for path, label in label_of.items():
            # A class folder holds no folders: the taxonomy has seen to that.
            files = [str(file) for file in files_below(folder.joinpath(*path), IMAGE_SUFFIXES)]
            paths += files
            labels += [label] * len(files)
        images = cls(
            tuple(paths), torch.tensor(labels, dtype=torch.int64), taxonomy, folder.name, channels
        )
        return images.readable() if on_unreadable == "skip" else images

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """Decode one image, (C, H, W) uint8 in full resolution.

        Raises:
            RinceError: the file cannot be read.
        """
        return read_image(self.paths[index], self.channels)

    def keys(self) -> list[str]:
        """``group/class/file`` of every image: the same wherever the folder lies."""
        # macOS may give the parts of an accented letter where Linux gives the letter.
        classes = [_composed("/".join(path)) for path in self.taxonomy.paths]
        return [
            f"{classes[label]}/{_composed(os.path.basename(path))}"
            for path, label in zip(self.paths, self.labels.tolist(), strict=True)
        ]

    def subset(self, indices: Tensor | Sequence[int]) -> FileImages:
        """The images at these positions, in this order."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        paths = tuple(self.paths[i] for i in chosen.tolist())
        return replace(self, paths=paths, labels=self.labels[chosen])

    def readable(self) -> FileImages:
        """Decode every file and leave out, with a warning, those that fail."""
        results = _in_threads(lambda path: _failure(path, self.channels), self.paths, "checking")
        failures = {i: failure for i, failure in enumerate(results) if failure is not None}
        warn_left_out(map(str, failures.values()), len(self), "images")
        return self.subset([i for i in range(len(self)) if i not in failures])

    def preload(self, image_size: int, on_unreadable: OnUnreadable = "error") -> TensorImages:
        """Decode everything once: shorter side to ``image_size``, central square.

        Args:
            image_size: pixels.
            on_unreadable: what to do about files that cannot be read; "skip" warns.

        Raises:
            RinceError: the first unreadable file, unless skipping; no readable file at all.
        """
        pixels, kept = _decode_all(self.paths, image_size, self.channels, on_unreadable)
        source = fingerprint(self.subset(kept))
        return TensorImages(pixels, self.labels[kept], self.taxonomy, self.name, source)


Images: TypeAlias = TensorImages | FileImages | VideoClips | Texts
AnyImages = TypeVar("AnyImages", TensorImages, FileImages, Texts)


def fingerprint(images: Images) -> str:
    """A hex digest that tells whether two data sets are the same images in the same order.

    Of files it covers class paths, file names and labels, not the pixels, and not where the
    folder lies; of images that came from no file the number, the labels and the class tree.
    """
    if isinstance(images, VideoClips | Texts):
        return images.fingerprint()
    if isinstance(images, FileImages):
        return _digest(zip(images.keys(), images.labels.tolist(), strict=True))
    return images.source or _digest([images.taxonomy.paths, images.labels.tolist()])


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
    return _decode_all(image_files(path), image_size, channels, on_unreadable)[0]


def image_files(path: str | Path) -> list[str]:
    """All images below a folder, whatever its structure, sorted; hidden ones are left out.

    Raises:
        RinceError: no such folder, no image in it, or a folder that cannot be read.
    """
    if not Path(path).is_dir():
        raise RinceError(f"{path} is not a folder of images")
    files = [str(file) for file in files_below(Path(path), IMAGE_SUFFIXES)]
    if not files:
        raise RinceError(f"{path} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return files


def fitted_batches(
    paths: Sequence[str],
    image_size: int,
    channels: int,
    batch_size: int,
    on_unreadable: OnUnreadable = "error",
) -> Iterator[tuple[Tensor, Tensor]]:
    """Image files as they are evaluated, a batch at a time, decoded in threads meanwhile.

    Yields:
        (B, C, S, S) uint8, and the positions (B,) int64 in ``paths``; those that cannot be read
        are missing, with a warning at the end.

    Raises:
        RinceError: the first unreadable file, unless skipping; no readable file at all.
    """
    fitted = _fitted(paths, image_size, channels, on_unreadable)
    while batch := list(itertools.islice(fitted, batch_size)):
        positions, pixels = zip(*batch, strict=True)
        yield torch.stack(pixels), torch.tensor(positions, dtype=torch.int64)


def drop_duplicates(
    images: AnyImages, against: TensorImages | FileImages | Texts | None = None
) -> AnyImages:
    """Leave out images whose bytes occur earlier in ``images``, or anywhere in ``against``.

    ``drop_duplicates(train, test)`` keeps the test split as it is. Files are compared as files,
    images in memory by their pixels; the two kinds do not match each other.
    """
    seen = set() if against is None else set(_content_hashes(against))
    kept: list[int] = []
    for index, content in enumerate(_content_hashes(images)):
        if content not in seen:
            kept.append(index)
        seen.add(content)
    return images.subset(kept)


def read_image(path: str | Path, channels: int = 3, at_least: int | None = None) -> Tensor:
    """Decode a file: turned as its EXIF data say, transparency on white, 16 bits cut to 8.

    Args:
        path: anything Pillow reads; of an animation the first frame.
        channels: 3 (RGB) or 1 (grey).
        at_least: pixels of the shorter side that are enough; large JPEGs are then decoded at a
            half, a quarter or an eighth of their size, several times faster.

    Returns:
        (C, H, W) uint8.

    Raises:
        RinceError: the file is missing, damaged, truncated or no image.
    """
    pil = import_extra("PIL.Image", "train")
    operations = import_extra("PIL.ImageOps", "train")
    try:
        with pil.open(path) as image:
            if at_least is not None:
                image.draft(None, (at_least, at_least))
            upright = operations.exif_transpose(image)
            pixels = np.array(_eight_bit(upright, "L" if channels == 1 else "RGB"))
    except Exception as error:  # Pillow raises whatever its decoders do
        reason = "it is no image that Pillow knows" if "identify" in str(error) else str(error)
        raise RinceError(
            f"cannot read {path}: {reason or type(error).__name__}. Mend or remove the file, or "
            "leave unreadable images out (skip_unreadable)"
        ) from error
    tensor = torch.from_numpy(pixels)
    return tensor[None] if channels == 1 else tensor.permute(2, 0, 1).contiguous()


def read_fitted(path: str | Path, image_size: int, channels: int = 3) -> Tensor:
    """Decode a file for evaluation: shorter side to ``image_size``, central square.

    The one way for known classes and outliers alike, in memory or not: a detector must not tell
    them apart by how they were decoded.

    Returns:
        (C, S, S) uint8.

    Raises:
        RinceError: the file cannot be read.
    """
    # Twice the size leaves the antialiased resize something to average over.
    pixels = read_image(path, channels, at_least=2 * image_size)
    return eval_transform(image_size)(pixels)


def _eight_bit(image: Image.Image, mode: str) -> Image.Image:
    from PIL import Image

    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range; save it as PNG")
    if image.mode.startswith("I"):  # Pillow's own conversion would clip 16 bits at 255
        deep = np.asarray(image).astype(np.float64).clip(0, 65535)
        # 32 bits may hold bytes as well (exports of arrays), which would all become black.
        scale = 1 if image.mode == "I" and deep.max() <= 255 else 257
        image = Image.fromarray((deep / scale).round().astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def _decode_all(
    paths: Sequence[str], image_size: int, channels: int, on_unreadable: OnUnreadable
) -> tuple[Tensor, Tensor]:
    """(N, C, S, S) uint8 of the readable files, and their positions."""
    require(image_size >= 1, f"image_size must be at least 1 pixel, got {image_size}")
    pixels = torch.empty(len(paths), channels, image_size, image_size, dtype=torch.uint8)
    kept: list[int] = []
    for index, image in _fitted(paths, image_size, channels, on_unreadable):
        pixels[len(kept)] = image
        kept.append(index)
    return pixels[: len(kept)], torch.tensor(kept, dtype=torch.int64)


def _fitted(
    paths: Sequence[str], image_size: int, channels: int, on_unreadable: OnUnreadable
) -> Iterator[tuple[int, Tensor]]:
    """Position and (C, S, S) uint8 pixels of the readable files, in order."""

    def decode(path: str) -> Tensor | RinceError:
        try:
            return read_fitted(path, image_size, channels)
        except RinceError as error:
            if on_unreadable == "error":
                raise
            return error

    failures: list[RinceError] = []
    for index, result in enumerate(_in_threads(decode, paths, "reading")):
        if isinstance(result, RinceError):
            failures.append(result)
        else:
            yield index, result
    warn_left_out(map(str, failures), len(paths), "images")


def _failure(path: str, channels: int) -> RinceError | None:
    try:
        read_image(path, channels)
    except RinceError as error:
        return error
    return None


_T = TypeVar("_T")


def _in_threads(work: Callable[[str], _T], paths: Sequence[str], what: str) -> Iterator[_T]:
    """Results in order, with a progress bar where it takes a while and somebody looks."""
    from rich.console import Console
    from rich.progress import Progress

    hidden = len(paths) < _PROGRESS_FROM or not sys.stderr.isatty()
    with (
        Progress(console=Console(stderr=True), disable=hidden, transient=True) as progress,
        ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool,
    ):
        task = progress.add_task(f"{what} images", total=len(paths))
        for start in range(0, len(paths), _SLICE):
            for result in pool.map(work, paths[start : start + _SLICE]):
                progress.advance(task)
                yield result


def _labels_of_folders(root: Path, taxonomy: Taxonomy) -> dict[Names, int]:
    """The label of every class folder with images, in a taxonomy of other folders."""
    empty: list[Path] = []
    try:
        found = sorted(class_folders(root, (), empty))
        if not found:
            raise RinceError(f"{root} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
        checked_paths(found, [str(root.joinpath(*path)) for path in found])
    except OSError as error:
        raise RinceError(f"cannot read {error.filename}: {error.strerror}") from error
    except ValueError as error:  # two folders of one class
        raise RinceError(str(error)) from None
    if empty:
        names = ", ".join(str(folder.relative_to(root)) for folder in empty[:5])
        warn(f"{len(empty)} class folders in {root} hold no image and are passed over: {names}")
    composed = [tuple(map(_composed, path)) for path in taxonomy.paths]
    label_of_class = {path[-1]: label for label, path in enumerate(composed)}
    label_of = {}
    for path in found:
        label = label_of_class.get(_composed(path[-1]), -1)
        if label < 0 or composed[label][-len(path) :] != tuple(map(_composed, path)):
            known = "no such class" if label < 0 else f"expected {'/'.join(taxonomy.paths[label])}"
            raise RinceError(
                f"the folder {root.joinpath(*path)} fits none of the {taxonomy.num_classes} "
                f"classes given ({known}); test folders may only hold classes that the "
                "training folders have"
            )
        label_of[path] = label
    return label_of


def _composed(name: str) -> str:
    """An accented letter as one character, whatever the file system made of it."""
    return unicodedata.normalize("NFC", name)


def _digest(parts: Iterable[object]) -> str:
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        found.update(repr(part).encode() + b"\n")  # repr: names need not be valid Unicode
    return found.hexdigest()


def _content_hashes(images: TensorImages | FileImages | Texts) -> Iterator[bytes]:
    for index in range(len(images)):
        if isinstance(images, Texts):
            content = images.texts[index].encode()
        elif isinstance(images, FileImages):
            try:
                content = Path(images.paths[index]).read_bytes()
            except OSError as error:
                raise RinceError(f"cannot read {images.paths[index]}: {error}") from error
        else:
            content = images.pixels[index].numpy().tobytes()
        yield hashlib.blake2b(content, digest_size=16).digest()


def _check_labels(labels: Tensor, count: int, taxonomy: Taxonomy) -> None:
    require(
        labels.shape == (count,) and labels.dtype == torch.int64,
        f"labels must be int64, one for each of the {count} images, got shape "
        f"{tuple(labels.shape)} and {labels.dtype}",
    )
    if count:
        low, high = (int(x) for x in torch.aminmax(labels))
        require(
            low >= 0 and high < taxonomy.num_classes,
            f"labels must lie in [0, {taxonomy.num_classes}), the classes of the taxonomy, but "
            f"hold {low if low < 0 else high}",
        )
