"""Moved to :mod:`rince.metrics`; this module goes with the next release."""

from rince.core.moved import moved_names

_MOVED = ("linear_probe", "ProbeResult")
_OLD_ORDERS = {"linear_probe": ("train_features", "train_labels", "test_features", "test_labels")}
__getattr__ = moved_names(__name__, dict.fromkeys(_MOVED, "rince.metrics"), _OLD_ORDERS)
