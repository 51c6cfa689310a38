"""Stored features as data: whose labels they get, how they are split, and their views."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch

from rince import RinceError, RinceWarning
from rince.core.input_spec import InputSpec
from rince.data import Splits, Vectors, from_vectors, kind_of, load_splits
from rince.data.kinds import Request, all_items, load_outliers, load_test
from rince.data.vector_files import read_vectors
from rince.data.vectors import VectorDropout
from rince.ranks.taxonomy import Taxonomy
from rince.training.config import TableOptions, TrainConfig, VectorOptions

COUNT, WIDTH = 30, 4
FEATURES = np.random.default_rng(0).normal(size=(COUNT, WIDTH)).astype(np.float32)
NAMES = [f"photos/{i}.jpg" for i in range(COUNT)]
SPECIES = [("tree", "ash"), ("tree", "elm"), ("bird", "owl")]
LABELS = [SPECIES[i % 3] for i in range(COUNT)]


def config(file: Path, beside: Path | None = None, /, **table: object) -> TrainConfig:
    return TrainConfig(
        str(file),
        vectors=VectorOptions(labels=None if beside is None else str(beside)),
        table=TableOptions(**table),  # type: ignore[arg-type]
    )


def loaded(file: Path, beside: Path | None = None, /, **table: object) -> Splits:
    return load_splits(str(file), config(file, beside, **table))


def write_table(file: Path, order: list[int], extra: dict[str, list[str]] | None = None) -> Path:
    columns = {"path": NAMES, "group": [g for g, _ in LABELS], "class": [c for _, c in LABELS]}
    columns |= extra or {}
    rows = [",".join(columns), *(",".join(x[i] for x in columns.values()) for i in order)]
    file.write_text("\n".join(rows))
    return file


def write_parquet(file: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    classes = {"group": [g for g, _ in LABELS], "class": [c for _, c in LABELS]}
    table = arrow.table({"path": NAMES, **classes, "embedding": FEATURES.tolist()})
    parquet.write_table(table, file)


def content(splits: Splits) -> set[tuple[tuple[str, ...], tuple[float, ...]]]:
    """Every item of both sides: its class, and its numbers."""
    found = set()
    for items in (splits.train, splits.test):
        assert isinstance(items, Vectors)
        paths = [items.taxonomy.paths[label] for label in items.labels.tolist()]
        found |= set(zip(paths, map(tuple, items.vectors.tolist()), strict=True))
    return found


EXPECTED = set(zip(LABELS, map(tuple, FEATURES.tolist()), strict=True))


def test_the_column_of_names_may_be_written_as_macos_does(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", embeddings=FEATURES, paths=np.array(NAMES))
    table = write_table(tmp_path / "t.csv", list(range(COUNT))[::-1], {"été": NAMES})
    column = unicodedata.normalize("NFD", "été")
    labels = ["group", "class"]
    assert content(loaded(tmp_path / "a.npz", table, column=column, labels=labels)) == EXPECTED


def test_names_are_found_in_a_column_of_any_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", embeddings=FEATURES, paths=np.array(NAMES))
    table = write_table(tmp_path / "t.csv", list(range(COUNT))[::-1])
    text = table.read_text()
    table.write_text(text.replace("path", "photo", 1))
    assert content(loaded(tmp_path / "a.npz", table, labels=["group", "class"])) == EXPECTED
    # The same files by other paths: their order may be any.
    table.write_text(text.replace("path", "photo", 1).replace("photos/", "shop/"))
    with pytest.raises(
        RinceError, match=r"'photos/\d+\.jpg'.*'shop/\d+\.jpg' in its column 'photo'"
    ):
        loaded(tmp_path / "a.npz", table, labels=["group", "class"])


def test_named_vectors_that_go_by_order_are_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", embeddings=FEATURES, paths=np.array(NAMES))
    rows = "\n".join(map(",".join, LABELS))
    (tmp_path / "t.csv").write_text(f"group,class\n{rows}")
    with pytest.warns(
        RinceWarning, match=r"no column of .*t\.csv holds the names.*'photos/0\.jpg'"
    ):
        found = loaded(tmp_path / "a.npz", tmp_path / "t.csv", labels=["group", "class"])
    assert content(found) == EXPECTED


def test_one_vector_is_no_matrix(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", FEATURES[0])
    with pytest.raises(RinceError, match=r"shape \(4,\).*vector\[None\]"):
        read_vectors(tmp_path / "one.npy")


def test_vectors_beside_are_not_taken_for_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", embeddings=FEATURES, paths=np.array(NAMES))
    write_parquet(tmp_path / "a.parquet")
    with pytest.raises(RinceError, match=r"holds no labels .*no a\.csv beside it"):
        loaded(tmp_path / "a.npz")


def test_labels_by_name_in_order_beside_and_inside(tmp_path: Path) -> None:
    """Wherever the labels stand, an item has its own, and is on the same side of the split."""
    np.savez(tmp_path / "named.npz", embeddings=FEATURES, paths=np.array(NAMES))
    np.savez(tmp_path / "bytes.npz", embeddings=FEATURES, paths=np.array(NAMES, dtype="S"))
    np.save(tmp_path / "bare.npy", FEATURES)
    reversed_table = write_table(tmp_path / "reversed.csv", list(range(COUNT))[::-1])
    in_order = write_table(tmp_path / "bare.csv", list(range(COUNT)))
    np.savez(
        tmp_path / "inside.npz",
        features=FEATURES,
        labels=np.array(LABELS),
        path=np.array(NAMES),
    )
    made = [
        loaded(tmp_path / "named.npz", reversed_table),
        loaded(tmp_path / "bytes.npz", reversed_table),
        loaded(tmp_path / "bare.npy", in_order),
        loaded(tmp_path / "bare.npy"),  # bare.csv lies beside it
        loaded(tmp_path / "inside.npz"),
    ]
    write_parquet(tmp_path / "inside.parquet")
    made.append(loaded(tmp_path / "inside.parquet"))
    sides = set()
    for splits in made:
        assert content(splits) == EXPECTED
        assert (len(splits.train), len(splits.test)) == (24, 6)
        assert isinstance(splits.test, Vectors)
        sides.add(tuple(sorted(splits.test.names)))
    assert len(sides) == 1
    assert len({splits.fingerprint() for splits in made}) == 1


def test_vectors_without_names_stay_on_their_side(tmp_path: Path) -> None:
    """Their numbers decide, so that another order of the file moves none."""
    order = np.random.default_rng(1).permutation(COUNT)
    tests = []
    for name, rows in (("a", np.arange(COUNT)), ("b", order)):
        labels = np.array([c for _, c in LABELS])[rows]
        np.savez(tmp_path / f"{name}.npz", embeddings=FEATURES[rows], labels=labels)
        test = loaded(tmp_path / f"{name}.npz").test
        tests.append({tuple(row) for row in test.batch(torch.arange(len(test))).tolist()})
    assert tests[0] == tests[1]


def test_a_column_split_and_classes_never_trained(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", FEATURES)
    split = ["test" if i % 3 == 2 or i < 6 else "train" for i in range(COUNT)]
    table = write_table(tmp_path / "x.csv", list(range(COUNT)), {"split": split})
    with pytest.warns(RinceWarning, match="1 of 3 classes .* bird/owl"):
        splits = loaded(tmp_path / "x.npy", table)
    assert (len(splits.train), len(splits.test)) == (16, 14)
    assert splits.test.taxonomy.paths[:2] == splits.train.taxonomy.paths
    assert content(splits) == EXPECTED
    request = Request(str(tmp_path / "x.npy"), config(tmp_path / "x.npy", table))
    with pytest.warns(RinceWarning, match="16 of 30 rows are left out"):
        assert len(load_test(request, "vectors")) == 14


def test_rows_without_a_class_are_left_out_if_that_is_asked(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", FEATURES)
    table = write_table(tmp_path / "x.csv", list(range(COUNT)))
    lines = table.read_text().splitlines()
    lines[5] = lines[5].rpartition(",")[0] + ","
    table.write_text("\n".join(lines))
    with pytest.raises(RinceError, match="line 6"):
        loaded(tmp_path / "x.npy", table)
    with pytest.warns(RinceWarning, match="1 of 30 rows"):
        splits = loaded(tmp_path / "x.npy", table, empty="skip")
    assert content(splits) == EXPECTED - {(LABELS[4], tuple(FEATURES[4].tolist()))}


def test_a_class_is_filled_from_the_row_above_whatever_the_order_of_the_vectors(
    tmp_path: Path,
) -> None:
    np.savez(tmp_path / "x.npz", embeddings=FEATURES[:4], paths=np.array(list("abcd")))
    table = tmp_path / "x.csv"
    table.write_text("path,class\nd,elm\nc,\nb,owl\na,ash\n")
    data = str(tmp_path / "x.npz")
    with pytest.warns(RinceWarning, match="1 of 4 rows have empty cells and are filled"):
        items = load_test(Request(data, config(Path(data), table, empty="fill")), "vectors")
    names = [items.taxonomy.classes[label] for label in items.labels.tolist()]
    assert dict(zip(items.keys() or [], names, strict=True)) == {
        **{"a": "ash", "b": "owl"},
        **{"c": "elm", "d": "elm"},
    }


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", FEATURES)
    with pytest.raises(RinceError, match=r"no x\.csv beside it.* 30 items"):
        loaded(tmp_path / "x.npy")
    table = write_table(tmp_path / "short.csv", list(range(COUNT - 1)))
    with pytest.raises(RinceError, match="29 rows, .* 30 embeddings"):
        loaded(tmp_path / "x.npy", table)
    np.savez(tmp_path / "y.npz", embeddings=FEATURES, paths=np.array([f"no/{x}" for x in NAMES]))
    with pytest.raises(RinceError, match="no row for 30 of the 30"):
        loaded(tmp_path / "y.npz", write_table(tmp_path / "all.csv", list(range(COUNT))))
    np.savez(tmp_path / "z.npz", embeddings=FEATURES, score=FEATURES[:, 0], kind=np.arange(COUNT))
    with pytest.warns(RinceWarning, match="'score' holds fractions"), pytest.raises(RinceError):
        loaded(tmp_path / "z.npz")  # no class has two members
    (tmp_path / "torn.npz").write_bytes(b"PK no zip")
    with pytest.raises(RinceError, match="damaged"):
        loaded(tmp_path / "torn.npz")
    wrong = config(tmp_path / "x.npy", write_table(tmp_path / "x.csv", list(range(COUNT))))
    wrong.images.image_size = 32
    with pytest.raises(ValueError, match=r"images\.image_size .* vectors"):
        load_splits(str(tmp_path / "x.npy"), wrong)


def test_outliers_need_no_labels_but_the_width(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", embeddings=FEATURES, labels=np.array(LABELS))
    np.save(tmp_path / "out.npy", FEATURES[:5])
    np.save(tmp_path / "wide.npy", np.ones((5, WIDTH + 1)))
    known, options = loaded(tmp_path / "x.npz").test, config(tmp_path / "x.npz")
    outliers = load_outliers(str(tmp_path / "out.npy"), known, options)
    assert torch.equal(outliers.batch(torch.arange(5)), torch.from_numpy(FEATURES[:5]))
    with pytest.raises(RinceError, match="5 dimensions, .* 4"):
        load_outliers(str(tmp_path / "wide.npy"), known, options)


def test_suffixes_in_capitals(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", embeddings=FEATURES, labels=LABELS)
    np.save(tmp_path / "b.npy", FEATURES)
    write_table(tmp_path / "b.csv", list(range(COUNT)))
    write_parquet(tmp_path / "c.parquet")
    for name in ("a.npz", "b.npy", "c.parquet"):
        file = (tmp_path / name).rename(tmp_path / f"{name[0]}{name[1:].upper()}")
        assert content(loaded(file)) == EXPECTED


def test_missing_classes_in_a_file_of_vectors_say_what_to_do(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", embeddings=FEATURES, labels=[1.0, np.nan] * (COUNT // 2))
    with pytest.raises(RinceError, match=r"row 2: no 'labels'; row 4.*table\.empty skip"):
        loaded(tmp_path / "a.npz")


def test_a_parquet_of_texts_is_none_of_vectors(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"text": ["a"], "class": ["b"]}), tmp_path / "texts.parquet")
    write_parquet(tmp_path / "vectors.parquet")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    nouns = [kind_of(str(tmp_path / f"{x}.parquet")).noun for x in ("texts", "vectors")]
    assert nouns == ["texts", "vectors"]
    with pytest.raises(RinceError, match="torn"):
        kind_of(str(tmp_path / "torn.parquet"))


def test_arrays_of_ones_own() -> None:
    items = from_vectors(FEATURES.astype(np.float64), LABELS, names=NAMES)
    assert items.spec == InputSpec("vectors", (WIDTH,))
    assert InputSpec.from_dict(items.spec.to_dict()) == items.spec
    assert [items.taxonomy.paths[x] for x in items.labels.tolist()] == LABELS
    part = items.subset([3, 1])
    assert part.names == (NAMES[3], NAMES[1])
    assert torch.equal(part.vectors, torch.from_numpy(FEATURES[[3, 1]]))
    listed = Vectors(items.vectors, items.labels, items.taxonomy, "x", list(NAMES))  # type: ignore[arg-type]
    assert listed.subset([3, 1]).names == part.names
    with pytest.raises(ValueError, match="finite"):
        from_vectors(np.array([[1.0, np.nan]]), ["a"])
    with pytest.raises(ValueError, match="2 names .* 30"):
        from_vectors(FEATURES, LABELS, names=["a", "b"])
    with pytest.raises(ValueError, match=r"dropout .* 1"):
        from_vectors(FEATURES, LABELS, dropout=1)


def test_two_views_drop_different_numbers_and_keep_the_mean() -> None:
    vectors = torch.ones(2000, 10)
    augmentation = VectorDropout(0.3)
    generator = torch.Generator().manual_seed(0)
    draws = [augmentation.draw(vectors, generator) for _ in range(2)]
    first, second = (augmentation.apply(vectors, x) for x in draws)
    assert first.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert float((first == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    assert float(first.mean()) == pytest.approx(1, abs=0.02)
    assert not torch.equal(first, second)
    # Some of the rows at a time give what all at once do.
    rows = slice(5, 9)
    assert torch.equal(augmentation.apply(vectors[rows], draws[0].rows(rows)), first[rows])
    assert from_vectors(FEATURES, LABELS, dropout=0).augmentation(None) is None  # type: ignore[arg-type]


def test_all_items_where_nothing_can_be_held_out(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", embeddings=FEATURES[:3], labels=np.array(["a", "b", "c"]))
    with pytest.warns(RinceWarning, match="no class has two members"):
        (items,) = all_items(str(tmp_path / "x.npz"), config(tmp_path / "x.npz"))
    assert len(items) == 3


def wrong_files(folder: Path) -> dict[str, str]:
    """Files of vectors that cannot be used -> what the message must say."""
    classes = np.arange(COUNT) % 3
    objects = np.array([f"c{i}" for i in classes], dtype=object)
    np.savez(folder / "objects.npz", embeddings=FEATURES, labels=objects)
    np.savez(folder / "two.npz", a=FEATURES, b=FEATURES)
    np.savez(folder / "short.npz", embeddings=FEATURES, labels=classes[:-1])
    np.savez(folder / "deep.npz", embeddings=FEATURES, labels=classes.reshape(-1, 1, 1))
    np.savez(folder / "unknown.npz", embeddings=FEATURES, labels=classes - 1)
    np.savez(folder / "ignored.npz", embeddings=FEATURES, labels=np.where(classes, classes, -100))
    coarse = np.stack([classes // 2 - 1, classes], axis=1)
    np.savez(folder / "coarse.npz", embeddings=FEATURES, labels=coarse)
    np.savez(folder / "latin.npz", embeddings=FEATURES, labels=np.array([b"\xe9a"] * COUNT))
    np.savez(folder / "others.npz", embeddings=FEATURES, score=FEATURES)
    np.savez(folder / "zero.npz", embeddings=0 * FEATURES, labels=classes)
    np.save(folder / "words.npy", np.array(NAMES))
    (folder / "text.npy").write_text("no array")
    (folder / "text.npz").write_text("no array")
    return {
        "objects.npz": r"'labels'.*labels\.astype\(str\)",
        "two.npz": r"a \(30, 4\), b \(30, 4\)",
        "short.npz": r"shape \(29,\), for 30",
        "deep.npz": r"shape \(30, 1, 1\), for 30",
        "unknown.npz": "'labels' holds -1, first for item 0 .*table.empty",
        "ignored.npz": "'labels' holds -100, first for item 0 ",
        "coarse.npz": " holds -1, first for item 0 ",
        "latin.npz": "latin.npz: the bytes of 'labels' are not UTF-8",
        "others.npz": r"no labels \(but score\)",
        "zero.npz": "30 of 30 .* zero vectors",
        "words.npy": r"shape \(30,\)",
        "text.npy": "text.npy is damaged",
        "text.npz": "text.npz is damaged.*zip",
    }


def test_files_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    for name, message in wrong_files(tmp_path).items():
        with pytest.raises((RinceError, ValueError), match=message) as refused:
            loaded(tmp_path / name)
        assert "pickle" not in str(refused.value) or name == "objects.npz"
    (tmp_path / "x.txt").write_text("a")
    with pytest.raises(RinceError, match=r"x\.txt .*\.npz, \.npy"):
        load_outliers(
            str(tmp_path / "x.txt"), from_vectors(FEATURES, LABELS), config(tmp_path / "x.txt")
        )


def test_a_negative_number_that_is_no_label_is_none_of_our_business(tmp_path: Path) -> None:
    offsets = np.arange(COUNT) - 7
    names = np.array([name for _, name in LABELS])
    np.savez(tmp_path / "x.npz", embeddings=FEATURES, offset=offsets, kind=names)
    assert loaded(tmp_path / "x.npz", labels=("kind",)).train.taxonomy.num_classes == 3


def test_a_word_that_looks_like_a_negative_number_is_a_class_in_any_file(tmp_path: Path) -> None:
    """As in csv, where a number is text too; a number is refused wherever the file has numbers."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    numbers = [(-5, 7)[i % 2] for i in range(COUNT)]
    words = list(map(str, numbers))
    for name, labels in (("words", words), ("numbers", numbers)):
        np.savez(tmp_path / f"{name}.npz", embeddings=FEATURES, labels=np.array(labels))
        columns = {"embedding": FEATURES.tolist(), "class": labels}
        parquet.write_table(arrow.table(columns), tmp_path / f"{name}.parquet")
        texts = {"text": [f"t{i}" for i in range(COUNT)], "class": labels}
        parquet.write_table(arrow.table(texts), tmp_path / f"{name}-texts.parquet")
    rows = [("text", "class"), *zip(texts["text"], words, strict=True)]
    (tmp_path / "words.csv").write_text("\n".join(map(",".join, rows)))
    for file in sorted(tmp_path.iterdir()):
        if file.stem.startswith("numbers"):
            with pytest.raises(RinceError, match="holds -5, first for item 0"):
                loaded(file)
            continue
        with pytest.warns(RinceWarning, match="holds -5, first in (line 2|row 1),"):
            splits = loaded(file)
        assert splits.train.taxonomy.classes == ("-5", "7"), file


