"""A table of ranks between named classes: what class trees and similarity scores both come to."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rince.core.checks import require
from rince.core.pair_ranks import DenseRanks, TableRanks


@dataclass(frozen=True, eq=False)
class ClassRanks:
    """The rank of every pair of classes.

    Args:
        classes: C names in label order.
        table: (C, C) integers; ``table[a, b]`` is the rank of a key of class b for a query of
            class a: 1 = most similar, 0 = negative, -1 = ignored. Clone to edit.
        num_ranks: highest rank that the source can give, whether or not a pair has it.

    Raises:
        ValueError: a table that does not fit the classes, or a code beyond ``num_ranks``.
    """

    classes: tuple[str, ...]
    table: Tensor
    num_ranks: int

    def __post_init__(self) -> None:
        size = len(self.classes)
        require(
            self.table.shape == (size, size),
            f"the rank table of {size} classes must have shape ({size}, {size}), got "
            f"{tuple(self.table.shape)}",
        )
        object.__setattr__(self, "table", DenseRanks(self.table, self.num_ranks).matrix)

    @property
    def num_classes(self) -> int:
        """C, the number of classes."""
        return len(self.classes)

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
        """
        return TableRanks(
            query_labels,
            key_labels,
            self.table,
            ignore_self=ignore_self,
            key_valid=key_valid,
            num_ranks=self.num_ranks,
        )
