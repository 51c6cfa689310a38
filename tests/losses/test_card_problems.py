"""What the tests on a card stand on, exercised without one."""

from __future__ import annotations

import pytest
import torch

from card_problems import Problem, error, outcome
from rince.core.pair_ranks import ALL


@pytest.mark.parametrize("keys", [90, None])
@pytest.mark.parametrize("engine", ["dense", "streamed", "streamed-pairs"])
def test_engines_on_the_cpu_meet_the_bounds_of_a_card(engine: str, keys: int | None) -> None:
    problem = Problem(queries=60, keys=keys, dimension=16)
    found, wanted = outcome(problem, engine, "cpu", learn_taus=True), problem.expected()
    assert error(found.loss, wanted.loss) < 1e-5
    assert len(found.gradients) == len(wanted.gradients) == (3 if keys else 2)
    for got, right in zip(found.gradients, wanted.gradients, strict=True):
        assert error(got, right) < 2e-5


@pytest.mark.parametrize("keys", [90, None])
def test_level_codes_are_the_ranks_of_the_table(keys: int | None) -> None:
    problem = Problem(queries=60, keys=keys)
    levels, table = problem.levels("cpu"), problem.tensors("cpu")[2]
    assert torch.equal(levels.tile(ALL, ALL), table.tile(ALL, ALL))


def test_an_error_of_nan_is_infinite() -> None:
    assert error(torch.tensor([torch.nan]), torch.ones(1).double()) == float("inf")
