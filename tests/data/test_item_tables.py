"""Tables of items: what rows may say, on any system's paths, and what is refused in which words."""

from __future__ import annotations

import csv
import json
import unicodedata
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rince import RinceError, RinceWarning
from rince.data.image.files import FileImages
from rince.data.items import Items
from rince.data.kinds import Request, folder_table, kind_of, load_splits, load_test
from rince.data.table import ItemTable, listed_files, read_items
from rince.data.text.texts import Texts
from rince.data.video.clips import VideoClips
from rince.ranks.taxonomy import Taxonomy
from rince.training import ImageOptions, TableOptions, TrainConfig, VideoOptions
from video_files import write_video

HEADER = ("path", "group", "class", "split")
ROWS = [
    *[("dogs/a.png", "dog", "husky", "train"), ("dogs/b.png", "dog", "husky", "train")],
    *[("c.png", "dog", "pug", "train"), ("d.png", "cat", "manx", "train")],
    *[("e.png", "dog", "pug", "test"), ("dogs/f.png", "cat", "manx", "test")],
]
PATHS = (("cat", "manx"), ("dog", "husky"), ("dog", "pug"))


def write_items(file: Path, rows: list[tuple[str, ...]], **options: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, **options).writerows(rows)
    return file


def write_images(folder: Path, names: list[str]) -> None:
    for shade, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (10, 8), (9 * shade, 0, 0)).save(folder / name)


def config(data: Path, **images: Any) -> TrainConfig:
    given: dict[str, Any] = {"image_size": 8, "cache": False, **images}
    return TrainConfig(str(data), images=ImageOptions(**given))


def load_all(data: Path, options: TrainConfig) -> Items:
    return load_test(Request(str(data), options), kind_of(str(data)).noun)


def loaded(data: Path, **images: Any) -> tuple[FileImages, FileImages]:
    splits = load_splits(str(data), config(data, **images))
    assert isinstance(splits.train, FileImages)
    assert isinstance(splits.test, FileImages)
    return splits.train, splits.test


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_images(tmp_path, [row[0] for row in ROWS])
    return tmp_path


def test_images(photos: Path) -> None:
    table = write_items(photos / "items.csv", [HEADER, *ROWS])
    assert kind_of(str(table)).noun == "images"
    train, test = loaded(table)
    assert train.taxonomy.paths == test.taxonomy.paths == PATHS
    assert (train.labels.tolist(), test.labels.tolist()) == ([1, 1, 2, 0], [2, 0])
    assert train.keys() == [row[0] for row in ROWS[:4]]
    assert train.name == "items"
    assert train.marks is not None
    assert train.marks.levels == ("group", "class")
    kept = load_splits(str(table), config(table, cache=True))
    assert torch.equal(kept.test.labels, test.labels)
    with pytest.warns(RinceWarning, match="4 of 6 rows are left out of the test"):
        every = load_all(table, config(table))
    assert every.labels.tolist() == [1, 0]  # the split says what the test is
    assert every.taxonomy.paths == (PATHS[0], PATHS[2])
    of_all = write_items(photos / "all.csv", [row[:3] for row in [HEADER, *ROWS]])
    assert load_all(of_all, config(of_all)).labels.tolist() == [1, 1, 2, 0, 2, 0]
    assert listed_files(table, frozenset((".png",)), None) == [str(photos / r[0]) for r in ROWS]


