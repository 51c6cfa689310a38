"""How much an evaluation does."""

from __future__ import annotations

from dataclasses import dataclass

from rince.core.checks import require


@dataclass(frozen=True)
class EvaluationOptions:
    """How much to do.

    Args:
        probe_epochs: epochs of the linear probe, at least 1 (the paper: 100).
        knn_k: neighbours of the kNN accuracy and of the kNN outlier score, at least 1.
        map_points: test items on the 2-D map; 0 leaves the map out (t-SNE is the slowest part).
        gallery_queries, gallery_neighbours: size of the retrieval gallery, each at least 1.
        near: clips of one video up to this many seconds apart count as near each other. The same
            for all runs, whatever ranks they were trained on.
        seed: of the probe, the map, and the choice of queries.

    Raises:
        ValueError: a number out of its range.
    """

    probe_epochs: int = 100
    knn_k: int = 20
    map_points: int = 1000
    gallery_queries: int = 10
    gallery_neighbours: int = 8
    near: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("probe_epochs", "knn_k", "gallery_queries", "gallery_neighbours"):
            require(
                getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}"
            )
        for name in ("map_points", "near"):
            require(
                getattr(self, name) >= 0, f"{name} must be at least 0, got {getattr(self, name)}"
            )
