"""A table of ranks between named classes: what class trees and similarity scores both come to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rince.core.checks import require
from rince.core.labels import integers, numbers
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
    _copies: dict[torch.device, Tensor] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        size = len(self.classes)
        table = numbers(self.table, "the rank table")
        require(
            table.shape == (size, size),
            f"the rank table of {size} classes must have shape ({size}, {size}), got "
            f"{tuple(table.shape)}",
        )
        object.__setattr__(self, "table", DenseRanks(table, self.num_ranks).matrix)
        object.__setattr__(self, "_copies", {})

    @property
    def num_classes(self) -> int:
        """C, the number of classes."""
        return len(self.classes)

    def ranks(
        self,
        query_labels: Any,
        key_labels: Any,
        *,
        ignore_self: bool = False,
        key_valid: Tensor | None = None,
        validate: bool = True,
    ) -> TableRanks:
        """The ranks between two sides of labels: what a ranked loss takes.

        Args:
            query_labels: (Q,) integers of any type, in [0, C).
            key_labels: (K,) integers of any type, in [0, C) where ``key_valid``.
            ignore_self: the first Q keys are the queries themselves; those pairs are ignored.
            key_valid: (K,) bool; False marks keys to ignore, whatever their label.
            validate: also check labels on a GPU, which is waited for.

        Raises:
            ValueError: wrong shapes, or a label outside [0, C).
        """
        query_labels = integers(query_labels, "query labels")
        return TableRanks(
            query_labels,
            key_labels,
            self.table_on(query_labels.device),
            ignore_self=ignore_self,
            key_valid=key_valid,
            num_ranks=self.num_ranks,
            validate=validate,
        )

    def table_on(self, device: torch.device) -> Tensor:
        """The table on a device, copied there once."""
        if self.table.device == device:
            return self.table
        if device not in self._copies:
            self._copies[device] = self.table.to(device)
        return self._copies[device]
