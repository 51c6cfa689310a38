"""Texts from csv and jsonl: what is read, how it is split, and what is refused with which words."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import torch

from loaders import load_texts
from rince import RinceError, RinceWarning, Taxonomy
from rince.core.input_spec import InputSpec
from rince.data.batches import TrainLoader, eval_batches
from rince.data.items import Splits, drop_duplicates
from rince.data.kinds import load_outliers
from rince.data.plan import BatchPlan
from rince.data.text.sources import text_column
from rince.data.text.texts import Texts
from rince.training.config import TrainConfig
from text_models import word_table, write_table

HEADER = ("text", "domain", "intent", "split")
ROWS: list[tuple[str, ...]] = [
    ("send cash", "bank", "transfer", "train"),
    ("what is left, please?", "bank", "balance", "train"),
    ("hello", "", "greeting", "train"),
    ("  pay my sister ", "bank", "transfer", "test"),
    ("hi\nthere", "", "greeting", "Test"),
]
PATHS = (("bank", "balance"), ("bank", "transfer"), ("greeting",))


def texts_of(splits: Splits) -> tuple[Texts, Texts]:
    assert isinstance(splits.train, Texts)
    assert isinstance(splits.test, Texts)
    return splits.train, splits.test


def expect(train: Texts, test: Texts) -> None:
    assert train.texts == ("send cash", "what is left, please?", "hello")
    assert test.texts == ("pay my sister", "hi\nthere")
    assert train.taxonomy.paths == test.taxonomy.paths == PATHS
    assert (train.labels.tolist(), test.labels.tolist()) == ([1, 0, 2], [1, 2])
    assert train.name == "mine"


def test_csv(tmp_path: Path) -> None:
    splits = load_texts(write_table(tmp_path / "mine.csv", [HEADER, ("", "", "", ""), *ROWS]))
    expect(*texts_of(splits))
    assert splits.spec == InputSpec.texts()
    same = Taxonomy.from_csv(  # a class without a domain hangs where Taxonomy puts it
        write_table(tmp_path / "classes.csv", [("class", "up"), *[(p[-1], *p[:-1]) for p in PATHS]])
    )
    assert torch.equal(splits.train.taxonomy.table, same.table)
    marked = tmp_path / "marked.csv"  # as some spreadsheets save it
    marked.write_bytes(b"\xef\xbb\xbf" + (tmp_path / "mine.csv").read_bytes())
    assert load_texts(marked).fingerprint() == splits.fingerprint()


def test_jsonl(tmp_path: Path) -> None:
    lines = []
    for row in ROWS:
        found = dict(zip(HEADER, row, strict=True))
        lines += [json.dumps({k: v for k, v in found.items() if v}), ""]
    lines[-2] = lines[-2].replace("{", '{"domain": null, ')
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    splits = load_texts(tmp_path / "mine.jsonl")
    expect(*texts_of(splits))


def test_columns_are_chosen_by_name(tmp_path: Path) -> None:
    rows = [("id", "intent", "utterance", "domain")]
    rows += [(str(i), f"i{i % 4}", f"words {i}", f"d{i % 2}") for i in range(8)]
    file = write_table(tmp_path / "a.csv", rows)
    train, test = texts_of(load_texts(file, column="utterance", labels=["domain", "intent"]))
    assert train.taxonomy.paths == (("d0", "i0"), ("d0", "i2"), ("d1", "i1"), ("d1", "i3"))
    found = dict(zip(train.texts + test.texts, (*train.labels, *test.labels), strict=True))
    assert {text: train.taxonomy.classes[label] for text, label in found.items()} == {
        row[2]: row[1] for row in rows[1:]
    }
    flat, _ = texts_of(load_texts(file, column="utterance", labels=("intent",)))
    assert flat.taxonomy.paths == (("i0",), ("i1",), ("i2",), ("i3",))


def test_the_held_out_texts_stay_held_out(tmp_path: Path) -> None:
    file = word_table(tmp_path / "words.csv")
    train, test = texts_of(load_texts(file))
    assert (len(train), len(test)) == (56, 16)  # a fifth of 18 is 4
    assert test.labels.bincount().tolist() == [4] * 4
    assert not set(train.texts) & set(test.texts)
    few_train, few_test = texts_of(load_texts(file, per_class=2, test_per_class=3, seed=5))
    assert (len(few_train), len(few_test)) == (8, 12)
    assert set(few_test.texts) <= set(test.texts)
    assert set(few_train.texts) <= set(train.texts)
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], "a brand new text,colour,red", *reversed(lines[1:])]))
    _, after = texts_of(load_texts(file))
    assert len(set(after.texts) ^ set(test.texts)) <= 2


def test_duplicates_are_left_out_of_the_training_texts(tmp_path: Path) -> None:
    rows = [("hi", "", "greeting", "train"), ("send cash", "bank", "transfer", "train")]
    file = write_table(
        tmp_path / "a.csv", [HEADER, *rows, *ROWS, ("hello", "", "greeting", "test")]
    )
    train, test = texts_of(load_texts(file, drop_duplicates=True))
    assert train.texts == ("hi", "send cash", "what is left, please?")
    assert "hello" in test.texts
    assert drop_duplicates(test).texts == test.texts


def test_fingerprint(tmp_path: Path) -> None:
    def found(rows: list[tuple[str, ...]], name: str = "a.csv") -> str:
        return load_texts(write_table(tmp_path / name, [HEADER, *rows])).fingerprint()

    before = found(ROWS)
    assert found(ROWS, "b.csv") == before
    others = [
        [("send money", *ROWS[0][1:]), *ROWS[1:]],  # another text, label, order, domain, side
        [("send cash", *ROWS[1][1:]), (ROWS[1][0], *ROWS[0][1:]), *ROWS[2:]],
        [ROWS[1], ROWS[0], *ROWS[2:]],
        [tuple("bang" if cell == "bank" else cell for cell in row) for row in ROWS],
        [*ROWS[:3], ROWS[4], ROWS[3]],
    ]
    assert len({before, *map(found, others)}) == 6
    train = load_texts(write_table(tmp_path / "a.csv", [HEADER, *ROWS])).train
    assert (
        train.subset([0, 1, 2]).fingerprint()
        == train.fingerprint()
        != train.subset([1, 0, 2]).fingerprint()
    )


def test_classes_that_no_training_text_has(tmp_path: Path) -> None:
    rows = [HEADER, *ROWS, ("a", "bank", "loan", "test"), ("b", "shop", "balance", "train")]
    with pytest.warns(RinceWarning, match="1 of 3 classes.*bank/loan"):
        train, test = texts_of(load_texts(write_table(tmp_path / "a.csv", rows)))
    assert train.taxonomy.classes == ("bank/balance", "transfer", "greeting", "shop/balance")
    assert test.taxonomy.paths == (*train.taxonomy.paths, ("bank", "loan"))
    assert test.labels.tolist() == [1, 2, 4]


def test_two_unicode_forms_of_a_label(tmp_path: Path) -> None:
    forms = ("caf\u00e9", "cafe\u0301")
    rows = [
        ("text", "label"),
        *[(f"t{i}", forms[i % 2]) for i in range(8)],
        ("u", "eau"),
        ("v", "eau"),
    ]
    train, _ = texts_of(load_texts(write_table(tmp_path / "a.csv", rows)))
    assert train.taxonomy.classes == ("caf\u00e9", "eau")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("words", "intent"), ("a", "bb")], "'text'.* words, intent: .*'intent'"),
        ([("text",), ("a",)], r"labels.*columns are text: .*table\.labels"),
        ([("text", "split"), ("a", "train")], "labels.*columns are text, split"),
        ([HEADER, ROWS[0], ("  ", "bank", "transfer", "test"), ROWS[3]],
         "line 3: no 'text' .*table.empty"),
        ([HEADER, ROWS[0], ("a", "bank", "", "test")], "line 3: no 'intent'"),
        ([HEADER, ROWS[0], ("a", "bank", "b", "later")], r"line 3\b.*'split'.*'later'"),
        ([HEADER, *ROWS[:3]], "'split'.*never.*validation"),
        ([HEADER, *ROWS[3:]], "'split'.*never.*train"),
        ([HEADER, *ROWS, ("a", "bank", "hidden\u200b", "train"), ("b", "bank", "hidden", "train")],
         "one name"),
        ([("text", "intent"), ("a", "b"), ("a,b", "c", "d")], r"line 3\b.*\b3\b.*header"),
        ([("text", "a", "a"), ("x", "y", "z")], "'a'.*twice.* text, a, a"),
        ([("text", "intent")], "no item"),
        ([("text", "intent"), ("x", "y"), ("z", "w")], "no class has two.*'split'"),
    ],
)  # fmt: skip
def test_what_is_refused(rows: list[tuple[str, ...]], message: str, tmp_path: Path) -> None:
    with pytest.raises(RinceError, match=message):
        load_texts(write_table(tmp_path / "a.csv", rows))


def test_labels_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(RinceError, match="'topic', 'x'.*text, domain, "):
        load_texts(write_table(tmp_path / "a.csv", [HEADER, *ROWS]), labels=["topic", "x"])


def test_bad_lines_of_jsonl_are_named(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    good = '{"text": "a", "label": "b"}\n\n'
    for bad, message in (
        ('{"text": "a"', "line 3 is not JSON: "),
        ('["a", "b"]', "line 3: expected an object of names and plain values, such as .*got"),
        ('{"text": ["a"], "label": "b"}', "line 3: expected an object"),
    ):
        file.write_text(good + bad + "\n")
        with pytest.raises(RinceError, match=message):
            text_column(file, "text")
    file.write_text(good + '{"text": 5, "other": 1.5}')
    assert text_column(file, "text") == ["a", "5"]
    with pytest.raises(RinceError, match=r"texts.*none\.csv"):
        text_column(tmp_path / "none.csv", "text")


def test_of_two_test_splits_the_first_is_used(tmp_path: Path) -> None:
    rows = [*ROWS, ("bye", "", "greeting", "val")]
    with pytest.warns(RinceWarning, match="val and test: val"):
        _, test = texts_of(load_texts(write_table(tmp_path / "a.csv", [HEADER, *rows])))
    assert test.texts == ("bye",)


def test_texts_of_both_sides_or_of_two_classes_are_named(tmp_path: Path) -> None:
    again = [("hello", "", "greeting", "test"), ("send cash", "bank", "balance", "train")]
    table = write_table(tmp_path / "a.csv", [HEADER, *ROWS, *again])
    with pytest.warns(RinceWarning) as caught:
        load_texts(table)
    shown = "\n".join(str(x.message) for x in caught)
    assert "1 of 3 test texts are training texts too, such as 'hello'" in shown
    assert "two classes (1), such as 'send cash', bank/transfer and bank/balance" in shown


def test_a_text_that_is_also_of_a_class_of_the_test_alone(tmp_path: Path) -> None:
    again = [
        ("hello", "", "farewell", "test"),
        ("ciao", "", "x", "test"),
        ("ciao", "", "y", "test"),
    ]
    with pytest.warns(RinceWarning) as caught:
        load_texts(write_table(tmp_path / "a.csv", [HEADER, *ROWS, *again]))
    shown = "\n".join(str(x.message) for x in caught)
    assert "two classes (2), such as 'hello', greeting and farewell" in shown


def test_labels_are_one_class_for_each_text() -> None:
    tree, tokens = Taxonomy([("x",), ("y",)]), torch.zeros(3, 0, dtype=torch.int64)
    for labels, message in (([0, 1], "3 items.*(2,)"), ([0, 1, 7], "hold 7")):
        with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
            Texts(tuple("abc"), tokens, torch.tensor(labels), tree, "mine")


def test_batches(tmp_path: Path) -> None:
    tree = Taxonomy([("x",), ("y",)])
    tokens = torch.arange(10).view(5, 2)
    texts = Texts(tuple("abcde"), tokens, torch.tensor([0, 1, 0, 1, 1]), tree, "mine")
    found = list(eval_batches(texts, 2))
    assert [len(part) for part, _ in found] == [2, 2, 1]
    assert torch.equal(torch.cat([part for part, _ in found]), tokens)
    assert torch.cat([labels for _, labels in found]).tolist() == [0, 1, 0, 1, 1]
    some = texts.subset([3, 1])
    assert (some.texts, some.tokens.tolist(), some.labels.tolist()) == (
        ("d", "b"), [[6, 7], [2, 3]], [1, 1],
    )  # fmt: skip
    (batch,) = TrainLoader(texts, BatchPlan(5, 4, seed=0), augment="later")
    assert len(batch.views) == 2
    for view in batch.views:
        assert torch.equal(view, tokens[batch.indices])
    assert torch.equal(batch.labels, texts.labels[batch.indices])


def test_clinc(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "clinc150"
    if not folder.is_dir():
        pytest.skip(f"CLINC150 is not at {folder}")
    script = Path(__file__).parents[2] / "experiments" / "text" / "to_csv.py"
    known, odd = tmp_path / "clinc.csv", tmp_path / "odd.csv"
    runpy.run_path(str(script))["write_tables"](folder, known, odd)
    train, test = texts_of(load_texts(known, per_class=10, test_per_class=5, drop_duplicates=True))
    assert train.labels.bincount().tolist() == [10] * 150
    assert test.labels.bincount().tolist() == [5] * 150
    groups, names = train.taxonomy.labels_at(2), train.taxonomy.group_names(2)
    domains = json.loads((folder / "domains.json").read_text())
    assert set(names) == set(domains)
    intent_of = dict(json.loads((folder / "data_full.json").read_text())["train"])
    for text, label in zip(train.texts, train.labels.tolist(), strict=True):
        assert train.taxonomy.classes[label] == intent_of[text]
        assert intent_of[text] in domains[names[int(groups[label])]]
    assert len(load_outliers(str(odd), train, TrainConfig("x"))) == 1000
