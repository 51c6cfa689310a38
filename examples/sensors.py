"""A sensor's states without labels: ranks from time alone, in about twenty seconds.

A Lorenz system changes its regime (rho = 28, 60 or 160) every few seconds; its three coordinates
are the sensor. A window of a second and its other view (scaled, noisy) have rank 1, windows up to
2 seconds apart rank 2, up to 5 seconds rank 3; all that is further away is negative. Nothing says
which regime a window is from.

    python examples/sensors.py [--smoke]

Each window is standardised by itself, so that a regime shows in how it moves, not in how far. Then
the regime of later windows, never trained on, is guessed from their 10 nearest earlier ones.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

import rince

REGIMES = (28.0, 60.0, 160.0)
RATE, WINDOW, HOP = 50, 50, 25  # samples a second; samples
DWELL = 8.0  # seconds of a regime, on average
RULE = rince.TimeRanks(near=(2.0, 5.0), beyond="negative")


def lorenz(seconds: float, seed: int) -> tuple[Tensor, Tensor]:
    """The series (3, T) at 50 samples a second, and the regime (T,) of each sample.

    dx = 10 (y - x), dy = x (rho - z) - y, dz = x y - 8/3 z, in Euler steps of 1 ms.
    """
    generator = torch.Generator().manual_seed(seed)
    steps_a_sample = 1000 // RATE
    x, y, z = 1.0, 1.0, 20.0
    series, regimes = [], []
    regime, left = 0, 0.0
    for _ in range(int(seconds * RATE)):
        if left <= 0:
            regime = (regime + int(torch.randint(1, 3, (), generator=generator))) % len(REGIMES)
            left = DWELL * (0.5 + float(torch.rand((), generator=generator)))
        for _ in range(steps_a_sample):
            dx, dy, dz = 10 * (y - x), x * (REGIMES[regime] - z) - y, x * y - 8 / 3 * z
            x, y, z = x + dx / 1000, y + dy / 1000, z + dz / 1000
        left -= 1 / RATE
        series.append((x, y, z))
        regimes.append(regime)
    return torch.tensor(series).T, torch.tensor(regimes)


def windows(series: Tensor, regimes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(N, 3, W) standardised windows, their items for the rank source, and their regimes."""
    cut = series.unfold(1, WINDOW, HOP).transpose(0, 1)  # (N, 3, W)
    cut = (cut - cut.mean(dim=2, keepdim=True)) / cut.std(dim=2, keepdim=True)
    start = torch.arange(len(cut)).double() * HOP / RATE
    items = rince.TimeRanks.items(torch.zeros(len(cut)).long(), start, start + WINDOW / RATE)
    return cut, items, regimes.unfold(0, WINDOW, HOP)[:, WINDOW // 2]


def encoder() -> nn.Module:
    """Three strided convolutions and the mean over time: (B, 3, W) -> (B, 64)."""
    layers: list[nn.Module] = []
    for before, after in ((3, 32), (32, 64), (64, 64)):
        layers += [nn.Conv1d(before, after, 5, stride=2, padding=2), nn.BatchNorm1d(after)]
        layers += [nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten())


def view(x: Tensor) -> Tensor:
    """Another view of each window: scaled by up to 20 %, with noise."""
    return x * (1 + 0.2 * (2 * torch.rand(len(x), 1, 1) - 1)) + 0.1 * torch.randn_like(x)


def train(model: nn.Module, cut: Tensor, items: Tensor, steps: int) -> None:
    """RINCE on both views of random windows as queries and keys."""
    head = nn.Linear(64, 32)
    criterion = rince.RankedInfoNCE(temperatures=(0.1, 0.225, 0.5), variant="out-in")
    optimizer = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=2e-3)
    model.train()
    for _ in range(steps):
        chosen = torch.randperm(len(cut))[:128]
        both = torch.cat([view(cut[chosen]), view(cut[chosen])])
        z = functional.normalize(head(model(both)), dim=1)
        owner = items[chosen].repeat(2, 1)
        loss = criterion(z, z, RULE.ranks(owner, owner, ignore_self=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def regime_accuracy(past: Tensor, past_regime: Tensor, later: Tensor, regime: Tensor) -> float:
    """Share of later windows whose 10 nearest past ones (cosine) mostly have their regime."""
    similarity = functional.normalize(later, dim=1) @ functional.normalize(past, dim=1).T
    nearest = past_regime[similarity.topk(10, dim=1).indices]
    return float((nearest.mode(dim=1).values == regime).double().mean())


def run(seed: int, seconds: float, steps: int) -> dict[str, float]:
    """Accuracies on the second half of a series, by what the windows are compared with."""
    torch.manual_seed(seed)
    cut, items, regimes = windows(*lorenz(seconds, seed))
    half = len(cut) // 2
    model = encoder()

    def evaluated(features: Tensor) -> float:
        return regime_accuracy(features[:half], regimes[:half], features[half:], regimes[half:])

    accuracies = {"chance": float(regimes[half:].bincount().max() / len(regimes[half:]))}
    accuracies["raw window"] = evaluated(cut.flatten(1))
    model.eval()
    with torch.no_grad():
        accuracies["untrained"] = evaluated(model(cut))
    train(model, cut[:half], items[:half], steps)
    model.eval()
    with torch.no_grad():
        accuracies["ranks from time"] = evaluated(model(cut))
    return accuracies


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a few steps, to see that it runs")
    smoke = parser.parse_args(arguments).smoke
    torch.set_num_threads(1)  # these layers are too small to share
    start = time.perf_counter()
    seeds = (0,) if smoke else (0, 1, 2)
    outcomes = [run(seed, 120 if smoke else 600, 3 if smoke else 200) for seed in seeds]
    for name in outcomes[0]:
        values = torch.tensor([outcome[name] for outcome in outcomes])
        print(f"{name:<18}{values.mean():>7.1%}  ({', '.join(f'{v:.1%}' for v in values)})")
    print(f"regime of later windows, {len(seeds)} seed(s), {time.perf_counter() - start:.0f} s")
    cut, items, _ = windows(*lorenz(60, 0))
    print(f"\nranks of a minute of it:\n{RULE.describe(items, min(64, len(cut)))}")


if __name__ == "__main__":
    main()
