"""Which row data fall to, rows of one's own, and the rules that all kinds share."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from rince.cli.main import main
from rince.core.checks import BadItems, RinceError, RinceWarning
from rince.core.digests import digest
from rince.core.input_spec import InputSpec
from rince.data import kinds
from rince.data.batches import TrainLoader, eval_batches
from rince.data.items import (
    Items,
    NothingToHoldOut,
    Splits,
    Unreadable,
    at_most,
    drop_duplicates,
    held_out,
    report_unreadable,
    split_by_hash,
    split_folders,
)
from rince.data.kind import Kind
from rince.data.kinds import kind_named, kind_of, load_splits, require_queries, same_file
from rince.data.options import (
    ImageOptions,
    TableOptions,
    TextOptions,
    VectorOptions,
    VideoOptions,
)
from rince.data.plan import BatchPlan
from rince.ranks.taxonomy import Taxonomy

OPTIONS = SimpleNamespace(
    images=ImageOptions(),
    videos=VideoOptions(),
    text=TextOptions(),
    table=TableOptions(),
    vectors=VectorOptions(),
)


SIZES = Taxonomy([("small",), ("large",)])


@dataclass(frozen=True, eq=False)
class Numbers(Items):
    """The least that a kind of one's own must say."""

    values: Tensor
    labels: Tensor
    taxonomy: Taxonomy = SIZES
    name: str = "numbers"

    @property
    def spec(self) -> InputSpec:
        return InputSpec("numbers", (1,))

    def __getitem__(self, index: int) -> Tensor:
        return self.values[index, None]

    def subset(self, indices: Tensor) -> Numbers:
        return replace(self, values=self.values[indices], labels=self.labels[indices])

    def fingerprint(self) -> str:
        return digest(self.values.tolist())


