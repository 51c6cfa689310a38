"""Runs of today's code against those recorded before it was rearranged (see record.py).

In the environment of the record everything must be equal to the last bit. Elsewhere names, splits,
fingerprints, configurations and what else is no measured number must be equal, and numbers lie
within ``TOLERANCE``: between AVX-512 and AVX2 they differ by less than 0.02. Without AVX2, torch
resizes bytes another way and the views themselves differ, so that there only the names of the
numbers are compared.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from record import (
    EXPECTED_FILE,
    OLD_RUNS,
    RUNS,
    differences,
    environment,
    golden_run,
    old_run,
    unpack_artifacts,
)

EXPECTED = json.loads(EXPECTED_FILE.read_text())
TOLERANCE = 0.15
SAME_RESIZE = ("AVX2", "AVX512")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("golden")


@pytest.fixture(autouse=True)
def _working_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)  # the recorded paths are below it


def _compare(expected: dict[str, Any], found: dict[str, Any]) -> None:
    if "results" in expected:  # later versions measure more; what was recorded must be there
        recorded = {k: v for k, v in found["results"].items() if k in expected["results"]}
        found = found | {"results": recorded}
    here, there = environment(), EXPECTED["environment"]
    tolerance = TOLERANCE if here["capability"] in SAME_RESIZE else math.inf
    lines = differences(expected, found, None if here == there else tolerance)
    assert not lines, f"{len(lines)} differ:\n" + "\n".join(lines[:20])


def test_every_run_is_recorded() -> None:
    assert list(EXPECTED["runs"]) == list(RUNS)
    assert list(EXPECTED["old"]) == list(OLD_RUNS)


# The classifier, which has no embedding, is given the width of one all the same.
@pytest.mark.filterwarnings("ignore:model.embedding_dim has no effect:rince.RinceWarning")
@pytest.mark.parametrize("name", RUNS)
def test_run(name: str) -> None:
    for library in RUNS[name].needs:
        pytest.importorskip(library)
    _compare(EXPECTED["runs"][name], golden_run(RUNS[name]))


def test_a_resumed_run_is_one_that_was_not_stopped() -> None:
    whole, resumed = EXPECTED["runs"]["momentum"], EXPECTED["runs"]["resumed"]
    for part in ("name", "fingerprint", "split", "steps", "weights", "history"):
        assert whole[part] == resumed[part], part


# That the old runs are not finished is said, and is meant.
@pytest.mark.filterwarnings("ignore::rince.RinceWarning")
@pytest.mark.parametrize("name", OLD_RUNS)
def test_folders_of_an_old_version_are_evaluated_exported_embedded_and_resumed(name: str) -> None:
    for library in RUNS[name].needs:
        pytest.importorskip(library)
    if not Path("old").exists():
        unpack_artifacts()
    _compare(EXPECTED["old"][name], old_run(name))


def test_differences_are_found() -> None:
    """The comparison itself: a golden test that cannot fail is worth nothing."""
    expected = {"a": {"sha256": "0", "n": 1.0}, "keys": ["x", "y"], "seed": 3}
    changed = {"a": {"sha256": "1", "n": 1.01}, "keys": ["x", "y"], "seed": 3}
    assert differences(expected, expected, None) == []
    assert len(differences(expected, changed, None)) == 2
    assert differences(expected, changed, 0.05) == []
    assert len(differences(expected, changed, 0.001)) == 1
    for other in (
        {"keys": ["y", "x"]},
        {"keys": ["x"]},
        {"seed": 4},
        {"seed": 3.0},
        {"more": 1},
        {"a": {"sha256": "0"}},
    ):
        assert differences(expected, expected | other, 0.05)
