"""An evaluation reads a run and leaves it as it is."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
from small_runs import flat_backbone, small_config

from rince.core.checks import RinceError
from rince.evaluation import STEPS, Context, EvaluationOptions
from rince.training import evaluate_run, evaluation, load_run, train
from rince.training.checkpoint import TrainedRun

OPTIONS = EvaluationOptions(probe_epochs=1, map_points=0, gallery_queries=1)


@pytest.fixture(scope="module")
def run(image_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs")
    return train(small_config(image_tree, output, epochs=1, knn_every=0), flat_backbone())


def test_the_configuration_of_the_run_stays(
    run: Path, image_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It used to take over where the data are, the splits, and what is skipped."""
    loaded: list[TrainedRun] = []

    def keeping(*args: object) -> TrainedRun:
        loaded.append(load_run(*args))  # type: ignore[arg-type]
        return loaded[0]

    before = asdict(load_run(run, flat_backbone()).config)
    files = {name: (run / name).read_bytes() for name in ("config.yaml", "last.ckpt")}
    monkeypatch.setattr(evaluation, "load_run", keeping)
    evaluate_run(
        run,
        options=OPTIONS,
        data=str(image_tree),
        data_root="elsewhere",
        splits_folder="lists",
        split=2,
        skip_unreadable=True,
        device="cpu",
        backbone=flat_backbone(),
    )
    assert asdict(loaded[0].config) == before
    assert {name: (run / name).read_bytes() for name in files} == files


def test_a_step_of_ones_own(run: Path) -> None:
    def count(context: Context) -> dict[str, float]:
        return {"mine/queries": float(len(context.test))}

    with pytest.raises(RinceError, match="backbone="):
        evaluate_run(run, options=OPTIONS, device="cpu")
    own = evaluate_run(
        run, options=OPTIONS, device="cpu", backbone=flat_backbone(), steps=[*STEPS, count]
    )
    assert own.metrics["mine/queries"] == own.info["test_images"]
    assert "knn/fine" in own.metrics
