"""Retrieval among test items of any classes, trained or never seen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rince.core.checks import require, warn
from rince.data.items import Items, Splits, linked
from rince.evaluation.context import Context
from rince.evaluation.features import FeatureSet, Network
from rince.evaluation.options import EvaluationOptions, require_name
from rince.evaluation.steps import STEPS, Step, measured
from rince.ranks.time import VIDEO


@dataclass(frozen=True, eq=False)
class OpenTest:
    """Test items that are searched among each other, leave-one-out or queries against a gallery.

    Args:
        items: N of any classes.
        query: (N,) bool, those that ask; None: all. gallery: (N,) bool, those that are found.
        sequence: (N,) int64: items of one sequence (a burst, photos of one object) are never each
            other's answers; nor are clips of one video. None: any item is its own.

    Raises:
        ValueError: another shape; no query or nothing in the gallery; a single class.
    """

    items: Items
    query: Tensor | None = None
    gallery: Tensor | None = None
    sequence: Tensor | None = None

    def __post_init__(self) -> None:
        count, noun = len(self.items), self.items.noun
        for name in ("query", "gallery", "sequence"):
            given = getattr(self, name)
            if given is None:
                continue
            fits = name == "sequence" or given.dtype == torch.bool
            require(
                given.shape == (count,) and fits,
                f"{name} must hold one value for each of {count} {noun}, got "
                f"{(tuple(given.shape), given.dtype)}",
            )
            require(
                name == "sequence" or bool(given.any()),
                f"{self.items.name} has no {name}: none of its {count} {noun} is one",
            )
        require(
            count > 0 and bool((self.items.labels != self.items.labels[0]).any()),
            f"all {count} {self.items.noun} of {self.items.name} are of one class: whatever is "
            f"found is right, so there is nothing to measure",
        )

    def context(
        self, features: Tensor, options: EvaluationOptions, asking: Tensor | None = None
    ) -> Context:
        """What the steps of an evaluation look at.

        Args:
            features: (N, D) float32. options: of the evaluation.
            asking: (N,) bool, only these queries; None: all of them.
        """
        items, everything = self.items, torch.ones(len(self.items), dtype=torch.bool)
        query, asking, gallery = (
            everything if x is None else x for x in (self.query, asking, self.gallery)
        )
        asked, found = (side.nonzero()[:, 0] for side in (query & asking, gallery))
        sequence = torch.arange(len(items)) if self.sequence is None else self.sequence
        if items.times is not None:
            sequence = linked(items.times[:, VIDEO], sequence)
        train, test = (FeatureSet(features[x], items.labels[x]) for x in (found, asked))
        splits = Splits(train=items.subset(found), test=items.subset(asked))
        sequences = (sequence[asked], sequence[found])
        return Context(splits, train, test, {}, options, sequences=sequences)


def evaluate_open(
    backbone: nn.Module,
    name: str,
    test: OpenTest,
    trained: Collection[tuple[str, ...]],
    *,
    head: nn.Module | None = None,
    options: EvaluationOptions | None = None,
    device: torch.device | str = "cpu",
    batch_size: int = 512,
    workers: int = 0,
    steps: Sequence[Step] = STEPS,
) -> dict[str, float]:
    """Retrieval and order of the ranks among test items, those of unseen classes apart.

    What asks for training items of these classes (probe, kNN, outliers) is left out. All items
    are in the gallery, whoever asks.

    Args:
        backbone: inputs to features. head: features to embeddings; None: of the features alone.
        name: of the test.
        test: the items.
        trained: paths of the classes that were trained.
        options, device, batch_size, workers, steps: as of
            :func:`~rince.evaluation.evaluate_backbone`.

    Returns:
        ``unseen/NAME/retrieval/fine/R@1``, ... of queries of unseen classes, ``seen/NAME/...`` of
        the others, where there are such; with ``embedding/`` in front of the embedding.

    Raises:
        ValueError: features that are not finite; no query has another item of its class.
    """
    options, items = options or EvaluationOptions(), test.items
    options.check()
    require_name(name, "a test")
    network = Network(backbone, head, device, batch_size, workers)
    known = set(trained)
    seen = torch.tensor([path in known for path in items.taxonomy.paths])[items.labels]
    metrics: dict[str, float] = {}
    for space, features in network.spaces(network.features(items).features).items():
        for part, asking in (("unseen", ~seen), ("seen", seen)):
            asked = asking if test.query is None else asking & test.query
            if not bool(asked.any()):
                continue
            context = test.context(features, options, asking)
            if not has_positives(context):
                warn(
                    f"{name}: no query of {part} classes has another item of its group in the "
                    f"gallery: they are left out"
                )
                continue
            found = measured(context, steps)
            metrics |= {f"{space}{part}/{name}/{key}": value for key, value in found.items()}
            if space == "":
                warn_unanswered(context, found, f"{name} ({part} classes)")
    require(
        bool(metrics),
        f"{name}: no query has another item of its class or group in the gallery, so retrieval "
        f"cannot be asked",
    )
    return metrics


def has_positives(context: Context) -> bool:
    """Whether any query has an item of its coarse group in the gallery, of another sequence."""
    assert context.sequences is not None
    train, test, _ = list(context.levels.values())[-1]
    of_query, of_gallery = (sequences.tolist() for sequences in context.sequences)
    there: dict[int, set[int]] = defaultdict(set)  # group -> its sequences in the gallery
    for group, sequence in zip(train.tolist(), of_gallery, strict=True):
        there[group].add(sequence)
    asked = zip(test.tolist(), of_query, strict=True)
    return any(len(there[group]) > (sequence in there[group]) for group, sequence in asked)


def warn_unanswered(context: Context, metrics: Mapping[str, float], name: str) -> None:
    """Say how many queries have no positive, level by level."""
    count = len(context.test)
    for level in context.levels:
        left_out = round(count * (1 - metrics.get(f"retrieval/{level}/asked", 1)))
        if left_out:
            warn(
                f"{name}: {left_out} of {count} queries have no other item of their {level} group "
                f"in the gallery and are left out there"
            )
