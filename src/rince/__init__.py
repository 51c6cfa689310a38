"""rince: contrastive learning with ranked positives (RINCE, AAAI 2022, arXiv 2201.11736).

Names are imported on first use, so that ``rince --help`` and a program that needs one loss do
not pay for everything else. They are listed in ``__init__.pyi``.
"""

from __future__ import annotations

import lazy_loader

from rince.core.moved import moved_names

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

__getattr__ = moved_names(
    __name__,
    {name: f"{room}.{name}" for room, names in _MOVED.items() for name in names},
    otherwise=_get,
)
