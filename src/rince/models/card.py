"""The text of a model card, in the form of the Hugging Face Hub: Markdown below a head of YAML."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from rince.core.checks import import_extra
from rince.models.options import LIBRARIES

CARD_FILE = "README.md"

_CARD = """---
{head}
# license: for you to choose; the {inputs} it was trained on may set terms
---

# {name}

{about}

{sections}

## Licence, intended use, limits

For you to fill in before you publish this: the licence of the weights, the terms of the {inputs},
what it is for, and what it must not be used for. Nothing but the results above was measured.
"""


def card_text(name: str, about: str, sections: Mapping[str, str], *, head: str, inputs: str) -> str:
    """A card.

    Args:
        name: its heading. about: a sentence below it.
        sections: heading -> Markdown. head: lines of YAML. inputs: what was trained on.
    """
    return _CARD.format(
        head=head,
        inputs=inputs,
        name=" ".join(name.split()),
        about=about,
        sections="\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items()),
    )


def recipe(config: Mapping[str, Any], versions: Mapping[str, str]) -> str:
    """Options and versions for a card; of paths that begin elsewhere only the last part, as cards
    are published and folders tell of people."""
    kept = {name: last_part(value) for name, value in config.items()}
    options = import_extra("yaml", "train").safe_dump(kept, sort_keys=False)
    rows = "\n".join(f"| {package} | {version} |" for package, version in versions.items())
    return f"```yaml\n{options}```\n\n| version | |\n|:---|:---|\n{rows}"


def last_part(value: Any) -> Any:
    """Of an absolute path, or one that leads out of the folder that it begins in, its last part,
    also behind ``hf/`` and inside of mappings; anything else as it is.

    >>> last_part({"data": "/home/anna/photos", "backbone": "hf/../dinov2"})
    {'data': 'photos', 'backbone': 'hf/dinov2'}
    """
    if isinstance(value, Mapping):
        return {name: last_part(inside) for name, inside in value.items()}
    if not isinstance(value, str):
        return value
    library, slash, model = value.partition("/")
    before, path = (library + slash, model) if library in LIBRARIES else ("", value)
    return before + PurePath(path).name if path.startswith(("/", "~", "../")) else value