def test_labels_in_memory_that_are_not_known_or_ragged_are_named_by_row() -> None:
    known = np.array([0, 1] * (COUNT // 2), dtype=object)
    assert from_vectors(FEATURES, known).taxonomy.classes == ("0", "1")
    for unknown in (
        [0, -100, *[1] * (COUNT - 2)],
        np.array(["a", np.int64(-1), *"b" * (COUNT - 2)], dtype=object),
    ):
        with pytest.raises(ValueError, match="row 1 holds -1(00)?,"):
            from_vectors(FEATURES, unknown)
    with pytest.raises(ValueError, match="row 1 holds 1 values, row 0 2.*Taxonomy"):
        from_vectors(FEATURES, [("a", "b"), ("c",)] * (COUNT // 2))
    tree = Taxonomy([("a", "b"), ("c",)])
    ragged = from_vectors(FEATURES, ["b", "c"] * (COUNT // 2), taxonomy=tree)
    assert ragged.labels[:2].tolist() == [0, 1]


def test_rows_of_a_parquet_that_are_no_vectors(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = FEATURES.tolist()
    for name, wrong, message in (
        ("ragged", rows[2][:-1], "embedding 2 .* 3 numbers, most hold 4"),
        ("none", None, "embedding 2 .* empty"),
        ("gap", [None, *rows[2][1:]], "1 of 30 .* item 2"),
    ):
        columns = {"embedding": [*rows[:2], wrong, *rows[3:]], "class": NAMES}
        parquet.write_table(arrow.table(columns), tmp_path / f"{name}.parquet")
        with pytest.raises(RinceError, match=message):
            loaded(tmp_path / f"{name}.parquet")
    for name, kind in (("decimals", arrow.decimal128(9, 4)), ("words", arrow.string())):
        numbers = arrow.array([[f"{x:.4f}" for x in row] for row in rows])
        columns = {"embedding": numbers.cast(arrow.list_(kind)), "class": NAMES}
        parquet.write_table(arrow.table(columns), tmp_path / f"{name}.parquet")
        vectors = read_vectors(tmp_path / f"{name}.parquet")[0]
        torch.testing.assert_close(vectors, torch.tensor(rows), atol=1e-4, rtol=0)
    tags = [["a"] * (i % 3) for i in range(COUNT)]
    classes = [float(i % 3) for i in range(COUNT)]
    table = arrow.table({"embedding": rows, "class": classes, "tags": tags})
    parquet.write_table(table, tmp_path / "lists.parquet")
    with pytest.warns(RinceWarning, match="'tags' holds lists"):
        splits = loaded(tmp_path / "lists.parquet")
    assert splits.train.taxonomy.paths == (("0",), ("1",), ("2",))


def test_labels_are_an_array_too(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", FEATURES)
    np.save(tmp_path / "y.npy", np.array(LABELS))
    assert content(loaded(tmp_path / "x.npy", tmp_path / "y.npy")) == EXPECTED
    groups, classes = zip(*LABELS, strict=True)
    np.savez(
        tmp_path / "y.npz", group=np.array(groups), kind=np.array([c.encode() for c in classes])
    )
    assert content(loaded(tmp_path / "x.npy", tmp_path / "y.npz")) == EXPECTED
    np.save(tmp_path / "short.npy", np.array(LABELS)[1:])
    for name, message in (("short", r"\(29, 2\), for 30"), ("none", "cannot read the labels")):
        with pytest.raises(RinceError, match=message):
            loaded(tmp_path / "x.npy", tmp_path / f"{name}.npy")


def test_a_zero_vector_is_said(tmp_path: Path) -> None:
    features = FEATURES.copy()
    features[3] = 0
    np.savez(tmp_path / "x.npz", embeddings=features, labels=np.array(LABELS))
    with pytest.warns(RinceWarning, match="1 of 30 .* item 3"):
        assert len(content(loaded(tmp_path / "x.npz"))) == COUNT


def test_arrays_that_are_no_vectors() -> None:
    zero = FEATURES.copy()
    zero[3] = 0
    with pytest.warns(RinceWarning, match="1 of 30 .* item 3"):
        from_vectors(zero, LABELS)
    for wrong, message in ((0 * FEATURES, "30 of 30"), (FEATURES[:, 0], r"\(30,\)"), (NAMES, "<U")):
        with pytest.raises(ValueError, match=message):
            from_vectors(wrong, LABELS)
    half = from_vectors(torch.from_numpy(FEATURES).bfloat16().requires_grad_(), LABELS)
    torch.testing.assert_close(half.vectors, torch.from_numpy(FEATURES).bfloat16().float())


def test_a_report_shows_the_beginning_of_long_names() -> None:
    items = from_vectors(np.eye(2), ["a", "b"], names=["x" * 100_000, "y"])
    assert items.thumbnails([0, 1], 8).nbytes < 10_000


def test_nothing_shown_of_vectors() -> None:
    for names in (["a", "b"], ()):
        items = from_vectors(np.eye(2), ["a", "b"], names=names)
        shown = items.thumbnails([], 8)
        assert (shown.shape, shown.dtype.kind) == ((0,), "U")
        assert items.thumbnails(torch.tensor([1]), 8).tolist() == ["b" if names else "vector 1"]
