"""Corruption does what it says: how much, to what, the same for the same seed."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rince import Similarity, Taxonomy
from rince.ranks.noise import forget_ranks, move_classes, noisy_scores

SHARES = st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0])
CIFAR = Taxonomy.cifar100()


@given(SHARES, st.integers(0, 50))
def test_moved_classes_lie_in_a_wrong_superclass(share: float, seed: int) -> None:
    moved = move_classes(CIFAR, share, seed)
    assert moved.classes == CIFAR.classes
    wrong = [now[:-1] != before[:-1] for now, before in zip(moved.paths, CIFAR.paths, strict=True)]
    assert sum(wrong) == round(share * 100)
    assert {path[:-1] for path in moved.paths} <= {path[:-1] for path in CIFAR.paths}
    assert moved == move_classes(CIFAR, share, seed)
    # Only the moved classes have other partners, apart from those that they left or joined.
    kept = torch.tensor([not w for w in wrong])
    assert torch.equal(moved.table[kept][:, kept], CIFAR.table[kept][:, kept])


def slow_move(tree: Taxonomy, share: float, seed: int) -> list[tuple[str, ...]]:
    """The definition, and what a seed has given since the first version: the other groups are
    listed in sorted order, and one is drawn. None may hold a class or a group of the name."""
    generator = torch.Generator().manual_seed(seed)
    groups = sorted({path[:-1] for path in tree.paths} - {()})
    above = {path[:k] for path in tree.paths for k in range(1, len(path))}
    paths = list(tree.paths)
    order = torch.randperm(len(paths), generator=generator).tolist()
    for i in order[: round(share * len(paths))]:
        *own, name = paths[i]
        others = [
            g
            for g in groups
            if g != tuple(own) and (*g, name) not in above and (*g, name) not in paths
        ]
        if not others:
            return []
        place = torch.randint(len(others), (), generator=generator)
        paths[i] = (*others[int(place)], name)
    return paths


NAMES = st.sampled_from("abcde")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(NAMES, min_size=1, max_size=3).map(tuple), min_size=2, max_size=12,
                unique=True), SHARES, st.integers(0, 3))  # fmt: skip
def test_a_seed_gives_the_tree_of_the_definition(
    paths: list[tuple[str, ...]], share: float, seed: int
) -> None:
    """Also where a name occurs under several parents, or is a group's elsewhere."""
    if any(a != b and b[: len(a)] == a for a in paths for b in paths):
        return
    tree = Taxonomy(paths)
    wanted = slow_move(tree, share, seed)
    if not wanted or max(map(len, wanted)) < tree.num_ranks:
        message = "left no class at the lowest" if wanted else "no other superclass"
        with pytest.raises(ValueError, match=message):
            move_classes(tree, share, seed)
    else:
        assert list(move_classes(tree, share, seed).paths) == wanted


@pytest.mark.parametrize("seed", range(5))
def test_a_seed_moves_the_classes_of_cifar_as_it_did(seed: int) -> None:
    for share in (0.1, 0.5, 1.0):
        assert list(move_classes(CIFAR, share, seed).paths) == slow_move(CIFAR, share, seed)


def test_names_that_occur_under_several_parents() -> None:
    tree = Taxonomy.from_dict({"men": ["shirts", "ties"], "women": ["shirts"], "pets": ["1.0"],
                               "toys": ["1", "ties"]})  # fmt: skip
    places: dict[str, set[str]] = {"shirts": set(), "ties": set(), "1": set(), "1.0": set()}
    for seed in range(60):
        for before, (group, name) in zip(tree.paths, move_classes(tree, 1 / 7, seed).paths,
                                         strict=True):  # fmt: skip
            if before != (group, name):
                places[name].add(group)
    assert places == {
        "shirts": {"pets", "toys"},
        "ties": {"women", "pets"},
        "1": {"men", "women"},  # in pets there is a 1.0
        "1.0": {"men", "women"},
    }
    with pytest.raises(ValueError, match="no other superclass to move 'S' into, which holds none"):
        move_classes(Taxonomy([("a", "S"), ("b", "S")]), 1.0, 0)


def test_a_class_leaves_its_place_to_others_of_its_name() -> None:
    tree = Taxonomy([("a", "x"), ("b", "x"), ("c", "y")])
    found = {move_classes(tree, 2 / 3, seed).paths for seed in range(40)}
    assert (("b", "x"), ("c", "x"), ("c", "y")) in found
    assert (("c", "x"), ("a", "x"), ("c", "y")) in found


def test_moves_among_many_classes() -> None:
    """A table of all groups for each class would take minutes."""
    tree = Taxonomy([(f"g{i // 4}", f"c{i}") for i in range(32_000)])
    moved = move_classes(tree, 0.5, 0)
    assert sum(a != b for a, b in zip(tree.paths, moved.paths, strict=True)) == 16_000


def test_every_class_and_every_other_superclass_is_equally_likely() -> None:
    tree = Taxonomy([(g, f"{g}{i}") for g in "abc" for i in range(2)])
    counts = {path: dict.fromkeys("abc", 0) for path in tree.paths}
    for seed in range(1200):
        found = move_classes(tree, 1 / 6, seed)
        for before, now in zip(tree.paths, found.paths, strict=True):
            counts[before][now[0]] += before != now
    for (own, _), targets in counts.items():
        assert targets.pop(own) == 0
        # 1200 moves over 6 classes with 2 targets each: 100 of each, standard deviation 9.6.
        assert all(60 < n < 140 for n in targets.values()), counts


