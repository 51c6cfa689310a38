"""Golden runs: tiny trainings whose every number was written down before the code was rearranged.

    python tests/golden/record.py               write expected.json from the code as it stands
    python tests/golden/record.py --artifacts   and artifacts.tar.xz, run folders for later versions

Only what stays is used: the verbs of the command line and the files that they write. The data sets
are made by code, below the working directory, so that no recorded path depends on the machine.
``split_keys`` holds the only import of a module that may move.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import platform
import re
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import yaml

from rince.cli.main import main

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))  # text_models and video_files, where pytest does not run this
EXPECTED_FILE, ARTIFACTS_FILE = HERE / "expected.json", HERE / "artifacts.tar.xz"
CHECKPOINT = "last.ckpt"


def split_keys(config_file: Path) -> dict[str, list[str]]:
    """Which items are for training and which for the test, by the names that the split goes by.

    Images that come from no files of their own have none: of them it is a digest of the pixels.
    """
    from rince.training.config import from_dict
    from rince.training.splits import load_splits

    config = yaml.safe_load(config_file.read_text())
    config["images"]["cache"] = False  # once in memory, images have lost the names of their files
    splits = load_splits(from_dict(config))
    return {"train": _keys(splits.train), "test": _keys(splits.test)}


def _keys(items: Any) -> list[str]:
    keys = items.keys()
    if keys is None:
        return [_digest(pixels.numpy().tobytes())[:12] for pixels in items.pixels]
    return list(keys)


# ---- data sets, made in the working directory ----


def make_fashion(root: Path) -> None:
    """Fashion-MNIST's four files, with 8 training and 3 test images of each class."""
    root.mkdir(parents=True)
    random = np.random.default_rng(1)
    for name, count in (("train", 80), ("t10k", 30)):
        labels = random.permutation(np.arange(count) % 10).astype(np.uint8)
        noise = random.integers(0, 60, (count, 28, 28))
        pixels = noise + 19 * labels[:, None, None] * (np.arange(28) % 7 < 4)
        for what, values in (("images-idx3", pixels), ("labels-idx1", labels)):
            shape = np.array(values.shape, ">u4").tobytes()
            head = bytes((0, 0, 8, values.ndim)) + shape
            (root / f"{name}-{what}-ubyte").write_bytes(head + values.astype(np.uint8).tobytes())


