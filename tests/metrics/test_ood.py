from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from metric_inputs import normal_features, random_labels
from rince.metrics.arrays import unit_features
from rince.metrics.gaussians import ClassGaussians
from rince.metrics.ood import energy_score, knn_ood_score, msp_score
from rince.metrics.roc import auroc, fpr_at_tpr, roc_curve

scores = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=25).map(torch.tensor)


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
    for too_little in (0, 1e-13):
        with pytest.raises(ValueError, match=r"class 0 \(12 samples in 64 dimensions\) is not pos"):
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
    with pytest.raises(ValueError, match="samples that differ within their classes"):
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


def test_gaussian_errors() -> None:
    features, labels = clusters(0, 30)
    gaussians = ClassGaussians.fit(features, labels)
    for bad in (-0.1, 1.1):
        with pytest.raises(ValueError, match=f"between 0 and 1, or be None, got {bad}"):
            ClassGaussians.fit(features, labels, shrinkage=bad)
    with pytest.raises(ValueError, match="30 of 30 features hold NaN"):
        ClassGaussians.fit(features * torch.nan, labels)
    with pytest.raises(ValueError, match="each of the 30 samples"):
        ClassGaussians.fit(features, labels[:4])
    with pytest.raises(ValueError, match="fitted on 5 dimensions, got features of 4"):
        gaussians.score(features[:, :4])
    with pytest.raises(ValueError, match="chunk_size must be at least 1, got 0"):
        gaussians.score(features, chunk_size=0)
    with pytest.raises(ValueError, match="NaN or infinity"):
        gaussians.score(features / 0)


@pytest.mark.parametrize("k", [1, 7, 40])
def test_knn_score_equals_pytorch_ood(k: int) -> None:
    from pytorch_ood.detector import KNN

    train, test = normal_features(0, 40), normal_features(1, 30)
    expected = KNN(None, k=k).fit_features(train, torch.zeros(40)).predict_features(test)
    found = knn_ood_score(test, train, k=k, chunk_size=8)
    torch.testing.assert_close(found.double(), expected.double(), rtol=1e-4, atol=1e-5)


def test_knn_score_bounds_and_errors() -> None:
    train = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    test = torch.tensor([[3.0, 0.0], [-1.0, 0.0]])
    assert knn_ood_score(test, train, k=1).tolist() == [0.0, pytest.approx(math.sqrt(2))]
    assert knn_ood_score(test, train, k=2).tolist() == [pytest.approx(math.sqrt(2)), 2.0]
    for k in (0, 3):
        with pytest.raises(ValueError, match=f"between 1 and the 2 training samples, got {k}"):
            knn_ood_score(test, train, k=k)


def test_logit_scores_equal_pytorch_ood() -> None:
    from pytorch_ood.detector import EnergyBased, MaxSoftmax

    logits = 3 * normal_features(0, 50)
    torch.testing.assert_close(
        msp_score(logits).float(), 1 + MaxSoftmax.score(logits), rtol=1e-4, atol=1e-6
    )
    for t in (1.0, 2.5):
        found = energy_score(logits, temperature=t)
        torch.testing.assert_close(found.float(), EnergyBased.score(logits, t=t))


def test_logit_scores_stay_apart_where_the_classifier_is_certain() -> None:
    logits = torch.tensor([[60.0, 0.0], [70.0, 0.0], [1e4, 0.0], [1e4, 1e4]])
    certain = msp_score(logits)
    assert certain[:2].tolist() == pytest.approx([math.exp(-60), math.exp(-70)], rel=1e-9, abs=0)
    assert certain[2:].tolist() == [0.0, 0.5]
    assert energy_score(logits)[2:].tolist() == pytest.approx([-1e4, -1e4 - math.log(2)], rel=1e-12)
    with pytest.raises(ValueError, match="1 of 2 logits hold NaN"):
        msp_score(torch.tensor([[0.0], [torch.nan]]))
    with pytest.raises(ValueError, match="1 of 1 logits hold NaN"):
        energy_score(torch.tensor([[torch.inf]]))
    with pytest.raises(ValueError, match="temperature must be above 0"):
        energy_score(logits, temperature=0)


@given(inliers=scores, outliers=scores, tpr=st.sampled_from([0.01, 0.5, 0.8, 0.95, 1.0]))
@settings(max_examples=150, deadline=None)
def test_metrics_equal_the_slow_definitions(inliers: Tensor, outliers: Tensor, tpr: float) -> None:
    pairs = [(o > i) + (o == i) / 2 for i in inliers.tolist() for o in outliers.tolist()]
    assert auroc(inliers, outliers) == pytest.approx(np.mean(pairs))
    assert auroc(outliers, inliers) == pytest.approx(1 - np.mean(pairs))
    threshold = max(
        t for t in outliers.tolist() if float((outliers >= t).double().mean()) >= tpr - 1e-12
    )
    assert fpr_at_tpr(inliers, outliers, tpr) == float((inliers >= threshold).double().mean())


