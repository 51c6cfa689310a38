"""A hub that is not reached is not asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rince.core.hub import hub_or_cache

constants = pytest.importorskip(
    "huggingface_hub.constants", reason="huggingface_hub is not installed"
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[str, int]]]:
    """Where it looks, by what the address is, and what happens there."""

    def set_up(
        address: str, answers: bool = True, offline: bool = False, proxy: bool = False
    ) -> list[tuple[str, int]]:
        places: list[tuple[str, int]] = []

        def connect(where: tuple[str, int], timeout: float) -> Any:
            places.append(where)
            if not answers:
                raise OSError("no route")
            return memoryview(b"")  # to be closed by with

        monkeypatch.setattr("socket.create_connection", connect)
        monkeypatch.setattr(
            "urllib.request.getproxies", lambda: {"https": "proxy:1"} if proxy else {}
        )
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        return places

    return set_up


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("https://hub.example", ("hub.example", 443)),
        ("http://hub.example", ("hub.example", 80)),
        ("https://hub.example:8080", ("hub.example", 8080)),
        ("file:///a/folder", ("", 443)),
    ],
)
@pytest.mark.parametrize("answers", [True, False])
def test_it_is_asked_once(
    address: str, place: tuple[str, int], answers: bool, asked: Callable[..., Any]
) -> None:
    places = asked(address, answers)
    with hub_or_cache() as cache:
        assert constants.HF_HUB_OFFLINE is not answers
        assert cache == str(constants.HF_HUB_CACHE)
    assert places == [place]
    assert constants.HF_HUB_OFFLINE is False  # as before


@pytest.mark.parametrize(
    ("given", "offline"),
    [
        ({"offline": True}, True),
        ({"proxy": True}, False),
        ({"proxy": True, "offline": True}, True),
    ],
)
def test_or_not_at_all(given: dict[str, bool], offline: bool, asked: Callable[..., Any]) -> None:
    places = asked("https://hub.example", **given)
    with hub_or_cache():
        assert constants.HF_HUB_OFFLINE is offline
    assert places == []


def test_an_address_that_is_none(asked: Callable[..., Any]) -> None:
    asked("https://hub.example:no-port")
    with hub_or_cache():
        assert constants.HF_HUB_OFFLINE is True
