"""Labelled images in files, decoded when asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from rince.core.checks import RinceError, require, warn
from rince.core.digests import content_digest, digest
from rince.core.files import (
    IMAGE_SUFFIXES,
    absent,
    by_suffix,
    chosen_below,
    files_below,
    holds_no,
    passed_over,
    user_path,
    warn_left_out,
)
from rince.core.input_spec import InputSpec, Preprocessing
from rince.core.tables import nfc
from rince.data.arrays import TensorImages
from rince.data.image.checked import checked_bits
from rince.data.image.decode import decode_all, read_fitted, read_image
from rince.data.image.depth import DEEP_SUFFIXES
from rince.data.image.shards import Member, file_of, is_shards, shard_images
from rince.data.items import Indices, Items, Marks, Thumbnails, report_unreadable
from rince.data.table import with_further
from rince.data.views import ViewConfig, evaluation_pixels, image_views, view_pixels
from rince.ranks.readers import Names, checked_paths, class_folders, some_names
from rince.ranks.taxonomy import Taxonomy, tree_of_folders

IMAGE_SIZE = 32  # pixels, where none is given


@dataclass(frozen=True, eq=False, repr=False)
class FileImages(Items):
    """Images in files, decoded when asked for.

    Args:
        paths: (N,) files, or members of shards, which need names.
        labels: (N,) int64 in [0, classes of the taxonomy).
        taxonomy: the class tree.
        name: what to call the data set in reports.
        channels: 3 (RGB) or 1 (grey); files of another kind are converted.
        image_size: side of the squares that a network is fed, pixels.
        names: (N,) of the files, the same wherever they lie; None: their classes and file names.
        marks: what a table says of them.
        bits: see :func:`~rince.data.image.decode.read_image`.
        preprocessing: how a network is fed them.

    Raises:
        ValueError: wrong shapes or dtypes, or a label outside the taxonomy.
    """

    paths: tuple[str | Member, ...]
    labels: Tensor
    taxonomy: Taxonomy
    name: str
    channels: int = 3
    image_size: int = IMAGE_SIZE
    names: tuple[str, ...] | None = None
    marks: Marks | None = None
    bits: int | None = None
    preprocessing: Preprocessing | None = None

    def __post_init__(self) -> None:
        require(self.channels in (1, 3), f"channels must be 1 or 3, got {self.channels}")
        self._check_labels(len(self.paths))

    @classmethod
    def from_folder(
        cls,
        root: str | Path,
        taxonomy: Taxonomy | None = None,
        skip_unreadable: bool = False,
        channels: int = 3,
        unseen: bool = False,
    ) -> FileImages:
        """List ``root/<group>/.../<class>/*.jpg``; the folders are the class tree.

        Args:
            root: the folder.
            taxonomy: classes to use instead of the folders' own, so that labels agree between
                splits. A folder is then the class whose path ends as the folder's does:
                ``val/dog/husky`` and ``val/husky`` are both (animal, dog, husky). A folder
                without images is then passed over with a warning.
            skip_unreadable: decode every file now, and leave out, with a warning, those that
                fail. Otherwise nothing is checked now, and a damaged file raises once it is read.
            channels: 3 (RGB) or 1 (grey).
            unseen: take classes that the taxonomy does not have too, with a warning, after its own.

        Raises:
            RinceError: a folder that is no class tree (see :meth:`Taxonomy.from_folders`), or
                that holds a class the taxonomy does not have.
        """
        folder = user_path(root)
        if taxonomy is None:
            taxonomy, folders = tree_of_folders(folder)
            label_of = {path: label for label, path in enumerate(folders)}
        else:
            taxonomy, label_of = _labels_of_folders(folder, taxonomy, unseen)
        paths: list[str] = []
        labels: list[int] = []
        groups = sorted({path[:depth] for path in label_of for depth in range(len(path))})
        beside = (x for group in groups for x in folder.joinpath(*group).iterdir())
        others = [x for x in beside if x.is_file() and not passed_over(x.name)]
        for path, label in label_of.items():
            # A class folder holds no folders: the taxonomy has seen to that.
            for file in files_below(folder.joinpath(*path), None):
                if file.suffix.lower() in IMAGE_SUFFIXES:
                    paths.append(str(file))
                    labels.append(label)
                else:
                    others.append(file)
        warn_left_out(folder, len(paths), "images", others)
        images = cls(
            tuple(paths), torch.tensor(labels, dtype=torch.int64), taxonomy, folder.name, channels
        )
        return images.readable(skip_unreadable=True) if skip_unreadable else images

    @property
    def spec(self) -> InputSpec:
        return InputSpec.images(self.channels, self.image_size, self.bits, self.preprocessing)

    def __getitem__(self, index: int) -> Tensor:
        """(C, H, W) uint8 in full resolution."""
        return read_image(self.paths[index], self.channels, bits=self.bits)

    def read_from(self) -> list[str]:
        return list(map(file_of, self.paths))

    def keys(self) -> list[str]:
        """``group/class/file`` of every image: the same wherever the folder lies."""
        if self.names is not None:
            return list(self.names)
        classes = ["/".join(path) for path in self.taxonomy.paths]
        # macOS may give the parts of an accented letter where Linux gives the letter.
        return [
            f"{classes[label]}/{nfc(os.path.basename(str(path)))}"
            for path, label in zip(self.paths, self.labels.tolist(), strict=True)
        ]

    def fingerprint(self) -> str:
        """Of class paths, file names and labels; not the pixels, nor where the folder lies."""
        rows = zip(self.keys(), self.labels.tolist(), strict=True)
        # Names from a table do not begin with the class.
        return digest(rows if self.names is None else [self.taxonomy.paths, *rows])

    def content_hashes(self) -> Iterator[bytes]:
        for path in self.paths:
            try:
                content = (Path(path) if isinstance(path, str) else path).read_bytes()
            except OSError as error:
                raise RinceError(f"cannot read {path}: {error}") from error
            yield content_digest(content)

    def subset(self, indices: Indices) -> FileImages:
        return self._rows(indices, "paths", "labels", "names", "marks")

    def readable(self, *, skip_unreadable: bool = False) -> FileImages:
        """Decode every file: refuse, or leave out, those that fail, and decide the bits."""
        (files,) = loaded([self], False, skip_unreadable)
        assert isinstance(files, FileImages)
        return files

    def preload(self, image_size: int, *, skip_unreadable: bool = False) -> TensorImages:
        """Decode everything once: shorter side to ``image_size``, central square.

        Raises:
            BadItems: files that cannot be read, unless skipping, with a warning.
        """
        sized = replace(self, image_size=image_size)
        (images,) = loaded([sized], True, skip_unreadable)
        assert isinstance(images, TensorImages)
        return images

    def thumbnails(self, indices: Indices, size: int) -> Thumbnails:
        small = self.subset(indices).preprocessed(None).preload(min(size, 64))
        return small.thumbnails(range(len(small)), size)

    def fitted(self, rows: slice) -> Tensor:
        return torch.stack([read_fitted(path, self.spec) for path in self.paths[rows]])

    def network_inputs(self, fitted: Tensor) -> Tensor:
        return evaluation_pixels(fitted, self.preprocessing)

    def item_views(self, config: ViewConfig) -> Callable[[Tensor], Tensor]:
        return image_views(self.image_size, self.channels, config)

    def view_inputs(self, views: Tensor) -> Tensor:
        return view_pixels(views, self.preprocessing)


def image_files(path: str | Path) -> Sequence[str | Member]:
    """All images in shards, or below a folder, whatever its structure, sorted; other files are
    warned of."""
    if is_shards(path):
        return shard_images(path)
    folder = user_path(path)
    if not folder.is_dir():
        raise RinceError(f"{absent('folder', path)}; expected a folder of images")
    files = list(map(str, chosen_below(folder, IMAGE_SUFFIXES, "images")))
    if not files:
        other = by_suffix(files_below(folder, None)) or "nothing else"
        raise RinceError(f"{holds_no('image', path, IMAGE_SUFFIXES)}, but {other}")
    return files


def loaded(parts: Sequence[FileImages], in_memory: bool, skip_unreadable: bool) -> list[Items]:
    """Decode every file of both splits once, before anything else is done with them.

    Which cannot be read is said of all in one message, and how many bits are used in files of 16 is
    decided for all together. ``in_memory``: keep the pixels, at the parts' ``image_size``.
    """
    paths = [path for part in parts for path in part.paths]
    bits = parts[0].bits
    looked = paths
    if in_memory:  # the others are read below
        deep = [path for path in paths if Path(str(path)).suffix.lower() in DEEP_SUFFIXES]
        looked = deep if bits is None else []
    bits_or_errors = checked_bits(looked, only_deep=in_memory)
    if bits is None:
        used = max((x for x in bits_or_errors if isinstance(x, int)), default=0)
        bits = used or None
        if 0 < used < 16:
            warn(
                f"{parts[0].name}: no image of 16 bits holds a value above {2**used - 1}: they are "
                f"read as images of {used} bits. If they are not, give their number (images.bits)"
            )
    pixels = None
    if in_memory:
        spec = replace(parts[0].spec, bits=bits)
        pixels, kept = decode_all(paths, spec, skip_unreadable=skip_unreadable)
    else:
        failures = [x for x in bits_or_errors if isinstance(x, RinceError)]
        report_unreadable(failures, len(paths), "images", skip_unreadable)
        kept = torch.tensor([i for i, x in enumerate(bits_or_errors) if isinstance(x, int)]).long()
    result: list[Items] = []
    first = 0
    for part in parts:
        own = kept[(kept >= first) & (kept < first + len(part))]
        files = replace(part, bits=bits).subset(own - first)
        first += len(part)
        if pixels is None:
            result.append(files)
            continue
        own_pixels, pixels = pixels[: len(own)], pixels[len(own) :]
        images = TensorImages(
            own_pixels,
            files.labels,
            part.taxonomy,
            part.name,
            files.fingerprint(),
            marks=files.marks,
            bits=bits,
            preprocessing=part.preprocessing,
        )
        result.append(images)
    return result


def _labels_of_folders(
    root: Path, taxonomy: Taxonomy, unseen: bool
) -> tuple[Taxonomy, dict[Names, int]]:
    """The label of every class folder with images, in a taxonomy of other folders."""
    empty: dict[Path, str] = {}
    folders = sorted(class_folders(root, (), empty))
    if not folders:
        raise RinceError(holds_no("image", root, IMAGE_SUFFIXES))
    try:
        checked_paths(folders, [str(root.joinpath(*path)) for path in folders])
    except ValueError as error:  # two folders of one class
        raise RinceError(str(error)) from None
    if empty:
        names = some_names([str(folder.relative_to(root)) for folder in empty])
        warn(f"{len(empty)} class folders in {root} hold no image and are left out: {names}")
    label_of: dict[Names, int] = {}
    further: list[Names] = []
    folder_of: dict[int, Names] = {}
    for path in folders:
        if unseen and not taxonomy.called("/".join(path)):
            further.append(path)
            continue
        try:
            label = taxonomy.index("/".join(path))
        except ValueError as error:
            raise RinceError(
                f"the folder {root.joinpath(*path)} fits none of the {taxonomy.num_classes} "
                f"classes given ({error}); test folders may only hold classes that the training "
                f"folders have"
            ) from None
        if folder_of.setdefault(label, path) is not path:
            raise RinceError(
                f"{root.joinpath(*folder_of[label])} and {root.joinpath(*path)} are both the class "
                f"{'/'.join(taxonomy.paths[label])}: put the images into one folder"
            )
        label_of[path] = label
    try:
        tree = with_further(taxonomy, further, len(folders))
    except ValueError as error:
        raise RinceError(f"{root}: {error}") from None
    first = taxonomy.num_classes
    return tree, label_of | {path: first + i for i, path in enumerate(further)}
