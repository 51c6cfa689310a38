"""What a shell does for its users, and Python does not."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from rince import RinceError, Similarity, Taxonomy
from rince.evaluation.elsewhere import evaluate_embeddings
from rince.reports.frames import run_folders
from rince.reports.plots import plot_training
from rince.training.run import resume


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    vectors = np.eye(4, dtype=np.float32).repeat(2, axis=0)
    np.savez(tmp_path / "a.npz", embeddings=vectors, labels=np.repeat([0, 0, 1, 1], 2))
    assert evaluate_embeddings("~/a.npz").metrics["retrieval/fine/R@1"] == 1
    similarity = Similarity(("x", "y"), torch.eye(2))
    similarity.to_csv("~/s.csv")
    assert Similarity.from_file("~/s.csv").classes == ("x", "y")
    (tmp_path / "tree.csv").write_text("class,group\npug,dog\nmanx,cat\n")
    assert Taxonomy.from_csv("~/tree.csv").num_classes == 2
    assert not Path("~").exists()


def test_runs_are_found_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for name in ("r-1", "r-2"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "metrics.csv").write_text("1,train/loss,2.0\n2,train/loss,1\n")
    (tmp_path / "runs" / "r.txt").touch()
    both = [tmp_path / "runs" / name for name in ("r-1", "r-2")]
    assert run_folders("~/runs/r-*") == run_folders("~/runs/r*/") == both
    assert run_folders(["~/runs/r-1", Path("~/runs/r-2")]) == both
    if importlib.util.find_spec("matplotlib"):
        assert plot_training("~/runs/r-1")
    for name in ("none", "r-1"):
        with pytest.raises(RinceError, match=re.escape(str(tmp_path / "runs" / name))):
            resume(f"~/runs/{name}")
    (tmp_path / "runs" / "r-1" / "last.ckpt").touch()
    with pytest.raises(RinceError, match=re.escape(f"{both[0]} is not the folder of a run")):
        resume("~/runs/r-1")
