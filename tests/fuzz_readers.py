"""Damaged files into every reader: only errors that say which file, no hang, nothing executed.

python tests/fuzz_readers.py --minutes 60 --seed 1 --failures /tmp/fuzz

Whole files of each kind are made, then damaged by seeded chance (bits, cuts, splices, other
encodings, numbers that are too large) and read. A reader must give its value, or raise RinceError
or ValueError with the file's name, within seconds and a limit of memory. Files that are meant to
run code are among them. What fails is kept in the folder of failures, with the traceback. Not
collected by pytest.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from rince.core.checks import RinceError
from rince.core.input_spec import InputSpec
from rince.core.tables import read_table
from rince.data.image.decode import read_fitted
from rince.data.table import read_items
from rince.data.text.sources import read_texts
from rince.data.video.decode import probe, read_frames
from rince.data.video.files import listed_videos
from rince.evaluation.elsewhere import read_vectors
from rince.evaluation.embeddings import Embeddings, load_embeddings, save_embeddings
from rince.evaluation.results import RESULTS_FILE, load_evaluation
from rince.models.backbones import build_backbone
from rince.models.exported import ImageEncoder, load_exported
from rince.ranks import Similarity, Taxonomy
from rince.training.checkpoint import CHECKPOINT_FILE, load_run
from rince.training.config import from_dict
from rince.training.folder import CONFIG_FILE, read_config
from rince.training.run import train

SECONDS = 20  # a file
MEMORY = 6 * 2**30  # of address space beyond what the process has at its start
A_PROCESS = 200  # files until a new process is forked
CANARY = "executed"  # a file that must never be there


class Reader(NamedTuple):
    """A reader and its inputs.

    Args:
        read: (file) what is fuzzed. name: of the file. seeds: whole files.
        beside: name -> content of files that stand beside it, whole.
    """

    read: Callable[[Path], object]
    name: str
    seeds: list[bytes]
    beside: Mapping[str, bytes] = MappingProxyType({})


class _RunsCode:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {CANARY}",)


def images() -> Iterator[tuple[str, bytes]]:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (24, 20, 3), dtype=np.uint8)
    colour = Image.fromarray(pixels)
    deep = Image.fromarray(generator.integers(0, 65536, (24, 20), dtype=np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    forms: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (colour, "jpeg", {"exif": exif}),
        (colour.convert("CMYK"), "jpeg", {}),
        (colour, "jpeg", {"progressive": True}),
        (colour, "png", {}),
        (colour.quantize(16), "png", {"transparency": 3}),
        (colour.convert("RGBA"), "webp", {"lossless": True}),
        (colour, "webp", {}),
        (colour.convert("P"), "gif", {"save_all": True, "append_images": [colour.convert("P")]}),
        (deep, "png", {}),
        (deep, "tiff", {}),
        (colour, "tiff", {"compression": "tiff_lzw"}),
        (colour, "bmp", {}),
        (colour, "ppm", {}),
        (colour, "tga", {}),
        (colour.resize((32, 32)), "ico", {}),
        (colour, "jpeg2000", {}),
        (colour, "avif", {}),
    ]
    for picture, form, options in forms:
        stream = BytesIO()
        try:
            picture.save(stream, form, **options)
        except (KeyError, OSError):
            print(f"this Pillow writes no {form}")
            continue
        yield form, stream.getvalue()


def saved(write: Callable[[Path], object], name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / name)
        return (Path(folder) / name).read_bytes()


def zipped(**members: bytes) -> bytes:
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def parquet(columns: dict[str, list[Any]]) -> bytes:
    import pyarrow
    from pyarrow import parquet as files

    stream = BytesIO()
    files.write_table(pyarrow.table(columns), stream)
    return stream.getvalue()


def a_run(folder: Path) -> dict[str, bytes]:
    """The files of a run of one step, on images that are made for it."""
    for name in ("warm/red", "warm/pink", "cold/blue", "cold/green"):
        (folder / "images" / name).mkdir(parents=True)
        for i in range(4):
            noise = np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / "images" / name / f"{i}.png")
    config = {
        "data": str(folder / "images"), "output": str(folder), "name": "run", "epochs": 1,
        "batch_size": 8, "images": {"image_size": 16}, "model": {"backbone": "tiny-resnet"},
        "accelerator": "cpu", "progress": False, "knn_every": 0,
    }  # fmt: skip
    run = train(from_dict(config))
    return {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()}


def an_export(folder: Path) -> dict[str, bytes]:
    spec = InputSpec.images(3, 16)
    backbone = build_backbone("tiny-resnet", spec)
    encoder = ImageEncoder(
        module=backbone.module, backbone="tiny-resnet", output_dim=backbone.feature_dim,
        embedding_dim=None, num_heads=1, spec=spec, mean=(0.5,) * 3, std=(0.5,) * 3,
        class_paths=(("a", "b"), ("c",)),
    )  # fmt: skip
    encoder.save(folder)
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def a_video() -> bytes:
    from video_files import write_video

    return saved(lambda file: write_video(file, 12), "a.mp4")


def readers() -> dict[str, Reader]:
    with tempfile.TemporaryDirectory() as folder:
        run = a_run(Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        export = an_export(Path(folder))
    table = 'path,group,class,start_s\ncafé.jpg,warm,réd,0\n"b, c.jpg",cold,blue,1.5\n'.encode()
    lines = b'{"text": "a b", "label": "x"}\n{"text": "c\\u00e9", "label": 1.0}\n'
    columns = {"text": ["a", "b", None], "label": ["x", "y", "z"], "n": [1.0, None, 3.0]}
    scores = b"class,cat,dog\ncat,1,0.5\ndog,,1\n"
    array = saved(lambda file: np.save(file, np.eye(2)), "a.npy")
    runs_code = saved(lambda f: np.save(f, np.array([_RunsCode()], dtype=object)), "a.npy")
    names = ("cat", "dog")
    unit = Embeddings(tuple(names), torch.eye(2), "model")
    vectors = [
        saved(lambda file: save_embeddings(unit, file), f"a.{s}") for s in ("npz", "parquet")
    ]
    code_in_npz = zipped(**{"paths.npy": runs_code, "embeddings.npy": array, "model.npy": array})
    code_in_yaml = f"data: !!python/object/apply:os.system ['touch {CANARY}']\n".encode()
    code_in_pickle = pickle.dumps({"rince": _RunsCode(), "state_dict": {}})
    results = json.dumps({"metrics": {"a": 1.0}, "settings": {}}).encode()
    ucf = b"walk/a b.avi 1\nrun/c.avi 2\n"
    video = {"walk/a b.avi": b"x", "run/c.avi": b"x", "testlist01.txt": b"run/c.avi\n"}
    hmdb = {"walk/a b.avi": b"x", "run/c.avi": b"x"}
    of_folder = lambda read: lambda file: read(file.parent)  # noqa: E731
    color, grey = (InputSpec.images(channels, 16) for channels in (3, 1))
    found = {
        "images": Reader(lambda f: (read_fitted(f, color), read_fitted(f, grey)), "a.png", [
            content for _, content in images()
        ]),
        "csv": Reader(
            lambda f: (read_table(f), read_items(f, "path", None, "x")), "a.csv", [table]
        ),
        "tsv": Reader(read_table, "a.tsv", [table.replace(b",", b"\t")]),
        "jsonl": Reader(lambda f: (read_table(f), read_texts(f)), "a.jsonl", [lines]),
        "parquet": Reader(read_table, "a.parquet", [parquet(columns)]),
        "class trees": Reader(Taxonomy.from_csv, "a.csv", [b"group,class\nwarm,red\ncold,blue\n"]),
        "split files (UCF101)": Reader(
            of_folder(lambda d: listed_videos(d, str(d), 1)), "trainlist01.txt", [ucf], video
        ),
        "split files (HMDB51)": Reader(
            of_folder(lambda d: listed_videos(d, str(d), 1)), "walk_test_split1.txt",
            [b"a b.avi 1\n"], hmdb,
        ),
        "clip tables": Reader(
            of_folder(lambda d: listed_videos(d, None, 1)), "clips.csv",
            [b"clip,label,start_s\na b.avi,walk,0\nc.avi,run,2.5\n"], hmdb,
        ),
        "scores (csv)": Reader(Similarity.from_file, "a.csv", [scores]),
        "scores (npy)": Reader(
            Similarity.from_file, "a.npy", [array, runs_code], {"a.json": b'["cat", "dog"]'}
        ),
        "scores (names)": Reader(
            lambda f: Similarity.from_file(f.with_suffix(".npy")), "a.json", [b'["cat", "dog"]'],
            {"a.npy": array},
        ),
        "scores (parquet)": Reader(Similarity.from_file, "a.parquet", [
            parquet({"class": ["cat", "dog"], "cat": [1.0, 0.5], "dog": [None, 1.0]})
        ]),
        "embeddings (npz)": Reader(
            lambda f: (load_embeddings(f), read_vectors(f)), "a.npz", [vectors[0], code_in_npz]
        ),
        "embeddings (npy)": Reader(read_vectors, "a.npy", [array, runs_code]),
        "embeddings (parquet)": Reader(
            lambda f: (load_embeddings(f), read_vectors(f)), "a.parquet", [vectors[1]]
        ),
        "checkpoints": Reader(
            of_folder(load_run), CHECKPOINT_FILE, [run[CHECKPOINT_FILE], code_in_pickle],
            {CONFIG_FILE: run[CONFIG_FILE]},
        ),
        "configurations": Reader(
            of_folder(read_config), CONFIG_FILE,
            [run[CONFIG_FILE], code_in_yaml],
        ),
        "exports (facts)": Reader(
            of_folder(load_exported), "export.json", [export["export.json"]],
            {"model.safetensors": export["model.safetensors"]},
        ),
        "exports (weights)": Reader(
            of_folder(load_exported), "model.safetensors", [export["model.safetensors"]],
            {"export.json": export["export.json"]},
        ),
        "results": Reader(of_folder(load_evaluation), RESULTS_FILE, [results]),
    }  # fmt: skip
    try:
        found["videos"] = Reader(
            lambda f: (probe(f), read_frames(f, [0.0, 0.5], 16)), "a.mp4", [a_video()]
        )
    except ImportError:
        print("without PyAV no videos")
    return found


# ---- damage -----------------------------------------------------------------------------------

ODD = [
    b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b"\xe2\x80\xa8", b"\xc2\x85", b"\x0c", b"\r", b"\n", b'"',
    b"\xed\xa0\x80", b"\xc3", b"e\xcc\x81", b"\xe2\x80\xae", b"9" * 400, b"1e999", b"nan", b"-inf",
    b"-1", b"{" * 3000, b"[" * 100_000, b"null", b"'", b",", b";", b"\t", b" ", b"\x1a", b"..",
    b"/", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\x80", b"&a [*a]",
    b"!!python/name:os.system ",
]  # fmt: skip


def damaged(seeds: list[bytes], chance: random.Random) -> bytes:
    content = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((0, 1, 1, 1, 2, 5, 20))):
        size = max(1, len(content))
        # As often near the start, where headers are, as anywhere.
        place = chance.randrange(min(size, 256) if chance.random() < 0.5 else size)
        length = chance.choice((1, 2, 4, 16, 256))
        way = chance.randrange(8)
        if way == 0 and content:
            content[place % len(content)] ^= 1 << chance.randrange(8)
        elif way == 1:
            del content[place:]
        elif way == 2:
            del content[place : place + length]
        elif way == 3:
            content[place:place] = content[place : place + length] * chance.choice((1, 2, 50))
        elif way == 4:
            content[place:place] = chance.choice(ODD)
        elif way == 5:
            odd = chance.choice(ODD)
            content[place : place + len(odd)] = odd
        elif way == 6:
            content[place : place + length] = chance.randbytes(length)
        else:
            other = chance.choice(seeds)
            content[place:] = other[chance.randrange(len(other)) :]
    if chance.random() < 0.03:
        text = bytes(content).decode("utf-8", "replace")
        content = bytearray(
            text.encode(chance.choice(("utf-16", "utf-32", "cp1252", "utf-7")), "replace")
        )
    return bytes(content)


# ---- one file ---------------------------------------------------------------------------------


def problem(reader: Reader, content: bytes, folder: Path) -> str | None:
    """What is wrong with how this file was read; None: nothing."""
    for name, whole in reader.beside.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(whole)
    file = folder / reader.name
    file.write_bytes(content)
    try:
        reader.read(file)
    except (RinceError, ValueError) as error:
        if str(folder) not in str(error):
            return "does not name the file:\n" + traceback.format_exc()
    except BaseException:
        return "raw error:\n" + traceback.format_exc()
    return "code was executed" if Path(CANARY).exists() else None


def in_child(
    jobs: list[tuple[str, int]], all_readers: dict[str, Reader], folder: Path, progress: Path
) -> None:
    """Read these, each (reader, seed); writes a line a file, and one more where it failed."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    os.chdir(folder)
    with progress.open("w", buffering=1) as log:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries' own complaints
        for name, seed in jobs:
            log.write(json.dumps([name, seed, None]) + "\n")
            place = folder / f"{seed}"
            place.mkdir()
            content = damaged(all_readers[name].seeds, random.Random(seed))
            found = problem(all_readers[name], content, place)
            if found:
                log.write(json.dumps([name, seed, found]) + "\n")
                Path(CANARY).unlink(missing_ok=True)


