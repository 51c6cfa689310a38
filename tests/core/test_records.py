"""Arrays of records, objects and dates, where numbers are expected, are named for what they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rince
from rince import RinceError, RinceWarning, metrics, ranks
from rince.core.labels import values_of
from rince.data import from_arrays, from_vectors
from rince.data.vector_files import read_labelled, read_vectors
from rince.losses import rank_n_contrast
from rince.ranks.score_files import read_scores

RECORDS = np.array([(1.0, 2), (3.0, 4)], dtype=[("width", "f4"), ("id", "i8")])
GIVEN = {
    "records": (RECORDS, r"records with the fields width, id: give one of them \(\['width'\]\)"),
    "recarray": (RECORDS.view(np.recarray), "records with the fields width, id"),
    "dicts": (np.array([{"a": 1}, {"a": 2}]), r"type object, such as \{'a': 1\} \(dict\)"),
    "dates": (np.array(["2020-01-01", "2021-01-01"], dtype="M8[D]"), r"datetime64\[D\]"),
}
EYE = torch.eye(2)
TAKES_NUMBERS: dict[str, Callable[[Any], Any]] = {
    "features": lambda x: metrics.knn_accuracy(x, EYE, [0, 1], [0, 1], k=1),
    "scores": lambda x: metrics.auroc(x, EYE[0]),
    "labels": lambda x: metrics.knn_accuracy(EYE, EYE.clone(), x, [0, 1], k=1),
    "ranks": lambda x: rince.ranked_info_nce(EYE, EYE, x, 0.1),
    "targets": lambda x: rank_n_contrast(EYE, x),
    "DenseRanks": ranks.DenseRanks,
    "vectors": lambda x: from_vectors(x, ["a", "b"]),
    "images": lambda x: from_arrays(x, ["a", "b"]),
}


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("name", TAKES_NUMBERS)
def test_what_was_given_is_named(name: str, given: str) -> None:
    array, message = GIVEN[given]
    with pytest.raises(ValueError, match=message):
        TAKES_NUMBERS[name](array)


def test_of_mixed_objects_one_that_is_no_number_is_named() -> None:
    mixed = np.array([1, "two", 3.0, "four"], dtype=object)
    assert values_of(mixed) == "values of the type object, such as 'two' (str)"


@pytest.mark.parametrize("given", GIVEN)
def test_temperatures_are_numbers(given: str) -> None:
    with pytest.raises(ValueError, match=r"temperatures must be numbers.*got .*array"):
        rince.ranked_info_nce(EYE, EYE, torch.eye(2).long(), GIVEN[given][0])
    with pytest.raises(ValueError, match=r"temperatures must be numbers.*\[\[0\.1"):
        rince.ranked_info_nce(EYE, EYE, torch.eye(2).long(), np.array([[0.1, 0.2]]))


def test_records_in_files(tmp_path: Path) -> None:
    np.save(tmp_path / "records.npy", RECORDS)
    np.save(tmp_path / "scores.npy", RECORDS)
    np.savez(tmp_path / "labelled.npz", embeddings=np.eye(2), labels=["a", "b"], more=RECORDS)
    with pytest.raises(RinceError, match="records with the fields width, id"):
        read_vectors(tmp_path / "records.npy")
    with pytest.warns(RinceWarning, match="'more' holds records with the fields width, id"):
        read_labelled(tmp_path / "labelled.npz", None, None)
    with pytest.raises(RinceError, match="records with the fields width, id"):
        read_scores(tmp_path / "scores.npy")
