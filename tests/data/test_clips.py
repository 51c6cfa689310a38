"""Clips as a data set: how videos are cut, cached, batched and augmented."""

from __future__ import annotations

import contextlib
import pickle
import re
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from rince.core.checks import RinceError, RinceWarning
from rince.data.batches import TrainLoader, eval_batches
from rince.data.kinds import load_splits
from rince.data.plan import BatchPlan
from rince.data.video import sources
from rince.data.video.cache import ClipCache
from rince.data.video.clips import VideoClips
from rince.data.video.cuts import clip_starts
from rince.data.views import BatchAugmentation, evaluation_pixels
from rince.training.config import ImageOptions, TrainConfig, VideoOptions

pytest.importorskip("av")

from loaders import load_videos
from video_files import numbers, write_video


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five videos of 3 seconds at 10 frames a second, in no class."""
    root = tmp_path_factory.mktemp("videos")
    for name in "abcde":
        write_video(root / f"{name}.mp4")
    return root


def _load(folder: Path, tmp_path: Path, **options: object) -> VideoClips:
    """All clips, whatever side of the split they are on, in order of names."""
    given = {"frames": 4, "stride": 2, "image_size": 16, "cache": tmp_path / "cache", **options}
    splits = load_videos(folder, **given)
    both = [splits.train, splits.test]
    names = [*splits.train.keys(), *splits.test.keys()]  # type: ignore[misc]
    order = sorted(range(len(names)), key=names.__getitem__)
    first = splits.train
    assert isinstance(first, VideoClips)
    joined = {
        n: torch.cat([getattr(s, n) for s in both])[order]
        for n in ("starts", "steps", "clip_times", "labels")
    }
    paths = [p for side in both for p in side.paths]
    keys, files = (tuple(given[i] for i in order) for given in (names, paths))
    return replace(first, clip_keys=keys, paths=files, **joined)


def test_how_a_video_is_cut(folder: Path, tmp_path: Path) -> None:
    """4 frames at stride 2 of 10 a second: 0, 2, 4, 6, and the last is shown for 0.1 s."""
    clips = _load(folder, tmp_path)
    assert len(clips) == 5 * 4  # at 0, 0.7, 1.4, 2.1; the next would end at 3.5
    assert clips.starts[:4].tolist() == pytest.approx([0, 0.7, 1.4, 2.1])
    assert [numbers(clips[i]) for i in (0, 1, 3)] == [
        [0, 2, 4, 6],
        [7, 9, 11, 13],
        [21, 23, 25, 27],
    ]
    assert clips.times[1].tolist() == [0, 700_000, 1_400_000, -1, 2_800_000]
    assert clips.times[:, 0].tolist() == [v for v in range(5) for _ in range(4)]
    assert clips[0].shape == (3, 4, 16, 16)
    assert clips.taxonomy.num_classes == 1
    spaced = _load(folder, tmp_path, hop=0.25, per_video=3)
    assert spaced.starts[:3].tolist() == pytest.approx([0, 1.0, 2.25])


def test_starts_by_hand() -> None:
    assert clip_starts(2.0, span=2.0, hop=1.0) == [0]
    assert clip_starts(1.9, span=2.0, hop=1.0) == []
    assert clip_starts(2.1, span=0.7, hop=0.7) == pytest.approx([0, 0.7, 1.4])  # no rounding away
    assert clip_starts(9.0, span=1.0, hop=1.0, most=1) == [0]


def test_whole_sources_are_held_out_and_stay_so(folder: Path, tmp_path: Path) -> None:
    splits = load_videos(folder, frames=2, image_size=16, cache_gb=0)
    assert len(splits.train) + len(splits.test) > 5 * 2
    sides = [set(side.times[:, 0].tolist()) for side in (splits.train, splits.test)]
    assert sides[0] | sides[1] == set(range(5))
    assert not sides[0] & sides[1]
    assert len(sides[1]) == 1
    again = load_videos(folder, frames=2, image_size=16, cache_gb=0)
    assert again.fingerprint() == splits.fingerprint()
    assert (
        load_videos(folder, image_size=16, cache_gb=0, stride=3).fingerprint()
        != splits.fingerprint()
    )


def test_the_cache_holds_what_was_decoded(folder: Path, tmp_path: Path) -> None:
    decoded = _load(folder, tmp_path, cache_gb=0)
    assert decoded.cache is None
    clips = _load(folder, tmp_path)
    first = [clips[i] for i in range(len(clips))]
    assert all(torch.equal(a, decoded[i]) for i, a in enumerate(first))
    gone = replace(clips, paths=("/nowhere.mp4",) * len(clips))
    assert all(torch.equal(gone[i], a) for i, a in enumerate(first))
    travelled = pickle.loads(pickle.dumps(gone))  # to a worker
    assert torch.equal(travelled[3], first[3])
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_the_cache_has_a_bound(tmp_path: Path) -> None:
    shape, size = (1, 2, 4, 4), 4 + 32
    cache = ClipCache(tmp_path, [f"k{i}" for i in range(10)], "", shape, 3 * size + 5)
    for i in range(10):
        cache.put(f"k{i}", torch.full(shape, i, dtype=torch.uint8))
    kept = [i for i in range(10) if cache.get(f"k{i}") is not None]
    assert len(kept) == 3
    assert cache.file.stat().st_size == 3 * size
    assert all(int(cache.get(f"k{i}")[0, 0, 0, 0]) == i for i in kept)  # type: ignore[index]


def test_a_clip_written_halfway_is_not_used(tmp_path: Path) -> None:
    cache = ClipCache(tmp_path, ["k"], "", (1, 1, 4, 4), 1000)
    assert cache.get("k") is None
    cache.put("k", torch.arange(16, dtype=torch.uint8).view(1, 1, 4, 4))
    assert cache.get("k") is not None
    data = bytearray(cache.file.read_bytes())
    data[-1] ^= 1
    cache.file.write_bytes(data)
    assert ClipCache(tmp_path, ["k"], "", (1, 1, 4, 4), 1000).get("k") is None
    other = ClipCache(tmp_path, ["k"], "changed", (1, 1, 4, 4), 1000)
    assert other.file != cache.file
    with pytest.raises(RinceError, match=r"cache.*videos\.cache_gb 0"):
        ClipCache(cache.file, ["k"], "", (1, 1, 4, 4), 1000)


def test_a_full_disk_ends_the_cache_alone(tmp_path: Path, small_disk: None) -> None:
    import resource

    keys, shape = [f"k{i}" for i in range(6)], (1, 1, 100, 100)
    cache, clip = ClipCache(tmp_path, keys, "", shape, 64_000), torch.ones(shape, dtype=torch.uint8)
    room = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (25_000, room[1]))  # two clips and a half
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for key in keys:
            cache.put(key, clip)
    resource.setrlimit(resource.RLIMIT_FSIZE, room)
    assert len(warned) == 1
    assert re.search(r"cannot write.*\.clips.*videos\.cache", str(warned[0].message))
    kept = [got for key in keys if (got := cache.get(key)) is not None]
    assert len(kept) <= 2
    assert all(torch.equal(got, clip) for got in kept)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_the_plan(folder: Path, tmp_path: Path, workers: int) -> None:
    clips = _load(folder, tmp_path)
    made = []
    for augment in ("now", "later"):
        plan = BatchPlan(len(clips), 6, seed=3)
        loader = TrainLoader(replace(clips, image_size=12), plan, workers=workers, augment=augment)  # type: ignore[arg-type]
        made.append(list(loader))
    augmentation = BatchAugmentation(12, 3)
    for now, later in zip(*made, strict=True):
        assert [v.shape for v in now.views] == [(6, 3, 4, 12, 12)] * 2
        assert later.views[0].dtype == torch.uint8
        assert torch.equal(later.views[0][2], clips[int(later.indices[2])])
        generator = torch.Generator().manual_seed(later.seed)
        for view in now.views:
            assert torch.equal(view, augmentation(later.views[0], generator))


def test_all_frames_of_a_clip_get_the_same_view() -> None:
    """Of a clip whose frames are all alike, so are those of its views; and as of one image."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5, 3, 20, 24), dtype=torch.uint8, generator=generator)
    for side in (16, 28):  # shrinking and enlarging crops
        augmentation = BatchAugmentation(side, 3)
        draws = augmentation.draw(images, generator)
        still = images[:, :, None].expand(-1, -1, 3, -1, -1)
        moving = augmentation.apply(still, draws)
        assert moving.shape == (5, 3, 3, side, side)
        expected = augmentation.apply(images, draws)
        torch.testing.assert_close(
            moving, expected[:, :, None].expand_as(moving), atol=1e-5, rtol=0
        )


