"""What users get who say nothing: a change of it changes their ranks."""

from __future__ import annotations

from typing import Any

import pytest

from defaults import TORCH_DEFAULTS, default_numbers, torch_default, without_a_row
from rince import ranks

PLAIN = {"ignore_self": False, "validate": True}
DEFAULTS = {
    "DenseRanks": {"validate": True},
    "IdentityRanks": {"ignore_self": False},
    "LevelRanks": {"ignore_self": False},
    "RankOptions": {
        "near": (10.0,),
        "shots": False,
        "score_noise": 0.0,
        "move_classes": 0.0,
        "forget": 0.0,
    },
    "ScoreRanks.describe": {"ignore_self": False},
    "ScoreRanks.ranks": {"ignore_self": False},
    "SimilarityRanks.describe": {"batch_size": 256},
    "SimilarityRanks.ranks": PLAIN,
    "TableRanks": PLAIN,
    "Taxonomy.describe": {"batch_size": 256},
    "Taxonomy.ranks": PLAIN,
    "Taxonomy.same_group": {"ignore_self": False, "validate": True},
    "TimeRanks": {"near": (10.0,), "shots": False},
    "TimeRanks.describe": {"batch_size": 256},
    "TimeRanks.ranks": {"ignore_overlaps": False, **PLAIN},
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_of_ranks(name: str) -> None:
    assert default_numbers(ranks, name) == DEFAULTS[name]


def test_all_defaults_of_ranks_are_listed() -> None:
    assert without_a_row(ranks, DEFAULTS) == []


def everything() -> list[Any]:
    """Of every source of ranks, from lists."""
    tree = ranks.Taxonomy.from_dict({"a": ["x", "y"], "b": ["z", "w"]})
    similarity = ranks.Similarity.from_matrix(
        [[1, 0.5, 0.1, 0], [0.4, 1, 0.3, 0], [0.2, 0.1, 1, 0], [0, 0, 0.3, 1]], tree.classes
    )
    by_score = similarity.by_thresholds([0.3])
    times = ranks.TimeRanks([10])
    items = times.items([7, 7, 8, 8], start=[0, 3, 90, 0], end=[2, 5, 92, 2])
    levels = [[0, 0], [1, 0], [2, 1]]
    sources = [
        tree.ranks([0, 1], [0, 2, 3]),
        tree.ranks(["x"], ["y", "w"]),
        tree.same_group(2, [0, 1], [0, 2]),
        by_score.ranks([0, 1], [0, 2]),
        times.ranks(items, items, ignore_self=True),
        ranks.LevelRanks(levels, levels, finest_first=True),
        ranks.IdentityRanks([1, 2], [2, 2]),
        ranks.ScoreRanks([0.5]).ranks([[0.5, 0.25]], ignore_self=True),
    ]
    tensors = [
        similarity.by_top_k([1, 1]).table,
        similarity.by_quantiles([0.9, 0.5]).table,
        similarity.aligned_to(["z", "x"]).scores,
        ranks.noisy_scores(similarity, 0.1, 0).scores,
        ranks.forget_ranks(tree.table, 0.5, 0),
        ranks.label_overlap([[1, 0]], [[1, 1]]),
        ranks.target_closeness([1.0], [1.5]),
        ranks.graph_closeness([[0, 1, 2], [1, 2, 3]], 4, [0], [0, 1, 2, 3], max_hops=2),
    ]
    summaries = [
        tree.describe(2),
        tree.describe(2, [2, 2, 2, 2]),
        by_score.describe(2, tree=tree),
        by_score.describe(2, [2, 2, 2, 2]),
        times.describe(items, 2),
        ranks.Relevance([1]).describe([[0.5, 2]]),
    ]
    return [
        *(source.tile(slice(None), slice(None)).tolist() for source in sources),
        *((x.dtype, x.tolist()) for x in tensors),
        *map(str, summaries),
        ranks.move_classes(tree, 0.25, 0).paths,
    ]


@pytest.mark.parametrize("default", TORCH_DEFAULTS)
def test_torchs_defaults_play_no_part(default: str) -> None:
    expected = everything()
    with torch_default(default):
        assert everything() == expected
