"""Frames of tiny videos, in which every frame can be told from the others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rince.core.checks import RinceError
from rince.data.video import (
    Decoder,
    VideoInfo,
    _Opened,
    probe,
    read_frames,
    require_decoder,
    torchcodec,
)

pytest.importorskip("av")

from video_files import numbers, write_video


@pytest.fixture(params=["pyav", "torchcodec"])
def decoder(request: pytest.FixtureRequest) -> Decoder:
    try:
        require_decoder(request.param)
    except ImportError as error:
        pytest.skip(str(error))
    return request.param  # type: ignore[no-any-return]


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
def test_the_frames_asked_for_and_no_others(
    tmp_path: Path, name: str, options: dict, decoder: Decoder
) -> None:
    rate = options.get("rate", 10)
    path = write_video(tmp_path / name, **options)
    info = probe(path)
    assert info.rate == pytest.approx(rate)
    assert info.seconds == pytest.approx(30 / rate, abs=0.11)
    for wanted in ([0, 1, 2], [3, 7, 20], [29], [28], [13, 14], [0, 29], [11, 11, 12]):
        clip = read_frames(path, [i / rate for i in wanted], 32, decoder=decoder)
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


def test_times_between_frames_show_the_one_before(plain: Path, decoder: Decoder) -> None:
    assert numbers(read_frames(plain, [0.55, 0.59, 0.6, 0.62], 32, decoder=decoder)) == [5, 6, 6, 6]


def test_variable_frame_rate(tmp_path: Path, decoder: Decoder) -> None:
    """Frames at 0, .1, .2, then 1.0, 2.5 and 2.6 s: each is shown until the next."""
    path = write_video(
        tmp_path / "v.mkv", 6, codec="h264", times=[0, 1, 2, 10, 25, 26], keyframes=3
    )
    clip = read_frames(path, [0.1, 0.5, 1.2, 2.4, 2.55, 2.6], 32, decoder=decoder)
    assert numbers(clip) == [1, 2, 3, 3, 4, 5]
    assert probe(path).seconds == pytest.approx(2.7, abs=0.11)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_turned_upright(tmp_path: Path, degrees: int, decoder: Decoder) -> None:
    """The black band is at the left; a quarter turn clockwise moves it to the top."""
    path = write_video(tmp_path / "turned.mp4", size=(32, 32), rotation=degrees)
    pixels = read_frames(path, [2.5], 32, decoder=decoder)[0, 0].float()
    sides = {90: pixels[:8], 180: pixels[:, -8:], 270: pixels[-8:]}
    dark = [d for d, side in sides.items() if float(side.mean()) < 40]
    assert dark == [degrees]


def test_square_and_grey(plain: Path, tmp_path: Path, decoder: Decoder) -> None:
    grey, colour = (read_frames(plain, [2.0], 16, channels, decoder) for channels in (1, 3))
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
        "text": (text, "it is damaged, or no video that FFmpeg knows"),
        "header": (header, "it is damaged, or no video that FFmpeg knows"),
        "sound": (sound, "it holds only sound"),
        "missing": (folder / "missing.mp4", "there is no such file"),
        "folder": (folder, "it is no plain file"),
        "pipe": (pipe, "it is no plain file"),
    }


@pytest.mark.parametrize("name", ["empty", "text", "header", "sound", "missing", "folder", "pipe"])
def test_files_that_cannot_be_read(tmp_path: Path, name: str, decoder: Decoder) -> None:
    path, reason = _broken(tmp_path)[name]
    message = f"cannot read {path}: {reason}.*Mend or remove the file.*images.skip_unreadable"
    for attempt in (lambda: probe(path), lambda: read_frames(path, [0.0], 16, decoder=decoder)):
        with pytest.raises(RinceError, match=message):
            attempt()


def test_a_file_that_was_cut_short(tmp_path: Path, decoder: Decoder) -> None:
    """The header comes first and still tells of 3 seconds."""
    path = write_video(tmp_path / "cut.mp4", options={"movflags": "faststart"}, size=(480, 320))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    assert probe(path) == VideoInfo(3.0, 10.0)
    assert numbers(read_frames(path, [0.0, 0.5], 32, decoder=decoder)) == [0, 5]
    with pytest.raises(RinceError, match=r"there is no frame at 2.90 s.*it was cut short"):
        read_frames(path, [2.7, 2.9], 32, decoder=decoder)
    with pytest.raises(RinceError, match=r"no frame at 2.90 s .its frames end at [12].\d+ s."):
        read_frames(path, [0.0, 2.9], 32, decoder=decoder)


def test_times_beyond_the_end(plain: Path, decoder: Decoder) -> None:
    assert numbers(read_frames(plain, [2.99], 32, decoder=decoder)) == [29]
    with pytest.raises(RinceError, match=r"no frame at 3.30 s .its frames end at 3.00 s.:"):
        read_frames(plain, [2.9, 3.3], 32, decoder=decoder)


def _need_torchcodec() -> None:
    try:
        torchcodec()
    except ImportError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("plain.mp4", {}),
        ("b.mp4", {"codec": "h264", "b_frames": 3, "keyframes": 12}),
        ("variable.mkv", {"codec": "h264", "times": [0, 1, 2, *range(10, 37)]}),
        ("late.mkv", {"codec": "h264", "times": range(5, 35)}),
        ("turned.mp4", {"rotation": 90, "size": (52, 34)}),
        ("upside-down.mp4", {"rotation": 180, "size": (50, 34)}),
        ("late.ts", {"codec": "mpeg2video", "rate": 25}),  # begins 0.04 s into the container
        ("sound-first.mkv", {"sound": True}),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_both_decoders_return_the_same(
    tmp_path: Path, name: str, options: dict, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any time of the file, also between frames; colours differ by rounding alone."""
    _need_torchcodec()
    path = write_video(tmp_path / name, **options)
    whole = (torch.rand(40, generator=torch.Generator().manual_seed(0)).sort().values) * (
        probe(path).seconds - 0.02
    )
    parts = [whole[part].tolist() for part in (slice(None), slice(20, 25), slice(39, 40))]
    expected = [read_frames(path, times, 33, channels).int() for times in parts]
    if path.suffix != ".ts":  # of which torchcodec loses the first frame, so that PyAV takes over
        monkeypatch.setattr(_Opened, "shown_at", None)
    for times, frames in zip(parts, expected, strict=True):
        found = read_frames(path, times, 33, channels, "torchcodec").int()
        assert int((found - frames).abs().max()) <= 4  # one frame further is 5


