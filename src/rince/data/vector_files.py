"""Files of vectors and tables of their labels: .npz, .npy and .parquet."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rince.core.checks import RinceError, import_extra, warn
from rince.core.tables import TABLE_SUFFIXES, Row, Table, as_cell, composed, read_table
from rince.data.table import ItemTable, label_columns, path_cells, without_empty
from rince.data.vectors import Vectors
from rince.ranks.readers import some_names
from rince.ranks.taxonomy import Taxonomy

_NAMES = ("path", "text", "name")  # columns that say which item a row is of, the first there
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
) -> LabelledVectors:
    """Vectors with their labels.

    Args:
        file: as of :func:`read_vectors`.
        labels: a table with a row for each, in their order or with their names; None: what else
            the file holds, or the table of the same name beside it.
        levels, option: as of :func:`~rince.data.table.label_columns`.
        column: of the names; None: path, text or name.
        empty: what to do about rows without a class, as of ``table.empty``.

    Raises:
        RinceError: a file that is missing or damaged, a table that does not fit.
    """
    stored = _stored(file)
    vectors, names = _checked(file, stored)
    table = _table(file, stored, len(vectors), labels)
    columns = _NAMES if column is None else (column,)
    key = next((name for name in columns if name in table.columns), None)
    if column is not None:
        table.require_columns(column)
    if names is not None and key is not None and table.file != file:
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
    if empty != "refuse":
        table = without_empty(table, columns_of_labels[-1], columns_of_labels, empty)
    rows = ItemTable(table, key or "", columns_of_labels)
    return LabelledVectors(file, vectors, tuple(names or ()), rows, positions)


def read_vectors(file: Path) -> tuple[Tensor, list[str] | None]:
    """(N, D) float32, and the names of the items if the file has them.

    Args:
        file: .npy of (N, D) floats; .npz with ``embeddings`` (or one matrix) and perhaps ``paths``;
            .parquet with ``embedding`` and perhaps ``path``.

    Raises:
        RinceError: it is missing, damaged or holds something else.
    """
    return _checked(file, _stored(file))


def stored_names(stored: Mapping[str, Any]) -> list[str] | None:
    """The names in a .npz file, of earlier versions and other programs too; None: it has none."""
    if "paths_json" in stored:
        return list(map(str, json.loads(bytes(stored["paths_json"]))))
    return list(map(str, stored["paths"])) if "paths" in stored else None


def _stored(file: Path) -> dict[str, Any]:
    """The arrays of a file, those of .npy and .parquet under the names of a .npz."""
    if not file.is_file():
        raise RinceError(f"there is no file {file}")
    try:
        if file.suffix == ".npy":
            return {"embeddings": np.load(file, allow_pickle=False)}
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as opened:
                arrays: dict[str, Any] = {name: opened[name] for name in opened.files}
            matrices = [n for n, x in arrays.items() if x.ndim == 2 and n != "labels"]
            key = matrices[0] if len(matrices) == 1 else "embeddings"
            return {"embeddings": arrays.pop(key), **arrays}
        table = import_extra("pyarrow.parquet", "parquet").read_table(file)
        columns = {name: table.column(name).to_pylist() for name in table.column_names}
        paths = {"paths": columns["path"]} if "path" in columns else {}
        return {"embeddings": np.array(columns.pop("embedding")), **columns, **paths}
    except ImportError:
        raise
    except Exception as error:  # of damaged files numpy and pyarrow raise anything
        raise _damaged(file, error) from error


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
            f"{file} holds an array of shape {vectors.shape} and {vectors.dtype}; embeddings are "
            f"(items, dimensions) floats"
        )
    with np.errstate(over="ignore"):
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise RinceError(
            f"{file}: {len(bad)} of {len(vectors)} embeddings hold NaN, infinity or values beyond "
            f"float32, the first is that of item {bad[0]} (from 0)"
        )
    if names is not None and len(names) != len(vectors):
        raise RinceError(f"{file} holds {len(names)} paths for {len(vectors)} embeddings")
    return torch.from_numpy(vectors), names


def _table(file: Path, stored: Mapping[str, Any], count: int, labels: str | Path | None) -> Table:
    if labels is not None:
        return read_table(Path(labels).expanduser(), "labels")
    inside = _columns_inside(stored, count)
    if inside:
        rows = enumerate(zip(*inside.values(), strict=True), 1)
        named = [(line, dict(zip(inside, map(as_cell, row), strict=True))) for line, row in rows]
        return Table(file, tuple(inside), named)
    beside = (file.with_suffix(suffix) for suffix in TABLE_SUFFIXES if suffix != file.suffix)
    found = next((table for table in beside if table.is_file()), None)
    if found is None:
        raise RinceError(
            f"{file} holds no labels, and there is no {file.with_suffix('.csv').name} beside it: "
            f"give a table with a row for each of its {count} items (--labels FILE)"
        )
    return read_table(found, "labels")


def _columns_inside(stored: Mapping[str, Any], count: int) -> dict[str, list[Any]]:
    """Arrays of a word or a whole number for each vector; ``labels`` may be (N, L), from coarse to
    fine. Without any that may be a label: none."""
    columns: dict[str, list[Any]] = {}
    for name, values in stored.items():
        array = np.asarray(values)
        if name in _NOT_LABELS or array.shape[:1] != (count,):
            continue
        if array.dtype.kind == "f" and array.ndim == 1:
            warn(f"the array {name!r} holds fractions and is left out of the labels")
            continue
        array = array.astype(str) if array.dtype.kind == "S" else array
        if array.ndim == 2 and name == "labels":
            columns |= zip(path_cells([("",) * array.shape[1]])[0], array.T.tolist(), strict=True)
        elif array.ndim == 1:
            columns[name] = array.tolist()
    return columns if columns.keys() - {*_NAMES, "split"} else {}


def _by_name(table: Table, key: str, names: Sequence[str], file: Path) -> list[Row]:
    rows: dict[str, Row] = {}
    for line, cells in table.rows:
        name = composed(cells[key])
        if name in rows:
            raise RinceError(
                f"{table.file}, line {line}: {name!r} stands in line {rows[name][0]} already"
            )
        rows[name] = (line, cells)
    names = list(map(composed, names))
    twice = [name for name, count in Counter(names).items() if count > 1]
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
