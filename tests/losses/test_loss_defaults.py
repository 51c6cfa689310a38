"""What users get who say nothing: a change of it changes their results."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from losses_helpers import unit

from defaults import TORCH_DEFAULTS, default_numbers, torch_default, without_a_row
from rince import losses
from rince.losses.options import DEFAULT_TEMPERATURES, LossOptions

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
    "cross_scale": {"temperature": 0.1, "margin": 0.2, "validate": True},
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


RANKED: dict[str, Any] = {
    "cross_scale": {"num_ranks": 2},
    "hierarchical_triplet": {"num_ranks": 2, "generator": torch.Generator()},
    "himulcon": {"level_weights": (1.0, 0.5)},
    "ranked_info_nce": {"temperatures": (0.1, 0.2)},
    "smooth_ap": {"num_ranks": 2},
    "supcon_siblings": {"num_ranks": 2},
    "x_clr": {"num_ranks": 2},
}


@pytest.mark.parametrize("default", TORCH_DEFAULTS)
@pytest.mark.parametrize("name", [*RANKED, "supcon_in", "supcon_out", "info_nce"])
def test_torchs_defaults_play_no_part(name: str, default: str) -> None:
    query, key = unit(0, 3, 4).float(), unit(1, 300, 4).float()
    ranks = torch.arange(900).reshape(3, 300) % (3 if name in RANKED else 2)
    if name == "info_nce":
        ranks = torch.eye(3, 300).int()

    def loss() -> torch.Tensor:
        options = RANKED.get(name, {})
        if "generator" in options:
            options["generator"].manual_seed(0)
        found: torch.Tensor = getattr(losses, name)(query, key, ranks, **options)
        return found

    expected = loss()
    with torch_default(default):
        found = loss()
    assert float(found) == float(expected)
    assert found.device == expected.device


@pytest.mark.parametrize("name", [*RANKED, "supcon_in", "supcon_out", "info_nce"])
def test_an_unknown_reduction_is_refused_before_any_work(name: str) -> None:
    """No matter what else is wrong, which is noticed later."""
    if name == "hierarchical_triplet":  # it has none
        return
    options = {**RANKED.get(name, {}), "reduction": "avg"}
    expected = r"reduction must be one of \('mean', 'sum', 'none'\), got 'avg'"
    with pytest.raises(ValueError, match=expected):
        getattr(losses, name)(unit(0, 3, 4), unit(1, 3, 4), None, **options)


@pytest.mark.parametrize("default", TORCH_DEFAULTS)
def test_what_losses_make_is_float32(default: str) -> None:
    groups = torch.tensor([0, 0, 1])
    with torch_default(default):
        learned = losses.RankedInfoNCE(0.1, learn_temperatures=True)
        targets = losses.smoothed_targets(groups, 0.5)
    assert learned.temperatures.dtype == torch.float32
    assert torch.equal(targets, losses.smoothed_targets(groups, 0.5))


def test_margins_are_those_of_the_command_line() -> None:
    margins = {default_numbers(losses, name).get("margin") for name in DEFAULTS} - {None}
    assert margins == {LossOptions().margin}


def test_default_temperatures_of_three_ranks() -> None:
    assert DEFAULT_TEMPERATURES == (0.1, 0.225, 0.5)


@pytest.mark.parametrize(
    ("name", "fit", "refused"),
    [
        ("temperatures", [(0.01,), (0.5, 0.6)], [(), (0.0,), (0.5, -1.0)]),
        ("temperature", [0.01, 2.0], [0.0, -1.0]),
        ("target_temperature", [0.01, 2.0], [0.0, -1.0]),
        ("step_width", [0.01, 2.0], [0.0, -1.0]),
        ("margin", [0.01, 2.0], [0.0, -1.0]),
        ("smoothing", [0.0, 0.5, 0.999], [-0.01, 1.0]),
        ("cross_entropy_weight", [0.01, 2.0], [0.0, -1.0]),
    ],
)
def test_ranges_of_options(name: str, fit: list[object], refused: list[object]) -> None:
    for value in fit:
        LossOptions(**{name: value}).check()
    for value in refused:
        with pytest.raises(ValueError, match=f"loss.{name}"):
            LossOptions(**{name: value}).check()


def test_the_default_temperatures() -> None:
    for number in (1, 2, 3):
        assert LossOptions().temperatures_for(number) == (0.1, 0.225, 0.5)[:number]
    assert LossOptions().temperatures_for(4) == (0.1, 0.2333, 0.3667, 0.5)
    many = LossOptions().temperatures_for(127)
    assert sorted(set(many)) == list(many)
    assert (many[0], many[-1]) == (0.1, 0.5)
    assert LossOptions(temperatures=(0.3,)).temperatures_for(4) == (0.3,)


@pytest.mark.parametrize(
    ("given", "training", "found"),
    [
        (None, "bf16-mixed", "bf16"),
        (None, "32-true", "fp32"),
        (None, "16-mixed", "fp32"),
        ("tf32", "bf16-mixed", "tf32"),
        ("fp32", "bf16-mixed", "fp32"),
    ],
)
def test_products_follow_the_training_where_nothing_is_said(
    given: Literal["fp32", "tf32"] | None, training: str, found: str
) -> None:
    assert LossOptions(matmul_precision=given).resolved(training).matmul_precision == found
