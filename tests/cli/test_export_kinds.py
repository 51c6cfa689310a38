"""rince export, embed and search on runs that were trained on texts and on videos."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

import rince
from refusals import refusal
from rince import RinceError, RinceWarning
from rince.cli.main import main
from rince.core.input_spec import InputSpec
from rince.data.kinds import embedding_names
from rince.data.text.sources import read_texts
from rince.data.views import eval_transform, evaluation_pixels
from rince.evaluation.embeddings import load_embeddings
from rince.models.exported import ImageEncoder
from rince.models.options import Space
from rince.models.texts import tokenise
from rince.reports.export import export_run
from rince.training.checkpoint import load_run, trained_encoder
from rince.training.config import (
    ImageOptions,
    ModelOptions,
    OptimOptions,
    RankOptions,
    TextOptions,
    TrainConfig,
    VideoOptions,
)
from rince.training.run import train

QUICK: dict[str, Any] = {
    "optim": OptimOptions(lr=3e-3, warmup_epochs=0),
    "epochs": 1,
    "batch_size": 12,
    "accelerator": "cpu",
    "knn_every": 0,
    "progress": False,
}
TIMES = [0.0, 0.2]  # of the two frames of a clip, which takes 0.3 s


# ---- texts -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sentence_transformers", reason="needs the extra text")
    from text_models import word_table

    return word_table(tmp_path_factory.mktemp("texts") / "words.csv")


@pytest.fixture(scope="module")
def text_run(words: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a model that puts a prompt before texts, which a training does not; cut to 4 tokens."""
    from sentence_transformers import SentenceTransformer

    from text_models import tiny_model

    root = tmp_path_factory.mktemp("text-run")
    model = SentenceTransformer(tiny_model(root), device="cpu")
    model.prompts, model.default_prompt_name = {"query": "three three "}, "query"
    model.save(str(root / "prompted"))
    config = TrainConfig(
        data=str(words),
        model=ModelOptions(backbone=str(root / "prompted"), embedding_dim=8),
        text=TextOptions(layers=None, max_tokens=4),
        output=str(root),
        name="run",
        **QUICK,
    )
    run = train(config)
    assert main(["evaluate", str(run), "--probe-epochs", "1", "--device", "cpu"]) == 0
    return run


