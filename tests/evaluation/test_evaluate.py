"""The whole evaluation on small and odd data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rince import RinceError, RinceWarning, Taxonomy
from rince.core.input_spec import Preprocessing
from rince.core.pair_ranks import DenseRanks
from rince.data.arrays import TensorImages, unlabelled
from rince.data.items import Splits
from rince.data.views import evaluation_pixels
from rince.evaluation import STEPS, Context, EvaluationOptions, evaluate_backbone
from rince.evaluation.drawings import failures, nearest_neighbours
from rince.evaluation.features import FeatureSet
from rince.evaluation.results import load_evaluation, save_evaluation
from rince.metrics import auroc, energy_score, fpr_at_tpr, msp_score


def splits(taxonomy: Taxonomy, train: int, test: int) -> Splits:
    generator = torch.Generator().manual_seed(0)

    def images(count: int) -> TensorImages:
        pixels = torch.randint(0, 256, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
        return TensorImages(pixels, torch.arange(count) % taxonomy.num_classes, taxonomy, "noise")

    return Splits(images(train), images(test))


def outliers() -> dict[str, TensorImages]:
    black = torch.zeros(5, 1, 8, 8, dtype=torch.uint8)
    return {"black": unlabelled(black, Taxonomy([("none",)]))}


OPTIONS = EvaluationOptions(probe_epochs=2, map_points=40, gallery_queries=2)


def test_fewer_training_images_than_neighbours() -> None:
    tree = Taxonomy.from_dict({"a": ["b", "c"], "d": ["e"]})
    found = evaluate_backbone(nn.Flatten(), splits(tree, 16, 6), outliers(), options=OPTIONS)
    assert 0 <= found.metrics["knn/fine"] <= 1
    assert 0 <= found.metrics["ood/black/knn/AUROC"] <= 1
    assert 0 <= found.metrics["ood/black/gaussian/AUROC"] <= 1
    assert 0 <= found.metrics["ood/black/mahalanobis/AUROC"] <= 1
    assert "ood/black/msp/AUROC" not in found.metrics


def test_a_classifier_scores_outliers_by_its_logits() -> None:
    tree = Taxonomy.from_dict({"a": ["b", "c"], "d": ["e"]})
    torch.manual_seed(0)
    head = nn.Linear(64, 3).requires_grad_(False)
    data = splits(tree, 16, 6)
    found = evaluate_backbone(nn.Flatten(), data, outliers(), options=OPTIONS, classifier=head)
    inside = head(evaluation_pixels(data.test.pixels).flatten(1))
    outside = head(evaluation_pixels(outliers()["black"].pixels).flatten(1))
    for name, score in (("msp", msp_score), ("energy", energy_score)):
        scores = score(inside), score(outside)
        assert found.metrics[f"ood/black/{name}/AUROC"] == pytest.approx(auroc(*scores))
        assert found.metrics[f"ood/black/{name}/FPR95"] == pytest.approx(fpr_at_tpr(*scores))
        assert ("black", name) in found.roc
    right = sum(int(a) == int(b) for a, b in zip(inside.argmax(1), data.test.labels, strict=True))
    assert found.metrics["classifier/fine"] == pytest.approx(right / 6)
    assert "classifier/video" not in found.metrics
    other = evaluate_backbone(
        nn.Flatten(), data, outliers(), options=OPTIONS, classifier=head, own_classes=False
    )
    assert found.metrics.keys() - other.metrics.keys() == {"classifier/fine"}


def test_without_a_covariance_the_other_detector_and_all_else_remain() -> None:
    """One image a class: nothing varies within a class."""
    tree = Taxonomy.from_dict({"a": ["b", "c"], "d": ["e"]})
    with pytest.warns(RinceWarning, match="Gaussians.*left out.*positive definite"):
        found = evaluate_backbone(nn.Flatten(), splits(tree, 3, 6), outliers(), options=OPTIONS)
    assert 0 <= found.metrics["ood/black/knn/AUROC"] <= 1
    assert "ood/black/gaussian/AUROC" not in found.metrics
    assert "probe/fine" in found.metrics


def test_one_class_has_no_order_to_measure() -> None:
    found = evaluate_backbone(
        nn.Flatten(), splits(Taxonomy([("only",)]), 20, 12), {}, options=OPTIONS
    )
    assert found.metrics["retrieval/fine/R@1"] == 1
    assert not [name for name in found.metrics if name.startswith("ordering/")]


class Collapsed(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return torch.ones(len(images), 3)


def test_a_collapsed_encoder_scores_at_chance_or_below() -> None:
    tree = Taxonomy.from_dict({"a": ["b", "c"], "d": ["e"]})
    found = evaluate_backbone(Collapsed(), splits(tree, 60, 40), {}, options=OPTIONS)
    assert found.metrics["retrieval/fine/R@1"] == 0
    assert found.metrics["ordering/correlation"] == 0
    assert found.map_2d.xy.shape == (0, 2)  # t-SNE would divide by zero


def test_results_that_cannot_be_written_leave_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = Taxonomy.from_dict({"a": ["b", "c"], "d": ["e"]})
    found = evaluate_backbone(nn.Flatten(), splits(tree, 16, 6), {}, options=OPTIONS)
    save_evaluation(found, tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(RinceError, match="No space left .*untouched"):
        save_evaluation(found, tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert load_evaluation(tmp_path).metrics == found.metrics


def norm_ratio(context: Context) -> dict[str, float]:
    """A metric of one's own: mean length of the test features over that of the training ones."""
    test, train = (features.norm(dim=1).mean() for features in context.features)
    return {"mine/norm-ratio": float(test / train)}


