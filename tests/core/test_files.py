from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
import torch

from rince import RinceError, RinceWarning
from rince.core import files
from rince.core.digests import content_digest, digest, file_digest, short_digest
from rince.core.files import (
    absent,
    by_suffix,
    cache_folder,
    chosen_below,
    file_stamps,
    files_below,
    held_alone,
    holds_no,
    is_vector_file,
    leading_to,
    new_folder,
    replacing,
    require_folder_of,
    require_no_folder,
    require_not_read,
    splits_below,
    taking_turns,
    unreadable,
    written,
)

FULL = OSError(errno.ENOSPC, "No space left on device")  # names no file, as of a write
READ = [OSError("image file is truncated"), OSError(errno.EIO, "Input/output error")]


def test_one_process_at_a_time(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    code = f"""
from pathlib import Path
from rince.core.files import taking_turns
print("asks", flush=True)
with taking_turns(Path({str(tmp_path)!r})):
    print(Path({str(tmp_path)!r}, "a").read_text(), flush=True)
"""
    with taking_turns(tmp_path):
        other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None
        assert other.stdout.readline() == "asks\n"
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(0.5)
        (tmp_path / "a").write_text("done")
    assert other.communicate(timeout=60)[0] == "done\n"
    with taking_turns(tmp_path / "missing"):  # as on a disk without locks
        pass


def test_a_file_is_held_alone(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    file = tmp_path / "log.txt"
    with held_alone(file) as alone:
        assert alone
        file.read_bytes()  # which ends a lock that belongs to the process
        with held_alone(file) as another:
            assert not another
    with held_alone(file) as alone:
        assert alone
    with held_alone(tmp_path / "missing" / "log.txt") as alone:  # as on a disk without locks
        assert alone


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_what_outlives_a_process_holds_nothing(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    file = tmp_path / "log.txt"
    code = f"""
import os, time
from pathlib import Path
from rince.core.files import held_alone
with held_alone(Path({str(file)!r})) as alone:
    child = os.fork()
    if child:
        print(alone, child, flush=True)
        time.sleep(1)
        os._exit(0)
    os.closerange(1, 3)
    time.sleep(60)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, stdin=None
    )
    held, child = done.stdout.split()
    try:
        assert held == "True"
        with held_alone(file) as alone:
            assert alone
    finally:
        os.kill(int(child), signal.SIGKILL)


def test_a_digest_is_of_the_content(tmp_path: Path) -> None:
    """Of checkpoints by the checksums in them, which must be there: each weight counts."""
    weights = {"a": torch.zeros(3), "b": torch.ones(2000)}
    found = set()
    for i, value in enumerate((1.0, 1.0, 2.0)):
        weights["b"][1999] = value
        torch.save(weights, tmp_path / "a.ckpt")
        np.savez(tmp_path / "a.npz", weights["b"].numpy())
        (tmp_path / "a.bin").write_bytes(weights["b"].numpy().tobytes())
        found |= {(x, file_digest(tmp_path / f"a.{x}")) for x in ("ckpt", "npz", "bin")}
        assert all(len(number) == 32 for _, number in found)
        assert len(found) == (3 if i < 2 else 6)


def test_files_of_vectors_are_known_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "folder.npz").mkdir()
    names = ("a.npz", "A.NPY", "a.parquet", "a.csv", "npz", "folder.npz")
    found = [name for name in names if is_vector_file(tmp_path / name)]
    assert found == ["a.npz", "A.NPY", "a.parquet"]


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    with replacing(file) as part:
        part.write_text("new")
        assert not file.exists()
    assert file.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("error", [OSError("full"), ValueError("bad"), KeyboardInterrupt()])
def test_or_not_at_all(tmp_path: Path, error: BaseException) -> None:
    file = tmp_path / "a.json"
    file.write_text("old")

    def write() -> None:
        with replacing(file) as part:
            part.write_text("ne")
            raise error

    with pytest.raises(type(error)):
        write()
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_replacing_what_was_never_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a.json"):
        pass
    with pytest.raises(OSError, match="none"), replacing(tmp_path / "none" / "a.json") as part:
        part.write_text("x")


def test_files_below_a_folder(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/1.PNG", "a.png", "b/c.txt", ".hidden/3.png", "b/.4.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    os.symlink(tmp_path, tmp_path / "b" / "back")
    found = [path.relative_to(tmp_path).as_posix() for path in files_below(tmp_path, {".png"})]
    assert found == ["a.png", "b/1.PNG", "b/2.png"]
    with pytest.raises(RinceError, match="none"):
        list(files_below(tmp_path / "none", {".png"}))


def test_a_link_to_itself_is_no_folder_and_no_error(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "a.png").touch()
    assert list(files_below(tmp_path, {".png"})) == [tmp_path / "a.png"]


def test_files_of_other_suffixes_are_named(tmp_path: Path) -> None:
    for name in ("b.PNG", "sub/a.png", "sub/c.txt", "d.TXT", "e.csv", "Thumbs.db"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")  # no file
    with pytest.warns(UserWarning, match=r"2 pictures; left out: 2 \.txt, 1 \.csv$"):
        chosen = chosen_below(tmp_path, (".png",), "pictures")
    assert chosen == [tmp_path / "b.PNG", tmp_path / "sub" / "a.png"]
    assert chosen_below(tmp_path, (".jpg",), "pictures") == []  # nothing to say of the others


@pytest.mark.parametrize("read", [True, False])
def test_photos_of_phones_are_named_with_what_they_need(
    read: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_READS_HEIC", read)
    names = [Path("a.HEIC"), Path("b.txt")]
    assert by_suffix(names).startswith("1 .heic, 1 .txt")
    assert ("rince[heic]" in by_suffix(names)) is not read
    assert "rince[heic]" not in by_suffix(names[1:])


@pytest.mark.parametrize("installed", [True, False, None])
def test_whether_photos_of_phones_are_images(
    installed: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(name: str, package: str | None = None) -> ModuleSpec | None:
        if installed is None:  # a finder that refuses
            raise ModuleNotFoundError(name)
        return ModuleSpec(name, None) if installed else None

    spec = importlib.util.spec_from_file_location("another", files.__file__)
    assert spec is not None
    assert spec.loader is not None
    another = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(importlib.util, "find_spec", found)
    spec.loader.exec_module(another)
    assert (".heic" in another.IMAGE_SUFFIXES) is bool(installed)


def test_a_folder_to_write_to(tmp_path: Path) -> None:
    require_folder_of(tmp_path / "a.csv")
    with pytest.raises(RinceError, match="none to write a.csv to"):
        require_folder_of(tmp_path / "none" / "a.csv")


def test_a_full_disk_is_told_of_the_file_that_was_asked_for(tmp_path: Path) -> None:
    file, other = tmp_path / "a.json", tmp_path / "other"
    full = re.escape(f"No space left on device: '{file}'") + "$"
    with pytest.raises(OSError, match=full), replacing(file):
        raise FULL
    with pytest.raises(OSError, match=re.escape(f"file or directory: '{other}'")), replacing(file):
        other.read_text()
    file.mkdir()
    is_there = re.escape(f"directory: '{file}'") + "$"
    with pytest.raises(OSError, match=is_there), replacing(file) as part:
        part.touch()


@pytest.mark.parametrize("error", [*READ, FileNotFoundError(2, "No such file", "/other.csv")])
def test_an_error_of_reading_is_none_of_writing(tmp_path: Path, error: OSError) -> None:
    targets = (
        replacing(tmp_path / "a"),
        written(tmp_path / "b", "table"),
        new_folder(tmp_path / "c"),
    )
    for target in targets:
        with pytest.raises(OSError, match=re.escape(str(error))) as raised, target:
            raise error
        assert raised.value is error
    assert os.listdir(tmp_path) == []


def test_what_was_written_is_on_the_disk_before_it_replaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda file: kept.append(os.fstat(file).st_ino))
    with replacing(tmp_path / "a.json") as part:
        part.write_text("new")
    assert kept == [(tmp_path / "a.json").stat().st_ino]


def test_digests_are_those_of_all_releases() -> None:
    """Runs of earlier releases are recognised by these bytes."""
    parts = [("a", "b"), "\udcff", 3]
    lines = b"('a', 'b')\n'\\udcff'\n3\n"
    assert digest(parts) == hashlib.blake2b(lines, digest_size=16).hexdigest()
    assert content_digest(b"x") == hashlib.blake2b(b"x", digest_size=16).digest()
    assert (
        short_digest("split", 0, "k")
        == hashlib.blake2b(b"('split', 0, 'k')", digest_size=8).digest()
    )
    assert digest([]) == "cae66941d9efbd404e4d88758ea67670"


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("clips") == tmp_path / "rince" / "clips"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_folder() == Path.home() / ".cache" / "rince"

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(RinceError, match="XDG_CACHE_HOME"):
        cache_folder()


def test_what_a_user_named_is_written_in_a_new_folder_or_refused_by_its_name(
    tmp_path: Path,
) -> None:
    file = tmp_path / "new" / "folder" / "table.csv"
    for text in ("old", "a"):
        with written(file, "table") as part:
            part.write_text(text)
    assert file.read_text() == "a"
    for wrong in (tmp_path, file / "below.csv"):
        refused = pytest.raises(RinceError, match=f"cannot write the table to {wrong} ")
        with refused, written(wrong, "table") as part:
            part.write_text("b")
    assert file.read_text() == "a"
    assert [x.name for x in tmp_path.iterdir()] == ["new"]


def test_a_new_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "my" / "runs" / "a"

    def half(stop: BaseException) -> None:
        with new_folder(folder) as part:
            (part / "half").write_text("x")
            raise stop

    for stop, said in ((KeyboardInterrupt("?"), "?"), (OSError(28, "No space"), f"{folder}: No")):
        with pytest.raises((KeyboardInterrupt, RinceError), match=re.escape(said)):
            half(stop)
        assert list(folder.parent.iterdir()) == []
    with new_folder(folder) as part:
        (part / "all").write_text("x")
        assert not folder.exists()
    assert [x.name for x in folder.parent.rglob("*")] == ["a", "all"]
    with pytest.raises(RinceError, match="below"), new_folder(folder / "all" / "below"):
        pass


def test_a_full_disk_is_told_of_the_folder_that_was_asked_for(tmp_path: Path) -> None:
    folder, other = tmp_path / "export", tmp_path / "other"

    def written_inside(part: Path) -> None:
        with new_folder(part / "image"):
            raise FULL

    def told_inside(part: Path) -> None:
        try:
            with replacing(part / "b"):
                raise FULL
        except OSError as error:
            raise RinceError(f"no results in {part}") from error

    for write in (written_inside, told_inside):
        refused = pytest.raises(RinceError, match=f"cannot write {folder}: No space left")
        with refused, new_folder(folder) as part:
            write(part)
    with pytest.raises(FileNotFoundError, match=f"'{other}'"), new_folder(folder):
        other.read_text()
    for cause in (OSError("no image"), ValueError("bad")):
        with pytest.raises(RinceError, match="cannot read it"), new_folder(folder):
            raise RinceError("cannot read it") from cause
    assert os.listdir(tmp_path) == []


def test_what_is_of_the_other_kind_is_said_to_be_there(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    assert (
        holds_no("image", tmp_path, {".png", ".jpg"}) == f"{tmp_path} holds no image (.jpg, .png)"
    )
    assert absent("file", tmp_path).endswith("is a folder, where a file is expected")
    assert absent("folder", tmp_path / "a.txt").endswith("is a file, where a folder is expected")
    for wanted in ("file", "folder"):
        assert absent(wanted, tmp_path / "b") == f"there is no {wanted} {tmp_path / 'b'}"  # type: ignore[arg-type]
        assert absent(wanted, "nowhere/b").endswith(f"nowhere/b in {os.getcwd()}")  # type: ignore[arg-type]


def test_a_link_to_what_is_gone_is_said(tmp_path: Path) -> None:
    link = tmp_path / "latest"
    link.symlink_to("gone")
    for wanted in ("file", "folder"):
        for path, named in ((link, link), (link / "export", link / "export")):
            said = f"there is no {wanted} {named}: {link} is a link to gone, which is not there"
            assert absent(wanted, path) == said  # type: ignore[arg-type]
    (tmp_path / "gone").touch()
    assert absent("folder", link).endswith("is a file, where a folder is expected")
    assert absent("file", link / "x") == f"there is no file {link / 'x'}"


def test_places_are_given_once_and_links_to_nothing_left_out(tmp_path: Path) -> None:
    there, latest, lost, loop = (tmp_path / name for name in ("there", "latest", "lost", "loop"))
    there.mkdir()
    latest.symlink_to("there")
    lost.symlink_to("gone")
    loop.symlink_to("loop")
    first = {there.resolve(): str(latest)}
    assert leading_to([latest, str(there), there / ".." / "there"]) == first
    for link in (lost, loop):
        with pytest.warns(RinceWarning, match=f"left out: there is no folder {link}: .*a link"):
            assert leading_to([str(link), latest]) == first
        with pytest.raises(RinceError, match=f"^there is no folder {link}: .*a link"):
            leading_to([link])
    missing = tmp_path / "missing"  # a mistake, which whoever reads it names
    assert list(leading_to([there, missing])) == [there.resolve(), missing.resolve()]


def test_a_folder_is_no_place_for_a_file(tmp_path: Path) -> None:
    folder, file = tmp_path / "d.npz", tmp_path / "x.npz"
    folder.mkdir()
    for existing in (False, True):
        if existing:
            file.touch()
        require_no_folder(file)
        require_folder_of(file)
    said = f"^{folder} is a folder, where a file is expected"
    with pytest.raises(RinceError, match=rf"{said} \(--csv FILE\)$"):
        require_no_folder(folder, "--csv FILE")
    with pytest.raises(RinceError, match=rf"{said} \(-o FILE\)$"):
        require_folder_of(folder)


def test_a_file_that_may_have_been_edited_is_not_written_over(tmp_path: Path) -> None:
    table = tmp_path / "items.csv"
    assert files.new_file(str(table)) == table
    table.write_text("edited")
    with pytest.raises(RinceError, match=r"items\.csv is there"):
        files.new_file(table)


def test_the_folders_of_splits(tmp_path: Path) -> None:
    for name in ("Train", "other", "dev"):
        (tmp_path / name).mkdir()
    (tmp_path / "val").touch()  # a file
    assert splits_below(tmp_path) == {"train": tmp_path / "Train", "dev": tmp_path / "dev"}
    assert splits_below(tmp_path / "none") == {}


def test_why_a_file_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    for file, error, said in (
        ("a.csv", OSError(5, "Input/output error"), "Input/output error"),
        ("a.csv", OSError("no number"), "no number"),
        ("a.csv", KeyError("x"), "'x'"),
        ("b.csv", OSError(2, "No such file or directory"), f"there is no file {tmp_path}/b.csv"),
    ):
        found = str(unreadable("scores", tmp_path / file, error))
        assert found == f"cannot read the scores in {tmp_path / file}: {said}"


def test_what_is_read_is_not_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.npz").write_bytes(b"features")
    Path("link.npz").symlink_to("a.npz")
    for output in ("a.npz", "./a.npz", str(tmp_path / "a.npz"), "link.npz"):
        with pytest.raises(RinceError, match=r"^a\.npz is read, .*name another file \(--csv FILE"):
            require_not_read(Path(output), ["cifar100", "a.npz"], "--csv FILE")
    require_not_read(Path("new.npz"), ["a.npz"])
    require_not_read(Path("a.npz"), ["photos/", "nothing.npz"])


def test_a_file_that_was_replaced_has_another_stamp(tmp_path: Path) -> None:
    one, two = (str(tmp_path / name) for name in ("one", "two"))
    for file in (one, two):
        Path(file).write_bytes(b"abc")
        os.utime(file, ns=(5, 7))
    assert file_stamps([one, two, one, "nothing", "a\0b"]) == [(one, 3, 7), (two, 3, 7)]
    Path(one).write_bytes(b"abd")
    os.utime(two, ns=(5, 8))
    (_, size, time), other = file_stamps([one, two])
    assert size == 3
    assert time != 7
    assert other == (two, 3, 8)
