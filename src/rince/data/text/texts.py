"""Labelled texts from a csv or jsonl file: strings, and the tokens that a backbone is fed."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from rince.core.checks import RinceError
from rince.core.files import is_text_file
from rince.ranks.taxonomy import Taxonomy

Row = tuple[int, dict[str, str]]  # line in the file, and the cells by column


@dataclass(frozen=True, eq=False)
class Texts:
    """Labelled texts.

    Args:
        texts: N of them.
        tokens: (N, L) int64, -1 where a text has ended; (N, 0) before they are tokenised.
        labels: (N,) int64 in [0, classes of the taxonomy).
        taxonomy: the class tree.
        name: what to call the data set in reports.
    """

    texts: tuple[str, ...]
    tokens: Tensor
    labels: Tensor
    taxonomy: Taxonomy
    name: str
    channels: int = 0  # they have none, by which a run on texts is known

    def __len__(self) -> int:
        return len(self.texts)

    def keys(self) -> list[str]:
        """What the split and the choice of some texts go by: the texts."""
        return list(self.texts)

    def subset(self, indices: Tensor | Sequence[int]) -> Texts:
        """The texts at these positions, in this order."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        texts = tuple(self.texts[i] for i in chosen.tolist())
        return replace(self, texts=texts, tokens=self.tokens[chosen], labels=self.labels[chosen])

    def fingerprint(self) -> str:
        """A hex digest of the texts, their order, labels and class tree."""
        found = hashlib.blake2b(digest_size=16)
        for part in (self.taxonomy.paths, *zip(self.texts, self.labels.tolist(), strict=True)):
            found.update(repr(part).encode() + b"\n")
        return found.hexdigest()


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
