"""Arrays, torch's and Hugging Face's data sets as items: the same classes in every form."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms import ToTensor

from rince import RinceError, RinceWarning, Taxonomy
from rince.data import FileImages, Splits, from_arrays, from_dataset, from_texts, from_vectors
from rince.training import ImageOptions, ModelOptions, TrainConfig, load_run, resume, train
from rince.training.evaluation import evaluate_run
from rince.training.options import TuneOptions
from rince.training.splits import with_data
from rince.training.tuning import tune

PIXELS = np.arange(6 * 8 * 10 * 3, dtype=np.uint8).reshape(6, 8, 10, 3)
NAMES = ["pug", "manx", "husky", "pug", "manx", "husky"]
TREE = Taxonomy.from_dict({"dog": ["pug", "husky"], "cat": ["manx"]})
LABELS = [0, 2, 1, 0, 2, 1]


def test_arrays() -> None:
    expected = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)
    forms: list[Any] = [PIXELS, expected, PIXELS / 255, expected.float() / 255, list(PIXELS)]
    labels: list[Any] = [LABELS, np.array(LABELS, np.uint8), torch.tensor(LABELS), NAMES]
    for images in forms:
        for given in labels:
            items = from_arrays(images, given, taxonomy=TREE)
            assert torch.equal(items.pixels, expected)
            assert items.labels.tolist() == LABELS
    assert from_arrays(PIXELS[..., 0], LABELS, taxonomy=TREE).spec.channels == 1
    own = from_arrays(PIXELS, [["dog", "b"], ["cat", "a"], ["dog", "a"]] * 2)
    assert own.taxonomy.paths == (("cat", "a"), ("dog", "a"), ("dog", "b"))
    assert own.labels.tolist() == [2, 0, 1] * 2
    assert from_arrays(PIXELS, [900, 7, 8] * 2).labels.tolist() == [2, 0, 1] * 2
    for images, given, message in (
        (PIXELS.astype(float), LABELS, "uint8, or floats in .0, 1.*Normalize"),
        (PIXELS.astype(np.uint16), LABELS, "uint8, or floats in .0, 1.*uint16 from 0 to 255"),
        (PIXELS[..., :2], LABELS, "1 or 3"),
        (PIXELS, LABELS[:5], "one for each of the 6 items, got shape .5,"),
        (PIXELS, [*LABELS[:5], 3], r"lie in \[0, 3\).* hold 3"),
        (PIXELS, [*NAMES[:5], "lion"], "unknown class 'lion'"),
    ):
        with pytest.raises(ValueError, match=message):
            from_arrays(images, given, taxonomy=TREE)


def folder_of_images(root: Path) -> Path:
    for i, (pixels, name) in enumerate(zip(PIXELS, NAMES, strict=True)):
        (root / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def test_an_image_folder_keeps_its_classes_whatever_the_order_of_the_tree(tmp_path: Path) -> None:
    """torchvision sorts classes, a table keeps the order of its file."""
    for dataset in (
        ImageFolder(str(folder_of_images(tmp_path / "a"))),
        ImageFolder(str(tmp_path / "a"), transform=ToTensor()),
    ):
        assert dataset.classes == ["husky", "manx", "pug"]
        items = from_dataset(dataset, taxonomy=TREE, image_size=8)
        names = [TREE.classes[label] for label in items.labels.tolist()]
        assert names == [Path(path).parent.name for path, _ in dataset.samples]
        for i, (path, _) in enumerate(dataset.samples):
            stored = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
            assert torch.equal(items[i], stored)
        last = items.subset([5, 1]).subset([0])
        assert torch.equal(last[0], items[5])
        assert last.labels.tolist() == items.labels[5:].tolist()
        files = FileImages.from_folder(tmp_path / "a")
        kept = FileImages(files.paths, files.labels, files.taxonomy, "a", image_size=8)
        assert torch.equal(items.fitted(slice(0, 6)), kept.fitted(slice(0, 6)))
        assert items.thumbnails([0, 1], 8).shape == (2, 8, 8, 3)


def test_an_image_folder_whose_classes_are_groups_is_warned_of(tmp_path: Path) -> None:
    folder_of_images(tmp_path / "dog")
    nested = ImageFolder(str(tmp_path))
    with pytest.warns(RinceWarning, match=r"dog/husky and .*dog/manx for one.*from_folder"):
        assert from_dataset(nested).taxonomy.paths == (("dog",),)
    with pytest.warns(RinceWarning), pytest.raises(ValueError, match="'dog'.*group"):
        from_dataset(nested, taxonomy=TREE)
    tree = FileImages.from_folder(tmp_path).taxonomy
    assert tree.paths == (("dog", "husky"), ("dog", "manx"), ("dog", "pug"))
    names = [nested.classes[i] for i in nested.targets]
    assert from_dataset(nested, labels=names).taxonomy.paths == (("dog",),)

    class Classes(ImageFolder):  # as docs/own-trainer.md has it
        def find_classes(self, directory: Any) -> tuple[list[str], dict[str, int]]:
            paths = ["/".join(path) for path in tree.paths]
            return paths, {path: label for label, path in enumerate(paths)}

    items = from_dataset(Classes(str(tmp_path)), taxonomy=tree)
    assert items.labels.tolist() == [0, 0, 1, 1, 2, 2]
    items.dataset.samples = [(1, 2, 3)] * 6  # another's, of anything
    assert from_dataset(items.dataset, taxonomy=tree).labels.tolist() == items.labels.tolist()
    for name in tree.classes:  # a folder of images in each class, as Tiny ImageNet has them
        (tmp_path / "tiny" / name).mkdir(parents=True)
        (tmp_path / "dog" / name).rename(tmp_path / "tiny" / name / "images")
    assert from_dataset(ImageFolder(str(tmp_path / "tiny"))).taxonomy.classes == (
        "husky",
        "manx",
        "pug",
    )


class Rows:
    """As a data set of Hugging Face answers."""

    column_names = ("img", "coarse", "fine")

    class _Class:
        names = ("cat", "dog")

    features = {"coarse": _Class(), "fine": None, "img": None}  # noqa: RUF012

    def __len__(self) -> int:
        return 6

    def __getitem__(self, key: Any) -> Any:
        columns = {
            "img": [Image.fromarray(pixels) for pixels in PIXELS],
            "coarse": [int(name != "manx") for name in NAMES],
            "fine": NAMES,
        }
        return columns[key] if isinstance(key, str) else {k: x[key] for k, x in columns.items()}


def test_rows_with_columns() -> None:
    items = from_dataset(Rows(), image="img", labels=["coarse", "fine"])
    assert items.taxonomy.paths == (("dog", "husky"), ("cat", "manx"), ("dog", "pug"))
    assert [items.taxonomy.classes[i] for i in items.labels.tolist()] == NAMES
    assert torch.equal(items[1], torch.from_numpy(PIXELS[1]).permute(2, 0, 1))
    assert from_dataset(Rows(), image="img", labels="fine", taxonomy=TREE).labels.tolist() == LABELS
    assert from_dataset(Rows(), image="img", labels="fine", channels=1)[0].shape == (1, 8, 10)
    with pytest.raises(ValueError, match="columns.*img, coarse, fine"):
        from_dataset(Rows(), labels="fine")
    with pytest.raises(ValueError, match="attribute targets"):
        from_dataset(torch.utils.data.TensorDataset(torch.zeros(2, 3, 8, 8)))
    with pytest.raises(ValueError, match=r"take one of them, dataset\[NAME\], of 'train', 'test'"):
        from_dataset({"train": Rows(), "test": Rows()}, image="img", labels="fine")


@pytest.mark.parametrize(("target", "message"), [(-1, "row 2 holds -1"), (3, "3.* 3 classes")])
def test_targets_that_are_no_class(target: int, message: str) -> None:
    """-1 would be the last class to Python."""

    class Named:
        targets = (0, 1, target)
        classes = ("husky", "manx", "pug")

        def __len__(self) -> int:
            return 3

    with pytest.raises(ValueError, match=message):
        from_dataset(Named())


def test_texts_need_something_to_read() -> None:
    for texts, message in (
        (["a", " ", ""], r"text 1 \(and 1 more\) is empty"),
        (["a", "b", ""], "text 2 is empty"),
    ):
        with pytest.raises(ValueError, match=message):
            from_texts(texts, ["x", "y", "z"])


def test_no_pictures_of_images_in_memory() -> None:
    images = from_arrays(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), [0, 0], taxonomy=TREE)
    assert images.thumbnails([], 8).shape == (0, 8, 8, 3)


def test_items_that_are_given_keep_their_size() -> None:
    """Pretrained weights of 224 pixels are fed all of a picture of 8, not a piece of its middle."""
    part = from_dataset(Rows(), image="img", labels="fine", image_size=8)
    config = TrainConfig(
        "mine",
        model=ModelOptions(backbone="torchvision/resnet18", pretrained=True),
        images=ImageOptions(image_size=64),
    )
    with pytest.warns(RinceWarning, match="image_size 64 has no effect .* at 8 pixels"):
        config, splits = with_data(config, Splits(part, part))
    how = splits.test.preprocessing
    assert how is not None
    assert (config.images.image_size, how.resize) == (8, round(256 * 8 / 224))


@pytest.mark.parametrize("function", [train, tune])
def test_options_that_choose_items_are_for_those_of_a_folder(function: Any, tmp_path: Path) -> None:
    """One run, and a search, which itself gives items to its runs."""
    tree = Taxonomy([("pet", "dog"), ("pet", "cat"), ("boat", "canoe"), ("boat", "ferry")])
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 4
    vectors = torch.randn(4, 6, generator=generator)[labels] + torch.randn(
        40, 6, generator=generator
    )
    items = from_vectors(vectors, labels, taxonomy=tree)
    config = TrainConfig(
        "mine", epochs=4, batch_size=16, output=str(tmp_path), progress=False, knn_every=0,
        images=ImageOptions(per_class=3, workers=0), accelerator="cpu",
    )  # fmt: skip
    more = () if function is train else (TuneOptions(trials=1, baselines=()),)
    with warnings.catch_warnings(record=True) as caught:  # a search of so few warns of that too
        warnings.simplefilter("always")
        function(config, *more, splits=Splits(items, items))
    messages = [str(one.message) for one in caught if "given (splits)" in str(one.message)]
    assert len(messages) == 1
    assert "images.per_class." in messages[0]


def test_training_and_evaluation_on_arrays(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)

    def part(count: int) -> Any:
        labels = np.arange(count) % 3
        noise = generator.integers(0, 60, (count, 16, 16, 3))
        return from_arrays((noise + 60 * labels[:, None, None, None]).astype(np.uint8), labels,
                           taxonomy=TREE)  # fmt: skip

    splits = Splits(part(24), part(9))
    assert repr(splits.test) == "TensorImages(9 items of 3 classes, 'arrays')"
    config = TrainConfig(
        "mine", epochs=1, batch_size=8, output=str(tmp_path), images=ImageOptions(workers=0),
        model=ModelOptions(backbone="small-resnet"), progress=False, knn_every=0,
    )  # fmt: skip
    folder = train(config, splits=splits)
    assert load_run(folder).taxonomy == TREE
    assert resume(folder, splits=splits, progress=False) == folder
    evaluation = evaluate_run(folder, splits=splits, device="cpu")
    assert evaluation.metrics
    for again in (resume, evaluate_run):
        with pytest.raises(RinceError, match=rf"no folder mine.*{again.__name__}\(.*splits="):
            again(folder)


def test_the_test_must_count_its_classes_as_the_training_does() -> None:
    """Each side would make a tree of the names that it has, and label 0 would be two classes."""

    def part(names: str, **tree: Any) -> Any:
        return from_vectors(np.eye(len(names), 4) + 1, list(names), **tree)

    train, test = part("abca"), part("bcbc")
    with pytest.raises(ValueError, match="b, c in the test and a, b, c in the training.*taxonomy="):
        Splits(train, test)
    assert Splits(train, part("bcbc", taxonomy=train.taxonomy)).test.labels.tolist() == [1, 2, 1, 2]
    assert len(Splits(train, part("abcd")).test) == 4  # a further class was never trained


def test_integers_are_no_positions_where_classes_are_called_by_others() -> None:
    def part(labels: Any, tree: Taxonomy | None = None) -> Any:
        return from_vectors(np.eye(len(labels), 4) + 1, labels, taxonomy=tree)

    tree = part([1, 2, 3, 1]).taxonomy
    assert tree.classes == ("1", "2", "3")
    for given in ([1, 2], np.array([1, 2]), torch.tensor([1, 2]), np.array([1, 2], dtype=object)):
        with pytest.raises(ValueError, match=r"positions \(1, 2, 3, ...\): give the names"):
            part(given, tree)
    assert part(list(map(str, [2, 3])), tree).labels.tolist() == [1, 2]
    # Where each is called by its position both are the same.
    tree = part([0, 1, 2, 1]).taxonomy
    for dtype in (np.int64, np.uint8, object):
        assert part(np.array([2, 0], dtype=dtype), tree).labels.tolist() == [2, 0]
    words = Taxonomy([("g", "b"), ("g", "a")])
    assert part(np.array([1, 0], dtype=object), words).labels.tolist() == [1, 0]


def test_classes_of_one_name_stay_two() -> None:
    """As those of torchvision's ImageNet, which are tuples of synonyms, too."""

    class Birds:
        classes = (("crane", "bird"), ("crane",), ("dog",), ("crane",))
        targets = (0, 1, 2, 3)

        def __len__(self) -> int:
            return len(self.targets)

        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            return Image.new("RGB", (8, 8)), self.targets[index]

    with pytest.warns(RinceWarning, match="two classes or more, such as 'crane'"):
        items = from_dataset(Birds(), image_size=8)
    names = [items.taxonomy.classes[label] for label in items.labels.tolist()]
    assert names == ["crane, bird", "crane (1)", "dog", "crane (3)"]


