"""An evaluation reads a run and leaves it as it is."""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import flat_backbone, small_config, splits_of, train_on
from torch import nn

from refusals import refusal
from rince.cli.main import main
from rince.core.checks import RinceError, RinceWarning
from rince.data.items import Splits
from rince.evaluation import STEPS, Context, EvaluationOptions, evaluate_backbone
from rince.evaluation.elsewhere import evaluate_embeddings
from rince.evaluation.open_world import OpenTest, evaluate_open
from rince.evaluation.results import Evaluation, load_evaluation
from rince.ranks.taxonomy import Taxonomy
from rince.reports.reading import read_run, read_runs
from rince.reports.table import comparison_rows
from rince.training import ModelOptions, evaluate_run, evaluation, load_run, train
from rince.training import evaluated as evaluated_data
from rince.training.checkpoint import CHECKPOINT_FILE, TrainedRun
from rince.training.config import flat, to_dict
from rince.training.folder import read_config
from rince.training.kept_results import unmeasured_outliers, unmeasured_tests
from rince.training.splits import load_splits

RESULTS = shutil.ignore_patterns("results.json", "evaluation.npz")
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
    monkeypatch.setattr(evaluated_data, "load_run", keeping)
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


def test_places_of_other_data_are_taken_as_paths(
    run: Path, unseen_tree: Path, tmp_path: Path
) -> None:
    """What was measured was lost, as a path is none of JSON."""
    shutil.copytree(run, folder := tmp_path / "run")
    given: dict[str, Any] = {"outliers": {"far": unseen_tree}, "tests": {"new": unseen_tree}}
    common: dict[str, Any] = {"options": OPTIONS, "device": "cpu", "backbone": flat_backbone()}
    found = evaluate_run(folder, **given, **common)
    assert {"ood/far/knn/AUROC", "unseen/new/hierarchy/H-AP"} <= found.metrics.keys()
    info = load_evaluation(folder).info
    assert info["outlier_data"]["far"] == info["tests"]["new"]["data"] == str(unseen_tree)
    texts = {"outliers": {"far": str(unseen_tree)}, "tests": {"new": str(unseen_tree)}}
    before = (folder / "results.json").read_bytes()
    evaluate_run(folder, **texts, **common, skip_done=True)  # type: ignore[arg-type]
    assert (folder / "results.json").read_bytes() == before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"a/b": "digits"}, "'a/b' may not hold a slash"),
        ({" ": "digits"}, "' ' is no name"),
        ({7: "digits"}, "text, got 7"),
        ({"far": torch.zeros(1)}, "got Tensor for 'far'"),
        ({"far": ""}, "got '' for 'far'"),  # which would be the current folder
        (["digits"], r"got \['digits'\]"),
    ],
)
def test_other_data_by_names_that_metrics_can_have(given: Any, message: str, run: Path) -> None:
    """Before anything is read: the folder of the run is not there."""
    for option in ("outliers", "tests"):
        with pytest.raises(ValueError, match=f"^{option} must map names to data.*{message}"):
            evaluate_run("nosuch", **{option: given}, options=OPTIONS, device="cpu")


def test_names_that_metrics_cannot_have_in_other_evaluations() -> None:
    pixels = torch.zeros(4, 3, 16, 16, dtype=torch.uint8)
    splits = splits_of(Taxonomy([("a",), ("b",)]))
    with pytest.raises(ValueError, match="^outliers: .*'a/b' may not hold a slash"):
        evaluate_backbone(flat_backbone(), splits, {"a/b": pixels}, options=OPTIONS)
    with pytest.raises(ValueError, match="^a test: .*'a/b' may not hold a slash"):
        evaluate_open(flat_backbone().module, "a/b", OpenTest(splits.test), ())


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


def evaluated(run: Path, *options: str, results: Path | None = None) -> Evaluation:
    given = ["--probe-epochs", "1", "--map-points", "0", "--device", "cpu"]
    assert main(["evaluate", str(run), *given, *options]) == 0
    return load_evaluation(results or run)


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
    monkeypatch.setattr(evaluated_data, "load_splits", None)
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
    known = {"noise": str(unseen_tree)}, {"new": str(unseen_tree)}
    others = {"noise": "elsewhere/"}, {"new": "elsewhere/"}
    for (outliers, tests), left in ((known, ({}, {})), (others, others)):
        new = unmeasured_outliers(tested, outliers, {}), unmeasured_tests(tested, tests, None, {})
        assert new == left

    # Results of other weights are not kept.
    train_on(run)
    assert "ood/digits/knn/AUROC" not in evaluated(run, "--skip-done").metrics


