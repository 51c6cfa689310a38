"""Every code block of the README and the site does what it says.

``python`` and ``pycon`` blocks run, page by page in one namespace; of ``pycon`` and of ``console``
(a shell session with ``rince ranks``) the output shown is compared. Lines of ``sh`` blocks go
through the real parsers, which refuse unknown options, and do no work. ``yaml`` is a training
configuration. A block with a title is a file of that name. ``text``, ``csv``, ``bibtex`` and
``diff`` are only to read. ``<!-- not run: WHY -->`` before a block takes it out; such blocks are
counted here. Python and commands of ``docs/recipes/`` run in ``tests/test_docs_recipes.py``.
"""

from __future__ import annotations

import contextlib
import doctest
import importlib
import inspect
import io
import re
import runpy
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import rince
import rince.metrics
import rince.ranks
from rince.cli.main import main

ROOT = Path(__file__).parents[1]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
    *sorted(ROOT.glob("benchmarks/*.md")),
    *sorted(ROOT.glob("experiments/*/README.md")),
]
NOT_RUN = ["it needs an export, which takes a trained run"] * 2  # the reasons, one a block
TO_READ = ("text", "csv", "bibtex", "diff")
BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<why>.+?) -->\n+)?"
    r'^```(?P<language>\w*)(?: title="(?P<title>.+?)")?\n(?P<code>.*?)^```$',
    re.MULTILINE | re.DOTALL,
)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    language: str
    title: str | None
    code: str
    line: int  # of the first line of code
    why: str | None


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = [
        Block(m["language"], m["title"], m["code"], text.count("\n", 0, m.start("code")), m["why"])
        for m in BLOCK.finditer(text)
    ]
    assert text.count("```") == 2 * len(found), f"{page}: a fence that is not understood"
    return found


class Parsed(Exception):
    """The arguments are right; nothing more is wanted."""


