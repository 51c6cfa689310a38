"""Rows of texts from a table, or lines of texts."""

from __future__ import annotations

from pathlib import Path

from rince.core.checks import RinceError
from rince.core.tables import TABLE_SUFFIXES, read_lines, read_table, refuse_rows


def text_column(path: str | Path, column: str) -> list[str]:
    """The texts of a table: the column must be there, and hold something in every row."""
    table = read_table(Path(path).expanduser(), "texts")
    if not table.rows:
        raise RinceError(f"{table.file} holds no text: expected rows with a text and its labels")
    table.require_columns(column, hint="name the one that holds the texts (table.column)")
    texts = table.column(column)
    empty = [
        f"line {line}: no text" for (line, _), x in zip(table.rows, texts, strict=True) if not x
    ]
    refuse_rows(table.file, empty, f"fill the column {column!r}, or remove the rows")
    return texts


def read_texts(path: str | Path, column: str = "text") -> list[str]:
    """The texts of a table, or of a .txt file with one per line."""
    file = Path(path).expanduser()
    if file.suffix.lower() in TABLE_SUFFIXES:
        return text_column(file, column)
    if file.suffix.lower() != ".txt":
        raise RinceError(f"expected texts, a {', '.join(TABLE_SUFFIXES)} or .txt file, got {path}")
    texts = [text for _, text in read_lines(file, "texts")]
    if not texts:
        raise RinceError(f"{file} holds no text: expected one per line")
    return texts
