"""Files of vectors and tables of their labels: .npz, .npy and .parquet."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rince.core.checks import RinceError, import_extra, warn
from rince.core.files import VECTOR_SUFFIXES, absent, unreadable, user_path
from rince.core.labels import values_of
from rince.core.tables import TABLE_SUFFIXES, Row, Table, composed, read_table, repeated, table_of
from rince.data.stored.kind import recognise
from rince.data.table import ItemTable, label_columns, path_cells, without_empty
from rince.data.vectors import Vectors, check_directions
from rince.ranks.readers import some_names
from rince.ranks.taxonomy import Taxonomy

_NAMES = ("path", "text", "name")  # columns that say which item a row is of, the first there
MODEL = "rince_model"  # in the metadata of a parquet file that `rince embed` wrote
_NOT_LABELS = ("embedding", "embeddings", "paths", "paths_json", "model")


@dataclass(frozen=True)
class LabelledVectors:
    """A file of vectors, and the table of their labels.

    Args:
        file: of the vectors. vectors: (N, D) float32. names: of the items; () if they have none.
        table: a row for each, in their order; fewer where some rows were left out.
        positions: line of a row -> which vector it is of.
    """

    file: Path
    vectors: Tensor
    names: tuple[str, ...]
    table: ItemTable
    positions: Mapping[int, int]

    def items(
        self, rows: ItemTable, known: Taxonomy | None = None, dropout: float = 0.0
    ) -> Vectors:
        """Those of some rows; ``known`` as of :meth:`ItemTable.classes`."""
        chosen = [self.positions[line] for line, _ in rows.table.rows]
        tree, labels = rows.classes(known)
        return Vectors(
            self.vectors[chosen],
            torch.tensor(labels, dtype=torch.int64),
            tree,
            self.file.stem,
            tuple(self.names[i] for i in chosen) if self.names else (),
            rows.marks(),
            dropout,
        )


def read_labelled(
    file: Path,
    labels: str | Path | None,
    levels: Sequence[str] | None,
    *,
    column: str | None = None,
    empty: str = "refuse",
    option: str = "table.labels",
    one_class: bool = False,
) -> LabelledVectors:
    """Vectors with their labels.

    Args:
        file: as of :func:`read_vectors`.
        labels: a table with a row for each, in their order or with their names; None: what else
            the file holds, or the table of the same name beside it.
        levels, option: as of :func:`~rince.data.table.label_columns`.
        column: of the names; None: path, text or name.
        empty: what to do about rows without a class, as of ``table.empty``.
        one_class: where there are no labels anywhere, all are of one class.

    Raises:
        RinceError: a file that is missing or damaged, a table that does not fit.
        ValueError: all vectors are zero.
    """
    stored = _stored(file)
    vectors, names = _checked(file, stored)
    table = _table(file, stored, len(vectors), labels, one_class)
    columns = _NAMES if column is None else (composed(column),)
    key = next((name for name in columns if name in table.columns), None)
    if column is not None:
        table.require_columns(column)
    as_read, apart = table, table.file != file
    if names is not None and key is None and table.file.suffix.lower() in TABLE_SUFFIXES and apart:
        key = _column_of(table, names, file)
    if names is not None and key is not None and apart:
        table = replace(table, rows=_by_name(table, key, names, file))
    elif len(table.rows) != len(vectors):
        raise RinceError(
            f"{table.file} has {len(table.rows)} rows, {file} {len(vectors)} embeddings: give a "
            f"row for each, in their order; or names on both sides (a column path, an array paths)"
        )
    if names is None and key is not None:
        names = table.column(key)
    positions = {line: i for i, (line, _) in enumerate(table.rows)}
    columns_of_labels = label_columns(table, levels, columns, option)
    if empty == "fill":  # from the row above in the table, whatever the order of the vectors
        filled = without_empty(as_read, columns_of_labels[-1], columns_of_labels, empty)
        of_line = dict(filled.rows)
        table = replace(table, rows=[(line, of_line[line]) for line, _ in table.rows])
    else:
        table = without_empty(table, columns_of_labels[-1], columns_of_labels, empty)
    rows = ItemTable(table, key or "", columns_of_labels)
    return LabelledVectors(file, vectors, tuple(names or ()), rows, positions)


def _column_of(table: Table, names: Sequence[str], file: Path) -> str | None:
    """The column that holds the names of the vectors, whatever it is called. None: there is none,
    and rows go by their order, which is told.

    Raises:
        RinceError: one holds the same files by other paths, so that order may be anything.
    """
    wanted = set(map(composed, names))
    files = {PurePath(name).name for name in wanted}
    for column in table.columns:
        cells = set(map(composed, table.column(column)))
        if wanted <= cells:
            return column
        common = files & {PurePath(cell).name for cell in cells}
        if 2 * len(common) > len(files):
            there = next(cell for cell in cells if PurePath(cell).name in common)
            here = next(x for x in wanted if PurePath(x).name == PurePath(there).name)
            raise RinceError(
                f"{file} has names such as {here!r}, and {table.file} the same as {there!r} in its "
                f"column {column!r}: rows cannot be found by name. Store the names as the table "
                f"has them (embed the table itself: rince embed RUN TABLE), or write them so into "
                f"a column path"
            )
    warn(
        f"no column of {table.file} holds the names of {file} (such as {names[0]!r}): its rows are "
        f"taken to be in the order of the vectors. A column path, or --table.column, finds them by "
        f"name"
    )
    return None


def maker_of(file: Path) -> str | None:
    """The fingerprint of the network whose embeddings `rince embed` has written to a file; None:
    it does not say."""
    with suppress(Exception):  # who reads the vectors will say what is damaged
        if file.suffix.lower() == ".parquet":
            facts = import_extra("pyarrow.parquet", "parquet").read_schema(file).metadata or {}
            return str(facts[MODEL.encode()].decode())
        with np.load(file, allow_pickle=False) as stored:
            return str(stored["model"])
    return None


def read_vectors(file: Path) -> tuple[Tensor, list[str] | None]:
    """(N, D) float32, and the names of the items if the file has them.

    Args:
        file: .npy of (N, D) floats; .npz with ``embeddings`` (or one matrix) and perhaps ``paths``;
            .parquet with ``embedding`` and perhaps ``path``.

    Raises:
        RinceError: it is missing, damaged or holds something else.
        ValueError: all vectors are zero.
    """
    return _checked(file, _stored(file))


def stored_names(stored: Mapping[str, Any]) -> list[str] | None:
    """The names in a .npz file, of earlier versions and other programs too; None: it has none."""
    if "paths_json" in stored:
        return list(map(str, json.loads(bytes(stored["paths_json"]))))
    if "paths" not in stored:
        return None
    return [x.decode() if isinstance(x, bytes) else str(x) for x in stored["paths"]]


def _stored(file: Path) -> dict[str, Any]:
    """The arrays of a file, those of .npy and .parquet under the names of a .npz."""
    if not file.is_file():
        raise RinceError(absent("file", file))
    if file.suffix.lower() not in VECTOR_SUFFIXES:
        raise RinceError(f"{file} is no file of vectors: expected {', '.join(VECTOR_SUFFIXES)}")
    try:
        if file.suffix.lower() != ".parquet":
            arrays = _arrays(file, "embeddings")
            matrices = [n for n, x in arrays.items() if x.ndim == 2 and n != "labels"]
            key = matrices[0] if len(matrices) == 1 else "embeddings"
            if key not in arrays:
                raise ValueError(f"no array is called embeddings, but {_shapes(arrays)}")
            return {"embeddings": arrays.pop(key), **arrays}
        table = import_extra("pyarrow.parquet", "parquet").read_table(file)
        columns = dict(zip(table.column_names, table.columns, strict=True))
        vectors = matrix_of_lists(columns.pop("embedding"))
        rest = {name: column.to_pylist() for name, column in columns.items()}
        paths = {"paths": rest["path"]} if "path" in rest else {}
        return {"embeddings": vectors, **rest, **paths}
    except ImportError:
        raise
    except Exception as error:  # of damaged files numpy and pyarrow raise anything
        raise _damaged(file, error) from error


def _arrays(file: Path, alone: str) -> dict[str, Any]:
    """Those of a .npz; that of a .npy under the name ``alone``."""
    found: dict[str, Any] = {}
    if file.suffix.lower() == ".npy":
        with file.open("rb") as opened:  # np.load would speak of pickles in any other file
            found[alone] = np.lib.format.read_array(opened, allow_pickle=False)
    elif not zipfile.is_zipfile(file):
        raise ValueError("a .npz is a zip archive, and this is none, or not all of one")
    else:
        with np.load(file, allow_pickle=False) as archive:
            for name in archive.files:
                try:
                    found[name] = archive[name]
                except ValueError as error:
                    raise ValueError(
                        f"array {name!r}: {error}; arrays of Python objects are not read, save "
                        f"words as {name}.astype(str)"
                    ) from error
    return found


def _shapes(arrays: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {np.shape(x)}" for name, x in arrays.items()) or "none is there"


def matrix_of_lists(column: Any) -> Any:
    """(N, D) of pyarrow's N lists of D numbers; a number that is missing is NaN."""
    lengths = import_extra("pyarrow.compute", "parquet").list_value_length(column).to_pylist()
    usual = Counter(lengths).most_common(1)[0][0] if lengths else 0
    for i, length in enumerate(lengths):
        if length is None or length != usual:
            what = "is empty" if length is None else f"holds {length} numbers"
            raise ValueError(f"embedding {i} (from 0) {what}, most hold {usual or 0}")
    numbers = column.combine_chunks().flatten().to_numpy(zero_copy_only=False, writable=True)
    if numbers.dtype.kind in "bO":  # true and false, decimals, words for numbers
        numbers = numbers.astype(np.float64)
    return numbers.reshape(len(lengths), usual)