@pytest.mark.parametrize(("space", "width"), [("embedding", 8), ("backbone", 16)])
def test_a_run_on_texts_is_a_model_of_sentence_transformers(
    space: Space,
    width: int,
    text_run: Path,
    words: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from sentence_transformers import SentenceTransformer

    folder, file = tmp_path / "net", tmp_path / "found.npz"
    assert main(["export", str(text_run), "-o", str(folder), "--space", space]) == 0
    modes = {path.stat().st_mode for path in folder.iterdir() if path.is_file()}
    assert len(modes) == 1
    card = (folder / "README.md").read_text()
    assert "library_name: sentence-transformers" in card
    assert re.search(r"\| probe/\w+ \| ", card)
    assert "A `prompted` trained with" in card
    assert "without a prompt in front, cut after 4 tokens |" in card
    assert "test texts, one run" in card
    assert "ONNX" not in card

    texts = read_texts(words)
    assert len(texts) == 72
    trained = load_run(text_run)
    assert trained.head is not None
    with torch.no_grad():
        tokens = tokenise(str(text_run.parent / "prompted"), texts, max_tokens=4)
        features = trained.backbone.module(tokens)
        own = trained.head(features) if space == "embedding" else features
        expected = functional.normalize(own, dim=1)
    capsys.readouterr()
    given = ["-o", str(file), "--device", "cpu", "--space", space]
    assert main(["embed", str(text_run), str(words), *given]) == 0
    assert f"72 texts in {width} dimensions" in capsys.readouterr().out
    by_run = load_embeddings(file)
    assert list(by_run.paths) == texts
    torch.testing.assert_close(by_run.vectors, expected, atol=1e-5, rtol=0)
    assert main(["embed", str(folder), str(words), "-o", str(file), "--batch-size", "7"]) == 0
    by_export = load_embeddings(file)
    assert (by_export.paths, by_export.model) == (by_run.paths, by_run.model)
    torch.testing.assert_close(by_export.vectors, expected, atol=1e-5, rtol=0)
    cut = trained_encoder(load_run(text_run), space)
    assert cut.fingerprint() == by_run.model
    cut.model.max_seq_length = 3  # type: ignore[union-attr]
    assert cut.fingerprint() != by_run.model
    # Without rince.
    alone = torch.tensor(SentenceTransformer(str(folder), device="cpu").encode(texts))
    torch.testing.assert_close(functional.normalize(alone, dim=1), expected, atol=1e-5, rtol=0)


def test_texts_are_searched(
    text_run: Path, words: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = str(tmp_path / "words.NPZ")
    assert main(["embed", str(text_run), str(words), "-o", kept]) == 0
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra parquet")
    table = str(tmp_path / "words.Parquet")  # of items, where others are of vectors
    parquet.write_table(importlib.import_module("pyarrow.csv").read_csv(words), table)
    shown = []
    for gallery in (kept, str(words), table):
        capsys.readouterr()
        given = ["--gallery", gallery, "--run", str(text_run), "-k", "2"]
        assert main(["search", "a green", "two runs", *given]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1] == shown[2]
    lines = shown[0].splitlines()
    assert [lines[0], lines[3], len(lines)] == ["a green", "two runs", 6]
    # Four tokens are two words and their two ends.
    assert lines[1].startswith("    1   1.000  a green ")


def test_kinds_of_text_files(text_run: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the red\n\n two runs \n", encoding="utf-8-sig")
    rows = [{"body": "the red", "n": 1}, {"body": "two runs", "n": 2}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = []
    for given in (["a.txt"], ["a.jsonl", "--text.column", "body"]):
        file = tmp_path / "a.npz"
        arguments = [str(text_run), str(tmp_path / given[0]), *given[1:], "-o", str(file)]
        assert main(["embed", *arguments]) == 0
        found.append(load_embeddings(file))
    assert found[0].paths == found[1].paths == ("the red", "two runs")
    assert torch.equal(found[0].vectors, found[1].vectors)


def test_the_column_is_that_of_the_training(text_run: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("number,body\n1,the red\n")
    trained = load_run(text_run)
    trained.config.table.column = "body"
    assert embedding_names(trained_encoder(trained), str(tmp_path / "a.csv")) == ["the red"]


def test_what_is_wrong_with_texts_is_said(
    text_run: Path, image_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other.csv").write_text("question,answer\nred,blue\n")
    for name in ("empty.txt", "empty.csv"):
        (tmp_path / name).write_text("\n")
    output = ["-o", str(tmp_path / "a.npz")]
    for data, message in (
        (image_tree, f".jsonl, .parquet or .txt file, got {image_tree}"),
        (tmp_path / "other.csv", "question, answer"),
        (tmp_path / "empty.txt", "empty.txt"),
        (tmp_path / "empty.csv", "empty.csv"),
        (tmp_path / "none.txt", "none.txt"),
        (tmp_path / "none.csv", "none.csv"),
    ):
        assert message in refusal(["embed", str(text_run), str(data), *output], capsys)
        search = ["search", "red", "--gallery", str(data), "--run", str(text_run)]
        assert message in refusal(search, capsys)
    assert not (tmp_path / "a.npz").exists()
    assert main(["export", str(text_run), "-o", str(tmp_path / "net")]) == 0
    again = refusal(["export", str(tmp_path / "net")], capsys)
    assert "it is an export already (sentence-transformers and safetensors)" in again
    with pytest.raises(RinceError, match=r"sentence_transformers\.Sentence"):
        rince.load_exported(tmp_path / "net")


# ---- videos ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos of 3 s at 10 frames a second, so of ten clips of 0.3 s each."""
    pytest.importorskip("av", reason="needs the extra video")
    from video_files import write_video

    root = tmp_path_factory.mktemp("videos")
    for index in range(6):
        folder = root / ("bright", "dark")[index % 2]
        folder.mkdir(exist_ok=True)
        write_video(folder / f"{index}.mp4", shades=[30 * index + 10 + t for t in range(30)])
    return root


@pytest.fixture(scope="module")
def video_run(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("video-run")
    config = TrainConfig(
        data=str(videos),
        images=ImageOptions(image_size=16, workers=0),
        videos=VideoOptions(frames=2, stride=2, frame_size=24, cache=str(root / "cache")),
        ranks=RankOptions(by="time", near=(1.0,)),
        model=ModelOptions(backbone="small-resnet3d", embedding_dim=8),
        output=str(root),
        name="run",
        **QUICK,
    )
    return train(config)


def _clips(names: tuple[str, ...]) -> torch.Tensor:
    from rince.data.video.decode import read_frames

    found = []
    for name in names:
        file, _, start = name.rpartition("@")
        found.append(read_frames(file, [float(start) + t for t in TIMES], 24))
    return torch.stack(found)


def test_a_run_on_videos(
    video_run: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra export")
    pytest.importorskip("onnxscript", reason="needs the extra export")
    folder, file = tmp_path / "net", tmp_path / "found.npz"
    with pytest.warns(RinceWarning, match="rince evaluate"):
        assert main(["export", str(video_run), "-o", str(folder)]) == 0
    card = (folder / "README.md").read_text()
    assert "# pixels: (B, 3, 2, 16, 16) uint8" in card
    assert "2 frames, every 2. of the file; shorter side scaled to 24 pixels" in card
    assert "input `clips`" in card
    assert "By time: rank 1 is the same clip" in card
    capsys.readouterr()
    assert main(["embed", str(video_run), str(videos), "-o", str(file)]) == 0
    assert "60 clips in 8 dimensions" in capsys.readouterr().out
    by_run = load_embeddings(file)
    expected_names = [
        f"{path}@{0.3 * i:.3f}" for path in sorted(videos.rglob("*.mp4")) for i in range(10)
    ]
    assert list(by_run.paths) == expected_names
    # As they are evaluated; by the run, the export read back, and ONNX Runtime.
    pixels = eval_transform(16)(_clips(by_run.paths))
    alone = rince.load_exported(folder)
    assert (alone.spec.frames, alone.stride, alone.frame_size) == (2, 2, 24)
    inputs = alone.normalised(pixels)
    assert torch.equal(inputs, evaluation_pixels(pixels))
    with torch.no_grad():
        trained = load_run(video_run)
        assert trained.head is not None
        expected = trained.head(trained.backbone.module(inputs))
        torch.testing.assert_close(functional.normalize(alone.module(inputs), dim=1), expected)
    torch.testing.assert_close(by_run.vectors, expected, atol=1e-5, rtol=0)
    session = runtime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    (given,) = session.run(["embeddings"], {"clips": inputs.numpy()})
    onnx = functional.normalize(torch.from_numpy(given), dim=1)
    torch.testing.assert_close(onnx, expected, atol=1e-4, rtol=0)
    assert main(["embed", str(folder), str(videos), "-o", str(file), "--batch-size", "7"]) == 0
    by_export = load_embeddings(file)
    assert (by_export.paths, by_export.model) == (by_run.paths, by_run.model)
    torch.testing.assert_close(by_export.vectors, by_run.vectors, atol=1e-5, rtol=0)

    # A film is one query, and is left out with all its clips; of one clip only itself.
    query, cosines = str(videos / "dark" / "1.mp4"), by_run.vectors @ by_run.vectors.T
    cosines.fill_diagonal_(-2)
    rows = [i for i, name in enumerate(expected_names) if name.startswith(query)]
    for asked, gallery, chosen in (
        (query, str(file), rows),
        (query, str(videos), rows),
        (f"{query}@0.6", str(file), rows[2:3]),
    ):
        capsys.readouterr()
        assert main(["search", asked, "--gallery", gallery, "--run", str(folder), "-k", "1"]) == 0
        first, hit = capsys.readouterr().out.splitlines()
        assert first == (f"{query} ({len(rows)} clips)" if asked == query else asked)
        allowed = cosines[chosen].clone()
        if asked == query:
            allowed[:, rows] = -2
        best = allowed.max(dim=0).values[expected_names.index(hit.split()[-1])]
        torch.testing.assert_close(best, allowed.max(), atol=1e-5, rtol=0)
    for wrong, words in (
        (f"{query}@2.9", "is 0.10 s long, and a clip takes 0.30 s"),
        (f"{query}@two", "expected FILE@SECONDS"),
        (f"{query}@-1", "0 to 3.00"),
        (f"{query}@99", "0 to 3.00"),
        ("nowhere.mp4@1", "there is no file nowhere.mp4@1"),
    ):
        refused = ["search", wrong, "--gallery", str(file), "--run", str(folder)]
        assert words in refusal(refused, capsys)


def test_clips_of_other_cuts_are_another_network(video_run: Path) -> None:
    from dataclasses import replace

    one = trained_encoder(load_run(video_run))
    assert isinstance(one, ImageEncoder)
    longer = replace(one, spec=InputSpec.clips(3, 5, 16))
    others = [longer, *(replace(one, **{name: 5}) for name in ("stride", "frame_size"))]  # type: ignore[arg-type]
    assert len({x.fingerprint() for x in (one, *others)}) == 4


def test_the_head_of_a_run_on_videos(video_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="needs the extra export")
    trained = load_run(video_run)
    with pytest.warns(RinceWarning, match="rince evaluate"):
        export_run(trained, tmp_path / "net", space="embedding", onnx=False)
    clips = torch.randn(3, 3, 2, 16, 16)
    with torch.no_grad():
        found = rince.load_exported(tmp_path / "net").module(clips)
        assert trained.head is not None
        assert torch.equal(found, trained.head(trained.backbone.module(clips)))


def test_what_is_wrong_with_videos_is_said(
    video_run: Path,
    videos: Path,
    image_tree: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from video_files import write_video

    mixed = tmp_path / "mixed"
    (mixed / ".hidden").mkdir(parents=True)
    write_video(mixed / "a.mp4", 10)
    write_video(mixed / "short.mp4", 2)
    (mixed / "bad.mp4").write_bytes(b"no video")
    (mixed / ".hidden" / "b.mp4").write_bytes(b"no video")
    output = ["-o", str(tmp_path / "a.npz")]
    for data, message in (
        (image_tree, "holds no video"),
        (tmp_path / "nowhere", "there is no file or folder"),
        (mixed, "bad.mp4"),
        (mixed / "short.mp4", "is 0.20 s long, and a clip takes 0.30 s"),
    ):
        assert message in refusal(["embed", str(video_run), str(data), *output], capsys)
    assert not (tmp_path / "a.npz").exists()
    with pytest.warns(RinceWarning, match="2 of 5 clips"):
        assert main(["embed", str(video_run), str(mixed), *output, "--skip-unreadable"]) == 0
    with np.load(tmp_path / "a.npz") as found:
        assert json.loads(bytes(found["paths_json"])) == [
            f"{mixed}/a.mp4@{x:.3f}" for x in (0.0, 0.3, 0.6)
        ]
    column = ["embed", str(video_run), str(videos), *output, "--text.column", "x"]
    assert f"--table.column x: {videos} is no table" in refusal(column, capsys)
    words = ["search", "some words", "--gallery", str(tmp_path / "a.npz"), "--run", str(video_run)]
    assert "no file some words" in refusal(words, capsys)