def test_moves_in_ragged_trees() -> None:
    tree = Taxonomy([("animal", "dog", "husky"), ("animal", "dog", "pug"), ("animal", "carp"),
                     ("boat",)])  # fmt: skip
    for seed in range(30):
        found = move_classes(tree, 0.25, seed)
        assert found.num_ranks == 3
        changed = [n for b, n in zip(tree.paths, found.paths, strict=True) if b != n]
        assert changed[0][:-1] in {("animal",), ("animal", "dog")}
    deep_or_flat = Taxonomy([("g", "d", "deep"), ("h", "flat")])
    outcomes = set()
    for seed in range(20):
        try:
            outcomes.add(move_classes(deep_or_flat, 0.5, seed).paths[1])
        except ValueError as error:
            outcomes.add(str(error).partition(":")[0])
    assert outcomes == {
        ("g", "d", "flat"),
        "moving a share of 0.5 left no class at the lowest of 3 levels",
    }
    # A class called like a group may not take its place: b goes below a/b, but not beside it.
    names = Taxonomy([("a", "b", "x"), ("a", "b", "w"), ("a", "y"), ("c", "b")])
    assert {move_classes(names, 0.25, seed).paths[3] for seed in range(40)} == {
        ("c", "b"),
        ("a", "b", "b"),
    }


@pytest.mark.parametrize("paths", [[("a",), ("b",)], [("g", "a"), ("g", "b")]])
def test_nowhere_to_move(paths: list[tuple[str, ...]]) -> None:
    with pytest.raises(ValueError, match="no other superclass"):
        move_classes(Taxonomy(paths), 0.5, 0)


def test_noise_of_scores_has_its_size() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(200, 200, generator=generator, dtype=torch.float64)
    scores[3, 4] = scores[4, 3] = math.nan
    for symmetric in (False, True):
        given_ = (scores + scores.T) / 2 if symmetric else scores
        similarity = Similarity.from_matrix(given_, [str(i) for i in range(200)])
        found = noisy_scores(similarity, 0.3, seed=7)
        noise = found.scores - given_
        assert torch.equal(noise.isnan(), given_.isnan())
        assert torch.equal(found.scores.diagonal(), given_.diagonal())
        off = noise[~torch.eye(200, dtype=torch.bool) & ~noise.isnan()]
        # n draws (half of them if symmetric): four standard errors.
        n = 200 * 199 / (2 if symmetric else 1)
        assert abs(float(off.mean())) < 4 * 0.3 / math.sqrt(n)
        assert abs(float(off.std()) - 0.3) < 4 * 0.3 / math.sqrt(2 * n)
        mirrored = torch.allclose(noise.nan_to_num(), noise.T.nan_to_num())
        assert mirrored == symmetric
        assert torch.equal(similarity.scores.nan_to_num(), given_.nan_to_num())  # left alone
        again, other = (noisy_scores(similarity, 0.3, seed).scores for seed in (7, 8))
        assert torch.equal(again.nan_to_num(), found.scores.nan_to_num())
        assert not torch.equal(other.nan_to_num(), found.scores.nan_to_num())
        assert torch.equal(noisy_scores(similarity, 0, 0).scores.nan_to_num(), given_.nan_to_num())


def test_a_seed_gives_the_same_noise_in_every_version() -> None:
    """Runs are resumed only with the ranks that they began with."""
    draws = torch.randn(2, 2, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    found = noisy_scores(Similarity.from_matrix([[1.0, 0.5], [0.5, 1.0]], ["a", "b"]), 0.3, seed=7)
    assert float(found.scores[0, 1]) == pytest.approx(0.5 + 0.3 * float(draws[0, 1]))


@given(st.integers(1, 9), SHARES, st.integers(0, 20))
def test_forgotten_pairs(size: int, share: float, seed: int) -> None:
    table = torch.randint(0, 4, (size, size), generator=torch.Generator().manual_seed(seed))
    before = table.clone()
    found = forget_ranks(table, share, seed)
    assert torch.equal(table, before)
    assert torch.equal(found, forget_ranks(table, share, seed))
    forgotten = 0
    for a in range(size):
        for b in range(size):
            if found[a, b] == -1:
                assert a != b
                assert found[b, a] == -1
                forgotten += a < b
            else:
                assert found[a, b] == before[a, b]
    assert forgotten == round(share * (size * (size - 1) // 2))


def test_what_cannot_be() -> None:
    similarity = Similarity.from_matrix([[1.0]], ["a"])
    for share in (-0.1, 1.1):
        with pytest.raises(ValueError, match=r"share.*\[0, 1\].* -?\d\.1"):
            move_classes(CIFAR, share, 0)
        with pytest.raises(ValueError, match=r"share.*\[0, 1\].* -?\d\.1"):
            forget_ranks(CIFAR.table, share, 0)
    for sd in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=r"sd.*finite.*\b0\b"):
            noisy_scores(similarity, sd, 0)
    with pytest.raises(ValueError, match="must be"):
        forget_ranks(torch.ones(2, 3).int(), 0.1, 0)
    with pytest.raises(ValueError, match="integers.*float32"):
        forget_ranks(torch.ones(2, 2), 0.1, 0)


def test_tables_without_a_sign_have_room_for_ignored_pairs() -> None:
    table = torch.eye(2, dtype=torch.uint8)
    assert forget_ranks(table, 1.0, 0).tolist() == [[1, -1], [-1, 1]]
