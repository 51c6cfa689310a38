"""Ranks from a class tree: the deeper two classes meet, the more similar they are."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor

from rince.core.checks import BadItems, RinceError, require, warn
from rince.core.files import IMAGE_SUFFIXES, absent, splits_among, user_path
from rince.core.labels import as_array, integers, require_classes, shortest_endings
from rince.core.notebook import as_html
from rince.core.pair_ranks import IdentityRanks, TableRanks, check_pair_labels, may_read
from rince.core.tables import composed, differing_in_capitals, read_table
from rince.ranks.class_ranks import ClassRanks
from rince.ranks.level_ranks import LevelRanks, compare_levels
from rince.ranks.readers import (
    EDGES,
    Names,
    Nested,
    checked_paths,
    class_folders,
    label_names,
    name_of,
    nested_paths,
    parent_chain,
    paths_from_labels,
    paths_of_table,
    some_names,
    two_parents,
)
from rince.ranks.summary import TaxonomySummary, tree_summary

MAX_TABLE_CLASSES = 2048  # 4 MB; above, ranks() compares level by level
_LOOKED_AT = 20_000  # classes compared with a name that is none of them: a second

_HINTS = 8  # names that are no class, each with those near it

_SHOWN_CLASSES = 20  # in a notebook


@dataclass(frozen=True, init=False, repr=False)
class Taxonomy:
    """A tree of classes, and the rank of every pair of classes in it.

    Two classes that share their first k names, in a tree whose deepest path has D names, have
    rank D - k + 1; without a common top group they are negatives (0); a class and itself have
    rank 1. The tree may be ragged: a class that stops early has no partners at the ranks below
    the group it hangs in.

    A class is its whole path, so a name may occur again below another parent (men/shirts and
    women/shirts). Names are compared and kept in Unicode's form NFC, without blanks at their ends.

    ``paths`` is all there is to store: lists of names are plain JSON, and
    ``Taxonomy(json.loads(text))`` gives the same tree back, label order included.

    Args:
        paths: one path per class in label order; each holds the names from the top group down to
            the class itself, at least one and at most 127.

    Raises:
        ValueError: no class, an empty name, a class given twice, a path that is both a class and
            a group, or names of one group that look the same, such as "1" and "1.0".

    Example:
        >>> tree = Taxonomy([("animal", "dog", "husky"), ("animal", "dog", "malamute"),
        ...                  ("animal", "carp"), ("boat",)])
        >>> tree.table.tolist()
        [[1, 2, 3, 0], [2, 1, 3, 0], [3, 3, 1, 0], [0, 0, 0, 1]]
    """

    paths: tuple[Names, ...]

    def __init__(self, paths: Iterable[Sequence[str]]) -> None:
        object.__setattr__(self, "paths", checked_paths(list(paths)))

    def __repr__(self) -> str:
        return f"Taxonomy({self.num_classes} classes, {self.num_ranks} ranks)"

    def _repr_html_(self) -> str:
        left_out = self.num_classes - _SHOWN_CLASSES
        paths = [" > ".join(path) for path in self.paths[:_SHOWN_CLASSES]]
        more = [f"... and {left_out} more"] if left_out > 0 else []
        return as_html("\n".join([repr(self), *paths, *more]))

    # ---- where trees come from -----------------------------------------------------------

    @classmethod
    def from_folders(cls, root: str | Path) -> Taxonomy:
        """Read the tree from nested folders ``root/<group>/.../<class>/*.jpg``.

        A folder that holds images is a class, one that holds folders is a group. Hidden files and
        folders and files that are not images are skipped; links are followed. Labels are in
        sorted order of the paths, so they do not depend on the file system.

        Raises:
            RinceError: a folder that is missing, unreadable, without images, or holds both images
                and folders; or two folders whose names look the same.
        """
        return tree_of_folders(root)[0]

    @classmethod
    def from_csv(cls, path: str | Path, levels: Sequence[str] | None = None) -> Taxonomy:
        """Read the tree from a table: a header, then one row per class in label order.

        The columns go from the class up to its top group::

            class,superclass,kingdom
            husky,dog,animal
            carp,,animal

        Empty cells make a ragged tree. A table of the two columns ``child`` and ``parent`` is read
        as :meth:`from_parents` reads it; an empty parent says that a name is at the top.

        Args:
            path: a table that :func:`~rince.core.tables.read_table` reads: .csv, .tsv, .jsonl or
                .parquet.
            levels: names of the columns to use, from the class to the top group; by default the
                column ``class`` and all columns to the right of it.

        Raises:
            RinceError: no such file, a missing column, rows with too many cells, a row without a
                class, or a class given twice.
        """
        file = user_path(path)
        table = read_table(file, "class table", fill_short_rows=True)
        try:
            if levels is None and {*table.columns} == set(EDGES):
                child, parent = map(table.column, EDGES)
                return cls.from_parents([*zip(child, (x or None for x in parent), strict=True)])
            return cls(paths_of_table(table, levels))
        except ValueError as error:
            raise RinceError(f"{file}: {error}") from None

    @classmethod
    def from_dict(cls, tree: Nested) -> Taxonomy:
        """Read the tree from nested dicts and lists, labels in the order written.

        A dict maps groups to what they hold, a list holds classes (strings) and further dicts:
        ``{"animal": [{"dog": ["husky", "malamute"]}, "carp"]}``.

        Raises:
            ValueError: a group that holds nothing, something that is not a dict, list or string, a
                class given twice.
        """
        return cls(nested_paths(tree, ()))

    @classmethod
    def from_parents(cls, edges: Any) -> Taxonomy:
        """Read the tree from child -> parent edges: ``{"husky": "dog", "dog": "animal"}``.

        A name is one node here, so it has one parent. Numbers are names as in tables: 7 is "7".
        Pairs, a pandas column with an index and a table of two columns are taken too.

        Classes are the names that are nobody's parent, labels in the order written. Parent None
        says that a name is at the top, which is needed only for a class without any group.

        Raises:
            ValueError: a cycle, a name with two parents, an empty name.
        """
        parents: dict[str, str | None] = {}
        named = (
            hasattr(edges, "items") and getattr(edges, "ndim", 1) == 1
        )  # a dict, a pandas column
        pairs = list(edges.items() if named else as_array(edges, "edges").tolist())
        require(
            all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs),
            "edges are a dict child -> parent, or rows of a child and its parent",
        )
        for name, above in pairs:
            # None and NaN, as a data frame writes it, are no parent; an empty name is refused.
            missing = not isinstance(above, str) and not name_of(above)
            child, parent = composed(name_of(name)), None if missing else composed(name_of(above))
            if child in parents and parents[child] != parent:
                raise ValueError(two_parents(child, parents[child], parent))
            parents[child] = parent
        groups = set(parents.values())
        # All chains are walked, not only those of classes: a cycle may have no class below it.
        chains = {name: parent_chain(name, parents) for name in parents}
        return cls(chain for name, chain in chains.items() if name not in groups)

    @classmethod
    def from_labels(cls, labels: Any, *, finest_first: bool) -> Taxonomy:
        """Read the tree from label columns of items: every different row is a class.

        A class is its whole row, so a label may occur again below another parent.
        :meth:`index` of the same rows, coarse to fine, gives each item's class.

        Args:
            labels: (N, L) integers of at least 0, or names; one row per item, L from 1 to 127. A
                tensor, a numpy array, a pandas table or lists.
            finest_first: column 0 is the class and column L - 1 the top level; False: the reverse.

        Returns:
            Its classes are in rising order of the finest column, then of the next coarser one:
            numbers 0 to C - 1 are the labels.

        Raises:
            ValueError: another shape, no row, a label that is missing, negative or no
                integer nor name.

        Example:
            >>> tree = Taxonomy.from_labels([[0, 7], [1, 7], [2, 9], [1, 7]], finest_first=True)
            >>> tree.paths
            (('7', '0'), ('7', '1'), ('9', '2'))
        """
        return cls(paths_from_labels(labels, finest_first))

    @classmethod
    def cifar100(cls) -> Taxonomy:
        """CIFAR-100: 20 superclasses of 5 classes, labels as in the data set's meta file."""
        from rince.ranks.builtin import CIFAR100

        return cls(sorted(nested_paths(CIFAR100, ()), key=lambda path: path[-1]))

    @classmethod
    def fashion_mnist(cls) -> Taxonomy:
        """Fashion-MNIST: tops (4 classes), footwear (3), and trousers, dress and bag alone."""
        from rince.ranks.builtin import FASHION_MNIST

        return cls(FASHION_MNIST)

    # ---- what is in the tree -------------------------------------------------------------

    @property
    def num_classes(self) -> int:
        """C, the number of classes."""
        return len(self.paths)

    @cached_property
    def num_ranks(self) -> int:
        """The highest rank: the number of names in the deepest path."""
        return max(len(path) for path in self.paths)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order, no two alike: the shortest ending of its path that a class
        has alone, ``shirts`` or, where there are others, ``men/shirts``."""
        return shortest_endings(self.paths)

    @cached_property
    def table(self) -> Tensor:
        """(C, C) int8: the rank of a key of class b for a query of class a. Clone to edit.

        Made when it is first asked for: of 20,000 classes it takes 400 MB.
        """
        return compare_levels(self.codes, self.codes)

    @cached_property
    def codes(self) -> Tensor:
        """(C, R) int64: :meth:`labels_at` levels 1 to R, finest first. Clone to edit."""
        columns = []
        for level in range(1, self.num_ranks + 1):
            length = self._prefix_length(level)
            numbers = {group: i for i, group in enumerate(self._groups(level))}
            columns.append(integers([numbers[path[:length]] for path in self.paths]))
        return torch.stack(columns, dim=1)

    @cached_property
    def class_ranks(self) -> ClassRanks:
        """The table with its names, in the form in which other rank sources give theirs."""
        return ClassRanks(self.classes, self.table, self.num_ranks)

    @overload
    def index(self, name: str) -> int: ...

    @overload
    def index(self, name: Any) -> Tensor: ...

    def index(self, name: Any) -> int | Tensor:
        """The label of a class, or the labels of many.

        Args:
            name: the class's path, ``"men/shirts"``, or an ending of it that no other class has,
                ``"shirts"``. Or a sequence of such names: a list, a numpy array, a pandas column;
                or of paths, (N, L) names or numbers from coarse to fine, such as the rows that
                :meth:`from_labels` read.

        Returns:
            An int; of a sequence (N,) int64.

        Raises:
            ValueError: no such class, with the closest ones; or several, with their paths.

        Example:
            >>> tree = Taxonomy.from_dict({"men": ["shirts", "ties"], "women": ["shirts"]})
            >>> tree.index("ties"), tree.index(["women/shirts", "ties"])
            (1, tensor([2, 1]))
        """
        if isinstance(name, str | Real):
            return self._indices([composed(name_of(name))])[0]
        names = as_array(name, "names")
        require(
            names.ndim in (1, 2) and (names.size == 0 or names.dtype.kind in "OUSTiu"),
            f"expected names, or a row of names per class, got an array of shape {names.shape} and "
            f"type {names.dtype}",
        )
        rows = label_names(names if names.ndim == 2 else names[:, None])
        return integers(self._indices(["/".join(row) for row in rows]))

    def aligned_to(self, classes: Sequence[str]) -> Taxonomy:
        """The tree whose labels are those of a list of classes; further classes are left out.

        torchvision's ``ImageFolder`` sorts its classes, and a table keeps the order of its file:
        ``tree.aligned_to(dataset.classes)`` makes the labels of the one those of the other.

        Args:
            classes: names or paths in label order, each a class of this tree, see :meth:`index`.

        Raises:
            ValueError: a name that the tree does not have, or a class that is named twice.

        Example:
            >>> tree = Taxonomy.from_dict({"dog": ["husky"], "cat": ["manx"]})
            >>> tree.aligned_to(["manx", "husky"]).paths
            (('cat', 'manx'), ('dog', 'husky'))
        """
        labels = self.index(list(classes)).tolist()
        twice = [self.classes[label] for label, count in Counter(labels).items() if count > 1]
        require(not twice, f"{some_names(twice)}: classes that are named twice")
        return Taxonomy([self.paths[label] for label in labels])

    def labels_at(self, level: int) -> Tensor:
        """The group of each class at a level.

        Args:
            level: 1 = the class itself, 2 = its parent group, ..., ``num_ranks`` = the top group.
                Levels are counted from the deepest classes; a class that stops early stays a
                group of its own until the level where it hangs in the tree.

        Returns:
            (C,) int64. Groups above level 1 are numbered in sorted order of their paths (for
            CIFAR-100: the official coarse labels).
        """
        self._prefix_length(level)  # refuses a level that the tree does not have
        return self.codes[:, level - 1].clone()

    def group_names(self, level: int) -> tuple[str, ...]:
        """Names of the groups at a level, in the numbering of :meth:`labels_at`.

        A group is called by the shortest ending of its path that it has alone.
        """
        return shortest_endings(self._groups(level))

    def flat_table(self, level: int) -> Tensor:
        """(C, C) int8: 1 where two classes are in the same group at that level, else 0."""
        labels = self.labels_at(level)
        return (labels[:, None] == labels[None, :]).to(torch.int8)

    def ranks(
        self,
        query_labels: Any,
        key_labels: Any,
        *,
        ignore_self: bool = False,
        key_valid: Tensor | None = None,
        validate: bool = True,
    ) -> TableRanks | LevelRanks:
        """The ranks between two sides of labels: what a ranked loss takes.

        With more than 2,048 classes they are compared level by level, and no table is made.

        Args:
            query_labels: (Q,) integers in [0, C) of any type: a tensor, a numpy array, a list, a
                pandas column. Or the classes' names.
            key_labels: (K,) the same; in [0, C) where ``key_valid``.
            ignore_self: the first Q keys are the queries themselves; those pairs are ignored.
            key_valid: (K,) bool; False marks keys to ignore, whatever their label.
            validate: also check labels on a GPU, which is waited for.

        Raises:
            ValueError: wrong shapes, a label outside [0, C), or the name of no class.

        Example:
            >>> tree = Taxonomy.fashion_mnist()
            >>> labels = [0, 2, 6]  # T-shirt, Pullover, Shirt
            >>> tree.ranks(labels, labels, ignore_self=True).tile(slice(None), slice(None)).tolist()
            [[-1, 2, 2], [2, -1, 2], [2, 2, -1]]
        """
        query, key = self._labels(query_labels, key_labels)
        if self.num_classes <= MAX_TABLE_CLASSES:
            return self.class_ranks.ranks(
                query, key, ignore_self=ignore_self, key_valid=key_valid, validate=validate
            )
        codes = self._codes_of(query, key, key_valid, validate)
        return LevelRanks(*codes, finest_first=True, ignore_self=ignore_self, key_valid=key_valid)

    def same_group(
        self,
        level: int,
        query_labels: Any,
        key_labels: Any,
        *,
        ignore_self: bool = False,
        key_valid: Tensor | None = None,
        validate: bool = True,
    ) -> TableRanks | IdentityRanks:
        """One rank between two sides of labels: 1 in the same group at a level, 0 otherwise.

        Args:
            level: as of :meth:`labels_at`. The others as of :meth:`ranks`.
        """
        self._prefix_length(level)  # refuses a level that the tree does not have
        query, key = self._labels(query_labels, key_labels)
        if self.num_classes <= MAX_TABLE_CLASSES:
            if level not in self._same_groups:
                table = self.flat_table(level)
                self._same_groups[level] = ClassRanks(self.classes, table, 1)
            return self._same_groups[level].ranks(
                query, key, ignore_self=ignore_self, key_valid=key_valid, validate=validate
            )
        codes = self._codes_of(query, key, key_valid, validate)
        groups = (of_side[:, level - 1] for of_side in codes)
        return IdentityRanks(*groups, ignore_self=ignore_self, key_valid=key_valid)

    def describe(
        self, batch_size: int = 256, counts: Sequence[int] | Tensor | None = None
    ) -> TaxonomySummary:
        """What the ranks look like before any training, and what is likely to go wrong.

        Args:
            batch_size: B, images in a batch drawn at random (one view each).
            counts: (C,) images of each class; the batch is then B different images. By default
                classes are equally frequent and the data set is large.

        Raises:
            ValueError: ``counts`` does not fit the classes, or holds fewer than B images.

        Takes time and memory in proportion to the number of classes.
        """
        require(batch_size >= 1, f"batch_size must be at least 1, got {batch_size}")
        return tree_summary(self.classes, self.paths, self.codes, batch_size, counts)

    def _labels(self, query_labels: Any, key_labels: Any) -> tuple[Tensor, Tensor]:
        """Of both sides, from integers or names."""
        query = self._labels_of("query labels", query_labels)
        same = key_labels is query_labels
        return query, query if same else self._labels_of("key labels", key_labels)

    def _labels_of(self, side: str, labels: Any) -> Tensor:
        if isinstance(labels, Tensor):
            return integers(labels, side)
        array = as_array(labels, side)
        if array.dtype.kind in "OUST" and any(isinstance(x, str) for x in array.flat):
            return self.index(array)
        return integers(array, side)

    def _codes_of(
        self, query_labels: Tensor, key_labels: Tensor, key_valid: Tensor | None, validate: bool
    ) -> Iterator[Tensor]:
        """(Q, R) and (K, R): the groups of the queries and of the keys."""
        check_pair_labels(query_labels, key_labels, False, key_valid)
        if key_valid is not None:  # other keys may carry any label
            key_labels = torch.where(key_valid, key_labels, 0)
        for side, labels in (("query", query_labels), ("key", key_labels)):
            if may_read(labels, validate):
                require_classes(
                    labels, self.num_classes, f"{side}_labels", "the classes of the tree"
                )
            if labels.device not in self._codes_on:
                self._codes_on[labels.device] = self.codes.to(labels.device)
            yield self._codes_on[labels.device][labels]

    @cached_property
    def _codes_on(self) -> dict[torch.device, Tensor]:
        return {}

    @cached_property
    def _same_groups(self) -> dict[int, ClassRanks]:
        return {}

    @cached_property
    def _label_of_path(self) -> dict[str, int]:
        """The class of a whole path; no two are written the same."""
        return {"/".join(path): label for label, path in enumerate(self.paths)}

    @cached_property
    def _labels_of_ending(self) -> dict[str, list[int]]:
        """The classes whose path ends in whole names that are written so, or is."""
        labels: dict[str, list[int]] = {}
        for label, path in enumerate(self.paths):
            for k in range(len(path)):
                labels.setdefault("/".join(path[k:]), []).append(label)
        return labels

    def called(self, name: str) -> list[int]:
        """The labels of the classes of a name: of its path, or else of all paths that end so."""
        name = composed(name)
        if name in self._label_of_path:
            return [self._label_of_path[name]]
        named = self._labels_of_ending.get(name, [])
        # Names may hold a / themselves: first those of which it is more.
        return sorted(named, key=lambda label: -len(self.paths[label][-1]))

    def _indices(self, names: Sequence[str]) -> list[int]:
        called = {name: self.called(name) for name in dict.fromkeys(names)}
        if wrong := [name for name, labels in called.items() if len(labels) != 1]:
            raise self._no_classes(wrong)
        return [called[name][0] for name in names]

    def _no_classes(self, names: Sequence[str]) -> ValueError:
        """What is wrong with names of which none is that of one class."""
        if len(names) > 1:
            more = f" (and {len(names) - _HINTS} more)" if len(names) > _HINTS else ""
            return ValueError(
                f"{len(names)} names are none of the {self.num_classes} classes: "
                f"{', '.join(map(self._hinted, names[:_HINTS]))}{more}"
            )
        name = names[0]
        if named := self._named(name):
            return ValueError(f"{len(named)} classes are called {name!r}: say {some_names(named)}")
        if self._is_group(name):
            return ValueError(f"{name!r} is a group, not a class; only classes have labels")
        close = self._near(name)
        hint = (
            f"did you mean {' or '.join(map(repr, close))}?"
            if close
            else f"the {self.num_classes} classes are {some_names(self.classes)}"
        )
        return ValueError(f"unknown class {name!r}; {hint}")

    def _hinted(self, name: str) -> str:
        """One of several such names, with those that may be meant."""
        named = self._named(name)
        if not named and self._is_group(name):
            return f"{name!r} is a group"
        meant = " or ".join(map(repr, named or self._near(name)))
        return f"{name!r} (did you mean {meant}?)" if meant else repr(name)

    def _named(self, name: str) -> list[str]:
        return ["/".join(self.paths[label]) for label in self.called(name)]

    def _is_group(self, name: str) -> bool:
        return any(name in path[:-1] for path in self.paths)

    def _near(self, name: str) -> list[str]:
        return difflib.get_close_matches(name, self.classes[:_LOOKED_AT], n=3)

    def _prefix_length(self, level: int) -> int:
        require(
            1 <= level <= self.num_ranks,
            f"level must lie between 1 (the classes) and {self.num_ranks} (the top groups of this "
            f"tree), got {level}",
        )
        return self.num_ranks - level + 1

    def _groups(self, level: int) -> list[Names]:
        # A class that stops early is its own group here because no class path is a prefix of
        # another one.
        length = self._prefix_length(level)
        groups = dict.fromkeys(path[:length] for path in self.paths)
        return list(groups) if level == 1 else sorted(groups)


def tree_of_folders(root: str | Path) -> tuple[Taxonomy, list[Names]]:
    """See :meth:`Taxonomy.from_folders`; and the folder of each class below ``root``, as its file
    system writes it."""
    top = user_path(root)
    if not top.is_dir():
        raise RinceError(f"{absent('folder', top)}; expected {top}/<group>/<class>/*.jpg")
    empty: dict[Path, str] = {}
    folders = list(class_folders(top, (), empty))
    if empty:
        without = [f"{folder} {what}" for folder, what in empty.items()]
        raise BadItems(
            f"{some_names(without)}; a class folder needs at least one image "
            f"({', '.join(sorted(IMAGE_SUFFIXES))}): put one there, or remove the folder",
            [f"{problem}: a class folder needs at least one image" for problem in without],
        )
    splits = splits_among(path[0] for path in folders)
    if "train" in splits and len(splits) > 1:
        raise RinceError(
            f"{top} holds splits ({', '.join(splits.values())}), which are no groups of classes; "
            f"to use one, give its folder: {top}/{splits['train']}"
        )
    groups = {"/".join(path[:depth]) for path in folders for depth in range(1, len(path) + 1)}
    if twins := differing_in_capitals(groups):
        warn(
            f"{top} holds {twins[0]} and {twins[1]}, which are two classes: if they are one, put "
            f"the images into one folder"
        )
    try:
        places = [str(top.joinpath(*path)) for path in folders]
        return Taxonomy(checked_paths(folders, places)), folders
    except ValueError as error:
        raise RinceError(str(error)) from None