def test_the_same_table_in_all_ways_in_which_it_is_written(photos: Path) -> None:
    expected = loaded(write_items(photos / "items.csv", [HEADER, *ROWS]))[0].fingerprint()
    text = (photos / "items.csv").read_text()
    elsewhere = photos / "elsewhere"
    variants: dict[str, tuple[str, bytes]] = {
        "line ends of Windows": ("a.csv", text.encode()),
        "line ends of Unix": ("a.csv", text.replace("\r\n", "\n").encode()),
        "byte order mark": ("a.csv", b"\xef\xbb\xbf" + text.encode()),
        "semicolons": ("a.csv", text.replace(",", ";").encode()),
        "tabs": ("a.tsv", text.replace(",", "\t").encode()),
        "Windows separators": ("a.csv", text.replace("/", "\\").encode()),
        "absolute": ("a.csv", "\n".join(
            line if i == 0 or not line else f"{photos}/{line}"
            for i, line in enumerate(text.split("\r\n"))
        ).encode()),
    }  # fmt: skip
    for what, (name, content) in variants.items():
        (photos / name).write_bytes(content)
        assert loaded(photos / name)[0].fingerprint() == expected, what
        (photos / name).unlink()
    rows = [dict(zip(HEADER, row, strict=True)) for row in ROWS]
    (photos / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert loaded(photos / "a.jsonl")[0].fingerprint() == expected
    away = write_items(elsewhere / "items.csv", [HEADER, *ROWS])
    assert loaded(away, root=str(photos))[0].fingerprint() == expected


def test_names_that_a_file_system_took_apart(tmp_path: Path) -> None:
    write_images(tmp_path, [f"cafe\u0301 {i}.png" for i in range(4)])
    rows = [(f"caf\u00e9 {i}.png", "ab"[i % 2]) for i in range(4)]
    train, test = loaded(write_items(tmp_path / "items.csv", [("file", "class"), *rows]))
    assert len(train) + len(test) == 4
    assert torch.equal(train[0], train[0])


def test_folders_that_a_file_system_took_apart(tmp_path: Path) -> None:
    """The same data, split alike, whichever file system they were copied from."""
    sides = []
    for form in ("NFC", "NFD"):
        write_images(
            tmp_path / form,
            [unicodedata.normalize(form, f"th\u00e9/caf\u00e9/\u00e9 {i}.png") for i in range(8)],
        )
        rows = [(f"th\u00e9/caf\u00e9/\u00e9 {i}.png", "ab"[i % 2]) for i in range(8)]
        table = write_items(tmp_path / form / "items.csv", [("file", "class"), *rows])
        sides.append([x.keys() for x in loaded(table)])
    assert sides[0] == sides[1]


def test_a_known_column_in_capitals_is_no_label(tmp_path: Path) -> None:
    rows = [(f"text {i}", "ab"[i % 2], ("train", "test")[i % 3 == 0]) for i in range(8)]
    table = write_items(tmp_path / "items.csv", [("text", "class", "Split"), *rows])
    with pytest.raises(RinceError, match="'Split' would be labels: write it 'split'"):
        read_items(table, "text", None)
    assert read_items(table, "text", ["Split"]).levels == ("Split",)


def test_without_a_split_the_names_decide(photos: Path) -> None:
    rows = [(name, label) for name, _, label, _ in ROWS]
    table = write_items(photos / "items.csv", [("image", "class"), *rows])
    train, test = loaded(table)
    assert (len(train), len(test)) == (3, 3)
    again = loaded(write_items(photos / "other.csv", [("image", "class"), *rows[::-1]]))
    assert set(again[1].keys()) == set(test.keys())


def test_classes_that_were_never_trained(photos: Path) -> None:
    rows = [*ROWS[:4], ("e.png", "dog", "husky", "test"), ("dogs/f.png", "cat", "birman", "val")]
    rows = [(*row[:3], "test" if row[3] == "val" else row[3]) for row in rows]
    table = write_items(photos / "items.csv", [HEADER, *rows])
    with pytest.warns(RinceWarning, match="1 of 2 classes.*cat/birman"):
        train, test = loaded(table)
    assert train.taxonomy.paths == PATHS
    assert test.taxonomy.paths == (*PATHS, ("cat", "birman"))
    assert test.labels.tolist() == [1, 3]


def test_what_a_table_says_beside_labels(photos: Path) -> None:
    header = (*HEADER, "is_query", "is_gallery", "sequence")
    marks = [("1", "0", "s"), ("0", "1", ""), ("yes", "no", "t"), ("", "TRUE", "s")]
    rows = [(*row, *mark) for row, mark in zip(ROWS[:4], marks, strict=True)]
    table = write_items(photos / "items.csv", [header, *rows])
    for cache in (False, True):
        items = load_all(table, config(table, cache=cache))
        assert items.marks is not None
        assert items.marks.is_query is not None
        assert items.marks.is_gallery is not None
        assert items.marks.sequence is not None
        assert items.marks.is_query.tolist() == [True, False, True, False]
        assert items.marks.is_gallery.tolist() == [False, True, False, True]
        assert items.marks.sequence.tolist() == [0, -1, 1, 0]
        last = items.subset([3]).marks
        assert last is not None
        assert last.sequence is not None
        assert last.sequence.tolist() == [0]
    texts = [("text", "class", "sequence"), ("hello", "greeting", "x"), ("bye", "greeting", "")]
    of_texts = load_all(write_items(photos / "t.csv", texts), TrainConfig("t.csv"))
    assert isinstance(of_texts, Texts)
    assert of_texts.marks is not None
    assert of_texts.marks.sequence is not None
    assert of_texts.marks.sequence.tolist() == [0, -1]
    table = write_items(photos / "items.csv", [header, (*ROWS[0], "maybe", "", "")])
    with pytest.raises(RinceError, match="line 2: .*is_query.*'maybe'"):
        load_all(table, config(table))


def test_what_has_no_effect_beside_a_split_is_said(photos: Path) -> None:
    header = (*HEADER, "is_query", "is_gallery", "sequence")
    marks = [("1", "1", "s"), ("1", "1", ""), ("1", "1", "t"), ("1", "1", "s"), ("1", "1", "s")]
    rows = [(*row, *mark) for row, mark in zip(ROWS, [*marks, ("1", "0", "u")], strict=True)]
    table = write_items(photos / "items.csv", [header, *rows])
    with pytest.warns(RinceWarning) as caught:
        loaded(table)
    shown = [str(x.message) for x in caught]
    assert len(shown) == 2
    assert "1 of 2 sequences of the test have items in the training too, such as 's'" in shown[0]
    assert "is_query and is_gallery have no effect beside the column 'split'" in shown[1]
    # As a test whose items are searched among each other it is taken whole.
    rows = [(*row[:3], *row[4:]) for row in (header, *rows)]
    load_all(write_items(photos / "whole.csv", rows), config(table))


def test_columns_that_are_named(photos: Path) -> None:
    rows = [("mask.png", *row) for row in ROWS]
    write_images(photos, ["mask.png"])
    table = write_items(photos / "items.csv", [("mask", "photo", *HEADER[1:]), *rows])
    chosen = config(table)
    chosen.table = TableOptions(column="photo", labels=("class",))
    splits = load_splits(str(table), chosen)
    assert splits.train.taxonomy.paths == (("husky",), ("manx",), ("pug",))
    assert splits.train.keys() == [row[0] for row in ROWS[:4]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: [HEADER, *r, r[0]], r"line 8\b.*dogs/a\.png.*line 2\b"),
        (lambda r: [HEADER, *r, ("", "x", "y", "train")], "line 8: no 'path'"),
        (lambda r: [HEADER, *r, ("dogs/b.png", "x", "", "train")], "line 8"),
        (lambda r: [HEADER, *r[:4], (*r[4][:3], "exam")], r"line 6\b.*'split'.*'exam'"),
        (lambda r: [HEADER, *r[:4]], "'split'.*never.*val"),
        (lambda r: [HEADER, *r[4:]], "'split'.*never.*train"),
        (lambda r: [HEADER, *r[:3], (*r[3][:3],)], "line 5: 3 cells, .* 4 columns"),
        (lambda r: [HEADER[:1], *[x[:1] for x in r]], "column of labels"),
        (lambda r: [HEADER, *r, ("g.png", "dog", "dog", "train")], "line 8: g.png is missing"),
    ],
)
def test_bad_tables(photos: Path, change: Any, message: str) -> None:
    table = write_items(photos / "items.csv", change(list(ROWS)))
    with pytest.raises(RinceError, match=message) as caught:
        loaded(table)
    assert str(table) in str(caught.value)


