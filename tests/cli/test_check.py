"""``rince check``: all that is wrong with a data set, and the same list from the other verbs."""

from __future__ import annotations

import os
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refusals import refusal
from rince.cli.main import main
from rince.core.checks import RinceWarning
from rince.data.image.kind import IMAGES
from rince.training.config import ImageOptions, TrainConfig
from rince.training.splits import with_data


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Thirty images of two classes, twelve of them broken in three ways, and what is none."""
    for index in range(30):
        file = tmp_path / "photos" / "pet" / ("cat" if index % 2 else "dog") / f"{index:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 16), index, np.uint8)).save(file)
        if index < 12:
            content = file.read_bytes()
            file.write_bytes((b"", b"no image", content[:45])[index % 3])
    return tmp_path / "photos"


def test_every_broken_image_is_listed_and_the_status_is_one(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(photos)]) == 1
    out, err = capsys.readouterr()
    assert sorted(Path(line.partition(": ")[0]).name for line in out.splitlines()) == [
        f"{index:02}.png" for index in range(12)
    ]
    assert "12 that cannot" in err
    assert "--skip-unreadable" in err


@pytest.mark.parametrize("split", [False, True])
def test_class_folders_without_an_image_are_listed_with_the_broken_images(
    split: bool, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path if split else photos
    if split:
        photos.rename(tmp_path / "test")
        for name in ("dog", "cat"):
            (tmp_path / "train" / "pet" / name).mkdir(parents=True)
            Image.new("L", (16, 16)).save(tmp_path / "train" / "pet" / name / "a.png")
        (tmp_path / "train" / "pet" / "fox").mkdir()
    else:
        (photos / "pet" / "fox").mkdir()
    assert main(["check", str(folder)]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 13
    assert f"pet{os.sep}fox is empty: a class folder needs" in out
    assert "13 that cannot" in err
    shown = refusal(["ranks", str(folder)], capsys)
    assert "fox is empty" in shown
    assert "12 of" in shown
    assert "12 of" not in refusal(["ranks", str(folder), "--skip-unreadable"], capsys)


@pytest.mark.parametrize("verb", ["ranks", "train"])
def test_other_verbs_refuse_with_the_same_list_before_anything_else(
    verb: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--output", str(tmp_path / "runs")] if verb == "train" else []
    shown = refusal([verb, str(photos), *where], capsys)
    assert "12 of 30 images" in shown
    assert "(and 2 more)" in shown
    assert not (tmp_path / "runs").exists()


def test_ranks_leaves_them_out_when_asked(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(RinceWarning, match="12 of 30 images.*left out"):
        assert main(["ranks", str(photos), "--skip-unreadable"]) == 0
    assert "training images" in capsys.readouterr().out


def test_good_data(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index in range(12):
        (photos / "pet" / ("cat" if index % 2 else "dog") / f"{index:02}.png").unlink()
    (photos / "pet" / "dog" / "notes.txt").touch()
    with pytest.warns(RinceWarning, match=r"18 images.*1 \.txt"):
        assert main(["check", str(photos)]) == 0
    assert "14 training images and 4 test images of 2 classes" in capsys.readouterr().out


@pytest.mark.parametrize(("size", "advised"), [(63, ""), (64, "64"), (96, "224")])
def test_images_larger_than_they_are_fed_are_named_once_with_the_option(
    size: int, advised: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, table, shard = (tmp_path / name for name in ("photos", "photos.csv", "photos.tar"))
    with tarfile.open(shard, "w") as tar:
        for index in range(4):
            file = folder / ("a" if index % 2 else "b") / f"{index}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (size + 9, size)).save(file)
            tar.add(file, f"{index}.png")
            label = file.with_name(f"{index}.cls")
            label.write_text(file.parent.name)
            tar.add(label, label.name)
            label.unlink()
    assert main(["table", str(folder), "-o", str(table)]) == 0
    capsys.readouterr()
    told = [f"({size + 9} x {size} pixels) are scaled down to 32", f"--images.image-size {advised}"]
    for data in (folder, table, shard):
        config = TrainConfig(str(data), images=ImageOptions(workers=0))
        with_data(config, None)  # as a training asks for it
        with_data(replace(config, images=ImageOptions(image_size=32)), None)
        trained = capsys.readouterr().out
        assert main(["check", str(data)]) == 0
        checked = capsys.readouterr().out.splitlines()
        assert trained.splitlines() == checked[1:]
        assert len(checked) == 1 + bool(advised)
        assert not advised or all(fact in trained for fact in told)


@pytest.mark.parametrize("large", [1, 3, 4, 7])
def test_the_note_on_sizes_is_about_most_images(
    large: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, table, shard = (tmp_path / name for name in ("photos", "photos.csv", "photos.tar"))
    with tarfile.open(shard, "w") as tar:
        for index in range(7):  # the large ones first
            size = (86, 111 + index) if index < large else (32, 32)
            file = folder / ("a" if index < 4 else "b") / f"{index}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", size).save(file)
            tar.add(file, f"{index}.png")
    assert main(["table", str(folder), "-o", str(table)]) == 0
    for data in (folder, table, shard):
        note = IMAGES.advice(str(data), TrainConfig(str(data)))
        assert "pixels, in the median) are scaled down" in note if large > 3 else note == ""


def test_of_many_images_some_from_all_over_are_looked_at(tmp_path: Path) -> None:
    for index in range(230):
        file = tmp_path / "photos" / ("a" if index < 100 else "b") / f"{index:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (90, 90) if index < 100 else (32, 32)).save(file)
    assert main(["table", str(tmp_path / "photos"), "-o", str(tmp_path / "photos.csv")]) == 0
    for data in (tmp_path / "photos", tmp_path / "photos.csv"):
        assert IMAGES.advice(str(data), TrainConfig(str(data))) == ""


@pytest.mark.parametrize("verb", ["check", "ranks"])
def test_the_bits_that_the_warning_advises(verb: str, tmp_path: Path) -> None:
    for index in range(4):
        file = tmp_path / "scans" / ("a" if index % 2 else "b") / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("I;16", (4, 4), 4095).save(file)
    given = [verb, str(tmp_path / "scans")]
    with pytest.warns(RinceWarning, match=r"12 bits.*images\.bits"):
        assert main(given) == 0
    assert main([*given, "--images.bits", "12"]) == 0


def test_all_rows_of_a_table_and_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"t{i},{'' if i % 2 else 'a'}" for i in range(40)]
    (tmp_path / "texts.csv").write_text("text,label\n" + "\n".join(rows))
    assert main(["check", str(tmp_path / "texts.csv")]) == 1
    assert len(capsys.readouterr().out.splitlines()) == 20
    (tmp_path / "classes.csv").write_text("class,group\nhusky,dog\nmanx,cat\n")
    assert main(["check", str(tmp_path / "classes.csv")]) == 0
    assert "2 classes" in capsys.readouterr().out
    (tmp_path / "edges.csv").write_text("child,parent\nhusky,dog\npug,dog\nmanx,cat\n")
    assert main(["check", str(tmp_path / "edges.csv")]) == 0
    assert "3 classes" in capsys.readouterr().out
    assert main(["ranks", str(tmp_path / "edges.csv")]) == 0
    assert "classes: 3, ranks: 2" in capsys.readouterr().out


def test_videos_that_end_early_or_are_short(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("av", reason="needs the extra video")
    from video_files import write_video

    for name in ("a/1", "a/2", "b/3", "b/4", "b/5"):
        file = tmp_path / "videos" / f"{name}.avi"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_video(file, 2 if name == "b/5" else 40)
    # Its header is whole.
    cut = write_video(tmp_path / "videos" / "a" / "6.mp4", options={"movflags": "faststart"})
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    (tmp_path / "videos" / "b" / "4.avi").write_bytes(b"")
    options = ["--videos.frames", "4", "--videos.stride", "2", "--videos.cache-gb", "0"]
    for verb in ("check", "ranks"):
        assert main([verb, str(tmp_path / "videos"), *options]) == 1
        out, err = capsys.readouterr()
        for name in ("4.avi", "5.avi", "6.mp4"):
            assert name in (out if verb == "check" else err)
        assert ("3 that cannot" if verb == "check" else "3 of 6 videos") in err
