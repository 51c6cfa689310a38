"""Labels as people hold them: lists, numpy arrays, tensors, pandas columns; numbers or names.
What classes are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rince.core.checks import require

UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)  # torch compares none of them
_INT64 = np.iinfo(np.int64)


def integers(labels: Any, name: str = "labels") -> Tensor:
    """A tensor, an array, a pandas column or lists of integers of any type, as int64.

    Example:
        >>> integers(np.array([3, 1], dtype=np.uint8)), integers([[1, 2]])
        (tensor([3, 1]), tensor([[1, 2]]))
    """
    if isinstance(labels, Tensor) and labels.dtype == torch.uint64:
        return integers(as_array(labels), name).to(labels.device)
    if not isinstance(labels, Tensor):
        array = as_array(labels, name)
        if array.size == 0 and not isinstance(labels, np.ndarray):
            array = array.astype(np.int64)  # an empty list is of floats to numpy
        if array.dtype == np.uint64 or (array.dtype == object and are_integers(array)):
            for value in {int(array.min()), int(array.max())} if array.size else ():
                require(
                    _INT64.min <= value <= _INT64.max,
                    f"{name} must lie between {_INT64.min} and {_INT64.max}, got {value}",
                )
            array = array.astype(np.int64)
        gaps = array.dtype.kind == "f" and bool(np.isnan(array).any())
        require(
            array.dtype.kind in "iu",
            f"{name} must be integers, got {values_of(array)}"
            + (": some are missing (NaN)" if gaps else ""),
        )
        return torch.from_numpy(np.array(array, dtype=np.int64))
    require(
        not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool),
        f"{name} must be integers, got {labels.dtype}",
    )
    return labels.long()


def are_integers(array: np.ndarray[Any, Any]) -> bool:
    """Whether it is of integers: of any of numpy's types, or objects that all are some."""
    if array.dtype != object:
        return array.dtype.kind in "iu"
    return all(isinstance(x, (int, np.integer)) and not isinstance(x, bool) for x in array.flat)


def numbers(values: Any, name: str) -> Tensor:
    """A tensor as it is; an array, a data frame or lists of numbers as one, of their own type."""
    if isinstance(values, Tensor):
        return values
    array = as_array(values, name)
    if array.dtype == object:  # a data frame of pandas' own types of numbers
        array = as_array(array.tolist(), name)
    require(
        array.dtype.kind in "biuf",
        f"{name} must be numbers, got {values_of(array)}",
    )
    # A copy: torch takes neither negative strides nor memory that must not be written to.
    return torch.from_numpy(np.array(array, array.dtype.newbyteorder("=")))


def values_of(array: np.ndarray[Any, Any]) -> str:
    """What an array holds, for a message that refuses it."""
    if fields := array.dtype.names:
        names, one = ", ".join(fields), f"['{fields[0]}']"
        return f"records with the fields {names}: give one of them ({one}), or stack some"
    if array.dtype == object and array.size:
        other = next((x for x in array.flat if not isinstance(x, Real)), array.flat[0])
        return f"values of the type object, such as {other!r:.50} ({type(other).__name__})"
    return f"values of the type {array.dtype}"


def require_no_unknown(labels: Tensor, name: str = "labels") -> None:
    """Refuse negative ids, by which data sets say that a label is not known."""
    if labels.numel() and int(labels.min()) < 0:
        row = int((labels < 0).nonzero()[0, 0])
        raise ValueError(
            f"{name}: row {row} holds {int(labels[row].min())}, and a negative id says that a "
            f"label is not known: leave such items out, or give them ids of at least 0"
        )


def require_classes(labels: Tensor, count: int, name: str, what: str) -> None:
    """Refuse labels outside [0, count); ``what``: "the classes of the taxonomy", say."""
    if labels.numel():
        low, high = torch.stack(torch.aminmax(labels)).tolist()
        require(
            low >= 0 and high < count,
            f"{name} must lie in [0, {count}), {what}, but hold {low if low < 0 else high}",
        )


def as_array(labels: Any, name: str = "labels") -> np.ndarray[Any, Any]:
    """A numpy array of anything that people hold labels in."""
    if isinstance(labels, Tensor):
        labels = labels.detach().cpu()
    try:
        if hasattr(labels, "to_numpy"):  # pandas, polars, pyarrow
            return np.asarray(labels.to_numpy())
        if isinstance(labels, (np.ndarray, Tensor)):
            return np.asarray(labels)
        rows = [x.detach().cpu().numpy() if isinstance(x, Tensor) else x for x in labels]
        array = np.asarray(rows)
        if array.dtype.kind == "U":  # where numpy wrote a NaN as 'nan', and 1.0 as '1.0'
            values = np.asarray(rows, dtype=object)
            return array if all(isinstance(x, str) for x in values.flat) else values
        return array
    except (TypeError, ValueError) as error:
        given = labels if isinstance(labels, (list, tuple)) else []
        sizes = [len(x) if isinstance(x, (list, tuple)) else 1 for x in given]
        other = next((i for i, size in enumerate(sizes) if size != sizes[0]), 0)
        why = f"row {other} holds {sizes[other]} values, row 0 {sizes[0]}" if other else error
        raise ValueError(f"{name} cannot be read as an array: {why}") from None


def shortest_endings(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """What to call paths: the shortest ending that one has alone, or else all of it.

    Example:
        >>> shortest_endings([("men", "shirts"), ("women", "shirts"), ("men", "ties")])
        ('men/shirts', 'women/shirts', 'ties')
    """
    if any("/" in name for path in paths for name in path):  # one name may read as two
        endings = [["/".join(path[k:]) for k in reversed(range(len(path)))] for path in paths]
        uses = Counter(name for of_path in endings for name in of_path)
        return tuple(
            next((name for name in of_path if uses[name] == 1), of_path[-1]) for of_path in endings
        )
    names = [path[-1] for path in paths]
    shared, length = list(range(len(paths))), 1
    while True:
        uses = Counter(names[i] for i in shared)
        shared = [i for i in shared if uses[names[i]] > 1 and len(paths[i]) > length]
        if not shared:
            break
        length += 1
        for i in shared:
            names[i] = "/".join(paths[i][-length:])
    return tuple(names)
