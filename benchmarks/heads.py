"""Ten settings of a head on 20,000 stored features, trained and measured in one process.

    OMP_NUM_THREADS=1 python benchmarks/heads.py

Features are made up: 384 numbers, 100 classes around points near those of 10 groups. A fifth of
each class is held out. R@1 and mAP are of held-out items among the training's, in the embedding.
"""

from __future__ import annotations

import itertools
import tempfile
import time

import numpy as np
import torch

from rince.data import Splits, from_vectors
from rince.data.items import split_by_hash
from rince.metrics import retrieval
from rince.training import LossOptions, TrainConfig, load_run, train

COUNT, WIDTH, CLASSES, GROUPS, EPOCHS = 20_000, 384, 100, 10, 3
VARIANTS = ("in", "out")
TEMPERATURES = ((0.05, 0.225), (0.1, 0.225), (0.1, 0.6), (0.2, 0.35), (0.2, 0.6))


def made_up() -> Splits:
    rng = np.random.default_rng(0)
    group = np.repeat(rng.normal(size=(GROUPS, WIDTH)), CLASSES // GROUPS, axis=0)
    centre = 0.7 * group + rng.normal(size=(CLASSES, WIDTH))
    y = rng.integers(0, CLASSES, COUNT)
    labels = [(f"group {c * GROUPS // CLASSES}", f"class {c}") for c in y.tolist()]
    return Splits(
        *split_by_hash(from_vectors(centre[y] + 3.5 * rng.normal(size=(COUNT, WIDTH)), labels))
    )


def main() -> None:
    splits = made_up()
    for variant, temperatures in itertools.product(VARIANTS, TEMPERATURES):
        started = time.process_time(), time.perf_counter()
        config = TrainConfig(
            "made-up",
            loss=LossOptions(variant=variant, temperatures=temperatures),  # type: ignore[arg-type]
            epochs=EPOCHS,
            accelerator="cpu",
            knn_every=0,
            progress=False,
            output=tempfile.mkdtemp(),
        )
        trained = load_run(train(config, splits=splits))
        assert trained.head is not None
        with torch.no_grad():
            train_side, test_side = (
                trained.head(trained.backbone.module(part.batch(torch.arange(len(part)))))
                for part in (splits.train, splits.test)
            )
        found = retrieval(test_side, train_side, splits.test.labels, splits.train.labels, ks=(1,))
        print(
            f"| {variant} | {temperatures} | {100 * found.recall[1]:.1f} | "
            f"{100 * found.mean_average_precision:.1f} | {time.process_time() - started[0]:.1f} | "
            f"{time.perf_counter() - started[1]:.1f} |"
        )
    print(f"all: {time.process_time():.0f} s of CPU, the start of Python included")


if __name__ == "__main__":
    main()
