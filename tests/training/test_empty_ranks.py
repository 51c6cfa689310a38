"""Ranks that no two items have."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rince.core.labels import integers
from rince.ranks.taxonomy import Taxonomy
from rince.training.ranks import empty_ranks

PATHS = st.lists(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(tuple),
    min_size=1,
    max_size=8,
    unique=True,
).filter(lambda paths: not any(a != b and b[: len(a)] == a for a in paths for b in paths))


@given(PATHS, st.data())
def test_empty_ranks_are_those_that_the_table_lacks(paths: list[tuple[str, ...]], data) -> None:  # type: ignore[no-untyped-def]
    tree = Taxonomy(paths)
    classes = st.integers(0, tree.num_classes - 1)
    labels = data.draw(st.lists(classes, min_size=1, max_size=6))
    there = {int(tree.table[a, b]) for a in labels for b in labels}
    wanted = [rank for rank in range(2, tree.num_ranks + 1) if rank not in there]
    assert empty_ranks(tree, integers(labels)) == wanted
