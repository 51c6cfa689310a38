"""Images, or clips, of one size in memory: bytes, augmented a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rince.core.checks import require
from rince.core.digests import content_digest, digest
from rince.core.input_spec import InputSpec, Preprocessing
from rince.data.items import Indices, Items, Marks, Thumbnails, positions_of
from rince.data.views import BatchAugmentation, ViewConfig, eval_transform, evaluation_pixels
from rince.ranks.taxonomy import Taxonomy


@dataclass(frozen=True, eq=False, repr=False)
class TensorImages(Items):
    """Images of one size, in memory.

    Args:
        pixels: (N, C, H, W) uint8, C = 1 or 3; or clips, (N, C, T, H, W).
        labels: (N,) int64 in [0, classes of the taxonomy).
        taxonomy: the class tree.
        name: what to call the data set in reports.
        source: fingerprint of the files the pixels were read from; "" if from none.
        image_size: side of the squares that a network is fed, pixels; None: the shorter side.
        marks: what a table says of them.
        preprocessing: how a network is fed them; pixels of its size are only normalised.
        bits: of the files they were read from, see :func:`~rince.data.image.decode.read_image`.

    Raises:
        ValueError: wrong shapes or dtypes, or a label outside the taxonomy.
    """

    pixels: Tensor
    labels: Tensor
    taxonomy: Taxonomy
    name: str
    source: str = ""
    image_size: int | None = None
    marks: Marks | None = None
    bits: int | None = None
    preprocessing: Preprocessing | None = None
    in_memory = True

    def __post_init__(self) -> None:
        shape = tuple(self.pixels.shape)
        require(
            self.pixels.dtype == torch.uint8 and len(shape) in (4, 5) and shape[1] in (1, 3),
            f"pixels must be uint8 (N, 1 or 3, H, W) or (N, 1 or 3, T, H, W), got {shape} "
            f"and {self.pixels.dtype}",
        )
        self._check_labels(shape[0])

    def __getitem__(self, index: int) -> Tensor:
        return self.pixels[index]

    @property
    def channels(self) -> int:
        """C, 3 (RGB) or 1 (grey)."""
        return int(self.pixels.shape[1])

    @property
    def spec(self) -> InputSpec:
        size = self.image_size or min(self.pixels.shape[-2:])
        if self.pixels.ndim == 5:
            return InputSpec.clips(self.channels, int(self.pixels.shape[2]), size)
        return InputSpec.images(self.channels, size, self.bits, self.preprocessing)

    def subset(self, indices: Indices) -> TensorImages:
        chosen = positions_of(indices, len(self))
        source = self.source and digest([self.source, chosen.tolist()])
        return replace(self._rows(chosen, "pixels", "labels", "marks"), source=source)

    def fingerprint(self) -> str:
        """Of the files that the images were read from; of others the number, the labels and the
        class tree. Never the pixels."""
        return self.source or digest([self.taxonomy.paths, self.labels.tolist()])

    def content_hashes(self) -> Iterator[bytes]:
        for pixels in self.pixels:
            yield content_digest(pixels.numpy().tobytes())

    def thumbnails(self, indices: Indices, size: int) -> Thumbnails:
        return as_pictures(self.pixels[positions_of(indices, len(self))])

    def batch(self, indices: Tensor) -> Tensor:
        return self.pixels[indices]

    def fitted(self, rows: slice) -> Tensor:
        size = self.spec.size
        done = tuple(self.pixels.shape[-2:]) == (size, size)
        return eval_transform(size, None if done else self.preprocessing)(self.pixels[rows])

    def network_inputs(self, fitted: Tensor) -> Tensor:
        return evaluation_pixels(fitted, self.preprocessing)

    def augmentation(self, config: ViewConfig) -> BatchAugmentation:
        return BatchAugmentation(self.spec.size, self.channels, config, self.preprocessing)


def as_pictures(pixels: Tensor) -> Thumbnails:
    """(n, H, W, C) from images (n, C, H, W), or from clips (n, C, T, H, W): four frames of each,
    side by side."""
    if pixels.ndim == 5:
        shown = torch.linspace(0, pixels.shape[2] - 1, 4).long()
        pixels = pixels[:, :, shown].permute(0, 1, 3, 2, 4).flatten(3)  # (n, C, H, 4 W)
    pictures: Thumbnails = pixels.permute(0, 2, 3, 1).numpy()
    return pictures


def unlabelled(pixels: Tensor, taxonomy: Taxonomy, image_size: int | None = None) -> TensorImages:
    """Images, or clips, of no known class: the label 0 says nothing."""
    labels = torch.zeros(len(pixels), dtype=torch.int64)
    return TensorImages(pixels, labels, taxonomy, "outliers", image_size=image_size)
