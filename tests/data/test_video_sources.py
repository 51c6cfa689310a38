"""Layouts of video data sets, on tiny stand-ins."""

from __future__ import annotations

import os
import re
import subprocess
import unicodedata
from pathlib import Path

import pytest
import torch

from rince.cli.main import main
from rince.core.checks import RinceError, RinceWarning
from rince.data.items import Splits
from rince.data.video import shots as shots_module
from rince.data.video import sources
from rince.data.video.clips import VideoClips
from rince.data.video.decode import VideoInfo
from rince.data.video.files import holds_videos, listed_videos, video_files
from rince.data.video.shots import ShotList, detect_shots, read_shots
from rince.ranks.time import TimeRanks

pytest.importorskip("av")

from loaders import load_videos
from video_files import write_video

VIDEO_PAGE = Path(__file__).parents[2] / "docs" / "video.md"
SMALL = {"frames": 2, "stride": 2, "image_size": 16, "cache_gb": 0}


def _sides(folder: Path, **options: object) -> tuple[list[str], list[str]]:
    splits = load_videos(folder, **{**SMALL, "per_video": 1, **options})
    train, test = (
        [k.rpartition("@")[0] for k in keys] for keys in (splits.train.keys(), splits.test.keys())
    )  # type: ignore[union-attr]
    return train, test


def _put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(root / name, 6)


