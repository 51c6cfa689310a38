"""What a notebook shows of our objects, and whether somebody sees a progress bar."""

from __future__ import annotations

import html
import importlib.util
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rince.core.checks import import_extra


def as_html(shown: object) -> str:
    """As it prints; ``_repr_html_ = as_html`` in a class makes notebooks show it so."""
    return f"<pre>{html.escape(str(shown))}</pre>"


def html_table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table for a notebook; a row begins with its name."""
    names = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    lines = (
        f"<tr><th>{html.escape(name)}</th>{''.join(f'<td>{html.escape(x)}</td>' for x in cells)}"
        for name, *cells in rows
    )
    body = "</tr>".join((*lines, ""))
    return (
        f"<table><caption>{html.escape(caption)}</caption>"
        f"<thead><tr>{names}</tr></thead><tbody>{body}</tbody></table>"
    )


def in_notebook() -> bool:
    """A notebook shows what is written, though its streams are no terminals."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def is_interactive() -> bool:
    """A notebook, or Python at a prompt or with ``-i``."""
    return hasattr(sys, "ps1") or bool(sys.flags.interactive)


def is_watched() -> bool:
    """Whether somebody sees a progress bar that is written to stderr."""
    return sys.stderr.isatty() or in_notebook()


def progress_bar(what: str, total: int, *, hidden: bool) -> Any:
    """A tqdm bar, in a notebook as a widget if it can show widgets; gone when it is full."""
    widgets = in_notebook() and importlib.util.find_spec("ipywidgets") is not None
    tqdm = import_extra("tqdm.notebook" if widgets else "tqdm", "train").tqdm
    return tqdm(desc=what, total=total, disable=hidden, leave=False)
