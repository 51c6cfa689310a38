"""Images in tar shards, as WebDataset writes them: found by an index of their offsets.

A sample is the files of one name up to its first dot: ``n01.jpg``, ``n01.cls``, ``n01.json``.
An index gives random access, so shards have the plan of any other data: seeded, the same whatever
the number of workers, and resumed to the image.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rince.core.checks import RinceError, warn
from rince.core.files import (
    IMAGE_SUFFIXES,
    by_suffix,
    files_below,
    holds_no,
    passed_over,
    splits_below,
    user_path,
    warn_left_out,
)
from rince.core.labels import shortest_endings
from rince.core.tables import Pairs, Row, Table, as_cell, composed, json_pairs, refuse_rows
from rince.data.items import class_root, split_folders
from rince.data.table import SPLIT, ItemTable, check_known, path_cells

_SHARD = re.compile(r"\.tar(\.(gz|bz2|lz4|lzma|xz|z|zst))?$|\.tgz$", re.IGNORECASE)
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_IMAGE = "(image)"  # the column of the images, beside those that are called as a json says
_LABELS = ("cls", "txt")  # files of a sample that hold one label, or the path of one


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar, the shard; offset and size are in bytes."""

    shard: str
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.shard}/{self.name}"

    def read_bytes(self) -> bytes:
        with open(self.shard, "rb") as stream:
            stream.seek(self.offset)
            return stream.read(self.size)


def file_of(image: str | Member) -> str:
    """The file itself, or the shard that holds it."""
    return image.shard if isinstance(image, Member) else image


@dataclass(frozen=True)
class ShardTable(ItemTable):
    """A table whose items are in shards: ``members``, by the items' names."""

    members: dict[str, Member]

    def files(
        self, root: str | Path | None = None, *, root_option: str = ""
    ) -> tuple[list[Any], list[str]]:
        """The member of each row, and its name."""
        return [self.members[name] for name in self.items], self.items


def is_shards(data: str | Path) -> bool:
    """Whether this is a tar, tars from ``{000..009}``, or a folder of tars (and of nothing else but
    splits)."""
    if _SHARD.search(str(data)):
        return True
    folder = user_path(data)
    return any(_tars(side) for side in (folder, *splits_below(folder).values()))


def shard_images(data: str | Path) -> list[Member]:
    """All images in shards, in their order."""
    images = list(each_image(data))
    if not images:
        raise RinceError(holds_no("image", data, IMAGE_SUFFIXES))
    return images


def each_image(data: str | Path) -> Iterator[Member]:
    """The same, shard after shard."""
    for shard, _ in _shards(data):
        yield from (x for x in _members(shard) if _suffix(x) in IMAGE_SUFFIXES)


def read_shards(
    data: str | Path, column: str | None = None, labels: Sequence[str] | None = None
) -> ShardTable:
    """The samples of shards as a table.

    Its columns are what the samples' ``.json`` hold (objects of plain values, and lists of names,
    which are label paths), ``cls`` and ``txt``, what the files of these suffixes hold.

    Args:
        data: a tar, ``train-{000..009}.tar``, or a folder of them, perhaps in ``train/`` and
            ``val/`` (or ``test/``).
        column: ending of the images, such as ``left.jpg``, where a sample has more than one.
        labels: columns of the labels, from coarse to fine; a single one holds label paths, such as
            ``animal/dog/husky``. None: ``cls``.
    """
    rows: list[Row] = []
    members: dict[str, Member] = {}
    problems: list[str] = []
    others: list[Path] = []
    shards = list(_shards(data))
    # Those of a range may lie in folders of their own, and all be called data.tar.
    parts = [(shard.name,) if split else shard.parts for shard, split in shards]
    for (shard, split), called in zip(shards, shortest_endings(parts), strict=True):
        samples: dict[str, dict[str, Member]] = {}
        for member in _members(shard):
            folder, slash, name = member.name.rpartition("/")
            key, _, ending = name.partition(".")
            sample = samples.setdefault(f"{folder}{slash}{key}", {})
            if ending in sample:
                problems.append(f"{member} is there twice")
            sample[ending] = member
        for key, sample in samples.items():
            cells = {SPLIT: split} if split else {}
            images = [
                x for e, x in sample.items() if _suffix(x) in IMAGE_SUFFIXES and column in (None, e)
            ]
            if len(images) != 1:
                shown = ", ".join(sample)
                problems.append(f"{shard}: {key} has {len(images)} images (its files: {shown})")
                continue
            for ending, member in sample.items():
                if ending == "json" or ending in _LABELS:
                    cells |= _cells(member, ending, problems)
                elif member is not images[0]:
                    others.append(Path(member.name))
            name = f"{split}{'/' * bool(split)}{called}/{images[0].name}"
            members[name] = images[0]
            rows.append((len(rows) + 1, cells | {_IMAGE: name}))
    file = user_path(data)
    refuse_rows(file, problems, "table.column names the ending of the images, such as jpg")
    if not rows:
        raise RinceError(f"{data} holds no sample")
    if left_out := by_suffix(others):
        warn(f"{data}: {len(rows)} images; left out, as they are none: {left_out}")
    chosen = tuple(map(composed, labels or ("cls",)))
    known = dict.fromkeys(name for _, cells in rows for name in cells if name != _IMAGE)
    if not set(chosen) <= set(known):
        raise RinceError(
            f"{data}: no sample has {', '.join(c for c in chosen if c not in known)}; they have "
            f"{', '.join(known) or 'no label'}: name the labels, from coarse to fine (table.labels)"
        )
    bare = [f"{cells[_IMAGE]} has no label" for _, cells in rows if not cells.get(chosen[-1])]
    refuse_rows(file, bare, f"expected {chosen[-1]}")
    levels = chosen
    if len(chosen) == 1:  # label paths
        levels, columns = path_cells([tuple(cells[chosen[0]].split("/")) for _, cells in rows])
        for (_, cells), path in zip(rows, columns, strict=True):
            cells |= zip(levels, path, strict=True)
    header = (_IMAGE, *dict.fromkeys((*known, *levels)))
    filled = [(number, {name: cells.get(name, "") for name in header}) for number, cells in rows]
    table = Table(file, header, filled)
    check_known(table, levels)
    return ShardTable(table, _IMAGE, levels, members)


