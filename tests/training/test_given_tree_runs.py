"""Runs on classes without superclasses, which a file gives them (ranks.tree): as runs on data that
have the same ones."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import yaml

from refusals import refusal
from rince import RinceError, RinceWarning, Similarity
from rince.cli.main import main
from rince.data import Splits, from_vectors
from rince.evaluation import EvaluationOptions
from rince.evaluation.results import load_evaluation
from rince.reports.reading import read_run
from rince.training import evaluate_run, load_run, resume, train
from rince.training.checkpoint import read_checkpoint
from rince.training.config import (
    OptimOptions,
    RankOptions,
    TrainConfig,
    VectorOptions,
    from_dict,
)
from rince.training.folder import CONFIG_FILE, config_yaml
from rince.training.seeds import train_seeds

GROUPS = {"c0": "g0", "c1": "g0", "c2": "g1", "c3": "g1", "c4": "g0", "c5": "g2"}
TRAINED = ["c0", "c1", "c2", "c3"]
OPTIONS = EvaluationOptions(probe_epochs=1, map_points=0, gallery_queries=1)


def write(folder: Path, name: str, classes: list[str], count: int = 60) -> None:
    """NAME.npz, and its labels without (NAME.csv) and with superclasses (NAME-nested.csv)."""
    rng = np.random.default_rng(len(classes))
    labels = [classes[i % len(classes)] for i in range(count)]
    centres = {x: np.random.default_rng(i).normal(size=8) for i, x in enumerate(GROUPS)}
    vectors = np.stack([centres[x] + rng.normal(size=8) for x in labels]).astype(np.float32)
    paths = [f"{name}/{i}.jpg" for i in range(count)]
    np.savez(folder / f"{name}.npz", embeddings=vectors, paths=np.array(paths))
    rows = [*zip(paths, labels, strict=True)]
    flat = [f"{path},{x}" for path, x in rows]
    nested = [f"{path},{GROUPS[x]},{x}" for path, x in rows]
    (folder / f"{name}.csv").write_text("\n".join(["path,class", *flat]))
    (folder / f"{name}-nested.csv").write_text("\n".join(["path,group,class", *nested]))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write(tmp_path, "items", TRAINED)
    write(tmp_path, "new", ["c0", "c3", "c4", "c5"], 24)
    write_tree(tmp_path / "tree.csv", GROUPS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_tree(file: Path, groups: dict[str, str]) -> None:
    file.write_text("\n".join(["class,group", *(f"{x},{g}" for x, g in groups.items())]))


def trained(name: str, *options: str, labels: str = "items.csv") -> Path:
    given = ["--epochs", "2", "--batch-size", "16", "--knn-every", "0", "--accelerator", "cpu"]
    given += ["--name", name, "--labels", labels, "--progress", "false"]
    assert main(["train", "items.npz", *given, *options]) == 0
    return Path("runs", name)


def by_tree(name: str, *options: str) -> Path:
    return trained(name, "--ranks.tree", "tree.csv", *options)


def evaluated(folder: Path, *options: str) -> dict[str, float]:
    given = ["--probe-epochs", "1", "--map-points", "0", "--device", "cpu"]
    assert main(["evaluate", str(folder), *given, *options]) == 0
    return dict(load_evaluation(folder).metrics)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = read_checkpoint(folder)["state_dict"]
    return state


def assert_same_weights(one: Path, two: Path) -> None:
    torch.testing.assert_close(weights(one), weights(two), rtol=0, atol=0)


@pytest.mark.parametrize("objective", ["rince", "supcon-coarse", "supcon-out"])
def test_as_data_with_these_superclasses(objective: str, here: Path) -> None:
    """Also where the objective knows classes alone, the evaluation knows superclasses."""
    flat, nested = (
        by_tree("flat", "--objective", objective),
        trained("nested", "--objective", objective, labels="items-nested.csv"),
    )
    assert load_run(flat).taxonomy == load_run(nested).taxonomy
    assert_same_weights(flat, nested)
    assert evaluated(flat) == evaluated(nested)
    found = read_run(flat)
    assert found.evaluation.groups == ("g0", "g1")
    assert found.evaluation.info["data"] == "items (tree)"


def test_an_evaluation_needs_no_file(here: Path) -> None:
    """Classes that were not trained have their places from the tree of the run, too."""
    flat, nested = by_tree("flat"), trained("nested", labels="items-nested.csv")
    (here / "tree.csv").unlink()
    nested_test = here / "nested"
    nested_test.mkdir()
    shutil.copy("new.npz", nested_test / "new.npz")
    shutil.copy("new-nested.csv", nested_test / "new.csv")
    found = evaluated(flat, "--test", "new=new.npz")
    assert found == evaluated(nested, "--test", "new=nested/new.npz")
    assert {"unseen/new/retrieval/coarse/mAP", "seen/new/retrieval/coarse/mAP"} <= found.keys()
    # Other data in place of the run's.
    for file in ("items.npz", "items.csv"):
        shutil.copy(file, file.replace("items", "other"))
    evaluated(flat, "--data", "other.npz")
    others = load_evaluation(flat / "other-tree.results")
    assert others.metrics["retrieval/coarse/mAP"] == found["retrieval/coarse/mAP"]
    assert others.info["data"] == "other (tree)"


def test_another_tree_for_other_data(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flat = by_tree("flat")
    write_tree(here / "tree.csv", {x: g for x, g in GROUPS.items() if x != "c5"})
    fewer = by_tree("fewer")
    with pytest.warns(RinceWarning, match=r"^new: 1 of 4 .*tree.csv.*c5"):
        evaluated(fewer, "--test", "new=new.npz")
    write_tree(here / "more.csv", GROUPS)
    assert evaluated(fewer, "--test", "new=new.npz", "--ranks.tree", "more.csv").keys() == (
        evaluated(flat, "--test", "new=new.npz").keys()
    )
    refused = ["evaluate", str(flat), "--test", "new=new.npz", "--ranks.tree", "tree.csv"]
    assert "unknown class 'c5'" in refusal(refused, capsys)
    own = refusal(["evaluate", str(flat), "--ranks.tree", "tree.csv"], capsys)
    assert "--ranks.tree tree.csv needs --data or --test" in own


def test_a_test_is_done_with_its_tree(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flat, test = by_tree("flat"), ("--skip-done", "--test", "new=new.npz")
    results = flat / "results.json"
    own = evaluated(flat, *test)
    assert "tree" not in load_evaluation(flat).info["tests"]["new"]  # as older results
    write_tree(here / "other.csv", dict.fromkeys(GROUPS, "g"))
    others = evaluated(flat, *test, "--ranks.tree", "other.csv")
    assert others["unseen/new/hierarchy/H-AP"] != own["unseen/new/hierarchy/H-AP"]
    before = results.read_bytes()
    (here / "moved").mkdir()
    moved = shutil.copy("other.csv", here / "moved" / "other.csv")
    evaluated(flat, *test, "--ranks.tree", str(moved))
    assert results.read_bytes() == before
    write_tree(here / "other.csv", GROUPS)  # changed
    evaluated(flat, *test, "--ranks.tree", "other.csv")
    assert results.read_bytes() != before
    assert evaluated(flat, *test) == own
    assert "there is no file" in refusal(
        ["evaluate", str(flat), *test, "--ranks.tree", "none.csv"], capsys
    )


def test_another_tree_makes_other_data(here: Path) -> None:
    """The run's own too: their classes are not those of the training."""
    flat = by_tree("flat")
    own = evaluated(flat)
    write_tree(here / "other.csv", dict.fromkeys(GROUPS, "g"))
    given = ["--data", "items.npz", "--labels", "items.csv"]
    evaluated(flat, *given, "--skip-done")
    evaluated(flat, *given, "--ranks.tree", "other.csv")
    assert {x.name for x in flat.glob("*.results")} == {"items-other.results"}
    assert load_evaluation(flat).metrics == own
    assert load_evaluation(flat / "items-other.results").metrics != own


