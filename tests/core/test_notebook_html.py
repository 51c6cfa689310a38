"""What notebooks are told to show: what prints, escaped; and who is taken to watch a bar."""

from __future__ import annotations

import html
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import rince
from rince.core import notebook
from rince.evaluation.results import Evaluation, Gallery, Histograms, Map2D
from rince.ranks import DenseRanks, IdentityRanks, LevelRanks, TableRanks

TREE = rince.Taxonomy.from_dict({"<b>": ["husky", "malamute"], "cat": ["manx"]})


def test_summaries_show_what_they_print() -> None:
    scores = torch.tensor([[3.0, 1.0, 0.0]])
    times = rince.TimeRanks([1.0])
    items = times.items([0, 0, 1], [0.0, 1.0, 0.0], [1.0, 2.0, 1.0])
    summaries = [
        TREE.describe(batch_size=4),
        rince.ScoreRanks([2.0, 0.5]).describe(scores),
        rince.Similarity(("a", "b", "c"), torch.eye(3)).by_thresholds([0.5]).describe(batch_size=4),
        times.describe(items, batch_size=2),
    ]
    for summary in summaries:
        shown = summary._repr_html_()
        assert shown.startswith("<pre>")
        assert html.unescape(shown.removeprefix("<pre>").removesuffix("</pre>")) == str(summary)
        assert "<" not in shown.removeprefix("<pre>").removesuffix("</pre>")


def test_a_tree_lists_its_first_classes() -> None:
    shown = TREE._repr_html_()
    assert "&lt;b&gt; &gt; husky\n" in shown
    assert "<b>" not in shown
    assert "more" not in shown
    large = rince.Taxonomy([(f"class {i}",) for i in range(25)])._repr_html_()
    assert "class 19" in large
    assert "class 20" not in large
    assert "and 5 more" in large


@pytest.mark.parametrize("count", [3, 12, 13])
def test_ranks_print_those_of_the_first_queries_and_keys(count: int) -> None:
    labels = torch.arange(count) % 3
    table = TREE.ranks(labels, labels, ignore_self=True)
    matrix = table.tile(slice(None), slice(None))
    ranks = {
        "TableRanks": table,
        "DenseRanks": DenseRanks(matrix),
        "IdentityRanks": IdentityRanks(labels, labels),
        "LevelRanks": LevelRanks(labels[:, None], labels[:, None], finest_first=True),
    }
    for name, source in ranks.items():
        title, *lines = repr(source).splitlines()
        assert title.startswith(f"{name}: {count} queries x {count} keys")
        dots = ["..."] * (count > 12)
        wanted = source.tile(slice(0, 12), slice(0, 12)).tolist()
        rows = [[str(rank) for rank in row] + dots for row in wanted]
        assert [line.split() for line in lines] == rows + [dots] * (count > 12)
    assert "2 ranks" in repr(table)
    assert "ranks not known" in repr(ranks["DenseRanks"])
    assert repr(ranks["IdentityRanks"]).splitlines()[0].endswith("1 rank")
    assert isinstance(table, TableRanks)


def test_an_evaluation_shows_every_metric_of_both_spaces() -> None:
    none = torch.zeros(0, 1).numpy()
    found = Evaluation(
        metrics={
            "retrieval/coarse/R@1": 0.5,
            "ordering/correlation": -0.25,
            "embedding/retrieval/coarse/R@1": 0.75,
        },
        info={"data": "<photos>", "levels": {"coarse": "brand"}},
        classes=("a",),
        groups=("a",),
        histograms=Histograms(none[:, 0], {}),
        map_2d=Map2D(none, none, none),
        gallery=Gallery(*[none] * 6),
    )
    shown = found._repr_html_()
    assert "<th>retrieval/brand/R@1</th><td>50.0</td><td>75.0</td>" in shown
    assert "<th>ordering/correlation</th><td>-0.250</td><td></td>" in shown
    assert "&lt;photos&gt;" in shown
    alone = replace(found, metrics={"knn/fine": 1.0})._repr_html_()
    assert "<th>knn/fine</th><td>100.0</td></tr>" in alone
    assert "embedding" not in alone


def test_a_bar_is_for_terminals_and_notebooks(monkeypatch: pytest.MonkeyPatch) -> None:
    def shell(kernel: bool) -> types.ModuleType:
        found = types.SimpleNamespace(**({"kernel": 1} if kernel else {}))
        module = types.ModuleType("IPython")
        module.get_ipython = lambda: found  # type: ignore[attr-defined]
        return module

    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert not notebook.is_watched()
    monkeypatch.setitem(sys.modules, "IPython", shell(kernel=False))
    assert not notebook.is_watched()
    monkeypatch.setitem(sys.modules, "IPython", shell(kernel=True))
    assert notebook.is_watched()


@pytest.mark.parametrize("in_notebook", [False, True])
@pytest.mark.parametrize("has_widgets", [False, True])
def test_a_bar_is_a_widget_where_a_notebook_shows_them(
    in_notebook: bool, has_widgets: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def import_extra(name: str, extra: str) -> types.SimpleNamespace:
        asked.append(name)
        return types.SimpleNamespace(tqdm=lambda **options: options)

    monkeypatch.setattr(notebook, "import_extra", import_extra)
    monkeypatch.setattr(notebook, "in_notebook", lambda: in_notebook)
    found = object() if has_widgets else None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found)
    options = notebook.progress_bar("reading", 3, hidden=False)
    assert asked == ["tqdm.notebook" if in_notebook and has_widgets else "tqdm"]
    assert options == {"desc": "reading", "total": 3, "disable": False, "leave": False}


def test_files_read_in_threads_move_a_bar_in_a_notebook(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tqdm")
    from rince.data import threads

    for watched in (False, True):
        monkeypatch.setattr(threads, "is_watched", lambda watched=watched: watched)
        given = [Path(str(i)) for i in range(300)]
        assert list(threads.in_threads(lambda path: path.name, given, "reading <x>")) == [
            str(i) for i in range(300)
        ]
        written = capsys.readouterr().err
        assert ("reading <x>" in written and "300" in written) == watched
