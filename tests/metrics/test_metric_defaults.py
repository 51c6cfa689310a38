"""What users get who say nothing: a change of it changes their figures."""

from __future__ import annotations

import pytest

from defaults import default_numbers, without_a_row
from rince import metrics

KS = (1, 5, 10, 20)
DEFAULTS = {
    "energy_score": {"temperature": 1.0},
    "fpr_at_tpr": {"tpr": 0.95},
    "hierarchical_retrieval": {"ks": KS, "alpha": 1.0},
    "knn_accuracy": {"k": 20},
    "knn_ood_score": {"k": 20},
    "linear_probe": {
        "epochs": 100,
        "batch_size": 512,
        "lr": 5.0,
        "milestones": (0.6, 0.75, 0.9),
        "gamma": 0.2,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "seed": 0,
    },
    "ndcg": {"ks": (10,)},
    "recall_by_rank": {"ks": KS},
    "retrieval": {"ks": KS},
    "retrieval_by_level": {"ks": KS},
    "roc_curve": {"max_points": 200},
    "similarity_histograms": {"bins": 60},
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_of_metrics(name: str) -> None:
    assert default_numbers(metrics, name) == DEFAULTS[name]


def test_all_defaults_of_metrics_are_listed() -> None:
    assert without_a_row(metrics, DEFAULTS) == []
