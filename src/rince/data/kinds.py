"""One row a kind of data: how it is recognised, loaded and embedded. No torch until one is used.

Nothing outside :mod:`rince.data` asks which kind it has: it calls the functions here, which choose
the row, or asks the :class:`~rince.data.items.Items` themselves. :func:`register_kind` adds a row.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from rince.core.checks import RinceError, require, warn
from rince.core.files import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    absent,
    file_stamps,
    is_vector_file,
    user_path,
)
from rince.core.tables import composed, read_as
from rince.data.image.kind import DIGITS as DIGITS
from rince.data.image.kind import IMAGES
from rince.data.image.kind import NAMED_TREES as NAMED_TREES
from rince.data.kind import DataOptions, Kind
from rince.data.kind import Request as Request
from rince.data.kind import TrainedNetwork as TrainedNetwork
from rince.data.options import ImageOptions
from rince.data.stored.kind import VECTORS
from rince.data.table import column_of_paths, first_rows, is_table, item_rows
from rince.data.text.kind import TEXTS
from rince.data.video.kind import CLIPS

if TYPE_CHECKING:
    from rince.core.input_spec import Preprocessing
    from rince.data.items import Items, Splits
    from rince.models.encoders import Encoder
    from rince.ranks.taxonomy import Taxonomy

KINDS = [VECTORS, TEXTS, CLIPS, IMAGES]
"""In the order in which they are asked; images take what no other does."""
OWN_NOUNS = tuple(kind.noun for kind in KINDS)


def kind_of(data: str, by_time: bool = False, encoding: str | None = None) -> Kind:
    """The kind of some data: the first row that recognises them.

    Args:
        data: a path, or a name. by_time: ranks are to be made from time.
        encoding: of tables; None: UTF-8.

    Raises:
        RinceError: a folder or table that cannot be read.
    """
    with read_as(encoding):
        return next(kind for kind in KINDS if kind.recognise(data, by_time))


def class_tree(data: str, options: DataOptions) -> Taxonomy | None:
    """The class tree of a name, or of a table of classes, not of items: one with a column ``class``
    and neither one of texts, whose name is given, nor one of paths; or one of children and parents.
    None: of anything else."""
    from rince.ranks.readers import EDGES
    from rince.ranks.taxonomy import Taxonomy

    if options.table.column:  # of items
        return None
    if data in NAMED_TREES:
        tree: Taxonomy = NAMED_TREES[data]()
        return tree
    file = user_path(data)
    with read_as(options.table.encoding):
        try:
            table = first_rows(file) if is_table(file) else None
        except RinceError:
            return None
        media = IMAGE_SUFFIXES | VIDEO_SUFFIXES
        if not table or not table.rows or column_of_paths(table, media) is not None:
            return None
        columns = table.columns
        of_classes = "class" in columns and composed(options.text.column) not in columns
        return Taxonomy.from_csv(file) if of_classes or {*columns} == set(EDGES) else None


def folder_table(data: str, output: str | Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table of the images or videos of a folder, with paths that begin at the
    table's folder."""
    from rince.data.items import class_root, split_folders

    folder = user_path(data)
    if not folder.is_dir():
        raise RinceError(f"{absent('folder', data)}; expected {data}/<group>/<class>/ with files")
    kind = kind_of(data)
    if kind.suffixes is None:
        raise ValueError(f"{data} holds {kind.noun}, which are no files of a folder")
    sides = split_folders(folder)
    if sides:
        named = [("train", sides[0]), (sides[1].name, sides[1])]
    else:
        named = [("", class_root(folder))]
    return item_rows(named, kind.suffixes, user_path(output), kind.noun)


def kind_named(noun: str) -> Kind:
    """The row of this noun: ``kind_named(items.noun)``, ``kind_named(spec.noun)``."""
    for kind in KINDS:
        if kind.noun == noun:
            return kind
    known = ", ".join(kind.noun for kind in KINDS)
    raise RinceError(
        f"there is no kind of data called {noun!r}, only {known}: one of your own has to be "
        f"registered before its runs are read (rince.data.register_kind)"
    )


