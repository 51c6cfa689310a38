"""The study on frozen features runs on a handful of made-up features and writes its tables."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "experiments" / "frozen-features"
NAMES = ["cat", "dog", "cow", "pig", "car", "bus", "van", "tram", "oak", "elm", "ash", "fir"]


@pytest.fixture
def features(tmp_path: Path) -> Path:
    """What features.py writes: 12 classes in 3 superclasses, each around a point near that of its
    superclass."""
    rng = np.random.default_rng(0)
    superclass = np.repeat(rng.normal(size=(3, 24)), 4, axis=0)
    centre = 2 * superclass + rng.normal(size=(12, 24))
    y = np.concatenate([np.repeat(np.arange(12), count) for count in (20, 5)])
    paths = np.array([(f"group{i // 4}", name) for i, name in enumerate(NAMES)])
    vectors = (centre[y] + rng.normal(size=(len(y), 24))).astype(np.float32)
    split = np.repeat(["train", "test"], [240, 60])
    np.savez(tmp_path / "items.npz", embeddings=vectors, labels=paths[y], split=split)
    for name in ("near", "far"):
        np.savez(tmp_path / f"{name}.npz", embeddings=5 * rng.normal(size=(30, 24)))
    return tmp_path


def test_the_study_and_its_tables(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in ("study", "tables"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import study
    import tables

    for name, value in (("EPOCHS", 3), ("BATCH", 48), ("PROBE_EPOCHS", 5)):
        monkeypatch.setattr(study, name, value)
    outliers = {name: str(features / f"{name}.npz") for name in ("near", "far")}
    output = tmp_path / "output"
    output.mkdir()

    def run(of: str, name: str, seed: int = 0, tuning: bool = False) -> dict[str, Any]:
        setting = {"study": of, "name": name, "seed": seed, "tuning": tuning}
        given = SimpleNamespace(data=str(features / "items.npz"))
        result: dict[str, Any] = setting | study.run(setting, given, outliers)
        (output / f"{study.name_of(setting)}.json").write_text(json.dumps(result))
        return result

    chosen = [
        ("methods", name)
        for name in ("no head", "rince out-in", "supcon-two-heads", "cross-entropy", "supcon-out")
    ]
    chosen.append(("nearest", "rince-and-cross-entropy"))
    chosen += [("moved", "0.4 out-in"), ("forgotten", "0.5 out"), ("batches", "rince 4 x 4")]
    found = [run(*key) for key in chosen]
    found.append(run("temperatures", "rince 0.1 0.225", tuning=True))
    for one in found:
        expected = {"probe/fine", "retrieval/coarse/R@1", "ordering/pairs/1>2"}
        assert expected <= one["metrics"].keys()
        assert np.isfinite(list(one["metrics"].values())).all()
        assert ("ood/near/gaussian/AUROC" in one["metrics"]) != one["tuning"]
        assert ("ood/near/msp/AUROC" in one["metrics"]) == (
            one["name"] in ("cross-entropy", "rince-and-cross-entropy")
        )
        assert one["metrics"]["probe/fine"] > 0.25  # three times chance
    assert run("methods", "rince out-in")["metrics"] == found[1]["metrics"]
    other = run("methods", "rince out-in", seed=1)
    tables.main(output)
    text = (output / "tables.md").read_text()
    mean = 50 * (found[1]["metrics"]["probe/fine"] + other["metrics"]["probe/fine"])
    row = next(line for line in text.splitlines() if line.startswith("| rince out-in"))
    assert f"{mean:.1f} ± " in row
    assert "held-out training images" in text
    assert (output / "noise.png").stat().st_size > 10_000
    assert len((output / "runs.csv").read_text().splitlines()) == len(found) + 2
