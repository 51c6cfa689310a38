from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from metric_inputs import cosines, normal_features
from rince.core.checks import RinceWarning
from rince.metrics.arrays import (
    checked_ks,
    cosine_chunks,
    sample_labels,
    sort_rows,
    tensor,
    unit_features,
    unit_rows,
)


def test_numpy_arrays_become_tensors_whatever_their_memory() -> None:
    array = np.arange(6.0).reshape(2, 3)
    locked = array.copy()
    locked.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of memory that must not be written to
        for given in (array, array[::-1], array.T, locked):
            assert tensor(given).tolist() == given.tolist()
        for kind in (">f4", ">f8", ">i2", np.longdouble):  # as FITS and HDF5 files hold them
            assert tensor(array.astype(kind)).tolist() == array.tolist()
    same = torch.zeros(2)
    assert tensor(same) is same
    assert tensor(array).data_ptr() == array.ctypes.data  # no copy of a large gallery


def test_what_is_no_array_of_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="got <class 'list'>"):
        tensor([1.0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="array of values of the type <U1"):
        tensor(np.array(["a"]))


@pytest.mark.parametrize(
    "ks", [5, np.int64(5), torch.tensor(5), [5], {5}, range(5, 6), np.array([5]), torch.tensor([5])]
)
def test_numbers_of_nearest_items_are_pythons_own(ks: Any) -> None:
    """Or a result could be asked for those of a tensor by no number, and not be written as JSON."""
    assert json.dumps(dict.fromkeys(checked_ks(ks), 1)) == '{"5": 1}'


@pytest.mark.parametrize("ks", [1.5, [5, 2.0], torch.tensor([1.0])])
def test_parts_of_an_item_are_refused(ks: Any) -> None:
    with pytest.raises(ValueError, match="ks must be whole numbers"):
        checked_ks(ks)


def test_labels_out_of_range_are_named() -> None:
    sample_labels(torch.tensor([0, 2]), 2, "labels", num_classes=3)
    with pytest.raises(ValueError, match=r"\[0, 3\).*but hold 3"):
        sample_labels(torch.tensor([1, 3]), 2, "labels", num_classes=3)


@pytest.mark.parametrize("unknown", [-1, -100])  # -100 is ignore_index of torch's cross-entropy
@pytest.mark.parametrize("num_classes", [None, 3])
def test_labels_that_are_not_known_are_no_class(unknown: int, num_classes: int | None) -> None:
    with pytest.raises(ValueError, match=rf"query labels: row 1 holds {unknown}\b"):
        sample_labels(torch.tensor([1, unknown]), 2, "query labels", num_classes)


def test_unit_features_survive_tiny_and_huge_values() -> None:
    rows = torch.tensor([[3.0, 4.0]])
    for factor in (1e-30, 1e-22, 1.0, 1e22, 1e37):
        torch.testing.assert_close(unit_features(rows * factor, "x"), torch.tensor([[0.6, 0.8]]))
    torch.testing.assert_close(
        unit_features(rows.double() * 1e300, "x"), torch.tensor([[0.6, 0.8]])
    )


def test_one_value_that_is_not_finite_spoils_its_row() -> None:
    for bad in (float("nan"), float("inf")):
        features = torch.tensor([[1.0, bad], [1.0, 2.0], [bad, bad]])
        with pytest.raises(ValueError, match="2 of 3 pictures"):
            unit_features(features, "pictures")


def test_zero_vectors_warn_and_all_zero_is_an_error() -> None:
    with pytest.warns(RinceWarning, match=r"1 of 2 x\b.*zero"):
        unit = unit_features(torch.tensor([[0.0, 0.0], [0.0, -2.0]]), "x")
    assert unit.tolist() == [[0.0, 0.0], [0.0, -1.0]]
    column = unit_features(torch.tensor([[0.0, 2.0], [0.0, 1.0]]), "x")  # no row is zero
    assert column.tolist() == [[0.0, 1.0], [0.0, 1.0]]
    with pytest.raises(ValueError, match=r"all x\b.*zero"):
        unit_features(torch.zeros(2, 3), "x")


@pytest.mark.parametrize("chunk_size", [1, 3, 7, 100])
def test_chunks_hold_all_cosines_once(chunk_size: int) -> None:
    query, gallery = normal_features(0, 7), normal_features(1, 5)
    found = np.full((7, 5), np.nan)
    for rows, similarity in cosine_chunks(query.requires_grad_(), gallery, chunk_size):
        assert len(similarity) <= chunk_size
        assert np.isnan(found[rows]).all()
        found[rows] = similarity.numpy()
    np.testing.assert_allclose(found, cosines(query.detach(), gallery), atol=1e-6)


def test_chunk_errors() -> None:
    with pytest.raises(ValueError, match=r"dimensions.*\b8 and 4"):
        next(cosine_chunks(normal_features(0, 2), normal_features(0, 2, 4), 2))
    with pytest.raises(ValueError, match=r"chunk_size.*\b1\b.* 0\b"):
        next(cosine_chunks(normal_features(0, 2), normal_features(0, 2), 0))


@pytest.mark.parametrize("rows", [0, 1, 2, 5])
def test_rows_are_sorted_each_for_itself(rows: int) -> None:
    values = normal_features(3, rows, 40)
    expected = torch.sort(values, dim=1).values
    assert sort_rows(values) is values  # in place, as a chunk may be large
    assert torch.equal(values, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_features_of_16_bits_are_raised_before_they_are_normalised(dtype: torch.dtype) -> None:
    low = torch.randn(50, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    torch.testing.assert_close(
        unit_features(low, "x"), unit_features(low.float(), "x"), atol=0, rtol=0
    )


def test_a_row_is_scaled_by_its_largest_number_of_either_sign() -> None:
    """Squares of the others do not matter, its own would be infinite."""
    rows = torch.tensor([[1e25, 1.0, 0.5], [-1e25, 1.0, 0.5], [3e25, -4e25, 1.0]])
    expected = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.6, -0.8, 0.0]])
    torch.testing.assert_close(unit_rows(rows), expected)
    torch.testing.assert_close(unit_features(rows, "features"), expected)