def test_the_contrast_of_a_clip_is_that_of_all_its_frames() -> None:
    """Frames of different brightness stay in order: they are mapped by one line."""
    clip = torch.tensor([40, 90, 140], dtype=torch.uint8)[None, None, :, None, None]
    clip = clip.expand(1, 3, 3, 8, 8)
    augmentation = BatchAugmentation(8, 3)
    draws = augmentation.draw(clip, torch.Generator())._replace(
        colors=torch.tensor([[1.0, 0.5, 1.0, 0.0]]), grayscale=torch.tensor([False])
    )
    mapped = augmentation.apply(clip, draws)[0, :, :, 0, 0]
    # Half the contrast about the mean of the clip, 90.
    expected = evaluation_pixels(torch.tensor([65, 90, 115], dtype=torch.uint8).expand(1, 3, 1, 3))
    torch.testing.assert_close(mapped, expected[0, :, 0], atol=1e-4, rtol=0)


def test_evaluation_batches(folder: Path, tmp_path: Path) -> None:
    clips = _load(folder, tmp_path, frame_size=20)
    assert clips.frame_size == 20
    batches = list(eval_batches(clips, 8))
    assert [b.shape for b, _ in batches] == [(8, 3, 4, 16, 16)] * 2 + [(4, 3, 4, 16, 16)]
    assert torch.isfinite(batches[0][0]).all()


