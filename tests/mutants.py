"""Break the losses, ranks and metrics, a small change at a time: the tests must notice each.

    python tests/mutants.py [--only losses/temperatures.py] [--sample N --seed S | --all] [--jobs N]
                            [--killed FILE] [--anew]

Mutants are found by the structure of the code: every module of ROOMS is parsed, and each operator
below changes every place that it fits (``<`` to ``<=``, ``dim=0`` to ``dim=1``, a mask left out).
A few more are made by hand: a pattern in a function, and what takes its place. A mutant is written
into a copy of the tree, and of the tests of its room (src/rince/losses -> tests/losses) those that
run the changed line are run until the first failure, the fastest first. What was killed once is
written down, and not run again until the function changes (--anew: even so). The exit status is 1
if a mutant survives, 2 if nothing could be said.
"""

from __future__ import annotations

import argparse
import ast
import collections
import compileall
import contextlib
import difflib
import functools
import hashlib
import json
import os
import py_compile
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from known_mutants import EQUIVALENT, HAND_MADE, TUNING, Hand

NEGATED = "condition negated"
TYPES = ("Literal", "tuple")
IGNORED = (ast.JoinedStr, ast.Raise, ast.Assert, ast.Import, ast.ImportFrom)
ROOMS = ("losses", "metrics", "core", "ranks")
SAMPLE = 600  # of some 5,500
KILLED = "tests/killed_mutants.txt"
# What the tests import, and what takes long.
IMPORTED = ["numpy", "pytest", "hypothesis.extra.numpy", "lazy_loader", "torch._dynamo"]
IMPORTED += ["torch.multiprocessing", "torch.distributed", "scipy.stats"]

# Operators by their names in ast, and functions that take the same arguments; both ways.
OPERATORS = "Add-Sub Mult-Div Pow-Mult FloorDiv-Mult Mod-FloorDiv BitAnd-BitOr And-Or Lt-LtE Gt-GtE"
OPERATORS += " Eq-NotEq Is-IsNot In-NotIn"
CALLS = "min-max amin-amax argmin-argmax minimum-maximum any-all sum-mean log-log1p exp-expm1"
CALLS += " logsumexp-amax logaddexp-maximum softplus-relu log_softmax-softmax sqrt-square"
CALLS += " zeros-ones zeros_like-ones_like floor-ceil tril-triu cumsum-cumprod"
DIMENSIONS = {0: 1, 1: 0, 2: 1, -1: 0, -2: -1}
# Calls that are left out: what they are called on, or their first argument, remains.
DROPPED = ("masked_fill", "clamp", "clamp_min", "abs", "detach", "sqrt", "exp", "log", "square")
LIBRARIES = ("torch", "np", "math", "functional", "F")
REDUCTIONS = ("sum", "mean", "any", "all", "amin", "amax", "logsumexp", "cumsum", "norm", "argsort")


def partners(pairs: str) -> dict[str, str]:
    """The first partner of each name."""
    listed = [pair.split("-") for pair in reversed(pairs.split())]
    return {b: a for a, b in listed} | dict(listed)


SWAPPED, RENAMED = partners(OPERATORS), partners(CALLS)


@dataclass(frozen=True)
class Mutant:
    """One change of one module.

    Args:
        module: file below the package. function: with its class; "" at the top of the module.
        operator: what was changed. occurrence: which of these in the function, from 0.
        start, end: bytes of the module that ``text`` replaces.
    """

    module: str
    function: str
    operator: str
    occurrence: int
    start: int
    end: int
    text: str

    @property
    def room(self) -> str:
        """The folder of the module, and of its tests."""
        return Path(self.module).parts[0]

    @property
    def address(self) -> tuple[str, str, str, int]:
        """Where it is, whatever the lines are."""
        return self.module, self.function, self.operator, self.occurrence

    def __str__(self) -> str:
        return f"{self.module} {self.function or '(top)'}: {self.operator} #{self.occurrence}"

    def applied(self, source: bytes) -> bytes:
        """The module with the change."""
        return source[: self.start] + self.text.encode() + source[self.end :]

    def diff(self, source: bytes) -> str:
        """The lines that change."""
        lines = (text.decode().splitlines() for text in (source, self.applied(source)))
        return "\n".join(list(difflib.unified_diff(*lines, n=0, lineterm=""))[2:])


def changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """What the operators make of one node: a name of the change and the new node."""
    if isinstance(node, (ast.BinOp, ast.AugAssign, ast.BoolOp)):
        yield from ((name, _with(node, op=new)) for name, new in _swapped(node.op))
    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            for name, new in _swapped(op):
                yield name, _with(node, ops=[*node.ops[:i], new, *node.ops[i + 1 :]])
    if isinstance(getattr(node, "op", None), (ast.BitAnd, ast.BitOr)):
        if isinstance(node, ast.BinOp):
            yield from (("mask alone: left", node.left), ("mask alone: right", node.right))
        else:
            yield "mask dropped", ast.Pass()
    if isinstance(node, ast.UnaryOp) and not isinstance(node.operand, ast.Constant):
        yield f"{type(node.op).__name__} dropped", node.operand
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "call dropped", ast.Pass()
    if isinstance(node, ast.Attribute) and node.attr in ("min", "max"):  # torch.finfo's
        yield f"{node.attr} to {RENAMED[node.attr]}", _with(node, attr=RENAMED[node.attr])
    if isinstance(node, ast.Call):
        yield from _changed_calls(node)
    if isinstance(node, (ast.If, ast.IfExp, ast.While)):
        # Of `not x` and `a == b` the opposite is made anyway.
        equality = (ast.Eq, ast.NotEq, ast.Is, ast.IsNot, ast.In, ast.NotIn)
        compared = isinstance(node.test, ast.Compare) and isinstance(node.test.ops[0], equality)
        if not compared and not isinstance(node.test, ast.UnaryOp):
            yield NEGATED, ast.UnaryOp(ast.Not(), node.test)
    value = _number(node)
    if isinstance(value, bool):
        yield f"{value} to {not value}", ast.Constant(not value)
    elif isinstance(value, (int, float)) and value + 1 != value:
        yield "constant + 1", ast.Constant(value + 1)


