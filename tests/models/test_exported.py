from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import rince
from rince.core.checks import RinceError
from rince.core.input_spec import InputSpec
from rince.core.pixels import NORMALISATION
from rince.data.views import evaluation_pixels
from rince.models.backbones import build_backbone
from rince.models.exported import (
    EXPORT_FILE,
    WEIGHTS_FILE,
    ImageEncoder,
    load_exported,
)
from rince.models.heads import ParallelHeads, ProjectionHead
from rince.models.onnx_file import write_onnx
from rince.models.texts import SentenceModel

pytest.importorskip("safetensors", reason="needs the extra export")
SIZE = 12


def encoder(
    channels: int = 3, embedding_dim: int | None = None, num_heads: int = 1, seed: int = 0
) -> ImageEncoder:
    torch.manual_seed(seed)
    backbone = build_backbone("tiny-resnet", InputSpec.images(channels, SIZE))
    module, width = backbone.module, backbone.feature_dim
    with torch.no_grad():
        for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.running_mean.normal_()  # type: ignore[union-attr]
            norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    if embedding_dim is not None:
        head: nn.Module = ProjectionHead(width, embedding_dim)
        if num_heads > 1:
            head = ParallelHeads(width, embedding_dim, num_heads)
        module, width = nn.Sequential(OrderedDict(backbone=module, head=head)), embedding_dim
    mean, std = NORMALISATION[channels]
    return ImageEncoder(
        module=module.eval(),
        backbone="tiny-resnet",
        output_dim=width * num_heads,
        embedding_dim=embedding_dim,
        num_heads=num_heads,
        spec=InputSpec.images(channels, SIZE),
        mean=mean,
        std=std,
        class_paths=(("pet", "dog"), ("pet", "cat"), ("car",)),
    )


def pixels(count: int = 4, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    shape = (count, channels, SIZE, SIZE)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("channels", "embedding_dim", "num_heads"), [(3, None, 1), (1, None, 1), (3, 8, 1), (3, 5, 2)]
)
def test_what_is_read_is_what_was_written(
    channels: int, embedding_dim: int | None, num_heads: int, tmp_path: Path
) -> None:
    before = encoder(channels, embedding_dim, num_heads)
    before.save(tmp_path)
    after = rince.load_exported(str(tmp_path))
    images = before.normalised(pixels(channels=channels))
    with torch.no_grad():
        given = after.module(images)
        of_array = after.encode(pixels(channels=channels).numpy())
        torch.testing.assert_close(of_array, after.encode(pixels(channels=channels)))
        assert torch.equal(given, before.module(images))
    assert given.shape == (4, after.output_dim)
    assert not any(module.training for module in after.module.modules())
    assert replace(after, module=nn.Identity()).__dict__ | {"module": None} == (
        before.__dict__ | {"module": None}
    )
    assert after.classes == ("dog", "cat", "car")
    shirts = replace(after, class_paths=(("men", "shirts"), ("women", "shirts"), ("men", "ties")))
    assert shirts.classes == ("men/shirts", "women/shirts", "ties")
    assert SentenceModel(None, class_paths=shirts.class_paths).classes == shirts.classes
    assert "tiny-resnet" in repr(after)
    assert not any(word in repr(after) for word in ("Conv2d", "pet"))
    assert rince.Taxonomy(after.class_paths).num_ranks == 2
    assert after.fingerprint() == before.fingerprint()


def test_the_weights_are_plain_safetensors(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    written = encoder()
    written.save(tmp_path)
    weights = load_file(tmp_path / WEIGHTS_FILE)
    expected = written.module.state_dict()
    assert set(weights) == set(expected)
    assert all(torch.equal(weights[name], x) for name, x in expected.items())
    # For whoever may read the folder's other files.
    assert (tmp_path / WEIGHTS_FILE).stat().st_mode == (tmp_path / EXPORT_FILE).stat().st_mode


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_normalised_as_for_the_evaluation(channels: int) -> None:
    raw = pixels(channels=channels)
    torch.testing.assert_close(
        encoder(channels).normalised(raw), evaluation_pixels(raw), rtol=0, atol=0
    )
    other = replace(encoder(channels), mean=(0.0,) * channels, std=(0.5,) * channels)
    torch.testing.assert_close(other.normalised(raw), raw.float() / 127.5)


@pytest.mark.parametrize(
    "wrong", [pixels().float(), pixels(channels=1), pixels()[:, :, 1:], pixels()[0]]
)
def test_other_pixels_are_refused(wrong: Tensor) -> None:
    with pytest.raises(ValueError, match=r"uint8.*\(B, 3, 12, 12\)"):
        encoder().normalised(wrong)


def test_the_fingerprint_tells_encoders_apart() -> None:
    one = encoder()
    others = [
        encoder(seed=1),
        encoder(embedding_dim=8),
        replace(one, spec=InputSpec.images(3, 13)),
        replace(one, mean=(0.5, 0.5, 0.5)),
        replace(one, std=(0.5, 0.5, 0.5)),
        replace(one, backbone="small-resnet"),
    ]
    moved = encoder()
    norm = next(m for m in moved.module.modules() if isinstance(m, nn.BatchNorm2d))
    norm.running_mean[-1] += 1  # type: ignore[index,operator]
    prints = [x.fingerprint() for x in (one, *others, moved)]
    assert len(set(prints)) == len(prints)
    assert prints[0] == encoder().fingerprint()  # nothing of the process goes in
    laid_out = encoder()
    laid_out.module.to(memory_format=torch.channels_last)
    assert laid_out.fingerprint() == prints[0]


def test_a_module_of_the_users_own(tmp_path: Path) -> None:
    def mine() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, 6))

    module = mine()
    own = replace(encoder(), module=module, backbone=None, output_dim=6)
    own.save(tmp_path)
    with pytest.raises(RinceError, match=r"load_exported\(.*backbone=\.\.\."):
        load_exported(tmp_path)
    after = load_exported(tmp_path, mine())
    assert torch.equal(after.module[1].weight, module[1].weight)  # type: ignore[index]


