"""Images that were checked once are not opened again, unless anything about them changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from rince import RinceError, RinceWarning
from rince.core.checks import BadItems
from rince.data.image import checked
from rince.data.image.checked import checked_bits
from rince.data.image.files import FileImages
from rince.data.image.shards import Member

LONG_AGO = 10**18  # nanoseconds: 2001


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The names of the files that are opened; the cache folder is one of the test's own."""
    names: list[str] = []
    read: Callable[..., int] = checked.bits_of

    def noted(path: str | Member, *, only_deep: bool) -> int:
        names.append(Path(str(path)).name)
        return read(path, only_deep=only_deep)

    monkeypatch.setattr(checked, "bits_of", noted)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return names


def written(folder: Path, count: int = 6) -> list[str]:
    folder.mkdir(exist_ok=True)
    files = [folder / f"{i}.png" for i in range(count)]
    for i, file in enumerate(files):
        # The first is deep, and of 12 bits.
        image = Image.new("RGB", (4, 4), (i, 0, 0)) if i else Image.new("I;16", (4, 4), 4095)
        image.save(file)
        settle(file)
    return list(map(str, files))


def settle(file: Path, time: int = LONG_AGO) -> None:
    os.utime(file, ns=(time, time))


def test_the_second_time_only_what_is_new_or_changed(tmp_path: Path, opened: list[str]) -> None:
    files = written(tmp_path / "a")
    bits = [12, *[0] * 5]
    assert checked_bits(files, only_deep=False) == bits
    assert sorted(opened) == sorted(Path(x).name for x in files)
    opened.clear()
    assert checked_bits(files, only_deep=False) == bits
    assert checked_bits(files[1:4], only_deep=False) == bits[1:4]
    assert opened == []
    assert checked_bits(files[:1], only_deep=True) == [12]  # which reads less of a file
    assert opened == ["0.png"]
    opened.clear()
    settle(Path(files[2]), LONG_AGO + 1)  # as if another image of the same size were there
    Path(files[3]).write_bytes(Path(files[3]).read_bytes() + b"\0")
    settle(Path(files[3]))
    Path(files[4]).write_bytes(b"")
    settle(Path(files[4]))
    found = checked_bits(files, only_deep=False)
    assert sorted(opened) == ["2.png", "3.png", "4.png"]
    assert [x for x in found if not isinstance(x, RinceError)] == [12, 0, 0, 0, 0]
    assert files[4] in str(found[4])
    opened.clear()
    assert isinstance(checked_bits(files, only_deep=False)[4], RinceError)  # and again
    assert opened == ["4.png"]


def test_a_file_that_changed_a_moment_ago_is_read_again(tmp_path: Path, opened: list[str]) -> None:
    files = written(tmp_path / "a", 2)
    os.utime(files[1])
    for _ in range(2):
        checked_bits(files, only_deep=False)
    assert opened.count("1.png") == 2
    assert opened.count("0.png") == 1


def test_another_version_reads_again(
    tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = written(tmp_path / "a", 2)
    checked_bits(files, only_deep=False)
    monkeypatch.setattr(checked, "__version__", "another")
    checked_bits(files, only_deep=False)
    assert len(opened) == 4


@pytest.mark.parametrize(
    "damage", [lambda x: b"", lambda x: x[:-3], lambda x: x[:-1] + b"\x07", lambda x: b"\0" * 25]
)
def test_a_damaged_record_is_ignored_and_replaced(
    damage: Callable[[bytes], bytes], tmp_path: Path, opened: list[str]
) -> None:
    files = written(tmp_path / "a")
    checked_bits(files, only_deep=False)
    (note,) = (tmp_path / "cache" / "rince" / "checked").iterdir()
    whole = note.read_bytes()
    note.write_bytes(damage(whole))
    opened.clear()
    assert checked_bits(files, only_deep=False) == [12, *[0] * 5]
    assert len(opened) == 6
    assert sorted(note.read_bytes()[16:]) == sorted(whole[16:])


@pytest.mark.parametrize("note", [True, False])
def test_a_cache_that_cannot_be_used_costs_only_time(
    note: bool, tmp_path: Path, opened: list[str]
) -> None:
    files = written(tmp_path / "a", 3)
    folder = tmp_path / "cache" / "rince" / "checked"
    if note:  # a folder in the file's place
        checked_bits(files, only_deep=False)
        (file,) = folder.iterdir()
        file.unlink()
        file.mkdir()
    else:
        folder.parent.mkdir(parents=True)
        folder.write_text("a file in the folder's place")
    opened.clear()
    for _ in range(2):
        assert checked_bits(files, only_deep=False) == [12, 0, 0]
    assert len(opened) == 6


def test_warnings_are_given_every_time(tmp_path: Path, opened: list[str]) -> None:
    files = written(tmp_path / "a", 2)
    pages = [Image.new("L", (4, 4), shade) for shade in (0, 200)]
    file = tmp_path / "a" / "film.gif"
    pages[0].save(file, save_all=True, append_images=pages[1:])
    settle(file)
    for _ in range(2):
        with pytest.warns(RinceWarning, match="animated"):
            assert checked_bits([*files, str(file)], only_deep=False) == [12, 0, 0]
    assert opened.count("film.gif") == 2


def test_images_of_a_folder(tmp_path: Path, opened: list[str]) -> None:
    """What a second command does on the same folder, and once a file is damaged."""
    for name in ("cat", "dog"):
        written(tmp_path / "photos")
        (tmp_path / "photos").rename(tmp_path / name)
    root = tmp_path / "pets"
    root.mkdir()
    for name in ("cat", "dog"):
        (tmp_path / name).rename(root / name)
        (root / name / "0.png").unlink()  # deep
    images = FileImages.from_folder(root)
    assert len(images.readable()) == 10
    opened.clear()
    assert len(images.readable()) == 10
    assert opened == []
    (root / "dog" / "3.png").write_bytes(b"nothing")
    with pytest.raises(BadItems, match=r"dog/3\.png"):
        images.readable()
    assert opened == ["3.png"]


def test_members_of_shards(tmp_path: Path, opened: list[str]) -> None:
    files = written(tmp_path / "a", 3)
    content = [Path(x).read_bytes() for x in files]
    shard = tmp_path / "s.tar"
    shard.write_bytes(b"".join(content))
    settle(shard)
    starts = [0, len(content[0]), len(content[0] + content[1])]
    members = [
        Member(str(shard), f"{i}.png", start, len(x))
        for i, (start, x) in enumerate(zip(starts, content, strict=True))
    ]
    for _ in range(2):
        assert checked_bits(members, only_deep=False) == [12, 0, 0]
    assert len(opened) == 3
    settle(shard, LONG_AGO + 1)
    checked_bits(members, only_deep=False)
    assert len(opened) == 6


def test_no_file_at_all(opened: list[str]) -> None:
    assert checked_bits([], only_deep=False) == []
    (found,) = checked_bits(["a\0b.png"], only_deep=False)
    assert isinstance(found, RinceError)
