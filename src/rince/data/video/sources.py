"""Videos of a folder, cut into clips and split into training and test."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rince.core.checks import RinceError, require
from rince.core.files import cache_folder
from rince.data.items import HINT, SPLIT_SEED, Marks, Splits, held_out, warn_left_out
from rince.data.table import is_table, with_further
from rince.data.video.cache import ClipCache
from rince.data.video.clips import VideoClips
from rince.data.video.cuts import cut
from rince.data.video.decode import VideoInfo, probe
from rince.data.video.files import VideoFile, listed_videos, videos_of_table
from rince.data.video.shots import Shots, shots_of
from rince.ranks.taxonomy import Taxonomy
from rince.ranks.time import NO_SHOT, TimeRanks

FRAME_SIZE = 64  # pixels, where none is given


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
    skip_unreadable: bool = False,
    test_fraction: float = 0.2,
    channels: int = 3,
    root: str | None = None,
    column: str | None = None,
    labels: Sequence[str] | None = None,
) -> Splits:
    """Find videos, cut them into clips, and hold out the clips of some source videos.

    What they may be:

    - a table of items, see :mod:`rince.data.table`; ``start_s`` and ``end_s`` make a row a part of
      its file.
    - a folder with ``clips.csv`` in it: columns ``clip`` (a file, below its label's folder or
      below the folder itself), and as far as known ``label``, ``source_video``, ``start_s`` (of the
      file in its source video). Files that it does not list are left out.
    - ``train/`` and ``val/`` or ``test/``, each ``<class>/*.mp4`` or plain files (Kinetics).
    - any other tree: folders are classes; test videos are chosen by the hash of the source's
      name, class by class, and stay so when others come or go.

    Args:
        data: the folder or table.
        frames: number of frames of a clip.
        stride: a clip takes every stride-th frame of the file's average rate.
        hop: seconds between the starts of two clips; None: each starts where the last one ends.
        per_video: maximum number of clips per video, evenly spaced; None: all.
        frame_size: side of the decoded squares; None: image_size.
        image_size: side fed to the backbone; None: 64.
        shots: None, "detect" (extra ``shots``), or a csv: ``video,start_s,end_s``.
        splits: folder with the split files of UCF101 (``trainlist01.txt``) or HMDB51
            (``<class>_test_split1.txt``); ``split``: which of the three.
        cache: folder of decoded clips; None: ``~/.cache/rince/clips``. cache_gb: its bound.
        skip_unreadable: leave out, with a warning, files and clips that cannot be read or are
            shorter than a clip; this decodes everything once.
        test_fraction: share of the source videos that is held out, at least one.
        channels: 3 (RGB) or 1 (grey).
        root, column, labels: of a table: where relative paths begin, the column of the paths, and
            those of the labels from coarse to fine.

    Raises:
        RinceError: no videos, a table or split that does not fit them, a file that cannot be read.
        ValueError: a number out of its range.
        ImportError: PyAV is not installed.
    """
    clips, files = _listed_clips(
        data,
        frames=frames,
        stride=stride,
        hop=hop,
        per_video=per_video,
        frame_size=frame_size,
        image_size=image_size,
        shots=shots,
        splits=splits,
        split=split,
        cache=cache,
        cache_gb=cache_gb,
        skip_unreadable=skip_unreadable,
        channels=channels,
        root=root,
        column=column,
        labels=labels,
    )
    known = {f.key: f.test for f in files}
    chosen = [known[key.rpartition("@")[0]] for key in clips.clip_keys]
    if None in chosen:
        test = _held_out(clips, test_fraction)
    else:
        test = torch.tensor([bool(x) for x in chosen])
    if not bool(test.any()) or bool(test.all()):
        raise RinceError(
            f"{data}: all clips are on one side of the split ({int(test.sum())} of {len(test)} for "
            f"the test): it takes two source videos, of one class if they are labelled"
        )
    train, held = (clips.subset(side.nonzero()[:, 0]) for side in (~test, test))
    paths, count = clips.taxonomy.paths, len(_trained(files))
    tree = Taxonomy(paths[:count])
    return Splits(
        replace(train, taxonomy=tree),
        replace(
            held,
            taxonomy=with_further(tree, paths[count:], len({f.label for f in files if f.test})),
        ),
    )


def load_test_clips(data: str | Path, **options: Any) -> VideoClips:
    """All clips of a folder or table, with a class tree of their own; of one with splits those of
    the test.

    Args:
        data: as of :func:`load_videos`. options: its others, but for ``test_fraction``.
    """
    clips, files = _listed_clips(data, **options)
    tests = {file.key for file in files if file.test}
    kept = [i for i, key in enumerate(clips.clip_keys) if key.rpartition("@")[0] in tests]
    return clips.subset(kept) if tests else clips


def _listed_clips(
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
    skip_unreadable: bool = False,
    channels: int = 3,
    root: str | None = None,
    column: str | None = None,
    labels: Sequence[str] | None = None,
) -> tuple[VideoClips, list[VideoFile]]:
    """All clips, with the files that they are from."""
    require(cache_gb >= 0, f"videos.cache_gb must be at least 0, got {cache_gb}")
    size = image_size or FRAME_SIZE
    shape = (channels, frames, frame_size or size, frame_size or size)
    folder = Path(data).expanduser()
    marks = None
    if is_table(folder):
        files, marks = videos_of_table(folder, root, column, labels)
    else:
        require(root is None, f"images.root is for tables and named data sets, not for {data}")
        files = listed_videos(folder, splits, split)
    clips = _cut(
        files, shape, stride, hop, per_video, shots_of(shots), skip_unreadable, folder.stem, marks
    )
    clips = replace(clips, image_size=size)
    if cache_gb > 0:
        where = cache_folder("clips") if cache is None else Path(cache).expanduser()
        # Once the decoder could be chosen; its name keeps the caches of that time valid.
        stamp = "pyav", [(f.key, f.path.stat().st_size, f.path.stat().st_mtime_ns) for f in files]
        stored = ClipCache(where, clips.clip_keys, stamp, shape, int(cache_gb * 1e9))
        clips = replace(clips, cache=stored)
    if skip_unreadable:
        clips = clips.readable()
    return clips, files


def load_clip_outliers(
    path: str | Path,
    *,
    frames: int,
    stride: int,
    frame_size: int,
    channels: int = 3,
    skip_unreadable: bool = False,
) -> Tensor:
    """All clips of all videos below a folder, without labels: (N, C, T, S, S) uint8.

    Args:
        path: the folder. The others are those of :func:`load_videos`, as at the training.

    Raises:
        RinceError: no such folder, no video in it, or one that cannot be read.
    """
    folder = Path(path).expanduser()
    shape = (channels, frames, frame_size, frame_size)
    files = [replace(file, label=()) for file in listed_videos(folder, None, 1)]
    clips = _cut(files, shape, stride, None, None, shots_of(None), skip_unreadable, folder.name)
    clips = clips.readable() if skip_unreadable else clips
    return torch.stack([clips[i] for i in range(len(clips))])


def _cut(
    files: Sequence[VideoFile],
    shape: tuple[int, int, int, int],
    stride: int,
    hop: float | None,
    per_video: int | None,
    shots: Shots,
    skip: bool,
    name: str,
    marks: Marks | None = None,
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
            first, part = _part(file, info)
            starts, step, span = cut(part, frames, stride, hop, per_video)
            if not starts:
                which = "it" if part is info else f"its part {file.key}"
                raise RinceError(
                    f"cannot use {file.path}: {which} is {part.seconds:.2f} s long, and a clip of "
                    f"{frames} frames at stride {stride} takes {span:.2f} s"
                    + ("" if skip else _hint(probed, frames, stride))
                )
            shot_list = shots(file.path, file.key)
        except RinceError as error:
            if not skip:
                raise
            reasons.append(str(error))
            continue
        for start in (first + start for start in starts):
            paths.append(str(file.path))
            keys.append(f"{file.key}@{start:.3f}")
            rows.append((start, step, span, shot_list.shot_at(start + span / 2), number))
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
        marks=marks and marks.of(of),
    )


def _part(file: VideoFile, info: VideoInfo) -> tuple[float, VideoInfo]:
    """Where the part of a file begins that is asked for, and how long it is."""
    if file.span is None:
        return 0.0, info
    begin, end = file.span
    if begin >= info.seconds:
        raise RinceError(
            f"cannot use {file.key}: the file is {info.seconds:.2f} s long{HINT}start_s"
        )
    return begin, replace(info, seconds=min(end, info.seconds) - begin)


def _trained(files: Sequence[VideoFile]) -> list[tuple[str, ...]]:
    """The labels of the training, and of what may become so."""
    return sorted({f.label for f in files if not f.test})


def _hint(probed: Sequence[VideoInfo | RinceError], frames: int, stride: int) -> str:
    """What to do about videos shorter than a clip, all of them at once."""
    known = [info for info in probed if not isinstance(info, RinceError)]

    def short(stride: int) -> int:
        return sum(not cut(info, frames, stride)[0] for info in known)

    fits = next((s for s in range(stride - 1, 0, -1) if not short(s)), None)
    smaller = f" or videos.stride {fits}, which fits all" if fits else ""
    return (
        f"{HINT}the {short(stride)} of {len(known)} videos that are too short, take "
        f"fewer videos.frames{smaller}, or leave such videos out (images.skip_unreadable)"
    )


def _probed(file: VideoFile) -> VideoInfo | RinceError:
    try:
        return probe(file.path)
    except RinceError as error:
        return error


def _classes(files: Sequence[VideoFile]) -> tuple[Taxonomy, Mapping[tuple[str, ...], int]]:
    trained = _trained(files)
    labels = [*trained, *sorted({f.label for f in files} - set(trained))]
    if labels == [()]:
        return Taxonomy([("video",)]), {(): 0}
    try:
        return Taxonomy(labels), {label: i for i, label in enumerate(labels)}
    except ValueError as error:
        raise RinceError(f"the folders of the videos do not form a class tree: {error}") from None


def _held_out(clips: VideoClips, fraction: float) -> Tensor:
    """(N,) bool: the clips of some source videos, of each class its share."""
    clips_of: dict[int, list[int]] = defaultdict(list)  # by source video
    for index, video in enumerate(clips.times[:, 0].tolist()):
        clips_of[video].append(index)
    # In the order of the hashes of their first clips' files, so that others move none of them.
    names = {v: clips.clip_keys[members[0]].rpartition("@")[0] for v, members in clips_of.items()}
    order = sorted(
        clips_of, key=lambda v: hashlib.blake2b(repr((SPLIT_SEED, names[v])).encode()).digest()
    )
    by_class = defaultdict(list)
    for video in order:
        by_class[int(clips.labels[clips_of[video]].mode().values)].append(video)
    test = torch.zeros(len(clips), dtype=torch.bool)
    for videos in by_class.values():
        for video in held_out(videos, fraction):
            test[clips_of[video]] = True
    return test