def test_a_class_of_a_negative_number_is_named(photos: Path) -> None:
    rows = [(path, group, {"husky": "0", "pug": "-1", "manx": "2"}[name], split)
            for path, group, name, split in ROWS]  # fmt: skip
    with pytest.warns(RinceWarning, match="'class' holds -1, first in line 4.*table.empty"):
        train, _ = loaded(write_items(photos / "x.csv", [HEADER, *rows]))
    assert ("dog", "-1") in train.taxonomy.paths
    floats = [(*row[:2], f"{row[2]}.0", row[3]) for row in rows]  # of a data frame with gaps
    with pytest.warns(RinceWarning, match="'class' holds -1.0, first in line 4"):
        loaded(write_items(photos / "y.csv", [HEADER, *floats]))


def test_one_file_written_in_two_ways_and_one_label_named_twice(photos: Path) -> None:
    for other in ("dogs/../c.png", str(photos / "c.png"), "./c.png"):
        rows = [HEADER, *ROWS, (other, "dog", "pug", "train")]
        with pytest.raises(RinceError, match="line 8: .*c.png is in line 4 already"):
            loaded(write_items(photos / "items.csv", rows))
        rows[-1] = (*rows[-1][:3], "test")
        table = write_items(photos / "items.csv", rows)
        with pytest.warns(RinceWarning, match="1 images are in the training and in.*c.png"):
            loaded(table)
    options = replace(config(table), table=TableOptions(labels=("class", "class")))
    with pytest.raises(ValueError, match=r"table\.labels names 'class' twice"):
        load_splits(str(table), options)


