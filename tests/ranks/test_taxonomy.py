"""Class trees: the rank table against loops over prefixes, the readers against each other."""

from __future__ import annotations

import csv
import itertools
import json
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rince.core.checks import RinceError, RinceWarning
from rince.core.pair_ranks import IdentityRanks, TableRanks
from rince.ranks import taxonomy
from rince.ranks.readers import class_folders, homonyms, some_names
from rince.ranks.taxonomy import Taxonomy

pd = pytest.importorskip("pandas")

ALL = slice(None)
RAGGED = (
    ("animal", "dog", "husky"),
    ("boat",),
    ("animal", "carp"),
    ("animal", "dog", "malamute"),
    ("animal", "cat", "tabby"),
    ("tool", "saw"),
    ("animal", "trout"),
    ("tool", "axe"),
)


def oracle_rank(paths: Any, a: int, b: int) -> int:
    """The definition, by hand."""
    if a == b:
        return 1
    deepest = 0
    for path in paths:
        deepest = max(deepest, len(path))
    common = 0
    while (
        common < len(paths[a]) and common < len(paths[b]) and paths[a][common] == paths[b][common]
    ):
        common += 1
    return 0 if common == 0 else deepest - common + 1


def oracle_table(paths: Any) -> list[list[int]]:
    size = len(paths)
    return [[oracle_rank(paths, a, b) for b in range(size)] for a in range(size)]


@st.composite
def ragged_paths(draw: st.DrawFn) -> tuple[tuple[str, ...], ...]:
    """Random trees: grown by hanging groups and classes under groups drawn before.

    Group names are unique, so that every reader can express the tree.
    """
    groups: list[tuple[str, ...]] = [()]
    for i in range(draw(st.integers(0, 6))):
        groups.append((*draw(st.sampled_from(groups)), f"g{i}"))
    size = draw(st.integers(1, 12))
    return tuple((*draw(st.sampled_from(groups)), f"c{i}") for i in range(size))


# ---- the table -------------------------------------------------------------------------------


def test_ragged_table_by_hand() -> None:
    tree = Taxonomy(RAGGED)
    rank = {
        (a, b): int(tree.table[tree.index(a), tree.index(b)])
        for a, b in itertools.product(tree.classes, repeat=2)
    }
    assert tree.num_classes == 8
    assert tree.num_ranks == 3
    assert rank["husky", "malamute"] == 2
    assert rank["husky", "tabby"] == 3
    assert rank["husky", "carp"] == 3
    assert rank["carp", "trout"] == 3  # they meet at "animal", one below the top of three levels
    assert rank["saw", "axe"] == 3
    assert rank["husky", "saw"] == rank["boat", "husky"] == rank["boat", "saw"] == 0
    assert all(rank[name, name] == 1 for name in tree.classes)
    assert not (tree.table[tree.index("carp")] == 2).any()


@given(ragged_paths())
def test_table_is_the_definition(paths: tuple[tuple[str, ...], ...]) -> None:
    tree = Taxonomy(paths)
    assert tree.table.dtype == torch.int8
    assert tree.table.tolist() == oracle_table(paths)
    assert torch.equal(tree.table, tree.table.T)
    assert (tree.table.diagonal() == 1).all()
    off_diagonal = tree.table[~torch.eye(len(paths), dtype=torch.bool)]
    assert not (off_diagonal == 1).any()
    assert tree.num_ranks == max(map(len, paths))
    assert int(tree.table.max()) <= tree.num_ranks


@given(ragged_paths())
def test_levels_agree_with_the_table(paths: tuple[tuple[str, ...], ...]) -> None:
    tree = Taxonomy(paths)
    assert tree.labels_at(1).tolist() == list(range(tree.num_classes))
    assert tree.group_names(1) == tree.classes
    for level in range(1, tree.num_ranks + 1):
        labels = tree.labels_at(level)
        assert labels.dtype == torch.int64
        assert sorted(set(labels.tolist())) == list(range(len(tree.group_names(level))))
        assert len(set(tree.group_names(level))) == len(tree.group_names(level))
        flat = tree.flat_table(level)
        assert flat.dtype == torch.int8
        for a, b in itertools.product(range(tree.num_classes), repeat=2):
            same = int(labels[a]) == int(labels[b])
            assert same == (1 <= oracle_rank(paths, a, b) <= level)
            assert int(flat[a, b]) == int(same)


@given(ragged_paths(), st.data())
def test_relabelling_moves_the_table_along(
    paths: tuple[tuple[str, ...], ...], data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(paths))))
    tree = Taxonomy(paths)
    moved = Taxonomy(paths[i] for i in order)
    assert torch.equal(moved.table, tree.table[order][:, order])
    for level in range(2, tree.num_ranks + 1):  # groups above the classes keep their numbers
        assert torch.equal(moved.labels_at(level), tree.labels_at(level)[order])
        assert moved.group_names(level) == tree.group_names(level)


@given(ragged_paths())
def test_a_common_root_turns_negatives_into_the_last_rank(
    paths: tuple[tuple[str, ...], ...],
) -> None:
    tree = Taxonomy(paths)
    rooted = Taxonomy(("root", *path) for path in paths)
    expected = torch.where(tree.table == 0, tree.num_ranks + 1, tree.table)
    assert torch.equal(rooted.table, expected.to(torch.int8))


def test_groups_of_early_classes_and_their_names() -> None:
    tree = Taxonomy(RAGGED)
    # At level 2, two names count: carp, trout, saw, axe and boat are still on their own.
    level_2 = list(tree.group_names(2))
    assert level_2 == ["carp", "cat", "dog", "trout", "boat", "axe", "saw"]
    named = [level_2[i] for i in tree.labels_at(2)]
    assert named == ["dog", "boat", "carp", "dog", "cat", "saw", "trout", "axe"]
    assert tree.group_names(3) == ("animal", "boat", "tool")
    assert [tree.group_names(3)[i] for i in tree.labels_at(3)] == [p[0] for p in RAGGED]


def test_ambiguous_group_names_are_spelled_out() -> None:
    tree = Taxonomy([("a", "other", "x"), ("b", "other", "y"), ("b", "known", "z")])
    assert tree.group_names(2) == ("a/other", "known", "b/other")
    assert tree.table.tolist() == [[1, 0, 0], [0, 1, 3], [0, 3, 1]]


def test_class_may_bear_the_name_of_its_group() -> None:
    assert Taxonomy([("bag", "bag"), ("bag", "purse")]).table.tolist() == [[1, 2], [2, 1]]


@pytest.mark.parametrize("level", [0, 4, -1])
def test_level_out_of_range(level: int) -> None:
    tree = Taxonomy(RAGGED)
    for method in (tree.labels_at, tree.group_names, tree.flat_table):
        with pytest.raises(ValueError, match=f"between 1 .* and 3 .*got {level}"):
            method(level)


# ---- ranks from labels -----------------------------------------------------------------------


