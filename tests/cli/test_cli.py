"""The command line as a user meets it."""

from __future__ import annotations

import ast
import io
import json
import math
import os
import re
import shutil
import struct
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import rince
from refusals import refusal
from rince import RinceWarning, Similarity
from rince.cli.evaluate import named_outliers
from rince.cli.main import VERBS, main
from rince.cli.parser import HelpfulParser
from rince.cli.train import parse_with_seeds
from rince.core.checks import RinceError
from rince.core.input_spec import InputSpec
from rince.evaluation.results import load_evaluation
from rince.training.checkpoint import CHECKPOINT_FILE, CHECKPOINT_KEY, load_run
from rince.training.config import ImageOptions, OptimOptions, RankOptions, TrainConfig, to_dict
from rince.training.folder import ABOUT_FILE, config_yaml
from rince.training.ranks import training_ranks
from rince.training.run import train
from video_files import write_video


def test_help_imports_nothing_heavy() -> None:
    """What keeps `rince --help` under a second: torch and its kin stay out."""
    code = (
        "import sys; from rince.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'lightning', 'torchvision', 'sklearn', 'matplotlib', 'timm'}"
        " & set(sys.modules)))"
    )
    verbs = ("train", "tune", "evaluate", "ranks", "export", "embed", "index", "search")
    for arguments in (["--help"], *([verb, "--help"] for verb in verbs)):
        result = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
        )
        assert result.stdout.splitlines()[-1] == "[]", arguments
        assert "usage: rince" in result.stdout


def test_flags_file_and_defaults(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("epochs: 7\nloss:\n  variant: in\nmodel:\n  momentum: 0.9\n")
    config = parse_with_seeds(
        ["photos/", "--config", str(recipe), "--loss.temperatures", "[0.2, 0.4]", "--seed", "3"]
    )[0]
    assert isinstance(config, TrainConfig)
    assert (config.data, config.epochs, config.seed) == ("photos/", 7, 3)
    assert (config.loss.variant, config.loss.temperatures) == ("in", (0.2, 0.4))
    assert config.model.momentum == 0.9
    assert config.batch_size == TrainConfig(data="").batch_size


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--variant", "in"], "--loss.variant"),
        (["--loss.varian", "in"], "--loss.variant"),
        (["--epoch", "3"], "--epochs"),
        (["--optim.epochs", "3"], "--epochs"),
        (["--levels", "a,b"], "--table.labels?"),
        (["--loss.variant", "inn"], "--loss.variant"),
        (["--epochs", "many"], "--epochs"),
    ],
)
def test_a_wrong_option_is_an_error_with_a_suggestion(
    arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["train", "photos/", *arguments])
    assert stopped.value.code == 2
    assert hint in capsys.readouterr().err


def test_what_other_tools_call_a_verb(capsys: pytest.CaptureFixture[str]) -> None:
    for word, verb in (("report", "compare"), ("evalute", "evaluate")):
        assert main([word, "runs/a"]) == 2
        assert f"did you mean `rince {verb}`?" in capsys.readouterr().err


def test_a_wrong_option_of_a_file_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("optim:\n  epochs: 3\n")
    with pytest.raises(SystemExit):
        main(["train", "photos/", "--config", str(recipe)])
    shown = capsys.readouterr().err
    assert "--optim.epochs" in shown
    assert "--epochs?" in shown


