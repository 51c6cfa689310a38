from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from metric_inputs import normal_features
from rince.metrics.roc import auroc, fpr_at_tpr, roc_curve

scores = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=25).map(torch.tensor)


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
    from sklearn.metrics import auc as area

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
        assert area(x, y) == pytest.approx(auroc(inliers, outliers), abs=0.01)


def test_a_curve_of_as_many_points_as_may_be_is_left_whole() -> None:
    """22 points, close together at first: thinned evenly, some of these would go."""
    inliers = torch.tensor([0.0] * 80 + [float(i) for i in range(1, 11)])
    outliers = torch.arange(11.0, 21.0)
    whole = roc_curve(inliers, outliers, max_points=1000)
    points = len(whole.false_positive_rate)
    assert points == 1 + 11 + 10
    for max_points, kept in ((points, True), (points - 1, False)):
        found = roc_curve(inliers, outliers, max_points=max_points)
        assert np.array_equal(found.false_positive_rate, whole.false_positive_rate) == kept
        assert (len(found.false_positive_rate) < points) != kept


def test_points_of_a_thinned_curve_are_spread_over_all_its_length() -> None:
    """Of 2 * 1000 equal steps, 5 points stand at 0, 1/4, ..., 1 of the way."""
    found = roc_curve(torch.arange(0.0, 1000.0), torch.arange(1000.0, 2000.0), max_points=5)
    assert found.false_positive_rate == pytest.approx([0, 0, 0, 1 / 2, 1])
    assert found.true_positive_rate == pytest.approx([0, 1 / 2, 1, 1, 1])


def test_metric_errors() -> None:
    good = torch.tensor([0.0, 1.0])
    for function in (auroc, fpr_at_tpr, roc_curve):
        with pytest.raises(ValueError, match=r"inlier_scores.*non-empty.*\(0,\)"):
            function(torch.zeros(0), good)
        with pytest.raises(ValueError, match="1 of 2 outlier_scores are NaN"):
            function(good, torch.tensor([torch.nan, 1.0]))
        with pytest.raises(ValueError, match=r"outlier_scores must be.*\(2, 1\)"):
            function(good, good[:, None])
    for tpr in (0.0, 1.01):
        with pytest.raises(ValueError, match=r"tpr.*\b0\b.*\b1\b"):
            fpr_at_tpr(good, good, tpr)
    with pytest.raises(ValueError, match=r"max_points.*\b2\b.* 1\b"):
        roc_curve(good, good, max_points=1)
    infinite = torch.tensor([torch.inf, 0.0])
    assert auroc(good, infinite) == (1 + 1 + 0.5 + 0) / 4
