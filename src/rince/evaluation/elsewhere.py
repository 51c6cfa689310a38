"""Embeddings made elsewhere, and a table of their labels: measured as those of a run are."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from rince.core.checks import RinceError, import_extra, require, warn
from rince.core.tables import Row, Table, composed, read_table
from rince.data.items import Marks, Splits
from rince.data.table import ItemTable, label_columns
from rince.data.vectors import Vectors
from rince.evaluation.embeddings import stored_names
from rince.evaluation.evaluate import draw, evaluate_backbone
from rince.evaluation.open_world import OpenTest, has_positives, warn_unanswered
from rince.evaluation.options import EvaluationOptions
from rince.evaluation.results import Array, Evaluation, save_evaluation
from rince.evaluation.steps import STEPS, measured
from rince.ranks.readers import some_names

VECTOR_SUFFIXES = (".npz", ".npy", ".parquet")
_NAMES = ("path", "text", "name")  # columns that say which item a row is of, the first there


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
    parts = _splits(table, items)
    if parts is not None:
        found = evaluate_backbone(nn.Identity(), parts, {}, options=options)
    else:
        marks = items.marks or Marks()
        test = OpenTest(items, marks.is_query, marks.is_gallery, marks.own_sequences())
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
    """(N, D) float32, and the names of the items if the file has them."""
    if not file.is_file():
        raise RinceError(f"there is no file {file}")
    try:
        names, vectors = _read(file)
    except (RinceError, ImportError):
        raise
    except Exception as error:  # of damaged files numpy and pyarrow raise anything
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


def _labelled(file: Path, labels: Path, levels: Sequence[str] | None) -> tuple[Vectors, ItemTable]:
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
    rows = ItemTable(table, key or "", label_columns(table, levels, _NAMES, "--levels"))
    tree, numbers = rows.classes()
    shown = tuple(names or ())
    return Vectors(vectors, torch.tensor(numbers), tree, file.stem, shown, rows.marks()), rows


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


def _splits(table: ItemTable, items: Vectors) -> Splits | None:
    """By the column split; None if no row is for training."""
    if "train" not in (table.splits() or ()):
        return None
    sides = table.sides() or []
    train, test = ([i for i, x in enumerate(sides) if x is side] for side in (False, True))
    parts = Splits(items.subset(train), items.subset(test))
    unseen = ~torch.isin(parts.test.labels, parts.train.labels)
    require(
        not bool(unseen.any()),
        f"{table.table.file}: {int(unseen.sum())} of {len(unseen)} rows of the test are of classes "
        f"that no row for training has, which a probe and kNN cannot tell: leave them out, or "
        f"leave out the column split to search all items among each other",
    )
    return parts
