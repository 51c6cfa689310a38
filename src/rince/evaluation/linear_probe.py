"""Moved to :mod:`rince.metrics`; this module goes with the next release."""

from rince.core.moved import moved_names

_MOVED = ("linear_probe", "ProbeResult")
_OLD_ORDERS = {"linear_probe": ("train_features", "train_labels", "test_features", "test_labels")}
__getattr__ = moved_names(__name__, {name: f"rince.metrics.{name}" for name in _MOVED}, _OLD_ORDERS)
