"""A command that must fail, and what it says."""

from __future__ import annotations

import pytest

from rince.cli.main import main


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What the command line says, on stderr, when it refuses; without a traceback."""
    capsys.readouterr()
    assert main(arguments) == 1
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    return shown
