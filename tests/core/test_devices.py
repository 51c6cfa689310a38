"""Which device ``--device`` means, on machines of every kind."""

from __future__ import annotations

import pytest
import torch

from rince.core.devices import known_device


@pytest.fixture
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    cards, mps = request.param
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cards > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("machine", "name", "device"),
    [
        ((0, False), "auto", "cpu"),
        ((0, True), "auto", "cpu"),
        ((0, True), "mps", "mps"),
        ((2, False), "auto", "cuda"),
        ((2, False), "cuda", "cuda"),
        ((2, False), "cuda:1", "cuda:1"),
        ((2, False), "cpu", "cpu"),
    ],
    indirect=["machine"],
)
@pytest.mark.usefixtures("machine")
def test_the_device_that_is_meant(name: str, device: str) -> None:
    assert known_device(name) == device


@pytest.mark.parametrize(
    ("machine", "name", "listed"),
    [((0, False), "cuda", "it has cpu \\("), ((0, False), "mps", "it has cpu \\("),
     ((2, False), "cuda:2", "it has cpu, cuda, cuda:0, cuda:1 \\(")],
    indirect=["machine"],
)  # fmt: skip
@pytest.mark.usefixtures("machine")
def test_a_device_that_is_not_there(name: str, listed: str) -> None:
    with pytest.raises(ValueError, match=f"{name} .*{listed}"):
        known_device(name)
