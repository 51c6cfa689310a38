"""Tests of one tree, run in forks of a process that has imported everything but the tree.

    python tests/mutants_worker.py TREE MODULES...

MODULES are imported at once. A line of standard input is a request in JSON, and gets one answer.
A request names files, and the tests to run with the seconds that each takes in health: the answer
says whether one failed. Without tests, all of the files' are run, and the answer says of each how
many seconds of a processor it took and which lines of TREE/src it ran. As sitecustomize.py of the
processes that a test starts, this module writes down their lines too.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import math
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

LINES = "MUTANTS_LINES"  # the variable that names the file for the lines that run
IMPORT_SECONDS = 5  # for the imports of the tests, and of all that they import
MEMORY = 32 << 30  # bytes of addresses that a mutant may ask for


def trace_lines(file: str) -> None:
    """Write down each line of the tree's src that runs from now on."""
    output = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    package, seen = os.path.join(os.path.dirname(file), "src", ""), set()

    def on_line(frame: FrameType, event: str, argument: object) -> Any:
        place = (frame.f_code.co_filename[len(package) :], frame.f_lineno)
        if place not in seen:
            seen.add(place)
            os.write(output, f"{json.dumps(place)}\n".encode())
        return on_line

    def on_call(frame: FrameType, event: str, argument: object) -> Any:
        return on_line if frame.f_code.co_filename.startswith(package) else None

    threading.settrace(on_call)
    sys.settrace(on_call)


def limit_time(seconds: float, spare: float = 5) -> None:
    """End this process by a signal if it hangs, where it should take so many seconds."""
    # Of a processor, here and in each process that is started; the first signal is SIGXCPU.
    limit = math.ceil(time.process_time() + spare + 3 * seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
    # It may wait for nothing as well; but the machine may be busy.
    signal.setitimer(signal.ITIMER_REAL, 24 * spare + 60 * seconds)


def forked(run: Callable[[], int]) -> tuple[int, float]:
    """Exit status of a function in a process of its own, and the seconds of a processor it took."""
    gc.freeze()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setpgid(0, 0)
            # The first call after a fork replaces torch's pool of threads; two threads of a
            # backward that do it at once end the process, as if the mutant were noticed.
            import torch

            torch.set_num_threads(torch.get_num_threads())
            status = run()
        finally:
            os._exit(status)
    _, status, used = os.wait4(child, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # the processes that a test has left behind
    return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime


def function_of(item: pytest.Item) -> str:
    """A test with all its parameters: these share fixtures, and so what they run."""
    return item.nodeid.partition("[")[0]


class Chosen:
    """Of the collected tests, run some in this order; they take so many seconds in health."""

    def __init__(self, tests: dict[str, float], report: Path) -> None:
        self.tests, self.report = tests, report

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        order = {name: index for index, name in enumerate(self.tests)}
        chosen = [item for item in items if function_of(item) in order]
        items[:] = sorted(chosen, key=lambda item: order[function_of(item)])

    def pytest_runtest_protocol(self, item: pytest.Item) -> None:
        limit_time(self.tests[function_of(item)])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.report.write_text(report.nodeid)

    pytest_collectreport = pytest_runtest_logreport


class Traced:
    """Run each test in a process of its own, so that it runs whatever it needs itself."""

    def __init__(self, report: Path) -> None:
        self.report = report

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        functions: dict[str, list[pytest.Item]] = {}
        for item in session.items:
            functions.setdefault(function_of(item), []).append(item)
        with self.report.open("w") as output:
            for name, items in functions.items():
                print(json.dumps({"name": name, **self.run(items)}), file=output, flush=True)
        return bool(functions)

    def run(self, items: list[pytest.Item]) -> dict[str, Any]:
        from _pytest.runner import runtestprotocol

        lines = self.report.with_name("lines")
        lines.write_text("")

        def failed() -> bool:
            pairs = zip(items, [*items[1:], None], strict=True)
            found = [runtestprotocol(item, log=False, nextitem=after) for item, after in pairs]
            return any(report.failed for reports in found for report in reports)

        def failed_traced() -> bool:
            os.environ[LINES] = str(lines)
            trace_lines(str(lines))
            return failed()

        status, seconds = forked(failed_traced)
        if status:  # torch.compile and a trace do not always get on
            status, seconds = forked(failed)
        ran: dict[str, list[int]] = {}
        for file, line in map(json.loads, set(lines.read_text().splitlines())):
            ran.setdefault(file, []).append(line)
        return {"failed": status != 0, "seconds": seconds, "lines": ran}


def answer_to(request: dict[str, Any], report: Path) -> dict[str, Any]:
    """Run what is asked for."""
    import pytest

    report.write_text("")
    tests, files = request.get("tests"), request["files"]
    options = ["-x", "-q", "--assert=plain", "-p", "no:cacheprovider"]
    options += ["--hypothesis-profile=mutants"]
    # Which tests are left out is settled by then, and reading files for doctests takes its time.
    if tests and not any(file.startswith("src") for file in files):
        options += ["-o", "addopts="]

    def run() -> int:
        said = os.open(report.with_name("said"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        if tests:
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            limit_time(IMPORT_SECONDS)
        return pytest.main([*options, *files], [Chosen(tests, report) if tests else Traced(report)])

    status, seconds = forked(run)
    said = report.with_name("said").read_text()[-300:]
    return {"status": status, "seconds": seconds, "report": report.read_text(), "said": said}


def main() -> None:
    """Answer requests until there are no more."""
    del sys.path[0]  # the folder of this file, which need not be the tree's
    tree = Path(sys.argv[1])
    for name in sys.argv[2:]:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
    for line in sys.stdin:
        print(json.dumps(answer_to(json.loads(line), tree / "report")), flush=True)


if __name__ == "__main__":
    main()
elif LINES in os.environ:
    trace_lines(os.environ[LINES])
