"""Classes never seen, and embeddings made elsewhere: against a slow definition and by hand."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from oracles import hierarchy as oracle
from refusals import refusal
from rince import RinceError, RinceWarning, Taxonomy
from rince.cli.main import main
from rince.data import from_vectors
from rince.data.items import Marks
from rince.data.vector_files import read_vectors
from rince.data.vectors import Vectors
from rince.evaluation import EvaluationOptions, OpenTest, evaluate_open
from rince.evaluation.elsewhere import evaluate_embeddings, results_folder
from rince.evaluation.results import load_evaluation
from rince.models.heads import ProjectionHead
from rince.ranks import TimeRanks
from rince.reports.reading import read_run

OPTIONS = EvaluationOptions(probe_epochs=2, map_points=0, gallery_queries=2)
TREE = Taxonomy.from_dict({"dog": ["husky", "basset"], "boat": ["canoe", "ferry"]})
KS = (1, 5, 10, 20)


def vectors(count: int = 24, seed: int = 0, tree: Taxonomy = TREE) -> Vectors:
    features = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))
    return Vectors(features, torch.arange(count) % tree.num_classes, tree, "made")


def by_definition(
    features: Tensor, labels: Tensor, ignored: list[list[bool]], asking: Tensor, gallery: Tensor
) -> dict[str, float]:
    unit = nn.functional.normalize(features, dim=1)
    scores = (unit[asking] @ unit[gallery].T).tolist()
    levels = torch.stack([labels, labels // 2], dim=1)
    return oracle.hierarchical(
        scores, levels[asking].tolist(), levels[gallery].tolist(), ignored, KS, 1.0
    )


def test_unseen_and_seen_classes_apart_against_the_definition() -> None:
    items = vectors()
    sequence = torch.arange(24) // 8  # neighbours in a burst are no answers
    trained = [path for path in TREE.paths if path[-1] != "canoe"]
    test = OpenTest(items, sequence=sequence)
    found = evaluate_open(nn.Identity(), "new", test, trained, options=OPTIONS)
    everything = torch.arange(24)
    for part, classes in (("unseen", [TREE.index("canoe")]), ("seen", [0, 1, 3])):
        asking = everything[torch.isin(items.labels, torch.tensor(classes))]
        ignored = (sequence[asking, None] == sequence[None]).tolist()
        expected = by_definition(items.vectors, items.labels, ignored, asking, everything)
        for level, name in enumerate(("fine", "coarse")):
            values = expected["levels"][level]
            assert found[f"{part}/new/retrieval/{name}/R@1"] == pytest.approx(values[1])
            assert found[f"{part}/new/retrieval/{name}/mAP"] == pytest.approx(values["mAP"])
        assert found[f"{part}/new/hierarchy/H-AP"] == pytest.approx(expected["h_ap"])
        assert f"{part}/new/ordering/pairs/1>2" in found
    assert not [name for name in found if "probe" in name or "knn" in name]


def test_clips_of_one_video_are_no_answers_whatever_the_sequences(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The videos 0 and 1 are of one sequence; 2 and 3 are of none."""
    clips, videos = vectors(8), [0, 0, 1, 1, 2, 2, 3, 3]
    monkeypatch.setattr(Vectors, "times", TimeRanks.items(videos, range(8), range(1, 9)))
    marks = Marks(sequence=torch.tensor([0, 0, 0, 0, -1, -1, -1, -1]))
    for sequence, expected in (
        (None, [0, 0, 1, 1, 2, 2, 3, 3]),
        (marks.own_sequences(), [0, 0, 0, 0, 1, 1, 2, 2]),
    ):
        context = OpenTest(clips, sequence=sequence).context(clips.vectors, OPTIONS)
        assert context.sequences is not None
        asked, found = context.sequences
        assert torch.equal(asked, found)
        assert torch.unique(asked, return_inverse=True)[1].tolist() == expected


