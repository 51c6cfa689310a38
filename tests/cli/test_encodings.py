"""One option, ``--table.encoding``, for every file of text that a verb reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rince.cli.main import main

CLASSES = ("groß", "klein")
OPTION = ["--table.encoding", "cp1252"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Twelve images of two classes, listed by Excel in Germany."""
    rows = ["sep=;", "Bild;Größe"]
    for i in range(12):
        Image.new("RGB", (16, 16), (20 * i, 90, 10)).save(tmp_path / f"ä{i}.png")
        rows.append(f"ä{i}.png;{CLASSES[i % 2]}")
    file = tmp_path / "Möbel.csv"
    file.write_bytes("\r\n".join(rows).encode("cp1252"))
    return file


def test_verbs_on_a_table_in_another_encoding(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(table)
    assert main(["check", data]) == 1
    assert "table.encoding" in capsys.readouterr().err
    assert main(["check", data, *OPTION]) == 0
    small = ["--images.image-size", "8", "--model.backbone", "tiny-resnet", "--batch-size", "10"]
    where = ["--output", str(tmp_path / "runs"), "--epochs", "1", "--progress", "false"]
    assert main(["train", data, *small, *where, *OPTION]) == 0
    run = str(tmp_path / "runs" / "latest")
    marked = table.with_name("Betten.csv")  # which says itself what it is
    marked.write_bytes(table.read_bytes().decode("cp1252").encode("utf-16"))
    assert main(["evaluate", run, "--test", f"new={marked}"]) == 0  # its own as at the training
    embed = ["embed", run, data, "-o", str(tmp_path / "e.npz")]
    assert main(embed) == 1
    assert "table.encoding" in capsys.readouterr().err
    assert main([*embed, *OPTION]) == 0
    assert "12 images" in capsys.readouterr().out


def test_classes_scores_and_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    classes, scores, labels = (tmp_path / f"{x}.csv" for x in ("classes", "scores", "labels"))
    classes.write_bytes("class,superclass\ngroß,Möbel\nklein,Möbel\n".encode("cp1252"))
    scores.write_bytes("class,groß,klein\ngroß,1,0.5\nklein,0.5,1\n".encode("cp1252"))
    labels.write_bytes("Größe\ngroß\ngroß\nklein\nklein\n".encode("cp1252"))
    np.save(tmp_path / "e.npy", np.eye(4, dtype=np.float32))
    given = ["--scores", str(scores), "--thresholds", "[0.4]"]
    measured = ["evaluate", str(tmp_path / "e.npy"), "--labels", str(labels)]
    for command in (["ranks", str(classes)], ["ranks", str(classes), *given], measured):
        assert main([*command, *OPTION]) == 0
        assert main(command) == 1
        assert main([*command, "--table.encoding", "cp12"]) == 1
        err = capsys.readouterr().err
        assert err.count("table.encoding") == 2
        assert "'cp12'" in err
