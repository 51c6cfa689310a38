"""The README's example runs as it is written."""

from __future__ import annotations

import re
from pathlib import Path

import torch

README = Path(__file__).parents[1] / "README.md"


def test_the_training_loop(image_tree: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(code.strip().splitlines()) <= 11
    code = code.replace('"photos/"', repr(str(image_tree)))
    encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 8))
    before = encoder[1].weight.detach().clone()
    generator = torch.Generator().manual_seed(0)
    names = {
        "encoder": encoder,
        "optimizer": torch.optim.SGD(encoder.parameters(), lr=0.1),
        "loader": [
            (torch.randn(16, 3, 2, 2, generator=generator), torch.arange(16) % 4) for _ in range(2)
        ],
    }
    exec(code, names)
    assert names["loss"].item() > 0
    assert not torch.equal(encoder[1].weight, before)


def test_no_marker_was_left_behind() -> None:
    assert "@@" not in README.read_text(encoding="utf-8")


def test_every_file_that_it_links_to_exists() -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", README.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (README.parent / link).exists()] == []