def numbers(count: int) -> Numbers:
    values = torch.arange(count, dtype=torch.float32)
    return Numbers(values, (values >= count // 2).long())


@pytest.fixture
def registered() -> Iterator[Kind]:
    before = list(kinds.KINDS)
    kind = Kind(
        noun="numbers",
        recognise=lambda data, by_time: data.startswith("numbers:"),
        load=lambda request: Splits(numbers(int(request.data[8:])), numbers(4)),
    )
    kinds.register_kind(kind)
    yield kind
    kinds.KINDS[:] = before


def test_a_kind_is_recognised(tmp_path: Path, registered: Kind) -> None:
    (tmp_path / "a.mp4").touch()
    found = [kind_of(data).noun for data in ("a.csv", "A.JSONL", str(tmp_path), "cifar100", "x")]
    assert found == ["texts", "texts", "clips", "images", "images"]
    assert kind_of("numbers:3.csv") is registered  # it is asked first
    with pytest.raises(RinceError, match="'sounds'.*numbers, vectors, texts, clips"):
        kind_named("sounds")


def test_a_kind_of_the_same_noun_replaces_the_one_before(registered: Kind) -> None:
    other = replace(registered, backbone="mine")
    kinds.register_kind(other)
    assert kind_named("numbers") is other
    assert [kind.noun for kind in kinds.KINDS].count("numbers") == 1


@pytest.mark.parametrize("noun", ["images", "clips", "texts"])
def test_a_kind_of_rinces_own_is_not_replaced(noun: str) -> None:
    before = list(kinds.KINDS)
    with pytest.raises(ValueError, match=f"^{noun} "):
        kinds.register_kind(replace(kind_named(noun), backbone="mine"))
    assert before == kinds.KINDS


@pytest.mark.usefixtures("registered")
def test_a_kind_of_ones_own_is_loaded_and_batched() -> None:
    splits = load_splits("numbers:10", OPTIONS)
    assert (splits.spec.noun, len(splits.train), splits.train.noun) == ("numbers", 10, "numbers")
    assert splits.fingerprint() == load_splits("numbers:10", OPTIONS).fingerprint()
    assert splits.fingerprint() != load_splits("numbers:9", OPTIONS).fingerprint()
    inputs = [x for x, _ in eval_batches(splits.train, 4)]
    assert [len(x) for x in inputs] == [4, 4, 2]
    assert torch.cat(inputs).flatten().tolist() == list(range(10))
    for batch in TrainLoader(splits.train, BatchPlan(10, 5, seed=0), augment="later"):
        for view in batch.views:  # without an augmentation both are the items
            assert view.flatten().tolist() == batch.indices.tolist()
    for name, refuse in (
        ("load_outliers", lambda: kinds.load_outliers("x", splits.test, OPTIONS)),
        ("embedding_names", lambda: kinds.embedding_names(splits.test, "x")),  # type: ignore[arg-type]
    ):
        with pytest.raises(RinceError, match=name):
            refuse()


def test_items_without_keys_and_contents() -> None:
    items = numbers(10)
    assert (items.times, items.keys(), items.size) == (None, None, "1")
    fewer = at_most(items, 2, seed=0)
    assert fewer.labels.tolist() == [0, 0, 1, 1]
    assert at_most(items, None, seed=0) is items
    assert at_most(items, 2, seed=0).values.tolist() == fewer.values.tolist()
    assert {tuple(at_most(items, 2, seed).values.tolist()) for seed in range(9)} != {
        tuple(fewer.values.tolist())
    }
    with pytest.raises(RinceError, match="duplicates of numbers .*images.drop_duplicates"):
        drop_duplicates(items)
    with pytest.raises(ValueError, match="times.*numbers"):
        items.by_recording()
    assert items.with_labels(torch.ones(10, dtype=torch.int64)).labels.tolist() == [1] * 10
    assert items.labels.tolist() == [0] * 5 + [1] * 5  # itself it stays as it was
    assert items.thumbnails(torch.tensor([3]), 8).tolist() == ["numbers 3"]


def test_the_split_rule() -> None:
    for count in range(40):
        members = list(range(count))
        test = held_out(members)
        assert list(test) == members[: len(test)]
        assert len(test) == (0 if count < 2 else max(1, round(0.2 * count)))


def test_items_without_names_are_held_out_class_by_class() -> None:
    items = numbers(40)
    test = items.held_out()
    assert items.labels[test].bincount().tolist() == [4, 4]  # a fifth of each
    assert items.held_out().equal(test)
    train, held = split_by_hash(items)
    assert held.values.tolist() == items.values[test].tolist()
    assert sorted([*train.values.tolist(), *held.values.tolist()]) == items.values.tolist()
    assert held.values.tolist() != sorted(items.values.tolist())[:4]
    with pytest.raises(NothingToHoldOut, match="no class has two members.*a val folder"):
        split_by_hash(items.subset([0, 39]), "a val folder")
    with pytest.warns(RinceWarning, match="1 classes have one member and are not tested: large"):
        split_by_hash(items.subset([0, 1, 2, 39]))


def test_folders_of_splits(tmp_path: Path) -> None:
    assert split_folders(tmp_path) is None
    (tmp_path / "train").mkdir()
    (tmp_path / "val").touch()  # a file is no split
    assert split_folders(tmp_path) is None
    (tmp_path / "val").unlink()
    (tmp_path / "test").mkdir()
    assert split_folders(tmp_path) == (tmp_path / "train", tmp_path / "test")
    (tmp_path / "valid").mkdir()
    with pytest.warns(RinceWarning, match="valid and test: valid"):
        assert split_folders(tmp_path) == (tmp_path / "train", tmp_path / "valid")
    assert split_folders(tmp_path / "val.txt") is None  # not there
    for train, test in (("Train", "DEV"), ("TRAIN", "Test")):
        for side in (train, test):
            (tmp_path / train / side).mkdir(parents=True)
        below = tmp_path / train
        assert split_folders(below) == (below / train, below / test)


@pytest.mark.parametrize("verb", ["ranks", "check"])
def test_options_without_effect_are_named(verb: str, image_tree: Path) -> None:
    given = [verb, str(image_tree)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main([*given, "--table.encoding", "cp1252", "--images.bits", "12"]) == 0
    with pytest.warns(RinceWarning, match=r"no effect on images: videos\.hop$"):
        assert main([*given, "--videos.hop", "3"]) == 0
    named = r"no effect on images without a table: table\.column, table\.labels, images\.root$"
    table = ["--table.column", "a", "--table.labels", "b"]
    with pytest.warns(RinceWarning, match=named):
        assert main([*given, *table, "--data-root", str(image_tree)]) == 0


def test_options_of_other_kinds_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    (texts := tmp_path / "a.csv").write_text("text,label\nhello,greeting\n", encoding="utf-8")
    for data, name in ((str(texts), "image_size"), (str(tmp_path), "per_class")):
        images = ImageOptions(**{name: 3})
        options = SimpleNamespace(**{**vars(OPTIONS), "images": images})
        with pytest.raises(ValueError, match=rf"images.{name} .*{data}"):
            load_splits(data, options)


def test_what_to_do_about_items_that_cannot_be_read_is_said_once() -> None:
    each = [Unreadable(f"cannot read {name}", "the file") for name in "ab"]
    said = "2 of 3 images cannot be read: cannot read a; cannot read b. Fix or remove "
    plain = [RinceError("cannot read a"), each[1]]
    own = Unreadable("cannot read b", "both of them", of_all=True)
    for failures, hint in (
        (each, "them, or leave them out (--skip-unreadable)"),
        (plain, "them, or leave them out (--skip-unreadable)"),
        ([each[0], own], "both of them"),
    ):
        with pytest.raises(BadItems) as error:
            report_unreadable(failures, 3, "images", False)
        assert str(error.value) == said + hint
        assert error.value.problems == ("cannot read a", "cannot read b")
    with pytest.raises(BadItems, match="^cannot read a. Fix or remove the file$"):
        report_unreadable(each[:1], 3, "images", False)
    copied = pickle.loads(pickle.dumps(own))  # it comes from the workers of a loader
    assert (str(copied), copied.problem, copied.of_all) == (str(own), own.problem, True)


def test_texts_are_no_files_whatever_they_hold() -> None:
    encoder: Any = SimpleNamespace(noun="texts")
    for text in ("a\0b", "long " * 2000):
        require_queries(encoder, [text])
        assert not same_file(encoder, text, text)
    with pytest.raises(RinceError, match="a query is empty"):
        require_queries(encoder, ["cash", " "])