def test_queries_against_a_gallery_and_the_embedding_beside_the_features() -> None:
    items = vectors()
    query = torch.arange(24) < 8
    torch.manual_seed(0)
    head = ProjectionHead(6, 3)
    test = OpenTest(items, query=query, gallery=~query)
    found = evaluate_open(nn.Identity(), "new", test, (), head=head, options=OPTIONS)
    asking, gallery = torch.arange(8), torch.arange(8, 24)
    nothing = [[False] * 16] * 8
    for prefix, features in (("", items.vectors), ("embedding/", head(items.vectors).detach())):
        expected = by_definition(features, items.labels, nothing, asking, gallery)
        key = f"{prefix}unseen/new/retrieval/fine/mAP"
        assert found[key] == pytest.approx(expected["levels"][0]["mAP"])
    assert not [name for name in found if "/seen/" in name or name.startswith("seen/")]


def test_a_class_of_one_item_is_left_out_and_counted() -> None:
    labels = torch.tensor([0, 0, 1, 2, 2, 3])
    items = Vectors(vectors(6).vectors, labels, TREE, "made")
    with pytest.warns(RinceWarning, match=r"2 of 6 queries .* fine"):
        found = evaluate_open(nn.Identity(), "new", OpenTest(items), (), options=OPTIONS)
    assert found["unseen/new/retrieval/fine/asked"] == pytest.approx(4 / 6)
    assert "unseen/new/retrieval/coarse/asked" not in found


def test_what_cannot_be_asked_is_refused() -> None:
    items = vectors(4)
    with pytest.raises(ValueError, match="map_points must be .* got -5"):
        evaluate_open(
            nn.Identity(), "new", OpenTest(items), (), options=EvaluationOptions(map_points=-5)
        )
    with pytest.raises(ValueError, match="of one class"):
        OpenTest(items.subset([0, 0, 0]))
    with pytest.raises(ValueError, match=r"has no query"):
        OpenTest(items, query=torch.zeros(4, dtype=torch.bool))
    with pytest.raises(ValueError, match="one value.* 4"):
        OpenTest(items, sequence=torch.arange(3))
    alone = Vectors(items.vectors[:2], torch.tensor([0, 2]), TREE, "made")  # a dog and a boat
    with (
        pytest.warns(RinceWarning, match="no query"),
        pytest.raises(ValueError, match="cannot be asked"),
    ):
        evaluate_open(nn.Identity(), "new", OpenTest(alone), (), options=OPTIONS)


# ---- embeddings made elsewhere ---------------------------------------------------------------


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """24 embeddings with names, and a table of them in another order."""
    items = vectors()
    names = [f"{i}.jpg" for i in range(24)]
    np.savez(tmp_path / "made.npz", embeddings=items.vectors.numpy(), paths=np.array(names))
    np.save(tmp_path / "made.npy", items.vectors.numpy())
    rows = [",".join((names[i], *TREE.paths[int(items.labels[i])])) for i in range(24)]
    (tmp_path / "by-name.csv").write_text("path,group,kind\n" + "\n".join(reversed(rows)))
    (tmp_path / "in-order.csv").write_text("path,group,kind\n" + "\n".join(rows))
    return tmp_path


