"""``rince train IMAGES --captions CAPTIONS``: from two files to a search, by the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import rince
from refusals import refusal
from rince.cli.main import main
from rince.evaluation import EvaluationOptions
from rince.evaluation.elsewhere import evaluate_embeddings
from rince.evaluation.results import load_evaluation
from rince.training import Towers, read_images_and_captions, towers_run, train_towers
from rince.training.config import TrainConfig
from rince.training.run import train

pytest.importorskip("safetensors", reason="needs the extra export")

QUICK = ["--captions", "captions.npz", "--epochs", "2", "--batch-size", "32"]
NEAR = ["--ranks.scores", "captions", "--ranks.thresholds"]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Labelled and bare images, two captions of each, a query; the folder is the current one."""
    rng = np.random.default_rng(0)
    content = rng.normal(size=(6, 8)).repeat(10, 0) + 0.5 * rng.normal(size=(60, 8))
    names = np.array([f"{i}.jpg" for i in range(60)])
    image = {"embeddings": content @ rng.normal(size=(8, 12)), "paths": names}
    kinds = {"group": np.repeat(["animal", "plant"], 30), "species": np.repeat(list("abcdef"), 10)}
    text = np.concatenate([content, content]) @ rng.normal(size=(8, 10))
    np.savez(tmp_path / "images.npz", **image, **kinds)
    np.savez(tmp_path / "bare.npz", **image)
    np.savez(tmp_path / "captions.npz", embeddings=text, paths=np.concatenate([names, names]))
    np.save(tmp_path / "query.npy", text[7:8])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def exported(run: Path) -> Towers:
    sides = (rince.load_exported(run / "export" / side) for side in ("image", "text"))
    return Towers(*sides, losses=())


def test_from_files_to_a_search_across(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["train", "images.npz", *QUICK, "--model.embedding-dim", "16"]
    assert main([*given, "--seed", "3"]) == 0
    run = Path("runs/images-towers-rince-out-in-seed3")
    shown = capsys.readouterr().out
    assert "48 images with 96 captions for training, 12 with 24 for the test" in shown
    assert "rank 1, own caption: 1.0 captions" in shown
    assert "rank 2, fine (species): " in shown
    assert "rank 3, coarse (group): " in shown
    assert "image->text" in shown
    assert f"run: {run}\n" in shown

    # What is stored is what was measured.
    _, test = read_images_and_captions("images.npz", "captions.npz")
    towers = exported(run)
    assert towers.text.output_dim == 16
    evaluation = load_evaluation(run)
    for way, levels in towers.evaluate(test).items():
        for level, found in levels.items():
            stored = evaluation.metrics[f"{way}/retrieval/{level}/mAP"]
            assert stored == pytest.approx(found.mean_average_precision)
            assert evaluation.metrics[f"{way}/retrieval/{level}/R@5"] == found.recall[5]
    pairs = {rank: int(counts.sum()) for rank, counts in evaluation.histograms.counts.items()}
    tile = test.ranks().tile(slice(None), slice(None))
    assert pairs == {rank: int((tile == rank).sum()) for rank in range(4)}

    card = (run / "export" / "README.md").read_text(encoding="utf-8")
    assert yaml.safe_load(card.split("---\n")[1])["library_name"] == "rince"
    mean_ap = evaluation.metrics["text->image/retrieval/fine/mAP"]
    assert f"| text->image/retrieval/fine/mAP | {100 * mean_ap:.1f} |" in card
    for side, width in (("image", 12), ("text", 10)):
        assert f'load_exported("FOLDER/{side}")' in card
        assert f"| vectors | {width} numbers each" in card
    assert "rank 2, fine (species)" in card
    assert yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])["seed"] == 3

    # A text finds images, an image texts; not with other towers.
    for side, file, other in (("image", "images.npz", "text"), ("text", "captions.npz", "image")):
        gallery = f"{side}-embedded.npz"
        assert main(["embed", str(run / "export" / side), file, "-o", gallery]) == 0
        query = np.load("query.npy") if other == "text" else np.load("images.npz")["embeddings"][:1]
        np.save("asked.npy", query)
        of_other = str(run / "export" / other)
        assert f"or --run {of_other}, of the other side" in capsys.readouterr().out
        assert (
            main(["search", "asked.npy", "--gallery", gallery, "--run", of_other, "-k", "1"]) == 0
        )
        encoders = {"image": towers.image, "text": towers.text}
        vectors = torch.from_numpy(np.load(file)["embeddings"]).float()
        cosines = encoders[other].encode(torch.from_numpy(query).float()) @ (
            encoders[side].encode(vectors).T
        )
        best = np.load(file)["paths"][int(cosines.argmax())]
        assert f"{float(cosines.max()):6.3f}  {best}" in capsys.readouterr().out
    # Queries of the other side, by the tower of the gallery: of another width they are refused.
    asked = ["search", "query.npy", "--gallery", "image-embedded.npz", "--run"]
    assert "each takes those of its own side" in refusal([*asked, f"{run}/export/image"], capsys)
    np.save("asked.npy", np.load("images.npz")["embeddings"][:1])
    asked[1] = "asked.npy"
    assert main([*asked, f"{run}/export/image"]) == 0
    shown = capsys.readouterr().out
    assert f"queries of the other side take --run {run}/export/text\n" in shown
    again = ["train", "--config", str(run / "config.yaml"), "--seed", "4"]
    assert main(again) == 0
    stranger = "runs/images-towers-rince-out-in-seed4/export/text"
    asked = ["search", "query.npy", "--gallery", "image-embedded.npz", "--run", stranger]
    assert "another network" in refusal(asked, capsys)
    asked = ["search", "query.npy", "--gallery", "images.npz", "--run", stranger]
    assert "rince embed RUN images.npz" in refusal(asked, capsys)

    assert (
        main(["compare", "runs/images-towers-rince-out-in-seed3", str(Path(stranger).parents[1])])
        == 0
    )
    shown = capsys.readouterr().out
    with pytest.warns(rince.RinceWarning, match="left out: .* holds two towers, measured"):
        main(["evaluate", "runs/images-towers-rince-out-in-seed3", str(run)])
    assert "towers rince out-in (2 runs)" in shown
    assert "species" in shown


