"""Two processes under torchrun: they train one model, with one queue."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
from lightning.pytorch.strategies import DDPStrategy
from small_runs import SLURM, flat_backbone, small_config, splits_of
from torch import nn
from torch.testing._internal.distributed.fake_pg import FakeStore

from collectives import Collectives
from processes import like_torchrun, run_in_processes
from rince import Taxonomy
from rince.cli.main import main
from rince.core.checks import RinceError, RinceWarning
from rince.core.input_spec import InputSpec
from rince.data.batches import BatchViews, ImageBatch
from rince.models.backbones import build_backbone
from rince.training import saving
from rince.training.checkpoint import read_checkpoint
from rince.training.config import ModelOptions, TrainConfig
from rince.training.module import RankedModule
from rince.training.run import _processes, train

# Writes each process's own weights and queue at the end, to be compared.
SCRIPT = """
import sys
import torch
import lightning.pytorch as pl
from pathlib import Path
from rince.cli.main import main
from rince.training.callbacks import EpochLine
from rince.core.distributed import process_index

def on_train_end(self, trainer, module):
    torch.save(module.state_dict(), Path(sys.argv[1]) / f"state{process_index()}.pt")
    assert not trainer.strategy.model.broadcast_buffers

EpochLine.on_train_end = on_train_end
sys.exit(main(sys.argv[2:]))
"""


def _arguments(images: Path, output: Path, *options: str) -> list[str]:
    return [
        *("train", str(images), "--output", str(output), "--name", "run"),
        *("--images.image-size", "16", "--batch-size", "8"),
        *("--accelerator", "cpu", "--log-every", "1", *options),
    ]


def test_collectives_of_a_step() -> None:
    """Of 64 processes, by torch's stand-in for a backend: keys once, labels and ids in one, and
    the gradient of the keys; the sizes in the first step alone."""
    tree = Taxonomy([("a", "b"), ("a", "c")])
    generator = torch.Generator().manual_seed(0)
    views = tuple(torch.rand(4, 3, 16, 16, generator=generator) for _ in range(2))
    batch = ImageBatch(views, torch.tensor([0, 1, 0, 1]), torch.arange(4), seed=0)
    for model, backward in (
        (ModelOptions(), 1),
        (ModelOptions(momentum=0.9, queue_size=1000), 0),  # keys without a gradient
    ):
        config = TrainConfig("photos", model=model)
        dist.init_process_group("fake", store=FakeStore(), rank=3, world_size=64)
        try:
            module = RankedModule(flat_backbone(), splits_of(tree), config)
            make = module._momentum_pairs if model.momentum else module._pairs
            for extra in (1, 0):
                with Collectives() as counted:
                    pairs, _ = make(batch, BatchViews(batch, None))
                    (pairs.query.sum() + pairs.key.sum()).backward()
                assert (
                    counted.names
                    == ["_allgather_base_"] * (2 + extra) + ["_reduce_scatter_base_"] * backward
                )
            assert len(pairs.key) == 64 * (4 if model.momentum else 8) + model.queue_size
        finally:
            dist.destroy_process_group()


@pytest.mark.parametrize(
    ("variables", "options", "expected"),
    [
        ({}, {"devices": "1"}, (1, 1)),
        ({}, {"devices": "1", "num_nodes": 3}, (1, 3)),
        ({}, {"devices": "2"}, (2, 1)),
        (SLURM, {"devices": "1"}, (2, 2)),
    ],
)
def test_processes_of_a_run(
    variables: dict[str, str],
    options: dict[str, Any],
    expected: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    config = TrainConfig("photos", accelerator="cpu", **options)
    chosen = _processes(config)
    trainer = pl.Trainer(**chosen, logger=False, enable_checkpointing=False)
    assert (trainer.num_devices, trainer.num_nodes) == expected
    assert ("strategy" in chosen) == (expected != (1, 1))
    config.model.sync_batch_norm = True
    if "strategy" not in chosen:
        assert _processes(config) == chosen  # one process normalises by its images anyway
        return
    with pytest.raises(ValueError, match=r"sync_batch_norm needs GPUs .* the cpu"):
        _processes(config)
    monkeypatch.setattr(DDPStrategy, "root_device", torch.device("cuda:0"))
    assert _processes(config)["sync_batchnorm"]


@pytest.mark.parametrize("way", ["prompt", "flag"])
def test_a_prompt_starts_no_processes(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, options in enumerate(({"devices": "2"}, {"devices": "1", "num_nodes": 2})):
        config = TrainConfig("photos", accelerator="cpu", **options)  # type: ignore[arg-type]
        with monkeypatch.context() as patch:
            if way == "prompt":  # also IPython's and a notebook's
                patch.setattr(sys, "ps1", ">>> ", raising=False)
            else:
                patch.setattr(sys, "flags", SimpleNamespace(interactive=1))
            with pytest.raises(
                RinceError, match=r"cannot start 2 processes.*devices to 1.*torchrun"
            ):
                _processes(config)
            if number == 0:
                config.devices = "1"
                assert _processes(config)["devices"] == "1"
                # Those of torchrun are there already.
                patch.setenv("LOCAL_WORLD_SIZE", "2")
                assert "strategy" in _processes(config)


def test_a_prompt_takes_one_of_the_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CPUAccelerator, "auto_device_count", staticmethod(lambda: 3))
    config = TrainConfig("photos", accelerator="cpu", devices="auto")
    assert "strategy" in _processes(config)
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    with pytest.warns(RinceWarning, match="one of the 3 devices"):
        chosen = _processes(config)
    trainer = pl.Trainer(**chosen, logger=False, enable_checkpointing=False)
    assert trainer.world_size == 1


def test_tasks_that_are_not_spread_over_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE")
    with pytest.raises(ValueError, match="--ntasks-per-node"):
        _processes(TrainConfig("photos", accelerator="cpu"))


def test_synchronised_batch_norm_keeps_the_checkpoint() -> None:
    """What Lightning does on GPUs: all batch norms, those of the momentum encoder too, and the
    same names and values in the checkpoint."""
    spec, config = (
        InputSpec.images(size=16),
        TrainConfig("photos", model=ModelOptions(momentum=0.9)),
    )
    backbone = build_backbone("tiny-resnet", spec)
    module = RankedModule(backbone, splits_of(Taxonomy([("a", "b"), ("a", "c")])), config)
    before = {name: x.clone() for name, x in module.state_dict().items()}
    count = sum(isinstance(part, nn.BatchNorm2d) for part in module.modules())
    converted = TorchSyncBatchNorm().apply(module)
    synchronised = [x for x in converted.modules() if isinstance(x, nn.SyncBatchNorm)]
    assert len(synchronised) == count > 0
    after = converted.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], x) for name, x in before.items())
    # At evaluation it is a batch norm as any other, so a CPU will do.
    assert converted.eval()(torch.rand(2, 3, 16, 16)).shape == (2, backbone.feature_dim)


def _find_the_disk_full(index: int, folder: Path, images: Path) -> None:
    """Process 0 does, at every write; both processes say how they ended."""

    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    like_torchrun(index, 2, folder)
    saving.replacing = full  # type: ignore[assignment]
    status = main(_arguments(images, folder, "--epochs", "1", "--knn-every", "0"))
    (folder / f"status{index}").write_text(str(status))


def test_a_full_disk_stops_both_processes(image_tree: Path, tmp_path: Path) -> None:
    run_in_processes(_find_the_disk_full, tmp_path, image_tree, count=2)
    assert [(tmp_path / f"status{i}").read_text() for i in (0, 1)] == ["1", "1"]
    said = "".join((tmp_path / f"err{i}").read_text() for i in (0, 1))
    assert said.count("Training goes on and will try again") == 1
    assert said.count("rince train: could not write a checkpoint") == 2


class _WithMore(nn.Module):
    """A backbone with a layer that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.more = nn.Linear(3 * 16 * 16, 8), nn.Linear(4, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.linear(images.flatten(1))
        return features


def _train_with_more(index: int, folder: Path, images: Path) -> None:
    like_torchrun(index, 2, folder)
    options: Any = {"batch_size": 8, "epochs": 1, "knn_every": 0}
    backbone = _WithMore()
    with pytest.raises(RinceError, match=r"backbone\.more\.weight, .*more\.bias, .*requires_grad_"):
        train(small_config(images, folder, name="run", **options), backbone)
    backbone.more.requires_grad_(False)
    train(small_config(images, folder, name="frozen", **options), backbone)


def test_weights_that_nothing_reads_are_named(image_tree: Path, tmp_path: Path) -> None:
    run_in_processes(_train_with_more, tmp_path, image_tree, count=2)
    assert read_checkpoint(tmp_path / "frozen")["global_step"] == 4


def test_torchrun(image_tree: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    options = ["--epochs", "2", "--optim.lr", "0.05"]
    options += ["--model.momentum", "0.9", "--model.queue-size", "40"]
    found = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
            *("--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"),
            *(str(script), str(tmp_path), *_arguments(image_tree, tmp_path, *options)),
        ],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert found.stdout.count("next:") == 1
    assert "sync_dist" not in found.stderr
    assert "_buffers" not in found.stderr  # a word of torch's that is going away
    first, second = (torch.load(tmp_path / f"state{i}.pt") for i in (0, 1))
    for name in first:
        if "running_" not in name and "num_batches" not in name:  # batch norm: each its own
            torch.testing.assert_close(first[name], second[name], rtol=0, atol=0, msg=name)
    # 38 images a process, 4 batches of 8, 2 epochs: both processes' keys went into the queue.
    assert int(first["queue.position"]) == 2 * 4 * 16 % 40
    assert bool(first["queue.valid"].all())
    assert len(set(first["queue.ids"].tolist())) > 32
    checkpoint = read_checkpoint(tmp_path / "run")
    assert checkpoint["global_step"] == 8
    about = checkpoint["rince"]
    assert (about["world_size"], about["steps_per_epoch"]) == (2, 4)