def test_embeddings_have_the_numbers_of_a_run(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = evaluate_open(nn.Identity(), "x", OpenTest(vectors()), (), options=OPTIONS)
    expected = {name.removeprefix("unseen/x/"): value for name, value in expected.items()}
    for file, table in (("made.npz", "by-name.csv"), ("made.npy", "in-order.csv")):
        found = evaluate_embeddings(made / file, made / table, options=OPTIONS)
        assert found.metrics == pytest.approx(expected)
        assert "left out" in capsys.readouterr().out
    given = ["--labels", str(made / "by-name.csv"), "--map-points", "0"]
    assert main(["evaluate", str(made / "made.npz"), *given, "--verbose"]) == 0
    # Levels are called as the table's columns, wherever people look.
    shown = capsys.readouterr().out
    assert "retrieval/kind/R@1" in shown
    assert "retrieval/group/mAP" in shown
    assert not re.search("fine|coarse", shown)
    stored = load_evaluation(made / "made.results")
    assert stored.metrics == pytest.approx(expected)
    assert next(iter(stored.gallery.neighbours.flat)).endswith(".jpg")
    report = made / "report.html"
    assert main(["compare", str(made / "made.npz"), "-o", str(report)]) == 0
    assert read_run(made / "made.npz").label == "made"
    os.utime(made / "made.results" / "results.json", (1, 1))
    read_run(made / "made.npz")  # times do not count
    shown = capsys.readouterr().out
    assert "H-AP" in shown
    assert re.search("R@1 +R@1", shown)
    assert re.search("kind +group", shown)
    assert "retrieval/group/mAP" in report.read_text()
    assert not re.search("retrieval/(fine|coarse)", report.read_text())


def test_files_that_differ_in_their_suffix_alone_have_results_of_their_own(made: Path) -> None:
    first = evaluate_embeddings(made / "made.npz", made / "by-name.csv", options=OPTIONS)
    np.save(made / "made.npy", np.roll(np.load(made / "made.npy"), 5, axis=0))
    second = evaluate_embeddings(made / "made.npy", made / "in-order.csv", options=OPTIONS)
    assert first.metrics != second.metrics
    for name, found in (("made.npz", first), ("made.npy", second)):
        assert read_run(made / name).evaluation.metrics == found.metrics
    assert results_folder(made / "made.npz") == made / "made.results"
    assert results_folder(made / "made.npy") == made / "made.npy.results"
    evaluate_embeddings(made / "made.npz", made / "in-order.csv", options=OPTIONS)
    assert read_run(made / "made.npy").evaluation.metrics == second.metrics

    # Other contents, whatever the times; results of an earlier rince do not say whose they are.
    np.save(made / "made.npy", np.load(made / "made.npy") + 1)
    os.utime(made / "made.npy", (1, 1))
    with pytest.warns(RinceWarning, match=r"made\.npy are not of what it holds now"):
        read_run(made / "made.npy")
    stored = made / "made.results" / "results.json"
    stored.write_text(stored.read_text().replace('"source"', '"sauce"'))
    assert results_folder(made / "made.parquet") == made / "made.results"
    os.utime(stored, (1, 1))
    with pytest.warns(RinceWarning, match=r"made\.npz are older than it is, by the times"):
        read_run(made / "made.npz")


def test_results_that_cannot_be_written_are_refused_before_the_work(
    made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given, files = ["evaluate", str(made / "made.npz"), "--labels", str(made / "by-name.csv")], []
    with monkeypatch.context() as patched:
        patched.setattr(os, "access", lambda file, mode: files.append(file))
        patched.setattr("rince.evaluation.elsewhere.read_labelled", None)
        assert f"you may not write to {made}" in refusal(given, capsys)
        (made / "made.results").mkdir()
        assert f"you may not write to {made}/made.results" in refusal(given, capsys)
    assert files == [made, made / "made.results"]
    assert main(given) == 0
    (made / "made.results" / "results.json").write_text("damaged")
    again = f"damaged .* run `rince evaluate {made}/made.npz` again"
    assert re.search(again, refusal(["compare", given[1]], capsys))


def test_the_baseline_of_a_comparison_is_named_as_the_runs_are(
    made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made)
    np.save("other.npy", np.roll(np.load("made.npy"), 5, axis=0))
    for file in ("made.npy", "other.npy"):
        evaluate_embeddings(file, "in-order.csv", options=OPTIONS)
    both, path = ["made.npy", "other.npy"], str(made / "other.npy")
    for runs, baseline in ((both, "other"), (both, "other.npy"), (["made.npy"], path)):
        capsys.readouterr()
        assert main(["compare", *runs, "--baseline", baseline]) == 0
        shown = capsys.readouterr().out
        assert "minus other, same seeds" in shown
        assert len(re.findall("^made ", shown, re.MULTILINE)) >= 2
    refused = ["compare", *both, "--baseline", "othre.npy"]
    assert "the path of a run" in refusal(refused, capsys)
    assert main(refused) == 1
    assert capsys.readouterr().out == ""  # before anything is shown
    np.save("new.npy", np.load("made.npy"))
    assert "rince evaluate" in refusal(["compare", *both, "--baseline", "new.npy"], capsys)


@pytest.mark.filterwarnings("ignore:.*no other item of their fine group")
def test_a_test_without_an_order_is_measured_all_the_same() -> None:
    pair = from_vectors(torch.eye(2), [("a", "b"), ("a", "c")], name="pair")
    with pytest.warns(RinceWarning, match="order of the vectors of pair is left out"):
        found = evaluate_open(nn.Identity(), "x", OpenTest(pair), (), options=OPTIONS)
    assert found["unseen/x/retrieval/coarse/R@1"] == 1
    assert not any("ordering" in name for name in found)


def test_rows_of_no_embedding_are_said(made: Path) -> None:
    with (made / "by-name.csv").open("a") as stream:
        stream.write("\nanother.png,a,b")
    with pytest.warns(RinceWarning, match=r"1 of 25 rows .* left out: another\.png"):
        evaluate_embeddings(made / "made.npz", made / "by-name.csv", options=OPTIONS)


def test_an_item_that_is_there_twice_is_refused(made: Path, tmp_path: Path) -> None:
    with np.load(made / "made.npz") as stored:
        names, vectors = stored["paths"].tolist(), stored["embeddings"]
    apart = unicodedata.normalize("NFD", "é.png")
    both = [*names, names[3], "é.png", apart]
    paths = np.frombuffer(json.dumps(both).encode(), np.uint8)
    file = tmp_path / "twice.npz"
    np.savez(file, paths_json=paths, embeddings=vectors[[*range(len(names)), 3, 3, 3]])
    with pytest.raises(RinceError, match=rf"2 of its items more than once.*{names[3]}, é\.png"):
        evaluate_embeddings(file, made / "by-name.csv", options=OPTIONS)


def test_vectors_beyond_float32_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[1.0, 2.0], [1e300, 0.0]]))
    with pytest.raises(RinceError, match=r"1 of 2 embeddings .* item 1 "):
        read_vectors(tmp_path / "x.npy")


