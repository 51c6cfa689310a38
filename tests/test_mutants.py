"""The tool that breaks the code, on a package of two functions; and its lists against the code."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import known_mutants
import mutants
from known_mutants import Hand

CODE = '''"""A module."""

def clipped(x: int | float, low: float = 0) -> float:
    """Not below."""
    if x < low:  # told apart by no test from <=
        return low
    return x


def total(values):
    while len(values) > 3:
        values = values[1:]
    return sum(values) + 0
'''
TESTS = """
from thing.losses.small import clipped, total

def test_clipped():
    assert [clipped(x) for x in (-1, 0, 2)] == [0, 0, 2]

def test_total():
    assert total([1, 2]) == 3
"""
SETTINGS = 'from hypothesis import settings\nsettings.register_profile("mutants")\n'


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in {
        "src/thing/__init__.py": "",
        "src/thing/losses/__init__.py": "",
        "src/thing/losses/small.py": CODE,
        "tests/losses/test_small.py": TESTS,
        "tests/losses/test_another.py": "def test_another():\n    pass\n",
        "conftest.py": SETTINGS,
    }.items():
        file = tmp_path / "tree" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.setattr(mutants, "HAND_MADE", ())
    monkeypatch.setattr(mutants, "EQUIVALENT", {})
    return tmp_path / "tree"


def _run(tree: Path, *options: str) -> int:
    return mutants.main([f"--root={tree}", "--jobs=2", *options])


def test_killed_and_survived(
    tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``x < low`` and ``x <= low`` are the same; the opposite is not."""
    same = ("losses/small.py", "clipped", "Lt to LtE", 0)
    wanted = (same, ("losses/small.py", "clipped", "condition negated", 0))
    find = mutants.find_mutants
    monkeypatch.setattr(
        mutants, "find_mutants", lambda *given: [m for m in find(*given) if m.address in wanted]
    )
    assert _run(tree, "--all") == 1
    said = capsys.readouterr().out
    assert "1 killed, 1 survived, of 2" in said
    assert "SURVIVED losses/small.py clipped: Lt to LtE #0" in said
    assert "-    if x < low:" in said
    assert "+    if (x <= low):" in said
    assert "[test_clipped]" in said
    assert (tree / "src/thing/losses/small.py").read_text() == CODE

    monkeypatch.setattr(mutants, "EQUIVALENT", {same: "both give low where x is low"})
    assert _run(tree, "--all") == 0
    assert "1 of them equivalent" in capsys.readouterr().out


def test_what_hangs_is_killed(tree: Path) -> None:
    """No pytest starts in a tenth of a second."""
    verdict = mutants.run_tests(tree, ["tests/losses/test_small.py"], timeout=0.1)
    assert verdict.killed
    assert verdict.by == "hung"


def test_made_by_hand(
    tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hand = Hand("losses", "total", "sum(A) + B", "max(A) + B", "the largest for the sum")
    monkeypatch.setattr(mutants, "HAND_MADE", (hand,))
    assert _run(tree, "--sample=0") == 0
    assert "killed   losses/small.py total: the largest for the sum" in capsys.readouterr().out
    for wrong in (hand._replace(pattern="sum(A) - B"), hand._replace(function="clipped")):
        monkeypatch.setattr(mutants, "HAND_MADE", (wrong,))
        assert _run(tree, "--sample=0") == 2
    assert "fits 0 places" in capsys.readouterr().out


def test_it_judges_nothing_where_the_tests_fail_or_the_lists_are_old(
    tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _run(tree, "--only=losses/large.py") == 2
    monkeypatch.setattr(mutants, "EQUIVALENT", {("losses/small.py", "gone", "x", 0): "why"})
    assert _run(tree) == 2
    assert "'gone'" in capsys.readouterr().out
    monkeypatch.setattr(mutants, "EQUIVALENT", {})
    (tree / "tests/losses/test_small.py").write_text("def test():\n    assert False\n")
    assert _run(tree, "--sample=1") == 2
    assert "fail without any mutant" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("a + b", {"(a - b)"}),
        ("a // b", {"(a * b)"}),
        ("a < b <= c", {"(a <= b <= c)", "(a < b < c)"}),
        ("a == b", {"(a != b)"}),
        ("a and not b", {"(a or not b)", "a and b"}),
        ("a & ~b", {"(a | ~b)", "a", "(~b)", "a & b"}),
        ("y = x.sum(dim=1)", {"y = (x.mean(dim=1))", "y = x.sum(dim=(0))"}),
        ("y = x.norm(-1)", {"y = x.norm((0))"}),
        (
            "y = x.amax(0, keepdim=True)",
            {"y = (x.amin(0, keepdim=True))", "y = x.amax((1), keepdim=True)"}
            | {"y = x.amax(0, keepdim=(False))"},
        ),
        ("y = torch.log(x)", {"y = (torch.log1p(x))", "y = x"}),
        ("y = x.clamp(min=1)", {"y = x", "y = x.clamp(min=(2))"}),
        ("y = torch.where(m, x, 0)", {"y = x", "y = (0)", "y = torch.where(m, x, (1))"}),
        ("y = x.masked_fill(m, 2.5)", {"y = x", "y = x.masked_fill(m, (3.5))"}),
        ("torch.finfo(d).min", {"(torch.finfo(d).max)"}),
        ("f(-1)", {"f((0))", "pass"}),
        ("require(a < b, f'{a + b}')", {"require((a <= b), f'{a + b}')", "pass"}),
        ("x: Literal[1] = 2", {"x: Literal[1] = (3)"}),
        ("x &= m", {"x |= m", "pass"}),
        ("raise ValueError(1 + 2)", set()),
        ("y = 1 if a else b", {"y = (2) if a else b", "y = 1 if (not a) else b"}),
    ],
)
def test_operators(code: str, expected: set[str]) -> None:
    source = code.encode()
    found = [m.applied(source).decode() for m in mutants.find_mutants("m.py", source)]
    assert set(found) == expected
    assert len(found) == len(expected)


def test_of_our_own_code_mutants_are_other_programs_and_the_lists_are_up_to_date() -> None:
    package = Path(__file__).parents[1] / "src" / "rince"
    for room in mutants.ROOMS:
        for file in (package / room).rglob("*.py"):
            source = file.read_bytes()
            for mutant in mutants.sample(mutants.find_mutants(file.name, source), 5, 0):
                changed = ast.parse(mutant.applied(source))
                assert ast.dump(changed) != ast.dump(ast.parse(source)), mutant
    assert all(known_mutants.EQUIVALENT.values())
    assert mutants.main(["--list", "--sample=5"]) == 0
