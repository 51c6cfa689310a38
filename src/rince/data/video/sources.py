"""Videos of a folder, cut into clips and split into training and test."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from rince.core.checks import RinceError, require, warn
from rince.core.files import VIDEO_SUFFIXES, cache_folder, user_path
from rince.data.arrays import unlabelled
from rince.data.items import Items, Marks, Splits, Unreadable, report_unreadable
from rince.data.kind import Request
from rince.data.options import VideoOptions
from rince.data.table import is_table, with_further
from rince.data.threads import in_threads
from rince.data.video.cache import ClipCache
from rince.data.video.clips import VideoClips
from rince.data.video.cuts import cut
from rince.data.video.decode import VideoInfo, probe
from rince.data.video.files import VideoFile, listed_videos, videos_of_table
from rince.data.video.shots import shots_of
from rince.ranks.taxonomy import Taxonomy
from rince.ranks.time import NO_SHOT, TimeRanks

FRAME_SIZE = 64  # pixels, where none is given
UNLABELLED = "video"  # the class of all, where there is no label
APART = 30_000.0  # seconds between files of one video whose place in it is not known


def load_videos(request: Request) -> Splits:
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
    """
    clips, files = _listed_clips(request, request.options.videos)
    known = {f.key: f.test for f in files}
    chosen = [known[key.rpartition("@")[0]] for key in clips.clip_keys]
    if None in chosen:
        test = clips.held_out()
    else:
        test = torch.tensor([bool(x) for x in chosen])
    if not bool(test.any()) or bool(test.all()):
        raise RinceError(
            f"{request.data}: all clips are on one side of the split ({int(test.sum())} of "
            f"{len(test)} for the test): it takes two source videos, of one class if they are "
            f"labelled"
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


def load_test_clips(request: Request) -> VideoClips:
    """All clips of a folder or table, with a class tree of their own; of one with splits those of
    the test."""
    # Tables of shots and splits are of the training's data alone.
    videos = replace(request.options.videos, shots=None, splits=None)
    clips, files = _listed_clips(request, videos, test_alone=True)
    tests = {file.key for file in files if file.test}
    kept = [i for i, key in enumerate(clips.clip_keys) if key.rpartition("@")[0] in tests]
    return clips.subset(kept) if tests else clips


def load_clip_outliers(request: Request, items: Items) -> Items:
    """All clips of all videos below a folder, of as many frames as the items."""
    spec = items.spec
    assert spec.frames is not None
    folder = user_path(request.data)
    videos = replace(
        request.options.videos, frames=spec.frames, hop=None, per_video=None, shots=None
    )
    files = [replace(file, label=()) for file in listed_videos(folder, None, 1)]
    size = videos.frame_size or spec.size
    clips, failures = _cut(files, videos, size, request, folder.name)
    clips = _readable(clips, failures, len(files), request.skip_unreadable)
    pixels = torch.stack([clips[i] for i in range(len(clips))])
    return unlabelled(pixels, items.taxonomy, spec.size)


def _listed_clips(
    request: Request, videos: VideoOptions, *, test_alone: bool = False
) -> tuple[VideoClips, list[VideoFile]]:
    """All clips, with the files that they are from."""
    if videos.decoder != "pyav":  # an option of earlier versions
        warn("videos.decoder torchcodec is no more: PyAV decodes the same frames")
    images = request.options.images
    folder = user_path(request.data)
    marks = None
    if is_table(folder):
        require(
            videos.splits is None,
            f"videos.splits is for folders: a table, {request.data}, has a column split",
        )
        table = request.item_table(VIDEO_SUFFIXES, UNLABELLED)
        files, marks = videos_of_table(table, images.root, test_alone)
    else:
        require(
            images.root is None,
            f"images.root is for tables and named data sets, not for {request.data}",
        )
        files = listed_videos(folder, videos.splits, videos.split)
    image_size = images.image_size or FRAME_SIZE
    size = videos.frame_size or image_size
    clips, failures = _cut(files, videos, size, request, folder.stem, marks)
    clips = replace(clips, image_size=image_size)
    if videos.cache_gb > 0:
        where = cache_folder("clips") if videos.cache is None else user_path(videos.cache)
        # Once the decoder could be chosen; its name keeps the caches of that time valid.
        stamp = "pyav", [(f.key, f.path.stat().st_size, f.path.stat().st_mtime_ns) for f in files]
        shape = (request.channels, videos.frames, size, size)
        stored = ClipCache(where, clips.clip_keys, stamp, shape, int(videos.cache_gb * 1e9))
        clips = replace(clips, cache=stored)
    return _readable(clips, failures, len(files), request.skip_unreadable), files


def _readable(
    clips: VideoClips, failures: list[RinceError], files: int, skip_unreadable: bool
) -> VideoClips:
    """Without clips that cannot be decoded; or refused, with what fails already, if a file was cut
    short."""
    if skip_unreadable:
        return clips.readable(skip_unreadable=True)
    report_unreadable([*failures, *clips.cut_short()], files, "videos", skip_unreadable=False)
    return clips


def _cut(
    files: Sequence[VideoFile],
    videos: VideoOptions,
    size: int,
    request: Request,
    name: str,
    marks: Marks | None = None,
) -> tuple[VideoClips, list[RinceError]]:
    """All clips of all files, in order, decoded to squares of this size; and what is still to be
    said of files that give none."""
    frames, stride, skip_unreadable = videos.frames, videos.stride, request.skip_unreadable
    # Rows of a table may be parts of one file, which is read once.
    shots = functools.cache(shots_of(videos.shots, [file.name for file in files]))
    paths: list[str] = []
    keys: list[str] = []
    rows: list[tuple[float, float, float, int, int]] = []  # start, step, span, shot, file
    failures: list[RinceError] = []
    hint = functools.cache(lambda: _hint(probed, frames, stride))  # it looks at all files
    number_of_path = {path: i for i, path in enumerate(dict.fromkeys(f.path for f in files))}
    number_of_file = [number_of_path[file.path] for file in files]
    headers = list(in_threads(probe, list(number_of_path), "reading headers of videos"))
    probed = [headers[i] for i in number_of_file]
    for number, (file, info) in enumerate(zip(files, probed, strict=True)):
        try:
            if isinstance(info, RinceError):
                raise info
            first, part = _part(file, info)
            starts, step, span = cut(part, frames, stride, videos.hop, videos.per_video)
            if not starts:
                which = "it" if part is info else f"its part {file.key}"
                raise Unreadable(
                    f"cannot use {file.path}: {which} is {part.seconds:.2f} s long, and a clip of "
                    f"{frames} frames at stride {stride} takes {span:.2f} s",
                    "" if skip_unreadable else hint(),
                    of_all=True,
                )
            shot_list = shots(file.path, file.name)  # of the whole file, whatever its part
        except RinceError as error:
            failures.append(error)
            continue
        for start in (first + start for start in starts):
            paths.append(str(file.path))
            keys.append(f"{file.key}@{start:.3f}")
            rows.append((start, step, span, shot_list.shot_at(start + span / 2), number))
    if skip_unreadable or not rows:
        report_unreadable(failures, len(files), "videos", skip_unreadable)
    times = torch.tensor([row[:3] for row in rows], dtype=torch.float64)
    begin, steps, spans = times.unbind(1)
    shot, of = torch.tensor([row[3:] for row in rows]).unbind(1)
    number_of = {source: i for i, source in enumerate(sorted({f.source for f in files}))}
    video = torch.tensor([number_of[f.source] for f in files])[of]
    offsets = torch.tensor(_starts(files, probed), dtype=torch.float64)[of]
    end = offsets + begin + spans
    # Shots are numbered in a file; two files of one source share none.
    shot = torch.where(shot == NO_SHOT, NO_SHOT, torch.tensor(number_of_file)[of] * 100_000 + shot)
    length = torch.zeros(len(number_of), dtype=torch.float64)
    length.scatter_reduce_(0, video, end, "amax")
    tree, label_of = _classes(files)
    clips = VideoClips(
        tuple(paths),
        begin,
        steps,
        TimeRanks.items(video, offsets + begin, end, shot=shot, length=length[video]),
        torch.tensor([label_of[f.label] for f in files])[of],
        tree,
        name,
        tuple(keys),
        frames=frames,
        frame_size=size,
        channels=request.channels,
        marks=marks and marks.of(of),
    )
    return clips, failures


def _starts(files: Sequence[VideoFile], probed: Sequence[VideoInfo | RinceError]) -> list[float]:
    """Seconds into its source at which each file begins. Files of one source of which nobody says
    so lie far apart, behind the others: they are neither the same clip nor near in time."""
    seconds = [0.0 if isinstance(info, RinceError) else info.seconds for info in probed]
    ends: dict[str, float] = {}
    for file, length in zip(files, seconds, strict=True):
        if file.start is not None:
            ends[file.source] = max(ends.get(file.source, 0.0), file.start + length)
    begins: dict[tuple[str, Path], float] = {}
    for file, length in zip(files, seconds, strict=True):
        place = file.source, file.path
        if file.start is None and place not in begins:
            begins[place] = ends[file.source] + APART if file.source in ends else 0.0
            ends[file.source] = begins[place] + length
    return [begins[f.source, f.path] if f.start is None else f.start for f in files]


def _part(file: VideoFile, info: VideoInfo) -> tuple[float, VideoInfo]:
    """Where the part of a file begins that is asked for, and how long it is."""
    if file.span is None:
        return 0.0, info
    begin, end = file.span
    if begin >= info.seconds:
        problem = f"cannot use {file.key}: the file is {info.seconds:.2f} s long"
        raise Unreadable(problem, "start_s", of_all=True)
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
        f"the {short(stride)} of {len(known)} videos that are too short, take "
        f"fewer videos.frames{smaller}, or leave such videos out (--skip-unreadable)"
    )


def _classes(files: Sequence[VideoFile]) -> tuple[Taxonomy, Mapping[tuple[str, ...], int]]:
    trained = _trained(files)
    labels = [*trained, *sorted({f.label for f in files} - set(trained))]
    if labels == [()]:
        return Taxonomy([(UNLABELLED,)]), {(): 0}
    try:
        return Taxonomy(labels), {label: i for i, label in enumerate(labels)}
    except ValueError as error:
        raise RinceError(f"the folders of the videos do not form a class tree: {error}") from None
