"""The command line as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rince import RinceWarning
from rince.cli.main import main
from rince.cli.train import parse
from rince.training.config import TrainConfig


def test_help_imports_nothing_heavy() -> None:
    """What keeps `rince --help` under a second: torch and its kin stay out."""
    code = (
        "import sys; from rince.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'lightning', 'torchvision', 'sklearn', 'matplotlib', 'timm'}"
        " & set(sys.modules)))"
    )
    for arguments in (["--help"], ["train", "--help"], ["evaluate", "--help"], ["ranks", "--help"]):
        result = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
        )
        assert result.stdout.splitlines()[-1] == "[]", arguments
        assert "usage: rince" in result.stdout


def test_flags_file_and_defaults(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("epochs: 7\nloss:\n  variant: in\nmodel:\n  momentum: 0.9\n")
    config = parse(
        ["photos/", "--config", str(recipe), "--loss.temperatures", "[0.2, 0.4]", "--seed", "3"]
    )
    assert isinstance(config, TrainConfig)
    assert (config.data, config.epochs, config.seed) == ("photos/", 7, 3)
    assert (config.loss.variant, config.loss.temperatures) == ("in", (0.2, 0.4))
    assert config.model.momentum == 0.9
    assert config.batch_size == TrainConfig(data="").batch_size


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--variant", "in"], "--variant is not an option: did you mean --loss.variant?"),
        (["--loss.varian", "in"], "did you mean --loss.variant?"),
        (["--epoch", "3"], "did you mean --epochs?"),
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


def test_data_in_the_wrong_place(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--epochs", "2", "photos/"])
    assert "photos/ must come first: rince train photos/" in capsys.readouterr().err


def test_the_examples_of_the_help_keep_their_lines(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("train", "evaluate"):
        with pytest.raises(SystemExit):
            main([verb, "--help"])
        lines = capsys.readouterr().out.splitlines()
        assert any(line.startswith(f"  rince {verb} ") for line in lines)


def test_an_unknown_entry_of_a_file_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("loss:\n  out_in: true\n")
    with pytest.raises(SystemExit) as stopped:
        main(["train", "photos/", "--config", str(recipe)])
    assert stopped.value.code == 2
    assert "out_in" in capsys.readouterr().err


def test_an_unknown_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert "did you mean `rince train`?" in capsys.readouterr().err


def test_ranks_of_a_folder(image_tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ranks", str(image_tree), "--names"]) == 0
    shown = capsys.readouterr().out
    assert "classes: 4, ranks: 2" in shown
    assert "warm > orange" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ranks", "nowhere/"], "nowhere is not a folder"),
        (["train", "nowhere/"], "nowhere"),
        (["evaluate", "nowhere/"], "holds no checkpoint"),
        (["compare", "nowhere/"], "is not the folder of a run"),
        (["train", "--resume", "nowhere/"], "is not the folder of a run"),
    ],
)
def test_what_is_not_there_is_named(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
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


def _refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 1
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    return shown


def test_bad_folders_of_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--output", str(tmp_path / "runs"), "--batch-size", "8", "--images.image-size", "16"]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "empty is empty; a class folder needs" in _refusal(["train", str(empty), *where], capsys)
    one = _images(tmp_path / "one", *(f"dog/husky/{i}.png" for i in range(12)))
    assert "only one class (husky)" in _refusal(["train", str(one), *where], capsys)
    names = [f"dog/{name}/{i}.png" for name in ("husky", "malamute") for i in range(12)]
    corrupt = _images(tmp_path / "corrupt", *names)
    (corrupt / "dog" / "husky" / "3.png").write_bytes(b"not a picture")
    shown = _refusal(["train", str(corrupt), *where], capsys)
    assert "husky/3.png" in shown
    assert "--images.skip-unreadable" in shown
    assert not (tmp_path / "runs").exists()
    skipping = ["--images.skip-unreadable", "true", "--epochs", "1", "--optim.warmup-epochs", "0"]
    with pytest.warns(RinceWarning, match=r"1 of .*husky/3.png"):
        assert main(["train", str(corrupt), *where, *skipping, "--accelerator", "cpu"]) == 0


def test_too_large_a_batch(image_tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = _refusal(["train", str(image_tree), "--batch-size", "500"], capsys)
    assert "batch_size 500 is more than the 76 training images" in shown


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
    assert main(["evaluate", *runs, "--probe-epochs", "20", *outliers]) == 0
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
