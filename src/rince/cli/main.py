"""``rince VERB ...``: finds the verb, and imports nothing that it does not need."""

from __future__ import annotations

import difflib
import importlib
import io
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from rince._version import __version__
from rince.core.checks import RinceError, RinceWarning

VERBS = {
    "ranks": "show what the ranks of a data set look like, before any training",
    "check": "read all of a data set once, and list what cannot be used",
    "table": "write a table of a folder's images or videos, to edit and train on",
    "train": "train an encoder with ranked positives (RINCE), or a baseline",
    "tune": "search the settings that trade fine against coarse, on a held-out part of train",
    "evaluate": "evaluate a run: linear probe, kNN, retrieval, rank order, out-of-distribution",
    "compare": "put runs side by side: a table here, and one HTML page",
    "export": "take a network out of its run: safetensors, ONNX, a model card",
    "embed": "embed images, videos or texts, labels not needed",
    "index": "put embeddings of millions of items into an index that is searched fast",
    "search": "find the images, clips or texts that are most similar to a query",
    "demo": "all of it on Fashion-MNIST in a few minutes",
}
SHARED = ("evaluate", "embed")  # by several processes, if they are started

HELP = f"""rince {__version__}: contrastive learning with ranked positives (RINCE, AAAI 2022)

usage: rince VERB [OPTIONS]      (rince VERB --help explains the verb)

verbs:
{chr(10).join(f"  {verb:10}{text}" for verb, text in VERBS.items())}

start here:
  rince ranks photos/            photos/<superclass>/<class>/*.jpg, any depth
  rince check photos/            lists what cannot be read
  rince train photos/ --epochs 50
  rince evaluate runs/latest --ood other-photos/
  rince compare runs/* -o report.html
  rince embed runs/latest photos/ && rince search one.jpg --gallery embeddings.npz --run runs/latest
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; returns the exit status (0 done, 1 failed, 2 wrong usage; 130 stopped by
    Ctrl-C, 141 by whoever read the output)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if given[0] in ("-V", "--version"):
        print(f"rince {__version__}")
        return 0
    verb, rest = given[0], given[1:]
    if verb not in VERBS:
        close = ["compare"] if verb == "report" else difflib.get_close_matches(verb, VERBS, n=1)
        hint = f": did you mean `rince {close[0]}`?" if close else f" ({', '.join(VERBS)})"
        print(f"rince has no verb {verb!r}{hint}", file=sys.stderr)
        return 2
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")  # no name, nor an arrow, ends a verb
    try:
        with _plain_warnings():
            run = partial(importlib.import_module(f"rince.cli.{verb}").run, rest)
            if verb in SHARED and _several_processes():
                from rince.core.shared_work import lead

                lead(run)
            else:
                run()
        sys.stdout.flush()
    except BrokenPipeError:  # what read the output is gone, as in `rince ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        message = _message(error)
        if message is None:
            raise
        print(f"rince {verb}: {message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:  # a training says how it goes on
        print(f"\n{str(stop) or 'stopped'}", file=sys.stderr)
        return 130
    return 0


def _several_processes() -> bool:
    """Whether torchrun or srun started this program more than once."""
    given = os.environ
    count = given.get("WORLD_SIZE" if "RANK" in given else "SLURM_STEP_NUM_TASKS", "1")
    return int(count) > 1


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Rince's own warnings without a line of its source, which says nothing to a user."""
    usual = warnings.formatwarning

    def plain(message: Warning | str, category: type[Warning], *where: object) -> str:
        if issubclass(category, RinceWarning):
            from rince.core.distributed import is_first_process  # torch, which warned by now

            return f"warning: {message}\n" if is_first_process() else ""
        return usual(message, category, *where)  # type: ignore[arg-type]

    warnings.formatwarning = plain  # type: ignore[assignment]
    try:
        yield
    finally:
        warnings.formatwarning = usual


def _message(error: Exception) -> str | None:
    """What to tell the user; None: it is a bug of rince's own, whose traceback is needed."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"cannot use {error.filename}: {error.strerror}"
    if isinstance(error, UnicodeEncodeError):
        name = error.object[max(0, error.start - 40) : error.end + 40]
        return f"{name!r} is not valid Unicode, which files of text must be: rename it"
    if isinstance(error, (RinceError, ValueError, OSError, ImportError, FloatingPointError)):
        return str(error)
    # Lightning's own word for a setting that the machine cannot follow (--accelerator gpu). If
    # it was raised, its module is loaded; if not, there is no reason to load it.
    lightning = sys.modules.get("lightning.fabric.utilities.exceptions")
    if lightning and isinstance(error, lightning.MisconfigurationException):
        return f"{error} (look at --accelerator, --devices and --precision)"
    return None
