"""What the verbs that only look say of a tree in a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from refusals import refusal
from rince.cli.main import main


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for split, names in (("train", ["carp", "husky", "pug"]), ("test", ["carp", "ferry", "pug"])):
        for name in names:
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for i in range(3):
                Image.new("L", (16, 16), i).save(folder / f"{i}.png")
    edges = ["husky,dog", "pug,dog", "dog,animal", "carp,animal", "ferry,boat", "canoe,boat"]
    (tmp_path / "tree.csv").write_text("\n".join(["child,parent", *edges]))
    (tmp_path / "classes.csv").write_text("class\nferry\npug\ncanoe\n")
    return tmp_path


pytestmark = pytest.mark.filterwarnings("ignore:.*are not among those of the training")


def test_ranks(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = {}
    for option in ("--tree", "--ranks.tree"):
        assert main(["ranks", "photos", option, "tree.csv", "--names"]) == 0
        shown[option] = capsys.readouterr().out
    assert shown["--tree"] == shown["--ranks.tree"]
    assert "classes: 3, ranks: 3" in shown["--tree"]
    assert shown["--tree"].splitlines()[-3:] == [
        "  animal > carp",
        "  animal > dog > husky",
        "  animal > dog > pug",
    ]
    # Of a table of classes, too, and whether or not scores rank them.
    assert main(["ranks", "classes.csv", "--tree", "tree.csv", "--names"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-3:] == ["  boat > ferry", "  animal > dog > pug", "  boat > canoe"]
    assert "ranks.tree is for ranks.by classes" in refusal(
        ["ranks", "photos", "--by", "time", "--tree", "tree.csv"], capsys
    )
    assert "fashion-mnist has superclasses of its own, such as tops/T-shirt/top" in refusal(
        ["ranks", "fashion-mnist", "--tree", "tree.csv"], capsys
    )


def test_check(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "photos", "--ranks.tree", "tree.csv"]) == 0
    assert main(["check", "classes.csv", "--ranks.tree", "tree.csv"]) == 0
    (here / "less.csv").write_text("class,group\nhusky,dog\ncarp,fish\npug,dog\n")
    for verb in ("check", "ranks"):
        said = refusal([verb, "photos", "--ranks.tree", "less.csv"], capsys)
        assert "unknown class 'ferry'" in said  # of the test
        said = refusal([verb, "classes.csv", "--ranks.tree", "less.csv"], capsys)
        assert "2 names are none of the 3 classes: 'ferry', 'canoe'" in said
