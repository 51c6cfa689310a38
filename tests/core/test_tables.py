"""Tables: what was written comes back, and what is refused is named with its lines."""

from __future__ import annotations

import csv
import functools
import json
import tempfile
import threading
import unicodedata
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rince import RinceError
from rince.core.tables import (
    Table,
    as_cell,
    as_number,
    read_as,
    read_cells,
    read_lines,
    read_table,
    refuse_rows,
    repeated,
    table_of,
)

# Everything that is a line end for str.splitlines, but not for a text file.
NO_LINE_ENDS = ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"]

characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
pieces = st.sampled_from([*NO_LINE_ENDS, "\r\n", "\r", "\n", '"', '""', ",", ";", "\t", "\ufeff"])
texts = st.lists(st.text(characters, max_size=4) | pieces, max_size=5).map("".join)
names = texts.map(str.strip).filter(bool)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[list[str]]]:
    composed = functools.partial(unicodedata.normalize, "NFC")  # as they are read
    columns = draw(st.lists(names, min_size=2, max_size=4, unique_by=composed))
    rows = draw(st.lists(st.lists(texts, min_size=len(columns), max_size=len(columns))))
    return columns, rows


def read(content: str | bytes, name: str = "t.csv", **options: Any) -> Table:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, name)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_table(file, **options)


@given(
    tables(),
    st.sampled_from([("t.csv", ","), ("t.csv", ";"), ("t.TSV", "\t")]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.booleans(),
)
def test_any_table_comes_back(
    table: tuple[list[str], list[list[str]]],
    kind: tuple[str, str],
    quoting: Literal[0, 1],
    marked: bool,
) -> None:
    columns, rows = table
    name, separator = kind
    if separator == ";":  # others in the header would be taken for the separator
        assume(not any(other in column for column in columns for other in ",\t|"))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, name)
        with file.open("w", encoding="utf-8", newline="") as stream:
            stream.write("\ufeff" * (marked or columns[0].startswith("\ufeff")))
            writer = csv.writer(stream, delimiter=separator, quoting=quoting)
            writer.writerows([columns, *rows])
        read_back = read_table(file)
    kept = [[cell.strip() for cell in row] for row in rows if any(cell.strip() for cell in row)]
    columns = [unicodedata.normalize("NFC", column) for column in columns]
    assert read_back.columns == tuple(columns)
    assert [cells for _, cells in read_back.rows] == [
        dict(zip(columns, row, strict=True)) for row in kept
    ]


@given(tables(), st.booleans(), st.sampled_from(["\n", "\r\n"]))
def test_any_objects_come_back(
    table: tuple[list[str], list[list[str]]], ascii_only: bool, line_end: str
) -> None:
    columns, rows = table
    objects = [dict(zip(columns, row, strict=True)) for row in rows]
    lines = [json.dumps(x, ensure_ascii=ascii_only) + line_end for x in objects]
    read_back = read("".join(lines), "t.jsonl")
    assert read_back.rows == [
        (line, {unicodedata.normalize("NFC", name): cell.strip() for name, cell in cells.items()})
        for line, cells in enumerate(objects, 1)
    ]


def test_a_row_is_where_it_begins() -> None:
    table = read('\n\r\na,b\r\n"two\nlines",1\r,\r\n"x\n\ny",2\n\nz,3')
    assert table.rows == [
        (4, {"a": "two\nlines", "b": "1"}),
        (7, {"a": "x\n\ny", "b": "2"}),
        (11, {"a": "z", "b": "3"}),
    ]


@pytest.mark.parametrize("character", NO_LINE_ENDS)
def test_no_line_ends_at(character: str) -> None:
    text = f"one{character}text"
    for name, content in (
        ("t.csv", f"text,label\n{text},a\n"),
        ("t.jsonl", json.dumps({"text": text, "label": "a"}, ensure_ascii=False)),
    ):
        assert read(content, name).column("text") == [text]


