"""Which device ``--device`` means, on machines of every kind."""

from __future__ import annotations

import pytest
import torch

from rince.core.devices import known_device, pinned, sent


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


def test_only_what_goes_from_the_cpu_to_a_card_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.ones(2)
    copy = x.clone()
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda _: copy)
    assert pinned(x, "cuda:1") is copy
    assert pinned(x, "cpu") is x
    elsewhere = torch.ones(2, device="meta")
    assert pinned(elsewhere, "cuda") is elsewhere


@pytest.mark.parametrize(("device", "waits"), [("cuda", False), ("cpu", True), ("mps", True)])
def test_only_the_way_to_a_card_is_not_waited_for(
    device: str, waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: x)
    monkeypatch.setattr(torch.Tensor, "to", lambda _, *given, **named: asked.append((given, named)))
    sent(torch.ones(2), device)
    assert asked == [((device,), {"non_blocking": not waits})]
