"""Whatever Pillow writes is read as RGB bytes, or refused with its path; never on a wrong scale."""

from __future__ import annotations

import io
import struct
import tempfile
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from loaders import load_dataset, load_outliers
from rince.core.checks import BadItems, RinceError, RinceWarning
from rince.core.input_spec import InputSpec
from rince.data.batches import eval_batches
from rince.data.image.decode import read_fitted, read_image
from rince.data.image.files import FileImages
from rince.data.kinds import Request, load_test
from rince.data.options import ImageOptions
from rince.data.views import eval_transform
from rince.training.config import TrainConfig

MODES = ("1", "L", "P", "LA", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16")
FORMATS = (
    *("png", "tiff", "jpeg", "gif", "bmp", "ppm", "webp", "tga", "ico", "pcx", "jpeg2000"),
    *(["avif"] if features.check("avif") else []),
)


def ramp(bits: int, shape: tuple[int, ...] = (64, 64)) -> np.ndarray[Any, Any]:
    """Every value of so many bits, from 0 to the highest."""
    return np.linspace(0, 2**bits - 1, int(np.prod(shape))).round().reshape(shape).astype(np.uint16)


def png(values: np.ndarray[Any, Any], significant: int | None = None) -> bytes:
    """16-bit values (H, W) or (H, W, 2, 3 or 4) as a PNG, by its specification."""
    channels = 1 if values.ndim == 2 else values.shape[2]

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"tEXt", b"Comment\0 of any kind")]
    if significant is not None:
        parts.append(chunk(b"sBIT", bytes([significant] * channels)))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [*parts, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    )


def tiff(values: np.ndarray[Any, Any], order: str = "<", deflate: bool = False) -> bytes:
    """16-bit values (H, W, 1, 3 or 4) as a TIFF of one strip, by its specification."""
    height, width, channels = values.shape
    data = values.astype(f"{order}u2").tobytes()
    data = zlib.compress(data) if deflate else data
    tags = {256: (width,), 257: (height,), 258: (16,) * channels, 259: (8 if deflate else 1,)}
    tags |= {262: (2 if channels > 1 else 1,), 273: (8,), 277: (channels,), 278: (height,)}
    tags |= {279: (len(data),)} | ({338: (2,)} if channels == 4 else {})
    body = bytearray((b"II*\0" if order == "<" else b"MM\0*") + bytes(4) + data)
    entries = b""
    for tag, numbers in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(numbers) > 1:
            place = len(body)
            body += packed
            packed = struct.pack(f"{order}I", place)
        entries += struct.pack(f"{order}HHI", tag, 4, len(numbers)) + packed
    body += bytes(len(body) % 2)
    body[4:8] = struct.pack(f"{order}I", len(body))
    return bytes(body + struct.pack(f"{order}H", len(tags)) + entries + bytes(4))


def wanted(values: np.ndarray[Any, Any], bits: int) -> list[int]:
    """The bytes of values of so many bits, by the definition."""
    return [round(x * 255 / (2**bits - 1)) for x in values.flatten().astype(float)]


