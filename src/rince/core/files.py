"""Files: which lie below a folder, what its splits are called, which are texts, where they are
kept between runs, and replacing one as a whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from io import FileIO
from pathlib import Path
from typing import Literal
from weakref import WeakSet

from rince.core.checks import RinceError, warn

HEIC_SUFFIXES = (".heic", ".heif")
_READS_HEIC = False
with contextlib.suppress(ModuleNotFoundError):  # of a finder that refuses
    _READS_HEIC = importlib.util.find_spec("pillow_heif") is not None  # the extra heic
VECTOR_SUFFIXES = (".npz", ".npy", ".parquet")
IMAGE_SUFFIXES = frozenset(
    (
        *(HEIC_SUFFIXES if _READS_HEIC else ()),
        *(".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm"),
        *(".tif", ".tiff", ".webp"),
    )
)
VIDEO_SUFFIXES = frozenset(
    (
        *(".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts"),
        *(".webm", ".wmv"),
    )
)
TEST_SPLITS = ("val", "validation", "valid", "dev", "test")  # the first that is there is used
SPLITS = ("train", *TEST_SPLITS)
# What systems and programs leave behind: Windows, macOS, Synology, QNAP, ext file systems, Python.
# None that may be the name of a class.
_LEFT_BEHIND = frozenset(
    (
        *("$recycle.bin", "system volume information", "__macosx", "@eadir"),
        *("#recycle", "#snapshot", "@recycle", "@recently-snapshot", "lost+found"),
        "__pycache__",
    )
)


def passed_over(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or none of the user's."""
    return name.startswith(".") or name.lower() in _LEFT_BEHIND


def splits_among(names: Iterable[str]) -> dict[str, str]:
    """Those of :data:`SPLITS` that are among the names, and how each of them is written there.

    Example:
        >>> splits_among(["Val", "other", "train", "Train"])
        {'train': 'train', 'val': 'Val'}
    """
    written = {name.lower(): name for name in sorted(names)}
    return {split: written[split] for split in SPLITS if split in written}


def splits_below(folder: Path) -> dict[str, Path]:
    """The folders of splits in a folder, by :data:`SPLITS`; none where it cannot be read."""
    try:
        names = [x for x in os.listdir(folder) if x.lower() in SPLITS and (folder / x).is_dir()]
    except OSError:  # whoever reads it says why
        return {}
    return {split: folder / name for split, name in splits_among(names).items()}


def chosen_below(folder: Path, suffixes: Collection[str], noun: str) -> list[Path]:
    """As :func:`files_below`; files of other suffixes are warned of."""
    files = list(files_below(folder, None))
    chosen = [file for file in files if file.suffix.lower() in suffixes]
    others = (x for x in files if x.suffix.lower() not in suffixes and x.is_file())
    warn_left_out(folder, len(chosen), noun, others)
    return chosen


def warn_left_out(folder: Path, count: int, noun: str, others: Iterable[Path]) -> None:
    """``288 images; left out: 10 .heic, 3 .txt``; nothing if there are no others."""
    if count and (left_out := by_suffix(others)):
        warn(f"{folder}: {count} {noun}; left out: {left_out}")


def by_suffix(files: Iterable[Path]) -> str:
    """How many files there are of each suffix, most first; those of systems do not count.

    Example:
        >>> by_suffix(map(Path, ("a.TXT", "b.txt", "notes", "Thumbs.db")))
        '2 .txt, 1 without a suffix'
    """
    counts = Counter(
        file.suffix.lower() or "without a suffix"
        for file in files
        if file.name.lower() not in ("thumbs.db", "desktop.ini")
    )
    shown = ", ".join(f"{count} {suffix}" for suffix, count in counts.most_common())
    heic = not _READS_HEIC and any(suffix in counts for suffix in HEIC_SUFFIXES)
    return shown + " (.heic needs pip install 'rince[heic]')" * heic


