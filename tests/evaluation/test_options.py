from __future__ import annotations

import subprocess
import sys

import pytest

from rince.evaluation.options import EvaluationOptions


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probe_epochs": 0}, "^probe_epochs .*1, got 0"),
        ({"knn_k": 0}, "^knn_k .*1, got 0"),
        ({"gallery_queries": 0}, "^gallery_queries .*1, got 0"),
        ({"gallery_neighbours": -1}, "^gallery_neighbours .*1, got -1"),
        ({"map_points": -1}, "^map_points .*0, got -1"),
        ({"near": -0.5}, r"^near .*0, got -0\.5"),
        ({"seed": -1}, "^seed .*0 .*got -1"),
        ({"seed": 2**32}, "^seed .*got 4294967296"),
    ],
)
def test_numbers_out_of_range_are_named(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EvaluationOptions(**change).check()  # type: ignore[arg-type]
    EvaluationOptions(map_points=0, near=0).check()


@pytest.mark.parametrize("module", ["options", "results"])
def test_options_and_stored_results_need_no_torch(module: str) -> None:
    code = f"import sys, rince.evaluation.{module}; print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "False\n"
