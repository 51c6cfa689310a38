"""Small real data in the layout that each recipe of docs/recipes/ begins with.

Only what Python, scikit-learn and Debian's Fashion-MNIST ship; nothing is fetched.
"""

from __future__ import annotations

import csv
import importlib
import inspect
import pydoc
from pathlib import Path

import numpy as np
from PIL import Image

from rince import Taxonomy

DIGITS = {"round": (0, 6, 8, 9), "straight": (1, 4, 7), "curved": (2, 3, 5)}
MODULES = {
    "network": ("socket", "smtplib", "ssl"),
    "numbers": ("math", "statistics", "fractions"),
    "files": ("shutil", "pathlib", "zipfile"),
    "time": ("datetime", "calendar"),
}


def photos(folder: Path, per_class: int = 12) -> None:
    """photos/GROUP/DIGIT/*.png: scikit-learn's handwritten digits, 8 x 8 pixels."""
    from sklearn.datasets import load_digits

    images, digits = load_digits().images, load_digits().target
    for group, members in DIGITS.items():
        for digit in members:
            place = folder / "photos" / group / str(digit)
            place.mkdir(parents=True)
            for i in np.flatnonzero(digits == digit)[:per_class]:
                pixels = (images[i] * 255 / 16).astype(np.uint8)
                Image.fromarray(pixels).resize((32, 32)).save(place / f"{i:04}.png")


def products(folder: Path, source: Path, per_class: int = 12) -> None:
    """shop/*.png and products.csv (photo, department, category): garments of Fashion-MNIST."""
    import gzip

    tree = Taxonomy.fashion_mnist()
    pixels, labels = (
        np.frombuffer(gzip.decompress((source / name).read_bytes()), np.uint8)[header:]
        for name, header in (
            ("t10k-images-idx3-ubyte.gz", 16),
            ("t10k-labels-idx1-ubyte.gz", 8),
        )
    )
    rows = [("sku", "photo", "department", "category")]
    (folder / "shop").mkdir()
    for label, path in enumerate(tree.paths):
        department = path[-2] if len(path) > 1 else ""
        for i in np.flatnonzero(labels == label)[:per_class]:
            Image.fromarray(pixels.reshape(-1, 28, 28)[i]).save(folder / "shop" / f"{i:05}.png")
            rows.append((f"A{i:05}", f"shop/{i:05}.png", department, path[-1]))
    _write(folder / "products.csv", rows)


def tickets(folder: Path, per_class: int = 4) -> None:
    """tickets.csv (number, body, area, issue): first lines of docstrings, by group and module."""
    rows = [("number", "body", "area", "issue")]
    for area, modules in MODULES.items():
        for name in modules:
            texts = sorted(_docstrings(name))[:per_class]
            rows += [(str(1000 + len(rows) + i), text, area, name) for i, text in enumerate(texts)]
    _write(folder / "tickets.csv", rows)


def _docstrings(name: str) -> set[str]:
    found, module = set(), importlib.import_module(name)
    for member in vars(module).values():
        if getattr(member, "__module__", None) not in (name, f"_{name}", f"{name}._local"):
            continue
        for each in (member, *(vars(member).values() if inspect.isclass(member) else ())):
            text = " ".join((inspect.getdoc(each) or "").split("\n\n")[0].split())
            if " " in text and len(text) >= 25 and "->" not in text:
                found.add(text)
    return found


def search_log(folder: Path) -> None:
    """log.csv (query, document, grade): the topics of Python's help().

    The page on a topic has grade 2, the pages on its "related help topics" grade 1.
    """
    from pydoc_data.topics import topics as texts

    entries = {**pydoc.Helper.keywords, **pydoc.Helper.topics}

    def page(word: str) -> str | None:
        entry = entries.get(word, "")
        if isinstance(entry, str):  # the name of another entry, or nothing
            return page(entry) if entry else None
        text = texts.get(entry[0])
        return " ".join(text.split()[:12]) if text else None

    rows = [("query", "document", "grade")]
    for word, entry in list(entries.items())[::6]:
        if not isinstance(entry, tuple) or not page(word):
            continue
        graded = {page(other): "1" for other in entry[1].split()} | {page(word): "2"}
        rows += [(word.lower(), text, grade) for text, grade in graded.items() if text]
    _write(folder / "log.csv", rows)


def videos(folder: Path, frames: int = 32) -> None:
    """videos/*.mp4: a camera that moves over parts of scikit-learn's two photographs."""
    import av
    from sklearn.datasets import load_sample_images

    (folder / "videos").mkdir()
    for number, photo in enumerate(load_sample_images().images):
        for row in (0, 130, 260):  # of 427
            with av.open(str(folder / "videos" / f"pan{number}{row:03}.mp4"), "w") as file:
                stream = file.add_stream("mpeg4", rate=2)  # 16 s
                stream.width = stream.height = 160
                stream.pix_fmt = "yuv420p"
                for frame in range(frames):
                    left = frame * 12 % 480
                    part = np.ascontiguousarray(photo[row : row + 160, left : left + 160])
                    file.mux(stream.encode(av.VideoFrame.from_ndarray(part, format="rgb24")))
                file.mux(stream.encode())


def features(folder: Path, per_class: int = 30) -> None:
    """features.npz and items.csv (name, group, class): the 64 pixels of a digit as its vector."""
    from sklearn.datasets import load_digits

    data = load_digits()
    kept = np.concatenate([np.flatnonzero(data.target == d)[:per_class] for d in range(10)])
    names = [f"digit-{i:04}" for i in kept]
    groups = {str(d): group for group, members in DIGITS.items() for d in members}
    np.savez(folder / "features.npz", embeddings=data.data[kept].astype(np.float32), paths=names)
    rows = [("name", "group", "class")]
    rows += [
        (name, groups[str(d)], str(d)) for name, d in zip(names, data.target[kept], strict=True)
    ]
    _write(folder / "items.csv", rows)


def _write(file: Path, rows: list[tuple[str, ...]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)
