from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import STEPS, disturbed, flat_backbone, small_config, splits_of
from torch import nn

from rince import Taxonomy
from rince.core.checks import RinceError, RinceWarning
from rince.core.input_spec import InputSpec
from rince.data.kinds import kind_named
from rince.evaluation import EvaluationOptions
from rince.evaluation.results import load_evaluation
from rince.losses import supcon_out
from rince.models.backbones import as_backbone
from rince.training.checkpoint import load_run, read_checkpoint, trained_encoder
from rince.training.config import (
    ImageOptions,
    LossOptions,
    ModelOptions,
    OptimOptions,
    TrainConfig,
)
from rince.training.evaluation import evaluate_run
from rince.training.folder import read_config
from rince.training.history import read_history
from rince.training.module import RankedModule, lr_factor
from rince.training.objectives import OBJECTIVES, Objective
from rince.training.run import resume, train
from rince.training.step import Pairs, Step, objective_loss


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_learns(objective: str, image_tree: Path, tmp_path: Path) -> None:
    config = small_config(image_tree, tmp_path, objective=objective, epochs=8)
    if objective in ("cross-entropy-two-heads", "rince-and-cross-entropy"):
        config.optim.lr = 0.02  # two losses on a feature that has no bounds
    folder = train(config, flat_backbone())
    history = read_history(folder)
    losses = [value for _, value in history["train/loss"]]
    if objective == "triplet-hierarchical":
        # A mean over the triplets that violate their margin: it tells nothing of how many do.
        gaps = [
            [a - b for (_, a), (_, b) in zip(history[better], history[worse], strict=True)]
            for better, worse in itertools.pairwise(
                f"train/similarity_rank_{rank}" for rank in (1, 2, 0)
            )
        ]
        assert all(sum(gap[-3:]) > sum(gap[:3]) for gap in gaps)
    else:
        assert losses[-1] < losses[0]
    assert history["online_knn"][-1][1] > 0.25  # chance: 4 classes
    for name in ("similarity_rank_0", "similarity_rank_1", "positives_rank_1", "positives_rank_2"):
        assert f"train/{name}" in history
    assert ("train/loss_rank_2" in history) == ("loss.variant" in OBJECTIVES[objective].reads)
    twofold = objective in ("supcon-sum", "supcon-two-heads", "cross-entropy-two-heads")
    assert ("train/loss_coarse" in history) == twofold
    assert {p.name for p in folder.iterdir()} == {
        "config.yaml",
        "about.json",
        "log.txt",
        "metrics.csv",
        "last.ckpt",
    }
    assert "epoch 8/8" in (folder / "log.txt").read_text()
    assert (tmp_path / "latest").resolve() == folder.resolve()


def test_momentum_and_queue_take_part(image_tree: Path, tmp_path: Path) -> None:
    model = ModelOptions(momentum=0.9, queue_size=40)
    config = small_config(image_tree, tmp_path, model=model)
    history = read_history(train(config, flat_backbone()))
    positives = [value for _, value in history["train/positives_rank_1"]]
    # 32 keys of the batch at first, 40 more once the queue is full: a quarter of them positives.
    assert positives[0] == pytest.approx(32 / 4, abs=4)
    assert positives[-1] == pytest.approx(72 / 4, abs=6)
    checkpoint = read_checkpoint(tmp_path / config.run_name())
    assert bool(checkpoint["state_dict"]["queue.valid"].all())


@pytest.mark.parametrize(
    "objective", ["supcon-sum", "supcon-two-heads", "himulcon", "triplet-hierarchical"]
)
def test_baselines_take_a_momentum_encoder_and_a_queue(
    objective: str, image_tree: Path, tmp_path: Path
) -> None:
    model = ModelOptions(momentum=0.9, queue_size=40, embedding_dim=8)
    config = small_config(image_tree, tmp_path, objective=objective, model=model, epochs=6)
    folder = train(config, flat_backbone())
    losses = [value for _, value in read_history(folder)["train/loss"]]
    assert sum(losses[-3:]) < sum(losses[3:6])  # once the queue is full
    heads = 2 if objective == "supcon-two-heads" else 1
    queue = read_checkpoint(folder)["state_dict"]["queue.embeddings"]
    assert queue.shape == (40, 8 * heads)
    torch.testing.assert_close(queue.norm(dim=1), torch.full((40,), math.sqrt(heads)))


