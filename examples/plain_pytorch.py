"""RINCE in a plain PyTorch loop: python examples/plain_pytorch.py [--smoke]"""

from __future__ import annotations

import torch
from digits import TEMPERATURES, TREE, Encoder, arguments, evaluate, load, report

import rince


def main(epochs: int) -> tuple[dict[str, float], dict[str, float]]:
    torch.manual_seed(0)
    train, test = load()
    loader = torch.utils.data.DataLoader(train, batch_size=256, shuffle=True, drop_last=True)
    encoder = Encoder()
    criterion = rince.RankedInfoNCE(TEMPERATURES, variant="out-in")
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=3e-3)
    before = evaluate(encoder, test)
    for _ in range(epochs):
        for pixels, labels in loader:
            z = encoder(pixels)
            loss = criterion(z, z, TREE.ranks(labels, labels, ignore_self=True))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return before, evaluate(encoder, test)


if __name__ == "__main__":
    report("plain PyTorch", *main(arguments(__doc__).epochs))
