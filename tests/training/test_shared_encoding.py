"""Two processes that share the encoding of ``rince evaluate`` and ``rince embed``, against one."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image
from small_runs import SLURM, flat_backbone, small_config
from torch import nn

import rince.evaluation.embeddings as embeddings_module
import rince.evaluation.features as features_module
from processes import run_in_processes
from rince.cli.main import _several_processes, main
from rince.core import shared_work
from rince.core.checks import RinceError
from rince.core.input_spec import InputSpec
from rince.core.shared_work import in_parts
from rince.data.arrays import unlabelled
from rince.data.image.files import FileImages
from rince.data.kind import TrainedNetwork
from rince.data.kinds import embedding_names
from rince.data.networks import pixel_encoder
from rince.evaluation.embeddings import embed
from rince.evaluation.features import Network
from rince.evaluation.open_world import evaluate_open
from rince.evaluation.results import load_evaluation
from rince.ranks.taxonomy import Taxonomy
from rince.training.config import ModelOptions, TrainConfig
from rince.training.run import train

BATCH = 16


def _in_small_batches(patch: pytest.MonkeyPatch) -> None:
    assert Network(nn.Identity()).batch_size == evaluate_open.__kwdefaults__["batch_size"] == 512
    patch.setattr(Network.__init__, "__defaults__", (None, "cpu", BATCH, 0))
    patch.setitem(evaluate_open.__kwdefaults__, "batch_size", BATCH)
    assert Network(nn.Identity()).batch_size == BATCH


def _evaluate(run: Path, images: Path) -> list[str]:
    given = ["evaluate", str(run), "--ood", f"far={images / 'warm'}", "--test", f"all={images}"]
    return [*given, "--map-points", "0", "--probe-epochs", "3", "--device", "cpu"]


def _embed(run: Path, images: Path, output: Path) -> list[str]:
    given = ["embed", str(run), str(images), "-o", str(output), "--batch-size", "8"]
    return [*given, "--device", "cpu"]


def _counted(calls: list[int]) -> Callable[..., Any]:
    usual = features_module.extract_features

    def extract(*arguments: Any) -> Any:
        calls.append(1)
        return usual(*arguments)

    return extract


def _worker(index: int, ports: list[int], folder: Path, images: Path, broken: Path) -> None:
    _in_small_batches(pytest.MonkeyPatch())
    os.environ |= {"RANK": str(index), "LOCAL_RANK": str(index), "WORLD_SIZE": "2"}
    os.environ["MASTER_ADDR"] = "localhost"
    calls: list[int] = []
    features_module.extract_features = _counted(calls)
    results: dict[str, Any] = {}

    def call(name: str, arguments: list[str]) -> None:
        out, err = (folder / f"{name}-{stream}{index}" for stream in ("out", "err"))
        os.environ["MASTER_PORT"] = str(ports.pop())  # each command is a program of its own
        with (
            out.open("w") as stdout,
            err.open("w") as stderr,
            contextlib.redirect_stdout(stdout),
            contextlib.redirect_stderr(stderr),
        ):
            status = main(arguments)
        results[name] = (status, len(calls), out.read_text(), err.read_text())
        calls.clear()

    run, usual = folder / "two", shutil.rmtree
    shutil.rmtree = lambda *_, **__: None  # type: ignore[assignment]  # as if it were killed now
    call("evaluate", _evaluate(run, images))
    shutil.rmtree = usual
    if index == 0:
        sorted((run / "encoded").iterdir())[0].unlink()
    call("again", _evaluate(run, images))
    call("embed", _embed(run, images, folder / "two.npz"))
    call("refused", _embed(run, broken, folder / "refused.npz"))
    call("skipped", [*_embed(run, broken, folder / "skipped.npz"), "--skip-unreadable"])
    torch.save(results, folder / f"results{index}.pt")


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("localhost", port)) != 0


def test_two_processes_give_the_numbers_of_one(
    image_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ModelOptions(backbone="tiny-resnet")
    run = train(small_config(image_tree, tmp_path, model=model, epochs=1, knn_every=0))
    shutil.copytree(run, tmp_path / "two")
    broken = tmp_path / "broken"
    shutil.copytree(image_tree, broken)
    for unreadable in sorted(broken.rglob("*.png"))[-9:]:  # all of a part, and one of another
        unreadable.write_bytes(b"no image")
    # Below those that systems hand out, so that no other test is given one in the meantime.
    ports = [port for port in random.sample(range(20_000, 30_000), 50) if _is_free(port)][:5]
    run_in_processes(_worker, ports, tmp_path, image_tree, broken, count=2)
    first, second = (torch.load(tmp_path / f"results{index}.pt") for index in range(2))

    _in_small_batches(monkeypatch)
    assert main(_evaluate(run, image_tree)) == 0
    one, two = (load_evaluation(folder) for folder in (run, tmp_path / "two"))
    assert one.metrics == two.metrics
    assert len(one.metrics) > 50
    assert main(_embed(run, image_tree, tmp_path / "one.npz")) == 0
    with np.load(tmp_path / "one.npz") as whole, np.load(tmp_path / "two.npz") as shared:
        assert all(np.array_equal(whole[name], shared[name]) for name in whole)
    with np.load(tmp_path / "skipped.npz") as skipped, np.load(tmp_path / "one.npz") as whole:
        assert (
            len(json.loads(bytes(skipped["paths_json"]))) == 96 - 9
        )  # in other batches than those of one process
        np.testing.assert_allclose(skipped["embeddings"], whole["embeddings"][:-9], atol=1e-6)

    # Of 76 + 20 + 48 + 96 images each has a part of 16 at a time, in turns.
    assert (first["evaluate"][1], second["evaluate"][1]) == (3 + 1 + 2 + 3, 2 + 1 + 1 + 3)
    assert first["again"][1] + second["again"][1] == 1  # what was there was not made again
    assert [name for name, result in first.items() if result[0]] == ["refused"]
    assert "R@1" in first["again"][2]
    assert first["refused"][3].count("cannot read") == 1
    assert first["skipped"][3].count("left out") == 1
    assert first["skipped"][3].count("none of the 8 images can be read") == 1
    assert all(result[0] == 0 and result[2:] == ("", "") for result in second.values())
    assert not list(tmp_path.rglob("*.pt.part"))
    assert not (tmp_path / "two" / "encoded").exists()
    assert [x.name for x in tmp_path.glob("*.parts")] == ["refused.npz.parts"]  # to go on from


def test_parts_are_those_of_these_weights_and_items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(features_module, "extract_features", _counted(calls))
    folders = itertools.cycle([tmp_path / "parts", None])
    monkeypatch.setattr(features_module, "parts_folder", lambda: next(folders))
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (10, 3, 16, 16), dtype=torch.uint8, generator=generator)

    def encode(module: nn.Module, pixels: torch.Tensor) -> int:
        items = unlabelled(pixels, Taxonomy([("a",)]), image_size=16)
        shared = Network(module, batch_size=4).features(items)
        made = len(calls)
        assert torch.equal(shared.features, Network(module, batch_size=4).features(items).features)
        calls.clear()
        return made

    module = flat_backbone().module
    assert [encode(module, pixels) for _ in range(2)] == [3, 0]
    assert encode(module, pixels.flip(0)) == 3  # as many, with the same labels
    with torch.no_grad():
        next(module.parameters())[0, 0] += 1
    assert encode(module, pixels) == 3


def replaced(file: Path, image: Image.Image) -> None:
    """The same name and size; times are as fine as the system has them."""
    before = file.stat()
    image.save(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000_000))


def test_parts_of_images_that_were_replaced_are_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[Path | None] = [tmp_path / "parts"]
    for module in (features_module, embeddings_module):
        monkeypatch.setattr(module, "parts_folder", lambda: parts[0])
    files = [tmp_path / f"{i}.bmp" for i in range(6)]
    for i, file in enumerate(files):
        Image.new("RGB", (16, 16), (40 * i, 90, 200 - 30 * i)).save(file)
    names = tuple(map(str, files))
    items = FileImages(names, torch.zeros(6).long(), Taxonomy([("a",)]), "x", image_size=16)
    module = flat_backbone().module
    network = TrainedNetwork(module.eval(), None, 16, items.spec, (("a",),))
    encoder = pixel_encoder(network, TrainConfig("x"))

    def encoded() -> list[torch.Tensor]:
        vectors = embed(encoder, names, batch_size=2).vectors
        return [Network(module, batch_size=2).features(items).features, vectors]

    old = encoded()
    assert all(map(torch.equal, encoded(), old))
    replaced(files[3], Image.new("RGB", (16, 16), (250, 0, 0)))
    shared, parts[0] = encoded(), None
    alone = encoded()
    for before, found, expected in zip(old, shared, alone, strict=True):
        assert torch.equal(found, expected)
        assert [i for i in range(6) if not torch.equal(before[i], found[i])] == [3]


def test_parts_of_vectors_without_names_are_not_those_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings_module, "parts_folder", lambda: tmp_path / "parts")
    spec = InputSpec("vectors", (3,))
    network = TrainedNetwork(nn.Identity(), None, 3, spec, (("a",),))
    encoder = pixel_encoder(network, TrainConfig("x"))
    for rows in (np.eye(3), np.eye(3)[::-1]):  # both are called 0, 1, 2
        np.save(tmp_path / "rows.npy", rows)
        names = embedding_names(encoder, str(tmp_path / "rows.npy"))
        assert embed(encoder, names).vectors.tolist() == rows.tolist()


def test_tasks_of_srun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")  # so that it is put back
        monkeypatch.delenv(name)
    for name, value in {**SLURM, "SLURM_STEP_NUM_TASKS": "4"}.items():
        monkeypatch.setenv(name, value)
    started: list[tuple[Any, ...]] = []

    def start(backend: str, *, rank: int, world_size: int, timeout: Any) -> None:
        started.append((backend, rank, world_size, os.environ["MASTER_ADDR"]))

    monkeypatch.setattr(dist, "init_process_group", start)
    assert _several_processes()
    shared_work._start()
    assert started == [("gloo", 3, 4, "node1")]
    assert int(os.environ["MASTER_PORT"]) > 1024
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")  # a shell of the job, or its script
    assert not _several_processes()


def test_a_process_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broadcast(*_: Any, **__: Any) -> None:
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(dist, "broadcast_object_list", broadcast)
    monkeypatch.setattr(shared_work, "world_size", lambda: 2)
    with pytest.raises(RinceError, match=r"gone.*Connection closed by peer.*again"):
        in_parts(tmp_path, "key", 8, 4, lambda rows: rows)


def test_a_part_on_a_disk_of_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_work, "_SECONDS_UNTIL_SEEN", 0.1)
    monkeypatch.setattr(shared_work._MakeParts, "__call__", lambda *_: None)
    with pytest.raises(RinceError, match=r"key-0\.pt.* all machines share"):
        in_parts(tmp_path, "key", 8, 4, lambda rows: rows)


def test_many_items_make_few_parts(tmp_path: Path) -> None:
    made = in_parts(tmp_path, "key", 10_000, 3, lambda rows: list(range(10_000))[rows])
    assert [x for part in made for x in part] == list(range(10_000))
    assert {len(part) % 3 for part in made[:-1]} == {0}
    assert 128 < len(made) == len(list(tmp_path.iterdir())) <= 256
    assert in_parts(tmp_path, "empty", 0, 3, lambda rows: rows) == []
