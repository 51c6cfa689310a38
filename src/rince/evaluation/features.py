"""Features of a data set, taken once and shared by every metric, and their cosines in chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from rince.core.checks import require, warn


@dataclass(frozen=True)
class FeatureSet:
    """The features of a data set.

    Args:
        features: (N, D) float32, finite, as the backbone gives them (not normalised).
        labels: (N,) int64.

    Raises:
        ValueError: wrong shapes or dtypes, no sample, or a value that is not finite.
    """

    features: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        check_features(self.features, "features")
        require(
            self.features.dtype == torch.float32,
            f"features must be float32, got {self.features.dtype}",
        )
        check_labels(self.labels, len(self.features), "labels")

    def __len__(self) -> int:
        return len(self.features)


def extract_features(
    backbone: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device | str,
) -> FeatureSet:
    """Run the backbone over a data set, in evaluation mode and without gradients.

    Args:
        backbone: gives (B, D) floats for a batch of inputs. It is moved to ``device`` and stays
            there; the training flag of each of its modules is put back afterwards.
        batches: pairs of inputs (B, ...) and labels (B,) int64. Labels are only carried along.
        device: where the backbone runs. The features come back to the CPU.

    Returns:
        The features of all batches, in their order.

    Raises:
        ValueError: there is no batch, the backbone does not give one row a sample, or the
            features are not finite.

    >>> backbone = nn.Linear(2, 3)
    >>> extract_features(backbone, [(torch.ones(4, 2), torch.arange(4))], "cpu").features.shape
    torch.Size([4, 3])
    """
    backbone.to(device)
    # Module by module: a batch norm frozen in an otherwise training backbone must stay frozen.
    modes = [(module, module.training) for module in backbone.modules()]
    features: list[Tensor] = []
    labels: list[Tensor] = []
    backbone.eval()
    try:
        with torch.no_grad():
            for inputs, batch_labels in batches:
                found = backbone(inputs.to(device))
                require(
                    isinstance(found, Tensor) and found.shape[:1] == batch_labels.shape,
                    "the backbone must give one row of features for each of the "
                    f"{len(batch_labels)} samples of a batch, got "
                    + (str(tuple(found.shape)) if isinstance(found, Tensor) else str(type(found))),
                )
                features.append(found.float().cpu())
                labels.append(batch_labels.cpu())
    finally:
        for module, mode in modes:
            module.training = mode
    require(bool(features), "there is nothing to extract features from: no batch was given")
    return FeatureSet(torch.cat(features), torch.cat(labels))


def check_features(features: Tensor, name: str) -> None:
    """Raise ``ValueError`` unless ``features`` are (N >= 1, D >= 1) finite floats."""
    require(
        features.ndim == 2 and features.numel() > 0 and features.is_floating_point(),
        f"{name} must be a non-empty (samples, dimensions) matrix of floats, got shape "
        f"{tuple(features.shape)} and {features.dtype}",
    )
    bad = ~torch.isfinite(features).all(dim=1)
    require(
        not bool(bad.any()),
        f"{int(bad.sum())} of {len(bad)} {name} hold NaN or infinity: the training has most "
        "likely diverged (a lower learning rate or a higher temperature helps)",
    )


def check_labels(labels: Tensor, size: int, name: str, num_classes: int | None = None) -> None:
    """Raise ``ValueError`` unless ``labels`` are (size,) int64 in [0, num_classes)."""
    require(
        labels.shape == (size,) and labels.dtype == torch.int64,
        f"{name} must be int64, one for each of the {size} samples, got shape "
        f"{tuple(labels.shape)} and {labels.dtype}",
    )
    if num_classes is not None:
        low, high = (int(x) for x in torch.aminmax(labels))
        require(
            low >= 0 and high < num_classes,
            f"{name} must lie in [0, {num_classes}), the number of classes, but hold "
            f"{low if low < 0 else high}",
        )


def unit_features(features: Tensor, name: str) -> Tensor:
    """Checked features as float32 rows of length 1; a row of zeros stays zero, with a warning."""
    check_features(features, name)
    features = features.detach()
    peak = features.abs().amax(dim=1, keepdim=True)
    # Scaled first, so that neither tiny nor huge rows under- or overflow when squared.
    unit = functional.normalize((features / torch.where(peak > 0, peak, 1)).float(), dim=1)
    zero = int((peak == 0).sum())
    require(zero < len(unit), f"all {name} are zero vectors: they have no direction to compare")
    if zero:
        warn(f"{zero} of {len(unit)} {name} are zero vectors: their cosines count as 0")
    return unit


def cosine_chunks(
    query_features: Tensor, gallery_features: Tensor, chunk_size: int
) -> Iterator[tuple[slice, Tensor]]:
    """Cosines of all queries with all gallery items, ``chunk_size`` queries at a time.

    Args:
        query_features: (Q, D) float. gallery_features: (G, D) float.
        chunk_size: queries a chunk; a chunk takes 4 * chunk_size * G bytes.

    Yields:
        The rows of a chunk and their cosines (rows, G) float32, free to be written to.

    Raises:
        ValueError: wrong shapes or values that are not finite.
    """
    require(chunk_size >= 1, f"chunk_size must be at least 1, got {chunk_size}")
    query = unit_features(query_features, "query features")
    gallery = unit_features(gallery_features, "gallery features").to(query.device)
    require(
        query.shape[1] == gallery.shape[1],
        f"query and gallery features must have as many dimensions, got {query.shape[1]} and "
        f"{gallery.shape[1]}: they come from different backbones",
    )
    for start in range(0, len(query), chunk_size):
        rows = slice(start, min(start + chunk_size, len(query)))
        yield rows, query[rows] @ gallery.T


def sort_rows(values: Tensor) -> Tensor:
    """Sort each row, ascending; on the CPU in place."""
    if values.device.type == "cpu":
        # numpy's sort is vectorised, about twice as fast as torch's, and releases the GIL.
        threads = torch.get_num_threads()
        with ThreadPoolExecutor(threads) as pool:
            parts = np.array_split(values.numpy(), threads)  # views
            list(pool.map(lambda part: part.sort(axis=1), parts))
        return values
    return values.sort(dim=1).values
