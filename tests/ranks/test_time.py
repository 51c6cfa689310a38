"""Ranks from time, against the definition in loops over exact fractions."""

from __future__ import annotations

import math
import re
import warnings
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

import rince
from rince import RinceWarning, TimeRanks
from rince.core.pair_ranks import ALL, PairRanks
from rince.losses.ranked_info_nce import ranked_info_nce
from rince.ranks import time
from rince.ranks.time import ItemTimes, seconds_apart

# Tenths of a second: a gap that is exactly at a bin's edge is common, and no float64.
TENTHS = st.integers(0, 60)


@st.composite
def recordings(draw: st.DrawFn, most: int = 9) -> list[dict[str, int]]:
    rows = []
    for _ in range(draw(st.integers(1, most))):
        start = draw(TENTHS)
        rows.append(
            {
                "video": draw(st.integers(-1, 2)),
                "start": start,
                "end": start + draw(st.integers(0, 20)),
                "shot": draw(st.integers(-1, 1)),
            }
        )
    return rows


@st.composite
def rules(draw: st.DrawFn) -> TimeRanks:
    near = sorted(draw(st.sets(st.integers(0, 30), max_size=3)))
    unit = draw(st.sampled_from(["seconds", "fraction"]))
    return TimeRanks(
        [x / (10 if unit == "seconds" else 30) for x in near],
        unit=unit,
        shots=draw(st.booleans()),
        beyond=draw(st.sampled_from(["rank", "negative", "ignore"])),
    )


LENGTH = 80  # tenths of a second, of every video


def _items(rows: list[dict[str, int]]) -> torch.Tensor:
    column = {name: [row[name] for row in rows] for name in rows[0]}
    return TimeRanks.items(
        column["video"],
        [x / 10 for x in column["start"]],
        [x / 10 for x in column["end"]],
        shot=column["shot"],
        length=[LENGTH / 10] * len(rows),
    )


def _rank(rule: TimeRanks, a: dict[str, int], b: dict[str, int]) -> int:
    """Pair by pair, in exact arithmetic."""
    if a["video"] != b["video"]:
        return 0
    if a["start"] == b["start"] and a["end"] == b["end"]:
        return 1
    if rule.shots and a["shot"] == b["shot"] and a["shot"] >= 0:
        return 2
    gap = Fraction(max(0, max(a["start"], b["start"]) - min(a["end"], b["end"])), 10)
    for rank, near in enumerate(rule.near, start=2):
        whole = Fraction(LENGTH, 10) if rule.unit == "fraction" else 1
        # Up to a microsecond, to which times are kept.
        if gap <= Fraction(near) * whole + Fraction(1, 2_000_000):
            return rank
    beyond = 1 + max(len(rule.near), int(rule.shots)) + 1
    return {"rank": beyond, "negative": 0, "ignore": -1}[rule.beyond]


@given(rules(), recordings(), recordings())
def test_every_pair(
    rule: TimeRanks, queries: list[dict[str, int]], keys: list[dict[str, int]]
) -> None:
    found = rule.ranks(_items(queries), _items(keys))
    assert isinstance(found, PairRanks)
    assert found.shape == (len(queries), len(keys))
    expected = [[_rank(rule, a, b) for b in keys] for a in queries]
    tile = found.tile(ALL, ALL)
    assert tile.dtype == torch.int8
    assert tile.tolist() == expected
    assert int(tile.max()) <= rule.num_ranks == found.num_ranks
    for rows, cols in ((slice(1, 3), slice(0, 2)), (slice(0, 1), ALL), (ALL, slice(2, None))):
        assert torch.equal(found.tile(rows, cols), tile[rows, cols])


@given(rules(), recordings(), st.data())
def test_masks(rule: TimeRanks, rows: list[dict[str, int]], data: Any) -> None:
    items = _items(rows)
    keys = torch.cat([items, items])
    valid = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(keys), max_size=len(keys))))
    plain = rule.ranks(items, keys).tile(ALL, ALL)
    masked = rule.ranks(items, keys, ignore_self=True, key_valid=valid).tile(ALL, ALL)
    out = torch.eye(len(items), len(keys), dtype=torch.bool) | ~valid
    assert torch.equal(masked, plain.masked_fill(out, -1))


