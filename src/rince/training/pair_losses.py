"""The objectives that are losses on pairs: each takes a step, and looks up which ranks it needs."""

from __future__ import annotations

from torch import Tensor

from rince.evaluation.levels import coarse_level
from rince.losses.contrastive import info_nce, supcon_in, supcon_out
from rince.losses.hierarchical import himulcon
from rince.losses.metric_learning import fast_ap, hierarchical_triplet
from rince.losses.ranked_info_nce import ranked_info_nce_with_terms
from rince.training.step import Loss, Pairs, Step, fine_and_coarse


def rince(step: Step) -> Loss:
    """RINCE on the ranks of the run; its parts are the losses of the ranks."""
    options = step.options
    total, terms = ranked_info_nce_with_terms(
        step.pairs.query,
        step.pairs.key,
        step.pair_ranks(),
        options.temperatures_for(step.ranks.num_ranks),
        variant=options.variant,
        positives=options.positives,
    )
    per_rank = terms.mean_per_rank()
    return Loss(total, {f"loss_rank_{i + 1}": x for i, x in enumerate(per_rank)})


def same_image(step: Step) -> Tensor:
    """InfoNCE: the other view of an image is the only positive."""
    pairs = step.pairs
    return info_nce(pairs.query, pairs.key, pairs.instance_ranks(), step.options.temperature)


def same_class_in(step: Step) -> Tensor:
    """SupCon, its mean inside the logarithm."""
    pairs = step.pairs
    return supcon_in(pairs.query, pairs.key, step.same_class(), step.options.temperature)


def same_class_out(step: Step) -> Tensor:
    """SupCon, its mean outside the logarithm."""
    pairs = step.pairs
    return supcon_out(pairs.query, pairs.key, step.same_class(), step.options.temperature)


def same_superclass(step: Step) -> Tensor:
    """SupCon on superclasses."""
    return _supcon_out(step, step.pairs, coarse_level(step.taxonomy))


def class_and_superclass(step: Step) -> Loss:
    """SupCon on classes plus SupCon on superclasses; with two heads, the first and the second."""
    fine, coarse = (step.pairs.head(index) for index in (0, step.pairs.num_heads - 1))
    of_classes = _supcon_out(step, fine, level=1)
    return fine_and_coarse(of_classes, _supcon_out(step, coarse, coarse_level(step.taxonomy)))


def all_levels(step: Step) -> Tensor:
    """HiMulCon on all levels of the class tree."""
    pairs = step.pairs
    ranks = pairs.ranks_by(step.taxonomy)
    return himulcon(pairs.query, pairs.key, ranks, step.options.temperature)


def triplet(step: Step) -> Tensor:
    """Triplets whose margin grows with the steps of rank between them."""
    pairs = step.pairs
    ranks = pairs.ranks_by(step.taxonomy)
    return hierarchical_triplet(pairs.query, pairs.key, ranks, step.options.margin)


def average_precision(step: Step) -> Tensor:
    """FastAP.

    It compares a batch with itself only. With gathered keys every process sees all of them: the
    mean of the processes' gradients is that of the whole batch.
    """
    return fast_ap(step.pairs.key, step.pairs.key_labels)


def _supcon_out(step: Step, pairs: Pairs, level: int) -> Tensor:
    """On the groups of a level: 1 are the classes."""
    ranks = pairs.same_group(step.taxonomy, level)
    return supcon_out(pairs.query, pairs.key, ranks, step.options.temperature)
