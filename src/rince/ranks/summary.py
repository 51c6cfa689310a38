"""What the ranks of a taxonomy look like before any training."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rince.core.checks import require
from rince.core.labels import numbers
from rince.core.notebook import as_html
from rince.ranks.readers import Names, homonyms, some_names


@dataclass(frozen=True)
class TaxonomySummary:
    """The ranks of a class tree in numbers; ``str()`` is a table to read.

    Args:
        num_classes: C. num_ranks: R. batch_size: B.
        groups: (R,) groups at levels 1 to R.
        pairs: (R + 1,) unordered class pairs of rank 1 to R, then of negatives; a class and itself
            count as one pair of rank 1.
        covered: (R + 1,) classes that have at least one such pair.
        expected: (R + 1,) other images of the batch that have this rank to an image, on average.
        without_sibling: classes without a pair of rank 2 (empty if R = 1).
        empty: classes without an image, where counts were given.
        homonyms: names of classes and groups that occur under more than one parent.
    """

    num_classes: int
    num_ranks: int
    batch_size: int
    groups: tuple[int, ...]
    pairs: tuple[int, ...]
    covered: tuple[int, ...]
    expected: tuple[float, ...]
    without_sibling: tuple[str, ...]
    empty: tuple[str, ...] = ()
    homonyms: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is probably a mistake, one sentence each."""
        sentences = []
        if self.num_classes == 1:
            sentences.append("one class only: there are no negatives, so nothing can be learned")
        elif self.pairs[-1] == 0:
            sentences.append(
                "no two classes are negatives of each other: all are in one top group; leave that "
                "level out"
            )
        if self.num_ranks == 1 and self.num_classes > 1:
            sentences.append(
                "no class is in a group: there is only rank 1, as in plain supervised contrastive "
                "learning. Groups are folders above the classes, a column of a table (`rince "
                "table` makes one of folders), or scores of the names (--scores text)"
            )
        pairs, expected = self.pairs[:-1], self.expected[:-1]
        sentences += rare_ranks(pairs, expected, self.batch_size, "a balanced sampler")
        if self.empty:
            sentences.append(f"classes without items ({len(self.empty)}): {some_names(self.empty)}")
        return tuple(sentences)

    def __str__(self) -> str:
        lines = [
            f"classes: {self.num_classes}, ranks: {self.num_ranks}",
            f"{'rank':<6}{'same':<10}{'groups':>7}{'class pairs':>13}{'classes':>9}"
            f"{f'keys per item, batch {self.batch_size}':>28}",
        ]
        for i in range(self.num_ranks + 1):
            negative = i == self.num_ranks
            rank, same = ("0", "nothing") if negative else (str(i + 1), f"level {i + 1}")
            same = "class" if i == 0 else same
            groups = "" if negative else str(self.groups[i])
            lines.append(
                f"{rank:<6}{same:<10}{groups:>7}{self.pairs[i]:>13}{self.covered[i]:>9}"
                f"{self.expected[i]:>28.1f}"
            )
        lines += without_sibling_line(self.without_sibling)
        if self.homonyms:
            lines.append(
                f"names under more than one parent ({len(self.homonyms)}): "
                f"{some_names(self.homonyms)}"
            )
        return "\n".join(lines + [f"warning: {warning}" for warning in self.warnings])

    _repr_html_ = as_html


