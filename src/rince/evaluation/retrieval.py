"""Moved to :mod:`rince.metrics`; this module goes with the next release."""

from rince.core.moved import moved_names

_MOVED = ("retrieval", "retrieval_by_level", "RetrievalResult")
_OLD_ORDERS = {
    "retrieval": ("query_features", "query_labels", "gallery_features", "gallery_labels")
}
__getattr__ = moved_names(__name__, dict.fromkeys(_MOVED, "rince.metrics"), _OLD_ORDERS)
