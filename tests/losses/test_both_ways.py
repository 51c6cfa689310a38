"""A loss between two sides is the loss called twice, by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

import rince
from rince.losses import both_ways, info_nce

LOSS = rince.RankedInfoNCE((0.1, 0.3), validate=False)


def sides(queries: int, keys: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image, text = (
        functional.normalize(torch.randn(n, 5, generator=generator, dtype=torch.float64), dim=1)
        for n in (queries, keys)
    )
    return image, text, torch.randint(-1, 3, (queries, keys), generator=generator)


@settings(max_examples=30)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 10_000))
def test_value_and_gradient_are_those_of_two_calls(queries: int, keys: int, seed: int) -> None:
    image, text, ranks = sides(queries, keys, seed)
    found, expected = ([x.clone().requires_grad_() for x in (image, text)] for _ in range(2))
    value = both_ways(LOSS, *found, ranks)
    by_hand = LOSS(*expected, ranks) / 2 + LOSS(expected[1], expected[0], ranks.T) / 2
    torch.testing.assert_close(value, by_hand)
    for a, b in zip(
        torch.autograd.grad(value, found), torch.autograd.grad(by_hand, expected), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_a_rank_source_is_as_good_as_its_matrix() -> None:
    image, text, _ = sides(4, 6, seed=0)
    labels = (torch.tensor([0, 1, 2, 0]), torch.tensor([2, 1, 1, 0, 2, 0]))
    tree = rince.Taxonomy([("a", "0"), ("a", "1"), ("b", "2")])
    source = tree.ranks(*labels)
    matrix = tree.table[labels[0]][:, labels[1]]
    assert both_ways(LOSS, image, text, source) == both_ways(LOSS, image, text, matrix)


def test_with_info_nce_it_is_the_loss_of_clip() -> None:
    image, text, _ = sides(5, 5, seed=1)
    own = torch.eye(5, dtype=torch.int64)
    logits, target = image @ text.T / 0.07, torch.arange(5)
    clip = (
        functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)
    ) / 2
    found = both_ways(lambda a, b, ranks: info_nce(a, b, ranks, 0.07), image, text, own)
    torch.testing.assert_close(found, clip)


@pytest.mark.parametrize(
    ("queries", "keys", "message"), [(2, 3, r"\(2,\).*\(3,\)"), (1, 3, r"\(\).*\(3,\)")]
)
def test_a_value_for_each_query_is_refused(queries: int, keys: int, message: str) -> None:
    """A loss that squeezes gives a scalar for one query."""
    image, text, ranks = sides(queries, keys, seed=0)
    loss = rince.RankedInfoNCE((0.1, 0.3), reduction="none", validate=False)
    with pytest.raises(ValueError, match=message):
        both_ways(lambda *given: loss(*given).squeeze(), image, text, ranks)


def test_sides_that_are_no_tensors_are_refused() -> None:
    image, text, ranks = sides(2, 3, 0)
    for pair, side in (((image.tolist(), text), "query"), ((image, text.tolist()), "key")):
        with pytest.raises(ValueError, match=f"{side} embeddings must be a torch tensor"):
            both_ways(LOSS, *pair, ranks)  # type: ignore[arg-type]