def files_below(
    folder: Path, suffixes: Collection[str] | None, seen: set[Path] | None = None
) -> Iterator[Path]:
    """Sorted folder by folder, without hidden ones and those that systems leave behind; links to
    folders are followed, each once. ``suffixes``: to keep, in lower case; None: all."""
    seen = set() if seen is None else seen
    if folder.resolve() in seen:  # through a link, perhaps to a folder above itself
        return
    seen.add(folder.resolve())
    try:
        # scandir knows which are folders: images by the million are walked here.
        with os.scandir(folder) as unsorted:
            entries = sorted(unsorted, key=lambda entry: entry.name)
    except OSError as error:
        raise RinceError(
            f"cannot read folder {folder} ({error}): fix its permissions or move it"
        ) from error
    for entry in entries:
        if passed_over(entry.name):
            continue
        link = entry.is_symlink()  # one that leads to itself is neither a folder nor an error
        if os.path.isdir(entry.path) if link else entry.is_dir():
            yield from files_below(Path(entry.path), suffixes, seen)
        elif suffixes is None or os.path.splitext(entry.name)[1].lower() in suffixes:
            yield Path(entry.path)


def is_vector_file(path: Path) -> bool:
    """Whether this is called as a file of vectors is, and is no folder."""
    return path.suffix.lower() in VECTOR_SUFFIXES and not path.is_dir()


def user_path(path: str | Path) -> Path:
    """A path as people write it: ``~`` is the home folder; that of a user whom there is not is a
    name as any other."""
    return Path(os.path.expanduser(path))


def absent(wanted: Literal["file", "folder", "file or folder"], path: str | Path) -> str:
    """What is wrong with a path that is none of these, for a message."""
    there = user_path(path)
    if wanted == "file" and there.is_dir():
        return f"{path} is a folder, where a file is expected"
    if wanted == "folder" and there.is_file():
        return f"{path} is a file, where a folder is expected"
    where = "" if there.is_absolute() else f" in {os.getcwd()}"
    lost = _lost_link(there)
    why = "" if lost is None else f": {lost} is a link to {os.readlink(lost)}, which is not there"
    return f"there is no {wanted} {path}{where}{why}"


def leading_to(paths: Iterable[str | Path]) -> dict[Path, str]:
    """Where paths lead, each place once, with the first name of it. A link to what is gone, as
    ``runs/*`` may have one, is left out with a warning, or refused if there is nothing else.

    Raises:
        RinceError: nothing but such links.
    """
    places: dict[Path, str] = {}
    lost = []
    for path in paths:
        if _lost_link(user_path(path)) is None:
            places.setdefault(user_path(path).resolve(), str(path))
        else:
            lost.append(absent("folder", path))
    if lost and not places:
        raise RinceError(lost[0])
    for why in lost:
        warn(f"left out: {why}")
    return places


def _lost_link(path: Path) -> Path | None:
    """The link that leads to nothing, of a path that is one, or is through one."""
    links = (x for x in (path, *path.parents) if x.is_symlink())
    return next((x for x in links if not os.path.exists(x)), None)


def holds_no(what: str, path: str | Path, suffixes: Iterable[str]) -> str:
    """What is wrong with a folder that has no file of these kinds, for a message."""
    return f"{path} holds no {what} ({', '.join(sorted(suffixes))})"


def unreadable(what: str, file: Path, error: Exception) -> RinceError:
    """Why a file cannot be read: it is not there, or what the system or a library said of it."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else error
    reason = said if file.is_file() else absent("file", file)
    return RinceError(f"cannot read the {what} in {file}: {reason}")


def new_file(path: str | Path) -> Path:
    """Where to write what people then edit; a file that is there may have been edited.

    Raises:
        RinceError: there is one.
    """
    file = user_path(path)
    if file.exists():
        raise RinceError(f"{path} is there already, perhaps edited: remove it, or write to another")
    return file


def require_not_read(output: Path, read: Iterable[str | Path], option: str = "-o FILE") -> None:
    """Refuse, before any work is done, to write to one of the files that are read. ``option``: that
    names the output."""
    for file in read:
        with contextlib.suppress(OSError):  # one of the two is not there
            if os.path.samefile(output, user_path(file)):
                raise RinceError(
                    f"{file} is read, and would be replaced by what is written: name another file "
                    f"({option})"
                )


def require_no_folder(output: Path, option: str = "-o FILE") -> None:
    """Refuse, before any work is done, to write to a folder; ``option``: that names the output."""
    if output.is_dir():
        raise RinceError(f"{absent('file', output)} ({option})")


def file_stamps(files: Iterable[str]) -> list[tuple[str, int, int]]:
    """Each different file with its size and the time of its last change, by which one that was
    replaced under its name is known; files that are not there are left out."""
    stamps = []
    for file in dict.fromkeys(files):
        with contextlib.suppress(OSError, ValueError):  # whoever reads it says why
            facts = os.stat(file)
            stamps.append((file, facts.st_size, facts.st_mtime_ns))
    return stamps


def cache_folder(*names: str) -> Path:
    """``~/.cache/rince/<names>``, or below ``XDG_CACHE_HOME`` where that is set; not created."""
    try:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError as error:
        raise RinceError(f"no place for rince's cache ({error}): set XDG_CACHE_HOME") from error
    return root.joinpath("rince", *names)


def require_folder_of(file: Path) -> None:
    """Refuse, before any work is done, a file whose folder is not there, or is read-only; and a
    folder in its place."""
    require_no_folder(file)
    if not file.parent.is_dir():
        raise RinceError(f"there is no folder {file.parent} to write {file.name} to")
    if not os.access(file.parent, os.W_OK):
        raise RinceError(f"you may not write to {file.parent}, where {file.name} is to be")


@contextlib.contextmanager
def taking_turns(folder: Path) -> Iterator[None]:
    """Wait until no other process is in such a block with this folder. Systems and disks that have
    no locks do not wait."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            held = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, held)
            fcntl.flock(held, fcntl.LOCK_EX)
        yield


