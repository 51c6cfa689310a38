"""Old places of names that moved, each still asked as before."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from rince import metrics
from rince.core.moved import moved_names


def old(module: str, name: str) -> Any:
    with pytest.warns(DeprecationWarning, match=rf"{module}\.{name} moved to rince\.") as caught:
        found = getattr(importlib.import_module(module), name)
    assert [warning.filename for warning in caught] == [__file__]
    return found


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("retrieval", ("retrieval_by_level", "RetrievalResult")),
        ("linear_probe", ("ProbeResult",)),
        ("ordering", ("rank_agreement", "rank_correlation", "similarity_histograms")),
        ("graded", ("ndcg",)),
        ("ood", ("ClassGaussians", "auroc", "energy_score", "fpr_at_tpr", "msp_score")),
        ("ood", ("roc_curve",)),
        ("times", ("recall_by_rank", "video_accuracy")),
    ],
)
def test_the_old_place_gives_the_same_object(module: str, names: tuple[str, ...]) -> None:
    for name in names:
        assert old(f"rince.evaluation.{module}", name) is getattr(metrics, name)


def test_names_of_the_evaluation_itself() -> None:
    from rince import evaluation

    for name in ("label_levels", "outlier_detectors"):
        assert old("rince.evaluation.evaluate", name) is getattr(evaluation, name)


def test_one_function_embeds_every_kind() -> None:
    from rince import evaluation

    for name in ("embed_images", "embed_clips", "embed_texts"):
        assert old("rince.evaluation.embeddings", name) is evaluation.embed


def sides() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries, gallery and their labels, of two sizes so that no mix-up goes unnoticed."""
    generator = torch.Generator().manual_seed(0)
    query, gallery = (torch.randn(size, 4, generator=generator) for size in (9, 15))
    return query, gallery, torch.arange(9) % 2, torch.arange(15) % 2


def test_old_orders_of_arguments_are_kept() -> None:
    query, gallery, of_query, of_gallery = sides()
    retrieval = old("rince.evaluation.retrieval", "retrieval")
    expected: Any = metrics.retrieval(query, gallery, of_query, of_gallery, ks=(1,))
    assert retrieval(query, of_query, gallery, of_gallery, ks=(1,)) == expected
    assert retrieval(query, of_query, gallery, gallery_labels=of_gallery, ks=(1,)) == expected
    knn_accuracy = old("rince.evaluation.knn", "knn_accuracy")
    expected = metrics.knn_accuracy(query, gallery, of_query, of_gallery, k=3)
    assert knn_accuracy(query, of_query, gallery, of_gallery, k=3) == expected
    linear_probe = old("rince.evaluation.linear_probe", "linear_probe")
    expected = metrics.linear_probe(query, gallery, of_query, of_gallery, num_classes=2, epochs=2)
    found = linear_probe(gallery, of_gallery, query, of_query, num_classes=2, epochs=2)
    assert torch.equal(found.weight, expected.weight)
    assert found.accuracy == expected.accuracy
    knn_ood_score = old("rince.evaluation.ood", "knn_ood_score")
    expected = metrics.knn_ood_score(query, gallery, k=2)
    assert torch.equal(knn_ood_score(gallery, query, k=2), expected)
    cosines = old("rince.evaluation.class_similarity", "mean_class_cosines")
    expected = metrics.mean_class_cosines(query, gallery, of_query, of_gallery, 2)
    assert torch.equal(cosines(query, of_query, gallery, of_gallery, 2), expected)


def test_a_new_order_is_told_and_too_many_arguments_are_refused() -> None:
    with pytest.warns(DeprecationWarning, match="takes query_features, gallery_features, query_l"):
        from rince.evaluation.knn import knn_accuracy
    with pytest.raises(TypeError, match=r"\b4\b.*arguments.*\b5\b"):
        knn_accuracy(*sides(), 3)


def test_a_name_that_never_was_is_unknown() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(AttributeError, match="'old'.*'cosh'"):
            moved_names("old", {"sqrt": "math.sqrt"})("cosh")
        assert not hasattr(importlib.import_module("rince.evaluation.ood"), "__path__")


def test_options_have_one_name() -> None:
    from rince import training

    renamed = {"RanksConfig": "RankOptions", "DataConfig": "ImageOptions"}
    for name in ("Loss", "Ranks", "Model", "Optim", "Data", "Video", "Text", "Batch"):
        new = renamed.get(f"{name}Config", f"{name}Options")
        assert old("rince.training.config", f"{name}Config") is getattr(training, new)


def test_the_terms_of_the_loss() -> None:
    from rince import losses

    assert old("rince.losses.terms", "RankTerms") is losses.RankTerms


def test_names_of_the_top_level() -> None:
    from rince import losses, ranks

    assert old("rince", "supcon_out") is losses.supcon_out
    assert old("rince", "TableRanks") is ranks.TableRanks
    with pytest.raises(AttributeError, match="nothing"):
        importlib.import_module("rince").nothing  # noqa: B018
