from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from rince.data.sampler import BalancedPlan, dealt, draws_in_packs, proportional, spread


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def balanced(
    labels: Tensor, superclasses: Tensor | None, batch: int, n: int, m: int, **more: int
) -> BalancedPlan:
    return BalancedPlan(labels, superclasses, batch, n, m, **{"seed": 0, **more})  # type: ignore[arg-type]


EVEN = torch.arange(240) % 12  # 20 images of each of 12 classes
THREES = torch.arange(12) // 3  # 4 superclasses of 3


# ---- what a batch holds --------------------------------------------------------------------


@settings(max_examples=60)
@given(
    groups=st.lists(st.integers(2, 4), min_size=2, max_size=5),
    n=st.integers(1, 4),
    m=st.integers(1, 2),
    slots=st.integers(1, 2),
    world_size=st.integers(1, 3),
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 50),
    data=st.data(),
)
def test_batches_hold_the_wished_numbers(
    groups: list[int],
    n: int,
    m: int,
    slots: int,
    world_size: int,
    seed: int,
    epoch: int,
    data: st.DataObject,
) -> None:
    """Uneven classes and superclasses; each superclass has at least m classes of n images."""
    superclasses = torch.tensor([g for g, size in enumerate(groups) for _ in range(size)])
    sizes = [data.draw(st.integers(n, 12)) for _ in superclasses]
    labels = torch.tensor([c for c, size in enumerate(sizes) for _ in range(size)])
    labels = labels[torch.randperm(len(labels), generator=generator(seed % 1000))]
    batch = slots * n * m
    assume(len(labels) // world_size >= batch)
    plans = [
        balanced(
            labels, superclasses, batch, n, m, seed=seed, process_index=p, world_size=world_size
        )
        for p in range(world_size)
    ]
    for plan in plans:
        plan.set_epoch(epoch)
    together = list(zip(*plans, strict=True))
    assert len(together) == len(plans[0]) == len(labels) // world_size // batch
    slots_of: Counter[int] = Counter()
    for parts in together:
        for part in parts:
            assert len(part) == batch
            per_class = Counter(labels[part].tolist())
            assert all(count % n == 0 for count in per_class.values())
            per_group = Counter(superclasses[labels[part]].tolist())
            assert all(count % (m * n) == 0 for count in per_group.values())
            for g, count in per_group.items():
                here = [c for c in per_class if superclasses[c] == g]
                assert len(here) >= m
                if count == m * n:
                    assert all(per_class[c] == n for c in here)
                    own = [i for i in part if superclasses[labels[i]] == g]
                    assert len(set(own)) == m * n  # an image is in a slot only once
        whole = [i for part in parts for i in part]
        for g, count in Counter(superclasses[labels[whole]].tolist()).items():
            slots_of[g] += count // (m * n)
    # A superclass is in every batch as often as in any other, but for one.
    for parts in together:
        whole = [i for part in parts for i in part]
        here = Counter(superclasses[labels[whole]].tolist())
        for g in range(len(groups)):
            low = slots_of[g] // len(together)
            assert low <= here[g] // (m * n) <= low + 1
    # Slots in proportion to the images, rounded up or down.
    for g in range(len(groups)):
        images = sum(size for c, size in enumerate(sizes) if superclasses[c] == g)
        share = sum(slots_of.values()) * images / len(labels)
        assert abs(slots_of[g] - share) < 1 + 1e-9


def test_each_query_has_its_number_of_positives() -> None:
    plan = balanced(EVEN, THREES, 24, 4, 3)
    for batch in plan:
        fine = EVEN[batch]
        coarse = THREES[fine]
        rank_1 = (fine[:, None] == fine[None, :]).sum(dim=1) - 1
        rank_2 = (coarse[:, None] == coarse[None, :]).sum(dim=1) - rank_1 - 1
        assert rank_1.tolist() == [3] * 24
        assert rank_2.tolist() == [8] * 24


def test_without_superclasses_classes_are_drawn_freely() -> None:
    together = set()
    for epoch in range(30):
        plan = balanced(EVEN, None, 12, 4, 1)
        plan.set_epoch(epoch)
        for batch in plan:
            assert sorted(Counter(EVEN[batch].tolist()).values()) == [4, 4, 4]
            together |= {frozenset(EVEN[batch].tolist())}
    assert len(together) > 100  # of the 220 sets of three


def test_a_batch_is_mixed() -> None:
    """A micro-batch at its front holds more than one class."""
    plan = balanced(EVEN, THREES, 24, 4, 3)
    first = [len(set(EVEN[batch[:4]].tolist())) for batch in plan]
    assert sum(first) / len(first) > 2


# ---- how often an image is seen ------------------------------------------------------------


def test_even_classes_see_every_image_once_an_epoch() -> None:
    for epoch in range(3):
        plan = balanced(EVEN, THREES, 24, 4, 3)
        plan.set_epoch(epoch)
        seen = [i for batch in plan for i in batch]
        assert sorted(seen) == list(range(240))


def test_uneven_classes_are_seen_about_equally_often() -> None:
    """4 superclasses of 5, 5, 2 and 1 classes; also classes of fewer images than a pack."""
    sizes = [30, 21, 9, 17, 40, 12, 12, 7, 33, 5, 26, 14, 19]
    superclasses = torch.tensor([0] * 5 + [1] * 5 + [2] * 2 + [3])
    labels = torch.repeat_interleave(torch.arange(13), torch.tensor(sizes))
    epochs = 300
    for parents, m in ((None, 1), (superclasses, 2)):
        counts = torch.zeros(len(labels))
        for epoch in range(epochs):
            plan = balanced(labels, parents, 16, 4, m)
            plan.set_epoch(epoch)
            counts += torch.bincount(torch.tensor(list(plan)).flatten(), minlength=len(labels))
        of_class = torch.stack([counts[labels == c].mean() for c in range(13)]) / epochs
        expected = len(plan) * 16 / len(labels)
        if m == 1:
            torch.testing.assert_close(of_class, torch.full((13,), expected), rtol=0.06, atol=0)
        else:
            of_group = (
                torch.stack([counts[superclasses[labels] == g].mean() for g in (0, 1)]) / epochs
            )
            torch.testing.assert_close(of_group, torch.full((2,), expected), rtol=0.03, atol=0)
            pooled = counts[superclasses[labels] >= 2].mean() / epochs
            assert float(pooled) == pytest.approx(expected, rel=0.03)
            # 40 of the 117 images, but no more than one pack in each slot of two.
            assert float(of_class[4]) == pytest.approx(expected, rel=0.06)
        for c in range(13):  # within a class: a few standard deviations
            own = counts[labels == c]
            assert float(own.max() - own.min()) < 60


def test_in_an_epoch_the_images_of_a_class_differ_by_one_at_most() -> None:
    sizes = torch.tensor([11, 11, 40, 40])
    labels = torch.repeat_interleave(torch.arange(4), sizes)
    plan = balanced(labels, torch.tensor([0, 0, 1, 1]), 8, 4, 2)
    counts = Counter(i for batch in plan for i in batch)
    for c in range(4):
        own = [counts[i] for i in (labels == c).nonzero()[:, 0].tolist()]
        assert max(own) - min(own) <= 1


def test_small_classes_and_lonely_superclasses() -> None:
    # 3 images in class 0, alone in its superclass as class 1 is; a superclass of two classes.
    labels = torch.tensor([0] * 3 + [1] * 20 + [2] * 20 + [3] * 21)
    superclasses = torch.tensor([0, 1, 2, 2])
    packs = Counter()
    for epoch in range(20):
        plan = balanced(labels, superclasses, 8, 4, 2)
        plan.set_epoch(epoch)
        for batch in plan:
            classes = Counter(labels[batch].tolist())
            assert sorted(classes.values()) == [4, 4]
            assert set(classes) in ({0, 1}, {2, 3})  # the lonely ones go together
            if 0 in classes:
                small = [i for i in batch if labels[i] == 0]
                assert set(small) == {0, 1, 2}  # all of it before one comes again
                packs[epoch] += 1
    assert len(packs) > 10
    # A single class that is alone fills its slot by itself.
    plan = balanced(torch.tensor([0] * 20 + [1] * 10 + [2] * 10), torch.tensor([0, 1, 1]), 8, 4, 2)
    batches = [Counter((torch.tensor([0] * 20 + [1] * 10 + [2] * 10))[b].tolist()) for b in plan]
    assert Counter({0: 8}) in batches


# ---- steps are functions of their number ----------------------------------------------------


def test_epochs_and_seeds_differ_and_repeat() -> None:
    orders = {}
    for seed in (0, 1):
        for epoch in (0, 1):
            plan = balanced(EVEN, THREES, 24, 4, 3, seed=seed)
            orders[seed, epoch] = tuple(plan.order(epoch).tolist())
            assert tuple(plan.order(epoch).tolist()) == orders[seed, epoch]
    assert len(set(orders.values())) == 4


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    list(balanced(EVEN, THREES, 24, 4, 3))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_pass_may_start_in_the_middle() -> None:
    plan = balanced(EVEN, THREES, 24, 4, 3)
    whole = list(plan)
    plan.set_epoch(0)
    plan.start_batch = 4
    assert list(plan) == whole[4:]


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_the_batches_of_one_and_are_disjoint(world_size: int) -> None:
    whole = list(balanced(EVEN, THREES, 12 * world_size, 2, 3))
    parts = [
        list(balanced(EVEN, THREES, 12, 2, 3, process_index=p, world_size=world_size))
        for p in range(world_size)
    ]
    assert len(whole) == len(parts[0])
    seen: list[int] = []
    for number, batch in enumerate(whole):
        here = [i for part in parts for i in part[number]]
        assert sorted(here) == sorted(batch)
        for part in parts:
            # With 6 slots of 4 superclasses a process may get the same one twice.
            numbers = set(Counter(EVEN[part[number]].tolist()).values())
            assert numbers == {2} if world_size == 2 else numbers <= {2, 4}
        seen += here
    assert len(set(seen)) == len(seen)


# ---- the pieces ----------------------------------------------------------------------------


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=8),
    st.integers(0, 60),
    st.integers(0, 10**6),
    st.data(),
)
def test_proportional(sizes: list[int], total: int, seed: int, data: st.DataObject) -> None:
    most = data.draw(st.none() | st.integers(-(-total // len(sizes)), total))
    found = proportional([float(s) for s in sizes], total, most, generator(seed))
    assert sum(found) == total
    assert min(found) >= 0
    exact = exact_shares(sizes, total, most)
    for number, share in zip(found, exact, strict=True):
        assert abs(number - share) < 1 + 1e-9


def exact_shares(sizes: list[int], total: int, most: int | None) -> list[float]:
    """Fill up like communicating vessels: the level at which min(most, level * size) is total."""
    if most is None:
        return [total * s / sum(sizes) for s in sizes]
    low, high = 0.0, float(total)
    for _ in range(200):
        level = (low + high) / 2
        if sum(min(most, level * s) for s in sizes) < total:
            low = level
        else:
            high = level
    return [min(most, high * s) for s in sizes]


def test_rounding_is_fair() -> None:
    sizes, rounds = [1.0, 2.0, 3.0, 4.0], 4000
    total = torch.zeros(4)
    for seed in range(rounds):
        total += torch.tensor(proportional(sizes, 3, None, generator(seed))).float()
    # Each number is one of two neighbours: a standard deviation of at most 0.5.
    expected = torch.tensor(sizes) * 3 / 10
    assert float((total / rounds - expected).abs().max()) < 4 * 0.5 / rounds**0.5


@pytest.mark.parametrize("deal", [spread, dealt])
@given(st.integers(1, 9), st.integers(1, 5), st.integers(0, 10**6), st.data())
def test_spread(deal: Any, bins: int, size: int, seed: int, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, bins * size), max_size=5)))
    counts = [b - a for a, b in zip([0, *cuts], [*cuts, bins * size], strict=True)]
    found = deal(counts, bins, size, generator(seed))
    assert [len(items) for items in found] == [size] * bins
    for i, count in enumerate(counts):
        here = [items.count(i) for items in found]
        assert sum(here) == count
        assert max(here) - min(here) <= 1


