"""Where videos are found, and which are for training: folders, a table, split files."""

from __future__ import annotations

import csv
import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from rince.core.checks import RinceError, require, warn
from rince.core.files import files_below
from rince.data.clips import (
    ClipCache,
    VideoClips,
    cut,
    default_cache_folder,
    warn_left_out,
)
from rince.data.shots import Shots, shots_of
from rince.data.sources import Splits
from rince.data.video import VIDEO_SUFFIXES, Decoder, VideoInfo, probe, require_decoder
from rince.ranks.readers import IMAGE_SUFFIXES
from rince.ranks.taxonomy import Taxonomy
from rince.ranks.time import NO_SHOT, TimeRanks

TABLE = "clips.csv"
FOLDER_FRAME_SIZE = 64
SPLIT_SEED = 0  # one for all: runs that differ in their seed must share the test videos
_TEST_FOLDERS = ("val", "validation", "valid", "test")


@dataclass(frozen=True)
class VideoFile:
    """A file and what is known of it before it is opened.

    Args:
        path: the file. key: its name below the folder.
        source: name of the video it is from: itself, unless a table says so.
        label: path of class names from the top group down; () if it is not labelled.
        start: seconds into the source at which the file begins.
        test: whether it is a test video; None: to be decided.
    """

    path: Path
    key: str
    source: str
    label: tuple[str, ...]
    start: float = 0.0
    test: bool | None = None


def holds_videos(data: str | Path, by_time: bool = False) -> bool:
    """Whether to take this as a folder of videos, with a warning if it holds images too.

    It is one if it has a table of clips, or no fewer videos than images (a picture may stand for
    each); where ranks are made from time, any video will do.
    """
    folder = Path(data).expanduser()
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


def load_videos(
    data: str | Path,
    *,
    frames: int = 8,
    stride: int = 4,
    hop: float | None = None,
    per_video: int | None = None,
    frame_size: int | None = None,
    image_size: int | None = None,
    shots: str | None = None,
    splits: str | None = None,
    split: int = 1,
    cache: str | Path | None = None,
    cache_gb: float = 2.0,
    decoder: Decoder = "pyav",
    skip_unreadable: bool = False,
    test_fraction: float = 0.2,
    channels: int = 3,
) -> Splits:
    """Find videos, cut them into clips, and hold out the clips of some source videos.

    What the folder may look like:

    - ``clips.csv`` in it: columns ``clip`` (a file, below its label's folder or below the
      folder itself), and as far as known ``label``, ``source_video``, ``start_s`` (of the file
      in its source video). Files that it does not list are left out.
    - ``train/`` and ``val/`` or ``test/``, each ``<class>/*.mp4`` or plain files (Kinetics).
    - any other tree: folders are classes; test videos are chosen by the hash of the source's
      name, class by class, and stay so when others come or go.

    Args:
        data: the folder.
        frames, stride: a clip is so many frames, each the stride-th of the file's average rate.
        hop: seconds from one clip of a file to the next; None: clips touch.
        per_video: of a file with more clips, so many, spread evenly.
        frame_size: side of the decoded squares; None: image_size.
        image_size: side fed to the backbone; None: 64.
        shots: None, "detect" (extra ``shots``), or a csv: ``video,start_s,end_s``.
        splits: folder with the split files of UCF101 (``trainlist01.txt``) or HMDB51
            (``<class>_test_split1.txt``); ``split``: which of the three.
        cache: folder of decoded clips; None: ``~/.cache/rince/clips``. cache_gb: its bound.
        decoder: "pyav", or "torchcodec" (extra ``torchcodec``, and FFmpeg's libraries).
        skip_unreadable: leave out, with a warning, files and clips that cannot be read or are
            shorter than a clip; this decodes everything once.
        test_fraction: share of the source videos that is held out, at least one.
        channels: 3 (RGB) or 1 (grey).

    Raises:
        RinceError: no videos, a table or split that does not fit them, a file that cannot be read.
        ValueError: a number out of its range.
        ImportError: PyAV or the decoder is not installed.
    """
    require(cache_gb >= 0, f"videos.cache_gb must be at least 0, got {cache_gb}")
    require_decoder(decoder)  # here, as a clip that cannot be decoded may be left out
    size = image_size or FOLDER_FRAME_SIZE
    shape = (channels, frames, frame_size or size, frame_size or size)
    folder = Path(data).expanduser()
    files = _listed(folder, splits, split)
    clips = _cut(
        files, shape, stride, hop, per_video, shots_of(shots), skip_unreadable, folder.name
    )
    clips = replace(clips, decoder=decoder)
    if cache_gb > 0:
        where = default_cache_folder() if cache is None else Path(cache).expanduser()
        stamp = decoder, [(f.key, f.path.stat().st_size, f.path.stat().st_mtime_ns) for f in files]
        stored = ClipCache(where, clips.keys, stamp, shape, int(cache_gb * 1e9))
        clips = replace(clips, cache=stored)
    if skip_unreadable:
        clips = clips.readable()
    known = {f.key: f.test for f in files}
    chosen = [known[key.rpartition("@")[0]] for key in clips.keys]
    if None in chosen:
        test = _held_out(clips, test_fraction)
    else:
        test = torch.tensor([bool(x) for x in chosen])
    if not bool(test.any()) or bool(test.all()):
        raise RinceError(
            f"{data}: all clips are on one side of the split ({int(test.sum())} of {len(test)} for "
            f"the test): it takes two source videos, of one class if they are labelled"
        )
    return Splits(clips.subset((~test).nonzero()[:, 0]), clips.subset(test.nonzero()[:, 0]), size)