def test_what_cannot_be_read_is_an_error_or_left_out(folder: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    for name in "ab":
        (bad / f"{name}.mp4").write_bytes((folder / f"{name}.mp4").read_bytes())
    (bad / "empty.mp4").touch()
    with pytest.raises(RinceError, match=r"^cannot read.*empty\.mp4"):
        load_videos(bad, image_size=16, frames=2, cache_gb=0)
    write_video(bad / "short.mp4", 3)
    # Its header is whole, its frames are not: only decoding shows it.
    cut = write_video(bad / "cut.mp4", options={"movflags": "faststart"}, size=(480, 320))
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    warned = pytest.warns(RinceWarning)
    with warned as caught:
        splits = load_videos(
            bad, image_size=16, frames=8, stride=2, cache_gb=0, skip_unreadable=True
        )
    text = " ".join(str(w.message) for w in caught)
    assert "2 of 5 videos" in text
    assert "it is empty" in text
    assert re.search(r"0\.30 s .*\b8 frames at stride 2\b.* 1\.50 s", text)
    assert re.search("of 6 clips .*: cannot read", text)
    assert "cut.mp4" in text
    assert len(splits.train) + len(splits.test) in (4, 5)
    (bad / "a.mp4").unlink()
    (bad / "b.mp4").unlink()
    (bad / "cut.mp4").unlink()
    with pytest.raises(RinceError, match=r"none.*\b2 videos.*first"):
        load_videos(bad, image_size=16, frames=8, stride=2, cache_gb=0, skip_unreadable=True)


def test_what_to_do_about_short_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them are counted, once, and the largest stride that fits all is named."""
    counted: list[int] = []
    hint = sources._hint
    monkeypatch.setattr(sources, "_hint", lambda *of: counted.append(len(of[0])) or hint(*of))
    for name, frames in (("a", 40), ("b", 9), ("c", 11)):
        write_video(tmp_path / f"{name}.mp4", frames)
    given = {"image_size": 16, "cache_gb": 0}
    with pytest.raises(RinceError) as refused:
        load_videos(tmp_path, frames=4, stride=5, **given)
    text = str(refused.value)
    assert re.search(r"b\.mp4: .* 0\.90 s .*\b4 frames at stride 5\b.* 1\.60 s", text)
    assert "2 of 3 videos cannot" in text
    assert counted == [3]
    assert "c.mp4" in text
    assert "2 of 3 videos that" in text
    assert "videos.frames or videos.stride 2," in text
    load_videos(tmp_path, frames=4, stride=2, **given)
    with pytest.raises(RinceError, match=r"fewer videos.frames, or leave"):
        load_videos(tmp_path, frames=10, stride=5, **given)  # nor does any other stride


def test_the_decoder_of_earlier_versions(tmp_path: Path) -> None:
    """config.yaml files of theirs say which; PyAV decodes the same frames."""

    @dataclass
    class Videos(VideoOptions):
        decoder: str = "pyav"

    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, 6)
    splits = []
    for decoder in ("pyav", "torchcodec"):
        videos = Videos(frames=2, stride=2, cache_gb=0, decoder=decoder)
        config = TrainConfig(str(tmp_path), images=ImageOptions(image_size=16), videos=videos)
        said = pytest.warns(RinceWarning, match="torchcodec.*PyAV")
        with said if decoder == "torchcodec" else contextlib.nullcontext():
            splits.append(load_splits(str(tmp_path), config))
    one, other = splits
    assert one.fingerprint() == other.fingerprint()
    assert torch.equal(one.train[0], other.train[0])


def test_no_pictures_of_clips(folder: Path, tmp_path: Path) -> None:
    clips = _load(folder, tmp_path)
    one = clips.thumbnails([0], 8)
    for nothing in ([], torch.zeros(0, dtype=torch.int64)):
        shown = clips.thumbnails(nothing, 8)
        assert (shown.shape, shown.dtype) == ((0, *one.shape[1:]), one.dtype)