def register_kind(kind: Kind) -> None:
    """Add a kind of your own; it is asked before all others whether data are its.

    One of the same noun that was registered before is replaced.

    Args:
        kind: the row.

    Raises:
        ValueError: its noun is that of one of rince's own.
    """
    require(
        kind.noun not in OWN_NOUNS,
        f"{kind.noun} are a kind of rince's own: choose another noun for yours",
    )
    KINDS[:] = [kind, *(other for other in KINDS if other.noun != kind.noun)]


def warn_of_unread(data: str, options: DataOptions, kind: Kind) -> None:
    """Of options that were set, but are for other data; a kind of a user's own may read any."""
    from rince.data.image.shards import is_shards

    if kind.noun not in OWN_NOUNS:
        return
    # Files of text there are anywhere; the others are older names, of tables of anything.
    known = {"table.encoding", "text.column", "text.labels"}
    unread = [
        name
        for group in ("videos", "text", "table", "vectors")
        for given in [getattr(options, group)]
        for option in fields(given)
        if group != kind.group and getattr(given, option.name) != option.default
        if (name := f"{group}.{option.name}") not in known
    ]
    if kind is IMAGES and data not in NAMED_TREES and options.images.root is not None:
        unread.append("images.root")
    of_tables = [name for name in unread if name.startswith(("table.", "images."))]
    # A folder is looked through for shards only where it matters.
    if of_tables and (is_table(data) or kind is VECTORS or is_shards(data)):
        unread = [name for name in unread if name not in of_tables]
        of_tables = []
    if unread:
        where = " without a table" if of_tables else ""
        warn(f"no effect on {kind.noun}{where}: {', '.join(unread)}")


def load_splits(
    data: str,
    options: DataOptions,
    *,
    seed: int = 0,
    by_time: bool = False,
    channels: int = 3,
    backbone: str | None = None,
    kind: Kind | None = None,
    preprocessing: Preprocessing | None = None,
) -> Splits:
    """Training and test items of any kind.

    Args:
        data: a path, or a name. options: a ``TrainConfig``, or what has its groups.
        seed: of the choice of images.per_class items.
        by_time: ranks are made from time: in a folder of videos and images the videos count.
        channels: that files are decoded to, 3 (RGB) or 1 (grey).
        backbone: whose tokens texts are given; None: none.
        preprocessing: how pictures are fed to the network; None: as rince's own.
        kind: theirs, if :func:`kind_of` has told it already, which may walk a large folder.

    Raises:
        RinceError: data that cannot be found or read.
        ValueError: an option that has no effect on this kind, or a number out of its range.
    """
    kind = kind or kind_of(data, by_time, options.table.encoding)
    if kind.noun in OWN_NOUNS and is_table(data) and not user_path(data).is_file():
        raise RinceError(absent("file", data))  # what it holds is not known
    for name in kind.unread:
        value = getattr(options.images, name)
        require(
            not value or value == getattr(ImageOptions(), name),
            f"images.{name} is for images, but {data} holds {kind.noun}: see {kind.group}.*",
        )
    skip = options.images.skip_unreadable
    request = Request(data, options, seed, by_time, channels, backbone, skip, preprocessing)
    with read_as(options.table.encoding):
        return kind.load(request)


def all_items(data: str, options: DataOptions) -> list[Items]:
    """Training and test items; or all in one, where no class has two."""
    from rince.data.items import NothingToHoldOut

    kind = kind_of(data, encoding=options.table.encoding)
    warn_of_unread(data, options, kind)
    try:
        splits = load_splits(data, options, kind=kind)
    except NothingToHoldOut as error:
        warn(str(error))
        if error.items.in_memory:  # nothing is left to be read
            return [error.items]
        skip = options.images.skip_unreadable
        return [load_test(Request(data, options, skip_unreadable=skip), kind.noun)]
    return [splits.train, splits.test]


def load_test(request: Request, noun: str) -> Items:
    """All items of a folder or file, with labels of their own, of any classes.

    Of a folder with ``train/`` and ``test/`` (or ``val/``) the latter is taken. ``noun``: the kind
    that a network takes.
    """
    encoding = request.options.table.encoding
    require_kind(request.data, noun, noun == "clips", encoding)
    with read_as(encoding):
        return kind_named(noun).load_test(request)


