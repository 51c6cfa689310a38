"""Options as people write them: by hand in YAML, on the command line, in Python."""

from __future__ import annotations

import contextlib
import math
import re
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import date
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from rince.cli.parser import nested
from rince.cli.train import parse_with_seeds
from rince.core.checks import RinceError
from rince.core.options import Options, expected, from_plain, limited, near_words, taken
from rince.data.options import ImageOptions, TableOptions
from rince.evaluation.options import EvaluationOptions
from rince.training.config import TrainConfig, to_dict
from rince.training.folder import CONFIG_FILE, config_yaml, plain_yaml, read_config

# What a person writes -> the field, and what it means.
MEANT = [
    ("optim: {lr: 1e-3}", "optim.lr", 0.001),
    ("optim: {lr: '0.5'}", "optim.lr", 0.5),
    ("optim: {lr: ~, clip: null}", "optim.lr", None),
    ("optim:", "optim.lr", None),
    ("optim: {lr: 1}", "optim.lr", 1),
    ("name: 007", "name", "007"),
    ("name: 2024-05-01", "name", "2024-05-01"),
    ("name: 1e5", "name", "1e5"),
    ("name: no", "name", "no"),
    ("name:", "name", None),
    ("name: None", "name", None),
    ("devices: 2", "devices", "2"),
    ("seed: '7'", "seed", 7),
    ("images: {cache: yes}", "images.cache", True),
    ("images: {cache: 'Off'}", "images.cache", False),
    ("images: {cache: None}", "images.cache", None),
    ("loss: {temperatures: [0.1, 1e-1]}", "loss.temperatures", (0.1, 0.1)),
    ("text: {labels: [007, no, 'a, b']}", "text.labels", ("007", "no", "a, b")),
    ("loss: {temperatures: 0.1}", "loss.temperatures", (0.1,)),
    ("loss: {temperatures: '0.1, 1e-1'}", "loss.temperatures", (0.1, 0.1)),
    ("text: {labels: intent}", "text.labels", ("intent",)),
    ("text: {labels: 'area,issue'}", "text.labels", ("area", "issue")),
    ("ranks: {by: time, near: []}", "ranks.near", ()),
]

REFUSED = [
    ("optim: {lr: fast}", "optim.lr must be a number, .*'fast'"),
    ("optim: {lr: [0.1]}", r"optim.lr must be a number, .*'0.1'"),
    ("epochs: 1.5", "epochs must be a whole number, .*1.5"),
    ("epochs: ~", "epochs must be a whole number, .*None"),
    ("epochs: yes", "epochs must be a whole number, .*'yes'"),
    ("loss: {temperatures: [a, 2]}", "loss.temperatures must be a list .*'a'"),
    ("images: {cache: maybe}", "images.cache must be true or false .*'maybe'"),
    ("loss: 3", "loss must be a group of options, got '3'"),
    ("optim: 0.1", "optim must be a group of options.*'0.1'"),
    ("optim: [1]", "optim must be a group of options.*'1'"),
    ("images: {root: {a: b}}", "images.root must be text.*{'a': 'b'}"),
    ("los: {}", "los.* did you mean .*loss"),
]

OUT_OF_RANGE = [
    ("optim", {"final_lr_ratio": -3.0}),
    ("optim", {"final_lr_ratio": 1.5}),
    ("optim", {"weight_decay": -1e-4}),
    ("optim", {"clip": 0.0}),
    ("optim", {"clip": -1.0}),
    ("optim", {"lr": math.inf}),
    ("optim", {"lr": math.nan}),
    ("optim", {"warmup_epochs": -1}),
    ("loss", {"temperatures": ()}),
    ("loss", {"margin": math.inf}),
    ("loss", {"variant": ["in"]}),
    ("ranks", {"by": "time", "near": (20, 5)}),
    ("ranks", {"by": "time", "near": (-5,)}),
    ("ranks", {"by": "time", "unit": "fraction", "near": (2,)}),
    ("ranks", {"scores": "text", "top_k": (0,)}),
    ("ranks", {"scores": "text", "thresholds": (0.1, 0.9)}),
    ("model", {"embedding_dim": 0}),
    ("images", {"image_size": 4}),
    ("images", {"workers": -1}),
    ("images", {"per_class": 0}),
    ("videos", {"frames": 0}),
    ("videos", {"hop": 0}),
    ("videos", {"cache_gb": -1}),
    ("videos", {"split": 9}),
    ("text", {"layers": -1}),
    ("text", {"max_tokens": 0}),
    ("batches", {"images_per_class": 2.5}),
    ("", {"knn_every": -1}),
    ("", {"seed": -1}),
    ("", {"seed": "x"}),
    ("", {"epochs": True}),
    ("", {"batch_size": None}),
    ("", {"name": "../x"}),
    ("", {"name": "/x"}),
    ("", {"data": ""}),
    ("", {"data": None}),
    ("", {"loss": {"variant": "in"}}),
    ("", {"loss": None}),
]


