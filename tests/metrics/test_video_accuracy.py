from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rince.metrics.video import video_accuracy


def test_a_video_has_the_mean_probabilities_of_its_clips() -> None:
    # Video 0: one sure and two unsure clips; video 1 holds clips of both labels.
    logits = torch.tensor([[5.0, 0], [0, 0.5], [0, 0.5], [0, 3], [0, 3]])
    labels, videos = torch.tensor([0, 0, 0, 1, 0]), torch.tensor([0, 0, 0, 1, 1])
    assert video_accuracy(logits, labels, videos) == pytest.approx(2 / 3)
    # Probabilities, not logits: one clip, however sure, does not outvote two.
    sure = torch.tensor([[50.0, 0], [0, 3], [0, 3]])
    assert video_accuracy(sure, torch.tensor([1, 1, 1]), torch.tensor([0, 0, 0])) == 1
    with pytest.raises(ValueError, match=r"logits .*\(0, 2\)"):
        video_accuracy(logits[:0], labels[:0], videos[:0])
    # The largest of NaN is the first class.
    with pytest.raises(ValueError, match="1 of 5 logits hold NaN"):
        video_accuracy(logits.masked_fill(logits == 5, math.nan), labels, videos)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=7), st.data())
def test_it_is_its_definition(clips: list[tuple[int, int]], data: st.DataObject) -> None:
    """Of each video and label, the class whose probabilities add up to most; none are tied."""
    seed = data.draw(st.integers(0, 2**31))
    logits = 3 * torch.randn(len(clips), 3, generator=torch.Generator().manual_seed(seed))
    labels, videos = (torch.tensor(part) for part in zip(*clips, strict=True))
    right = []
    for group in sorted(set(clips)):
        own = [i for i, clip in enumerate(clips) if clip == group]
        powers = [[math.exp(x) for x in logits[i].tolist()] for i in own]
        shares = [sum(p[c] / sum(p) for p in powers) for c in range(3)]
        right.append(shares.index(max(shares)) == group[0])
    assert video_accuracy(logits, labels, videos) == pytest.approx(sum(right) / len(right))
