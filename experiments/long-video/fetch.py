"""Long real videos from Debian's packages, each cut in time: the first two thirds are for training.

    python experiments/long-video/fetch.py OUTPUT

Downloads three packages (180 MB; `apt-get download`, no root needed to read what is in them) and
writes OUTPUT/train/NAME.mp4 and OUTPUT/val/NAME.mp4, 160 pixels high:

- wannaworktogether.mp4 (openboard-common): Creative Commons' film of 3 minutes, drawings and many
  cuts. CC BY.
- intro.mpg (fillets-ng-data): the introduction of a game, 73 s, rendered, moving camera. GPL.
- vtest.avi (opencv-doc): people crossing a yard, 80 s, one fixed camera. BSD, with OpenCV.
- tree.avi (opencv-doc): a tree in the wind, 30 s of only 68 frames, about 0.4 s apart; written at
  the file's nominal 15 a second, they last 4.5 s. BSD.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

VIDEOS = {
    "openboard-common": ["usr/share/openboard/library/videos/wannaworktogether.mp4"],
    "fillets-ng-data": ["usr/share/games/fillets-ng/images/menu/intro.mpg"],
    "opencv-doc": [
        "usr/share/doc/opencv-doc/examples/data/vtest.avi",
        "usr/share/doc/opencv-doc/examples/data/tree.avi",
    ],
}
TRAINED = 2 / 3
HEIGHT = 160


def unpack(package: str, folder: Path) -> None:
    subprocess.run(["apt-get", "download", "-qq", package], cwd=folder, check=True)
    (file,) = folder.glob(f"{package}_*.deb")
    subprocess.run(["dpkg-deb", "-x", str(file), str(folder)], check=True)


def write(source: Path, output: Path, first: float, last: float) -> int:
    """The frames from ``first`` to ``last`` (parts of the length, in [0, 1]); how many."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(source)) as video, av.open(str(output), "w") as cut:
        stream = video.streams.video[0]
        length = float(video.duration or 0) / av.time_base
        rate = round(float(stream.average_rate or 25))
        target: Any = cut.add_stream("libx264", rate=rate)
        target.height = HEIGHT
        target.width = round(stream.width * HEIGHT / stream.height / 2) * 2
        target.pix_fmt = "yuv420p"
        written = 0
        for frame in video.decode(stream):
            if frame.time is None or not first * length <= frame.time < last * length:
                continue
            small = frame.reformat(target.width, HEIGHT, "yuv420p")
            small.pts, small.time_base = written, Fraction(1, rate)
            cut.mux(target.encode(small))
            written += 1
        cut.mux(target.encode(None))
    return written


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    output = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as name:
        for package, files in VIDEOS.items():
            unpack(package, Path(name))
            for file in files:
                source = Path(name) / file
                for part, span in (("train", (0.0, TRAINED)), ("val", (TRAINED, 2.0))):
                    target = output / part / f"{source.stem}.mp4"
                    print(target, write(source, target, *span), "frames")


if __name__ == "__main__":
    main()
