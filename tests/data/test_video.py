"""Frames of tiny videos, in which every frame can be told from the others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from rince.core.checks import RinceError
from rince.data.video.cuts import cut
from rince.data.video.decode import VideoInfo, probe, read_frames

pytest.importorskip("av")

from video_files import edit, numbers, write_video


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("plain") / "plain.mp4")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("plain.mp4", {}),
        ("b.mp4", {"codec": "h264", "b_frames": 3, "keyframes": 12}),
        ("no-length-in-the-header.mkv", {"codec": "h264"}),
        ("with-sound.mp4", {"sound": True}),
        ("old.avi", {}),
        ("transport.ts", {"codec": "mpeg2video", "rate": 25}),
        ("late-keys.ts", {"codec": "mpeg2video", "rate": 25, "keyframes": 12, "b_frames": 2}),
    ],
)
def test_the_frames_asked_for_and_no_others(tmp_path: Path, name: str, options: dict) -> None:
    rate = options.get("rate", 10)
    path = write_video(tmp_path / name, **options)
    info = probe(path)
    assert info.rate == pytest.approx(rate)
    assert info.seconds == pytest.approx(30 / rate, abs=0.11)
    for wanted in ([0, 1, 2], [3, 7, 20], [29], [28], [13, 14], [0, 29], [11, 11, 12]):
        clip = read_frames(path, [i / rate for i in wanted], 32)
        assert clip.shape == (3, len(wanted), 32, 32)
        assert clip.dtype == torch.uint8
        assert numbers(clip) == wanted


def test_only_what_is_needed_is_decoded(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import av

    decoded = []
    real = av.open
    with real(str(plain)) as container:
        keys = [round(p.pts * p.time_base * 10) for p in container.demux(video=0) if p.is_keyframe]
    assert len(keys) > 3

    class Watched:
        def __init__(self, *given: object, **named: object) -> None:
            self._container = real(*given, **named)  # type: ignore[arg-type]

        def __getattr__(self, name: str) -> object:
            return getattr(self._container, name)

        def decode(self, stream: object):  # type: ignore[no-untyped-def]
            for frame in self._container.decode(stream):
                decoded.append(round(frame.time * 10))
                yield frame

    monkeypatch.setattr(av, "open", Watched)
    assert numbers(read_frames(plain, [1.4, 1.5], 32)) == [14, 15]
    last_key = max(key for key in keys if key <= 14)
    assert decoded == list(range(last_key, 17))  # until 15 is known to be over


def test_times_between_frames_show_the_one_before(plain: Path) -> None:
    assert numbers(read_frames(plain, [0.55, 0.59, 0.6, 0.62], 32)) == [5, 6, 6, 6]


def test_variable_frame_rate(tmp_path: Path) -> None:
    """Frames at 0, .1, .2, then 1.0, 2.5 and 2.6 s: each is shown until the next."""
    path = write_video(
        tmp_path / "v.mkv", 6, codec="h264", times=[0, 1, 2, 10, 25, 26], keyframes=3
    )
    clip = read_frames(path, [0.1, 0.5, 1.2, 2.4, 2.55, 2.6], 32)
    assert numbers(clip) == [1, 2, 3, 3, 4, 5]
    assert probe(path).seconds == pytest.approx(2.7, abs=0.11)


EVERY_TENTH = [i / 10 for i in range(30)]
SLOWER = [i / 10 for i in range(10)] + [1 + i / 2 for i in range(10)]
BROWSER = {"rate": 1000, "times": [round(1000 * t) for t in EVERY_TENTH]}
KEPT = {"avoid_negative_ts": "disabled"}

# What is written -> when its frames are shown, and which is the first.
LYING: dict[str, tuple[dict[str, Any], list[float], int]] = {
    "browser.webm": ({"codec": "libvpx", **BROWSER}, EVERY_TENTH, 0),
    "browser.mkv": ({"codec": "mpeg4", **BROWSER}, EVERY_TENTH, 0),
    "browser.mp4": ({"codec": "h264", **BROWSER}, EVERY_TENTH, 0),
    "too-fast.webm": (
        {"codec": "libvpx", "frames": 20, "rate": 30, "times": [6 * i for i in range(20)]},
        [i / 5 for i in range(20)],
        0,
    ),
    "variable.mp4": ({"codec": "h264", "frames": 20, "times": [round(10 * t) for t in SLOWER]},
                     SLOWER, 0),
    "variable.mkv": ({"codec": "h264", "frames": 20, "times": [round(10 * t) for t in SLOWER]},
                     SLOWER, 0),
    "negative.mkv": ({"times": range(-7, 23), "options": KEPT}, EVERY_TENTH, 0),
    "negative.avi": ({"times": range(-7, 23), "options": KEPT}, EVERY_TENTH, 0),
    # An mp4 shows nothing before its time 0.
    "negative.mp4": ({"times": range(-7, 23), "options": KEPT}, EVERY_TENTH[:23], 7),
    "late.mp4": ({"times": range(20, 50)}, EVERY_TENTH, 0),
    "late.mkv": ({"times": range(20, 50), "codec": "h264"}, EVERY_TENTH, 0),
    "edited.mp4": ({}, EVERY_TENTH[:15], 10),
}  # fmt: skip


@pytest.mark.parametrize("name", LYING)
def test_a_clip_spans_the_seconds_that_it_says(name: str, tmp_path: Path) -> None:
    """Whatever the header says of rate and start: by the frames' own times."""
    options, times, first = LYING[name]
    path = write_video(tmp_path / name, **options)
    if name == "edited.mp4":
        edit(path, 1.0, 1.5)
    info = probe(path)
    mean = (times[-1] - times[0]) / (len(times) - 1)
    assert info.rate == pytest.approx(1 / mean, rel=0.05 + 1 / len(times))
    assert times[-1] < info.seconds <= times[-1] + 1.6 * mean
    starts, step, span = cut(info, frames=4, stride=2)
    assert step == pytest.approx(2 * mean, rel=0.1)
    assert len(starts) == int((info.seconds + 1e-6) / span) >= 2
    for start in starts:
        shown = [start + i * step for i in range(4)]
        expected = [max(i for i, t in enumerate(times) if t <= x + 0.2 * mean) for x in shown]
        near = [
            any(abs(x + 0.25 / info.rate - t) < 0.1 * mean for t in times) for x in shown
        ]  # on the border of a frame either is right
        found = [n - first for n in numbers(read_frames(path, shown, 32))]
        assert all(abs(a - b) <= c for a, b, c in zip(found, expected, near, strict=True)), name


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_turned_upright(tmp_path: Path, degrees: int) -> None:
    """The black band is at the left; a quarter turn clockwise moves it to the top."""
    path = write_video(tmp_path / "turned.mp4", size=(32, 32), rotation=degrees)
    pixels = read_frames(path, [2.5], 32)[0, 0].float()
    sides = {90: pixels[:8], 180: pixels[:, -8:], 270: pixels[-8:]}
    dark = [d for d, side in sides.items() if float(side.mean()) < 40]
    assert dark == [degrees]


