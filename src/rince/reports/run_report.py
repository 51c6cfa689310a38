"""One trained and evaluated run, as tables and pages see it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rince.evaluation.results import Evaluation


@dataclass(frozen=True)
class RunReport:
    """Everything a report says about one run.

    ``history``: metric name -> (step, value) pairs: ``train/loss``, ``train/loss_rank_1``,
    ``train/similarity_rank_0`` (0 = negatives), ``train/positives_rank_1``, ``online_knn``.
    """

    label: str  # of the method: "rince out-in"; runs that differ only in their seed share it
    folder: Path
    evaluation: Evaluation
    config: Mapping[str, Any] = field(default_factory=dict)  # by dotted names: "loss.variant"
    history: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    seconds: float | None = None  # of the training; None if unknown
    versions: Mapping[str, str] = field(default_factory=dict)


def distinct_names(runs: Sequence[RunReport]) -> tuple[str, ...]:
    """One name per run: its label, longer only where two would share it, without line breaks."""
    labels = [one_line(run.label) for run in runs]
    suffixes: tuple[Callable[[int], str], ...] = (
        lambda i: runs[i].folder.name,
        lambda i: str(runs[i].folder),
        lambda i: f"{runs[i].folder} #{i + 1}",
    )
    names = labels
    for suffix in suffixes:
        counts = Counter(names)
        names = [
            name if counts[name] == 1 else f"{labels[i]} · {suffix(i)}"
            for i, name in enumerate(names)
        ]
    return tuple(names)


def one_line(text: str) -> str:
    """The text with every run of white space, line breaks included, made one space.

    >>> one_line(" rince\\n out-in ")
    'rince out-in'
    """
    return " ".join(text.split())


def class_name(names: Sequence[str], index: int) -> str:
    """The name of a class or group; a number where the evaluation stored no name."""
    return names[index] if 0 <= index < len(names) else f"class {index}"