def _damaged(file: Path, error: Exception) -> RinceError:
    return RinceError(
        f"{file} is damaged, or holds no embeddings ({type(error).__name__}: {error}): expected "
        f"(items, dimensions) floats, in a .npz as 'embeddings', in a .parquet as 'embedding'"
    )


def _checked(file: Path, stored: Mapping[str, Any]) -> tuple[Tensor, list[str] | None]:
    vectors = stored["embeddings"]
    try:
        names = stored_names(stored)
    except (ValueError, TypeError) as error:
        raise _damaged(file, error) from error
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu" or not vectors.size:
        raise RinceError(
            f"{file} holds an array of shape {vectors.shape} of {values_of(vectors)}; embeddings "
            f"are (items, dimensions) floats"
            + (", and one alone is vector[None]" if vectors.ndim == 1 else "")
        )
    with np.errstate(over="ignore"):
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise RinceError(
            f"{file}: {len(bad)} of {len(vectors)} embeddings hold NaN, infinity or values beyond "
            f"float32, the first is that of item {bad[0]} (from 0)"
        )
    check_directions(torch.from_numpy(vectors), str(file))
    if names is not None and len(names) != len(vectors):
        raise RinceError(f"{file} holds {len(names)} paths for {len(vectors)} embeddings")
    return torch.from_numpy(vectors), names


