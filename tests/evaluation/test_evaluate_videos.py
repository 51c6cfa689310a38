"""A run on clips of videos is evaluated and reported, with labels and without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from rince.core.checks import RinceError, RinceWarning
from rince.data.batches import eval_batches
from rince.data.kinds import Request, load_test
from rince.data.video.clips import VideoClips
from rince.evaluation import EvaluationOptions, evaluate_backbone, extract_features
from rince.evaluation.results import load_evaluation
from rince.ranks.time import VIDEO
from rince.reports.compare import compare_runs
from rince.training.checkpoint import load_run
from rince.training.config import (
    ImageOptions,
    ModelOptions,
    OptimOptions,
    RankOptions,
    TrainConfig,
    VideoOptions,
)
from rince.training.evaluation import evaluate_run
from rince.training.run import train
from rince.training.splits import load_splits

pytest.importorskip("av")

from video_files import write_video

OPTIONS = EvaluationOptions(probe_epochs=5, map_points=0, gallery_queries=3, near=2.0)


def _run(folder: Path, output: Path, name: str, **changes: object) -> Path:
    values: dict[str, object] = {
        "images": ImageOptions(image_size=16, workers=0),
        "videos": VideoOptions(frames=4, stride=1, hop=1.0, cache=str(output / "cache")),
        "ranks": RankOptions(by="time", near=(2.0,)),
        "model": ModelOptions(backbone="small-resnet3d", embedding_dim=16),
        "optim": OptimOptions(optimizer="adamw", lr=1e-3, warmup_epochs=0),
        **changes,
    }
    return train(
        TrainConfig(str(folder), epochs=1, batch_size=8, output=str(output), name=name,
                    accelerator="cpu", progress=False, **values)  # type: ignore[arg-type]
    )  # fmt: skip


def _videos(root: Path, folders: tuple[str, ...]) -> Path:
    for index in range(10):
        folder = root / folders[index % len(folders)]
        folder.mkdir(parents=True, exist_ok=True)
        shades = [min(250, 20 * index + 5 + t) for t in range(60)]
        write_video(folder / f"{index}.mp4", 60, shades=shades)
    return root


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _videos(tmp_path_factory.mktemp("labelled"), ("odd", "even"))


def test_labelled_clips(labelled: Path, tmp_path: Path) -> None:
    strange = tmp_path / "strange"
    strange.mkdir()
    for i in range(3):
        write_video(strange / f"{i}.mp4", 20, shades=[(97 * (i + 3 * t)) % 250 for t in range(20)])
    folder = _run(labelled, tmp_path, "run")
    evaluate_run(folder, {strange.name: str(strange)}, options=OPTIONS)
    found = load_evaluation(folder)
    names = ["probe/fine", "probe/video", "knn/fine", "retrieval/fine/R@20", "retrieval/near/R@5"]
    names += ["retrieval/video/R@1", "ordering/pairs/2>3", "ordering/pairs/3>0"]
    for name in (*names, "ood/strange/knn/AUROC"):
        assert 0 <= found.metrics[name] <= 1, name
    assert found.metrics["retrieval/video/R@20"] >= found.metrics["retrieval/near/R@20"]
    assert -1 <= found.metrics["ordering/correlation"] <= 1
    assert set(found.histograms.counts) == {0, 2, 3}
    assert sum(found.histograms.counts[0]) == 2 * 6 * 6  # clips of the two test videos
    curve = found.time_curve
    assert curve is not None
    assert (np.diff(curve.seconds) > 0).all()
    assert int(curve.pairs.sum()) == 2 * 6 * 5 // 2
    assert found.gallery.queries.shape[1:] == (16, 4 * 16, 3)  # a strip of four frames
    assert set(found.gallery.ranks.flatten().tolist()) <= {0, 2, 3}
    compare_runs([folder], tmp_path / "report.html", title="t")
    page = (tmp_path / "report.html").read_text()
    assert "Similarity over time" in page


def test_clips_of_classes_that_were_not_trained(labelled: Path, tmp_path: Path) -> None:
    folder = _run(labelled, tmp_path, "run")
    new = _videos(tmp_path / "new", ("odd", "third"))
    found = evaluate_run(folder, tests={"new": str(new)}, options=OPTIONS)
    assert found.info["tests"]["new"] | {"data": ""} == {
        **{"data": "", "items": 60, "classes": 2, "unseen": 1}
    }
    # Clips of one video are no answers: each has 24 of its class to find.
    trained = load_run(folder)
    config = replace(trained.config, images=ImageOptions(image_size=16))
    clips = load_test(Request(str(new), config), "clips")
    features = extract_features(trained.backbone.module, eval_batches(clips, 32), "cpu").features
    cosines = functional.normalize(features, dim=1) @ functional.normalize(features, dim=1).T
    assert clips.times is not None
    videos = clips.times[:, 0]
    right = [
        bool(clips.labels[cosines[i].masked_fill(videos == videos[i], -2).argmax()] == label)
        for i, label in enumerate(clips.labels)
        if clips.taxonomy.classes[label] == "third"
    ]
    assert found.metrics["unseen/new/retrieval/fine/R@1"] == sum(right) / len(right)


def test_clips_without_labels_are_evaluated_by_time_only(tmp_path: Path) -> None:
    folder = _run(_videos(tmp_path / "plain", ("",)), tmp_path, "run")
    evaluate_run(folder, {}, options=OPTIONS)
    found = load_evaluation(folder)
    kinds = {name.partition("/")[0] for name in found.metrics}
    assert kinds == {"retrieval", "ordering", "embedding"}
    assert "retrieval/near/R@1" in found.metrics


def test_one_short_test_video_has_no_order_and_the_rest_is_measured(tmp_path: Path) -> None:
    videos = _videos(tmp_path / "videos", ("",))
    for index in range(5, 10):
        (videos / f"{index}.mp4").unlink()  # a fifth of the other five is one
    folder = _run(videos, tmp_path, "run")
    with pytest.warns(RinceWarning, match="order of the clips .*is left out"):
        metrics = evaluate_run(folder, options=replace(OPTIONS, near=10.0)).metrics
    assert not [name for name in metrics if "ordering" in name]
    assert metrics["embedding/retrieval/near/R@20"] == 1.0  # all clips are near


def test_a_classifier_is_evaluated_by_its_own_logits(labelled: Path, tmp_path: Path) -> None:
    """As after fine-tuning: by clip, and over the mean probabilities of a video's clips."""
    first = _run(labelled, tmp_path, "first")
    tuned = _run(
        labelled, tmp_path, "tuned", objective="cross-entropy", ranks=RankOptions(),
        model=ModelOptions(backbone="small-resnet3d", start_from=str(first)),
    )  # fmt: skip
    evaluate_run(first, {}, options=OPTIONS)
    assert not [name for name in load_evaluation(first).metrics if name.startswith("classifier")]
    evaluate_run(tuned, {}, options=OPTIONS)
    found = load_evaluation(tuned)

    trained = load_run(tuned)
    splits = load_splits(trained.config)
    clips = splits.test
    assert isinstance(clips, VideoClips)
    with torch.no_grad():
        batches = eval_batches(clips, 1)
        features = torch.cat([trained.backbone.module(pixels) for pixels, _ in batches])
    of_video: dict[int, list[int]] = {}
    for i, video in enumerate(clips.times[:, VIDEO].tolist()):
        of_video.setdefault(int(video), []).append(i)

    def accuracies(head: nn.Linear) -> tuple[float, float]:
        chances = head(features).softmax(dim=1)
        guesses = chances.argmax(dim=1).tolist()
        hits = [guess == int(clips.labels[i]) for i, guess in enumerate(guesses)]
        whole = [
            int(torch.stack([chances[i] for i in rows]).sum(dim=0).argmax())
            == int(clips.labels[rows[0]])
            for rows in of_video.values()
        ]
        return sum(hits) / len(hits), sum(whole) / len(whole)

    assert isinstance(trained.classifier, nn.Linear)
    expected = accuracies(trained.classifier)
    assert found.metrics["classifier/fine"] == pytest.approx(expected[0])
    assert found.metrics["classifier/video"] == pytest.approx(expected[1])
    # One that cuts through a video, whose clips then disagree.
    head = nn.Linear(features.shape[1], 2)
    torch.nn.init.zeros_(head.weight)
    head.weight.data[1] = torch.randn(features.shape[1], generator=torch.Generator().manual_seed(0))
    heights = (features @ head.weight[1]).detach().sort().values
    for cut in ((heights[1:] + heights[:-1]) / 2).tolist():
        head.bias.data = torch.tensor([0.0, -cut])
        expected = accuracies(head)
        if expected[0] != expected[1]:
            break
    assert expected[0] != expected[1]
    metrics = evaluate_backbone(
        trained.backbone.module, splits, {}, options=OPTIONS, classifier=head.requires_grad_(False)
    ).metrics
    assert metrics["classifier/fine"] == pytest.approx(expected[0])
    assert metrics["classifier/video"] == pytest.approx(expected[1])


def test_videos_of_one_clip_are_evaluated_by_label(labelled: Path, tmp_path: Path) -> None:
    videos = VideoOptions(frames=4, stride=1, per_video=1, cache_gb=0)
    folder = _run(labelled, tmp_path, "run", videos=videos, ranks=RankOptions())
    evaluate_run(folder, {}, options=OPTIONS)
    found = load_evaluation(folder)
    assert "ordering/pairs/1>0" in found.metrics
    assert not [name for name in found.metrics if name.startswith("retrieval/near")]
    assert found.time_curve is None


def test_other_data_must_be_clips_of_that_length(
    labelled: Path, image_tree: Path, tmp_path: Path
) -> None:
    folder = _run(labelled, tmp_path, "run")
    with pytest.raises(RinceError, match="no clips"):
        evaluate_run(folder, {}, options=OPTIONS, data=str(image_tree))
    torch.manual_seed(0)