def _value(config: TrainConfig, name: str) -> Any:
    group, _, option = name.rpartition(".")
    return getattr(getattr(config, group) if group else config, option)


@pytest.mark.parametrize(("text", "name", "meant"), MEANT)
def test_a_file_means_what_a_person_means(text: str, name: str, meant: Any, tmp_path: Path) -> None:
    """An edited config.yaml of a run, and a recipe given with --config, alike."""
    (tmp_path / CONFIG_FILE).write_text(f"data: photos\n{text}\n")
    for config in (
        read_config(tmp_path),
        parse_with_seeds(["--config", str(tmp_path / CONFIG_FILE)])[0],
    ):
        config.check_values()
        assert _value(config, name) == meant
        assert isinstance(_value(config, name), bool) == isinstance(meant, bool)


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_a_file_that_means_nothing_names_the_field(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / CONFIG_FILE
    file.write_text(f"data: photos\n{text}\n")
    with pytest.raises(RinceError, match=message) as refused:
        read_config(tmp_path)
    assert str(file) in str(refused.value)
    with pytest.raises(SystemExit):
        parse_with_seeds(["--config", str(file)])
    error = capsys.readouterr().err
    assert "Subtypes" not in error
    assert "<class" not in error


def _all_fields(cls: Any = TrainConfig, prefix: str = "") -> dict[str, Any]:
    """Name -> its annotation, of all fields of the configuration, and of all groups."""
    found: dict[str, Any] = {}
    for name, hint in get_type_hints(cls).items():
        if name != "prefix":
            found[prefix + name] = hint
            if isinstance(hint, type) and is_dataclass(hint):
                found |= _all_fields(hint, f"{prefix}{name}.")
    return found


# What people write for any field -> what it means to one of text, of a whole number, of a number,
# of yes or no, of a list of numbers and of texts; absent: it means nothing there.
WRITTEN: dict[str, dict[Any, Any]] = {
    "1e-3": {str: "1e-3", float: 0.001},
    "1e1": {str: "1e1", float: 10.0, int: 10},
    "'2'": {str: "2", float: 2, int: 2},
    "2.0": {str: "2.0", float: 2.0, int: 2},
    "0123": {str: "0123", float: 123, int: 123},
    "1.5": {str: "1.5", float: 1.5},
    "yes": {str: "yes", bool: True},
    "off": {str: "off", bool: False},
    "'No'": {str: "No", bool: False},
    "true": {str: "true", bool: True},
    "2024-05-01": {str: "2024-05-01"},
    "12:30:00": {str: "12:30:00"},
    "0x10": {str: "0x10"},
    "fast": {str: "fast"},
    ".nan": {str: ".nan"},
    "[2, 1e1]": {
        tuple[float, ...]: (2, 10.0),
        tuple[int, ...]: (2, 10),
        tuple[str, ...]: ("2", "1e1"),
    },
    "[a, 012]": {tuple[str, ...]: ("a", "012")},
    "[[1]]": {},
    "[~]": {},
    "{a: 1}": {},
    "''": {},
    "' '": {},
}
NONE = ("~", "null", "None", "")


def _texts_for(name: str) -> list[str]:
    """All, for the first field of its type; for the others a quarter, in turns."""
    texts, fields = [*WRITTEN, *NONE], _all_fields()
    alike = [other for other, hint in fields.items() if hint == fields[name]]
    place = alike.index(name)
    return texts if place == 0 else texts[place % 4 :: 4]


@pytest.mark.parametrize("name", _all_fields())
def test_what_people_write_for_any_field(name: str, tmp_path: Path) -> None:
    """It is what they mean, or refused by the field's name with what was expected."""
    hint = _all_fields()[name]
    kinds = (
        [kind for kind in get_args(hint) if kind is not NoneType]
        if NoneType in get_args(hint)
        else [hint]
    )
    kind, optional = kinds[0], kinds[0] is not hint
    is_group, is_word = is_dataclass(kind), get_origin(kind) is Literal
    group, _, option = name.rpartition(".")
    file = tmp_path / CONFIG_FILE
    for text in _texts_for(name):
        entry = f"{option}: {text}\n"
        data = "" if name == "data" else "data: photos\n"
        file.write_text(data + (f"{group}:\n  {entry}" if group else entry))
        meanings = {} if is_word or is_group else dict(WRITTEN.get(text, {}))
        for element in [x for x in meanings if isinstance(x, type)]:
            meanings[tuple[element, ...]] = (meanings[element],)  # one value is a list of one
        known = kind in meanings
        means = meanings.get(kind)
        try:
            config = read_config(tmp_path)
        except RinceError as refused:
            message = str(refused)
        else:
            value = _value(config, name)
            if known or (text in NONE and (optional or is_group)):
                assert is_group or (value == means and type(value) is type(means)), text
                with contextlib.suppress(ValueError):  # out of range, or not with the others
                    config.check_values()
                continue
            with pytest.raises(ValueError) as wrong:
                config.check_values()
            message = str(wrong.value)
        assert not known, (text, message)
        assert name in message, (text, message)
        assert re.search(r"must be|there is no option", message), (text, message)
        assert not re.search(r"Union|<class|typing|NoneType|Subtypes", message), (text, message)


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("optim: {lr: 0.1, lr: 0.2}", "lr is given twice"),
        ("epochs: 3\nepochs: 30", "epochs is given twice"),
        ("optim: {epochs: 3}", "optim.epochs"),
        ("lr: 0.1", "no option lr"),
        ("- a\n- b", "damaged"),
        ("[" * 5000, "damaged"),
        ("epochs: !!python/name:os.system ''", "damaged"),
    ],
)
def test_files_that_are_no_configuration(text: str, fact: str, tmp_path: Path) -> None:
    (tmp_path / CONFIG_FILE).write_text(("" if text[0] in "-[" else "data: photos\n") + text)
    with pytest.raises(RinceError, match=fact) as refused:
        read_config(tmp_path)
    assert str(tmp_path / CONFIG_FILE) in str(refused.value)


