from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from metric_inputs import normal_features, random_labels
from rince.metrics import gaussians as gaussians_module
from rince.metrics.arrays import unit_features
from rince.metrics.gaussians import ClassGaussians, _shape
from rince.metrics.roc import auroc


def clusters(seed: int, size: int, dim: int = 5, classes: int = 3) -> tuple[Tensor, Tensor]:
    """Classes that differ in centre and in the shape of their spread."""
    labels = random_labels(seed, size, classes)
    centres = 2 * normal_features(50, classes, dim)
    shapes = normal_features(51, classes * dim, dim).reshape(classes, dim, dim)
    noise = normal_features(seed + 1, size, dim)
    return centres[labels] + 0.3 * torch.einsum("nij,nj->ni", shapes[labels], noise), labels


def unit(features: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    result = features.double().numpy()
    return result / np.linalg.norm(result, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("size", "shrinkage"),
    [(90, None), (90, 0.0), (90, 0.3), (90, 1.0), (24, None), (24, 0.3), (24, 1.0)],
)
def test_gaussians_equal_sklearn_and_scipy(shrinkage: float | None, size: int) -> None:
    """At 24 samples the identity has a visible part in the pooled covariance."""
    from scipy.stats import multivariate_normal
    from sklearn.covariance import ledoit_wolf

    features, labels = clusters(0, size)
    test = torch.cat([clusters(7, 20)[0], normal_features(9, 20, 5)])
    x, y = unit(features), labels.numpy()
    means = np.stack([x[y == c].mean(0) for c in range(3)])
    pooled, identity_part = ledoit_wolf(x - means[y], assume_centered=True)
    assert identity_part > 0.004
    expected = []
    for c in range(3):
        own = np.cov(x[y == c].T, bias=True)
        weight = 5 / (5 + (y == c).sum()) if shrinkage is None else shrinkage
        covariance = (1 - weight) * own + weight * pooled
        expected.append(multivariate_normal(means[c], covariance).logpdf(unit(test)))
    found = ClassGaussians.fit(features, labels, shrinkage=shrinkage)
    np.testing.assert_allclose(
        found.score(test).numpy(), -np.max(expected, axis=0), rtol=1e-4, atol=1e-4
    )
    assert found.score(test).dtype == torch.float64


@pytest.mark.parametrize("shrinkage", [None, 0.02, 0.7, 1.0])
@pytest.mark.parametrize("sizes", [(3, 1, 11), (40, 13, 12), (5, 200, 12)])
def test_gaussians_equal_one_covariance_after_another(
    sizes: tuple[int, ...], shrinkage: float | None
) -> None:
    """Classes of fewer, of as many, and of more samples than the 12 dimensions, side by side."""
    from scipy.stats import multivariate_normal
    from sklearn.covariance import ledoit_wolf

    labels = torch.arange(3).repeat_interleave(torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    centres, scales = normal_features(1, 3, 12), torch.tensor([0.1, 0.3, 1.0])
    features = centres[labels] + scales[labels, None] * normal_features(2, len(labels), 12)
    test = torch.cat([features, normal_features(3, 20, 12)])
    # As the detector sees them: float32, of which the last digit would show below.
    x, t = (unit_features(f, "features").double().numpy() for f in (features, test))
    members = [x[labels.numpy() == c] for c in range(3)]
    pooled, _ = ledoit_wolf(np.concatenate([m - m.mean(0) for m in members]), assume_centered=True)
    expected = []
    for own, size in zip(members, sizes, strict=True):
        weight = 12 / (12 + size) if shrinkage is None else shrinkage
        covariance = (1 - weight) * np.cov(own.T, bias=True) + weight * pooled
        expected.append(multivariate_normal(own.mean(0), covariance).logpdf(t))
    # Of several classes the best hides the others, so each is looked at on its own as well.
    found = ClassGaussians.fit(features, labels, shrinkage=shrinkage)
    np.testing.assert_allclose(found.score(test), -np.max(expected, axis=0), rtol=1e-9)
    for c, log_likelihood in enumerate(expected):
        alone = replace(found, means=found.means[c : c + 1], shapes=found.shapes[c : c + 1])
        np.testing.assert_allclose(alone.score(test), -log_likelihood, rtol=1e-9)
    assert [len(shape.rows) for shape in found.shapes] == [min(size, 12) for size in sizes]


def test_full_shrinkage_orders_as_the_mahalanobis_detector() -> None:
    from pytorch_ood.detector import Mahalanobis
    from scipy.stats import spearmanr

    features, labels = clusters(0, 3000)
    test = torch.cat([clusters(7, 100)[0], normal_features(9, 100, 5)])
    theirs = Mahalanobis(None).fit_features(functional.normalize(features), labels)
    expected = theirs.predict_features(functional.normalize(test))
    found = ClassGaussians.fit(features, labels, shrinkage=1).score(test)
    assert spearmanr(found, expected).statistic > 0.9999


@pytest.mark.parametrize("size", [24, 90])
def test_the_shared_covariance_needs_no_second_fit(size: int) -> None:
    features, labels = clusters(0, size)
    test = torch.cat([clusters(7, 20)[0], normal_features(9, 20, 5)])
    expected = ClassGaussians.fit(features, labels, shrinkage=1)
    found = ClassGaussians.fit(features, labels).with_shared_covariance()
    np.testing.assert_allclose(found.score(test), expected.score(test), rtol=1e-9)
    assert torch.equal(found.shrinkage, expected.shrinkage)


def test_outliers_score_higher_even_with_far_fewer_samples_than_dimensions() -> None:
    """12 samples a class in 64 dimensions: no class has an invertible covariance of its own."""
    centres = 3 * normal_features(1, 4, 64)
    labels = torch.arange(4).repeat(12)
    train = centres[labels] + normal_features(2, 48, 64)
    near = centres[labels] + normal_features(3, 48, 64)
    far = 3 * normal_features(4, 4, 64)[labels] + normal_features(5, 48, 64)
    gaussians = ClassGaussians.fit(train, labels)
    assert gaussians.shrinkage.tolist() == pytest.approx([64 / (64 + 12)] * 4)
    assert auroc(gaussians.score(near), gaussians.score(far)) > 0.99
    least = ClassGaussians.fit(train, labels, shrinkage=1e-8)
    assert auroc(least.score(near), least.score(far)) > 0.9
    for too_little in (0, 1e-13):
        with pytest.raises(ValueError, match=r"class 0\b.*\b12\b.*\b64 dimensions"):
            ClassGaussians.fit(train, labels, shrinkage=too_little)


def test_gaussians_of_single_samples_and_of_labels_with_gaps() -> None:
    features, labels = clusters(0, 60)
    lonely = torch.cat([features, normal_features(3, 1, 5)])
    gappy = torch.cat([labels * 10, torch.tensor([7])])
    found = ClassGaussians.fit(lonely, gappy)
    assert found.classes.tolist() == [0, 7, 10, 20]
    assert bool(torch.isfinite(found.score(lonely)).all())
    np.testing.assert_allclose(found.means[1], unit(lonely)[-1], atol=1e-6)
    assert float(found.shrinkage[1]) == pytest.approx(5 / 6)
    with pytest.raises(ValueError, match="samples that differ"):
        ClassGaussians.fit(features[:5], torch.arange(5))


def test_gaussian_scores_do_not_depend_on_chunks_lengths_or_rotation() -> None:
    features, labels = clusters(0, 80)
    test = clusters(5, 21)[0]
    gaussians = ClassGaussians.fit(features, labels)
    expected = gaussians.score(test)
    torch.testing.assert_close(gaussians.score(test, chunk_size=4), expected)
    lengths = torch.linspace(0.1, 9, 21)[:, None]
    torch.testing.assert_close(gaussians.score(test * lengths), expected, rtol=1e-4, atol=1e-4)
    order = torch.randperm(80, generator=torch.Generator().manual_seed(0))
    moved = ClassGaussians.fit(features[order] * 7, labels[order]).score(test)
    torch.testing.assert_close(moved, expected, rtol=1e-4, atol=1e-4)
    rotation = torch.linalg.qr(normal_features(0, 5, 5)).Q
    turned = ClassGaussians.fit(features @ rotation, labels).score(test @ rotation)
    torch.testing.assert_close(turned, expected, rtol=1e-3, atol=1e-3)


def test_blocks_of_samples_play_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = clusters(0, 80)
    expected = ClassGaussians.fit(features, labels).score(features)
    monkeypatch.setattr(gaussians_module, "_BLOCK", 7)
    found = ClassGaussians.fit(features, labels).score(features)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_a_covariance_that_is_its_own_target() -> None:
    """As any is in one dimension: there are only -1 and 1, of variance 1 around 0."""
    ends = torch.tensor([[2.0], [-3.0]])
    found = ClassGaussians.fit(ends, torch.zeros(2, dtype=torch.int64)).score(ends)
    assert found.tolist() == pytest.approx([0.5 + 0.5 * math.log(2 * math.pi)] * 2)


@pytest.mark.parametrize(
    ("spread", "pooled", "weight", "fits"),
    [
        ((1.0, 1.0), (1.0, 1e-4), 0.0, True),  # relative to the pooled one 1 to 1e4
        ((1e-4, 1e-4), (1e-4, 1e-4), 0.0, True),
        ((1.0, 0.9e-6), (1.0, 1.0), 0.0, False),
        ((1.0, 1.1e-6), (1.0, 1.0), 0.0, True),
        ((1.0,), (1.0, 1.0), 1e-12, False),  # one sample: the pivot across is sqrt(weight)
        ((1.0,), (1.0, 1.0), 1.1e-12, True),
    ],
)
def test_a_covariance_is_singular_by_its_pivots_against_each_other(
    spread: tuple[float, ...], pooled: tuple[float, ...], weight: float, fits: bool
) -> None:
    """Whatever their size is, and that of the pooled covariance: a pivot below 1e-6 of another."""
    centred = torch.zeros(2 * len(spread), 2, dtype=torch.float64)
    for place, deviation in enumerate(spread):
        centred[2 * place, place] = deviation * math.sqrt(len(spread))
        centred[2 * place + 1, place] = -deviation * math.sqrt(len(spread))
    centred = centred[:1] if len(spread) == 1 else centred
    factor = torch.diag(torch.tensor(pooled, dtype=torch.float64))
    assert (_shape(centred, weight, factor) is not None) == fits


def test_gaussian_errors() -> None:
    features, labels = clusters(0, 30)
    gaussians = ClassGaussians.fit(features, labels)
    for bad in (-0.1, 1.1):
        with pytest.raises(ValueError, match=rf"\b0 and 1\b.*None.* {bad}"):
            ClassGaussians.fit(features, labels, shrinkage=bad)
    with pytest.raises(ValueError, match="30 of 30 features hold NaN"):
        ClassGaussians.fit(features * torch.nan, labels)
    with pytest.raises(ValueError, match=r"labels.*\b30 samples"):
        ClassGaussians.fit(features, labels[:4])
    with pytest.raises(ValueError, match=r"\b5 dimensions.* 4\b"):
        gaussians.score(features[:, :4])
    with pytest.raises(ValueError, match=r"chunk_size.*\b1\b.* 0\b"):
        gaussians.score(features, chunk_size=0)
    with pytest.raises(ValueError, match="NaN or infinity"):
        gaussians.score(features / 0)


@pytest.mark.parametrize("seed", range(12))  # the factorisation itself misses 1 and 10
def test_a_singular_covariance_is_refused_even_where_rounding_hides_it(seed: int) -> None:
    labels = torch.arange(2).repeat(30)
    flat = normal_features(seed, 60, 4)
    flat[:, 3] = flat[:, 0]  # four dimensions that only ever fill three
    with pytest.raises(ValueError, match="shrinkage 0: leave shrinkage=None, or give more samples"):
        ClassGaussians.fit(flat, labels, shrinkage=0)
    assert bool(torch.isfinite(ClassGaussians.fit(flat, labels).score(flat)).all())


def test_what_was_left_open_is_not_advised() -> None:
    with pytest.raises(ValueError, match=r"shrinkage 0\.\d+: give more samples"):
        ClassGaussians.fit(torch.eye(4).repeat(2, 1), torch.arange(4).repeat(2))
