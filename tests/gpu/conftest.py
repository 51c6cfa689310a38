from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def card() -> Iterator[torch.device]:
    """The card, with PyTorch's switches as they are by default; skips where there is none."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA card")
    before = torch.backends.cuda.matmul.allow_tf32
    yield torch.device("cuda", torch.cuda.current_device())
    torch.backends.cuda.matmul.allow_tf32 = before
    torch.cuda.set_sync_debug_mode("default")
    torch.cuda.empty_cache()
