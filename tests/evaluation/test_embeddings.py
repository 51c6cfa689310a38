from __future__ import annotations

import importlib.util
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from rince.core.checks import RinceError, RinceWarning
from rince.core.input_spec import InputSpec
from rince.data.image.decode import read_fitted
from rince.data.image.files import image_files
from rince.data.stored.sources import embedding_names
from rince.data.text.texts import Texts
from rince.data.vector_files import read_vectors
from rince.data.views import evaluation_pixels
from rince.evaluation.embeddings import (
    Embeddings,
    embed,
    embed_queries,
    load_embeddings,
    nearest,
    require_writable,
    save_embeddings,
)
from rince.models.exported import ImageEncoder
from rince.ranks.taxonomy import Taxonomy

SIZE = 8


def encoder(channels: int = 3) -> ImageEncoder:
    torch.manual_seed(0)
    return ImageEncoder(
        module=nn.Sequential(nn.Flatten(), nn.Linear(channels * SIZE**2, 5), nn.Dropout(0.5)),
        backbone=None,
        output_dim=5,
        embedding_dim=None,
        num_heads=1,
        spec=InputSpec.images(channels, SIZE),
        mean=(0.485, 0.456, 0.406)[:channels] if channels == 3 else (0.5,),
        std=(0.229, 0.224, 0.225)[:channels] if channels == 3 else (0.25,),
        class_paths=(("a",),),
    )


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten images of several sizes at several depths, and what is none."""
    generator = np.random.default_rng(0)
    root = tmp_path / "photos"
    for index in range(10):
        file = root / ("deep/er" if index % 3 else "") / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        shape = (SIZE + 3 * index, SIZE + index % 4, 3)
        Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8)).save(file)
    (root / "readme.txt").write_text("no image")
    return root


@pytest.mark.filterwarnings("ignore:.*left out. 1 .txt")
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 3, 10, 50])
def test_each_image_by_itself(photos: Path, channels: int, batch_size: int) -> None:
    net, files = encoder(channels), image_files(photos)
    assert len(files) == 10
    found = embed(net, files, batch_size=batch_size)
    assert found.paths == tuple(files)
    linear = net.module[1].double()  # type: ignore[index,operator]
    for file, vector in zip(files, found.vectors, strict=True):
        image = evaluation_pixels(
            read_fitted(file, InputSpec.images(channels, SIZE))[None]
        ).double()
        with torch.no_grad():
            feature = linear(image.flatten(1))[0]
        torch.testing.assert_close(
            vector.double(), feature / feature.square().sum().sqrt(), atol=1e-6, rtol=0
        )


@pytest.mark.filterwarnings("ignore:.*left out. 1 .txt")
def test_files_that_cannot_be_read(photos: Path) -> None:
    files = image_files(photos)
    whole = embed(encoder(), files, batch_size=2)
    for index in (2, 3, 9):  # all of a batch, and one of the last
        Path(files[index]).write_bytes(b"no image")
    with pytest.raises(RinceError, match=r"cannot read .*png"):
        embed(encoder(), files, batch_size=2)
    with pytest.warns(RinceWarning, match="3 of 10 images.*left out"):
        found = embed(encoder(), files, batch_size=2, skip_unreadable=True)
    kept = [0, 1, 4, 5, 6, 7, 8]
    assert found.paths == tuple(files[i] for i in kept)
    torch.testing.assert_close(found.vectors, whole.vectors[kept])
    for file in files:
        Path(file).write_bytes(b"no image")
    with pytest.raises(RinceError, match=r"none.*\b10 images"):
        embed(encoder(), files, skip_unreadable=True)


def test_each_vector_of_a_file_is_a_query_whatever_it_is_called(tmp_path: Path) -> None:
    """Names that repeat, look like a clip's, or begin with another query's."""
    net = replace(encoder(), module=nn.Identity(), spec=InputSpec("vectors", (3,)), mean=(), std=())
    one, other = str(tmp_path / "a.npz"), str(tmp_path / "a.npz: x.npz")
    np.savez(one, embeddings=np.eye(3), paths=["x", "x", "x@2.000"])
    np.savez(other, embeddings=np.ones((1, 3)))
    found, groups = embed_queries(net, [one, other], device="cpu", skip_unreadable=False)
    names = [f"{one}: x", f"{one}: x", f"{one}: x@2.000", other]
    assert groups == [(name, range(i, i + 1)) for i, name in enumerate(names)]
    assert found.paths == tuple(names)
    torch.testing.assert_close(found.vectors, torch.cat([torch.eye(3), torch.ones(1, 3) / 3**0.5]))
    assert found.model == net.fingerprint()


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_embeddings_are_not_embedded_again(suffix: str, tmp_path: Path) -> None:
    """By the network that made them; to another one they are features."""
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    net = replace(encoder(), module=nn.Identity(), spec=InputSpec("vectors", (3,)), mean=(), std=())
    file = str(tmp_path / f"made{suffix}")
    made = Embeddings(("a", "b", "c"), torch.eye(3), net.fingerprint())
    save_embeddings(made, file)
    with pytest.raises(RinceError, match="that this network made.*give the features"):
        embedding_names(net, file, None)
    with pytest.raises(RinceError, match="that this network made.*give the features"):
        embed_queries(net, [file], device="cpu", skip_unreadable=False)
    save_embeddings(replace(made, model="another"), file)
    assert list(embedding_names(net, file, None)) == ["a", "b", "c"]
    assert len(embed_queries(net, [file], device="cpu", skip_unreadable=False)[1]) == 3


def test_queries_that_cannot_be_read(photos: Path, tmp_path: Path) -> None:
    bad = [str(tmp_path / f"{name}.png") for name in "ab"]
    for file in bad:
        Path(file).write_text("no image")
    good = sorted(map(str, photos.rglob("*.png")))[:2]
    with pytest.raises(RinceError, match="2 of 3 images cannot be read: .*a.png.*b.png"):
        embed_queries(encoder(), [bad[0], good[0], bad[1]], device="cpu", skip_unreadable=False)
    with pytest.warns(RinceWarning, match="1 of 3 images are left out: .*a.png"):
        _, groups = embed_queries(encoder(), [bad[0], *good], device="cpu", skip_unreadable=True)
    assert groups == [(good[0], range(1)), (good[1], range(1, 2))]


def test_the_nearest_against_all_cosines_in_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(40, 6, generator=generator), dim=1)
    query = torch.randn(300, 6, generator=generator)  # of any length, in more than one chunk
    gallery = Embeddings(tuple(map(str, range(40))), vectors, "m")
    cosines, positions = nearest(gallery, query, 7)
    unit = query.double() / query.double().norm(dim=1, keepdim=True)
    expected = unit @ vectors.double().T
    assert positions.shape == cosines.shape == (300, 7)
    for row in range(300):
        best = sorted(range(40), key=lambda i: -expected[row, i].item())[:7]
        assert positions[row].tolist() == best
        torch.testing.assert_close(cosines[row].double(), expected[row, best], atol=1e-6, rtol=0)
    assert nearest(gallery, query[:2], 100)[1].shape == (2, 40)
    with pytest.raises(ValueError, match=r"top_k.*\b1\b.* 0\b"):
        nearest(gallery, query, 0)


def some(count: int = 3) -> Embeddings:
    vectors = torch.nn.functional.normalize(
        torch.arange(1.0, 4.0 * count + 1).view(count, 4), dim=1
    )
    return Embeddings(tuple(f"photos/ä {i}.png" for i in range(count)), vectors, "abc")


def same(one: Embeddings, other: Embeddings) -> bool:
    return (one.paths, one.model) == (other.paths, other.model) and torch.equal(
        one.vectors, other.vectors
    )


@pytest.mark.parametrize("suffix", [".npz", ".parquet", ".NPZ"])
@pytest.mark.parametrize("count", [1, 3])
def test_what_is_read_is_what_was_written(suffix: str, count: int, tmp_path: Path) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="needs the extra parquet")
    file = tmp_path / f"found{suffix}"
    file.write_bytes(b"what was there before")
    save_embeddings(some(count), file)
    assert same(load_embeddings(file), some(count))
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_other_programs_can_read_the_files(tmp_path: Path) -> None:
    save_embeddings(some(), tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as found:
        assert json.loads(bytes(found["paths_json"])) == list(some().paths)
        assert found["embeddings"].dtype == np.float32
        np.testing.assert_allclose(found["embeddings"] @ found["embeddings"][0], 1, atol=0.1)
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra parquet")
    save_embeddings(some(), tmp_path / "a.parquet")
    rows = parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert [row["path"] for row in rows] == list(some().paths)
    assert rows[1]["embedding"] == some().vectors[1].tolist()


# A lone surrogate stands for a byte of a file name that is no UTF-8; parquet refuses it.
NAMES = st.lists(st.text(st.characters(codec=None, exclude_categories=[])), min_size=1, max_size=5)


@settings(max_examples=40, deadline=None)
@given(names=NAMES)
@example(names=["ends in NUL\0", "", " blanks ", "e\u0301", "1.0", "\udce9", "\u2028"])
def test_any_names_come_back(names: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("names")
    given_ones = replace(some(len(names)), paths=tuple(names))
    files = [folder / "a.npz"]
    if importlib.util.find_spec("pyarrow") and not any(
        "\ud800" <= c <= "\udfff" for c in "".join(names)
    ):
        files.append(folder / "a.parquet")
    for file in files:
        save_embeddings(given_ones, file)
        assert same(load_embeddings(file), given_ones)
        assert read_vectors(file)[1] == names


def test_one_long_text_makes_no_large_file(tmp_path: Path) -> None:
    long = replace(some(500), paths=(*map(str, range(499)), "x" * 100_000))
    save_embeddings(long, tmp_path / "a.npz")
    assert (tmp_path / "a.npz").stat().st_size < 2 * (100_000 + long.vectors.nbytes)
    tree, zeros = Taxonomy([("a",)]), torch.zeros(500, dtype=torch.int64)
    texts = Texts(long.paths, zeros[:, None], zeros, tree, "texts")
    assert texts.thumbnails(range(500), 8).nbytes <= 4 * 500 * 300  # four bytes a character


def test_files_of_earlier_versions_are_read(tmp_path: Path) -> None:
    old = {"paths": np.array(some().paths), "embeddings": some().vectors.numpy()}
    np.savez(tmp_path / "old.npz", model=np.array("abc"), **old)
    assert same(load_embeddings(tmp_path / "old.npz"), some())
    assert read_vectors(tmp_path / "old.npz")[1] == list(some().paths)


def test_a_file_name_that_is_no_unicode(tmp_path: Path) -> None:
    odd = replace(some(1), paths=(os.fsdecode(b"caf\xe9.png"),))
    save_embeddings(odd, tmp_path / "a.npz")
    assert same(load_embeddings(tmp_path / "a.npz"), odd)
    pytest.importorskip("pyarrow", reason="needs the extra parquet")
    with pytest.raises(RinceError, match=r"caf.*parquet.*\.npz"):
        save_embeddings(odd, tmp_path / "a.parquet")


def test_names_that_cannot_be_written_are_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.npz.*\.parquet.*a\.csv'"):
        require_writable(tmp_path / "a.csv")
    with pytest.raises(RinceError, match=r"no folder.*nowhere.*a\.npz"):
        require_writable(tmp_path / "nowhere" / "a.npz")
    require_writable(tmp_path / "a.npz")


def _bad_files(folder: Path) -> list[Path]:
    save_embeddings(some(), folder / "cut.npz")
    whole = (folder / "cut.npz").read_bytes()
    (folder / "cut.npz").write_bytes(whole[:-100])
    np.savez(folder / "foreign.npz", vectors=np.ones((2, 2)))
    np.savez(folder / "short.npz", paths=["a"], embeddings=np.ones((2, 2)), model="m")
    (folder / "text.parquet").write_text("no table")
    return sorted(folder.iterdir())


def test_files_that_are_not_ours(tmp_path: Path) -> None:
    with pytest.raises(RinceError, match=r"no file.*nowhere\.npz.*`rince embed RUN FOLDER -o"):
        load_embeddings(tmp_path / "nowhere.npz")
    with pytest.raises(ValueError, match=r"\.npz.*\.parquet"):
        load_embeddings(tmp_path / "a.csv")
    for file in _bad_files(tmp_path):
        if file.suffix == ".parquet":
            pytest.importorskip("pyarrow", reason="needs the extra parquet")
        with pytest.raises(RinceError, match="damaged.*`rince embed`"):
            load_embeddings(file)


def test_a_vector_a_path() -> None:
    with pytest.raises(ValueError, match=r"\b1 paths.*\(2, 3\)"):
        Embeddings(("a",), torch.ones(2, 3), "m")
