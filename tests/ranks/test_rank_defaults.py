"""What users get who say nothing: a change of it changes their ranks."""

from __future__ import annotations

import pytest

from defaults import default_numbers, without_a_row
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
