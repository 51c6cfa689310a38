"""The objectives of the harness: the same queries and keys, judged by different losses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rince.core.pair_ranks import (
    ALL,
    IGNORED,
    DenseRanks,
    IdentityRanks,
    PairRanks,
    TableRanks,
)
from rince.losses.contrastive import info_nce, supcon_in, supcon_out
from rince.losses.ranked_info_nce import ranked_info_nce_with_terms
from rince.ranks.class_ranks import ClassRanks
from rince.ranks.taxonomy import Taxonomy
from rince.training.config import LossConfig, Objective, rank_temperatures


@dataclass(frozen=True)
class Pairs:
    """One step's queries and keys with what rank sources need to know of them.

    Args:
        query, key: (Q, D), (K, D), unit length.
        query_labels, key_labels: (Q,), (K,) class indices.
        query_ids, key_ids: (Q,), (K,) image indices, equal for two views of one image.
        ignore_self: the first Q keys are the queries themselves.
        num_queued: so many last keys come from the queue.
        key_valid: (K,) bool; False marks empty queue slots. None: all are valid.
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

    def ranks(self, table: Tensor, num_ranks: int) -> TableRanks:
        """Ranks by class."""
        return TableRanks(
            self.query_labels,
            self.key_labels,
            table,
            ignore_self=self.ignore_self,
            key_valid=self.key_valid,
            num_ranks=num_ranks,
        )

    def instance_ranks(self) -> PairRanks:
        """Rank 1 for the other view of the same image only.

        An older key of the same image may still be queued (from the end of the last epoch); it
        is ignored, neither a second positive nor, as in MoCo, a false negative.
        """
        ranks = IdentityRanks(
            self.query_ids, self.key_ids, ignore_self=self.ignore_self, key_valid=self.key_valid
        )
        if self.num_queued == 0:
            return ranks
        matrix = ranks.tile(ALL, ALL)
        queued = matrix[:, -self.num_queued :]
        return DenseRanks(
            torch.cat(
                [matrix[:, : -self.num_queued], queued.masked_fill(queued == 1, IGNORED)], dim=1
            ),
            num_ranks=1,
        )


@dataclass(frozen=True)
class Loss:
    """A step's loss, and its parts to show: name -> scalar."""

    total: Tensor
    parts: dict[str, Tensor]


def contrastive_loss(
    objective: Objective,
    config: LossConfig,
    taxonomy: Taxonomy,
    pairs: Pairs,
    class_ranks: ClassRanks | None = None,
) -> Loss:
    """Judge a step's pairs; cross-entropy has no pairs and lives in the module.

    Args:
        objective, config: which loss.
        taxonomy: classes and superclasses, for the one-rank objectives.
        pairs: the step's.
        class_ranks: for rince; None takes the taxonomy's.
    """
    if objective == "rince":
        ranks = taxonomy.class_ranks if class_ranks is None else class_ranks
        total, terms = ranked_info_nce_with_terms(
            pairs.query,
            pairs.key,
            pairs.ranks(ranks.table, ranks.num_ranks),
            rank_temperatures(config, ranks.num_ranks),
            variant=config.variant,
            positives=config.positives,
        )
        per_rank = terms.mean_per_rank()
        return Loss(total, {f"loss_rank_{i + 1}": x for i, x in enumerate(per_rank)})
    if objective == "infonce":
        total = info_nce(pairs.query, pairs.key, pairs.instance_ranks(), config.temperature)
    elif objective == "supcon-in":
        flat = pairs.ranks(taxonomy.flat_table(1), 1)
        total = supcon_in(pairs.query, pairs.key, flat, config.temperature)
    else:
        flat = pairs.ranks(taxonomy.flat_table(2 if objective == "supcon-coarse" else 1), 1)
        total = supcon_out(pairs.query, pairs.key, flat, config.temperature)
    return Loss(total, {})


@torch.no_grad()
def rank_statistics(pairs: Pairs, ranks: ClassRanks | Taxonomy) -> dict[str, Tensor]:
    """What a user watches: do the ranks separate, and do batches hold positives of each?

    Returns:
        ``similarity_rank_i``: mean cosine of all pairs of rank i (0: negatives), left out where
        the batch holds none; ``positives_rank_i``: mean number of such keys a query.
    """
    # By class, not by pair: the similarities of all pairs of two classes add up to the product of
    # the sums of their embeddings. A matrix of all pairs would outgrow the loss's own memory.
    query, key, key_labels = pairs.query.float(), pairs.key.float(), pairs.key_labels
    own = torch.zeros_like(pairs.query_labels, dtype=torch.bool)  # pairs (i, i) to take out again
    if pairs.ignore_self:
        own = ~own if pairs.key_valid is None else pairs.key_valid[: len(own)]
    own_similarity = (query[own] * key[: len(own)][own]).sum(dim=1)
    if pairs.key_valid is not None:
        key, key_labels = key[pairs.key_valid], key_labels[pairs.key_valid]
    query_class, query_count, query_sum = _sum_by_class(query, pairs.query_labels)
    key_class, key_count, key_sum = _sum_by_class(key, key_labels)
    table = ranks.table.to(query.device)
    rank = table[query_class][:, key_class]
    own_rank = table.diagonal()[pairs.query_labels[own]]
    similarity, count = query_sum @ key_sum.T, query_count[:, None] * key_count
    shown: dict[str, Tensor] = {}
    for i in range(ranks.num_ranks + 1):
        chosen, chosen_own = rank == i, own_rank == i
        pairs_of_rank = count[chosen].sum() - chosen_own.sum()
        if int(pairs_of_rank) > 0:
            total = similarity[chosen].sum() - own_similarity[chosen_own].sum()
            shown[f"similarity_rank_{i}"] = total / pairs_of_rank
        if i > 0:
            shown[f"positives_rank_{i}"] = pairs_of_rank / len(query)
    return shown


def _sum_by_class(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The C' classes that occur, (C',); how often, (C',); the sum of their rows of x, (C', D)."""
    classes, position, count = torch.unique(labels, return_inverse=True, return_counts=True)
    return classes, count, x.new_zeros(len(classes), x.shape[1]).index_add_(0, position, x)
