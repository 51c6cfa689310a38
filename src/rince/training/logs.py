"""What a run says: lines on the screen and in its log, without Lightning's chatter."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from rince.core.checks import warn

logger = logging.getLogger("rince")


@contextlib.contextmanager
def logging_to(file: Path | None) -> Iterator[None]:
    """Log to the screen and to a file, which a resumed run continues; None: nowhere, as of all
    processes but the main one. A file that cannot be written is warned of once."""
    handlers: list[logging.Handler] = []
    if file is not None:
        handlers.append(_Screen(sys.stdout))
        try:
            handlers.append(_LogFile(file))
        except OSError as error:
            _warn_of(file, error)
    logger.setLevel(logging.INFO)
    for handler in handlers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            with contextlib.suppress(OSError):  # a full disk: the last lines are lost, no more
                handler.close()


class _Screen(logging.StreamHandler):  # type: ignore[type-arg]  # takes none in Python 3.10
    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], BrokenPipeError):  # who read it is gone, no more
            super().handleError(record)


class _LogFile(logging.FileHandler):
    def __init__(self, file: Path) -> None:
        super().__init__(file, encoding="utf-8")
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        self._warned = False

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._warned:
            self._warned = True
            _warn_of(Path(self.baseFilename), error)


def _warn_of(file: Path, error: OSError) -> None:
    warn(f"could not write the log {file} ({error}): training goes on without it")


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Leave out Lightning's hints that do not apply to how it is used here."""
    noisy = [
        logging.getLogger("lightning.pytorch.utilities.rank_zero"),
        logging.getLogger("lightning.pytorch.trainer.connectors.checkpoint_connector"),
    ]
    levels = [one.level for one in noisy]
    for one in noisy:
        one.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*LeafSpec.*")
        warnings.filterwarnings("ignore", ".*sync_dist.*")  # the first process alone measures kNN
        try:
            yield
        finally:
            for one, level in zip(noisy, levels, strict=True):
                one.setLevel(level)
