"""Which texts are for training, and the class tree of their label columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from rince.core.checks import RinceError, warn
from rince.core.tables import Row, Table
from rince.data.items import Splits, at_most, drop_duplicates, split_by_hash
from rince.data.text.rows import read_text_table
from rince.data.text.texts import Texts
from rince.ranks.readers import paths_from_rows, some_names
from rince.ranks.taxonomy import Taxonomy

SPLIT = "split"
_TESTS = ("val", "validation", "valid", "dev", "test")


def load_texts(
    data: str | Path,
    *,
    column: str = "text",
    labels: Sequence[str] | None = None,
    without_duplicates: bool = False,
    per_class: int | None = None,
    test_per_class: int | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
    backbone: str | None = None,
    max_tokens: int | None = None,
) -> Splits:
    """Training and test texts.

    Args:
        data: a .csv file with a header, or a .jsonl file with an object a line. A column
            ``split`` says of each row "train" or "val" or "test" ("val" is used for testing if
            there are both); without one the texts themselves decide, class by class, so that
            they stay on their side whatever the seed, and when others come or go.
        column: of the texts.
        labels: columns of the labels, from coarse to fine; None: all others but ``split``, in
            the file's order. The last is the class; an empty cell in one before it makes a
            ragged tree, as in :meth:`Taxonomy.from_csv`.
        without_duplicates, per_class, test_per_class, test_fraction, seed: as of
            a data set of images; texts are duplicates whatever their labels.
        backbone, max_tokens: whose tokens they are given, and how many; see
            :func:`~rince.models.texts.tokenise`. None: no tokens.

    Raises:
        RinceError: a file that cannot be read or lacks a column, a row without a text or class,
            labels that are no tree, a split that is none.
    """
    table = read_text_table(data, column)
    rows, levels = table.rows, _levels(table, column, labels)
    try:
        if SPLIT in table.columns:
            train = _texts(data, _part(rows, ("train",)), column, levels)
            test = _texts(data, _part(rows, _TESTS), column, levels, train.taxonomy)
        else:
            whole = _texts(data, rows, column, levels)
            train, test = split_by_hash(whole, test_fraction, "a column 'split'")
    except ValueError as error:
        raise RinceError(f"{data}: {error}") from None
    if without_duplicates:
        train = drop_duplicates(train, test)
    train, test = at_most(train, per_class, seed), at_most(test, test_per_class, seed)
    if backbone is not None:
        train, test = (texts.tokenised(backbone, max_tokens) for texts in (train, test))
    return Splits(train, test)


def load_test_texts(
    data: str | Path, *, column: str = "text", labels: Sequence[str] | None = None
) -> Texts:
    """All texts of a file with their labels, not yet tokenised; of one with splits the test's.

    Raises:
        RinceError: as :func:`load_texts`.
    """
    table = read_text_table(data, column)
    levels, rows = _levels(table, column, labels), table.rows
    try:
        if SPLIT in table.columns and any(cells[SPLIT].lower() in _TESTS for _, cells in rows):
            rows = _part(rows, _TESTS)
        return _texts(data, rows, column, levels)
    except ValueError as error:
        raise RinceError(f"{data}: {error}") from None


def load_text_outliers(path: str | Path, taxonomy: Taxonomy, *, column: str = "text") -> Texts:
    """All texts of a file, not yet tokenised; its other columns are not looked at.

    Raises:
        RinceError: as :func:`load_texts`.
    """
    texts = tuple(read_text_table(path, column).column(column))
    tokens, labels = (torch.zeros(len(texts), *rest, dtype=torch.int64) for rest in ((0,), ()))
    return Texts(texts, tokens, labels, taxonomy, Path(path).stem)


def _levels(table: Table, column: str, labels: Sequence[str] | None) -> list[str]:
    """Names of the columns of labels, from coarse to fine."""
    data, columns = table.file, table.columns
    if labels is None and "" in columns:
        warn(f"{data} has a column without a name, which is left out of the labels")
    others = [c for c in columns if c and c not in (column, SPLIT)]
    levels = others if labels is None else list(labels)
    missing = [repr(name) for name in levels if name not in columns]
    if missing or not levels:
        raise RinceError(
            f"{data} has no column {', '.join(missing) or 'of labels'}; its columns are "
            f"{', '.join(columns)}: name those of the labels, from coarse to fine (text.labels)"
        )
    return levels


def _part(rows: Sequence[Row], names: Sequence[str]) -> list[Row]:
    """The rows of the first of these splits that the file has."""
    rows_of: dict[str, list[Row]] = {}
    for line, cells in rows:
        name = cells[SPLIT].lower()
        if name not in ("train", *_TESTS):
            known = ", ".join(("train", *_TESTS))
            raise ValueError(
                f"line {line}: the column 'split' is {name!r}, expected one of {known}"
            )
        rows_of.setdefault(name, []).append((line, cells))
    present = [name for name in names if name in rows_of]
    if not present:
        raise ValueError(f"the column 'split' never says {' or '.join(names)}")
    if len(present) > 1:
        warn(f"the column 'split' says {' and '.join(present)}: {present[0]} is used for testing")
    return rows_of[present[0]]


def _texts(
    data: str | Path,
    rows: Sequence[Row],
    column: str,
    levels: Sequence[str],
    taxonomy: Taxonomy | None = None,
) -> Texts:
    """Without a taxonomy, that of the rows, in sorted order of its paths."""
    paths = [tuple(cells[level] for level in levels) for _, cells in rows]
    first: dict[tuple[str, ...], int] = {}  # the line where they occur first
    for path, (line, _) in zip(paths, rows, strict=True):
        first.setdefault(path, line)
    order = sorted(first, key=lambda path: [name for name in path if name])
    table = [(first[path], list(path)) for path in order]
    tree = paths_from_rows([(1, list(levels)), *table], levels[::-1])
    if taxonomy is None:
        taxonomy = Taxonomy(tree)
    label_of = {path: label for label, path in enumerate(taxonomy.paths)}
    unknown = [path[-1] for path in tree if path not in label_of]
    if unknown:
        raise ValueError(
            f"{some_names(unknown)}: classes of the test that no training text has, or not under "
            f"the same labels"
        )
    labels = [label_of[tuple(name for name in path if name)] for path in paths]
    return Texts(
        tuple(cells[column] for _, cells in rows),
        torch.zeros(len(rows), 0, dtype=torch.int64),
        torch.tensor(labels),
        taxonomy,
        Path(data).stem,
    )
