"""What `mkdocs build` does beyond its plugins; mkdocs.yml names this file."""

from __future__ import annotations

import html
import logging
import posixpath
import re
from pathlib import Path
from typing import Any

import griffe
from latex2mathml.converter import convert
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
# Pages and pictures of the site that live outside docs/, beside what they are about.
ELSEWHERE = ("CHANGELOG.md", "benchmarks/*.md", "benchmarks/*.png", "experiments/*/README.md")
# An address that the browser would load by itself; links to follow are welcome.
LOADS = re.compile(r'<(?:script|img|iframe|link)\b[^>]*?\b(?:src|href)="?((?:https?:)?//[^\s">]+)')
logger = logging.getLogger("mkdocs.hooks.rince")  # below "mkdocs", so that --strict counts it


def on_files(files: Any, config: Any) -> Any:
    for pattern in ELSEWHERE:
        for path in sorted(ROOT.glob(pattern)):
            uri = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links hold in the repository; make them hold in the site, or drop those to source files."""
    here = Path(page.file.abs_src_path).relative_to(ROOT).parent.as_posix()

    def fixed(link: re.Match[str]) -> str:
        text, target, anchor = link.groups()
        path = posixpath.normpath(posixpath.join(here, target))
        uri = path.removeprefix("docs/")
        if files.get_file_from_path(uri):
            target = posixpath.relpath(uri, posixpath.dirname(page.file.src_uri))
            return f"[{text}]({target}{anchor})"
        return text if (ROOT / path).exists() else link[0]

    return re.sub(r"\[([^\]]*)\]\((?!\w+:|#)([^)#\s]+)(#[^)]*|)\)", fixed, markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Formulas as MathML, which browsers draw without a script."""

    def drawn(formula: re.Match[str]) -> str:
        display = "block" if formula[1] == "div" else "inline"
        return convert(html.unescape(formula[2]), display=display)

    return re.sub(
        r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', drawn, content, flags=re.DOTALL
    )


def on_post_page(output: str, page: Any, **_: Any) -> str:
    for address in LOADS.findall(output):
        logger.warning("%s would load %s from another machine", page.file.src_uri, address)
    return output


class Docstrings(griffe.Extension):
    """Our docstrings have Sphinx's roles and bare doctests; Markdown wants links and fences."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value, obj)


def as_markdown(text: str, obj: griffe.Object) -> str:
    def link(role: re.Match[str]) -> str:
        short, name = role[1] == "~", role[2]
        try:
            target = obj.resolve(name)
        except griffe.NameResolutionError:
            target = name
        shown = name.rpartition(".")[2] if short else name
        return f'<autoref identifier="{target}" optional><code>{shown}</code></autoref>'

    text = re.sub(r":(?:func|class|meth|mod):`(?:[^`<]*<)?(~?)([\w.]+)>?`", link, text)
    text = re.sub(r":math:`([^`]+)`", lambda m: rf"\({' '.join(m[1].split())}\)", text)
    text = re.sub(
        r"\.\. math::\n((?:\n| +.*(?:\n|$))+)",
        lambda m: "$$\n" + re.sub(r"(?m)^ +|\n+\Z", "", m[1]) + "\n$$\n\n",
        text,
    )
    text = re.sub(r"(?m)::$", ":", text)
    # Two arguments on one line: griffe wants a line each.
    text = re.sub(r"(?m)^( {4}\w+: .*?\.) (?=[a-z_]+: )", r"\1\n    ", text)
    return re.sub(
        r"(?m)^( *)>>> .*(?:\n\1\S.*)*", lambda m: f"{m[1]}```pycon\n{m[0]}\n{m[1]}```", text
    )