def test_each_head_learns_its_own_level() -> None:
    """The gradient of a loss of two heads is that of each head's own loss."""
    tree = Taxonomy([("warm", "red"), ("warm", "orange"), ("cold", "blue")])
    config = TrainConfig(
        data="x", objective="supcon-two-heads", model=ModelOptions(embedding_dim=4)
    )
    module = RankedModule(flat_backbone(), splits_of(tree), config)
    z = module.encoder(torch.randn(9, 3, 16, 16))
    assert z.shape == (9, 8)
    labels = torch.arange(9) % 3
    pairs = Pairs(z, z, labels, labels, labels, labels, ignore_self=True, num_heads=2)
    step = Step(pairs, tree, tree.class_ranks, config.loss)
    total = objective_loss(OBJECTIVES["supcon-two-heads"], step).total
    fine = tree.ranks(labels, labels, ignore_self=True).tile(slice(None), slice(None))
    coarse = torch.where(fine == 2, 1, fine)
    fine = torch.where(fine == 2, 0, fine)
    expected = supcon_out(z[:, :4], z[:, :4], fine) + supcon_out(z[:, 4:], z[:, 4:], coarse)
    torch.testing.assert_close(total, expected)
    first, second = (dict(head.named_parameters()) for head in module.encoder.head.heads)
    of_fine = torch.autograd.grad(
        supcon_out(z[:, :4], z[:, :4], fine), first["layers.0.weight"], retain_graph=True
    )[0]
    total.backward()
    torch.testing.assert_close(first["layers.0.weight"].grad, of_fine)
    assert bool((second["layers.0.weight"].grad != 0).any())


def test_weak_augmentation_leaves_the_colours(image_tree: Path, tmp_path: Path) -> None:
    for cache in (True, False):
        images = ImageOptions(image_size=16, augmentation="weak", cache=cache, workers=0)
        name = f"weak-{cache}"
        config = replace(small_config(image_tree, tmp_path, epochs=1), name=name, images=images)
        config.knn_every = 0
        seen: list[torch.Tensor] = []
        backbone = flat_backbone()
        backbone.module.register_forward_pre_hook(lambda _, x, seen=seen: seen.append(x[0]))
        train(config, backbone)
        pixels = torch.cat(seen)  # every pixel is one of its image's, or a mean of neighbours
        # The strong views turn a part of the images grey: then all channels are one.
        mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
        std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
        colours = pixels * std + mean
        grey = (colours.amax(dim=1) - colours.amin(dim=1)).flatten(1).amax(dim=1) < 0.01
        assert not bool(grey.any()), cache


def test_the_same_seed_gives_the_same_weights(image_tree: Path, tmp_path: Path) -> None:
    weights = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        config = small_config(image_tree, tmp_path, name=name, seed=seed, epochs=1)
        folder = train(config, flat_backbone())
        weights.append(read_checkpoint(folder)["state_dict"]["encoder.backbone.1.weight"])
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_trained_run_comes_back(image_tree: Path, tmp_path: Path) -> None:
    runs = tmp_path / "my runs"  # commands that messages tell can be copied
    config = small_config(image_tree, runs, epochs=1, optim=OptimOptions(warmup_epochs=0))
    folder = train(config)
    run = load_run(folder)
    assert run.config == config.with_defaults(kind_named("images")).sized(76, 1)
    assert run.taxonomy.classes == ("blue", "green", "orange", "red")
    assert run.spec == InputSpec.images(3, 16)
    assert run.step == STEPS
    assert not run.backbone.module.training
    with pytest.raises(RinceError, match="--resume '.*/my runs/.*'.*--name"):
        train(config)
    with pytest.raises(RinceError, match="`rince evaluate '.*/my runs/.*'`"):
        load_evaluation(folder)


