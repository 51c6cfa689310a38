"""Who is how similar to whom: the one thing that rank sources give and losses take.

Codes used everywhere: ``1`` = most similar, ``2``, ``3``, ... = less and less similar,
``0`` = negative, ``-1`` = ignored (the pair takes no part: a sample and itself, padding, an
empty queue slot).
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from rince.core.checks import require
from rince.core.labels import UNSIGNED, integers, numbers, require_classes

NEGATIVE = 0
IGNORED = -1
MAX_RANK = 127  # tiles are int8
ALL = slice(None)
_SHOWN = 12  # queries and keys, where ranks are printed


@runtime_checkable
class PairRanks(Protocol):
    """The rank of every (query, key) pair, answered tile by tile.

    A tile interface rather than a matrix lets a loss walk over pairs that would not fit into
    memory: ranks from labels cost (Q + K) integers, whatever Q x K is.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """(Q, K): number of queries and of keys."""
        ...

    @property
    def num_ranks(self) -> int | None:
        """Highest rank that the source can give, whatever this batch holds; None if unknown."""
        ...

    def tile(self, rows: slice, cols: slice) -> Tensor:
        """Ranks of the chosen queries and keys as an int8 matrix (len(rows), len(cols))."""
        ...


def pairs_as_text(ranks: PairRanks) -> str:
    """The kind of the ranks, how many pairs, and those of the first queries and keys."""
    (rows, columns), top = ranks.shape, ranks.num_ranks
    corner = slice(_SHOWN)
    dots = " ..." if columns > _SHOWN else ""
    lines = (
        "".join(f"{rank:>4}" for rank in row) + dots for row in ranks.tile(corner, corner).tolist()
    )
    of = "ranks not known" if top is None else f"{top} rank{'' if top == 1 else 's'}"
    title = f"{type(ranks).__name__}: {rows} queries x {columns} keys, {of}"
    return "\n".join([title, *lines, *([" ..."] if rows > _SHOWN else [])])


class PairCodes(NamedTuple):
    """Ranks that follow from a few integers per item: what a source's method ``codes`` gives.

    ``query`` and ``key`` are (Q, L) and (K, L). Without a table the group of each item at level 1
    (finest) to L: the rank of a pair is the finest level from which on both agree up to level L, 0
    if none. With a (C, C) table: L = 1, the class. The others are as of :class:`TableRanks`.
    """

    query: Tensor
    key: Tensor
    table: Tensor | None
    ignore_self: bool
    key_valid: Tensor | None


class DenseRanks:
    """Ranks given as a matrix.

    Args:
        matrix: (Q, K), any integer dtype, codes as above: a tensor, an array, a data frame, lists.
        num_ranks: highest rank that can occur in any batch, so that the number of temperatures
            can be checked; None (default) checks only that no rank is beyond them.
        validate: also check the codes of a matrix on a GPU, which is waited for.

    Raises:
        ValueError: not a matrix, not integers, or a code below -1 or above 127 or ``num_ranks``,
            ``num_ranks`` below 1.
    """

    def __init__(self, matrix: Any, num_ranks: int | None = None, *, validate: bool = True) -> None:
        matrix = numbers(matrix, "ranks")
        require(
            matrix.ndim == 2,
            f"ranks must be a (queries, keys) matrix, got shape {tuple(matrix.shape)}",
        )
        self.matrix = _checked_codes(matrix, num_ranks, validate)
        self.shape, self.num_ranks = (matrix.shape[0], matrix.shape[1]), num_ranks

    __repr__ = pairs_as_text

    def tile(self, rows: slice, cols: slice) -> Tensor:
        return self.matrix[rows, cols]

    def to(self, device: torch.device) -> DenseRanks:
        """The same ranks on another device."""
        return on_device(self, device, "matrix")


