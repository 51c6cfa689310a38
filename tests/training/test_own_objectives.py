"""An objective from outside: a plain loss, or a row; and what a run with one says of itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from small_runs import STEPS, flat_backbone, small_config
from torch import Tensor, nn

from rince import RinceError, RinceWarning
from rince.cli.main import main
from rince.core.pair_ranks import ALL, PairRanks
from rince.evaluation.options import EvaluationOptions
from rince.losses import ranked_info_nce, supcon_out
from rince.training import (
    OBJECTIVES,
    Loss,
    LossOptions,
    Objective,
    Step,
    TrainConfig,
    evaluate_run,
    load_run,
    resume,
    train,
)
from rince.training.checkpoint import read_checkpoint
from rince.training.history import read_history
from rince.training.objectives import own_objective


def pull_and_push(query: Tensor, key: Tensor, ranks: PairRanks) -> Tensor:
    """Cosines towards 1, 0.5, ... of the ranks, and 0 of negatives."""
    rank = ranks.tile(ALL, ALL).to(query.device)
    wanted = torch.where(rank > 0, 1 / rank.clamp(min=1), 0.0)
    return ((query @ key.T - wanted) ** 2)[rank >= 0].mean()


def test_a_plain_function_trains_on_the_ranks_of_the_run(image_tree: Path, tmp_path: Path) -> None:
    config = small_config(image_tree, tmp_path, epochs=8)
    folder = train(config, flat_backbone(), objective=pull_and_push)
    assert folder.name == f"{image_tree.name}-pull_and_push-seed0"
    assert config.objective == "rince"  # the caller's own is left as it was
    history = read_history(folder)
    losses = [value for _, value in history["train/loss"]]
    assert losses[-1] < 0.8 * losses[0]
    for better, worse in ((1, 2), (2, 0)):
        similarities = (history[f"train/similarity_rank_{rank}"][-1][1] for rank in (better, worse))
        assert float.__gt__(*similarities)
    run = load_run(folder, flat_backbone())  # the network needs no code of the objective
    assert run.objective.name == run.config.label() == "pull_and_push"
    assert run.head is not None


def test_a_partial_of_a_loss_is_the_objective_of_that_name(
    image_tree: Path, tmp_path: Path
) -> None:
    mine = partial(ranked_info_nce, temperatures=(0.1, 0.225), variant="in")
    options = LossOptions(variant="in")
    weights = []
    for config, objective in (
        (small_config(image_tree, tmp_path, epochs=1), mine),
        (small_config(image_tree, tmp_path, epochs=1, loss=options), None),
    ):
        folder = train(config, flat_backbone(), objective=objective)
        weights.append(read_checkpoint(folder)["state_dict"])
    assert folder.name.endswith("rince-in-seed0")
    for name, expected in weights[1].items():
        assert torch.equal(weights[0][name], expected), name


def test_going_on_takes_the_objective_again(image_tree: Path, tmp_path: Path) -> None:
    config = small_config(image_tree, tmp_path, epochs=1)
    backbone = flat_backbone()
    whole = train(config, flat_backbone(), objective=pull_and_push)
    expected = read_checkpoint(whole)["state_dict"]
    with pytest.raises(RinceError, match=r"pull_and_push.*resume\(folder, objective=...\)"):
        resume(whole, backbone=backbone)
    other = Objective("other", pull_and_push)  # type: ignore[arg-type]
    with pytest.raises(RinceError, match="pull_and_push, not with other"):
        resume(whole, backbone=backbone, objective=other)
    file = whole / "config.yaml"
    file.write_text(file.read_text().replace("epochs: 1\n", "epochs: 2\n"))
    resume(whole, backbone=backbone, objective=pull_and_push, progress=False)
    resumed = read_checkpoint(whole)
    assert resumed["global_step"] == 2 * STEPS
    assert not torch.equal(
        resumed["state_dict"]["encoder.backbone.1.weight"], expected["encoder.backbone.1.weight"]
    )


def test_a_row_reads_all_of_a_step(image_tree: Path, tmp_path: Path) -> None:
    def of_step(step: Step) -> Loss:
        assert step.logits is not None
        assert step.options.smoothing == 0.1
        labels = step.pairs.query_labels
        loss = nn.functional.cross_entropy(step.logits, labels)
        return Loss(loss, {"share": (step.logits.argmax(dim=1) == labels).float().mean()})

    row = Objective("my-classifier", of_step, reads=("loss.smoothing",), classifier=True)
    config = small_config(image_tree, tmp_path, epochs=4, loss=LossOptions(smoothing=0.1))
    folder = train(config, flat_backbone(), objective=row)
    history = read_history(folder)
    assert history["train/share"][-1][1] > history["train/share"][0][1]
    assert load_run(folder, flat_backbone()).classifier is not None


def test_the_checkpoint_of_the_command_line_says_nothing_new(
    image_tree: Path, tmp_path: Path
) -> None:
    folder = train(small_config(image_tree, tmp_path, epochs=1), flat_backbone())
    assert "own_objective" not in read_checkpoint(folder)["rince"]


def test_the_command_line_knows_only_the_table(
    image_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train(small_config(image_tree, tmp_path, epochs=1), objective=pull_and_push)
    assert main(["train", "--resume", str(folder)]) == 1
    assert "pull_and_push" in capsys.readouterr().err
    quick = ["--probe-epochs", "1", "--map-points", "0", "--device", "cpu"]
    assert main(["evaluate", str(folder), *quick]) == 0


@pytest.mark.parametrize(
    ("objective", "fact"),
    [
        (lambda query, key, ranks: query.sum(), "<lambda>"),
        (Objective("rince", pull_and_push), "rince"),  # type: ignore[arg-type]
        (Objective("a/b", pull_and_push), "a/b"),  # type: ignore[arg-type]
        (nn.Linear(2, 2), "Linear has weights"),
        ("supcon", "'supcon'"),
    ],
)
def test_what_cannot_be_an_objective(objective: object, fact: str) -> None:
    with pytest.raises(ValueError, match=fact):
        own_objective(objective)  # type: ignore[arg-type]


def test_options_that_an_own_objective_does_not_read_are_warned_of() -> None:
    config = TrainConfig("x", objective="mine", loss=LossOptions(margin=0.3))
    with pytest.warns(match="^loss.margin .*mine"):
        config.check(Objective("mine"))
    with pytest.raises(ValueError, match="got 'mine'"):
        config.check()


@pytest.mark.parametrize(
    ("gives", "fact"),
    [
        (lambda query, key: (query @ key.T).sum(dim=1), r"shape \(64,\)"),
        (lambda query, key: None, "NoneType"),
        (lambda query, key: {"loss": query.sum()}, "dict"),
        (lambda query, key: 1.0, "float"),
        (lambda query, key: torch.tensor(1.0), "does not depend on the embeddings"),
        (lambda query, key: query.sum().detach(), "does not depend on the embeddings"),
        (lambda query, key: Loss(query.sum(dim=1)), r"shape \(64,\)"),
    ],
)
def test_what_cannot_be_a_loss_names_the_objective(
    gives: Callable[[Tensor, Tensor], object], fact: str, image_tree: Path, tmp_path: Path
) -> None:
    def mine(query: Tensor, key: Tensor, ranks: PairRanks) -> object:
        return gives(query, key)

    config = small_config(image_tree, tmp_path, epochs=1)
    with pytest.raises(ValueError, match=f"objective mine gives .*{fact}"):
        train(config, flat_backbone(), objective=mine)  # type: ignore[arg-type]


def _row(**facts: object) -> Objective:
    def of_step(step: Step) -> Tensor:
        pairs = step.pairs
        return supcon_out(pairs.query, pairs.key, step.same_class(), 0.2)

    return Objective("row", of_step, **facts)  # type: ignore[arg-type]


def test_variants_of_a_row_have_names_of_their_own(image_tree: Path, tmp_path: Path) -> None:
    row = _row(reads=("loss.variant",), by_time="video")
    folders = []
    for variant in ("in", "out"):
        options = LossOptions(variant=variant)  # type: ignore[arg-type]
        config = small_config(image_tree, tmp_path, epochs=1, loss=options, knn_every=0)
        folders.append(train(config, flat_backbone(), objective=row))
        assert json.loads((folders[-1] / "about.json").read_text())["label"] == f"row {variant}"
    assert [f.name for f in folders] == [f"{image_tree.name}-row-{v}-seed0" for v in ("in", "out")]
    recorded = load_run(folders[0], flat_backbone()).objective
    assert (recorded.reads, recorded.by_time) == (row.reads, row.by_time)


@pytest.mark.parametrize("reads", [("ranks",), ()])
def test_the_card_asks_the_row_whether_it_reads_the_ranks(
    reads: tuple[str, ...], image_tree: Path, tmp_path: Path
) -> None:
    config = small_config(image_tree, tmp_path, epochs=1, knn_every=0)
    config.model.backbone = "tiny-resnet"
    folder = train(config, objective=_row(reads=reads))
    with pytest.warns(RinceWarning, match="no results"):
        assert main(["export", str(folder), "--no-onnx"]) == 0
    card = (folder / "export" / "README.md").read_text()
    assert ("2, rank 1: the same class" in card) == ("ranks" in reads)


def test_any_module_is_a_backbone_and_any_text_a_folder(image_tree: Path, tmp_path: Path) -> None:
    config = replace(small_config(image_tree, tmp_path, epochs=1), data=image_tree)  # type: ignore
    folder = train(config, flat_backbone().module, objective=pull_and_push)
    again = resume(str(folder), backbone=flat_backbone().module, objective=pull_and_push)
    assert again == folder.resolve()
    assert load_run(str(folder), flat_backbone().module).backbone.feature_dim == 16
    few = EvaluationOptions(probe_epochs=1, map_points=0)
    found = evaluate_run(str(folder), backbone=flat_backbone().module, options=few, device="cpu")
    assert found.metrics
    for given, fact in (({"data": "x"}, "dict"), ("photos", "str")):
        with pytest.raises(ValueError, match=f"TrainConfig, got {fact}"):
            train(given)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="outliers .*'digits'"):
        evaluate_run(folder, ["digits"])  # type: ignore[arg-type]


def test_every_row_of_the_table_leads_to_a_function() -> None:
    assert own_objective(partial(supcon_out, temperature=0.2)).name == "supcon_out"
    options = {f"loss.{name}" for name in LossOptions.__dataclass_fields__} | {"ranks"}
    for name, row in OBJECTIVES.items():
        assert callable(row.function()), name
        assert set(row.reads) <= options, name
        assert row.summary, name
