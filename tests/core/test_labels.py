"""Labels in whatever people hold them in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rince.core.labels import (
    are_integers,
    as_array,
    integers,
    numbers,
    require_no_unknown,
    shortest_endings,
)


class Column:
    """What pandas, polars and pyarrow have in common."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def to_numpy(self) -> Any:
        return self.values


@pytest.mark.parametrize(
    "labels",
    [
        [3, 0, 7],
        (3, 0, 7),
        [np.int8(3), np.uint8(0), 7],
        [torch.tensor(3), torch.tensor(0), torch.tensor(7)],
        np.array([3, 0, 7], dtype=np.uint8),
        np.array([3, 0, 7], dtype=np.uint64),
        np.array([3, 0, 7], dtype=object),
        torch.tensor([3, 0, 7], dtype=torch.uint8),
        torch.tensor([3, 0, 7], dtype=torch.int32),
        Column(np.array([3, 0, 7])),
        Column([3, 0, 7]),
    ],
)
def test_integers_of_any_kind(labels: Any) -> None:
    got = integers(labels)
    assert (got.dtype, got.tolist()) == (torch.int64, [3, 0, 7])


def test_arrays_of_integers() -> None:
    for values in (np.array([1, 2], np.uint8), np.array([1, np.int16(2)], object)):
        assert are_integers(values)
    for other in ([1.0, 2.0], [True, False], ["1", "2"]):
        assert not are_integers(np.array(other))
        assert not are_integers(np.array(other, object))
    assert not are_integers(np.array([1, "2"], object))


def test_no_labels_and_rows_of_them() -> None:
    assert integers([]).dtype == torch.int64
    assert integers(np.zeros(0, dtype=np.uint64)).shape == (0,)
    assert integers([[1, 2], [3, 4]]).tolist() == [[1, 2], [3, 4]]
    for labels in ([2**63 - 1, -(2**63)], [2**63 - 1]):
        assert integers(np.array(labels, dtype=object)).tolist() == labels
    assert integers(np.array([], dtype=object)).dtype == torch.int64
    largest = torch.tensor([2**63 - 1], dtype=torch.uint64)
    assert integers(largest.numpy()).tolist() == integers(largest).tolist() == [2**63 - 1]


def test_numbers_of_pandas_own_types() -> None:
    """A data frame of Int64 or Float64 columns gives numpy objects."""
    whole = numbers(Column(np.array([[1, 0], [0, 1]], dtype=object)), "ranks")
    assert (whole.dtype, whole.tolist()) == (torch.int64, [[1, 0], [0, 1]])
    assert numbers(np.array([0.5, 1], dtype=object), "scores").tolist() == [0.5, 1]
    for bad in ([1, None], ["a", 1]):
        with pytest.raises(ValueError, match="scores must be numbers, got values of the type"):
            numbers(np.array(bad, dtype=object), "scores")


def test_they_are_a_copy_of_arrays() -> None:
    array = np.array([1, 2])
    integers(array)[0] = 5
    assert array.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("labels", "fact"),
    [
        ([0.0, 1.0], "float64$"),
        ([1.0, float("nan")], "missing"),
        (np.array([1.5], dtype=np.float32), "float32$"),
        ([True, False], "bool"),
        (np.array([True, 1], dtype=object), "object"),
        (np.array([np.bool_(True)], dtype=object), "object"),
        (np.array([1, "a"], dtype=object), "object"),
        (["a"], "<U1"),
        (np.zeros(0), "float64"),
        (np.array([2**63, 1], dtype=np.uint64), f"{2**63 - 1}, got {2**63}"),
        (torch.tensor([1, 2**63 + 5], dtype=torch.uint64), f"{2**63 - 1}, got {2**63 + 5}"),
        ([1, 2**70], f"between {-(2**63)} and {2**63 - 1}, got {2**70}"),
        ([1, -(2**63) - 1], f"got {-(2**63) - 1}"),
        (np.array([2**63], dtype=object), f"got {2**63}"),
        (torch.tensor([1.0]), "float32"),
        (torch.tensor([1j]), "complex64"),
        (torch.tensor([True]), "bool"),
        ([[1, 2], [3]], "row 1 holds 1 values, row 0 2"),
        ([(1, 2), (3, 4), 5], "row 2 holds 1 values, row 0 2"),
        (5, "array"),
    ],
)
def test_what_is_no_integer_is_named(labels: Any, fact: str) -> None:
    with pytest.raises(ValueError, match=rf"ids .*{fact}"):
        integers(labels, "ids")


@pytest.mark.parametrize(
    ("labels", "row", "value"), [([0, -1, -2], 1, -1), ([[0, 1], [2, 0], [3, -100]], 2, -100)]
)
def test_a_negative_id_is_no_label(labels: Any, row: int, value: int) -> None:
    with pytest.raises(ValueError, match=f"ids: row {row} holds {value},"):
        require_no_unknown(integers(labels), "ids")
    require_no_unknown(integers(labels).clamp(min=0))
    require_no_unknown(integers([]))


def test_a_class_is_called_by_the_shortest_ending_that_it_has_alone() -> None:
    shirts = [("men", "shirts"), ("women", "shirts"), ("men", "ties"), ("shirts",)]
    assert shortest_endings(shirts) == ("men/shirts", "women/shirts", "ties", "shirts")
    deep = [("a", "x", "z"), ("b", "x", "z"), ("b", "y", "z"), ("b", "y", "w")]
    assert shortest_endings(deep) == ("a/x/z", "b/x/z", "y/z", "w")
    assert shortest_endings([("x", "a/b"), ("a", "b"), ("b",)]) == ("x/a/b", "a/b", "b")
    assert shortest_endings([("x", "a/b"), ("c", "b")]) == ("a/b", "b")
    slashes = [("x/y", "a/b/c/d"), ("a/b", "c/d")]  # in each name
    assert shortest_endings(slashes) == ("x/y/a/b/c/d", "c/d")
    assert shortest_endings([]) == ()


def test_names_stay_what_they_are() -> None:
    assert as_array(["a", "bc"]).dtype.kind == "U"
    mixed = as_array(["a", float("nan"), 1.0])
    assert (mixed.dtype, mixed[0], mixed[2]) == (object, "a", 1.0)
    assert np.isnan(mixed[1])
    assert as_array(torch.tensor([1.0], requires_grad=True)).tolist() == [1.0]
    assert as_array(Column([1, 2])).tolist() == [1, 2]
    assert as_array([torch.tensor(1.0, requires_grad=True)]).tolist() == [1.0]