@pytest.mark.parametrize("deal", [spread, dealt])
def test_spread_is_even_over_the_bins(deal: Any) -> None:
    """Every item is as often in the first bin as its number says; so it is with the last."""
    counts, rounds = [9, 6, 4, 1], 3000
    totals = np.zeros((2, 4))
    for seed in range(rounds):
        bins = deal(counts, 10, 2, generator(seed))
        for total, place in zip(totals, (0, -1), strict=True):
            for i in bins[place]:
                total[i] += 1
    assert np.abs(totals / rounds - np.array(counts) / 10).max() < 0.04


@given(st.integers(1, 9), st.integers(0, 6), st.integers(1, 5), st.integers(0, 10**6))
def test_draws_in_packs(count: int, packs: int, size: int, seed: int) -> None:
    images = torch.arange(count) + 100
    found = draws_in_packs(images, packs, size, generator(seed))
    assert [len(pack) for pack in found] == [size] * packs
    for pack in found:
        assert len(set(pack.tolist())) == min(size, count)
    seen = Counter(i for pack in found for i in pack.tolist())
    assert set(seen) <= set(images.tolist())
    if packs:
        numbers = [seen[i] for i in images.tolist()]
        assert max(numbers) - min(numbers) <= 1


# ---- what is refused -----------------------------------------------------------------------