def load_clip_outliers(
    path: str | Path,
    *,
    frames: int,
    stride: int,
    frame_size: int,
    channels: int = 3,
    decoder: Decoder = "pyav",
    skip_unreadable: bool = False,
) -> Tensor:
    """All clips of all videos below a folder, without labels: (N, C, T, S, S) uint8.

    Args:
        path: the folder. The others are those of :func:`load_videos`, as at the training.

    Raises:
        RinceError: no such folder, no video in it, or one that cannot be read.
    """
    require_decoder(decoder)
    folder = Path(path).expanduser()
    shape = (channels, frames, frame_size, frame_size)
    files = [replace(file, label=()) for file in _listed(folder, None, 1)]
    clips = _cut(files, shape, stride, None, None, shots_of(None), skip_unreadable, folder.name)
    clips = replace(clips, decoder=decoder)
    clips = clips.readable() if skip_unreadable else clips
    return torch.stack([clips[i] for i in range(len(clips))])


def _listed(folder: Path, splits: str | None, split: int) -> list[VideoFile]:
    if not folder.is_dir():
        raise RinceError(f"there is no folder {folder}; expected a folder of videos")
    if (folder / TABLE).is_file():
        files = list(_from_table(folder))
    else:
        inside = {f.name: f for f in folder.iterdir() if f.is_dir()}
        tests = [name for name in _TEST_FOLDERS if name in inside]
        if "train" in inside and tests:
            sides = (("train", False), (tests[0], True))
            files = [f for side, test in sides for f in _from_tree(inside[side], side + "/", test)]
        else:
            files = list(_from_tree(folder, "", None))
    if splits is not None:
        files = list(_by_split_files(files, Path(splits).expanduser(), split))
    if not files:
        raise RinceError(f"{folder} holds no video ({', '.join(sorted(VIDEO_SUFFIXES))})")
    labelled = [f for f in files if f.label]
    if labelled and len(labelled) < len(files):
        bare = next(f for f in files if not f.label)
        raise RinceError(
            f"{bare.path} has no label, but {labelled[0].path} has: put all videos into class "
            f"folders, or none"
        )
    return files


def video_files(path: str | Path) -> list[str]:
    """A video itself, or all below a folder (links to folders too), sorted; no hidden ones.

    Raises:
        RinceError: neither a file nor a folder, no video in it, or a folder that cannot be read.
    """
    root = Path(path).expanduser()
    if root.is_file():
        return [str(root)]
    if not root.is_dir():
        raise RinceError(f"{path} is neither a video nor a folder of videos")
    found = [str(file) for file in files_below(root, VIDEO_SUFFIXES) if file.is_file()]
    if not found:
        raise RinceError(f"{path} holds no video ({', '.join(sorted(VIDEO_SUFFIXES))})")
    return found


