"""Steps a second of many small trainings on one card, all processes together.

    python benchmarks/shared_card.py 1 4 14     # the card as it is
    nvidia-cuda-mps-control -d                  # then once more: shared by NVIDIA's MPS

Each process trains a tiny-resnet of its own on 256 images of noise, 32 pixels, by itself.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from typing import Any

import torch
from torch import nn

from rince.models.backbones import build_backbone

WARM_UP, SECONDS = 20, 4.0


def work(barrier: Any, rates: Any) -> None:
    torch.set_num_threads(1)
    backbone = build_backbone("tiny-resnet")
    network = nn.Sequential(backbone.module, nn.Linear(backbone.feature_dim, 128)).cuda()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    images = torch.randn(256, 3, 32, 32, device="cuda")

    def step() -> None:
        optimizer.zero_grad()
        network(images).square().mean().backward()
        optimizer.step()

    for _ in range(WARM_UP):
        step()
    torch.cuda.synchronize()
    barrier.wait()
    start, steps = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        for _ in range(10):
            step()
        torch.cuda.synchronize()
        steps += 10
    rates.put(steps / (time.perf_counter() - start))


def main() -> None:
    if not torch.cuda.is_available():
        print("not run: PyTorch finds no CUDA card here")
        return
    context = multiprocessing.get_context("spawn")
    for count in map(int, sys.argv[1:] or ("1", "4", "14")):
        barrier, rates = context.Barrier(count), context.Queue()
        processes = [context.Process(target=work, args=(barrier, rates)) for _ in range(count)]
        for process in processes:
            process.start()
        total = sum(rates.get() for _ in processes)
        for process in processes:
            process.join()
        print(f"{count} processes: {total:.0f} steps/s in all", flush=True)


if __name__ == "__main__":
    main()
