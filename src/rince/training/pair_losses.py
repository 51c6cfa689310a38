"""The objectives that are losses on pairs: each takes a step, and looks up which ranks it needs."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor

from rince.core.pair_ranks import PairRanks
from rince.evaluation.levels import coarse_level
from rince.losses.blockwise.sizes import sizes_for
from rince.losses.contrastive import info_nce, supcon_in, supcon_out
from rince.losses.hierarchical import himulcon
from rince.losses.levels import cross_scale, supcon_siblings
from rince.losses.metric_learning import fast_ap, hierarchical_triplet
from rince.losses.ranked_info_nce import ranked_info_nce_with_terms
from rince.losses.smooth_ap import smooth_ap
from rince.losses.soft_targets import x_clr
from rince.training.step import Loss, Pairs, Step, fine_and_coarse

_Result = TypeVar("_Result")


def rince(step: Step) -> Loss:
    """RINCE on the ranks of the run; its parts are the losses of the ranks."""
    options = step.options
    total, terms = _computed(
        step,
        ranked_info_nce_with_terms,
        step.pairs,
        step.pair_ranks(),
        options.temperatures_for(step.ranks.num_ranks),
        variant=options.variant,
        positives=options.positives,
    )
    per_rank = terms.mean_per_rank()
    return Loss(total, {f"loss_rank_{i + 1}": x for i, x in enumerate(per_rank)})


def same_image(step: Step) -> Tensor:
    """InfoNCE: the other view of an image is the only positive."""
    return _one_rank(step, info_nce, step.pairs, step.pairs.instance_ranks())


def same_class_in(step: Step) -> Tensor:
    """SupCon, its mean inside the logarithm."""
    return _one_rank(step, supcon_in, step.pairs, step.same_class())


def same_class_out(step: Step) -> Tensor:
    """SupCon, its mean outside the logarithm."""
    return _one_rank(step, supcon_out, step.pairs, step.same_class())


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
    validate = pairs.validate
    return himulcon(pairs.query, pairs.key, ranks, step.options.temperature, validate=validate)


def siblings(step: Step) -> Tensor:
    """SupCon on each level of the class tree, against the keys with the same parent."""
    ranks, options = step.pairs.ranks_by(step.taxonomy), step.options
    return supcon_siblings(
        step.pairs.query,
        step.pairs.key,
        ranks,
        options.temperature,
        matmul_precision=options.matmul_precision or "fp32",
        validate=step.pairs.validate,
    )


def margins(step: Step) -> Tensor:
    """Cross-scale learning."""
    options = step.options
    return _on_ranks(step, cross_scale, options.temperature, margin=options.margin)


def known_similarities(step: Step) -> Tensor:
    """X-CLR, with scores of the ranks."""
    options = step.options
    target_temperature = options.target_temperature
    return _on_ranks(step, x_clr, options.temperature, target_temperature=target_temperature)


def smooth_average_precision(step: Step) -> Tensor:
    """Smooth-AP."""
    pairs, width = step.pairs, step.options.step_width
    return smooth_ap(pairs.query, pairs.key, step.same_class(), width, validate=pairs.validate)


def smooth_hierarchical_precision(step: Step) -> Tensor:
    """H-AP, smoothed likewise."""
    return _on_ranks(step, smooth_ap, step.options.step_width)


def _on_ranks(step: Step, loss: Callable[..., Tensor], *given: float, **more: float) -> Tensor:
    """On the ranks of the run."""
    pairs = step.pairs
    ranks = step.pair_ranks()
    number = step.ranks.num_ranks
    return loss(
        pairs.query, pairs.key, ranks, *given, num_ranks=number, validate=pairs.validate, **more
    )


def triplet(step: Step) -> Tensor:
    """Triplets whose margin grows with the steps of rank between them."""
    pairs = step.pairs
    ranks = pairs.ranks_by(step.taxonomy)
    margin, validate = step.options.margin, pairs.validate
    return hierarchical_triplet(pairs.query, pairs.key, ranks, margin, validate=validate)


def average_precision(step: Step) -> Tensor:
    """FastAP.

    It compares a batch with itself only. With gathered keys every process sees all of them: the
    mean of the processes' gradients is that of the whole batch.
    """
    return fast_ap(step.pairs.key, step.pairs.key_labels)


def _supcon_out(step: Step, pairs: Pairs, level: int) -> Tensor:
    """On the groups of a level: 1 are the classes."""
    return _one_rank(step, supcon_out, pairs, pairs.same_group(step.taxonomy, level))


def _one_rank(step: Step, loss: Callable[..., Tensor], pairs: Pairs, ranks: PairRanks) -> Tensor:
    return _computed(step, loss, pairs, ranks, step.options.temperature)


def _computed(
    step: Step,
    loss: Callable[..., _Result],
    pairs: Pairs,
    ranks: PairRanks,
    *given: Any,
    **more: Any,
) -> _Result:
    """A loss with the options that these have in common; compiled, if the run is, where a matrix of
    all pairs fits and no values are looked at."""
    options = {
        "matmul_precision": step.options.matmul_precision or "fp32",
        "validate": pairs.validate,
        **more,
    }
    if step.compiled and not pairs.validate:
        num_pairs = len(pairs.query) * len(pairs.key)
        if num_pairs < sizes_for(pairs.query.device).dense_pairs:
            loss, options["engine"] = _compiled(loss), "dense"
    return loss(pairs.query, pairs.key, ranks, *given, **options)


@cache
def _compiled(loss: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(loss, fullgraph=True)
