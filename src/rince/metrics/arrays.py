"""What all metrics do with the arrays they are given: convert, check, and compare by cosine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias, Union

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from rince.core.checks import require, warn
from rince.core.labels import integers, require_classes, require_no_unknown, values_of
from rince.core.pair_ranks import ALL, IGNORED, PairRanks, as_pair_ranks, require_queries_first

Array: TypeAlias = Union[Tensor, "npt.NDArray[Any]"]
"""A torch tensor, on any device, or a numpy array."""

_BLOCK = 8192  # gallery items in float64 at a time

Labels: TypeAlias = Any
"""Integers of any type: a tensor, a numpy array, a list, a pandas column."""


def checked_ks(ks: int | Sequence[int]) -> tuple[int, ...]:
    """How many nearest items to look at, each at least 1; a number alone will do."""
    given = tuple(np.atleast_1d(list(ks) if isinstance(ks, Set) else ks).tolist())
    require(
        all(isinstance(k, int) and k >= 1 for k in given),
        f"ks must be whole numbers of at least 1, got {given}",
    )
    return given


def tensors(*arrays: Array) -> tuple[Tensor, ...]:
    """The arrays as tensors; a numpy array shares its memory where it can. One array given twice
    is one tensor."""
    converted = {id(array): tensor(array) for array in arrays}
    return tuple(converted[id(array)] for array in arrays)


def tensor(array: Array) -> Tensor:
    """One array as :func:`tensors` gives it."""
    if isinstance(array, Tensor):
        return array
    if not (isinstance(array, np.ndarray) and array.dtype.kind in "biuf"):
        given = f"an array of {values_of(array)}" if isinstance(array, np.ndarray) else type(array)
        raise ValueError(f"expected a torch tensor or a numpy array of numbers, got {given}")
    # torch takes neither negative strides, nor memory that must not be written to, nor the other
    # order of bytes, nor more than 64 bits.
    dtype = min(array.dtype.newbyteorder("="), np.dtype(np.float64), key=lambda x: x.itemsize)
    return torch.from_numpy(np.require(array, dtype, ("C", "W")))


def check_same_width(query: Tensor, gallery: Tensor) -> None:
    """Raise ``ValueError`` unless both have as many columns."""
    require(
        query.shape[1] == gallery.shape[1],
        f"query and gallery features must have as many dimensions, got {query.shape[1]} and "
        f"{gallery.shape[1]}: they come from different backbones",
    )


def check_features(features: Tensor, name: str) -> None:
    """Raise ``ValueError`` unless ``features`` are (N >= 1, D >= 1) finite floats."""
    require(
        features.ndim == 2 and features.numel() > 0 and features.is_floating_point(),
        f"{name} must be a non-empty (samples, dimensions) matrix of floats, got shape "
        f"{tuple(features.shape)} and {features.dtype}",
    )
    bad = ~torch.isfinite(features).all(dim=1)
    require(
        not bool(bad.any()),
        f"{int(bad.sum())} of {len(bad)} {name} hold NaN or infinity: the training has most "
        "likely diverged (a lower learning rate or a higher temperature helps)",
    )


def sample_labels(labels: Any, size: int, name: str, num_classes: int | None = None) -> Tensor:
    """Labels of any type as (size,) int64, none negative, none from num_classes on."""
    numbers = integers(labels, name)
    require(
        numbers.shape == (size,),
        f"{name} must be one for each of the {size} samples, got shape {tuple(numbers.shape)}",
    )
    require_no_unknown(numbers, name)
    if num_classes is not None:
        require_classes(numbers, num_classes, name, "the number of classes")
    return numbers


def self_excluded(
    exclude_self: bool | None, query: Tensor, gallery: Tensor, items: str = "gallery items"
) -> bool:
    """Whether queries, the first gallery items, may not find themselves.

    None says nothing of it: they may, and where they do a warning tells so.

    Raises:
        ValueError: the first gallery items cannot be the queries, as there are too few.
    """
    if exclude_self:
        require_queries_first(len(query), len(gallery), "exclude_self", items)
    elif exclude_self is None and _are_first(query, gallery):
        warn(
            f"the {len(query)} queries are the first {items} themselves, so that each one finds "
            f"itself first: pass exclude_self=True, or exclude_self=False if that is meant"
        )
    return bool(exclude_self)


def _are_first(query: Tensor, gallery: Tensor) -> bool:
    """Whether both are one piece of memory, as of x and x, or x[:100] and x."""
    return (
        query.layout == gallery.layout == torch.strided
        and query.device == gallery.device
        and query.data_ptr() == gallery.data_ptr()
        and query.dtype == gallery.dtype
        and query.stride() == gallery.stride()
        and query.shape[1:] == gallery.shape[1:]
        and len(query) <= len(gallery)
    )


def unit_features(features: Tensor, name: str) -> Tensor:
    """Checked features as float32 rows of length 1; a row of zeros stays zero, with a warning."""
    check_features(features, name)
    unit = unit_rows(features.detach())
    zero = int((~unit.any(dim=1)).sum())
    require(zero < len(unit), f"all {name} are zero vectors: they have no direction to compare")
    if zero:
        warn(f"{zero} of {len(unit)} {name} are zero vectors: their cosines count as 0")
    return unit


def unit_rows(features: Tensor) -> Tensor:
    """Float32 rows of length 1, whatever theirs was; a row of zeros stays zero."""
    if features.element_size() < 4:  # before any arithmetic in 16 bits
        features = features.float()
    peak = features.abs().amax(dim=1, keepdim=True)
    # Scaled first, so that neither tiny nor huge rows under- or overflow when squared.
    return functional.normalize((features / torch.where(peak > 0, peak, 1)).float(), dim=1)


def cosine_chunks(
    query_features: Tensor, gallery_features: Tensor, chunk_size: int, exclude_self: bool = False
) -> Iterator[tuple[slice, Tensor]]:
    """Cosines of all queries with all gallery items, ``chunk_size`` queries at a time.

    ``exclude_self``: the first gallery items are the queries; that of each with itself is -inf.

    Summed in float64 and then rounded: in float32 the order of a sum, and so its last bit, depends
    on chunk, number of threads and place in the gallery, and two copies of an item would not tie.

    Yields:
        The rows of a chunk and their cosines (rows, G) float32, free to be written to; a chunk
        takes 4 * chunk_size * G bytes.
    """
    require(chunk_size >= 1, f"chunk_size must be at least 1, got {chunk_size}")
    query = unit_features(query_features, "query features")
    gallery = unit_features(gallery_features, "gallery features").to(query.device)
    check_same_width(query, gallery)
    for start in range(0, len(query), chunk_size):
        rows = slice(start, min(start + chunk_size, len(query)))
        some = query[rows].double()
        cosines = query.new_empty(len(some), len(gallery))
        for block in range(0, len(gallery), _BLOCK):
            items = slice(block, block + _BLOCK)
            cosines[:, items] = some @ gallery[items].double().T
        if exclude_self:
            cosines.diagonal(offset=start).fill_(-torch.inf)
        yield rows, cosines


def ranked_chunks(
    query_features: Array, gallery_features: Array, ranks: PairRanks | Array, chunk_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Ranks and cosines (rows, G), a chunk of queries at a time."""
    query_features, gallery_features = tensors(query_features, gallery_features)
    source = as_pair_ranks(ranks)
    shape = (len(query_features), len(gallery_features))
    require(
        tuple(source.shape) == shape,
        f"ranks must be (queries, gallery items) = {shape}, got {tuple(source.shape)}",
    )
    one_array, found_themselves = _are_first(query_features, gallery_features), 0
    for rows, similarity in cosine_chunks(query_features, gallery_features, chunk_size):
        tile = source.tile(rows, ALL).to(similarity.device)
        if one_array:
            found_themselves += int((tile.diagonal(offset=rows.start) != IGNORED).sum())
        yield tile, similarity
    if found_themselves:
        warn(
            f"the queries are the first gallery items themselves, and {found_themselves} of "
            f"{shape[0]} are compared with themselves: give these pairs rank -1, as "
            f"ranks(..., ignore_self=True) does, or pass a copy of the queries if that is meant"
        )


def sort_rows(values: Tensor) -> Tensor:
    """Sort each row, ascending; on the CPU in place."""
    if values.device.type == "cpu":
        # numpy's sort is vectorised, about twice as fast as torch's, and releases the GIL.
        threads = torch.get_num_threads()
        with ThreadPoolExecutor(threads) as pool:
            parts = np.array_split(values.numpy(), threads)  # views
            list(pool.map(lambda part: part.sort(axis=1), parts))
        return values
    return values.sort().values
