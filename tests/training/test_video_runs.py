"""Training on clips of videos, by time and by labels, and going on with a run that stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rince.cli.train import parse_with_seeds
from rince.core.checks import RinceError, RinceWarning
from rince.core.input_spec import InputSpec
from rince.data.video.clips import VideoClips
from rince.models.backbones import Backbone, as_backbone
from rince.training.checkpoint import load_run, read_checkpoint
from rince.training.config import (
    BatchOptions,
    ImageOptions,
    LossOptions,
    ModelOptions,
    OptimOptions,
    RankOptions,
    TrainConfig,
    VideoOptions,
)
from rince.training.folder import read_config
from rince.training.history import read_history
from rince.training.run import resume, train
from rince.training.splits import load_splits

pytest.importorskip("av")

from small_runs import Disturbed
from torch import nn

from video_files import write_video


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten videos of 6 seconds in two classes; each has a brightness that wanders."""
    root = tmp_path_factory.mktemp("videos")
    for index in range(10):
        folder = root / ("bright", "dark")[index % 2]
        folder.mkdir(exist_ok=True)
        shades = [20 * index + 10 + t // 2 for t in range(60)]
        write_video(folder / f"{index}.mp4", 60, shades=shades)
    return root


def _config(videos: Path, output: Path, **changes: object) -> TrainConfig:
    values: dict[str, object] = {
        "data": str(videos),
        "images": ImageOptions(image_size=16, workers=0),
        "videos": VideoOptions(frames=2, stride=2, hop=1.0, cache=str(output / "cache")),
        "ranks": RankOptions(by="time", near=(1.0,)),
        "model": ModelOptions(embedding_dim=16),
        "optim": OptimOptions(lr=0.02, warmup_epochs=0),
        "epochs": 2,
        "batch_size": 12,
        "output": str(output),
        "accelerator": "cpu",
        "log_every": 1,
        "progress": False,
        **changes,
    }
    return TrainConfig(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("objective", "near", "label"),
    [
        ("rince", (1.0,), "rince out-in, time 1"),
        ("rince", (), "rince out-in, time"),
        ("infonce", (1.0,), "infonce"),
        ("supcon-in", (1.0,), "supcon-in, all of the video"),
        ("supcon-out", (1.0,), "supcon-out, all of the video"),
    ],
)
def test_objectives_by_time(
    objective: str, near: tuple[float, ...], label: str, videos: Path, tmp_path: Path
) -> None:
    config = _config(videos, tmp_path, objective=objective, ranks=RankOptions(by="time", near=near))
    assert config.label() == label
    history = read_history(train(config))
    losses = [value for _, value in history["train/loss"]]
    assert len(losses) == 2 * (8 * 6 // 12)
    assert torch.tensor(losses).isfinite().all()
    num_ranks = 2 + len(near)
    assert (f"train/loss_rank_{num_ranks}" in history) == (objective == "rince")
    for rank in range(1, num_ranks + 1):
        assert f"train/positives_rank_{rank}" in history
    # Two views of 12 clips against each other: one other view each, and nothing else, is rank 1.
    assert {value for _, value in history["train/positives_rank_1"]} == {1.0}
    assert 0 < history["online_knn"][-1][1] <= 1


def test_batches_hold_several_clips_of_a_video(videos: Path, tmp_path: Path) -> None:
    history = read_history(
        train(_config(videos, tmp_path, batches=BatchOptions(images_per_class=6), epochs=1))
    )
    # 0.3 s of every second: of a video's 6 clips, those before and after are 0.7 s away.
    near, far = (history[f"train/positives_rank_{i}"] for i in (2, 3))
    assert {round(value, 4) for _, value in near} == {round(2 * 10 / 6, 4)}
    assert {round(value, 4) for _, value in far} == {round(2 * 20 / 6, 4)}


def test_labels_serve_as_ever(videos: Path, tmp_path: Path) -> None:
    for objective in ("cross-entropy", "rince"):
        options = {"objective": objective, "model": ModelOptions(), "ranks": RankOptions()}
        folder = train(_config(videos, tmp_path, **options, epochs=1))
        assert load_run(folder).taxonomy.classes == ("bright", "dark")
        assert load_run(folder).spec.frames == 2
        # Where none is chosen, the default one of clips, as its folder says.
        assert load_run(folder).config.model.backbone == "small-resnet3d"
        assert read_config(folder).model.backbone == "small-resnet3d"


def _stopping(step: int) -> Backbone:
    class Stopping(Disturbed):
        def __init__(self) -> None:
            super().__init__(step, self._stop)
            self.linear = nn.Linear(3 * 2 * 16 * 16, 16)

        def _stop(self) -> None:
            raise KeyboardInterrupt

    torch.manual_seed(1)
    return as_backbone(Stopping(), InputSpec.clips(3, 2, 16))


def test_resumed_equals_uninterrupted(videos: Path, tmp_path: Path) -> None:
    """With a queue, which then holds clips of the epoch before; in mid-epoch."""
    model = ModelOptions(embedding_dim=8, momentum=0.9, queue_size=20)
    options = {"model": model, "epochs": 3, "checkpoint_every": 1}
    whole = train(_config(videos, tmp_path, name="whole", **options), _stopping(99))
    with pytest.raises(KeyboardInterrupt):
        train(_config(videos, tmp_path, name="stopped", **options), _stopping(7))
    before = read_checkpoint(tmp_path / "stopped")
    assert before["global_step"] == 6  # of 4 an epoch
    resume(tmp_path / "stopped", progress=False, backbone=_stopping(99))
    expected, found = (read_checkpoint(tmp_path / n)["state_dict"] for n in ("whole", "stopped"))
    assert expected.keys() == found.keys()
    assert "queue.ids" in found
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    history = read_history(whole)
    # One view in the batch; later also the queued keys of the same clip and of its neighbours.
    first, last = (history[f"train/positives_rank_{i}"] for i in (1, 2))
    assert first[0][1] == 1.0
    assert max(value for _, value in first) > 1.0
    assert last[-1][1] > last[0][1]


def test_changed_times_or_ranks_are_refused(videos: Path, tmp_path: Path) -> None:
    folder = train(_config(videos, tmp_path, name="run", epochs=1))
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("hop: 1.0", "hop: 0.9"))
    with pytest.raises(RinceError, match="/run "):
        resume(folder, progress=False)
    (folder / "config.yaml").write_text(text.replace("beyond: rank", "beyond: ignore"))
    with pytest.raises(RinceError, match="ranks .*config.yaml"):
        resume(folder, progress=False)
    (folder / "config.yaml").write_text(text)
    resume(folder, progress=False)


@pytest.mark.filterwarnings("ignore:no effect on images. videos.frames")
def test_what_does_not_go_together(videos: Path, image_tree: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cross-entropy .*ranks.by.*infonce"):
        train(_config(videos, tmp_path, objective="cross-entropy", model=ModelOptions()))
    with pytest.raises(ValueError, match=r"ranks.by time .*videos"):
        train(_config(image_tree, tmp_path))
    with pytest.raises(ValueError, match=r"images.per_class .*clips.*videos"):
        train(_config(videos, tmp_path, images=ImageOptions(image_size=16, per_class=3)))
    with pytest.raises(ValueError, match=r"ranks.near .*time.*classes"):
        _config(videos, tmp_path, ranks=RankOptions(near=(3.0,))).check()
    loss = LossOptions(temperatures=(0.1, 0.2))
    with pytest.raises(ValueError, match=r"loss.temperatures .*2 .*3 rank"):
        train(_config(videos, tmp_path, loss=loss))


def test_the_command_line(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rince.cli import ranks

    config = parse_with_seeds([str(videos), "--ranks", "time", "--videos.frames", "2"])[0]
    assert (config.ranks.by, config.ranks.near) == ("time", (10.0,))
    config = parse_with_seeds(
        [str(videos), "--ranks=time", "--ranks.near", "[]", "--ranks.shots", "true"]
    )[0]
    assert (config.ranks.near, config.ranks.shots) == ((), True)
    assert config.run_name().endswith("-rince-out-in-time-shots-seed0")
    cut = ["--videos.hop=1", "--videos.frames=2", "--videos.stride=2", "--videos.cache_gb=0"]
    ranks.run([str(videos), "--by", "time", "--near", "[0.7]", *cut])
    text = capsys.readouterr().out
    assert "48 training clips of 2 frames" in text
    assert "up to 0.7 s apart" in text
    assert "items: 48, videos: 8, ranks: 3" in text


def test_unlabelled_clips_are_found_by_their_video(tmp_path: Path) -> None:
    for name in "abc":
        write_video(tmp_path / f"{name}.mp4", 20)
    splits = load_splits(
        TrainConfig(str(tmp_path), videos=VideoOptions(frames=2, stride=1, hop=0.5, cache_gb=0))
    )
    assert isinstance(splits.train, VideoClips)
    assert splits.train.labels.unique().tolist() == [0]
    assert splits.train.by_recording().labels.unique().tolist() == [0, 1]


def test_a_rank_that_no_two_clips_have_is_said(videos: Path, tmp_path: Path) -> None:
    near = RankOptions(by="time", near=(30.0,))  # the videos last 6 s
    with pytest.warns(RinceWarning, match=r"no two training clips have rank 3 \(same video\)"):
        train(_config(videos, tmp_path, ranks=near, epochs=1))