def test_a_table_with_splits_is_evaluated_as_a_run_is(made: Path) -> None:
    lines = (made / "in-order.csv").read_text().splitlines()
    split = ["split", *(("train", "test")[i % 3 == 0] for i in range(24))]
    (made / "split.csv").write_text(
        "\n".join(f"{a},{b}" for a, b in zip(lines, split, strict=True))
    )
    found = evaluate_embeddings(made / "made.npy", made / "split.csv", options=OPTIONS)
    assert {"probe/fine", "knn/coarse", "retrieval/fine/mAP"} <= found.metrics.keys()
    assert (found.info["train_images"], found.info["test_images"]) == (16, 8)


def test_a_split_of_classes_never_trained_is_refused(made: Path) -> None:
    """Their rows would count as wrong answers of probe and kNN, in silence."""
    lines = (made / "in-order.csv").read_text().splitlines()
    last = lines[-1].rpartition(",")[2]
    split = ["test" if x.endswith(last) or i % 3 == 0 else "train" for i, x in enumerate(lines)]
    rows = [f"{a},{b}" for a, b in zip(lines, ["split", *split[1:]], strict=True)]
    (made / "unseen.csv").write_text("\n".join(rows))
    count = sum(x.endswith(last) for x in lines)
    with pytest.raises(ValueError, match=f" {count} of .* no row for training has"):
        evaluate_embeddings(made / "made.npy", made / "unseen.csv", options=OPTIONS)