class TableRanks:
    """Ranks looked up in a class-by-class table from labels on both sides.

    Args:
        query_labels: (Q,) integers of any type, each in [0, C).
        key_labels: (K,) integers, each in [0, C) where ``key_valid``.
        table: (C, C) integers; ``table[a, b]`` is the rank of a key of class b for a query of
            class a.
        ignore_self: the first Q keys are the queries themselves: pair (i, i) is ignored.
        key_valid: (K,) bool; False marks keys to ignore (an empty queue slot), whatever their
            label says. A separate mask, because any label value could be a user's own.
        num_ranks: highest rank of the table; computed if not given, unless that would have to wait
            for a GPU against ``validate``. Of a table without positives it is not known.
        validate: also check labels and a table on a GPU, which is waited for. On a CPU they are
            always checked.

    Raises:
        ValueError: wrong shapes, a label outside the table, or a table that is not of integers
            between -1 and ``num_ranks`` (1 to 127).
    """

    def __init__(
        self,
        query_labels: Any,
        key_labels: Any,
        table: Any,
        *,
        ignore_self: bool = False,
        key_valid: Tensor | None = None,
        num_ranks: int | None = None,
        validate: bool = True,
    ) -> None:
        table = numbers(table, "the rank table")
        require(
            table.ndim == 2 and table.shape[0] == table.shape[1],
            f"the rank table must be (classes, classes), got shape {tuple(table.shape)}",
        )
        require(table.numel() > 0, "the rank table is empty: it needs at least one class")
        table = _checked_codes(table, num_ranks, validate)
        query_labels = integers(query_labels, "query labels")
        key_labels = integers(key_labels, "key labels")
        check_pair_labels(query_labels, key_labels, ignore_self, key_valid)
        self.query_labels, self.key_labels = query_labels, key_labels
        if key_valid is not None:
            # Invalid keys may carry any label; a safe one keeps the look-up in range.
            self.key_labels = torch.where(key_valid, self.key_labels, 0)
        for side, labels in (("query", self.query_labels), ("key", self.key_labels)):
            if may_read(labels, validate):
                what = "the classes of the rank table"
                require_classes(labels, len(table), f"{side}_labels", what)
        self.table = table.to(query_labels.device)
        self.ignore_self = ignore_self
        self.key_valid = key_valid
        if num_ranks is None and may_read(table, validate):
            highest = int(table.max())
            num_ranks = highest if highest >= 1 else None
        self.shape, self.num_ranks = (len(query_labels), len(key_labels)), num_ranks

    __repr__ = pairs_as_text

    def tile(self, rows: slice, cols: slice) -> Tensor:
        ranks = self.table[self.query_labels[rows, None], self.key_labels[None, cols]]
        return mask_pairs(ranks, self.shape, rows, cols, self.ignore_self, self.key_valid)

    def to(self, device: torch.device) -> TableRanks:
        """The same ranks on another device."""
        return on_device(self, device, "query_labels", "key_labels", "table", "key_valid")

    def codes(self) -> PairCodes:
        query, key = self.query_labels[:, None], self.key_labels[:, None]
        return PairCodes(query, key, self.table, self.ignore_self, self.key_valid)


class IdentityRanks:
    """Rank 1 where both sides carry the same id, negative elsewhere (instance discrimination).

    Unlike :class:`TableRanks` it needs no table, so ids may be any integers: image numbers,
    video ids, hashes.

    Args:
        query_ids: (Q,) integers of any type. key_ids: (K,).
        ignore_self: the first Q keys are the queries themselves: pair (i, i) is ignored.
        key_valid: (K,) bool; False marks keys to ignore.

    Raises:
        ValueError: wrong shapes.
    """

    num_ranks = 1

    def __init__(
        self,
        query_ids: Any,
        key_ids: Any,
        *,
        ignore_self: bool = False,
        key_valid: Tensor | None = None,
    ) -> None:
        self.query_ids = integers(query_ids, "query labels")
        self.key_ids = integers(key_ids, "key labels")
        check_pair_labels(self.query_ids, self.key_ids, ignore_self, key_valid)
        self.ignore_self = ignore_self
        self.key_valid = key_valid
        self.shape = (len(self.query_ids), len(self.key_ids))

    __repr__ = pairs_as_text

    def tile(self, rows: slice, cols: slice) -> Tensor:
        same = (self.query_ids[rows, None] == self.key_ids[None, cols]).to(torch.int8)
        return mask_pairs(same, self.shape, rows, cols, self.ignore_self, self.key_valid)

    def to(self, device: torch.device) -> IdentityRanks:
        """The same ranks on another device."""
        return on_device(self, device, "query_ids", "key_ids", "key_valid")

    def codes(self) -> PairCodes:
        query, key = self.query_ids[:, None], self.key_ids[:, None]
        return PairCodes(query, key, None, self.ignore_self, self.key_valid)


def as_pair_ranks(
    ranks: Any, device: torch.device | None = None, validate: bool = True
) -> PairRanks:
    """A plain integer matrix, also of numpy or in lists, is as good as a :class:`DenseRanks`.
    ``device``: where the tiles are wanted; what a source is made of moves, not the matrix of all
    pairs, if it has a method ``to``. ``validate``: also check the codes of a matrix on a GPU."""
    # In a tuple: torch.compile of torch 2.6 cannot follow a union of types.
    if isinstance(ranks, (list, tuple)) or hasattr(ranks, "__array__"):  # as tensors have
        ranks = DenseRanks(ranks, validate=validate)
    require(
        isinstance(ranks, PairRanks),
        f"ranks must be an integer tensor (queries, keys) or a rank source such as TableRanks or "
        f"Taxonomy.ranks(...), got {type(ranks).__name__}",
    )
    source: PairRanks = ranks
    if device is None:
        return source
    move = getattr(ranks, "to", None)
    return _TilesOn(ranks, device) if move is None else move(device)