def test_square_and_grey(plain: Path, tmp_path: Path) -> None:
    grey, colour = (read_frames(plain, [2.0], 16, channels) for channels in (1, 3))
    assert grey.shape == (1, 1, 16, 16)
    assert float(grey[0, 0, :, -8:].float().mean()) == pytest.approx(100, abs=4)
    # 48 x 32 shrinks to 24 x 16, of which the middle 16 columns: the black third shows in 4.
    dark = (colour[0, 0].float().mean(dim=0) < 50).nonzero()[:, 0].tolist()
    assert dark == [0, 1, 2, 3]
    tall = write_video(tmp_path / "tall.mp4", size=(32, 64))
    assert read_frames(tall, [0.0], 24).shape == (3, 1, 24, 24)
    assert read_frames(tall, [0.0], 50).shape == (3, 1, 50, 50)  # enlarged


def _broken(folder: Path) -> dict[str, tuple[Path, str]]:
    """name -> file and why it cannot be read."""
    empty, text, header = folder / "empty.mp4", folder / "text.mp4", folder / "header.mp4"
    empty.touch()
    text.write_text("no video at all\n" * 100)
    whole = write_video(folder / "whole.mp4").read_bytes()
    header.write_bytes(whole[:600])
    sound = write_video(folder / "sound.mp4", 0, sound=True)
    pipe = folder / "pipe.mp4"
    os.mkfifo(pipe)
    return {
        "empty": (empty, r"it is empty \(0 bytes\)"),
        "text": (text, "it is damaged, or FFmpeg"),
        "header": (header, "it is damaged, or FFmpeg"),
        "sound": (sound, "it holds only sound"),
        "missing": (folder / "missing.mp4", "there is no such file"),
        "folder": (folder, "it is not a plain file"),
        "pipe": (pipe, "it is not a plain file"),
    }


@pytest.mark.parametrize("name", ["empty", "text", "header", "sound", "missing", "folder", "pipe"])
def test_files_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    path, reason = _broken(tmp_path)[name]
    message = f"cannot read {path}: {reason}.*Fix or remove the file.*--skip-unreadable"
    for attempt in (lambda: probe(path), lambda: read_frames(path, [0.0], 16)):
        with pytest.raises(RinceError, match=message):
            attempt()


def test_a_file_that_was_cut_short(tmp_path: Path) -> None:
    """The header comes first and still tells of 3 seconds."""
    path = write_video(tmp_path / "cut.mp4", options={"movflags": "faststart"}, size=(480, 320))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    assert probe(path) == VideoInfo(3.0, 10.0)
    assert numbers(read_frames(path, [0.0, 0.5], 32)) == [0, 5]
    with pytest.raises(RinceError, match=r"no frame.*\b2\.90 s.*cut short"):
        read_frames(path, [2.7, 2.9], 32)
    with pytest.raises(RinceError, match=r"\b2\.90 s .* [12]\.\d+ s\)"):
        read_frames(path, [0.0, 2.9], 32)


def test_damage_in_the_middle_is_told_with_its_time(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", shades=[8 * i for i in range(30)], keyframes=6)
    import av

    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    content = bytearray(path.read_bytes())
    for place, size in packets[12:18]:
        content[place : place + size] = bytes(size)
    path.write_bytes(content)
    assert probe(path) == VideoInfo(3.0, 10.0)
    assert len(numbers(read_frames(path, [0.0, 1.0], 16))) == 2
    assert len(numbers(read_frames(path, [2.0, 2.9], 16))) == 2
    message = rf"cannot read {path}: it is damaged at 1\.40 to 1\.60 s.*--skip-unreadable"
    with pytest.raises(RinceError, match=message):
        read_frames(path, [1.4, 1.6], 16)


def test_a_title_that_is_no_unicode(tmp_path: Path) -> None:
    file = tmp_path / "a.mp4"
    write_video(file, title="TITLE")
    assert b"TITLE" in file.read_bytes()
    file.write_bytes(file.read_bytes().replace(b"TITLE", b"\xe9\xff\xfeLE"))
    assert probe(file).seconds > 0


def test_times_beyond_the_end(plain: Path) -> None:
    assert numbers(read_frames(plain, [2.99], 32)) == [29]
    with pytest.raises(RinceError, match=r"\b3\.30 s .* 3\.00 s\)"):
        read_frames(plain, [2.9, 3.3], 32)