def test_embeddings_made_elsewhere(here: Path) -> None:
    shutil.copy("new.npz", "nested.npz")
    given = ["--map-points", "0", "--labels"]
    assert main(["evaluate", "new.npz", *given, "new.csv", "--ranks.tree", "tree.csv"]) == 0
    assert main(["evaluate", "nested.npz", *given, "new-nested.csv"]) == 0
    found, nested = (load_evaluation(here / f"{x}.results") for x in ("new", "nested"))
    assert found.metrics == nested.metrics
    assert found.info["data"] == "new (tree)"


def config(here: Path, name: str, **changes: Any) -> TrainConfig:
    values = {"epochs": 2, "batch_size": 16, "knn_every": 0, "progress": False, **changes}
    return TrainConfig(
        str(here / "items.npz"),
        vectors=VectorOptions(labels=str(here / "items.csv")),
        ranks=RankOptions(tree="tree.csv"),  # from where it is started
        optim=OptimOptions(lr=0.05, warmup_epochs=0.5),
        output=str(here / "runs"),
        accelerator="cpu",
        name=name,
        **values,
    )


class Stop(pl.Callback):
    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        if trainer.global_step == 4:
            raise InterruptedError


def test_a_run_that_goes_on(
    here: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(config(here, "whole"))
    with pytest.raises(InterruptedError):
        train(config(here, "part", checkpoint_every=1), callbacks=[Stop()])
    part = here / "runs" / "part"
    assert 0 < read_checkpoint(part)["global_step"] < read_checkpoint(whole)["global_step"]
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))  # no tree.csv is here
    resume(part, progress=False)
    assert_same_weights(part, whole)
    kept = load_run(part).tree
    assert kept is not None
    assert kept.taxonomy.paths == tuple((g, x) for x, g in GROUPS.items())

    # A file that is there must say the same of the trained classes.
    monkeypatch.chdir(here)
    write_tree(here / "tree.csv", {**GROUPS, "c9": "g0"})
    resume(part, progress=False)
    write_tree(here / "tree.csv", {**GROUPS, "c2": "g0"})
    with pytest.raises(RinceError, match=r"classes in .*items.npz .* superclasses in tree.csv"):
        resume(part, progress=False)
    edited = yaml.safe_load((part / CONFIG_FILE).read_text())
    edited["ranks"]["tree"] = None
    (part / CONFIG_FILE).write_text(yaml.safe_dump(edited))
    with pytest.raises(RinceError, match=r"classes in .*items.npz are not those"):
        resume(part, progress=False)
    write_tree(here / "moved.csv", GROUPS)
    edited["ranks"]["tree"] = "moved.csv"
    (part / CONFIG_FILE).write_text(yaml.safe_dump(edited))
    resume(part, progress=False)