def test_data_in_the_wrong_place(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--epochs", "2", "photos/"])
    assert "rince train photos/" in capsys.readouterr().err


def test_flags_win_over_the_file_wherever_it_stands(tmp_path: Path) -> None:
    recipe, more = tmp_path / "recipe.yaml", tmp_path / "more.yaml"
    recipe.write_text("data: birds/\nepochs: 7\nseed: 5\n")
    more.write_text("seed: 6\n")
    for given in (
        ["photos/", "--epochs", "3", "--config", str(recipe)],
        ["photos/", "--epochs=3", f"--config={recipe}"],
        ["--config", str(recipe), "photos/", "--epochs", "3"],
        [f"--config={recipe}", "photos/", "--epochs", "3"],
        ["--epochs", "3", "--config", str(recipe), "--data", "photos/"],
    ):
        config = parse_with_seeds(given)[0]
        assert (config.data, config.epochs, config.seed) == ("photos/", 3, 5), given
    assert parse_with_seeds(["--config", str(recipe)])[0].data == "birds/"
    both = parse_with_seeds(["--config", str(recipe), "--config", str(more)])[0]
    assert (both.epochs, both.seed) == (7, 6)


def test_a_file_takes_what_the_command_line_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("data: x\nseeds: [0, 7]\nbatch-size: 8\nlabels: a.csv\nimages.per-class: 3\n")
    config, seeds = parse_with_seeds(["--config", str(recipe)])
    assert (config.batch_size, config.images.per_class, seeds) == (8, 3, (0, 7))
    assert config.vectors.labels == "a.csv"
    assert parse_with_seeds(["--config", str(recipe), "--seeds", "1"])[1] == (1,)
    with pytest.raises(ValueError, match="--seeds 0 7 and --seed 3"):
        parse_with_seeds(["--config", str(recipe), "--seed", "3"])
    recipe.write_text("data: x\nprint_config: true\n")  # of the command line alone
    with pytest.raises(SystemExit):
        parse_with_seeds(["--config", str(recipe)])
    assert "did you mean --print_config" not in capsys.readouterr().err


def test_data_root_is_another_name(capsys: pytest.CaptureFixture[str]) -> None:
    for given in (["--data-root", "here"], ["--data-root=here"], ["--images.root", "here"]):
        assert parse_with_seeds(["cifar100", *given])[0].images.root == "here"
    with pytest.raises(SystemExit):
        main(["train", "cifar100", "--data-rot", "here"])
    shown = capsys.readouterr().err
    assert "--data_rot " in shown
    assert "--data_root?" in shown


def test_words_that_are_no_option_are_told_their_place(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for given, words in (
        (["train", "a.tar", "b.tar"], "b.tar is one too many: .* quotes"),
        (["embed", "runs/a", "My", "Photos"], "Photos is one too many: .* quotes"),
        (["train", "--epochs", "1", "photos/"], "photos/ must come first: rince train photos/"),
    ):
        with pytest.raises(SystemExit):
            main(given)
        assert re.search(words, capsys.readouterr().err)


def test_a_run_that_goes_on_keeps_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--resume", "runs/a", "--batch-size", "16"])
    shown = capsys.readouterr().err
    assert "--batch_size is not an option" in shown
    assert "keeps its own options" in shown
    assert "leave out --resume to start a new run" in shown


def test_a_folder_for_a_file_and_a_file_for_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = tmp_path / "photo.jpg"
    photo.touch()
    for given in (["train"], ["train", "--resume"], ["evaluate"]):
        assert main([*given, str(photo)]) == 1
        assert f"{photo} is a file, where a folder is expected" in capsys.readouterr().err
    search = ["search", "a", "--gallery", str(tmp_path / "g.npz"), "--run"]
    (tmp_path / "g.npz").mkdir()
    assert main([*search, str(tmp_path)]) == 1
    assert "g.npz is a folder, where a file is expected" in capsys.readouterr().err


@pytest.mark.parametrize("before", [True, False])
def test_data_are_not_given_to_a_run_that_goes_on(
    before: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--resume", "runs/a"]
    given = ["photos/", *given] if before else [*given, "photos/"]
    with pytest.raises(SystemExit) as stopped:
        main(["train", *given])
    assert stopped.value.code == 2
    shown = capsys.readouterr().err
    assert "photos/: " in shown
    assert "rince train --resume runs/a" in shown
    assert "rince train --resume photos/" not in shown


def test_the_examples_of_the_help_keep_their_lines(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("train", "tune", "evaluate", "compare", "export", "embed", "index", "search"):
        with pytest.raises(SystemExit):
            main([verb, "--help"])
        shown = capsys.readouterr().out
        assert "%%" not in shown
        lines = shown.splitlines()
        assert any(line.startswith(f"  rince {verb} ") for line in lines)


def test_options_that_texts_name_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    """In messages, help and docstrings; those of other programs are listed here."""
    foreign = {"nproc_per_node", "nnodes", "nodes", "ntasks_per_node", "keep", "k", "option"}
    known, unknown = {"version"}, []

    def note(parser: HelpfulParser, *_: object, **__: object) -> None:
        known.update(x.removeprefix("--").replace("-", "_") for x in parser._option_string_actions)
        raise SystemExit

    monkeypatch.setattr(HelpfulParser, "parse_args", note)
    for arguments in (*([verb] for verb in VERBS), ["train", "--resume", "x"]):
        with pytest.raises(SystemExit):
            main([*arguments])
    package = Path(rince.__file__).parent
    for file in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for name in re.findall(r"(?<![\w-])--([a-z][a-z0-9._-]*[a-z0-9])", node.value):
                    if name.replace("-", "_") not in known | foreign:
                        unknown.append(f"{file.relative_to(package)}:{node.lineno}: --{name}")
    assert not unknown


def test_an_unknown_entry_of_a_file_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("loss:\n  out_in: true\n")
    with pytest.raises(SystemExit) as stopped:
        main(["train", "photos/", "--config", str(recipe)])
    assert stopped.value.code == 2
    assert "out_in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verb", "recipe", "said"),
    [
        ("train", "tune: {trials: 3}", "--tune.trials is not an option: `rince tune` has --trials"),
        ("train", "trials: 3", "--trials is not an option: `rince tune` has --trials"),
        ("tune", "tune: {trials: 3}", "--tune.trials is not an option: did you mean --trials?"),
        ("train", "optimizer: {lr: 1}", "--optimizer.lr is not an option: did you mean --optim.lr"),
        ("train", "tune: 3", "--tune is not an option\n"),  # nothing is called nearly so
        ("train", "tune: {}", "--tune is not an option\n"),
        ("train", "name: {a: 3}", "--name must be text"),
    ],
)
def test_a_group_of_a_file_that_is_none(
    verb: str, recipe: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.yaml").write_text(recipe)
    with pytest.raises(SystemExit):
        main([verb, "photos/", "--config", str(tmp_path / "recipe.yaml")])
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("batch_size: 8\nbatch-size: 16", "batch_size and batch-size are one option"),
        ("loss: {variant: in}\nloss.variant: out", "loss.variant is given twice"),
        ("labels: a.csv\nvectors: {labels: b.csv}", "labels and vectors.labels are one option"),
        ("loss: {step_width: 1, step-width: 2}", "loss.step_width and loss.step-width are one"),
    ],
)
@pytest.mark.parametrize("verb", ["train", "tune"])
def test_an_option_in_two_spellings_is_given_twice(
    verb: str, recipe: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.yaml").write_text(recipe)
    with pytest.raises(SystemExit) as stopped:
        main([verb, "photos/", "--config", str(tmp_path / "recipe.yaml")])
    assert stopped.value.code == 2
    assert f"recipe.yaml: {said}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verb", "option", "near"),
    [
        ("ranks", "--ranks", "--by"),  # as `rince train` has it
        ("ranks", "--ranks.by", "--by"),
        ("ranks", "--rank.top-k", "--top_k"),
        ("ranks", "--images.root", "--data_root"),
        ("check", "--images.root", "--data_root"),
        ("ranks", "--vectors.labels", "--table.labels or --labels"),  # not text.labels, the older
        ("train", "--text.lables", "--table.labels or --vectors.labels"),
        ("train", "--image.image-sise", "--images.image_size"),
        ("train", "--temperatres", "--loss.temperatures"),
        ("check", "--images.drop-duplicates", None),  # was --images.bits
    ],
)
def test_the_nearest_option_of_a_verb_is_named(
    verb: str, option: str, near: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([verb, "photos/", option, "x"])
    hint = f": did you mean {near}?" if near else ""
    assert f"{option.replace('-', '_').replace('__', '--')} is not an option{hint}\n" in (
        capsys.readouterr().err
    )


def test_a_missing_option_is_named_as_it_is_typed(capsys: pytest.CaptureFixture[str]) -> None:
    for verb, name in (("search", "--gallery"), ("index", "--output")):
        with pytest.raises(SystemExit):
            main([verb, "a"])
        assert name in capsys.readouterr().err


def test_an_unknown_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert "`rince train`" in capsys.readouterr().err


def test_ranks_of_a_folder(image_tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ranks", str(image_tree), "--names"]) == 0
    shown = capsys.readouterr().out
    assert "classes: 4, ranks: 2" in shown
    assert "warm > orange" in shown


def test_ranks_of_scores(
    image_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["orange", "red", "green", "blue"]
    scores = [[1.0, 0.8, 0.3, 0.2], [0.8, 1.0, 0.1, 0.4], [0.3, 0.1, 1.0, 0.6], [0.2, 0.7, 0.6, 1]]
    file = tmp_path / "scores.csv"
    Similarity.from_matrix(scores, names).to_csv(file)
    given = ["ranks", str(image_tree), "--scores", str(file)]
    assert main([*given, "--thresholds", "[0.65, 0.35]", "--save-scores", str(tmp_path / "s")]) == 0
    shown = capsys.readouterr().out
    assert "classes: 4, ranks: 3, by score >= 0.65 (rank 2), 0.35 (rank 3)" in shown
    assert "classes without a rank-2 partner (1): green" in shown
    # By name, not by place: what the folders and the scores disagree on.
    assert "in no common group (2), highest:\n  blue -> red 0.700 (rank 2)" in shown
    assert (tmp_path / "s").read_text().startswith("class,blue,green,orange,red\nblue,1.0,0.6,")
    assert main(given) == 0
    assert "--quantiles [0.95]" in capsys.readouterr().out
    assert main([*given, "--top-k", "[1]", "--quantiles", "[0.5]"]) == 1
    assert "thresholds, ranks.quantiles or" in capsys.readouterr().err


def test_files_that_people_edit_are_not_written_over(
    image_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edited = tmp_path / "mine.csv"
    edited.write_text("hours of work")
    for given in (
        ["table", str(image_tree), "-o", str(edited)],
        ["ranks", str(image_tree), "--scores", str(edited), "--save-scores", str(edited)],
    ):
        assert f"{edited} is there already" in refusal(given, capsys)
        assert edited.read_text() == "hours of work"


def test_what_is_read_is_not_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    files = ["embeddings.npz", "embeddings.csv", "texts.parquet", "run/metrics.csv"]
    for name in files:
        Path(name).write_text("hours of work")
    compare = ["compare", "run", "embeddings.npz"]
    for given, file, option in (
        (["embed", "run", "embeddings.npz"], files[0], "-o"),  # its own default
        (["embed", "run", "texts.parquet", "-o", str(tmp_path / "texts.parquet")], files[2], "-o"),
        ([*compare, "-o", "embeddings.npz"], files[0], "-o"),
        ([*compare, "--csv", "embeddings.csv"], files[1], "--csv"),
        ([*compare, "--markdown", "run/metrics.csv"], files[3], "--markdown"),
    ):
        said = refusal(given, capsys)
        assert f"{file} is read, and would be replaced" in said
        assert f"({option} FILE)" in said
    assert [Path(name).read_text() for name in files] == ["hours of work"] * 4


@pytest.mark.parametrize(
    "given",
    [
        ["embed", "run", "photos", "-o", "d.npz"],
        ["index", "embeddings.npz", "-o", "d.faiss"],
        ["compare", "run", "-o", "d.npz"],
        ["compare", "run", "--csv", "d.npz"],
        ["compare", "run", "--markdown", "d.npz"],
    ],
)
def test_a_folder_for_an_output_is_refused_before_any_work(
    given: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It was refused in the end; here nothing is there that it could work on."""
    monkeypatch.chdir(tmp_path)
    for name in ("d.npz", "d.faiss", "run"):
        Path(name).mkdir()
    assert f"{given[-1]} is a folder, where a file is expected" in refusal(given, capsys)


def test_ranks_of_a_table_of_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("husky", "dog"), ("pug", "dog"), ("manx", "cat")]
    lines = ["\t".join(row) for row in (("class", "superclass"), *rows)]
    (tmp_path / "c.tsv").write_text("\n".join(lines))
    objects = [json.dumps(dict(zip(("class", "superclass"), row, strict=True))) for row in rows]
    (tmp_path / "c.jsonl").write_text("\n".join(objects))
    for name in ("c.tsv", "c.jsonl"):
        assert main(["ranks", str(tmp_path / name), "--batch-size", "32"]) == 0
        assert "classes: 3, ranks: 2" in capsys.readouterr().out
    (tmp_path / "tickets.csv").write_text("body,area\nmy card is lost,card\n")
    for more in ([], ["--table.column", "words"]):
        shown = refusal(["ranks", str(tmp_path / "tickets.csv"), *more], capsys)
        assert "'body' perhaps (table.column)" in shown
    saving = ["--save-scores", str(tmp_path / "s.csv")]
    assert "--scores" in refusal(["ranks", str(tmp_path / "c.tsv"), *saving], capsys)
    assert not (tmp_path / "s.csv").exists()


@pytest.mark.filterwarnings("ignore:.*left out. 1 .jpg")
def test_ranks_of_films_with_a_thumbnail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("av")
    for name in ("run", "walk"):
        (tmp_path / name).mkdir()
        for i in range(2):
            write_video(tmp_path / name / f"{i}.mp4", 12)
    _images(tmp_path, "run/0.jpg")
    for options, count in ((["--videos.per-video", "1"], 2), ([], 6)):
        given = ["ranks", str(tmp_path), "--videos.frames=4", "--videos.stride=1", *options]
        with pytest.warns(RinceWarning, match="4 videos and 1 images"):
            assert main([*given, "--videos.cache-gb", "0", "--batch-size", "2"]) == 0
        assert f"{count} training clips" in capsys.readouterr().out


@pytest.mark.parametrize("given", ["a,b", "[a, b]", "a, b"])
def test_a_list_as_people_type_it(given: str) -> None:
    assert parse_with_seeds(["x.csv", "--text.labels", given])[0].text.labels == ("a", "b")
    assert parse_with_seeds(["x.csv", f"--table.labels={given}"])[0].table.labels == ("a", "b")
    numbers = given.replace("a", "0.1").replace("b", "0.3")
    config = parse_with_seeds(["x/", "--loss.temperatures", numbers])[0]
    assert config.loss.temperatures == (0.1, 0.3)
    assert parse_with_seeds(["x/", "--loss.temperatures", "None"])[0].loss.temperatures is None
    assert parse_with_seeds(["x.csv", "--text.labels", "a"])[0].text.labels == ("a",)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a,b", "c"], ("a", "b", "c")),
        (["a,", "b"], ("a", "b")),
        (["[a,", "b]"], ("a", "b")),  # not quoted in the shell
        (['"a,b", c'], ("a,b", "c")),
        (['["a b", c]'], ("a b", "c")),
        ([""], ()),
        (["it's", "#5"], ("it's", "#5")),
    ],
)
def test_words_of_a_list(words: list[str], expected: tuple[str, ...]) -> None:
    assert parse_with_seeds(["x.csv", "--table.labels", *words])[0].table.labels == expected


def test_negative_numbers_and_what_is_no_list(capsys: pytest.CaptureFixture[str]) -> None:
    below = ["--ranks.thresholds", "0.5", "-1e-1", "--optim.lr", "-1e-3"]
    config = parse_with_seeds(["x/", *below])[0]
    assert (config.ranks.thresholds, config.optim.lr) == ((0.5, -0.1), -0.001)
    for wrong, shown in (("--loss.temperatures=[0.1", "got [0.1\n"), ("--name=", "got ''\n")):
        with pytest.raises(SystemExit):
            parse_with_seeds(["x/", wrong])
        assert shown in capsys.readouterr().err


def test_a_list_of_words_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["x/", "--logger", "wandb", "mlflow", "--loss.temperatures", "0.1", "0.3", "--epochs=1"]
    config, seeds = parse_with_seeds([*given, "--seeds", "0", "7"])
    assert (config.logger, config.loss.temperatures) == (("wandb", "mlflow"), (0.1, 0.3))
    assert (config.epochs, seeds) == (1, (0, 7))
    assert parse_with_seeds(["x/", "--logger=wandb"])[1] is None
    with pytest.raises(SystemExit):
        parse_with_seeds(["x/", "--epochs", "3", "4"])
    with pytest.raises(SystemExit):
        parse_with_seeds(["x/", "--logger", "tensorbord"])
    assert "tensorboard" in capsys.readouterr().err


def test_an_objective_that_is_nearly_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "photos/", "--objective", "supcon"])
    shown = capsys.readouterr().err
    assert "did you mean supcon-in or " in shown
    assert "supcon-out" in shown.partition("did you mean")[2]
    with pytest.raises(ValueError, match="supcon-in or"):
        TrainConfig("photos/", objective="supcon").check()  # type: ignore[arg-type]


def test_photos_at_the_size_of_small_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    for path, size in (("photo/a/1.png", (640, 480)), ("small/a/1.png", (64, 200))):
        (tmp_path / path).parent.mkdir(parents=True)
        Image.new("RGB", size).save(tmp_path / path)
    given = ["--output", str(tmp_path), "--accelerator", "cpu"]
    for name, sized, said in (("photo", [], True), ("small", [], False), ("photo", ["64"], False)):
        sizes = [f"--images.image-size={x}" for x in sized]
        capsys.readouterr()
        # One image is too few to train on: nothing is held out.
        assert main(["train", str(tmp_path / name), *given, *sizes]) == 1
        assert ("640 x 480" in capsys.readouterr().out) == said


def test_score_options_of_a_run() -> None:
    flags = ["--ranks.scores", "text", "--ranks.top-k", "[3, 5]", "--ranks.forget", "0.1"]
    ranks = parse_with_seeds(["photos/", *flags])[0].ranks
    assert (ranks.scores, ranks.top_k, ranks.forget) == ("text", (3, 5), 0.1)
    assert parse_with_seeds(["photos/"])[0].ranks == RankOptions()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ranks", "nowhere/"], "nowhere"),
        (["train", "nowhere/"], "nowhere"),
        (["evaluate", "nowhere/"], "no folder"),
        (["compare", "nowhere/"], "no folder"),
        (["train", "--resume", "nowhere/"], "no folder"),
        (["train", "a.npz", "--labels", "nowhere.csv"], "labels in nowhere.csv: there is no file"),
        (["train", "a.npz", "--labels", "nowhere.npy"], "labels in nowhere.npy: there is no file"),
        (["ranks", "a/", "--scores", "nowhere.csv"], "scores in nowhere.csv: there is no file"),
    ],
)
def test_what_is_not_there_is_named(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", embeddings=np.eye(4))
    _images(tmp_path, *(f"a/{name}/{i}.png" for name in "bc" for i in range(2)))
    assert main(arguments) == 1
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown


def _images(folder: Path, *names: str) -> Path:
    from PIL import Image

    for index, name in enumerate(names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (index * 20 % 256, 90, 10)).save(file)
    return folder


def test_bad_folders_of_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--output", str(tmp_path / "runs"), "--batch-size", "8", "--images.image-size", "16"]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "/empty" in refusal(["train", str(empty), *where], capsys)
    one = _images(tmp_path / "one", *(f"dog/husky/{i}.png" for i in range(12)))
    assert "one class (husky)" in refusal(["train", str(one), *where], capsys)
    names = [f"dog/{name}/{i}.png" for name in ("husky", "malamute") for i in range(12)]
    corrupt = _images(tmp_path / "corrupt", *names)
    (corrupt / "dog" / "husky" / "3.png").write_bytes(b"not a picture")
    shown = refusal(["train", str(corrupt), *where], capsys)
    assert "husky/3.png" in shown
    assert "--skip-unreadable" in shown
    assert not (tmp_path / "runs").exists()
    skipping = ["--skip-unreadable", "--epochs", "1", "--optim.warmup-epochs", "0"]
    with pytest.warns(RinceWarning, match=r"1 of .*husky/3.png"):
        assert main(["train", str(corrupt), *where, *skipping, "--accelerator", "cpu"]) == 0


def test_too_large_a_batch_is_lowered(
    image_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["train", str(image_tree), "--output", str(tmp_path), "--images.image-size", "16"]
    given += ["--epochs", "2", "--accelerator", "cpu", "--model.backbone", "tiny-resnet"]
    with pytest.warns(RinceWarning, match=r"batch_size 256 .*\b76\b"):
        assert main([*given, "--name", "all"]) == 0
    config = load_run(tmp_path / "all").config
    assert (config.batch_size, config.optim.lr) == (76, 0.5 * 76 / 512)
    balanced = ["--batches.images-per-class", "4", "--batches.classes-per-superclass", "2"]
    with pytest.warns(RinceWarning, match=r"lowered to 72\b"):
        assert main([*given, "--name", "balanced", *balanced]) == 0
    # Too few for one group of classes: refused, with the numbers.
    assert "256" in refusal([*given, "--batches.images-per-class", "128"], capsys)


def test_a_start_that_fails_leaves_nothing(
    image_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["train", str(image_tree), "--output", str(tmp_path), "--accelerator", "cpu"]
    for wrong in (
        ["--batches.images-per-class", "128"],
        ["--loss.temperatures", "[0.1, 0.2, 0.3]", "--batch-size", "8"],
        ["--devices", "0", "--batch-size", "8"],
    ):
        assert refusal([*given, *wrong], capsys)
        assert list(tmp_path.iterdir()) == []


def test_many_runs_some_of_which_are_none(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(trained / "run", tmp_path / "run")
    shutil.copytree(trained / "run", tmp_path / "later")
    (tmp_path / "husk").mkdir()
    shutil.copy(run / "config.yaml", tmp_path / "husk")
    (tmp_path / "notes.txt").write_text("mine")
    page = ["-o", str(tmp_path / "report.html")]
    everything = [str(path) for path in tmp_path.iterdir()]
    for verb in ("evaluate", "compare"):  # the folder of the runs, not of one
        assert f"the runs in it are {tmp_path}/*" in refusal([verb, str(tmp_path)], capsys)
    with pytest.warns(RinceWarning, match="left out"):
        assert "evaluate" in refusal(["compare", *everything, *page], capsys)
    with pytest.warns(RinceWarning, match="left out: .*husk"):
        assert main(["evaluate", str(run), str(tmp_path / "husk"), "--verbose", *QUICK]) == 0
    shown = capsys.readouterr().out
    numbers = json.loads((run / "results.json").read_text())["metrics"]
    assert all(f"  {name} " in shown for name in numbers)
    with pytest.warns(RinceWarning, match="left out") as warned:
        assert main(["compare", *everything, *page]) == 0
    said = "\n".join(str(w.message) for w in warned)
    assert all(name in said for name in ("husk", "notes.txt", "later"))
    assert "rince out-in" in capsys.readouterr().out
    with pytest.warns(RinceWarning, match="left out"):
        assert "run" in refusal(["evaluate", str(tmp_path / "husk"), str(tmp_path)], capsys)
    assert "--levels" in refusal(["evaluate", str(run), "--levels", "a,b", *QUICK], capsys)
    # A name that is a mistake is none to be left out.
    assert "nowhere" in refusal(["compare", str(run), str(tmp_path / "nowhere"), *page], capsys)
    assert "nowhere" in refusal(["evaluate", str(run), str(tmp_path / "nowhere"), *QUICK], capsys)
    (run / ABOUT_FILE).unlink()  # written when a training ends
    with pytest.warns(RinceWarning, match="run is not finished.*--resume"):
        assert main(["compare", str(run), *page]) == 0


def test_the_others_are_evaluated_where_one_fails(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without = shutil.ignore_patterns("results.json", "evaluation.npz")
    bad, good = (
        shutil.copytree(trained / "run", tmp_path / name, ignore=without)
        for name in ("bad", "good")
    )
    (bad / CHECKPOINT_FILE).write_bytes(b"cut short")
    np.savez(tmp_path / "none.npz", embeddings=np.eye(4))  # without labels
    given = [str(x) for x in (bad, tmp_path / "none.npz", good)]
    # Names that are mistakes are told before hours of work.
    for name in ("nowhere", "nowhere.npz"):
        assert "there is no f" in refusal(
            ["evaluate", *given, str(tmp_path / name), *QUICK], capsys
        )
    assert not (good / "results.json").exists()
    assert main(["evaluate", *given, *QUICK]) == 1
    shown = capsys.readouterr()
    assert "rince out-in" in shown.out
    assert "retrieval/fine/R@1" in load_evaluation(good).metrics
    assert shown.err.startswith("rince evaluate: 2 of 3 could not be evaluated:\n")
    assert re.search(rf"^  {bad}: .*{CHECKPOINT_FILE} is damaged", shown.err, re.MULTILINE)
    assert re.search(r"^  \S*/none.npz: .*labels", shown.err, re.MULTILINE)
    assert refusal(["evaluate", str(bad), *QUICK], capsys).startswith(f"rince evaluate: {bad}")


def test_data_that_were_moved_are_given_again(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load_run(trained / "run").config
    config.data = str(tmp_path / "gone")
    run = _altered(trained, tmp_path / "run", config=to_dict(config))
    (run / "config.yaml").write_text(config_yaml(config))
    shown = refusal(["evaluate", str(run), *QUICK], capsys)
    assert f"no folder {tmp_path}/gone" in shown
    assert f"moved: rince evaluate {run} --data WHERE." in shown
    assert "evaluate_run(" in shown
    assert main(["evaluate", str(run), "--data", str(trained / "photos"), *QUICK]) == 0
    again = ["train", "--resume", str(run), "--progress", "false"]
    assert f"moved: write where they are to data in {run}/config.yaml." in refusal(again, capsys)
    config.data = str(trained / "photos")
    (run / "config.yaml").write_text(config_yaml(config))
    assert main(again) == 0


def test_the_latest_run_may_be_gone(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, latest = shutil.copytree(trained / "run", tmp_path / "run"), tmp_path / "latest"
    latest.symlink_to("b")
    page, everything = ["-o", str(tmp_path / "report.html")], [str(latest), str(run)]
    said = f"there is no folder {latest}: {latest} is a link to b, which is not there"
    for arguments in (["evaluate", *everything, *QUICK], ["compare", *everything, *page]):
        with pytest.warns(RinceWarning, match=f"left out: {said}"):
            assert main(arguments) == 0
    with pytest.warns(RinceWarning, match=f"left out: {said}"):
        assert len(rince.results(everything)) == 1
    photos, output = str(trained / "photos"), str(tmp_path / "x.npz")
    for arguments in (
        ["evaluate", str(latest), *QUICK],
        ["compare", str(latest), *page],
        ["compare", str(run), "--baseline", str(latest), *page],
        ["export", str(latest)],
        ["embed", str(latest), photos, "-o", output],
        ["train", "--resume", str(latest)],
        ["train", photos, "--model.start-from", str(latest), "--output", str(tmp_path / "runs")],
    ):
        assert said in refusal(arguments, capsys), arguments
    assert "no folder" in refusal(["embed", str(tmp_path / "typo"), photos, "-o", output], capsys)


def _classes(file: Path, *names: str) -> str:
    file.write_text("\n".join(["group,class", *(f"g,{name}" for name in names)]), encoding="utf-8")
    return str(file)


def test_whoever_reads_the_output_may_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = _classes(tmp_path / "classes.csv", *(f"class {i} of many" for i in range(5000)))
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["ranks", table, "--names"]) == 141


def test_output_that_cannot_hold_a_name_shows_it_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = _classes(tmp_path / "classes.csv", "\u65e5", "caf\xe9")
    kept = io.BytesIO()
    with monkeypatch.context() as patch, io.TextIOWrapper(kept, encoding="latin-1") as stream:
        patch.setattr(sys, "stdout", stream)
        assert main(["ranks", table, "--names"]) == 0
        shown = kept.getvalue()
    assert b"\\u65e5" in shown
    assert b"caf\xe9" in shown


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems refuse such names")
def test_a_name_of_bytes_is_refused_where_text_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for group in ("a", "b"):
        _images(tmp_path / "photos", f"{group}/c/{os.fsdecode(bytes([255]))}.png")
    given = ["table", str(tmp_path / "photos"), "-o", str(tmp_path / "items.csv")]
    assert "\\udcff.png" in refusal(given, capsys)
    os.rename(tmp_path / "photos" / "b", os.fsencode(tmp_path / "photos") + b"/caf\xe9")
    assert "caf\\udce9/c" in refusal(["check", str(tmp_path / "photos")], capsys)


def test_a_tilde_is_the_home_wherever_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert parse_with_seeds(["photos", "--output=~/runs"])[0].output == f"{tmp_path}/runs"
    assert parse_with_seeds(["photos", "--name=a~/b"])[0].name == "a~/b"
    assert TrainConfig("p", output="~/runs", name="x").folder() == tmp_path / "runs" / "x"
    tree = rince.Taxonomy([("a",), ("b",)])
    Similarity(tree.classes, torch.eye(2)).to_csv(tmp_path / "s.csv")
    ranks = RankOptions(scores="~/s.csv", thresholds=(0.5,))
    assert training_ranks(ranks, tree, 0).classes == tree.classes


@pytest.mark.parametrize("verb", [["train"], ["ranks"], ["check"], ["train", "--config"]])
def test_the_tilde_of_a_user_whom_there_is_not(
    verb: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    usage = pytest.raises(SystemExit) if "--config" in verb else nullcontext()
    with usage:
        assert main([*verb, "~nouser/a.csv"]) == 1
    assert re.search(r"no (file|folder) ~nouser/a\.csv", capsys.readouterr().err)


@pytest.mark.parametrize("name", [".", "./", "..", "a/../../b"])
def test_a_run_has_a_folder_of_its_own(name: str) -> None:
    with pytest.raises(ValueError, match="name must be a folder below output"):
        TrainConfig("photos", name=name).check()


def test_a_run_in_the_folder_of_its_data_is_called_as_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path / "photos")
    for data in (".", "./", "../photos", "../photos/.", str(tmp_path / "photos")):
        assert TrainConfig(data).run_name() == "photos-rince-out-in-seed0", data


def test_ordinary_mistakes_have_no_traceback(
    image_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--images.image-size", "16", "--batch-size", "8", "--epochs", "2"]
    (tmp_path / "file").write_text("in the way")
    below = ["--output", str(tmp_path / "file" / "runs"), "--accelerator", "cpu"]
    shown = refusal(["train", str(image_tree), *small, *below], capsys)
    assert str(tmp_path / "file") in shown
    if not torch.cuda.is_available():
        gpu = ["--output", str(tmp_path / "runs"), "--accelerator", "gpu"]
        assert "accelerator" in refusal(["train", str(image_tree), *small, *gpu], capsys)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
        (
            PermissionError(13, "Permission denied", "runs/a"),
            "cannot use runs/a: Permission denied",
        ),
        (RinceError("so it is"), "so it is"),
    ],
)
def test_errors_become_one_line(
    error: Exception,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr("rince.cli.compare.run", fail)
    assert main(["compare", "runs/a"]) == 1
    assert capsys.readouterr().err == f"rince compare: {message}\n"


def test_a_mistake_of_our_own_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr("rince.cli.compare.run", fail)
    with pytest.raises(KeyError, match="a bug"):
        main(["compare", "runs/a"])


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "cpu:7", "meta"])
def test_a_device_that_is_not_there(device: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = refusal(["evaluate", "nowhere/", "--device", device], capsys)
    assert f"--device {device} " in shown


# ---- evaluation ------------------------------------------------------------------------------


def test_names_of_outliers(tmp_path: Path) -> None:
    odd, table = tmp_path / "a=b", tmp_path / "my=set.CSV"
    odd.mkdir()
    table.touch()
    assert named_outliers([str(table)]) == {"my=set": str(table)}
    assert named_outliers(["birds/", "x=y/z=1", str(odd), "digits", "other=digits"]) == {
        "birds": "birds/",
        "x": "y/z=1",  # at the first =
        "a=b": str(odd),  # a folder of that name
        "digits": "digits",
        "other": "digits",
    }


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (["a/val", "b/val"], "--ood b/val: "),
        (["x=a", "x=b"], "'x'"),
        (["=a"], "--ood =a: "),
        (["."], "--ood .: "),
        (["a/.."], "--ood a/..: "),
        (["x="], "--ood x=: "),
        (["a/b=c"], "'a/b'"),
        (["..=c"], "'..'"),
    ],
)
def test_bad_names_of_outliers(
    given: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [word for one in given for word in ("--ood", one)]
    shown = refusal(["evaluate", "nowhere/", *options], capsys)  # before the run is looked for
    assert problem in shown
    assert "--ood NAME=FOLDER" in shown


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos/ (no splits of its own) and a run on them, run/."""
    root = tmp_path_factory.mktemp("trained")
    names = [f"dog/{name}/{i}.png" for name in ("husky", "malamute") for i in range(10)]
    _images(root / "photos", *names)
    train(
        TrainConfig(
            data=str(root / "photos"),
            epochs=1,
            batch_size=8,
            images=ImageOptions(image_size=16),
            optim=OptimOptions(lr=0.05, warmup_epochs=0),
            output=str(root),
            name="run",
            accelerator="cpu",
            knn_every=0,
            progress=False,
        )
    )
    return root


QUICK = ["--probe-epochs", "1", "--map-points", "0", "--device", "cpu"]


def _altered(trained: Path, folder: Path, **about: object) -> Path:
    """A copy of the run whose checkpoint says something else."""
    shutil.copytree(trained / "run", folder)
    checkpoint = torch.load(folder / CHECKPOINT_FILE, weights_only=True)
    checkpoint[CHECKPOINT_KEY].update(about)
    torch.save(checkpoint, folder / CHECKPOINT_FILE)
    return folder


def test_images_that_changed_since_the_training_are_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(trained / "run"), *QUICK]) == 0
    photos = shutil.copytree(trained / "photos", tmp_path / "photos")
    config = load_run(trained / "run").config
    config.data = str(photos)
    run = _altered(trained, tmp_path / "run", config=to_dict(config))
    assert main(["evaluate", str(run), *QUICK]) == 0  # elsewhere, but the same
    _images(photos, "dog/husky/new.png")
    shown = refusal(["evaluate", str(run), *QUICK], capsys)
    assert str(photos) in shown
    assert "--data" in shown
    assert main(["evaluate", str(run), "--data", str(photos), *QUICK]) == 0
    (photos / "dog" / "husky" / "new.png").unlink()
    (photos / "dog" / "husky").rename(photos / "dog" / "poodle")
    assert "--data" in refusal(["evaluate", str(run), *QUICK], capsys)


def test_classes_in_another_group_are_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [["cat", "husky"], ["cat", "malamute"]]  # classes of the same names
    run = _altered(trained, tmp_path / "run", taxonomy=paths, data_fingerprint=None)
    with pytest.warns(RinceWarning, match="run .*older"):
        assert "--data" in refusal(["evaluate", str(run), *QUICK], capsys)
    assert main(["evaluate", str(run), "--data", str(trained / "photos"), *QUICK]) == 0
    assert "note: " in capsys.readouterr().out


def test_other_data_come_in_the_size_and_colours_of_the_run(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load_run(trained / "run").config
    config.images.image_size = None  # a run on a named data set leaves it open
    run = _altered(trained, tmp_path / "run", config=to_dict(config))
    assert main(["evaluate", str(run), "--data", str(trained / "photos"), *QUICK]) == 0
    results = json.loads((run / "results.json").read_text())
    assert results["info"]["data"] == "photos"
    _fashion_mnist(tmp_path / "fashion")
    named = ["--data", "fashion-mnist", "--data-root", str(tmp_path / "fashion")]
    shown = refusal(["evaluate", str(run), *named, *QUICK], capsys)
    assert "grey images of 16 x 16 pixels" in shown
    assert "colour images of 16 x 16 pixels" in shown


def _fashion_mnist(folder: Path) -> None:
    folder.mkdir()
    for name in ("train", "t10k"):
        for kind, shape in (("images-idx3", (20, 28, 28)), ("labels-idx1", (20,))):
            header = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
            (folder / f"{name}-{kind}-ubyte").write_bytes(header + bytes(math.prod(shape)))


def test_grey_runs_see_a_folder_in_grey(trained: Path, tmp_path: Path) -> None:
    from rince.training.evaluated import other_splits

    run = replace(load_run(trained / "run"), spec=InputSpec.images(1, 12))
    splits = other_splits(run, replace(run.config, data=str(trained / "photos")))
    assert (splits.spec.channels, splits.spec.size) == (1, 12)


def test_an_unfinished_run_is_judged_with_a_warning(trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained / "run", tmp_path / "run")
    (run / ABOUT_FILE).unlink()
    with pytest.warns(RinceWarning, match=r"run .*step 2.*--resume"):
        assert main(["evaluate", str(run), *QUICK]) == 0


def test_unreadable_outliers_are_skipped_on_request(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    birds = _images(tmp_path / "birds", "a.png", "b.png", "c.png")
    (birds / "b.png").write_bytes(b"no image")
    given = ["evaluate", str(trained / "run"), "--ood", str(birds), *QUICK]
    assert "b.png" in refusal(given, capsys)
    with pytest.warns(RinceWarning, match="1 of 3 images"):
        assert main([*given, "--skip-unreadable"]) == 0
    results = json.loads((trained / "run" / "results.json").read_text())
    assert results["info"]["outliers"] == {"birds": 2}


def test_results_older_than_the_checkpoint_are_not_done(trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained / "run", tmp_path / "run")
    given = ["evaluate", str(run), "--skip-done", *QUICK]
    results, checkpoint = run / "results.json", run / CHECKPOINT_FILE
    results.write_text("old")
    for age, again in ((-5, True), (5, False)):
        then = checkpoint.stat().st_mtime + age
        os.utime(results, (then, then))
        before = results.read_text()
        assert main(given) == 0
        assert (results.read_text() != before) == again
    results.write_text("damaged")
    with pytest.warns(RinceWarning, match="damaged .* all is measured anew"):
        assert main(given) == 0
    assert "retrieval/fine/R@1" in load_evaluation(run).metrics


def test_train_evaluate_compare(
    image_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for objective in ("rince", "cross-entropy"):
        assert (
            main(
                [
                    *("train", str(image_tree), "--objective", objective, "--name", objective),
                    *("--output", str(tmp_path), "--images.image-size", "16", "--epochs", "2"),
                    *("--batch-size", "32", "--optim.lr", "0.05", "--accelerator", "cpu"),
                ]
            )
            == 0
        )
    runs = [str(tmp_path / name) for name in ("rince", "cross-entropy")]
    # The training images as "outliers" tell the wiring: known classes are no outliers.
    outliers = ["--ood", f"known={image_tree}", "--ood", "digits"]
    capsys.readouterr()
    assert main(["evaluate", *runs, "--probe-epochs", "20", *outliers]) == 0
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) < 60  # where each run alone has some 150 numbers
    assert all(f"are in {run}/results.json" in shown for run in runs)
    assert "rince out-in, embedding" in shown
    results = json.loads((tmp_path / "rince" / "results.json").read_text())
    metrics = results["metrics"]
    assert metrics["probe/fine"] > 0.25
    assert metrics["retrieval/coarse/R@1"] >= metrics["retrieval/fine/R@1"]
    assert metrics["ood/digits/gaussian/AUROC"] > metrics["ood/known/gaussian/AUROC"]
    page = tmp_path / "report.html"
    assert main(["compare", *runs, "-o", str(page)]) == 0
    shown = capsys.readouterr().out
    assert "rince out-in" in shown
    assert "cross-entropy" in shown
    assert f"{100 * metrics['probe/fine']:.1f}" in page.read_text()


def test_warnings_of_rince_have_no_line_of_source() -> None:
    code = (
        "import sys, warnings, rince.cli.ranks as ranks\n"
        "from rince.cli.main import main\n"
        "from rince.core.checks import warn\n"
        "def run(_):\n    warn('mind the gap')\n    warnings.warn('of another library')\n"
        "ranks.run = run\nusual = warnings.formatwarning\nmain(['ranks'])\n"
        "assert warnings.formatwarning is usual\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second = found.stderr.splitlines()[:2]
    assert first == "warning: mind the gap"
    assert "UserWarning: of another library" in second
