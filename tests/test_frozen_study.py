"""The study on frozen features runs on a handful of made-up features and writes its tables."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "experiments" / "frozen-features"


@pytest.fixture
def features(tmp_path: Path) -> Path:
    """12 classes in 3 superclasses, each around a point near that of its superclass."""
    rng = np.random.default_rng(0)
    superclass = np.repeat(rng.normal(size=(3, 24)), 4, axis=0)
    centre = 2 * superclass + rng.normal(size=(12, 24))
    labels = np.arange(12)
    found: dict[str, np.ndarray] = {}
    for name, count in (("train", 20), ("test", 5)):
        y = np.repeat(labels, count)
        found[name] = (centre[y] + rng.normal(size=(len(y), 24))).astype(np.float32)
        found[f"{name}_labels"] = y
    for name in ("near", "far"):
        found[name] = (5 * rng.normal(size=(30, 24))).astype(np.float32)
        found[f"{name}_labels"] = np.zeros(30, dtype=int)
    names = ["cat", "dog", "cow", "pig", "car", "bus", "van", "tram", "oak", "elm", "ash", "fir"]
    found["paths"] = np.array([f"group{i // 4}/{name}" for i, name in enumerate(names)])
    file = tmp_path / "features.npz"
    np.savez(file, **found)
    return file


def test_the_study_and_its_tables(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in ("study", "tables"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import study
    import tables

    for name, value in (("EPOCHS", 3), ("BATCH", 48), ("WIDTH", 16), ("PROBE_EPOCHS", 5)):
        monkeypatch.setattr(study, name, value)
    chosen = [
        ("methods", name)
        for name in ("no head", "rince out-in", "supcon-two-heads", "cross-entropy", "supcon-out")
    ]
    chosen.append(("nearest", "rince-and-cross-entropy"))
    chosen += [("moved", "0.4 out-in"), ("forgotten", "0.5 out"), ("batches", "rince 4 x 4")]
    found = [study.run(features, *key, 0, False) for key in chosen]
    found.append(study.run(features, "temperatures", "rince 0.1 0.225", 0, True))
    for run in found:
        expected = {"probe/fine", "retrieval/coarse/R@1", "ordering/pairs/1>2"}
        assert expected <= run["metrics"].keys()
        assert np.isfinite(list(run["metrics"].values())).all()
        assert ("ood/near/gaussian/AUROC" in run["metrics"]) != run["tuning"]
        assert ("ood/near/msp/AUROC" in run["metrics"]) == (
            run["name"] in ("cross-entropy", "rince-and-cross-entropy")
        )
        assert run["metrics"]["probe/fine"] > 0.25  # three times chance
    again = study.run(features, "methods", "rince out-in", 0, False)
    assert again["metrics"] == found[1]["metrics"]
    other = study.run(features, "methods", "rince out-in", 1, False)
    lines = [json.dumps(run) for run in [*found, other]]
    (tmp_path / "runs.jsonl").write_text("\n".join(lines) + "\n")
    tables.main(tmp_path)
    text = (tmp_path / "tables.md").read_text()
    mean = 50 * (found[1]["metrics"]["probe/fine"] + other["metrics"]["probe/fine"])
    row = next(line for line in text.splitlines() if line.startswith("| rince out-in"))
    assert f"{mean:.1f} ± " in row
    assert "held-out training images" in text
    assert (tmp_path / "noise.png").stat().st_size > 10_000
    assert len((tmp_path / "runs.csv").read_text().splitlines()) == len(lines) + 1