def may_read(x: Tensor, validate: bool) -> bool:
    """Whether values may be looked at: on a CPU that is free, a GPU has to be waited for."""
    return (validate or x.device.type == "cpu") and not is_batched(x)


def is_batched(x: Tensor) -> bool:
    """Whether it stands for many tensors, under torch.func.vmap: none can look at its values."""
    if torch.compiler.is_compiling():
        return False
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(x):  # by vmap, grad, ...
        if functorch.is_batchedtensor(x):
            return True
        x = functorch.get_unwrapped(x)
    return False


class _TilesOn:
    """A source that cannot move, whose tiles do."""

    def __init__(self, source: PairRanks, device: torch.device) -> None:
        self.source, self.device = source, device
        self.shape, self.num_ranks = source.shape, source.num_ranks

    def tile(self, rows: slice, cols: slice) -> Tensor:
        return self.source.tile(rows, cols).to(self.device)


_Source = TypeVar("_Source")


def on_device(source: _Source, device: torch.device, *names: str) -> _Source:
    """A copy whose tensors of these names are on the device; itself if they are."""
    tensors = {name: getattr(source, name) for name in names}
    if all(x is None or x.device == device for x in tensors.values()):
        return source
    moved = copy.copy(source)
    vars(moved).update({n: None if x is None else x.to(device) for n, x in tensors.items()})
    return moved


def _checked_codes(ranks: Tensor, num_ranks: int | None, validate: bool) -> Tensor:
    """As int8."""
    require(num_ranks is None or num_ranks >= 1, f"num_ranks must be at least 1, got {num_ranks}")
    require(
        not (ranks.is_floating_point() or ranks.is_complex() or ranks.dtype == torch.bool),
        f"ranks must be integers (1 = most similar, 0 = negative, -1 = ignored), got "
        f"{ranks.dtype}; a boolean positives mask becomes ranks with .to(torch.int8)",
    )
    if ranks.dtype in UNSIGNED:
        ranks = ranks.long()
        # Above int64, where it wraps: as large as can be, to be refused.
        ranks = ranks.masked_fill(ranks < 0, torch.iinfo(torch.int64).max)
    if ranks.numel() and may_read(ranks, validate):
        low, high = torch.stack(torch.aminmax(ranks)).tolist()
        top = MAX_RANK if num_ranks is None else min(MAX_RANK, num_ranks)
        require(
            low >= IGNORED and high <= top,
            f"ranks must lie between -1 (ignored) and {top}, got {low} to {high}",
        )
    return ranks.to(torch.int8)


def require_queries_first(
    num_queries: int, num_keys: int, option: str = "ignore_self", keys: str = "keys"
) -> None:
    """Refuse keys of which the first cannot be the queries themselves: there are too few."""
    require(
        num_keys >= num_queries,
        f"{option}=True says that the first {keys} are the queries themselves, but there are "
        f"{num_queries} queries and only {num_keys} {keys}",
    )


def check_pair_labels(
    query: Tensor, key: Tensor, ignore_self: bool, key_valid: Tensor | None
) -> None:
    for side, labels in (("query", query), ("key", key)):
        require(
            labels.ndim == 1,
            f"{side} labels must be a vector of integers, got shape {tuple(labels.shape)}",
        )
    if ignore_self:
        require_queries_first(len(query), len(key))
    require(
        key_valid is None
        or (
            isinstance(key_valid, Tensor)
            and key_valid.shape == key.shape
            and key_valid.dtype == torch.bool
        ),
        "key_valid must be a boolean vector, a tensor with one entry per key, got "
        + (
            f"shape {tuple(key_valid.shape)}, {key_valid.dtype}"
            if isinstance(key_valid, Tensor)
            else type(key_valid).__name__
        ),
    )


def mask_pairs(
    ranks: Tensor,
    shape: tuple[int, int],
    rows: slice,
    cols: slice,
    ignore_self: bool,
    key_valid: Tensor | None,
) -> Tensor:
    """Write -1 where the pair is a sample and itself, or where the key is not valid."""
    if key_valid is not None:
        ranks = ranks.masked_fill(~key_valid[None, cols], IGNORED)
    if ignore_self:
        row_index = torch.arange(shape[0], device=ranks.device)[rows, None]
        col_index = torch.arange(shape[1], device=ranks.device)[None, cols]
        ranks = ranks.masked_fill(row_index == col_index, IGNORED)
    return ranks