def tree_summary(
    classes: Sequence[str],
    paths: Sequence[Names],
    codes: Tensor,
    batch_size: int,
    counts: Sequence[int] | Tensor | None,
) -> TaxonomySummary:
    """Count by groups, never pair by pair; ``codes``: (C, R) group numbers from 0, finest first."""
    size, num_ranks = codes.shape
    if counts is None:  # equally frequent classes of a large data set: drawn independently
        images = codes.new_ones(size, dtype=torch.float64)
        selves, possible = 0.0, float(size) ** 2
    else:
        images = image_counts(size, batch_size, counts)
        selves = float(images.sum())  # an image and itself are not two
        possible = selves * (selves - 1)
    # Of ranks 1 to i: classes that share a group of level i with a class, pairs of classes, and
    # the probability that two images of a batch have such a pair of classes.
    partners = [codes.new_zeros(size)]
    pairs, likely, groups = [0], [0.0], []
    for column in codes.T:
        members = column.bincount()
        groups.append(len(members))
        partners.append(members[column])
        pairs.append(int((members * (members + 1) // 2).sum()))
        total = column.bincount(images).square().sum()
        likely.append((float(total) - selves) / possible)
    partners.append(codes.new_full((size,), size))  # and with the negatives, all
    pairs.append(size * (size + 1) // 2)
    likely.append(1.0)
    sibling = partners[2] > partners[1]
    names_by_count = zip(classes, [] if counts is None else counts, strict=False)
    return TaxonomySummary(
        num_classes=size,
        num_ranks=num_ranks,
        batch_size=batch_size,
        groups=tuple(groups),
        pairs=tuple(b - a for a, b in itertools.pairwise(pairs)),
        covered=tuple(int((b > a).sum()) for a, b in itertools.pairwise(partners)),
        expected=tuple((batch_size - 1) * (b - a) for a, b in itertools.pairwise(likely)),
        without_sibling=tuple(
            name
            for name, has in zip(classes, sibling.tolist(), strict=True)
            if num_ranks > 1 and not has
        ),
        empty=tuple(name for name, count in names_by_count if int(count) == 0),
        homonyms=homonyms(paths),
    )


def rare_ranks(
    pairs: Sequence[int],
    expected: Sequence[float],
    batch_size: int,
    remedy: str,
    things: str = "classes",
) -> list[str]:
    """Warn of ranks from 2 on that no pair has, or that a batch holds few keys of.

    ``pairs``, ``expected``: of rank 1 to R, as in the summaries of trees, scores and times.
    """
    sentences = []
    for rank, (count, keys) in enumerate(zip(pairs, expected, strict=True), 1):
        if rank > 1 and count == 0:
            sentences.append(f"no two {things} have rank {rank}: its loss term is always skipped")
        elif rank > 1 and keys < 1:
            sentences.append(
                f"a random batch of {batch_size} holds {keys:.2g} keys of rank {rank} per item on "
                f"average: use larger batches, a queue or {remedy}"
            )
    return sentences


def without_sibling_line(names: Sequence[str]) -> list[str]:
    """A line on classes without a pair of rank 2, if there are any."""
    if not names:
        return []
    return [f"classes without a rank-2 partner ({len(names)}): {some_names(names)}"]


def pair_probabilities(
    num_classes: int, batch_size: int, counts: Sequence[int] | Tensor | None
) -> Tensor:
    """(C, C) float64: how likely two different images of a batch have classes (a, b)."""
    if counts is None:
        return torch.full(
            (num_classes, num_classes), 1 / num_classes**2, dtype=torch.float64, device="cpu"
        )
    images = image_counts(num_classes, batch_size, counts)
    total = float(images.sum())
    # Drawn without repetition: the second image is one of the total - 1 others.
    return (images[:, None] * images[None, :] - images.diag()) / (total * (total - 1))


def image_counts(num_classes: int, batch_size: int, counts: Sequence[int] | Tensor) -> Tensor:
    """(C,) float64, checked: enough images for a batch."""
    images = numbers(counts, "counts").to("cpu", torch.float64)
    require(
        images.shape == (num_classes,) and bool((images >= 0).all()),
        f"counts must be one number of items for each of the {num_classes} classes, not negative; "
        f"got shape {tuple(images.shape)}",
    )
    total = float(images.sum())
    require(
        total >= max(2, batch_size),
        f"counts sum to {total:.0f} items: too few for a batch of {batch_size}",
    )
    return images
