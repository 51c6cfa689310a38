"""Similarity over time, against a loop over all pairs."""

from __future__ import annotations

import math

import pytest
import torch

from rince import TimeRanks
from rince.evaluation.times import similarity_over_time


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
