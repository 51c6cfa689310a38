"""InfoNCE against RINCE on the scenes of the surveillance clips, without their backgrounds.

    python experiments/video/scenes.py CLIPS OUTPUT [--methods NAME ...] [--seeds 0 1 2]
        [--with-background]

CLIPS is surveillance-clips.tar unpacked, with clips.csv beside `fight/` and `ordinary/`. A scene is
one camera view: clips of one source video whose backgrounds agree. OUTPUT gets `scenes.csv` (clip,
scene, fold), `scenes.jsonl` (a line a run) and `by-scene.jsonl` (a line a run and test scene).
Runs that are in `scenes.jsonl` are left out, so that it can be started again.

Seed i holds out fold i of the source videos, so that three seeds test every scene once.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn import functional

from rince.data import Request, Splits, VideoClips
from rince.data.video.sources import load_test_clips
from rince.evaluation.context import Context
from rince.evaluation.evaluate import measure
from rince.evaluation.features import Network
from rince.evaluation.steps import probe_and_knn
from rince.metrics import rank_agreement, recall_by_rank
from rince.ranks.time import seconds_apart
from rince.training import load_run, train
from rince.training.config import TrainConfig, from_dict

FOLDS = 3
SAME_VIEW = 0.42  # correlation of two backgrounds from which on they are one camera's
OTHER_VIEW = 0.3  # up to which they are not; between, the smaller of the two scenes is left out
SHIFT = 3  # pixels that a camera may move
TWICE = "nofi022.mp4"  # is listed under two source videos
NEAR = 10.0  # seconds
SHOWN = ("near>far", "far>other", "order", "far/R@1", "probe/fine")
SAME_FILE, NEAR_RANK, FAR_RANK = -1, 1, 2  # the first is ignored

CONFIG: dict[str, Any] = {
    "ranks": {"by": "time", "near": [NEAR]},
    "videos": {"frames": 4, "stride": 4, "hop": 0.5},
    "images": {"image_size": 48, "workers": 0},
    "batches": {"images_per_class": 4},
    "model": {"backbone": "small-resnet3d", "momentum": 0.99, "queue_size": 256},
    "optim": {"optimizer": "adamw", "lr": 0.001, "weight_decay": 0.01},
    "loss": {"variant": "out-in"},
    "epochs": 20,
    "batch_size": 64,
    "knn_every": 0,
    "accelerator": "cpu",
    "progress": False,
}
METHODS: dict[str, dict[str, Any]] = {
    "infonce-easy": {"objective": "infonce"},  # positives: the same piece
    "infonce-hard": {"objective": "supcon-out"},  # positives: all of the scene
    "rince2": {"ranks": {"by": "time", "near": []}},  # the piece, the scene
    "rince3": {},  # the piece, up to 10 s, the scene
    "untrained": {"objective": "infonce", "epochs": 1, "optim": {"lr": 1e-12}},
}


def backgrounds(pieces: Tensor, groups: Tensor) -> Tensor:
    """The median frame of each group: (N, 3, T, S, S) uint8, (N,) in [0, G) -> (G, 3, S, S)."""
    medians = []
    for group in range(int(groups.max()) + 1):
        frames = pieces[groups == group].transpose(1, 2).flatten(0, 1)
        medians.append(frames.float().quantile(0.5, dim=0))
    return torch.stack(medians)


def same_view(pictures: Tensor) -> Tensor:
    """(G, 3, S, S) -> (G, G): the correlation of their contours at the best small shift."""
    grey = functional.avg_pool2d(pictures.mean(dim=1, keepdim=True), 3, 1, 1, False, False)
    window = {"kernel_size": 9, "stride": 1, "padding": 4, "count_include_pad": False}
    mean = functional.avg_pool2d(grey, **window)
    spread = (functional.avg_pool2d(grey.square(), **window) - mean.square()).clamp(min=0).sqrt()
    local = ((grey - mean) / (spread + 4))[:, 0]  # light and colour do not matter
    size = local.shape[-1] - 2 * SHIFT
    best = torch.full((len(local),) * 2, -1.0)
    core = _unit(local[:, SHIFT : SHIFT + size, SHIFT : SHIFT + size])
    for y in range(2 * SHIFT + 1):
        for x in range(2 * SHIFT + 1):
            best = best.maximum(core @ _unit(local[:, y : y + size, x : x + size]).T)
    return best.maximum(best.T)


def _unit(pictures: Tensor) -> Tensor:
    flat = pictures.flatten(1)
    return functional.normalize(flat - flat.mean(dim=1, keepdim=True), dim=1)


def found_scenes(pieces: Tensor, file: Tensor, source: Tensor) -> Tensor:
    """(F,) scene of each file, from 0 on; -1: its camera has no second file, or is in doubt.

    Args:
        pieces: (N, 3, T, S, S) uint8. file: (N,) of each piece, in [0, F). source: (F,).
    """
    alike = same_view(backgrounds(pieces, file)).masked_fill(source[:, None] != source, -1)
    joined = connected_components((alike > SAME_VIEW).numpy(), directed=False)[1]
    members = [(joined == k).nonzero()[0] for k in range(joined.max() + 1)]
    scene, taken = torch.full_like(source, -1), torch.zeros(len(source), dtype=torch.bool)
    for files in sorted(members, key=len, reverse=True):
        if len(files) >= 2 and not (alike[files][:, taken] > OTHER_VIEW).any():
            scene[files] = int(scene.max()) + 1
            taken[files] = True
    return scene


def folds_of(scene: Tensor, source: Tensor) -> Tensor:
    """(F,) fold of each file: source videos, those of most scenes first, each into the fold that
    has fewest scenes, then fewest files."""
    scenes: dict[int, set[int]] = {}
    files: Counter[int] = Counter()
    for of_scene, of_source in zip(scene.tolist(), source.tolist(), strict=True):
        if of_scene >= 0:
            scenes.setdefault(of_source, set()).add(of_scene)
            files[of_source] += 1
    sizes = [(0, 0)] * FOLDS
    fold = torch.zeros_like(source)
    for video in sorted(scenes, key=lambda v: (-len(scenes[v]), -files[v], v)):
        place = sizes.index(min(sizes))
        sizes[place] = sizes[place][0] + len(scenes[video]), sizes[place][1] + files[video]
        fold[source == video] = place
    return fold


class Kept:
    """Pieces in memory, in the place of a cache of decoded ones."""

    def __init__(self, pieces: Mapping[str, Tensor]) -> None:
        self.pieces = pieces

    def get(self, key: str) -> Tensor:
        return self.pieces[key]


def without_background(pieces: Tensor, scene: Tensor) -> Tensor:
    """What differs from the scene's median frame, on grey: uint8, as the pieces."""
    still = backgrounds(pieces, scene)[scene][:, :, None]
    return (pieces.float() - still + 128).round().clamp(0, 255).byte()


