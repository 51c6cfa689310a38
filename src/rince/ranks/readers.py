"""Class paths from folders, tables, nested dicts and child-parent edges, with checks that help."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rince.core.checks import RinceError, require
from rince.core.files import IMAGE_SUFFIXES, by_suffix, passed_over
from rince.core.labels import as_array, integers, require_no_unknown
from rince.core.pair_ranks import MAX_RANK
from rince.core.tables import Table, as_cell, composed

EDGES = ("child", "parent")  # columns of a table of them

Names: TypeAlias = tuple[str, ...]
Nested: TypeAlias = "Mapping[str, Nested] | Sequence[str | Nested]"


def checked_paths(
    paths: Sequence[Sequence[str]], places: Sequence[str] | None = None
) -> tuple[Names, ...]:
    """The paths, from the top group down to the class, as tuples of tidy names, if they are a tree.

    The one rule of all readers: names are compared, and kept, in NFC and without blanks at their
    ends, and a class is its whole path. What differs in the same group only by characters that
    nobody sees, or as ``1`` and ``1.0`` do, is refused. ``places``: where each path stands.
    """

    def place(i: int) -> str:
        return f"class {i}" if places is None else places[i]

    require(len(paths) > 0, "a class tree needs at least one class")
    tidy: dict[str, str] = {}  # one string for all that use a name
    seen: dict[Names, int] = {}
    for i, path in enumerate(paths):
        if isinstance(path, str) or not 1 <= len(path) <= MAX_RANK:
            raise ValueError(
                f"{place(i)}: a path is a sequence of 1 to {MAX_RANK} names from the top group "
                f"down to the class, such as ('animal', 'dog', 'husky'); got {str(path)[:80]!r}"
            )
        for name in path:
            if not isinstance(name, str) or name not in tidy:
                if not isinstance(name, str) or not name.strip():
                    raise ValueError(
                        f"{place(i)}: names must be strings that are not empty, got {name!r} in "
                        f"{path!r}"
                    )
                if any("\ud800" <= character <= "\udfff" for character in name):
                    raise ValueError(f"{place(i)}: {name!r} is not valid Unicode: rename it")
                once = composed(name)
                tidy[name] = tidy.setdefault(once, once)
        first = seen.setdefault(tuple(tidy[name] for name in path), i)
        if first != i:
            raise ValueError(
                f"class {'/'.join(path)!r} is given twice ({place(first)} and {place(i)})"
                + ("" if tuple(paths[first]) == tuple(path) else _INVISIBLE)
            )
    result = tuple(seen)
    groups = {path[:k] for path in result for k in range(1, len(path))}
    for i, path in enumerate(result):
        if path in groups:
            raise ValueError(
                f"{place(i)}: {'/'.join(path)!r} is both a class and a group of other classes; "
                "give the class a name of its own inside the group"
            )
    odd = {name for name in tidy.values() if look_of(name) != name or "/" in name}
    if odd:
        _check_looks(result, odd, place)
    return result


_INVISIBLE = ": the two differ only in what nobody sees, or in how an accent is stored"


def _check_looks(paths: Sequence[Names], odd: set[str], place: Callable[[int], str]) -> None:
    """Refuse two names of a group that look the same, and two paths that are written the same;
    ``odd``: the names by which that can happen at all."""
    twins = odd | {look_of(name) for name in odd}
    written: dict[str, int] = {}
    looks: dict[tuple[Names, str], tuple[str, int]] = {}
    slashes = {"/".join(path) for path in paths if any("/" in name for name in path)}
    for i, path in enumerate(paths):
        if slashes and (whole := "/".join(path)) in slashes:
            first = written.setdefault(whole, i)
            require(
                first == i,
                f"{place(first)} and {place(i)}: both classes are written {whole!r}; leave the / "
                f"out of the names",
            )
        for k, name in enumerate(path):
            if name in twins:
                other, first = looks.setdefault((path[:k], look_of(name)), (name, i))
                require(
                    other == name,
                    f"{place(first)} and {place(i)}: {other!r} and {name!r} look like one name, "
                    f"but are two: write both in the same way",
                )


def look_of(name: str) -> str:
    """A name without what nobody sees: marks without width, several blanks in a row, the .0 of 1.0;
    and one way to write true and false, which each program writes in its own."""
    if not name.isascii():
        name = "".join(c for c in name if unicodedata.category(c) != "Cf")
    if not name.isalnum():
        name = _WHOLE.sub(r"\1", " ".join(name.split()))
    return name.lower() if name.lower() in ("true", "false") else name


_WHOLE = re.compile(r"^([+-]?\d+)\.0+$")


def two_parents(name: str, first: str | None, second: str | None) -> str:
    one, two = ("no group" if p is None else repr(p) for p in (first, second))
    return f"{name!r} has two parents, {one} and {two}; among child -> parent edges each has one"


def class_folders(folder: Path, path: Names, empty: dict[Path, str]) -> Iterator[Names]:
    """The path of each folder that holds images, in sorted order. One that holds neither images
    nor folders is added to ``empty``, with what it holds instead."""
    if len(path) > MAX_RANK:
        raise RinceError(f"folders are nested more than {MAX_RANK} deep: {folder}")
    inside: list[str] = []
    image, others = "", []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if passed_over(entry.name):
                    continue
                link = entry.is_symlink()
                # One that leads to itself is neither a folder nor an error.
                if os.path.isdir(entry.path) if link else entry.is_dir():
                    if link and folder.resolve().is_relative_to(Path(entry.path).resolve()):
                        raise RinceError(
                            f"{entry.path} is a link to a folder that it is in: remove it"
                        )
                    inside.append(entry.name)
                elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
                    image = entry.name
                else:
                    others.append(Path(entry.path))
    except OSError as error:  # no permission
        raise RinceError(f"cannot read {error.filename}: {error.strerror}") from error
    if image and inside:
        raise RinceError(
            f"{folder} holds both images ({image}) and folders ({some_names(sorted(inside))}); "
            "a folder is either a class (images) or a group (folders)"
        )
    if image and not path:
        raise RinceError(
            f"images lie directly in {folder} ({image}); put them into one folder per class: "
            f"{folder}/<group>/<class>/{image}"
        )
    if image:
        yield path
    elif not inside:
        kinds = by_suffix(others)
        empty[folder] = f"holds no image, but {kinds}" if kinds else "is empty"
    for name in sorted(inside):
        yield from class_folders(folder / name, (*path, name), empty)


def paths_of_table(table: Table, levels: Sequence[str] | None) -> tuple[Names, ...]:
    """Paths of a table of classes; ``levels`` as of :meth:`Taxonomy.from_csv`."""
    header = table.columns
    require(header != (), "the table is empty; expected a header such as class,superclass")
    if levels is None:
        require(
            "class" in header,
            f"no column 'class'; the columns are {some_names(header)}. Call that of the classes "
            "so, with those of their groups to the right of it, the top one last; or name them in "
            "this order, such as levels=('name', 'superclass')",
        )
        levels = [name for name in header[header.index("class") :] if name]
    require(not isinstance(levels, str), f"levels must be a list of column names, got {levels!r}")
    require(len(levels) > 0, "levels names no column")
    levels = [composed(name) for name in levels]
    for name in levels:
        require(name in header, f"no column {name!r}; the columns are {some_names(header)}")
        require(levels.count(name) == 1, f"column {name!r} is there twice in levels")
    paths: list[Names] = []
    for line, cells in table.rows:
        require(cells[levels[0]] != "", f"{table.place(line)}: the column {levels[0]!r} is empty")
        paths.append(tuple(cells[name] for name in reversed(levels) if cells[name]))
    return checked_paths(paths, [table.place(line) for line, _ in table.rows])


def paths_from_labels(labels: Any, finest_first: bool) -> list[Names]:
    """Paths of the different rows of (N, L) labels, sorted from the finest column on."""
    array = labels if isinstance(labels, Tensor) else as_array(labels)
    shape = tuple(array.shape)
    require(
        len(shape) == 2 and shape[0] > 0 and 1 <= shape[1] <= MAX_RANK,
        f"labels must be (items, levels), with at least one item and 1 to {MAX_RANK} levels, got "
        f"shape {shape}",
    )
    if isinstance(array, np.ndarray) and array.dtype.kind in "OUST":
        paths = {row if finest_first else row[::-1] for row in label_names(array)}
        return [path[::-1] for path in sorted(paths)]
    rows = integers(array)
    require_no_unknown(rows)
    rows = torch.unique(rows if finest_first else rows.flip(1), dim=0)  # sorted
    columns = []
    for column in reversed(rows.unbind(1)):  # the top level first, the classes last
        values, inverse = torch.unique(column, return_inverse=True)
        names = [str(value) for value in values.tolist()]  # one object for all rows of a group
        columns.append([names[i] for i in inverse.tolist()])
    return list(zip(*columns, strict=True))


def label_names(labels: NDArray[Any]) -> list[Names]:
    """(N, L) labels as names, numbers as they are in tables."""
    given, words = labels.tolist(), labels.dtype.kind in "UST"
    rows = [tuple(composed(as_cell(label)) for label in row) for row in given]
    for i, (row, own) in enumerate(zip(rows, given, strict=True)):
        require(all(row), f"row {i}: a label is missing: {row}")
        if not words and any(isinstance(x, Real) and x < 0 for x in own):
            raise ValueError(
                f"row {i} holds {', '.join(row)}, and a negative number says that a label is not "
                f"known: leave such items out"
            )
    return rows


def name_of(given: object) -> str:
    """A name, or a number as it is in tables; what is missing is empty."""
    return given if isinstance(given, str) else as_cell(given)


def nested_paths(node: object, path: Names) -> Iterator[Names]:
    place = f"group {'/'.join(path)!r}" if path else "the tree"
    require(len(path) <= MAX_RANK, f"{place} is nested more than {MAX_RANK} deep")
    if isinstance(node, Mapping):
        require(len(node) > 0, f"{place} holds no class")
        for name, inside in node.items():
            yield from nested_paths(inside, (*path, name_of(name)))
    elif isinstance(node, Sequence) and not isinstance(node, str):
        require(len(node) > 0, f"{place} holds no class")
        for item in node:
            if isinstance(item, str | Real):
                yield (*path, name_of(item))
            else:
                yield from nested_paths(item, path)
    else:
        raise ValueError(
            f"{place} must hold a dict of groups or a list of classes, got {node!r}"
            + ("; child -> parent edges go to Taxonomy.from_parents" * isinstance(node, str))
        )


def parent_chain(name: str, parents: Mapping[str, str | None]) -> Names:
    """The names from the top down to ``name``."""
    chain = [name]
    while (parent := parents.get(chain[-1])) is not None:
        if parent in chain:
            cycle = [*chain[chain.index(parent) :], parent]
            raise ValueError(f"the parents form a cycle: {' -> '.join(cycle)}")
        chain.append(parent)
    return tuple(reversed(chain))


def homonyms(paths: Sequence[Names]) -> tuple[str, ...]:
    """Names that occur under more than one parent, in the order in which that shows."""
    parents: dict[str, Names] = {}
    shared: dict[str, None] = {}
    for group in dict.fromkeys(path[:k] for path in paths for k in range(1, len(path) + 1)):
        if parents.setdefault(group[-1], group) is not group:
            shared[group[-1]] = None
    return tuple(shared)


def some_names(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
