from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from metric_inputs import normal_features
from rince.evaluation.features import FeatureSet, extract_features


def backbone() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.BatchNorm1d(4))


def batches(sizes: tuple[int, ...] = (5, 2)) -> list[tuple[Tensor, Tensor]]:
    inputs = normal_features(1, sum(sizes), 3).split(sizes)
    return list(zip(inputs, torch.arange(sum(sizes)).split(sizes), strict=True))


def test_features_are_those_of_the_frozen_backbone_in_order() -> None:
    model = backbone()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = extract_features(model, iter(batches()), "cpu")
    model.eval()
    expected = model(torch.cat([x for x, _ in batches()]))
    torch.testing.assert_close(found.features, expected.detach(), rtol=0, atol=1e-6)
    assert found.labels.tolist() == list(range(7))
    assert len(found) == 7
    assert not found.features.requires_grad
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_training_flags_come_back_module_by_module() -> None:
    model = backbone().train()
    model[1].eval()
    flags = [module.training for module in model.modules()]
    extract_features(model, batches(), "cpu")
    assert [module.training for module in model.modules()] == flags

    def broken() -> Tensor:
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        extract_features(model, (broken() for _ in range(1)), "cpu")  # type: ignore[misc]
    assert [module.training for module in model.modules()] == flags
    assert flags == [True, True, False, True, True]


def test_half_precision_features_come_back_as_float32() -> None:
    found = extract_features(
        backbone().bfloat16(), [(torch.ones(2, 3).bfloat16(), torch.arange(2))], "cpu"
    )
    assert found.features.dtype == torch.float32


class _Numbered(Dataset[tuple[Tensor, Tensor]]):
    """Items of which each is a batch."""

    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.full((2, 3), float(index)), torch.full((2,), index)


def test_no_tensor_of_a_worker_is_kept() -> None:
    """On a CPU the output of a module may be its very input, and each one of a worker is a file."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    loader = DataLoader(_Numbered(), batch_size=None, num_workers=1)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 100, limits[1]))
    try:
        found = extract_features(nn.Identity(), loader, "cpu")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert found.labels.tolist() == [i for i in range(400) for _ in range(2)]
    assert found.features[:, 0].tolist() == found.labels.tolist()


class Constant(nn.Module):
    def __init__(self, value: object) -> None:
        super().__init__()
        self.value = value

    def forward(self, _: Tensor) -> object:
        return self.value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(3, 4), r"one row.*\b2 samples.*\(3, 4\)"),
        (torch.zeros(()), "one row"),
        ((torch.zeros(2, 4),), "tuple"),
        (torch.zeros(2, 4, 7, 7), r"floats.*\(2, 4, 7, 7\)"),
        (torch.tensor([[0.0], [float("nan")]]), "1 of 2 features.*NaN or inf"),
        (torch.tensor([[float("inf")], [float("nan")]]), "2 of 2 features hold NaN"),
    ],
)
def test_backbones_that_give_no_usable_features(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        extract_features(Constant(value), [(torch.zeros(2, 1), torch.arange(2))], "cpu")


def test_no_batch_is_an_error() -> None:
    with pytest.raises(ValueError, match="no batch"):
        extract_features(backbone(), [], "cpu")


def test_feature_set_checks_what_it_holds() -> None:
    with pytest.raises(ValueError, match=r"float32, got torch\.float64"):
        FeatureSet(torch.ones(2, 2).double(), torch.arange(2))
    assert FeatureSet(torch.ones(2, 2), torch.arange(2).int()).labels.dtype == torch.int64
    with pytest.raises(ValueError, match=r"integers.*torch\.float32"):
        FeatureSet(torch.ones(2, 2), torch.zeros(2))
    with pytest.raises(ValueError, match=r"labels.*\b2 samples"):
        FeatureSet(torch.ones(2, 2), torch.arange(3))
    with pytest.raises(ValueError, match="non-empty"):
        FeatureSet(torch.ones(0, 2), torch.arange(0))


def test_features_are_read_back_when_the_next_batch_is_at_hand() -> None:
    """A GPU then computes while the next batch is read."""
    events: list[str] = []

    class OnACard(Tensor):
        def float(self) -> Any:
            return self

        def cpu(self) -> Any:
            events.append("read")
            return self.as_subclass(Tensor)

    class Network(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            events.append("launched")
            return x.as_subclass(OnACard)

    def made() -> Iterator[tuple[Tensor, Tensor]]:
        for i in range(3):
            events.append("made")
            yield torch.full((2, 1), float(i)), torch.arange(2)

    found = extract_features(Network(), made(), "cpu")
    assert found.features.flatten().tolist() == [0, 0, 1, 1, 2, 2]
    following = ["made", "read", "launched"]
    assert events == ["made", "launched", *following, *following, "read"]
