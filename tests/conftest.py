from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings

# A busy machine is not a failure. "mutants" is for tests/mutants.py: the same draws each time,
# and no shrinking, as only the verdict counts.
settings.register_profile("default", deadline=None)
settings.register_profile(
    "mutants",
    deadline=None,
    max_examples=40,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=(HealthCheck.too_slow,),
)
settings.load_profile("default")

# The tensors of tests are small: a second thread costs more than it gives.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def first_process() -> Iterator[None]:
    """Lightning keeps what it read of a launcher's variables, and only the first process writes."""
    yield
    if "lightning_utilities.core.rank_zero" in sys.modules:
        sys.modules["lightning_utilities.core.rank_zero"].rank_zero_only.rank = 0


@pytest.fixture
def small_disk() -> Iterator[None]:
    """Files cannot grow beyond 64 kB, as on a disk that is about to be full."""
    resource: Any = pytest.importorskip("resource", reason="not of this system")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data sets beside the checkout; tests that want them skip where they are absent."""
    folder = Path(
        os.environ.get("RINCE_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data")
    )
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder} (set RINCE_SHARED_DATA to use other ones)")
    return folder


@pytest.fixture(scope="session")
def image_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """root/<superclass>/<class>/*.png: 2 superclasses of 2 classes, 24 images of 16 pixels each.

    A class has a hue and its superclass a brightness, with noise: learnable, not trivial.
    """
    from PIL import Image

    root = tmp_path_factory.mktemp("images")
    generator = torch.Generator().manual_seed(0)
    colours = {
        "warm/red": (200, 60, 60),
        "warm/orange": (200, 130, 40),
        "cold/blue": (40, 60, 160),
        "cold/green": (40, 130, 60),
    }
    for name, colour in colours.items():
        folder = root / name
        folder.mkdir(parents=True)
        for index in range(24):
            noise = torch.randn(16, 16, 3, generator=generator) * 40
            pixels = (torch.tensor(colour) + noise).clamp(0, 255).to(torch.uint8)
            Image.fromarray(pixels.numpy()).save(folder / f"{index:02}.png")
    return root


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without what matplotlib draws, which takes most of the time: for what else they say."""

    def empty(figure: Any, description: str, number: int) -> str:
        return f'<svg role="img" aria-label="{escape(description)}" data-box="0 0 1 1"></svg>'

    monkeypatch.setattr("rince.reports.figures.svg_of", empty)
