from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from rince.core.checks import RinceError
from rince.evaluation.results import (
    ARRAYS_FILE,
    RESULTS_FILE,
    ClassSimilarity,
    Confusion,
    Evaluation,
    Gallery,
    Histograms,
    Map2D,
    RocCurve,
    load_evaluation,
    save_evaluation,
)


@pytest.fixture
def evaluation() -> Evaluation:
    rng = np.random.default_rng(0)
    return Evaluation(
        metrics={"probe/fine": 1 / 3, "ordering/1>2": 1.0, "ood/cifar10/knn/AUROC": 0.1},
        info={"train_images": 12, "data": "Tiere äöü", "outliers": {"cifar10": 3}},
        classes=("red fox", "kit fox", "boat"),
        groups=("animal", "vehicle"),
        histograms=Histograms(
            np.linspace(-1, 1, 5), {0: np.array([9, 1, 0, 0]), 1: np.array([0, 0, 0, 2**40])}
        ),
        map_2d=Map2D(rng.normal(size=(6, 2)), rng.integers(0, 3, 6), rng.integers(0, 2, 6)),
        gallery=Gallery(
            queries=rng.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8),
            neighbours=rng.integers(0, 256, (2, 5, 4, 4, 3), dtype=np.uint8),
            ranks=rng.integers(0, 3, (2, 5)),
            similarities=rng.normal(size=(2, 5)).astype(np.float32),
            query_labels=np.array([0, 2]),
            neighbour_labels=rng.integers(0, 3, (2, 5)),
        ),
        roc={
            ("cifar10", "knn"): RocCurve(np.array([0, 0.5, 1]), np.array([0, 0.75, 1])),
            ("other photos", "gaussian"): RocCurve(np.array([0, 1.0]), np.array([0.25, 1.0])),
        },
        class_similarity=ClassSimilarity(
            order=np.array([1, 0, 2]),
            groups=np.array([0, 0, 1]),
            learned=rng.uniform(-1, 1, (3, 3)).astype(np.float16),
            given=np.array([[1, 2, 0], [2, 1, 0], [0, -1, 1]], dtype=np.int8),
        ),
    )


def same(one: object, other: object) -> None:
    """Equal in type, value and (for arrays) dtype, all the way down."""
    if isinstance(one, np.ndarray):
        assert isinstance(other, np.ndarray)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    elif dataclasses.is_dataclass(one):
        assert type(one) is type(other)
        for field in dataclasses.fields(one):
            same(getattr(one, field.name), getattr(other, field.name))
    elif isinstance(one, dict):
        assert isinstance(other, dict)
        assert list(one) == list(other)
        for key in one:
            same(one[key], other[key])
    else:
        assert one == other


def test_what_is_saved_is_what_is_loaded(evaluation: Evaluation, tmp_path: Path) -> None:
    save_evaluation(evaluation, tmp_path)
    same(evaluation, load_evaluation(tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([RESULTS_FILE, ARRAYS_FILE])


def test_failures_and_thumbnails_come_back(evaluation: Evaluation, tmp_path: Path) -> None:
    """And an evaluation without a wrong neighbour is not one of an older rince."""
    gallery, none = evaluation.gallery, np.zeros((0, 1), dtype=np.int64)
    counts = np.arange(4)
    confusion = Confusion(counts % 2, counts // 2, counts + 1, np.array([1, 2, 0, 1]))
    thumbnails = np.arange(6 * 12, dtype=np.uint8).reshape(6, 2, 2, 3)
    nothing = Gallery(none[:, 0], none, none, none, none[:, 0], none)
    for worst, shown in ((gallery, thumbnails), (nothing, np.array(list("abcdef")))):
        full = dataclasses.replace(
            evaluation,
            map_2d=dataclasses.replace(evaluation.map_2d, thumbnails=shown),
            worst_queries=worst,
            confusion=confusion,
        )
        save_evaluation(full, tmp_path)
        same(full, load_evaluation(tmp_path))


def test_printing_one_shows_its_numbers_and_no_arrays(evaluation: Evaluation) -> None:
    assert "array" not in repr(evaluation)
    assert all(name in repr(evaluation) for name in evaluation.metrics)


def test_no_outliers_no_curves(evaluation: Evaluation, tmp_path: Path) -> None:
    without = dataclasses.replace(evaluation, roc={}, class_similarity=None)
    save_evaluation(without, tmp_path)
    same(without, load_evaluation(tmp_path))


def test_numbers_are_plain_json(evaluation: Evaluation, tmp_path: Path) -> None:
    save_evaluation(evaluation, tmp_path)
    stored = json.loads((tmp_path / RESULTS_FILE).read_text(encoding="utf-8"))
    assert stored["metrics"] == evaluation.metrics
    assert stored["classes"] == ["red fox", "kit fox", "boat"]


def test_saving_again_replaces_everything(evaluation: Evaluation, tmp_path: Path) -> None:
    save_evaluation(evaluation, tmp_path)
    newer = dataclasses.replace(evaluation, metrics={"probe/fine": 0.5}, roc={})
    save_evaluation(newer, tmp_path)
    same(newer, load_evaluation(tmp_path))


@pytest.mark.parametrize("missing", [RESULTS_FILE, ARRAYS_FILE])
def test_a_folder_without_results_says_what_to_run(
    evaluation: Evaluation, tmp_path: Path, missing: str
) -> None:
    save_evaluation(evaluation, tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(RinceError, match=rf"no {missing}: run `rince evaluate"):
        load_evaluation(tmp_path)


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    path.write_bytes(
        {"half": content[: len(content) // 2], "other": b"hello", "empty": b"", "bare": b"{}"}[how]
    )


@pytest.mark.parametrize(
    ("name", "how"),
    [
        (RESULTS_FILE, "half"),
        (RESULTS_FILE, "other"),
        (RESULTS_FILE, "empty"),
        (ARRAYS_FILE, "other"),
        (RESULTS_FILE, "bare"),
        (ARRAYS_FILE, "half"),
        (ARRAYS_FILE, "empty"),
    ],
)
def test_damaged_files_say_so(evaluation: Evaluation, tmp_path: Path, name: str, how: str) -> None:
    save_evaluation(evaluation, tmp_path)
    damage(tmp_path / name, how)
    with pytest.raises(RinceError, match="damaged.*`rince evaluate .*again"):
        load_evaluation(tmp_path)


@pytest.mark.parametrize("value", ["0.5", None, [0.5]])
def test_a_metric_that_is_no_number_is_damage(
    evaluation: Evaluation, tmp_path: Path, value: object
) -> None:
    save_evaluation(evaluation, tmp_path)
    numbers = json.loads((tmp_path / RESULTS_FILE).read_text())
    for held in ({**numbers["metrics"], "knn/fine": value}, [value]):
        (tmp_path / RESULTS_FILE).write_text(json.dumps({**numbers, "metrics": held}))
        with pytest.raises(RinceError, match="damaged.*`rince evaluate .*again"):
            load_evaluation(tmp_path)


def test_a_failed_save_leaves_the_old_numbers(evaluation: Evaluation, tmp_path: Path) -> None:
    save_evaluation(evaluation, tmp_path)
    broken = dataclasses.replace(evaluation, info={"thing": object()})
    with pytest.raises(TypeError):
        save_evaluation(broken, tmp_path)
    same(evaluation, load_evaluation(tmp_path))
