"""Images in tar shards."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from loaders import load_dataset, load_test
from rince.core.checks import RinceError, RinceWarning
from rince.core.files import IMAGE_SUFFIXES, files_below
from rince.data.batches import TrainLoader, eval_batches
from rince.data.image.files import FileImages, image_files
from rince.data.image.kind import advice
from rince.data.image.shards import is_shards, read_shards
from rince.data.plan import BatchPlan
from rince.training.config import TrainConfig

Files = list[tuple[str, bytes]]


def picture(seed: int = 0) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 10 + seed % 5, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue()


def shard(file: Path, files: Files) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file


def sample(key: str, seed: int, label: str | None = "dog", **more: object) -> Files:
    files = [(f"{key}.png", picture(seed))]
    files += [] if label is None else [(f"{key}.cls", label.encode())]
    return files + ([(f"{key}.json", json.dumps(more).encode())] if more else [])


@pytest.fixture
def both(image_tree: Path, tmp_path: Path) -> tuple[Path, str]:
    """The same images in class folders, and in three shards with label paths."""
    files = list(files_below(image_tree, IMAGE_SUFFIXES))
    for number in range(3):
        content: Files = []
        for i in range(number, len(files), 3):
            label = "/".join(files[i].relative_to(image_tree).parts[:-1])
            content += [
                (f"./a/{i:04}.png", files[i].read_bytes()),
                (f"./a/{i:04}.cls", label.encode()),
            ]
        shard(tmp_path / f"images-{number:03}.tar", content)
    return image_tree, str(tmp_path / "images-{000..002}.tar")


def test_a_json_may_call_something_image(tmp_path: Path) -> None:
    files = [x for i in range(6) for x in sample(f"n{i}", i, "ab"[i % 2], image=f"web-{i}.jpg")]
    found = load_test(shard(tmp_path / "a.tar", files), cache=False)
    assert found.keys() == [f"a.tar/n{i}.png" for i in range(6)]


@pytest.mark.parametrize("as_folder", [False, True])
def test_shards_are_the_folder(both: tuple[Path, str], as_folder: bool) -> None:
    folder, shards = both
    expected = FileImages.from_folder(folder)
    data = str(Path(shards).parent) if as_folder else shards
    found = load_test(data, cache=False)
    assert isinstance(found, FileImages)
    assert found.taxonomy.paths == expected.taxonomy.paths
    assert found.labels.bincount().tolist() == expected.labels.bincount().tolist()
    pixels = {found[i].numpy().tobytes(): int(found.labels[i]) for i in range(len(found))}
    assert pixels == {
        expected[i].numpy().tobytes(): int(expected.labels[i]) for i in range(len(expected))
    }
    assert len(image_files(data)) == len(expected)
    # Held out by their names, a fifth of each class.
    splits = load_dataset(data, cache=False)
    assert len(splits.train) + len(splits.test) == len(found)
    assert not set(splits.train.keys() or ()) & set(splits.test.keys() or ())
    again = pickle.loads(pickle.dumps(found))
    assert torch.equal(again[5], found[5])
    assert again.fingerprint() == found.fingerprint()
    assert sum(1 for _ in found.content_hashes()) == len(found)


def test_batches_are_those_of_the_plan_whatever_the_workers(both: tuple[Path, str]) -> None:
    items = load_dataset(both[1], cache=False, image_size=8).train
    plan = BatchPlan(len(items), 8, seed=3)
    whole = list(TrainLoader(items, plan))
    assert [x.indices.tolist() for x in whole] == list(plan)
    resumed = TrainLoader(items, BatchPlan(len(items), 8, seed=3), workers=2)
    resumed.start_batch = 4
    rest = list(resumed)
    assert len(rest) == len(whole) - 4
    for one, other in zip(whole[4:], rest, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.views, other.views, strict=True))
    assert sum(len(labels) for _, labels in eval_batches(items, 16)) == len(items)


def test_labels_of_json_and_txt(tmp_path: Path) -> None:
    rows = [("a", "x"), ("b", "x"), ("c", "y")]
    files: Files = []
    for i, (fine, coarse) in enumerate(rows):
        more = {"fine": fine, "coarse": coarse, "n": i, "path": [coarse, fine], "o": {"deep": 1}}
        files += sample(f"{i}", i, None, **more, split=("train", "train", "test")[i])
        files += [(f"{i}.txt", f"{coarse}/{fine}".encode()), (f"{i}.npy", b"0")]
    file = shard(tmp_path / "a.tar", files)
    with pytest.warns(RinceWarning, match=r"3 images; left out.* 3 \.npy"):
        table = read_shards(file, labels=("coarse", "fine"))
    assert table.sides() == [False, False, True]
    assert table.classes()[0].paths == (("x", "a"), ("x", "b"), ("y", "c"))
    for column in ("txt", "path"):
        with pytest.warns(RinceWarning, match="left out"):
            named = read_shards(file, labels=(column,))
        assert named.classes()[0].paths == table.classes()[0].paths
    with pytest.warns(RinceWarning), pytest.raises(RinceError, match=r"no sample has cls.*coarse"):
        read_shards(file)


def test_a_class_of_a_negative_number_is_named_in_shards(tmp_path: Path) -> None:
    files = [*sample("0", 0, "4"), *sample("1", 1, "-1"), *sample("2", 2, "4")]
    with pytest.warns(RinceWarning, match="holds -1, first in line 2"):
        read_shards(shard(tmp_path / "a.tar", files))


def test_splits_by_folder_and_ragged_paths(tmp_path: Path) -> None:
    for side, labels in (
        ("train", ("animal/dog/pug", "boat")),
        ("val", ("boat", "animal/dog/pug")),
    ):
        files = [x for i, label in enumerate(labels) for x in sample(str(i), i, label)]
        shard(tmp_path / side / "0.tar", files)
    assert is_shards(tmp_path)
    assert not is_shards("items.tar.csv")
    splits = load_dataset(tmp_path, cache=False)
    assert splits.train.taxonomy.paths == (("animal", "dog", "pug"), ("boat",))
    assert (splits.train.labels.tolist(), splits.test.labels.tolist()) == ([0, 1], [1, 0])
    assert splits.train.keys() == ["train/0.tar/0.png", "train/0.tar/1.png"]


def test_shards_of_one_name_in_several_folders(tmp_path: Path) -> None:
    """Each image stands under the label of its own shard."""
    for part in (0, 1):
        files = [x for i in range(5) for x in sample(f"n{i}", 9 * part + i, "ab"[part])]
        shard(tmp_path / f"of-{part}" / "x" / "data.tar", files)
    shards = str(tmp_path / "of-{0..1}" / "x" / "data.tar")
    found = load_test(shards, cache=False)
    assert found.keys() == [f"of-{part}/x/data.tar/n{i}.png" for part in (0, 1) for i in range(5)]
    for part in (0, 1):
        alone = load_test(tmp_path / f"of-{part}" / "x" / "data.tar", cache=False)
        assert alone.keys() == [f"data.tar/n{i}.png" for i in range(5)]
        assert all(torch.equal(found[5 * part + i], alone[i]) for i in range(5))
    splits = load_dataset(shards, cache=False)
    assert (len(splits.train), len(splits.test)) == (8, 2)


def test_shards_of_one_name_in_both_splits(tmp_path: Path) -> None:
    for split in ("train", "val"):
        files = [x for i in range(2) for x in sample(f"n{i}", len(split) + i, "ab"[i])]
        shard(tmp_path / split / "data.tar", files)
    splits = load_dataset(tmp_path, cache=False)
    assert splits.train.keys() == ["train/data.tar/n0.png", "train/data.tar/n1.png"]
    assert splits.test.keys() == ["val/data.tar/n0.png", "val/data.tar/n1.png"]


def test_only_a_training_folder(tmp_path: Path) -> None:
    files = [x for i in range(6) for x in sample(f"n{i}", i, "ab"[i % 2])]
    shard(tmp_path / "Train" / "x.tar", files)
    splits = load_dataset(tmp_path, cache=False)
    assert sorted(splits.train.keys() + splits.test.keys()) == [f"x.tar/n{i}.png" for i in range(6)]  # type: ignore[operator]


def test_two_images_a_sample(tmp_path: Path) -> None:
    files = [("a.left.png", picture(1)), ("a.right.png", picture(2)), ("a.cls", b"x")]
    file = shard(tmp_path / "a.tar", files)
    with pytest.raises(RinceError, match=r"a has 2 images .*left\.png.*table\.column"):
        read_shards(file)
    with pytest.warns(RinceWarning, match="left out"):
        table = read_shards(file, "right.png")
    assert table.items == ["a.tar/a.right.png"]
    assert table.files()[0][0].read_bytes() == picture(2)


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    good = sample("a", 1) + sample("b", 2)
    for files, words in (
        (good + sample("c", 3, None), r"c\.png has no label"),
        (good + sample("c", 3, ""), r"c\.png has no label"),
        ([*good, ("c.cls", b"x")], r"c has 0 images"),
        (good + sample("a", 3), r"2 bad rows: .*a\.png is there twice; .*a\.cls is there twice"),
        ([*good, ("a.json", b"{")], r"a\.json cannot be read"),
        ([*good, ("a.json", b"[1]")], r"a\.json cannot be read: it is no object"),
        ([*good, ("c.png", picture()), ("c.cls", b"\xff")], r"c\.cls cannot be read"),
        ([*good, ("a.json", b'{"a": 1, "a": 2}')], r"a\.json cannot be read: a name .* twice"),
        ([*good, ("a.json", b'{"a": "\\ud800"}')], r"a\.json cannot be read: .*surrogate"),
        ([], r"holds no sample"),
        ([*good, ("c.png", picture()), ("c.cls", b"dog/pug")], r"dog"),
    ):
        with pytest.raises(RinceError, match=words):
            read_shards(shard(tmp_path / "a.tar", files)).classes()
    whole = shard(tmp_path / "a.tar", good).read_bytes()
    for content in (
        whole[:1500],  # in the middle of a header
        whole[:700],  # in the middle of a file
        whole[:1024] + b"x" * 512 + whole[1536:],  # a header that is none
        b"no tar",
        b"\x1f\x8b" + whole,
    ):
        (tmp_path / "a.tar").write_bytes(content)
        with pytest.raises(RinceError, match=r"cannot read .*a\.tar"):
            read_shards(tmp_path / "a.tar")
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz"):
        pass
    for missing in ("b.tar.gz", "c.tar", "c-{0..3}.tar"):
        assert is_shards(missing)
        with pytest.raises(RinceError, match=r"gunzip|shards are missing"):
            read_shards(tmp_path / missing)
    with tarfile.open(tmp_path / "d.tar", "w") as tar:
        link = tarfile.TarInfo("a.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(RinceError, match=r"a\.png is a link"):
        read_shards(tmp_path / "d.tar")


def test_what_lies_beside_shards_is_said(tmp_path: Path) -> None:
    shard(tmp_path / "a.tar", sample("a", 1) + sample("b", 2))
    shard(tmp_path / "b.TAR", sample("c", 3))
    assert len(read_shards(tmp_path).items) == 3
    (tmp_path / "c.tar.gz").write_bytes(b"x")
    with pytest.warns(RinceWarning, match=r"2 shards; left out: 1 \.gz"):
        read_shards(tmp_path)
    with warnings.catch_warnings():  # once: not when a look at the first image advises on a size
        warnings.simplefilter("error")
        assert advice(str(tmp_path), TrainConfig(data="")) == ""


def test_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    file = shard(tmp_path / "a.tar", [*sample("a", 1), ("b.png", b"none"), ("b.cls", b"dog")])
    with pytest.raises(RinceError, match=r"cannot read .*a\.tar/b\.png"):
        load_test(file, cache=False)
    with pytest.warns(RinceWarning, match="1 of 2 images"):
        assert len(load_test(file, skip_unreadable=True)) == 1
