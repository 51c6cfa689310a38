"""Which videos lie below a folder, with what its folders, table and split files say of them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rince.core.checks import RinceError, require, warn
from rince.core.files import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    absent,
    chosen_below,
    files_below,
    holds_no,
    user_path,
)
from rince.core.tables import composed, nfc, read_lines, read_table, refuse_rows
from rince.data.items import Marks, class_root, split_folders
from rince.data.table import ItemTable, existing_file, is_table, path_column, seconds

TABLE = "clips.csv"


@dataclass(frozen=True)
class VideoFile:
    """A file and what is known of it before it is opened."""

    path: Path
    name: str  # below the folder
    source: str  # name of the video it is from: itself, unless a table says so
    label: tuple[str, ...]  # class names from the top group down; () if it is not labelled
    start: float | None = None  # seconds into the source at which the file begins, if known
    test: bool | None = None  # None: to be decided
    span: tuple[float, float] | None = None  # seconds of its part; None: it is the whole file

    @property
    def key(self) -> str:
        """The name of the file, or of its part."""
        if self.span is None:
            return self.name
        begin, end = (f"{x:g}" if float(f"{x:g}") == x else repr(x) for x in self.span)
        return f"{self.name}[{begin}-{end}]"


def videos_of_table(
    table: ItemTable, root: str | None, test_alone: bool
) -> tuple[list[VideoFile], Marks | None]:
    """The videos, or parts of them (``start_s``, ``end_s``), of a table of items; or those of its
    test alone."""
    table, sides = (table.test_rows(), None) if test_alone else (table, table.sides())
    if sides is not None:
        chosen = [i for i, side in enumerate(sides) if side is not None]
        table, sides = table.rows(chosen), [sides[i] for i in chosen]
    paths, names = table.files(root)
    tree, numbers = table.classes()
    files, problems = [], []
    for i, row in enumerate(table.table.rows):
        try:
            begin, end = seconds(row, "start_s"), seconds(row, "end_s")
            span = begin or 0.0, math.inf if end is None else end
            require(span[0] < span[1], f"end_s {end} is not after start_s {span[0]}")
        except ValueError as error:
            problems.append(f"{table.table.place(row[0])}: {error}")
            continue
        source = nfc(row[1].get("source_video") or names[i])
        test = None if sides is None else sides[i]
        part = None if begin is None and end is None else span
        label = tree.paths[numbers[i]]
        files.append(VideoFile(paths[i], names[i], source, label, test=test, span=part))
    refuse_rows(table.table.file, problems, "start_s and end_s are seconds of the file")
    return files, table.marks()


def holds_videos(data: str | Path, by_time: bool = False) -> bool:
    """Whether to take this as a folder of videos, with a warning if it holds images too: it has a
    table of clips, or no fewer videos than images (a picture may stand for each); where ranks are
    made from time, any video will do."""
    folder = user_path(data)
    if is_table(data):
        return path_column(data, VIDEO_SUFFIXES) is not None
    if not folder.is_dir() or (folder / TABLE).is_file():
        return folder.is_dir()
    kinds = VIDEO_SUFFIXES | IMAGE_SUFFIXES
    isvideo = [path.suffix.lower() in VIDEO_SUFFIXES for path in files_below(folder, kinds)]
    videos, images = sum(isvideo), len(isvideo) - sum(isvideo)
    chosen = videos > 0 and (by_time or videos >= images)
    if videos and images:
        used, other = ("videos", "images") if chosen else ("images", "videos")
        how = "" if chosen else f", list them in {folder / TABLE}, or rank by time (--ranks time)"
        warn(
            f"{folder} holds {videos} videos and {images} images: the {used} are used, the {other} "
            f"left out. To use the {other}, put them into a folder of their own{how}"
        )
    return chosen


def listed_videos(folder: Path, splits: str | None, split: int) -> list[VideoFile]:
    if not folder.is_dir():
        raise RinceError(f"{absent('folder', folder)}; expected a folder of videos")
    if (folder / TABLE).is_file():
        files = list(_from_table(folder))
    else:
        sides = split_folders(folder)
        if sides is None:
            root = class_root(folder)
            files = list(_from_tree(root, f"{root.name}/" * (root != folder), None))
        else:
            files = [f for i, s in enumerate(sides) for f in _from_tree(s, s.name + "/", i == 1)]
    if splits is not None:
        files = list(_by_split_files(files, user_path(splits), split))
    if not files:
        raise RinceError(holds_no("video", folder, VIDEO_SUFFIXES))
    labelled = [f for f in files if f.label]
    if labelled and len(labelled) < len(files):
        bare = next(f for f in files if not f.label)
        raise RinceError(
            f"{bare.path} has no label, but {labelled[0].path} has: put all videos into class "
            f"folders, or none"
        )
    return files


def video_files(path: str | Path) -> list[str]:
    """A video itself, or all below a folder (links to folders too), sorted; no hidden ones."""
    root = user_path(path)
    if root.is_file():
        return [str(root)]
    if not root.is_dir():
        raise RinceError(f"{absent('file or folder', path)}; expected a video, or a folder of them")
    files = [str(x) for x in chosen_below(root, VIDEO_SUFFIXES, "videos") if x.is_file()]
    if not files:
        raise RinceError(holds_no("video", path, VIDEO_SUFFIXES))
    return files


def _from_tree(root: Path, prefix: str, test: bool | None) -> Iterator[VideoFile]:
    for path in chosen_below(root, VIDEO_SUFFIXES, "videos"):
        parts = path.relative_to(root).parts
        key = prefix + nfc("/".join(parts))  # the same wherever the folder lies
        yield VideoFile(path, key, source=key, label=parts[:-1], test=test)


def _from_table(folder: Path) -> Iterator[VideoFile]:
    table = folder / TABLE
    seen: set[str] = set()
    there: dict[Path, dict[str, str]] = {}
    rows = read_table(table, "clips")
    if not rows.rows:
        raise RinceError(f"{table} must have a header with the column clip, and rows below it")
    rows.require_columns("clip")
    for name in sorted({"label", "source_video", "start_s"} - {*rows.columns}):
        other = next((x for x in rows.columns if x.lower() == name), None)
        require(other is None, f"{table}: write the column {other!r} as {name!r}")
    problems: list[str] = []
    for line, cells in rows.rows:
        label = (cells["label"],) if cells.get("label") else ()
        ways = (folder.joinpath(*label, cells["clip"]), folder / cells["clip"])
        path = next(filter(None, (existing_file(way, there) for way in ways)), None)
        try:
            start = seconds((line, cells), "start_s")
            if path is None:
                raise ValueError(f"there is no file {' or '.join(dict.fromkeys(map(str, ways)))}")
            key = nfc(path.relative_to(folder).as_posix())
            require(key not in seen, f"{key} is listed twice")
        except ValueError as error:
            problems.append(f"{rows.place(line)}: {error}")
            continue
        seen.add(key)
        yield VideoFile(path, key, nfc(cells.get("source_video") or key), label, start)
    refuse_rows(table, problems, "correct these rows, or remove them")
    others = sum(
        nfc(p.relative_to(folder).as_posix()) not in seen
        for p in files_below(folder, VIDEO_SUFFIXES)
    )
    if others:
        warn(f"{others} videos in {folder} are not in {TABLE} and are left out")


def _by_split_files(files: Sequence[VideoFile], folder: Path, split: int) -> Iterator[VideoFile]:
    """The sides that UCF101's or HMDB51's files give; videos that they do not name are left out,
    with a warning."""
    sides: dict[str, bool | None] = {}  # class/file -> whether it is a test video
    ucf = {False: folder / f"trainlist{split:02}.txt", True: folder / f"testlist{split:02}.txt"}
    hmdb = sorted(folder.glob(f"*_test_split{split}.txt"))
    if all(file.is_file() for file in ucf.values()):
        for test, file in ucf.items():  # lines: ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi [1]
            for _, line in read_lines(file, "split"):  # the number is of the class
                sides[re.sub(r"\s+\d+$", "", line)] = test
    elif hmdb:
        for file in hmdb:  # brush_hair_test_split1.txt: NAME.avi 1 (train), 2 (test), 0 (neither)
            label = file.name.removesuffix(f"_test_split{split}.txt")
            rows = read_lines(file, "split")
            bad = [f"line {n}: {x!r}" for n, x in rows if not re.fullmatch(r".*\S\s+[012]", x)]
            refuse_rows(file, bad, "expected the name of a file and 0, 1 or 2")
            for name, code in (line.rsplit(maxsplit=1) for _, line in rows):
                sides[f"{label}/{name}"] = None if code == "0" else code == "2"
    else:
        raise RinceError(
            f"{folder} holds neither trainlist{split:02}.txt and testlist{split:02}.txt (UCF101) "
            f"nor *_test_split{split}.txt (HMDB51)"
        )
    sides = {composed(name): test for name, test in sides.items()}
    by_name: dict[str, VideoFile] = {}
    for video in files:
        name = composed("/".join((*video.label[-1:], video.path.name)))
        if by_name.setdefault(name, video) is not video and name in sides:
            raise RinceError(
                f"{by_name[name].key} and {video.key} are both {name} in the split files in "
                f"{folder}: give one of these folders another name"
            )
    missing = [n for n, test in sides.items() if test is not None and n not in by_name]
    if missing:
        raise RinceError(
            f"{len(missing)} of {len(sides)} videos of the split in {folder} are not in the data, "
            f"such as {missing[0]}"
        )
    if others := sum(name not in sides for name in by_name):
        warn(f"{others} of {len(files)} videos are in no split file in {folder} and are left out")
    for name, side in sides.items():
        if side is not None:
            yield replace(by_name[name], test=side)