def _from_tree(root: Path, prefix: str, test: bool | None) -> Iterator[VideoFile]:
    for path in files_below(root, VIDEO_SUFFIXES):
        parts = path.relative_to(root).parts
        key = prefix + "/".join(parts)
        yield VideoFile(path, key, source=key, label=parts[:-1], test=test)


def _from_table(folder: Path) -> Iterator[VideoFile]:
    table = folder / TABLE
    seen: set[str] = set()
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RinceError(f"cannot read {table}: {error}") from error
    if not rows or "clip" not in rows[0]:
        raise RinceError(f"{table} must have a header with the column clip, and rows below it")
    for number, row in enumerate(rows, start=2):
        label = (row.get("label") or "",) if row.get("label") else ()
        ways = (folder.joinpath(*label, row["clip"]), folder / row["clip"])
        path = next((way for way in ways if way.is_file()), None)
        try:
            start = float(row.get("start_s") or 0)
            if path is None:
                raise ValueError(f"there is no file {' or '.join(dict.fromkeys(map(str, ways)))}")
            if not 0 <= start < float("inf"):
                raise ValueError(f"start_s must be seconds of at least 0, got {start}")
            key = path.relative_to(folder).as_posix()
            if key in seen:
                raise ValueError(f"{key} is listed twice")
        except ValueError as error:
            raise RinceError(f"{table}, line {number}: {error}") from None
        seen.add(key)
        yield VideoFile(path, key, row.get("source_video") or key, label, start)
    others = sum(
        p.relative_to(folder).as_posix() not in seen for p in files_below(folder, VIDEO_SUFFIXES)
    )
    if others:
        warn(f"{others} videos in {folder} are not in {TABLE} and are left out")


def _by_split_files(files: Sequence[VideoFile], folder: Path, split: int) -> Iterator[VideoFile]:
    """The sides that UCF101's or HMDB51's files give; videos that they do not name are dropped."""
    sides: dict[str, bool] = {}  # class/file -> whether it is a test video
    ucf = {False: folder / f"trainlist{split:02}.txt", True: folder / f"testlist{split:02}.txt"}
    hmdb = sorted(folder.glob(f"*_test_split{split}.txt"))
    if all(file.is_file() for file in ucf.values()):
        for test, file in ucf.items():  # lines: ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi [1]
            sides |= {
                line.split()[0]: test for line in file.read_text().splitlines() if line.strip()
            }
    elif hmdb:
        for file in hmdb:  # brush_hair_test_split1.txt: NAME.avi 1 (train), 2 (test), 0 (neither)
            label = file.name.removesuffix(f"_test_split{split}.txt")
            for name, code in (
                line.split() for line in file.read_text().splitlines() if line.strip()
            ):
                if code in ("1", "2"):
                    sides[f"{label}/{name}"] = code == "2"
    else:
        raise RinceError(
            f"{folder} holds neither trainlist{split:02}.txt and testlist{split:02}.txt (UCF101) "
            f"nor *_test_split{split}.txt (HMDB51)"
        )
    found = {"/".join((*f.label[-1:], f.path.name)): f for f in files}
    missing = [name for name in sides if name not in found]
    if missing:
        raise RinceError(
            f"{len(missing)} of {len(sides)} videos of the split in {folder} are not in the data, "
            f"such as {missing[0]}"
        )
    for name, test in sides.items():
        yield replace(found[name], test=test)


