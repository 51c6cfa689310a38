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
from torch import Tensor, nn

from rince.core.checks import RinceError, import_extra, require
from rince.core.input_spec import InputSpec
from rince.core.pixels import normalisation
from rince.models.backbones import build_backbone, require_known
from rince.models.exported import ImageEncoder
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

    Raises:
        RinceError: no such file, one of another layout, or of another backbone.
        ValueError: an unknown layout.
    """
    require(layout in LAYOUTS, f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    file = Path(file)
    if not file.is_file():
        raise RinceError(f"there is no file {file}")
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
    spec = InputSpec.images(channels=3, size=SIZE if size is None else size)
    name = BACKBONE if backbone is None else backbone
    built = build_backbone(name, spec)
    load_strictly(built.module, weights, file)
    return _encoder(
        built.module, name, built.feature_dim, spec, mean or CIFAR100[0], std or CIFAR100[1]
    )


def library_encoder(name: str, *, size: int | None = None) -> ImageEncoder:
    """A backbone with the weights that its library ships, fed as the library says.

    Args:
        name: torchvision/NAME or timm/NAME, of images. size: in place of the library's.

    Raises:
        ValueError: no such name. RinceError: its weights cannot be had.
    """
    library, _, model = name.partition("/")
    require_known(library, model)
    if library == "torchvision":
        models = import_extra("torchvision.models", "train")
        facts = models.get_model_weights(model).DEFAULT.transforms()
        own_size, mean, std = facts.crop_size[0], facts.mean, facts.std
    else:
        timm = import_extra("timm", "timm")
        known = timm.get_pretrained_cfg(model)
        facts = timm.data.resolve_data_config(pretrained_cfg=known.to_dict() if known else {})
        own_size, mean, std = facts["input_size"][1], facts["mean"], facts["std"]
    spec = InputSpec.images(channels=3, size=own_size if size is None else size)
    built = build_backbone(name, spec, pretrained=True)
    return _encoder(built.module, name, built.feature_dim, spec, mean, std)


def as_fed_by_rince(encoder: ImageEncoder) -> nn.Module:
    """The module for pixels as rince's own data are normalised, whatever its own mean and std."""
    mean, std = normalisation(encoder.spec.channels)
    if (mean, std) == (encoder.mean, encoder.std):
        return encoder.module
    # (x * std + mean - own mean) / own std, as a scale and a shift.
    scale = [a / b for a, b in zip(std, encoder.std, strict=True)]
    both = zip(mean, encoder.mean, encoder.std, strict=True)
    return _Rescaled(encoder.module, scale, [(a - b) / c for a, b, c in both])


class _Rescaled(nn.Module):
    scale: Tensor
    shift: Tensor

    def __init__(self, module: nn.Module, scale: Sequence[float], shift: Sequence[float]) -> None:
        super().__init__()
        self.module = module
        self.register_buffer("scale", torch.tensor(scale), persistent=False)
        self.register_buffer("shift", torch.tensor(shift), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        shape = (-1,) + (1,) * (pixels.ndim - 2)
        features: Tensor = self.module(pixels * self.scale.view(shape) + self.shift.view(shape))
        return features


def _encoder(
    module: nn.Module,
    name: str,
    width: int,
    spec: InputSpec,
    mean: Sequence[float],
    std: Sequence[float],
) -> ImageEncoder:
    for what, numbers in (("mean", mean), ("std", std)):
        require(len(numbers) == 3, f"{what} must be three numbers, of R, G and B, got {numbers}")
    require(all(x > 0 for x in std), f"std must be above 0, got {std}")
    return ImageEncoder(
        module=module.eval(),
        backbone=name,
        output_dim=width,
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
