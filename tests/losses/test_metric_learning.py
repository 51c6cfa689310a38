from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from oracles import losses as oracle
from processes import run_in_processes
from rince import Taxonomy, gather
from rince.losses.metric_learning import (
    fast_ap,
    hierarchical_triplet,
)
from rince.ranks import DenseRanks

pytest.importorskip("pytorch_metric_learning")


def unit(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(
        torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1
    )


# At most one key of each rank beyond 1 a query: then there is nothing to draw.
ONE_EACH = [[1, 1, 2, 0, -1], [2, 1, -1, -1, 0], [0, 1, 1, 2, -1], [-1, -1, 1, 1, -1]]


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.floats(0.01, 2))
def test_triplets_without_a_choice_are_the_formula(seed: int, margin: float) -> None:
    query, key = unit(seed, 4, 3), unit(seed + 1, 5, 3)
    ranks = torch.tensor(ONE_EACH)

    def mean(q: list[list[float]], k: list[list[float]]) -> float:
        violated = [x for x in oracle.hierarchical_triplets(q, k, ONE_EACH, margin, 2) if x > 0]
        return sum(violated) / max(1, len(violated))

    expected = mean(query.tolist(), key.tolist())
    q, k = query.clone().requires_grad_(), key.clone().requires_grad_()
    loss = hierarchical_triplet(q, k, ranks, margin, num_ranks=2)
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-9)
    loss.backward()
    for found, at, by in (
        (q.grad, query, lambda x: mean(x, key.tolist())),
        (k.grad, key, lambda x: mean(query.tolist(), x)),
    ):
        slope = torch.tensor(oracle.central_differences(by, at.tolist()), dtype=torch.float64)
        # The library clamps a distance of 0 and goes through a square root: not to the last bit.
        torch.testing.assert_close(found, slope, rtol=1e-4, atol=1e-5)


def test_every_worse_key_is_drawn_about_equally_often() -> None:
    """One positive, four negatives that are told apart by their loss."""
    query = torch.tensor([[1.0, 0.0]])
    angles = torch.tensor([0.0, 0.3, 0.6, 0.9, 1.2])
    key = torch.stack([angles.cos(), angles.sin()], dim=1)
    ranks = DenseRanks(torch.tensor([[1, 0, 0, 0, 0]]), num_ranks=1)
    generator = torch.Generator().manual_seed(0)
    drawn = [
        round(float(hierarchical_triplet(query, key, ranks, 4.0, generator=generator)), 4)
        for _ in range(400)
    ]
    expected = {round(4.0 - float(2 - 2 * a.cos()), 4) for a in angles[1:]}
    assert {min(expected, key=lambda e: abs(e - x)) for x in drawn} == expected
    for value in expected:
        share = sum(abs(x - value) < 1e-3 for x in drawn)
        assert 60 < share < 140  # 100, and more than four standard deviations


def test_draws_follow_the_generator_and_the_global_one() -> None:
    tree = Taxonomy.fashion_mnist()
    labels = torch.arange(40) % 10
    z, ranks = unit(0, 40, 4), tree.ranks(labels, labels, ignore_self=True)
    by_generator = [
        hierarchical_triplet(z, z, ranks, generator=torch.Generator().manual_seed(s))
        for s in (1, 1, 2)
    ]
    assert torch.equal(by_generator[0], by_generator[1])
    assert not torch.equal(by_generator[0], by_generator[2])
    found = []
    for _ in range(2):
        torch.manual_seed(5)
        found.append(hierarchical_triplet(z, z, ranks))
    assert torch.equal(*found)


def test_embeddings_in_order_cost_nothing_and_keep_a_graph() -> None:
    angles = torch.tensor([0.0, 0.1, 1.0, 3.0])
    z = torch.stack([angles.cos(), angles.sin()], dim=1)
    query = z[:1].clone().requires_grad_()
    ranks = DenseRanks(torch.tensor([[-1, 1, 2, 0]]), num_ranks=2)
    assert float(hierarchical_triplet(query, z, ranks, 0.1).detach()) == 0
    loss = hierarchical_triplet(query, z, DenseRanks(torch.tensor([[-1, 0, 0, 0]]), num_ranks=2))
    loss.backward()
    assert torch.equal(query.grad, torch.zeros_like(query))
    # Where the keys alone are trained, too.
    key = z.clone().requires_grad_()
    nothing = DenseRanks(torch.tensor([[-1, 0, 0, 0]]), num_ranks=2)
    hierarchical_triplet(z[:1], key, nothing).backward()
    assert torch.equal(key.grad, torch.zeros_like(key))


def test_under_autocast_they_are_what_they_are_without() -> None:
    labels = torch.arange(12) % 3
    z = unit(0, 12, 6).float()
    ranks = torch.where(labels[:, None] == labels, 1, 0)

    def both() -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        triplets = hierarchical_triplet(z, z, ranks, num_ranks=1, generator=generator)
        return triplets, fast_ap(z, labels)

    expected = both()
    with torch.autocast("cpu", torch.bfloat16):
        found = both()
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


