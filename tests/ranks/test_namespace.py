"""The public names of rince.ranks: imported on first use, without torch where that is possible."""

from __future__ import annotations

import subprocess
import sys

import rince
import rince.ranks
from rince.core.pair_ranks import TableRanks
from rince.ranks.taxonomy import Taxonomy
from rince.training.config import RankOptions


def test_each_name_is_there() -> None:
    assert len(rince.ranks.__all__) > 20
    for name in rince.ranks.__all__:
        assert getattr(rince.ranks, name).__name__ == name
    assert set(rince.ranks.__all__) <= set(dir(rince.ranks))
    assert rince.ranks.Taxonomy is Taxonomy
    assert rince.ranks.TableRanks is TableRanks
    assert rince.ranks.RankOptions is RankOptions


def test_options_are_free_of_torch() -> None:
    code = (
        "import sys; from rince.ranks import RankOptions; RankOptions(top_k=(1,)); "
        "import rince.ranks.options; print('torch' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "False\n"