@pytest.mark.parametrize("word", ["nan", "NaN", "None", "null", "N/A", "<NA>"])
def test_words_for_no_class_are_named(word: str, tmp_path: Path) -> None:
    rows = [("text", "class"), *((f"t{i}", [word, "ash"][i % 2]) for i in range(6))]
    table = write_items(tmp_path / "t.csv", rows)
    with pytest.warns(RinceWarning, match=rf"'class' holds {word}, first in line 2.*table\.empty"):
        assert load_splits(str(table), TrainConfig(str(table))).train.taxonomy.num_classes == 2


def test_names_that_differ_in_capitals_are_named(tmp_path: Path) -> None:
    rows = [("text", "class"), *((f"t{i}", ["Ash", "elm", "ash"][i % 3]) for i in range(9))]
    table = write_items(tmp_path / "t.csv", rows)
    with pytest.warns(RinceWarning, match="'class' holds 'Ash' and 'ash', which are two classes"):
        assert load_splits(str(table), TrainConfig(str(table))).train.taxonomy.num_classes == 3


@pytest.mark.parametrize("options", [{}, {"image_size": 8}])
def test_a_table_that_is_not_there(options: dict[str, Any], tmp_path: Path) -> None:
    images = ImageOptions(**options)
    (tmp_path / "folder.csv").mkdir()
    for name, message in (("a.csv", "there is no file"), ("folder.csv", "is a folder, where a")):
        table = str(tmp_path / name)
        with pytest.raises(RinceError, match=message):
            load_splits(table, TrainConfig(table, images=images))


def test_a_link_to_itself_hides_no_other_file(photos: Path) -> None:
    (photos / "z.png").symlink_to("z.png")
    table = write_items(photos / "items.csv", [HEADER, *ROWS])
    assert [len(side) for side in loaded(table)] == [4, 2]


def test_an_empty_class_is_named_by_its_line(photos: Path) -> None:
    rows = [*ROWS[:3], ("d.png", "cat", "", "train")]
    table = write_items(photos / "items.csv", [HEADER, *rows, *ROWS[4:]])
    with pytest.raises(RinceError, match="line 5: no 'class'.*unknown and fill give them a class"):
        loaded(table)