@settings(max_examples=30)
@given(ragged_paths(), st.data())
def test_ranks_look_up_the_table(paths: tuple[tuple[str, ...], ...], data: st.DataObject) -> None:
    tree = Taxonomy(paths)
    label = st.integers(0, tree.num_classes - 1)
    query = data.draw(st.lists(label, min_size=1, max_size=5))
    extra = data.draw(st.lists(label, max_size=4))
    valid = data.draw(st.lists(st.booleans(), min_size=len(query + extra), max_size=9))
    valid = valid[: len(query + extra)]
    # An empty queue slot may hold any label at all.
    key = [k if ok else 999 for k, ok in zip(query + extra, valid, strict=True)]
    ranks = tree.ranks(
        torch.tensor(query),
        torch.tensor(key),
        ignore_self=True,
        key_valid=torch.tensor(valid),
    )
    assert ranks.num_ranks == tree.num_ranks
    expected = [
        [
            -1 if i == j or not valid[j] else oracle_rank(paths, query[i], key[j])
            for j in range(len(key))
        ]
        for i in range(len(query))
    ]
    assert ranks.tile(ALL, ALL).tolist() == expected


def test_ranks_keep_self_by_default() -> None:
    labels = torch.tensor([0, 3])
    assert Taxonomy(RAGGED).ranks(labels, labels).tile(ALL, ALL).tolist() == [[1, 2], [2, 1]]


@pytest.mark.parametrize("bad", [8, -1])
def test_label_out_of_range(bad: int) -> None:
    tree, good = Taxonomy(RAGGED), torch.tensor([0, 7])
    with pytest.raises(ValueError, match=rf"query_labels.*\[0, 8\).* {bad}\b"):
        tree.ranks(torch.tensor([0, bad]), good)
    with pytest.raises(ValueError, match=rf"key_labels.*\[0, 8\).* {bad}\b"):
        tree.ranks(good, torch.tensor([bad, 1]))


