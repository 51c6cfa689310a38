"""Which encoder. No torch here: ``rince --help`` reads this."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from rince.core.checks import require
from rince.core.options import Options, limited

Space: TypeAlias = Literal["embedding", "backbone"]
"""What is compared: embeddings of the projection head, or the backbone's features."""

LIBRARIES = ("torchvision", "timm", "hf")
"""Of backbones with pretrained weights: ``LIBRARY/NAME``."""


def is_library_name(name: str) -> bool:
    """Whether this is the name of a library's backbone, and no folder."""
    return name.partition("/")[0] in LIBRARIES and not Path(name).exists()


LAYOUTS = {
    "rince-prototype": ("module.backbone_q.encoder.", "backbone_q.encoder."),
    "supcontrast": ("module.encoder.", "encoder.module.", "encoder."),
}
"""Checkpoints of the RINCE paper's prototype and of SupCon's reference code -> how the names of the
encoder's weights begin; the first that occurs is taken, and what begins otherwise is left out."""


@dataclass
class ModelOptions(Options):
    """The encoder.

    Args:
        backbone: small-resnet (for CPUs), tiny-resnet (half the channels), resnet18-3x3,
            resnet50-3x3 (the paper's for 32 pixels), torchvision/NAME, timm/NAME or hf/NAME (of
            Hugging Face: DINOv2, CLIP's vision tower, a folder); for clips of
            videos small-resnet3d, torchvision/r3d_18 and others of torchvision; for texts a model
            of sentence-transformers, by name or folder; for stored features mlp, linear, or
            identity (the projection head alone is trained). None takes small-resnet,
            small-resnet3d, all-MiniLM-L6-v2, which comes with the extra rince[text], or mlp.
        pretrained: start from the weights of the library (torchvision, timm and hf names only; a
            text model always does). Images are then fed as these were trained: their mean and std,
            interpolation and crop, and their size where images.image_size is open.
        layers: number of final blocks of the backbone to fine-tune (0: it is frozen); None: all.
            For texts there is text.layers.
        lora: rank of low-rank updates of the backbone's linear layers, which are trained in place
            of its weights (needs the extra lora); exports have them added to the weights.
        start_from: folder of a run whose backbone to start from, of the same architecture: with
            an objective of labels, this is fine-tuning. Images are then fed as that run's, at
            its size where images.image_size is open.
        embedding_dim: width of the embedding that the loss sees.
        head: from the backbone's features to that embedding: two layers (mlp, the paper's), or one.
        momentum: keys come from a slow copy of the encoder that follows with this momentum, 0 to
            1 (the paper: 0.99); None makes both views queries and keys of the current batch
            (SimCLR).
        queue_size: number of past keys that serve as keys too (the paper: 4096); needs momentum.
        sync_batch_norm: with several processes on GPUs, batch norm normalises by the images of
            all of them, as one process with the whole batch would; otherwise by its own.
    """

    prefix = "model."

    backbone: str | None = None
    pretrained: bool = False
    layers: int | None = limited(None, low=0)
    lora: int | None = limited(None, low=1)
    start_from: str | None = None
    embedding_dim: int = limited(128, low=1)
    head: Literal["mlp", "linear"] = "mlp"
    momentum: float | None = limited(None, low=0, high=1)
    queue_size: int = limited(0, low=0)
    sync_batch_norm: bool = False

    def check(self) -> None:
        super().check()
        require(
            self.queue_size == 0 or self.momentum is not None,
            "model.queue_size needs a momentum encoder (keys of an encoder that changes fast "
            "grow stale): set model.momentum, for instance 0.99",
        )
        require(
            self.lora is None or self.start_from is None,
            "model.lora begins with a library's weights, not with those of model.start_from",
        )
