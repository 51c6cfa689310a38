from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rince.core.checks import RinceError
from rince.evaluation.embeddings import Embeddings, nearest
from rince.evaluation.index import (
    VectorIndex,
    build_index,
    index_recall,
    load_index,
    require_index_file,
    save_index,
)


def some(count: int, width: int = 8, groups: int = 20) -> Embeddings:
    """Around as many directions as there are groups."""
    random = torch.Generator().manual_seed(count)
    centres = torch.randn(groups, width, generator=random)
    vectors = centres[torch.arange(count) % groups] + torch.randn(count, width, generator=random)
    unit = torch.nn.functional.normalize(vectors, dim=1)
    return Embeddings(tuple(f"{i}.png" for i in range(count)), unit, "net")


@pytest.fixture(autouse=True)
def _faiss() -> None:
    pytest.importorskip("faiss", reason="needs the extra search")


@pytest.mark.parametrize(
    ("count", "width", "form", "least"),
    [(100, 8, "flat", 1.0), (1_000, 8, "hnsw", 0.95), (10_000, 3, "ivf-pq", 0.15)],
)
def test_what_an_index_finds_before_and_after_it_was_stored(
    count: int,
    width: int,
    form: str,
    least: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rince.evaluation.index._FLAT_TO", 100)
    monkeypatch.setattr("rince.evaluation.index._HNSW_TO", 1_000)
    gallery = some(count, width)
    index = build_index(gallery)
    save_index(index, tmp_path / "a.faiss")
    assert [file.name for file in tmp_path.iterdir()] == ["a.faiss"]
    save_index(index, tmp_path / "A.FAISS")
    stored = load_index(tmp_path / "a.faiss")
    assert (stored.paths, stored.model, stored.form) == (gallery.paths, "net", form)
    query = torch.randn(7, width, generator=torch.Generator().manual_seed(1)) * 5
    exact, _ = nearest(gallery, query, 10)
    unit = torch.nn.functional.normalize(query, dim=1)
    for found in (index, stored):
        cosines, positions = found.nearest(query, 10)
        true = (unit @ gallery.vectors.T).gather(1, positions)
        if form != "ivf-pq":  # its cosines are of compressed vectors
            torch.testing.assert_close(cosines, true)
        assert float((true >= exact[:, -1:] - 1e-6).float().mean()) >= least
    recall, k = index_recall(index, gallery, most=200)
    assert least <= recall <= 1
    assert (recall < 0.99) == (form == "ivf-pq")
    assert k == 10


class _Worse:
    """Finds what it was told to."""

    def __init__(self, positions: list[list[int]]) -> None:
        self.positions, self.d = np.array(positions), 2

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
        assert self.positions.shape == (len(queries), k)
        return np.zeros(self.positions.shape, np.float32), self.positions


def test_recall_by_hand() -> None:
    angles = torch.tensor([0.0, 0.1, 0.3, 0.7, 0.7])
    gallery = Embeddings(tuple("abcde"), torch.stack([angles.cos(), angles.sin()], dim=1), "net")
    # The two nearest of a: b, c; of b: a, c; of c: b, a; of d and e: each other, c.
    found = [[0, 1, 2], [1, 0, 4], [2, 3, -1], [3, 4, 2], [4, 2, 0]]
    recall, k = index_recall(VectorIndex(gallery.paths, _Worse(found), "net", "flat"), gallery, k=2)
    assert (recall, k) == ((2 + 1 + 0 + 2 + 1) / 10, 2)
    one = Embeddings(("a",), torch.tensor([[1.0, 0.0]]), "net")
    assert index_recall(build_index(one), one) == (1.0, 0)


@given(names=st.lists(st.text(st.characters(codec=None)), min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_any_name_comes_back(names: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("names") / "a.faiss"
    gallery = Embeddings(tuple(names), torch.eye(5, 6)[: len(names)], "net")
    save_index(build_index(gallery), file)
    assert load_index(file).paths == tuple(names)


def test_vectors_of_one_dimension() -> None:
    assert build_index(some(30, 1), "hnsw").index.ntotal == 30


def test_what_is_wrong_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = some(30)
    index = build_index(gallery)
    with pytest.raises(ValueError, match=r"9984 items, got 30"):
        build_index(gallery, "ivf-pq")
    with pytest.raises(ValueError, match=r"have 5 dimensions, and the index 8"):
        index.nearest(torch.ones(1, 5), 3)
    with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
        index.nearest(torch.ones(1, 8), 0)
    with pytest.raises(ValueError, match=r"\.faiss file, got 'a.npz'"):
        save_index(index, "a.npz")
    with pytest.raises(RinceError, match="there is no folder"):
        require_index_file(tmp_path / "nowhere" / "a.faiss")
    with pytest.raises(RinceError, match=r"no file .*`rince index EMBEDDINGS -o"):
        load_index(tmp_path / "a.faiss")
    file = tmp_path / "a.faiss"
    save_index(index, file)
    whole = file.read_bytes()
    import faiss

    for content in (whole[:-200], b"", b"x" * 99, faiss.serialize_index(index.index).tobytes()):
        file.write_bytes(content)
        with pytest.raises(RinceError, match=r"was not written by `rince index`"):
            load_index(file)
    np.savez(tmp_path / "b.npz", index=np.zeros(50, np.uint8), paths=np.zeros(2, np.uint8))
    (tmp_path / "b.npz").rename(file)
    with pytest.raises(RinceError, match=r"was not written by `rince index`"):
        load_index(file)
    monkeypatch.setitem(sys.modules, "faiss", None)
    for call in (lambda: build_index(gallery), lambda: load_index(file)):
        with pytest.raises(ImportError, match=r"rince\[search\]"):
            call()
