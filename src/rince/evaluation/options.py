"""How much an evaluation does."""

from __future__ import annotations

from dataclasses import dataclass

from rince.core.checks import require
from rince.core.options import Options, limited


@dataclass
class EvaluationOptions(Options):
    """How much to do.

    Args:
        probe_epochs: epochs of the linear probe, at least 1 (the paper: 100).
        knn_k: neighbours of the kNN accuracy and of the kNN outlier score, at least 1.
        map_points: test items on the 2-D map; 0 leaves the map out (t-SNE is the slowest part).
        gallery_queries, gallery_neighbours: size of the retrieval gallery, each at least 1.
        near: clips of one video up to this many seconds apart count as near each other. The same
            for all runs, whatever ranks they were trained on.
        seed: of the probe, the map, and the choice of queries.
    """

    probe_epochs: int = limited(100, low=1)
    knn_k: int = limited(20, low=1)
    map_points: int = limited(1000, low=0)
    gallery_queries: int = limited(10, low=1)
    gallery_neighbours: int = limited(8, low=1)
    near: float = limited(10.0, low=0)
    seed: int = limited(0, low=0, high=2**32 - 1)


def require_name(name: object, what: str) -> None:
    """Refuse one that :func:`wrong_name` finds wrong; ``what`` begins the message."""
    problem = wrong_name(name)
    require(not problem, f"{what}: {problem}")


def wrong_name(name: object) -> str:
    """Why outliers or a test cannot be called so, as their metrics are named after them; "": they
    can.

    Example:
        >>> wrong_name("far"), wrong_name("a/b")
        ('', "the name 'a/b' may not hold a slash")
    """
    if not isinstance(name, str):
        return f"a name must be text, got {name!r}"
    if name.strip() in ("", ".."):
        return f"{name!r} is no name"
    return f"the name {name!r} may not hold a slash" if "/" in name else ""