def test_a_step_of_ones_own_comes_after_the_others() -> None:
    data = splits(Taxonomy.from_dict({"a": ["b", "c"], "d": ["e"]}), 16, 6)
    plain = evaluate_backbone(nn.Flatten(), data, outliers(), options=OPTIONS)
    found = evaluate_backbone(
        nn.Flatten(), data, outliers(), options=OPTIONS, steps=[*STEPS, norm_ratio]
    )
    test, train = (evaluation_pixels(side.pixels).flatten(1) for side in (data.test, data.train))
    ratio = float(test.norm(dim=1).mean() / train.norm(dim=1).mean())
    assert list(found.metrics) == [*plain.metrics, "mine/norm-ratio"]
    assert found.metrics["mine/norm-ratio"] == pytest.approx(ratio)
    assert {name: found.metrics[name] for name in plain.metrics} == plain.metrics
    alone = evaluate_backbone(nn.Flatten(), data, {}, options=OPTIONS, steps=[norm_ratio])
    assert list(alone.metrics) == ["mine/norm-ratio"]


def test_two_steps_that_give_one_name_are_refused() -> None:
    data = splits(Taxonomy.from_dict({"a": ["b", "c"], "d": ["e"]}), 16, 6)
    with pytest.raises(ValueError, match="norm_ratio.*mine/norm-ratio.*earlier"):
        evaluate_backbone(nn.Flatten(), data, {}, options=OPTIONS, steps=[norm_ratio, norm_ratio])


@pytest.mark.parametrize("number", [np.float32(0.25), torch.tensor([0.25]), np.array(0.25)])
def test_a_step_may_give_numbers_of_numpy_and_torch(number: Any, tmp_path: Path) -> None:
    data = splits(Taxonomy.from_dict({"a": ["b", "c"], "d": ["e"]}), 16, 6)
    steps = [lambda context: {"mine": number}]
    found = evaluate_backbone(nn.Flatten(), data, {}, options=OPTIONS, steps=steps)
    save_evaluation(found, str(tmp_path))
    assert load_evaluation(str(tmp_path)).metrics == {"mine": 0.25}


@pytest.mark.parametrize(
    ("gives", "fact"),
    [
        (None, "None"),
        ([0.5], "name -> number"),
        ({"mine": "high"}, "'high' for mine"),
        ({"mine": None}, "None for mine"),
        ({"mine": torch.zeros(2)}, "for mine"),
    ],
)
def test_a_step_that_gives_no_numbers_is_named(gives: Any, fact: str) -> None:
    def my_step(context: Context) -> Any:
        return gives

    data = splits(Taxonomy.from_dict({"a": ["b", "c"], "d": ["e"]}), 16, 6)
    with pytest.raises(ValueError, match=f"step my_step gives .*{fact}"):
        evaluate_backbone(nn.Flatten(), data, {}, options=OPTIONS, steps=[my_step])


def test_a_number_that_is_not_finite_is_left_out_by_name_and_the_others_stay() -> None:
    def my_step(context: Context) -> dict[str, float]:
        return {"mine": float("nan")}

    data = splits(Taxonomy.from_dict({"a": ["b", "c"], "d": ["e"]}), 16, 6)
    with pytest.warns(RinceWarning, match=r"my_step.*\bnan for mine"):
        found = evaluate_backbone(
            nn.Flatten(), data, {}, options=OPTIONS, steps=[my_step, norm_ratio]
        )
    assert list(found.metrics) == ["mine/norm-ratio"]