@pytest.fixture
def quiet() -> Any:
    """For files that are odd on purpose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@settings(max_examples=150, deadline=None)
@given(
    mode=st.sampled_from(MODES),
    file_format=st.sampled_from(FORMATS),
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    seed=st.integers(0, 9),
    orientation=st.integers(0, 9),
)
def test_any_mode_in_any_format_is_read_in_range_or_refused_with_its_path(
    mode: str, file_format: str, width: int, height: int, seed: int, orientation: int
) -> None:
    generator = np.random.default_rng(seed)
    source = Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
    try:
        if mode == "I;16":
            drawn = generator.integers(0, 65536, (height, width), dtype=np.uint16)
            image = Image.fromarray(drawn)
        else:
            image = source if mode in ("LAB", "HSV") else source.convert(mode)
            image = image.convert(mode) if mode == "HSV" else image
        exif = Image.Exif()
        exif[0x0112] = orientation
        stream = io.BytesIO()
        options = {"exif": exif} if file_format in ("png", "jpeg", "webp") else {}
        image.save(stream, file_format, **options)
        Image.open(stream).load()
    except (OSError, ValueError, KeyError, SystemError):
        return  # Pillow does not write this mode in this format, or cannot read what it wrote
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = Path(folder, f"x.{file_format}")
        file.write_bytes(stream.getvalue())
        try:
            colour, grey = read_image(file, 3), read_image(file, 1)
        except RinceError as error:
            refused = str(error)
        else:
            refused = None
        if refused is not None:
            assert str(file) in refused
            assert mode in ("F", "I", "PA", "LAB"), f"{mode} in {file_format}: {refused}"
            return
        size = (
            (height, width) if orientation not in (5, 6, 7, 8) or not options else (width, height)
        )
        assert colour.dtype == grey.dtype == torch.uint8
        if file_format != "ico":  # which has sizes of its own
            assert colour.shape == (3, *size)
            assert grey.shape == (1, *size)
        if file_format in ("png", "tiff", "bmp", "ppm") and mode in ("L", "RGB") and not options:
            expected = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
            assert torch.equal(colour, expected)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("kind", ["png", "tiff <", "tiff >", "tiff deflate"])
def test_values_of_few_bits_are_scaled_by_what_is_given(
    bits: int, channels: int, kind: str, tmp_path: Path
) -> None:
    colours = ramp(bits, (16, 16, channels))
    if channels == 4:
        colours[..., 3] = 65535 if bits == 16 else 2**bits - 1
    stored = colours[..., 0] if channels == 1 and kind == "png" else colours
    content = (
        png(stored)
        if kind == "png"
        else tiff(colours, ">" if ">" in kind else "<", "deflate" in kind)
    )
    file = tmp_path / f"x.{kind.split()[0]}"
    file.write_bytes(content)
    found = read_image(file, 3 if channels > 1 else 1, bits=bits)
    plain = colours[..., : min(3, channels)]
    expected = wanted(plain, bits)
    if channels > 1 and bits == 16:  # Pillow's own upper 8 bits
        expected = [int(x) >> 8 for x in plain.flatten()]
    assert found.permute(1, 2, 0).flatten().tolist() == expected


def test_a_file_that_says_how_many_bits_it_uses(tmp_path: Path) -> None:
    values = ramp(12)
    tags = {"sample": {281: 4095}, "ome": {270: '<OME><Pixels SignificantBits="12"/></OME>'}}
    for name, tag in tags.items():
        Image.fromarray(values).save(tmp_path / f"{name}.tiff", tiffinfo=tag)
    (tmp_path / "low.png").write_bytes(png(values, 12))
    (tmp_path / "low-rgb.png").write_bytes(png(values.reshape(64, 64, 1).repeat(3, 2), 12))
    for file in tmp_path.iterdir():
        for given_bits in (None, 14):  # what the file says counts first
            found = read_image(file, 1, bits=given_bits)
            assert found.flatten().tolist() == wanted(values, 12), file
    # PNG's own rule: 12 bits are scaled to 16, by zeros or by all of the range; dark ones too.
    for scaled in (values << 4, (values.astype(float) * 65535 / 4095).round().astype(np.uint16)):
        for part in (scaled, scaled[:3]):
            (tmp_path / "scaled.png").write_bytes(png(part, 12))
            assert read_image(tmp_path / "scaled.png", 1).flatten().tolist() == wanted(part, 16)
    # The highest value of this very file is no number of bits.
    Image.fromarray(values).save(tmp_path / "own.tiff", tiffinfo={281: 3000})
    with pytest.warns(RinceWarning, match=r"images\.bits 12"):
        read_image(tmp_path / "own.tiff", 1)


def test_one_number_of_bits_for_a_whole_data_set(tmp_path: Path) -> None:
    """Decided by the highest value of both splits, for all that follows."""
    for side, group, top in (("train", "a", 300), ("train", "b", 900), ("val", "a", 4000)):
        folder = tmp_path / side / group
        folder.mkdir(parents=True)
        Image.fromarray(np.full((16, 16), top, np.uint16)).save(folder / "0.png")
        Image.new("L", (16, 16), 77).save(folder / "eight.png")
    for cache in (True, False):
        with pytest.warns(RinceWarning, match=r"\b4095\b.*read as.*\b12 bits"):
            splits = load_dataset(tmp_path, channels=1, cache=cache)
        assert splits.spec.bits == splits.test.spec.bits == 12
        read = [
            int(items[i].amax()) for items in (splits.train, splits.test) for i in range(len(items))
        ]
        assert read == [round(300 * 255 / 4095), 77, round(900 * 255 / 4095), 77, 249, 77]
        given_bits = load_dataset(tmp_path, channels=1, cache=cache, bits=14)
        assert int(given_bits.test[0].amax()) == round(4000 * 255 / 16383)
    outliers = load_outliers(tmp_path / "val", 16, 1, bits=splits.spec.bits)
    assert outliers.amax(dim=(1, 2, 3)).tolist() == [249, 77]
    options = TrainConfig("", images=ImageOptions(bits=splits.spec.bits))
    known = load_test(Request(str(tmp_path), options, channels=1), "images")
    assert torch.equal(next(eval_batches(known, 2))[0], next(eval_batches(splits.test, 2))[0])


@pytest.mark.parametrize("opaque", [4095, 65535])
def test_alpha_says_nothing_of_the_bits(opaque: int, tmp_path: Path) -> None:
    colours = ramp(12, (64, 64, 4))
    colours[..., 3], colours[0, 0, 3] = opaque, 0
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(2):
            (tmp_path / name / f"{i}.png").write_bytes(png(colours))
    with pytest.warns(RinceWarning, match="bits 12"):
        read_image(tmp_path / "a" / "0.png")
    with pytest.warns(RinceWarning, match="images of 12 bits"):
        assert load_dataset(tmp_path).spec.bits == 12
    found = read_image(tmp_path / "a" / "0.png", bits=12).permute(1, 2, 0).flatten().tolist()
    assert found == [255] * 3 + wanted(colours[..., :3], 12)[3:]


def test_values_above_the_bits_that_are_given_are_said(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 4095, 5000]], np.uint16)).save(tmp_path / "x.png")
    with pytest.warns(RinceWarning, match=r"above 4095, .* 12 bits \(images\.bits\)"):
        assert read_image(tmp_path / "x.png", 1, bits=12).flatten().tolist() == [0, 255, 255]


def test_bits_are_kept_with_a_network() -> None:
    spec = InputSpec.images(3, 32, bits=12)
    assert InputSpec.from_dict(spec.to_dict()).bits == 12
    assert spec == InputSpec.images(3, 32)  # it takes the same inputs
    assert "bits" not in InputSpec.images(3, 32).to_dict()


@pytest.mark.parametrize(
    ("values", "mode"),
    [
        *(([[0.0, 1.5]], "F"), ([[float("nan"), 0.5]], "F"), ([[-0.1, 0.5]], "F")),
        *(([[0.0, float("inf")]], "F"), ([[-1, 9]], "I"), ([[0, 65536]], "I")),
    ],
)
def test_values_of_no_known_range_are_refused(
    values: list[list[float]], mode: str, tmp_path: Path
) -> None:
    dtype = np.float32 if mode == "F" else np.int32
    Image.fromarray(np.array(values, dtype)).save(tmp_path / "x.tif")
    with pytest.raises(RinceError, match=r"x\.tif.*values.*expected.* 0"):
        read_image(tmp_path / "x.tif")


def test_fractions_are_read(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 0.5, 1]], np.float32)).save(tmp_path / "x.tif")
    assert read_image(tmp_path / "x.tif", 1).flatten().tolist() == [0, 128, 255]


def test_transparency_in_every_way_is_white(tmp_path: Path) -> None:
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.save(tmp_path / "one.png", transparency=0)
    palette.save(tmp_path / "each.png", transparency=bytes([0, 255]))
    palette.save(tmp_path / "one.gif", transparency=0)
    Image.fromarray(np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8)).save(
        tmp_path / "key.png", transparency=(255, 0, 0)
    )
    for file in tmp_path.iterdir():
        assert read_image(file).flatten(1).T.tolist() == [[255, 255, 255], [0, 0, 255]], file
    Image.fromarray(np.array([[7, 65535 // 2]], np.uint16)).save(
        tmp_path / "deep.png", transparency=7
    )
    assert read_image(tmp_path / "deep.png", 1).flatten().tolist() == [255, 127]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_broken_exif_data_do_not_stop_an_image(suffix: str, tmp_path: Path, quiet: None) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    words = b"\0\x01\x01\x12\0\x02\0\0\0\x04abc\0" + bytes(4)  # an orientation that is a word
    parts = (b"", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\0\x09", bytes(40))
    for number, exif in enumerate((*parts, b"MM\0*\0\0\0\x08" + words)):
        file = tmp_path / f"{number}{suffix}"
        options = {} if suffix == ".tif" else {"exif": b"Exif\0\0" + exif}
        Image.fromarray(pixels).save(file, **options)
        assert read_image(file).shape == (3, 8, 12)


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".tif"])
def test_of_several_frames_the_first_is_read_and_that_is_said(suffix: str, tmp_path: Path) -> None:
    frames = [Image.new("L", (8, 8), level) for level in (40, 200)]
    frames[0].save(tmp_path / f"x{suffix}", save_all=True, append_images=frames[1:])
    with pytest.warns(RinceWarning, match="pages.*first") as said:
        levels = torch.stack([read_image(tmp_path / f"x{suffix}", 1) for _ in range(2)])
    assert abs(int(levels.max()) - 40) <= 3  # WebP is not exact
    assert len({str(warning.message) for warning in said}) == 1  # without a name: shown once


def test_an_image_made_to_fill_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    Image.new("L", (100, 100)).save(tmp_path / "bomb.png")
    with pytest.raises(RinceError, match=r"bomb\.png.*10000 pixels.* bomb"):
        read_image(tmp_path / "bomb.png")


@pytest.mark.parametrize("shape", [(60_000, 1), (1, 60_000), (7, 5_000)])
def test_a_strip_costs_no_more_memory_than_its_middle(
    shape: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.transforms.v2 import functional

    largest = 0
    resize = functional.resize

    def watched(pixels: torch.Tensor, *given: Any, **options: Any) -> torch.Tensor:
        nonlocal largest
        made = resize(pixels, *given, **options)
        largest = max(largest, made.numel())
        return made

    monkeypatch.setattr(functional, "resize", watched)
    values = np.zeros(shape, np.uint8)
    values.reshape(-1)[values.size // 2 :] = 255
    Image.fromarray(values).save(tmp_path / "x.png")
    found = read_fitted(tmp_path / "x.png", InputSpec.images(1, 32))
    assert found.shape == (1, 32, 32)
    assert largest <= 32 * 32 * 9
    assert 60 < float(found.float().mean()) < 220  # the middle, where black becomes white


def test_strips_below_the_limit_are_fitted_as_ever() -> None:
    from torchvision.transforms.v2 import functional

    pixels = torch.randint(0, 256, (3, 10, 80), dtype=torch.uint8)
    expected = functional.center_crop(functional.resize(pixels, [16], antialias=True), [16, 16])
    assert torch.equal(eval_transform(16)(pixels), expected)


@pytest.mark.parametrize("in_memory", [True, False])
def test_all_files_that_cannot_be_read_are_listed_at_once(tmp_path: Path, in_memory: bool) -> None:
    for index in range(12):
        file = tmp_path / ("train" if index % 2 else "val") / "a" / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (16, 16), index).save(file)
        if index in (2, 3, 7):
            file.write_bytes(file.read_bytes()[:45])
    with pytest.raises(BadItems, match="3 of 12 images.*--skip-unreadable") as bad:
        load_dataset(tmp_path, cache=in_memory)
    assert [Path(p.split(":")[0].split()[-1]).stem for p in bad.value.problems] == ["3", "7", "2"]
    assert all(name in str(bad.value) for name in ("2.png", "3.png", "7.png"))
    with pytest.warns(RinceWarning, match="3 of 12 images.*left out"):
        splits = load_dataset(tmp_path, cache=in_memory, skip_unreadable=True)
    assert [int(splits.train[i].amax()) for i in range(4)] == [1, 11, 5, 9]
    assert (len(splits.train), len(splits.test)) == (4, 5)


def test_heic_names_its_extra(tmp_path: Path) -> None:
    heif = pytest.importorskip  # with the extra it is read, without it is named
    (tmp_path / "a").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "a" / "x.png")
    (tmp_path / "a" / "x.heic").write_bytes(b"no image")
    try:
        heif("pillow_heif")
    except pytest.skip.Exception:
        with pytest.warns(RinceWarning, match=r"1 images.*1 \.heic .*rince\[heic\]"):
            assert len(FileImages.from_folder(tmp_path)) == 1
        with pytest.raises(RinceError, match=r"x\.heic.*pillow_heif.*rince\[heic\]"):
            read_image(tmp_path / "a" / "x.heic")
    else:
        import pillow_heif

        pillow_heif.from_pillow(Image.new("RGB", (16, 16), "red")).save(tmp_path / "a" / "x.heic")
        assert len(FileImages.from_folder(tmp_path)) == 2
        assert read_image(tmp_path / "a" / "x.heic").shape == (3, 16, 16)
