"""Embeddings made elsewhere, and a table of their labels: measured as those of a run are."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor, nn

from rince.core.checks import RinceError, import_extra, require
from rince.core.tables import Table, read_table
from rince.data.items import HELD_OUT, Splits
from rince.data.vectors import Vectors
from rince.evaluation.embeddings import stored_names
from rince.evaluation.evaluate import draw, evaluate_backbone
from rince.evaluation.open_world import OpenTest, has_positives, warn_unanswered
from rince.evaluation.options import EvaluationOptions
from rince.evaluation.results import Array, Evaluation, save_evaluation
from rince.evaluation.steps import STEPS, measured
from rince.ranks.readers import composed, some_names
from rince.ranks.taxonomy import Taxonomy

VECTOR_SUFFIXES = (".npz", ".npy", ".parquet")
_NAMES = ("path", "text", "name")  # columns that say which item a row is of, the first there
_NO_LABELS = (*_NAMES, "split", "is_query", "is_gallery", "sequence", "start_s", "end_s")


def results_folder(file: str | Path) -> Path:
    """Where the results of a file of embeddings are: ``photos.npz`` has ``photos.results``."""
    return Path(file).with_suffix(".results")


def evaluate_embeddings(
    file: str | Path,
    labels: str | Path,
    *,
    levels: Sequence[str] | None = None,
    options: EvaluationOptions | None = None,
) -> Evaluation:
    """Evaluate embeddings and write the results beside them, see :func:`results_folder`.

    A table with a column ``split`` of train and test (or val) is evaluated as a run is: training
    items are the gallery and train the probe. Otherwise all items are searched among each other,
    leave-one-out, or those of ``is_query`` among those of ``is_gallery``.

    Args:
        file: .npy of (N, D) floats; .npz with ``embeddings`` (or one array) and perhaps ``paths``;
            .parquet with ``embedding`` and perhaps ``path``.
        labels: a table with a row for each of them: in their order; or in any, with a column
            ``path``, ``text`` or ``name``, where the embeddings have names. Columns of labels from
            coarse to fine, and optional ``split``, ``is_query``, ``is_gallery``, ``sequence``.
        levels: names of the columns of labels, from coarse to fine; None: all others.
        options: how much to do.

    Raises:
        RinceError: a file that is missing or damaged, a table that does not fit.
        ValueError: labels that are no tree, values that are not finite, nothing to measure.
    """
    started = time.perf_counter()
    options, file = options or EvaluationOptions(), Path(file)
    items, table = _labelled(file, Path(labels), levels)
    parts = _splits(table, items) if "split" in table.columns else None
    if parts is not None:
        found = evaluate_backbone(nn.Identity(), parts, {}, options=options)
    else:
        query, gallery = (_flags(table, f"is_{side}") for side in ("query", "gallery"))
        test = OpenTest(items, query, gallery, _sequence(table))
        context = test.context(items.vectors, options)
        require(
            has_positives(context),
            f"{labels}: no query has another item of its class or group in the gallery, so "
            f"retrieval cannot be asked",
        )
        metrics = measured(context, STEPS)
        warn_unanswered(metrics, str(file), len(context.test))
        found = draw(context, metrics)
        print("note: no row is for training, so probe, kNN and outlier detection are left out")
    seconds = time.perf_counter() - started
    found = replace(found, info={**found.info, "evaluate_seconds": seconds})
    folder = results_folder(file)
    folder.mkdir(exist_ok=True)
    save_evaluation(found, folder)
    return found


def read_vectors(file: Path) -> tuple[Tensor, list[str] | None]:
    """(N, D) float32, and the names of the items if the file has them.

    Raises:
        RinceError: no such file, a damaged one, or none of (N, D) finite numbers.
    """
    if not file.is_file():
        raise RinceError(f"there is no file {file}")
    try:
        names, vectors = _read(file)
    except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile) as error:
        raise RinceError(
            f"{file} is damaged, or holds no embeddings ({type(error).__name__}: {error}): "
            f"expected (items, dimensions) floats, in a .npz as 'embeddings', in a .parquet as "
            f"'embedding'"
        ) from error
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu" or not vectors.size:
        raise RinceError(
            f"{file} holds an array of shape {vectors.shape} and {vectors.dtype}; embeddings are "
            f"(items, dimensions) floats"
        )
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise RinceError(
            f"{file}: {len(bad)} of {len(vectors)} embeddings hold NaN or infinity, the first is "
            f"that of item {bad[0]} (from 0)"
        )
    if names is not None and len(names) != len(vectors):
        raise RinceError(f"{file} holds {len(names)} paths for {len(vectors)} embeddings")
    return torch.from_numpy(np.ascontiguousarray(vectors, dtype=np.float32)), names


def _read(file: Path) -> tuple[list[str] | None, Array]:
    if file.suffix == ".npy":
        return None, np.load(file, allow_pickle=False)
    if file.suffix == ".npz":
        with np.load(file, allow_pickle=False) as stored:
            matrices = [name for name in stored.files if stored[name].ndim == 2]
            key = matrices[0] if len(matrices) == 1 else "embeddings"
            return stored_names(stored), stored[key]
    table = import_extra("pyarrow.parquet", "parquet").read_table(file)
    column = table.column("embedding").to_pylist()
    names = table.column("path").to_pylist() if "path" in table.column_names else None
    return names, np.array(column)


def _labelled(file: Path, labels: Path, levels: Sequence[str] | None) -> tuple[Vectors, Table]:
    """The vectors with their labels, and the rows of the table in the order of the vectors."""
    vectors, names = read_vectors(file)
    table = read_table(labels, "labels")
    key = next((name for name in _NAMES if name in table.columns), None)
    if names is not None and key is not None:
        table = replace(table, rows=_by_name(table, key, names, file))
    elif len(table.rows) != len(vectors):
        raise RinceError(
            f"{labels} has {len(table.rows)} rows, {file} {len(vectors)} embeddings: give a row "
            f"for each, in their order; or names on both sides (a column path, an array paths)"
        )
    others = [name for name in table.columns if name and name not in _NO_LABELS]
    columns = others if levels is None else list(levels)
    table.require_columns(*columns, hint="name those of the labels, from coarse to fine: --levels")
    require(bool(columns), f"{labels} has no column of labels, from coarse to fine")
    paths = []
    for line, cells in table.rows:
        if not cells[columns[-1]]:
            raise RinceError(f"{labels}, line {line}: the class ({columns[-1]}) is empty")
        paths.append(tuple(composed(cells[name]) for name in columns if cells[name]))
    try:
        tree = Taxonomy(sorted(set(paths)))
    except ValueError as error:
        raise RinceError(f"{labels}: {error}") from None
    number = {path: label for label, path in enumerate(tree.paths)}
    shown = tuple(names or ())
    numbers = torch.tensor([number[path] for path in paths])
    return Vectors(vectors, numbers, tree, file.stem, shown), table


def _by_name(
    table: Table, key: str, names: Sequence[str], file: Path
) -> list[tuple[int, dict[str, str]]]:
    rows: dict[str, tuple[int, dict[str, str]]] = {}
    for line, cells in table.rows:
        name = composed(cells[key])
        if name in rows:
            raise RinceError(
                f"{table.file}, line {line}: {name!r} stands in line {rows[name][0]} already"
            )
        rows[name] = (line, cells)
    names = list(map(composed, names))
    missing = [name for name in names if name not in rows]
    if missing:
        raise RinceError(
            f"{table.file} has no row for {len(missing)} of the {len(names)} items of {file}, "
            f"such as {some_names(missing)} (column {key})"
        )
    return [rows[name] for name in names]


def _flags(table: Table, column: str) -> Tensor | None:
    if column not in table.columns:
        return None
    words = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    flags = []
    for line, cells in table.rows:
        word = cells[column].lower()
        if word not in words:
            raise RinceError(
                f"{table.file}, line {line}: {column} is {cells[column]!r}, expected 1 or 0, true "
                f"or false"
            )
        flags.append(words[word])
    return torch.tensor(flags)


def _sequence(table: Table) -> Tensor | None:
    """A number for each sequence; an item without one is by itself."""
    if "sequence" not in table.columns:
        return None
    numbers: dict[str, int] = {}
    return torch.tensor(
        [
            numbers.setdefault(cells["sequence"] or f"\n{place}", len(numbers))
            for place, (_, cells) in enumerate(table.rows)
        ]
    )


def _splits(table: Table, items: Vectors) -> Splits | None:
    """By the column split; None if no row is for training."""
    rows: dict[str, list[int]] = {"train": []}
    for place, (line, cells) in enumerate(table.rows):
        word = cells["split"].lower()
        if word not in ("train", *HELD_OUT):
            raise RinceError(
                f"{table.file}, line {line}: the column 'split' is {word!r}, expected one of "
                f"train, {', '.join(HELD_OUT)}"
            )
        rows.setdefault(word, []).append(place)
    held_out = next((rows[name] for name in HELD_OUT if name in rows), [])
    if not rows["train"]:
        return None
    if not held_out:
        raise RinceError(f"{table.file}: the column 'split' has no test items")
    return Splits(items.subset(rows["train"]), items.subset(held_out))
