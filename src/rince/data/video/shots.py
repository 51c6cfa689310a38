"""Where a video's shots end: detected by PySceneDetect, or read from a table."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from rince.core.checks import RinceError, import_extra, require, warn
from rince.core.files import user_path
from rince.core.tables import as_number, composed, read_table, refuse_rows
from rince.ranks.time import NO_SHOT


@dataclass(frozen=True)
class ShotList:
    """Shots of one video, in order: (start, end) seconds. No shot: nothing is known."""

    spans: tuple[tuple[float, float], ...] = ()

    def shot_at(self, seconds: float) -> int:
        """Number of the shot at this time; -1 where none is.

        Example:
            >>> ShotList(((0.0, 2.0), (2.0, 5.0))).shot_at(2.5), ShotList().shot_at(0.0)
            (1, -1)
        """
        place = bisect_right(self.spans, (seconds, float("inf"))) - 1
        return place if place >= 0 and seconds < self.spans[place][1] else NO_SHOT


Shots: TypeAlias = Callable[[Path, str], ShotList]
"""(file, its name below the folder) -> its shots."""


def shots_of(source: str | None, names: Collection[str]) -> Shots:
    """What ``videos.shots`` means: nothing known, detection, or a table. ``names``: of all videos,
    below their folder."""
    if source is None:
        return lambda path, name: ShotList()
    if source == "detect":
        import_extra("scenedetect", "shots")
        return lambda path, name: detect_shots(path)
    table = read_shots(user_path(source))
    if unused := sorted(table.keys() - set(map(composed, names))):
        some = next(iter(names), "")
        text = f"{source}: {len(unused)} of {len(table)} videos are not in the data: {unused[0]}"
        if len(unused) == len(table):
            raise RinceError(f"{text}; expected names below the data's folder, such as {some}")
        warn(text)
    return lambda path, name: table.get(composed(name), ShotList())


def detect_shots(path: Path) -> ShotList:
    """Cuts by PySceneDetect's content detector, on frames that PyAV decodes."""
    detect = import_extra("scenedetect", "shots")
    try:
        video = detect.open_video(str(path), backend="pyav")
        manager = detect.SceneManager()
        manager.add_detector(detect.ContentDetector())
        manager.detect_scenes(video)
        scenes = manager.get_scene_list(start_in_scene=True)
    except Exception as error:  # whatever the decoder raises
        raise RinceError(f"cannot detect the shots of {path}: {error}") from error
    # Up to the end, whatever the last frame's length is rounded to.
    ends = [end.seconds for _, end in scenes[:-1]] + [float("inf")]
    return ShotList(
        tuple((start.seconds, end) for (start, _), end in zip(scenes, ends, strict=True))
    )


def read_shots(file: Path) -> dict[str, ShotList]:
    """A csv of ``video,start_s,end_s``, a row a shot; the video by its name below the folder."""
    table = read_table(file, "shots")
    table.require_columns("video", "start_s", "end_s")
    spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
    problems: list[str] = []
    for line, cells in table.rows:
        try:
            span = as_number(cells["start_s"]), as_number(cells["end_s"])
            require(span[0] >= 0 and span[1] >= 0, f"no seconds: {span[0]} to {span[1]}")
            spans[composed(cells["video"])].append(span)
        except ValueError as error:
            problems.append(f"{table.place(line)}: {error}")
    refuse_rows(file, problems, "start_s and end_s are seconds")
    shots_of_video = {}
    for video, of_video in spans.items():
        ordered = sorted(of_video)
        flat = [t for span in ordered for t in span]
        if flat != sorted(flat):
            raise RinceError(f"{file}: the shots of {video} overlap, or end before they start")
        shots_of_video[video] = ShotList(tuple(ordered))
    return shots_of_video
