"""Nothing outside rince.data asks which kind of data it has: such branches are counted."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "rince"
# What data of old checkpoints and exports are, in terms of the new.
TRANSLATION = "core/input_spec.py"

ITEM_CLASSES = {"TensorImages", "FileImages", "VideoClips", "Texts", "Vectors"}
NETWORK_CLASSES = {"SentenceModel", "ImageEncoder", "TextEncoder"}
WORDS = {"images", "clips", "texts", "videos", "vectors"}
TRIPLE = {"frames", "channels", "in_channels", "kind", "noun", "inputs", "stride"}


def name_of(node: ast.AST) -> str:
    """``x.y.frames`` -> frames, ``frames`` -> frames."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def branches(code: str) -> Iterator[int]:
    """Lines that ask which kind of data they have."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and name_of(node.func) == "isinstance":
            classes = {name_of(inner) for inner in ast.walk(node.args[1])}
            if classes & (ITEM_CLASSES | NETWORK_CLASSES):
                yield node.lineno
        elif isinstance(node, ast.Call) and name_of(node.func) in ("path_column", "holds_videos"):
            yield node.lineno
        elif isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            constants = [side.value for side in sides if isinstance(side, ast.Constant)]
            asked = TRIPLE & {name_of(side) for side in sides}
            # `x.frames is None`, `x.channels == 0`, `items.noun == "texts"`.
            if asked and any(c is None or c == 0 or c in WORDS for c in constants):
                yield node.lineno


def test_the_count_finds_what_it_looks_for() -> None:
    for line, asks in (
        ("isinstance(x, Texts)", True),
        ("isinstance(x, (int, data.VideoClips))", True),
        ("isinstance(encoder, SentenceModel | ImageEncoder)", True),
        ("isinstance(x, Tensor)", False),
        ("y = 1 if run.frames is None else 2", True),
        ("if spec.channels == 0: pass", True),
        ("if spec.channels == 3: pass", False),
        ("if items.noun == 'texts': pass", True),
        ("if items.times is None: pass", False),
        ("path_column(path)", True),
        ("table.path_column(path)", True),
    ):
        assert bool(list(branches(line))) is asks, line


def test_nothing_outside_data_asks_for_the_kind() -> None:
    asking: dict[str, list[int]] = {}
    for file in sorted(SOURCE.rglob("*.py")):
        name = file.relative_to(SOURCE).as_posix()
        if not name.startswith("data/") and name != TRANSLATION:
            lines = list(branches(file.read_text()))
            if lines:
                asking[name] = lines
    assert not asking, f"these lines ask which kind of data they have: {asking}"


@pytest.mark.parametrize("module", ["rince.data.kinds", "rince.core.input_spec"])
def test_no_torch_to_tell_a_kind(module: str) -> None:
    import subprocess
    import sys

    code = f"import sys, {module}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