def test_a_configuration_gives_the_same_towers(files: Path) -> None:
    assert main(["train", "images.npz", *QUICK, "--seeds", "0", "1", "--name", "a"]) == 0
    assert main(["train", "--config", "runs/a-seed1/config.yaml", "--name", "b"]) == 0
    prints = [
        exported(Path("runs", name)).text.fingerprint() for name in ("a-seed0", "a-seed1", "b")
    ]
    assert prints[0] != prints[1] == prints[2]
    before = json.loads(Path("runs/a-seed0/about.json").read_text())
    assert main(["train", "images.npz", *QUICK, "--seeds", "0", "2", "--name", "a"]) == 0
    assert json.loads(Path("runs/a-seed0/about.json").read_text()) == before
    assert Path("runs/a-seed2/results.json").exists()


def test_what_is_recorded_is_what_was_used(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[dict[str, Any]] = []

    def noted(*given: Any, **options: Any) -> Towers:
        used.append(options)
        return train_towers(*given, **options)

    monkeypatch.setattr(towers_run, "train_towers", noted)
    given = ["train", "images.npz", *QUICK, "--name"]
    lowered = [*given, "a", "--batch-size", "64", "--seeds", "0"]
    for _ in range(2):  # the second time it is finished, whatever was left open
        with pytest.warns(rince.RinceWarning, match=r"batch_size 64 .*\b48\b"):
            assert main(lowered) == 0
    decay = ["--optim.weight-decay", "30"]
    assert main([*given, "b", *decay, "--optim.lr", "0.01", "--seeds", "0"]) == 0
    assert main(["train", "--config", "runs/b-seed0/config.yaml", "--name", "c"]) == 0
    runs = [Path("runs", name) for name in ("a-seed0", "b-seed0", "c")]
    for run, options in zip(runs, used, strict=True):
        card = (run / "export" / "README.md").read_text(encoding="utf-8")
        in_card = yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])
        for recorded in (yaml.safe_load((run / "config.yaml").read_text()), in_card):
            assert recorded["batch_size"] == options["batches"]
            assert recorded["model"]["backbone"] == "identity"
            optim = recorded["optim"]
            assert (optim["lr"], optim["weight_decay"]) == (options["lr"], options["weight_decay"])
            schedule = (optim["optimizer"], optim["warmup_epochs"], optim["final_lr_ratio"])
            assert schedule == ("adamw", 0, 0)
    of_run = [(x["batches"], x["lr"], x["weight_decay"]) for x in used]
    assert of_run == [(48, 0.001, 1e-4), (32, 0.01, 30.0), (32, 0.01, 30.0)]
    prints = [exported(run).image.fingerprint() for run in runs]
    assert prints[0] != prints[1] == prints[2]


def test_towers_have_no_probe_that_could_differ(files: Path) -> None:
    assert main(["train", "images.npz", *QUICK, "--name", "a"]) == 0
    assert "probe_epochs" not in load_evaluation("runs/a").info
    few = EvaluationOptions(probe_epochs=1, map_points=0, gallery_queries=1)
    for labelled in ("bare", "images"):
        parts = {name: x for name, x in np.load(f"{labelled}.npz").items() if name != "paths"}
        if labelled == "bare":  # searched among each other
            parts["labels"] = np.load("images.npz")["species"]
        else:
            parts["split"] = np.array(["train", "test"] * 30)
        np.savez("measured.npz", **parts)
        info = evaluate_embeddings("measured.npz", options=few).info
        assert info.get("probe_epochs") == (None if labelled == "bare" else 1)