def _change(folder: Path, **facts: object) -> None:
    file = folder / EXPORT_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | facts))


def test_what_is_wrong_with_an_export_is_said(tmp_path: Path) -> None:
    with pytest.raises(RinceError, match=r"no export\.json"):
        load_exported(tmp_path)
    encoder().save(tmp_path)
    _change(tmp_path, backbone="small-resnet")
    with pytest.raises(RinceError, match="safetensors.*another architecture"):
        load_exported(tmp_path)
    _change(tmp_path, backbone="tiny-resnet", format=2, rince="9.0")
    with pytest.raises(RinceError, match=r"format 2\b.*rince 9\.0; this rince"):
        load_exported(tmp_path)
    _change(tmp_path, format=1, mean="black")
    with pytest.raises(RinceError, match=r"export\.json is damaged \(ValueError"):
        load_exported(tmp_path)
    (tmp_path / EXPORT_FILE).write_text('{"format": 1}')
    with pytest.raises(RinceError, match=r"export\.json is damaged \(KeyError: 'backbone'\)"):
        load_exported(tmp_path)


def test_cut_short_weights(tmp_path: Path) -> None:
    encoder().save(tmp_path)
    file = tmp_path / WEIGHTS_FILE
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(RinceError, match="cannot read.*safetensors.*cut short"):
        load_exported(tmp_path)
    file.unlink()
    with pytest.raises(RinceError, match=r"cannot read .*model\.safetensors"):
        load_exported(tmp_path)


def test_the_loader_needs_no_training_library(tmp_path: Path) -> None:
    encoder().save(tmp_path)
    code = (
        "import sys, rince\n"
        "rince.load_exported(sys.argv[1])\n"
        "heavy = {'lightning', 'torchvision', 'onnx', 'PIL'}\n"
        "print(heavy & {m.split('.')[0] for m in sys.modules})"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"


# ---- ONNX ------------------------------------------------------------------------------------


class Changed(nn.Module):
    """A network that ONNX Runtime runs otherwise, or cannot run."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.linear = nn.Linear(3 * SIZE**2, 6)

    def forward(self, images: Tensor) -> Tensor:
        z: Tensor = self.linear(images.flatten(1))
        if self.how == "random":
            return z + torch.rand_like(z)
        if self.how == "nan":
            return z / 0 * 0
        return z if self.how == "fine" else z.view(2, 6)


def test_onnx_gives_the_numbers_of_torch(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra export")
    pytest.importorskip("onnxscript", reason="needs the extra export")
    written = replace(encoder(), module=Changed("fine").eval(), backbone=None, output_dim=6)
    file = tmp_path / "model.onnx"
    assert write_onnx(written, file) < 1e-5
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]  # weights and all
    session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert [x.name for x in session.get_inputs()] == ["images"]
    assert [x.name for x in session.get_outputs()] == ["features"]
    images = written.normalised(pixels(7))
    (given,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(given), written.module(images))


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        ("random", "other numbers"),
        ("nan", r"other numbers.*\bnan\b"),
        ("one batch size", "cannot.*ONNX"),
    ],
)
def test_onnx_that_is_wrong_is_refused(how: str, problem: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra export")
    pytest.importorskip("onnxscript", reason="needs the extra export")
    written = replace(encoder(), module=Changed(how).eval(), backbone=None, output_dim=6)
    with pytest.raises(RinceError, match=rf"{problem}.*--no-onnx"):
        write_onnx(written, tmp_path / "model.onnx")


def test_a_full_disk_is_not_the_fault_of_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra export")
    pytest.importorskip("onnxscript", reason="needs the extra export")

    def export(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch.onnx, "export", export)
    with pytest.raises(OSError, match="No space"):
        write_onnx(encoder(), tmp_path / "model.onnx")


def test_a_backbone_that_is_none_is_told_with_the_file(tmp_path: Path) -> None:
    encoder().save(tmp_path)
    _change(tmp_path, backbone="tyny-resnet")
    with pytest.raises(RinceError, match="export.json .*tyny-resnet"):
        load_exported(tmp_path)
