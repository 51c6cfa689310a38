"""Tiny-ImageNet-200 as it is distributed, linked into class folders that carry names.

    python experiments/tiny-imagenet/arrange.py tiny-imagenet-200 TINY_IMAGENET

Reads train/WNID/images/*.JPEG, val/images/*.JPEG with val/val_annotations.txt, and words.txt;
writes links TINY_IMAGENET/{train,val}/"WNID first name"/*.JPEG. Images are not copied.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main(source: Path, target: Path) -> None:
    for needed in ("train", "val/val_annotations.txt", "words.txt"):
        if not (source / needed).exists():
            sys.exit(f"{source} is not Tiny-ImageNet-200 as distributed: it has no {needed}")
    lines = (source / "words.txt").read_text(encoding="utf-8").splitlines()
    names = dict(line.split("\t", 1) for line in lines if "\t" in line)
    train = sorted((source / "train").glob("*/images/*.JPEG"))
    places = [(path, "train", path.parts[-3]) for path in train]
    for line in (source / "val" / "val_annotations.txt").read_text().splitlines():
        file, wnid = line.split("\t")[:2]
        places.append((source / "val" / "images" / file, "val", wnid))
    for image, split, wnid in places:
        name = names.get(wnid, "").split(",")[0].strip().replace("/", " ")
        link = target / split / f"{wnid} {name}".strip() / image.name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(image.resolve())
    print(f"{len(places)} images in {target}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
