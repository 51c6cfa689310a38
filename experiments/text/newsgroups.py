"""The posts of 20 Newsgroups without quotes and addresses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any


def posts(folder: Path) -> Any:
    """A data frame (text, group, coarse, top, split, id) of posts of at least 50 characters."""
    import pandas

    frame = pandas.read_parquet(folder / "newsgroups20.parquet").sort_values("id")
    frame["text"] = [without_quotes(text) for text in frame["text"]]
    return frame[frame["text"].str.len() >= 50]


def without_quotes(text: str) -> str:
    """Without quoted lines, their introductions, and addresses: these tell who wrote to whom."""
    kept = [
        line
        for line in text.splitlines()
        if not re.match(r"\s*[>|:}]|.*(writes|wrote|says)\s*:\s*$", line)
    ]
    return " ".join(re.sub(r"\S+@\S+", "", " ".join(kept)).split())
