"""Networks that other tools have trained, as an :class:`~rince.models.exported.ImageEncoder`.

Of a checkpoint's dictionary the entry "model" holds the weights: those of the encoder begin as
:data:`~rince.models.options.LAYOUTS` says, and are torchvision's but for the shortcuts. We have
tried files of these layouts that we made ourselves, not the published ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from rince.core.checks import RinceError, require
from rince.core.files import absent, user_path
from rince.core.input_spec import InputSpec, Preprocessing
from rince.core.pixels import normalisation
from rince.models.backbones import Backbone, build_backbone
from rince.models.exported import ImageEncoder
from rince.models.libraries import library_preprocessing
from rince.models.options import LAYOUTS
from rince.models.weights import load_strictly

# What both layouts are of, if nothing else is said; mean and std are of CIFAR-100's pixels.
BACKBONE, SIZE = "resnet50-3x3", 32
CIFAR100 = ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))


def read_checkpoint_of(
    file: str | Path,
    layout: str,
    *,
    backbone: str | None = None,
    size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> ImageEncoder:
    """The backbone of a checkpoint that another tool wrote. Nothing in the file is executed.

    Args:
        file: its, of ``torch.save``.
        layout: a name of :data:`~rince.models.options.LAYOUTS`.
        backbone: a name of :func:`~rince.models.backbones.build_backbone`; every weight must fit.
        size: side of its square RGB images, in pixels.
        mean, std: three numbers each, that its pixels in [0, 1] were normalised with. All four:
            None takes those of the paper's CIFAR-100 networks.
    """
    require(layout in LAYOUTS, f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    file = user_path(file)
    if not file.is_file():
        raise RinceError(absent("file", file))
    try:
        # Options as argparse keeps them: a plain object, and nothing is called to make one.
        with torch.serialization.safe_globals([argparse.Namespace]):
            stored = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises anything
        first_line = str(error).strip().partition("\n")[0]
        raise RinceError(
            f"cannot read {file} as weights alone ({type(error).__name__}: {first_line}): it is "
            f"damaged, or holds more than numbers and options, which rince does not run"
        ) from error
    weights = _encoder_weights(stored, layout, file)
    size = SIZE if size is None else size
    how = Preprocessing(tuple(mean or CIFAR100[0]), tuple(std or CIFAR100[1]), size)
    spec = InputSpec.images(channels=3, size=size, preprocessing=how)
    name = BACKBONE if backbone is None else backbone
    built = build_backbone(name, spec)
    load_strictly(built.module, weights, file)
    return _encoder(built, name, spec)


def library_encoder(name: str, *, size: int | None = None) -> ImageEncoder:
    """A backbone with the weights that its library ships, fed as the library says.

    ``name``: torchvision/NAME, timm/NAME or hf/NAME, of images. ``size``: None: the library's.
    """
    size, preprocessing = library_preprocessing(name, size)
    spec = InputSpec.images(3, size, preprocessing=preprocessing)
    built = build_backbone(name, spec, pretrained=True)
    return _encoder(built, name, spec)


def _encoder(built: Backbone, name: str, spec: InputSpec) -> ImageEncoder:
    mean, std = normalisation(spec.channels, spec.preprocessing)
    for what, numbers in (("mean", mean), ("std", std)):
        require(len(numbers) == 3, f"{what} must be three numbers, of R, G and B, got {numbers}")
    require(all(x > 0 for x in std), f"std must be above 0, got {std}")
    return ImageEncoder(
        module=built.module.eval(),
        backbone=name,
        output_dim=built.feature_dim,
        embedding_dim=None,
        num_heads=1,
        spec=spec,
        mean=tuple(map(float, mean)),
        std=tuple(map(float, std)),
        class_paths=(),
    )


def _encoder_weights(stored: object, layout: str, file: Path) -> dict[str, Tensor]:
    prefixes = LAYOUTS[layout]
    held = stored.get("model") if isinstance(stored, Mapping) else None
    model = held if isinstance(held, Mapping) else {}
    names = [name for name in model if isinstance(name, str)]
    for prefix in prefixes:
        inside = [name for name in names if name.startswith(prefix)]
        if inside:
            return {
                name.removeprefix(prefix).replace(".shortcut.", ".downsample."): model[name]
                for name in inside
            }
    keys = ", ".join(map(str, stored)) if isinstance(stored, Mapping) else type(stored).__name__
    raise RinceError(
        f"{file} is not of the layout {layout}, whose encoder is in 'model' under "
        f"{' or '.join(prefixes)}: it holds {keys[:200]}"
        + (f", with {', '.join(names[:3])}, ..." if names else "")
    )
