"""Tables of items: which files or texts, with which labels, on which side of the split.

A row an item. Columns: the item (``text``, or a path to an image or a video), labels from coarse to
fine, and, where known, those of :data:`KNOWN`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rince.core.checks import RinceError, require, warn
from rince.core.files import (
    IMAGE_SUFFIXES,
    SPLITS,
    TEST_SPLITS,
    VIDEO_SUFFIXES,
    chosen_below,
    passed_over,
    user_path,
)
from rince.core.tables import (
    TABLE_SUFFIXES,
    Row,
    Table,
    as_number,
    composed,
    differing_in_capitals,
    nfc,
    read_table,
    refuse_rows,
    repeated,
)

if TYPE_CHECKING:
    from rince.data.items import AnyItems, Marks
    from rince.ranks.taxonomy import Taxonomy

SPLIT = "split"
KNOWN = (SPLIT, "is_query", "is_gallery", "sequence", "start_s", "end_s", "source_video")
"""Columns that say something else of an item than its labels."""
PATH_COLUMNS = ("path", "file", "filename", "image", "image_path", "video", "clip")
_INDEX_NAMES = r"|index|Unnamed: \d+|__index_level_\d+__"
_NOT_KNOWN = r"-\d+(\.0*)?|nan|none|null|n/?a|<na>"
_LOOKED_AT = 20  # rows by which a column of paths is known
_FLAGS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False, "": False}


def is_table(data: str | Path) -> bool:
    return str(data).lower().endswith(TABLE_SUFFIXES)


def path_column(data: str | Path, suffixes: frozenset[str]) -> str | None:
    """The column of a table that holds paths to files of these suffixes; None: no table, or a
    table of texts or of anything else."""
    if not is_table(data) or not user_path(data).is_file():
        return None
    table = first_rows(data)
    if not table.rows:
        shown = f"a header ({', '.join(table.columns)})" if table.columns else "nothing"
        raise RinceError(f"{data} holds {shown} and no rows: expected a row an item below it")
    return column_of_paths(table, suffixes)


def first_rows(data: str | Path) -> Table:
    """Of a table, or all of it: enough to know what its columns hold."""
    return read_table(user_path(data), "items", fill_short_rows=True, most=_LOOKED_AT)


def column_of_paths(table: Table, suffixes: frozenset[str]) -> str | None:
    """:func:`path_column` of a table that was read."""
    if "text" in table.columns:
        return None
    first = [cells for _, cells in table.rows[:_LOOKED_AT]]
    named = [name for name in PATH_COLUMNS if name in table.columns]
    for name in (*named, *table.columns):
        cells = [row[name] for row in first if row[name]]
        if cells and all(_suffix(cell) in suffixes for cell in cells):
            return name
    return None


def needed_path_column(data: str | Path, suffixes: frozenset[str]) -> str:
    """:func:`path_column` of a table that must have one."""
    column = path_column(data, suffixes)
    if column is None:
        stray = stray_path(first_rows(data)) if is_table(data) else ""
        expected = f"has no column of paths to files ({', '.join(sorted(suffixes))})"
        raise RinceError(f"{data}: {stray}" if stray else f"{data} {expected}")
    return column


def stray_path(table: Table) -> str:
    """For a message that no column holds paths: the first row that keeps a column, most of whose
    cells are images, or videos, from doing so; "": there is no such column."""
    for name in table.columns:
        cells = [(line, row[name]) for line, row in table.rows[:_LOOKED_AT] if row[name]]
        for noun, suffixes in (("images", IMAGE_SUFFIXES), ("videos", VIDEO_SUFFIXES)):
            others = [(line, cell) for line, cell in cells if _suffix(cell) not in suffixes]
            if others and 2 * len(others) < len(cells):
                line, cell = others[0]
                return (
                    f"the column {name!r} holds {noun}, but in {table.place(line)} {cell!r}: the "
                    f"files of a table are of one kind, so correct this row or leave it out"
                )
    return ""


def is_media(cell: str) -> bool:
    return _suffix(cell) in IMAGE_SUFFIXES | VIDEO_SUFFIXES


def read_items(
    file: Path,
    column: str,
    labels: Sequence[str] | None,
    empty: str = "refuse",
    only_class: str = "",
) -> ItemTable:
    """A table of items; ``labels`` as of :func:`label_columns`, ``empty`` as of the options.
    ``only_class``: that of all items where there is no label; "": labels are needed."""
    table, column = read_table(file, "items"), composed(column)
    if not table.rows:
        raise RinceError(f"{file} holds no item: expected rows with a {column} and its labels")
    if column not in table.columns:
        longest = max(table.columns, key=lambda name: sum(map(len, table.column(name))))
        table.require_columns(
            column,
            hint=stray_path(table)
            or f"name the one that holds the items, {longest!r} perhaps (table.column); a table "
            f"of classes alone (`rince ranks`) needs a column 'class', with the groups to the "
            f"right of it, or the columns child and parent",
        )
    levels = label_columns(table, labels, [column], "table.labels", needed=not only_class)
    if not levels:
        levels = ("class",)
        rows = [(line, cells | {levels[0]: only_class}) for line, cells in table.rows]
        table = replace(table, columns=tuple(rows[0][1]), rows=rows)
    return ItemTable(without_empty(table, column, levels, empty), column, levels)


def without_empty(table: Table, column: str, levels: Sequence[str], empty: str) -> Table:
    """Rows without an item or a class are refused, left out or filled."""
    kept, problems, counted, without_item = [], [], 0, False
    above = dict.fromkeys(levels, "")
    for line, cells in table.rows:
        full = dict(cells)
        if empty == "fill":
            full |= {name: cells[name] or above[name] for name in levels}
            above = {name: full[name] for name in levels}
        elif empty == "unknown":
            full[levels[-1]] = cells[levels[-1]] or "unknown"
        lacks = [repr(name) for name in dict.fromkeys((column, levels[-1])) if not full[name]]
        if lacks and empty != "skip":
            problems.append(f"{table.place(line)}: no {' and no '.join(lacks)}")
            without_item = without_item or (column != levels[-1] and not full[column])
        counted += bool(lacks) or full != cells
        if not lacks:
            kept.append((line, full))
    refuse_rows(
        table.file,
        problems,
        "fill these cells or remove the rows; table.empty skip leaves the rows out"
        + ("" if without_item else ", unknown and fill give them a class"),
    )
    if counted:
        did = {"skip": "are left out", "fill": "are filled from the row above"}
        warn(
            f"{table.file}: {counted} of {len(table.rows)} rows have empty cells and "
            + did.get(empty, "get the class 'unknown'")
        )
    if not kept:
        raise RinceError(f"{table.file}: no row is left")
    return replace(table, rows=kept)


def label_columns(
    table: Table,
    labels: Sequence[str] | None,
    beside: Collection[str],
    option: str,
    *,
    needed: bool = True,
) -> tuple[str, ...]:
    """The columns of the labels, from coarse to fine. The last is the class; an empty cell before
    it makes a ragged tree. ``labels``: their names; None: all in the file's order but :data:`KNOWN`
    and those ``beside``. ``option``: that names them, for the message. ``needed``: there must be
    one."""
    levels = tuple(
        _likely_labels(table, beside, option) if labels is None else map(composed, labels)
    )
    missing = [repr(name) for name in levels if name not in table.columns]
    if missing or (needed and not levels):
        raise RinceError(
            f"{table.file} has no column {', '.join(missing) or 'of labels'}; its columns are "
            f"{', '.join(table.columns)}: name those of the labels, from coarse to fine "
            f"({option})"
        )
    twice = repeated(levels)
    require(not twice, f"{option} names {', '.join(map(repr, twice))} twice")
    check_known(table, levels)
    return levels


def check_known(table: Table, levels: Sequence[str]) -> None:
    """Negative numbers among the labels, and words such as nan, by which data sets say that a class
    is not known: where a file holds numbers they are refused; where it holds text, they may be
    names and are warned of. So are names that differ only in capitals."""
    for level in levels:
        cells = table.column(level)
        names = sorted(set(cells))
        if twins := differing_in_capitals(names):
            warn(
                f"{table.file}: {level!r} holds {twins[0]!r} and {twins[1]!r}, which are two "
                f"classes: if they are one, write both in the same way"
            )
        missing = {name for name in names if re.fullmatch(_NOT_KNOWN, name, re.IGNORECASE)}
        if not missing:
            continue
        first = next(i for i, cell in enumerate(cells) if cell in missing)
        text = f"{table.file}: {level!r} holds {cells[first]}, first "
        if level in table.numbers:
            raise RinceError(
                f"{text}for item {first} (from 0), which would be a class of its own: leave out "
                f"items whose class is not known, or write a table with empty cells for them "
                f"(table.empty)"
            )
        warn(
            f"{text}in {table.place(table.rows[first][0])}, which is taken for a class: if it says "
            f"that the class is not known, leave these cells empty (table.empty)"
        )


def _likely_labels(table: Table, beside: Collection[str], option: str) -> list[str]:
    """What may be labels, where nobody named them; doubtful ones are said."""
    rest = [c for c in table.columns if c not in (*beside, *KNOWN)]
    # The index that a data frame was saved with.
    named = [name for name in table.columns if re.fullmatch(_INDEX_NAMES, name)]
    indices = [name for name in named if _counts_from(0, table.column(name))]
    # Under any name, at either end: where it is not all that could be a label.
    ends = {table.columns[0], table.columns[-1]} & {*rest} - {*indices}
    indices += [x for x in rest if x in ends and len(rest) > 1 and _is_running(table.column(x))]
    if indices:
        shown = ", ".join(repr(name) if name else "one without a name" for name in indices)
        warn(
            f"{table.file} has running numbers, {shown}, which are left out of the labels: if they "
            f"are some, name all columns of labels, from coarse to fine ({option})"
        )
    elif "" in table.columns:
        warn(f"{table.file} has a column without a name, which is left out of the labels")
    levels = [c for c in rest if c and c not in indices]
    if wrong := [c for c in levels if c.lower() in KNOWN]:
        raise RinceError(
            f"{table.file}: the column {wrong[0]!r} would be labels: write it "
            f"{wrong[0].lower()!r}, or name the columns of labels ({option})"
        )
    distinct = [name for name in levels[:-1] if len(set(table.column(name))) == len(table.rows) > 2]
    if distinct:
        warn(
            f"{table.file}: no two rows have the same {' or '.join(distinct)}, which is taken as a "
            f"label: if it is none, name those that are, from coarse to fine "
            f"({option} {','.join(name for name in levels if name not in distinct)})"
        )
    return levels


def _counts_from(first: int, cells: Sequence[str]) -> bool:
    return list(cells) == [str(first + i) for i in range(len(cells))]


def _is_running(cells: Sequence[str]) -> bool:
    """Whether these are 1, 2, 3, ... or 1001, 1002, ..., of three rows or more."""
    if len(cells) < 3 or not all(cell.isdecimal() for cell in cells):
        return False
    first = int(cells[0])
    return [int(cell) for cell in cells] == list(range(first, first + len(cells)))


@dataclass(frozen=True)
class ItemTable:
    """A table whose columns are known: that of the items, and the levels from coarse to fine."""

    table: Table
    column: str
    levels: tuple[str, ...]

    @property
    def items(self) -> list[str]:
        return self.table.column(self.column)

    def sides(self) -> list[bool | None] | None:
        """Of each row whether it is for the test; rows of another split than the training and the
        first of :data:`TEST_SPLITS` are neither. None: the table does not say."""
        names = self.splits()
        if names is None:
            self._warn_of_split_by_another_name()
            return None
        tests = [name for name in TEST_SPLITS if name in names]
        for side, there in (("train", "train" in names), (" or ".join(TEST_SPLITS), bool(tests))):
            if not there:
                raise RinceError(f"{self.table.file}: the column {SPLIT!r} never says {side}")
        if len(tests) > 1:
            warn(
                f"{self.table.file}: the column {SPLIT!r} says {' and '.join(tests)}: {tests[0]} "
                f"is used for testing"
            )
        is_test = {"train": False, tests[0]: True}
        sides = [is_test.get(name) for name in names]
        self._warn_of_marks_beside_a_split(sides)
        return sides

    def _warn_of_marks_beside_a_split(self, sides: Sequence[bool | None]) -> None:
        """Test rows are searched for in the training rows, whatever these columns say."""
        file, columns = self.table.file, self.table.columns
        if "sequence" in columns:
            names = self.table.column("sequence")
            train, test = (
                {name for name, x in zip(names, sides, strict=True) if name and x is side}
                for side in (False, True)
            )
            if shared := sorted(train & test):
                warn(
                    f"{file}: {len(shared)} of {len(test)} sequences of the test have items in the "
                    f"training too, such as {shared[0]!r}, by which theirs are found: put all "
                    f"items of a sequence on one side"
                )
        flags = [name for name in ("is_query", "is_gallery") if name in columns]
        cells = (cell.lower() for name in flags for cell in self.table.column(name))
        if any(not _FLAGS.get(cell, True) for cell in cells):
            warn(
                f"{file}: {' and '.join(flags)} have no effect beside the column {SPLIT!r}, where "
                f"test items are searched for among those of the training. They are for tests "
                f"whose items are searched among each other: rince evaluate RUN --test FILE"
            )

    def _warn_of_split_by_another_name(self) -> None:
        known = {"", *SPLITS}
        for name in self.table.columns:
            words = self.table.column(name)
            # Most columns hold another word in their first row, which ends the look at them.
            if name == self.column or any(word.lower() not in known for word in words):
                continue
            if "train" in {word.lower() for word in words}:
                taken = "taken as a label" if name in self.levels else "not read"
                warn(
                    f"{self.table.file}: the column {name!r} looks like a split, but is {taken}: "
                    f"call it {SPLIT!r}"
                )

    def splits(self) -> list[str] | None:
        """What the table says of each row: train, or one of :data:`TEST_SPLITS`."""
        return self._words(SPLIT, SPLITS, f"one of {', '.join(SPLITS)}")

    def _words(self, column: str, known: Collection[str], expected: str) -> list[str] | None:
        """The cells of a column of known words, in small letters; None: there is no such column."""
        if column not in self.table.columns:
            return None
        words = [cell.lower() for cell in self.table.column(column)]
        wrong = [
            f"{self.table.place(line)}: the column {column!r} is {word!r}"
            for (line, _), word in zip(self.table.rows, words, strict=True)
            if word not in known
        ]
        refuse_rows(self.table.file, wrong, f"expected {expected}")
        return words

    def test_rows(self) -> ItemTable:
        """The rows of the test; all of them, where the table has no split or no test."""
        names = [cells.get(SPLIT, "").lower() for _, cells in self.table.rows]
        test = next((name for name in TEST_SPLITS if name in names), None)
        if test is None:
            return self
        chosen = [i for i, x in enumerate(names) if x == test]
        if len(chosen) < len(names):
            warn(
                f"{self.table.file}: {len(names) - len(chosen)} of {len(names)} rows are left out "
                f"of the test, as their {SPLIT!r} is not {test}: a table without that column is "
                f"tested whole"
            )
        return self.rows(chosen)

    def rows(self, chosen: Sequence[int]) -> ItemTable:
        """The rows at these positions."""
        rows = [self.table.rows[i] for i in chosen]
        return replace(self, table=replace(self.table, rows=rows))

    def classes(self, known: Taxonomy | None = None) -> tuple[Taxonomy, list[int]]:
        """The class tree of the labels, in sorted order of its paths, and the label of each row.
        ``known``: a tree whose classes come first, in their order; others are warned of."""
        from rince.ranks.readers import checked_paths
        from rince.ranks.taxonomy import Taxonomy

        tidy, place = cache(composed), self.table.place
        paths: list[tuple[str, ...]] = []
        first: dict[tuple[str, ...], int] = {}  # the line where a class occurs first
        empty: list[str] = []
        for line, cells in self.table.rows:
            names = [tidy(cells[level]) for level in self.levels]
            if not names[-1]:
                empty.append(f"{place(line)}: the column {self.levels[-1]!r} is empty")
            paths.append(tuple(filter(None, names)))
            first.setdefault(paths[-1], line)
        refuse_rows(self.table.file, empty, "the class of each item is needed")
        own = sorted(first)
        try:
            if known is None:
                tree = Taxonomy(own)
            else:
                seen = set(known.paths)
                tree = with_further(known, [path for path in own if path not in seen], len(own))
        except ValueError:
            try:  # once more, for their lines: to check takes as long as to build
                checked_paths(own, [place(first[path]) for path in own])
                raise
            except ValueError as error:
                raise RinceError(f"{self.table.file}: {error}") from None
        label_of = {path: label for label, path in enumerate(tree.paths)}
        return tree, [label_of[path] for path in paths]

    def marks(self) -> Marks:
        """What the columns ``sequence``, ``is_query``, ``is_gallery`` say; and the names of the
        label columns, where the first k names of a path are the first k columns: empty cells stand
        right before the class, or nowhere."""
        import torch

        from rince.data.items import Marks

        given: dict[str, Any] = {}
        for name in ("is_query", "is_gallery"):
            words = self._words(name, _FLAGS, "1 or 0, true or false, yes or no")
            if words is not None:
                given[name] = torch.tensor([_FLAGS[word] for word in words], dtype=torch.bool)
        if "sequence" in self.table.columns:
            names = self.table.column("sequence")
            number = {name: i for i, name in enumerate(sorted(set(names) - {""}))} | {"": -1}
            given["sequence"] = torch.tensor([number[name] for name in names], dtype=torch.int64)
        above = [[bool(row[x]) for x in self.levels[:-1]] for _, row in self.table.rows]
        if all(row == sorted(row, reverse=True) for row in above):
            given["levels"] = self.levels
        return Marks(**given)

    def refuse_other_media(self, suffixes: frozenset[str]) -> None:
        """Refuse videos among the rows of a table of images, and images among those of videos."""
        nouns = dict.fromkeys(IMAGE_SUFFIXES, "an image") | dict.fromkeys(VIDEO_SUFFIXES, "a video")
        wrong = [
            f"{self.table.place(line)}: {cells[self.column]} is {nouns[suffix]}"
            for line, cells in self.table.rows
            if (suffix := _suffix(cells[self.column])) in nouns and suffix not in suffixes
        ]
        refuse_rows(self.table.file, wrong, "the files of a table are of one kind")

    def files(
        self, root: str | Path | None = None, *, root_option: str = "images.root"
    ) -> tuple[list[Any], list[str]]:
        """The file of each row (:class:`~pathlib.Path`), and its name: the path below the table's
        folder or the root, which is the same wherever they lie. ``root_option``: what gives the
        root, for the message; "": nothing does."""
        place, beside = self.table.place, self.table.file.parent
        bases = [beside] if root is None else [user_path(root), beside]
        there: dict[Path, dict[str, str]] = {}  # folders are listed once: a look per file is slow
        files: list[Path] = []
        names: list[str] = []
        missing: list[str] = []
        twice: list[str] = []
        line_of: dict[tuple[str, ...], int] = {}
        for line, cells in self.table.rows:
            ways = ((base, way) for base in bases for way in _ways(cells[self.column], base))
            base, path = next(
                ((base, file) for base, way in ways if (file := existing_file(way, there))),
                (None, None),
            )
            if base is None or path is None:
                missing.append(f"{place(line)}: {cells[self.column]} is missing")
                continue
            if not path.is_relative_to(base):  # one of them is absolute
                base, path = map(Path, map(os.path.abspath, (base, path)))
            below = path.relative_to(base) if path.is_relative_to(base) else path
            name = nfc(below.as_posix())  # the same wherever they lie
            # Whatever way it is written: ../photos/a.jpg is a.jpg of photos.
            row = (os.path.abspath(path), cells.get("start_s", ""), cells.get("end_s", ""))
            if line_of.setdefault(row, line) != line:
                twice.append(f"{place(line)}: {name} is in {place(line_of[row])} already")
            files.append(path)
            names.append(name)
        hint = f"relative paths begin at {' or '.join(map(str, bases))}"
        refuse_rows(
            self.table.file, missing, hint + f"; {root_option} gives another" * bool(root_option)
        )
        refuse_rows(self.table.file, twice, "an item is listed once")
        return files, names


def listed_files(data: str | Path, suffixes: frozenset[str], column: str | None) -> list[str]:
    """The files of a table, in its order; see :meth:`ItemTable.files`."""
    name = column or needed_path_column(data, suffixes)
    table = read_table(user_path(data), "items")
    table.require_columns(name)
    items = ItemTable(table, composed(name), ())
    items.refuse_other_media(suffixes)
    return [str(path) for path in items.files(root_option="")[0]]


def with_further(known: Taxonomy, further: Sequence[tuple[str, ...]], of: int) -> Taxonomy:
    """The training's tree with the further ones ``of`` the test's classes behind; warns of them."""
    from rince.ranks.readers import some_names
    from rince.ranks.taxonomy import Taxonomy

    if not further:
        return known
    shown = some_names(["/".join(path) for path in further])
    warn(
        f"{len(further)} of {of} classes of the test are not among those of the training: "
        f"{shown}. They are judged as classes never seen (rince evaluate RUN --test DATA)"
    )
    return Taxonomy([*known.paths, *further])


def split_rows(
    table: ItemTable, make: Callable[[ItemTable, Taxonomy | None], AnyItems]
) -> tuple[AnyItems, AnyItems]:
    """Training and test items: as the table says, or by the hashes of their keys. ``make``: (rows,
    the tree of the training's) -> items."""
    from rince.data.items import split_by_hash

    sides = table.sides()
    if sides is None:
        labels = f"the columns of labels, if {table.levels[-1]!r} is none (table.labels)"
        return split_by_hash(make(table, None), f"a column 'split', or {labels}")
    train = make(table.rows([i for i, test in enumerate(sides) if test is False]), None)
    test = make(table.rows([i for i, test in enumerate(sides) if test is True]), train.taxonomy)
    return train, test


def item_rows(
    sides: Sequence[tuple[str, Path]], suffixes: frozenset[str], output: Path, noun: str = "files"
) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table of the files of class folders. ``sides``: a split's name, "" if
    there are none, and its folder; ``output``: the table, from whose folder the paths begin."""
    listed = [
        (split, file, file.relative_to(root).parts[:-1])
        for split, root in sides
        for file in chosen_below(root, suffixes, noun)
    ]
    if not listed:
        where = ", ".join(str(root) for _, root in sides)
        raise RinceError(f"{where} holds none of these files: {', '.join(sorted(suffixes))}")
    used = {folder for _, file, _ in listed for folder in file.parents}
    if empty := [folder for _, root in sides for folder in _folders(root) if folder not in used]:
        raise RinceError(
            f"{len(empty)} folders hold none of these files ({', '.join(sorted(suffixes))}), such "
            f"as {empty[0]}: remove them, a class needs at least one"
        )
    levels, labels = path_cells([path for _, _, path in listed])
    split = [SPLIT] if listed[0][0] else []
    base = output.resolve().parent
    rows = [
        [
            _cell_of(Path(os.path.relpath(file.absolute(), base)).as_posix()),
            *cells,
            *[side] * len(split),
        ]
        for (side, file, _), cells in zip(listed, labels, strict=True)
    ]
    return ["path", *levels, *split], rows


def path_cells(paths: Sequence[tuple[str, ...]]) -> tuple[tuple[str, ...], list[list[str]]]:
    """Label paths as columns, from coarse to fine: their names, and the cells of each path, of
    which some before the class are empty where a path is shorter than another.

    Example:
        >>> path_cells([("animal", "dog", "husky"), ("boat",)])
        (('level_1', 'level_2', 'class'), [['animal', 'dog', 'husky'], ['', '', 'boat']])
    """
    depth = max(map(len, paths))
    groups = ["group"] if depth == 2 else [f"level_{i}" for i in range(1, depth)]
    cells = [
        [*path[:-1], *[""] * (depth - max(1, len(path))), *(path[-1:] or [""] * (depth > 0))]
        for path in paths
    ]
    return (*groups, *["class"] * (depth > 0)), cells


def _folders(root: Path) -> Iterator[Path]:
    for folder, inside, _ in os.walk(root):
        inside[:] = sorted(name for name in inside if not passed_over(name))
        yield from (Path(folder, name) for name in inside)


def seconds(row: Row, name: str) -> float | None:
    """A cell of seconds; None where it is empty or there is no such column."""
    cell = row[1].get(name, "")
    if not cell:
        return None
    try:
        value = as_number(cell)
    except ValueError:
        value = -1.0
    require(0 <= value < float("inf"), f"{name} must be seconds of at least 0, got {cell!r}")
    return value


def _suffix(cell: str) -> str:
    return os.path.splitext(cell)[1].lower()


def _cell_of(path: str) -> str:
    """So that no blank stands at the ends, which a reader of cells takes off."""
    return path if path == path.strip() else f"./{path}"


def _ways(cell: str, base: Path) -> Iterator[Path]:
    """What a cell may mean: a path, or one that was written on Windows."""
    yield base / user_path(cell)
    if "\\" in cell:
        yield base / cell.replace("\\", "/")


def existing_file(path: Path, there: dict[Path, dict[str, str]]) -> Path | None:
    """The file as its folders write it: macOS takes accented letters apart."""
    folder = path.parent
    if folder not in there:
        try:
            with os.scandir(_as_written(folder)) as entries:
                there[folder] = {nfc(x.name): x.path for x in entries if os.path.isfile(x.path)}
        except OSError:
            there[folder] = {}
    file = there[folder].get(nfc(path.name))
    return None if file is None else Path(file)


def _as_written(folder: Path) -> Path:
    if folder.is_dir() or folder == folder.parent:
        return folder
    above = _as_written(folder.parent)
    names = {nfc(name): name for name in os.listdir(above)}
    return above / names.get(nfc(folder.name), folder.name)
