"""Moved to :mod:`rince.metrics`; this module goes with the next release."""

from rince.core.moved import moved_names

_MOVED = ("ndcg",)
__getattr__ = moved_names(__name__, {name: f"rince.metrics.{name}" for name in _MOVED})
