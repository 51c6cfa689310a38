"""RINCE inside pytorch-metric-learning: each of the library's parts against the float64 oracle."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from oracles import losses as oracle
from processes import run_in_processes
from rince import RankedInfoNCE, RinceWarning, Similarity, Taxonomy, ranked_info_nce

pytest.importorskip("pytorch_metric_learning")

from pytorch_metric_learning import (  # type: ignore[import-untyped]
    distances,
    losses,
    miners,
    reducers,
    regularizers,
    testers,
    trainers,
)
from pytorch_metric_learning.utils import accuracy_calculator, inference
from pytorch_metric_learning.utils.distributed import DistributedLossWrapper

from rince.adapters.metric_learning import RankedInfoNCELoss

TREE = Taxonomy([("dog", "husky"), ("dog", "malamute"), ("cat", "manx"), ("boat",)])
TAUS = (0.2, 0.5)
COUNT, DIMENSION = 9, 5
LABELS = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 0])


def embeddings(seed: int = 0, count: int = COUNT) -> Tensor:
    """Not of unit length, as a trunk gives them."""
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(count, DIMENSION, generator=generator, dtype=torch.float64)


def ranks_of(labels: Tensor, others: Tensor, ignore_self: bool = True) -> list[list[int]]:
    table = TREE.table.tolist()
    return [
        [-1 if ignore_self and i == j else table[a][b] for j, b in enumerate(others.tolist())]
        for i, a in enumerate(labels.tolist())
    ]


def expected(
    similarity: Tensor, ranks: Sequence[Sequence[int]], taus: Sequence[float] = TAUS,
    variant: str = "out-in",
) -> list[float]:  # fmt: skip
    """One loss for each query that has something to learn."""
    found = []
    for row, codes in zip(similarity.tolist(), ranks, strict=True):
        terms = [t for t in oracle.rince_terms(row, codes, taus, variant) if t is not None]
        if terms:
            found.append(sum(terms))
    return found


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return functional.normalize(a, dim=1) @ functional.normalize(b, dim=1).T


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


# ---- the loss itself ---------------------------------------------------------------------------


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.sampled_from(["in", "out", "out-in"]), st.booleans())
def test_value_and_gradient(seed: int, variant: str, with_reference: bool) -> None:
    z = embeddings(seed).requires_grad_()
    other, other_labels = embeddings(seed + 1, 7).requires_grad_(), LABELS[:7]
    criterion = RankedInfoNCELoss(TREE, temperatures=TAUS, variant=variant)  # type: ignore[arg-type]
    if with_reference:
        loss = criterion(z, LABELS, ref_emb=other, ref_labels=other_labels)
        ranks = ranks_of(LABELS, other_labels, ignore_self=False)
        by_hand = expected(cosine(z, other).detach(), ranks, variant=variant)
    else:
        loss = criterion(z, LABELS)
        by_hand = expected(cosine(z, z).detach(), ranks_of(LABELS, LABELS), variant=variant)
    assert float(loss.detach()) == pytest.approx(mean(by_hand), rel=1e-9)
    loss.backward()
    assert z.grad is not None

    # The gradient, through the normalisation, by central differences of the loss by hand.
    def at(values: list[list[float]]) -> float:
        x = torch.tensor(values, dtype=torch.float64)
        key = other.detach() if with_reference else x
        codes = ranks_of(LABELS, other_labels if with_reference else LABELS, not with_reference)
        return mean(expected(cosine(x, key), codes, variant=variant))

    slope = torch.tensor(oracle.central_differences(at, z.detach().tolist()), dtype=torch.float64)
    torch.testing.assert_close(z.grad, slope, rtol=1e-4, atol=1e-7)


def test_flat_labels_are_one_rank_and_ntxent_where_positives_are_as_many() -> None:
    """NTXentLoss: out, averaged over pairs; over queries it is the same with as many pairs each."""
    z, labels = embeddings(3, 8), torch.arange(8) % 4
    ours = RankedInfoNCELoss(temperatures=0.3, variant="out")(z, labels)
    torch.testing.assert_close(ours, losses.NTXentLoss(temperature=0.3)(z, labels))
    every = [[-1 if i == j else int(a == b) for j, b in enumerate(labels.tolist())]
             for i, a in enumerate(labels.tolist())]  # fmt: skip
    assert float(ours) == pytest.approx(mean(expected(cosine(z, z), every, (0.3,))))


def test_defaults_are_those_of_ranked_info_nce() -> None:
    usual = RankedInfoNCE()
    found, flat = RankedInfoNCELoss(TREE), RankedInfoNCELoss()
    assert (found.temperatures, found.variant, found.positives) == (
        usual.temperatures,
        usual.variant,
        usual.positives,
    )
    assert flat.temperatures == (0.1,)
    assert "0.1, 0.225" in repr(found)
    three = Taxonomy([("a", "b", "c"), ("a", "d", "e"), ("f", "g", "h")])
    with pytest.raises(ValueError, match="3"):
        RankedInfoNCELoss(three)


def test_ranks_from_a_score_matrix() -> None:
    scores = [[1, 0.9, 0.5, 0], [0.9, 1, 0.1, 0], [0.5, 0.1, 1, float("nan")], [0, 0, 0, 1]]
    ranks = Similarity.from_matrix(scores, TREE.classes).by_thresholds([0.8, 0.4])
    z = embeddings()
    found = RankedInfoNCELoss(ranks, temperatures=(0.1, 0.2, 0.4))(z, LABELS)
    table = [[1, 2, 3, 0], [2, 1, 0, 0], [3, 0, 1, -1], [0, 0, 0, 1]]
    codes = [[-1 if i == j else table[int(LABELS[i])][int(LABELS[j])] for j in range(COUNT)]
             for i in range(COUNT)]  # fmt: skip
    assert float(found) == pytest.approx(mean(expected(cosine(z, z), codes, (0.1, 0.2, 0.4))))


def test_large_batches_go_through_the_streamed_engine() -> None:
    labels = torch.arange(200) % 4
    z = embeddings(1, 200).requires_grad_()
    loss = RankedInfoNCELoss(TREE, temperatures=TAUS)(z, labels)
    unit = functional.normalize(z, dim=1)
    dense = ranked_info_nce(
        unit, unit, TREE.ranks(labels, labels, ignore_self=True), TAUS, engine="dense"
    )
    torch.testing.assert_close(loss, dense)
    (a,), (b,) = torch.autograd.grad(loss, [z]), torch.autograd.grad(dense, [z])
    torch.testing.assert_close(a, b)


def test_half_precision_and_autocast_lose_nothing() -> None:
    z = embeddings().bfloat16()
    criterion = RankedInfoNCELoss(TREE, temperatures=(0.01, 0.02))
    exact = criterion(z.double(), LABELS)
    with torch.autocast("cpu", torch.bfloat16):
        for distance in (None, distances.LpDistance()):
            inside = RankedInfoNCELoss(TREE, temperatures=(0.01, 0.02), distance=distance)
            found = inside(z, LABELS)
            assert found.dtype == torch.float32
            if distance is None:
                assert float(found) == pytest.approx(float(exact), rel=1e-4)


# ---- its parts ---------------------------------------------------------------------------------

DISTANCES: list[tuple[Any, Any]] = [
    (distances.CosineSimilarity(), cosine),
    (distances.CosineSimilarity(power=3), lambda a, b: cosine(a, b) ** 3),
    (distances.CosineSimilarity(p=1),
     lambda a, b: functional.normalize(a, p=1) @ functional.normalize(b, p=1).T),
    (distances.DotProductSimilarity(), cosine),
    (distances.DotProductSimilarity(normalize_embeddings=False), lambda a, b: a @ b.T),
    (distances.LpDistance(), lambda a, b: -((2 - 2 * cosine(a, b)).clamp(min=0)).sqrt()),
    (distances.LpDistance(normalize_embeddings=False, p=1, power=2),
     lambda a, b: -((a[:, None] - b[None]).abs().sum(2) ** 2)),
    (distances.SNRDistance(),
     lambda a, b: -(functional.normalize(a)[:, None] - functional.normalize(b)[None]).var(2)
     / functional.normalize(a).var(1)[:, None]),
]  # fmt: skip


@pytest.mark.parametrize(("distance", "by_hand"), DISTANCES)
def test_distances(distance: Any, by_hand: Any) -> None:
    z, other = embeddings(), embeddings(1, 7)
    scale = 1.0 if distance.normalize_embeddings else 20.0  # e^(s / tau) of the oracle is bare
    taus = (TAUS[0] * scale, TAUS[1] * scale)
    criterion = RankedInfoNCELoss(TREE, temperatures=taus, distance=distance)
    for key, labels, same in ((None, None, True), (other, LABELS[:7], False)):
        found = criterion(z, LABELS, ref_emb=key, ref_labels=labels)
        matrix = by_hand(z, z if key is None else key)
        codes = ranks_of(LABELS, LABELS if labels is None else labels, same)
        assert float(found) == pytest.approx(mean(expected(matrix, codes, taus)), rel=1e-6)


def test_reducers() -> None:
    z = embeddings()
    ranks = ranks_of(LABELS, LABELS)
    each = torch.tensor(expected(cosine(z, z), ranks), dtype=torch.float64)
    assert len(each) == COUNT
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    middle = float(each.median()) + 1e-6
    for reducer, value in (
        (None, each.mean()),
        (reducers.MeanReducer(), each.mean()),
        (reducers.SumReducer(), each.sum()),
        (reducers.AvgNonZeroReducer(), each.mean()),
        (reducers.DivisorReducer(), each.mean()),
        (reducers.ThresholdReducer(low=middle), each[each > middle].mean()),
        (reducers.ClassWeightedReducer(weights), (each * weights[LABELS]).mean()),
        (reducers.PerAnchorReducer(reducers.SumReducer()), each.sum()),
    ):
        found = RankedInfoNCELoss(TREE, temperatures=TAUS, reducer=reducer)(z, LABELS)
        torch.testing.assert_close(found, value, msg=lambda m, r=reducer: f"{r}: {m}")
    nothing = RankedInfoNCELoss(TREE, temperatures=TAUS, reducer=reducers.DoNothingReducer())
    torch.testing.assert_close(nothing(z, LABELS)["loss"]["losses"], each)
    regularised = RankedInfoNCELoss(
        TREE,
        temperatures=TAUS,
        embedding_regularizer=regularizers.LpRegularizer(),
        embedding_reg_weight=0.5,
        reducer=reducers.SumReducer(),
    )
    torch.testing.assert_close(
        regularised(z.float(), LABELS).double(),
        each.sum() + 0.5 * z.norm(dim=1).mean(),
        rtol=1e-4, atol=1e-4,
    )  # fmt: skip


def test_a_query_that_cannot_learn_is_not_counted() -> None:
    labels = torch.tensor([3, 0, 0, 2])  # boat and manx are alone
    z = embeddings(4, 4)
    each = expected(cosine(z, z), ranks_of(labels, labels))
    assert len(each) == 2
    found = RankedInfoNCELoss(TREE, temperatures=TAUS)(z, labels)
    assert float(found) == pytest.approx(mean(each))
    weights = torch.tensor([5.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    reducer = reducers.ClassWeightedReducer(weights)  # reads labels[indices]
    weighted = RankedInfoNCELoss(TREE, temperatures=TAUS, reducer=reducer)(z, labels)
    assert float(weighted) == pytest.approx(5 * mean(each))


@pytest.mark.parametrize("distance", [None, distances.LpDistance()])
def test_a_batch_that_teaches_nothing_keeps_its_graph(distance: Any) -> None:
    z = embeddings(0, 4).requires_grad_()
    criterion = RankedInfoNCELoss(TREE, temperatures=TAUS, distance=distance)
    with pytest.warns(RinceWarning, match="gradient.*no query.*positive"):
        loss = criterion(z[:3], torch.tensor([0, 2, 3]))
    loss.backward()
    assert float(loss.detach()) == 0
    assert torch.equal(z.grad, torch.zeros_like(z))  # type: ignore[arg-type]


def mined_ranks(pairs: Any, labels: Tensor, others: Tensor) -> list[list[int]]:
    """All pairs ignored but those that a miner chose, ranked by the tree."""
    a, p, b, n = pairs if len(pairs) == 4 else (pairs[0], pairs[1], pairs[0], pairs[2])
    chosen = set(zip(a.tolist(), p.tolist(), strict=True))
    chosen |= set(zip(b.tolist(), n.tolist(), strict=True))
    table = ranks_of(labels, others, ignore_self=False)
    return [[rank if (i, j) in chosen else -1 for j, rank in enumerate(row)]
            for i, row in enumerate(table)]  # fmt: skip


@pytest.mark.parametrize(
    "miner",
    [miners.MultiSimilarityMiner(), miners.TripletMarginMiner(margin=0.5), miners.BatchHardMiner()],
)
def test_miners_choose_the_pairs_and_the_tree_ranks_them(miner: Any) -> None:
    z = embeddings(2)
    pairs = miner(z, LABELS)
    assert 0 < len(pairs[0]) < COUNT**2
    codes = mined_ranks(pairs, LABELS, LABELS)
    if not isinstance(miner, miners.BatchHardMiner):
        assert any(2 in row for row in codes)  # a "negative" of the same superclass
    found = RankedInfoNCELoss(TREE, temperatures=TAUS)(z, LABELS, pairs)
    assert float(found) == pytest.approx(mean(expected(cosine(z, z), codes)))


def test_an_indices_tuple_without_labels() -> None:
    z = embeddings()
    a, p, b, n = (torch.tensor(x) for x in ([0, 0, 1], [1, 2, 0], [0, 1], [3, 4]))
    codes = [[-1] * COUNT for _ in range(COUNT)]
    for i, j in ((0, 1), (0, 2), (1, 0)):
        codes[i][j] = 1
    codes[0][3] = codes[1][4] = 0
    found = RankedInfoNCELoss(temperatures=0.3)(z, indices_tuple=(a, p, b, n))
    assert float(found) == pytest.approx(mean(expected(cosine(z, z), codes, (0.3,))))
    wide = RankedInfoNCELoss(temperatures=0.3)(z[:2], None, (a, p, b, n), z.clone())
    assert float(wide) == pytest.approx(float(found))


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="temperatures"):
        RankedInfoNCELoss(TREE, temperatures=(0.1, 0.2, 0.3))
    with pytest.raises(ValueError, match="temperatures"):
        RankedInfoNCELoss(temperatures=TAUS)
    scores = Similarity.from_matrix(torch.eye(4), TREE.classes)
    with pytest.raises(ValueError, match="rule.*got Similarity"):
        RankedInfoNCELoss(scores, temperatures=TAUS)  # type: ignore[arg-type]
    criterion = RankedInfoNCELoss(TREE, temperatures=TAUS)
    with pytest.raises(ValueError, match="labels are missing"):
        criterion(embeddings())
    with pytest.raises(ValueError, match="labels are missing.*ref_labels"):
        criterion(embeddings(), LABELS, ref_emb=embeddings(1))
    with pytest.raises(ValueError, match=r"must lie in \[0, 4\)"):
        criterion(embeddings(), LABELS + 1)


def test_it_travels_in_a_checkpoint() -> None:
    again = pickle.loads(pickle.dumps(RankedInfoNCELoss(TREE, temperatures=TAUS)))
    torch.testing.assert_close(
        again(embeddings(), LABELS),
        RankedInfoNCELoss(TREE, temperatures=TAUS)(embeddings(), LABELS),
    )


# ---- its wrappers ------------------------------------------------------------------------------


def test_cross_batch_memory() -> None:
    """Batches of 4 into a memory of 10: not yet full, full, and wrapped around."""
    memory = losses.CrossBatchMemory(
        RankedInfoNCELoss(TREE, temperatures=TAUS), embedding_size=DIMENSION, memory_size=10
    ).double()
    stored: list[tuple[Tensor, int] | None] = [None] * 10
    place = 0
    for step in range(5):
        z = embeddings(10 + step, 4).requires_grad_()
        labels = torch.tensor([0, 1, step % 4, 3])
        own = {}
        for i in range(4):
            stored[place % 10] = (z[i].detach(), int(labels[i]))
            own[i] = place % 10
            place += 1
        kept = [s for s in stored if s is not None]
        key = torch.stack([s[0] for s in kept])
        codes = ranks_of(labels, torch.tensor([s[1] for s in kept]), ignore_self=False)
        for i, j in own.items():
            codes[i][j] = -1
        loss = memory(z, labels)
        assert float(loss.detach()) == pytest.approx(mean(expected(cosine(z, key).detach(), codes)))
        loss.backward()
        assert float(z.grad.abs().sum()) > 0  # type: ignore[union-attr]


def test_cross_batch_memory_with_a_miner() -> None:
    miner = miners.MultiSimilarityMiner(epsilon=0.3)
    memory = losses.CrossBatchMemory(
        RankedInfoNCELoss(TREE, temperatures=TAUS), DIMENSION, memory_size=COUNT, miner=miner
    ).double()
    z = embeddings(5)
    pairs = miner(z, LABELS, z.clone(), LABELS.clone())
    codes = mined_ranks(pairs, LABELS, LABELS)
    for i in range(COUNT):
        codes[i][i] = -1  # the memory takes pairs of a sample and itself out
    assert float(memory(z, LABELS)) == pytest.approx(mean(expected(cosine(z, z), codes)))


@pytest.mark.parametrize("symmetric", [True, False])
def test_self_supervised_loss(symmetric: bool) -> None:
    z, view = embeddings(6), embeddings(7)
    wrapped = losses.SelfSupervisedLoss(RankedInfoNCELoss(temperatures=0.3), symmetric=symmetric)
    both = torch.cat([z, view])
    if symmetric:
        codes = [[-1 if i == j else int(i % COUNT == j % COUNT) for j in range(2 * COUNT)]
                 for i in range(2 * COUNT)]  # fmt: skip
        value = mean(expected(cosine(both, both), codes, (0.3,)))
    else:
        codes = torch.eye(COUNT, dtype=torch.int64).tolist()
        value = mean(expected(cosine(z, view), codes, (0.3,)))
    assert float(wrapped(z, view)) == pytest.approx(value)


def test_multiple_losses() -> None:
    z = embeddings()
    ours, theirs = RankedInfoNCELoss(TREE, temperatures=TAUS), losses.SupConLoss()
    both = losses.MultipleLosses([ours, theirs], weights=[1, 0.5])
    torch.testing.assert_close(both(z, LABELS), ours(z, LABELS) + 0.5 * theirs(z, LABELS))


def _worker(index: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=index, world_size=2
    )
    rows = slice(4 * index, 4 * index + 4)
    found: dict[str, Any] = {}
    for name, efficient in (("plain", False), ("efficient", True)):
        z = embeddings(8, 8)[rows].requires_grad_()
        criterion = RankedInfoNCELoss(TREE, temperatures=TAUS)
        loss = DistributedLossWrapper(criterion, efficient=efficient)(z, LABELS[rows])
        loss.backward()
        found[name] = (loss.detach(), z.grad)
    memory = losses.CrossBatchMemory(
        RankedInfoNCELoss(TREE, temperatures=TAUS), DIMENSION, memory_size=16
    ).double()
    wrapped = DistributedLossWrapper(memory)
    for seed in (8, 9):
        found["memory"] = wrapped(embeddings(seed, 8)[rows], LABELS[rows]).detach()
    torch.save(found, f"{folder}/found{index}.pt")
    dist.destroy_process_group()


def test_two_processes(tmp_path: Path) -> None:
    """The wrapper multiplies by the number of processes, as DDP averages gradients over them."""
    run_in_processes(_worker, str(tmp_path), count=2)
    first, second = (torch.load(tmp_path / f"found{i}.pt") for i in (0, 1))
    z, labels = embeddings(8, 8).requires_grad_(), LABELS[:8]
    whole = RankedInfoNCELoss(TREE, temperatures=TAUS)(z, labels)
    whole.backward()
    for found, rows in ((first, slice(0, 4)), (second, slice(4, 8))):
        value, gradient = found["plain"]
        torch.testing.assert_close(value, 2 * whole.detach())
        torch.testing.assert_close(gradient, 2 * z.grad[rows])  # type: ignore[index]
    # Each process the loss of its own queries: their mean is the whole's.
    local = (first["efficient"][0] + second["efficient"][0]) / 2
    torch.testing.assert_close(local, 2 * whole.detach())
    assert float(first["efficient"][0]) != pytest.approx(float(second["efficient"][0]))

    memory = losses.CrossBatchMemory(
        RankedInfoNCELoss(TREE, temperatures=TAUS), DIMENSION, memory_size=16
    ).double()
    # Either process has its own part first; the order within a batch changes nothing.
    for seed in (8, 9):
        alone = memory(embeddings(seed, 8), labels)
    torch.testing.assert_close(first["memory"], 2 * alone)
    torch.testing.assert_close(second["memory"], 2 * alone)


class Points(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """Noisy copies of a direction a class; (class, superclass) as labels."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        centres = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
        self.classes = torch.arange(64) % 4
        self.x = centres[self.classes] + 0.9 * torch.randn(64, 8, generator=generator)
        self.labels = torch.stack([self.classes, torch.tensor([0, 0, 1, 2])[self.classes]], dim=1)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.x[index], self.labels[index]


