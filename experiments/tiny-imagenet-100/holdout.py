"""A tree for tuning: Tiny-ImageNet-100's training images, a fifth of them as the test split.

    python experiments/tiny-imagenet-100/holdout.py TINY_IMAGENET_100 TUNING

Choices (learning rates, temperatures, epochs) are made on TUNING; the real test images are used
once, for the tables. Links, no copies. Which images are held out follows from their contents
(blake2b), so it is the same everywhere, and copies of an image stay together.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

HELD_OUT = 5  # every fifth one


def main(source: Path, target: Path) -> None:
    for image in sorted((source / "train").glob("*/*/*.JPEG")):
        digest = hashlib.blake2b(image.read_bytes(), digest_size=8).digest()
        split = "val" if int.from_bytes(digest, "big") % HELD_OUT == 0 else "train"
        link = target / split / image.relative_to(source / "train")
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(image.resolve())


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