@pytest.fixture(params=["by table", "level by level"])
def _either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As small trees do it, and as large ones do: 8 classes are few or are many."""
    most = len(RAGGED) if request.param == "by table" else len(RAGGED) - 1
    monkeypatch.setattr(taxonomy, "MAX_TABLE_CLASSES", most)


@pytest.mark.usefixtures("_either_way")
@pytest.mark.parametrize("level", [1, 2, 3])
def test_same_group(level: int) -> None:
    tree = Taxonomy(RAGGED)
    query, key = [3, 6, 1, 5], [0, 6, 2, 7, 99, 5]
    valid = [True, True, True, True, False, True]
    for _ in range(2):  # what was made the first time is used again
        ranks = tree.same_group(
            level,
            torch.tensor(query),
            torch.tensor(key),
            ignore_self=True,
            key_valid=torch.tensor(valid),
        )
        assert ranks.num_ranks == 1
        assert ranks.tile(ALL, ALL).tolist() == [
            [
                -1 if i == j or not valid[j] else int(1 <= oracle_rank(RAGGED, a, b) <= level)
                for j, b in enumerate(key)
            ]
            for i, a in enumerate(query)
        ]
    assert isinstance(ranks, TableRanks if len(RAGGED) <= taxonomy.MAX_TABLE_CLASSES
                      else IdentityRanks)  # fmt: skip


@pytest.mark.usefixtures("_either_way")
def test_pairs_and_levels_that_are_refused() -> None:
    tree, labels = Taxonomy(RAGGED), torch.tensor([0, 1, 2])
    for take in (tree.ranks, lambda *sides, **masks: tree.same_group(2, *sides, **masks)):
        with pytest.raises(ValueError, match=r"query labels must be a vector.*\(3, 1\)"):
            take(labels[:, None], labels)
        with pytest.raises(ValueError, match=r"key_valid must be.*one entry per key.*\(2,\)"):
            take(labels, labels, key_valid=torch.tensor([True, True]))
        with pytest.raises(ValueError, match=r"3 queries and only 2 keys"):
            take(labels, labels[:2], ignore_self=True)
        assert take(labels, labels[:2]).shape == (3, 2)
        with pytest.raises(ValueError, match=r"key_labels.*\[0, 8\).* 8\b"):
            take(labels, labels + 6)
    for level in (0, 4, -1):
        with pytest.raises(ValueError, match=f"between 1 .* and 3 .*got {level}"):
            tree.same_group(level, labels, labels)


def test_keys_that_do_not_count_in_a_tree_of_one_class(monkeypatch: pytest.MonkeyPatch) -> None:
    tree, label = Taxonomy([("x",)]), torch.tensor([0, -7])
    for most in (0, 1):
        monkeypatch.setattr(taxonomy, "MAX_TABLE_CLASSES", most)
        ranks = tree.ranks(label[:1], label, key_valid=torch.tensor([True, False]))
        assert ranks.tile(ALL, ALL).tolist() == [[1, -1]]


# ---- storing, equality, look-up --------------------------------------------------------------


@given(ragged_paths())
def test_paths_survive_json_and_pickle(paths: tuple[tuple[str, ...], ...]) -> None:
    tree = Taxonomy(paths)
    table = tree.table.clone()
    for copy in (Taxonomy(json.loads(json.dumps(tree.paths))), pickle.loads(pickle.dumps(tree))):
        assert copy == tree
        assert hash(copy) == hash(tree)
        assert copy.paths == paths
        assert torch.equal(copy.table, table)
    assert Taxonomy([*paths, ("one more",)]) != tree


def test_frozen() -> None:
    with pytest.raises(AttributeError):
        Taxonomy(RAGGED).paths = ()  # type: ignore[misc]


def test_index_and_did_you_mean() -> None:
    tree = Taxonomy(RAGGED)
    assert [tree.index(name) for name in tree.classes] == list(range(8))
    with pytest.raises(ValueError, match="unknown.*'huskie'.*'husky'"):
        tree.index("huskie")
    with pytest.raises(ValueError, match=r"unknown.*'1234'.*\b8\b.*husky, boat"):
        tree.index("1234")
    with pytest.raises(ValueError, match="'dog' is a group"):
        tree.index("dog")
    alike = Taxonomy([(f"husky{i}",) for i in range(5)])
    with pytest.raises(ValueError, match=r"did you mean 'husky\d' or 'husky\d' or 'husky\d'\?$"):
        alike.index("husky")


@pytest.mark.parametrize(
    ("size", "lines", "more"), [(20, 20, ""), (21, 21, "... and 1 more"), (2, 2, "")]
)
def test_a_notebook_shows_the_first_twenty_classes(size: int, lines: int, more: str) -> None:
    tree = Taxonomy([("top", f"c{i}") for i in range(size)])
    title, *shown = tree._repr_html_().removeprefix("<pre>").removesuffix("</pre>").split("\n")
    assert title == f"Taxonomy({size} classes, 2 ranks)"
    classes = [f"top &gt; c{i}" for i in range(min(size, 20))]
    assert shown == [*classes, *([more] if more else [])]


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        ([("pet", "cat"), ("toy", "cat"), ("pet", "dog")], ("cat",)),
        ([("cat", "siamese"), ("toy", "cat")], ("cat",)),  # a group, and a class of another
        ([("a", "b", "x"), ("a", "c", "x"), ("d", "b", "y")], ("x", "b")),
        ([("a", "x"), ("a", "y"), ("b", "z")], ()),
    ],
)
def test_names_under_more_than_one_parent(
    paths: list[tuple[str, ...]], names: tuple[str, ...]
) -> None:
    assert homonyms(paths) == names


# ---- the readers agree -----------------------------------------------------------------------


def write_folders(root: Path, paths: Any) -> None:
    for i, path in enumerate(paths):
        folder = root.joinpath(*path)
        folder.mkdir(parents=True)
        (folder / f"image{i}.{('jpg', 'PNG', 'JPEG')[i % 3]}").touch()


def write_csv(file: Path, paths: Any) -> None:
    """One row a class, from the class up; rows end where the tree ends."""
    deepest = max(map(len, paths))
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["class", *(f"level{k}" for k in range(2, deepest + 1))])
        for path in paths:
            writer.writerow([*reversed(path)])


def as_nested(paths: Any) -> list[Any]:
    tree: list[Any] = []
    for path in paths:
        node = tree
        for name in path[:-1]:
            found = next((d[name] for d in node if isinstance(d, dict) and name in d), None)
            if found is None:
                found = []
                node.append({name: found})
            node = found
        node.append(path[-1])
    return tree


def as_parents(paths: Any) -> dict[str, str | None]:
    edges: dict[str, str | None] = {}
    for path in paths:
        for parent, child in zip((None, *path), path, strict=False):
            edges[child] = parent
    return edges


@settings(max_examples=25, deadline=None)
@given(ragged_paths())
def test_all_readers_give_the_same_tree(
    tmp_path_factory: pytest.TempPathFactory, paths: tuple[tuple[str, ...], ...]
) -> None:
    folder = tmp_path_factory.mktemp("tree")
    write_folders(folder / "images", paths)
    write_csv(folder / "tree.csv", paths)
    in_order = Taxonomy(paths)
    assert Taxonomy.from_folders(folder / "images") == Taxonomy(sorted(paths))
    assert Taxonomy.from_csv(folder / "tree.csv") == in_order
    assert Taxonomy.from_parents(as_parents(paths)) == in_order
    assert Taxonomy.from_parents(list(as_parents(paths).items())) == in_order
    nested = Taxonomy.from_dict(as_nested(paths))  # written group by group
    assert sorted(nested.paths) == sorted(paths)


def test_from_dict_keeps_the_written_order() -> None:
    tree = Taxonomy.from_dict({"animal": [{"dog": ["husky", "malamute"]}, "carp"], "b": ["a"]})
    assert tree.paths == (
        ("animal", "dog", "husky"),
        ("animal", "dog", "malamute"),
        ("animal", "carp"),
        ("b", "a"),
    )
    assert Taxonomy.from_dict(["x", "y"]).paths == (("x",), ("y",))
    deep = {"animal": {"dog": ["husky"], "cat": ("tabby",)}}
    assert Taxonomy.from_dict(deep).paths == (
        ("animal", "dog", "husky"),
        ("animal", "cat", "tabby"),
    )


def test_from_folders_passes_over_what_is_no_image(tmp_path: Path) -> None:
    write_folders(tmp_path, RAGGED)
    (tmp_path / ".git" / "x").mkdir(parents=True)
    (tmp_path / "animal" / ".thumbnails").mkdir()
    (tmp_path / "README.md").touch()
    (tmp_path / "boat" / "labels.txt").touch()
    (tmp_path / "boat" / ".hidden.jpg").touch()
    assert Taxonomy.from_folders(str(tmp_path)).paths == tuple(sorted(RAGGED))


def test_folders_that_differ_in_capitals_are_named(tmp_path: Path) -> None:
    write_folders(tmp_path, [("Dog", "husky"), ("cat",), ("dog", "husky")])
    if len(os.listdir(tmp_path)) == 2:
        pytest.skip("on this file system the two are one folder")
    with pytest.warns(RinceWarning, match="holds Dog and dog, which are two classes"):
        assert Taxonomy.from_folders(tmp_path).num_classes == 3


def test_from_folders_follows_links(tmp_path: Path) -> None:
    write_folders(tmp_path / "elsewhere", [("dog", "husky")])
    write_folders(tmp_path / "root", [("boat",)])
    os.symlink(tmp_path / "elsewhere" / "dog", tmp_path / "root" / "dog")
    assert Taxonomy.from_folders(tmp_path / "root").paths == (("boat",), ("dog", "husky"))


def test_from_csv_details(tmp_path: Path) -> None:
    file = tmp_path / "tree.csv"
    file.write_text(
        "\ufeffid, class ,superclass,top,\n"
        '1, husky,dog,animal\n\n2,"carp, common",,animal,\n3,boat\n',
        encoding="utf-8",
    )
    assert Taxonomy.from_csv(file).paths == (
        ("animal", "dog", "husky"),
        ("animal", "carp, common"),
        ("boat",),
    )
    assert Taxonomy.from_csv(file, levels=["id", "top"]).paths == (
        ("animal", "1"),
        ("animal", "2"),
        ("3",),
    )


# ---- refusals --------------------------------------------------------------------------------

BAD_PATHS: list[tuple[Any, str]] = [
    ([], "at least one class"),
    ([("a", "x"), ()], "class 1: a path is a sequence of 1 to 127 names"),
    (["husky"], "class 0: a path is a sequence.*got 'husky'"),
    ([tuple(map(str, range(128)))], "1 to 127 names"),
    ([("a", "")], "class 0: names must be strings that are not empty, got ''"),
    ([("a", "x"), (" ", "y")], "class 1: names .* not empty, got ' '"),
    ([("a", 3)], "names must be strings.*got 3"),
    ([("a", ["b"])], r"names must be strings.*got \['b'\]"),
    ([("a", "x"), ("a", "y"), ("a", "x")], r"'a/x' is given twice \(class 0 and class 2\)"),
    ([("a", "caf\u00e9"), ("a", "cafe\u0301")], r"twice \(class 0 and class 1\): .*accent"),
    ([("a", "x"), ("a", " x")], r"'a/ x' is given twice"),
    ([("1", "x"), ("1.0", "y")], "class 0 and class 1: '1' and '1.0' look like one name"),
    ([("True", "x"), ("true", "y")], "class 0 and class 1: 'True' and 'true' look like one name"),
    ([("a", "x"), ("a", "x\u200b")], "'x' and 'x.u200b' look like one name"),
    ([("a", "x y"), ("a", "x  y")], "'x y' and 'x  y' look like one name"),
    ([("a", "b/c"), ("a/b", "c")], "both classes are written 'a/b/c'"),
    ([("a/b", "c/d/e"), ("a/b/c", "d/e")], "both classes are written 'a/b/c/d/e'"),
    ([("a", "b"), ("a", "b", "x")], "class 0: 'a/b' is both a class and a group"),
    ([("a", "b", "x"), ("a",)], "class 1: 'a' is both a class and a group"),
]


@pytest.mark.parametrize(("paths", "message"), BAD_PATHS)
def test_bad_paths(paths: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Taxonomy(paths)


def test_deepest_allowed_path_fits_int8() -> None:
    spine = tuple(f"g{i}" for i in range(126))
    tree = Taxonomy([(*spine, "x"), ("g0", "y")])
    assert tree.num_ranks == 127
    assert tree.table.tolist() == [[1, 127], [127, 1]]


def test_folders_and_labels_may_be_as_deep(tmp_path: Path) -> None:
    deepest = ("g",) * 127
    write_folders(tmp_path, [deepest])
    assert Taxonomy.from_folders(tmp_path).paths == (deepest,)
    labels = torch.zeros(1, 127, dtype=torch.int64)
    assert Taxonomy.from_labels(labels, finest_first=True).paths == (("0",) * 127,)
    (tmp_path.joinpath(*deepest) / "image0.jpg").unlink()
    (tmp_path.joinpath(*deepest) / "g").mkdir()
    with pytest.raises(RinceError, match="127"):
        Taxonomy.from_folders(tmp_path)
    with pytest.raises(ValueError, match=r"127.*\(1, 128\)"):
        Taxonomy.from_labels(torch.zeros(1, 128, dtype=torch.int64), finest_first=True)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({}, "tree holds no class"),
        ({"a": {"b": []}}, "group 'a/b'.*no class"),
        ({"a": ["x"], "b": {}}, "group 'b'.*no class"),
        ({"a": ["x", None]}, "'a'.*dict.*list.*None"),
        ({"husky": "dog"}, "'husky'.*'dog'.*from_parents"),
        ({"a": ["x", "x"]}, "'a/x' is given twice"),
        ({"a": ["x", ["y"], {"b": [["x"], "x"]}]}, "'a/b/x' is given twice"),
        ({"a": ["x", ""]}, "names.*empty"),
        ({"a": ["b", {"b": ["x"]}]}, "'a/b'.*class.*group"),
    ],
)
def test_bad_dicts(tree: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Taxonomy.from_dict(tree)


def test_dict_that_holds_itself() -> None:
    loop: dict[str, Any] = {}
    loop["a"] = loop
    with pytest.raises(ValueError, match="nested.*127"):
        Taxonomy.from_dict(loop)


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ({}, "one class"),
        ({"a": "a"}, "cycle: a -> a$"),
        ({"x": "a", "a": "b", "b": "c", "c": "a"}, "cycle: a -> b -> c -> a$"),
        ({"x": "dog", "a": "b", "b": "a"}, "cycle: a -> b -> a$"),  # no class below it
        ([("x", "dog"), ("x", "pet")], "'x'.*parents.*'dog'.*'pet'"),
        (
            [("x", "dog"), ("dog", None), ("dog", "pet")],
            "'dog'.*parents.*no group.*'pet'",
        ),
        ({"x": ""}, "not empty"),
    ],
)
def test_bad_parents(edges: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Taxonomy.from_parents(edges)


def test_a_table_of_children_and_parents(tmp_path: Path) -> None:
    tree = Taxonomy.from_parents({"7": "dog", "dog": "animal", "pug": "dog", "boat": None})
    file = tmp_path / "edges.csv"
    for text in (
        "child,parent\n7,dog\ndog,animal\npug,dog\nboat,\n",
        "parent;Child\ndog;7\nanimal;dog\ndog;pug\n;boat\n".replace("C", "c"),
        "child,parent\n7,dog\npug,dog\n7,dog\ndog,animal\nanimal\nboat\n",
    ):
        file.write_text(text)
        assert Taxonomy.from_csv(file) == tree, text
    for rows, message in (
        ("a,b\na,c\n", "'a' has two parents, 'b' and 'c'"),
        ("a,b\nb,a\n", "cycle"),
        (",b\n", "not empty"),
    ):
        file.write_text(f"child,parent\n{rows}")
        with pytest.raises(RinceError, match=rf"edges\.csv: .*{message}"):
            Taxonomy.from_csv(file)
    file.write_text("child,parent\na,b\n")
    with pytest.raises(RinceError, match="no column 'class'"):
        Taxonomy.from_csv(file, levels=["class"])


def test_numbers_and_data_frames_are_names_too() -> None:
    pandas = pytest.importorskip("pandas")
    tree = Taxonomy([("9", "1"), ("9", "2")])
    edges = {1: 9, 2: 9.0}
    frame = pandas.DataFrame({"child": [1, 2, 9], "parent": [9, 9, float("nan")]})
    column = frame.set_index("child")["parent"]
    pairs = torch.tensor([[1, 9], [2, 9]])
    words = [("1", "9"), ("2", "9"), ("9", None)]
    for written in (edges, edges.items(), pairs, pandas.Series(edges), frame, column, words):
        assert Taxonomy.from_parents(written) == tree, written
    assert Taxonomy.from_dict({9: [1, 2]}) == tree
    assert Taxonomy.from_dict({9: [{5: [1]}, 2]}).paths == (("9", "5", "1"), ("9", "2"))
    assert tree.index(2) == tree.index("2") == 1
    for wrong in ([-1, 0, 0], torch.tensor([0, 1]), [("a", "b", "c")]):
        with pytest.raises(ValueError, match="child"):
            Taxonomy.from_parents(wrong)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "table is empty"),
        ("\n\n", "table is empty"),
        ("class,superclass\n", "one class"),
        ("name,superclass\nx,a\n", "'class'.*name, superclass.*levels="),
        ("class,a\nx,p\n,p\n", "line 3.*'class'.*empty"),
        ("class,a\nx,p,q\n", r"line 2.*\b3\b.*header.*\b2\b"),
        ("class,a\nx,p\ny,p\n\nx,p\n", "'p/x'.*twice.*line 2.*line 5"),
        ("class,a\nx,1\ny,1.0\n", r"line 2.*line 3.*'1'.*'1\.0'"),
        ("class,a\nx,p\np,\n", "line 3.*'p'.*class.*group"),
        ("class,a,a\nx,p,q\n", "'a'.*twice"),
    ],
)
def test_bad_csv(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "tree.csv"
    file.write_text(text)
    with pytest.raises(RinceError, match=re.escape(str(file)) + ": .*" + message):
        Taxonomy.from_csv(file)


def test_all_rows_that_are_too_long_are_named(tmp_path: Path) -> None:
    file = tmp_path / "tree.csv"
    file.write_text("class,a\nx,p,q\ny\nz,p,q,r\n")
    with pytest.raises(RinceError, match=r"\b2 bad rows.*line 2: 3\b.*line 4: 4\b"):
        Taxonomy.from_csv(file)


def test_other_tables_than_csv(tmp_path: Path) -> None:
    expected = (("animal", "husky"), ("boat",))
    (tmp_path / "t.csv").write_text("class;up\nhusky;animal\nboat;\n")
    (tmp_path / "t.tsv").write_text("class\tup\nhusky\tanimal\nboat\n")
    (tmp_path / "t.jsonl").write_text('{"class": "husky", "up": "animal"}\n{"class": "boat"}\n')
    for name in ("t.csv", "t.tsv", "t.jsonl"):
        assert Taxonomy.from_csv(tmp_path / name).paths == expected


def test_two_unicode_forms_are_one_name(tmp_path: Path) -> None:
    one, two = "caf\u00e9", "cafe\u0301"
    tree = Taxonomy([(two,), ("eau",)])
    assert tree.classes[0] == one
    assert tree.index(one) == tree.index(two) == 0
    assert Taxonomy([(one, "a"), (two, "b")]).labels_at(2).tolist() == [0, 0]
    assert Taxonomy.from_parents({"a": one, "b": two}).paths == ((one, "a"), (one, "b"))
    write_folders(tmp_path, [(two, "a"), (two, "b")])
    assert Taxonomy.from_folders(tmp_path).paths == ((one, "a"), (one, "b"))


def test_names_under_several_parents(tmp_path: Path) -> None:
    paths = (("men", "shirts"), ("men", "ties"), ("women", "shirts"), ("shirts",), ("x", "a/b"))
    tree = Taxonomy(paths)
    assert tree.classes == ("men/shirts", "ties", "women/shirts", "shirts", "a/b")
    for label, path in enumerate(paths):
        assert tree.index("/".join(path)) == tree.index(tree.classes[label]) == label
    assert Taxonomy(json.loads(json.dumps(tree.paths))) == tree
    with pytest.raises(ValueError, match=r"\b2\b.*'shirts'.*men/shirts, women/"):
        Taxonomy(paths[:3]).index("shirts")
    assert Taxonomy.from_dict({"men": ["shirts", "ties"], "women": ["shirts"]}).paths == paths[:3]
    file = tmp_path / "t.csv"
    file.write_text("class,up\nshirts,men\nties,men\nshirts,women\n")
    assert Taxonomy.from_csv(file).paths == paths[:3]
    write_folders(tmp_path / "shop", paths[:3])
    assert Taxonomy.from_folders(tmp_path / "shop").paths == paths[:3]
    deep = Taxonomy([("a", "x", "y"), ("b", "x", "y"), ("b", "z", "y")])
    assert deep.classes == ("a/x/y", "b/x/y", "z/y")
    assert deep.group_names(2) == ("a/x", "b/x", "z")
    # What one class is called in full may be another's own name, with other / or without.
    assert Taxonomy([("x", "a/b"), ("a", "b"), ("c", "b")]).classes == ("x/a/b", "a/b", "c/b")
    found = Taxonomy([("x/y", "a/b/c/d"), ("a/b", "c/d"), ("e/f", "c/d")]).classes
    assert found == ("x/y/a/b/c/d", "a/b/c/d", "e/f/c/d")


def test_junk_of_systems_is_no_class(tmp_path: Path) -> None:
    write_folders(tmp_path, RAGGED)
    for junk in ("__MACOSX/dog/husky", "lost+found", "$RECYCLE.BIN/S-1-5", "boat/@eaDir/0.jpg"):
        (tmp_path / junk).mkdir(parents=True)
        (tmp_path / junk / "thumbnail.jpg").touch()
    assert Taxonomy.from_folders(tmp_path).paths == tuple(sorted(RAGGED))


def test_a_class_may_be_called_as_a_program_was(tmp_path: Path) -> None:
    paths = [("pharmacy", "CVS"), ("pharmacy", "Rite"), ("tool", "Recycler")]
    write_folders(tmp_path, paths)
    assert Taxonomy.from_folders(tmp_path).paths == tuple(paths)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_every_class_is_found_by_its_path_and_by_its_name(data: st.DataObject) -> None:
    names = st.sampled_from(("a", "b", "c", "a/b", "é", "e\u0301"))
    drawn = data.draw(st.lists(st.lists(names, min_size=1, max_size=4), min_size=1, max_size=12))
    try:
        tree = Taxonomy(drawn)
    except ValueError:
        return
    assert len(set(tree.classes)) == tree.num_classes
    for label, path in enumerate(drawn):
        assert tree.index("/".join(path)) == tree.index(tree.classes[label]) == label
        assert tree.index(tree.classes).tolist() == list(range(tree.num_classes))
        endings = ["/".join(tree.paths[label][-k:]) for k in range(1, len(path) + 1)]
        shown = endings.index(tree.classes[label])
        others = [x for x in tree.paths if x != tree.paths[label]]
        if not any("/" in name for name in itertools.chain(*drawn)):
            for shorter in endings[:shown]:
                assert any(("/" + "/".join(x)).endswith("/" + shorter) for x in others)


def slow_called(tree: Taxonomy, name: str) -> list[int]:
    """The definition: the class of this path; or else of all paths that end so, those first of
    which the name is more of the last one."""
    whole = [label for label, path in enumerate(tree.paths) if "/".join(path) == name]
    ending = [
        label
        for label, path in enumerate(tree.paths)
        if any("/".join(path[k:]) == name for k in range(len(path)))
    ]
    return whole or sorted(ending, key=lambda label: (-len(tree.paths[label][-1]), label))


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_what_a_name_calls_is_the_definition(data: st.DataObject) -> None:
    names = st.sampled_from(("a", "b", "c", "a/b", "b/a", "é"))
    drawn = data.draw(st.lists(st.lists(names, min_size=1, max_size=4), min_size=1, max_size=12))
    try:
        tree = Taxonomy(drawn)
    except ValueError:
        return
    parts = data.draw(st.lists(names, min_size=1, max_size=4))
    name = "/".join(parts)
    wanted = slow_called(tree, name)
    assert tree.called(name) == tree.called(f" {name} ") == wanted
    if len(wanted) == 1:
        assert tree.index(name) == wanted[0]
    elif wanted:
        several = ", ".join("/".join(tree.paths[label]) for label in wanted[:8])
        said = f"{len(wanted)} classes are called {name!r}: say {several}"
        with pytest.raises(ValueError, match=f"^{re.escape(said)}"):
            tree.index(name)


def test_index_where_each_name_occurs_under_many_parents() -> None:
    """Products in sizes: the time grows as the classes do, not as their square."""
    rows = [(f"p{i}", size) for i in range(5000) for size in ("S", "M", "L", "XL")]
    tree = Taxonomy(rows)
    assert tree.index(rows).tolist() == list(range(20_000))
    assert tree.index([f"p{i}/XL" for i in range(5000)]).tolist() == list(range(3, 20_000, 4))


def test_index_of_many() -> None:
    tree = Taxonomy.from_dict({"dog": ["husky", "pug"], "cat": ["manx"]})
    names = ["manx", "husky", "manx"]
    for held in (names, tuple(names), np.array(names), np.array(names, object), pd.Series(names)):
        labels = tree.index(held)
        assert labels.dtype == torch.int64
        assert labels.tolist() == [2, 0, 2]
    assert tree.index([]).tolist() == []
    assert tree.index([("cat", "manx"), ("dog", "pug")]).tolist() == [2, 1]
    with pytest.raises(ValueError, match="unknown class 'poodle'"):
        tree.index(["pug", "poodle"])
    with pytest.raises(ValueError, match=r"row 1\b.*missing"):
        tree.index(pd.Series(["pug", None]))
    with pytest.raises(ValueError, match=r"expected names.*\(1, 1, 2\)"):
        tree.index([[["cat", "manx"]]])
    with pytest.raises(ValueError, match=r"expected names.*\(2,\) and type float64"):
        tree.index([0.0, 1.0])
    with pytest.raises(ValueError, match=r"expected names.*\(\)"):
        tree.index(np.array("manx"))


def test_labels_as_people_hold_them() -> None:
    """Ids that are not contiguous and start again in each group."""
    rows = [[7, 0], [7, 1], [900, 0], [7, 1]]
    expected = Taxonomy.from_labels(rows, finest_first=False)
    assert expected.paths == (("7", "0"), ("900", "0"), ("7", "1"))
    assert expected.classes == ("7/0", "900/0", "1")
    held: list[Any] = [
        *(np.array(rows, dtype) for dtype in (np.uint16, np.int32, np.uint64, object, str)),
        *(torch.tensor(rows, dtype=dtype) for dtype in (torch.int16, torch.int32)),
        pd.DataFrame(rows, columns=["a", "b"]),
        pd.DataFrame(rows, columns=["a", "b"]).astype(str),
        [torch.tensor(row) for row in rows],
    ]
    for labels in held:
        tree = Taxonomy.from_labels(labels, finest_first=False)
        assert tree == expected
        assert tree.index(labels).tolist() == [0, 2, 1, 2]
    pets = pd.DataFrame({"kind": ["dog", "cat", "dog"], "breed": ["pug", "manx", "pug"]})
    tree = Taxonomy.from_labels(pets, finest_first=False)
    assert tree.paths == (("cat", "manx"), ("dog", "pug"))
    assert tree.index(pets).tolist() == tree.index(pets["breed"]).tolist() == [1, 0, 1]
    with pytest.raises(ValueError, match="missing"):
        Taxonomy.from_labels(pd.DataFrame({"a": [1.0, None]}), finest_first=True)


def test_aligned_to() -> None:
    tree = Taxonomy.from_dict({"dog": ["pug", "husky"], "cat": ["manx"]})
    assert tree.aligned_to(["husky", "manx", "pug"]).classes == ("husky", "manx", "pug")
    assert tree.aligned_to(["cat/manx"]).paths == (("cat", "manx"),)
    with pytest.raises(ValueError, match="unknown.*'cat'|'cat'.*group"):
        tree.aligned_to(["cat", "dog"])  # what ImageFolder finds in nested folders
    with pytest.raises(ValueError, match="pug:.*twice"):
        tree.aligned_to(["pug", "dog/pug"])


def test_labels_of_any_type_have_ranks() -> None:
    tree = Taxonomy.from_dict({"dog": ["husky", "pug"], "cat": ["manx"]})
    expected = [[1, 2, 0]]
    sides: list[tuple[Any, Any]] = [
        ([0], [0, 1, 2]),
        (np.array([0], np.uint8), np.arange(3, dtype=np.int32)),
        (torch.tensor([0], dtype=torch.int16), pd.Series([0, 1, 2])),
        (["husky"], ["husky", "pug", "manx"]),
        (np.array([0], object), np.arange(3).astype(object)),  # as of a data frame with gaps
    ]
    for query, key in sides:
        assert tree.ranks(query, key).tile(ALL, ALL).tolist() == expected
    with pytest.raises(ValueError, match="query labels.*float"):
        tree.ranks([0.5], [0])
    with pytest.raises(ValueError, match="row 1: a label is missing"):
        tree.ranks(["husky", None], [0])


def test_csv_levels(tmp_path: Path) -> None:
    file = tmp_path / "tree.csv"
    file.write_text("class,a,b\nx,p,q\n")
    assert Taxonomy.from_csv(file, levels=("class", "b")).paths == (("q", "x"),)
    bad: list[tuple[Any, str]] = [
        (("class", "kingdom"), "no column 'kingdom'; the columns are class, a, b"),
        (("class", "a", "a"), "'a'.*twice in levels"),
        ((), "names no column"),
        ("class", "levels must be a list of column names"),
    ]
    for levels, message in bad:
        with pytest.raises(RinceError, match=message):
            Taxonomy.from_csv(file, levels=levels)
    file.write_text("class,a,a\nx,p,q\n")  # which of the two would be meant?
    with pytest.raises(RinceError, match="'a'.*twice"):
        Taxonomy.from_csv(file, levels=("class", "a"))


def test_a_class_named_like_its_own_group_is_no_cycle(tmp_path: Path) -> None:
    file = tmp_path / "tree.csv"
    file.write_text("class,superclass\nbag,bag\nshirt,tops\n")
    assert Taxonomy.from_csv(file).paths == (("bag", "bag"), ("tops", "shirt"))


def test_csv_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RinceError, match=r"class table.*missing\.csv"):
        Taxonomy.from_csv(tmp_path / "missing.csv")
    (tmp_path / "latin.csv").write_bytes("class,a\ncaf\u00e9,b\n".encode("latin-1"))
    with pytest.raises(RinceError, match=r"class table.*latin\.csv.*line 2\b.*UTF-8"):
        Taxonomy.from_csv(tmp_path / "latin.csv")


def _empty_class(root: Path) -> None:
    (root / "animal" / "wolf").mkdir()


def _no_image(root: Path) -> None:
    (root / "animal" / "wolf").mkdir()
    (root / "animal" / "wolf" / "a.txt").touch()


def _only_hidden(root: Path) -> None:
    (root / "tool" / "saw2").mkdir()
    (root / "tool" / "saw2" / ".a.jpg").touch()


def _mixed(root: Path) -> None:
    (root / "animal" / "dog" / "stray.jpg").touch()


def _looks_the_same(root: Path) -> None:
    write_folders(root, [("animal", "dog", "husky\u200b")])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_empty_class, "animal/wolf is empty.*one image"),
        (_no_image, r"animal/wolf.*no image.* 1 \."),
        (_only_hidden, "tool/saw2 is empty"),
        (_mixed, r"animal/dog.*stray\.jpg.*husky, malamute"),
        (_looks_the_same, r"dog/husky .*dog/husky\u200b:.*one name"),
    ],
)
def test_bad_folders(tmp_path: Path, spoil: Callable[[Path], None], message: str) -> None:
    write_folders(tmp_path, RAGGED)
    Taxonomy.from_folders(tmp_path)  # good before it is spoiled
    spoil(tmp_path)
    with pytest.raises(RinceError, match=message):
        Taxonomy.from_folders(tmp_path)


def test_empty_folders_are_counted_where_they_may_be(tmp_path: Path) -> None:
    write_folders(tmp_path, [("tool", "saw")])
    (tmp_path / "tool" / "axe").mkdir()
    (tmp_path / "tool" / "hammer").mkdir()
    (tmp_path / "tool" / "hammer" / "notes.txt").touch()
    empty: dict[Path, str] = {}
    assert list(class_folders(tmp_path, (), empty)) == [("tool", "saw")]
    assert empty.keys() == {tmp_path / "tool" / "axe", tmp_path / "tool" / "hammer"}
    with pytest.raises(RinceError, match=r"tool/axe is empty, .*tool/hammer.* 1 \.txt.*one image"):
        Taxonomy.from_folders(tmp_path)


def test_bad_root_folders(tmp_path: Path) -> None:
    with pytest.raises(RinceError, match="there is no folder.*missing; expected"):
        Taxonomy.from_folders(tmp_path / "missing")
    with pytest.raises(RinceError, match="is empty"):
        Taxonomy.from_folders(tmp_path)
    (tmp_path / "a.jpg").touch()
    with pytest.raises(RinceError, match="images.*directly"):
        Taxonomy.from_folders(tmp_path)


def test_splits_inside_the_root_get_a_hint(tmp_path: Path) -> None:
    write_folders(tmp_path, [("train", "dog", "husky"), ("val", "dog", "husky")])
    with pytest.raises(RinceError, match=f"give its folder: {re.escape(str(tmp_path))}/train"):
        Taxonomy.from_folders(tmp_path)


def test_splits_are_named_as_their_folders_are(tmp_path: Path) -> None:
    write_folders(tmp_path, [("Train", "x"), ("Dev", "x")])
    with pytest.raises(RinceError, match=rf"\(Train, Dev\).*{re.escape(str(tmp_path))}/Train$"):
        Taxonomy.from_folders(tmp_path)


@pytest.mark.parametrize("groups", [("bus", "train"), ("test", "val"), ("train",)])
def test_groups_that_are_called_like_a_split(tmp_path: Path, groups: tuple[str, ...]) -> None:
    """A train is a vehicle, unless there is another split beside it."""
    paths = tuple((group, "x") for group in groups)
    write_folders(tmp_path, paths)
    assert Taxonomy.from_folders(tmp_path).paths == paths


def test_link_loop_ends(tmp_path: Path) -> None:
    write_folders(tmp_path, [("tool", "saw")])
    os.symlink(tmp_path / "tool", tmp_path / "tool" / "again")
    with pytest.raises(RinceError, match="/tool/again is a link to a folder that it is in"):
        Taxonomy.from_folders(tmp_path)
    (tmp_path / "tool" / "again").unlink()
    os.symlink("again", tmp_path / "tool" / "again")  # to itself: no folder
    os.symlink(tmp_path / "tool" / "saw", tmp_path / "tool" / "other")
    assert Taxonomy.from_folders(tmp_path).paths == (("tool", "other"), ("tool", "saw"))


# ---- known trees -----------------------------------------------------------------------------


def test_cifar100() -> None:
    tree = Taxonomy.cifar100()
    assert tree.num_classes == 100
    assert tree.num_ranks == 2
    assert list(tree.classes) == sorted(tree.classes)
    # The data set's own fine -> coarse mapping, as in its pickles.
    official = """
         4  1 14  8  0  6  7  7 18  3   3 14  9 18  7 11  3  9  7 11
         6 11  5 10  7  6 13 15  3 15   0 11  1 10 12 14 16  9 11  5
         5 19  8  8 15 13 14 17 18 10  16  4 17  4  2  0 17  4 18 17
        10  3  2 12 12 16 12  1  9 19   2 10  0  1 16 12  9 13 15 13
        16 19  2  4  6 19  5  5  8 19  18  1  2 15  6  0 17  8 14 13"""
    assert tree.labels_at(2).tolist() == [int(number) for number in official.split()]
    assert torch.bincount(tree.labels_at(2)).tolist() == [5] * 20
    assert tree.paths[tree.index("maple_tree")] == ("trees", "maple_tree")
    known = {0: "apple", 1: "aquarium_fish", 39: "keyboard", 47: "maple_tree", 99: "worm"}
    assert {i: tree.classes[i] for i in known} == known
    assert tree.group_names(2)[17] == "trees"
    assert (tree.table == 2).sum(dim=1).tolist() == [4] * 100


def test_fashion_mnist() -> None:
    tree = Taxonomy.fashion_mnist()
    assert tree.classes == (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    )
    groups = [{0, 2, 4, 6}, {5, 7, 9}]
    for a, b in itertools.product(range(10), repeat=2):
        together = any(a in group and b in group for group in groups)
        assert int(tree.table[a, b]) == (1 if a == b else 2 if together else 0)
    assert tree.describe().without_sibling == ("Trouser", "Dress", "Bag")


def shared_data(name: str) -> Path:
    repo = Path(__file__).resolve().parents[2]
    root = Path(os.environ.get("RINCE_SHARED_DATA", repo.parent / "shared" / "data"))
    if not (root / name).exists():
        pytest.skip(f"no {root / name}; set RINCE_SHARED_DATA to the folder that holds it")
    return root / name


def test_tiny_imagenet_csv() -> None:
    file = shared_data("tiny-imagenet-100/taxonomy.csv")
    tree = Taxonomy.from_csv(file)
    assert tree == Taxonomy.from_csv(file, levels=("class", "superclass"))
    assert tree.num_ranks == 2
    assert torch.bincount(tree.labels_at(2)).tolist() == [5] * 20
    assert tree.paths[tree.index("tabby")] == ("felines", "tabby")
    by_id = Taxonomy.from_csv(file, levels=("wnid", "superclass"))
    assert torch.equal(by_id.table, tree.table)
    assert by_id.classes[tree.index("tabby")] == "n02123045"


def test_tiny_imagenet_folders() -> None:
    csv_tree = Taxonomy.from_csv(shared_data("tiny-imagenet-100/taxonomy.csv"))
    places = (shared_data("tiny-imagenet-100") / "train", Path("/tmp/ti/tiny-imagenet-100/train"))
    root = next((place for place in places if place.is_dir()), None)
    if root is None:
        pytest.skip(f"tiny-imagenet-100.tar is not unpacked at any of {places}")
    tree = Taxonomy.from_folders(root)
    assert tree.paths == tuple(sorted(csv_tree.paths))
    assert Taxonomy.from_folders(root.parent / "val") == tree


# ---- describe --------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(ragged_paths(), st.data())
def test_expected_positives_by_enumeration(
    paths: tuple[tuple[str, ...], ...], data: st.DataObject
) -> None:
    """Every ordered pair of different images is equally likely to sit in a batch."""
    tree = Taxonomy(paths)
    size = tree.num_classes
    counts = data.draw(
        st.lists(st.integers(0, 3), min_size=size, max_size=size).filter(lambda n: sum(n) >= 2)
    )
    batch = data.draw(st.integers(1, sum(counts)))
    images = [label for label, count in enumerate(counts) for _ in range(count)]
    tally = [0] * (tree.num_ranks + 1)  # codes 1 to R, and at -1 the negatives
    for i, j in itertools.permutations(range(len(images)), 2):
        tally[oracle_rank(paths, images[i], images[j]) - 1] += 1
    summary = tree.describe(batch, counts)
    expected = [(batch - 1) * n / (len(images) * (len(images) - 1)) for n in tally]
    assert summary.expected == pytest.approx(expected, abs=1e-12)
    assert sum(summary.expected) == pytest.approx(batch - 1)
    assert tree.describe(batch, torch.tensor(counts)) == summary
    assert summary.empty == tuple(c for c, n in zip(tree.classes, counts, strict=True) if n == 0)


@given(ragged_paths())
def test_summary_counts(paths: tuple[tuple[str, ...], ...]) -> None:
    tree = Taxonomy(paths)
    table = oracle_table(paths)
    size, codes = len(paths), [*range(1, tree.num_ranks + 1), 0]
    summary = tree.describe(17)
    pairs = itertools.combinations_with_replacement(range(size), 2)
    tally = [table[a][b] for a, b in pairs]
    assert summary.pairs == tuple(tally.count(code) for code in codes)
    assert summary.covered == tuple(sum(code in row for row in table) for code in codes)
    assert summary.expected == pytest.approx(
        [16 * sum(row.count(code) for row in table) / size**2 for code in codes]
    )
    assert summary.groups == tuple(
        len({path[: tree.num_ranks - level + 1] for path in paths})
        for level in range(1, tree.num_ranks + 1)
    )
    assert summary.without_sibling == tuple(
        path[-1]
        for path, row in zip(paths, table, strict=True)
        if 2 not in row and tree.num_ranks > 1
    )


def test_summary_reads_as_a_table() -> None:
    lines = str(Taxonomy.cifar100().describe(batch_size=101)).splitlines()
    assert lines[0] == "classes: 100, ranks: 2"
    assert lines[1].endswith("keys per item, batch 101")
    # 101 images: 100 others; 1 in 100 of the same class, 4 in 100 siblings.
    assert lines[2].split() == ["1", "class", "100", "100", "100", "1.0"]
    assert lines[3].split() == ["2", "level", "2", "20", "200", "100", "4.0"]
    assert lines[4].split() == ["0", "nothing", "4750", "100", "95.0"]
    assert len(lines) == 5
    assert len({len(line) for line in lines[1:]}) == 1  # columns line up
    assert "classes without a rank-2 partner (3): Trouser, Dress, Bag" in str(
        Taxonomy.fashion_mnist().describe()
    )


def test_summary_names_what_has_several_parents() -> None:
    paths = [("men", "shirts"), ("men", "ties"), ("women", "shirts")]
    line = "names under more than one parent (1): shirts"
    assert line in str(Taxonomy(paths).describe()).splitlines()
    assert "more than one parent" not in str(Taxonomy(paths[:2]).describe())


def test_summary_warnings() -> None:
    def warnings(paths: Any, batch: int = 256, counts: Any = None) -> str:
        summary = Taxonomy(paths).describe(batch, counts)
        assert all(f"warning: {text}" in str(summary) for text in summary.warnings)
        return "; ".join(summary.warnings)

    assert Taxonomy.cifar100().describe(512).warnings == ()
    assert "learned" in warnings([("a", "x")])
    assert warnings([("x",)]).startswith("one class only")
    assert "only rank 1" not in warnings([("x",)])
    assert "learned" not in warnings([("x",), ("y",)])
    assert "only rank 1" in warnings([("x",), ("y",)])
    assert "are negatives" in warnings([("a", "x"), ("a", "y")])
    assert "are negatives" not in warnings(RAGGED)
    skipped = warnings([("a", "b", "x"), ("a", "y"), ("c",)])
    assert "have rank 2" in skipped
    assert "rank 3" not in skipped
    few = warnings(Taxonomy.cifar100().paths, batch=11)
    assert re.search(
        r"batch of 11\b.*\b0\.4 keys of rank 2", few
    )  # 10 others, 4 in 100 of them siblings
    assert "classes without items (1): y" in warnings([("x",), ("y",)], 2, [5, 0])


def test_describe_refuses() -> None:
    tree = Taxonomy([("x",), ("y",)])
    for counts in ([1], [1, 2, 3], [3, -1], [[1, 2], [3, 4]]):
        with pytest.raises(ValueError, match="counts.*number.*each"):
            tree.describe(2, counts)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"counts.*\b5\b.*batch of 6\b"):
        tree.describe(6, [2, 3])
    with pytest.raises(ValueError, match=r"batch_size.*\b1\b.*\b0\b"):
        tree.describe(0)
    with pytest.raises(ValueError, match=r"counts.*\b1\b.*batch of 1\b"):
        tree.describe(1, [1, 0])  # of one image nothing is a pair
    assert tree.describe(1, [1, 1]).expected == (0, 0)
    assert tree.describe(5, [2, 3]).expected == pytest.approx(
        [4 * (2 * 1 + 3 * 2) / (5 * 4), 4 * (2 * 3 + 3 * 2) / (5 * 4)]
    )


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA, pd.NaT])
def test_labels_that_are_missing_are_named_by_their_row(missing: object) -> None:
    labels = pd.DataFrame({"group": ["a", "a"], "class": pd.Series(["b", missing], dtype=object)})
    with pytest.raises(ValueError, match="row 1: a label is missing"):
        Taxonomy.from_labels(labels, finest_first=False)


def test_numbers_below_0_among_names_are_refused_by_their_row() -> None:
    """A data frame with a gap holds its integers as objects."""
    labels = np.array([["a", 0], ["b", -1]], dtype=object)
    assert Taxonomy.from_labels(labels[:1], finest_first=False).paths == (("a", "0"),)
    with pytest.raises(ValueError, match="row 1 holds b, -1,"):
        Taxonomy.from_labels(labels, finest_first=False)


def test_a_message_names_eight_at_most() -> None:
    assert some_names("abcdefgh") == "a, b, c, d, e, f, g, h"
    assert some_names("abcdefghi") == "a, b, c, d, e, f, g, h, ..."


@pytest.mark.parametrize("name", ["a\ud800", "\udfffb", "a\udc80b"])
def test_a_name_that_is_no_unicode_is_refused(name: str) -> None:
    """Names of files on Linux may be any bytes; a report cannot hold them."""
    with pytest.raises(ValueError, match=r"class 1: .* is not valid Unicode"):
        Taxonomy([("a", "b"), ("a", name)])
    assert Taxonomy([("\ud7ff", "\ue000")]).paths == (("\ud7ff", "\ue000"),)


def test_all_names_that_are_no_class_are_named() -> None:
    tree = Taxonomy.from_dict({"men": ["shirts", "ties"], "women": ["shirts", "skirts"]})
    with pytest.raises(ValueError) as refused:
        tree.index(["ties", "tyes", "zebra", "men", "shirts", "tyes"])
    assert str(refused.value) == (
        "4 names are none of the 4 classes: 'tyes' (did you mean 'ties'?), 'zebra', 'men' is a "
        "group, 'shirts' (did you mean 'men/shirts' or 'women/shirts'?)"
    )
    with pytest.raises(ValueError, match=r"^10 names .*'x7' \(and 2 more\)$"):
        tree.aligned_to([f"x{i}" for i in range(10)])
    with pytest.raises(ValueError, match=r"^8 names .*'x7'$"):
        tree.aligned_to([f"x{i}" for i in range(8)])
    with pytest.raises(ValueError, match=r"^2 names .* 'x0', 'x1'$"):
        tree.aligned_to(["x0", "x1"])