def _table(
    file: Path, stored: Mapping[str, Any], count: int, labels: str | Path | None, one_class: bool
) -> Table:
    source = file if labels is None else user_path(labels)
    if labels is not None and source.suffix.lower() not in (".npy", ".npz"):
        return read_table(source, "labels")
    if labels is not None:
        try:
            stored = _arrays(source, "labels")
        except Exception as error:  # of damaged files numpy raises anything
            raise unreadable("labels", source, error) from error
    beside = (
        file.with_suffix(suffix) for suffix in TABLE_SUFFIXES if suffix != file.suffix.lower()
    )
    tables = (x for x in beside if x.is_file() and not recognise(str(x), False))
    table_beside = next(tables, None) if labels is None else None
    inside = _columns_inside(source, stored, count)
    if one_class and labels is None and not inside and table_beside is None:
        inside = _columns_inside(source, {**stored, "class": ["all"] * count}, count)
    if inside:
        return table_of(source, inside)
    if table_beside is None:
        others = ", ".join(stored.keys() - {"embeddings"})
        raise RinceError(
            f"{source} holds no labels{f' (but {others})' if others else ''}, and there is no "
            f"{file.with_suffix('.csv').name} beside it: give a table with a row for each of the "
            f"{count} items (--labels FILE)"
        )
    return read_table(table_beside, "labels")