def test_results_of_other_data_have_a_folder_of_their_own(
    named_run: Path, unseen_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(named_run, tmp_path / "run")
    own = evaluated(run, "--ood", "digits")
    files = {name: (run / name).read_bytes() for name in ("results.json", "evaluation.npz")}
    folder = run / f"{unseen_tree.name}.results"
    given = ["--data", str(unseen_tree)]

    other = evaluated(run, "--skip-done", *given, results=folder)
    assert other.info["data"] == unseen_tree.name
    assert "ood/digits/knn/AUROC" not in other.metrics
    shown = capsys.readouterr().out
    assert f"numbers are in {folder}/results.json" in shown
    assert re.search(rf"on +{unseen_tree.name}", shown)  # its row

    # What accumulates there is what is there, whatever the run's own results hold.
    tests = ["--ood", "digits", "--test", f"new={unseen_tree}"]
    more = evaluated(run, "--skip-done", *given, *tests, results=folder)
    assert {"ood/digits/knn/AUROC", "unseen/new/hierarchy/H-AP"} <= more.metrics.keys()
    assert other.metrics.items() <= more.metrics.items()
    assert more.info["extract_seconds"] == other.info["extract_seconds"]
    before = (folder / "results.json").read_bytes()
    evaluated(run, "--skip-done", *given, *tests, results=folder)
    assert (folder / "results.json").read_bytes() == before
    anew = evaluated(run, *given, results=folder)
    assert anew.metrics.keys() == more.metrics.keys()
    assert anew.info["extract_seconds"] != other.info["extract_seconds"]

    assert {name: (run / name).read_bytes() for name in files} == files
    assert load_evaluation(run).metrics == own.metrics

    # They are of the weights in the run.
    train_on(run)
    with pytest.warns(
        RinceWarning, match=rf"run on {folder.stem} are not .*run --data DATA` again"
    ):
        read_run(folder)
    assert "ood/digits/knn/AUROC" not in (
        evaluated(run, "--skip-done", *given, results=folder).metrics
    )


def test_data_are_told_apart_by_where_they_lie(
    named_run: Path, image_tree: Path, unseen_tree: Path, tmp_path: Path
) -> None:
    """Files of the same names may be altered copies."""
    run = shutil.copytree(named_run, tmp_path / "run")
    own = evaluated(run)
    for data, name in ((unseen_tree, unseen_tree.name), (image_tree, image_tree.name)):
        copy = shutil.copytree(data, tmp_path / "altered" / name)
        for file in copy.glob("*/*/*.png"):
            Image.open(file).rotate(180).save(file)
    folders = {
        unseen_tree: f"{unseen_tree.name}.results",
        tmp_path / "altered" / unseen_tree.name: f"{unseen_tree.name}-2.results",
        tmp_path / "altered" / image_tree.name: f"{image_tree.name}.results",
    }
    measured = {
        data: evaluated(run, "--data", str(data), results=run / name)
        for data, name in folders.items()
    }
    for data, name in folders.items():
        again = evaluate_run(run, data=f"{data}/", skip_done=True, device="cpu")
        assert again.info == measured[data].info
        assert again.folder == run / name
    (tmp_path / "altered" / unseen_tree.name / "warm/red/0.png").unlink()  # other data than before
    third = evaluate_run(run, data=str(tmp_path / "altered" / unseen_tree.name), options=OPTIONS)
    assert third.folder == run / f"{unseen_tree.name}-3.results"
    assert load_evaluation(run).info == own.info


def test_the_data_of_the_training_are_the_runs_own_however_given(
    named_run: Path, image_tree: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(named_run, tmp_path / "run")
    splits = load_splits(load_run(run).config)
    evaluated(run, "--ood", "digits")
    evaluated(run, "--skip-done", "--data", f"{image_tree}/")
    found = evaluate_run(run, splits=splits, skip_done=True, device="cpu")
    assert found.folder == run
    assert "ood/digits/knn/AUROC" in found.metrics
    assert not list(run.glob("*.results"))

    # Moved, and no longer where they were.
    moved = shutil.copytree(image_tree, tmp_path / "new" / image_tree.name)
    checkpoint = torch.load(run / CHECKPOINT_FILE, weights_only=True)
    checkpoint["rince"]["config"]["data"] = str(tmp_path / "gone")
    torch.save(checkpoint, run / CHECKPOINT_FILE)
    assert evaluate_run(run, data=str(moved), options=OPTIONS, device="cpu").folder == run

    # Items of the same labels under another name are others.
    other = Splits(*(x.with_taxonomy(x.taxonomy, "a/b (c)") for x in (splits.train, splits.test)))
    found = evaluate_run(run, splits=other, options=OPTIONS, device="cpu")
    assert found.folder == run / "a-b-c.results"


def test_results_of_other_data_are_compared_as_a_row(
    named_run: Path, unseen_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(named_run, tmp_path / "run", ignore=RESULTS)
    results = run / f"{unseen_tree.name}.results"
    evaluated(run, "--data", str(unseen_tree), results=results)
    page = str(tmp_path / "page.html")
    assert f"On other data there are {results}" in refusal(
        ["compare", str(run), "-o", page], capsys
    )
    evaluated(run)
    capsys.readouterr()
    compared = ["compare", str(run), str(results), "-o", page]
    assert main([*compared, "--baseline", str(run)]) == 0
    shown = capsys.readouterr().out
    own, other = read_runs([run, results])
    assert other.label == f"{own.label} on {unseen_tree.name}"
    assert other.label in shown
    assert other.folder == results
    assert other.config == {**own.config, "evaluate.data": str(unseen_tree)}
    assert (other.seconds, other.versions, other.history) == (
        own.seconds,
        own.versions,
        own.history,
    )
    assert other.history
    assert [len(row.runs) for row in comparison_rows([own, other]).rows] == [1, 1]

    # It is no run.
    for verb in ("evaluate", "export"):
        shown = refusal([verb, str(results)], capsys)
        assert f"it holds results of {run} on other data" in shown
    with pytest.warns(RinceWarning, match=rf"it holds results of {run} on other data"):
        main(["evaluate", str(run), str(results), "--skip-done"])
    (results / "results.json").write_text("damaged")
    again = f"`rince evaluate {run} --data DATA` again"
    assert again in refusal(["compare", str(results), "-o", page], capsys)
    with pytest.warns(RinceWarning, match="damaged .* all is measured anew"):
        evaluated(run, "--data", str(unseen_tree), results=results)


def test_embeddings_in_the_folder_of_a_run_keep_their_results(
    named_run: Path, unseen_tree: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(named_run, tmp_path / "run")
    name, vectors = unseen_tree.name, np.random.default_rng(0).normal(size=(8, 4))
    np.savez(run / f"{name}.npz", embeddings=vectors, labels=np.arange(8) % 2)
    embedded = evaluate_embeddings(run / f"{name}.npz")
    assert embedded.folder == run / f"{name}.results"
    found = evaluated(run, "--data", str(unseen_tree), results=run / f"{name}-2.results")
    assert load_evaluation(run / f"{name}.results").info == embedded.info
    assert read_run(run / f"{name}.npz").label == name
    assert read_run(run / f"{name}-2.results").evaluation.info == found.info


def test_the_first_data_stand_for_those_of_an_export(
    named_run: Path, image_tree: Path, unseen_tree: Path, tmp_path: Path
) -> None:
    pytest.importorskip("safetensors")
    run, folder = tmp_path / "run", tmp_path / "net"
    shutil.copytree(named_run, run, ignore=RESULTS)
    with pytest.warns(RinceWarning, match="has no results"):
        assert main(["export", str(run), "--no-onnx", "-o", str(folder)]) == 0
    first = evaluated(folder, "--data", str(unseen_tree), "--ood", "digits")
    other = folder / f"{image_tree.name}.results"
    evaluated(folder, "--data", str(image_tree), results=other)
    assert read_run(other).label == f"net on {image_tree.name}"
    again = evaluated(folder, "--data", str(unseen_tree), "--skip-done")
    assert again.info == first.info
    assert read_run(folder).label == "net"


def test_data_are_the_same_with_a_slash_behind_them(named_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(named_run, tmp_path / "run")
    evaluated(run)
    data = read_run(run).config["data"]
    about = json.loads((run / "about.json").read_text())
    assert about["config"]["data"] == data
    about["config"]["data"] += "/"
    (run / "about.json").write_text(json.dumps(about))
    assert read_run(run).config["data"] == data


def test_options_are_those_of_the_training_whatever_was_edited_since(
    named_run: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(named_run, tmp_path / "run")
    evaluated(run)
    before = read_run(run)
    assert before.config == dict(flat(to_dict(read_config(run))))
    config = (run / "config.yaml").read_text()
    for edits in (("lr: 0.05", "lr: 9.0"), ("variant: out-in", "variant: in"), ("epochs: 1", "?")):
        assert edits[0] in config
        (run / "config.yaml").write_text(config.replace(*edits))
        assert (read_run(run).config, read_run(run).label) == (before.config, before.label)
    # Runs that are not finished, or of an older rince, have their config.yaml alone.
    (run / "config.yaml").write_text(config.replace("lr: 0.05", "lr: 9.0"))
    about = json.loads((run / "about.json").read_text())
    for held in (
        {**about, "config": 7},
        {**about, "config": {**about["config"], "epochs": "many"}},
    ):
        (run / "about.json").write_text(json.dumps(held))
        with pytest.raises(RinceError, match=r"about\.json is damaged"):
            read_run(run)
    del about["config"]
    (run / "about.json").write_text(json.dumps(about))
    assert read_run(run).config == {**before.config, "optim.lr": 9.0}


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
