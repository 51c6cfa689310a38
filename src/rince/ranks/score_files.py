"""Score matrices from files, always with the names of their classes."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rince.core.checks import RinceError, import_extra, require
from rince.core.files import unreadable
from rince.core.labels import values_of
from rince.core.tables import as_number, composed, read_cells, read_text, refuse_rows, repeated
from rince.ranks.options import SCORE_FILES
from rince.ranks.readers import some_names

# As pyarrow writes types: a categorical column is a dictionary; one without any value is null.
_TEXT = re.compile(r"(dictionary<values=)?(large_)?string")
_NUMBER = re.compile(r"u?int|float|double|halffloat|decimal|bool|null")


def read_scores(file: Path, names: Path | None = None) -> tuple[list[str], Tensor]:
    """The names of the columns, and the (C, C) scores with rows in the order of the columns."""
    suffix = file.suffix.lower()
    if suffix not in SCORE_FILES:
        raise RinceError(
            f"{file} is not a score matrix that can be read: expected a file that ends in "
            f"{', '.join(SCORE_FILES)}"
        )
    if names is not None and suffix != ".npy":
        raise RinceError(f"{file} carries its own names: leave out names={str(names)!r}")
    try:
        if suffix == ".npy":
            return _from_npy(file, names or file.with_suffix(".json"))
        return _from_csv(file) if suffix == ".csv" else _from_parquet(file)
    except (RinceError, ImportError):
        raise
    except Exception as error:  # of damaged files numpy and pyarrow raise anything
        raise unreadable("scores", file, error) from error


def write_csv(file: Path, classes: Sequence[str], scores: Tensor) -> None:
    """The matrix as text; missing scores are empty cells."""
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["class", *classes])
        # A numpy scalar prints as the shortest text of its own dtype: a float32 0.7 as 0.7, so
        # that it still passes a threshold of 0.7 when the text is read as a float64.
        for name, row in zip(classes, scores.numpy(), strict=True):
            writer.writerow([name, *("" if np.isnan(x) else str(x) for x in row)])


def _from_csv(file: Path) -> tuple[list[str], Tensor]:
    header, rows = read_cells(file, "scores")
    require(
        len(rows) > 0,
        "expected a header row of class names, then one row per class that begins with its name",
    )
    problems = [
        f"line {line}: {cell!r} is not a number"
        for line, cells in rows
        for cell in cells[1:]
        if not _is_number(cell)
    ]
    refuse_rows(file, problems, "a missing score is an empty cell; decimals have a point")
    values = [[float(cell or "nan") for cell in cells[1:]] for _, cells in rows]
    scores = torch.tensor(values, dtype=torch.float64)
    return header[1:], _rows_by_name([cells[0] for _, cells in rows], header[1:], scores)


def _is_number(cell: str) -> bool:
    try:
        as_number(cell or "nan")
    except ValueError:
        return False
    return True


def _from_npy(file: Path, names: Path) -> tuple[list[str], Tensor]:
    array = np.load(file, allow_pickle=False)
    if not (isinstance(array, np.ndarray) and array.dtype.kind in "fiub"):
        given = values_of(array) if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(f"expected one array of numbers, got {given}")
    require(
        names.is_file(),
        f"a matrix without names cannot be matched to classes, and there is no {names}: write it, "
        'a JSON list of the names in the order of the matrix, ["cat", "dog", ...]',
    )
    try:
        class_names = json.loads(read_text(names, "names"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{names} is not JSON: {error}") from error
    require(
        isinstance(class_names, list) and all(isinstance(name, str) for name in class_names),
        f'{names} must hold a JSON list of names, ["cat", "dog", ...]',
    )
    return class_names, torch.from_numpy(array.astype(np.float64))


def _from_parquet(file: Path) -> tuple[list[str], Tensor]:
    parquet = import_extra("pyarrow.parquet", "parquet")
    table = parquet.read_table(file)
    kinds = {field.name: str(field.type) for field in table.schema}
    texts = [name for name, kind in kinds.items() if _TEXT.match(kind)]
    require(
        len(texts) == 1,
        f"expected one column of text, the names of the rows (a data frame's index, say), and a "
        f"column of numbers a class; columns of text: {some_names(texts) or 'none'}",
    )
    names = table.column(texts[0]).to_pylist()
    require(all(names), f"a row has no name: the column {texts[0]!r} holds empty cells")
    columns = [name for name in table.column_names if name != texts[0]]
    odd = [f"{name!r} of {kinds[name]}" for name in columns if not _NUMBER.match(kinds[name])]
    require(not odd, f"expected columns of numbers, got {some_names(odd)}")
    values = [
        [float("nan") if x is None else float(x) for x in table.column(name).to_pylist()]
        for name in columns
    ]
    return columns, _rows_by_name(names, columns, torch.tensor(values, dtype=torch.float64).T)


def _rows_by_name(rows: Sequence[str], columns: Sequence[str], scores: Tensor) -> Tensor:
    """The rows in the order of the columns: both have names, so neither order is trusted."""
    rows, columns = list(map(composed, rows)), list(map(composed, columns))
    for side, names in (("row", rows), ("column", columns)):
        twice = sorted(repeated(names))
        require(not twice, f"{side} names occur twice: {some_names(twice)}")
    position, there = {name: i for i, name in enumerate(rows)}, set(columns)
    only_rows = [name for name in rows if name not in there]
    only_columns = [name for name in columns if name not in position]
    require(
        not only_rows and not only_columns,
        "rows and columns must be the same classes, but "
        + "; ".join(
            f"{some_names(names)} {'is' if len(names) == 1 else 'are'} only among the {side}"
            for side, names in (("rows", only_rows), ("columns", only_columns))
            if names
        ),
    )
    return scores[[position[name] for name in columns]]
