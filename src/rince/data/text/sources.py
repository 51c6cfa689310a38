"""Which texts are for training, the class tree of their label columns, and texts without labels."""

from __future__ import annotations

from pathlib import Path

import torch

from rince.core.checks import RinceError, warn
from rince.core.files import user_path
from rince.core.tables import TABLE_SUFFIXES, read_lines, read_table, refuse_rows
from rince.data.items import Items, Splits, chosen_items
from rince.data.kind import Request
from rince.data.table import ItemTable, is_media, is_table, split_rows
from rince.data.text.texts import Texts
from rince.ranks.taxonomy import Taxonomy

_LOOKED_AT = 20  # texts by which a column of file names is known
_SHOWN = 60  # characters of a text, in a message


def load_texts(request: Request) -> Splits:
    """Training and test texts of a table, with the tokens of the backbone if there is one; without
    a column ``split`` the texts themselves decide, class by class."""
    train, test = split_rows(request.item_table(None), _texts)
    train, test = chosen_items(train, test, request.options.images, request.seed)
    _warn_of_repeated(train, test)
    return Splits(_tokenised(train, request), _tokenised(test, request))


def _warn_of_repeated(train: Texts, test: Texts) -> None:
    """Of texts that say the same on both sides, or of two classes."""
    trained = frozenset(train.texts)
    shared = [text for text in test.texts if text in trained]
    if shared:
        warn(
            f"{test.name}: {len(shared)} of {len(test)} test texts are training texts too, such as "
            f"{shared[0][:_SHOWN]!r}: these were seen. images.drop_duplicates leaves them out of "
            f"the training"
        )
    class_of: dict[str, int] = {}
    of_two: dict[str, tuple[int, int]] = {}
    for part in (train, test):
        for text, label in zip(part.texts, part.labels.tolist(), strict=True):
            if class_of.setdefault(text, label) != label:
                of_two.setdefault(text, (class_of[text], label))
    if of_two:
        text, labels = next(iter(of_two.items()))
        one, other = ("/".join(test.taxonomy.paths[label]) for label in labels)
        warn(
            f"{train.name}: texts that stand there as of two classes ({len(of_two)}), such as "
            f"{text[:_SHOWN]!r}, {one} and {other}: that pulls apart what is the same"
        )


def load_test_texts(request: Request) -> Texts:
    """All texts of a file with their labels; of one with splits the test's."""
    return _tokenised(_texts(request.item_table(None).test_rows()), request)


def load_text_outliers(request: Request, items: Items) -> Texts:
    """All texts of a file; its other columns are not looked at."""
    column = request.text_column
    if not is_table(request.data):
        raise RinceError(
            f"{request.data}: outliers of texts must be a table ({', '.join(TABLE_SUFFIXES)}) with "
            f"a column {column!r}"
        )
    texts = tuple(text_column(request.data, column))
    tokens = torch.zeros(len(texts), 0, dtype=torch.int64)
    labels = torch.zeros(len(texts), dtype=torch.int64)
    outliers = Texts(texts, tokens, labels, items.taxonomy, Path(request.data).stem)
    return _tokenised(outliers, request)


def read_texts(path: str | Path, column: str = "text") -> list[str]:
    """The texts of a table, or of a .txt file with one per line."""
    file = user_path(path)
    if file.suffix.lower() in TABLE_SUFFIXES:
        return text_column(file, column)
    if file.suffix.lower() != ".txt":
        raise RinceError(f"expected texts, a {', '.join(TABLE_SUFFIXES)} or .txt file, got {path}")
    texts = [text for _, text in read_lines(file, "texts")]
    if not texts:
        raise RinceError(f"{file} holds no text: expected one per line")
    return texts


def text_column(path: str | Path, column: str) -> list[str]:
    """The texts of a table: the column must be there, and hold something in every row."""
    table = read_table(user_path(path), "texts")
    if not table.rows:
        raise RinceError(f"{table.file} holds no text: expected rows with a text and its labels")
    table.require_columns(column, hint="name the one that holds the texts (table.column)")
    texts = table.column(column)
    empty = [
        f"{table.place(line)}: no text"
        for (line, _), x in zip(table.rows, texts, strict=True)
        if not x
    ]
    refuse_rows(table.file, empty, f"fill the column {column!r}, or remove the rows")
    return texts


def _tokenised(texts: Texts, request: Request) -> Texts:
    if request.backbone is None:
        return texts
    return texts.tokenised(request.backbone, request.options.text.max_tokens)


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
