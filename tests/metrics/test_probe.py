from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metric_inputs import normal_features, random_labels
from rince.metrics.probe import ProbeResult, linear_probe


def blobs(
    seed: int, size: int, dim: int = 6, classes: int = 3, noise: float = 1.0
) -> tuple[Tensor, Tensor]:
    centres = normal_features(99, classes, dim)
    labels = random_labels(seed, size, classes)
    return centres[labels] + noise * normal_features(seed, size, dim), labels


def probe(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], **options: Any) -> ProbeResult:
    return linear_probe(test[0], train[0], test[1], train[1], **options)


def reference(
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    classes: int,
    epochs: int,
    batch_size: int,
    milestones: list[int],
    weight_decay: float,
    seed: int,
) -> tuple[nn.Linear, Tensor, list[float]]:
    """The same recipe with torch's own layer, optimiser and schedule; test accuracy per epoch."""
    x, y = train
    mean, deviation = x.mean(0), x.std(0, correction=0)
    standard = lambda z: (z - mean) / deviation / x.shape[1] ** 0.5  # noqa: E731
    layer = nn.Linear(x.shape[1], classes)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.SGD(layer.parameters(), lr=5.0, momentum=0.9, weight_decay=weight_decay)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, 0.2)
    generator = torch.Generator().manual_seed(seed)
    accuracies = []
    for _ in range(epochs):
        for batch in torch.randperm(len(x), generator=generator).split(batch_size):
            optimizer.zero_grad()
            nn.functional.cross_entropy(layer(standard(x[batch])), y[batch]).backward()
            optimizer.step()
        scheduler.step()
        right = layer(standard(test[0])).argmax(1) == test[1]
        accuracies.append(float(right.double().mean()))
    return layer, layer(standard(test[0])).detach(), accuracies


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_equals_torch_sgd_and_reports_the_last_epoch(weight_decay: float) -> None:
    train, test = blobs(0, 70, noise=2.0), blobs(2, 50, noise=2.0)
    result = probe(
        train, test, num_classes=3, epochs=20, batch_size=16, weight_decay=weight_decay, seed=5
    )
    _, logits, accuracies = reference(
        train,
        test,
        classes=3,
        epochs=20,
        batch_size=16,
        milestones=[12, 15, 18],  # 60, 75 and 90 of 100
        weight_decay=weight_decay,
        seed=5,
    )
    torch.testing.assert_close(result.logits(test[0]).float(), logits, rtol=1e-3, atol=1e-3)
    assert result.accuracy == accuracies[-1]
    assert max(accuracies) > accuracies[-1]  # or this would not tell the last from the best


def test_one_sample_at_a_time() -> None:
    train, test = blobs(0, 12), blobs(2, 30)
    result = probe(train, test, num_classes=3, epochs=1, batch_size=1, seed=5)
    options = {"epochs": 1, "batch_size": 1, "milestones": [], "weight_decay": 0.0, "seed": 5}
    _, logits, accuracies = reference(train, test, classes=3, **options)  # type: ignore[arg-type]
    torch.testing.assert_close(result.logits(test[0]).float(), logits, rtol=1e-3, atol=1e-3)
    assert result.accuracy == accuracies[-1]


def test_as_good_as_logistic_regression_on_digits() -> None:
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    x = torch.from_numpy(digits.data).float()[order]
    y = torch.from_numpy(digits.target).long()[order]
    theirs = LogisticRegression(max_iter=2000).fit(x[:1200] / 16, y[:1200])
    ours = linear_probe(x[1200:], x[:1200], y[1200:], y[:1200], num_classes=10)
    assert ours.accuracy == pytest.approx(theirs.score(x[1200:] / 16, y[1200:]), abs=0.02)
    assert ours.train_accuracy > 0.985
    assert ours.logits(x[1200:]).shape == (len(x) - 1200, 10)


def test_training_accuracy_is_that_of_the_training_set() -> None:
    train, test = blobs(0, 60, noise=0.1), blobs(1, 60, noise=0.1)
    shifted = (test[0], (test[1] + 1) % 3)
    result = probe(train, shifted, num_classes=3, epochs=10)
    assert result.train_accuracy == 1.0
    assert result.accuracy == 0.0


@pytest.mark.parametrize("factor", [2.0**-20, 2.0**10])
def test_scale_and_origin_of_the_features_play_no_part(factor: float) -> None:
    (x, y), (xt, yt) = blobs(0, 80), blobs(1, 80)
    plain = linear_probe(xt, x, yt, y, num_classes=3, epochs=10)
    moved = linear_probe((xt + 3) * factor, (x + 3) * factor, yt, y, num_classes=3, epochs=10)
    torch.testing.assert_close(
        moved.logits((xt + 3) * factor), plain.logits(xt), rtol=1e-3, atol=1e-3
    )