def test_lines_of_text(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes("\ufeff one\u2028text \r\n\r\n\x0c\ntwo\rthree".encode())
    assert read_lines(tmp_path / "t.txt") == [(1, "one\u2028text"), (4, "two"), (5, "three")]


def test_cells_of_any_length_and_the_limit_of_others() -> None:
    long = "word " * 40_000 + "end"
    at_first, before = csv.field_size_limit(1000), 1000
    results: list[bool] = []

    def reads() -> None:
        for _ in range(5):
            results.append(
                read(f"text,{long}\n{long},a\n").rows == [(2, {"text": long, long: "a"})]
            )

    threads = [threading.Thread(target=reads) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 10
    assert csv.field_size_limit(at_first) == before


def test_separators() -> None:
    assert read("a;b\n1,5;2\n").rows == [(2, {"a": "1,5", "b": "2"})]
    assert read('"a;b"\n1;2\n').columns == ("a;b",)
    assert read("a\n1;2\n").rows == [(2, {"a": "1;2"})]
    assert read("a,b;c\n1,2\n").columns == ("a", "b;c")
    assert read("a;b;c,d\n1,2\n").columns == ("a;b;c", "d")
    assert read("a,b\tc\n1,2\t3\n", "t.tsv").rows == [(2, {"a,b": "1,2", "c": "3"})]


@pytest.mark.parametrize("line", ["sep={}", '"sep={}"', "SEP={}"])
@pytest.mark.parametrize("separator", [";", "\t", "|", ",", "^"])
def test_the_separator_that_excel_names(line: str, separator: str) -> None:
    other = "," if separator != "," else ";"
    rows = f"a{other}a{separator}b\r\n1{separator}2\r\n"
    table = read(f"{line.format(separator)}\r\n{rows}")
    assert table.rows == [(3, {f"a{other}a": "1", "b": "2"})]
    assert read("sep=x,b\n1,2\n").columns == ("sep=x", "b")


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        ("cp1252", "Käse für 5 €"),
        ("latin-1", "Käse für 5 £"),
        ("shift_jis", "日本語のテスト"),
        ("gb18030", "汉字隆"),
        ("utf-16", "Käse 汉字"),
        ("utf-16-le", "Käse 汉字"),
        ("utf-32", "Käse 汉字"),
        ("utf-8", "Käse 汉字"),
    ],
)
def test_encodings_that_are_named(encoding: str, words: str, tmp_path: Path) -> None:
    rows = [{"Größe" if words[0] == "K" else "n": "1", "text": words}]
    header = ",".join(rows[0])
    with read_as(encoding):
        table = read(f"{header}\r\n1,{words}\r\n".encode(encoding))
        lines = (tmp_path / "t.txt").write_bytes(f"\n{words}".encode(encoding))
        assert read_lines(tmp_path / "t.txt") == [(2, words)], lines
        objects = read(json.dumps(rows[0], ensure_ascii=False).encode(encoding), "t.jsonl")
    assert [cells for _, cells in table.rows] == rows == [cells for _, cells in objects.rows]
    if encoding in ("utf-16", "utf-32", "utf-8"):  # they say it themselves
        marked = f"{header}\n1,{words}\n".encode("utf-8-sig" if encoding == "utf-8" else encoding)
        assert read(marked).column("text") == [words]
        with read_as("cp1252"):
            assert read(marked).column("text") == [words]


