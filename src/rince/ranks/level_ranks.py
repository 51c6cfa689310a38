"""Ranks from label columns, compared level by level: no table, whatever the number of classes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rince.core.checks import require
from rince.core.labels import integers, require_no_unknown
from rince.core.pair_ranks import (
    MAX_RANK,
    PairCodes,
    check_pair_labels,
    mask_pairs,
    may_read,
    on_device,
    pairs_as_text,
)


class LevelRanks:
    """The rank of a pair is the finest level at which both are in the same group.

    ``rank(q, k) = min {l : q and k have equal labels at the levels l, ..., L}``, 0 (negative) if
    they differ at the top level L. Level 1 is the class. A class is its whole path, so a label may
    occur again below another parent. On a class tree these are the ranks of
    :class:`~rince.ranks.Taxonomy`; (Q + K) x L integers take the place of its C x C table.

    Args:
        query_labels: (Q, L) integers of any type, at least 0, L from 1 to 127: a tensor, a numpy
            array, a pandas table or lists.
        key_labels: (K, L) integers.
        finest_first: column 0 is the class and column L - 1 the top level; False: the reverse.
        ignore_self: the first Q keys are the queries themselves: pair (i, i) is ignored.
        key_valid: (K,) bool; False marks keys to ignore, whatever their labels.

    Raises:
        ValueError: wrong shapes, or labels that are not integers; negative ones, which are looked
            for on the CPU.

    Example:
        >>> labels = torch.tensor([[0, 7], [1, 7], [2, 9], [0, 9]])  # class, superclass
        >>> LevelRanks(labels, labels, finest_first=True).tile(slice(None), slice(None)).tolist()
        [[1, 2, 0, 0], [2, 1, 0, 0], [0, 0, 1, 2], [0, 0, 2, 1]]
    """

    def __init__(
        self,
        query_labels: Any,
        key_labels: Any,
        *,
        finest_first: bool,
        ignore_self: bool = False,
        key_valid: Tensor | None = None,
    ) -> None:
        query, key = integers(query_labels, "query labels"), integers(key_labels, "key labels")
        require(
            query.ndim == key.ndim == 2
            and query.shape[1] == key.shape[1]
            and 1 <= query.shape[1] <= MAX_RANK,
            f"labels must be (items, levels), with the same 1 to {MAX_RANK} levels on both "
            f"sides, got {tuple(query.shape)} and {tuple(key.shape)}",
        )
        check_pair_labels(query[:, 0], key[:, 0], ignore_self, key_valid)
        if may_read(query, False):
            require_no_unknown(query, "query labels")
        if may_read(key, False):
            there = key if key_valid is None else key.masked_fill(~key_valid[:, None], 0)
            require_no_unknown(there, "key labels")
        if not finest_first:
            query, key = query.flip(1), key.flip(1)
        self.query_labels, self.key_labels = query, key  # finest first
        self.ignore_self, self.key_valid = ignore_self, key_valid
        self.shape, self.num_ranks = (len(query), len(key)), query.shape[1]

    __repr__ = pairs_as_text

    def tile(self, rows: slice, cols: slice) -> Tensor:
        ranks = compare_levels(self.query_labels[rows], self.key_labels[cols])
        return mask_pairs(ranks, self.shape, rows, cols, self.ignore_self, self.key_valid)

    def to(self, device: torch.device) -> LevelRanks:
        """The same ranks on another device."""
        return on_device(self, device, "query_labels", "key_labels", "key_valid")

    def codes(self) -> PairCodes:
        return PairCodes(self.query_labels, self.key_labels, None, self.ignore_self, self.key_valid)


def compare_levels(query: Tensor, key: Tensor) -> Tensor:
    """The ranks of (Q, L) and (K, L) labels, finest first: (Q, K) int8."""
    query, key = query.T.contiguous(), key.T.contiguous()
    return finest_common_level(query[:, :, None], key[:, None])


def finest_common_level(query: Tensor, key: Tensor) -> Tensor:
    """The ranks, int8, of labels (L, ...) that broadcast, finest level first."""
    same = query[-1] == key[-1]
    shared = same.to(torch.int8)  # levels in common, from the top down
    for level in reversed(range(len(query) - 1)):
        same &= query[level] == key[level]
        shared += same.view(torch.int8)  # not converted: this is most of a step's cost
    return (len(query) + 1 - shared).mul_(shared > 0)
