"""Class paths from folders, tables, nested dicts and child-parent edges, with checks that help."""

from __future__ import annotations

import graphlib
import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from rince.core.checks import RinceError, require

IMAGE_SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
MAX_DEPTH = 127  # ranks are int8

Names: TypeAlias = tuple[str, ...]
Nested: TypeAlias = "Mapping[str, Nested] | Sequence[str | Nested]"


def checked_paths(paths: Sequence[Sequence[str]], places: Sequence[str]) -> tuple[Names, ...]:
    """The paths as tuples, if they are a tree; ``places`` say where each one was found."""
    require(len(paths) > 0, "a class tree needs at least one class")
    seen: dict[str, int] = {}
    for i, path in enumerate(paths):
        place = places[i]
        require(
            not isinstance(path, str) and 1 <= len(path) <= MAX_DEPTH,
            f"{place}: a path is a sequence of 1 to {MAX_DEPTH} names from the top group down to "
            f"the class, such as ('animal', 'dog', 'husky'); got {str(path)[:80]!r}",
        )
        for name in path:
            require(
                isinstance(name, str) and name.strip() != "",
                f"{place}: names must be strings that are not empty, got {name!r} in {path!r}",
            )
        first = seen.setdefault(composed(path[-1]), i)
        if first != i:
            where = f" ({places[first]} and {place})"
            before, now = ("/".join(paths[k][:-1]) or None for k in (first, i))
            raise ValueError(
                f"class {path[-1]!r} is given twice{where}"
                if before == now
                else two_parents(path[-1], before, now) + where
            )
    result = tuple(tuple(path) for path in paths)
    groups = {path[:k] for path in result for k in range(1, len(path))}
    for path, place in zip(result, places, strict=True):
        require(
            path not in groups,
            f"{place}: {'/'.join(path)!r} is both a class and a group of other classes; give the "
            "class a name of its own inside the group",
        )
    return result


def two_parents(name: str, first: str | None, second: str | None) -> str:
    one, two = ("no group" if p is None else repr(p) for p in (first, second))
    return f"{name!r} has two parents, {one} and {two}; in a class tree each name has one"


def class_folders(folder: Path, path: Names, empty: list[Path] | None = None) -> Iterator[Names]:
    """Walk the folders in sorted order and give the path of each one that holds images.

    A folder that holds neither images nor folders is an error, or goes into ``empty``.
    """
    if len(path) > MAX_DEPTH:
        raise RinceError(f"folders are nested more than {MAX_DEPTH} deep (a link loop?): {folder}")
    inside: list[str] = []
    image, others = "", 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                inside.append(entry.name)
            elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
                image = entry.name
            else:
                others += 1
    if image and inside:
        raise RinceError(
            f"{folder} holds both images ({image}) and folders ({some_names(sorted(inside))}); "
            "a folder is either a class (images) or a group (folders)"
        )
    if image and not path:
        raise RinceError(
            f"images lie directly in {folder} ({image}); put them into one folder a class: "
            f"{folder}/<group>/<class>/{image}"
        )
    if image:
        yield path
    elif not inside and empty is not None:
        empty.append(folder)
    elif not inside:
        what = f"holds {others} files but no image" if others else "is empty"
        raise RinceError(
            f"{folder} {what}; a class folder needs at least one image "
            f"({', '.join(sorted(IMAGE_SUFFIXES))})"
        )
    for name in sorted(inside):
        yield from class_folders(folder / name, (*path, name), empty)


def paths_from_rows(
    rows: Sequence[tuple[int, list[str]]], levels: Sequence[str] | None
) -> tuple[Names, ...]:
    """Paths from (line number, cells) of a class table: first the header, then rows as long."""
    header = rows[0][1]
    if levels is None:
        require(
            "class" in header,
            f"no column 'class'; the columns are {some_names(header)}. Name those to use from the "
            "class to its top group, such as levels=('name', 'superclass')",
        )
        levels = [name for name in header[header.index("class") :] if name]
    require(not isinstance(levels, str), f"levels must be a list of column names, got {levels!r}")
    require(len(levels) > 0, "levels names no column")
    for name in levels:
        require(name in header, f"no column {name!r}; the columns are {some_names(header)}")
        require(list(levels).count(name) == 1, f"column {name!r} is there twice in levels")
    columns = [header.index(name) for name in levels]
    paths: list[Names] = []
    places: list[str] = []
    parents: dict[str, tuple[str | None, int]] = {}
    for line, cells in rows[1:]:
        names = [cells[c] for c in columns]
        require(names[0] != "", f"line {line}: the column {levels[0]!r} is empty")
        path = tuple(name for name in reversed(names) if name)
        # Two groups of one name are legal in a tree, but in a table they are nearly always a typo
        # that would silently tear a group apart.
        for parent, group in zip((None, *path), path[:-1], strict=False):
            before, first = parents.setdefault(group, (parent, line))
            if before != parent:
                where = f" (lines {first} and {line})"
                raise ValueError(two_parents(group, before, parent) + where)
        paths.append(path)
        places.append(f"line {line}")
    _check_no_cycle(paths, [line for line, _ in rows[1:]])
    return checked_paths(paths, places)


def _check_no_cycle(paths: Sequence[Names], lines: Sequence[int]) -> None:
    """Refuse a table where a name is a group above itself: ``a,b`` and ``b,a``.

    A class named like its own group (``bag,bag``) is no cycle: tables with a group of one do so.
    """
    line_of: dict[tuple[str, str], int] = {}  # (parent, child) -> where that is said first
    for path, line in zip(paths, lines, strict=True):
        for parent, child in zip(path, path[1:], strict=False):
            if parent != child:
                line_of.setdefault((parent, child), line)
    parents: dict[str, list[str]] = {}
    for parent, child in line_of:
        parents.setdefault(child, []).append(parent)
    try:
        graphlib.TopologicalSorter(parents).prepare()
    except graphlib.CycleError as error:
        cycle = error.args[1]  # each name is the parent of the next
        found = sorted({line_of[edge] for edge in zip(cycle, cycle[1:], strict=False)})
        raise ValueError(
            f"the groups form a cycle: {' -> '.join(reversed(cycle))} (lines "
            f"{' and '.join(map(str, found))}); no name can be a group above itself"
        ) from None


def nested_paths(node: object, path: Names) -> Iterator[Names]:
    place = f"group {'/'.join(path)!r}" if path else "the tree"
    require(len(path) <= MAX_DEPTH, f"{place} is nested more than {MAX_DEPTH} deep")
    if isinstance(node, Mapping):
        require(len(node) > 0, f"{place} holds no class")
        for name, inside in node.items():
            yield from nested_paths(inside, (*path, name))
    elif isinstance(node, Sequence) and not isinstance(node, str):
        require(len(node) > 0, f"{place} holds no class")
        for item in node:
            if isinstance(item, str):
                yield (*path, item)
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


def composed(name: str) -> str:
    """An accented letter as one character (NFC), whatever a file system or editor made of it."""
    return unicodedata.normalize("NFC", name)


def some_names(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
