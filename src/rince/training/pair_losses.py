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
    return _on_tree(step, himulcon, step.options.temperature)


def siblings(step: Step) -> Tensor:
    """SupCon on each level of the class tree, against the keys with the same parent."""
    precision = step.options.matmul_precision or "fp32"
    return _on_tree(step, supcon_siblings, step.options.temperature, matmul_precision=precision)


def margins(step: Step) -> Tensor:
    """Cross-scale learning."""
    return _on_ranks(step, cross_scale, step.options.temperature, margin=step.options.margin)


def known_similarities(step: Step) -> Tensor:
    """X-CLR, with scores of the ranks."""
    width = step.options.target_temperature
    return _on_ranks(step, x_clr, step.options.temperature, target_temperature=width)


def smooth_average_precision(step: Step) -> Tensor:
    """Smooth-AP."""
    return _on_pairs(step, smooth_ap, step.same_class(), step.options.step_width)


def smooth_hierarchical_precision(step: Step) -> Tensor:
    """H-AP, smoothed likewise."""
    return _on_ranks(step, smooth_ap, step.options.step_width)


def triplet(step: Step) -> Tensor:
    """Triplets whose margin grows with the steps of rank between them."""
    return _on_tree(step, hierarchical_triplet, step.options.margin)


def average_precision(step: Step) -> Tensor:
    """FastAP.

    It compares a batch with itself only. With gathered keys every process sees all of them: the
    mean of the processes' gradients is that of the whole batch.
    """
    return fast_ap(step.pairs.key, step.pairs.key_labels)


def _on_ranks(step: Step, loss: Callable[..., Tensor], *given: float, **more: float) -> Tensor:
    """On the ranks of the run."""
    return _on_pairs(step, loss, step.pair_ranks(), *given, num_ranks=step.ranks.num_ranks, **more)


def _on_tree(step: Step, loss: Callable[..., Tensor], *given: float, **more: Any) -> Tensor:
    """On the ranks of the class tree, whatever those of the run are."""
    return _on_pairs(step, loss, step.pairs.ranks_by(step.taxonomy), *given, **more)


def _on_pairs(
    step: Step, loss: Callable[..., Tensor], ranks: PairRanks, *given: Any, **more: Any
) -> Tensor:
    pairs = step.pairs
    return loss(pairs.query, pairs.key, ranks, *given, validate=pairs.validate, **more)


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