@given(rules(), recordings(), recordings())
def test_overlaps_can_be_ignored(
    rule: TimeRanks, queries: list[dict[str, int]], keys: list[dict[str, int]]
) -> None:
    def tenths(row: dict[str, int]) -> set[tuple[int, int]]:
        return {(row["video"], x) for x in range(row["start"], row["end"])}

    found = rule.ranks(_items(queries), _items(keys), ignore_overlaps=True).tile(ALL, ALL)
    assert found.tolist() == [
        [-1 if tenths(a) & tenths(b) else _rank(rule, a, b) for b in keys] for a in queries
    ]


@given(rules(), recordings(most=12))
def test_describe(rule: TimeRanks, rows: list[dict[str, int]]) -> None:
    if len(rows) < 2:
        return
    batch = 2 + len(rows) // 2 if len(rows) > 2 else 2
    summary = rule.describe(_items(rows), batch)
    ranks = [[_rank(rule, a, b) for b in rows] for a in rows]
    count = len(rows)
    apart = [(i, j) for i in range(count) for j in range(count) if i != j]
    for place, code in enumerate((*range(1, rule.num_ranks + 1), 0)):
        having = [(i, j) for i, j in apart if ranks[i][j] == code]
        assert summary.pairs[place] == len(having) / 2
        assert summary.covered[place] == len({i for i, _ in having})
        share = len(having) / (count * (count - 1))
        assert summary.expected[place] == pytest.approx((batch - 1) * share)
    assert (summary.num_items, summary.num_videos) == (count, len({r["video"] for r in rows}))
    empty = [r for r in range(2, rule.num_ranks + 1) if summary.pairs[r - 1] == 0]
    found = rule.empty_ranks(_items(rows))
    assert found == [f"rank {r} ({summary.rules[r - 1]})" for r in empty]


LENGTHS = st.integers(80, 200)  # of which fractions of the query's video are taken


@settings(max_examples=200, deadline=None)
@given(rules(), recordings(most=12), st.data())
def test_empty_ranks_are_those_of_no_pair(
    rule: TimeRanks, rows: list[dict[str, int]], data: st.DataObject
) -> None:
    """Also where the rank depends on which of the two is the query."""
    items = _items(rows)
    lengths = data.draw(st.lists(LENGTHS, min_size=len(rows), max_size=len(rows)))
    items[:, time.LENGTH] = torch.tensor(lengths) * 100_000
    if data.draw(st.booleans()):
        items[:, time.VIDEO] = 0
    matrix = rule.ranks(items, items, ignore_self=True).tile(ALL, ALL)
    found = [int(rank.split()[1]) for rank in rule.empty_ranks(items)]
    assert found == [r for r in range(2, rule.num_ranks + 1) if not bool((matrix == r).any())]


@pytest.mark.parametrize(
    ("clips", "shots", "is_empty"),
    [
        ([0, 1], [4, 4], True),  # two clips of one shot
        ([0, 0], [4, 5], True),  # the same clip, whatever its shot
        ([0, 1], [4, 5], False),
        ([0, 0, 1], [4, 5, 5], False),
    ],
)
def test_other_shots_of_a_video_are_of_other_clips(
    clips: list[int], shots: list[int], is_empty: bool
) -> None:
    start = torch.tensor(clips).double()
    items = TimeRanks.items([7] * len(clips), start, start + 1, shot=torch.tensor(shots))
    rule = TimeRanks([], shots=True, beyond="rank")
    matrix = rule.ranks(items, items, ignore_self=True).tile(ALL, ALL)
    assert bool((matrix == 3).any()) is not is_empty
    assert any(x.startswith("rank 3") for x in rule.empty_ranks(items)) is is_empty


def test_empty_ranks_of_a_long_recording() -> None:
    """100,000 clips: their pairs would take minutes."""
    shot = torch.arange(100_000)
    start = shot.double() * 2
    items = TimeRanks.items(0 * shot, start, start + 1, shot=shot)
    rule = TimeRanks([0.5, 1.5, 1.75, 7])
    assert rule.empty_ranks(items) == [
        "rank 2 (up to 0.5 s apart)",
        "rank 4 (up to 1.75 s apart)",
    ]
    assert TimeRanks([], shots=True).empty_ranks(items) == ["rank 2 (same shot)"]


