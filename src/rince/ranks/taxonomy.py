"""Ranks from a class tree: the deeper two classes meet, the more similar they are."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from rince.core.checks import RinceError, require
from rince.core.pair_ranks import TableRanks
from rince.core.tables import read_table
from rince.ranks.class_ranks import ClassRanks
from rince.ranks.readers import (
    Names,
    Nested,
    checked_paths,
    class_folders,
    composed,
    nested_paths,
    parent_chain,
    paths_from_rows,
    some_names,
    two_parents,
)
from rince.ranks.summary import TaxonomySummary, pair_probabilities


@dataclass(frozen=True, init=False, repr=False)
class Taxonomy:
    """A tree of classes, and the rank of every pair of classes in it.

    Two classes that share their first k names, in a tree whose deepest path has D names, have
    rank D - k + 1; without a common top group they are negatives (0); a class and itself have
    rank 1. The tree may be ragged: a class that stops early has no partners at the ranks below
    the group it hangs in.

    ``paths`` is all there is to store: lists of names are plain JSON, and
    ``Taxonomy(json.loads(text))`` gives the same tree back, label order included.

    Args:
        paths: one path a class in label order; each holds the names from the top group down to
            the class itself, at least one and at most 127.

    Raises:
        ValueError: no class, an empty name, a class given twice or under two groups, or a name
            path that is both a class and a group.

    Example:
        >>> tree = Taxonomy([("animal", "dog", "husky"), ("animal", "dog", "malamute"),
        ...                  ("animal", "carp"), ("boat",)])
        >>> tree.table.tolist()
        [[1, 2, 3, 0], [2, 1, 3, 0], [3, 3, 1, 0], [0, 0, 0, 1]]
    """

    paths: tuple[Names, ...]

    def __init__(self, paths: Iterable[Sequence[str]]) -> None:
        listed = list(paths)
        places = [f"class {i}" for i in range(len(listed))]
        object.__setattr__(self, "paths", checked_paths(listed, places))

    def __repr__(self) -> str:
        return f"Taxonomy({self.num_classes} classes, {self.num_ranks} ranks)"

    # ---- where trees come from -----------------------------------------------------------

    @classmethod
    def from_folders(cls, root: str | Path) -> Taxonomy:
        """Read the tree from nested folders ``root/<group>/.../<class>/*.jpg``.

        A folder that holds images is a class, one that holds folders is a group. Hidden files and
        folders and files that are no images are passed over; links are followed. Labels are in
        sorted order of the paths, so they do not depend on the file system.

        Raises:
            RinceError: a folder that is missing, unreadable, without images, or holds both images
                and folders; or two class folders of the same name.
        """
        top = Path(root)
        if not top.is_dir():
            raise RinceError(f"{top} is not a folder; expected {top}/<group>/<class>/*.jpg")
        try:
            paths = list(class_folders(top, ()))
        except OSError as error:  # no permission, or a link that leads back to its own folder
            raise RinceError(f"cannot read {error.filename}: {error.strerror}") from error
        try:
            return cls(checked_paths(paths, [str(top.joinpath(*path)) for path in paths]))
        except ValueError as error:
            splits = {path[0].lower() for path in paths} & {"train", "val", "valid", "test"}
            hint = f"; to use one split, give its folder: {top}/train" if splits else ""
            raise RinceError(f"{error}{hint}") from None

    @classmethod
    def from_csv(cls, path: str | Path, levels: Sequence[str] | None = None) -> Taxonomy:
        """Read the tree from a table: a header, then one row a class in label order.

        The columns go from the class up to its top group::

            class,superclass,kingdom
            husky,dog,animal
            carp,,animal

        Empty cells make a ragged tree.

        Args:
            path: a table that :func:`~rince.core.tables.read_table` reads: .csv, .tsv, .jsonl or
                .parquet, in UTF-8.
            levels: names of the columns to use, from the class to the top group; by default the
                column ``class`` and all columns to the right of it.

        Raises:
            RinceError: no such file, a missing column, rows with too many cells, a row without a
                class, a class given twice, or a group under two different parents.
        """
        file = Path(path)
        table = read_table(file, "class table", fill_short_rows=True)
        try:
            require(
                table.columns != (),
                "the table is empty; expected a header such as class,superclass",
            )
            rows = [(line, list(cells.values())) for line, cells in table.rows]
            return cls(paths_from_rows([(0, list(table.columns)), *rows], levels))
        except ValueError as error:
            raise RinceError(f"{file}: {error}") from None

    @classmethod
    def from_dict(cls, tree: Nested) -> Taxonomy:
        """Read the tree from nested dicts and lists, labels in the order written.

        A dict maps groups to what they hold, a list holds classes (strings) and further dicts:
        ``{"animal": [{"dog": ["husky", "malamute"]}, "carp"]}``.

        Raises:
            ValueError: a group that holds nothing, something that is no dict, list or string, a
                class given twice or under two groups.
        """
        return cls(nested_paths(tree, ()))

    @classmethod
    def from_parents(
        cls, edges: Mapping[str, str | None] | Iterable[tuple[str, str | None]]
    ) -> Taxonomy:
        """Read the tree from child -> parent edges: ``{"husky": "dog", "dog": "animal"}``.

        Classes are the names that are nobody's parent, labels in the order written. Parent None
        says that a name is at the top, which is needed only for a class without any group.

        Raises:
            ValueError: a cycle, a name with two parents, an empty name.
        """
        parents: dict[str, str | None] = {}
        for child, parent in edges.items() if isinstance(edges, Mapping) else edges:
            if child in parents and parents[child] != parent:
                raise ValueError(two_parents(child, parents[child], parent))
            parents[child] = parent
        groups = set(parents.values())
        # All chains are walked, not only those of classes: a cycle may have no class below it.
        chains = {name: parent_chain(name, parents) for name in parents}
        return cls(chain for name, chain in chains.items() if name not in groups)

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
        """Class names in label order."""
        return tuple(path[-1] for path in self.paths)

    @cached_property
    def table(self) -> Tensor:
        """(C, C) int8: the rank of a key of class b for a query of class a. Clone to edit."""
        table = torch.zeros(self.num_classes, self.num_classes, dtype=torch.int8)
        for level in range(self.num_ranks, 0, -1):  # the finest shared group is written last
            labels = self.labels_at(level)
            table[labels[:, None] == labels[None, :]] = level
        return table

    @cached_property
    def class_ranks(self) -> ClassRanks:
        """The table with its names, in the form in which other rank sources give theirs."""
        return ClassRanks(self.classes, self.table, self.num_ranks)

    def index(self, name: str) -> int:
        """The label of a class.

        Raises:
            ValueError: no such class; the message names the closest ones.
        """
        label = self._index.get(composed(name))
        if label is not None:
            return label
        if any(name in path[:-1] for path in self.paths):
            raise ValueError(f"{name!r} is a group, not a class; only classes have labels")
        close = difflib.get_close_matches(name, self.classes, n=3)
        hint = (
            f"did you mean {' or '.join(map(repr, close))}?"
            if close
            else f"the {self.num_classes} classes are {some_names(self.classes)}"
        )
        raise ValueError(f"unknown class {name!r}; {hint}")

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
        numbers = {group: i for i, group in enumerate(self._groups(level))}
        length = self._prefix_length(level)
        return torch.tensor([numbers[path[:length]] for path in self.paths])

    def group_names(self, level: int) -> tuple[str, ...]:
        """Names of the groups at a level, in the numbering of :meth:`labels_at`.

        A group is called by its last name, or by its whole path where that would be ambiguous.
        """
        groups = self._groups(level)
        uses = Counter(group[-1] for group in groups)
        return tuple(g[-1] if uses[g[-1]] == 1 else "/".join(g) for g in groups)

    def flat_table(self, level: int) -> Tensor:
        """(C, C) int8: 1 where two classes are in the same group at that level, else 0."""
        labels = self.labels_at(level)
        return (labels[:, None] == labels[None, :]).to(torch.int8)

    def ranks(
        self,
        query_labels: Tensor,
        key_labels: Tensor,
        *,
        ignore_self: bool = False,
        key_valid: Tensor | None = None,
    ) -> TableRanks:
        """The ranks between two sides of labels: what a ranked loss takes.

        Args:
            query_labels: (Q,) int64 in [0, C).
            key_labels: (K,) int64 in [0, C) where ``key_valid``.
            ignore_self: the first Q keys are the queries themselves; those pairs are ignored.
            key_valid: (K,) bool; False marks keys to ignore, whatever their label.

        Raises:
            ValueError: wrong shapes, or a label outside [0, C).

        Example:
            >>> labels = torch.tensor([0, 2, 6])  # T-shirt, Pullover, Shirt
            >>> tree = Taxonomy.fashion_mnist()
            >>> tree.ranks(labels, labels, ignore_self=True).tile(slice(None), slice(None)).tolist()
            [[-1, 2, 2], [2, -1, 2], [2, 2, -1]]
        """
        return self.class_ranks.ranks(
            query_labels, key_labels, ignore_self=ignore_self, key_valid=key_valid
        )

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
        """
        require(batch_size >= 1, f"batch_size must be at least 1, got {batch_size}")
        size, codes = self.num_classes, (*range(1, self.num_ranks + 1), 0)
        joint = pair_probabilities(size, batch_size, counts)  # (C, C)
        table = self.table
        upper = torch.ones_like(table, dtype=torch.bool).triu()
        has_sibling = (table == 2).any(dim=1).tolist()
        return TaxonomySummary(
            num_classes=size,
            num_ranks=self.num_ranks,
            batch_size=batch_size,
            groups=tuple(len(self._groups(level)) for level in range(1, self.num_ranks + 1)),
            pairs=tuple(int(((table == code) & upper).sum()) for code in codes),
            covered=tuple(int((table == code).any(dim=1).sum()) for code in codes),
            expected=tuple((batch_size - 1) * float(joint[table == code].sum()) for code in codes),
            alone=tuple(
                name
                for name, sibling in zip(self.classes, has_sibling, strict=True)
                if self.num_ranks > 1 and not sibling
            ),
            empty=tuple(
                name
                for name, count in zip(self.classes, [] if counts is None else counts, strict=False)
                if int(count) == 0
            ),
        )

    @cached_property
    def _index(self) -> dict[str, int]:
        return {composed(name): i for i, name in enumerate(self.classes)}

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
