"""Moved to :mod:`rince.metrics`; this module goes with the next release."""

from rince.core.moved import moved_names

_MOVED = ("knn_accuracy",)
_OLD_ORDERS = {
    "knn_accuracy": ("query_features", "query_labels", "gallery_features", "gallery_labels")
}
__getattr__ = moved_names(__name__, {name: f"rince.metrics.{name}" for name in _MOVED}, _OLD_ORDERS)
