"""Moved to :mod:`rince.metrics`; this module goes with the next release."""

from rince.core.moved import moved_names

_MOVED = ("rank_agreement", "rank_correlation", "similarity_histograms")
__getattr__ = moved_names(__name__, {name: f"rince.metrics.{name}" for name in _MOVED})
