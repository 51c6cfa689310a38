from __future__ import annotations

import gzip
import os
import pickle
import shutil
import struct
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from loaders import load_dataset, load_test
from rince.core.checks import RinceError, RinceWarning
from rince.data.arrays import TensorImages
from rince.data.image import named as sources
from rince.data.image.files import FileImages
from rince.data.image.named import read_idx
from rince.data.image.sources import digits_outliers
from rince.data.kinds import folder_table
from rince.data.views import eval_transform
from rince.ranks.taxonomy import Taxonomy


def noise(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def make_tree(root: Path, counts: dict[str, int], start: int = 0) -> None:
    """Images of 10 x 12 pixels, no two alike."""
    seed = start
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for index in range(count):
            seed += 1
            make_image(root / name / f"{index}.png", seed)


def make_image(file: Path, seed: int) -> None:
    Image.fromarray(noise(10, 12, 3, seed=seed).numpy()).save(file)


def idx(array: Tensor) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.numpy().tobytes()


def write_fashion_mnist(folder: Path, *, zipped: bool, train: int = 40, test: int = 20) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, count, seed in (("train", train, 1), ("t10k", test, 2)):
        labels = torch.arange(count).remainder(10).to(torch.uint8)
        for kind, content in (
            ("images-idx3", idx(noise(count, 28, 28, seed=seed))),
            ("labels-idx1", idx(labels)),
        ):
            file = folder / f"{name}-{kind}-ubyte{'.gz' if zipped else ''}"
            file.write_bytes(gzip.compress(content) if zipped else content)


def write_cifar100(folder: Path, change: dict[str, object] | None = None) -> None:
    folder.mkdir(parents=True)
    coarse = Taxonomy.cifar100().labels_at(2)
    for name, count, seed in (("train", 200, 1), ("test", 100, 2)):
        fine = torch.arange(count).remainder(100)
        content: dict[str, object] = {
            "data": noise(count, 3072, seed=seed).numpy(),
            "fine_labels": fine.tolist(),
            "coarse_labels": coarse[fine].tolist(),
        }
        (folder / name).write_bytes(pickle.dumps(content | (change or {}), protocol=2))


@pytest.fixture
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No Debian package, an empty cache, no network."""
    import torchvision.datasets

    def no_network(root: str, download: bool) -> None:
        assert download
        raise OSError("Name or service not known")

    monkeypatch.setattr(sources, "DEBIAN_FASHION_MNIST", tmp_path / "no-package")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", no_network)
    monkeypatch.setattr(torchvision.datasets, "CIFAR100", no_network)


# ---- folders ---------------------------------------------------------------------------------


@pytest.mark.parametrize("test_name", ["val", "test"])
def test_splits_of_a_folder_are_taken(tmp_path: Path, test_name: str) -> None:
    make_tree(tmp_path / "train", {"warm/red": 3, "warm/orange": 2, "cold/blue": 2})
    make_tree(tmp_path / test_name, {"warm/red": 1, "cold/blue": 2}, start=100)
    make_tree(tmp_path / "other", {"green": 1}, start=200)
    (tmp_path / "notes.txt").touch()
    with pytest.warns(RinceWarning, match=r"left out.*other/, 1 \.txt"):
        splits = load_dataset(tmp_path, image_size=8)
    shutil.rmtree(tmp_path / "other")
    (tmp_path / "notes.txt").unlink()
    assert isinstance(splits.train, TensorImages)
    assert isinstance(splits.test, TensorImages)
    assert splits.train.pixels.shape == (7, 3, 8, 8)
    assert (splits.spec.size, splits.spec.channels) == (8, 3)
    taxonomy = Taxonomy.from_folders(tmp_path / "train")
    assert splits.train.taxonomy == splits.test.taxonomy == taxonomy
    assert splits.train.name == splits.test.name == tmp_path.name
    red, blue = taxonomy.index("red"), taxonomy.index("blue")
    assert splits.train.labels.bincount().tolist() == [2, 2, 3]  # blue, orange, red
    assert sorted(splits.test.labels.tolist()) == sorted([red, blue, blue])
    assert load_dataset(tmp_path).spec.size == 32


def test_val_comes_before_test_with_a_warning(tmp_path: Path) -> None:
    make_tree(tmp_path / "train", {"a": 2, "b": 2})
    make_tree(tmp_path / "test", {"a": 3}, start=100)
    make_tree(tmp_path / "val", {"a": 1}, start=200)
    with pytest.warns(RinceWarning, match="val and test: val"):
        assert len(load_dataset(tmp_path).test) == 1


def test_a_plain_tree_is_split_class_by_class(tmp_path: Path) -> None:
    make_tree(tmp_path / "photos", {"x/a": 10, "x/b": 2, "c": 25})
    splits = load_dataset(tmp_path / "photos", cache=False, seed=3)
    train, test = splits.train, splits.test
    assert isinstance(train, FileImages)
    assert isinstance(test, FileImages)
    assert not set(train.paths) & set(test.paths)
    assert len(set(train.paths) | set(test.paths)) == 37
    order = [train.taxonomy.index(name) for name in ("a", "b", "c")]
    assert test.labels.bincount()[order].tolist() == [2, 1, 5]  # 20 %, at least one
    assert train.labels.bincount()[order].tolist() == [8, 1, 20]
    for images in (train, test):
        for path, label in zip(images.paths, images.labels.tolist(), strict=True):
            assert Path(path).parent.name == images.taxonomy.classes[label]
    other = load_dataset(tmp_path / "photos", cache=False, seed=4).test
    assert isinstance(other, FileImages)
    assert other.paths == test.paths  # runs of different seeds are judged on the same images
    names = [Path(path).name for path in test.paths]
    assert names != sorted(names)[: len(names)]  # by hash, not the first of each class


def sides(folder: Path) -> dict[str, bool]:
    """File -> whether it is a test image."""
    splits = load_dataset(folder, cache=False)
    assert isinstance(splits.train, FileImages)
    assert isinstance(splits.test, FileImages)
    return dict.fromkeys(splits.train.keys(), False) | dict.fromkeys(splits.test.keys(), True)


def test_images_stay_on_their_side_when_others_come_and_go(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    make_tree(folder, {"x/a": 12, "x/b": 12})
    before = sides(folder)
    for change in range(8):  # in the class that sorts first, which moves all positions
        if change < 5:
            make_image(folder / "x" / "a" / f"new{change}.png", 900 + change)
        else:
            (folder / "x" / "a" / f"{change}.png").unlink()
        after = sides(folder)
        moved = [key for key in before if key in after and after[key] != before[key]]
        assert len(moved) <= 1
        assert all(key.startswith("x/a/") for key in moved)
        before = after
    assert sides(folder.rename(tmp_path / "elsewhere")) == before


def test_a_choice_changes_by_one_image_when_one_comes(tmp_path: Path) -> None:
    make_tree(tmp_path / "train", {"a": 20, "b": 20})
    make_tree(tmp_path / "val", {"a": 1, "b": 1}, start=100)

    def chosen() -> set[str]:
        train = load_dataset(tmp_path, cache=False, per_class=5, seed=7).train
        assert isinstance(train, FileImages)
        return set(train.paths)

    before = chosen()
    make_image(tmp_path / "train" / "a" / "new.png", 900)
    assert len(before - chosen()) <= 1


def test_the_fingerprint_tells_images_apart(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    make_tree(folder, {"a": 6, "b": 6})
    first = load_dataset(folder).fingerprint()
    assert first == load_dataset(folder, cache=False).fingerprint()  # in memory or not
    assert first == load_dataset(folder, image_size=8, seed=5).fingerprint()
    assert len(first) == 32
    found = {first}
    found.add(load_dataset(folder, per_class=2).fingerprint())
    found.add(load_dataset(folder, per_class=2, seed=1).fingerprint())
    folder = folder.rename(tmp_path / "elsewhere")
    assert load_dataset(folder).fingerprint() == first
    (folder / "a" / "0.png").rename(folder / "a" / "00.png")
    found.add(load_dataset(folder).fingerprint())
    (folder / "a" / "00.png").rename(folder / "b" / "00.png")
    found.add(load_dataset(folder).fingerprint())
    (folder / "b" / "00.png").unlink()
    found.add(load_dataset(folder).fingerprint())
    assert len(found) == 6
    splits = load_dataset(folder)
    assert isinstance(splits.train, TensorImages)
    fewer = replace(splits, train=splits.train.subset([1, 0, 2]))
    assert fewer.fingerprint() not in found


@pytest.mark.usefixtures("bare_machine")
def test_the_fingerprint_of_a_named_data_set(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path, zipped=False)
    found = [
        load_dataset("fashion-mnist", root=tmp_path, per_class=n).fingerprint()
        for n in (None, 1, 2, None)
    ]
    assert len(set(found)) == 3
    assert found[0] == found[3]


def test_a_class_called_train_is_a_class(tmp_path: Path) -> None:
    make_tree(tmp_path / "vehicles", {"train": 5, "bus": 5})
    assert load_dataset(tmp_path / "vehicles").train.taxonomy.classes == ("bus", "train")
    make_tree(tmp_path / "only" / "train", {"a": 5, "b": 5})
    only = load_dataset(tmp_path / "only")
    assert only.train.taxonomy.paths == (("a",), ("b",))
    assert (len(only.train), len(only.test)) == (8, 2)


@pytest.mark.parametrize("name", ["train", "Train", "TRAIN"])
def test_only_a_training_folder_is_no_group(name: str, tmp_path: Path) -> None:
    """In any way that it is written, and as a table or a test."""
    make_tree(tmp_path / name, {"warm/a": 5, "b": 5})
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "notes.txt").touch()
    paths = (("b",), ("warm", "a"))
    assert load_dataset(tmp_path).train.taxonomy.paths == paths
    assert load_test(tmp_path).taxonomy.paths == paths
    header, rows = folder_table(str(tmp_path), tmp_path / "items.csv")
    assert header == ["path", "group", "class"]
    assert rows[0] == [f"{name}/b/0.png", "", "b"]
    assert {tuple(row[1:]) for row in rows} == {("", "b"), ("warm", "a")}


def test_single_images_stay_in_training(tmp_path: Path) -> None:
    make_tree(tmp_path / "p", {"a": 1, "b": 4})
    with pytest.warns(RinceWarning, match=r"\b1 classes.*one member.*: a"):
        splits = load_dataset(tmp_path / "p")
    assert splits.train.labels.tolist() == [0, 1, 1, 1]
    assert splits.test.labels.tolist() == [1]
    make_tree(tmp_path / "q", {"a": 1, "b": 1})
    with pytest.raises(RinceError, match="two members"):
        load_dataset(tmp_path / "q")


def test_a_choice_of_each_class(tmp_path: Path) -> None:
    make_tree(tmp_path / "train", {"a": 6, "b": 2})
    make_tree(tmp_path / "val", {"a": 4, "b": 4}, start=100)
    splits = load_dataset(tmp_path, cache=False, per_class=3, test_per_class=1)
    assert splits.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert splits.test.labels.tolist() == [0, 1]
    assert isinstance(splits.train, FileImages)
    assert list(splits.train.paths) == sorted(splits.train.paths)
    chosen = set()
    for seed in range(6):
        other = load_dataset(tmp_path, cache=False, per_class=3, seed=seed).train
        assert isinstance(other, FileImages)
        chosen.add(other.paths)
    assert len(chosen) > 1
    with pytest.raises(ValueError, match=r"per_class.*\b1\b.* 0\b"):
        load_dataset(tmp_path, per_class=0)


def test_small_images_are_held_in_memory_by_default(tmp_path: Path) -> None:
    make_tree(tmp_path / "p", {"a": 3, "b": 3})
    assert isinstance(load_dataset(tmp_path / "p", image_size=64).train, TensorImages)
    assert isinstance(load_dataset(tmp_path / "p", image_size=65).train, FileImages)
    assert isinstance(load_dataset(tmp_path / "p", image_size=65, cache=True).test, TensorImages)
    assert isinstance(load_dataset(tmp_path / "p", image_size=8, cache=False).test, FileImages)


@pytest.mark.parametrize("cache", [True, False])
def test_unreadable_images_are_skipped_on_request(tmp_path: Path, cache: bool) -> None:
    make_tree(tmp_path / "train", {"a": 3, "b": 3})
    make_tree(tmp_path / "val", {"a": 2, "b": 2}, start=100)
    (tmp_path / "train" / "b" / "1.png").write_bytes(b"broken")
    with pytest.warns(RinceWarning, match="1 of 10 images"):
        splits = load_dataset(tmp_path, cache=cache, skip_unreadable=True)
    assert splits.train.labels.tolist() == [0, 0, 0, 1, 1]
    if cache:
        with pytest.raises(RinceError, match=r"train/b/1.png"):
            load_dataset(tmp_path, cache=True)


def test_duplicates_are_left_out_on_request(tmp_path: Path) -> None:
    make_tree(tmp_path / "train", {"a": 3, "b": 3})
    make_tree(tmp_path / "val", {"a": 1, "b": 1})  # the first of each class of seeds 1, 2
    assert len(load_dataset(tmp_path).train) == 6
    splits = load_dataset(tmp_path, drop_duplicates=True)
    assert (len(splits.train), len(splits.test)) == (4, 2)


@pytest.mark.usefixtures("bare_machine")
def test_duplicates_in_memory_are_left_out_too(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path, zipped=False)  # no two alike
    images = noise(40, 28, 28, seed=1)
    images[11] = images[5]
    images[7] = noise(20, 28, 28, seed=2)[3]  # a test image
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(images))
    assert len(load_dataset("fashion-mnist", root=tmp_path).train) == 40
    splits = load_dataset("fashion-mnist", root=tmp_path, drop_duplicates=True)
    assert isinstance(splits.train, TensorImages)
    kept = [i for i in range(40) if i not in (7, 11)]
    assert torch.equal(splits.train.pixels[:, 0], images[kept])
    assert len(splits.test) == 20


def test_an_empty_folder_in_val_is_passed_over(tmp_path: Path) -> None:
    make_tree(tmp_path / "train", {"x/a": 2, "x/b": 2})
    make_tree(tmp_path / "val", {"x/b": 1}, start=100)
    (tmp_path / "val" / "x" / "a").mkdir()
    with pytest.warns(RinceWarning, match=r"\b1 class folders.*val\b.*no image.*: x/a"):
        assert load_dataset(tmp_path).test.labels.tolist() == [1]
    (tmp_path / "val" / "x" / "b" / "0.png").unlink()
    with pytest.raises(RinceError, match="val holds no"):
        load_dataset(tmp_path)
    (tmp_path / "val" / "x" / "a").rmdir()
    make_tree(tmp_path / "val", {"b": 1}, start=200)
    make_image(tmp_path / "val" / "x" / "b" / "0.png", 300)
    with pytest.raises(RinceError, match=r"val/b\b.*val/x/b\b.*class x/b"):
        load_dataset(tmp_path)


def test_letters_of_two_parts_are_the_same_letters(tmp_path: Path) -> None:
    one, two = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))
    assert one != two
    make_tree(tmp_path / "train", {f"{one}/{two}1": 2, "b": 2})
    make_tree(tmp_path / "val", {f"{two}/{one}1": 2}, start=100)
    splits = load_dataset(tmp_path)
    label = splits.train.taxonomy.index(f"{two}1")
    assert splits.test.labels.tolist() == [label, label]


def test_grey_images_of_a_folder(tmp_path: Path) -> None:
    make_tree(tmp_path / "train", {"a": 2, "b": 2})
    make_tree(tmp_path / "val", {"a": 1, "b": 1}, start=100)
    for cache in (True, False):
        splits = load_dataset(tmp_path, cache=cache, channels=1)
        assert splits.train.channels == splits.test.channels == 1
        assert splits.test[0].shape[0] == 1


def test_a_wrong_name_is_mended(tmp_path: Path) -> None:
    with pytest.raises(RinceError, match="CIFAR-100.*cifar100"):
        load_dataset("CIFAR-100")
    with pytest.raises(RinceError, match="nowhere.*fashion-mnist, cifar100"):
        load_dataset(tmp_path / "nowhere")


# ---- Fashion-MNIST -----------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [".", "fashion-mnist", "FashionMNIST/raw"])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.usefixtures("bare_machine")
def test_fashion_mnist_is_read(tmp_path: Path, layout: str, zipped: bool) -> None:
    write_fashion_mnist(tmp_path / layout, zipped=zipped)
    splits = load_dataset("fashion-mnist", root=tmp_path)
    assert isinstance(splits.train, TensorImages)
    assert isinstance(splits.test, TensorImages)
    assert torch.equal(splits.train.pixels, noise(40, 28, 28, seed=1)[:, None])
    assert torch.equal(splits.test.pixels, noise(20, 28, 28, seed=2)[:, None])
    assert torch.equal(splits.train.labels, torch.arange(40) % 10)
    assert splits.train.taxonomy == Taxonomy.fashion_mnist()
    assert (splits.spec.size, splits.spec.channels, splits.train.name) == (28, 1, "fashion-mnist")
    small = load_dataset("fashion-mnist", root=tmp_path, image_size=14, per_class=2)
    assert isinstance(small.train, TensorImages)
    assert small.train.pixels.shape == (20, 1, 14, 14)
    assert small.train.labels.bincount().tolist() == [2] * 10
    assert torch.equal(
        small.test.pixels if isinstance(small.test, TensorImages) else torch.empty(0),
        eval_transform(14)(splits.test.pixels),
    )


@pytest.mark.usefixtures("bare_machine")
def test_the_order_of_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.datasets

    def size(data_root: Path | None) -> int:
        return len(load_dataset("fashion-mnist", root=data_root).train)

    downloads: list[str] = []

    def download(root: str, download: bool) -> None:
        downloads.append(root)
        write_fashion_mnist(Path(root) / "FashionMNIST" / "raw", zipped=True, train=10)

    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", download)
    cache = tmp_path / "cache" / "rince"
    assert (size(None), downloads) == (10, [str(cache)])
    assert (size(None), downloads) == (10, [str(cache)])  # found there the second time
    write_fashion_mnist(tmp_path / "no-package", zipped=True, train=20)
    assert size(None) == size(tmp_path / "empty") == 20
    write_fashion_mnist(tmp_path / "mine", zipped=False, train=30)
    assert size(tmp_path / "mine") == 30
    assert len(downloads) == 1


@pytest.mark.usefixtures("bare_machine")
def test_missing_data_sets_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(RinceError, match="Name or service not known") as caught:
        load_dataset("fashion-mnist", root=tmp_path)
    for way in ("apt-get install dataset-fashion-mnist", "--images.root", "try again"):
        assert way in str(caught.value)
    with pytest.raises(RinceError, match=r"cifar-100-python.tar.gz unpacked"):
        load_dataset("cifar100")


@pytest.mark.usefixtures("bare_machine")
def test_damaged_idx_files_are_named(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path, zipped=True)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RinceError, match=f"{file} is damaged"):
        load_dataset("fashion-mnist", root=tmp_path)
    content = idx(noise(40, 28, 28))
    for wrong, message in (
        (content[:-1], "says 40 x 28 x 28 = 31360 bytes, but 31359 follow"),
        (content + b"0", "but 31361 follow"),
        (b"\0\0\x0d" + content[3:], "is not an idx file of bytes"),
        (content[:6], "is not an idx file of bytes"),
        (b"", "is not an idx file of bytes"),
        (idx(noise(40, 27, 28)), r"expected \(N, 28, 28\)"),
        (idx(noise(39, 28, 28)), r"got \(39, 28, 28\) and \(40,\)"),
    ):
        file.write_bytes(gzip.compress(wrong))
        with pytest.raises(RinceError, match=message):
            load_dataset("fashion-mnist", root=tmp_path)
    write_fashion_mnist(tmp_path, zipped=True)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(
        gzip.compress(idx(torch.full((20,), 10, dtype=torch.uint8)))
    )
    with pytest.raises(RinceError, match=r"t10k-labels.*\[0, 10\)"):
        load_dataset("fashion-mnist", root=tmp_path)


def test_idx_shapes(tmp_path: Path) -> None:
    for shape in ((5,), (2, 3), (2, 3, 4)):
        (tmp_path / "a").write_bytes(idx(noise(*shape)))
        assert torch.equal(read_idx(tmp_path / "a"), noise(*shape))


def test_debian_fashion_mnist() -> None:
    folder = sources.DEBIAN_FASHION_MNIST
    if not folder.is_dir():
        pytest.skip(f"dataset-fashion-mnist is not installed ({folder})")
    splits = load_dataset("fashion-mnist")
    assert splits.train.labels.bincount().tolist() == [6000] * 10
    assert splits.test.labels.bincount().tolist() == [1000] * 10
    # The taxonomy's names belong to the right labels: there is a gap between trouser legs.
    assert isinstance(splits.test, TensorImages)
    of_class = splits.test.labels == splits.test.taxonomy.index("Trouser")
    legs = splits.test.pixels[of_class, 0, 20:].float().mean((0, 1))  # (28,)
    assert float(legs[14]) < 0.6 * float(legs[11])
    others = splits.test.pixels[~of_class, 0, 20:].float().mean((0, 1))
    assert float(others[14]) > 0.9 * float(others[11])


# ---- CIFAR-100 ---------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [".", "cifar-100-python"])
@pytest.mark.usefixtures("bare_machine")
def test_cifar100_is_read(tmp_path: Path, layout: str) -> None:
    root = tmp_path / "root"
    write_cifar100(root / layout)
    splits = load_dataset("cifar100", root=root, test_per_class=1)
    assert isinstance(splits.train, TensorImages)
    expected = noise(200, 3072, seed=1).view(200, 3, 32, 32)
    assert torch.equal(splits.train.pixels, expected)
    assert torch.equal(splits.train.labels, torch.arange(200) % 100)
    assert len(splits.test) == 100
    assert (splits.spec.size, splits.spec.channels) == (32, 3)
    assert splits.train.taxonomy.num_ranks == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"coarse_labels": [0] * 200}, r"coarse.*\b20 superclasses"),
        ({"fine_labels": [100] * 200}, r"labels.*\[0, 100\)"),
        ({"data": np.zeros((200, 3071), np.uint8)}, "damaged"),
        ({"fine_labels": [0] * 199}, r"\b200 "),
    ],
)
@pytest.mark.usefixtures("bare_machine")
def test_damaged_cifar100_is_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    write_cifar100(tmp_path / "cifar-100-python", change)
    with pytest.raises(RinceError, match=message) as caught:
        load_dataset("cifar100", root=tmp_path)
    assert str(tmp_path / "cifar-100-python" / "train") in str(caught.value)


class _Command:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("owned",)


@pytest.mark.usefixtures("bare_machine")
def test_a_data_file_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "cifar-100-python"
    write_cifar100(folder)
    (folder / "train").write_bytes(pickle.dumps({"data": _Command()}))
    with pytest.raises(RinceError, match="mkdir"):
        load_dataset("cifar100", root=tmp_path)
    assert not (tmp_path / "owned").exists()
    (folder / "train").write_bytes(b"\x80\x02")
    with pytest.raises(RinceError, match="CIFAR-100 file"):
        load_dataset("cifar100", root=tmp_path)


# ---- outliers ----------------------------------------------------------------------------------


def test_digits_are_scaled_to_bytes() -> None:
    from sklearn.datasets import load_digits

    original = torch.tensor(load_digits().images)
    eight = digits_outliers(8, 1)
    assert eight.dtype == torch.uint8
    assert torch.equal(eight[:, 0].double(), (original * 255 / 16).round())
    large = digits_outliers(28, 3)
    assert large.shape == (1797, 3, 28, 28)
    assert torch.equal(large[:, 0], large[:, 2])
    difference = large.float().mean((1, 2, 3)) - eight.float().mean((1, 2, 3))
    assert float(difference.abs().max()) < 4