def load_scenes(
    folder: Path, table: Path, with_background: bool = False
) -> tuple[VideoClips, Tensor, Tensor]:
    """Pieces whose recordings are scenes, their folds and their files."""
    config = configuration("rince3", 0, folder, table.parent)
    clips = load_test_clips(Request(str(folder), config, by_time=True))
    clips = clips.subset([i for i, key in enumerate(clips.clip_keys) if TWICE not in key])
    names = [key.rpartition("@")[0] for key in clips.clip_keys]
    files = sorted(set(names))
    file = torch.tensor([files.index(name) for name in names])
    source = torch.zeros(len(files), dtype=torch.int64)
    source[file] = clips.times[:, 0]
    pieces = clips.batch(torch.arange(len(clips)))
    scene_of_file = found_scenes(pieces, file, source)
    fold_of_file = folds_of(scene_of_file, source)
    kept = (scene_of_file >= 0)[file].nonzero()[:, 0]
    clips, file = clips.subset(kept), file[kept]
    scene = scene_of_file[file]
    times = clips.times.clone()
    times[:, 0] = scene
    shown = pieces[kept] if with_background else without_background(pieces[kept], scene)
    cache: Any = Kept(dict(zip(clips.clip_keys, shown, strict=True)))
    with table.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["clip", "scene", "fold"])
        for i, name in enumerate(files):
            if scene_of_file[i] >= 0:
                writer.writerow([name, int(scene_of_file[i]), int(fold_of_file[i])])
    return replace(clips, clip_times=times, cache=cache, name="scenes"), fold_of_file[file], file


def order_by_scene(context: Context) -> dict[str, float]:
    """For each test scene `METRIC@SCENE`, and the means over scenes `METRIC`.

    Pieces of one file are never compared: they share the people, the light, the codec.
    near>far: share of pairs in which a piece up to 10 s away is nearer than one further away.
    far>other: in which one further away is nearer than one of another scene.
    far/R@1: of pieces more than 10 s away and of other scenes, the nearest is of the same scene.
    """
    features, times = context.test.features, context.splits.test.times
    clips = context.splits.test
    assert times is not None
    assert isinstance(clips, VideoClips)
    names = sorted(set(clips.paths))
    file = torch.tensor([names.index(path) for path in clips.paths])
    apart = seconds_apart(times, times)
    ranks = torch.zeros_like(apart, dtype=torch.int8)
    ranks[apart.isfinite()] = FAR_RANK
    ranks[apart <= NEAR] = NEAR_RANK
    ranks[(file[:, None] == file) | (apart <= 0)] = SAME_FILE
    far_only = ranks.masked_fill(ranks == NEAR_RANK, SAME_FILE)
    found: dict[str, float] = {}
    for scene in times[:, 0].unique().tolist():
        of_scene = (times[:, 0] == scene) & (ranks == FAR_RANK).any(dim=1)
        if not of_scene.any():
            continue
        query = features[of_scene]
        order = rank_agreement(query, features, ranks[of_scene])
        if "pairs/1>2" in order:
            found[f"near>far@{scene}"] = order["pairs/1>2"]
        found[f"far>other@{scene}"] = order["pairs/2>0"]
        recall = recall_by_rank(query, features, far_only[of_scene], worst_rank=2, ks=(1,))
        found[f"far/R@1@{scene}"] = recall[1]
    means = {}
    for name in ("near>far", "far>other", "far/R@1"):
        values = [x for key, x in found.items() if key.startswith(f"{name}@")]
        means[name] = sum(values) / len(values)
    means["order"] = (means["near>far"] + means["far>other"]) / 2
    return means | found