@pytest.mark.parametrize(("group", "options"), OUT_OF_RANGE)
def test_what_cannot_be_is_refused_by_its_name(group: str, options: dict[str, Any]) -> None:
    if group:  # building never fails
        default = getattr(TrainConfig("photos"), group)
        config = TrainConfig("photos", **{group: replace(default, **options)})
    else:
        config = TrainConfig(**{"data": "photos", **options})
    name = ".".join([*([group] if group else []), [*options][-1]])
    with pytest.raises(ValueError, match=f"^{name} "):
        config.check()


@pytest.mark.parametrize("change", [{"knn_k": "five"}, {"near": math.nan}, {"probe_epochs": 1.5}])
def test_an_evaluation_is_refused_when_it_is_checked(change: dict[str, Any]) -> None:
    options = EvaluationOptions(**change)
    with pytest.raises(ValueError, match=f"^{next(iter(change))} "):
        options.check()


def test_python_gives_paths_lists_and_numpy_numbers() -> None:
    options = {"lr": np.float32(0.5), "clip": "1"}
    config = from_plain(TrainConfig, {"data": Path("a/photos"), "optim": options})
    config.loss.temperatures = [0.1, 0.2]  # type: ignore[assignment]
    config = replace(config, epochs=np.int64(3))
    config.check()
    assert config.run_name() == "photos-rince-out-in-seed0"
    assert yaml.safe_load(yaml.safe_dump(to_dict(config)))["optim"]["lr"] == 0.5


@dataclass
class Window(Options):
    """With an option that has no default, and lists of each kind."""

    prefix = "window."

    length: int
    sides: tuple[float, ...] = limited((1.0,), low=0)
    some: tuple[float, ...] = limited((1.0,), shortest=1)
    names: tuple[str, ...] = ()
    spaces: tuple[Literal["embedding", "backbone"], ...] = ()


def test_an_option_without_a_default_is_asked_for() -> None:
    assert from_plain(Window, {"length": 3}).length == 3
    with pytest.raises(ValueError, match=r"window\.length is missing"):
        from_plain(Window, {"sides": [1]}, "window.")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("length", "a whole number"),
        ("sides", "a list of numbers, at least 0, as [1, 2]"),
        ("some", "a list of one or more numbers, as [1, 2]"),
        ("names", "a list of texts, as [a, b]"),
        ("spaces", "a list of embedding, backbone"),
    ],
)
def test_what_an_option_takes_in_words(name: str, words: str) -> None:
    (option,) = (x for x in fields(Window) if x.name == name)
    assert expected(get_type_hints(Window)[name], option.metadata) == words


