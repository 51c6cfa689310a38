"""Models of the Hugging Face hub, on machines that may have no network."""

from __future__ import annotations

import contextlib
import importlib
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_PATIENCE = 5  # seconds


def hub_for(model: str) -> contextlib.AbstractContextManager[str]:
    """:func:`hub_or_cache`, which a folder of a model has no need of."""
    return contextlib.nullcontext("") if Path(model).exists() else hub_or_cache()


@contextlib.contextmanager
def hub_or_cache() -> Iterator[str]:
    """Within it, huggingface_hub looks into its cache alone where the hub is not reached; else it
    tries for a minute. ``HF_HUB_OFFLINE=1`` says that there is no network without any try. Yields
    the folder of its cache."""
    try:
        constants: Any = importlib.import_module("huggingface_hub.constants")
    except ModuleNotFoundError:
        yield ""
        return
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _reached(constants.ENDPOINT)
    try:
        yield str(constants.HF_HUB_CACHE)
    finally:
        constants.HF_HUB_OFFLINE = before


def _reached(url: str) -> bool:
    """Whether something answers; a proxy is taken for one."""
    where = urlsplit(url)
    if urllib.request.getproxies():
        return True
    try:
        port = where.port or (80 if where.scheme == "http" else 443)
        with socket.create_connection((where.hostname or "", port), timeout=_PATIENCE):
            return True
    except (OSError, ValueError):
        return False
