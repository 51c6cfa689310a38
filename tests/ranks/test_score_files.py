"""Score matrices from files and back."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from rince import RinceError, Similarity
from rince.ranks.score_files import _rows_by_name

NAMES = ["tabby, cat", "maine coon", "Löwe"]
SCORES = torch.tensor([[1.0, 0.1, 1 / 3], [float("nan"), 1.0, -2e-9], [0.7, 5.0, 1.0]]).double()


def _same(found: Similarity) -> None:
    assert found.classes == tuple(NAMES)
    torch.testing.assert_close(found.scores, SCORES, rtol=0, atol=0, equal_nan=True)


def test_csv_gives_back_every_bit(tmp_path: Path) -> None:
    Similarity.from_matrix(SCORES, NAMES).to_csv(tmp_path / "s.csv")
    _same(Similarity.from_file(tmp_path / "s.csv"))


def test_float32_keeps_its_side_of_a_threshold_in_csv(tmp_path: Path) -> None:
    """0.7 as a float32 is below 0.7: written with all its digits it would lose rank 2."""
    single = Similarity.from_matrix(torch.tensor([[1, 0.7], [0.2, 1]]), ["a", "b"])
    single.to_csv(tmp_path / "s.csv")
    again = Similarity.from_file(tmp_path / "s.csv")
    expected = [[1, 2], [0, 1]]
    assert single.by_thresholds([0.7]).table.tolist() == expected
    assert again.by_thresholds([0.7]).table.tolist() == expected


def test_npy_with_names_beside_it(tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", SCORES.numpy())
    with pytest.raises(RinceError, match=r"no .*/s\.json\b.*JSON list"):
        Similarity.from_file(tmp_path / "s.npy")
    (tmp_path / "s.json").write_text(json.dumps(NAMES), encoding="utf-8")
    _same(Similarity.from_file(tmp_path / "s.npy"))
    (tmp_path / "other.json").write_text(json.dumps(NAMES[::-1]), encoding="utf-8")
    assert Similarity.from_file(tmp_path / "s.npy", tmp_path / "other.json").classes[0] == NAMES[2]
    np.save(tmp_path / "s.npy", SCORES.numpy().astype(">f8"))
    (tmp_path / "s.json").write_text("\ufeff" + json.dumps(NAMES), encoding="utf-8")
    _same(Similarity.from_file(tmp_path / "s.npy"))


def test_names_of_rows_and_columns_are_compared_composed(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text(",caf\u00e9,b\nb,0,1\ncafe\u0301,1,0\n", encoding="utf-8")
    assert Similarity.from_file(tmp_path / "s.csv").scores.tolist() == [[1, 0], [0, 1]]


def test_parquet_of_a_data_frame(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is the extra rince[parquet]")
    from pyarrow import parquet

    # What a data frame with a named index becomes; rows in another order than columns.
    rows = [2, 0, 1]
    table = {name: [SCORES[r, c].item() for r in rows] for c, name in enumerate(NAMES)}
    table[NAMES[0]][2] = None  # a missing value is null, not NaN
    table["class"] = [NAMES[r] for r in rows]
    parquet.write_table(pyarrow.table(table), tmp_path / "s.parquet")
    _same(Similarity.from_file(tmp_path / "s.parquet"))
    table["class"] = pyarrow.array(table["class"]).dictionary_encode()  # a categorical index
    parquet.write_table(pyarrow.table(table), tmp_path / "s.parquet")
    _same(Similarity.from_file(tmp_path / "s.parquet"))
    for change, message in (
        ({"class": [*NAMES[:-1], None]}, "a row has no name: the column 'class'"),
        ({NAMES[0]: pyarrow.array([1, 2, 3], pyarrow.timestamp("s"))}, f"'{NAMES[0]}' of time"),
    ):
        parquet.write_table(pyarrow.table(table | change), tmp_path / "v.parquet")
        with pytest.raises(RinceError, match=rf"v\.parquet: .*{message}"):
            Similarity.from_file(tmp_path / "v.parquet")
    parquet.write_table(pyarrow.table({"a": [1.0]}), tmp_path / "t.parquet")
    with pytest.raises(RinceError, match="one column of text"):
        Similarity.from_file(tmp_path / "t.parquet")
    (tmp_path / "u.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(RinceError, match=r"scores.*u\.parquet"):
        Similarity.from_file(tmp_path / "u.parquet")


def test_rows_in_another_order_are_matched_by_name(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("x,a,b,c\nc,.7,.8,1\na,1,.2,.3\nb,,1,.6\n")
    found = Similarity.from_file(tmp_path / "s.csv")
    assert found.classes == ("a", "b", "c")
    assert found.scores.nan_to_num(-9).tolist() == [[1, 0.2, 0.3], [-9, 1, 0.6], [0.7, 0.8, 1]]


def test_a_table_of_one_class(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("x,a\na,1\n")
    assert Similarity.from_file(tmp_path / "s.csv").scores.tolist() == [[1]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "header row"),
        ("x,a,b\n", "header row"),
        ("x,a,b\na,1,2\nb,1\n", r"line 3\b.*\b2\b.*header.*\b3\b"),
        (
            "x,a,b\na,one,2\nb,1,two\n",
            r"line 2\b.*'one'.*; line 3\b.*'two'",
        ),
        ("x,a,b\na,1_0,2\nb,1,2\n", r"line 2\b.*'1_0' is not a number"),
        ("x;a;b\na;1;0,5\nb;1;1\n", r"line 2\b.*'0,5'"),
        ("x,a,b\na,1,2\nc,1,2\n", r"\bc\b.*rows.*\bb\b.*columns"),
        ("x,a,b\na,1,2\nb,1,2\nc,1,2\n", r"\bc is only among the rows"),
        ("x,a,b\na,1,2\n", r"\bb is only among the columns"),
        ("x,a,a\na,1,2\nb,1,2\n", "column.*twice: a"),
        ("x,a,b\na,1,2\na,1,2\n", "row.*twice: a"),
        ("x,a,b\na,1,inf\nb,1,2\n", "scores.*finite"),
        ('x,"a\n', "line 1: a quote"),
    ],
)
def test_a_table_that_cannot_be(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "s.csv"
    file.write_text(text)
    with pytest.raises(RinceError, match=message) as error:
        Similarity.from_file(file)
    assert str(file) in str(error.value)


def test_a_separator_too_many_at_the_ends_of_the_lines(tmp_path: Path) -> None:
    file = tmp_path / "s.csv"
    file.write_text("x,a,b,\na,1,0.5,\nb,0.5,1,\n")
    found = Similarity.from_file(file)
    assert found.classes == ("a", "b")
    assert found.scores.tolist() == [[1, 0.5], [0.5, 1]]


def test_files_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(RinceError, match=r"\.csv.*\.npy.*\.parquet"):
        Similarity.from_file(tmp_path / "s.xlsx")
    with pytest.raises(RinceError, match="there is no file"):
        Similarity.from_file(tmp_path / "s.csv")
    (tmp_path / "s.csv").write_bytes(b"x,a\na,\xff\n")
    with pytest.raises(RinceError, match=r"s\.csv.*line 2\b.*UTF-8.*0xff"):
        Similarity.from_file(tmp_path / "s.csv")
    with pytest.raises(RinceError, match=r"own names.*names='names\.json'"):
        Similarity.from_file(tmp_path / "s.csv", "names.json")
    (tmp_path / "s.json").write_text('{"a": 1}')
    for content in (b"", b"\x93NUMPY and no more"):
        (tmp_path / "s.npy").write_bytes(content)
        with pytest.raises(RinceError, match=r"cannot read.*s\.npy"):
            Similarity.from_file(tmp_path / "s.npy")
    np.save(tmp_path / "s.npy", np.ones((1, 1)))
    with pytest.raises(RinceError, match="JSON list of names"):
        Similarity.from_file(tmp_path / "s.npy")
    (tmp_path / "s.json").write_text('["a", 1]')
    with pytest.raises(RinceError, match="JSON list of names"):
        Similarity.from_file(tmp_path / "s.npy")
    (tmp_path / "s.json").write_text("[")
    with pytest.raises(RinceError, match="is not JSON"):
        Similarity.from_file(tmp_path / "s.npy")
    (tmp_path / "s.json").write_text('["a", "b"]')
    with pytest.raises(RinceError, match=r"\(2, 2\).*\(1, 1\)"):
        Similarity.from_file(tmp_path / "s.npy")
    np.save(tmp_path / "s.npy", np.array([["a"]]))
    with pytest.raises(RinceError, match="array of numbers.*<U1"):
        Similarity.from_file(tmp_path / "s.npy")


class _Opened:
    """What is unpickled makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> object:
        return os.mkdir, (str(self.folder),)


def test_no_code_in_a_file_of_scores_runs(tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", np.array([[_Opened(tmp_path / "made")]]), allow_pickle=True)
    with pytest.raises(RinceError, match="s.npy"):
        Similarity.from_file(tmp_path / "s.npy", tmp_path / "s.json")
    assert not (tmp_path / "made").exists()


def test_a_damaged_header_of_npy_is_told_with_the_file(tmp_path: Path) -> None:
    """numpy reads it with Python's tokenizer, whose error is none of its own."""
    file = tmp_path / "s.npy"
    np.save(file, np.eye(2))
    file.write_bytes(file.read_bytes().replace(b"'fortran_order'", b"'fortran_order(", 1))
    (tmp_path / "s.json").write_text('["a", "b"]')
    with pytest.raises(RinceError, match="s.npy"):
        Similarity.from_file(file)


def test_rows_are_put_into_the_order_of_the_columns() -> None:
    names = ["a", "b", "c"]
    ordered = _rows_by_name(["c", "a", "b"], names, torch.arange(3))
    assert ordered.tolist() == [1, 2, 0]