_HELD: WeakSet[FileIO] = WeakSet()


def _hold_none() -> None:
    """In a process that was forked: one that outlives the other is to keep nobody out."""
    for stream in list(_HELD):
        stream.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_hold_none)


@contextlib.contextmanager
def held_alone(file: Path) -> Iterator[bool]:
    """Whether nobody else, in this process or another, is in such a block with this file, which is
    made in its folder. Others may read and write it. Always on systems and disks without locks."""
    with contextlib.ExitStack() as stack:
        alone = True
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            held = stack.enter_context(FileIO(file, "ab"))
            try:  # lockf's would be gone once this process closes the file that it opened to read
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _HELD.add(held)
            except (BlockingIOError, PermissionError):
                alone = False
        yield alone


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A file beside ``target`` to write; it takes the target's place once the block is done.

    What was written is on the disk before it does, so that a machine that stops leaves the old
    file or the new one. Whatever the block raises, what was at ``target`` is untouched.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "results.json")
        ...     with replacing(file) as part:
        ...         _ = part.write_text("{}")
        ...     file.read_text(), os.listdir(folder)
        ('{}', ['results.json'])
    """
    part = target.with_name(target.name + ".part")
    try:
        yield part
        with part.open("rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(part, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink()
        # torch.save to a stream puts an error of its own before that of the disk.
        cause = error.__context__ if isinstance(error, RuntimeError) else error
        if isinstance(cause, OSError) and _is_of(cause, part):
            raise OSError(cause.errno, cause.strerror, str(target)) from error
        raise


def _is_of(error: OSError, part: Path) -> bool:
    """Of what is written: not of something else that was read. A full disk names no file."""
    if error.filename is None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return Path(str(error.filename)).is_relative_to(part)


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, which becomes ``folder``, where there is none, once the block is done: it
    is there whole or not at all. What cannot be written in it is told of ``folder``."""
    part = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unfinished-") as made:
            part = Path(made) / "part"  # the temporary folder itself is for its owner's eyes only
            part.mkdir()
            yield part
            part.rename(folder)
    except (OSError, RinceError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        told = cause is not error  # by whoever wrote, of the temporary folder, or of another file
        if not isinstance(cause, OSError) or (told and cause.filename is None):
            raise
        if part is not None and not _is_of(cause, part):
            raise
        reason = cause.strerror or str(cause)
        named = OSError(cause.errno, reason, str(folder))  # for a new folder that this one is in
        raise RinceError(f"cannot write {folder}: {reason}") from named


@contextlib.contextmanager
def written(target: Path, what: str) -> Iterator[Path]:
    """As :func:`replacing`, of a file that a user named: its folder is made."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as part:
            yield part
    except OSError as error:
        if error.filename is None or not target.is_relative_to(str(error.filename)):
            raise  # of something else that was read
        raise RinceError(
            f"cannot write the {what} to {target} ({error.strerror or error}): name a file in a "
            f"folder that you may write to"
        ) from error
