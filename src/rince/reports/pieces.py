"""The pieces of HTML that the page is put together from; all text in them is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from rince.reports.figures import Picture
from rince.reports.run_report import one_line


def text(words: str) -> str:
    """Escaped, on one line, for an element or a quoted attribute.

    >>> text('<b>"cats"\\n& dogs')
    '&lt;b&gt;&quot;cats&quot; &amp; dogs'
    """
    return escape(one_line(words), quote=True)


def class_name(names: Sequence[str], index: int) -> str:
    """The name of a class or group; a number where the evaluation stored no name."""
    return names[index] if 0 <= index < len(names) else f"class {index}"


def section(anchor: str, heading: str, *parts: str) -> str:
    """A box of the page, to be linked as ``#anchor``; ``parts`` are HTML."""
    return f'<section id="{anchor}"><h2>{text(heading)}</h2>{"".join(parts)}</section>'


def guide(words: str) -> str:
    """One sentence on how to read what follows."""
    return f'<p class="guide">What to look at: {text(words)}</p>'


def part(heading: str, hint: str, *content: str) -> str:
    """A piece of a section, with one sentence on how to read it; ``content`` is HTML."""
    return f"<h3>{text(heading)}</h3>{guide(hint)}{''.join(content)}"


def note(words: str) -> str:
    """A remark in small print."""
    return f'<p class="note">{text(words)}</p>'


def figure(picture: Picture, spoken: str, caption: str = "", below: str = "") -> str:
    """A drawing on its card; ``spoken`` describes it to a screen reader, ``below`` is HTML."""
    shown = f"<figcaption>{text(caption)}</figcaption>" if caption else ""
    return (
        f'<figure class="card">{shown}<img src="{picture.uri}" alt="{text(spoken)}" '
        f'width="{picture.width}" height="{picture.height}">{below}</figure>'
    )


def figures_row(cards: Iterable[str]) -> str:
    """Cards beside each other where there is room, below each other on a phone."""
    return f'<div class="figures">{"".join(cards)}</div>'


def chips(entries: Iterable[tuple[str, str, str]]) -> str:
    """A legend that wraps: (mark, CSS of the mark, name) each; marks: dot, line, frame."""
    return (
        '<div class="chips">'
        + "".join(
            f'<span><i class="{mark}" style="{style}"></i>{text(name)}</span>'
            for mark, style, name in entries
        )
        + "</div>"
    )


def fold(summary: str, content: str) -> str:
    """HTML behind a line to click on."""
    return f"<details><summary>{text(summary)}</summary>{content}</details>"


def table(kind: str, head: Iterable[str], body: Iterable[str]) -> str:
    """Rows of HTML in a table that scrolls in its own box."""
    return (
        f'<div class="scroll"><table class="{kind}"><thead>{"".join(head)}</thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def key_table(corner: str, names: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    """A table with one column a run and one row a key."""
    heads = "".join(f'<th scope="col">{text(name)}</th>' for name in (corner, *names))
    body = (
        f'<tr><th scope="row">{text(key)}</th>'
        + "".join(f"<td>{text(cell)}</td>" for cell in cells)
        + "</tr>"
        for key, cells in rows.items()
    )
    return table("keys", [f"<tr>{heads}</tr>"], body)
