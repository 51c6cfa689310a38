"""Two processes under torchrun: they train one model, with one queue."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from rince.training.checkpoint import read_checkpoint

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

EpochLine.on_train_end = on_train_end
sys.exit(main(sys.argv[2:]))
"""


# Process 0 finds the disk full at every write; both processes say how they ended.
FULL_DISK = """
import os
import sys
import torch
from rince.cli.main import main

def save(*_):
    raise OSError(28, "No space left on device")

torch.save = save
status = main(sys.argv[2:])
open(os.path.join(sys.argv[1], f"status{os.environ['RANK']}"), "w").write(str(status))
"""


def _torchrun(
    script: str, images: Path, output: Path, *options: str
) -> subprocess.CompletedProcess[str]:
    file = output / "script.py"
    file.write_text(script)
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
            *("--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"),
            *(str(file), str(output), "train", str(images), "--output", str(output)),
            *("--name", "run", "--images.image-size", "16", "--batch-size", "8"),
            *("--accelerator", "cpu", "--log-every", "1", *options),
        ],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_a_full_disk_stops_both_processes(image_tree: Path, tmp_path: Path) -> None:
    found = _torchrun(FULL_DISK, image_tree, tmp_path, "--epochs", "1", "--knn-every", "0")
    assert [(tmp_path / f"status{i}").read_text() for i in (0, 1)] == ["1", "1"]
    assert found.stderr.count("Training goes on and will try again") == 1
    assert found.stderr.count("rince train: could not write a checkpoint") == 2


def test_torchrun(image_tree: Path, tmp_path: Path) -> None:
    found = _torchrun(
        SCRIPT,
        image_tree,
        tmp_path,
        *("--epochs", "2", "--optim.lr", "0.05"),
        *("--model.momentum", "0.9", "--model.queue-size", "40"),
    )
    assert found.stdout.count("next:") == 1
    assert "sync_dist" not in found.stderr
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
