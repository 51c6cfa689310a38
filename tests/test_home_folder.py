"""What a shell does for its users, and Python does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rince import Similarity, Taxonomy
from rince.evaluation.elsewhere import evaluate_embeddings


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