@pytest.mark.parametrize("fault", ["fails", "loses one"])
def test_pyav_goes_on_where_torchcodec_fails(
    plain: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _need_torchcodec()
    decoders = torchcodec().decoders
    real, asked = decoders.VideoDecoder, []

    class Faulty:
        def __init__(self, *given: object, **named: object) -> None:
            self._decoder = real(*given, **named)

        def get_frame_at(self, number: int) -> object:
            asked.append(number)
            if len(asked) == 3 and fault == "fails":
                raise RuntimeError("Could not push packet to decoder")
            return self._decoder.get_frame_at(number + (len(asked) == 3))

    monkeypatch.setattr(decoders, "VideoDecoder", Faulty)
    clip = read_frames(plain, [0.4, 0.8, 1.2, 1.6, 2.0], 32, decoder="torchcodec")
    assert numbers(clip) == [4, 8, 12, 16, 20]
    assert asked == [4, 8, 12]


def test_what_torchcodec_lacks(monkeypatch: pytest.MonkeyPatch, plain: Path) -> None:
    """It is not installed, or is another release; and no decoder of another name."""
    with pytest.raises(ValueError, match="videos.decoder must be pyav or torchcodec, got 'decord'"):
        read_frames(plain, [0.0], 16, decoder="decord")  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "torchcodec", type(sys)("torchcodec"))
    with pytest.raises(ImportError, match=r"cannot decode videos here: module .*Install FFmpeg"):
        read_frames(plain, [0.0], 16, decoder="torchcodec")
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    with pytest.raises(ImportError, match=r"pip install 'rince\[torchcodec\]'"):
        read_frames(plain, [0.0], 16, decoder="torchcodec")


@pytest.mark.skipif(sys.platform != "linux", reason="hides the libraries as Linux finds them")
def test_torchcodec_without_ffmpeg(tmp_path: Path) -> None:
    """Empty files in place of FFmpeg's libraries, in a process of its own."""
    _need_torchcodec()
    for name in ("avutil", "avcodec", "avformat"):
        for release in range(50, 70):
            (tmp_path / f"lib{name}.so.{release}").touch()
    code = "from rince.data.video import require_decoder; require_decoder('torchcodec')"
    hidden = os.environ | {"LD_LIBRARY_PATH": str(tmp_path)}
    found = subprocess.run([sys.executable, "-c", code], env=hidden, capture_output=True, text=True)
    assert "ImportError: torchcodec cannot decode videos here: it finds no FFmpeg" in found.stderr
    assert "or take --videos.decoder pyav" in found.stderr