def _cut(
    files: Sequence[VideoFile],
    shape: tuple[int, int, int, int],
    stride: int,
    hop: float | None,
    per_video: int | None,
    shots: Shots,
    skip: bool,
    name: str,
) -> VideoClips:
    """All clips of all files, in order."""
    for option, value in (("frames", shape[1]), ("stride", stride), ("per_video", per_video)):
        require(value is None or value >= 1, f"videos.{option} must be at least 1, got {value}")
    require(hop is None or hop > 0, f"videos.hop must be positive seconds, got {hop}")
    paths: list[str] = []
    keys: list[str] = []
    rows: list[tuple[float, float, float, int, int]] = []  # start, step, span, shot, file
    reasons: list[str] = []
    frames = shape[1]
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:  # it mostly waits for the disk
        probed = list(pool.map(_probed, files))
    for number, (file, info) in enumerate(zip(files, probed, strict=True)):
        try:
            if isinstance(info, RinceError):
                raise info
            starts, step, span = cut(info, frames, stride, hop, per_video)
            if not starts:
                raise RinceError(
                    f"cannot use {file.path}: it is {info.seconds:.2f} s long, and a clip of "
                    f"{frames} frames at stride {stride} takes {span:.2f} s"
                    + ("" if skip else _cures(probed, frames, stride))
                )
            found = shots(file.path, file.key)
        except RinceError as error:
            if not skip:
                raise
            reasons.append(str(error))
            continue
        for start in starts:
            paths.append(str(file.path))
            keys.append(f"{file.key}@{start:.3f}")
            rows.append((start, step, span, found.shot_at(start + span / 2), number))
    warn_left_out(reasons, len(files), "videos")
    times = torch.tensor([row[:3] for row in rows], dtype=torch.float64)
    begin, steps, spans = times.unbind(1)
    shot, of = torch.tensor([row[3:] for row in rows]).unbind(1)
    number_of = {source: i for i, source in enumerate(sorted({f.source for f in files}))}
    video = torch.tensor([number_of[f.source] for f in files])[of]
    offsets = torch.tensor([f.start for f in files], dtype=torch.float64)[of]
    end = offsets + begin + spans
    # Shots are numbered in a file; two files of one source share none.
    shot = torch.where(shot == NO_SHOT, NO_SHOT, of * 100_000 + shot)
    length = torch.zeros(len(number_of), dtype=torch.float64)
    length.scatter_reduce_(0, video, end, "amax")
    tree, label_of = _classes(files)
    return VideoClips(
        tuple(paths),
        begin,
        steps,
        TimeRanks.items(video, offsets + begin, end, shot=shot, length=length[video]),
        torch.tensor([label_of[f.label] for f in files])[of],
        tree,
        name,
        tuple(keys),
        frames=frames,
        frame_size=shape[2],
        channels=shape[0],
    )


def _cures(probed: Sequence[VideoInfo | RinceError], frames: int, stride: int) -> str:
    """What to do about videos shorter than a clip, all of them at once."""
    known = [info for info in probed if not isinstance(info, RinceError)]

    def short(stride: int) -> int:
        return sum(not cut(info, frames, stride)[0] for info in known)

    fits = next((s for s in range(stride - 1, 0, -1) if not short(s)), None)
    smaller = f" or videos.stride {fits}, which fits all" if fits else ""
    return (
        f". Mend or remove the {short(stride)} of {len(known)} videos that are too short, take "
        f"fewer videos.frames{smaller}, or leave such videos out (images.skip_unreadable)"
    )


def _probed(file: VideoFile) -> VideoInfo | RinceError:
    try:
        return probe(file.path)
    except RinceError as error:
        return error


def _classes(files: Sequence[VideoFile]) -> tuple[Taxonomy, Mapping[tuple[str, ...], int]]:
    labels = sorted({f.label for f in files})
    if labels == [()]:
        return Taxonomy([("video",)]), {(): 0}
    try:
        return Taxonomy(labels), {label: i for i, label in enumerate(labels)}
    except ValueError as error:
        raise RinceError(f"the folders of the videos are no class tree: {error}") from None


def _held_out(clips: VideoClips, fraction: float) -> Tensor:
    """(N,) bool: the clips of some source videos, of each class its share."""
    sources: dict[int, list[int]] = defaultdict(list)
    names: dict[int, str] = {}
    for index, video in enumerate(clips.items[:, 0].tolist()):
        sources[video].append(index)
        names.setdefault(video, clips.keys[index].rpartition("@")[0])
    by_class = defaultdict(list)
    for video, members in sources.items():
        by_class[int(clips.labels[members].mode().values)].append(video)
    test = torch.zeros(len(clips), dtype=torch.bool)
    for videos in by_class.values():
        order = sorted(
            videos,
            key=lambda v: hashlib.blake2b(repr((SPLIT_SEED, names[v])).encode()).digest(),
        )
        count = max(1, min(len(order) - 1, round(fraction * len(order))))
        for video in order[:count] if len(order) > 1 else []:
            test[sources[video]] = True
    return test
