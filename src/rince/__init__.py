"""rince: contrastive learning with ranked positives (RINCE, AAAI 2022, arXiv 2201.11736).

Names are imported on first use, so that ``rince --help`` and a program that needs one loss do
not pay for everything else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rince._version import __version__

if TYPE_CHECKING:
    from rince.core.checks import RinceError, RinceWarning
    from rince.core.distributed import gather, mean_over_processes
    from rince.core.pair_ranks import DenseRanks, IdentityRanks, PairRanks, TableRanks
    from rince.losses.contrastive import info_nce, supcon_in, supcon_out
    from rince.losses.hierarchical import himulcon
    from rince.losses.modules import RankedInfoNCE
    from rince.losses.rank_n_contrast import rank_n_contrast
    from rince.losses.ranked_info_nce import ranked_info_nce
    from rince.losses.temperatures import temperature_schedule
    from rince.models.exported import load_exported
    from rince.ranks.class_names import name_scores_by_text, name_scores_by_wordnet
    from rince.ranks.class_ranks import ClassRanks
    from rince.ranks.measures import graph_closeness, label_overlap, target_closeness
    from rince.ranks.score_ranks import Relevance, ScoreRanks
    from rince.ranks.similarity import Similarity
    from rince.ranks.taxonomy import Taxonomy
    from rince.ranks.time import TimeRanks
    from rince.training.cached import cached_encode

_HOME = {
    "RinceError": "core.checks",
    "RinceWarning": "core.checks",
    "gather": "core.distributed",
    "mean_over_processes": "core.distributed",
    "DenseRanks": "core.pair_ranks",
    "IdentityRanks": "core.pair_ranks",
    "PairRanks": "core.pair_ranks",
    "TableRanks": "core.pair_ranks",
    "info_nce": "losses.contrastive",
    "supcon_in": "losses.contrastive",
    "supcon_out": "losses.contrastive",
    "himulcon": "losses.hierarchical",
    "RankedInfoNCE": "losses.modules",
    "rank_n_contrast": "losses.rank_n_contrast",
    "ranked_info_nce": "losses.ranked_info_nce",
    "temperature_schedule": "losses.temperatures",
    "load_exported": "models.exported",
    "name_scores_by_text": "ranks.class_names",
    "name_scores_by_wordnet": "ranks.class_names",
    "ClassRanks": "ranks.class_ranks",
    "graph_closeness": "ranks.measures",
    "label_overlap": "ranks.measures",
    "target_closeness": "ranks.measures",
    "Relevance": "ranks.score_ranks",
    "ScoreRanks": "ranks.score_ranks",
    "Similarity": "ranks.similarity",
    "Taxonomy": "ranks.taxonomy",
    "TimeRanks": "ranks.time",
    "cached_encode": "training.cached",
}

__all__ = [
    "ClassRanks",
    "DenseRanks",
    "IdentityRanks",
    "PairRanks",
    "RankedInfoNCE",
    "Relevance",
    "RinceError",
    "RinceWarning",
    "ScoreRanks",
    "Similarity",
    "TableRanks",
    "Taxonomy",
    "TimeRanks",
    "__version__",
    "cached_encode",
    "gather",
    "graph_closeness",
    "himulcon",
    "info_nce",
    "label_overlap",
    "load_exported",
    "mean_over_processes",
    "name_scores_by_text",
    "name_scores_by_wordnet",
    "rank_n_contrast",
    "ranked_info_nce",
    "supcon_in",
    "supcon_out",
    "target_closeness",
    "temperature_schedule",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"rince.{_HOME[name]}"), name)
    raise AttributeError(f"module 'rince' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
