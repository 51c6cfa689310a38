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

# Names that stood here until 0.x: room -> module -> names. They go with the next release.
_MOVED = {
    "rince.losses": {
        "losses.contrastive": ("info_nce", "supcon_in", "supcon_out"),
        "losses.hierarchical": ("himulcon",),
        "losses.rank_n_contrast": ("rank_n_contrast",),
        "losses.temperatures": ("temperature_schedule",),
    },
    "rince.ranks": {
        "core.pair_ranks": ("DenseRanks", "IdentityRanks", "PairRanks", "TableRanks"),
        "ranks.class_names": ("name_scores_by_text", "name_scores_by_wordnet"),
        "ranks.class_ranks": ("ClassRanks",),
        "ranks.measures": ("graph_closeness", "label_overlap", "target_closeness"),
    },
}


def __getattr__(name: str) -> Any:
    for room, modules in _MOVED.items():
        for module, names in modules.items():
            if name in names:
                warnings.warn(
                    f"rince.{name} is now {room}.{name}; the old place goes with the next release",
                    DeprecationWarning,
                    stacklevel=2,
                )
                return getattr(importlib.import_module(f"rince.{module}"), name)
    return _get(name)
