"""A head on stored features: trained, evaluated, embedded and exported, from files and arrays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rince
from rince import RinceError, RinceWarning
from rince.cli.main import main
from rince.core.input_spec import InputSpec
from rince.data import Splits, from_vectors
from rince.evaluation.embeddings import load_embeddings
from rince.models.backbones import build_backbone
from rince.training.checkpoint import load_run
from rince.training.config import (
    ModelOptions,
    OptimOptions,
    TextOptions,
    TrainConfig,
    VectorOptions,
    VideoOptions,
)
from rince.training.evaluation import evaluate_run
from rince.training.objectives import OBJECTIVES
from rince.training.run import resume, train

WIDTH, CLASSES = 12, 6
QUICK: dict[str, Any] = {
    "optim": OptimOptions(lr=0.05, warmup_epochs=0.5),
    "epochs": 4,
    "batch_size": 24,
    "accelerator": "cpu",
    "knn_every": 0,
    "progress": False,
}


def made(count: int = 120, seed: int = 0) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """Classes around points near those of their groups in half of the dimensions; the others hold
    noise alone, and more of it."""
    rng = np.random.default_rng(7)
    group = np.repeat(rng.normal(size=(2, WIDTH)), CLASSES // 2, axis=0)
    centre = 2 * (group + rng.normal(size=(CLASSES, WIDTH)))
    centre[:, WIDTH // 2 :] = 0
    y = np.arange(count) % CLASSES
    noise = np.random.default_rng(seed).normal(size=(count, WIDTH))
    noise[:, WIDTH // 2 :] *= 5
    labels = [(f"g{c // 3}", f"c{c}") for c in y.tolist()]
    return (centre[y] + noise).astype(np.float32), labels


@pytest.fixture
def features(tmp_path: Path) -> Path:
    vectors, labels = made()
    names = np.array([f"p/{i}.jpg" for i in range(len(vectors))])
    np.savez(tmp_path / "features.npz", embeddings=vectors, paths=names)
    rows = [f"{name},{g},{c}" for name, (g, c) in zip(names, labels, strict=True)]
    (tmp_path / "items.csv").write_text("\n".join(["path,group,class", *rows[::-1]]))
    return tmp_path / "features.npz"


def config(features: Path, **changes: Any) -> TrainConfig:
    labels = VectorOptions(labels=str(features.parent / "items.csv"))
    values = {**QUICK, "output": str(features.parent / "runs"), **changes}
    return TrainConfig(str(features), vectors=labels, **values)


def test_train_evaluate_embed_and_export(
    features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for library in ("onnx", "onnxscript", "onnxruntime", "safetensors"):
        pytest.importorskip(library)
    given = ["--epochs", "2", "--batch-size", "24", "--output", str(tmp_path / "runs")]
    given += ["--knn-every", "0", "--accelerator", "cpu"]
    labels = str(tmp_path / "items.csv")
    assert main(["train", str(features), "--labels", labels, *given]) == 0
    run = tmp_path / "runs" / "features-rince-out-in-seed0"
    assert main(["evaluate", str(run), "--map-points", "0"]) == 0
    assert {"retrieval/fine/R@1", "embedding/retrieval/coarse/mAP", "probe/fine"} <= (
        rince.evaluation.load_evaluation(run).metrics.keys()
    )
    assert main(["embed", str(run), str(features), "-o", str(tmp_path / "a.npz")]) == 0
    found = load_embeddings(tmp_path / "a.npz")
    assert found.paths[:2] == ("p/0.jpg", "p/1.jpg")
    # By definition: the head on the backbone on the vectors.
    trained = load_run(run)
    assert trained.spec == InputSpec("vectors", (WIDTH,))
    vectors = torch.from_numpy(made()[0])
    assert trained.head is not None
    with torch.no_grad():
        expected = trained.head(trained.backbone.module(vectors))
    torch.testing.assert_close(found.vectors, expected)

    assert main(["export", str(run)]) == 0
    export = run / "export"
    encoder = rince.load_exported(export)
    with torch.no_grad():
        torch.testing.assert_close(encoder.module(encoder.normalised(vectors)), expected)
    import onnxruntime

    session = onnxruntime.InferenceSession(export / "model.onnx")
    for factor in (1, 1e-20, 1e20):  # only the direction of a vector counts
        (given_by_onnx,) = session.run(None, {"vectors": factor * vectors.numpy()})
        np.testing.assert_allclose(given_by_onnx, expected.numpy(), atol=1e-5)
    card = (export / "README.md").read_text()
    assert f"(B, {WIDTH}) float32" in card
    assert "pixels" not in card
    assert main(["embed", str(export), str(features), "-o", str(tmp_path / "b.npz")]) == 0
    torch.testing.assert_close(load_embeddings(tmp_path / "b.npz").vectors, found.vectors)

    # An export is measured on other vectors, with the labels of a table.
    other = ["--data", str(features), "--labels", labels, "--map-points", "0"]
    assert main(["evaluate", str(export), *other]) == 0
    capsys.readouterr()
    np.save(tmp_path / "one.npy", vectors[5:6].numpy())
    query = ["search", str(tmp_path / "one.npy"), "--gallery", str(tmp_path / "a.npz"), "-k", "1"]
    assert main([*query, "--run", str(run)]) == 0
    assert "1.000  p/5.jpg" in capsys.readouterr().out
    np.save(tmp_path / "two.npy", vectors[5:7].numpy())  # each is a query
    query[1] = str(tmp_path / "two.npy")
    assert main([*query, "--run", str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[::2] == [f"{query[1]}: 0", f"{query[1]}: 1"]
    assert [line.split()[-2:] for line in lines[1::2]] == [
        ["1.000", "p/5.jpg"],
        ["1.000", "p/6.jpg"],
    ]
    np.save(tmp_path / "wide.npy", np.ones((2, WIDTH + 1)))
    with pytest.raises(RinceError, match=f"{WIDTH + 1} dimensions, .* {WIDTH}"):
        rince.data.kinds.embedding_names(encoder, str(tmp_path / "wide.npy"))


@pytest.mark.parametrize("backbone", ["mlp", "linear", "identity"])
@pytest.mark.parametrize("head", ["mlp", "linear"])
def test_heads_learn_and_come_back(features: Path, backbone: str, head: str) -> None:
    """Every form learns more of the classes than the features show; and is read back."""
    model = ModelOptions(backbone=backbone, head=head, embedding_dim=8)  # type: ignore[arg-type]
    items = from_vectors(*made(600), dropout=0.1)
    splits = Splits(items.subset(range(480)), items.subset(range(480, 600)))
    changes = {"epochs": 10, "batch_size": 48, "optim": OptimOptions(lr=0.2)}
    given = config(features, model=model, objective="supcon-out", **changes)
    folder = train(given, splits=splits)
    trained = load_run(folder)
    assert trained.head is not None
    assert len(list(trained.head.parameters())) == (2 if head == "linear" else 4)
    vectors, labels = made(240, seed=1)
    y = np.array([int(c[1:]) for _, c in labels])
    with torch.no_grad():
        features_of_run = trained.backbone.module(torch.from_numpy(vectors))
        unit = trained.head(features_of_run).numpy()
    plain = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def nearest_is_right(x: np.ndarray) -> float:
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        cosines = x @ x.T - 2 * np.eye(len(x))
        return float((y[cosines.argmax(axis=1)] == y).mean())

    best = max(nearest_is_right(unit), nearest_is_right(features_of_run.numpy()))
    assert best > nearest_is_right(plain) + 0.1
    if backbone == "identity":  # of one length, and otherwise as they are
        expected = torch.from_numpy(plain) * WIDTH**0.5
        torch.testing.assert_close(features_of_run, expected)


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_any_objective_of_the_table(features: Path, objective: Any) -> None:
    row = OBJECTIVES[objective]
    if row.package is not None:
        pytest.importorskip(row.package[0])
    folder = train(config(features, objective=objective, epochs=1))
    trained = load_run(folder)
    features_of_run = trained.backbone.module(torch.from_numpy(made()[0]))
    assert features_of_run.shape == (120, 256)
    assert bool(features_of_run.isfinite().all())


def test_arrays_train_as_the_file_does_and_a_run_goes_on(features: Path, tmp_path: Path) -> None:
    vectors, labels = made()
    of_file = train(config(features, name="of-file"))
    whole = load_run(of_file).backbone.module.state_dict()
    train(config(features, name="shorter", epochs=2))
    resume(tmp_path / "runs" / "shorter", epochs=4, progress=False)
    assert load_run(tmp_path / "runs" / "shorter").step == load_run(of_file).step
    items = from_vectors(vectors, labels)
    parts = Splits(items.subset(range(96)), items.subset(range(96, 120)))
    folder = train(config(features, name="of-arrays"), splits=parts)
    found = evaluate_run(folder, splits=parts, device="cpu")
    assert {"probe/fine", "embedding/retrieval/fine/R@1"} <= found.metrics.keys()
    assert load_run(folder).backbone.module.state_dict().keys() == whole.keys()


@pytest.mark.filterwarnings("ignore:1 of 6 classes of the test are not among")
@pytest.mark.filterwarnings("ignore:.*80 of 120 rows are left out of the test")
def test_classes_of_the_test_alone_are_left_out_and_measured_as_never_seen(features: Path) -> None:
    _, labels = made()
    sides = ["train" if i % 5 and c != "c5" else "test" for i, (_, c) in enumerate(labels)]
    rows = [f"{g},{c},{x}" for (g, c), x in zip(labels, sides, strict=True)]
    features.with_suffix(".csv").write_text("\n".join(["group,class,split", *rows]))
    np.savez(features, embeddings=made()[0])
    run = train(replace(config(features), vectors=VectorOptions()))
    with pytest.warns(RinceWarning, match=r"20 of 40 test vectors .*never trained"):
        found = evaluate_run(run)
    assert found.info["test_images"] == 20
    assert "retrieval/fine/mAP" in found.metrics
    tested = evaluate_run(run, tests={"all": str(features)}, skip_done=True)
    assert tested.info["tests"]["all"]["unseen"] == 1
    assert "unseen/all/retrieval/fine/mAP" in tested.metrics


def test_a_known_class_without_a_training_item_is_left_out_too(features: Path) -> None:
    """As where all its items lie in a sequence, or a video, that was held out."""
    vectors, labels = made()
    items = from_vectors(vectors, labels)
    held_out = torch.arange(120) % 5 == 0
    alone = items.labels == 5
    parts = Splits(items.subset(~held_out & ~alone), items.subset(held_out | alone))
    folder = train(config(features, epochs=1), splits=parts)
    with pytest.warns(RinceWarning, match=r"20 of 40 test vectors .*never trained"):
        found = evaluate_run(folder, splits=parts, device="cpu")
    assert found.info["test_images"] == 20
    fewer = Splits(parts.train, parts.test.subset(parts.test.labels < 5))
    other = evaluate_run(folder, splits=fewer, device="cpu")
    assert {k: v for k, v in found.metrics.items() if "/fine" in k} == {
        k: v for k, v in other.metrics.items() if "/fine" in k
    }


def test_options_of_other_kinds_of_data_are_said_to_have_no_effect(features: Path) -> None:
    given = {"videos": VideoOptions(frames=4), "text": TextOptions(layers=1), "epochs": 1}
    with pytest.warns(RinceWarning, match=r"no effect on vectors: videos\.frames, text\.layers$"):
        train(config(features, **given))


def test_the_length_of_a_vector_means_nothing() -> None:
    """What rince embed writes has length 1, what a network gives any."""
    torch.manual_seed(0)
    backbone = build_backbone("mlp", InputSpec("vectors", (WIDTH,))).module.eval()
    vectors = torch.randn(5, WIDTH)
    lengths = torch.tensor([[0.01], [1.0], [3.0], [100.0], [0.5]])
    torch.testing.assert_close(backbone(vectors * lengths), backbone(vectors))
    assert bool(backbone(torch.zeros(1, WIDTH)).isfinite().all())


def test_networks_of_other_kinds_are_refused(features: Path) -> None:
    with pytest.raises(ValueError, match=r"SmallResNet.*mlp, linear, identity"):
        train(config(features, model=ModelOptions(backbone="small-resnet")))
    with pytest.raises(ValueError, match="fails on colour images"):
        build_backbone("mlp", InputSpec.images())


def test_a_rank_that_no_two_items_have_is_said_where_the_caller_is(tmp_path: Path) -> None:
    features, labels = made()
    items = from_vectors(features, [(fine, coarse) for coarse, fine in labels])  # the wrong order
    config = TrainConfig("x", output=str(tmp_path), **QUICK)
    config.epochs = 1
    with pytest.warns(rince.RinceWarning, match="no two training vectors have rank 2") as said:
        train(config, splits=Splits(items, items))
    assert [x.filename for x in said if "rank 2" in str(x.message)] == [__file__]
