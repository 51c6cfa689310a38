from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from rince import Taxonomy, ranked_info_nce
from rince.core.pair_ranks import ALL, DenseRanks
from rince.losses import himulcon, info_nce, supcon_in, supcon_out
from rince.losses.metric_learning import fast_ap, hierarchical_triplet
from rince.training.classifiers import classifier_head
from rince.training.config import LossOptions
from rince.training.objectives import OBJECTIVES, Objective
from rince.training.step import Loss, Pairs, Step, objective_loss, rank_statistics

TREE = Taxonomy([("dog", "husky"), ("dog", "malamute"), ("cat", "manx"), ("cat", "siamese")])


def _pairs(queued: int = 0) -> Pairs:
    generator = torch.Generator().manual_seed(1)
    query = functional.normalize(torch.randn(6, 5, generator=generator), dim=1)
    key = functional.normalize(torch.randn(6 + queued, 5, generator=generator), dim=1)
    labels = torch.tensor([0, 1, 2, 3, 0, 2])
    ids = torch.arange(6)
    return Pairs(
        query=query,
        key=key,
        query_labels=labels,
        key_labels=torch.cat([labels, torch.randint(0, 4, (queued,), generator=generator)]),
        query_ids=ids,
        # The queue still holds image 2, from the epoch before.
        key_ids=torch.cat([ids, torch.tensor([2, *range(100, 99 + queued)])]) if queued else ids,
        ignore_self=False,
        num_queued=queued,
    )


def contrastive_loss(
    objective: str, options: LossOptions, tree: Taxonomy, pairs: Pairs, logits: Tensor | None = None
) -> Loss:
    return objective_loss(
        OBJECTIVES[objective], Step(pairs, tree, tree.class_ranks, options, logits)
    )


def _by_hand(pairs: Pairs) -> torch.Tensor:
    return torch.tensor(
        [[int(TREE.table[a, b]) for b in pairs.key_labels] for a in pairs.query_labels]
    )


def test_each_objective_is_its_loss_on_its_ranks() -> None:
    pairs, config = _pairs(queued=9), LossOptions(temperature=0.2)
    ranks = _by_hand(pairs)
    fine = (ranks == 1).long()
    expected = {
        "rince": ranked_info_nce(pairs.query, pairs.key, ranks, (0.1, 0.225)),
        "supcon-in": supcon_in(pairs.query, pairs.key, fine, 0.2),
        "supcon-out": supcon_out(pairs.query, pairs.key, fine, 0.2),
        "supcon-coarse": supcon_out(pairs.query, pairs.key, (ranks > 0).long(), 0.2),
        "supcon-sum": supcon_out(pairs.query, pairs.key, fine, 0.2)
        + supcon_out(pairs.query, pairs.key, (ranks > 0).long(), 0.2),
        "himulcon": himulcon(
            pairs.query, pairs.key, ranks, 0.2, level_weights=[math.e, math.sqrt(math.e)]
        ),
    }
    for objective, value in expected.items():
        found = contrastive_loss(objective, config, TREE, pairs)
        torch.testing.assert_close(found.total, value)
    assert len({round(float(v), 4) for v in expected.values()}) == len(expected)


def test_baselines_of_the_library_get_the_ranks_and_the_labels() -> None:
    pairs = _pairs()
    config = LossOptions(margin=0.3)
    torch.manual_seed(0)
    found = contrastive_loss("triplet-hierarchical", config, TREE, pairs).total
    torch.manual_seed(0)
    expected = hierarchical_triplet(pairs.query, pairs.key, _by_hand(pairs), 0.3, num_ranks=2)
    torch.testing.assert_close(found, expected)
    pairs = replace(pairs, key=pairs.query, ignore_self=True)
    found = contrastive_loss("fastap", config, TREE, pairs).total
    torch.testing.assert_close(found, fast_ap(pairs.query, pairs.query_labels))


def test_a_classifier_is_no_loss_on_pairs() -> None:
    with pytest.raises(ValueError, match="cross-entropy .*logits"):
        contrastive_loss("cross-entropy", LossOptions(), TREE, _pairs())


def test_classification_is_cross_entropy_of_both_labels() -> None:
    labels, logits = torch.tensor([0, 1, 3]), torch.randn(3, 6)
    log_fine, log_coarse = logits[:, :4].log_softmax(dim=1), logits[:, 4:].log_softmax(dim=1)
    coarse_labels = TREE.labels_at(2)[labels]
    hard = -log_fine[torch.arange(3), labels].mean()
    coarse = -log_coarse[torch.arange(3), coarse_labels].mean()
    # Each class has one sibling: half of the share stays, half goes there.
    sibling = -log_fine[torch.arange(3), torch.tensor([1, 0, 2])].mean()
    smooth = 0.8 * hard + 0.2 * sibling
    for objective, smoothing, expected in (
        ("cross-entropy", 0.0, hard),
        ("cross-entropy", 0.4, smooth),
        ("cross-entropy-two-heads", 0.0, hard + coarse),
        ("cross-entropy-two-heads", 0.4, smooth + coarse),
    ):
        given = logits if objective == "cross-entropy-two-heads" else logits[:, :4]
        config = LossOptions(smoothing=smoothing)
        pairs = Pairs(given, given, labels, labels, labels, labels, ignore_self=True)
        found = contrastive_loss(objective, config, TREE, pairs, given)
        torch.testing.assert_close(found.total, expected)
        head = classifier_head(OBJECTIVES[objective], 7, TREE)
        assert head.weight.shape == (given.shape[1], 7)


