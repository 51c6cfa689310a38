from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rince.training.halving import (
    Score,
    better_part,
    pareto_front,
    planned_epochs,
    round_lengths,
    successive_halving,
)

# Few values, so that there are ties.
SCORES = st.builds(Score, st.integers(0, 6), st.integers(0, 6))
MANY = st.lists(SCORES, min_size=1, max_size=20).map(lambda found: dict(enumerate(found)))


@given(MANY)
def test_the_front_is_that_of_a_sweep_from_the_best_fine_down(scores: dict[int, Score]) -> None:
    highest, swept = -1.0, set()
    for score in sorted(set(scores.values()), reverse=True):
        if score.coarse > highest:
            highest = score.coarse
            swept |= {trial for trial, own in scores.items() if own == score}
    front = pareto_front(scores)
    assert set(front) == swept
    assert [scores[t].fine for t in front] == sorted(scores[t].fine for t in front)


@given(MANY, st.integers(1, 20))
def test_no_trial_that_is_dropped_beats_one_that_is_kept(
    scores: dict[int, Score], count: int
) -> None:
    kept = better_part(scores, count)
    assert len(set(kept)) == len(kept) == min(count, len(scores))
    dropped = [score for trial, score in scores.items() if trial not in kept]
    assert not any(score.beats(scores[trial]) for score in dropped for trial in kept)
    if count > 1:
        for measure in ("fine", "coarse"):
            best = max(getattr(score, measure) for score in scores.values())
            assert max(getattr(scores[trial], measure) for trial in kept) == best


@given(MANY, st.integers(1, 40))
def test_the_budget_is_what_is_said_and_the_best_come_through(
    scores: dict[int, Score], epochs: int
) -> None:
    trained = dict.fromkeys(scores, 0)
    winner = len(scores)
    scores[winner], trained[winner] = Score(7, 7), 0

    def train(trial: int, length: int) -> Score:
        trained[trial] += length
        return scores[trial]

    lengths = round_lengths(epochs)
    found = successive_halving(len(scores), lengths, train)
    assert winner in found
    assert sum(trained.values()) == planned_epochs(len(scores), lengths)
    assert {trial for trial, spent in trained.items() if spent == sum(lengths)} == set(found)


def test_a_trial_that_fails_is_left_out() -> None:
    def train(trial: int, length: int) -> Score | None:
        assert (trial, length) != (3, 4)
        return None if trial == 3 else Score(trial, trial)

    assert list(successive_halving(4, [1, 4], train)) == [2]
    assert successive_halving(4, [1, 4], lambda *_: None) == {}


def test_the_weight_is_a_dial_that_does_not_depend_on_the_scale() -> None:
    score = Score(0.2, 0.6)
    assert [score.weighted(w) for w in (1, 0)] == [0.2, 0.6]
    better, worse = Score(0.2 * 1.1, 0.6 / 1.1), Score(0.2 / 1.1, 0.6 * 1.1)
    assert better.weighted(0.5) == pytest.approx(score.weighted(0.5))
    assert better.weighted(0.6) > score.weighted(0.6) > worse.weighted(0.6)
