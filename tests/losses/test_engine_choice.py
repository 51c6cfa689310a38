"""Which engine serves: of the three that give the same numbers, the one that fits and is fast."""

from __future__ import annotations

import contextlib
import importlib
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from losses_helpers import unit

from rince.core.checks import RinceWarning
from rince.core.pair_ranks import DenseRanks
from rince.losses.blockwise.sizes import DENSE_BYTES, Sizes
from rince.losses.ranked_info_nce import RankedEngine, ranked_info_nce_with_terms

# By its name, as the function of this name stands before it in the package.
module = importlib.import_module("rince.losses.ranked_info_nce")


def _served(engine: RankedEngine, query: Any, key: Any, num_ranks: int, sizes: Sizes) -> str:
    ranks = DenseRanks(torch.ones(1, 1, dtype=torch.int8))
    served = module._served_by(engine, query, key, ranks, num_ranks, "fp32", sizes)
    assert isinstance(served, str)
    return served


@pytest.mark.parametrize(
    ("queries", "keys", "num_ranks", "spare", "serves"),
    [
        (4096, 4096, 2, -1, "streamed"),  # 768 MiB, and one byte less is free
        (4096, 4096, 2, 0, "dense"),
        (4096, 2731, 1, -1, "streamed"),  # just above 256 MiB: from there on it asks
        (4096, 2730, 1, -1, "dense"),  # just below
        (8, 8, 1, -1, "dense"),
    ],
)
def test_a_matrix_that_does_not_fit_a_card_is_streamed(
    queries: int,
    keys: int,
    num_ranks: int,
    spare: int,
    serves: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    need = queries * keys * num_ranks * DENSE_BYTES
    monkeypatch.setattr(module, "free_bytes", lambda _: need + spare)
    module._warn_once.cache_clear()
    query = SimpleNamespace(shape=(queries, 8), is_cuda=True, device="cuda:0")
    key = SimpleNamespace(shape=(keys, 8), is_cuda=True, device="cuda:0")
    says = rf"{need / 2**30:.1f} GB for {queries} x {keys} pairs"
    expected = pytest.warns(RinceWarning, match=says)
    with expected if serves == "streamed" else contextlib.nullcontext():
        assert _served("dense", query, key, num_ranks, Sizes()) == serves
    query.is_cuda = False
    assert _served("dense", query, key, num_ranks, Sizes()) == "dense"


@pytest.mark.parametrize(("pairs", "serves"), [(34, "streamed"), (35, "streamed"), (36, "dense")])
def test_in_a_graph_of_the_caller_the_number_of_pairs_decides(
    pairs: int, serves: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    sizes = Sizes(dense_pairs=pairs, dense_pairs_of_labels=1, fused_pairs=0)
    assert _served("auto", unit(0, 5, 3), unit(1, 7, 3), 1, sizes) == serves
    assert _served("streamed", unit(0, 5, 3), unit(1, 7, 3), 1, sizes) == "streamed"


@pytest.mark.parametrize("engine", ["dense", "streamed"])
def test_terms_to_log_hold_no_graph(engine: RankedEngine) -> None:
    query = unit(0, 4, 3).requires_grad_()
    ranks = torch.tensor([[1, 2, 0, -1]] * 4)
    loss, terms = ranked_info_nce_with_terms(query, query, ranks, (0.1, 0.2), engine=engine)
    assert loss.requires_grad
    assert not terms.values.requires_grad