@pytest.mark.parametrize("variant", ["in", "out", "out-in"])
def test_rince_and_cross_entropy_are_their_weighted_sum(
    variant: Literal["in", "out", "out-in"],
) -> None:
    pairs = _pairs(queued=9)
    query, logits = pairs.query.clone().requires_grad_(), torch.randn(6, 4, requires_grad=True)
    options = LossOptions(variant, smoothing=0.4, cross_entropy_weight=0.3)
    given = replace(pairs, query=query)
    found = contrastive_loss("rince-and-cross-entropy", options, TREE, given, logits)
    ranked = ranked_info_nce(query, pairs.key, _by_hand(pairs), (0.1, 0.225), variant=variant)
    own = logits.log_softmax(dim=1)
    sibling = own[torch.arange(6), pairs.query_labels ^ 1]  # 0 and 1, 2 and 3
    hard = 0.8 * own[torch.arange(6), pairs.query_labels] + 0.2 * sibling
    expected = ranked - 0.3 * hard.mean()
    torch.testing.assert_close(found.total, expected)
    torch.testing.assert_close(found.parts["loss_cross_entropy"], -hard.mean())
    gradients = [torch.autograd.grad(x, (query, logits)) for x in (found.total, expected)]
    for of_found, of_expected in zip(*gradients, strict=True):
        torch.testing.assert_close(of_found, of_expected)
    with pytest.raises(ValueError, match="classifier .*classifier_beside"):
        Objective("both", classifier=True, classifier_beside=True)


RAGGED = Taxonomy(
    [
        ("animal", "dog", "husky"),
        ("animal", "dog", "pug"),
        ("animal", "carp"),
        ("vehicle", "car"),
        ("vehicle", "bike"),
        ("lamp",),
    ]
)
TOP = torch.tensor([0, 0, 0, 2, 2, 1])  # in sorted order of their names


def test_superclasses_are_the_top_of_a_ragged_tree() -> None:
    """By the first name of each path, though the deepest classes hang in dog."""
    query, labels = functional.normalize(torch.randn(12, 4), dim=1), torch.arange(12) % 6
    pairs = Pairs(query, query, labels, labels, torch.arange(12), torch.arange(12), True)
    top = DenseRanks((TOP[labels][:, None] == TOP[labels]).long().fill_diagonal_(-1))
    own = DenseRanks((labels[:, None] == labels).long().fill_diagonal_(-1))
    coarse, fine = supcon_out(query, query, top, 0.1), supcon_out(query, query, own, 0.1)
    options = LossOptions(temperature=0.1)
    for objective, expected in (("supcon-coarse", coarse), ("supcon-sum", fine + coarse)):
        found = contrastive_loss(objective, options, RAGGED, pairs).total
        torch.testing.assert_close(found, expected)
    head = classifier_head(OBJECTIVES["cross-entropy-two-heads"], 7, RAGGED)
    assert head.weight.shape == (6 + 3, 7)
    logits = torch.randn(12, 9)
    given = Pairs(logits, logits, labels, labels, labels, labels, ignore_self=True)
    smooth = LossOptions(smoothing=0.5)
    found = contrastive_loss("cross-entropy-two-heads", smooth, RAGGED, given, logits).total
    log_fine, log_coarse = logits[:, :6].log_softmax(dim=1), logits[:, 6:].log_softmax(dim=1)
    expected = torch.tensor(0.0)
    for row, label in enumerate(labels.tolist()):
        group = (TOP[label] == TOP).nonzero()[:, 0]
        expected = expected - 0.5 * log_fine[row, label] - 0.5 * log_fine[row, group].mean()
        expected = expected - log_coarse[row, TOP[label]]
    torch.testing.assert_close(found, expected / 12)


def test_the_parts_of_rince_are_its_ranks() -> None:
    pairs = _pairs()
    loss = contrastive_loss("rince", LossOptions(), TREE, pairs)
    assert set(loss.parts) == {"loss_rank_1", "loss_rank_2"}
    # Every query has a key of each rank here, so the mean of the sum is the sum of the means.
    torch.testing.assert_close(loss.parts["loss_rank_1"] + loss.parts["loss_rank_2"], loss.total)


def test_infonce_ignores_an_older_key_of_the_same_image() -> None:
    pairs = _pairs(queued=4)
    found = contrastive_loss("infonce", LossOptions(), TREE, pairs).total
    ranks = torch.zeros(6, 10, dtype=torch.long)
    ranks[torch.arange(6), torch.arange(6)] = 1
    ranks[2, 6] = -1
    torch.testing.assert_close(found, info_nce(pairs.query, pairs.key, ranks, 0.1))