def test_queries_gallery_and_sequence_of_a_table(made: Path) -> None:
    lines = (made / "in-order.csv").read_text().splitlines()
    more = ["is_query,is_gallery,sequence"]
    more += [
        f"{int(i < 8)},{'yes' if i >= 4 else 'no'},{i // 2 if i < 20 else ''}" for i in range(24)
    ]
    (made / "more.csv").write_text("\n".join(f"{a},{b}" for a, b in zip(lines, more, strict=True)))
    found = evaluate_embeddings(made / "made.npy", made / "more.csv", options=OPTIONS)
    items, asking, gallery = vectors(), torch.arange(8), torch.arange(4, 24)
    sequence = torch.tensor([i // 2 if i < 20 else 100 + i for i in range(24)])
    ignored = (sequence[asking, None] == sequence[None, gallery]).tolist()
    expected = by_definition(items.vectors, items.labels, ignored, asking, gallery)
    assert found.metrics["hierarchy/H-AP"] == pytest.approx(expected["h_ap"])


def test_what_is_wrong_with_embeddings_is_said(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (made / "in-order.csv").read_text().splitlines()

    def says(*facts: str, rows: list[str], file: str = "made.npz", options: tuple[str, ...] = ()):
        table = made / "wrong.csv"
        table.write_text("\n".join(rows))
        shown = refusal(["evaluate", str(made / file), "--labels", str(table), *options], capsys)
        assert all(fact in shown for fact in facts), shown
        assert not (made / "made.results").exists()

    says("1 of the 24", "23.jpg", rows=lines[:-1])
    says("line 26", "'0.jpg'", "line 2", rows=[*lines, lines[1]])
    says("23 rows", "24 embeddings", rows=lines[:-1], file="made.npy")
    says("line 25", "kind", rows=[*lines[:-1], "23.jpg,boat,"])
    says("breed", rows=lines, options=("--levels", "breed"))
    says("line 25", rows=[*lines[:-1], "23.jpg,boat,canoe,small"])  # too many cells
    group_too = ["path,a,b,c", *(f"{i}.jpg,dog,husky,{'x' if i else ''}" for i in range(24))]
    group_too[1] = "0.jpg,,dog,husky"
    says("dog/husky", rows=group_too)
    says("of one class", rows=[lines[0], *(f"{i}.jpg,dog,husky" for i in range(24))])
    says("cannot be asked", rows=[lines[0], *(f"{i}.jpg,,c{i}" for i in range(24))])
    flags = [f"{line},{'is_query' if i == 0 else 'maybe'}" for i, line in enumerate(lines)]
    says("line 2", "is_query", "'maybe'", rows=flags)
    assert "--labels" in refusal(["evaluate", str(made / "made.npz")], capsys)
    with pytest.raises(ValueError, match="map_points must be .* got -5"):
        evaluate_embeddings(made / "made.npz", options=EvaluationOptions(map_points=-5))
    both = ["evaluate", str(made / "made.npz"), "--labels", str(made / "by-name.csv")]
    assert "--ood" in refusal([*both, "--ood", "digits"], capsys)
    assert "evaluate" in refusal(["compare", str(made / "made.npz")], capsys)


@pytest.mark.parametrize(
    ("array", "fact"),
    [
        (np.zeros(3, dtype=np.float32), r"\(3,\)"),
        (np.array([["a"]]), "<U1"),
        (np.array([[1.0], [np.nan]]), "item 1"),
        (np.zeros((0, 4)), r"\(0, 4\)"),
    ],
)
def test_files_that_hold_no_embeddings(array: object, fact: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(RinceError, match=fact):
        read_vectors(tmp_path / "a.npy")
    (tmp_path / "cut.npz").write_bytes(b"PK")
    with pytest.raises(RinceError, match="damaged"):
        read_vectors(tmp_path / "cut.npz")
    with pytest.raises(RinceError, match="no file"):
        read_vectors(tmp_path / "none.npz")


def test_parquet(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="needs the extra parquet")
    from pyarrow import parquet

    table = arrow.table({"path": ["a", "b"], "embedding": [[1.0, 2.0], [3.0, 4.0]]})
    parquet.write_table(table, tmp_path / "a.parquet")
    found, names = read_vectors(tmp_path / "a.parquet")
    assert names == ["a", "b"]
    assert found.tolist() == [[1.0, 2.0], [3.0, 4.0]]
