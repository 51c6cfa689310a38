"""Retrieval in a tree against its definition, and what it must not depend on."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from oracles import hierarchy as oracle
from rince.metrics import set_intersection
from rince.metrics.hierarchy import hierarchical_retrieval, top_down_consistency
from rince.metrics.ordered_items import OrderedItems
from rince.metrics.set_intersection import _expected_minimum

KS = (2, 1, 5)


@st.composite
def cases(draw, most_items=6):
    """Features of few directions, so that ties are common, and a tree of 1 to 3 levels."""
    num_levels = draw(st.integers(1, 3))
    classes = []
    for number in range(draw(st.integers(1, 4))):
        path = [number]
        for level in range(1, num_levels):
            path.append(path[-1] // (level + 1))
        classes.append(path)
    side = draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(side)
    num_items = draw(st.integers(1, most_items))
    exclude_self = draw(st.booleans())
    few = draw(st.booleans())

    def features(count):
        if few:
            # Of length 1, and products without rounding: ties are ties in any order of sums.
            return torch.randint(0, 2, (count, 4), generator=generator) - 0.5
        return torch.randn(count, 4, generator=generator)

    def levels(count):
        chosen = torch.randint(0, len(classes), (count,), generator=generator)
        return torch.tensor(classes)[chosen]

    gallery, gallery_levels = features(num_items), levels(num_items)
    if exclude_self:
        count = draw(st.integers(1, num_items))
        query, query_levels = gallery[:count].clone(), gallery_levels[:count].clone()
    else:
        count = draw(st.integers(1, 3))
        query, query_levels = features(count), levels(count)
    return query, gallery, query_levels, gallery_levels, exclude_self


def definition(query, gallery, query_levels, gallery_levels, ignored, alpha=1.0):
    unit = torch.nn.functional.normalize
    scores = (unit(query, dim=1) @ unit(gallery, dim=1).T).tolist()
    return oracle.hierarchical(
        scores, query_levels.tolist(), gallery_levels.tolist(), ignored, KS, alpha
    )


def agree(found, expected):
    assert found.num_skipped == expected["skipped"]
    for level, (own, by_definition) in enumerate(
        zip(found.levels, expected["levels"], strict=True)
    ):
        values = {
            "mAP": own.mean_average_precision,
            "r_precision": own.r_precision,
            "map_at_r": own.map_at_r,
            "only": own.only_level,
            "skipped": own.num_skipped,
            **own.recall,
        }
        for name, value in values.items():
            assert value == pytest.approx(by_definition[name], abs=1e-9, nan_ok=True), (level, name)
    for name, value in (
        ("h_ap", found.h_ap),
        ("asi", found.asi),
        ("ndcg", found.ndcg),
        ("severity", found.mistake_severity),
    ):
        assert value == pytest.approx(expected[name], abs=1e-9, nan_ok=True), name
    for k in KS:
        assert found.distance[k] == pytest.approx(expected["distance"][k], abs=1e-9)


@given(cases(), st.sampled_from([0.5, 1.0, 2.0]), st.integers(1, 3))
def test_it_is_its_definition(case, alpha, chunk_size):
    query, gallery, query_levels, gallery_levels, exclude_self = case
    ignored = [[exclude_self and i == j for j in range(len(gallery))] for i in range(len(query))]
    expected = definition(query, gallery, query_levels, gallery_levels, ignored, alpha)
    options = {"ks": KS, "exclude_self": exclude_self, "alpha": alpha, "chunk_size": chunk_size}
    if expected["skipped"] == len(query):
        with pytest.raises(ValueError, match="no query"):
            hierarchical_retrieval(query, gallery, query_levels, gallery_levels, **options)
        return
    agree(hierarchical_retrieval(query, gallery, query_levels, gallery_levels, **options), expected)


@given(cases(), st.integers(0, 2**31))
def test_items_of_a_sequence_are_no_answers(case, seed):
    query, gallery, query_levels, gallery_levels, _ = case
    generator = torch.Generator().manual_seed(seed)
    of_query = torch.randint(0, 3, (len(query),), generator=generator)
    of_gallery = torch.randint(0, 3, (len(gallery),), generator=generator)
    ignored = (of_query[:, None] == of_gallery[None, :]).tolist()
    expected = definition(query, gallery, query_levels, gallery_levels, ignored)
    if expected["skipped"] == len(query):
        return
    found = hierarchical_retrieval(
        query,
        gallery,
        query_levels,
        gallery_levels,
        ks=KS,
        query_sequence=of_query,
        gallery_sequence=of_gallery,
    )
    agree(found, expected)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=5), min_size=1, max_size=3))
@example([[0, 1, 1, 2, 0], [1]])
@example([[2], [0, 0, 1, 2, 1]])
@example([[0], [0, 0, 1, 1, 2]])
@example([[0, 1, 1, 2]])
@example([[1], [0, 1, 1, 2]])
@example([[1, 1, 1, 1], [0, 0]])
@example([[1, 1, 1, 1], [0, 0, 0]])
@settings(max_examples=40)
def test_asi_of_long_runs_of_tied_items(runs):
    """Runs from the nearest on, each item by the level where it meets the query; 2: at none."""
    heights = [height for run in runs for height in run]
    if len(heights) > 7 or min(heights) == 2:
        return
    angles = torch.tensor([0.4 * place for place, run in enumerate(runs) for _ in run])
    gallery = torch.stack([angles.cos(), angles.sin()], dim=1)
    levels = torch.tensor([[[0, 0], [1, 0], [2, 1]][height] for height in heights])
    query, own = torch.tensor([[1.0, 0.0]]), torch.tensor([[0, 0]])
    found = hierarchical_retrieval(query, gallery, own, levels, ks=(1,))
    scores = [-place for place, run in enumerate(runs) for _ in run]
    allowed = list(oracle.orders(scores))
    expected = sum(oracle.asi(order, heights, 2) for order in allowed) / len(allowed)
    assert found.asi == pytest.approx(expected, abs=1e-9)


@given(st.integers(1, 12), st.data())
def test_the_minimum_of_drawn_items_and_room(size, data):
    marked, spare = data.draw(st.integers(0, size)), data.draw(st.integers(-size - 2, 3))
    found = _expected_minimum(size, marked, spare)
    for drawn in range(size + 1):
        fewest, most = max(0, drawn - (size - marked)), min(drawn, marked)
        expected = sum(
            math.comb(marked, x) * math.comb(size - marked, drawn - x) * min(x, drawn + spare)
            for x in range(fewest, most + 1)
        ) / math.comb(size, drawn)
        assert float(found[drawn]) == pytest.approx(expected, abs=1e-12)


def test_neighbouring_floats_are_no_tie():
    half = torch.tensor(0.5)
    similarity = torch.stack([half, half.nextafter(torch.tensor(1.0))])[None]
    items = OrderedItems.of(similarity, torch.tensor([[0, 1]], dtype=torch.uint8), 2)
    assert items.height.tolist() == [[1, 0]]
    assert items.first.tolist() == [[0, 1]]
    assert items.last.tolist() == [[1, 2]]


def random_case(seed=0, count=40):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, 8, generator=generator)
    fine = torch.randint(0, 8, (count,), generator=generator)
    return features, torch.stack([fine, fine // 2, fine // 4], dim=1)


def test_permuting_the_gallery_and_renaming_groups_changes_nothing():
    features, levels = random_case()
    generator = torch.Generator().manual_seed(1)
    order = torch.randperm(30, generator=generator)
    base = hierarchical_retrieval(features[30:], features[:30], levels[30:], levels[:30])
    renamed = levels * -7 + 1000
    again = hierarchical_retrieval(
        features[30:], features[:30][order], renamed[30:], renamed[:30][order], chunk_size=3
    )
    assert again.h_ap == pytest.approx(base.h_ap, abs=1e-12)
    assert again.asi == pytest.approx(base.asi, abs=1e-12)
    assert again.levels[1].map_at_r == pytest.approx(base.levels[1].map_at_r, abs=1e-12)


def test_a_level_that_splits_nothing_changes_only_what_counts_levels():
    features, levels = random_case()
    double = levels[:, [0, 0, 1, 2]]
    base = hierarchical_retrieval(features, features, levels, levels, exclude_self=True)
    found = hierarchical_retrieval(features, features, double, double, exclude_self=True)
    for own, other in ((0, 0), (1, 0), (2, 1), (3, 2)):
        mine, theirs = found.levels[own], base.levels[other]
        assert mine.mean_average_precision == theirs.mean_average_precision
        assert mine.map_at_r == theirs.map_at_r
    assert math.isnan(found.levels[1].only_level)


def test_a_perfect_order_scores_one():
    levels = torch.tensor([[0, 0], [1, 0], [2, 1], [3, 1]])
    gallery = torch.tensor([[1.0, 0.0], [0.9, 0.3], [0.2, 1.0], [0.0, 1.0]])
    found = hierarchical_retrieval(gallery[:1].clone(), gallery, levels[:1], levels)
    assert (found.h_ap, found.asi, found.ndcg) == pytest.approx((1.0, 1.0, 1.0))
    assert found.distance[1] == 0
    assert math.isnan(found.mistake_severity)


def test_one_level_is_plain_average_precision():
    features, levels = random_case()
    found = hierarchical_retrieval(
        features, features, levels[:, :1], levels[:, :1], exclude_self=True
    )
    assert found.h_ap == pytest.approx(found.levels[0].mean_average_precision, abs=1e-12)
    assert found.levels[0].only_level == pytest.approx(
        found.levels[0].mean_average_precision, abs=1e-12
    )


@pytest.mark.parametrize(
    ("levels", "fact"),
    [
        (torch.tensor([[0, 0], [0, 1]]), r"group \[0\] of level 1"),
        (torch.tensor([[0, 0, 0], [0, 0, 1]]), r"group \[0\] of level 2 .* 2 groups of level 3"),
        (torch.tensor([0, 1]), r"\(2,\)"),
        (torch.tensor([[0.0, 0.0], [1.0, 1.0]]), "float32"),
    ],
)
def test_levels_that_are_no_tree_are_refused(levels, fact):
    features = torch.eye(2)
    with pytest.raises(ValueError, match=fact):
        hierarchical_retrieval(features, features, levels, levels)


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"ks": (5, 0)}, r"ks must.*\b1\b.*\(5, 0\)"),
        ({"alpha": 0}, "alpha.* 0$"),
        ({"query_features": torch.eye(3), "query_levels": [[0]] * 3}, r"\b3 queries.*\b2 gallery"),
        ({"query_levels": [[0, 0], [1, 0]]}, r"\b2 levels, gallery_levels 1\b"),
        ({"query_sequence": [0, 1]}, "gallery_sequence.*both"),
        ({"gallery_sequence": [0, 1]}, "query_sequence.*both"),
        ({"query_sequence": [0], "gallery_sequence": [0, 1]}, r"\(1,\) for 2 queries"),
        ({"query_sequence": [0, 1], "gallery_sequence": [0]}, r"\(1,\) for 2 gallery"),
        ({"query_levels": [[0], [-1]]}, "query_levels: row 1 holds -1"),
        ({"gallery_levels": [[-9], [1]]}, "gallery_levels: row 0 holds -9"),
        ({"query_sequence": [0, -1], "gallery_sequence": [0, 1]}, "query_sequence: row 1"),
        ({"query_sequence": [0, 1], "gallery_sequence": [-1, 1]}, "gallery_sequence: row 0"),
    ],
)
def test_what_is_refused_of_a_tree(change, fact):
    z, levels = torch.eye(2), [[0], [1]]
    options = {"query_levels": levels, "gallery_levels": levels, "exclude_self": True}
    options |= {"query_features": z, "gallery_features": z}
    with pytest.raises(ValueError, match=fact):
        hierarchical_retrieval(**(options | change))


def test_consistency_counts_only_what_is_right_at_the_finest_level():
    predicted = torch.tensor([[0, 0, 0], [1, 1, 0], [2, 1, 1], [5, 0, 0], [6, 0, 0]])
    true = torch.tensor([[0, 0, 0], [1, 0, 0], [2, 1, 0], [4, 0, 0], [4, 0, 0]])
    assert top_down_consistency(predicted, true) == pytest.approx(1 / 3)
    assert math.isnan(top_down_consistency(true + 9, true))
    for other in (true[:1], true[:, 0]):
        with pytest.raises(ValueError, match=rf"\(5, 3\) and \({len(other)},"):
            top_down_consistency(predicted, other)
    with pytest.raises(ValueError, match=r"\(5,\) and \(5,\)"):
        top_down_consistency(predicted[:, 0], true[:, 0])
    for pair, name in ((([[-1]], [[0]]), "predicted"), (([[0]], [[-1]]), "true")):
        with pytest.raises(ValueError, match=f"{name}: row 0 holds -1"):
            top_down_consistency(*pair)


def test_copies_of_items_cost_what_their_kinds_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """60 runs of four tied items a query, of which few differ."""
    asked: list[tuple[int, int, int]] = []
    table = set_intersection._expected_minimum
    monkeypatch.setattr(
        set_intersection, "_expected_minimum", lambda *x: [asked.append(x), table(*x)][1]
    )
    features = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
    features = features.repeat_interleave(4, 0)
    groups = torch.arange(240) // 4 % 10
    levels = torch.stack([groups, groups % 2], dim=1)
    hierarchical_retrieval(features, features, levels, levels, exclude_self=False, chunk_size=240)
    assert 0 < len(asked) < 50
