"""rince export, embed and search, on runs of a second."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

import rince
from refusals import refusal
from rince import RinceError, RinceWarning
from rince.cli.main import main
from rince.evaluation.embeddings import load_embeddings
from rince.evaluation.results import load_evaluation
from rince.reports.export import export_run
from rince.training.checkpoint import CHECKPOINT_FILE, load_run, trained_encoder
from rince.training.config import ModelOptions
from rince.training.run import train
from training.small_runs import flat_backbone, small_config, train_on

pytest.importorskip("safetensors", reason="needs the extra export")


@pytest.fixture(scope="module")
def runs(image_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """rince, evaluated; two-heads and classifier, not."""
    root = tmp_path_factory.mktemp("runs")
    for name, objective in (
        ("rince", "rince"),
        ("two-heads", "supcon-two-heads"),
        ("classifier", "cross-entropy"),
    ):
        model = ModelOptions(backbone="tiny-resnet")
        if name != "classifier":  # which has no embedding
            model.embedding_dim = 8
        train(
            small_config(
                image_tree, root, name=name, objective=objective, model=model, epochs=1, knn_every=0
            )
        )
    given = ["--probe-epochs", "1", "--map-points", "0", "--device", "cpu"]
    assert main(["evaluate", str(root / "rince"), *given]) == 0
    return root


def test_from_run_to_search(
    runs: Path, image_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra export")
    pytest.importorskip("onnxscript", reason="needs the extra export")
    run, folder, file = runs / "rince", tmp_path / "made" / "net", tmp_path / "found.npz"
    assert main(["export", str(run), "-o", str(folder)]) == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        *("README.md", "export.json", "model.onnx", "model.safetensors")
    ]
    assert [path.name for path in folder.parent.iterdir()] == ["net"]
    metrics = load_evaluation(run).metrics
    card = (folder / "README.md").read_text()
    assert f"| probe/fine | {100 * metrics['embedding/probe/fine']:.1f} |" in card
    assert "ONNX Runtime and torch differ by" in card

    # The export and the run are the same network.
    assert main(["embed", str(folder), str(image_tree), "-o", str(file)]) == 0
    assert "96 images in 8 dimensions, the embedding" in capsys.readouterr().out
    by_export = load_embeddings(file)
    assert main(["embed", str(run), str(image_tree), "-o", str(file), "--batch-size", "7"]) == 0
    by_run = load_embeddings(file)
    assert by_run.paths == by_export.paths
    assert by_run.model == by_export.model
    torch.testing.assert_close(by_run.vectors, by_export.vectors)

    # A query that is in the gallery is left out, whatever its path is called.
    queries = [by_run.paths[3], os.path.relpath(by_run.paths[50])]
    expected = by_run.vectors @ by_run.vectors[[3, 50]].T
    expected[[3, 50], [0, 1]] = -2
    best = expected.topk(2, dim=0)
    shown = [
        line
        for i, query in enumerate(queries)
        for line in (
            query,
            *(
                f"{place:5}  {float(best.values[place - 1, i]):6.3f}  "
                f"{by_run.paths[int(best.indices[place - 1, i])]}"
                for place in (1, 2)
            ),
        )
    ]
    index = str(tmp_path / "found.faiss")
    for gallery in (str(file), str(image_tree), index):
        if gallery == index:
            pytest.importorskip("faiss", reason="needs the extra search")
            capsys.readouterr()
            assert main(["index", str(file), "-o", index]) == 0
            told = capsys.readouterr().out
            assert "96 items in 8 dimensions, flat" in told
            assert "recall@10 against the exact search: 1.0000" in told
        capsys.readouterr()
        given = ["--gallery", gallery, "--run", str(folder), "-k", "2"]
        assert main(["search", *queries, *given]) == 0
        assert capsys.readouterr().out.splitlines() == shown


def test_what_only_reads_a_run_does_not_import_lightning(
    runs: Path, image_tree: Path, tmp_path: Path
) -> None:
    """Which takes more seconds than all the rest."""
    run, query = str(runs / "rince"), str(next(image_tree.rglob("*.png")))
    gallery = str(tmp_path / "a.npz")
    verbs = [
        ["ranks", str(image_tree)],
        ["embed", run, str(image_tree), "-o", gallery],
        ["search", query, "--gallery", gallery, "--run", run],
        ["export", run, "-o", str(tmp_path / "net"), "--no-onnx"],
        ["evaluate", run, "--probe-epochs", "1", "--map-points", "0", "--device", "cpu"],
        ["compare", run, "-o", str(tmp_path / "report.html")],
    ]
    code = (
        "import sys\nfrom rince.cli.main import main\n"
        f"for verb in {verbs!r}:\n"
        "    assert main(verb) == 0\n"
        "    assert 'lightning' not in sys.modules, verb\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_one_space_everywhere_or_the_other_if_asked_for(
    runs: Path, image_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, query = str(runs / "rince"), str(next(image_tree.rglob("*.png")))
    features, gallery = str(tmp_path / "net"), str(tmp_path / "a.npz")
    assert main(["export", run, "-o", features, "--no-onnx", "--space", "backbone"]) == 0
    assert "it gives the backbone's features" in (tmp_path / "net" / "README.md").read_text()
    for source in ([features], [run, "--space", "backbone"], [str(runs / "classifier")]):
        capsys.readouterr()
        assert main(["embed", source[0], str(image_tree), "-o", gallery, *source[1:]]) == 0
        assert "128 dimensions, the features of the backbone" in capsys.readouterr().out
        given = ["--gallery", gallery, "--run", *source]
        assert main(["search", query, *given]) == 0
    # What earlier versions embedded is refused, and the way out is named.
    assert main(["embed", features, str(image_tree), "-o", gallery]) == 0
    refused = refusal(["search", query, "--gallery", gallery, "--run", run], capsys)
    assert "--space backbone" in refused
    assert main(["search", query, "--gallery", gallery, "--run", run, "--space=backbone"]) == 0
    other = ["search", query, "--gallery", gallery, "--run", features, "--space", "embedding"]
    assert "--space embedding" in refusal(other, capsys)
    assert "--head" in refusal(["export", run, "--head", "--space", "backbone"], capsys)
    with pytest.raises(SystemExit):
        main(["export", run, "--space", "middle"])
    assert "embedding, backbone" in capsys.readouterr().err.replace("'", "")
    assert main(["export", run, "-o", str(tmp_path / "b"), "--no-onnx", "--head"]) == 0
    assert "--space embedding" in capsys.readouterr().out
    assert "embeddings of its projection head" in (tmp_path / "b" / "README.md").read_text()


def test_the_head_comes_along_if_asked_for(runs: Path, tmp_path: Path) -> None:
    images = torch.randn(3, 3, 16, 16)
    for name, width in (("rince", 8), ("two-heads", 16)):
        trained = load_run(runs / name)
        with pytest.warns(RinceWarning) if name == "two-heads" else nullcontext():
            export_run(trained, tmp_path / name, space="embedding", onnx=False)
        found = rince.load_exported(tmp_path / name)
        assert (found.output_dim, found.embedding_dim) == (width, 8)
        assert trained.head is not None
        with torch.no_grad():
            expected = trained.head(trained.backbone.module(images))
            assert torch.equal(found.module(images), expected)
        torch.testing.assert_close(expected.view(3, -1, 8).norm(dim=2), torch.ones(3, width // 8))
        assert found.fingerprint() == trained_encoder(trained).fingerprint()
        assert found.fingerprint() != trained_encoder(trained, "backbone").fingerprint()
        with_head = trained_encoder(trained, "embedding").module
        assert not any(module.training for module in with_head.modules())


def test_the_head_is_the_trained_one(runs: Path) -> None:
    weights = torch.load(runs / "rince" / CHECKPOINT_FILE, weights_only=True)["state_dict"]
    head = load_run(runs / "rince").head
    assert head is not None
    assert torch.equal(
        head.state_dict()["layers.2.weight"], weights["encoder.head.layers.2.weight"]
    )
    classifier = load_run(runs / "classifier")
    assert classifier.head is None
    with pytest.raises(RinceError, match=r"cross-entropy.*--space embedding"):
        trained_encoder(classifier, "embedding")
    assert trained_encoder(classifier).output_dim == 128


def test_results_of_other_weights_stay_out(runs: Path, tmp_path: Path) -> None:
    run = shutil.copytree(runs / "rince", tmp_path / "run")
    train_on(run)
    with pytest.warns(RinceWarning, match="rince evaluate"):
        folder = export_run(load_run(run), onnx=False)
    assert folder == run / "export"
    assert "Not evaluated." in (folder / "README.md").read_text()


def test_an_export_is_never_overwritten(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "README.md").write_text("license: mine")
    given = ["export", str(runs / "rince"), "-o", str(tmp_path / "net"), "--no-onnx"]
    assert "choose another -o" in refusal(given, capsys)
    assert (tmp_path / "net" / "README.md").read_text() == "license: mine"


@pytest.mark.parametrize("onnx", [False, True])
def test_an_export_in_place_of_a_run_is_told_what_it_is(
    runs: Path, tmp_path: Path, onnx: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    if onnx:
        pytest.importorskip("onnxscript", reason="needs the extra export")
    folder = export_run(runs / "rince", tmp_path / "net", onnx=onnx)
    formats = "(safetensors and ONNX)" if onnx else "(safetensors)"
    for given in (["export", str(folder)], ["train", "--resume", str(folder)]):
        capsys.readouterr()
        assert main(given) == 1
        assert f"it is an export already {formats}" in capsys.readouterr().err
    with pytest.raises(RinceError, match="it is an export already"):
        load_run(folder)


def test_a_failed_export_leaves_nothing(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> float:
        raise RinceError("no ONNX")

    monkeypatch.setattr("rince.models.onnx_file.write_onnx", fail)
    with pytest.raises(RinceError, match="no ONNX"):
        export_run(load_run(runs / "rince"), tmp_path / "net")
    assert list(tmp_path.iterdir()) == []


def test_a_backbone_of_the_users_own(image_tree: Path, tmp_path: Path) -> None:
    run = train(small_config(image_tree, tmp_path, epochs=1, knn_every=0), flat_backbone())
    trained = load_run(run, flat_backbone())
    with pytest.warns(RinceWarning, match="rince evaluate"):
        folder = export_run(trained, onnx=False)
    found = rince.load_exported(folder, flat_backbone().module)
    assert found.backbone is None
    assert found.fingerprint() == trained_encoder(trained).fingerprint()


def test_what_is_wrong_is_said(
    runs: Path, image_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, images, file = str(runs / "rince"), str(image_tree), str(tmp_path / "a.npz")
    assert "neither a run" in refusal(["embed", str(tmp_path), images, "-o", file], capsys)
    assert "no file or folder nowhere" in refusal(["embed", run, "nowhere/", "-o", file], capsys)
    # Before anything is loaded.
    assert ".npz or a .parquet" in refusal(["embed", "nowhere", images, "-o", "a.csv"], capsys)
    assert "at least 1" in refusal(["embed", run, images, "--batch-size", "0"], capsys)
    assert "no checkpoint" in refusal(["export", str(tmp_path)], capsys)
    assert main(["embed", run, images, "-o", file]) == 0
    query = next(str(path) for path in image_tree.rglob("*.png"))
    search = ["search", query, "--gallery", file, "--run"]
    shown = refusal([*search, str(runs / "two-heads")], capsys)
    assert "another network" in shown
    assert f"rince embed {runs / 'two-heads'} DATA -o FILE" in shown
    assert "no file x.png" in refusal(["search", "x.png", "--gallery", file, "--run", run], capsys)
    assert "no file" in refusal(
        ["search", query, "--gallery", str(tmp_path / "b.npz"), "--run", run], capsys
    )
    assert "--top_k must be at least 1" in refusal([*search, run, "--top-k", "0"], capsys)


def test_unreadable_images(
    runs: Path, image_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    good = sorted(image_tree.rglob("*.png"))[:2]
    for file in good:
        shutil.copy(file, photos / f"{file.parent.name}-{file.name}")
    (photos / "bad.png").write_bytes(b"no image")
    given = ["embed", str(runs / "rince"), str(photos), "-o", str(tmp_path / "a.npz")]
    query = ["search", str(good[0]), "--run", str(runs / "rince"), "--gallery", str(photos)]
    for verb in (given, query):
        shown = refusal(verb, capsys)
        assert "bad.png" in shown
        assert verb is query or not (tmp_path / "a.npz").exists()
        assert "--skip-unreadable" in shown
        with pytest.warns(RinceWarning, match="1 of 3 images"):
            assert main([*verb, "--skip-unreadable"]) == 0
    with np.load(tmp_path / "a.npz") as found:
        assert [Path(path).name for path in json.loads(bytes(found["paths_json"]))] == [
            f"{file.parent.name}-{file.name}" for file in good
        ]


def test_a_file_name_that_is_no_unicode_can_be_shown(
    runs: Path, image_tree: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    odd = os.fsdecode(os.fsencode(photos) + b"/caf\xe9.png")
    try:
        shutil.copy(next(image_tree.rglob("*.png")), odd)
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    file = str(tmp_path / "a.npz")
    assert main(["embed", str(runs / "rince"), str(photos), "-o", file]) == 0
    assert main(["search", odd, "--gallery", file, "--run", str(runs / "rince")]) == 0
    assert "caf\N{REPLACEMENT CHARACTER}.png" in capfd.readouterr().out