def test_infonce_takes_one_view_of_an_image_that_is_twice_in_a_batch() -> None:
    z = torch.nn.functional.normalize(
        torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), dim=1
    )
    ids = torch.tensor([5, 5, 7])
    for own, expected in (
        (False, [[1, -1, 0], [1, -1, 0], [0, 0, 1]]),
        # Both views of all three are queries and keys; a key is not its own positive.
        (True, [[-1, 1, 0, -1, -1, 0], [1, -1, 0, -1, -1, 0], [0, 0, -1, 0, 0, 1]]),
    ):
        both = torch.cat([ids, ids])
        query, key, q, k = (z, z, both, both) if own else (z[:3], z[3:], ids, ids)
        pairs = Pairs(query, key, q, k, q, k, ignore_self=own)
        assert pairs.instance_ranks().tile(ALL, ALL)[:3].tolist() == expected
        assert torch.isfinite(contrastive_loss("infonce", LossOptions(), TREE, pairs).total)


def test_statistics_are_means_over_pairs() -> None:
    pairs = _pairs()
    ranks, similarity = _by_hand(pairs), pairs.query @ pairs.key.T
    shown = rank_statistics(pairs, TREE)
    for rank in (0, 1, 2):
        torch.testing.assert_close(
            shown[f"similarity_rank_{rank}"], similarity[ranks == rank].mean()
        )
    assert float(shown["positives_rank_1"]) == pytest.approx(int((ranks == 1).sum()) / 6)
    assert float(shown["positives_rank_2"]) == pytest.approx(int((ranks == 2).sum()) / 6)


def test_temperatures_by_number_of_ranks() -> None:
    assert LossOptions().temperatures_for(2) == (0.1, 0.225)
    assert LossOptions(temperatures=(0.2, 0.3)).temperatures_for(2) == (0.2, 0.3)
    assert LossOptions().temperatures_for(5) == (0.1, 0.2, 0.3, 0.4, 0.5)


@pytest.mark.parametrize("queued", [0, 4])
def test_statistics_leave_out_what_is_ignored(queued: int) -> None:
    pairs = _pairs(queued)
    if queued:
        pairs = replace(pairs, key_valid=torch.tensor([True, False] * 5))
    else:
        pairs = replace(pairs, key=pairs.query, ignore_self=True)
    ranks = pairs.ranks_by(TREE).tile(slice(None), slice(None))
    assert int((ranks == -1).sum()) == (30 if queued else 6)
    similarity = pairs.query @ pairs.key.T
    shown = rank_statistics(pairs, TREE)
    for rank in (0, 1, 2):
        torch.testing.assert_close(
            shown[f"similarity_rank_{rank}"], similarity[ranks == rank].mean()
        )
        if rank:
            assert float(shown[f"positives_rank_{rank}"]) == pytest.approx(
                int((ranks == rank).sum()) / 6
            )


@pytest.mark.parametrize("queued", [0, 60])
@pytest.mark.parametrize(("num_classes", "count"), [(300, 700), (300, 290), (2100, 40)])
def test_statistics_of_many_classes(num_classes: int, count: int, queued: int) -> None:
    """By class, in several parts; and pair by pair, where classes outnumber queries."""
    tree = Taxonomy([(f"group {i // 3}", f"class {i}") for i in range(num_classes)])
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(count + queued, 4, generator=generator)
    labels = torch.randint(0, 30, (count + queued,), generator=generator) * (num_classes // 30)
    pairs = Pairs(
        z[:count],
        z,
        labels[:count],
        labels,
        labels[:count],
        labels,
        ignore_self=True,
        num_queued=queued,
        key_valid=torch.rand(len(z), generator=generator) > 0.2 if queued else None,
    )
    ranks = pairs.ranks_by(tree).tile(ALL, ALL)
    similarity, shown = (pairs.query @ pairs.key.T).double(), rank_statistics(pairs, tree)
    for rank in range(3):
        chosen = ranks == rank
        found = shown[f"similarity_rank_{rank}"].double()
        torch.testing.assert_close(
            found, similarity[chosen].mean(), rtol=1e-4, atol=1e-5, equal_nan=True
        )
        if rank:
            positives = float(shown[f"positives_rank_{rank}"])
            assert positives == pytest.approx(int(chosen.sum()) / count)


def test_statistics_of_a_rank_without_pairs_are_nan() -> None:
    pairs = replace(
        _pairs(),
        query_labels=torch.tensor([0, 1, 2, 0, 1, 2]),
        key_labels=torch.tensor([0, 1, 2, 3, 3, 3]),
        ignore_self=True,
    )
    shown = rank_statistics(pairs, TREE)  # every own class is only the query itself
    assert math.isnan(shown["similarity_rank_1"])
    assert float(shown["positives_rank_1"]) == 0
    assert all(math.isfinite(shown[f"similarity_rank_{i}"]) for i in (0, 2))