def _changed_calls(node: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    function, by_name = node.func, isinstance(node.func, ast.Name)
    name = getattr(function, "id" if by_name else "attr", "")
    if name in RENAMED:
        new = _with(function, **{"id" if by_name else "attr": RENAMED[name]})
        yield f"{name} to {RENAMED[name]}", _with(node, func=new)
    if name == "where" and len(node.args) == 3:
        yield from (("where: the first", node.args[1]), ("where: the second", node.args[2]))
    if name in DROPPED and isinstance(function, ast.Attribute):
        if getattr(function.value, "id", "") not in LIBRARIES:
            yield f"{name} dropped", function.value
        elif node.args:
            yield f"{name} dropped", node.args[0]


def _swapped(operator: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    name = type(operator).__name__
    if name in SWAPPED:
        yield f"{name} to {SWAPPED[name]}", getattr(ast, SWAPPED[name])()


def _with(node: ast.AST, **changed: object) -> ast.AST:
    return type(node)(**{**dict(ast.iter_fields(node)), **changed})


def _number(node: ast.AST) -> object:
    """The value of a number or a truth value; None of anything else."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _number(node.operand) if isinstance(node.operand, ast.Constant) else None
        return -value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
    if isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
        return node.value
    return None


def _dimensions(node: ast.AST) -> list[ast.AST]:
    """The arguments of a call that are dimensions."""
    if not isinstance(node, ast.Call):
        return []
    found: list[ast.AST] = [k.value for k in node.keywords if k.arg in ("dim", "axis")]
    if getattr(node.func, "attr", "") in REDUCTIONS and len(node.args) == 1:
        found += node.args
    return [argument for argument in found if type(_number(argument)) is int]


def _visited(node: ast.AST) -> Iterator[ast.AST]:
    """The parts of a node that take part in results: no types, messages or errors."""
    if isinstance(node, ast.Call):
        name = getattr(node.func, "id", "")
        renamed = isinstance(node.func, ast.Attribute) and node.func.attr in RENAMED
        yield node.func.value if renamed else node.func  # type: ignore[attr-defined]
        if name not in ("warn", "cast", "TypeVar"):
            yield from node.args[: 1 if name == "require" else None]
            # That the lengths are equal is asserted, as by assert.
            asserted = [k for k in node.keywords if k.arg == "strict" and _number(k.value) is True]
            yield from (k.value for k in node.keywords if k not in asserted)
    elif _number(node) is None and getattr(getattr(node, "value", None), "id", "") not in TYPES:
        for field, value in ast.iter_fields(node):
            if field not in ("annotation", "returns", "decorator_list"):
                parts = value if isinstance(value, list) else [value]
                yield from (part for part in parts if isinstance(part, ast.AST))


def _tuning(node: ast.AST) -> list[ast.AST | None]:
    """What is given to names that change time and memory alone, and the fields of such classes."""
    named: list[tuple[str, ast.AST | None]] = []
    if isinstance(node, ast.arguments):
        arguments = [*node.posonlyargs, *node.args]
        defaults = [*node.defaults, *node.kw_defaults]
        arguments = [*arguments[len(arguments) - len(node.defaults) :], *node.kwonlyargs]
        named = [(a.arg, value) for a, value in zip(arguments, defaults, strict=True)]
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        named = [(getattr(target, "id", ""), node.value) for target in targets]
    if isinstance(node, ast.ClassDef):
        named = [(node.name, field) for field in node.body if isinstance(field, ast.AnnAssign)]
    return [value for name, value in named if name in TUNING]


def find_mutants(module: str, source: bytes) -> list[Mutant]:
    """Every change of a module by an operator, in the order of the code."""
    count: collections.Counter[tuple[str, str]] = collections.Counter()
    found: list[Mutant] = []

    def add(function: str, operator: str, node: ast.AST, text: str) -> None:
        number = count[function, operator]
        found.append(Mutant(module, function, operator, number, *_span(source, node), text))
        count[function, operator] += 1

    def visit(node: ast.AST, function: str, is_dimension: bool = False) -> None:
        if isinstance(node, ast.FunctionDef) and node.name in TUNING:
            return
        type_checking = getattr(getattr(node, "test", None), "id", "") == "TYPE_CHECKING"
        if type_checking or isinstance(node, IGNORED):
            return
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            function = f"{function}.{node.name}".lstrip(".")
        for operator, new in () if is_dimension else changes(node):
            # Of an `if` the condition is replaced, not the block.
            at = getattr(node, "test", node) if operator == NEGATED else node
            add(function, operator, at, _text(new))
        dimensions = _dimensions(node)
        for argument in dimensions:
            new_dimension = DIMENSIONS.get(_number(argument), 0)  # type: ignore[call-overload]
            add(function, "dimension", argument, f"({new_dimension})")
        tuning = _tuning(node)
        for child in (child for child in _visited(node) if child not in tuning):
            visit(child, function, child in dimensions)

    visit(ast.parse(source), "")
    return sorted(found, key=lambda mutant: mutant.start)


def _span(source: bytes, node: ast.AST) -> tuple[int, int]:
    """First byte of a node, and the one behind it."""
    line, column, last_line, last_column = (getattr(node, name) for name in node._attributes)
    lengths = [len(text) for text in source.splitlines(keepends=True)]
    return sum(lengths[: line - 1]) + column, sum(lengths[: last_line - 1]) + last_column


def _text(node: ast.AST) -> str:
    """Code that stands for the node wherever an expression may stand."""
    text = ast.unparse(ast.fix_missing_locations(node))
    return text if isinstance(node, (ast.stmt, ast.Name)) else f"({text})"


def made_by_hand(hand: Hand, sources: Mapping[str, bytes]) -> Mutant:
    """The mutant of a pattern.

    Raises:
        LookupError: the pattern fits no place in the function, or several.
    """
    pattern, found = ast.parse(hand.pattern, mode="eval").body, []
    for module in (module for module in sources if module.startswith(hand.room)):
        for node in _function(ast.parse(sources[module]), hand.function):
            held: dict[str, ast.expr] = {}
            if _fits(pattern, node, held):
                text, span = hand.replacement, _span(sources[module], node)
                for name, part in held.items():
                    text = re.sub(rf"(?<!\.)\b{name}\b", f"({ast.unparse(part)})", text)
                found.append(Mutant(module, hand.function, hand.why, 0, *span, f"({text})"))
    if len(found) != 1:
        raise LookupError(
            f"{hand.pattern!r} ({hand.why}) fits {len(found)} places in {hand.function} of "
            f"{hand.room}: bring this mutant up to date"
        )
    return found[0]


def _function(tree: ast.AST, name: str) -> Iterator[ast.AST]:
    """All nodes in the function of this name; "": anywhere."""
    head, _, rest = name.partition(".")
    yield from () if name else ast.walk(tree)
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == head:
            yield from _function(node, rest) if rest else ast.walk(node)


def _fits(pattern: object, node: object, held: dict[str, ast.expr]) -> bool:
    if isinstance(pattern, ast.Name) and len(pattern.id) == 1 and pattern.id.isupper():
        return isinstance(node, ast.expr) and ast.dump(node) == ast.dump(
            held.setdefault(pattern.id, node)
        )
    if isinstance(pattern, ast.AST) and type(pattern) is type(node):
        parts = ast.iter_fields(pattern)
        return all(_fits(part, getattr(node, name), held) for name, part in parts)
    if isinstance(pattern, list) and isinstance(node, list) and len(pattern) == len(node):
        return all(_fits(a, b, held) for a, b in zip(pattern, node, strict=True))
    return not isinstance(pattern, (ast.AST, list)) and pattern == node


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen mutants; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="modules that start so: losses/temperatures.py")
    parser.add_argument("--sample", type=int, default=SAMPLE, help="so many, chosen by --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--all", action="store_true", help="all of them: hours, the first time")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--killed", type=Path, help=f"what was killed before; {KILLED}")
    parser.add_argument("--anew", action="store_true", help="run what was killed before, too")
    parser.add_argument("--list", action="store_true", help="only say which mutants there are")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[1])
    found = parser.parse_args(arguments)
    found.killed = found.killed or found.root / KILLED
    package = next(path for path in sorted((found.root / "src").iterdir()) if path.is_dir())
    files = [file for room in ROOMS for file in sorted((package / room).rglob("*.py"))]
    sources = {file.relative_to(package).as_posix(): file.read_bytes() for file in files}
    every = [m for module, source in sources.items() for m in find_mutants(module, source)]
    try:
        by_hand = [made_by_hand(hand, sources) for hand in HAND_MADE]
        stale = sorted(set(EQUIVALENT) - {mutant.address for mutant in every})
        if stale:
            raise LookupError(f"listed as equivalent, but not in the code: {stale}")
    except LookupError as error:
        print(error)
        return 2
    generated = [m for m in every if m.module.startswith(found.only)]
    real = [m for m in generated if m.address not in EQUIVALENT]
    by_hand = [m for m in by_hand if m.module.startswith(found.only)]
    chosen = by_hand + (real if found.all else sample(real, found.sample, found.seed))
    print(
        f"{len(generated)} mutants, {len(generated) - len(real)} of them equivalent; "
        f"{len(chosen) - len(by_hand)} of them are run, and {len(by_hand)} made by hand"
    )
    if found.list or not chosen:
        print("\n".join(map(str, chosen)) or f"there is no mutant in {found.only!r}")
        return 0 if chosen else 2
    return judge(found, package.name, sources, chosen)


def sample(mutants: Sequence[Mutant], count: int, seed: int) -> list[Mutant]:
    """Some of them, in the order of the code; each goes by its own address, whatever is new."""
    draws = {m: hashlib.blake2b(repr((seed, m.address)).encode()).digest() for m in mutants}
    chosen = set(sorted(mutants, key=draws.__getitem__)[:count])
    return [mutant for mutant in mutants if mutant in chosen]


def judge(
    options: argparse.Namespace,
    package: str,
    sources: Mapping[str, bytes],
    mutants: Sequence[Mutant],
) -> int:
    """Run the tests against each mutant, several at a time; the exit status."""
    start, root = time.perf_counter(), options.root.resolve()
    before = set() if options.anew else read_killed(options.killed)
    todo = [mutant for mutant in mutants if key_of(mutant, sources) not in before]
    print(f"{len(mutants) - len(todo)} of them were killed before ({options.killed})", flush=True)
    survivors: list[Mutant] = []
    jobs = max(1, min(options.jobs, len(todo)))
    with contextlib.ExitStack() as closing:
        folder = closing.enter_context(tempfile.TemporaryDirectory())
        pool = closing.enter_context(ThreadPoolExecutor(jobs))
        trees: queue.Queue[Tree] = queue.Queue()
        for index in range(jobs):
            tree = Tree(root, Path(folder, str(index), root.name), package)
            closing.enter_context(tree.process)
            trees.put(tree)

        def health_of(room: str) -> tuple[str, list[Test] | str]:
            with lent(trees) as tree:
                return room, tree.healthy(room)

        health = dict(pool.map(health_of, dict.fromkeys(mutant.room for mutant in todo)))
        for room, tests in health.items():
            if isinstance(tests, str):
                print(f"tests/{room} fail without any mutant ({tests}): fix that first")
                return 2
            seconds = sum(test.seconds for test in tests)
            print(f"tests/{room}: {len(tests)} pass in {seconds:.0f} s", flush=True)

        def verdict_on(mutant: Mutant) -> Verdict:
            with lent(trees) as tree:
                return tree.verdict_on(mutant, sources[mutant.module], health[mutant.room])

        for mutant, verdict in zip(todo, pool.map(verdict_on, todo), strict=True):
            state = "killed  " if verdict.killed else "SURVIVED"
            print(f"{state} {mutant} [{verdict.by}] {verdict.seconds:.1f} s", flush=True)
            if verdict.killed:
                with options.killed.open("a") as output:
                    output.write(f"{key_of(mutant, sources)}\n")
            else:
                survivors.append(mutant)
    minutes = (time.perf_counter() - start) / 60
    keys = read_killed(options.killed) - {key_of(mutant, sources) for mutant in survivors}
    if options.all and not options.only:  # nothing of code that is gone stays
        keys &= {key_of(mutant, sources) for mutant in mutants}
    options.killed.write_text("".join(f"{key}\n" for key in sorted(keys)))
    killed = len(mutants) - len(survivors)
    print(f"{killed} killed, {len(survivors)} survived, of {len(mutants)}; {minutes:.1f} min")
    for mutant in survivors:
        print(f"\nsurvivor {mutant.address}\n{mutant.diff(sources[mutant.module])}")
    return 1 if survivors else 0


def key_of(mutant: Mutant, sources: Mapping[str, bytes]) -> str:
    """Of the changed function, without what documents it; else of the changed module. What is
    killed once need not be again: not if other functions, or tests, were changed."""
    source = sources[mutant.module]
    changed = mutant.applied(source)
    around = [
        (start, end)
        for start, end in _functions(source)
        if start <= mutant.start and mutant.end <= end
    ]
    if around:
        start, end = around[0]  # the outermost
        indent = start - source.rfind(b"\n", 0, start) - 1
        end += len(changed) - len(source)
        changed = textwrap.dedent(" " * indent + changed[start:end].decode()).encode()
    tree = ast.parse(changed)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:]
    text = f"{mutant} {ast.dump(tree)}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@functools.cache
def _functions(source: bytes) -> list[tuple[int, int]]:
    """First byte of each function, and the one behind it; outer ones first."""
    nodes = ast.walk(ast.parse(source))
    return [_span(source, node) for node in nodes if isinstance(node, ast.FunctionDef)]


def read_killed(file: Path) -> set[str]:
    """The keys that earlier runs have written."""
    return set(file.read_text().split()) if file.exists() else set()


class Verdict(NamedTuple):
    """Killed means: a test failed, or could not be imported, or hung."""

    killed: bool
    by: str
    seconds: float


class Test(NamedTuple):
    """A healthy test.

    Args:
        name: pytest's. seconds: of a processor. lines: of modules below src, that it runs.
    """

    name: str
    seconds: float
    lines: Mapping[str, Sequence[int]]


@contextlib.contextmanager
def lent(trees: queue.Queue[Tree]) -> Iterator[Tree]:
    """A tree that nobody else uses meanwhile."""
    tree = trees.get()
    try:
        yield tree
    finally:
        trees.put(tree)


class Tree:
    """A copy of the tree, and a process that runs its tests in forks of itself."""

    def __init__(self, root: Path, copy: Path, package: str) -> None:
        def left_out(folder: str, names: list[str]) -> list[str]:
            others = ("runs", "shared", "site") if Path(folder) == root else ()
            hidden = [name for name in names if name.startswith(".") and Path(folder) == root]
            return ["__pycache__", *hidden, *others]

        self.root, self.copy, self.package = root, copy, package
        shutil.copytree(root, copy, symlinks=True, ignore=left_out)
        # Byte code goes by what a file holds, not by when it changed.
        checked = py_compile.PycInvalidationMode.CHECKED_HASH
        compileall.compile_dir(copy, quiet=2, invalidation_mode=checked)
        worker = copy / "traced" / "sitecustomize.py"
        worker.parent.mkdir()
        shutil.copy(Path(__file__).with_name("mutants_worker.py"), worker)
        found = [str(copy / "src"), str(worker.parent), os.environ.get("PYTHONPATH", "")]
        variables = {"PYTHONPATH": os.pathsep.join(filter(None, found)), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, str(worker), str(copy), *IMPORTED],
            cwd=copy,
            env={**os.environ, **variables, "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def asked(self, **request: object) -> dict[str, Any]:
        """What the process answers."""
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps(request), file=self.process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def healthy(self, room: str) -> list[Test] | str:
        """The tests of a room, the fastest first, from a file if they were run before; or why not.

        Each is run in a process of its own, so that it runs all that it needs itself.
        """
        files = sorted(
            path for name in ("src", "tests") for path in (self.copy / name).rglob("*.py")
        )
        digest = hashlib.blake2b(b"".join(path.read_bytes() for path in files)).hexdigest()
        cache = self.root / ".mutants" / f"{room}.json"
        if cache.exists() and (kept := json.loads(cache.read_text()))["digest"] == digest:
            return [Test(*test) for test in kept["tests"]]
        answer = self.asked(files=[f"tests/{room}", f"src/{self.package}/{room}"])
        tests = [json.loads(line) for line in answer["report"].splitlines()]
        failed = [test["name"] for test in tests if test.pop("failed")]
        if failed or not tests or answer["status"]:
            return ", ".join(failed) or answer["said"]
        found = sorted((Test(**test) for test in tests), key=lambda test: test.seconds)
        cache.parent.mkdir(exist_ok=True)
        cache.write_text(json.dumps({"digest": digest, "tests": found}))
        return found

    def verdict_on(self, mutant: Mutant, source: bytes, tests: Sequence[Test]) -> Verdict:
        """Change the module, and run the tests that run the changed line until one fails."""
        lines, module = lines_of(source, mutant.start), f"{self.package}/{mutant.module}"
        # What runs on import, as a constant, may matter to any test.
        chosen = [t for t in tests if not lines or lines & set(t.lines.get(module, ()))]
        if not chosen:
            return Verdict(False, "no test runs this line", 0)
        file = self.copy / "src" / module
        try:
            file.write_bytes(mutant.applied(source))
            files = dict.fromkeys(test.name.partition("::")[0] for test in chosen)
            seconds = {test.name: test.seconds for test in chosen}
            answer = self.asked(tests=seconds, files=list(files))
        finally:
            file.write_bytes(source)
        by = answer["report"].rpartition("::")[2] if answer["status"] else "all tests pass"
        if -answer["status"] in (signal.SIGALRM, signal.SIGXCPU):
            by = "hung"
        by = by or f"status {answer['status']}: {answer['said'][-200:]}"
        return Verdict(answer["status"] != 0, by, answer["seconds"])


def lines_of(source: bytes, start: int) -> set[int]:
    """Lines of the statement at this byte, of an if its head alone; none if it runs on import."""
    line, lines = source[:start].count(b"\n") + 1, range(0)
    for function in ast.walk(ast.parse(source)):
        body = function.body if isinstance(function, ast.FunctionDef) else []
        for node in (node for part in body for node in ast.walk(part)):
            if isinstance(node, ast.stmt):
                block = getattr(node, "body", None)
                last = max(node.lineno, block[0].lineno - 1) if block else node.end_lineno
                if node.lineno <= line <= (last or 0):
                    lines = range(node.lineno, (last or 0) + 1)
    return set(lines)


if __name__ == "__main__":
    sys.exit(main())
