"""Successive halving on two measures at once: many short trainings, the best once more, longer.

Plain functions of numbers. Of two measures there is no best trial, there is a front: trials to
which no other is better on both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple


class Score(NamedTuple):
    """What a trial is judged by, both in [0, 1], higher is better."""

    fine: float
    coarse: float

    def weighted(self, fine_weight: float) -> float:
        """fine^w coarse^(1-w): a gain of a tenth in one makes up for a loss of a tenth in the
        other at w = 0.5, whatever their sizes. 1: fine alone, 0: coarse alone."""
        return float(self.fine**fine_weight * self.coarse ** (1 - fine_weight))

    def beats(self, other: Score) -> bool:
        """Whether it is not worse on either measure, and better on one."""
        return self != other and self.fine >= other.fine and self.coarse >= other.coarse


def successive_halving(
    trials: int, lengths: Sequence[int], score: Callable[[int, int], Score | None]
) -> dict[int, Score]:
    """Train all trials for the first length, the better quarter for the next, and so on.

    ``score``: (trial, epochs) -> its score, trained from the start for so many; None: it failed,
    and is left out from here on. Gives the scores of those that were trained to the end: as spread
    along the front as they can be, from the best on one measure to the best on the other.

    Example:
        >>> successive_halving(8, [1, 4], lambda trial, epochs: Score(trial, 8 - trial))
        {0: Score(fine=0, coarse=8), 7: Score(fine=7, coarse=1)}
    """
    going = list(range(trials))
    scores: dict[int, Score] = {}
    for i, length in enumerate(lengths):
        measured = {trial: score(trial, length) for trial in going}
        scores = {trial: x for trial, x in measured.items() if x is not None}
        going = better_part(scores, survivors(trials, i + 2)[-1])
    return scores


def survivors(trials: int, rounds: int) -> list[int]:
    """Trials in each round: a quarter of those of the round before, rounded up."""
    return [-(-trials // 4**i) for i in range(rounds)]


def round_lengths(epochs: int) -> list[int]:
    """A quarter of the epochs, rounded up, and all; of one epoch it alone."""
    return sorted({-(-epochs // 4), epochs})


def planned_epochs(trials: int, lengths: Sequence[int]) -> int:
    """Epochs that :func:`successive_halving` trains: in each round from the start."""
    return sum(n * x for n, x in zip(survivors(trials, len(lengths)), lengths, strict=True))


def better_part(scores: Mapping[int, Score], count: int) -> list[int]:
    """The front, then the front of the rest, and so on, until there are ``count`` trials; of a
    front larger than the room left evenly spaced ones, with both ends, or for one place the middle.
    """
    rest, kept = dict(scores), list[int]()
    while rest and len(kept) < count:
        front = pareto_front(rest)
        room = count - len(kept)
        if room < len(front):
            last, steps = len(front) - 1, max(1, room - 1)
            places = [last // 2] if room == 1 else [round(i * last / steps) for i in range(room)]
            front = [front[i] for i in places]
        kept += front
        rest = {trial: score for trial, score in rest.items() if trial not in front}
    return sorted(kept)


def pareto_front(scores: Mapping[int, Score]) -> list[int]:
    """Those to which no other is better on one measure and not worse on the other, from the best
    coarse to the best fine."""
    front = [t for t, own in scores.items() if not any(x.beats(own) for x in scores.values())]
    return sorted(front, key=lambda trial: (scores[trial].fine, -trial))
