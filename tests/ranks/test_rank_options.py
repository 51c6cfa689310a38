"""Options of ranks by themselves: what goes together, what does not, and what they are called."""

from __future__ import annotations

import pytest

from rince.ranks import RankOptions

BY_TEXT = {"scores": "text", "top_k": (1,)}


def _ranks(**options: object) -> RankOptions:
    return RankOptions(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"move_classes": 0.5, "forget": 1},
        {"move_classes": 1, "forget": 0.5},
        {"by": "time", "near": (0, 0.5, 100)},
        {"by": "time", "near": (0.5, 1), "unit": "fraction", "shots": True, "beyond": "ignore"},
        {"by": "time", "near": (), "unit": "fraction"},
        {"scores": "text", "thresholds": (0.5,), "text_model": "m", "score_noise": 0.5},
        {"scores": "wordnet", "thresholds": (3, -3), "missing": "negative", "forget": 0.5},
        {"scores": "a.csv", "quantiles": (0.5,)},
        {"scores": "a.npy", "quantiles": (1, 0)},
        {"scores": "a.parquet", "top_k": (1,)},
        {"scores": "A.CSV", "top_k": (1,)},
        {"scores": "a.csv", "top_k": (5, 1)},
    ],
)
def test_options_that_go_together(options: dict[str, object]) -> None:
    _ranks(**options).check()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"thresholds": (0.5,)}, "ranks.thresholds .*ranks.scores.*vectors.captions: captions"),
        ({"quantiles": (0.5,)}, "ranks.quantiles .*ranks.scores"),
        ({"top_k": (3,)}, "ranks.top_k .*ranks.scores"),
        ({"missing": "negative"}, "ranks.missing .*ranks.scores"),
        ({"score_noise": 0.1}, "ranks.score_noise .*ranks.scores"),
        ({"text_model": "m"}, "ranks.text_model .*ranks.scores"),
        ({"scores": "text"}, "ranks.scores .*one .*none"),
        (
            {"scores": "a.csv", "thresholds": (0.5,), "top_k": (1,)},
            "ranks.scores .*thresholds and top_k",
        ),
        ({"scores": "wordnet", "top_k": (1,), "move_classes": 0.1}, "ranks.score_noise"),
        ({**BY_TEXT, "move_classes": 1}, "ranks.move_classes .*ranks.scores"),
        (
            {"scores": "wordnet", "top_k": (1,), "text_model": "m"},
            "ranks.text_model .*wordnet",
        ),
        ({"scores": "txet", "top_k": (1,)}, "ranks.scores .*text, wordnet.*captions; got 'txet'"),
        ({**BY_TEXT, "score_noise": -1}, "ranks.score_noise .*-1"),
        ({**BY_TEXT, "missing": "drop"}, "ranks.missing .*ignore, negative.*'drop'"),
        ({"scores": "text", "top_k": (0,)}, r"ranks.top_k .*1.*\(0,\)"),
        ({"scores": "text", "quantiles": (1.5,)}, r"ranks.quantiles .*0.*1.*\(1.5,\)"),
        ({"scores": "text", "quantiles": (0.5, 0.9)}, "ranks.quantiles .*fall.* 0.5, 0.9"),
        ({"scores": "text", "thresholds": (0.5, 0.5)}, "ranks.thresholds .*fall.* 0.5, 0.5"),
        ({"scores": "text", "thresholds": (3, 2, 2.5)}, "ranks.thresholds .*fall.* 3, 2, 2.5"),
        ({"move_classes": 1.5}, r"ranks.move_classes .*0.*1.*, got 1.5"),
        ({"forget": 1.5}, r"ranks.forget .*0.*1.*, got 1.5"),
        ({"forget": -0.1}, r"ranks.forget .*0.*1.*, got -0.1"),
        ({"near": (3.0,)}, "ranks.near .*time.*classes"),
        ({"by": "time", "forget": 0.1}, "ranks.forget .*classes.*time"),
        ({"by": "time", "near": (-1,)}, r"ranks.near .*0.*\(-1"),
        ({"by": "time", "near": (2, 1)}, "ranks.near .*rise.* 2, 1"),
        ({"by": "time", "near": (0.5, 1.5), "unit": "fraction"}, "ranks.near .* 1,.*1.5"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _ranks(**options).check()


@pytest.mark.parametrize(
    ("options", "label", "slug"),
    [
        ({}, "", ""),
        ({"by": "time"}, "time 10", "time-10"),
        (
            {"by": "time", "near": (0.5, 1), "unit": "fraction", "beyond": "ignore"},
            "time 0.5 1, fraction, beyond ignore",
            "time-0.5-1-fraction-beyond-ignore",
        ),
        ({"by": "time", "near": (), "shots": True}, "time shots", "time-shots"),
        (
            {"scores": "a/mine.csv", "thresholds": (0.8, 0.5), "score_noise": 0.1},
            "mine thresholds 0.8 0.5, score-noise 0.1",
            "mine-thresholds-0.8-0.5-score-noise-0.1",
        ),
        ({"scores": "wordnet", "top_k": (3, 5)}, "wordnet top-k 3 5", "wordnet-top-k-3-5"),
        (
            {"move_classes": 0.5, "forget": 0.25},
            "move-classes 0.5, forget 0.25",
            "move-classes-0.5-forget-0.25",
        ),
    ],
)
def test_what_ranks_are_called(options: dict[str, object], label: str, slug: str) -> None:
    assert (_ranks(**options).label(), _ranks(**options).slug()) == (label, slug)


def test_rules_that_are_given() -> None:
    assert _ranks().rules() == []
    assert _ranks(top_k=(1,), thresholds=(0.5,)).rules() == ["thresholds", "top_k"]
