"""What users get who say nothing: a change of it changes their results."""

from __future__ import annotations

import pytest

from defaults import default_numbers, without_a_row
from rince import losses
from rince.losses.options import DEFAULT_TEMPERATURES

DEFAULTS = {
    "LossOptions": {
        "temperature": 0.1,
        "target_temperature": 0.1,
        "step_width": 0.01,
        "margin": 0.2,
        "smoothing": 0.0,
        "cross_entropy_weight": 1.0,
    },
    "RankedInfoNCE": {
        "temperatures": (0.1, 0.225),
        "validate": True,
        "learn_temperatures": False,
        "min_temperature": 0.01,
    },
    "cross_scale": {"temperature": 0.1, "margin": 0.1, "validate": True},
    "hierarchical_triplet": {"margin": 0.2, "validate": True},
    "himulcon": {"temperature": 0.1, "validate": True},
    "info_nce": {"temperature": 0.1, "validate": True},
    "rank_n_contrast": {"temperature": 2.0},
    "ranked_info_nce": {"validate": True},
    "ranked_info_nce_with_terms": {"validate": True},
    "smooth_ap": {"temperature": 0.01, "alpha": 1.0, "validate": True},
    "supcon_in": {"temperature": 0.1, "validate": True},
    "supcon_out": {"temperature": 0.1, "validate": True},
    "supcon_siblings": {"temperature": 0.1, "validate": True},
    "temperature_schedule": {"minimum": 0.1, "maximum": 0.6},
    "x_clr": {"temperature": 0.1, "target_temperature": 0.1, "validate": True},
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_of_losses(name: str) -> None:
    assert default_numbers(losses, name) == DEFAULTS[name]


def test_all_defaults_of_losses_are_listed() -> None:
    assert without_a_row(losses, DEFAULTS) == []


def test_default_temperatures_of_three_ranks() -> None:
    assert DEFAULT_TEMPERATURES == (0.1, 0.225, 0.5)
