from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from oracles import losses as oracle
from rince.losses import rank_n_contrast
from rince.losses.definition import rank_terms


def points(seed: int, count: int) -> Tensor:
    return torch.randn(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# Small integers, so that distances tie; also of two targets each.
TARGETS = st.integers(1, 2).flatmap(
    lambda width: st.lists(
        st.lists(st.integers(-3, 3).map(float), min_size=width, max_size=width),
        min_size=2,
        max_size=7,
    )
)


@given(TARGETS, st.integers(0, 10**6), st.floats(0.2, 5))
def test_value_and_gradient(targets: list[list[float]], seed: int, tau: float) -> None:
    z = points(seed, len(targets)).requires_grad_()
    loss = rank_n_contrast(z, torch.tensor(targets), tau)
    expected = oracle.rank_n_contrast(z.tolist(), targets, tau)
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-9)
    loss.backward()
    slope = oracle.central_differences(
        lambda x: oracle.rank_n_contrast(x, targets, tau), z.tolist()
    )
    torch.testing.assert_close(
        z.grad, torch.tensor(slope, dtype=torch.float64), rtol=1e-4, atol=1e-6
    )


def test_it_is_rince_with_a_rank_for_every_distance() -> None:
    """Without ties; RINCE's terms on the same similarities, in = out with one key a rank."""
    z, targets = points(0, 8), torch.randn(8, generator=torch.Generator().manual_seed(1))
    distance = (targets[:, None] - targets[None]).abs()
    ranks = distance.argsort(dim=1).argsort(dim=1)  # 0 for the sample itself
    ranks.fill_diagonal_(-1)
    for variant in ("in", "out"):
        terms = rank_terms(-torch.cdist(z, z), ranks, [2.0] * 7, variant, "exclusive")  # type: ignore[arg-type]
        torch.testing.assert_close(rank_n_contrast(z, targets), terms.values.sum(dim=0).mean() / 7)


def test_order_of_the_samples_and_shift_of_the_targets_change_nothing() -> None:
    z, targets = points(2, 9), torch.arange(9.0) ** 2
    loss, order = rank_n_contrast(z, targets), torch.randperm(9)
    torch.testing.assert_close(rank_n_contrast(z[order], targets[order]), loss)
    torch.testing.assert_close(rank_n_contrast(z, 5 - targets), loss)


def test_half_precision_is_summed_in_float32() -> None:
    z, targets = points(3, 6).bfloat16(), torch.arange(6)
    found = rank_n_contrast(z, targets, 0.01)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(float(rank_n_contrast(z.double(), targets, 0.01)), 1e-5)


def test_equal_embeddings_have_a_finite_gradient() -> None:
    z = torch.zeros(4, 3, requires_grad=True)
    rank_n_contrast(z, torch.arange(4)).backward()
    assert bool(z.grad.isfinite().all())  # type: ignore[union-attr]


def test_what_is_refused() -> None:
    z = points(0, 4)
    with pytest.raises(ValueError, match=r"row.*\(4,\)"):
        rank_n_contrast(z, torch.arange(3))
    with pytest.raises(ValueError, match="two samples"):
        rank_n_contrast(z[:1], torch.arange(1))
    with pytest.raises(ValueError, match="temperature.*positive"):
        rank_n_contrast(z, torch.arange(4), 0)


def test_more_is_refused() -> None:
    z, targets = points(0, 3), torch.tensor([[0.0, 1.0], [2.0, float("nan")], [4.0, 5.0]])
    with pytest.raises(ValueError, match="1 of 3 samples"):
        rank_n_contrast(z, targets)
    with pytest.raises(ValueError, match="embeddings must be finite.* 2 of 3 samples"):
        rank_n_contrast(z / torch.tensor([[1.0], [0.0], [0.0]], dtype=z.dtype), targets[:, 0])
    with pytest.raises(ValueError, match="query embeddings must be .* matrix"):
        rank_n_contrast(z.flatten(), targets[:, 0])
    with pytest.raises(ValueError, match="temperature.*positive"):
        rank_n_contrast(z, targets[:, 0], temperature=0.0)
    with pytest.raises(ValueError, match="temperature.*positive.*1e-42"):
        rank_n_contrast(z, targets[:, 0], temperature=1e-42)
    with pytest.raises(ValueError, match="at least two samples"):
        rank_n_contrast(z[:1], targets[:1, 0])
    with pytest.raises(ValueError, match="one row per sample"):
        rank_n_contrast(z, targets[:2, 0])
