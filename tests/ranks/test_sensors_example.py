"""Ranks from time on a sensor, by way of examples/sensors.py."""

from __future__ import annotations

import pytest
import sensors
import torch


def test_it_learns_the_regimes_that_nothing_names() -> None:
    """Measured in full, 3 seeds: raw 76 %, untrained 83 %, trained 91 %."""
    found = sensors.run(0, seconds=300, steps=60)
    assert 1 / 3 <= found["chance"] < 0.6
    assert found["ranks from time"] > found["untrained"] > found["raw window"] > found["chance"]
    assert found["ranks from time"] > found["raw window"] + 0.1


def test_the_series() -> None:
    series, regimes = sensors.lorenz(40, seed=1)
    assert series.shape == (3, 2000)
    assert torch.isfinite(series).all()
    assert set(regimes.tolist()) == {0, 1, 2}
    changes = (regimes[1:] != regimes[:-1]).nonzero()[:, 0]
    dwell = changes.diff() / sensors.RATE
    assert bool(((dwell >= 3.9) & (dwell <= 12.1)).all())  # half to one and a half of 8 seconds
    cut, items, labels = sensors.windows(series, regimes)
    assert cut.shape == (len(items), 3, sensors.WINDOW)
    assert items[3].tolist() == [0, 1_500_000, 2_500_000, -1, 0]
    assert int(labels[3]) == int(regimes[3 * sensors.HOP + sensors.WINDOW // 2])


def test_the_judge_by_hand() -> None:
    past = torch.eye(2).repeat_interleave(10, dim=0)
    of = torch.tensor([0] * 10 + [1] * 10)
    later, truth = torch.tensor([[1.0, 0.1], [0.1, 1.0], [1.0, 0.0]]), torch.tensor([0, 1, 1])
    assert sensors.regime_accuracy(past, of, later, truth) == pytest.approx(2 / 3)


def test_the_script_prints_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    sensors.main(["--smoke"])
    text = capsys.readouterr().out
    for name in ("chance", "raw window", "untrained", "ranks from time", "up to 2 s apart"):
        assert name in text