@pytest.mark.parametrize(
    ("content", "encoding", "facts"),
    [
        (b"a,b\nx,caf\xe9\n", "utf-8", ["line 2", "byte 9", "UTF-8", "table.encoding"]),
        (b"a,b\r\n1,2\r\nx,\x81\r\n", "cp1252", ["line 3", "byte 12", "CP1252"]),
        (b"a,b\n1,\x93\xfa\n2,\xfd", "shift_jis", ["SHIFT_JIS", "line 3", "byte 11, 0xfd"]),
        (b"a,b\n1,\xff\n", "gb18030", ["line 2", "byte 6", "GB18030"]),
        ("a,b\n1,2".encode("utf-16") + b"x", "cp1252", ["UTF-16", "line 2", "byte 16"]),
    ],
)
def test_another_encoding_than_the_one_named(
    content: bytes, encoding: str, facts: list[str]
) -> None:
    with read_as(encoding), pytest.raises(RinceError) as refusal:
        read(content)
    for fact in facts:
        assert fact in str(refusal.value)


@pytest.mark.parametrize("name", ["cp1253x", "", "base64", "undefined", "rot13", "a\0b"])
def test_what_is_no_encoding(name: str) -> None:
    with pytest.raises(ValueError, match=r"table\.encoding"), read_as(name):
        raise AssertionError


def test_an_encoding_holds_within_its_block_only() -> None:
    content = "a\né\n".encode()
    with read_as("latin-1"):
        with read_as(None):
            assert read(content).column("a") == ["Ã©"]
        with read_as("utf-8"):
            assert read(content).column("a") == ["é"]
        assert read(content).column("a") == ["Ã©"]
    assert read(content).column("a") == ["é"]


def test_names_of_columns_in_either_form() -> None:
    apart, whole = "Gro\u0308\u00dfe", "Gr\u00f6\u00dfe"
    for name in (apart, whole):
        for table in (read(f"{name},b\n1,2\n"), read(json.dumps({name: 1, "b": 2}), "t.jsonl")):
            assert table.columns == (whole, "b")
            assert table.column(apart) == table.column(whole) == ["1"]
            table.require_columns(apart)
    with pytest.raises(RinceError, match="is there twice"):
        read(f"{apart},{whole}\n1,2\n")


def test_numbers_of_json_as_they_are_written() -> None:
    table = read('{"x": 1e3}\n{"x": 1000}\n{"x": 1.50}\n{"x": 7.00}\n{"x": "1e3"}', "t.jsonl")
    assert table.column("x") == ["1e3", "1000", "1.50", "7", "1e3"]
    assert read("x\n1e3\n1000\n").column("x") == ["1e3", "1000"]


def test_numbers_that_people_write() -> None:
    assert [as_number(x) for x in ("1e3", " -2.5 ", "+7")] == [1000, -2.5, 7]
    for wrong in ("1_0", "1,5", "", "0x10"):
        with pytest.raises(ValueError, match="could not convert"):
            as_number(wrong)


def test_columns_without_a_name() -> None:
    spreadsheet = read("class,up,,\nx,y,,\n")  # separators too many, as spreadsheets write
    assert spreadsheet.rows == [(2, {"class": "x", "up": "y"})]
    frame = read(",text\n0,x\n1,y\n")  # a data frame's index
    assert frame.columns == ("", "text")
    assert read("text,\nx,\ny,5\n").column("") == ["", "5"]
    with pytest.raises(RinceError, match="no column 'label'"):
        frame.column("label")
    with pytest.raises(RinceError, match="'label'.*without a name.*text: add it"):
        frame.require_columns("text", "label", hint="add it")
    with pytest.raises(RinceError, match="without a name.*twice"):
        read(",a,\n0,x,1\n")


