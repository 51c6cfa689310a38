"""Images/s of `rince train` and where its steps go, against a plain PyTorch loop.

    python benchmarks/training.py TINY_IMAGENET_100 [--threads 2] [--rounds 3]

"rince train" is the run that `rince train DATA --config recipe.yaml` makes, with clocks around its
parts: images decoded once and held in memory as bytes, views drawn a batch at a time. "Plain" is
what contrastive scripts do: a data set that gives two views of an image by torchvision's transforms
on PIL images, a DataLoader with 0, 1 or 2 workers (the fastest counts), a dense SupCon loss, SGD.
It decodes an image's file whenever it is drawn, or, as torchvision's CIFAR classes do, makes a PIL
image from an array in memory. All of them train the same small ResNet (channels last) and head
with the same batches of 256 images, two views each.

Every run is a process of its own; a round is all contenders in turn. Left out: imports, decoding
into memory, the start of workers, and the first five steps; and of rince train what comes between
epochs (checkpoint, online kNN).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import lightning.pytorch as pl
import numpy as np
import torch
import yaml
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

import rince.training.module as training_module
from rince.core.input_spec import InputSpec
from rince.core.pixels import NORMALISATION
from rince.data.batches import TrainLoader
from rince.data.views import BatchAugmentation
from rince.models.backbones import build_backbone
from rince.models.heads import ProjectionHead
from rince.training.config import from_dict
from rince.training.run import train
from rince.training.step import Step, objective_loss, rank_statistics

RECIPE = Path(__file__).parents[1] / "experiments/tiny-imagenet-100/recipe.yaml"
WARM_UP, STEPS = 5, 25  # the first are not counted
SIDE, BATCH, TEMPERATURE = 32, 256, 0.1
PARTS = ("loading", "augmentation", "encoder", "loss", "optimizer", "log", "rest")


class Clock(pl.Callback):
    """Seconds of every part of every step, from clocks around the parts of a real run."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self.now: dict[str, float] = defaultdict(float)
        self.since = self.mark = time.perf_counter()

    def lap(self, part: str) -> None:
        """The time since the mark belongs to this part."""
        before, self.mark = self.mark, time.perf_counter()
        self.now[part] += self.mark - before

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            self.lap("rest")
            result = function(*args, **kwargs)
            self.lap(part)
            return result

        return timed

    def loading(self, iterate: Callable[[TrainLoader], Iterator[Any]]) -> Callable[..., Any]:
        def batches(loader: TrainLoader) -> Iterator[Any]:
            iterator = iterate(loader)
            while (batch := self.timed("loading", lambda: next(iterator, None))()) is not None:
                yield batch

        return batches

    def loss(self, function: Callable[..., Any]) -> Callable[..., Any]:
        forward = self.timed("loss", function)

        def timed(*args: Any) -> Any:
            (step,) = (x for x in args if isinstance(x, Step))
            # Called once all gradients of the embeddings are there: the loss's own part is over.
            step.pairs.query.register_hook(lambda gradient: self.lap("loss"))
            return forward(*args)

        return timed

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        encoder = pl_module.get_submodule("encoder")
        encoder.register_forward_pre_hook(lambda *_: self.lap("rest"))
        encoder.register_forward_hook(lambda *_: self.lap("encoder"))
        (optimizer,) = trainer.optimizers
        optimizer.register_step_post_hook(lambda *_: self.lap("optimizer"))
        self.since = self.mark = time.perf_counter()

    def on_before_backward(self, *_: Any) -> None:
        self.lap("rest")

    def on_after_backward(self, *_: Any) -> None:
        self.lap("encoder")

    def on_before_optimizer_step(self, *_: Any) -> None:
        self.lap("rest")

    def on_train_batch_end(self, *_: Any) -> None:
        self.lap("rest")
        self.now["step"], self.since = self.mark - self.since, self.mark
        self.steps.append(dict(self.now))
        self.now.clear()


def rince_run(data: str, device: str = "cpu", precision: str = "32-true") -> dict[str, float]:
    """Mean seconds of a step and of its parts (on a GPU, of the host's part in them)."""
    clock, trainer = Clock(), pl.Trainer
    patch = mock.patch.object

    def with_clock(*args: Any, callbacks: list[pl.Callback] = (), **kwargs: Any) -> pl.Trainer:
        return trainer(*args, callbacks=[*callbacks, clock], **kwargs)

    recipe = yaml.safe_load(RECIPE.read_text())
    recipe |= {"data": data, "accelerator": device, "precision": precision, "progress": False}
    recipe |= {"epochs": 1, "knn_every": 0, "checkpoint_every": 1000}
    recipe["optim"]["warmup_epochs"] = 0
    recipe["images"]["per_class"] = per_class(data)
    statistics_of = clock.timed("log", rank_statistics)
    with (
        tempfile.TemporaryDirectory() as folder,
        patch(pl, "Trainer", with_clock),
        patch(TrainLoader, "__iter__", clock.loading(TrainLoader.__iter__)),
        patch(BatchAugmentation, "draw", clock.timed("augmentation", BatchAugmentation.draw)),
        patch(BatchAugmentation, "apply", clock.timed("augmentation", BatchAugmentation.apply)),
        patch(training_module, "objective_loss", clock.loss(objective_loss)),
        patch(training_module, "rank_statistics", statistics_of),
    ):
        train(from_dict(recipe | {"output": folder}))
    kept = clock.steps[WARM_UP : WARM_UP + STEPS]
    assert len(kept) == STEPS, f"{len(clock.steps)} steps only"
    return {part: statistics.fmean(s.get(part, 0.0) for s in kept) for part in ("step", *PARTS)}