def test_words_that_are_near_are_named() -> None:
    assert near_words(Literal["weak", "strong"], "week") == ": did you mean weak?"
    assert near_words(Literal["weak", "strong"] | None, "week") == ": did you mean weak?"
    assert near_words(tuple[float, ...], "<class 'float'>") == ""
    words = tuple[Literal["weak", "strong"], ...]
    assert near_words(words, ["strong", "week"]) == ": did you mean weak?"
    assert near_words(words, ("strong", "week")) == ": did you mean weak?"
    assert near_words(words, "week") == ": did you mean weak?"
    many = Literal["weak1", "weak2", "weak3", "weak4"]
    assert near_words(many, "weak").count("weak") == 3  # the nearest three


@pytest.mark.parametrize(
    ("kind", "given", "meant"),
    [
        (int, True, True),
        (float, False, False),
        (int, "7", 7),
        (int, "7.0", 7),
        (int, 1e3, 1000),
        (float, np.float32(0.5), 0.5),
        (str, Path("a/b"), "a/b"),
        (str, 7, "7"),
        (str, 0.5, "0.5"),
        (str, date(2024, 5, 1), "2024-05-01"),
        (bool, "No", False),
        (bool, "TRUE", True),
        (tuple[int, ...], "1, 2", (1, 2)),
        (tuple[int, ...], 3, (3,)),
        (tuple[float, ...], (1, "2.5"), (1, 2.5)),
        (tuple[str, ...], [1, "a"], ("1", "a")),
        (int | None, None, None),
        (Literal["weak", "strong"], "weak", "weak"),
    ],
)
def test_values_are_taken_as_the_type_that_they_mean(kind: Any, given: Any, meant: Any) -> None:
    if isinstance(given, bool) and kind is not bool:
        with pytest.raises(ValueError, match=f"number.*{given}"):
            taken("--size", kind, given)
        return
    found = taken("--size", kind, given)
    assert found == meant
    assert type(found) is type(meant)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (int, "7.5"),
        (int, None),
        (float, "inf"),
        (float, "nan"),
        (float, "much"),
        (str, "  "),
        (bool, "maybe"),
        (bool, 1),
        (int, [1]),
        (tuple[int, ...], [1, "b"]),
        (tuple[int, ...], {"a": 1}),
        (Literal["weak", "strong"], "week"),
    ],
)
def test_what_a_type_cannot_mean_is_refused_as_it_was_given(kind: Any, given: Any) -> None:
    with pytest.raises(ValueError, match="--size must be ") as error:
        taken("--size", kind, given)
    shown = str(error.value).partition("got ")[2]
    assert all(word in shown for word in re.findall(r"[\w.]+", str(given)) or [repr(given)])


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
@example("None")
@example("null")
@example("~")
@example("true")
@example("1e3")
@example("1_000")
@example("2024-05-01")
@example("=")
def test_any_name_is_read_back_as_it_was_written(name: str) -> None:
    table = TableOptions(column=name, labels=(name, "b"), encoding=name)
    config = TrainConfig("photos", name=name, table=table, images=ImageOptions(root=name))
    text = config_yaml(config)
    assert from_plain(TrainConfig, plain_yaml(text)) == config
    assert yaml.safe_load(text)["table"]["column"] == name  # as other programs read it


def test_none_is_written_as_the_help_says() -> None:
    config = parse_with_seeds(
        ["x", "--name", "None", "--images.cache=None", "--model.backbone", "None"]
    )[0]
    assert (config.name, config.images.cache, config.model.backbone) == (None, None, None)


def test_words_for_none_and_numbers_that_are_names(tmp_path: Path) -> None:
    """In quotes they are names, in a file as on the command line; no text becomes a number."""
    file = tmp_path / "recipe.yaml"
    for word in ("None", "null", "~", "true", "no", "1e3", "007", "1_000", "2024-05-01", ".nan"):
        file.write_text(f"table: {{column: '{word}', labels: ['{word}', b], encoding: '{word}'}}\n")
        quoted = [f"'{word}'", f'"{word}"'] if word in NONE else [word]
        flags = [[f"--table.{name}={x}" for name in ("column", "encoding")] for x in quoted]
        for options in (["--config", str(file)], *flags):
            table = parse_with_seeds(["x", *options, "--table.labels", word, "b"])[0].table
            assert (table.column, table.encoding) == (word, word)
            assert table.labels == (word, "b")
        assert parse_with_seeds(["x", "--config", str(file)])[0].table.labels == (word, "b")
        for option in (f"--table.labels='{word}'", f"--table.labels=['{word}']"):
            assert parse_with_seeds(["x", option])[0].table.labels == (word,)