@pytest.mark.parametrize("pairs_at_once", [1, 8, 12])
def test_describe_looks_at_some_rows_at_a_time(
    pairs_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row of four, two, three; videos of other lengths: the rank depends on the order."""
    start = torch.tensor([0.0, 3, 9, 30, 0, 3])
    items = TimeRanks.items([0, 0, 0, 0, 1, 1], start, start, length=[30.0, 30, 30, 300, 100, 1000])
    rule = TimeRanks([0.1, 0.25], unit="fraction")
    matrix = rule.ranks(items, items, ignore_self=True).tile(ALL, ALL)
    monkeypatch.setattr(time, "_BLOCK", pairs_at_once)
    summary = rule.describe(items, 2)
    for place, code in enumerate((1, 2, 3, 4, 0)):
        assert summary.pairs[place] == int((matrix == code).sum()) // 2
        assert summary.covered[place] == int((matrix == code).any(dim=1).sum())
    assert rule.empty_ranks(items) == []
    assert TimeRanks([0.5, 3]).empty_ranks(items) == ["rank 2 (up to 0.5 s apart)"]


def test_describe_as_a_page() -> None:
    items = TimeRanks.items([0, 0, 0, 1], [0, 4, 90, 0], [1, 5, 91, 1], shot=[0, 1, 1, -1])
    summary = TimeRanks([5, 40], shots=True).describe(items, 3)
    assert str(summary).splitlines()[:7] == [
        "items: 4, videos: 2, ranks: 4",
        "rank  what                                 pairs    items       per item, batch 3",
        "1     same clip, other view                    0        0                    0.00",
        "2     same shot or up to 5 s apart             2        3                    0.67",
        "3     up to 40 s apart                         0        0                    0.00",
        "4     same video                               1        2                    0.33",
        "0     another video                            3        4                    1.00",
    ]
    assert not any("no negatives" in warning for warning in summary.warnings)
    near_only = TimeRanks([0.05], unit="fraction", beyond="negative")
    items[:, time.LENGTH] = 100_000_000
    assert near_only.describe(items, 3).rules == (
        "same clip, other view",
        "up to 0.05 of the video apart",
        "all else",
    )
    assert TimeRanks((), shots=True).describe(items, 3).rules[1] == "same shot"


def test_describe_in_words() -> None:
    items = TimeRanks.items([0, 0, 1], [0, 100, 0], [1, 101, 1], shot=[0, 1, -1])
    text = str(TimeRanks([5], shots=True).describe(items, 3))
    assert "items: 3, videos: 2, ranks: 3" in text
    assert "same shot or up to 5 s apart" in text
    assert "have rank 2" in text
    assert re.search(r"batch of 3\b.*\b0\.67 keys of rank 3\b", text)
    alone = TimeRanks([0.5]).describe(TimeRanks.items([0, 0], [0, 9], [1, 10]), 2)
    assert "no negatives" in alone.warnings[0]
    with pytest.raises(ValueError, match=r"batch of 3\b.*\b2 items"):
        TimeRanks().describe(TimeRanks.items([0, 0], [0, 9], [1, 10]), 3)


@pytest.mark.parametrize("variant", ["in", "out", "out-in"])
def test_both_engines_take_them(variant: str) -> None:
    generator = torch.Generator().manual_seed(0)
    count = 70
    start = torch.randint(0, 100, (count,), generator=generator).double()
    video = torch.randint(0, 4, (count,), generator=generator)
    items = TimeRanks.items(video, start, start + 2)
    z = functional.normalize(torch.randn(2 * count, 8, generator=generator).double(), dim=1)
    keys, valid = torch.cat([items, items]), torch.rand(2 * count, generator=generator) < 0.8
    ranks = TimeRanks([5, 30]).ranks(items, keys, key_valid=valid)
    outcomes = []
    for engine in ("dense", "streamed"):
        query = z[:count].clone().requires_grad_()
        loss = ranked_info_nce(
            query, z, ranks, (0.1, 0.2, 0.3, 0.5), variant=variant, engine=engine
        )  # type: ignore[call-overload]
        loss.backward()
        outcomes.append((loss.detach(), query.grad))
    for dense, streamed in zip(*outcomes, strict=True):
        torch.testing.assert_close(streamed, dense, rtol=1e-9, atol=1e-12)


def test_fractions_are_of_the_querys_own_video() -> None:
    start = torch.tensor([0.0, 10.0, 0.0, 10.0])
    items = TimeRanks.items([0, 0, 1, 1], start, start + 1, length=[20.0, 20.0, 100.0, 100.0])
    ranks = TimeRanks([0.2], unit="fraction").ranks(items, items)  # 4 s and 20 s; 9 s apart
    expected = [[1, 3, 0, 0], [3, 1, 0, 0], [0, 0, 1, 2], [0, 0, 2, 1]]
    assert ranks.tile(ALL, ALL).tolist() == expected
    assert ranks.tile(slice(2, 3), ALL).tolist() == expected[2:3]


def test_fractions_are_kept_to_the_microsecond() -> None:
    """0.29 of 100 s are 29 s, though 0.29 * 1e8 is below 29000000."""
    clip = {"start": [0, 29, 29 + 1e-6], "length": [100.0] * 3}
    items = TimeRanks.items([0, 0, 0], end=clip["start"], **clip)
    ranks = TimeRanks([0.29], unit="fraction").ranks(items, items)
    assert ranks.tile(ALL, ALL)[0].tolist() == [1, 2, 3]
    whole = TimeRanks([1.0], unit="fraction")
    assert whole.ranks(items, items).tile(ALL, ALL)[0].tolist() == [1, 2, 2]
    shortest = TimeRanks.items([0], [0], [0], length=[1e-6])
    assert whole.ranks(shortest, shortest).tile(ALL, ALL).tolist() == [[1]]


@settings(max_examples=30)
@given(recordings(), recordings())
def test_seconds_apart(queries: list[dict[str, int]], keys: list[dict[str, int]]) -> None:
    found = seconds_apart(_items(queries), _items(keys))
    assert found.dtype == torch.float64
    assert found.tolist() == [
        [
            max(0, max(a["start"], b["start"]) - min(a["end"], b["end"])) / 10
            if a["video"] == b["video"]
            else math.inf
            for b in keys
        ]
        for a in queries
    ]


def test_equal_rules_are_equal_and_can_be_keys() -> None:
    assert TimeRanks([5, 10]) == TimeRanks((5.0, 10.0))
    assert hash(TimeRanks([5])) == hash(TimeRanks((5.0,)))


@settings(max_examples=30)
@given(rules(), recordings(), st.data())
def test_items_by_their_indices(
    rule: TimeRanks, rows: list[dict[str, int]], data: st.DataObject
) -> None:
    index = st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=5)
    query, key = data.draw(index), data.draw(index)
    times = ItemTimes(rule, _items(rows))
    ids = torch.tensor(query), torch.tensor(key)
    valid = torch.arange(len(key)) > 0
    assert times.num_ranks == rule.num_ranks
    assert times.ranks(*ids, key_valid=valid).tile(ALL, ALL).tolist() == [
        [-1 if j == 0 else _rank(rule, rows[a], rows[b]) for j, b in enumerate(key)] for a in query
    ]
    assert times.same_video(*ids, key_valid=valid).tile(ALL, ALL).tolist() == [
        [-1 if j == 0 else int(rows[a]["video"] == rows[b]["video"]) for j, b in enumerate(key)]
        for a in query
    ]


def test_the_ids_and_times_that_are_kept() -> None:
    items = TimeRanks.items([2**60, -5], [0.1, 1e8 + 1e-6], [0.3, 1e8 + 1], length=[1.0, 2e8])
    assert items.tolist() == [
        [2**60, 100_000, 300_000, -1, 1_000_000],
        [-5, 100_000_000_000_001, 100_000_001_000_000, -1, 200_000_000_000_000],
    ]
    assert rince.TimeRanks([0.2]).num_ranks == 3
    assert TimeRanks((), shots=True, beyond="ignore").num_ranks == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"start": [0, math.nan]}, r"item 1 has a start.*\[0, 2\^32\).*nan"),
        ({"start": [0, 2**32]}, r"item 1 has a start.*\[0, 2\^32\)"),
        ({"start": ["0", "0"]}, r"start.*vector of seconds.*<U1"),
        ({"start": [False, True]}, r"start.*vector of seconds.*bool"),
        ({"start": [-1, -2]}, r"item 0\b.*\b1 more.*start.*\[0, 2\^32\).*-1"),
        ({"end": [1, math.inf]}, r"item 1\b.*end.*outside"),
        ({"start": [0, 5]}, r"item 1\b.*before.*start 5, end 1, length 0"),
        ({"length": [1, 0.5]}, r"item 1\b.*after.*start 0, end 1, length 0\.5"),
        ({"shot": [0, -2]}, r"item 1\b.*shot.*-1.*-2"),
        ({"video": [0.5, 1]}, "video.*integers.*float64"),
        ({"video": [True, False]}, "video.*integers.*bool"),
        ({"video": [[0], [1]]}, r"video.*vector.*\(2"),
        ({"start": [0]}, r"start.*\b1\b.*video.*\b2\b"),
        (
            {"start": np.array(0.0)},
            r"start.*vector.*\(\)",
        ),
    ],
)
def test_wrong_items(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TimeRanks.items(**{"video": [0, 1], "start": [0, 0], "end": [1, 1], **given})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"near": [5, 5]}, r"rank 2\b.* 5, 5"),
        ({"near": [-1]}, "at least 0"),
        ({"near": [math.nan]}, "finite gaps"),
        ({"near": range(126)}, "126 gaps make 128 ranks, more than 127"),
        ({"near": [math.inf]}, "finite gaps"),
        ({"near": [2], "unit": "fraction"}, "at most 1, got 2"),
        ({"unit": "minutes"}, "unit.*'seconds'.*'fraction'.*'minutes'"),
        ({"beyond": "drop"}, "beyond.*'rank'.*'negative'.*'ignore'.*'drop'"),
    ],
)
def test_wrong_rules(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TimeRanks(**given)


def test_as_many_ranks_as_there_can_be() -> None:
    assert TimeRanks(range(125)).num_ranks == 127


def test_no_items() -> None:
    nothing = np.array([], dtype=object)  # as of a data frame without rows
    for empty in ([], nothing, np.zeros(0, dtype=np.float32)):
        assert TimeRanks.items([], empty, empty).shape == (0, 5)


def test_items_that_no_rule_takes() -> None:
    items = TimeRanks.items([0, 1], [0, 0], [0, 1], length=[0, 2])  # of one the length is not known
    parts = TimeRanks([0.1], unit="fraction")
    for take in (
        lambda rule, given: rule.describe(given, 2),
        lambda rule, given: rule.empty_ranks(given),
        ItemTimes,
    ):
        with pytest.raises(ValueError, match=r"^items must be .*\(items, 5\).*\(2, 4\)"):
            take(TimeRanks(), items[:, :4])
        with pytest.raises(ValueError, match=r"length of the videos, but items do not"):
            take(parts, items)
        take(TimeRanks(), items)


def test_wrong_pairs() -> None:
    items = TimeRanks.items([0, 1], [0, 0], [1, 1])
    with pytest.raises(ValueError, match=r"key_items.*\(items, 5\).*int64"):
        TimeRanks().ranks(items, items.float())
    with pytest.raises(ValueError, match="length.*query_items"):
        TimeRanks([0.1], unit="fraction").ranks(items, items)
    with pytest.raises(ValueError, match="only 1 keys"):
        TimeRanks().ranks(items, items[:1], ignore_self=True)


def test_unix_times() -> None:
    now = 1.7e9
    items = TimeRanks.items([0, 0], [now, now + 5], [now + 1, now + 6])
    assert TimeRanks((4.0,)).ranks(items, items).tile(ALL, ALL).tolist() == [[1, 2], [2, 1]]
    with pytest.warns(RinceWarning, match=r"start.*float32.*\b128 s"):
        TimeRanks.items([0, 0], torch.tensor([0, now]), [now + 100] * 2)


def test_times_that_their_type_keeps_too_coarsely() -> None:
    """A float32 steps by 1/128 s below 2^17 s, and by 1/64 s from there on."""
    below = np.array([2**17 - 1], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TimeRanks.items([0], below, below)
        TimeRanks.items([0], np.array([100], np.uint8), np.array([100], np.int8))
        TimeRanks.items([0], [0], [math.nextafter(2**32, 0)])
    with pytest.warns(RinceWarning, match=r"start.*float32.*\b0\.015625 s"):
        TimeRanks.items([0], below + 1, [2**17])
