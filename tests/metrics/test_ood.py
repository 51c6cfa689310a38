from __future__ import annotations

import math

import pytest
import torch

from metric_inputs import normal_features
from rince.metrics.ood import energy_score, knn_ood_score, msp_score


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
    many = train.repeat(10, 1)
    assert torch.equal(knn_ood_score(test, many), knn_ood_score(test, many, k=20))
    assert knn_ood_score(test, train, k=1).tolist() == [0.0, pytest.approx(math.sqrt(2))]
    assert knn_ood_score(test, train, k=2).tolist() == [pytest.approx(math.sqrt(2)), 2.0]
    for k in (0, 3):
        with pytest.raises(ValueError, match=rf"\b1\b.*\b2 training samples.* {k}$"):
            knn_ood_score(test, train, k=k)


def test_samples_are_at_no_distance_of_themselves() -> None:
    """A cosine beyond 1 by a rounding is a distance of 0, not NaN."""
    samples = normal_features(0, 100)
    found = knn_ood_score(samples, samples, k=1, exclude_self=False)
    torch.testing.assert_close(found, torch.zeros(100), rtol=0, atol=1e-3)


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
    with pytest.raises(ValueError, match=r"temperature.* 0\b"):
        energy_score(logits, temperature=0)
    with pytest.raises(ValueError, match="temperature.* 1e-310"):
        energy_score(logits, temperature=1e-310)
