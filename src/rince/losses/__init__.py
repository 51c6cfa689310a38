"""Losses on (query, key, ranks): ranked InfoNCE, its one-rank relatives, and baselines."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