def test_a_mask_chooses_items(tmp_path: Path) -> None:
    labels = [0, 1, 0, 1, 1, 0]
    pictures = [(Image.new("RGB", (8, 8)), label) for label in labels]
    wanted = np.array(labels) == 1
    for items in (
        from_vectors(np.eye(6) + 1, labels),
        from_arrays(PIXELS, labels),
        from_dataset(pictures, labels=labels, image_size=8),
        from_texts(list("abcdef"), labels),
    ):
        for mask in (wanted, torch.from_numpy(wanted), wanted.tolist()):
            assert items.subset(mask).labels.tolist() == [1, 1, 1]
            assert items.subset(mask).fingerprint() == items.subset([1, 3, 4]).fingerprint()
        with pytest.raises(ValueError, match=r"a mask must say of each of 6 items.*\(2,\)"):
            items.subset(wanted[:2])
        with pytest.raises(ValueError, match="positions must be integers"):
            items.subset([0.9, 1.9])  # type: ignore[list-item]
        assert len(items.subset([])) == 0
    items = from_arrays(PIXELS, labels)
    assert np.array_equal(items.thumbnails(wanted, 8), items.thumbnails([1, 3, 4], 8))


def test_no_pictures_of_a_data_set_and_of_texts() -> None:
    pairs = [(Image.new("RGB", (20, 20)), 0), (Image.new("RGB", (20, 20)), 1)]
    for channels in (1, 3):
        items = from_dataset(pairs, labels=[0, 1], channels=channels)
        for nothing in ([], torch.zeros(0, dtype=torch.int64)):
            shown = items.thumbnails(nothing, 8)
            assert (shown.shape, shown.dtype) == ((0, 8, 8, channels), np.uint8)
    shown = from_texts(["a", "b"], ["x", "y"]).thumbnails([], 8)
    assert (shown.shape, shown.dtype.kind) == ((0,), "U")
