from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from rince import RankedInfoNCE, RinceWarning
from rince.losses import temperature_schedule
from rince.losses.temperatures import check_temperatures, match_num_ranks


def test_the_papers_settings() -> None:
    """tau = minimum + (1 - score)(maximum - minimum): "0.1 to 0.6" is (0.1, 0.225) in truth."""
    assert temperature_schedule((1.0, 0.75)) == pytest.approx((0.1, 0.1 + 0.25 * 0.5))
    assert temperature_schedule((1.0, 0.75, 0.2)) == pytest.approx((0.1, 0.225, 0.5))
    assert temperature_schedule((1.0, 0.5, 0.0), 0.05, 0.25) == pytest.approx((0.05, 0.15, 0.25))


@pytest.mark.parametrize(
    ("scores", "limits", "match"),
    [
        ((1.0, 0.5), (0.0, 0.6), r"minimum < maximum.* 0\.0 and 0\.6"),
        ((1.0, 0.5), (0.6, 0.6), r"minimum < maximum.* 0\.6 and 0\.6"),
        ((1.0, 0.5), (0.6, 0.1), r"minimum < maximum.* 0\.6 and 0\.1"),
        ((1.1, 0.5), (0.1, 0.6), r"\[0, 1\].* \(1\.1, 0\.5\)"),
        ((1.0, -0.1), (0.1, 0.6), r"\[0, 1\].* \(1\.0, -0\.1\)"),
        ((1.0, 1.0), (0.1, 0.6), r"fall.* \(1\.0, 1\.0\)"),
        ((0.5, 1.0), (0.1, 0.6), r"fall.* \(0\.5, 1\.0\)"),
        ((1.0, 0.5, 0.7), (0.1, 0.6), r"fall.* \(1\.0, 0\.5, 0\.7\)"),
    ],
)
def test_schedules_that_make_no_sense_are_refused(scores: Any, limits: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        temperature_schedule(scores, *limits)


@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize("bad", [0.0, -0.1, math.nan, math.inf, 1e-42, 1e-310, 1e31])
def test_temperatures_that_are_not_positive_are_refused(bad: float, validate: bool) -> None:
    for taus in (bad, (0.1, bad), [bad]):
        with pytest.raises(ValueError, match="positive numbers"):
            check_temperatures(taus, validate)
    if validate:  # reading a tensor waits for the GPU
        with pytest.raises(ValueError, match="positive numbers"):
            check_temperatures(torch.tensor([0.1, bad]))


@pytest.mark.parametrize("taus", [(0.2, 0.1), (0.1, 0.1), (0.1, 0.3, 0.2)])
def test_temperatures_that_do_not_rise_are_warned_of(taus: tuple[float, ...]) -> None:
    for given in (taus, torch.tensor(taus)):
        with pytest.warns(RinceWarning, match="do not rise") as caught:
            assert check_temperatures(given) == pytest.approx(taus)
        assert len(caught) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert check_temperatures(given, validate=False) == pytest.approx(taus)


def test_learned_temperatures_that_do_not_rise_are_warned_of_once() -> None:
    """They change at each step, so their numbers would make each warning a new one."""
    told = set()
    for step in (0.1, 0.11, 0.12):
        with pytest.warns(RinceWarning, match="do not rise") as caught:
            check_temperatures(torch.tensor([step, 0.1], requires_grad=True))
        told |= {str(warning.message) for warning in caught}
    assert len(told) == 1


def test_rising_temperatures_pass_in_silence_as_numbers_of_at_least_fp32() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_temperatures((0.1, 0.225, 0.5)) == [0.1, 0.225, 0.5]
        assert check_temperatures(1) == [1.0]
        learned = torch.tensor([0.1, 0.2], dtype=torch.float64, requires_grad=True)
        taus = check_temperatures(learned)
        sum(taus).backward()
        half = check_temperatures(torch.tensor([0.5, 1.0], dtype=torch.float16))
    assert learned.grad.tolist() == [1, 1]
    assert [t.dtype for t in taus] == [torch.float64] * 2
    assert [t.dtype for t in half] == [torch.float32] * 2


def test_one_number_of_numpys_is_a_temperature() -> None:
    assert check_temperatures(np.float32(0.5)) == [0.5]
    assert RankedInfoNCE(np.float32(0.5)).temperatures == (0.5,)
    learned = RankedInfoNCE(np.float32(0.5), learn_temperatures=True)
    assert learned.temperatures.tolist() == [0.5]
    with pytest.raises(ValueError, match="positive"):
        check_temperatures(np.float32(0.0))


def test_no_temperatures_and_a_matrix_of_them_are_refused() -> None:
    for empty in ([], torch.empty(0)):
        with pytest.raises(ValueError, match="temperatures are empty"):
            check_temperatures(empty)
    with pytest.raises(ValueError, match=r"vector.*\(1, 2\)"):
        check_temperatures(torch.tensor([[0.1, 0.2]]))


def test_their_number_must_be_that_of_the_source_and_reach_the_highest_rank() -> None:
    match_num_ranks(2, 2)
    match_num_ranks(2, None)
    match_num_ranks(2, None, highest=1)
    match_num_ranks(2, None, highest=2)
    for given in (1, 3):
        with pytest.raises(ValueError, match=rf"2 temperatures.* {given}\b"):
            match_num_ranks(given, 2)
    with pytest.raises(ValueError, match=r"rank 3\b.*\b2 temperatures"):
        match_num_ranks(2, None, highest=3)
