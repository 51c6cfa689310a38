"""Tiny videos in which every frame can be told: frame i is i * 5 bright, its upper left half so."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def write_video(
    path: Path,
    frames: int = 30,
    *,
    rate: int = 10,
    size: tuple[int, int] = (48, 32),
    codec: str = "mpeg4",
    times: Sequence[int] | None = None,
    keyframes: int = 6,
    b_frames: int = 0,
    sound: bool = False,
    rotation: int = 0,
    options: dict[str, str] | None = None,
    shades: Sequence[int] | None = None,
    title: str = "",
) -> Path:
    """Grey frames of brightness 5 i, the left third black.

    Args:
        size: (width, height). times: of the frames, in 1/rate seconds; None: 0, 1, 2, ...
        keyframes: one in so many. sound: a silent track of 3 s more than the picture.
        shades: brightness of each frame, in place of 5 i.
    """
    import av

    with av.open(str(path), "w", options=options or {}) as container:
        container.metadata["title"] = title
        if frames:
            stream = container.add_stream(codec, rate=rate)
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p"
            stream.bit_rate = 4_000_000
            stream.gop_size = keyframes
            stream.max_b_frames = b_frames
            if codec == "mpeg4":
                stream.codec_context.qmin = 1
            stream.codec_context.time_base = Fraction(1, rate)
        if sound:
            audio = container.add_stream("aac", rate=16000)
            audio.layout = "mono"
        for i in range(frames):
            shade = 5 * i if shades is None else shades[i]
            pixels = np.full((size[1], size[0], 3), shade, np.uint8)
            pixels[:, : size[0] // 3] = 0
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = i if times is None else times[i]
            frame.time_base = Fraction(1, rate)
            container.mux(stream.encode(frame))
        if frames:
            container.mux(stream.encode())
        if sound:
            for i in range(int((frames / rate + 3) * 16000 / 1024)):
                silence = av.AudioFrame.from_ndarray(
                    np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
                )
                silence.sample_rate, silence.pts = 16000, i * 1024
                silence.time_base = Fraction(1, 16000)
                container.mux(audio.encode(silence))
            container.mux(audio.encode())
    if rotation:
        turn(path, rotation)
    return path


def turn(path: Path, degrees: int) -> None:
    """Write a rotation into the matrix of an mp4's picture track (its tkhd box), as phones do."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 4 + 4 + 4 + 4 + 4 + 8 + 2 + 2 + 2 + 2
    cos, sin = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    matrix = (cos, sin, 0, -sin, cos, 0, 0, 0)
    values = [int(x * 65536) for x in matrix] + [1 << 30]
    data[at : at + 36] = b"".join(x.to_bytes(4, "big", signed=True) for x in values)
    path.write_bytes(data)


def edit(path: Path, begin: float, seconds: float) -> Path:
    """Let the edit list of an mp4 show the picture from ``begin`` on, for so long, as phones do."""
    data = bytearray(path.read_bytes())

    def units(box: bytes) -> int:
        place = data.index(box) + 16
        return int.from_bytes(data[place : place + 4], "big")

    at = data.index(b"elst") + 12
    data[at : at + 4] = round(seconds * units(b"mvhd")).to_bytes(4, "big")
    data[at + 4 : at + 8] = round(begin * units(b"mdhd")).to_bytes(4, "big")
    path.write_bytes(data)
    return path


def numbers(clip: Tensor) -> list[int]:
    """Which frames these are: (C, T, S, S) uint8 of a video by :func:`write_video`."""
    bright = clip.float().amax(dim=0)[:, :, -4:].mean(dim=(1, 2))  # (T,)
    found: list[int] = torch.round(bright / 5).int().tolist()
    return found
