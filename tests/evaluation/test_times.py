"""Clips judged by time, against loops over all pairs."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rince import TimeRanks
from rince.core.pair_ranks import DenseRanks
from rince.evaluation.times import recall_by_rank, similarity_over_time, video_accuracy
from rince.ranks.time import seconds_apart

# Few directions, so that similarities tie.
VECTORS = st.sampled_from([(1.0, 0.0), (0.8, 0.6), (0.6, 0.8), (0.0, 1.0), (-1.0, 0.0)])


@given(st.data())
def test_recall(data: st.DataObject) -> None:
    queries, keys = (data.draw(st.lists(VECTORS, min_size=1, max_size=6)) for _ in range(2))
    codes = st.lists(st.integers(-1, 3), min_size=len(keys), max_size=len(keys))
    ranks = [data.draw(codes) for _ in queries]
    worst = data.draw(st.integers(1, 3))
    expected: dict[int, list[bool]] = {1: [], 2: [], 5: []}
    for query, row in zip(queries, ranks, strict=True):
        scored = [
            (round(query[0] * key[0] + query[1] * key[1], 6), 1 <= rank <= worst)
            for key, rank in zip(keys, row, strict=True)
            if rank != -1
        ]
        if not any(wanted for _, wanted in scored):
            continue
        nearest = sorted(scored, key=lambda s: (-s[0], s[1]))  # of ties, the unwanted first
        for k, hits in expected.items():
            hits.append(any(wanted for _, wanted in nearest[:k]))
    found = recall_by_rank(
        torch.tensor(queries), torch.tensor(keys), DenseRanks(torch.tensor(ranks)),
        worst_rank=worst, ks=(1, 2, 5), chunk_size=2,
    )  # fmt: skip
    assert found == pytest.approx({k: sum(h) / len(h) for k, h in expected.items() if h})


def test_videos_are_judged_by_the_mean_of_their_clips() -> None:
    # Video 0: one sure and two unsure clips; video 1 holds clips of both labels.
    logits = torch.tensor([[5.0, 0], [0, 0.5], [0, 0.5], [0, 3], [0, 3]])
    labels, videos = torch.tensor([0, 0, 0, 1, 0]), torch.tensor([0, 0, 0, 1, 1])
    assert video_accuracy(logits, labels, videos) == pytest.approx(2 / 3)
    # Probabilities, not logits: one clip, however sure, does not outvote two.
    sure = torch.tensor([[50.0, 0], [0, 3], [0, 3]])
    assert video_accuracy(sure, torch.tensor([1, 1, 1]), torch.tensor([0, 0, 0])) == 1
    with pytest.raises(ValueError, match="no logits"):
        video_accuracy(logits[:0], labels[:0], videos[:0])


def test_seconds_apart() -> None:
    items = TimeRanks.items([0, 0, 0, 1], [0, 1.5, 2.0, 0], [1, 3, 2.5, 1])
    inf = math.inf
    expected = [[0, 0.5, 1, inf], [0.5, 0, 0, inf], [1, 0, 0, inf], [inf, inf, inf, 0]]
    assert seconds_apart(items, items).tolist() == expected


def test_similarity_over_time() -> None:
    generator = torch.Generator().manual_seed(0)
    count = 40
    start = torch.rand(count, generator=generator).double() * 30
    video = torch.randint(0, 3, (count,), generator=generator)
    items = TimeRanks.items(video, start, start + 0.3)
    features = torch.randn(count, 5, generator=generator)
    curve = similarity_over_time(features, items, chunk_size=7)
    edges = [0, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50]
    points: dict[int, list[tuple[float, float]]] = {}
    others = []
    for i in range(count):
        for j in range(i):
            cosine = float(torch.cosine_similarity(features[i], features[j], dim=0))
            if video[i] != video[j]:
                others.append(cosine)
                continue
            gap = max(0.0, abs(round(float(start[i]), 6) - round(float(start[j]), 6)) - 0.3)
            place = max(e for e, edge in enumerate(edges) if gap >= edge)
            points.setdefault(place, []).append((gap, cosine))
    assert curve.pairs.tolist() == [len(points[p]) for p in sorted(points)]
    for k, place in enumerate(sorted(points)):
        gaps, cosines = zip(*points[place], strict=True)
        assert curve.seconds[k] == pytest.approx(sum(gaps) / len(gaps), abs=2e-6)
        assert curve.similarity[k] == pytest.approx(sum(cosines) / len(cosines), abs=1e-6)
    assert curve.other_videos == pytest.approx(sum(others) / len(others), abs=1e-6)
    alone = similarity_over_time(features[:1], items[:1])
    assert len(alone.seconds) == 0
    assert math.isnan(alone.other_videos)