@pytest.mark.parametrize("with_memory", [False, True])
def test_trainer_and_testers(with_memory: bool) -> None:
    torch.manual_seed(0)
    trunk = nn.Linear(8, 6)
    criterion: Any = RankedInfoNCELoss(TREE, temperatures=(0.1, 0.225))
    if with_memory:
        criterion = losses.CrossBatchMemory(criterion, embedding_size=6, memory_size=48)
    seen: list[float] = []
    trainer = trainers.MetricLossOnly(
        models={"trunk": trunk},
        optimizers={"trunk_optimizer": torch.optim.Adam(trunk.parameters(), lr=0.01)},
        batch_size=32,
        loss_funcs={"metric_loss": criterion},
        mining_funcs={} if with_memory else {"tuple_miner": miners.MultiSimilarityMiner(2.0)},
        dataset=Points(1),
        data_device=torch.device("cpu"),
        dataloader_num_workers=0,
        label_hierarchy_level=0,
        end_of_iteration_hook=lambda t: seen.append(t.losses["total_loss"].item()),
    )
    calculator = accuracy_calculator.AccuracyCalculator(
        include=("precision_at_1",),
        knn_func=inference.CustomKNN(distances.CosineSimilarity()),
        device=torch.device("cpu"),
    )
    options: dict[str, Any] = {
        "accuracy_calculator": calculator, "data_device": torch.device("cpu"),
        "dataloader_num_workers": 0,
    }  # fmt: skip
    whole = testers.GlobalEmbeddingSpaceTester(label_hierarchy_level="all", **options)
    inside = testers.WithSameParentLabelTester(label_hierarchy_level=0, **options)
    splits = {"train": Points(1), "val": Points(2)}
    pairs = [("val", ["train"])]

    def judge(epoch: int) -> tuple[float, float]:
        found = whole.test(splits, epoch, trunk, splits_to_eval=pairs)["val"]
        siblings = inside.test(splits, epoch, trunk, splits_to_eval=pairs)["val"]
        return found["precision_at_1_level0"], siblings["precision_at_1_level0"]

    before = judge(0)
    trainer.train(num_epochs=30)
    after = judge(30)
    assert mean(seen[-4:]) < 0.8 * mean(seen[:4])
    assert after[0] > before[0]
    assert after[1] >= before[1]
