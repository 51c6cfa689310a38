"""rince: contrastive learning with ranked positives (RINCE, AAAI 2022, arXiv 2201.11736).

Names are imported on first use, so that ``rince --help`` and a program that needs one loss do
not pay for everything else. They are listed in ``__init__.pyi``.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import lazy_loader

_get, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

# Names that stood here until 0.x; they go with the next release.
_MOVED = {
    "rince.losses": (
        "himulcon",
        "info_nce",
        "rank_n_contrast",
        "supcon_in",
        "supcon_out",
        "temperature_schedule",
    ),
    "rince.ranks": (
        "ClassRanks",
        "DenseRanks",
        "IdentityRanks",
        "PairRanks",
        "TableRanks",
        "graph_closeness",
        "label_overlap",
        "name_scores_by_text",
        "name_scores_by_wordnet",
        "target_closeness",
    ),
}


def __getattr__(name: str) -> Any:
    for room, names in _MOVED.items():
        if name in names:
            warnings.warn(
                f"rince.{name} is now {room}.{name}; the old name goes with the next release",
                DeprecationWarning,
                stacklevel=2,
            )
            return getattr(importlib.import_module(room), name)
    return _get(name)