@pytest.fixture
def workspace(tmp_path: Path, image_tree: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what pages take for granted: photos/, and the repository's own files."""
    (tmp_path / "photos").symlink_to(image_tree)
    for name in ("examples", "experiments", "benchmarks", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks(page: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    namespace = names_taken_for_granted()
    for block in blocks(page):
        place = f"{page.relative_to(ROOT)}:{block.line + 1}"
        if block.title:
            (workspace / block.title).write_text(block.code, encoding="utf-8")
        if block.why or block.language in TO_READ:
            continue
        if block.language == "python":
            if page.parent.name != "recipes":  # on real data: tests/test_docs_recipes.py
                run_python(block, place, namespace)
        elif block.language == "pycon":
            run_session(block, place, namespace)
        elif block.language == "console":
            compare_output(block.code, place)
        elif block.language == "sh":
            for line in block.code.replace("\\\n", " ").splitlines():
                check_command(line, place, monkeypatch)
        else:
            assert (block.language, bool(block.title)) == ("yaml", True), f"{place}: what is this?"
            check_command(f"rince train photos/ --config {block.title}", place, monkeypatch)


def test_blocks_that_do_not_run() -> None:
    assert [block.why for page in PAGES for block in blocks(page) if block.why] == NOT_RUN


def test_wrong_commands_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    for line in (
        "rince train photos/ --loss.varian in",
        "rince train photos/ --loss.variant both",
        "rince train photos/ --batch-size 10 --batches.images-per-class 4",
        "rince evaluate runs/latest --odd digits",
        "rince explain photos/",
        "python -m rince compare",
        "python examples/none.py",
        "pip install '.[everything]'",
        "make tests",
        "curl example.org",
    ):
        with pytest.raises(AssertionError):
            check_command(line, "here", monkeypatch)
    with pytest.raises(AssertionError):
        compare_output("$ rince ranks cifar100\nclasses: 10, ranks: 2\n...\n", "here")


def test_the_training_loop_of_the_readme_is_short_and_trains(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = [b for b in blocks(ROOT / "README.md") if b.language == "python"]
    assert len(block.code.strip().splitlines()) <= 10
    namespace = names_taken_for_granted()
    before = namespace["encoder"][1].weight.detach().clone()
    run_python(block, "README.md", namespace)
    assert namespace["loss"].item() > 0
    assert not torch.equal(namespace["encoder"][1].weight, before)


def test_the_readme_has_no_marker_and_no_broken_link() -> None:
    """The links of the site are checked by ``mkdocs build --strict``."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "@@" not in text
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", text)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_public_name_has_its_place_in_the_reference() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in ROOT.glob("docs/api/*.md"))
    listed = set(re.findall(r"(?m)^::: rince\.(?:\w+\.)*(\w+)$", pages))
    rooms = {name for name in rince.__all__ if inspect.ismodule(getattr(rince, name))}
    assert set(rince.__all__) - rooms - {"__version__"} <= listed
    assert {*rince.ranks.__all__, *rince.losses.__all__, *rince.reports.__all__} <= listed
    metrics = re.findall(r"(?m)^::: rince\.metrics\.(\w+)$", pages)
    assert sorted(metrics) == sorted(rince.metrics.__all__)


def test_log_lines_look_as_training_writes_them() -> None:
    from rince.training.callbacks import epoch_line

    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    lines = re.findall(r"(?m)^epoch .*$", text)
    assert len(lines) == 6
    for line in lines:
        head, *parts = line.split(" | ")
        epoch, epochs, *_ = (int(x) for x in re.findall(r"\d+", head))
        means = {"train/loss": number(parts[0]), "online_knn": number(parts[4]) / 100}
        for rank, part in ((1, parts[1]), (2, parts[2]), (0, parts[3])):
            for shown in part.split(": ")[1].split(", "):
                means[f"train/{shown.split()[0]}_rank_{rank}"] = number(shown)
        assert epoch_line(epoch, epochs, means, number(parts[5])) == line


def number(text: str) -> float:
    return float(re.findall(r"[\d.]+", text)[0])


def test_docstrings_become_markdown() -> None:
    pytest.importorskip("griffe")
    hooks = runpy.run_path(str(ROOT / "docs" / "hooks.py"))
    griffe = importlib.import_module("griffe")
    module = griffe.Module("rince")
    module["gather"] = griffe.Function("gather")
    text = """See :func:`~rince.gather`, :func:`gather` and :math:`x
    ^2`::

        a literal block

    .. math::
        L = 1

    Args:
        query: (Q, D). gallery_features: (G, D) float.

    >>> 1 + 1
    2
    """
    found = hooks["as_markdown"](inspect.cleandoc(text), module)
    assert '<autoref identifier="rince.gather" optional><code>gather</code></autoref>' in found
    assert found.count('"rince.gather"') == 2
    assert r"\(x ^2\):" in found
    assert "$$\nL = 1\n$$" in found
    assert "query: (Q, D).\n    gallery_features: (G, D) float." in found
    assert "```pycon\n>>> 1 + 1\n2\n```" in found
    assert "<math" in hooks["on_page_content"](r'<span class="arithmatex">\(x^2\)</span>')
    for html in (
        '<script src="https://unpkg.com/a.js">',
        "<link rel=stylesheet href=//fonts.example/b.css>",
        '<img alt="c" src="http://example.org/c.png">',
    ):
        assert hooks["LOADS"].findall(html)
    for html in ('<a href="https://arxiv.org">', '<script src="assets/a.js">'):
        assert not hooks["LOADS"].findall(html)


def names_taken_for_granted() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 8))
    images = [torch.randn(16, 3, 2, 2, generator=generator) for _ in range(2)]
    return {
        "__name__": "docs",
        "encoder": encoder,
        "optimizer": torch.optim.SGD(encoder.parameters(), lr=0.1),
        "loader": [(x, torch.arange(16) % 4) for x in images],
    }


def run_python(block: Block, place: str, namespace: dict[str, Any]) -> None:
    if block.code.startswith("--8<--"):  # a file, with tests of its own: tests/test_examples.py
        assert (ROOT / shlex.split(block.code)[1]).is_file(), place
        return
    try:
        exec(compile("\n" * block.line + block.code, place, "exec"), namespace)
    except ModuleNotFoundError as error:
        if str(error.name).startswith("rince"):
            raise
        pytest.skip(f"{place}: {error}")


def run_session(block: Block, place: str, namespace: dict[str, Any]) -> None:
    session = doctest.DocTestParser().get_doctest(block.code, namespace, place, place, block.line)
    report = io.StringIO()
    result = doctest.DocTestRunner(optionflags=FLAGS).run(
        session, out=report.write, clear_globs=False
    )
    namespace.update(session.globs)
    assert result.attempted > 0, place
    assert result.failed == 0, report.getvalue()


def compare_output(code: str, place: str) -> None:
    """``$ rince ranks ...`` and what it prints, where a line ``...`` stands for any lines."""
    command, _, shown = code.partition("\n")
    assert command.startswith("$ rince ranks "), f"{place}: only rince ranks is run"
    arguments = shlex.split(command)[2:]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(arguments) == 0, place
    checker = doctest.OutputChecker()
    assert checker.check_output(shown, printed.getvalue(), doctest.ELLIPSIS), (
        f"{place}: {command}\nprints\n{printed.getvalue()}"
    )


def check_command(line: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(line, comments=True)
    while words and re.match(r"[A-Z_]+=", words[0]):
        del words[0]
    if not words:
        return
    if "-m" in words:  # python -m rince, torchrun ... -m rince
        words = words[words.index("-m") + 1 :]
    program, rest = words[0], words[1:]
    if program.startswith("experiments/"):
        assert (ROOT / program).is_file(), f"{place}: {line}"
    elif program == "rince":
        assert is_right(rest, monkeypatch), f"{place}: {line}"
    elif program in ("python", "torchrun", "accelerate"):
        (script,) = (word for word in rest if word.endswith(".py"))
        assert (ROOT / script).is_file(), f"{place}: {line}"
    elif program == "pip":
        project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        for extra in re.findall(r"[\w-]+", ",".join(re.findall(r"\[(.*?)\]", " ".join(rest)))):
            assert re.search(rf"(?m)^{extra} = \[", project), f"{place}: no extra {extra}"
    elif program == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert re.search(rf"(?m)^{rest[0]}:", makefile), f"{place}: no target {rest[0]}"
    else:
        assert program in ("export", "apt-get", "sed"), f"{place}: {line}"


def is_right(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the verb's own parser, and for training the configuration's checks, take them."""
    import rince.training.run
    import rince.training.seeds
    from rince.cli.parser import HelpfulParser

    parse_args = HelpfulParser.parse_args

    def stop(*_: Any, **__: Any) -> None:
        raise Parsed

    def parse_and_stop(self: Any, *args: Any, **options: Any) -> Any:
        found = parse_args(self, *args, **options)
        if self.prog == "rince train":  # goes on to check what does not go together
            return found
        raise Parsed

    with monkeypatch.context() as patch:
        patch.setattr(HelpfulParser, "parse_args", parse_and_stop)
        patch.setattr(rince.training.run, "train", stop)
        patch.setattr(rince.training.seeds, "train_seeds", stop)
        try:
            main(arguments)
        except Parsed:
            return True
        except SystemExit as end:
            return end.code == 0  # --help
    return False
