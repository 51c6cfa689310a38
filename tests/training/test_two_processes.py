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


def test_torchrun(image_tree: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
            *("--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"),
            *(str(script), str(tmp_path), "train", str(image_tree), "--output", str(tmp_path)),
            *("--name", "run", "--images.image-size", "16", "--epochs", "2", "--batch-size", "8"),
            *("--model.momentum", "0.9", "--model.queue-size", "40", "--optim.lr", "0.05"),
            *("--accelerator", "cpu", "--log-every", "1"),
        ],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        timeout=240,
    )
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