@pytest.mark.parametrize("decimals", [0, 1, 6])
@pytest.mark.parametrize("tpr", [0.8, 0.95])
def test_metrics_equal_sklearn_and_pytorch_ood(decimals: int, tpr: float) -> None:
    from pytorch_ood.metrics import OODMetrics
    from sklearn import metrics

    inliers = normal_features(0, 300, 1)[:, 0].round(decimals=decimals)
    outliers = (normal_features(1, 200, 1)[:, 0] + 1.5).round(decimals=decimals)
    labels = np.r_[np.zeros(300), np.ones(200)]
    both = np.r_[inliers, outliers]
    false_positive, true_positive, _ = metrics.roc_curve(labels, both, drop_intermediate=False)
    theirs = OODMetrics(fpr_at=tpr)
    theirs.update(torch.from_numpy(both), torch.from_numpy(-labels).long())
    computed = theirs.compute()

    assert auroc(inliers, outliers) == pytest.approx(metrics.roc_auc_score(labels, both))
    assert auroc(inliers, outliers) == pytest.approx(computed["AUROC"])
    found = fpr_at_tpr(inliers, outliers, tpr)
    assert found == pytest.approx(false_positive[true_positive >= tpr - 1e-9][0])
    assert found == pytest.approx(computed[f"FPR{tpr * 100:g}TPR"])
    curve = roc_curve(inliers, outliers, max_points=10_000)
    assert curve.false_positive_rate == pytest.approx(false_positive)
    assert curve.true_positive_rate == pytest.approx(true_positive)


def test_fpr_worked_example() -> None:
    """20 outliers 1..20: 19 of them (95 %) score 2 or more."""
    outliers = torch.arange(1.0, 21.0)
    assert fpr_at_tpr(torch.tensor([0.0, 1.0, 1.5, 2.0]), outliers) == 1 / 4
    assert fpr_at_tpr(torch.tensor([0.0, 1.0, 1.5, 2.0]), outliers, tpr=0.951) == 3 / 4
    # 7 % of 100 are 7, though 0.07 * 100 comes out as 7.000000000000001.
    hundred = torch.arange(100.0)
    assert fpr_at_tpr(torch.tensor([92.5, 93.5]), hundred, tpr=0.07) == 1 / 2
    assert fpr_at_tpr(torch.tensor([0.0, 0.5]), outliers, tpr=1.0) == 0.0
    assert fpr_at_tpr(torch.tensor([20.0, 19.5]), outliers, tpr=1e-9) == 1 / 2


@pytest.mark.parametrize("max_points", [2, 3, 50, 200])
@pytest.mark.parametrize("shift", [-8.0, 0.0, 1.5, 8.0])
def test_the_thinned_curve_keeps_its_shape(max_points: int, shift: float) -> None:
    inliers = normal_features(0, 2000, 1)[:, 0]
    outliers = normal_features(1, 1500, 1)[:, 0] + shift
    full = roc_curve(inliers, outliers, max_points=100_000)
    thin = roc_curve(inliers, outliers, max_points=max_points)
    x, y = thin.false_positive_rate, thin.true_positive_rate
    assert len(x) == len(y) <= max_points
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    assert (np.diff(x) >= 0).all()
    assert (np.diff(y) >= 0).all()
    on_full = set(zip(full.false_positive_rate, full.true_positive_rate, strict=True))
    assert set(zip(x, y, strict=True)) <= on_full
    if max_points >= 50:
        assert np.trapezoid(y, x) == pytest.approx(auroc(inliers, outliers), abs=0.01)


def test_metric_errors() -> None:
    good = torch.tensor([0.0, 1.0])
    for function in (auroc, fpr_at_tpr, roc_curve):
        with pytest.raises(ValueError, match=r"inlier_scores must be a non-empty vector.*\(0,\)"):
            function(torch.zeros(0), good)
        with pytest.raises(ValueError, match="1 of 2 outlier_scores are NaN"):
            function(good, torch.tensor([torch.nan, 1.0]))
        with pytest.raises(ValueError, match=r"outlier_scores must be.*\(2, 1\)"):
            function(good, good[:, None])
    for tpr in (0.0, 1.01):
        with pytest.raises(ValueError, match="tpr must be above 0 and at most 1"):
            fpr_at_tpr(good, good, tpr)
    with pytest.raises(ValueError, match="max_points must be at least 2, got 1"):
        roc_curve(good, good, max_points=1)
    infinite = torch.tensor([torch.inf, 0.0])
    assert auroc(good, infinite) == (1 + 1 + 0.5 + 0) / 4


@pytest.mark.parametrize("seed", range(12))  # the factorisation itself misses 1 and 10
def test_a_singular_covariance_is_refused_even_where_rounding_hides_it(seed: int) -> None:
    labels = torch.arange(2).repeat(30)
    flat = normal_features(seed, 60, 4)
    flat[:, 3] = flat[:, 0]  # four dimensions that only ever fill three
    with pytest.raises(ValueError, match="is not positive definite at shrinkage 0"):
        ClassGaussians.fit(flat, labels, shrinkage=0)
    assert bool(torch.isfinite(ClassGaussians.fit(flat, labels).score(flat)).all())
