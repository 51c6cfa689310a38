"""Exports on the hub, of which a folder is the stand-in: nothing here was run against it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from refusals import refusal
from rince import RinceError, load_exported
from rince.cli.main import main
from rince.core.input_spec import InputSpec
from rince.data import from_vectors
from rince.losses import info_nce
from rince.models.backbones import build_backbone
from rince.models.exported import EXPORT_FILE, ImageEncoder
from rince.models.texts import SENTENCE_FILE
from rince.reports.export import write_export
from rince.training import ImagesAndTexts, train_towers

pytest.importorskip("safetensors", reason="needs the extra export")
hub = pytest.importorskip("huggingface_hub", reason="needs the extra hub")


def encoder() -> ImageEncoder:
    torch.manual_seed(0)
    backbone = build_backbone("tiny-resnet", InputSpec.images(3, 12))
    return ImageEncoder(
        backbone.module.eval(), "tiny-resnet", backbone.feature_dim, None, 1,
        InputSpec.images(3, 12), (0.5,) * 3, (0.2,) * 3, (("dog",), ("cat",)),
    )  # fmt: skip


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's models, as folders; what it was asked is in ``asked``."""
    models = tmp_path / "hub"

    def create_repo(api: Any, name: str, *, private: bool, exist_ok: bool) -> Any:
        assert exist_ok
        folder = models / name
        if not folder.exists():
            folder.mkdir(parents=True)
            (folder / ".private").write_text(str(private))
        return hub.RepoUrl(f"https://huggingface.co/{name}")

    def upload_folder(
        api: Any, *, repo_id: str, folder_path: Path, ignore_patterns: list[str]
    ) -> None:
        files = [str(x.relative_to(folder_path)) for x in folder_path.rglob("*") if x.is_file()]
        for file in hub.utils.filter_repo_objects(files, ignore_patterns=ignore_patterns):
            (models / repo_id / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder_path / file, models / repo_id / file)

    def snapshot_download(name: str, *, allow_patterns: list[str]) -> str:
        if not (models / name).exists():
            raise hub.errors.LocalEntryNotFoundError(f"404: {name}")
        copy = tmp_path / "cache" / name
        copy.mkdir(parents=True, exist_ok=True)
        for file in allow_patterns:
            if (models / name / file).exists():
                shutil.copy(models / name / file, copy)
        return str(copy)

    monkeypatch.setattr(hub.HfApi, "create_repo", create_repo)
    monkeypatch.setattr(hub.HfApi, "upload_folder", upload_folder)
    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    monkeypatch.chdir(tmp_path)
    return models