def test_values_of_objects() -> None:
    values = [1, 1.0, 1.5, True, None, float("nan"), 1e300, "  a\tb "]
    table = read("\n".join(json.dumps({"x": value}) for value in values), "t.jsonl")
    assert table.column("x") == ["1", "1", "1.5", "True", "", "", "1e+300", "a\tb"]
    table = read('{"a": "x"}\n{"b": "y"}', "t.jsonl")
    assert table.rows == [(1, {"a": "x", "b": ""}), (2, {"a": "", "b": "y"})]


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is the extra rince[parquet]")
    from pyarrow import parquet

    file = tmp_path / "t.parquet"
    columns = {"text": [" a ", "b\u2028c", None], "label": [1.0, float("nan"), 2.5]}
    columns["kind"] = pyarrow.array(["x", "y", "x"]).dictionary_encode()
    parquet.write_table(pyarrow.table(columns), file)
    assert read_table(file).rows == [
        (1, {"text": "a", "label": "1", "kind": "x"}),
        (2, {"text": "b\u2028c", "label": "", "kind": "y"}),
        (3, {"text": "", "label": "2.5", "kind": "x"}),
    ]
    parquet.write_table(pyarrow.table({"a": [[1]], "b": [b"x"], "c": ["x"]}), file)
    with pytest.raises(RinceError, match="2 bad rows.*'a'.*'b'"):
        read_table(file)
    file.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(RinceError, match=r"the texts in .*t\.parquet"):
        read_table(file, "texts")


def test_an_empty_file_has_no_columns() -> None:
    for content in ("", "\n\n", " \r\n,,\n", "\ufeff"):
        assert read(content).columns == ()
        assert read(content).rows == []
    assert read("", "t.jsonl").columns == ()
    assert read("a,b\n").columns == ("a", "b")


@pytest.mark.parametrize(
    ("content", "name", "facts"),
    [
        (
            b"text,label\nfine,a\n\ncaf\xe9,b\n",
            "t.csv",
            ["line 4", "byte 22, 0xe9", "cp1252", "table.encoding"],
        ),
        (b"a\r\rcaf\xe9\r", "t.csv", ["line 3", "cp1252"]),
        ("text,label\n".encode("utf-16-le"), "t.csv", ["line 1", "utf-16", "table.encoding"]),
        (b'{"text": "caf\xe9"}', "t.jsonl", ["line 1", "cp1252"]),
        ("a,b\n1,2\nx\0y,2\nz,\0\n", "t.csv", ["line 3", "line 4", "NUL"]),
        ("a,b\n1,2,3\n1\n1,2\n", "t.csv", ["2 bad rows", "line 2: 3 cells", "line 3: 1 cells"]),
        ('a,b\n1,2\n3,"4\n5,6\n', "t.csv", ["line 3", "never closed"]),
        ('"a,b\n1,2\n', "t.csv", ["line 1:", "never closed"]),
        ('{"a": 1, "b": {"c": 2}}\n', "t.jsonl", ["t.jsonl: line 1: expected"]),
        ("a,b\n1\n", "t.csv", ["t.csv: line 2: 1 cells"]),
        ('a,b\n1,2\n3,"4', "t.csv", ["line 3", "never closed"]),
        ('a\tb\n1\t2\n"so\t3\n4\t5\n"so\t6\n', "t.tsv", ["line 3", "two for each"]),
        ('a,b\n"no" he said,2\n', "t.csv", ["line 2", "two for each"]),
        ("a,b, a\n1,2,3\n", "t.csv", ["'a' is there twice"]),
        ("a,b\n" + "1\n" * 14, "t.csv", ["14 bad rows", "line 11", "4 more"]),
        ('{"a": 1}\n{"a": 1', "t.jsonl", ["line 2 is not JSON"]),
        ('{"a": 1, " a": 2}', "t.jsonl", ["line 1", "twice"]),
        ('["a"]\n5\n{"a": {"b": 1}}\n{"a": []}', "t.jsonl", ["4 bad", "line 1", "line 4"]),
        ('{"a": "\\ud800"}', "t.jsonl", ["line 1", "surrogate"]),
        ("[" * 100_000, "t.jsonl", ["line 1 is not JSON"]),
    ],
)
def test_what_is_refused(content: str | bytes, name: str, facts: list[str]) -> None:
    with pytest.raises(RinceError) as refusal:
        read(content, name)
    for fact in [*facts, name]:
        assert fact in str(refusal.value)