def require_kind(path: str, noun: str, by_time: bool, encoding: str | None = None) -> None:
    """Refuse data that are not there, or of another kind than a network takes."""
    _require_there(path, noun)
    held = kind_of(path, by_time, encoding).noun
    if held != noun:
        raise RinceError(
            f"{path} holds no {noun}, which the run was trained on, but {held}: give data of its "
            f"own kind"
        )


def _require_there(path: str, noun: str) -> None:
    """Kinds of a user's own may go by other names."""
    from rince.data.image.shards import is_shards

    known = noun not in OWN_NOUNS or path in (*NAMED_TREES, DIGITS) or is_shards(path)
    if not known and not user_path(path).exists():
        raise RinceError(absent("file or folder", path))


def load_outliers(
    path: str,
    items: Items,
    options: DataOptions,
    *,
    skip_unreadable: bool = False,
    backbone: str | None = None,
) -> Items:
    """Items of no known class, as large as those that are given, and of their kind.

    Args:
        path: a folder or file; of images also :data:`DIGITS`. items: the known ones.
        options: those of the training.
        skip_unreadable: leave out, with a warning, what cannot be read.
        backbone: whose tokens texts are given.

    Raises:
        RinceError: data that cannot be found or read, or of another kind.
    """
    _require_there(path, items.noun)
    request = Request(
        path,
        options,
        channels=items.spec.channels,
        backbone=backbone,
        skip_unreadable=skip_unreadable,
    )
    with read_as(options.table.encoding):
        return kind_named(items.noun).load_outliers(request, items)


def holds_vectors(data: str) -> bool:
    """Whether this is a file of vectors, and no table of items."""
    return is_vector_file(user_path(data)) and VECTORS.recognise(data, False)


def require_embeddable(data: str, noun: str) -> None:
    """Refuse data that are not there, or are features already; before a network is loaded."""
    _require_there(data, noun)
    if noun != VECTORS.noun and holds_vectors(data):
        raise RinceError(
            f"{data} holds vectors, which are features already, not {noun}: `rince train "
            f"{quote(data)} --labels FILE` trains a head on them"
        )


def embedding_names(
    encoder: Encoder, data: str, column: str | None = None, encoding: str | None = None
) -> Sequence[Any]:
    """What there is to embed in some data: image files, videos, or the texts themselves.
    ``column``: of the items in a table; None: of texts as at the training."""
    require_embeddable(data, encoder.noun)
    with read_as(encoding):
        return kind_named(encoder.noun).embedding_names(encoder, data, column)


def embedding_content(encoder: Encoder, names: Sequence[Any]) -> Sequence[object]:
    """What tells :func:`embedding_names` from the same names of other content: of files their sizes
    and times, of vectors a digest; nothing of texts, which are their names."""
    from rince.data.image.shards import Member, file_of
    from rince.data.stored.sources import StoredNames

    if isinstance(names, StoredNames):
        return [names.content()]
    if not kind_named(encoder.noun).files:
        return []
    return file_stamps(file_of(x) for x in names if isinstance(x, (str, Member)))


def embedding_inputs(
    encoder: Encoder, names: Sequence[str], *, batch_size: int = 64, skip_unreadable: bool = False
) -> Iterator[tuple[list[str], Any]]:
    """What ``encoder.encode`` takes, in batches: B names (of clips ``FILE@SECONDS``), B inputs."""
    return kind_named(encoder.noun).embedding_inputs(encoder, names, batch_size, skip_unreadable)


def require_queries(encoder: Encoder, queries: Sequence[str]) -> None:
    """Refuse queries that are empty; and where the encoder takes files, those that are none, nor
    clips of one."""
    if not all(query.strip() for query in queries):
        raise RinceError("a query is empty: expected words, or a file")
    if not kind_named(encoder.noun).files:
        return
    missing = [
        query
        for query in queries
        if not any(Path(name).is_file() for name in (query, query.rpartition("@")[0]))
    ]
    if missing:
        raise RinceError(f"{absent('file', missing[0])}: the network takes {encoder.noun}")


def same_file(encoder: Encoder, query: str, found: str) -> bool:
    """Whether a query is itself what was found: the same file or clip, or a film and a clip of it.
    Texts never are."""
    if not kind_named(encoder.noun).files:
        return False
    wanted = os.path.realpath(query)
    return wanted in (os.path.realpath(found), os.path.realpath(found.rpartition("@")[0] or found))
