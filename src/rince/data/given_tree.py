"""Superclasses of the classes of some data, from a class tree in a file: ``ranks.tree``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from rince.core.checks import RinceError, warn
from rince.core.files import user_path
from rince.core.tables import read_as
from rince.data.items import AnyItems, Splits
from rince.ranks.readers import some_names
from rince.ranks.taxonomy import Taxonomy


@dataclass(frozen=True)
class GivenTree:
    """A class tree for data of another source. Classes go by their names, or by the last names of
    their paths, as of :meth:`Taxonomy.index <rince.Taxonomy.index>`.

    Args:
        taxonomy: the tree, which may have more classes than the data.
        file: that it is from, as it was given.
        recorded: it is that of a run, for whatever data are met later: classes that it lacks stay
            where the data have them. Otherwise it was given for these data, and must have all.
    """

    taxonomy: Taxonomy
    file: str
    recorded: bool = False

    def places(self, classes: Taxonomy, data: str) -> Taxonomy:
        """The classes of some data, in their order, where the tree has them.

        Raises:
            RinceError: the tree lacks some of them, or puts them elsewhere than the data do.
        """
        names = ["/".join(path) for path in classes.paths]
        try:
            if self.recorded:
                return self._known(classes, names, data)
            return self.taxonomy.aligned_to(names)
        except ValueError as error:
            hint = (
                f"Add them to {self.file} (with an empty parent, if they have none), or rename them"
            )
            if classes.num_ranks > 1:
                example = max(names, key=lambda name: name.count("/"))
                hint = (
                    f"{data} has superclasses of its own, such as {example}: leave out ranks.tree; "
                    f"or, of a table, name the column of the class alone (table.labels, --levels)"
                )
            raise RinceError(
                f"the tree in {self.file} does not fit the classes of {data}: {error}. {hint}"
            ) from None

    def _known(self, classes: Taxonomy, names: Sequence[str], data: str) -> Taxonomy:
        called = [self.taxonomy.called(name) for name in names]
        lacking = [name for name, labels in zip(names, called, strict=True) if len(labels) != 1]
        if lacking:
            warn(
                f"{data}: {len(lacking)} of {len(names)} classes are not in the tree of the run "
                f"({self.file}), and stay where the data have them: {some_names(lacking)}. To give "
                f"another tree: --ranks.tree FILE"
            )
        return Taxonomy(
            self.taxonomy.paths[labels[0]] if len(labels) == 1 else own
            for labels, own in zip(called, classes.paths, strict=True)
        )


def read_tree(file: str | Path | None, encoding: str | None = None) -> GivenTree | None:
    """The tree in a file; None: none was given.

    Raises:
        RinceError: a file that is not there, has no superclasses, or is no table of a tree: see
            :meth:`Taxonomy.from_csv <rince.Taxonomy.from_csv>`.
    """
    if file is None:
        return None
    with read_as(encoding):
        taxonomy = Taxonomy.from_csv(user_path(file))
    if taxonomy.num_ranks == 1:
        raise RinceError(
            f"{file} has no superclasses: expected a table of the columns child and parent, or of "
            f"class and, to the right of it, superclass and so on up to the top"
        )
    return GivenTree(taxonomy, str(file))


def parts_in(tree: GivenTree | None, parts: Sequence[AnyItems]) -> list[AnyItems]:
    """Items with their classes where the tree has them, and its name behind theirs; of several
    parts, training and test, the last has the classes of all."""
    if tree is None:
        return list(parts)
    whole = tree.places(parts[-1].taxonomy, parts[-1].name)
    return [_moved(x, Taxonomy(whole.paths[: x.taxonomy.num_classes]), tree) for x in parts]


def items_in(tree: GivenTree | None, items: AnyItems) -> AnyItems:
    """The same of one part."""
    return parts_in(tree, [items])[0]


def splits_in(tree: GivenTree | None, splits: Splits) -> Splits:
    """The same of two."""
    return Splits(*parts_in(tree, [splits.train, splits.test]))


def _moved(items: AnyItems, taxonomy: Taxonomy, tree: GivenTree) -> AnyItems:
    if taxonomy == items.taxonomy:  # they have been here before
        return items
    return items.with_taxonomy(taxonomy, f"{items.name} ({PurePath(tree.file).stem})")
