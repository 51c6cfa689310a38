"""Where ``RankTerms`` was; see :mod:`rince.losses`."""

from rince.core.moved import moved_names

__getattr__ = moved_names(__name__, {"RankTerms": "rince.losses.RankTerms"})
