"""Superclasses from a tree in a file, for data of every kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rince import RinceError, RinceWarning, Taxonomy
from rince.data import FileImages, Items, Splits, from_arrays, from_dataset, from_vectors
from rince.data.given_tree import GivenTree, items_in, parts_in, read_tree, splits_in
from rince.data.text.texts import Texts

TREE = "child,parent\nhusky,dog\npug,dog\ndog,animal\ncarp,animal\ncanoe,boat\nferry,boat\n"
NAMES = ["carp", "husky", "pug", "carp"]
PLACES = (("animal", "carp"), ("animal", "dog", "husky"), ("animal", "dog", "pug"))


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "tree.csv").write_text(TREE)
    return str(tmp_path / "tree.csv")


def given(file: str, recorded: bool = False) -> GivenTree:
    tree = read_tree(file)
    assert tree is not None
    return GivenTree(tree.taxonomy, file, recorded)


def vectors(names: list[str], taxonomy: Taxonomy | None = None) -> Items:
    rows = np.eye(len(names), 8) + 1
    return from_vectors(rows, names, taxonomy=taxonomy, name="pets")


def files(folder: Path) -> Items:
    for i, name in enumerate(NAMES):
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / name / f"{i}.png")
    return FileImages.from_folder(folder)


def texts() -> Items:
    tree = Taxonomy([("carp",), ("husky",), ("pug",)])
    empty = torch.zeros(4, 0, dtype=torch.int64)
    return Texts(tuple("abcd"), empty, torch.tensor([0, 1, 2, 0]), tree, "pets")


@pytest.mark.parametrize("kind", ["vectors", "arrays", "dataset", "files", "texts"])
def test_the_same_items_in_the_tree(kind: str, file: str, tmp_path: Path) -> None:
    pixels = np.zeros((4, 8, 8), np.uint8)
    dataset = list(zip(pixels, NAMES, strict=True))
    items: Items = {
        "vectors": lambda: vectors(NAMES),
        "arrays": lambda: from_arrays(pixels, NAMES, name="pets"),
        "dataset": lambda: from_dataset(dataset, labels=NAMES, name="pets"),
        "files": lambda: files(tmp_path / "pets"),
        "texts": texts,
    }[kind]()
    assert items.taxonomy.num_ranks == 1
    found = items_in(given(file), items)
    # Without the classes that the data lack; a label is that of the same class.
    assert found.taxonomy.paths == PLACES
    assert found.labels.tolist() == items.labels.tolist()
    assert found.name == "pets (tree)"
    assert type(found) is type(items)
    assert (items.name, items.taxonomy.num_ranks) == ("pets", 1)
    assert found.subset([2]).taxonomy.paths == PLACES
    # Items that have been there stay as they are: those of a second seed, of a trial.
    assert items_in(given(file), found) is found
    assert items_in(None, items) is items


def test_further_classes_of_the_test(file: str) -> None:
    train = vectors(["pug", "carp"], Taxonomy([("pug",), ("carp",)]))
    test = vectors(["carp", "ferry"], Taxonomy([("pug",), ("carp",), ("ferry",)]))
    found = splits_in(given(file), Splits(train, test))
    assert found.train.taxonomy.paths == (("animal", "dog", "pug"), ("animal", "carp"))
    assert found.test.taxonomy.paths == (*found.train.taxonomy.paths, ("boat", "ferry"))
    assert found.test.labels.tolist() == [1, 2]
    wrong = vectors(["carp", "fery"], Taxonomy([("pug",), ("carp",), ("fery",)]))
    with pytest.raises(RinceError, match="unknown class 'fery'; did you mean 'ferry'"):
        parts_in(given(file), [train, wrong])


def test_classes_that_the_tree_lacks(file: str) -> None:
    items = vectors(["carp", "huskey", "zebra", "dog"])
    with pytest.raises(RinceError) as refused:
        items_in(given(file), items)
    assert str(refused.value) == (
        f"the tree in {file} does not fit the classes of pets: 3 names are none of the 5 classes: "
        f"'dog' is a group, 'huskey' (did you mean 'husky'?), 'zebra'. Add them to {file} (with an "
        f"empty parent, if they have none), or rename them"
    )


def test_data_with_superclasses(file: str) -> None:
    """They must be those of the tree, which may add more above them."""
    above = items_in(given(file), vectors(["pug"], Taxonomy([("dog", "pug")])))
    assert above.taxonomy.paths == (("animal", "dog", "pug"),)
    tree = Taxonomy([("cat", "pug"), ("cat", "husky")])
    with pytest.raises(
        RinceError, match=r"'cat/pug' .*'cat/husky'.* cat/pug: leave out ranks.tree"
    ):
        items_in(given(file), vectors(["pug", "husky"], tree))


def test_one_name_below_two_parents(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("class,superclass,kind\nshirts,men,sold\nshirts,women,sold\n")
    tree = given(str(tmp_path / "t.csv"))
    with pytest.raises(RinceError, match="2 classes are called 'shirts'"):
        items_in(tree, vectors(["shirts"]))
    found = items_in(tree, vectors(["women/shirts", "men/shirts"]))
    assert found.taxonomy.paths == (("sold", "men", "shirts"), ("sold", "women", "shirts"))


def test_the_tree_of_a_run_meets_any_data(file: str) -> None:
    tree = given(file, recorded=True)
    assert items_in(tree, vectors(NAMES)).taxonomy.paths == PLACES
    with pytest.warns(RinceWarning, match=r"^pets: 1 of 2 .*tree.csv.*zebra"):
        found = items_in(tree, vectors(["ferry", "zebra"]))
    assert found.taxonomy.paths == (("boat", "ferry"), ("zebra",))
    others = Taxonomy([("cat", "pug"), ("horse", "zebra")])
    with pytest.warns(RinceWarning, match=r"^pets: 2 of 2 .*cat/pug, horse/zebra"):
        assert items_in(tree, vectors(["pug", "zebra"], others)).taxonomy == others
    with (
        pytest.warns(RinceWarning, match="animal"),
        pytest.raises(RinceError, match="'animal' is both a class and a group"),
    ):
        items_in(tree, vectors(["animal", "pug"]))


def test_files_of_trees(file: str, tmp_path: Path) -> None:
    assert read_tree(None) is None
    (tmp_path / "rows.csv").write_text("class,group,kind\nhusky,dog,animal\ncarp,,animal\n")
    paths = (("animal", "dog", "husky"), ("animal", "carp"))
    assert given(str(tmp_path / "rows.csv")).taxonomy.paths == paths
    (tmp_path / "old.csv").write_bytes("child,parent\nJagdhund,Säuger\n".encode("cp1252"))
    old = read_tree(str(tmp_path / "old.csv"), "cp1252")
    assert old is not None
    assert old.taxonomy.paths == (("Säuger", "Jagdhund"),)
    # The class is the last column, as in tables of items: it would be read without its superclass.
    (tmp_path / "turned.csv").write_text("superclass,class\ndog,husky\n")
    with pytest.raises(RinceError, match=r"turned.csv has no superclasses.*child and parent"):
        read_tree(str(tmp_path / "turned.csv"))
    with pytest.raises(RinceError, match="there is no file"):
        read_tree(str(tmp_path / "nowhere.csv"))
