from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from rince.cli.export import _foreign_card
from rince.core.input_spec import InputSpec
from rince.evaluation.results import Evaluation
from rince.models.backbones import Backbone
from rince.models.exported import ImageEncoder
from rince.ranks.class_ranks import ClassRanks
from rince.ranks.taxonomy import Taxonomy
from rince.reports.model_card import model_card
from rince.reports.run_report import RunReport
from rince.training.checkpoint import TrainedRun
from rince.training.config import RankOptions, TrainConfig, from_dict, to_dict
from rince.training.objectives import OBJECTIVES

ENCODER = ImageEncoder(
    module=nn.Identity(),
    backbone="small-resnet",
    output_dim=256,
    embedding_dim=None,
    num_heads=1,
    spec=InputSpec.images(3, 64),
    mean=(0.1, 0.2, 0.3),
    std=(0.4, 0.5, 0.6),
    class_paths=(("pet", "dog"), ("pet", "cat"), ("car",)),
)
RANKS = ClassRanks(("dog", "cat", "car"), torch.tensor([[1, 2, 0], [2, 1, -1], [0, 0, 1]]), 3)
ABOUT = {
    "train_seconds": 12.4,
    "machine": "x86_64, 2 cores, cpu",
    "seed": 7,
    "versions": {"rince": "0.0.9", "torch": "2.9"},
}


def card(encoder: ImageEncoder = ENCODER, **changes: Any) -> str:
    config = TrainConfig(
        data="/home/anna/photos", ranks=RankOptions(scores="~/s.csv", top_k=(3,)), output="/tmp/x"
    )
    config.images.root = "/home/anna/sets"
    config.model.backbone, config.model.start_from = "hf/~/anna/vit", "../anna/run"
    config = changes.pop("config", config)
    trained = TrainedRun(
        folder=Path("husky\nrun"),
        config=config,
        taxonomy=Taxonomy(ENCODER.class_paths),
        backbone=Backbone(nn.Identity(), 256),
        spec=ENCODER.spec,
        step=230,
        ranks=RANKS,
        objective=OBJECTIVES[config.objective],
    )
    given = {"about": ABOUT, "evaluation": None, "onnx_difference": None, **changes}
    return model_card(trained, encoder, **given)


@pytest.fixture
def measured(make_run: Callable[..., RunReport]) -> Evaluation:
    found = make_run(metrics={"probe/fine": 0.8124, "ordering/correlation": 0.5}).evaluation
    return replace(
        found, info={"data": "photos", "train_images": 90, "test_images": 30, "outliers": {}}
    )


def test_the_measured_results_stand_in_it(measured: Evaluation) -> None:
    text = card(evaluation=measured)
    assert "on photos: 90 training and 30 test images, one run.\n" in text
    assert "\n| probe/fine | 81.2 |\n| ordering/correlation | 0.500 |\n" in text
    assert "Not evaluated" not in text
    assert "Not evaluated." in card()
    embeddings = replace(ENCODER, embedding_dim=128, output_dim=128)
    assert "of the backbone's features, not of the embeddings given here." in card(
        embeddings, evaluation=measured
    )


def test_the_head_of_the_card_is_valid_and_leaves_the_licence_open() -> None:
    _, head, body = card().split("---\n", 2)
    assert yaml.safe_load(head)["library_name"] == "rince"
    assert "license" not in yaml.safe_load(head)
    assert "# license: for you to choose" in head
    assert body.startswith("\n# husky run\n")
    assert "For you to fill in before you publish this: the licence of the weights" in body


def test_the_configuration_trains_the_same_but_tells_of_nobody() -> None:
    text = card()
    assert "anna" not in text
    assert "/tmp" not in text
    options = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    machine = {"accelerator", "devices", "num_nodes", "name", "output", "logger", "progress"}
    assert not machine & options.keys()
    config = from_dict(options)
    assert (config.data, config.ranks.scores, config.images.root) == ("photos", "s.csv", "sets")
    assert (config.model.backbone, config.model.start_from) == ("hf/vit", "run")
    assert config.ranks.top_k == (3,)
    assert from_dict(yaml.safe_load(yaml.safe_dump(to_dict(config)))) == replace(
        config, output="runs"
    )


@pytest.mark.parametrize(
    ("backbone", "shown"),
    [
        ("hf//home/anna/vit/", "hf/vit"),
        ("hf/../anna/vit", "hf/vit"),
        ("/home/anna/vit", "vit"),
        ("hf/anna/vit", "hf/anna/vit"),  # a name of the hub
        ("timm/vit_tiny", "timm/vit_tiny"),
    ],
)
def test_a_backbone_from_a_folder_tells_of_nobody(backbone: str, shown: str) -> None:
    assert f"A `{shown}` trained with" in card(replace(ENCODER, backbone=backbone))
    text = _foreign_card(backbone, replace(ENCODER, backbone=backbone))
    assert f"# vit{'_tiny' * ('tiny' in backbone)}\n" in text
    assert f"A {shown} that was trained elsewhere, taken from `{shown}` by" in text


def test_ranks_are_counted_between_different_classes() -> None:
    text = card()
    rows = text.split("ordered pairs of different classes |\n|:---|---:|\n")[1].split("\n\n")[0]
    assert rows.splitlines() == [
        "| 2 | 2 |",
        "| 3 | 0 |",
        "| 0 (negative) | 3 |",
        "| -1 (ignored) | 1 |",
    ]
    assert "3, rank 1: the same class." in text
    text = card(config=TrainConfig(data="photos", objective="supcon-out"))
    assert "## Ranks\n\nsupcon-out does not read `ranks`.\n" in text


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "features, 256 numbers, of any length: compare by the cosine |"),
        ({"embedding_dim": 128, "output_dim": 128}, "embeddings, 128 numbers, of length 1 |"),
        (
            {"embedding_dim": 128, "output_dim": 256, "num_heads": 2},
            "embeddings, 256 numbers: 2 embeddings of length 1, side by side |",
        ),
        ({"spec": InputSpec.images(1, 64)}, "| images | grey, shorter side scaled to 64 pixels"),
        ({}, "minus [0.1, 0.2, 0.3], divided by [0.4, 0.5, 0.6], a channel each"),
        ({"backbone": None}, "and backbone=..., the module's code is not in here"),
        ({}, "Trained on 3 classes: dog, cat, car\n"),
    ],
)
def test_how_to_feed_it(changes: dict[str, Any], expected: str) -> None:
    assert expected in card(replace(ENCODER, **changes))


def test_where_it_comes_from() -> None:
    text = card(onnx_difference=4.2e-7)
    assert "230 steps in 12 s on x86_64, 2 cores, cpu, seed 7." in text
    assert "| rince | 0.0.9 |\n| torch | 2.9 |" in text
    assert "differ by 4e-07 of the largest output |" in text
    assert "ONNX" not in card()
    assert "230 steps; **not finished** when it was exported." in card(about={})
