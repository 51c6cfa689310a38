"""The study of scenes: what it takes for one camera, and what it measures."""

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import Tensor

from rince import Taxonomy, TimeRanks
from rince.data import VideoClips

FILE = Path(__file__).parents[1] / "experiments" / "video" / "scenes.py"


@pytest.fixture(scope="module")
def study() -> ModuleType:
    spec = importlib.util.spec_from_file_location("video_scenes", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def views(number: int) -> Tensor:
    """(number, 3, 56, 56) pictures of different places, with contours of several pixels."""
    coarse = torch.rand(number, 3, 14, 14, generator=torch.Generator().manual_seed(0))
    return 255 * torch.nn.functional.interpolate(coarse, size=56, mode="bilinear")


def filmed(view: Tensor, shift: int = 0, light: float = 1.0) -> Tensor:
    """(3, 4, 48, 48) bytes: four frames, in one of which somebody stands."""
    frames = (light * view[:, shift : shift + 48, 4:52]).byte()[:, None].repeat(1, 4, 1, 1)
    frames[:, 2, 10:20, 10:20] = 255
    return frames


def test_one_camera_is_one_scene_within_a_source_video(study: ModuleType) -> None:
    first, second, third = views(3)
    pieces = torch.stack(
        [
            filmed(first),
            filmed(first, shift=2, light=0.7),  # moved a little, in other light
            filmed(second),
            filmed(third),
            filmed(third, light=0.9),
            filmed(first),  # of another source video
        ]
    )
    source = torch.tensor([0, 0, 0, 0, 0, 1])
    scene = study.found_scenes(pieces, torch.arange(6), source)
    assert scene[[2, 5]].tolist() == [-1, -1]
    assert scene[0] == scene[1] != scene[3] == scene[4]
    assert set(scene.tolist()) == {-1, 0, 1}


def test_a_scene_in_doubt_is_left_out(study: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    alike = torch.full((5, 5), 0.1)
    alike[:3, :3], alike[3:, 3:] = 0.9, 0.9
    monkeypatch.setattr(study, "backgrounds", lambda pieces, groups: pieces)
    monkeypatch.setattr(study, "same_view", lambda pictures: alike.clone())
    given = torch.zeros(5), torch.arange(5), torch.zeros(5, dtype=torch.int64)
    assert study.found_scenes(*given).tolist() == [0, 0, 0, 1, 1]
    alike[0, 4] = alike[4, 0] = (study.SAME_VIEW + study.OTHER_VIEW) / 2
    assert study.found_scenes(*given).tolist() == [0, 0, 0, -1, -1]


def test_folds_keep_source_videos_whole_and_are_even(study: ModuleType) -> None:
    scene = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, -1])
    source = torch.tensor([7, 7, 7, 7, 1, 1, 2, 2, 3, 3, 4, 4, 4])
    fold = study.folds_of(scene, source)
    assert all(len(fold[source == video].unique()) == 1 for video in source.unique())
    assert [len(scene[(fold == k) & (scene >= 0)].unique()) for k in range(3)] == [2, 2, 2]


def test_what_stands_still_becomes_grey(study: ModuleType) -> None:
    pieces = torch.stack([filmed(view) for view in views(2)])
    found = study.without_background(pieces, torch.arange(2))
    still = torch.ones(48, 48, dtype=torch.bool)
    still[10:20, 10:20] = False
    assert (found[:, :, [0, 1, 3]] == 128).all()
    assert (found[:, :, 2][:, :, still] == 128).all()
    assert (found[:, :, 2][:, :, ~still] >= 128).all()


def test_what_is_measured_of_each_scene(study: ModuleType) -> None:
    scene = [0] * 6 + [1] * 5 + [2] * 3  # the last one has nothing far away
    start = [0, 0.5, 4, 30, 31, 90, 0, 0.5, 60, 60.5, 200, 7, 8, 9]
    paths = tuple(f"{s}-{f}" for s, f in zip(scene, "aabcde" + "aabbc" + "abc", strict=True))
    times = TimeRanks.items(scene, start, [x + 0.4 for x in start])
    none = torch.zeros(len(scene), dtype=torch.int64)
    tree = Taxonomy([("video",)])
    clips = VideoClips(
        paths, none, none, times, none, tree, "made up", paths, frames=4, frame_size=48
    )
    features = torch.randn(len(scene), 6, generator=torch.Generator().manual_seed(1)).double()
    context = SimpleNamespace(
        test=SimpleNamespace(features=features), splits=SimpleNamespace(test=clips)
    )
    found = study.order_by_scene(context)
    cosine = torch.nn.functional.cosine_similarity(features[:, None], features[None], dim=2)
    values: dict[str, list[float]] = {}
    for q, s in enumerate(scene):
        keys = [k for k in range(len(scene)) if paths[k] != paths[q]]
        gap = {k: abs(start[k] - start[q]) - 0.4 for k in keys}
        near = [cosine[q, k] for k in keys if scene[k] == s and gap[k] <= 10]
        far = [cosine[q, k] for k in keys if scene[k] == s and gap[k] > 10]
        other = [cosine[q, k] for k in keys if scene[k] != s]
        for name, better, worse in (("near>far", near, far), ("far>other", far, other)):
            if better and far:
                won = [float(a > b) for a in better for b in worse]
                values.setdefault(f"{name}@{s}", []).append(sum(won) / len(won))
        if far:
            values.setdefault(f"far/R@1@{s}", []).append(float(max(far) > max(other)))
    expected = {name: sum(x) / len(x) for name, x in values.items()}
    for metric in ("near>far", "far>other", "far/R@1"):
        of_scenes = [x for name, x in expected.items() if name.startswith(metric)]
        expected[metric] = sum(of_scenes) / len(of_scenes)
    expected["order"] = (expected["near>far"] + expected["far>other"]) / 2
    assert found == pytest.approx(expected)
