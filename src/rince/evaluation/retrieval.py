"""Moved to :mod:`rince.metrics`; this module goes with the next release."""

from rince.core.moved import moved_names

_MOVED = ("retrieval", "retrieval_by_level", "RetrievalResult")
_OLD_ORDERS = {
    "retrieval": ("query_features", "query_labels", "gallery_features", "gallery_labels")
}
__getattr__ = moved_names(__name__, {name: f"rince.metrics.{name}" for name in _MOVED}, _OLD_ORDERS)