def _shards(data: str | Path) -> Iterator[tuple[Path, str]]:
    """The files, and the split of each, "" if it is not known."""
    path = user_path(data)
    if not _SHARD.search(str(data)):
        sides = split_folders(path)
        for side in sides or (class_root(path),):
            tars = _tars(side)
            warn_left_out(side, len(tars), "shards", set(files_below(side, None)) - set(tars))
            yield from ((shard, side.name if sides else "") for shard in tars)
        return
    shards = [path]
    if asked := _RANGE.search(str(path)):
        numbers = (str(n).zfill(len(asked[1])) for n in range(int(asked[1]), int(asked[2]) + 1))
        shards = [Path(_RANGE.sub(number, str(path), count=1)) for number in numbers] or shards
    missing = [str(shard) for shard in shards if not shard.is_file()]
    if missing:
        raise RinceError(f"{len(missing)} of {len(shards)} shards are missing: {missing[0]}, ...")
    yield from ((shard, "") for shard in shards)


def _tars(folder: Path) -> list[Path]:
    """The tars of a folder that holds no other folder."""
    if not folder.is_dir():
        return []
    inside = [x for x in sorted(folder.iterdir()) if not passed_over(x.name)]
    if any(x.is_dir() for x in inside):
        return []
    return [x for x in inside if x.suffix.lower() == ".tar"]


def _members(shard: Path) -> Iterator[Member]:
    try:
        with tarfile.open(shard, "r:") as tar:
            for info in tar:
                name = info.name.removeprefix("./")
                if info.isreg() and not info.issparse() and not passed_over(Path(name).name):
                    yield Member(str(shard), name, info.offset_data, info.size)
                elif not info.isdir() and not info.isreg():
                    raise tarfile.ReadError(f"{name} is a link or another special file")
            # tarfile takes a header that it cannot read for the end.
            assert tar.fileobj is not None
            tar.fileobj.seek(tar.offset)
            if any(tar.fileobj.read(tarfile.BLOCKSIZE)):
                raise tarfile.ReadError(f"no header at byte {tar.offset}")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise RinceError(
            f"cannot read {shard}: {error}. It is damaged, or no plain tar: unpack a compressed "
            f"one first (gunzip)"
        ) from error


def _cells(member: Member, ending: str, problems: list[str]) -> dict[str, str]:
    """What a sample's json, cls or txt says."""
    try:
        text = member.read_bytes().decode("utf-8-sig").strip()
        if ending != "json":
            return {ending: text}
        pairs = json_pairs(text)
        if not isinstance(pairs, Pairs):
            raise ValueError("it is no object")
        cells = {
            composed(name): "/".join(map(as_cell, x)) if type(x) is list else as_cell(x)
            for name, x in pairs
            if not isinstance(x, Pairs)
        }
        if len(set(cells)) < sum(not isinstance(x, Pairs) for _, x in pairs):
            raise ValueError("a name is there twice")
        "".join((*cells, *cells.values())).encode()  # half of a surrogate pair is no character
        return cells
    except (ValueError, RecursionError) as error:
        problems.append(f"{member} cannot be read: {error}")
        return {}


def _suffix(member: Member) -> str:
    return Path(member.name).suffix.lower()
