"""An evaluation reads a run and leaves it as it is."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_runs import flat_backbone, small_config, train_on
from torch import nn

from refusals import refusal
from rince.cli.main import main
from rince.core.checks import RinceError, RinceWarning
from rince.evaluation import STEPS, Context, EvaluationOptions, evaluate_backbone
from rince.evaluation.results import Evaluation, load_evaluation
from rince.reports.reading import read_run
from rince.training import ModelOptions, evaluate_run, evaluation, load_run, train
from rince.training.checkpoint import CHECKPOINT_FILE, TrainedRun
from rince.training.splits import load_splits

OPTIONS = EvaluationOptions(probe_epochs=1, map_points=0, gallery_queries=1)


@pytest.fixture(scope="module")
def run(image_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs")
    return train(small_config(image_tree, output, epochs=1, knn_every=0), flat_backbone())


def test_the_configuration_of_the_run_stays(
    run: Path, image_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It used to take over where the data are, the splits, and what is skipped."""
    loaded: list[TrainedRun] = []

    def keeping(*args: object) -> TrainedRun:
        loaded.append(load_run(*args))  # type: ignore[arg-type]
        return loaded[0]

    before = asdict(load_run(run, flat_backbone()).config)
    files = {name: (run / name).read_bytes() for name in ("config.yaml", "last.ckpt")}
    monkeypatch.setattr(evaluation, "load_run", keeping)
    evaluate_run(
        run,
        options=OPTIONS,
        data=str(image_tree),
        data_root="elsewhere",
        splits_folder="lists",
        split=2,
        skip_unreadable=True,
        device="cpu",
        backbone=flat_backbone(),
    )
    assert asdict(loaded[0].config) == before
    assert {name: (run / name).read_bytes() for name in files} == files


def test_options_that_would_be_ignored(run: Path) -> None:
    with pytest.raises(ValueError, match="--splits /nosuch needs --data"):
        evaluate_run(run, backbone=flat_backbone(), splits_folder="/nosuch")
    with pytest.raises(ValueError, match="--split 2 needs --splits"):
        evaluate_run(run, backbone=flat_backbone(), data="x", split=2)
    options = replace(OPTIONS, near=3.0)
    with pytest.warns(RinceWarning, match="^near .*images"):
        evaluate_run(run, backbone=flat_backbone(), options=options, device="cpu")
    options = replace(OPTIONS, knn_k=0)
    with pytest.raises(ValueError, match="^knn_k .*0"):
        evaluate_run("/nosuch", options=options)


def test_a_step_of_ones_own(run: Path) -> None:
    def count(context: Context) -> dict[str, float]:
        return {"mine/queries": float(len(context.test))}

    with pytest.raises(RinceError, match="backbone="):
        evaluate_run(run, options=OPTIONS, device="cpu")
    own = evaluate_run(
        run, options=OPTIONS, device="cpu", backbone=flat_backbone(), steps=[*STEPS, count]
    )
    assert own.metrics["mine/queries"] == own.info["test_images"]
    assert "knn/fine" in own.metrics


# ---- what is there stays, what is asked for is measured ----------------------------------------