def test_items_given_in_python(here: Path) -> None:
    stored = np.load(here / "items.npz")["embeddings"]
    names = [TRAINED[i % 4] for i in range(60)]
    train_items = from_vectors(stored[:40], names[:40], name="mine")
    test_items = from_vectors(stored[40:], names[40:], taxonomy=train_items.taxonomy, name="mine")
    splits = Splits(train_items, test_items)
    run = train(config(here, "run"), splits=splits)
    assert load_run(run).taxonomy.paths == tuple((GROUPS[x], x) for x in TRAINED)
    resume(run, progress=False, splits=splits)
    found = evaluate_run(run, options=OPTIONS, splits=splits, device="cpu")
    assert found.info["data"] == "mine (tree)"
    assert found.groups == ("g0", "g1")


def test_seeds_share_the_data(here: Path) -> None:
    """Those of the second seed are in the tree already."""
    together = train_seeds(config(here, "seeds"), [0, 1])[1]
    alone = train(config(here, "alone", seed=1))
    assert_same_weights(together, alone)
    assert load_run(together).tree == load_run(alone).tree


def test_a_search(here: Path) -> None:
    """Of baselines too, which know no ranks, but are evaluated by superclasses."""
    given = ["--labels", "items.csv", "--ranks.tree", "tree.csv", "--epochs", "1", "--progress"]
    given += ["false", "--batch-size", "16", "--trials", "1", "--baselines", "supcon-out"]
    with pytest.warns(RinceWarning, match="are held out, fewer than"):
        assert main(["tune", "items.npz", *given]) == 0
    best = yaml.safe_load((here / "runs" / "tune-items-tree" / "supcon-out.yaml").read_text())
    assert best["ranks"]["tree"] == "tree.csv"


def test_names_and_options(recwarn: pytest.WarningsRecorder) -> None:
    ranks = RankOptions(tree="a/classes.csv")
    config = TrainConfig("photos/", ranks=ranks)
    assert (config.run_name(), config.label()) == (
        "photos-classes-rince-out-in-seed0",
        "rince out-in",
    )
    assert from_dict(yaml.safe_load(config_yaml(config))) == config
    other = config.of_objective("infonce")
    assert other.ranks == ranks
    other.check()
    assert not recwarn.list
    with pytest.raises(ValueError, match="ranks.tree is for ranks.by classes"):
        RankOptions(by="time", tree="classes.csv").check()
    towers = replace(config, vectors=VectorOptions(captions="captions.npz"))
    with pytest.raises(ValueError, match="^ranks.tree: not with vectors.captions"):
        train(towers)


def test_scores_beside_it(here: Path) -> None:
    """Trained on the scores, evaluated by the tree: as with superclasses of the data's own."""
    Similarity.from_matrix(np.eye(4) + 0.5, TRAINED).to_csv(here / "s.csv")
    scored = ("--ranks.scores", "s.csv", "--ranks.thresholds", "0.4")
    flat, nested = by_tree("flat", *scored), trained("nested", *scored, labels="items-nested.csv")
    assert_same_weights(flat, nested)
    assert evaluated(flat) == evaluated(nested)
