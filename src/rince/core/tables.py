"""The one reader of tables: .csv, .tsv, .jsonl and .parquet files, and of lines of text."""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import json
import re
import threading
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from pathlib import Path
from typing import Any, TypeAlias

from rince.core.checks import BadItems, RinceError, import_extra, require
from rince.core.files import unreadable

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")

Row: TypeAlias = tuple[int, dict[str, str]]
"""The line in the file where a row begins (in parquet: its number, from 1), its cells by column."""

_LONGEST_CELL = 2**31 - 1  # a C long holds no more on some systems
_MOST_SHOWN = 10
_csv_limit = threading.Lock()
_encoding: ContextVar[str | None] = ContextVar("encoding", default=None)
_MARKS = (  # of byte order, the longer ones first
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@contextlib.contextmanager
def read_as(encoding: str | None) -> Iterator[None]:
    """Within it, files of text are read in this encoding; None: as before it.

    One setting for a whole command, as a table may be read on the way of any other: to know of
    which kind the data are, for shots, for scores.
    """
    if encoding is None:
        yield
        return
    try:
        "text".encode(encoding)
    except (LookupError, UnicodeError, ValueError):
        raise ValueError(
            f"table.encoding must be the name of an encoding, such as cp1252, shift_jis or "
            f"utf-16, got {encoding!r}"
        ) from None
    token = _encoding.set(encoding)
    try:
        yield
    finally:
        _encoding.reset(token)


@dataclass(frozen=True)
class Table:
    """What a file holds: every row has every column, a missing cell is ``""``.

    Args:
        columns: their names in the file's order, no two alike. At most one is ``""``: the header
            has no name for it, yet there are cells below (a data frame's index, often).
        rows: numbers and cells; blank lines are passed over.
        numbers: columns whose values the file holds as numbers; of files of text none are known.
        unit: what the numbers of the rows count: lines of a text, or rows.
    """

    file: Path
    columns: tuple[str, ...]
    rows: list[Row]
    numbers: frozenset[str] = frozenset()
    unit: str = "line"

    def place(self, line: int) -> str:
        """A row by its number, for messages: ``"line 3"``, or ``"row 3"`` of a parquet file."""
        return f"{self.unit} {line}"

    def require_columns(self, *names: str, hint: str = "") -> None:
        """Refuse a table that lacks one of these; the hint says what to do about it."""
        missing = [repr(name) for name in names if composed(name) not in self.columns]
        if missing:
            shown = ", ".join(name or "one without a name" for name in self.columns) or "none"
            raise RinceError(
                f"{self.file} has no column {', '.join(missing)}; its columns are {shown}"
                + (f": {hint}" if hint else "")
            )

    def column(self, name: str) -> list[str]:
        """The cells of one column, top to bottom."""
        self.require_columns(name)
        name = composed(name)
        return [cells[name] for _, cells in self.rows]


def read_table(
    file: Path, what: str = "table", *, fill_short_rows: bool = False, most: int | None = None
) -> Table:
    """A table with a header, or a file with a JSON object a line.

    Files are UTF-8, or in the encoding of :func:`read_as`; one that begins with a byte order mark
    is in the UTF-8, 16 or 32 that the mark says. Only line feeds and carriage returns end a
    line; a cell may hold any other character, may hold line ends where it is quoted, and may be
    of any length. Blanks at the ends of cells and names are taken off; names of columns are in NFC.

    ``.tsv`` is separated by tabs, ``.jsonl`` holds objects of plain values, ``.parquet`` needs the
    extra ``parquet``; anything else is separated by commas, or by semicolons, tabs or bars where
    these and no commas separate the header, or as its first line says (``sep=;``, Excel's). Rows
    with fewer cells than the header are refused, or filled up with empty ones. JSON and parquet
    values become strings: null and NaN ``""``, and 1.0 ``"1"``, as one column may hold both; other
    numbers of JSON stay as they are written, 1e3 too. ``what`` is for messages.
    ``most``: only so many rows are looked at; of jsonl files a later one may bring a new column.
    """
    if file.suffix.lower() == ".jsonl":
        return _read_jsonl(file, what, most)
    if file.suffix.lower() == ".parquet":
        return _read_parquet(file, what, most)
    header, body = read_cells(file, what, fill_short_rows=fill_short_rows, most=most)
    columns = _columns(header, file)
    rows = [(line, dict(zip(columns, cells, strict=True))) for line, cells in body]
    return Table(file, columns, rows)


def read_cells(
    file: Path, what: str = "table", *, fill_short_rows: bool = False, most: int | None = None
) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header of a csv or tsv file, whatever its names; and the line number and cells of each
    row below, as many as the header's."""
    text = read_text(file, what)
    if "\0" in text:
        problems = [f"line {line} holds a NUL character" for line, x in _lines(text) if "\0" in x]
        refuse_rows(
            file,
            problems,
            "the file is damaged, or of another encoding, such as utf-16-le: name it "
            "(table.encoding)",
        )
    named = re.match(r'"?sep=([^\r\n])"?(?=[\r\n])', text, re.IGNORECASE)
    if named:
        text = text[named.end() :]  # an empty line stays, so that those below keep their numbers
    header: list[str] = []
    body, problems = [], []
    most = None if most is None else most + 1  # and the header
    for line, cells in _parsed(
        text, named[1] if named else _separator(text, file), file, most=most
    ):
        cells = [cell.strip() for cell in cells]
        if not any(cells):
            continue
        if not header:
            header = cells
            continue
        missing = len(header) - len(cells)
        if missing < 0 or (missing > 0 and not fill_short_rows):
            problems.append(
                f"line {line}: {len(cells)} cells, but the header has {len(header)} columns"
            )
        body.append((line, cells + [""] * missing))
    refuse_rows(file, problems, "a cell that holds a separator needs quotes")
    # A separator too many at the end of the lines makes columns without name and cells.
    empty = {i for i, name in enumerate(header) if not name and not any(x[i] for _, x in body)}
    if empty:
        header = [name for i, name in enumerate(header) if i not in empty]
        body = [(line, [x for i, x in enumerate(row) if i not in empty]) for line, row in body]
    return header, body


def read_lines(file: Path, what: str = "lines") -> list[tuple[int, str]]:
    """The lines of a text file with their numbers, without blank ones and blanks at their ends."""
    stripped = ((line, part.strip()) for line, part in _lines(read_text(file, what)))
    return [(line, part) for line, part in stripped if part]


def read_text(file: Path, what: str = "text", encoding: str | None = None) -> str:
    """All of a file, with its line ends as they are and without a byte order mark.

    ``encoding``: where the file has no mark; None: that of :func:`read_as`, or else UTF-8.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise unreadable(what, file, error) from error
    given = encoding or _encoding.get() or "utf-8"
    marked = next((name for mark, name in _MARKS if content.startswith(mark)), None)
    try:
        return content.decode(marked or given).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode(marked or given, errors="replace")
        line = len(re.findall(r"\r\n?|\n", before)) + 1
        raise RinceError(
            f"cannot read the {what} in {file}: line {line} is not {(marked or given).upper()} "
            f"(byte {error.start}, 0x{content[error.start]:02x}). Save the file as UTF-8, or name "
            f"its encoding (table.encoding): cp1252 perhaps, which Excel writes in Europe, "
            f"shift_jis or gb18030"
        ) from error


def refuse_rows(file: Path, problems: Sequence[str], hint: str = "") -> None:
    """Refuse a file for all its bad rows at once: a problem each; the first ten are shown."""
    if problems:
        count = f"{len(problems)} bad rows: " if len(problems) > 1 else ""
        more = len(problems) - _MOST_SHOWN
        raise BadItems(
            f"{file}: {count}{'; '.join(problems[:_MOST_SHOWN])}"
            + (f"; and {more} more" if more > 0 else "")
            + (f" ({hint})" if hint else ""),
            problems,
        )


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Never str.splitlines, which also splits at U+2028, U+0085, form feeds and others."""
    return enumerate(io.StringIO(text, newline=""), 1)


def _separator(text: str, file: Path) -> str:
    if file.suffix.lower() == ".tsv":
        return "\t"
    names = {d: sum(len(x) for _, x in _parsed(text, d, file, most=1)) for d in ",;\t|"}
    return "," if names[","] > 1 else max(names, key=lambda d: names[d])  # the first, where equal


def _parsed(
    text: str, separator: str, file: Path, *, most: int | None = None
) -> list[tuple[int, list[str]]]:
    """The line where each row begins, and its cells; quotes are checked where all is read."""
    rows: list[tuple[int, list[str]]] = []
    lines = io.StringIO(text, newline="")
    # The limit is global to the process: our own reads wait for each other, and it is put back.
    with _csv_limit:
        before = csv.field_size_limit(_LONGEST_CELL)
        first = 1
        try:
            reader = csv.reader(lines, delimiter=separator, strict=most is None)
            for cells in reader:
                rows.append((first, cells))
                first = reader.line_num + 1
                if most is not None and any(cell.strip() for cell in cells):
                    most -= 1
                    if not most:
                        break
        except csv.Error as error:  # else the rows up to the next quote would be one cell
            wrong = (
                "is closed before its end" if "expected after" in str(error) else "is never closed"
            )
            raise RinceError(
                f"{file}: line {first}: a quote that opens a cell in this row {wrong}: a cell that "
                f'holds quotes needs quotes around it, and two for each inside: "5"" disk"'
            ) from None
        finally:
            csv.field_size_limit(before)
    return rows


def _read_jsonl(file: Path, what: str, most: int | None) -> Table:
    rows: list[Row] = []
    problems = []
    for line, part in _lines(read_text(file, what)):
        if len(rows) == most:
            break
        if not part.strip():
            continue
        try:
            pairs = json_pairs(part)
            if not isinstance(pairs, Pairs) or any(isinstance(x, list) for _, x in pairs):
                problems.append(f"line {line}: expected {_OBJECT}, got {part.strip()[:80]}")
                continue
            names = [composed(name) for name, _ in pairs]
            cells = {name: as_cell(x) for name, (_, x) in zip(names, pairs, strict=True)}
            if len(cells) < len(names):
                problems.append(f"line {line}: a name is there twice: {', '.join(names)}")
            "".join((*cells, *cells.values())).encode()
            rows.append((line, cells))
        except UnicodeEncodeError:
            problems.append(f"line {line} holds half of a surrogate pair, which is no character")
        except (ValueError, RecursionError) as error:
            problems.append(f"line {line} is not JSON: {error}")
    refuse_rows(file, problems)
    columns = tuple(dict.fromkeys(name for _, cells in rows for name in cells))
    filled = [(line, {name: cells.get(name, "") for name in columns}) for line, cells in rows]
    return Table(file, columns, filled)


_OBJECT = 'an object of names and plain values, such as {"text": "...", "label": "..."}'


class Pairs(list[tuple[str, object]]):
    """A JSON object as it was written, so that a name that occurs twice is seen."""


def json_pairs(text: str) -> object:
    """JSON whose objects are :class:`Pairs`, and whose numbers with a point or an exponent are text
    as it is written: 1e3 and 1000 may be two products. Only 1.0 is "1", as of :func:`as_cell`."""
    return json.loads(
        text, object_pairs_hook=Pairs, parse_float=lambda number: re.sub(r"\.0+$", "", number)
    )


def _read_parquet(file: Path, what: str, most: int | None) -> Table:
    parquet = import_extra("pyarrow.parquet", "parquet")
    try:
        with parquet.ParquetFile(file) as opened:  # read_table stops at two columns of one name
            table = opened.read().slice(0, most)  # what takes long is to make texts of cells
        columns = _columns(table.column_names, file)
        nested = [
            f"column {name!r} holds values of the type {field.type}"
            for name, field in zip(columns, table.schema, strict=True)
            if field.type.num_fields or "binary" in str(field.type)
        ]
        refuse_rows(file, nested, "expected plain values: texts, numbers, booleans or dates")
        values = [column.to_pylist() for column in table.columns]
        return table_of(file, dict(zip(columns, values, strict=True)))
    except RinceError:
        raise
    except Exception as error:  # of damaged files pyarrow raises anything
        raise unreadable(what, file, error) from error


def table_of(file: Path, columns: Mapping[str, Sequence[object]]) -> Table:
    """A table of the plain values that ``file`` holds; its rows are counted from 1."""
    cells = [[as_cell(x) for x in values] for values in columns.values()]
    by_row = enumerate(zip(*cells, strict=True), 1)
    rows = [(number, dict(zip(columns, row, strict=True))) for number, row in by_row]
    numbers = (n for n, x in columns.items() if any(isinstance(y, (Real, Decimal)) for y in x))
    return Table(file, tuple(columns), rows, frozenset(numbers), "row")


def nfc(name: str) -> str:
    """With whole accented letters, which macOS and some editors take apart."""
    return unicodedata.normalize("NFC", name)


def differing_in_capitals(names: Iterable[str]) -> tuple[str, str] | None:
    """Two names that are one but for upper and lower case, if there are any."""
    first: dict[str, str] = {}
    for name in sorted(names):
        if (other := first.setdefault(name.lower(), name)) != name:
            return other, name
    return None


def repeated(names: Iterable[str]) -> list[str]:
    """Those that are there more than once, each of them once."""
    return [name for name, count in Counter(names).items() if count > 1]


def composed(name: str) -> str:
    """A name as it is compared: in NFC, and without blanks at its ends."""
    return nfc(name).strip()


def as_number(cell: str) -> float:
    """A number that people wrote; ``1_0``, which Python takes for ten, is none."""
    require("_" not in cell, f"could not convert string to float: {cell!r}")
    return float(cell)


def as_cell(value: object) -> str:
    """A plain value as the text that a table would hold: 1.0 is ``"1"``, null and NaN ``""``."""
    if isinstance(value, (str, bool)):
        return str(value).strip()
    try:
        if value is None or value != value:  # null, NaN
            return ""
    except TypeError:  # pandas' NA, which is neither
        return ""
    # A column of integers with a gap becomes floats in a data frame, and 1 is the same as 1.0.
    if isinstance(value, (Real, Decimal)):
        number: Any = value
        value = int(number) if abs(number) < 2**53 and number == number // 1 else value
    return str(value).strip()


def _columns(names: Sequence[str], file: Path) -> tuple[str, ...]:
    names = [composed(name) for name in names]
    twice = sorted(repeated(names))
    if twice:
        shown = ", ".join(repr(name) if name else "without a name" for name in twice)
        raise RinceError(
            f"{file}: column {shown} is there twice, give each column a name of its own; the "
            f"columns are {', '.join(names)}"
        )
    return tuple(names)