def test_the_highest_draw_is_of_the_last_key() -> None:
    """What the look-up by a rounded product rests on."""
    highest = torch.tensor(1 - 2**-24)
    assert highest < 1
    assert torch.nextafter(highest, torch.tensor(2.0)) == 1
    counts = torch.cat([torch.arange(1, 2**20), torch.randint(1, 2**24, (10**6,))])
    assert ((highest * counts).long() == counts - 1).all()


def test_what_the_triplet_loss_cannot_take() -> None:
    z = unit(0, 2, 3)
    with pytest.raises(ValueError, match=r"margin.*positive.* 0\b"):
        hierarchical_triplet(z, z, torch.tensor([[1, 0], [0, 1]]), 0.0)
    with pytest.raises(ValueError, match="ranks.*num_ranks"):
        hierarchical_triplet(z, z, torch.tensor([[1, 0], [0, 1]]))


def test_embeddings_that_are_no_tensor_are_refused() -> None:
    with pytest.raises(ValueError, match="embeddings must be a torch tensor"):
        fast_ap(unit(0, 3, 2).tolist(), torch.arange(3))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="embeddings must be finite.* 1 of 2 samples"):
        fast_ap(torch.tensor([[1.0, 0.0], [float("nan"), 0.0]]), torch.arange(2))
    with pytest.raises(ValueError, match="row 1 holds -1"):
        fast_ap(unit(0, 2, 2), torch.tensor([0, -1]))


def test_fast_ap_is_low_for_clusters_and_high_for_mixtures() -> None:
    labels = torch.arange(12) % 3
    clusters = functional.one_hot(labels).double()
    assert float(fast_ap(clusters, labels)) == pytest.approx(0, abs=1e-6)
    mixed = float(fast_ap(unit(0, 12, 3), labels))
    assert 0.2 < mixed < 1


def test_fast_ap_is_its_definition() -> None:
    """Every sample at distance 0 or 2 (squared): two histogram bins, counted by hand.

    Query 0 has one positive in bin 0 with one negative there too, and one positive in bin 5:
    FastAP = (1 * 1/2 + 1 * 2/3) / 2.
    """
    e = torch.eye(2, dtype=torch.float64)
    z = torch.stack([e[0], e[0], e[0], e[1]])
    labels = torch.tensor([0, 0, 1, 0])
    same_place = 1 - (1 / 2 + 2 / 3) / 2
    # The sample at e1 has both positives and the negative at distance 2: 2 * (2/3) / 2.
    other = 1 - 2 * (2 / 3) / 2
    expected = (2 * same_place + other) / 3
    assert float(fast_ap(z, labels)) == pytest.approx(expected)


def _fast_ap_of_share(index: int, world: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=index, world_size=world
    )
    weights = unit(1, 5, 4).requires_grad_()
    rows = slice(6 * index, 6 * (index + 1))
    z = functional.normalize(unit(0, 12, 5)[rows] @ weights, dim=1)
    labels = (torch.arange(12) % 3)[rows]
    fast_ap(gather(z), gather(labels)).backward()
    dist.all_reduce(weights.grad)
    torch.save(weights.grad / world, f"{folder}/gradient{index}.pt")
    dist.destroy_process_group()


def test_fast_ap_of_two_processes_is_that_of_one(tmp_path: Path) -> None:
    """Every process judges the gathered batch; DDP averages: the gradient of the whole batch."""
    run_in_processes(_fast_ap_of_share, 2, str(tmp_path), count=2)
    weights = unit(1, 5, 4).requires_grad_()
    z = functional.normalize(unit(0, 12, 5) @ weights, dim=1)
    fast_ap(z, torch.arange(12) % 3).backward()
    for index in (0, 1):
        torch.testing.assert_close(torch.load(tmp_path / f"gradient{index}.pt"), weights.grad)


def test_autocast_does_not_reach_in() -> None:
    z, labels = unit(0, 12, 8).float(), torch.arange(12) % 3
    ranks = DenseRanks((labels[:, None] == labels[None, :]).long(), num_ranks=1)
    for loss in (
        lambda: fast_ap(z, labels),
        lambda: hierarchical_triplet(z, z, ranks, generator=torch.Generator().manual_seed(0)),
    ):
        with torch.autocast("cpu", torch.bfloat16):
            found = loss()
        assert torch.equal(found, loss())


def test_without_the_library_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("pytorch_metric_learning")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(
        "importlib.import_module",
        lambda name: (_ for _ in ()).throw(ModuleNotFoundError(f"No module named {name!r}")),
    )
    with pytest.raises(ImportError, match=r"pip install 'rince\[metric-learning\]'"):
        fast_ap(unit(0, 2, 2), torch.tensor([0, 1]))
