"""Options that mean the same, written in one way: runs are compared by them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from rince.core.files import user_path
from rince.losses.options import LossOptions
from rince.training.options import OptimOptions

# Options that name files and folders, some of which take words too.
_PLACES = (
    "data",
    "evaluate.data",
    "images.root",
    "model.backbone",
    "model.start_from",
    "ranks.scores",
    "ranks.tree",
    "vectors.captions",
    "vectors.labels",
    "videos.shots",
    "videos.splits",
)


def written_alike(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options by their dotted names: paths as seen from here, and None for a default that was given
    where nothing had to be."""
    alike = dict(options)
    for name in _PLACES:
        if isinstance(alike.get(name), str):
            alike[name] = _seen_from_here(alike[name])
    temperatures, warmup = alike.get("loss.temperatures"), alike.get("optim.warmup_epochs")
    if temperatures and tuple(temperatures) == LossOptions().temperatures_for(len(temperatures)):
        alike["loss.temperatures"] = None
    if warmup is not None and warmup == OptimOptions().warmup(alike["epochs"]):
        alike["optim.warmup_epochs"] = None
    return alike


def _seen_from_here(path: str) -> str:
    """Relative where it lies in the current folder, else absolute; a word stays as it is."""
    here, there = os.getcwd(), os.path.abspath(user_path(path))
    return os.path.relpath(there, here) if there.startswith(here + os.sep) else there
