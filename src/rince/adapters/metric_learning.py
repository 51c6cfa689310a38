"""RINCE as a loss of pytorch-metric-learning (the extra ``metric-learning``).

Importing this module adds its loss to the names that ``CrossBatchMemory`` and
``SelfSupervisedLoss`` accept: they refuse a loss by the name of its class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rince.core.checks import import_extra, require
from rince.core.pair_ranks import ALL, IGNORED, NEGATIVE, DenseRanks, IdentityRanks, PairRanks
from rince.losses.common import dtype_of_sums, warn_if_nothing_to_learn
from rince.losses.definition import rank_terms
from rince.losses.options import Positives, Variant
from rince.losses.ranked_info_nce import ranked_info_nce_with_terms
from rince.losses.temperatures import check_temperatures, match_num_ranks
from rince.ranks.class_ranks import ClassRanks
from rince.ranks.taxonomy import Taxonomy

EXTRA = "metric-learning"
losses: Any = import_extra("pytorch_metric_learning.losses", EXTRA)
distances: Any = import_extra("pytorch_metric_learning.distances", EXTRA)
pairs: Any = import_extra("pytorch_metric_learning.utils.loss_and_miner_utils", EXTRA)


class RankedInfoNCELoss(losses.BaseMetricLossFunction):  # type: ignore[misc]
    """:func:`rince.ranked_info_nce` with the signature and the parts of pytorch-metric-learning.

    Call it as ``loss(embeddings, labels, indices_tuple, ref_emb, ref_labels)``; all but the first
    may be left out as there. Embeddings need not be of unit length: the distance sees to that.

    ``indices_tuple`` (a miner's, CrossBatchMemory's) says which pairs take part; with ``ranks`` the
    labels then say how similar those are, so that a mined "negative" of the same superclass has
    rank 2. Without ``ranks`` its positives have rank 1 and its negatives 0.

    A reducer gets one loss a query, of the queries that have something to learn: the default, the
    mean, is the mean of :func:`rince.ranked_info_nce`.

    Args:
        ranks: a class tree, or ranks from a score matrix such as
            ``rince.Similarity.from_matrix(scores, names).by_thresholds([0.8, 0.5])``. Labels are
            positions in its ``classes``. None: same label or not, one rank.
        temperatures: one per rank, rising; None: as of :class:`rince.RankedInfoNCE`, (0.1, 0.225),
            of which one rank takes the first.
        variant, positives, validate: as in :func:`rince.ranked_info_nce`.
        distance: any of the library's that gives a matrix. Distances are negated. The default,
            CosineSimilarity, goes through the streamed engine where batches are large.
        reducer, embedding_regularizer, ...: as for any loss of the library.

    Raises:
        ValueError: temperatures that are not one per rank, and as :func:`rince.ranked_info_nce`.

    Example:
        >>> import rince
        >>> tree = rince.Taxonomy.from_dict({"dog": ["husky", "malamute"], "cat": ["manx"]})
        >>> loss = RankedInfoNCELoss(tree, temperatures=(0.1, 0.225))
        >>> memory = losses.CrossBatchMemory(loss, embedding_size=4, memory_size=32)
        >>> memory(torch.randn(8, 4, requires_grad=True), torch.arange(8) % 3).backward()
    """

    def __init__(
        self,
        ranks: Taxonomy | ClassRanks | None = None,
        *,
        temperatures: float | Sequence[float] | Tensor | None = None,
        variant: Variant = "out-in",
        positives: Positives = "exclusive",
        validate: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        require(
            ranks is None or isinstance(ranks, Taxonomy | ClassRanks),
            f"ranks must be a class tree, or scores with a rule (similarity.by_top_k([3])), got "
            f"{type(ranks).__name__}",
        )
        num_ranks = 1 if ranks is None else ranks.num_ranks
        if temperatures is None:
            temperatures = (0.1, 0.225)[:num_ranks]
        match_num_ranks(len(check_temperatures(temperatures, validate)), num_ranks)
        self.ranks = ranks
        self.temperatures = temperatures
        self.variant: Variant = variant
        self.positives: Positives = positives
        self.validate = validate

    def extra_repr(self) -> str:
        given = f"temperatures={self.temperatures}, variant={self.variant!r}"
        return ", ".join(filter(None, [given, super().extra_repr()]))

    def get_default_distance(self) -> Any:
        return distances.CosineSimilarity()

    def compute_loss(
        self,
        embeddings: Tensor,
        labels: Tensor | None,
        indices_tuple: tuple[Tensor, ...] | None,
        ref_emb: Tensor,
        ref_labels: Tensor | None,
    ) -> dict[str, dict[str, Any]]:
        """What the library's ``forward`` calls: embeddings (Q, D) and (K, D), labels (Q,), (K,)."""
        in_batch = ref_emb is embeddings
        shape = (len(embeddings), len(ref_emb))
        ranks = self._pair_ranks(labels, ref_labels, indices_tuple, in_batch, shape)
        with torch.autocast(embeddings.device.type, enabled=False):
            dtype = dtype_of_sums(embeddings, ref_emb)
            query = embeddings.to(dtype)
            key = query if in_batch else ref_emb.to(dtype)
            losses_per_query, active = self._losses(query, key, ranks)
        if not bool(active.any()):
            zero: dict[str, dict[str, Any]] = self.zero_losses()
            return zero
        return {
            "loss": {
                "losses": losses_per_query[active],
                "indices": active.nonzero()[:, 0],
                "reduction_type": "element",
                "divisor": int(active.sum()),  # for DivisorReducer
            }
        }

    def _losses(self, query: Tensor, key: Tensor, ranks: PairRanks) -> tuple[Tensor, Tensor]:
        """(Q,) losses, and which of the queries have something to learn."""
        distance = self.distance
        if type(distance) is distances.CosineSimilarity and distance.power == 1 and distance.p == 2:
            unit = functional.normalize(query, dim=1)
            loss, terms = ranked_info_nce_with_terms(
                unit,
                unit if key is query else functional.normalize(key, dim=1),
                ranks,
                self.temperatures,
                variant=self.variant,
                positives=self.positives,
                reduction="none",
                validate=self.validate,
            )
            return loss, terms.active.any(dim=0)
        matrix = distance(query, key)
        terms = rank_terms(
            matrix if distance.is_inverted else -matrix,
            ranks.tile(ALL, ALL).to(query.device),
            check_temperatures(self.temperatures, validate=False),
            self.variant,
            self.positives,
        )
        if self.validate:
            warn_if_nothing_to_learn(ranks, terms.active)
        return terms.values.sum(dim=0), terms.active.any(dim=0)

    def _pair_ranks(
        self,
        labels: Tensor | None,
        ref_labels: Tensor | None,
        indices_tuple: tuple[Tensor, ...] | None,
        in_batch: bool,
        shape: tuple[int, int],
    ) -> PairRanks:
        by_labels: PairRanks | None = None
        if labels is not None and ref_labels is not None:
            if self.ranks is not None:
                by_labels = self.ranks.ranks(labels, ref_labels, ignore_self=in_batch)
            else:
                by_labels = IdentityRanks(labels, ref_labels, ignore_self=in_batch)
        if by_labels is None and (indices_tuple is None or self.ranks is not None):
            raise ValueError(
                "labels are missing: give labels (and with ref_emb also ref_labels), from which "
                "the ranks are looked up, or without a tree or scores an indices_tuple"
            )
        if indices_tuple is None:
            assert by_labels is not None
            return by_labels
        anchor, positive, other, negative = pairs.convert_to_pairs(indices_tuple, labels)
        given = torch.full(shape, IGNORED, device=anchor.device)  # (Q, K)
        given[other, negative] = NEGATIVE
        given[anchor, positive] = 1
        if self.ranks is None:
            return DenseRanks(given, 1)
        assert by_labels is not None
        ranks = by_labels.tile(ALL, ALL)
        return DenseRanks(ranks.masked_fill(given == IGNORED, IGNORED), self.ranks.num_ranks)


for _wrapper in (losses.CrossBatchMemory, losses.SelfSupervisedLoss):
    _names = [*_wrapper.supported_losses(), RankedInfoNCELoss.__name__]
    _wrapper.supported_losses = staticmethod(lambda names=_names: list(names))