@pytest.fixture(scope="module")
def named_run(image_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("named")
    model = ModelOptions(backbone="tiny-resnet", embedding_dim=8)
    return train(small_config(image_tree, output, epochs=1, knn_every=0, model=model))


@pytest.fixture(scope="module")
def unseen_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes that were trained (warm/red, cold/blue), and two that were not."""
    root = tmp_path_factory.mktemp("unseen")
    random = np.random.default_rng(5)
    for name in ("warm/red", "warm/yellow", "cold/blue", "cold/grey"):
        folder = root / name
        folder.mkdir(parents=True)
        for index in range(4):
            pixels = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{index}.png")
    return root


def evaluated(run: Path, *options: str) -> Evaluation:
    given = ["--probe-epochs", "1", "--map-points", "0", "--device", "cpu"]
    assert main(["evaluate", str(run), *given, *options]) == 0
    return load_evaluation(run)


def test_both_spaces_are_measured(named_run: Path) -> None:
    found = evaluate_run(str(named_run), options=OPTIONS, device="cpu").metrics
    # Where the nearest image is always right, no mistake has a severity.
    known = {name for name in found if not name.endswith("mistake-severity")}
    features = {name for name in known if not name.startswith("embedding/")}
    assert {name.removeprefix("embedding/") for name in known - features} == features
    trained = load_run(str(named_run))
    splits = load_splits(trained.config)
    alone = evaluate_backbone(
        trained.backbone, splits, {}, head=trained.head, options=OPTIONS
    ).metrics
    assert alone == pytest.approx(found)
    assert trained.head is not None
    whole = nn.Sequential(trained.backbone.module, trained.head)
    direct = evaluate_backbone(whole, splits, {}, options=OPTIONS).metrics
    for name in ("retrieval/fine/mAP", "retrieval/coarse/R@1", "knn/fine"):
        assert found[f"embedding/{name}"] == pytest.approx(direct[name], abs=1e-4)


def test_outliers_and_tests_accumulate(
    named_run: Path,
    image_tree: Path,
    unseen_tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = shutil.copytree(named_run, tmp_path / "run")
    first = evaluated(run, "--ood", "digits")
    plain = evaluated(run, "--seed", "3")
    assert plain.metrics.keys() == first.metrics.keys()
    assert plain.info["measured_with"]["data"]["seed"] == 3
    assert plain.info["measured_with"]["ood/digits"]["seed"] == 0
    assert ("digits", "knn") in plain.roc

    more = evaluated(run, "--skip-done", "--ood", f"noise={unseen_tree}", "--ood", "digits")
    assert more.info["outliers"].keys() == {"digits", "noise"}
    assert {k: v for k, v in more.metrics.items() if "/noise/" not in k} == plain.metrics
    assert ("noise", "knn") in more.roc

    # A test needs the training data no longer.
    monkeypatch.setattr(evaluation, "load_splits", None)
    tested = evaluated(run, "--skip-done", "--test", f"new={unseen_tree}", "--ood", "digits")
    assert "16 images of 4 classes, 2 of them not trained" in capsys.readouterr().out
    assert tested.info["tests"]["new"]["unseen"] == 2
    for name in ("seen", "unseen", "embedding/seen", "embedding/unseen"):
        assert 0 <= tested.metrics[f"{name}/new/retrieval/coarse/mAP"] <= 1
    assert {k: v for k, v in tested.metrics.items() if "/new/" not in k} == more.metrics
    before = (run / "results.json").read_bytes()
    evaluated(run, "--skip-done", "--test", f"new={unseen_tree}", "--ood", "digits")
    assert (run / "results.json").read_bytes() == before
    monkeypatch.undo()

    # The same name for other data is not the same.
    assert evaluation.not_measured(run, {"noise": str(unseen_tree)}, {"new": str(unseen_tree)}) == (
        {},
        {},
    )
    others = {"noise": "elsewhere/"}, {"new": "elsewhere/"}
    assert evaluation.not_measured(run, *others) == others

    # Results of other weights, or of other data, are not kept.
    train_on(run)
    assert "ood/digits/knn/AUROC" not in evaluated(run, "--skip-done").metrics
    evaluated(run, "--ood", "digits")
    other = evaluated(run, "--skip-done", "--data", str(unseen_tree))
    assert other.info["data"] == unseen_tree.name
    assert "ood/digits/knn/AUROC" not in other.metrics
    again = evaluated(run, "--skip-done", "--data", str(unseen_tree))
    assert again.info["extract_seconds"] == other.info["extract_seconds"]


def test_data_are_the_same_with_a_slash_behind_them(named_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(named_run, tmp_path / "run")
    evaluated(run)
    data = read_run(run).config["data"]
    config = (run / "config.yaml").read_text()
    assert f"data: {data}\n" in config
    (run / "config.yaml").write_text(config.replace(f"data: {data}\n", f"data: {data}/\n"))
    assert read_run(run).config["data"] == data


def test_results_are_of_their_weights_whatever_the_times(named_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(named_run, tmp_path / "run")
    evaluated(run)
    copy = shutil.copytree(run, tmp_path / "copy")
    os.utime(copy / "results.json", (0, 0))  # as of a clone, or a zip
    with warnings.catch_warnings():
        warnings.simplefilter("error", RinceWarning)
        read_run(copy)
    train_on(copy)
    with pytest.warns(RinceWarning, match="copy are not of what it holds now: `rince evaluate"):
        read_run(copy)

    # Results of an earlier rince do not say: there the times are all that is known.
    text = (run / "results.json").read_text()
    source = json.loads(text)["info"]["source"]
    assert source["file"] == CHECKPOINT_FILE
    (run / "results.json").write_text(text.replace('"source"', '"sauce"'))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RinceWarning)
        read_run(run)
    os.utime(run / "results.json", (0, 0))
    with pytest.warns(RinceWarning, match="run are older than it is, by the times"):
        read_run(run)


def test_two_evaluations_at_a_time_lose_nothing(
    named_run: Path, unseen_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One ends while the other, which has read the results that were there, still measures."""
    run = shutil.copytree(named_run, tmp_path / "run")
    evaluated(run, "--test", f"new={unseen_tree}")
    measure = evaluation.measure

    def measured_meanwhile(*given: Any, **options: Any) -> Any:
        monkeypatch.undo()
        evaluated(run, "--skip-done", "--ood", f"meanwhile={unseen_tree}")
        return measure(*given, **options)

    for asked in (["--skip-done"], []):
        monkeypatch.setattr(evaluation, "measure", measured_meanwhile)
        found = evaluated(run, *asked, "--ood", "digits")
        for name in ("meanwhile", "digits"):
            assert f"ood/{name}/knn/AUROC" in found.metrics
            assert (name, "knn") in found.roc
        assert set(found.info["outliers"]) == {"meanwhile", "digits"}
        assert any(name.startswith("unseen/new/") for name in found.metrics)
        (run / "results.json").unlink()
        evaluated(run, "--test", f"new={unseen_tree}")


def test_a_test_that_does_not_fit_loses_nothing(
    named_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(named_run, tmp_path / "run")
    (tmp_path / "words.csv").write_text("text,kind\na,b\n")
    for wrong in ("words.csv", "missing"):
        shown = refusal(
            ["evaluate", str(run), "--test", str(tmp_path / wrong), "--map-points", "0"], capsys
        )
        assert wrong in shown
        assert "retrieval/fine/R@1" in load_evaluation(run).metrics
