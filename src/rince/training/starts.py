"""The folder of a run that starts: it is trained in once at a time, no file of a user's is lost in
it, and a start that fails leaves it as it was."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from shlex import quote

from rince.core.checks import RinceError
from rince.core.files import held_alone, replacing
from rince.training.config import TrainConfig, from_dict
from rince.training.folder import (
    ABOUT_FILE,
    CHECKPOINT_FILE,
    CONFIG_FILE,
    LOG_FILE,
    config_yaml,
    plain_yaml,
)
from rince.training.history import HEADER, HISTORY_FILE
from rince.training.trackers import TRACKERS_FILE

_WRITTEN_OVER = (CONFIG_FILE, HISTORY_FILE, TRACKERS_FILE, ABOUT_FILE)


def require_no_run(folder: Path) -> None:
    """Refuse a folder with a checkpoint."""
    if (folder / CHECKPOINT_FILE).exists():
        raise RinceError(
            f"{folder} holds a run already: go on with it (rince train --resume "
            f"{quote(str(folder))}), or choose another --name"
        )


def require_nothing_to_lose(folder: Path) -> None:
    """Refuse a folder with a file that a run would write over, and that is none of a run which was
    killed before its first checkpoint."""
    of_a_run = (folder / LOG_FILE).exists() and _a_run_wrote(folder / CONFIG_FILE)
    for name in _WRITTEN_OVER:
        file = folder / name
        known = _is_history(file) if name == HISTORY_FILE else of_a_run
        if file.exists() and not known:
            raise RinceError(
                f"{file} was there before, and not from a run: training would write over it. "
                f"Choose another --name, or move the file (--config takes it from anywhere)"
            )


def _a_run_wrote(file: Path) -> bool:
    """Whether a ``config.yaml`` is as runs write it: each option in its place, without a comment,
    and nothing left open that a run decides."""
    try:
        text = file.read_text(encoding="utf-8")
        config = from_dict(plain_yaml(text))
    except (OSError, ValueError):
        return False
    decided = None not in (config.optim.lr, config.loss.matmul_precision)
    return decided and text == config_yaml(config)


def _is_history(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            start = stream.read(len(HEADER))
    except OSError:
        return False
    return HEADER.encode().startswith(start)  # a kill may have cut it short


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Refuse a folder in which another process trains: what the two write would be mixed. Systems
    and disks that have no locks are left without."""
    with contextlib.suppress(OSError):  # whoever writes there says why
        folder.mkdir(parents=True, exist_ok=True)
    with held_alone(folder / LOG_FILE) as alone:
        if not alone:
            raise RinceError(
                f"another process trains in {folder}: choose another --name, or wait for its end"
            )
        yield


@contextlib.contextmanager
def as_before_unless(stepped: Callable[[], bool], folder: Path) -> Iterator[None]:
    """Of a run that never took a step nothing stays, as no verb is to take its folder for a run;
    what was there before it is there again."""
    before = {name: _content(folder / name) for name in _WRITTEN_OVER}
    log = folder / LOG_FILE
    logged = log.stat().st_size if log.is_file() else 0  # its lock may have made it just now
    try:
        yield
    finally:
        if not stepped():
            for name, content in before.items():
                with contextlib.suppress(OSError):
                    _put_back(folder / name, content)
            with contextlib.suppress(OSError):
                os.truncate(log, logged) if logged else log.unlink()
            with contextlib.suppress(OSError):  # there is something else in it
                folder.rmdir()


def _content(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


def _put_back(file: Path, content: bytes | None) -> None:
    if content is None:
        file.unlink(missing_ok=True)
    elif _content(file) != content:
        with replacing(file) as part:
            part.write_bytes(content)


def write_start(folder: Path, config: TrainConfig, *, fresh: bool) -> None:
    """The configuration of a run that starts, or goes on for other epochs (not ``fresh``); what
    else was there of it is out of date."""
    if fresh:
        require_no_run(folder)  # that ended while this one read its data
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A run that was killed before its first checkpoint may have left these.
        for name in (HISTORY_FILE, TRACKERS_FILE, ABOUT_FILE) if fresh else (ABOUT_FILE,):
            (folder / name).unlink(missing_ok=True)
        with replacing(folder / CONFIG_FILE) as part:
            part.write_text(config_yaml(config))
    except OSError as error:
        raise RinceError(
            f"cannot write to the run's folder {folder} ({error}): fix that, or choose another "
            f"--output"
        ) from error