def test_a_classifier_comes_back_with_its_logits(image_tree: Path, tmp_path: Path) -> None:
    config = small_config(image_tree, tmp_path, objective="cross-entropy-two-heads", epochs=1)
    folder = train(config, flat_backbone())
    weights = read_checkpoint(folder)["state_dict"]
    assert weights["encoder.head.weight"].shape == (4 + 2, 16)
    classifier = load_run(folder, flat_backbone()).classifier
    assert classifier is not None
    features = torch.randn(3, 16)
    logits = features @ weights["encoder.head.weight"].T + weights["encoder.head.bias"]
    torch.testing.assert_close(classifier(features), logits[:, :4])
    other = train(small_config(image_tree, tmp_path, epochs=1), flat_backbone())
    assert load_run(other, flat_backbone()).classifier is None


def test_a_classifier_beside_the_projection_head_comes_back(
    image_tree: Path, tmp_path: Path
) -> None:
    """Resumed to the bit; the embedding is that of the projection head alone."""
    changes: dict[str, Any] = {
        "objective": "rince-and-cross-entropy",
        "model": ModelOptions(momentum=0.9, queue_size=40, embedding_dim=8),
        "checkpoint_every": 1,
    }

    def stop() -> None:
        raise RinceError("stopped for the test")

    torch.manual_seed(0)
    stopping, undisturbed = disturbed(STEPS + 2, stop), disturbed(0, stop)
    undisturbed.module.load_state_dict(stopping.module.state_dict())
    whole = train(small_config(image_tree, tmp_path, name="whole", **changes), undisturbed)
    with pytest.raises(RinceError, match="stopped for the test"):
        train(small_config(image_tree, tmp_path, name="stopped", **changes), stopping)
    folder = resume(tmp_path / "stopped", progress=False, backbone=disturbed(0, stop))
    expected, found = (read_checkpoint(x)["state_dict"] for x in (whole, folder))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())

    run = load_run(folder, disturbed(0, stop))
    assert run.space == "embedding"
    assert run.head is not None
    assert run.classifier is not None
    features = torch.randn(3, 16)
    assert run.head(features).shape == (3, 8)
    weight, bias = (found[f"encoder.head.classifier.{name}"] for name in ("weight", "bias"))
    torch.testing.assert_close(run.classifier(features), features @ weight.T + bias)
    assert trained_encoder(run).output_dim == 8
    few = EvaluationOptions(probe_epochs=1, map_points=0)
    metrics = evaluate_run(folder, backbone=disturbed(0, stop), options=few, device="cpu").metrics
    assert {"classifier/fine", "retrieval/fine/R@1", "embedding/retrieval/fine/R@1"} <= set(metrics)
    history = read_history(folder)
    parts = [history[f"train/loss_{name}"] for name in ("rank_1", "rank_2", "cross_entropy")]
    total = history["train/loss"][-1][1]
    assert total == pytest.approx(sum(part[-1][1] for part in parts), rel=1e-5)


def test_a_loss_that_blows_up_stops_with_advice(image_tree: Path, tmp_path: Path) -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))
            self.calls = 0

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            features = images.mean(dim=(2, 3)) * self.weight
            return features * float("nan") if self.calls > 3 else features

    backbone = as_backbone(Broken(), InputSpec.images(size=16))
    with pytest.raises((ValueError, FloatingPointError), match="learning rate|optim.lr"):
        train(small_config(image_tree, tmp_path, knn_every=0), backbone)