def test_test_samples_have_no_influence_on_the_layer() -> None:
    train = blobs(0, 60)
    one = probe(train, blobs(1, 50), num_classes=3, epochs=5)
    other = probe(train, blobs(2, 7, noise=9.0), num_classes=3, epochs=5)
    assert torch.equal(one.weight, other.weight)
    assert torch.equal(one.bias, other.bias)


def test_a_dimension_dead_in_training_is_ignored() -> None:
    (x, y), (xt, yt) = blobs(0, 80), blobs(1, 80)
    dead = torch.full((80, 1), 0.3)
    result = linear_probe(
        torch.cat([xt, dead + 1e6], 1), torch.cat([x, dead], 1), yt, y, num_classes=3, epochs=10
    )
    assert float(result.weight[:, -1].abs().max()) == 0.0
    assert result.accuracy > 0.6
    constant = linear_probe(dead, dead, yt, y, num_classes=3, epochs=2)
    assert bool(torch.isfinite(constant.bias).all())
    assert constant.train_accuracy == float(y.bincount().max()) / 80


@pytest.mark.parametrize(("size", "used"), [(1e-6, False), (1e-4, True)])
def test_a_dimension_is_dead_if_it_all_but_never_varies(size: float, used: bool) -> None:
    """... compared with the most varying one: each of the others varies by about 1 here."""
    (x, y), test = blobs(0, 80), blobs(1, 80)
    small = size * normal_features(7, 80, 1)
    result = probe((torch.cat([x, small], 1), y), (torch.cat([test[0], small], 1), test[1]),
                   num_classes=3, epochs=2)  # fmt: skip
    assert bool((result.weight[:, -1] != 0).any()) == used
    assert bool((result.weight[:, :-1] != 0).all())


def test_a_layer_is_finite_or_refused_also_in_the_epoch_of_the_overflow() -> None:
    """It grows 49-fold with each step; its entries, of different sizes, overflow one by one."""
    train = blobs(0, 20)
    options = {"num_classes": 3, "lr": 50.0, "milestones": (), "momentum": 0.0, "weight_decay": 1.0}
    refused = []
    for epochs in range(20, 30):
        try:
            found = probe(train, train, epochs=epochs, **options)
        except ValueError:
            refused.append(epochs)
        else:
            assert bool(found.weight.isfinite().all())
    assert refused == list(range(refused[0], 30))
    assert refused[0] > 20


def test_seed_decides_and_the_global_generator_stays() -> None:
    train, test = blobs(0, 60), blobs(1, 50)
    state = torch.get_rng_state()
    first, again, other = (
        probe(train, test, num_classes=3, epochs=3, batch_size=8, seed=seed) for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)


def test_works_where_gradients_are_off() -> None:
    train, test = blobs(0, 60), blobs(1, 50)
    expected = probe(train, test, num_classes=3, epochs=3)
    with torch.inference_mode():
        found = probe((train[0].clone(), train[1].clone()), test, num_classes=3, epochs=3)
    assert torch.equal(found.weight.clone(), expected.weight)
    learning = train[0].clone().requires_grad_()
    assert not probe((learning, train[1]), test, num_classes=3, epochs=1).bias.requires_grad


def test_logits_apply_to_features_as_given() -> None:
    probe = ProbeResult(0.0, 0.0, torch.tensor([[1.0, 2.0]]).double(), torch.tensor([3.0]).double())
    assert probe.logits(torch.tensor([[4.0, 5.0]])).tolist() == [[1.0 * 4 + 2 * 5 + 3]]
    with pytest.raises(ValueError, match=r"trained on 2 dimensions.*\(1, 3\)"):
        probe.logits(torch.ones(1, 3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_labels": torch.full((60,), 3)}, r"train labels.*\[0, 3\).* 3"),
        ({"test_labels": torch.full((50,), -1)}, "test labels: row 0 holds -1"),
        ({"train_features": torch.full((60, 6), torch.nan)}, "train features hold NaN"),
        ({"test_features": torch.full((50, 6), torch.inf)}, "test features.*NaN.*inf"),
        ({"test_features": torch.ones(50, 5)}, r"dimensions.*\b6 and 5"),
        ({"test_labels": torch.zeros(4, dtype=torch.int64)}, r"labels.*\b50 samples"),
        ({"epochs": 0}, r"epochs.*\b1\b.* 0\b"),
        ({"batch_size": 0}, r"batch_size.*\b1\b.* 0\b"),
        ({"lr": 50.0, "weight_decay": 1.0, "epochs": 90}, r"lr=50\.0\b.*lower"),
    ],
)
def test_errors(change: dict[str, object], message: str) -> None:
    (x, y), (xt, yt) = blobs(0, 60), blobs(1, 50)
    arguments: dict[str, object] = {
        "train_features": x,
        "train_labels": y,
        "test_features": xt,
        "test_labels": yt,
        "num_classes": 3,
        "epochs": 2,
    }
    with pytest.raises(ValueError, match=message):
        linear_probe(**(arguments | change))  # type: ignore[arg-type]