def test_whole_numbers_that_are_written_as_floats(tmp_path: Path) -> None:
    """The same in a file, in a run's folder and on the command line."""
    file = tmp_path / CONFIG_FILE
    file.write_text(
        "data: photos\nepochs: 2.0\nbatch_size: '8.0'\nseed: 1e1\n"
        "ranks: {scores: text, top_k: [3.0, 2]}\nimages: {image_size: 3.2e1}\n"
    )
    flags = ["--epochs=2.0", "--batch_size", "8.0", "--seed", "1e1", "--ranks.scores", "text"]
    flags += ["--ranks.top-k", "3.0,2", "--images.image-size", "3.2e1"]
    for config in (
        read_config(tmp_path),
        parse_with_seeds(["--config", str(file)])[0],
        parse_with_seeds(["photos", *flags])[0],
    ):
        values = config.epochs, config.batch_size, config.seed, config.images.image_size
        assert (*values, config.ranks.top_k) == (2, 8, 10, 32, (3, 2))
        assert {*map(type, (*values, *(config.ranks.top_k or ())))} == {int}


@pytest.mark.parametrize(("value", "shown"), [("2.5", "2.5"), ("two", "'two'"), ("2,3", "'2,3'")])
def test_what_is_no_whole_number(
    value: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse_with_seeds(["photos", "--epochs", value])
    assert f"--epochs must be a whole number, got {shown}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", "two"),
        ("batch_size", " "),
        ("micro_batch", "2.5"),
        ("loss.temperatures", "a, 2"),
        ("loss.variant", "outin"),
    ],
)
def test_one_refusal_of_the_command_line_a_file_and_python(
    name: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """But for a range, which the command line and a file do not look at."""
    plain = nested({"data": "photos", name: value})
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(plain))
    said = []
    for words in ([f"--{name}", value], ["--config", str(tmp_path / "recipe.yaml")]):
        with pytest.raises(SystemExit):
            parse_with_seeds(["photos", *words])
        said.append(capsys.readouterr().err.splitlines()[0])
    with pytest.raises(ValueError, match=f"^{re.escape(name)} must be") as refused:
        from_plain(TrainConfig, plain).check()
    expected, got = str(refused.value).split(", got ")
    limits = r", (at least|above) [\d.e+-]+( and at most [\d.e+-]+)?"
    expected = re.sub(rf"{limits}|(?<= of) one or more", "", expected)
    assert {*said} == {f"--{expected}, got {got}"}


@pytest.mark.parametrize("value", ["a,2", "[a, 2]"])
def test_a_list_is_asked_for_in_one_line(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--ranks.near", "--loss.temperatures"):
        with pytest.raises(SystemExit):
            parse_with_seeds(["x", option, value])
        first, *rest = capsys.readouterr().err.splitlines()
        assert option in first
        assert "[1, 2]" in first
        assert len(rest) == 1


def test_the_help_shows_lists_as_they_are_given(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_with_seeds(["--help"])
    shown = capsys.readouterr().out
    assert "(default: [10.0])" in shown
    assert "(default: (" not in shown


def test_what_is_set_later_is_taken_as_it_is_meant() -> None:
    config = TrainConfig("photos")
    config.loss.temperatures = [0.1, 0.2]  # type: ignore[assignment]
    config.optim.lr = "1e-3"  # type: ignore[assignment]
    config.images.root = Path("a")  # type: ignore[assignment]
    config.check()
    assert (config.loss.temperatures, config.optim.lr) == ((0.1, 0.2), 1e-3)
    assert config.images.root == "a"
    config.loss.temperatures = ["warm"]  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"loss\.temperatures must be a list.*warm"):
        config.check()


def test_a_misspelled_option_that_was_set_in_python_is_refused() -> None:
    """Python takes any attribute, and the run would be one with the default."""
    config = TrainConfig("photos/")
    config.batchsize = 16  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"no option batchsize: .*batch_size"):
        config.check()
    config = TrainConfig("photos/")
    config.loss.varient = "in"  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"no option loss\.varient: .*loss\.variant"):
        config.check()
