"""The card of an export is enough to feed its ONNX file: numpy, Pillow and onnxruntime alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rince.core.input_spec import InputSpec
from rince.data.image.kind import usage
from rince.evaluation.embeddings import embed
from rince.models.backbones import build_backbone
from rince.models.exported import ImageEncoder
from rince.models.onnx_file import ONNX_FILE, write_onnx

pytest.importorskip("onnxruntime", reason="needs the extra export")
pytest.importorskip("onnxscript", reason="needs the extra export")
SIZE = 24

# What somebody writes who has the card and the ONNX file, and not rince.
LOADER = """
import re, sys
import numpy as np
import onnxruntime
from PIL import Image, ImageOps

folder, output, *files = sys.argv[1:]
card = open(f"{folder}/README.md", encoding="utf-8").read()
size = int(re.search(r"shorter side scaled to (\\d+) pixels", card)[1])
mode = re.search(r"all others by `convert\\('(\\w+)'\\)`", card)[1]
draft = tuple(map(int, re.search(r"draft\\(None, \\((\\d+), (\\d+)\\)\\)", card).groups()))
values = re.search(r"bytes / 255, minus \\[(.*?)\\], divided by \\[(.*?)\\]", card).groups()
mean, std = (np.array(x.split(","), np.float32).reshape(-1, 1, 1) for x in values)
inputs = []
for file in files:
    image = Image.open(file)
    image.draft(None, draft)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        image = Image.fromarray(np.round(np.asarray(image) / 257).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert(mode)
    width, height = image.size
    short = min(width, height)
    width, height = (size if x == short else int(size * x / short) for x in (width, height))
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    image = image.crop((left, top, left + size, top + size))
    pixels = np.asarray(image, np.float32).reshape(size, size, -1).transpose(2, 0, 1) / 255
    inputs.append((pixels - mean) / std)
session = onnxruntime.InferenceSession(f"{folder}/model.onnx")
(found,) = session.run(None, {"images": np.stack(inputs)})
np.save(output, found)
assert not {"torch", "rince"} & set(sys.modules)
"""


def written(folder: Path) -> list[str]:
    """Pictures that are told apart by how they are turned, coloured and scaled."""
    y, x = np.mgrid[0:90, 0:130]
    red, green, blue = 2 * y, x, 255 - x // 2 - y
    colour = Image.fromarray(np.stack([red, green, blue], 2).clip(0, 255).astype(np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    deep = Image.fromarray((500 * y + 150 * x).clip(0, 65535).astype(np.uint16))
    see_through = colour.convert("RGBA")
    see_through.putalpha(Image.fromarray((2 * x).clip(0, 255).astype(np.uint8)))
    palette = colour.quantize(16)
    pictures: list[tuple[str, Image.Image, dict[str, Any]]] = [
        ("plain.png", colour, {}),
        ("cmyk.jpg", colour.convert("CMYK"), {"quality": 95}),
        ("turned.jpg", colour, {"exif": turned, "quality": 95}),
        ("large.jpg", colour.resize((1300, 900)), {"quality": 90}),
        ("deep.png", deep, {}),
        ("deep.tif", deep, {}),
        ("palette.png", palette, {}),
        ("palette-with-hole.png", palette, {"transparency": 2}),
        ("see-through.png", see_through, {}),
        ("photo.webp", colour, {"quality": 90}),
        ("see-through.webp", see_through, {"lossless": True}),
        ("grey.png", colour.convert("L"), {}),
        ("tall.png", colour.resize((31, 201)), {}),
        ("animated.gif", palette, {"save_all": True, "append_images": [palette.rotate(90)]}),
    ]
    for name, picture, options in pictures:
        picture.save(folder / name, **options)
    return [str(folder / name) for name, _, _ in pictures]


@pytest.mark.filterwarnings("ignore:an image is animated")
@pytest.mark.parametrize("channels", [3, 1])
def test_the_card_is_enough(channels: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    spec = InputSpec.images(channels, SIZE)
    backbone = build_backbone("tiny-resnet", spec)
    encoder = ImageEncoder(
        module=backbone.module.eval(),
        backbone="tiny-resnet",
        output_dim=backbone.feature_dim,
        embedding_dim=None,
        num_heads=1,
        spec=spec,
        mean=(0.485, 0.456, 0.406)[:channels],
        std=(0.229, 0.224, 0.225)[:channels],
        class_paths=(("a",), ("b",)),
    )
    write_onnx(encoder, tmp_path / ONNX_FILE)
    (tmp_path / "README.md").write_text(usage(encoder, "FOLDER"), encoding="utf-8")
    files = written(tmp_path)
    own = embed(encoder, files).vectors
    assert not different(LOADER, files, own, tmp_path)
    careless = LOADER.replace("ImageOps.exif_transpose(image)", "image")
    careless = careless.replace("/ 257)", "/ 256 / 4)").replace('"white"', '"black"')
    assert {"turned.jpg", "deep.png", "deep.tif", "see-through.png"} <= different(
        careless, files, own, tmp_path
    )


def different(loader: str, files: list[str], own: torch.Tensor, folder: Path) -> set[str]:
    """The files of which this loader gives another direction than rince."""
    (folder / "loader.py").write_text(loader)
    output = folder / "found.npy"
    command = [sys.executable, str(folder / "loader.py"), str(folder), str(output), *files]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = torch.from_numpy(np.load(output))
    cosines = torch.nn.functional.cosine_similarity(found, own)
    return {Path(f).name for f, c in zip(files, cosines, strict=True) if not c > 0.9999}
