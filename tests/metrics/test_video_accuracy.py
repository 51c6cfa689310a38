from __future__ import annotations

import pytest
import torch

from rince.metrics.video import video_accuracy


def test_a_video_has_the_mean_probabilities_of_its_clips() -> None:
    # Video 0: one sure and two unsure clips; video 1 holds clips of both labels.
    logits = torch.tensor([[5.0, 0], [0, 0.5], [0, 0.5], [0, 3], [0, 3]])
    labels, videos = torch.tensor([0, 0, 0, 1, 0]), torch.tensor([0, 0, 0, 1, 1])
    assert video_accuracy(logits, labels, videos) == pytest.approx(2 / 3)
    # Probabilities, not logits: one clip, however sure, does not outvote two.
    sure = torch.tensor([[50.0, 0], [0, 3], [0, 3]])
    assert video_accuracy(sure, torch.tensor([1, 1, 1]), torch.tensor([0, 0, 0])) == 1
    with pytest.raises(ValueError, match="no logits"):
        video_accuracy(logits[:0], labels[:0], videos[:0])
