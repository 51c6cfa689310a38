"""Names of any kind come through every reader and writer, and many files leave nothing open."""

from __future__ import annotations

import csv
import os
import re
import resource
import tempfile
import unicodedata
import warnings
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from loaders import load_dataset
from rince.core.files import passed_over
from rince.core.input_spec import InputSpec
from rince.core.tables import as_cell
from rince.data import from_arrays
from rince.data.batches import TrainLoader, eval_batches
from rince.data.image.decode import fitted_batches
from rince.data.image.files import FileImages, image_files
from rince.data.kinds import folder_table
from rince.data.plan import BatchPlan
from rince.evaluation.embeddings import embed, load_embeddings, save_embeddings
from rince.evaluation.features import extract_features
from rince.models.exported import ImageEncoder
from rince.ranks import Taxonomy
from rince.ranks.readers import composed

# Blanks of all kinds, points, numbers, accents in both forms, quotes, separators, line separators.
CHARACTERS = "aZ09 .-_,;'\"#%@()é\u0301ßあ\u2028\x85\u00a0\t"
NAMES = st.text(st.sampled_from(CHARACTERS), min_size=1, max_size=8)


def encoder(classes: tuple[tuple[str, ...], ...]) -> ImageEncoder:
    torch.manual_seed(0)
    return ImageEncoder(
        module=nn.Sequential(nn.Flatten(), nn.Linear(64, 3)),
        backbone=None,
        output_dim=3,
        embedding_dim=None,
        num_heads=1,
        spec=InputSpec.images(1, 8),
        mean=(0.5,),
        std=(0.25,),
        class_paths=classes,
    )


@settings(max_examples=60, deadline=None)
@given(classes=st.lists(NAMES, min_size=2, max_size=3), files=st.lists(NAMES, min_size=2))
@example(classes=["1.0", "01"], files=["1", "1.0"])
@example(classes=["cafe\u0301", " b c "], files=["e\u0301", "é"])
@example(classes=["a,b", 'q"'], files=["x;y", "\u2028"])
def test_names_of_classes_and_files_come_through_trees_tables_embeddings_and_exports(
    classes: list[str], files: list[str]
) -> None:
    keep = [name for name in classes if composed(name) and not passed_over(name)]
    try:  # two that look the same are refused, which has tests of its own
        tree = Taxonomy([("group", composed(name)) for name in keep])
    except ValueError:
        assume(False)
    assume(len(keep) > 1)
    assume(not any(re.fullmatch(r"-\d+(\.0*)?", composed(name)) for name in keep))  # warned of
    names = {f"{name}{i}.png" for i, name in enumerate(files) if not passed_over(name)}
    assume(len({unicodedata.normalize("NFC", name) for name in names}) == len(names) > 1)
    with tempfile.TemporaryDirectory() as where, warnings.catch_warnings():
        warnings.simplefilter("error")
        root = Path(where, "data")
        for label, name in enumerate(keep):
            folder = root / "group" / name
            folder.mkdir(parents=True)
            for file in names:
                Image.new("L", (8, 8), label).save(folder / file)
        images = FileImages.from_folder(root, channels=1)
        assert sorted(images.taxonomy.classes) == sorted(tree.classes)
        assert sorted({os.path.basename(path) for path in images.paths}) == sorted(names)

        header, rows = folder_table(str(root), Path(where, "items.csv"))
        with Path(where, "items.csv").open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream, lineterminator="\n").writerows([header, *rows])
        table = load_dataset(Path(where, "items.csv"), channels=1, cache=False, image_size=8)
        assert sorted(table.train.taxonomy.classes) == sorted(tree.classes)
        sides: list[Any] = [table.train, table.test]
        read = sorted(os.path.realpath(path) for side in sides for path in side.paths)
        assert read == sorted(map(os.path.realpath, images.paths))
        for side in sides:  # each file under its own class
            for index in range(len(side)):
                name = side.taxonomy.classes[int(side.labels[index])]
                assert composed(keep[int(side[index].amax())]) == name

        listed = image_files(root)
        vectors = embed(encoder(tree.paths), listed)
        save_embeddings(vectors, Path(where, "a.npz"))
        assert load_embeddings(Path(where, "a.npz")).paths == tuple(listed)


@pytest.mark.parametrize("one", [1, 1.0, "1", " 1 ", np.float32(1), np.int8(1), Decimal("1.00")])
def test_numbers_as_names_are_read_alike(one: object) -> None:
    labels = np.array([["a", one], ["a", 2], ["a", 1]], dtype=object)
    assert Taxonomy.from_labels(labels, finest_first=False).classes == ("1", "2")
    assert as_cell(one) == "1"


def test_a_label_that_is_missing_among_names_is_no_class() -> None:
    with pytest.raises(ValueError, match="row 1: a label is missing"):
        from_arrays(np.zeros((3, 4, 4), np.uint8), ["x", float("nan"), "y"])
    classes = from_arrays(np.zeros((3, 4, 4), np.uint8), ["x", 1.0, 1]).taxonomy.classes
    assert classes == ("1", "x")


@pytest.mark.parametrize("way", ["one by one", "workers", "training", "features", "in memory"])
def test_thousands_of_files_leave_nothing_open(way: str, tmp_path: Path) -> None:
    """Under a limit of a hundred descriptors more than are open: 3,000 files, or 300 batches."""
    (tmp_path / "a").mkdir()
    first = tmp_path / "a" / "0.png"
    Image.new("L", (8, 8), 7).save(first)
    for index in range(1, 3000):
        os.link(first, tmp_path / "a" / f"{index}.png")
    images = FileImages.from_folder(tmp_path, channels=1)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 100, limits[1]))
    try:
        kept = []
        if way == "one by one":
            kept = [
                x for x, _ in fitted_batches(images.paths, images.spec, 10, skip_unreadable=False)
            ]
        elif way == "workers":
            kept = [x for x, _ in eval_batches(images.subset(range(600)), 2, workers=2)]
        elif way == "training":
            plan = BatchPlan(600, 2, seed=0)
            loader = TrainLoader(images.subset(range(600)), plan, workers=2)
            kept = [batch.labels for batch in loader]
        elif way == "features":
            batches = eval_batches(images.subset(range(600)), 2, workers=1)
            kept = [extract_features(nn.Flatten(), batches, "cpu").features]
        else:
            kept = [images.preload(8).pixels]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert sum(map(len, kept)) == (3000 if way in ("one by one", "in memory") else 600)