def test_there_and_back(remote: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = encoder()
    folder = write_export(given, tmp_path / "mine", lambda _: "# mine\n", onnx=False)
    assert main(["export", str(folder), "--push", "anna/huskies"]) == 0
    assert capsys.readouterr().out == "pushed: https://huggingface.co/anna/huskies\n"
    assert (remote / "anna/huskies/.private").read_text() == "True"
    assert (remote / "anna/huskies/README.md").read_text() == "# mine\n"
    back = load_exported("anna/huskies")
    assert back.fingerprint() == given.fingerprint()
    # A folder of that name wins.
    torch.nn.init.zeros_(next(given.module.parameters()))
    write_export(given, tmp_path / "anna" / "huskies", lambda _: "", onnx=False)
    assert load_exported("anna/huskies").fingerprint() == given.fingerprint()
    assert load_exported(remote / "anna/huskies").fingerprint() == back.fingerprint()


def test_towers_are_pushed_with_their_card(
    remote: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors = [from_vectors(torch.eye(6, width), ["all"] * 6) for width in (6, 7)]
    data = ImagesAndTexts.captioned(vectors[0], vectors[1].vectors)
    train_towers(data, lambda q, k, _: info_nce(q, k), batches=6, epochs=1).save(tmp_path / "two")
    assert main(["export", str(tmp_path / "two"), "--push", "anna/two"]) == 0
    pushed = remote / "anna/two"
    assert hub.ModelCard.load(pushed / "README.md").data.library_name == "rince"
    (tmp_path / "run").mkdir()
    (tmp_path / "two").rename(tmp_path / "run" / "export")  # as `rince train --captions` leaves it
    assert main(["export", str(tmp_path / "run"), "--push", "anna/two"]) == 0
    image, text = (load_exported(pushed / side) for side in ("image", "text"))
    assert (image.partner, text.partner) == (text.fingerprint(), image.fingerprint())


def test_results_of_somebodys_data_are_not_pushed(remote: Path, tmp_path: Path) -> None:
    folder = write_export(encoder(), tmp_path / "mine", lambda _: "", onnx=False)
    (folder / "birds.results").mkdir()
    for results in (folder, folder / "birds.results"):
        (results / "results.json").write_text("{}")
        (results / "evaluation.npz").write_bytes(b"thumbnails")
    assert main(["export", str(folder), "--push", "anna/huskies"]) == 0
    files = {path.name for path in (remote / "anna/huskies").rglob("*") if path.is_file()}
    assert files == {".private", "README.md", "model.safetensors", EXPORT_FILE}
    assert (folder / "birds.results" / "evaluation.npz").exists()


def test_an_export_is_pushed_as_it_is_made(
    remote: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torchvision")
    given = ["export", "torchvision/resnet18", "-o", "resnet", "--no-onnx", "--push", "anna/net"]
    from rince.models import layouts

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layouts, "library_encoder", lambda *_, **__: encoder())
        assert main(given) == 0
    assert "pushed: https://huggingface.co/anna/net" in capsys.readouterr().out
    card = hub.ModelCard.load(remote / "anna/net/README.md")
    assert card.data.library_name == "rince"
    assert card.data.pipeline_tag == "image-feature-extraction"
    assert load_exported("anna/net").backbone == "tiny-resnet"


def test_what_is_not_there(remote: Path, tmp_path: Path) -> None:
    with pytest.raises(RinceError, match="no folder anna/nothing.*404"):
        load_exported("anna/nothing")
    (remote / "anna/words").mkdir(parents=True)
    (remote / "anna/words" / SENTENCE_FILE).write_text("[]")
    with pytest.raises(RinceError, match=r"SentenceTransformer\('anna/words'\)"):
        load_exported("anna/words")
    for path in ("runs/latest/export", "./anna/nothing", tmp_path / "x"):  # no names of the hub
        with pytest.raises(RinceError, match=f"holds no {EXPORT_FILE}"):
            load_exported(path)


def test_what_cannot_be_pushed(
    remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = str(write_export(encoder(), tmp_path / "mine", lambda _: "", onnx=False))
    assert "a//b" in refusal(["export", folder, "--push", "a//b"], capsys)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("401: who are you?")

    monkeypatch.setattr(hub.HfApi, "create_repo", refuse)
    said = refusal(["export", folder, "--push", "anna/x"], capsys)
    assert "401" in said
    assert "hf auth login" in said
    assert f"rince export {folder} --push anna/x" in said
    said = refusal(["export", folder, "--push", "anna/x", "-o", "y", "--no-onnx"], capsys)
    assert "--output, --no_onnx" in said
    with pytest.raises(RinceError, match=f"rince export {folder} --push"):
        write_export(encoder(), Path(folder), lambda _: "", onnx=False)

    def unreachable(*_: Any, **__: Any) -> None:
        raise Exception("Name or service not known")  # httpx's errors are no OSErrors

    monkeypatch.setattr(hub.HfApi, "create_repo", unreachable)
    assert "service not known" in refusal(["export", folder, "--push", "anna/x"], capsys)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "rince[hub]" in refusal(["export", folder, "--push", "anna/x"], capsys)
    with pytest.raises(RinceError, match=r"no folder anna/x.*rince\[hub\]"):
        load_exported("anna/x")


def test_a_fresh_process_knows_the_names_of_the_hub() -> None:
    """huggingface_hub imports its modules late; here something else has imported them."""
    code = "from rince.models.hub import check_push; check_push('anna/x')"
    subprocess.run([sys.executable, "-c", code], check=True)