def test_ranks_of_captions_without_labels(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "bare.npz", *QUICK, *NEAR, "0.8", "0.6", "--name", "near"]) == 0
    shown = capsys.readouterr().out
    assert "rank 3, cosine from 0.6 on: " in shown
    metrics = load_evaluation("runs/near").metrics
    assert {name.split("/")[2] for name in metrics} == {"image"}
    assert main(["train", "bare.npz", *QUICK, "--objective", "infonce", "--name", "own"]) == 0
    ranked, own = (exported(Path("runs", name)).text for name in ("near", "own"))
    assert ranked.fingerprint() != own.fingerprint()
    assert "--ranks.scores captions" in refusal(["train", "bare.npz", *QUICK], capsys)
    with pytest.warns(rince.RinceWarning, match="no pair of rank 2"):
        main(["train", "bare.npz", *QUICK, *NEAR, "0.9999", "--name", "far"])


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        ([*QUICK, "--model.momentum", "0.9"], ["model.momentum", "model.embedding_dim"]),
        ([*QUICK, "--objective", "supcon-out"], ["supcon-out", "infonce"]),
        ([*QUICK, *NEAR, "1.5"], ["1.5"]),
        ([*QUICK, "--loss.temperatures", "0.1", "0.2"], ["3", "2"]),
        (["--captions", "nothing.npz"], ["nothing.npz"]),
        ([*NEAR, "0.8"], ["--captions"]),
        ([*QUICK, *NEAR, "0.5", "--ranks.scores", "text"], ["captions", "text"]),
        (["--captions", "untested.npz"], ["untested.npz", "test"]),
        ([*QUICK, "--table.labels", "wrong"], ["'wrong'", "(table.labels)"]),
        ([*QUICK, "--optim.optimizer", "sgd"], ["optim.optimizer"]),
    ],
)
def test_what_does_not_fit_is_refused(
    arguments: list[str], facts: list[str], files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, test = read_images_and_captions("images.npz", "captions.npz")
    of_training = ~np.isin(np.load("captions.npz")["paths"], test.images.names)
    part = {name: x[of_training] for name, x in np.load("captions.npz").items()}
    np.savez("untested.npz", **part)
    said = refusal(["train", "images.npz", *arguments], capsys)
    assert all(fact in said for fact in facts), said
    assert not Path("runs").exists()


def test_a_folder_that_is_there_and_verbs_of_other_runs(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["train", "images.npz", *QUICK, "--name", "a"]
    with pytest.warns(rince.RinceWarning, match=r"batch_size 256 .*\b48\b"):
        assert main([*given, "--batch-size", "256"]) == 0
    assert "runs/a" in refusal(given, capsys)
    for verb in (["evaluate", "runs/a"], ["embed", "runs/a", "images.npz"], ["export", "runs/a"]):
        assert "runs/a/export/image" in refusal(verb, capsys)


def test_a_stop_leaves_nothing_and_other_starts_are_refused(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    given = ["train", "images.npz", *QUICK, "--name", "a"]
    with monkeypatch.context() as patch:
        patch.setattr(towers_run, "save_evaluation", stopped)
        assert main(given) == 130
    assert list(Path("runs").iterdir()) == []
    with monkeypatch.context() as patch:
        patch.setenv("LOCAL_WORLD_SIZE", "2")
        patch.setenv("WORLD_SIZE", "2")
        assert "torchrun" in refusal(given, capsys)
    assert "vectors.captions" in refusal(["tune", *given[1:]], capsys)
    assert list(Path("runs").iterdir()) == []
    seeds = [*given, "--seeds", "0"]
    assert (main(seeds), main(seeds)) == (0, 0)
    assert "runs/a-seed0 is finished already" in capsys.readouterr().out


def test_an_error_of_a_reader_is_none_of_the_folder(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def cannot_read(*_: Any, **__: Any) -> None:
        raise OSError("image file is truncated")

    monkeypatch.setattr(towers_run, "train_towers", cannot_read)
    said = refusal(["train", "images.npz", *QUICK, "--name", "a"], capsys)
    assert said.strip() == "rince train: image file is truncated"
    assert list(Path("runs").iterdir()) == []


def test_test_images_without_a_caption_are_counted(files: Path) -> None:
    _, test = read_images_and_captions("images.npz", "captions.npz")
    kept = ~np.isin(np.load("captions.npz")["paths"], test.images.names[:2])
    np.savez("few.npz", **{name: x[kept] for name, x in np.load("captions.npz").items()})
    with pytest.warns(rince.RinceWarning, match="^2 test images have no caption"):
        assert main(["train", "images.npz", *QUICK, "--captions", "few.npz"]) == 0


def test_parts_of_ones_own_are_refused(files: Path) -> None:
    config = TrainConfig("images.npz")
    config.vectors.captions = "captions.npz"
    parts: list[dict[str, Any]] = [{"backbone": torch.nn.Identity()}, {"callbacks": [None]}]
    for part in parts:
        with pytest.raises(ValueError, match=r"vectors\.captions"):
            train(config, **part)
