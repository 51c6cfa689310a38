"""A training leaves the caller's random numbers as they were."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import torch
from small_runs import flat_backbone, small_config

from rince.training.run import resume, train


def _drawn() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), float(torch.rand(()))


def test_the_callers_generators_go_on(image_tree: Path, tmp_path: Path) -> None:
    """As a random search in Python needs it."""
    first, second = flat_backbone(), flat_backbone()  # which draw, too
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    expected = [_drawn() for _ in range(3)]
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    before = {name: value for name, value in os.environ.items() if name.startswith("PL_")}
    found = [_drawn()]
    folder = train(small_config(image_tree, tmp_path, epochs=1), first)
    found.append(_drawn())
    resume(folder, epochs=2, progress=False, backbone=second)
    found.append(_drawn())
    assert found == expected
    assert {name: x for name, x in os.environ.items() if name.startswith("PL_")} == before