def test_what_is_no_json_replaces_no_file(tmp_path: Path) -> None:
    data = splits(Taxonomy.from_dict({"a": ["b", "c"], "d": ["e"]}), 16, 6)
    found = evaluate_backbone(nn.Flatten(), data, {}, options=OPTIONS, steps=[norm_ratio])
    save_evaluation(found, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    drawn = replace(found, groups=("other",), roc={}, metrics={"mine": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        save_evaluation(drawn, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_outliers_may_be_items_or_their_pixels() -> None:
    data = splits(Taxonomy.from_dict({"a": ["b", "c"], "d": ["e"]}), 16, 6)
    pixels = torch.zeros(5, 1, 12, 12, dtype=torch.uint8)  # larger than the others, so fitted
    items = unlabelled(pixels, data.test.taxonomy, image_size=8)
    one, other = (
        evaluate_backbone(nn.Flatten(), data, {"black": given}, options=OPTIONS)
        for given in (pixels, items)
    )
    assert one.metrics == other.metrics
    assert one.info["outliers"] == {"black": 5}


def test_pixels_of_outliers_are_scaled_as_those_of_the_test() -> None:
    data = splits(Taxonomy.from_dict({"a": ["b", "c"], "d": ["e"]}), 16, 6)
    how = Preprocessing((0.2,), (0.3,), 8)
    data = Splits(data.train.preprocessed(how), data.test.preprocessed(how))
    one, other = (
        evaluate_backbone(nn.Flatten(), data, {"same": given}, options=OPTIONS)
        for given in (data.test.pixels, data.test)
    )
    assert one.metrics == other.metrics


def test_failures_by_definition() -> None:
    """Every pair one by one in float64; queries that cannot do better are no failures."""
    tree = Taxonomy.from_dict({"a": ["b", "c"], "d": ["e", "f"]})
    data = splits(tree, 24, 40)
    gallery = data.train.subset([i for i in range(24) if int(data.train.labels[i]) != 3])
    options = replace(OPTIONS, gallery_queries=7, gallery_neighbours=3)
    found = evaluate_backbone(nn.Flatten(), Splits(gallery, data.test), {}, options=options)

    def unit(items: TensorImages) -> np.ndarray[Any, Any]:
        x = evaluation_pixels(items.pixels).flatten(1).double().numpy()
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    queries, keys = data.test.labels.tolist(), gallery.labels.tolist()
    cosines = unit(data.test) @ unit(gallery).T
    pairs: dict[tuple[int, int], int] = {}
    wrong = []
    for i, query in enumerate(queries):
        nearest = max(range(len(keys)), key=lambda j: cosines[i, j])
        pairs[query, keys[nearest]] = pairs.get((query, keys[nearest]), 0) + 1
        rank = 1 if keys[nearest] == query else 2 if keys[nearest] // 2 == query // 2 else 0
        own = [cosines[i, j] for j in range(len(keys)) if keys[j] == query]
        if rank != 1 and own:
            wrong.append((rank != 0, max(own) - cosines[i, nearest], i))
    assert len({key[0] for key in wrong}) == 2  # of both severities
    assert 3 in {query for query, _ in pairs}
    confusion, worst = found.confusion, found.worst_queries
    assert confusion is not None
    assert worst is not None
    columns = (confusion.query, confusion.nearest, confusion.count, confusion.rank)
    rows = list(zip(*(column.tolist() for column in columns), strict=True))
    assert {(a, b): count for a, b, count, _ in rows} == pairs
    assert all(r == (1 if a == b else 2 if a // 2 == b // 2 else 0) for a, b, _, r in rows)
    chosen = [i for _, _, i in sorted(wrong)][:7]
    np.testing.assert_array_equal(worst.queries[..., 0], data.test.pixels[chosen, 0].numpy())
    for row, i in enumerate(chosen):
        nearest_three = sorted(range(len(keys)), key=lambda j: -cosines[i, j])[:3]
        assert worst.neighbour_labels[row].tolist() == [keys[j] for j in nearest_three]
        np.testing.assert_allclose(worst.similarities[row], cosines[i, nearest_three], atol=1e-5)


class Scaled(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) * self.factor


def test_features_of_any_length_are_drawn_by_their_directions() -> None:
    """Metrics did so already, of features as small as those of another tool may be."""
    data = splits(Taxonomy.from_dict({"a": ["b", "c"], "d": ["e", "f"]}), 24, 40)
    galleries = [
        evaluate_backbone(Scaled(factor), data, {}, options=OPTIONS).gallery
        for factor in (1.0, 2.0**-60, 2.0**70)
    ]
    assert galleries[0] is not None
    for gallery in galleries[1:]:
        assert gallery is not None
        np.testing.assert_array_equal(gallery.similarities, galleries[0].similarities)
        np.testing.assert_array_equal(gallery.neighbours, galleries[0].neighbours)


def test_queries_of_which_every_item_is_ignored_are_not_drawn() -> None:
    tree = Taxonomy.from_dict({"a": ["b", "c"], "d": ["e"]})
    data = splits(tree, 12, 6)
    sides = [FeatureSet(x.pixels.flatten(1).float(), x.labels) for x in (data.train, data.test)]
    ranks = torch.ones(6, 12, dtype=torch.int8)
    ranks[[1, 4]] = -1
    ranks[2, :10] = -1
    context = Context(data, *sides, {}, OPTIONS, own_ranks=DenseRanks(ranks))
    found = nearest_neighbours(context, torch.arange(6))
    assert found.query_labels.tolist() == data.test.labels[[0, 2, 3, 5]].tolist()
    assert len(found.queries) == len(found.similarities) == 4
    assert found.neighbour_labels.shape == (4, 2)
    assert (found.ranks == 1).all()
    none = replace(context, own_ranks=DenseRanks(torch.full((6, 12), -1)))
    assert nearest_neighbours(none, torch.arange(6)).neighbour_labels.shape == (0, 1)


def test_very_many_classes_need_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 2100
    tree = Taxonomy([("a", f"c{i}") if i % 2 else (f"c{i}",) for i in range(count)])
    items = splits(tree, count, 1).train
    queries = items.with_labels((items.labels + 2 * (items.labels % 3)) % count)
    monkeypatch.setattr(Taxonomy, "table", None)
    features = items.pixels.flatten(1).float()
    sides = [FeatureSet(features, x.labels) for x in (items, queries)]
    _, found = failures(Context(Splits(items, queries), *sides, {}, OPTIONS))
    paths = [
        (tree.paths[a], tree.paths[b]) for a, b in zip(found.query, found.nearest, strict=True)
    ]
    expected = [1 if a == b else 2 if a[0] == b[0] else 0 for a, b in paths]
    assert found.rank.tolist() == expected
    assert {*expected} == {0, 1, 2}


def test_the_confusion_has_the_ranks_of_an_uneven_tree() -> None:
    tree = Taxonomy([("a", "b", "c"), ("a", "b", "d"), ("a", "e"), ("a", "f", "g"), ("h",)])
    items = splits(tree, 25, 1).train
    gallery, queries = torch.arange(25) % 5, torch.arange(25) // 5
    sides = [FeatureSet(torch.eye(25), labels) for labels in (gallery, queries)]
    data = Splits(items.with_labels(gallery), items.with_labels(queries))
    _, found = failures(Context(data, *sides, {}, OPTIONS))
    assert found.count.tolist() == [1] * 25
    assert found.rank.tolist() == tree.table[found.query, found.nearest].tolist()
    assert {*found.rank.tolist()} == {0, 1, 2, 3}


def test_where_no_neighbour_is_wrong_there_are_no_worst_queries() -> None:
    tree = Taxonomy.from_dict({"a": ["b", "c"], "d": ["e"]})
    same = splits(tree, 12, 12).train
    found = evaluate_backbone(nn.Flatten(), Splits(same, same), {}, options=OPTIONS)
    assert found.worst_queries is not None
    assert found.confusion is not None
    assert len(found.worst_queries.queries) == 0
    assert found.confusion.query.tolist() == found.confusion.nearest.tolist() == [0, 1, 2]
    assert found.confusion.count.tolist() == [4, 4, 4]


def test_thumbnails_of_the_map_are_of_its_points_and_small() -> None:
    tree = Taxonomy.from_dict({"a": ["b", "c"], "d": ["e"]})
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (30, 3, 70, 80), generator=generator, dtype=torch.uint8)
    items = TensorImages(pixels, torch.arange(30) % 3, tree, "noise")
    options = replace(OPTIONS, map_points=12)
    points = evaluate_backbone(nn.Flatten(), Splits(items, items), {}, options=options).map_2d
    assert points.thumbnails is not None
    assert points.thumbnails.shape == (12, 23, 26, 3)  # whole blocks of 3 x 3
    blocks = pixels[:, :, :69, :78].double().reshape(30, 3, 23, 3, 26, 3).mean(dim=(3, 5))
    wanted = blocks.permute(0, 2, 3, 1).numpy()
    for thumbnail, label in zip(points.thumbnails, points.fine, strict=True):
        off = np.abs(wanted - thumbnail).max(axis=(1, 2, 3))
        assert off.min() <= 0.51
        assert off.argmin() % 3 == label


def test_nothing_to_test_on_is_refused() -> None:
    data = splits(Taxonomy.from_dict({"a": ["b", "c"], "d": ["e"]}), 16, 0)
    with pytest.raises(ValueError, match="no test images"):
        evaluate_backbone(nn.Flatten(), data, {}, options=OPTIONS)
