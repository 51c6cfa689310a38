"""Rows of texts from a csv or jsonl file."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from rince.core.checks import RinceError
from rince.core.files import is_text_file

Row = tuple[int, dict[str, str]]  # line in the file, and the cells by column


def read_rows(path: str | Path, column: str) -> list[Row]:
    """The rows of a csv file with a header, or of a file with a JSON object a line.

    Args:
        path: UTF-8. Blank lines are passed over.
        column: must be there, and hold something in every row.

    Returns:
        Cells as strings, blanks at their ends taken off; every row has all columns, in the order
        in which they first occur. A value that is null or missing is "".

    Raises:
        RinceError: no such file, no row, no such column, a line that is not as it should be.
    """
    file = Path(path).expanduser()
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            read = _csv_rows if file.suffix.lower() == ".csv" else _json_rows
            rows = list(read(stream, file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RinceError(f"cannot read the texts in {file}: {error}") from error
    if not rows:
        raise RinceError(f"{file} holds no text: expected rows with a text and its labels")
    columns = list(dict.fromkeys(name for _, cells in rows for name in cells))
    if column not in columns:
        raise RinceError(
            f"{file} has no column {column!r}; its columns are {', '.join(columns)}: name the one "
            f"that holds the texts (text.column)"
        )
    rows = [(line, {name: cells.get(name, "") for name in columns}) for line, cells in rows]
    empty = [str(line) for line, cells in rows if not cells[column]]
    if empty:
        lines = ", ".join(empty[:5]) + (", ..." if len(empty) > 5 else "")
        raise RinceError(
            f"{file}: {len(empty)} of {len(rows)} rows have no text in the column {column!r} "
            f"(line {lines}): fill or remove them"
        )
    return rows


def read_texts(path: str | Path, column: str = "text") -> list[str]:
    """The texts of a .csv or .jsonl file, or of a .txt file with one a line.

    Raises:
        RinceError: as :func:`read_rows`; another kind of file.
    """
    file = Path(path).expanduser()
    if is_text_file(file):
        return [cells[column] for _, cells in read_rows(file, column)]
    if file.suffix.lower() != ".txt":
        raise RinceError(f"expected texts, a .csv, .jsonl or .txt file, got {path}")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RinceError(f"cannot read the texts in {file}: {error}") from error
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise RinceError(f"{file} holds no text: expected one a line")
    return texts


def _csv_rows(stream: Iterable[str], file: Path) -> Iterator[Row]:
    reader = csv.reader(stream)
    header: list[str] | None = None
    for cells in reader:
        cells = [cell.strip() for cell in cells]
        if not any(cells):
            continue
        if header is None:
            header = cells
            if len(set(header)) < len(header):
                raise RinceError(f"{file}: a column is there twice: {', '.join(header)}")
        elif len(cells) > len(header):
            raise RinceError(
                f"{file}, line {reader.line_num}: {len(cells)} cells, but the header has "
                f"{len(header)} columns; a text that holds a comma needs quotes"
            )
        else:
            yield reader.line_num, dict(zip(header, cells, strict=False))


def _json_rows(stream: Iterable[str], file: Path) -> Iterator[Row]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except ValueError as error:
            raise RinceError(f"{file}, line {number} is not JSON: {error}") from None
        if not isinstance(found, dict) or any(isinstance(x, (dict, list)) for x in found.values()):
            raise RinceError(
                f"{file}, line {number}: expected an object of names and plain values, such as "
                f'{{"text": "...", "label": "..."}}, got {line.strip()[:80]}'
            )
        yield number, {k: "" if x is None else str(x).strip() for k, x in found.items()}
