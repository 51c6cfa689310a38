"""The tool that breaks the code, on a package of two functions; and its lists against the code."""

from __future__ import annotations

import ast
import json
import signal
from pathlib import Path

import pytest

import known_mutants
import mutants
import mutants_worker
from known_mutants import Hand

CODE = '''"""A module."""

def clipped(x: int | float, low: float = 0) -> float:
    """Not below."""
    if x < low:  # told apart by no test from <=
        return low
    return x


def total(values):
    while len(values) > 3:
        values = values[-3:]
    return sum(values) + 0
'''
TESTS = """
import subprocess, sys
from thing.losses.small import clipped, total

def test_clipped():
    assert [clipped(x) for x in (-1, 0, 2)] == [0, 0, 2]

def test_total():
    command = "from thing.losses.small import total; assert total([1, 2]) == 3"
    subprocess.run([sys.executable, "-c", command], check=True)
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
    monkeypatch.setattr(mutants, "IMPORTED", ["pytest"])
    return tmp_path / "tree"


def _run(tree: Path, *options: str) -> int:
    return mutants.main([f"--root={tree}", "--jobs=1", *options])


def test_killed_and_survived(
    tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``x < low`` and ``x <= low`` are the same, the opposite is not; nothing asks for -3."""
    same = ("losses/small.py", "clipped", "Lt to LtE", 0)
    wanted = [same, ("losses/small.py", "clipped", "condition negated", 0)]
    wanted += [("losses/small.py", "total", "constant + 1", n) for n in (1, 2)]
    find = mutants.find_mutants
    monkeypatch.setattr(
        mutants, "find_mutants", lambda *given: [m for m in find(*given) if m.address in wanted]
    )
    assert _run(tree, "--all") == 1
    said = capsys.readouterr().out
    assert "2 killed, 2 survived, of 4" in said
    assert "tests/losses: 3 pass" in said
    assert "SURVIVED losses/small.py clipped: Lt to LtE #0 [all tests pass]" in said
    assert "-    if x < low:" in said
    assert "+    if (x <= low):" in said
    assert "killed   losses/small.py clipped: condition negated #0 [test_clipped]" in said
    assert "SURVIVED losses/small.py total: constant + 1 #1 [no test runs this line]" in said
    # In the process that the test starts.
    assert "killed   losses/small.py total: constant + 1 #2 [test_total]" in said
    assert (tree / "src/thing/losses/small.py").read_text() == CODE

    # What is killed stays, and another run adds to it; healthy tests are not run again.
    file = tree / "tests/killed_mutants.txt"
    kept = file.read_text().split()
    assert len(kept) == 2
    file.write_text("of code that is gone\n")
    cache = tree / ".mutants" / "losses.json"
    tests = json.loads(cache.read_text())
    tests["tests"] = [test for test in tests["tests"] if test[0].endswith("test_clipped")]
    cache.write_text(json.dumps(tests))
    monkeypatch.setattr(mutants, "EQUIVALENT", {same: "both give low where x is low"})
    assert _run(tree, "--all", "--only=losses/small.py") == 1
    said = capsys.readouterr().out
    assert "1 of them equivalent" in said
    assert "0 of them were killed before" in said
    assert "1 killed, 2 survived, of 3" in said
    assert "tests/losses: 1 pass" in said
    assert "gone" in file.read_text()  # of what was not asked for, too
    assert sum(len(line) == 16 for line in file.read_text().splitlines()) == 1
    file.write_text("\n".join(kept))
    assert _run(tree, "--all", "--anew") == 1
    assert "0 of them were killed before" in capsys.readouterr().out
    # No test is left that notices what else was killed.
    assert len(file.read_text().split()) == 1
    assert _run(tree, "--all") == 1
    assert "1 of them were killed before" in capsys.readouterr().out


def test_what_hangs_is_killed() -> None:
    def hang() -> int:
        mutants_worker.limit_time(0, spare=1)
        while True:
            pass

    def wait() -> int:
        mutants_worker.limit_time(0, spare=0.01)
        signal.pause()
        return 0

    assert mutants_worker.forked(hang)[0] == -signal.SIGXCPU
    assert mutants_worker.forked(wait)[0] == -signal.SIGALRM


def test_lines_are_those_of_the_innermost_statement() -> None:
    code = """
a = 1
def f(b=2):
    if b and (
        a
    ):
        c = [
            3,
        ]
        def g(d=4): return d
    return 5
"""
    expected = {"1": set(), "2": set(), "a\n": {4, 5, 6}, "3": {7, 8, 9}, "4": {10}, "5": {11}}
    source = code.encode()
    found = {part: mutants.lines_of(source, source.rindex(part.encode())) for part in expected}
    assert found == expected


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
    assert "fail without any mutant (tests/losses/test_small.py::test)" in capsys.readouterr().out


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
        ("y = -1e30", set()),  # one more is the same number
        ("A = tuple[B | None, C]", set()),
        (
            "def f(a=1, *, chunk_size=2**4, b=3): 0",
            {
                "def f(a=(2), *, chunk_size=2**4, b=3): 0",
                "def f(a=1, *, chunk_size=2**4, b=(4)): 0",
                "def f(a=1, *, chunk_size=2**4, b=3): (1)",
            },
        ),
        ("MB = 2**20\nclass Sizes:\n    block: int = 2", set()),
        ("def bytes_per_query(x): return 2 * x", set()),
        ("y = zip(a, b, strict=True)", set()),
        ("y = zip(a, b, strict=False)", {"y = zip(a, b, strict=(True))"}),
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


def test_equivalent_mutants_are_still_the_changes_that_were_judged() -> None:
    """Where a function changes, a number in it may come to name another mutant.

    Judge anew what differs: a line goes into the file, or the mutant out of known_mutants.py.
    """
    tests, found = Path(__file__).parent, []
    for module in sorted({module for module, *_ in known_mutants.EQUIVALENT}):
        source = (tests.parent / "src" / "rince" / module).read_bytes()
        for mutant in mutants.find_mutants(module, source):
            if mutant.address in known_mutants.EQUIVALENT:
                first, last = source.rfind(b"\n", 0, mutant.start), source.find(b"\n", mutant.end)
                parts = source[first : mutant.start], source[mutant.end : last]
                changed = mutant.text.join(part.decode() for part in parts)
                found.append(f"{mutant} | {' '.join(changed.split())}")
    assert found == (tests / "equivalent_mutants.txt").read_text().splitlines()


def test_a_verdict_is_of_a_function_and_not_of_what_stands_around_it() -> None:
    method = b"class A:\n    def f(self, x):\n%s        return x + 1\n"
    first = b'"""A module."""\n\n\n' + method % b'        """Old."""\n'
    moved = b"import os\n\n\n" + method % b"" + b"\n\ndef g():\n    pass\n"
    other = first.replace(b"x + 1", b"x + 2")
    keys = []
    for source in (first, moved, other):
        mutant = next(m for m in mutants.find_mutants("m.py", source) if m.operator == "Add to Sub")
        keys.append(mutants.key_of(mutant, {"m.py": source}))
    assert keys[0] == keys[1] != keys[2]
    top = b"LIMIT = 1\nOTHER = 'a'\n"
    mutant = mutants.find_mutants("m.py", top)[0]
    changed = top.replace(b"a", b"b")
    assert mutants.key_of(mutant, {"m.py": top}) != mutants.key_of(mutant, {"m.py": changed})
