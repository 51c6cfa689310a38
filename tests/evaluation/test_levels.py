"""Levels by name, and what an evaluation measures at each."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from rince import Taxonomy
from rince.data.arrays import TensorImages
from rince.data.items import Splits
from rince.data.table import read_items
from rince.evaluation import EvaluationOptions, evaluate_backbone, tree_levels
from rince.evaluation.levels import level_names
from rince.evaluation.results import shown_metric
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


def test_levels_are_called_as_their_columns() -> None:
    even = Taxonomy([("vw", "golf", "2001"), ("vw", "golf", "2005"), ("fiat", "uno", "1990")])
    columns = ("brand", "model", "year")
    levels = {"fine": "year", "depth-2": "model", "coarse": "brand"}
    assert level_names(even, columns) == levels
    rooted = Taxonomy([("car", *path) for path in even.paths])
    of_rooted = {"fine": "year", "depth-3": "model", "coarse": "brand"}
    assert level_names(rooted, ("root", *columns)) == of_rooted
    assert level_names(even, None) == level_names(even, columns[:2]) == {}
    of_model = shown_metric("embedding/retrieval/depth-2/R@1", levels)
    assert of_model == "embedding/retrieval/model/R@1"
    assert shown_metric("unseen/coarse/probe/fine", levels) == "unseen/coarse/probe/year"
    assert shown_metric("hierarchy/H-AP", levels) == "hierarchy/H-AP"


@pytest.mark.parametrize(
    ("rows", "levels"),
    [
        (["a,b,c", "a,,d"], ("x", "y", "z")),  # the first names of a path are the first columns
        (["a,b,c", ",b,d"], None),
    ],
)
def test_columns_with_holes_name_no_levels(
    rows: list[str], levels: tuple[str, ...] | None, tmp_path: Path
) -> None:
    file = tmp_path / "items.csv"
    file.write_text("\n".join(["text,x,y,z", *(f"t{i},{row}" for i, row in enumerate(rows))]))
    assert read_items(file, "text", None, "table.column").marks().levels == levels
