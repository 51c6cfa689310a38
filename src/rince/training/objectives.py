"""The table of objectives. No torch here: ``rince train --help`` and configurations read it.

A new objective is a function of a :class:`~rince.training.step.Step` and a row here.
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rince.core.checks import import_extra, require

if TYPE_CHECKING:
    from torch import Tensor

    from rince.core.pair_ranks import PairRanks
    from rince.training.step import Loss, Step

    LossFunction = Callable[[Tensor, Tensor, PairRanks], Tensor]


@dataclass(frozen=True)
class Objective:
    """An objective, and all that the harness has to know of it.

    Args:
        name: in ``--objective``, in tables and in the names of runs.
        loss: a function of a :class:`~rince.training.step.Step` to a scalar tensor, or to a
            :class:`~rince.training.step.Loss` with parts to show. As "module:function" it is
            imported when it is first needed. None: a checkpoint's objective of your own, without
            its code.
        summary: for the help.
        reads: options that it reads: of ``loss`` by name ("loss.margin"); "ranks" are all of them.
            Others that are set have no effect, and the user is warned.
        classifier: it reads logits alone: a linear classifier takes the place of the projection
            head.
        classifier_beside: it reads logits too: a linear classifier of the classes stands beside the
            projection head.
        num_heads: projection heads side by side; 2 of a classifier: classes and superclasses.
        needs_superclasses: classes on one flat level are refused.
        needs_labels: a single class is refused.
        by_time: what it does with ``ranks.by time``: trains on these "ranks", takes all clips of a
            "video" as positives, or takes each "clip" by itself. None: it is refused.
        within_batch: keys are the batch's own queries: no momentum encoder and no queue.
        package: (module, extra of rince that brings it), if it needs one.

    Example:
        >>> [name for name, row in OBJECTIVES.items() if row.classifier]
        ['cross-entropy', 'cross-entropy-two-heads']
    """

    name: str
    loss: str | Callable[[Step], Loss | Tensor] | None = None
    summary: str = ""
    reads: tuple[str, ...] = ()
    classifier: bool = False
    classifier_beside: bool = False
    num_heads: int = 1
    needs_superclasses: bool = False
    needs_labels: bool = True
    by_time: Literal["ranks", "video", "clip"] | None = None
    within_batch: bool = False
    package: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        require(
            not (self.classifier and self.classifier_beside),
            f"the objective {self.name} has classifier and classifier_beside: one of them says "
            f"where the classifier stands",
        )

    def function(self) -> Callable[[Step], Loss | Tensor]:
        """The loss, imported if the row holds its path.

        Raises:
            ImportError: it needs a package that is not installed; the message names the extra.
        """
        if self.package is not None:
            import_extra(*self.package)
        loss: Any = pkgutil.resolve_name(self.loss) if isinstance(self.loss, str) else self.loss
        require(callable(loss), f"the objective {self.name} has no function: got {loss!r}")
        function: Callable[[Step], Loss | Tensor] = loss
        return function


_RINCE = ("loss.variant", "loss.positives", "loss.temperatures", "loss.matmul_precision", "ranks")
_ONE_TEMPERATURE = ("loss.temperature", "loss.matmul_precision")
_PAIRS, _CLASSIFIERS = "rince.training.pair_losses", "rince.training.classifiers"
_METRIC_LEARNING = ("pytorch_metric_learning", "metric-learning")

_ROWS = (
    Objective(
        "rince",
        f"{_PAIRS}:rince",
        "ranked positives: RINCE",
        reads=_RINCE,
        by_time="ranks",
    ),
    Objective(
        "supcon-in",
        f"{_PAIRS}:same_class_in",
        "SupCon, mean over the positives inside the logarithm",
        reads=_ONE_TEMPERATURE,
        by_time="video",
    ),
    Objective(
        "supcon-out",
        f"{_PAIRS}:same_class_out",
        "SupCon, mean over the positives outside the logarithm",
        reads=_ONE_TEMPERATURE,
        by_time="video",
    ),
    Objective(
        "supcon-coarse",
        f"{_PAIRS}:same_superclass",
        "supcon-out on superclasses",
        reads=_ONE_TEMPERATURE,
        needs_superclasses=True,
    ),
    Objective(
        "supcon-sum",
        f"{_PAIRS}:class_and_superclass",
        "supcon-out on classes plus supcon-out on superclasses",
        reads=_ONE_TEMPERATURE,
        needs_superclasses=True,
    ),
    Objective(
        "supcon-two-heads",
        f"{_PAIRS}:class_and_superclass",
        "the same sum, with a projection head for each",
        reads=_ONE_TEMPERATURE,
        needs_superclasses=True,
        num_heads=2,
    ),
    Objective(
        "himulcon",
        f"{_PAIRS}:all_levels",
        "hierarchical SupCon on all levels of the class tree",
        reads=("loss.temperature",),
    ),
    Objective(
        "supcon-siblings",
        f"{_PAIRS}:siblings",
        "supcon-out on each level of the class tree, against the siblings alone",
        reads=_ONE_TEMPERATURE,
    ),
    Objective(
        "cross-scale",
        f"{_PAIRS}:margins",
        "cross-scale learning: a margin for each step of rank to the nearest positives (DyML)",
        reads=("loss.temperature", "loss.margin", "ranks"),
        by_time="ranks",
    ),
    Objective(
        "x-clr",
        f"{_PAIRS}:known_similarities",
        "cross-entropy with the softmax of known similarities, a score of each rank (X-CLR)",
        reads=("loss.temperature", "loss.target_temperature", "ranks"),
        by_time="ranks",
    ),
    Objective(
        "smooth-ap",
        f"{_PAIRS}:smooth_average_precision",
        "Smooth-AP, on classes",
        reads=("loss.step_width",),
        by_time="video",
    ),
    Objective(
        "smooth-hap",
        f"{_PAIRS}:smooth_hierarchical_precision",
        "the same of hierarchical average precision, on the ranks (HAPPIER without proxies)",
        reads=("loss.step_width", "ranks"),
        by_time="ranks",
    ),
    Objective(
        "infonce",
        f"{_PAIRS}:same_image",
        "SimCLR / MoCo, no labels",
        reads=_ONE_TEMPERATURE,
        needs_labels=False,
        by_time="clip",
    ),
    Objective(
        "triplet-hierarchical",
        f"{_PAIRS}:triplet",
        "triplets with a margin for each step of rank",
        reads=("loss.margin",),
        package=_METRIC_LEARNING,
    ),
    Objective(
        "fastap",
        f"{_PAIRS}:average_precision",
        "average precision of the batch",
        package=_METRIC_LEARNING,
        within_batch=True,
    ),
    Objective(
        "cross-entropy",
        f"{_CLASSIFIERS}:cross_entropy",
        "a linear classifier of the classes",
        reads=("loss.smoothing",),
        classifier=True,
    ),
    Objective(
        "cross-entropy-two-heads",
        f"{_CLASSIFIERS}:cross_entropy",
        "classifiers of classes and superclasses",
        reads=("loss.smoothing",),
        classifier=True,
        num_heads=2,
        needs_superclasses=True,
    ),
    Objective(
        "rince-and-cross-entropy",
        f"{_CLASSIFIERS}:rince_and_cross_entropy",
        "RINCE plus the cross-entropy of a linear classifier beside the projection head",
        reads=(*_RINCE, "loss.cross_entropy_weight", "loss.smoothing"),
        classifier_beside=True,
    ),
)

OBJECTIVES = {row.name: row for row in _ROWS}
# For type checkers any word, so that your own objectives have names too; at run time these.
if TYPE_CHECKING:
    ObjectiveName = str
else:
    ObjectiveName = Literal[tuple(OBJECTIVES)]


def own_objective(given: Objective | LossFunction) -> Objective:
    """The row of an objective from outside: as it is, or of a plain loss.

    A function, such as a ``functools.partial`` of one of ``rince.losses``, is named after itself
    and trains on the ranks of the run.

    Example:
        >>> def my_loss(query, key, ranks): ...
        >>> own_objective(my_loss).name
        'my_loss'
    """
    row = given if isinstance(given, Objective) else _row_of(given)
    require(
        re.fullmatch(r"\w[\w.-]*", row.name) is not None,
        f"an objective's name may hold letters, digits, _, . and -, but it is {row.name!r}: give "
        f"it one, Objective(name=..., loss=...), or define it with def",
    )
    require(
        row.name not in OBJECTIVES or OBJECTIVES[row.name] == row,
        f"the name {row.name} is that of one of rince's own objectives: choose another",
    )
    return row


def _row_of(loss: LossFunction) -> Objective:
    require(callable(loss), f"an objective is a function or an Objective, got {loss!r}")
    named: Any = getattr(loss, "func", loss)  # of functools.partial
    name = getattr(named, "__name__", type(named).__name__)
    weights = loss.parameters() if hasattr(loss, "parameters") else ()
    require(
        next(iter(weights), None) is None,
        f"the objective {name} has weights of its own, which would not be trained: write the "
        f"training loop yourself (examples/lightning_module.py)",
    )

    def of_step(step: Step) -> Tensor:
        return loss(step.pairs.query, step.pairs.key, step.pair_ranks())

    return Objective(name, of_step, reads=("ranks",), by_time="ranks")
