"""Moved to :mod:`rince.metrics`; this module goes with the next release."""

from rince.core.moved import moved_names

_MOVED = (
    "ClassGaussians",
    "auroc",
    "energy_score",
    "fpr_at_tpr",
    "knn_ood_score",
    "msp_score",
    "roc_curve",
)
_OLD_ORDERS = {"knn_ood_score": ("train_features", "features")}
__getattr__ = moved_names(__name__, {name: f"rince.metrics.{name}" for name in _MOVED}, _OLD_ORDERS)
