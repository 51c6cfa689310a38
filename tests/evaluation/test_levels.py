"""Levels by name, and what an evaluation measures at each."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rince import Taxonomy
from rince.data.arrays import TensorImages
from rince.data.items import Splits
from rince.evaluation import EvaluationOptions, evaluate_backbone, tree_levels
from rince.metrics import retrieval

OPTIONS = EvaluationOptions(probe_epochs=1, map_points=0, gallery_queries=1)
EVEN = Taxonomy.from_dict({"dog": ["husky", "basset"], "boat": ["canoe", "ferry"]})
DEEPER = Taxonomy(
    [("dog", "husky"), ("dog", "basset"), ("boat", "small", "canoe"), ("boat", "ferry")]
)


def named(tree: Taxonomy) -> dict[str, list[int]]:
    return {name: groups.tolist() for name, groups in tree_levels(tree).items()}


def test_a_folder_one_level_deeper_changes_neither_fine_nor_coarse() -> None:
    even, deeper = named(EVEN), named(DEEPER)
    assert list(even) == ["fine", "coarse"]
    assert list(deeper) == ["fine", "depth-2", "coarse"]
    assert {name: deeper[name] for name in even} == even


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        ([("a",), ("b",)], ["fine"]),
        ([("root", "a", "b"), ("root", "c", "d")], ["fine", "coarse"]),  # the root is no level
        ([("root", "a"), ("root", "b")], ["fine", "coarse"]),  # as it always was
        (
            [("a", "b", "c", "d"), ("e", "f", "g", "h")],
            ["fine", "depth-3", "depth-2", "coarse"],
        ),
    ],
)
def test_names(paths: list[tuple[str, ...]], names: list[str]) -> None:
    assert list(tree_levels(Taxonomy(paths))) == names


def test_every_level_is_measured() -> None:
    generator = torch.Generator().manual_seed(0)

    def images(count: int) -> TensorImages:
        pixels = torch.randint(0, 256, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
        return TensorImages(pixels, torch.arange(count) % 4, DEEPER, "noise")

    data = Splits(images(40), images(20))
    metrics = evaluate_backbone(nn.Flatten(), data, {}, options=OPTIONS).metrics
    for level, groups in tree_levels(DEEPER).items():
        features = [
            (side.pixels.float() / 255 - 0.5).flatten(1) / 0.5 for side in (data.test, data.train)
        ]
        labels = [groups[side.labels] for side in (data.test, data.train)]
        expected = retrieval(*features, *labels)
        assert metrics[f"retrieval/{level}/mAP"] == pytest.approx(
            expected.mean_average_precision, abs=1e-4
        )
        # No two classes meet at depth 2, and fine has no better level to leave out.
        assert (f"retrieval/{level}/only" in metrics) == (level == "coarse")
    assert [name for name in metrics if name.startswith("probe/")] == ["probe/fine", "probe/coarse"]
    assert {"hierarchy/H-AP", "ordering/pairs/1>3", "ordering/pairs/3>0"} <= metrics.keys()