def configuration(method: str, seed: int, folder: Path, output: Path) -> TrainConfig:
    settings = {name: dict(x) if isinstance(x, dict) else x for name, x in CONFIG.items()}
    for name, value in METHODS[method].items():
        settings[name] = {**settings[name], **value} if isinstance(value, dict) else value
    where = {"data": str(folder), "output": str(output), "name": f"{method}-seed{seed}"}
    return from_dict({**settings, **where, "seed": seed})


def run(clips: VideoClips, fold: Tensor, config: TrainConfig) -> tuple[dict[str, float], float]:
    """Metrics of a trained run, and the CPU seconds of its training."""
    held = fold == config.seed % FOLDS
    splits = Splits(*(clips.subset(side.nonzero()[:, 0]) for side in (~held, held)))
    started = time.process_time()
    folder = train(config, splits=splits)
    seconds = time.process_time() - started
    trained = load_run(folder)
    steps = [probe_and_knn, order_by_scene]
    found = measure(Network(trained.backbone.module, trained.head), splits, {}, steps=steps)
    return found.metrics, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("clips", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--with-background", action="store_true", help="leave the pieces as filmed")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    clips, fold, file = load_scenes(given.clips, given.output / "scenes.csv", given.with_background)
    print(summary(clips.times, fold, file), flush=True)
    results = given.output / "scenes.jsonl"
    lines = results.read_text().splitlines() if results.exists() else []
    done = {(line["method"], line["seed"]) for line in map(json.loads, lines)}
    for seed in given.seeds:
        for method in given.methods:
            if (method, seed) in done:
                continue
            config = configuration(method, seed, given.clips, given.output)
            metrics, seconds = run(clips, fold, config)
            line = {"method": method, "seed": seed, "train_seconds": round(seconds, 1)}
            line["machine"] = f"{platform.machine()}, {torch.get_num_threads()} thread"
            by_scene: dict[str, dict[str, float]] = {}
            for name in [name for name in metrics if "@" in name and not name.endswith("R@1")]:
                metric, _, scene = name.rpartition("@")
                if scene.isdigit():
                    by_scene.setdefault(scene, {})[metric] = round(metrics.pop(name), 4)
            kept = {name: round(value, 4) for name, value in metrics.items()}
            with (given.output / "by-scene.jsonl").open("a") as stream:
                for scene, values in by_scene.items():
                    row = {"method": method, "seed": seed, "fold": int(scene), "metrics": values}
                    stream.write(json.dumps(row) + "\n")
            with results.open("a") as stream:
                stream.write(json.dumps({**line, "metrics": kept}) + "\n")
            print(method, seed, {x: kept[x] for x in SHOWN}, f"{seconds:.0f} s", flush=True)
    print(table(results))


def table(results: Path) -> str:
    """Markdown: per cent, mean ± sample standard deviation over the seeds."""
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    names = [space + name for space in ("", "embedding/") for name in SHOWN]
    rows = [f"| | {' | '.join(names)} |", "|:---|" + "---:|" * len(names)]
    for method in METHODS:
        runs = [line["metrics"] for line in lines if line["method"] == method]
        if len(runs) > 1:
            values = [[100 * metrics[name] for metrics in runs] for name in names]
            cells = [f"{mean(x):.1f} ± {stdev(x):.1f}" for x in values]
            rows.append(f"| {method} ({len(runs)}) | {' | '.join(cells)} |")
    return "\n".join(rows)


def summary(times: Tensor, fold: Tensor, file: Tensor) -> str:
    """How many scenes remain, and how many have which pairs."""
    apart = seconds_apart(times, times)
    other_file = file[:, None] != file
    far = ((apart > NEAR) & apart.isfinite()).any(dim=1)
    near = ((apart <= NEAR) & (apart > 0) & other_file).any(dim=1)
    scenes = times[:, 0]
    counts = {
        "scenes": scenes,
        "with clips more than 10 s apart": scenes[far],
        "with both": scenes[[i for i in range(len(scenes)) if far[i] and near[i]]],
    }
    parts = [f"{name}: {len(x.unique())}" for name, x in counts.items()]
    by_fold = [len(scenes[fold == k].unique()) for k in range(FOLDS)]
    return f"{len(times)} pieces of {len(file.unique())} clips; {', '.join(parts)}; folds {by_fold}"


if __name__ == "__main__":
    main()
