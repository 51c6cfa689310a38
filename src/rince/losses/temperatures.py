"""Temperatures per rank: the paper's schedule, and the checks."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real

import torch
from torch import Tensor, nn

from rince.core.checks import require, usable_temperature, warn


def temperature_schedule(
    scores: Sequence[float], minimum: float = 0.1, maximum: float = 0.6
) -> tuple[float, ...]:
    """tau(score) = minimum + (1 - score) * (maximum - minimum): less similar, softer.

    Args:
        scores: similarity of each rank in [0, 1], most similar first. The paper's CIFAR-100
            setting is (1, 0.75): same class, same superclass.
        minimum, maximum: temperatures at score 1 and at score 0.

    Returns:
        One temperature per rank.

    Raises:
        ValueError: a score outside [0, 1], scores not falling, or not 0 < minimum < maximum.

    Example:
        >>> temperature_schedule((1.0, 0.75))
        (0.1, 0.225)
    """
    require(
        0 < minimum < maximum,
        f"temperatures must satisfy 0 < minimum < maximum, got {minimum} and {maximum}",
    )
    require(
        all(0 <= score <= 1 for score in scores),
        f"similarity scores must lie in [0, 1], got {tuple(scores)}",
    )
    require(
        all(a > b for a, b in zip(scores, scores[1:], strict=False)),
        f"scores must fall from rank to rank (most similar first), got {tuple(scores)}",
    )
    return tuple(minimum + (1 - score) * (maximum - minimum) for score in scores)


def check_temperatures(
    temperatures: float | Sequence[float | Tensor] | Tensor, validate: bool = True
) -> Sequence[float | Tensor]:
    """One temperature per rank, as a list; a 1-D tensor, or scalar tensors, keep their graph."""
    if isinstance(temperatures, (Real, int, float)):  # numpy's, too
        temperatures = [float(temperatures)]
    listed = [] if isinstance(temperatures, Tensor) else temperatures
    if tensors := [t for t in listed if isinstance(t, Tensor)]:
        require(
            all(t.numel() == 1 for t in tensors),
            f"a list of temperatures holds one number per rank, got tensors of shape "
            f"{', '.join(str(tuple(t.shape)) for t in tensors)}",
        )
        device = tensors[0].device
        each = (torch.as_tensor(t, device=device).reshape(()) for t in listed)
        temperatures = torch.stack(list(each))
    if isinstance(temperatures, Tensor):
        require(
            temperatures.ndim <= 1,
            f"temperatures must be a vector, one per rank, got shape {tuple(temperatures.shape)}",
        )
        taus = list(
            temperatures.reshape(-1).to(torch.promote_types(temperatures.dtype, torch.float32))
        )
        require(len(taus) > 0, "temperatures are empty: give one per rank")
        if validate:
            numbers = temperatures.detach().reshape(-1).tolist()
            _check_positive(numbers)
            # Without their numbers, which change at each step: a warning is shown once.
            learned = temperatures.requires_grad
            _warn_unless_rising(numbers, "the learned temperatures" if learned else None)
        return taus
    try:
        numbers = [float(t) for t in listed]
    except (TypeError, ValueError):
        raise ValueError(
            f"temperatures must be numbers, one per rank, got {temperatures!r:.100}"
        ) from None
    require(len(numbers) > 0, "temperatures are empty: give one per rank")
    _check_positive(numbers)
    if validate:
        _warn_unless_rising(numbers)
    return numbers


def as_parameter_or_numbers(
    temperatures: float | Sequence[float | Tensor] | Tensor, learn: bool
) -> nn.Parameter | tuple[float, ...]:
    """What a module holds: a parameter if they are to be learned.

    A tensor that requires a gradient becomes a parameter on the same memory; an ``nn.Parameter``
    stays the object that an optimizer may know.
    """
    if not isinstance(temperatures, Tensor):
        numbers = [temperatures] if isinstance(temperatures, (Real, int, float)) else temperatures
        require(
            not any(isinstance(t, Tensor) and t.requires_grad for t in numbers),
            "a module cannot learn temperatures that come one by one: give all in one tensor, "
            "nn.Parameter(torch.tensor([0.1, 0.225])), or numbers and learn_temperatures=True",
        )
        held = tuple(float(t) for t in numbers)
        return nn.Parameter(torch.tensor(held, dtype=torch.float32)) if learn else held
    require(
        temperatures.is_leaf,
        "these temperatures are computed from others, and a module cannot keep a computation: "
        "give it the parameter itself (it is kept above min_temperature), or call "
        "ranked_info_nce(query, key, ranks, temperatures) with them",
    )
    if not learn and not temperatures.requires_grad:
        return tuple(temperatures.reshape(-1).tolist())
    require(
        temperatures.dtype in (torch.float32, torch.float64),
        f"temperatures to learn must be float32, got {temperatures.dtype}: their gradient would "
        f"overflow under a loss scale",
    )
    if isinstance(temperatures, nn.Parameter):
        return temperatures
    return nn.Parameter(temperatures)


def match_num_ranks(given: int, num_ranks: int | None, highest: int = 0) -> None:
    """Refuse a number of temperatures that does not fit the rank source or the ranks seen."""
    if num_ranks is not None:
        require(
            given == num_ranks,
            f"the ranks go up to {num_ranks}, so {num_ranks} temperatures are needed, got {given}",
        )
    require(
        highest <= given,
        f"a pair has rank {highest}, but there are only {given} temperatures: give one per rank",
    )


def _check_positive(taus: list[float]) -> None:
    require(
        all(map(usable_temperature, taus)),
        f"temperatures must be positive numbers, from 1e-30 to 1e30, got {taus}",
    )


def _warn_unless_rising(taus: list[float], shown: str | None = None) -> None:
    if any(a >= b for a, b in zip(taus, taus[1:], strict=False)):
        warn(
            f"{shown or f'temperatures {taus}'} do not rise with the rank: a better rank then "
            f"pulls no harder than a worse one, and their order may not be learned. Rising ones "
            f"keep it, for instance (0.1, 0.225)"
        )