def forked(
    jobs: list[tuple[str, int]], all_readers: dict[str, Reader]
) -> tuple[int, list[tuple[str, int, str]]]:
    """How many of the jobs were done, and what failed."""
    with tempfile.TemporaryDirectory() as temporary:
        progress, folder = Path(temporary) / "progress", Path(temporary) / "files"
        folder.mkdir()
        progress.touch()
        child = os.fork()
        if child == 0:
            try:
                in_child(jobs, all_readers, folder, progress)
            finally:
                os._exit(0)
        ended, status, last, since = 0, 0, -1, time.monotonic()
        while not ended:
            ended, status = os.waitpid(child, os.WNOHANG)
            size = progress.stat().st_size
            if size != last:
                last, since = size, time.monotonic()
            elif time.monotonic() - since > 6 * SECONDS:
                # The machine may be busy: six times as long by the clock.
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                ended, status = child, -1
            time.sleep(0.05)
        lines = [json.loads(line) for line in progress.read_text().splitlines()]
    begun = [line for line in lines if line[2] is None]
    failed = [(name, seed, found) for name, seed, found in lines if found]
    if status:
        name, seed, _ = begun[-1]
        how = "it hung" if status == -1 else f"the process died (status {status})"
        failed.append((name, seed, how))
    return len(begun), failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--failures", type=Path, default=Path("fuzz-failures"))
    parser.add_argument("--only", default="", help="readers whose name holds this")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # a fork has none of the others
    everything = {n: r for n, r in readers().items() if options.only in n}
    print(f"{len(everything)} readers, seed {options.seed}", flush=True)
    tried: Counter[str] = Counter()
    failures: Counter[tuple[str, str]] = Counter()
    began = told = time.monotonic()
    number = options.seed * 10**9
    while time.monotonic() - began < 60 * options.minutes:
        names = list(everything)
        jobs = [(names[(number + i) % len(names)], number + i) for i in range(A_PROCESS)]
        done, failed = forked(jobs, everything)
        number += done
        tried.update(name for name, _ in jobs[:done])
        for name, seed, found in failed:
            kind = (name, found.strip().splitlines()[-1][:120])
            failures[kind] += 1
            if failures[kind] <= 2:  # one or two of a kind are enough to look at
                options.failures.mkdir(parents=True, exist_ok=True)
                stem = options.failures / f"{name.replace(' ', '_')}-{seed}"
                content = damaged(everything[name].seeds, random.Random(seed))
                stem.with_name(f"{stem.name}-{everything[name].name}").write_bytes(content)
                stem.with_name(f"{stem.name}.txt").write_text(found)
        if time.monotonic() - told > 60:
            told = time.monotonic()
            minutes = (told - began) / 60
            so_far = f"{sum(tried.values())} files, {sum(failures.values())} failed"
            print(f"{minutes:.0f} min: {so_far}", flush=True)
    for name, count in tried.items():
        print(f"{name:<24}{count:>8} files")
    for (name, kind), count in failures.most_common():
        print(f"FAILED {count} x {name}: {kind}")
    minutes = (time.monotonic() - began) / 60
    print(f"{sum(tried.values())} files in {minutes:.0f} minutes, {sum(failures.values())} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
