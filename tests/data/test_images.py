from __future__ import annotations

import os
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from loaders import load_outliers
from rince.core.checks import RinceError, RinceWarning
from rince.data.arrays import TensorImages
from rince.data.batches import eval_batches
from rince.data.image.decode import read_image
from rince.data.image.files import FileImages
from rince.data.items import drop_duplicates
from rince.data.views import eval_transform, evaluation_pixels
from rince.ranks.taxonomy import Taxonomy


def noise(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def save(pixels: Tensor, file: Path) -> Path:
    """(H, W) or (H, W, C) uint8."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.numpy()).save(file)
    return file


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """animal/dog/{husky, malamute}, animal/carp, boat: two images each."""
    root = tmp_path / "photos"
    names = ("animal/dog/husky", "animal/dog/malamute", "animal/carp", "boat")
    for number, name in enumerate(names):
        for index in range(2):
            pixels = noise(12 + index, 16, 3, seed=2 * number + index)
            save(pixels, root / name / f"{index}.png")
    return root


def damage(file: Path) -> Path:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    return file


def test_a_tree_is_a_taxonomy(tree: Path) -> None:
    (tree / "boat" / "notes.txt").write_text("no image")
    (tree / "boat" / ".hidden.png").write_text("no image")
    with pytest.warns(RinceWarning, match=r"photos: 8\b.*: 1 \.txt"):
        images = FileImages.from_folder(tree)
    assert images.taxonomy == Taxonomy.from_folders(tree)
    assert len(images) == len(images.labels) == 8
    for path, label in zip(images.paths, images.labels.tolist(), strict=True):
        assert Path(path).parent == tree.joinpath(*images.taxonomy.paths[label])
    assert images.name == "photos"
    assert images.channels == 3
    boat = images.labels.tolist().index(images.taxonomy.index("boat"))
    assert torch.equal(images[boat], noise(12, 16, 3, seed=6).permute(2, 0, 1))


def test_a_given_taxonomy_makes_labels_agree(tree: Path, tmp_path: Path) -> None:
    train = FileImages.from_folder(tree)
    save(noise(4, 4, 3), tmp_path / "val/animal/dog/malamute/a.png")
    save(noise(4, 4, 3), tmp_path / "flat/boat/a.png")
    save(noise(4, 4, 3), tmp_path / "flat/malamute/a.png")
    for folder, names in (("val", ["malamute"]), ("flat", ["boat", "malamute"])):
        test = FileImages.from_folder(tmp_path / folder, train.taxonomy)
        assert test.taxonomy is train.taxonomy
        assert [train.taxonomy.classes[k] for k in test.labels.tolist()] == names


@pytest.mark.parametrize("folder", ["animal/dog/poodle", "animal/cat/husky", "ship/boat"])
def test_an_unknown_folder_is_named(tree: Path, tmp_path: Path, folder: str) -> None:
    taxonomy = Taxonomy.from_folders(tree)
    save(noise(4, 4, 3), tmp_path / "val" / folder / "a.png")
    with pytest.raises(RinceError, match=rf"val/{folder}\b.*\b4 classes"):
        FileImages.from_folder(tmp_path / "val", taxonomy)


def test_kinds_of_files_become_rgb_or_grey(tmp_path: Path) -> None:
    rgb = noise(6, 7, 3)
    grey = noise(6, 7, seed=1)
    chw = rgb.permute(2, 0, 1)
    assert torch.equal(read_image(save(rgb, tmp_path / "rgb.png")), chw)
    assert torch.equal(read_image(save(grey, tmp_path / "grey.png")), grey.expand(3, 6, 7))
    assert torch.equal(read_image(tmp_path / "grey.png", 1), grey[None])
    luma = (chw.double() * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0)
    assert float((read_image(tmp_path / "rgb.png", 1)[0].double() - luma).abs().max()) <= 1
    few = rgb // 128 * 255
    palette = Image.fromarray(few.numpy()).quantize(8)
    palette.save(tmp_path / "palette.gif")
    assert torch.equal(read_image(tmp_path / "palette.gif"), few.permute(2, 0, 1))


def test_transparency_is_white(tmp_path: Path) -> None:
    rgba = noise(4, 4, 4)
    rgba[:2, :, 3] = 0
    rgba[2:, :, 3] = 255
    found = read_image(save(rgba, tmp_path / "a.png"))
    assert bool((found[:, :2] == 255).all())
    assert torch.equal(found[:, 2:], rgba[2:, :, :3].permute(2, 0, 1))


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path: Path) -> None:
    levels = np.array([[0, 257, 257 * 100, 65535]], dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    assert read_image(tmp_path / "deep.png", 1).flatten().tolist() == [0, 1, 100, 255]


@pytest.mark.parametrize(
    ("levels", "expected"),
    [([0, 100, 255], [0, 100, 255]), ([0, 256, 65535], [0, 1, 255])],
)
def test_thirty_two_bits_hold_bytes_or_sixteen_bits(
    tmp_path: Path, levels: list[int], expected: list[int]
) -> None:
    Image.fromarray(np.array([levels], dtype=np.int32)).save(tmp_path / "deep.tif")
    with Image.open(tmp_path / "deep.tif") as image:
        assert image.mode == "I"
    assert read_image(tmp_path / "deep.tif", 1).flatten().tolist() == expected


def test_photos_are_turned_upright(tmp_path: Path) -> None:
    pixels = noise(4, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to see it upright
    Image.fromarray(pixels.numpy()).save(tmp_path / "a.png", exif=exif)
    expected = torch.rot90(pixels.permute(2, 0, 1), -1, dims=(1, 2))
    assert torch.equal(read_image(tmp_path / "a.png"), expected)


def test_preloading_is_reading_and_fitting(tree: Path) -> None:
    images = FileImages.from_folder(tree)
    loaded = images.preload(8)
    assert loaded.pixels.shape == (8, 3, 8, 8)
    assert torch.equal(loaded.labels, images.labels)
    assert (loaded.taxonomy, loaded.name) == (images.taxonomy, images.name)
    for index in range(8):
        assert torch.equal(loaded.pixels[index], eval_transform(8)(images[index]))


def test_large_photos_are_preloaded_from_a_smaller_decode(tmp_path: Path) -> None:
    ramp = torch.arange(640).mul(255 / 639).to(torch.uint8).expand(480, 640)
    file = save(ramp[:, :, None].repeat(1, 1, 3), tmp_path / "a" / "b" / "large.jpg")
    assert read_image(file, at_least=100).shape == (3, 120, 160)
    (fast,) = FileImages.from_folder(tmp_path / "a").preload(48).pixels
    slow = eval_transform(48)(read_image(file))
    assert int((fast.int() - slow.int()).abs().max()) <= 4


@pytest.mark.parametrize("kind", ["truncated", "empty", "text", "missing"])
def test_an_unreadable_file_is_named(tree: Path, kind: str) -> None:
    images = FileImages.from_folder(tree)
    file = Path(images.paths[3])
    if kind == "truncated":
        damage(file)
    elif kind == "missing":
        file.unlink()
    else:
        file.write_text("" if kind == "empty" else "this is no image")
    for act in (lambda: images[3], lambda: images.preload(8)):
        with pytest.raises(RinceError, match=r"\(--skip-unreadable\)$") as caught:
            act()
        assert str(file) in str(caught.value)
        assert ("empty" in str(caught.value)) == (kind == "empty")
    assert images[2].dtype == torch.uint8


def test_files_beside_class_folders_are_counted(tree: Path) -> None:
    for name in ("readme.md", "animal/photo.nef", "animal/dog/husky/notes.txt", "animal/.hidden"):
        (tree / name).write_text("no image")
    with pytest.warns(RinceWarning, match=r"8 images; left out: 1 \.md, 1 \.nef, 1 \.txt$"):
        assert len(FileImages.from_folder(tree)) == 8


def test_a_truncated_jpeg_is_not_padded_with_grey(tmp_path: Path) -> None:
    file = damage(save(noise(64, 64, 3), tmp_path / "a.jpg"))
    with pytest.raises(RinceError, match="truncated"):
        read_image(file)


def test_skipping_warns_and_keeps_labels_in_step(tree: Path) -> None:
    images = FileImages.from_folder(tree)
    broken = [1, 4]
    for index in broken:
        damage(Path(images.paths[index]))
    kept = [0, 2, 3, 5, 6, 7]
    with pytest.warns(RinceWarning, match="2 of 8 images.*left out") as caught:
        loaded = images.preload(8, skip_unreadable=True)
    assert all(images.paths[index] in str(caught[0].message) for index in broken)
    assert torch.equal(loaded.labels, images.labels[kept])
    for row, index in enumerate(kept):
        assert torch.equal(loaded.pixels[row], eval_transform(8)(images[index]))
    with pytest.warns(RinceWarning, match="2 of 8"):
        listed = FileImages.from_folder(tree, skip_unreadable=True)
    assert listed.paths == tuple(images.paths[index] for index in kept)
    assert torch.equal(listed.labels, images.labels[kept])


def test_skipping_lists_only_the_first_few(tmp_path: Path) -> None:
    for index in range(8):
        save(noise(8, 8, 3, seed=index), tmp_path / "a" / f"{index}.png")
        if index < 7:
            damage(tmp_path / "a" / f"{index}.png")
    with pytest.warns(RinceWarning, match=r"7 of 8 .*\(and 4 more\)") as caught:
        FileImages.from_folder(tmp_path, skip_unreadable=True)
    assert "2.png" in str(caught[0].message)
    assert "3.png" not in str(caught[0].message)
    damage(tmp_path / "a" / "7.png")
    with pytest.raises(RinceError, match=r"none.*\b8 images"):
        FileImages.from_folder(tmp_path, skip_unreadable=True)


def test_nothing_skipped_nothing_said(tree: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(FileImages.from_folder(tree, skip_unreadable=True)) == 8


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RinceError, match="is empty"):
        FileImages.from_folder(tmp_path)
    with pytest.raises(RinceError, match="there is no folder.*nowhere; expected"):
        FileImages.from_folder(tmp_path / "nowhere")


def test_subsets_keep_the_order_asked_for(tree: Path) -> None:
    files = FileImages.from_folder(tree)
    for images in (files, files.preload(8)):
        part = images.subset([5, 0])
        assert torch.equal(part.labels, images.labels[[5, 0]])
        assert torch.equal(part[0], images[5])
        assert torch.equal(part[1], images[0])
        assert len(images.subset(torch.tensor([], dtype=torch.int64))) == 0


def test_wrong_tensors_are_refused() -> None:
    taxonomy = Taxonomy([("a",), ("b",)])
    pixels, labels = noise(2, 3, 4, 4), torch.tensor([0, 1])
    TensorImages(pixels, labels, taxonomy, "fine")
    for wrong, message in (
        ((pixels.float(), labels), "uint8"),
        ((noise(2, 4, 4, 4), labels), "1 or 3"),
        ((pixels, labels[:1]), "one for each of the 2 "),
        ((pixels, labels.float()), "must be integers, got torch.float32"),
        ((pixels, labels + 1), r"\[0, 2\).* hold 2"),
        ((pixels, labels - 1), "hold -1"),
    ):
        with pytest.raises(ValueError, match=message):
            TensorImages(*wrong, taxonomy, "wrong")


def test_duplicates_are_dropped_from_the_training_images(tmp_path: Path) -> None:
    for name, seed in (("train/a/0", 0), ("train/a/1", 1), ("train/b/2", 0), ("train/b/3", 3)):
        save(noise(8, 8, 3, seed=seed), tmp_path / f"{name}.png")
    save(noise(8, 8, 3, seed=3), tmp_path / "val/a/x.png")
    train = FileImages.from_folder(tmp_path / "train")
    test = FileImages.from_folder(tmp_path / "val", train.taxonomy)
    names = [Path(path).name for path in drop_duplicates(train, test).paths]
    assert names == ["0.png", "1.png"]  # 2 repeats 0, 3 is also a test image
    assert [Path(path).name for path in drop_duplicates(train).paths] == ["0.png", "1.png", "3.png"]
    kept = drop_duplicates(train.preload(8), test.preload(8))
    assert torch.equal(kept.pixels, train.preload(8).pixels[:2])


def test_outliers_are_found_at_any_depth(tmp_path: Path) -> None:
    save(noise(8, 10, 3, seed=0), tmp_path / "b.png")
    save(noise(12, 8, seed=1), tmp_path / "a" / "deep" / "grey.png")
    (tmp_path / "readme.txt").write_text("no image")
    with pytest.warns(RinceWarning, match=r"\b2 images.*1 \.txt"):
        found = load_outliers(tmp_path, 8, 3)
    (tmp_path / "readme.txt").unlink()
    assert found.shape == (2, 3, 8, 8)
    assert found.dtype == torch.uint8
    assert torch.equal(found[1], noise(8, 10, 3, seed=0).permute(2, 0, 1)[:, :, 1:9])
    assert torch.equal(found[0], noise(12, 8, seed=1)[2:10].expand(3, 8, 8))
    assert load_outliers(tmp_path, 8, 1).shape == (2, 1, 8, 8)
    damage(tmp_path / "b.png")
    with pytest.raises(RinceError, match="b.png"):
        load_outliers(tmp_path, 8)
    with pytest.warns(RinceWarning, match="1 of 2"):
        assert len(load_outliers(tmp_path, 8, skip_unreadable=True)) == 1


def test_a_loop_of_links_is_walked_once(tmp_path: Path) -> None:
    root = tmp_path / "birds"
    save(noise(8, 8, 3), root / "a" / "b" / "0.png")
    (root / "a" / "b" / "up").symlink_to(root, target_is_directory=True)
    (root / "z").symlink_to(root / "a", target_is_directory=True)
    assert len(load_outliers(root, 8)) == 1


def test_what_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    """A pipe would block for good."""
    save(noise(8, 8, 3), tmp_path / "a" / "b" / "0.png")
    os.mkfifo(tmp_path / "a" / "b" / "1.png")
    (tmp_path / "a" / "b" / "2.png").symlink_to("2.png")
    files = FileImages.from_folder(tmp_path)
    with pytest.raises(RinceError, match=r"1\.png: it is not a plain file.*2\.png: .*links"):
        files.readable()
    with pytest.warns(RinceWarning, match="2 of 3 images are left out"):
        assert len(files.readable(skip_unreadable=True)) == 1


def test_known_classes_and_outliers_are_decoded_alike(tmp_path: Path) -> None:
    """A JPEG that is decoded at a part of its size differs a little: enough for a detector."""
    save(noise(640, 480, 3), tmp_path / "a" / "b" / "large.jpg")
    outliers = load_outliers(tmp_path, 70)
    files = FileImages.from_folder(tmp_path / "a")
    ((known, _),) = eval_batches(replace(files, image_size=70), 1)
    assert torch.equal(known, evaluation_pixels(outliers))
    assert torch.equal(files.preload(70).pixels, outliers)
    assert not torch.equal(eval_transform(70)(files[0]), outliers[0])


def test_outliers_need_a_folder_with_images(tmp_path: Path) -> None:
    with pytest.raises(RinceError, match="there is no folder.*nowhere; expected"):
        load_outliers(tmp_path / "nowhere", 8)
    with pytest.raises(RinceError, match="holds no image"):
        load_outliers(tmp_path, 8)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("bits", [10, 12, 14])
def test_few_bits_in_sixteen(bits: int, suffix: str, tmp_path: Path) -> None:
    ramp = np.linspace(0, 2**bits - 1, 256).reshape(16, 16).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / f"dark{suffix}")
    with pytest.warns(
        RinceWarning, match=f"above {2**bits - 1}, as {bits} bits .* images.bits {bits}$"
    ):
        read_image(tmp_path / f"dark{suffix}", 1)
    Image.fromarray(ramp << (16 - bits)).save(tmp_path / f"right{suffix}")
    assert int(read_image(tmp_path / f"right{suffix}", 1).max()) >= 254


def test_suffixes_of_browsers_and_what_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for suffix in (".jfif", ".jpe", ".JPG", ".heic", ".HEIC", ""):
        Image.new("RGB", (8, 8)).save(tmp_path / "a" / f"x{suffix}", format="JPEG")
    Image.new("RGB", (8, 8)).save(tmp_path / "a" / "x.avif")
    (tmp_path / "a" / "Thumbs.db").touch()
    with pytest.warns(RinceWarning, match=r"\b4 images.*2 \.heic, 1 without"):
        images = FileImages.from_folder(tmp_path)
    assert all(images[i].shape == (3, 8, 8) for i in range(len(images)))
