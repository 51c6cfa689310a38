"""Class-balanced batches in loops that are not rince's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, TensorDataset

from rince.data import BalancedPlan, BatchPlan

LABELS = torch.arange(96) % 8  # 8 classes in 4 superclasses
SUPERCLASSES = torch.arange(8) // 2
DATA = TensorDataset(torch.arange(96), LABELS)


def plan(batch_size: int = 8, **options: int) -> BalancedPlan:
    return BalancedPlan(LABELS, SUPERCLASSES, batch_size, 2, 2, **{"seed": 0, **options})  # type: ignore[arg-type]


def items(loader: Any) -> list[list[int]]:
    return [indices.tolist() for indices, _ in loader]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_plain_dataloader(workers: int) -> None:
    loader = DataLoader(DATA, batch_sampler=plan(), num_workers=workers)
    assert len(loader) == 12
    epochs = []
    for _ in range(2):
        batches = list(loader)
        for indices, labels in batches:
            assert torch.equal(labels, LABELS[indices])
            assert sorted(labels.bincount().tolist())[-4:] == [2, 2, 2, 2]
            assert SUPERCLASSES[labels].bincount(minlength=4).tolist().count(4) == 2
        epochs.append([indices.tolist() for indices, _ in batches])
        assert sorted(i for batch in epochs[-1] for i in batch) == list(range(96))
    assert epochs[0] != epochs[1]  # without set_epoch
    again = plan()
    for epoch in (1, 0):
        again.set_epoch(epoch)
        assert list(again) == epochs[epoch]


def test_a_pass_that_is_left_is_no_epoch() -> None:
    sampler = plan()
    first = next(iter(sampler))
    assert next(iter(sampler)) == first


def test_two_processes_share_the_batches_of_one() -> None:
    parts = [plan(8, process_index=p, world_size=2) for p in (0, 1)]
    whole = plan(16)
    for _ in range(2):
        one = items(DataLoader(DATA, batch_sampler=whole))
        shares = [items(DataLoader(DATA, batch_sampler=part)) for part in parts]
        assert not {i for b in shares[0] for i in b} & {i for b in shares[1] for i in b}
        for together, mine, yours in zip(one, *shares, strict=True):
            assert sorted(together) == sorted(mine + yours)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_training_goes_on_in_the_middle_of_an_epoch(workers: int) -> None:
    whole = plan()
    steps = [*items(DataLoader(DATA, batch_sampler=whole)), *whole]
    for step in (0, 5, 12, 17):
        resumed = plan()
        resumed.start_at(step)
        loader = DataLoader(DATA, batch_sampler=resumed, num_workers=workers)
        rest = items(loader)
        assert len(rest) == 12 - step % 12
        if step < 12:
            rest += items(loader)
        assert rest == steps[step:]
    with pytest.raises(ValueError, match="step .*-1"):
        plan().start_at(-1)


@pytest.mark.parametrize("kind", [list, np.asarray, torch.IntTensor])
def test_labels_as_people_hold_them(kind: Any) -> None:
    labels, superclasses = (kind(x.tolist()) for x in (LABELS, SUPERCLASSES))
    assert list(BalancedPlan(labels, superclasses, 8, 2, 2, seed=0)) == list(plan())


@pytest.mark.parametrize(
    ("labels", "fact"),
    [([0, 9] * 8, "8.* 9"), ([0, -1] * 8, "row 1"), ([0.5, 1.0] * 8, "integers")],
)
def test_labels_that_are_none(labels: Any, fact: str) -> None:
    with pytest.raises(ValueError, match=fact):
        BalancedPlan(labels, SUPERCLASSES, 4, 2, 1, seed=0)


def test_in_pytorch_metric_learning() -> None:
    pytest.importorskip("pytorch_metric_learning")
    from pytorch_metric_learning import losses, trainers

    from rince import Taxonomy
    from rince.adapters.metric_learning import RankedInfoNCELoss

    tree = Taxonomy.from_dict({"dog": ["husky", "pug"], "car": ["van", "bus"]})
    labels = torch.arange(64) % 4
    points = torch.randn(4, 6)[labels] + 0.1 * torch.randn(64, 6)
    sampler = BalancedPlan(labels, tree.labels_at(2), 16, 4, 2, seed=0)
    trunk, seen = torch.nn.Linear(6, 4), []

    class Seen(RankedInfoNCELoss):
        def compute_loss(self, embeddings: Any, labels: Any, *rest: Any) -> Any:
            seen.append(sorted(labels.bincount(minlength=4).tolist()))
            return super().compute_loss(embeddings, labels, *rest)

    trainer = trainers.MetricLossOnly(
        {"trunk": trunk},
        {"trunk_optimizer": torch.optim.SGD(trunk.parameters(), lr=0.1)},
        None,
        {"metric_loss": Seen(tree)},
        TensorDataset(points, labels),
        data_device="cpu",
        dtype=torch.float32,
        sampler=sampler,
        dataloader_num_workers=0,
    )
    assert isinstance(trainer.loss_funcs["metric_loss"], losses.BaseMetricLossFunction)
    trainer.train(num_epochs=3)
    assert seen == [[4, 4, 4, 4]] * 12
    assert sampler.epoch >= 2


def test_in_sentence_transformers(tmp_path: Any) -> None:
    library = pytest.importorskip("sentence_transformers")
    datasets = pytest.importorskip("datasets")
    pytest.importorskip("accelerate")
    from text_models import tiny_model

    labels = [i % 4 for i in range(32)]
    words = ["red", "green", "one", "two"]
    dataset = datasets.Dataset.from_dict(
        {"text": [f"{words[c]} {i}" for i, c in enumerate(labels)], "label": labels}
    )
    seen: list[list[int]] = []
    model = library.SentenceTransformer(tiny_model(tmp_path), device="cpu")

    class Seen(library.sentence_transformer.losses.BatchAllTripletLoss):
        def forward(self, features: Any, labels: Any) -> Any:
            seen.append(labels.tolist())
            return super().forward(features, labels)

    arguments = library.SentenceTransformerTrainingArguments(
        output_dir=str(tmp_path), num_train_epochs=2, per_device_train_batch_size=8,
        report_to="none", save_strategy="no", use_cpu=True, disable_tqdm=True,
        batch_sampler=lambda data, batch_size, **_: BalancedPlan(
            data["label"], [0, 0, 1, 1], batch_size, 2, 2, seed=0
        ),
    )  # fmt: skip
    library.SentenceTransformerTrainer(
        model=model, args=arguments, train_dataset=dataset, loss=Seen(model)
    ).train()
    expected = BalancedPlan(labels, [0, 0, 1, 1], 8, 2, 2, seed=0)
    batches = [[labels[i] for i in batch] for _ in range(2) for batch in expected]
    assert seen == batches


def test_it_is_a_batch_sampler() -> None:
    assert isinstance(BatchPlan(10, 2, seed=0), BatchSampler)