def test_links(tmp_path: Path) -> None:
    """Those to folders are followed, once; one that leads to itself is left alone."""
    _put(tmp_path, "all/run/1.mp4", "elsewhere/2.mp4", "elsewhere/3.mp4")
    root = tmp_path / "all"
    for name, target in (
        ("jump", tmp_path / "elsewhere"),
        ("up", root),
        ("loop", root / "loop"),
        ("loop.mp4", root / "loop.mp4"),
    ):
        (root / name).symlink_to(target)
    names = ["jump/2.mp4", "jump/3.mp4", "run/1.mp4"]
    assert video_files(root) == [str(root / name) for name in names]
    (root / "loop.mp4").unlink()
    train, test = _sides(root)
    assert sorted(train + test) == names


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _put(tmp_path, "run/1.mp4", "shut/2.mp4")
    look = os.scandir

    def scandir(folder: Path) -> object:
        if Path(folder).name == "shut":  # whoever is root may read any
            raise PermissionError(13, "Permission denied", str(folder))
        return look(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(RinceError, match="cannot read.*shut .*Permission denied"):
        video_files(tmp_path)


def test_kinetics(tmp_path: Path) -> None:
    _put(tmp_path, "train/run/1.mp4", "train/jump/2.mp4", "val/run/3.mp4", "val/jump/1.mp4")
    assert holds_videos(tmp_path)
    assert _sides(tmp_path) == (
        ["train/jump/2.mp4", "train/run/1.mp4"],
        ["val/jump/1.mp4", "val/run/3.mp4"],
    )
    splits = load_videos(tmp_path, **SMALL)
    assert splits.train.taxonomy.classes == ("jump", "run")
    assert splits.train.labels.tolist()[0] == 0
    assert set(splits.train.times[:, 0].tolist()) & set(splits.test.times[:, 0].tolist()) == set()  # type: ignore[union-attr]


def test_only_a_training_folder(tmp_path: Path) -> None:
    """It is no group, and the clips are called as they were."""
    names = [f"Train/{label}/{i}.mp4" for label in ("jump", "run") for i in (1, 2)]
    _put(tmp_path, *names)
    train, test = _sides(tmp_path)
    assert sorted(train + test) == names
    assert load_videos(tmp_path, **SMALL).train.taxonomy.paths == (("jump",), ("run",))


def test_ucf101(tmp_path: Path) -> None:
    videos, lists = tmp_path / "UCF-101", tmp_path / "ucfTrainTestlist"
    names = [f"{c}/v_{c}_g{g:02}_c01.avi" for c in ("Archery", "Biking") for g in (1, 2, 3)]
    _put(videos, *names)
    lists.mkdir()
    (lists / "trainlist02.txt").write_text(f"{names[0]} 1\n{names[4]} 2\n")
    (lists / "testlist02.txt").write_text(f"{names[2]}\r\n{names[3]}\n\n")
    with pytest.warns(RinceWarning, match="2 of 6 videos.*split file"):
        found = _sides(videos, splits=str(lists), split=2)
    assert found == ([names[0], names[4]], [names[2], names[3]])
    with pytest.raises(
        RinceError, match=r"neither trainlist01.txt and testlist01.txt .UCF101. nor"
    ):
        _sides(videos, splits=str(lists))
    (lists / "trainlist02.txt").write_text("Archery/other.avi 1\n")
    with pytest.raises(RinceError, match=r"1 of 3 videos.* Archery/other\.avi"):
        _sides(videos, splits=str(lists), split=2)


def test_groups_of_ucf101_without_its_split_files(tmp_path: Path) -> None:
    """The recipe of docs/video.md: clips of a group stay together; a recording links two groups."""
    names = [f"v_{c}_g{g:02}_c0{k}" for c in "AB" for g in (1, 2, 3) for k in (1, 2)]
    _put(tmp_path, *(f"{name[2]}/{name}.avi" for name in names))
    table = tmp_path / "ucf.csv"
    elsewhere = tmp_path / "new" / "ucf.csv"  # its folder is made
    assert main(["table", str(tmp_path), "-o", str(elsewhere)]) == 0
    assert f"../A/{names[0]}.avi,A" in elsewhere.read_text()
    elsewhere.unlink()
    elsewhere.parent.rmdir()
    assert main(["table", str(tmp_path), "-o", str(table)]) == 0
    script = re.search(r"^sed -E -i '(.*)' ucf.csv$", VIDEO_PAGE.read_text("utf-8"), re.MULTILINE)
    assert script is not None
    subprocess.run(["sed", "-E", "-i", script[1], str(table)], check=True)
    header, *rows = table.read_text().splitlines()
    assert header == "path,class,sequence"
    assert rows[0] == f"A/{names[0]}.avi,A,v_A_g01"

    def groups() -> list[set[str]]:
        splits = load_videos(table, **SMALL)
        keys = [side.keys() or [] for side in (splits.train, splits.test)]
        assert sum(map(len, keys)) >= len(names)
        return [{key.rpartition("_c")[0].partition("/")[2] for key in side} for side in keys]

    train, test = groups()
    assert not train & test
    assert len(test) == 2  # one of three, of each class
    of_a = next(group for group in test if group[2] == "A")
    other = next(group for group in train if group[2] == "A")
    tape = (f"{of_a}_c01", f"{other}_c02")
    rows = [f"{row},{'tape' if any(name in row for name in tape) else ''}" for row in rows]
    table.write_text("\n".join([f"{header},source_video", *rows]))
    train, test = groups()
    assert not train & test
    assert {of_a, other} <= train or {of_a, other} <= test


def test_names_that_a_file_system_took_apart(tmp_path: Path) -> None:
    """The same keys, sides and shots, whichever form the folder and its tables have."""
    whole = [f"Tänze/{c}é.mp4" for c in "abcdef"]
    apart = [unicodedata.normalize("NFD", name) for name in whole]
    shots = tmp_path / "shots.csv"
    found = []
    for names, others in ((whole, apart), (apart, whole)):
        folder = tmp_path / f"{len(found)}"
        _put(folder, *names)
        rows = [f"{name},{i % 2 * 9},9.5" for i, name in enumerate(others)]
        shots.write_text("\n".join(["video,start_s,end_s", *rows]), "utf-8")
        for table in (False, True):
            if table:
                rows = [f"{name.partition('/')[2]},{name.partition('/')[0]}" for name in others]
                (folder / "clips.csv").write_text("\n".join(["clip,label", *rows]), "utf-8")
            splits = load_videos(folder, **SMALL, shots=str(shots))
            sides = splits.train, splits.test
            found.append([(side.keys(), side.times.tolist()) for side in sides])  # type: ignore[union-attr]
    assert found == [found[0]] * 4
    shown = {shot for side in found[0] for _, _, _, shot, _ in side[1]}
    assert shown > {-1}


NAMES = ("v_Ärger g01 (1).avi", "cafe\u0301 2.avi", "3.avi", "a b  c.avi", "x.1 2.avi")


def test_split_files_with_any_names(tmp_path: Path) -> None:
    """Blanks, numbers, points and accents that a file system took apart."""
    videos, folders = tmp_path / "videos", ("Apply Make Up", "Tai Chi")
    names = [f"{folder}/{name}" for folder in folders for name in NAMES]
    _put(videos, *names)
    lists = {"ucf": tmp_path / "ucf", "hmdb": tmp_path / "hmdb"}
    for folder in lists.values():
        folder.mkdir()
    composed = [unicodedata.normalize("NFC", name) for name in names]
    train, test = composed[::2], composed[1::2]
    (lists["ucf"] / "trainlist01.txt").write_text("".join(f"{name} 12\n" for name in train))
    (lists["ucf"] / "testlist01.txt").write_text("\n".join(test))
    for folder in folders:
        (lists["hmdb"] / f"{folder}_test_split1.txt").write_text(
            "".join(
                f"{name.partition('/')[2]} {1 + composed.index(name) % 2} \n"
                for name in composed
                if name.startswith(folder)
            )
        )
    for folder in lists.values():
        found = _sides(videos, splits=str(folder))
        assert tuple(map(sorted, found)) == (sorted(train), sorted(test))
    (lists["hmdb"] / "Tai Chi_test_split1.txt").write_text("3.avi 1\n4.avi\n5.avi 7\n")
    with pytest.raises(RinceError, match=r"2 bad rows.*line 2: '4\.avi'; line 3: '5\.avi 7'"):
        _sides(videos, splits=str(lists["hmdb"]))


def test_split_files_that_do_not_tell_two_videos_apart(tmp_path: Path) -> None:
    _put(tmp_path / "videos", "men/run/a.avi", "women/run/a.avi", "men/walk/b.avi")
    (tmp_path / "trainlist01.txt").write_text("run/a.avi 1\n")
    (tmp_path / "testlist01.txt").write_text("walk/b.avi\n")
    with pytest.raises(
        RinceError, match=r"men/run/a\.avi and women/run/a\.avi are both run/a\.avi"
    ):
        _sides(tmp_path / "videos", splits=str(tmp_path))


def test_hmdb51(tmp_path: Path) -> None:
    videos, lists = tmp_path / "hmdb51", tmp_path / "splits"
    _put(videos, "wave/a.avi", "wave/b.avi", "wave/c.avi", "brush_hair/a.avi", "brush_hair/d.avi")
    lists.mkdir()
    (lists / "wave_test_split1.txt").write_text("a.avi 1 \nb.avi 2 \nc.avi 0 \n")
    (lists / "brush_hair_test_split1.txt").write_text("a.avi 2\nd.avi 1\n")
    assert _sides(videos, splits=str(lists)) == (
        ["brush_hair/d.avi", "wave/a.avi"],
        ["brush_hair/a.avi", "wave/b.avi"],
    )


def test_a_table_of_clips(tmp_path: Path) -> None:
    _put(tmp_path, "x/1.mp4", "x/2.mp4", "x/3.mp4", "y/4.mp4", "y/5.mp4", "5.mp4")
    rows = ["clip,label,source_video,start_s,end_s", "1.mp4,x,tape,10.5,11.1", "2.mp4,x,tape,3,4"]
    rows += ["3.mp4,x,other,0,1", "4.mp4,y,third,0,1", "5.mp4,y,fourth,7,8"]
    (tmp_path / "clips.csv").write_text("\n".join(rows))
    with pytest.warns(RinceWarning, match=r"1 videos.*not in clips\.csv"):
        splits = load_videos(tmp_path, **{**SMALL, "per_video": 1})
    clips = {
        key: item
        for side in (splits.train, splits.test)
        for key, item in zip(side.keys(), side.times.tolist(), strict=True)  # type: ignore[union-attr]
    }
    # Sources in order of their names: fourth, other, tape, third.
    assert clips["x/1.mp4@0.000"] == [2, 10_500_000, 10_800_000, -1, 10_800_000]
    assert clips["x/2.mp4@0.000"] == [2, 3_000_000, 3_300_000, -1, 10_800_000]
    assert clips["y/5.mp4@0.000"][:2] == [0, 7_000_000]
    tape = [
        any(k.startswith("x/1") or k.startswith("x/2") for k in keys)
        for keys in (splits.train.keys(), splits.test.keys())
    ]  # type: ignore[union-attr]
    assert sorted(tape) == [False, True]  # both of its clips are on one side
    assert {side.taxonomy.classes for side in (splits.train, splits.test)} == {("x", "y")}
    for line, message in (
        ("6.mp4,x,,0,1", r"line 7: there is no file .*/x/6.mp4 or .*/6.mp4"),
        ("1.mp4,x,tape,nan,1", "line 7: start_s must be seconds of at least 0, got 'nan'"),
        ("1.mp4,x,tape,soon,1", "line 7: start_s must be seconds of at least 0, got 'soon'"),
        ("1.mp4,x,tape,0,1", "line 7: x/1.mp4 is listed twice"),
    ):
        (tmp_path / "clips.csv").write_text("\n".join([*rows, line]))
        with pytest.raises(RinceError, match=message):
            load_videos(tmp_path, **SMALL)
    (tmp_path / "clips.csv").write_text("file\n1.mp4\n")
    with pytest.raises(RinceError, match="'clip'.*columns are file"):
        load_videos(tmp_path, **SMALL)


@pytest.mark.parametrize("table", ["clips.csv", "items.csv"])
def test_pieces_of_a_recording_at_unknown_times(tmp_path: Path, table: str) -> None:
    """They are of one video; none is another's other view, near it, or an overlap."""
    _put(tmp_path, "1.mp4", "2.mp4", "3.mp4", "4.mp4")
    column = "clip" if table == "clips.csv" else "path"
    rows = ["1.mp4,x,tape", "2.mp4,x,tape", "3.mp4,x,tape", "4.mp4,x,other"]
    (tmp_path / table).write_text("\n".join([f"{column},label,source_video", *rows]))
    data = tmp_path / table if table == "items.csv" else tmp_path
    splits = load_videos(data, **{**SMALL, "per_video": 1})
    times = torch.cat([splits.train.times, splits.test.times])  # type: ignore[list-item]
    rule = TimeRanks(near=(10.0,))
    ranks = rule.ranks(times, times, ignore_overlaps=True).tile(slice(None), slice(None))
    assert sorted(ranks.flatten().tolist()) == [-1] * 4 + [0] * 6 + [3] * 6


def _of_lengths(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> list[str]:
    """Let files seem as long; which headers are read."""
    read: list[str] = []

    def probed(path: Path) -> VideoInfo:
        read.append(path.name)
        return VideoInfo(seconds[path.stem], 10.0)

    monkeypatch.setattr(sources, "probe", probed)
    monkeypatch.setattr(VideoClips, "cut_short", lambda clips: [])
    return read


def _times(splits: Splits) -> dict[str, list[int]]:
    """Each clip's video, start, end, shot and length of its video."""
    return {
        key: row
        for side in (splits.train, splits.test)
        for key, row in zip(side.keys(), side.times.tolist(), strict=True)  # type: ignore[union-attr, arg-type]
    }


def test_long_pieces_of_a_recording_at_unknown_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None begins before the one before it has ended, nor among those whose times are known."""
    _of_lengths(monkeypatch, a=100_000.0, b=20_000.0, c=500.0, d=5.0, e=5.0, f=5.0)
    for name in "abcdef":
        (tmp_path / f"{name}.mp4").touch()
    rows = ["a,t,", "b,t,", "c,t,1000000", "d,t,10", "e,other,", "f,third,7"]
    rows = [f"{name}.mp4,{rest}" for name, _, rest in (row.partition(",") for row in rows)]
    (tmp_path / "clips.csv").write_text("\n".join(["clip,source_video,start_s", *rows]))
    found = _times(load_videos(tmp_path, **{**SMALL, "per_video": 1}))
    starts = {key[0]: row[1] / 1_000_000 for key, row in found.items()}
    after = 1_000_500.0 + sources.APART
    assert starts == {"a": after, "b": after + 100_000 + sources.APART, "c": 1_000_000.0, "d": 10.0,
                      "e": 0.0, "f": 7.0}  # fmt: skip
    rows = [row.replace("1000000", "") for row in rows]
    (tmp_path / "clips.csv").write_text("\n".join(["clip,source_video,start_s", *rows]))
    found = _times(load_videos(tmp_path, **{**SMALL, "per_video": 1}))
    assert found["a.mp4@0.000"][1] / 1_000_000 == 15.0 + sources.APART


def test_parts_of_a_file_share_its_shots_and_it_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = _of_lengths(monkeypatch, a=60.0, b=60.0)
    looked: list[str] = []

    def detected(path: Path) -> ShotList:
        looked.append(path.name)
        return ShotList(((0.0, 30.0), (30.0, 60.0)))

    monkeypatch.setattr(shots_module, "detect_shots", detected)
    monkeypatch.setattr(shots_module, "import_extra", lambda *names: None)
    rows = [f"{name}.mp4,{x},{x + 10},{name}" for x in range(0, 60, 10) for name in "ab"]
    for name in "ab":
        (tmp_path / f"{name}.mp4").touch()
    (tmp_path / "parts.csv").write_text("\n".join(["path,start_s,end_s,source_video", *rows]))
    found = _times(load_videos(tmp_path / "parts.csv", **SMALL, hop=10.0, shots="detect"))
    shots = {(row[0], row[1] >= 30_000_000, row[3]) for row in found.values()}
    assert len(found) == 12
    assert shots == {(0, False, 0), (0, True, 1), (1, False, 100_000), (1, True, 100_001)}
    assert sorted(read) == looked == ["a.mp4", "b.mp4"]


def test_parts_after_a_day_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their names tell them apart; those of short numbers are what they were."""
    _of_lengths(monkeypatch, a=200_000.0)
    (tmp_path / "a.mp4").touch()
    rows = ["150000.1,150002.1,train", "150000.3,150002.3,test", "0.5,2.25,test", "199998,,train"]
    rows = [f"a.mp4,{row}" for row in rows]
    (tmp_path / "parts.csv").write_text("\n".join(["path,start_s,end_s,split", *rows]))
    splits = load_videos(tmp_path / "parts.csv", **{**SMALL, "per_video": 1})
    assert splits.train.keys() == [
        "a.mp4[150000.1-150002.1]@150000.100",
        "a.mp4[199998-inf]@199998.000",
    ]
    assert splits.test.keys() == [
        "a.mp4[150000.3-150002.3]@150000.300",
        "a.mp4[0.5-2.25]@0.500",
    ]


@pytest.mark.parametrize("column", ["label", "source_video", "start_s"])
def test_a_column_of_clips_in_capitals_is_named(column: str, tmp_path: Path) -> None:
    _put(tmp_path, "a.mp4")
    (tmp_path / "clips.csv").write_text(f"clip,{column.title()}\na.mp4,0\n")
    with pytest.raises(ValueError, match=f"clips.csv: write the column '{column.title()}' as"):
        listed_videos(tmp_path, None, 1)


def test_what_most_files_are(tmp_path: Path) -> None:
    photos, films = tmp_path / "photos", tmp_path / "films"
    for name in ("a/1.jpg", "a/2.JPG", "b/3.png", "b/4.mov", "b/notes.txt", "b/.5.mov"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).touch()
    message = r"photos holds 1 videos and 3 images.*images are used.*"
    with pytest.warns(RinceWarning, match=message + r"photos/clips\.csv.*by time"):
        assert not holds_videos(photos)
    with pytest.warns(RinceWarning, match="1 videos and 3 images.*videos are used"):
        assert holds_videos(photos, by_time=True)
    films.mkdir()
    for name in ("1.mp4", "1.jpg", "2.mp4", "2.jpg"):  # a thumbnail each
        (films / name).touch()
    with pytest.warns(RinceWarning, match="2 videos and 2 images.*videos are used"):
        assert holds_videos(films)
    (films / "3.jpg").touch()
    with pytest.warns(RinceWarning, match="2 videos and 3 images.*images are used"):
        assert not holds_videos(films)
    (films / "clips.csv").touch()
    assert holds_videos(films)
    for name in ("1.mp4", "2.mp4", "clips.csv"):
        (films / name).unlink()
    assert not holds_videos(films, by_time=True)  # and no warning, which would be an error


def test_folders_that_do_not_do(tmp_path: Path) -> None:
    assert not holds_videos(tmp_path)
    with pytest.raises(RinceError, match=r"no video.*\.3gp, \.avi"):
        load_videos(tmp_path)
    with pytest.raises(RinceError, match="no folder.*none"):
        load_videos(tmp_path / "none")
    _put(tmp_path, "a.mp4")
    with pytest.raises(RinceError, match="two source videos"):
        load_videos(tmp_path, **SMALL)
    _put(tmp_path, "run/b.mp4")
    with pytest.raises(RinceError, match=r"a\.mp4.*no label.*run/b\.mp4"):
        load_videos(tmp_path, **SMALL)
    (tmp_path / "a.mp4").unlink()
    for wrong in ({"frames": 0}, {"hop": 0.0}, {"cache_gb": -1.0}, {"per_video": 0}):
        with pytest.raises(ValueError, match=f"videos.{next(iter(wrong))} must be"):
            load_videos(tmp_path, **{**SMALL, **wrong})


def test_shots_from_a_table(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    _put(videos, "a.mp4", "b.mp4")
    table = tmp_path / "shots.csv"
    table.write_text("video,start_s,end_s\na.mp4,0.2,0.6\na.mp4,0,0.2\n")
    splits = load_videos(videos, **{**SMALL, "frames": 1}, shots=str(table))
    shots = {
        key: item[3]
        for side in (splits.train, splits.test)
        for key, item in zip(side.keys(), side.times.tolist(), strict=True)  # type: ignore[union-attr]
    }
    assert [shots[f"a.mp4@{t:.3f}"] for t in (0, 0.1, 0.2, 0.5)] == [0, 0, 1, 1]
    assert shots["b.mp4@0.000"] == -1
    table.write_text("video,start_s,end_s\na.mp4,0,0.5\na.mp4,0.4,1\n")
    with pytest.raises(RinceError, match=r"shots.*a\.mp4.*overlap"):
        read_shots(table)
    for bad in ("nan,1", "0,nan", "-1,1"):
        table.write_text(f"video,start_s,end_s\na.mp4,{bad}\n")
        with pytest.raises(RinceError, match=r"line 2: no seconds: "):
            read_shots(table)
    table.write_text("video,start_s,end_s\na.mp4,0,0.5\nz.mp4,0,1\n")
    with pytest.warns(RinceWarning, match=r"1 of 2 videos are not in the data: z\.mp4"):
        load_videos(videos, **SMALL, shots=str(table))
    table.write_text("video,start_s,end_s\nvideos/a.mp4,0,0.5\n")
    with pytest.raises(RinceError, match=r"1 of 1 videos are not in the data.*such as a\.mp4"):
        load_videos(videos, **SMALL, shots=str(table))
    table.write_text("video,start_s,end_s\na.mp4,0,0.2\na.mp4,0.2,9\n")
    parts = tmp_path / "videos" / "parts.csv"  # parts of a file have its shots
    parts.write_text("path,start_s\na.mp4,0.1\na.mp4,0.3\nb.mp4,\n")
    one = {**SMALL, "frames": 1}
    splits = load_videos(parts, **one, shots=str(table))
    found = {int(x[3]) % 100_000 for s in (splits.train, splits.test) for x in s.times if x[3] >= 0}  # type: ignore[union-attr]
    assert found == {0, 1}
    table.write_text("video,start\na.mp4,0\n")
    with pytest.raises(RinceError, match="no column .start_s., .end_s."):
        read_shots(table)


def test_shots_are_detected(tmp_path: Path) -> None:
    pytest.importorskip("scenedetect")
    path = write_video(tmp_path / "cut.mp4", 60, shades=[30] * 25 + [220] * 35, size=(160, 120))
    shots = detect_shots(path)
    assert [shots.shot_at(t) for t in (0.0, 2.4, 2.6, 5.9)] == [0, 0, 1, 1]
    assert detect_shots(write_video(tmp_path / "one.mp4", 30, shades=[80] * 30)).shot_at(1.0) == 0
    with pytest.raises(RinceError, match=r"detect.*shots.*none\.mp4"):
        detect_shots(tmp_path / "none.mp4")


@pytest.mark.filterwarnings("ignore:.*left out")
@pytest.mark.parametrize("name", ["a b.avi", "1 2.avi", "plain.avi"])
def test_names_with_blanks_in_split_files(name: str, tmp_path: Path) -> None:
    for label, file in (("walk", name), ("run", "c.avi")):
        (tmp_path / label).mkdir()
        (tmp_path / label / file).touch()
    for text, lists in (
        ({"trainlist01.txt": f"walk/{name} 1\n", "testlist01.txt": "run/c.avi\n"}, "ucf"),
        ({"trainlist01.txt": f"walk/{name}\n", "testlist01.txt": "run/c.avi\n"}, "no-number"),
        ({"walk_test_split1.txt": f"{name} 1\n", "run_test_split1.txt": "c.avi 2 \n"}, "hmdb"),
    ):
        (tmp_path / lists).mkdir()
        for list_name, content in text.items():
            (tmp_path / lists / list_name).write_text(content)
        sides = {x.path.name: x.test for x in listed_videos(tmp_path, str(tmp_path / lists), 1)}
        assert sides == {name: False, "c.avi": True}
    (tmp_path / "hmdb" / "walk_test_split1.txt").write_text(f"{name} 1\n{name}\nx.avi 7\n")
    with pytest.raises(RinceError, match=r"walk_test_split1\.txt: 2 bad rows.*line 2.*; line 3"):
        listed_videos(tmp_path, str(tmp_path / "hmdb"), 1)


def test_a_clip_whose_name_is_too_long_is_a_bad_row(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text(f"clip,label\n{'a' * 3000}.avi,walk\n")
    with pytest.raises(RinceError, match=r"clips\.csv: line 2: there"):
        listed_videos(tmp_path, None, 1)