def test_an_empty_class_in_a_parquet_file_is_named_by_its_row(photos: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is the extra rince[parquet]")
    from pyarrow import parquet

    table = photos / "items.parquet"
    columns = {"path": ["a.png", "b.png"], "class": ["cat", ""]}
    parquet.write_table(pyarrow.table(columns), table)
    with pytest.raises(RinceError, match="row 2: no 'class'"):
        loaded(table)


TICKETS = [
    *[("text", "product", "component"), ("a", "card", "pin"), ("b", "", ""), ("", "card", "pin")],
    *[("c", "card", ""), ("d", "bank", "fee"), ("", "", "")],
]


@pytest.mark.parametrize(
    ("empty", "kept", "count"),
    [
        ("skip", ["a: card/pin", "d: bank/fee"], 3),
        ("unknown", ["a: card/pin", "b: unknown", "c: card/unknown", "d: bank/fee"], 2),
        ("fill", ["a: card/pin", "b: card/pin", "c: card/pin", "d: bank/fee"], 2),
    ],
)
def test_empty_cells(empty: Any, kept: list[str], count: int, tmp_path: Path) -> None:
    # A row without a text has nothing to train on, whatever its class.
    rows = TICKETS if empty == "skip" else [row for row in TICKETS if row[0]]
    file = write_items(tmp_path / "tickets.csv", rows)
    options = TrainConfig(str(file), table=TableOptions(empty=empty))
    total = len(kept) + count * (empty == "skip")
    with pytest.warns(RinceWarning, match=f"tickets.csv: {count} of {total} rows"):
        texts = load_all(file, options)
    paths = ["/".join(texts.taxonomy.paths[label]) for label in texts.labels.tolist()]
    assert [f"{x}: {path}" for x, path in zip(texts.keys() or [], paths, strict=True)] == kept


def test_all_rows_with_empty_cells_are_in_one_message(tmp_path: Path) -> None:
    file = write_items(tmp_path / "tickets.csv", TICKETS)
    with pytest.raises(RinceError, match="3 bad rows: ") as caught:
        load_all(file, TrainConfig(str(file)))
    for part in ("line 3: no 'component'", "line 4: no 'text'", "line 5: ", "table.empty"):
        assert part in str(caught.value)
    assert "give them a class" not in str(caught.value)  # which is of no help to a row without text
    unknown = TrainConfig(str(file), table=TableOptions(empty="unknown"))
    with pytest.raises(RinceError, match="line 4: no 'text'"):
        load_all(file, unknown)


@pytest.mark.filterwarnings("ignore:.*no two rows")
@pytest.mark.parametrize("name", ["", "index", "Unnamed: 0"])
def test_the_index_of_a_data_frame_is_no_label(name: str, tmp_path: Path) -> None:
    rows = [(str(i), *row) for i, row in enumerate(TICKETS[1:2] * 4)]
    file = write_items(tmp_path / "a.csv", [(name, *TICKETS[0]), *rows])
    with pytest.warns(RinceWarning, match=r"running numbers"):
        assert load_all(file, TrainConfig(str(file))).taxonomy.paths == (("card", "pin"),)
    # Numbers that do not run are labels, and so is what is asked for.
    if name:
        write_items(file, [(name, *TICKETS[0]), *rows[::-1]])
        assert load_all(file, TrainConfig(str(file))).taxonomy.num_ranks == 3
        asked = TrainConfig(str(file), table=TableOptions(labels=(name,)))
        assert load_all(file, asked).taxonomy.num_classes == 4


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("first", [0, 1, 1001])
def test_running_numbers_at_either_end_are_no_label(first: int, last: bool, tmp_path: Path) -> None:
    rows = [(*TICKETS[1], str(first + i)) for i in range(4)]
    table = [(*TICKETS[0], "Nr"), *rows]
    if not last:
        table = [(row[-1], *row[:-1]) for row in table]
    file = write_items(tmp_path / "a.csv", table)
    with pytest.warns(RinceWarning, match=r"running numbers, 'Nr'.*table\.labels"):
        assert load_all(file, TrainConfig(str(file))).taxonomy.paths == (("card", "pin"),)
    named = TrainConfig(str(file), table=TableOptions(labels=("Nr",)))
    assert load_all(file, named).taxonomy.num_classes == 4
    # Where nothing else could be the class, or in the middle, they are what they seem to be.
    for alone in (
        [(row[0], row[3]) for row in ((*TICKETS[0], "Nr"), *rows)],
        [(*row[:2], row[3], row[2]) for row in ((*TICKETS[0], "Nr"), *rows)],
    ):
        write_items(file, alone)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert str(first + 3) in str(load_all(file, TrainConfig(str(file))).taxonomy.paths)


def test_a_number_behind_the_class_is_named_where_nothing_can_be_held_out(tmp_path: Path) -> None:
    rows = [(*TICKETS[1], number) for number in ("17", "4", "9")]
    file = write_items(tmp_path / "a.csv", [(*TICKETS[0], "ticket"), *rows])
    with pytest.raises(RinceError, match=r"'ticket'.*table\.labels"):
        load_splits(str(file), TrainConfig(str(file)))


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["", *"0123"])), min_size=2),
    st.randoms(use_true_random=False),
)
def test_a_sequence_is_never_on_both_sides(rows: list[tuple[str, str]], random: Any) -> None:
    """And where there is none, every item is one of its own."""
    from rince.data.items import Marks, NothingToHoldOut, split_by_hash

    names = [f"{i}" for i in range(len(rows))]
    random.shuffle(names)
    number = torch.tensor([int(s or -1) for _, s in rows])
    labels = torch.tensor(["ab".index(c) for c, _ in rows])
    tree = Taxonomy([("a",), ("b",)])

    def texts(marks: Marks | None) -> Texts:
        return Texts(tuple(names), torch.zeros(len(rows), 0), labels, tree, "x", marks)

    units = {c: {s or f"own {i}" for i, (x, s) in enumerate(rows) if x == c} for c in "ab"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            train, test = split_by_hash(texts(Marks(sequence=number)))
        except NothingToHoldOut:
            assert max(map(len, units.values())) < 2 or units["a"] & units["b"]
            return
        sequence_of = dict(zip(names, number.tolist(), strict=True))
        sides = [{sequence_of[x] for x in side.keys() or []} - {-1} for side in (train, test)]
        assert not sides[0] & sides[1]
        assert len(train) + len(test) == len(rows)
        alone = texts(Marks(sequence=torch.full_like(number, -1)))
        try:
            without = split_by_hash(texts(None))
        except NothingToHoldOut:
            return
        assert [x.keys() for x in split_by_hash(alone)] == [x.keys() for x in without]


def test_tables_in_another_encoding_and_form(tmp_path: Path) -> None:
    """A column that is asked for in NFD, of a table in cp1252, whose letters are whole."""
    file = tmp_path / "a.csv"
    lines = ["Käse;Größe", *(f"{x} für fünf €;{'groß' if x > 'd' else 'klein'}" for x in "abcdef")]
    file.write_bytes("\r\n".join(lines).encode("cp1252"))
    apart = unicodedata.normalize("NFD", "Käse"), (unicodedata.normalize("NFD", "Größe"),)
    options = TrainConfig(str(file), table=TableOptions(*apart, encoding="cp1252"))
    splits = load_splits(str(file), options)
    assert splits.train.taxonomy.classes == ("groß", "klein")
    assert "a für fünf €" in {*(splits.train.keys() or []), *(splits.test.keys() or [])}
    assert len(load_test(Request(str(file), options), "texts")) == 6
    with pytest.raises(RinceError, match=r"line 1 .*0xe4.*table\.encoding"):
        load_splits(str(file), TrainConfig(str(file), table=TableOptions(*apart)))


def test_a_column_that_differs_in_every_row_is_named(tmp_path: Path) -> None:
    rows = [(number, *row) for number, row in zip("7249", TICKETS[1:2] * 4, strict=True)]
    file = write_items(tmp_path / "a.csv", [("ticket", *TICKETS[0]), *rows])
    with pytest.warns(RinceWarning, match=r"same ticket,.*table\.labels"):
        load_all(file, TrainConfig(str(file)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_all(file, TrainConfig(str(file), table=TableOptions(labels=TICKETS[0][1:])))


@pytest.mark.parametrize("separator", ["\t", "|", ";"])
def test_any_separator(separator: str, tmp_path: Path) -> None:
    file = write_items(tmp_path / "a.csv", TICKETS[:2], delimiter=separator)
    assert load_all(file, TrainConfig(str(file))).taxonomy.paths == (("card", "pin"),)


@pytest.mark.parametrize("header", [("text", "class"), ("path", "class"), ("class", "group"), ()])
def test_a_table_without_rows(header: tuple[str, ...], tmp_path: Path) -> None:
    file = write_items(tmp_path / "a.csv", [header] if header else [])
    with pytest.raises(RinceError, match="a.csv holds .* no rows"):
        kind_of(str(file))


def test_a_table_of_folders_names_an_empty_one(photos: Path) -> None:
    (photos / "cats" / "tabby").mkdir(parents=True)
    (photos / "@eaDir" / "x").mkdir(parents=True)
    for name in ("c", "d", "e"):
        (photos / f"{name}.png").unlink()
    with pytest.raises(RinceError, match=r"2 folders .*cats"):
        folder_table(str(photos), photos / "items.csv")
    (photos / "cats" / "tabby").rmdir()
    (photos / "cats").rmdir()
    assert len(folder_table(str(photos), photos / "items.csv")[1]) == 3


def test_missing_files_are_counted_and_ten_are_named(photos: Path) -> None:
    gone = [(f"gone/{i}.png", "dog", "pug", "train") for i in range(25)]
    table = write_items(photos / "items.csv", [HEADER, *ROWS, *gone])
    with pytest.raises(RinceError) as caught:
        loaded(table)
    message = str(caught.value)
    assert "25 bad rows" in message
    assert message.count(" is missing") == 10
    assert "line 8: gone/0.png is missing" in message
    assert "15 more" in message
    assert f"begin at {photos}" in message
    assert "images.root gives another" in message
    with pytest.raises(RinceError) as caught:  # of rince embed, which has no such option
        listed_files(table, frozenset((".png",)), None)
    assert str(caught.value).endswith(f"(relative paths begin at {photos})")


def test_absolute_paths_are_the_same_items_however_the_table_is_called(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their names decide what is held out for the test."""
    rows = [(path, *rest[:-1]) for path, *rest in ROWS]
    relative = loaded(write_items(photos / "items.csv", [HEADER[:-1], *rows]))
    rows = [(str(photos / path), *rest) for path, *rest in rows]
    absolute = write_items(photos / "absolute.csv", [HEADER[:-1], *rows])
    monkeypatch.chdir(photos)
    found = [loaded(absolute), loaded(Path("absolute.csv")), loaded(absolute, root=".")]
    for train, test in found:
        assert train.fingerprint() == relative[0].fingerprint()
        assert test.fingerprint() == relative[1].fingerprint()


def test_unknown_columns(photos: Path) -> None:
    table = write_items(photos / "items.csv", [HEADER, *ROWS])
    options = config(table)
    options.table = TableOptions(labels=("kingdom", "class"))
    with pytest.raises(RinceError, match="'kingdom'.*path, group"):
        load_splits(str(table), options)
    options.table = TableOptions(column="photo")
    with pytest.raises(RinceError, match="'photo'.*path, group"):
        load_splits(str(table), options)


def test_file_names_are_no_texts(photos: Path) -> None:
    table = write_items(photos / "items.csv", [("text", "class"), *[(r[0], r[2]) for r in ROWS]])
    with pytest.raises(RinceError, match=r"'text'.*files.*dogs/a\.png"):
        load_splits(str(table), TrainConfig(str(table)))


def test_clips(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        write_video(tmp_path / name, frames=40)  # 4 s
    header = ("path", "class", "start_s", "end_s", "split", "sequence")
    rows = [
        ("a.mp4", "walk", "", "", "train", "x"),
        ("b.mp4", "walk", "0", "1.5", "train", "x"),
        ("b.mp4", "jump", "1.5", "", "train", ""),
        ("c.mp4", "jump", "1", "3", "test", "y"),
    ]
    table = write_items(tmp_path / "items.csv", [header, *rows])
    assert kind_of(str(table)).noun == "clips"
    options = TrainConfig(
        str(table),
        images=ImageOptions(image_size=16),
        videos=VideoOptions(frames=5, stride=2, cache_gb=0.0),  # 0.9 s
    )
    splits = load_splits(str(table), options)
    train, test = splits.train, splits.test
    assert isinstance(train, VideoClips)
    assert train.taxonomy.classes == ("jump", "walk")
    assert train.keys()[:4] == [f"a.mp4@{0.9 * i:.3f}" for i in range(4)]
    assert train.keys()[4:] == [
        "b.mp4[0-1.5]@0.000", "b.mp4[1.5-inf]@1.500", "b.mp4[1.5-inf]@2.400",
    ]  # fmt: skip
    assert test.keys() == ["c.mp4[1-3]@1.000", "c.mp4[1-3]@1.900"]
    assert train.labels.tolist() == [1, 1, 1, 1, 1, 0, 0]
    assert train.marks is not None
    assert train.marks.sequence is not None
    assert train.marks.sequence.tolist() == [0, 0, 0, 0, 0, -1, -1]
    assert int(test[0].max()) > int(train[0].max())  # frames get brighter
    with pytest.warns(RinceWarning, match=r"3 of 4 rows are left out of the test.*'split'"):
        assert load_all(table, options).keys() == test.keys()
    alone = write_items(tmp_path / "test.csv", [header, *rows[3:]])
    assert load_all(alone, options).keys() == test.keys()
    for bad, message in (
        (("a.mp4", "walk", "2", "1", "train", ""), "line 6: end_s 1.0 is not after start_s 2.0"),
        (("a.mp4", "walk", "", "0", "train", ""), "line 6: end_s 0.0 is not after start_s 0.0"),
        (("a.mp4", "walk", "-2", "1", "train", ""), "line 6: start_s must be seconds"),
        (("a.mp4", "walk", "nan", "", "train", ""), "line 6: start_s must be seconds"),
        (("a.mp4", "walk", "9", "", "train", ""), r"a.mp4\[9-inf\]: the file is 4.00 s long"),
    ):
        write_items(table, [header, *rows, bad])
        with pytest.raises(RinceError, match=message):
            load_splits(str(table), options)


def test_videos_without_labels_are_of_one_class_as_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        write_video(tmp_path / "videos" / name, frames=20)
    header, rows = folder_table(str(tmp_path / "videos"), tmp_path / "items.csv")
    assert header == ["path"]
    table = write_items(tmp_path / "items.csv", [("path",), *map(tuple, rows)])
    labelled = write_items(
        tmp_path / "more.csv",
        [("path", "fold"), *((path, fold) for (path,), fold in zip(rows, ("train", "train", "val"),
                                                                    strict=True))],
    )  # fmt: skip
    clips = VideoOptions(frames=5, stride=2, cache_gb=0.0)
    for data in (tmp_path / "videos", table, labelled):
        labels = () if data is labelled else None
        options = TrainConfig(
            str(data),
            images=ImageOptions(image_size=16),
            videos=clips,
            table=TableOptions(labels=labels),
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            splits = load_splits(str(data), options, by_time=True)
        assert ["'fold' looks like a split, but is not read" in str(x.message) for x in caught] == (
            [True] if data is labelled else []
        )
        assert splits.train.taxonomy.paths == splits.test.taxonomy.paths == (("video",),)
        assert (len(splits.train), len(splits.test)) == (4, 2)
        assert len(load_all(data, options)) == 6
    with pytest.raises(ValueError, match=r"videos\.splits is for folders.*column split"):
        load_splits(str(table), replace(options, videos=replace(clips, splits="ucf")))
    with pytest.raises(ValueError, match=r"videos\.split 2 .*videos\.splits"):
        load_splits(str(table), replace(options, videos=replace(clips, split=2)))
    images = write_items(tmp_path / "images.csv", [("path",), ("a.png",)])
    with pytest.raises(RinceError, match=r"no column of labels.*table\.labels"):
        load_splits(str(images), config(images))


@pytest.mark.filterwarnings("ignore:.*no two rows", "ignore:.*table.empty")
@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_names_in_any_table(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    """Whatever a label is called, a row gets the class of its own path or the file is refused."""
    cell = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=5)
    rows = data.draw(st.lists(st.tuples(cell, cell), min_size=1, max_size=8))
    suffix = data.draw(st.sampled_from((".csv", ".tsv", ".jsonl")))
    file = tmp_path_factory.mktemp("tables") / f"t{suffix}"
    named = [(f"text {i}", *row) for i, row in enumerate(rows)]
    if suffix == ".jsonl":
        keys = ("text", "up", "class")
        file.write_text("\n".join(json.dumps(dict(zip(keys, r, strict=True))) for r in named))
    else:
        write_items(
            file, [("text", "up", "class"), *named], delimiter="\t" if suffix == ".tsv" else ","
        )
    try:
        table = read_items(file, "text", None)
        tree, labels = table.classes()
    except RinceError:
        return
    assert len(labels) == len(rows)
    for label, (_, cells) in zip(labels, table.table.rows, strict=True):
        path = [x for x in (cells["up"], cells["class"]) if x]
        assert tree.index("/".join(path)) == label
    assert isinstance(table, ItemTable)


def test_a_bad_line_in_a_long_table(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    lines = ["text,class", *[f"t{i},c{i % 7}" for i in range(50_000)]]
    lines[40_000] = "only one cell"
    file.write_text("\n".join(lines))
    with pytest.raises(RinceError, match="line 40001: 1 cells"):
        load_splits(str(file), TrainConfig(str(file)))


def test_the_home_of_nobody_is_a_missing_file(tmp_path: Path) -> None:
    table = tmp_path / "items.csv"
    table.write_text("path,label\n~nobody-of-this-name/a.jpg,cat\n")
    with pytest.raises(RinceError, match=r"items.csv.*line 2: ~nobody-of-this-name/a.jpg"):
        read_items(table, "path", None, "table.column").files()


def test_rows_that_are_left_out_of_a_test_are_counted(tmp_path: Path) -> None:
    write_images(tmp_path, [row[0] for row in ROWS])
    table = write_items(tmp_path / "items.csv", [HEADER, *ROWS])
    with pytest.warns(RinceWarning, match=r"4 of 6 rows are left out of the test.*'split'"):
        assert len(load_all(table, config(table))) == 2
    whole = write_items(tmp_path / "whole.csv", [row[:3] for row in (HEADER, *ROWS)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load_all(whole, config(whole))) == 6


@pytest.mark.parametrize("labels", [None, ("group", "class")])
def test_a_split_by_another_name_is_warned_of(
    labels: tuple[str, ...] | None, tmp_path: Path
) -> None:
    rows = [(f"{i} words", row[1], row[2], row[3]) for i, row in enumerate(ROWS * 3)]
    folds = [("text", "fold", "group", "class"), *((r[0], r[3], r[1], r[2]) for r in rows)]
    table = write_items(tmp_path / "t.csv", folds)
    options = TrainConfig(str(table), table=TableOptions(labels=labels))
    said = "not read" if labels else "taken as a label"
    with pytest.warns(RinceWarning, match=f"'fold' looks like a split, but is {said}.*'split'"):
        load_splits(str(table), options)
    other = write_items(tmp_path / "u.csv", [("text", "means", "class"),
                                             *((r[0], "train" if i % 2 else "bus", r[2])
                                               for i, r in enumerate(rows))])  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_splits(str(other), TrainConfig(str(other)))


@pytest.mark.parametrize("most", ["png", "mp4"])
@pytest.mark.parametrize("other", ["mp4", "png", "txt"])
@pytest.mark.parametrize("place", [3, 25])  # among the rows by which a column is known, or behind
def test_a_row_of_another_kind_of_file_is_named(
    most: str, other: str, place: int, tmp_path: Path
) -> None:
    if most == other or (place == 25 and other == "txt"):  # whose pixels whoever reads it may know
        return
    rows = [(f"{i}.{other if i == place else most}", "ab"[i % 2]) for i in range(30)]
    for name, _ in rows:
        (tmp_path / name).touch()
    table = write_items(tmp_path / "items.csv", [("path", "class"), *rows])
    options = TrainConfig(str(table))
    with pytest.raises(RinceError, match=rf"items\.csv.*line {place + 2}\b.*\b{place}\.{other}"):
        load_splits(str(table), options)
    if other != "txt":
        suffixes = frozenset({f".{most}"})
        with pytest.raises(RinceError, match=rf"line {place + 2}\b.*\b{place}\.{other}"):
            listed_files(table, suffixes, None)
