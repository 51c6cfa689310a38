"""Which texts are for training, and the class tree of their label columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from rince.core.checks import RinceError
from rince.data.items import Splits, at_most, drop_duplicates, split_by_hash
from rince.data.table import ItemTable, is_media, read_items, split_rows
from rince.data.text.rows import read_text_table
from rince.data.text.texts import Texts
from rince.ranks.taxonomy import Taxonomy

_INSTEAD = "a column 'split'"
_LOOKED_AT = 20  # texts by which a column of file names is known


def load_texts(
    data: str | Path,
    *,
    column: str = "text",
    labels: Sequence[str] | None = None,
    empty: str = "refuse",
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
        data: a table: a .csv or .tsv file with a header, .jsonl, .parquet. A column
            ``split`` says of each row "train" or "val" or "test" ("val" is used for testing if
            there are both); without one the texts themselves decide, class by class, so that
            they stay on their side whatever the seed, and when others come or go.
        column: of the texts.
        labels: columns of the labels, from coarse to fine; see
            :func:`~rince.data.table.read_items`, also for ``empty``.
        without_duplicates, per_class, test_per_class, test_fraction, seed: as of
            a data set of images; texts are duplicates whatever their labels.
        backbone, max_tokens: whose tokens they are given, and how many; see
            :func:`~rince.models.texts.tokenise`. None: no tokens.

    Raises:
        RinceError: a file that cannot be read or lacks a column, a row without a text or class,
            labels that are no tree, a split that is none.
    """
    table = read_items(Path(data).expanduser(), column, labels, "table.column", empty)
    made = list(split_rows(table, _texts))
    train, test = made if len(made) == 2 else split_by_hash(made[0], test_fraction, _INSTEAD)
    if without_duplicates:
        train = drop_duplicates(train, test)
    train, test = at_most(train, per_class, seed), at_most(test, test_per_class, seed)
    if backbone is not None:
        train, test = (texts.tokenised(backbone, max_tokens) for texts in (train, test))
    return Splits(train, test)


def load_test_texts(
    data: str | Path,
    *,
    column: str = "text",
    labels: Sequence[str] | None = None,
    empty: str = "refuse",
) -> Texts:
    """All texts of a file with their labels, not yet tokenised; of one with splits the test's.

    Raises:
        RinceError: as :func:`load_texts`.
    """
    table = read_items(Path(data).expanduser(), column, labels, "table.column", empty)
    return _texts(table.test_rows())


def load_text_outliers(path: str | Path, taxonomy: Taxonomy, *, column: str = "text") -> Texts:
    """All texts of a file, not yet tokenised; its other columns are not looked at.

    Raises:
        RinceError: as :func:`load_texts`.
    """
    texts = tuple(read_text_table(path, column).column(column))
    tokens, labels = (torch.zeros(len(texts), *rest, dtype=torch.int64) for rest in ((0,), ()))
    return Texts(texts, tokens, labels, taxonomy, Path(path).stem)


def _texts(table: ItemTable, known: Taxonomy | None = None) -> Texts:
    files = [x for x in table.items[:_LOOKED_AT] if is_media(x)]
    if len(files) == len(table.items[:_LOOKED_AT]):
        raise RinceError(
            f"{table.table.file}: the column {table.column!r} holds names of files, such as "
            f"{files[0]}: a table of files has no column 'text'"
        )
    taxonomy, labels = table.classes(known)
    return Texts(
        tuple(table.items),
        torch.zeros(len(labels), 0, dtype=torch.int64),
        torch.tensor(labels),
        taxonomy,
        table.table.file.stem,
        table.marks(),
    )
