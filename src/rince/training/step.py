"""A training step as an objective sees it: queries and keys with labels, ranks and options."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from rince.core.checks import require
from rince.core.pair_ranks import ALL, IGNORED, DenseRanks, IdentityRanks, PairRanks
from rince.evaluation.levels import coarse_level
from rince.losses.options import LossOptions
from rince.ranks.class_ranks import ClassRanks
from rince.ranks.taxonomy import Taxonomy
from rince.ranks.time import ItemTimes
from rince.training.objectives import Objective

RankSource: TypeAlias = ClassRanks | Taxonomy | ItemTimes
_ROWS = 256  # queries looked at together for statistics by pair


@dataclass(frozen=True)
class Pairs:
    """The queries and keys of a step, with what rank sources need to know of them.

    Args:
        query, key: (Q, D), (K, D), unit length; with several heads (Q, H * D), (K, H * D), the
            embeddings side by side, each of unit length.
        query_labels, key_labels: (Q,), (K,) class indices.
        query_ids, key_ids: (Q,), (K,) image indices, equal for two views of one image.
        ignore_self: the first Q keys are the queries themselves.
        num_queued: number of keys, the last ones, that come from the queue.
        key_valid: (K,) bool; False marks empty queue slots. None: all are valid.
        num_heads: H.
        distinct: no image occurs twice in the batch, but for its two views.
        validate: values are looked at, to check them, which waits for a GPU.
    """

    query: Tensor
    key: Tensor
    query_labels: Tensor
    key_labels: Tensor
    query_ids: Tensor
    key_ids: Tensor
    ignore_self: bool
    num_queued: int = 0
    key_valid: Tensor | None = None
    num_heads: int = 1
    distinct: bool = False
    validate: bool = True

    def head(self, index: int) -> Pairs:
        """The same pairs as one of the heads embeds them."""
        query, key = (x.chunk(self.num_heads, dim=1)[index] for x in (self.query, self.key))
        return replace(self, query=query, key=key, num_heads=1)

    def ranks_by(self, source: RankSource) -> PairRanks:
        """Ranks by class or by time: which items these are also says when they were recorded."""
        sides = self.query_labels, self.key_labels
        if isinstance(source, ItemTimes):
            sides = self.query_ids, self.key_ids
        return source.ranks(*sides, validate=self.validate, **self.masks)

    def same_group(self, taxonomy: Taxonomy, level: int) -> PairRanks:
        """One rank: the same group at a level, 1 are the classes."""
        return taxonomy.same_group(
            level, self.query_labels, self.key_labels, validate=self.validate, **self.masks
        )

    def same_video(self, times: ItemTimes) -> PairRanks:
        """One rank: clips of the same video."""
        return times.same_video(self.query_ids, self.key_ids, **self.masks)

    @property
    def masks(self) -> dict[str, Any]:
        """Which of them take no part."""
        return {"ignore_self": self.ignore_self, "key_valid": self.key_valid}

    def instance_ranks(self) -> PairRanks:
        """Rank 1 for one other view of the same image only.

        There may be more: an older key in the queue (from the end of the last epoch), or the same
        image twice in a balanced batch, of a class of few images. The first counts, and the others
        are ignored, neither a second positive nor, as in MoCo, a false negative.
        """
        ranks = IdentityRanks(self.query_ids, self.key_ids, **self.masks)
        if self.num_queued == 0 and self.distinct:
            return ranks
        matrix = ranks.tile(ALL, ALL)
        same = matrix == 1
        later = same & (same.cumsum(dim=1, dtype=torch.int32) > 1)
        return DenseRanks(matrix.masked_fill(later, IGNORED), num_ranks=1, validate=self.validate)


def superclass_level(taxonomy: Taxonomy, asking: str) -> int:
    """The level of the superclasses, which is the coarse one: counted from the top, so that they
    are the same groups whatever is deeper elsewhere in the tree. ``asking`` is who needs them."""
    level = coarse_level(taxonomy)
    count = len(taxonomy.group_names(level))
    problem = "all classes are in one" if count == 1 else "these classes form one flat level"
    require(
        1 < count < taxonomy.num_classes,
        f"{asking} needs superclasses, groups at the top of the class tree, but {problem}",
    )
    return level


@dataclass(frozen=True)
class Loss:
    """The loss of a step, and its parts to show: name -> scalar."""

    total: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """All that an objective may read of a training step.

    Args:
        pairs: queries, keys, and what is known of them.
        taxonomy: classes and superclasses.
        ranks: those of the run, by class or by time.
        options: of the loss.
        logits: (Q, C), or (Q, C + G) with the superclasses behind; None: there is no classifier.
        compiled: a loss that can be compiled is.
    """

    pairs: Pairs
    taxonomy: Taxonomy
    ranks: RankSource
    options: LossOptions
    logits: Tensor | None = None
    compiled: bool = False

    def pair_ranks(self) -> PairRanks:
        """The ranks of the run, for these pairs."""
        return self.pairs.ranks_by(self.ranks)

    def same_class(self) -> PairRanks:
        """One rank: the same class, or by time the same video."""
        if isinstance(self.ranks, ItemTimes):
            return self.pairs.same_video(self.ranks)
        return self.pairs.same_group(self.taxonomy, 1)


def objective_loss(objective: Objective, step: Step) -> Loss:
    """The loss of an objective, and its parts."""
    given = objective.function()(step)
    loss = given if isinstance(given, Loss) else Loss(given)
    learning = [x for x in (step.pairs.query, step.logits) if x is not None]
    total, gives = loss.total, f"the objective {objective.name} gives"
    is_tensor = isinstance(total, Tensor)
    shown = f"a tensor of shape {tuple(total.shape)}" if is_tensor else type(total).__name__
    require(
        is_tensor and total.ndim == 0,
        f"{gives} {shown} in place of a scalar tensor, or a Loss of one",
    )
    require(
        total.requires_grad or not any(x.requires_grad for x in learning),
        f"{gives} a number that does not depend on the embeddings, so nothing can be learned: "
        f"no .item(), .detach() or torch.no_grad() may stand between them",
    )
    return loss


def fine_and_coarse(of_classes: Tensor, of_superclasses: Tensor) -> Loss:
    """The sum of a loss on classes and one on superclasses, and both to show."""
    parts = {"loss_fine": of_classes.detach(), "loss_coarse": of_superclasses.detach()}
    return Loss(of_classes + of_superclasses, parts)


@torch.no_grad()
def rank_statistics(pairs: Pairs, ranks: RankSource) -> dict[str, Tensor]:
    """What a user watches: do the ranks separate, and do batches hold positives of each?

    Returns:
        ``similarity_rank_i``: mean cosine of all pairs of rank i (0: negatives), NaN where the
        batch holds none; ``positives_rank_i``: mean number of such keys a query.
    """
    query, key, num_queries = pairs.query.float(), pairs.key.float(), len(pairs.query)
    counts = [torch.ones_like(x) for x in (pairs.query_labels, pairs.key_labels)]
    own = None
    if isinstance(ranks, ItemTimes) or ranks.num_classes > num_queries:
        source = pairs.ranks_by(ranks)
    else:
        # By class: the similarities of all pairs of two classes add up to the product of the sums
        # of their embeddings.
        classes = torch.arange(ranks.num_classes, device=query.device)
        source = ranks.ranks(classes, classes, validate=False)
        weights = counts[1] if pairs.key_valid is None else pairs.key_valid.long()
        if pairs.ignore_self:  # pairs (i, i), to take out again
            weight = weights[:num_queries, None]
            similarity = (query * key[:num_queries]).sum(dim=1, keepdim=True)
            own = _sum_by_class(similarity, weight, pairs.query_labels, len(classes))
        query, counts[0] = _sum_by_class(query, counts[0], pairs.query_labels, len(classes))
        key, counts[1] = _sum_by_class(key, weights, pairs.key_labels, len(classes))
    totals, numbers = [], []
    for start in range(0, len(query), _ROWS):  # a matrix of all pairs could outgrow the loss's own
        rows = slice(start, start + _ROWS)
        rank, similarity = source.tile(rows, ALL), query[rows] @ key.T
        number = counts[0][rows, None] * counts[1]
        if own is not None:
            for matrix, of_own in ((similarity, own[0]), (number, own[1])):
                matrix[:, rows].diagonal().sub_(of_own[rows, 0])
        chosen = [rank == i for i in range(ranks.num_ranks + 1)]
        totals.append(torch.stack([torch.where(x, similarity, 0).sum() for x in chosen]))
        numbers.append(torch.stack([torch.where(x, number, 0).sum() for x in chosen]))
    total, count = torch.stack(totals).sum(dim=0), torch.stack(numbers).sum(dim=0)
    means = torch.where(count > 0, total / count, torch.nan)
    shown = {f"similarity_rank_{i}": x for i, x in enumerate(means)}
    return shown | {f"positives_rank_{i}": n / num_queries for i, n in enumerate(count) if i > 0}


def _sum_by_class(
    x: Tensor, weights: Tensor, labels: Tensor, num_classes: int
) -> tuple[Tensor, Tensor]:
    """The sums of the rows of x and of their weights, 0 or 1; at 0 a label may be anything."""
    labels = torch.where(weights.flatten() > 0, labels, 0)
    rows = torch.where(weights.view(len(x), -1) > 0, x, 0)
    sums = x.new_zeros(num_classes, x.shape[1]).index_add_(0, labels, rows)
    return sums, weights.new_zeros(num_classes, *weights.shape[1:]).index_add_(0, labels, weights)