def write_noise(root: Path) -> None:
    """root/train/group/class/*.png, enough for a run: the speed does not ask what is on them."""
    generator = np.random.default_rng(0)
    for index in range(20):
        for part in ("train", "val"):
            (root / part / f"group{index // 5}" / f"class{index:02}").mkdir(parents=True)
    for folder in sorted(root.glob("*/*/*/")):
        in_train = folder.parts[-3] == "train"
        for number in range(per_class(str(root)) + 1 if in_train else 2):
            pixels = generator.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:04}.png")


def per_class(data: str) -> int:
    """Images of each class for one step more than are counted (the last one of an epoch logs)."""
    classes = sum(1 for _ in Path(data, "train").glob("*/*/"))
    return -(-(WARM_UP + STEPS + 1) * BATCH // classes) + 1  # a duplicate may be dropped


class TwoViews(Dataset[tuple[Tensor, Tensor, int]]):
    """Two views of an image, from its file or from an array of pixels."""

    def __init__(self, data: str, in_memory: bool) -> None:
        folders = sorted(Path(data, "train").glob("*/*/"))
        self.files = [
            (file, label)
            for label, folder in enumerate(folders)
            for file in sorted(folder.iterdir())[: per_class(data)]
        ]
        everything = range(len(self.files) if in_memory else 0)
        self.pixels = [np.asarray(self.read(i).resize((SIDE, SIDE))) for i in everything]
        self.transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(SIDE, scale=(0.2, 1.0)),
                transforms.RandomHorizontalFlip(),
                transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
                transforms.RandomGrayscale(p=0.2),
                transforms.ToTensor(),
                transforms.Normalize(*NORMALISATION[3]),
            ]
        )

    def read(self, index: int) -> Image.Image:
        with Image.open(self.files[index][0]) as image:
            converted: Image.Image = image.convert("RGB")
            return converted

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        image = Image.fromarray(self.pixels[index]) if self.pixels else self.read(index)
        return self.transform(image), self.transform(image), self.files[index][1]


def plain_supcon(z: Tensor, labels: Tensor) -> Tensor:
    """SupCon-out over all pairs of a batch, as one matrix (arXiv 2004.11362, equation 2)."""
    own = torch.eye(len(z), dtype=torch.bool, device=z.device)
    logits = (z @ z.T / TEMPERATURE).masked_fill(own, -torch.inf)
    log_probability = logits - logits.logsumexp(1, keepdim=True)
    positive = (labels[:, None] == labels) & ~own
    # An image's other view is a positive, so no query is without one.
    return -(log_probability.masked_fill(~positive, 0).sum(1) / positive.sum(1)).mean()


def plain_run(data: str, in_memory: bool, workers: int, device: str = "cpu") -> dict[str, float]:
    """Mean seconds of a step."""
    torch.manual_seed(0)
    backbone = build_backbone("small-resnet", InputSpec.images(size=SIDE))
    backbone.module.to(memory_format=torch.channels_last)
    model = nn.Sequential(backbone.module, ProjectionHead(backbone.feature_dim)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25, momentum=0.9, weight_decay=1e-4)
    loader = DataLoader(
        TwoViews(data, in_memory), BATCH, shuffle=True, drop_last=True, num_workers=workers
    )
    ends = []
    for first, second, labels in loader:
        views, labels = torch.cat([first, second]).to(device), labels.to(device)
        loss = plain_supcon(model(views), labels.repeat(2))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        assert bool(torch.isfinite(loss))
        ends.append(time.perf_counter())
        if len(ends) == WARM_UP + STEPS:
            break
    return {"step": (ends[-1] - ends[WARM_UP - 1]) / STEPS}


RINCE = "rince train"
PLAIN = {"plain loop, images in memory": True, "plain loop, image files": False}


def in_own_process(
    data: str, threads: int, name: str, workers: int, device: str
) -> dict[str, float]:
    command = [sys.executable, __file__, data, "--threads", str(threads), "--device", device]
    command += ["--one", name, str(workers)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    measured: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="folder with train/SUPERCLASS/CLASS/*.JPEG")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.one:
        name, workers = options.one
        in_memory = PLAIN.get(name)
        run = (
            rince_run(options.data, options.device)
            if in_memory is None
            else plain_run(options.data, in_memory, int(workers), options.device)
        )
        print(json.dumps(run))
        return
    runs: dict[tuple[str, int], list[dict[str, float]]] = defaultdict(list)
    contenders = [(RINCE, 0)] + [(name, workers) for name in PLAIN for workers in (0, 1, 2)]
    for _ in range(options.rounds):
        for name, workers in contenders:
            run = in_own_process(options.data, options.threads, name, workers, options.device)
            runs[name, workers].append(run)
            print(f"{name}, {workers}: {BATCH / run['step']:.0f} images/s", file=sys.stderr)
    speed = {
        key: BATCH / statistics.median(run["step"] for run in of_key)
        for key, of_key in runs.items()
    }
    print(f"| {options.threads} thread(s), median of {options.rounds} | images/s | rince / it |")
    print("|:---|---:|---:|")
    for (name, workers), value in speed.items():
        how = "" if name == RINCE else f", {workers} worker(s)"
        print(f"| {name}{how} | {value:.0f} | {speed[RINCE, 0] / value:.2f} |")
    print("\n| part of a step of rince train | ms | share |\n|:---|---:|---:|")
    middle = {
        part: statistics.median(run[part] for run in runs[RINCE, 0]) for part in ("step", *PARTS)
    }
    for part, seconds in middle.items():
        print(f"| {part} | {1000 * seconds:.1f} | {seconds / middle['step']:.1%} |")


if __name__ == "__main__":
    main()
