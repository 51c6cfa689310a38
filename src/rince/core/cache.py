"""Where files that can be made again are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(*names: str) -> Path:
    """``~/.cache/rince/<names>``, or below ``XDG_CACHE_HOME`` where that is set; not created."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache").joinpath("rince", *names)
