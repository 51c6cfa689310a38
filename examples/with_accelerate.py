"""RINCE with accelerate: python examples/with_accelerate.py [--smoke], or on several devices

accelerate launch --num_processes 2 examples/with_accelerate.py     # GPUs
ACCELERATE_USE_CPU=true torchrun --nproc-per-node 2 examples/with_accelerate.py

rince.gather carries the gradient back to every process; the average that accelerate takes over
processes is then the gradient of the whole batch.
"""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from digits import TEMPERATURES, TREE, Encoder, arguments, evaluate, load, report

import rince


def main(epochs: int) -> tuple[dict[str, float], dict[str, float]]:
    set_seed(0)
    accelerator = Accelerator()
    train, test = load()
    encoder = Encoder()
    before = evaluate(encoder, test)
    criterion = rince.RankedInfoNCE(TEMPERATURES, variant="out-in")
    model, optimizer, loader = accelerator.prepare(
        encoder,
        torch.optim.AdamW(encoder.parameters(), lr=3e-3),
        torch.utils.data.DataLoader(
            train, batch_size=256 // accelerator.num_processes, shuffle=True, drop_last=True
        ),
    )
    for _ in range(epochs):
        for pixels, labels in loader:
            z = model(pixels)
            ranks = TREE.ranks(labels, rince.gather(labels), ignore_self=True)
            loss = criterion(z, rince.gather(z), ranks)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
    after = evaluate(accelerator.unwrap_model(model).cpu(), test)
    if accelerator.is_main_process:
        report(f"accelerate x{accelerator.num_processes}", before, after)
    accelerator.end_training()
    return before, after


if __name__ == "__main__":
    main(arguments(__doc__).epochs)