def test_a_loss_that_was_not_read_at_once_is_found_before_a_checkpoint(
    image_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rince.training.module._CHECKED_FIRST", 0)
    name, first = "run", STEPS + 1
    given = {"name": name, "knn_every": 0, "log_every": 1000, "validate_every": 1000}
    backbone = disturbed(first + 1, lambda: backbone.module.linear.weight.data.fill_(torch.nan))
    config = small_config(image_tree, tmp_path, checkpoint_every=first + 1, **given)
    with pytest.raises(FloatingPointError, match=rf"loss is nan\b.*step {first}\b.*optim\.lr"):
        train(config, backbone)
    checkpoint = read_checkpoint(tmp_path / name)
    assert checkpoint["global_step"] == STEPS
    assert all(torch.isfinite(x).all() for x in checkpoint["state_dict"].values())


@pytest.mark.parametrize("every", [1, 4])
def test_values_are_checked_in_the_first_steps_and_every_so_often(
    every: int, image_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rince.training.module._CHECKED_FIRST", 3)
    seen: list[bool] = []
    row = OBJECTIVES["rince"]

    def loss(step: Step) -> torch.Tensor:
        seen.append(step.pairs.validate)
        return row.function()(step).total

    config = small_config(image_tree, tmp_path, epochs=5, knn_every=0, validate_every=every)
    train(config, flat_backbone(), objective=Objective("noted", loss))
    numbers = range(1, 5 * STEPS + 1)
    assert seen == [i <= 3 or i % every == 0 for i in numbers]


@pytest.mark.parametrize(
    ("precision", "given", "expected"),
    [("32-true", None, "fp32"), ("bf16-mixed", None, "bf16"), ("bf16-mixed", "fp32", "fp32")],
)
def test_the_precision_of_products_is_written_and_reaches_the_loss(
    precision: str, given: Any, expected: str, image_tree: Path, tmp_path: Path
) -> None:
    seen: set[str] = set()

    def loss(step: Step) -> torch.Tensor:
        seen.add(str(step.options.matmul_precision))
        return step.pairs.query.sum()

    row = Objective("noted", loss, reads=("loss.matmul_precision",))
    config = small_config(image_tree, tmp_path, epochs=1, knn_every=0, precision=precision)
    config.loss.matmul_precision = given
    folder = train(config, flat_backbone(), objective=row)
    assert seen == {expected}
    assert read_config(folder).loss.matmul_precision == expected


def test_rounded_products_change_the_loss() -> None:
    z = torch.nn.functional.normalize(torch.randn(16, 32), dim=1)
    labels = torch.arange(16) % 4
    tree = Taxonomy([("a", "b"), ("a", "c"), ("d", "e"), ("d", "f")])
    pairs = Pairs(z, z, labels, labels, labels, labels, ignore_self=True)
    for name in ("rince", "supcon-in", "supcon-out", "supcon-sum", "infonce"):
        exact, rounded = (
            objective_loss(
                OBJECTIVES[name], Step(pairs, tree, tree, LossOptions(matmul_precision=precision))
            ).total
            for precision in (None, "bf16")
        )
        assert not torch.equal(exact, rounded), name
        torch.testing.assert_close(exact, rounded, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("tree", "changes", "message"),
    [
        ([("a",), ("b",)], {"objective": "supcon-coarse"}, "^supcon-coarse .*superclasses"),
        ([("a",), ("b",)], {"objective": "supcon-two-heads"}, "^supcon-two-heads .*superclasses"),
        ([("a",), ("b",)], {"objective": "cross-entropy-two-heads"}, "two-heads .*superclasses"),
        (
            [("a",), ("b",)],
            {"objective": "cross-entropy", "loss": LossOptions(smoothing=0.1)},
            "^loss.smoothing .*superclasses",
        ),
        (
            [("g", "a"), ("g", "b")],
            {"objective": "supcon-sum"},
            "^supcon-sum .*superclasses.* all classes are in one",
        ),
        ([("g", "a")], {}, r"one class \(a\)"),
        (
            [("g", "a"), ("g", "b")],
            {"loss": LossOptions(temperatures=(0.1, 0.2, 0.3))},
            r"loss.temperatures .*3 .*2 rank",
        ),
    ],
)
def test_what_cannot_be_trained_is_said_before(
    tree: list[tuple[str, ...]], changes: dict[str, object], message: str
) -> None:
    config = TrainConfig(data="x", **changes)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        RankedModule(flat_backbone(), splits_of(Taxonomy(tree)), config)


def test_temperatures_that_do_not_rise_are_warned_of(image_tree: Path, tmp_path: Path) -> None:
    config = small_config(
        image_tree,
        tmp_path,
        loss=LossOptions(temperatures=(0.2, 0.1)),
        epochs=1,
        optim=OptimOptions(warmup_epochs=0),
    )
    with pytest.warns(RinceWarning, match="0.2, 0.1"):
        train(config, flat_backbone())


def test_the_learning_rate_warms_up_and_falls_along_a_cosine() -> None:
    factors = [lr_factor(step, 110, 10, 0.001) for step in range(110)]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert factors[10] == pytest.approx(1)
    middle = 10 + 99 / 2
    expected = 0.001 + 0.999 * 0.5 * (1 + math.cos(math.pi * (59 - 10) / 99))
    assert middle == 59.5
    assert factors[59] == pytest.approx(expected)
    assert factors[-1] == pytest.approx(0.001)


def test_a_run_with_a_module_of_ones_own_comes_back_with_it(
    image_tree: Path, tmp_path: Path
) -> None:
    folder = train(small_config(image_tree, tmp_path, epochs=1, knn_every=0), flat_backbone())
    with pytest.raises(RinceError, match=r"load_run\(.*backbone="):
        load_run(folder)
    mine = flat_backbone()
    trained = load_run(folder, mine).backbone
    assert trained is mine
    expected = read_checkpoint(folder)["state_dict"]["encoder.backbone.1.weight"]
    assert torch.equal(mine.module.state_dict()["1.weight"], expected)


def test_mixed_precision_trains(image_tree: Path, tmp_path: Path) -> None:
    config = small_config(image_tree, tmp_path, precision="bf16-mixed", epochs=4, knn_every=0)
    folder = train(config, flat_backbone())
    losses = [value for _, value in read_history(folder)["train/loss"]]
    assert losses[-1] < losses[0]
    for name, x in read_checkpoint(folder)["state_dict"].items():
        assert x.dtype != torch.bfloat16, name  # only the arithmetic is short
        assert bool(torch.isfinite(x).all()), name


def test_adamw_is_used_when_asked_for(image_tree: Path, tmp_path: Path) -> None:
    optim = OptimOptions(optimizer="adamw", lr=0.003, weight_decay=0.02)
    config = small_config(image_tree, tmp_path, epochs=1, optim=optim, knn_every=0)
    (state,) = read_checkpoint(train(config, flat_backbone()))["optimizer_states"]
    assert "exp_avg_sq" in state["state"][0]
    assert state["param_groups"][0]["weight_decay"] == 0.02
    assert state["param_groups"][0]["decoupled_weight_decay"]  # Adam has the key too, but False


def test_clipping_bounds_the_update(image_tree: Path, tmp_path: Path) -> None:
    moved = {}
    for clip in (None, 0.01):
        optim = OptimOptions(lr=0.5, weight_decay=0, warmup_epochs=0, clip=clip)
        config = small_config(
            image_tree, tmp_path, name=f"clip-{clip}", epochs=1, optim=optim, knn_every=0
        )
        trained = load_run(train(config, flat_backbone()), flat_backbone()).backbone.module
        before = flat_backbone().module.state_dict()["1.weight"]
        moved[clip] = float((trained.state_dict()["1.weight"] - before).norm())
    # A gradient of norm 0.01 moves by lr * 0.01 and, with momentum 0.9, by 0.9 of that again.
    bound = 0.5 * 0.01 * sum(0.9**age for step in range(STEPS) for age in range(step + 1))
    assert 0 < moved[0.01] <= bound < moved[None]