def _columns_inside(file: Path, stored: Mapping[str, Any], count: int) -> dict[str, list[Any]]:
    """Arrays of a word or a whole number for each vector; ``labels`` may be (N, L), from coarse to
    fine. Without any that may be a label: none."""
    columns: dict[str, list[Any]] = {}
    for name, values in stored.items():
        if name in _NOT_LABELS:
            continue
        if isinstance(values, list) and any(isinstance(x, (list, dict, bytes)) for x in values):
            warn(f"the column {name!r} holds lists or bytes and is left out of the labels")
            continue
        array = np.asarray(values)
        if name == "labels" and (array.shape[:1] != (count,) or array.ndim > 2):
            raise RinceError(
                f"{file}: the array 'labels' is of shape {array.shape}, for {count} embeddings: "
                f"expected ({count},), or ({count}, levels) from coarse to fine"
            )
        if array.shape[:1] != (count,) or (array.ndim > 1 and name != "labels"):
            continue
        if array.dtype.names:
            warn(f"the array {name!r} holds {values_of(array)}; it is left out of the labels")
            continue
        if array.dtype.kind == "f" and (array[np.isfinite(array)] % 1 != 0).any():
            warn(f"the array {name!r} holds fractions and is left out of the labels")
            continue
        if array.dtype.kind == "S":
            try:
                array = np.char.decode(array, "utf-8")
            except UnicodeDecodeError as error:
                raise RinceError(
                    f"{file}: the bytes of {name!r} are not UTF-8 ({error}): save them as text"
                ) from error
        if array.ndim == 2:
            columns |= zip(path_cells([("",) * array.shape[1]])[0], array.T.tolist(), strict=True)
        else:
            columns[name] = array.tolist()
    return columns if columns.keys() - {*_NAMES, "split"} else {}


def _by_name(table: Table, key: str, names: Sequence[str], file: Path) -> list[Row]:
    rows: dict[str, Row] = {}
    for line, cells in table.rows:
        name = composed(cells[key])
        if name in rows:
            raise RinceError(
                f"{table.file}, {table.place(line)}: {name!r} stands in "
                f"{table.place(rows[name][0])} already"
            )
        rows[name] = (line, cells)
    names = list(map(composed, names))
    twice = repeated(names)
    if twice:  # each other's nearest, whatever the network
        raise RinceError(
            f"{file} holds {len(twice)} of its items more than once, such as {some_names(twice)}: "
            f"keep one embedding of each"
        )
    missing = [name for name in names if name not in rows]
    if missing:
        raise RinceError(
            f"{table.file} has no row for {len(missing)} of the {len(names)} items of {file}, "
            f"such as {some_names(missing)} (column {key})"
        )
    if unused := list(rows.keys() - set(names)):
        warn(
            f"{len(unused)} of {len(rows)} rows of {table.file} are of no item of {file} and are "
            f"left out: {some_names(sorted(unused))}"
        )
    return [rows[name] for name in names]