def test_only_ten_bad_rows_are_shown() -> None:
    with pytest.raises(RinceError) as refusal:
        refuse_rows(Path("t.csv"), [f"line {i}: wrong" for i in range(14)], "fix them")
    assert "line 9: wrong; and 4 more (fix them)" in str(refusal.value)
    assert "line 10" not in str(refusal.value)
    refuse_rows(Path("t.csv"), [])


def test_short_rows_are_filled_if_that_is_said() -> None:
    assert read("a,b,c\n1\n2,3\n", fill_short_rows=True).rows == [
        (2, {"a": "1", "b": "", "c": ""}),
        (3, {"a": "2", "b": "3", "c": ""}),
    ]
    with pytest.raises(RinceError, match="line 2: 4 cells"):
        read("a,b,c\n1,2,3,4\n", fill_short_rows=True)


def test_cells_whatever_the_header(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x,x,\n1,2,3\n")
    assert read_cells(tmp_path / "t.csv") == (["x", "x", ""], [(2, ["1", "2", "3"])])
    (tmp_path / "t.csv").write_text("x,x,\n1\n")
    with pytest.raises(RinceError, match="line 2: 1 cells"):
        read_cells(tmp_path / "t.csv")


def test_the_first_rows_alone() -> None:
    for most in (1, 2):
        rows = read("a,b\n\n1,\n2,x\n3,y\n", most=most).rows
        assert rows == [(3, {"a": "1", "b": ""}), (4, {"a": "2", "b": "x"})][:most]
        objects = read('\n{"a": 1}\n\n{"b": "x"}\n{"c": 3}\n5', "t.jsonl", most=most)
        assert objects.columns == ("a", "b")[:most]
        assert [line for line, _ in objects.rows] == [2, 4][:most]


def test_the_largest_numbers_as_cells() -> None:
    """Beyond 2**53 a float stands for several integers."""
    for number, cell in (
        (200.0, "200"),
        (2.0**53 - 1, "9007199254740991"),
        (2.0**53, "9007199254740992.0"),
        (2**53 + 1, "9007199254740993"),
        (Decimal("3.0"), "3"),
        (Decimal("1.5"), "1.5"),
        (Decimal(10) ** 30, str(Decimal(10) ** 30)),
        (Decimal("12345678901234567890123456789.5"), "12345678901234567890123456789.5"),
    ):
        assert as_cell(number) == cell


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for name in ("none.csv", "none.jsonl", "none.txt"):
        with pytest.raises(RinceError, match=f"words.*{name}"):
            (read_lines if name.endswith("txt") else read_table)(tmp_path / name, "words")


def test_a_column_with_some_numbers_is_one_of_numbers() -> None:
    columns = {"grade": [1, "a"], "name": ["b", "c"], "size": [0.5, 2]}
    assert table_of(Path("given.npz"), columns).numbers == {"grade", "size"}


def test_two_columns_of_one_name_in_parquet(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    column = arrow.array(["a"])
    table = arrow.Table.from_arrays([column] * 3, names=["text", "c", "c"])
    parquet.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(RinceError, match=r"t\.parquet: column 'c' is there twice.*text, c, c"):
        read_table(tmp_path / "t.parquet")


def test_why_a_file_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    for name in ("a.csv", "a.parquet"):
        with pytest.raises(RinceError, match=rf"cannot read the items in .*{name}: there is no"):
            read_table(tmp_path / name, "items")
        (tmp_path / name).write_bytes(b"no parquet")
    with pytest.raises(RinceError, match=r"cannot read the items in .*a\.parquet: (?!there is no)"):
        read_table(tmp_path / "a.parquet", "items")

    def broken(self: Path) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", broken)
    with pytest.raises(RinceError, match=r"cannot read the items in .*a\.csv: Input/output error"):
        read_table(tmp_path / "a.csv", "items")


def test_names_that_are_there_twice_are_named_once() -> None:
    assert repeated(["b", "a", "b", "c", "a", "b"]) == ["b", "a"]