def make_images(root: Path) -> None:
    """images: two superclasses of two classes, 15 images of 20 x 18 pixels; sky: 8 outliers;
    halves: the first two classes in train/ and val/, with one image three times."""
    from PIL import Image

    random = np.random.default_rng(2)
    classes = {
        "warm/red": (200, 60, 60),
        "warm/orange": (200, 130, 40),
        "cold/blue": (40, 60, 160),
        "cold/green": (40, 130, 60),
        "sky": (120, 120, 250),
    }
    for name, colour in classes.items():
        folder = root / ("sky" if name == "sky" else f"images/{name}")
        folder.mkdir(parents=True)
        for index in range(8 if name == "sky" else 15):
            noise = random.integers(-60, 61, (18, 20, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{index:02}.png")
    for name in list(classes)[:2]:
        for index in range(15):
            folder = root / "halves" / ("train" if index < 11 else "val") / name
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / f"images/{name}/{index:02}.png", folder)
    for folder in ("train", "val"):
        copied = root / "halves" / folder / "warm/red" / "copy.png"
        shutil.copy(root / "images/warm/red/00.png", copied)


def make_videos(root: Path) -> None:
    """videos: ten of 3 seconds in two classes; other: two outliers."""
    from video_files import write_video

    for index in range(12):
        folder = root / ("other" if index >= 10 else ("videos/bright", "videos/dark")[index % 2])
        folder.mkdir(parents=True, exist_ok=True)
        shades = [18 * index + 10 + t // 2 for t in range(30)]
        write_video(folder / f"{index}.mp4", 30, shades=shades)


def make_texts(root: Path) -> None:
    """words.csv, odd.csv of outliers, and a model whose weights do not depend on a library."""
    import safetensors.torch

    from text_models import tiny_model, word_table, write_table

    root.mkdir(parents=True)
    word_table(root / "words.csv")
    rows: list[tuple[str, ...]] = [("text",), *((f"three {w}",) for w in ("a", "sings", "blue"))]
    write_table(root / "odd.csv", rows)
    random = np.random.default_rng(3)
    for file in sorted(Path(tiny_model(root)).rglob("*.safetensors")):
        weights = safetensors.torch.load_file(file)
        for name, weight in sorted(weights.items()):
            if not name.lower().endswith(("layernorm.weight", "bias")):
                drawn = random.integers(-8, 9, weight.shape) / 16
                weights[name] = torch.tensor(drawn, dtype=torch.float32)
        safetensors.torch.save_file(weights, file, metadata={"format": "pt"})


MAKERS: dict[str, Callable[[Path], None]] = {
    "fashion": make_fashion,
    "photos": make_images,
    "clips": make_videos,
    "texts": make_texts,
}


# ---- runs ----


@dataclass(frozen=True)
class Golden:
    """One run by the command line.

    Args:
        data: the key of MAKERS. train: what follows ``rince train``. stop: kill the training as it
            writes this checkpoint, then resume. evaluate: what follows ``rince evaluate RUN``.
        embed: data to embed by the exported network; None exports nothing.
    """

    data: str
    train: tuple[str, ...]
    stop: int | None = None
    evaluate: tuple[str, ...] | None = None
    embed: str | None = None
    needs: tuple[str, ...] = field(default=())


SMALL = (
    *("--epochs=2", "--optim.lr=0.01", "--accelerator=cpu", "--progress=false", "--log-every=1"),
    *("--images.workers=0", "--model.embedding-dim=16"),
)
TINY = (*SMALL, "--model.backbone=tiny-resnet")
MOMENTUM = (
    *("data/photos/images", *TINY, "--images.image-size=16", "--batch-size=16"),
    *(
        "--model.momentum=0.9",
        "--model.queue-size=24",
        "--loss.temperatures=[0.1, 0.3]",
        "--optim.lr=0.02",
    ),
)
EVALUATE = ("--device=cpu", "--probe-epochs=5", "--map-points=0")
RUNS = {
    "memory": Golden(
        "fashion",
        (
            *("fashion-mnist", "--images.root=data/fashion", "--images.per-class=6", *TINY),
            *("--batch-size=20", "--images.test-per-class=2", "--loss.variant=in", "--seed=3"),
        ),
        evaluate=(*EVALUATE, "--ood=digits"),
    ),
    "files": Golden(
        "photos",
        (
            *("data/photos/images", *TINY, "--images.cache=false", "--images.image-size=16"),
            *("--batch-size=12", "--batches.images-per-class=3", "--objective=supcon-out"),
            *("--batches.classes-per-superclass=2", "--images.augmentation=weak"),
        ),
    ),
    "classifier": Golden(
        "photos",
        (
            *("data/photos/halves", *TINY, "--images.image-size=16", "--batch-size=10"),
            *("--objective=cross-entropy", "--images.drop-duplicates=true", "--knn-every=0"),
            *("--images.per-class=10", "--name=named"),
        ),
    ),
    "momentum": Golden(
        "photos",
        MOMENTUM,
        evaluate=(*EVALUATE, "--ood=data/photos/sky"),
        embed="data/photos/sky",
        needs=("safetensors",),
    ),
    "resumed": Golden("photos", (*MOMENTUM, "--checkpoint-every=1"), stop=3),
    "clips": Golden(
        "clips",
        (
            *("data/clips/videos", *SMALL, "--images.image-size=16", "--batch-size=12"),
            *("--videos.frames=2", "--videos.stride=2", "--videos.hop=0.5", "--ranks=time"),
            *("--videos.cache=cache", "--ranks.near=[1.0]"),
        ),
        evaluate=(*EVALUATE, "--ood=data/clips/other", "--near=1"),
        embed="data/clips/other",
        needs=("av", "safetensors"),
    ),
    "texts": Golden(
        "texts",
        (
            *("data/texts/words.csv", *SMALL, "--model.backbone=data/texts/tiny"),
            *("--batch-size=14", "--text.layers=1", "--optim.lr=0.003"),
        ),
        evaluate=(*EVALUATE, "--ood=data/texts/odd.csv"),
        embed="data/texts/odd.csv",
        needs=("sentence_transformers", "safetensors"),
    ),
}


def make_data(name: str) -> None:
    """One of MAKERS, in ``data/NAME`` of the working directory, once."""
    if not Path("data", name).exists():
        MAKERS[name](Path("data", name))


def golden_run(golden: Golden) -> dict[str, Any]:
    """Train in the working directory and evaluate and export as the run says; what came of it."""
    make_data(golden.data)
    output = Path(tempfile.mkdtemp(dir=".")).name
    with nullcontext() if golden.stop is None else _interrupted(golden.stop):
        status = main(["train", *golden.train, f"--output={output}"])
    (run,) = (path for path in Path(output).iterdir() if not path.is_symlink())
    if golden.stop is not None:
        assert status == 130, f"the training was to be interrupted, but ended with {status}"
        assert 0 < _checkpoint(run)["global_step"] < golden.stop
        status = main(["train", "--resume", str(run), "--progress=false"])
    assert status == 0
    found = recorded_run(run)
    if golden.evaluate is not None:
        found["results"] = evaluated(run, *golden.evaluate)
    if golden.embed is not None:
        found["export"] = exported(run, golden.embed)
    return found


def recorded_run(run: Path) -> dict[str, Any]:
    """What the folder of a run says."""
    checkpoint = _checkpoint(run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    with (run / "metrics.csv").open(newline="") as stream:
        rows = [(row["name"], int(row["step"]), row["value"]) for row in csv.DictReader(stream)]
    history: dict[str, Any] = {}
    for name, step, value in rows:
        if not re.search("second|time", name):
            history.setdefault(name, {})[str(step)] = float(value)
    return {
        "name": run.name,
        "config": config | {"output": "OUTPUT"},
        "fingerprint": checkpoint["rince"]["data_fingerprint"],
        "split": split_keys(run / "config.yaml"),
        "steps": checkpoint["global_step"],
        "weights": described(checkpoint["state_dict"]),
        "history": history,
    }


def evaluated(run: Path, *options: str) -> dict[str, float]:
    """The metrics of ``rince evaluate``."""
    assert main(["evaluate", str(run), *options]) == 0
    metrics: dict[str, float] = json.loads((run / "results.json").read_text())["metrics"]
    return metrics


def exported(run: Path, data: str) -> dict[str, Any]:
    """The export of a run, and the embeddings that it makes of ``data``."""
    assert main(["export", str(run), "--no-onnx", "--space=backbone"]) == 0
    return recorded_export(run / "export", data)


def recorded_export(folder: Path, data: str) -> dict[str, Any]:
    """Weights and facts in the folder of an export, and the embeddings it makes of ``data``."""
    import safetensors.torch

    (weights,) = folder.rglob("model.safetensors")
    facts = folder / "export.json"
    file = Path(tempfile.mkdtemp(dir=".")) / "embeddings.npz"
    assert main(["embed", str(folder), data, "-o", str(file), "--device=cpu"]) == 0
    with np.load(file) as embedded:
        paths, vectors = (
            json.loads(bytes(embedded["paths_json"])),
            torch.tensor(embedded["embeddings"]),
        )
    return {
        "weights": described(safetensors.torch.load_file(weights)),
        # Of texts the folder is sentence-transformers' own.
        "facts": json.loads(facts.read_text()) | {"rince": ""} if facts.exists() else {},
        "paths": paths,
        "embeddings": described({"embeddings": vectors}),
    }


def described(tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """A digest of names, dtypes, shapes and bytes; and of each tensor what can be compared where
    the bytes differ: mean and mean square."""
    digest, rows = hashlib.sha256(), {}
    for name, tensor in tensors.items():
        array = tensor.contiguous().numpy()
        digest.update(f"{name} {array.dtype} {array.shape} ".encode() + array.tobytes())
        values = array.astype(np.float64)
        facts = [float(f"{fact:.6g}") for fact in (values.mean(), (values**2).mean())]
        rows[name] = [str(array.dtype), list(array.shape), *facts]
    return {"sha256": digest.hexdigest(), "tensors": rows}


def _checkpoint(run: Path) -> dict[str, Any]:
    read: dict[str, Any] = torch.load(run / CHECKPOINT, map_location="cpu", weights_only=True)
    return read


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _interrupted(at: int) -> Any:
    """Ctrl-C as the checkpoint of this number is written, before it replaces the one before."""
    write, calls = torch.save, 0

    def interrupted(*args: Any, **kwargs: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == at:
            raise KeyboardInterrupt
        write(*args, **kwargs)

    return mock.patch("torch.save", interrupted)


# ---- folders that an old version wrote ----

OLD_RUNS = {
    "momentum": "data/photos/sky",
    "clips": "data/clips/other",
    "texts": "data/texts/odd.csv",
}


def write_artifacts() -> None:
    """Runs that stopped in their first epoch, and exports of them, in the working directory.

    The weights are given a pattern that compresses to almost nothing.
    """
    for name in OLD_RUNS:
        golden = RUNS[name]
        make_data(golden.data)
        with _interrupted(3):
            options = ("--output=old", f"--name={name}", "--checkpoint-every=1")
            assert main(["train", *golden.train, *options]) == 130
        file = Path("old", name, CHECKPOINT)
        checkpoint = _checkpoint(file.parent)
        _plain(checkpoint)
        torch.save(checkpoint, file)
        (file.parent / "log.txt").unlink()
        assert main(["export", str(file.parent), "--no-onnx", "-o", f"old/{name}-export"]) == 0
    Path("old/latest").unlink(missing_ok=True)
    with tarfile.open(ARTIFACTS_FILE, "w:xz", preset=9) as archive:
        archive.add("old")


def _plain(stored: Any) -> None:
    """Weights and momenta become multiples of 1/16 in a pattern that repeats; the queue, whose
    keys are of length 1, stays."""
    for name, value in stored.items() if isinstance(stored, dict) else enumerate(stored):
        if isinstance(value, torch.Tensor) and value.is_floating_point() and value.ndim:
            pattern = np.resize(np.random.default_rng(4).integers(-7, 8, 1009), value.shape) / 16
            if value.min() >= 0:  # variances, and scales of norms
                pattern = np.abs(pattern) + 0.25
            if "queue" not in str(name):
                value.copy_(torch.from_numpy(pattern))
        elif isinstance(value, (dict, list, tuple)):
            _plain(value)


def old_run(name: str) -> dict[str, Any]:
    """What today's code makes of a run and an export in ``old``: evaluate, export, resume."""
    golden, run = RUNS[name], Path("old", name)
    make_data(golden.data)
    assert golden.evaluate is not None
    assert golden.embed is not None
    return {
        "results": evaluated(run, *golden.evaluate),
        "export": exported(run, golden.embed),
        "old export": recorded_export(Path("old", f"{name}-export"), golden.embed),
        "resumed": _resumed(run),
    }


def _resumed(run: Path) -> dict[str, Any]:
    assert main(["train", "--resume", str(run), "--progress=false"]) == 0
    return recorded_run(run)


def unpack_artifacts() -> None:
    """``old``, in the working directory."""
    with tarfile.open(ARTIFACTS_FILE) as archive:
        archive.extractall(filter="data")


# ---- comparing ----


def environment() -> dict[str, str]:
    """Where these are the same, results are to be the same to the last bit."""
    info = Path("/proc/cpuinfo")
    models = re.findall("model name.*: (.*)", info.read_text()) if info.exists() else []
    found = {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "machine": platform.machine(),
        "cpu": models[0] if models else platform.processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "isa": os.environ.get("ONEDNN_MAX_CPU_ISA", ""),
    }
    libraries = "torch torchvision lightning numpy scikit-learn scipy pillow av transformers"
    for name in libraries.split():
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = ""
    return found


def differences(expected: Any, found: Any, tolerance: float | None, at: str = "") -> list[str]:
    """Where two records differ.

    Args:
        tolerance: of numbers, absolute and relative; digests of weights are then passed over.
            None: everything must be equal.
    """
    if isinstance(expected, dict) and isinstance(found, dict):
        keys = [*expected, *(key for key in found if key not in expected)]
        return [
            line
            for key in keys
            if not (tolerance is not None and key == "sha256")
            for line in (
                differences(expected[key], found[key], tolerance, f"{at}/{key}")
                if key in expected and key in found
                else [f"{at}/{key} is only in {'expected' if key in expected else 'found'}"]
            )
        ]
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = enumerate(zip(expected, found, strict=True))
        return [line for i, (a, b) in pairs for line in differences(a, b, tolerance, f"{at}[{i}]")]
    near = (
        tolerance is not None
        and isinstance(expected, float)
        and isinstance(found, float)
        and abs(expected - found) <= tolerance * max(1.0, abs(expected))
    )
    same = expected == found and type(expected) is type(found)
    return [] if near or same else [f"{at}: expected {expected!r}, found {found!r}"]


def _written(records: Mapping[str, Any], indent: int = 0) -> str:
    """JSON with a line for each part, so that a diff shows what changed."""
    text = io.StringIO()
    pad = " " * indent
    text.write("{\n")
    for position, (key, value) in enumerate(records.items()):
        deep = isinstance(value, dict) and len(json.dumps(value)) > 300
        part = _written(value, indent + 1) if deep else json.dumps(value)
        comma = "," if position < len(records) - 1 else ""
        text.write(f"{pad} {json.dumps(key)}: {part}{comma}\n")
    text.write(pad + "}")
    return text.getvalue()


def record(*, artifacts: bool) -> None:
    """Write expected.json, and on request the artifacts."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        if artifacts:
            write_artifacts()
            shutil.rmtree("old")
        unpack_artifacts()
        records: dict[str, Any] = {"environment": environment()}
        records["runs"] = {name: golden_run(golden) for name, golden in RUNS.items()}
        records["old"] = {name: old_run(name) for name in OLD_RUNS}
        os.chdir(HERE)
    EXPECTED_FILE.write_text(_written(records) + "\n")


if __name__ == "__main__":
    record(artifacts="--artifacts" in sys.argv)
