"""An objective, a metric and a kind of data of your own, without editing rince.

The data are windows of a moving sensor (the Lorenz system of examples/sensors.py), labelled by
their regime: two of them are chaotic, one is periodic. `rince.training.train` trains on them with
a loss that is defined here, and `evaluate_run` measures one thing more than it otherwise does.

    python examples/own_objective.py [--smoke]
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import sensors
import torch
from torch import Tensor

import rince
from rince.data import Items, Kind, Request, Splits, ViewConfig, register_kind
from rince.evaluation import STEPS, Context, EvaluationOptions
from rince.models import Backbone, InputSpec, as_backbone
from rince.ranks import PairRanks
from rince.training import OptimOptions, TrainConfig, evaluate_run, train

REGIMES = rince.Taxonomy([("chaotic", "28"), ("chaotic", "60"), ("periodic", "160")])
SPEC = InputSpec("windows", (3, sensors.WINDOW))

# ---- the objective: any function of queries, keys and their ranks ----------------------------


def align_and_spread(query: Tensor, key: Tensor, ranks: PairRanks) -> Tensor:
    """Positives close, the nearer the better their rank, and all of them spread over the sphere:
    alignment weighted by 1 / rank, plus uniformity (Wang and Isola, ICML 2020)."""
    rank = ranks.tile(slice(None), slice(None))  # (Q, K): 1, 2, ...; 0 negative, -1 ignored
    distance = 2 - 2 * query @ key.T  # squared, of unit vectors
    weight = torch.where(rank > 0, 1 / rank.clamp(min=1), 0.0)
    alignment = (weight * distance).sum() / weight.sum()
    return alignment + (-2 * distance[rank >= 0]).exp().mean().log()


# ---- the metric: a function of an evaluation's features and labels ---------------------------


def class_gap(context: Context) -> dict[str, float]:
    """How much more similar windows of one regime are than windows of two: a mean cosine."""
    test, train = (torch.nn.functional.normalize(x, dim=1) for x in context.features)
    same = context.test.labels[:, None] == context.train.labels
    cosine = test @ train.T
    return {"class_gap": float(cosine[same].mean() - cosine[~same].mean())}


# ---- the kind of data: items that answer for themselves, and a row ----------------------------


@dataclass(frozen=True, eq=False)
class Windows(Items):
    """(N, 3, W) windows in memory."""

    values: Tensor
    labels: Tensor
    taxonomy: rince.Taxonomy = REGIMES
    name: str = "lorenz"
    in_memory: bool = True

    @property
    def spec(self) -> InputSpec:
        return SPEC

    @property
    def size(self) -> str:
        return f"{sensors.WINDOW} samples"

    def __getitem__(self, index: int) -> Tensor:
        return self.values[index]

    def subset(self, indices: Any) -> Windows:
        return replace(self, values=self.values[indices], labels=self.labels[indices])

    def fingerprint(self) -> str:
        return f"{self.name} {len(self)} {float(self.values.double().sum()):.6g}"

    def augmentation(self, config: ViewConfig) -> Jitter:
        return Jitter()


class Jitter:
    """A view: scaled by up to 20 %, with noise."""

    class Draws(NamedTuple):
        scale: Tensor
        noise: Tensor

        def rows(self, rows: slice) -> Jitter.Draws:
            return Jitter.Draws(self.scale[rows], self.noise[rows])

    def draw(self, batch: Tensor, generator: torch.Generator) -> Jitter.Draws:
        scale = 0.8 + 0.4 * torch.rand(len(batch), 1, 1, generator=generator)
        return self.Draws(scale, 0.1 * torch.randn(batch.shape, generator=generator))

    def apply(self, batch: Tensor, draws: Jitter.Draws) -> Tensor:
        return batch * draws.scale.to(batch.device) + draws.noise.to(batch.device)


def load(request: Request) -> Splits:
    """``lorenz:SECONDS``: the first half is for training, the second for the test."""
    seconds = float(request.data.partition(":")[2])
    values, _, regimes = sensors.windows(*sensors.lorenz(seconds, seed=0))
    half = len(values) // 2
    train = Windows(values[:half], regimes[:half])
    return Splits(train, Windows(values[half:], regimes[half:]))


register_kind(
    Kind(noun="windows", recognise=lambda data, by_time: data.startswith("lorenz:"), load=load)
)

# ---- all of it -------------------------------------------------------------------------------


def backbone() -> Backbone:
    torch.manual_seed(0)
    return as_backbone(sensors.encoder(), SPEC)


def main(seconds: float, epochs: int) -> dict[str, float]:
    """Train and evaluate; the metrics."""
    with tempfile.TemporaryDirectory() as output:
        config = TrainConfig(
            data=f"lorenz:{seconds:g}",
            epochs=epochs,
            batch_size=64,
            output=output,
            optim=OptimOptions(optimizer="adamw", lr=2e-3),
            accelerator="cpu",
            progress=False,
        )
        folder: Path = train(config, backbone(), objective=align_and_spread)
        evaluation = evaluate_run(
            folder,
            backbone=backbone(),
            steps=[*STEPS, class_gap],
            options=EvaluationOptions(probe_epochs=20, map_points=0),
            device="cpu",
        )
    return evaluation.metrics


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--smoke", action="store_true", help="a small run, as the tests do")
    smoke = parser.parse_args().smoke
    metrics = main(seconds=120 if smoke else 600, epochs=2 if smoke else 20)
    for name in ("knn/fine", "knn/coarse", "retrieval/fine/R@1", "class_gap"):
        print(f"{name:20}{metrics[name]:7.3f}")
