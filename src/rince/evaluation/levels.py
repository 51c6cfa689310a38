"""The levels of a class tree by name: fine, coarse and those between."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rince.core.checks import warn
from rince.data.items import Items
from rince.ranks.taxonomy import Taxonomy


def coarse_level(taxonomy: Taxonomy) -> int:
    """The level called coarse, as in ``taxonomy.labels_at(level)``: the top one below the root,
    which are the levels of a single group, as where all paths begin with "entity"; the parents of
    the deepest classes are not counted among them. 1 in a flat list of classes."""
    level = taxonomy.num_ranks
    while level > 2 and not taxonomy.codes[:, level - 1].any():
        level -= 1
    return level


def level_names(taxonomy: Taxonomy, columns: Sequence[str] | None) -> dict[str, str]:
    """What the levels of :func:`tree_levels` are called by the columns of the data, from coarse to
    fine: ``{"fine": "model", "coarse": "brand"}``; {} where the tree has not a level a column."""
    if columns is None or len(columns) != taxonomy.num_ranks:
        return {}
    return dict(zip(tree_levels(taxonomy), reversed(columns), strict=False))


def tree_levels(taxonomy: Taxonomy) -> dict[str, Tensor]:
    """Name -> (C,) int64 group of each class, from fine to coarse.

    "fine" is the class itself, "coarse" the top level below the root, "depth-2" the groups by the
    first two names of a path, and so on; a class that ends above a depth is its own group there.
    A folder one level deeper adds a level between, and changes neither fine nor coarse.

    Example:
        >>> tree = Taxonomy([("dog", "husky"), ("dog", "hound", "basset"), ("cat",)])
        >>> {name: groups.tolist() for name, groups in tree_levels(tree).items()}
        {'fine': [0, 1, 2], 'depth-2': [2, 1, 0], 'coarse': [1, 1, 0]}
    """
    top = coarse_level(taxonomy)
    names = {top: "coarse", 1: "fine"}
    return {
        names.get(level, f"depth-{taxonomy.num_ranks - level + 1}"): taxonomy.labels_at(level)
        for level in range(1, top + 1)
    }


def warn_of_empty_levels(
    items: Items, tree: Taxonomy | None = None, side: str = "", option: str = "--table.labels"
) -> None:
    """Name the ranks that no two items have, as where labels were given from fine to coarse.

    Args:
        tree: that ranks them; None: their own. side: which items these are, for the message.
        option: that names the columns of their labels.
    """
    tree = tree or items.taxonomy
    empty = empty_ranks(tree, items.labels) if len(torch.unique(items.labels)) > 1 else []
    advice = _other_levels(tree, (items.marks and items.marks.levels) or (), empty, option)
    for rank in empty:
        warn(
            f"no two {side}{items.noun} have rank {rank}, so nothing is learned or measured of it: "
            f"{advice}"
        )


def empty_ranks(tree: Taxonomy, labels: Tensor) -> list[int]:
    """Ranks from 2 on that no two items with these labels have."""
    codes = tree.codes[torch.unique(labels)]
    groups = [len(torch.unique(column)) for column in codes.unbind(dim=1)]
    # Where as many groups are left one level higher, no two have met.
    return [i + 1 for i in range(1, len(groups)) if groups[i] == groups[i - 1]]


def _other_levels(tree: Taxonomy, levels: Sequence[str], empty: Sequence[int], option: str) -> str:
    """What to do about levels of a tree that no two classes share."""
    if len(levels) != tree.num_ranks or len(levels) < 2:
        return (
            "are the labels from coarse to fine? `rince ranks` shows the tree; a level that no two "
            "classes share is best left out of the labels"
        )
    if len(empty) == len(levels) - 1:
        return f"did you mean {option} {','.join(reversed(levels))} (coarse first)?"
    kept = [x for i, x in enumerate(reversed(levels), 1) if i not in empty]
    return f"{option} {','.join(reversed(kept))} leaves such levels out"