def test_impossible_batches_are_refused() -> None:
    with pytest.raises(ValueError, match=r"batch_size.*multiple of 12\b.* 20\b.*\b12"):
        balanced(EVEN, THREES, 20, 4, 3)
    with pytest.raises(ValueError, match=r"images_per_class.*\b1\b.* 0\b"):
        balanced(EVEN, THREES, 20, 0, 1)
    with pytest.raises(ValueError, match=r"classes_per_superclass.*\b1\b.* 0\b"):
        balanced(EVEN, THREES, 20, 1, 0)
    with pytest.raises(ValueError, match=r"batch_size 480\b.*\b240 "):
        balanced(EVEN, THREES, 480, 4, 3)


def test_many_classes_are_dealt_in_linear_time() -> None:
    """10,000 classes in 2,500 batches: one by one that would be 25 million draws."""
    labels = torch.arange(10_000).repeat(2)
    plan = BalancedPlan(labels, None, 8, 2, seed=3)
    order = plan.order(0)
    batches = labels[order].view(-1, 8)
    assert all(len(set(batch.tolist())) == 4 for batch in batches)
    assert len(torch.unique(labels[order])) == 10_000
    few = torch.arange(1_000).repeat(2)
    first, second = (BalancedPlan(few, None, 8, 2, seed=3) for _ in range(2))
    assert not torch.equal(first.order(0), first.order(1))
    assert torch.equal(first.order(0), second.order(0))
