"""Backbones by name: images or clips in, one feature vector each out.

Names:
    ``small-resnet``          3x3 stem of stride 2, four stages of one block (32 to 256 channels):
                              1.2 M parameters, small enough to train on a CPU
    ``tiny-resnet``           the same with half the channels (16 to 128): 0.3 M parameters, a
                              quarter of the work, for studies of many runs
    ``resnet18-3x3``, ``resnet50-3x3``  torchvision's ResNets with a 3x3 stem and no max-pooling,
                              for 28 to 64 pixels (resnet50-3x3 is the paper's for CIFAR-100)
    ``small-resnet3d``        for clips of videos on a CPU: four stages of one block, each a 3x3
                              convolution in space, then 3 in time (16 to 128 channels)
    ``mlp``, ``linear``, ``identity``  for vectors, which they scale to one length: a linear layer,
                              batch norm and ReLU to 256 dimensions; a linear layer alone; nothing
    ``torchvision/NAME``      any torchvision classification model, r3d_18, mc3_18 and r2plus1d_18
                              for clips among them
    ``timm/NAME``             any timm model (extra: ``timm``)
    ``hf/NAME``               a vision model of Hugging Face (DINOv2, ViT, the vision tower of CLIP
                              or SigLIP), by name or folder (extra: ``hf``)
"""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rince.core.checks import RinceError, import_extra, require
from rince.core.hub import hub_for, hub_or_cache
from rince.core.input_spec import InputSpec as InputSpec

OF_VECTORS = ("mlp", "linear", "identity")
OWN_NAMES = (
    "small-resnet",
    "tiny-resnet",
    "resnet18-3x3",
    "resnet50-3x3",
    "small-resnet3d",
    *OF_VECTORS,
)
_WIDTH = 256  # of what is made of vectors


@dataclass(frozen=True)
class Backbone:
    """A module from (B, C, H, W) images, or (B, C, T, H, W) clips, to (B, feature_dim) features."""

    module: nn.Module
    feature_dim: int


def build_backbone(
    name: str, spec: InputSpec | None = None, *, pretrained: bool = False
) -> Backbone:
    """Build a backbone without its classifier.

    Args:
        name: see the module's list.
        spec: what it takes; None: RGB images of 32 x 32 pixels. torchvision's ViTs are built for
            its size.
        pretrained: load the library's default weights (downloads them). Feed them as
            :func:`~rince.models.libraries.library_preprocessing` says. Of grey images the first
            convolution has the sum of its weights over R, G and B.

    Raises:
        ValueError: unknown name, or one that cannot take such inputs.
        ImportError: timm is not installed.
        RinceError: pretrained weights that cannot be downloaded.

    Example:
        >>> backbone = build_backbone("small-resnet", InputSpec.images(channels=1, size=28))
        >>> backbone.feature_dim, backbone.module(torch.zeros(2, 1, 28, 28)).shape
        (256, torch.Size([2, 256]))
    """
    spec = spec or InputSpec.images()
    library, _, model = name.partition("/")
    own_size = None
    if library == "hf":
        module, own_size = _hugging_face_model(model, spec, pretrained)
    elif library == "timm":
        module, own_size = _timm_model(model, spec.channels, pretrained)
    elif library == "torchvision":
        module, own_size = _torchvision_model(model, spec, pretrained)
    else:
        require(
            not pretrained,
            f"{name} has no pretrained weights: use torchvision/..., timm/... or hf/..., or train "
            f"it",
        )
        module = _of_vectors(name, spec) if name in OF_VECTORS else _own_model(name, spec)
    return _tried(module, spec, own_size)


def as_backbone(module: nn.Module, spec: InputSpec | None = None) -> Backbone:
    """Take any module that maps a batch of inputs to feature vectors.

    Args:
        module: (B, *spec.shape) -> (B, D); a blank input tells D. Out of DataParallel or
            DistributedDataParallel the module that they wrap is taken.
        spec: what it takes; None: RGB images of 32 x 32 pixels.

    Raises:
        ValueError: the module does not take such inputs, or does not give one vector.

    Example:
        >>> flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5))
        >>> as_backbone(flat, InputSpec.images(size=8)).feature_dim
        5
    """
    return _tried(module, spec or InputSpec.images(), None)


def _tried(module: nn.Module, spec: InputSpec, own_size: int | None) -> Backbone:
    """:func:`as_backbone` of a network that was made for pictures of ``own_size``, if known."""
    while isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        module = module.module  # the trainer spreads over processes itself
    require(
        isinstance(module, nn.Module),
        f"a backbone is an nn.Module, got {type(module).__name__}",
    )
    were_training = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            own = next(itertools.chain(module.parameters(), module.buffers()), torch.empty(0))
            dtype = getattr(torch, spec.dtype)
            blank = torch.zeros(spec.batch_shape(), dtype=dtype, device=own.device)
            features = module(blank)
    # Some norms raise ValueError for a dimension more; ViTs AssertionError for another size.
    except (RuntimeError, ValueError, AssertionError) as error:
        raise ValueError(
            f"the backbone {type(module).__name__} fails on {spec}: {error}. It must take "
            f"(B, {', '.join(map(str, spec.shape))}); small-resnet3d and torchvision/r3d_18 take "
            f"clips, {', '.join(OF_VECTORS)} vectors, the others images{_size_hint(spec, own_size)}"
        ) from error
    finally:
        for part, was_training in were_training:  # frozen norms are in evaluation by themselves
            part.training = was_training
    given = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
    require(
        isinstance(features, Tensor) and features.ndim == 2,
        f"the backbone {type(module).__name__} must give (batch, features), got {given}: wrap it "
        f"in a module whose forward picks them",
    )
    return Backbone(module, int(features.shape[1]))


def _size_hint(spec: InputSpec, own_size: int | None) -> str:
    """The end of a message on a network that fails on pictures of another size than its own."""
    if own_size in (None, spec.size) or len(spec.shape) != 3:
        return ""
    return f". It was made for {own_size} x {own_size} pixels: give --images.image-size {own_size}"


class SmallResNet(nn.Module):
    """A ResNet of one basic block a stage, for 28 to 64 pixels on a CPU.

    The stem and each stage but the first halve the side. widths: channels of the stages.
    """

    def __init__(self, in_channels: int = 3, widths: Sequence[int] = (32, 64, 128, 256)) -> None:
        super().__init__()
        self.stem = _conv_norm(in_channels, widths[0], (3, 3), (2, 2))
        steps = zip((widths[0], *widths), widths, (1, *[2] * len(widths)), strict=False)
        self.stages = nn.Sequential(*(_BasicBlock(*step) for step in steps))

    def forward(self, images: Tensor) -> Tensor:
        x = torch.relu(self.stem(images))  # (B, widths[0], H / 2, W / 2)
        return self.stages(x).mean(dim=(2, 3))  # type: ignore[no-any-return]  # (B, widths[-1])


class SmallResNet3D(nn.Module):
    """A ResNet of one (2+1)-dimensional block a stage, for clips of 32 to 64 pixels on a CPU.

    A block convolves in space and then in time (as R(2+1)D: Tran et al., CVPR 2018), each stage
    but the first halves the side, and the last two halve the time. widths: channels of the stages.
    """

    def __init__(self, in_channels: int = 3, widths: Sequence[int] = (16, 32, 64, 128)) -> None:
        super().__init__()
        self.stem = _conv_norm(in_channels, widths[0], (1, 3, 3), (1, 2, 2))
        strides = [(1, 1, 1), (1, 2, 2), *[(2, 2, 2)] * (len(widths) - 2)]
        steps = zip((widths[0], *widths), widths, strides, strict=False)
        self.stages = nn.Sequential(*(_Block3D(*step) for step in steps))

    def forward(self, clips: Tensor) -> Tensor:
        x = torch.relu(self.stem(clips))  # (B, widths[0], T, H / 2, W / 2)
        return self.stages(x).mean(dim=(2, 3, 4))  # type: ignore[no-any-return]  # (B, widths[-1])


class OneLength(nn.Module):
    """(B, D) -> (B, D): vectors of length sqrt(D), whatever theirs was; zeros stay."""

    def forward(self, vectors: Tensor) -> Tensor:
        peak = vectors.abs().amax(dim=1, keepdim=True)
        # Squares of others are 0 or infinite in float32; usual vectors keep every bit.
        usual = ((peak > 1e-9) & (peak < 1e9)) | (peak == 0)
        scaled = vectors / torch.where(usual, 1.0, peak)
        return functional.normalize(scaled, dim=1) * math.sqrt(vectors.shape[1])


def _of_vectors(name: str, spec: InputSpec) -> nn.Module:
    parts: list[nn.Module] = [OneLength()]
    if name != "identity":
        parts.append(nn.Linear(spec.channels, _WIDTH, bias=name == "linear"))
    if name == "mlp":
        parts += [nn.BatchNorm1d(_WIDTH), nn.ReLU()]
    return nn.Sequential(*parts)


class _Block3D(nn.Module):
    def __init__(self, before: int, width: int, stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.space = _conv_norm(before, width, (1, 3, 3), (1, *stride[1:]))
        self.time = _conv_norm(width, width, (3, 1, 1), (stride[0], 1, 1))
        self.skip = _skip(before, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.time(torch.relu(self.space(x))) + self.skip(x))


class _BasicBlock(nn.Module):
    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = _conv_norm(before, width, (3, 3), (stride, stride))
        self.second = _conv_norm(width, width, (3, 3), (1, 1))
        self.skip = _skip(before, width, (stride, stride))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(torch.relu(self.first(x))) + self.skip(x))


def _skip(before: int, width: int, stride: tuple[int, ...]) -> nn.Module:
    if set(stride) == {1} and before == width:
        return nn.Identity()
    return _conv_norm(before, width, (1,) * len(stride), stride)


def _conv_norm(
    before: int, width: int, kernel: tuple[int, ...], stride: tuple[int, ...]
) -> nn.Sequential:
    """Of pictures, or with three sides of clips."""
    layers: Any = (nn.Conv2d, nn.BatchNorm2d) if len(kernel) == 2 else (nn.Conv3d, nn.BatchNorm3d)
    padding = tuple(side // 2 for side in kernel)
    conv = layers[0](before, width, kernel, stride, padding, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, layers[1](width))


def _own_model(name: str, spec: InputSpec) -> nn.Module:
    in_channels = spec.channels
    if name == "small-resnet":
        return SmallResNet(in_channels)
    if name == "tiny-resnet":
        return SmallResNet(in_channels, widths=(16, 32, 64, 128))
    if name == "small-resnet3d":
        return SmallResNet3D(in_channels)
    if name in ("resnet18-3x3", "resnet50-3x3"):
        module, _ = _torchvision_model(name.removesuffix("-3x3"), spec, pretrained=False)
        module.conv1 = nn.Conv2d(in_channels, 64, 3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(module.conv1.weight, mode="fan_out", nonlinearity="relu")
        module.maxpool = nn.Identity()
        return module
    close = [repr(x) for x in difflib.get_close_matches(name, OWN_NAMES, n=1)]
    close += [f"'{library}/{name}'" for library in ("torchvision", "timm") if _has(library, name)]
    hint = f": did you mean {' or '.join(close)}? All" if close else ". All"
    raise ValueError(
        f"unknown backbone {name!r}{hint} that there are: {', '.join(OWN_NAMES)}, "
        f"torchvision/NAME, timm/NAME, hf/NAME"
    )


def _has(library: str, name: str) -> bool:
    """Whether a library that is installed has a model of this name."""
    try:
        require_known(library, name)
    except (ValueError, ImportError):
        return False
    return True


def require_known(library: str, name: str) -> None:
    """Refuse a name that torchvision or timm does not have, and say which are close."""
    if library == "torchvision":
        models = import_extra("torchvision.models", "train")
        known = models.list_models(module=models) + models.list_models(module=models.video)
        has = name in known
    else:
        timm = import_extra("timm", "timm")
        known, has = timm.list_models(), timm.is_model(name)
    if not has:
        close = ", ".join(difflib.get_close_matches(name, known, n=3)) or "none"
        raise ValueError(f"{library} has no model {name!r}. Close: {close}")


def _torchvision_model(
    name: str, spec: InputSpec, pretrained: bool
) -> tuple[nn.Module, int | None]:
    """And the size of the pictures that its weights were trained on, of images."""
    require_known("torchvision", name)
    models = import_extra("torchvision.models", "train")
    own_size = None
    if name in models.list_models(module=models):
        own_size = int(models.get_model_weights(name).DEFAULT.transforms().crop_size[0])
    # Said each time, as torchvision takes it from the weights, which later builds do without.
    size = {"image_size": spec.size} if name.startswith("vit_") else {}
    try:
        module: nn.Module = models.get_model(
            name, weights="DEFAULT" if pretrained else None, **size
        )
    except OSError as error:
        url = models.get_model_weights(name).DEFAULT.url
        file = f"{url} as {torch.hub.get_dir()}/checkpoints/{Path(url).name}"
        raise _no_weights(f"torchvision/{name}", error, file) from error
    except (ValueError, AssertionError) as error:  # of a ViT, for another size
        raise ValueError(
            f"torchvision/{name} cannot be built for {spec}: {error}{_size_hint(spec, own_size)}"
        ) from error
    # Of GoogLeNet and Inception: further classifiers, and a normalisation, which is on with weights
    # alone and here is that of library_preprocessing.
    further = {"aux1": None, "aux2": None, "AuxLogits": None, "aux_logits": False}
    for part, value in {**further, "transform_input": False}.items():
        if hasattr(module, part):
            setattr(module, part, value)
    for head in ("fc", "classifier", "heads", "head"):
        if hasattr(module, head):
            setattr(module, head, _without_logits(getattr(module, head)))
            break
    if spec.channels != 3:
        _take_channels(module, spec.channels, f"torchvision/{name}", pretrained)
    return module, own_size


def _without_logits(head: nn.Module) -> nn.Module:
    """Nothing; but what makes vectors of maps, as in ConvNeXt and MaxViT, is kept."""
    if not any(isinstance(part, nn.Flatten) for part in head.children()):
        return nn.Identity()
    last = [n for n, part in head.named_children() if isinstance(part, nn.Linear)][-1]
    setattr(head, last, nn.Identity())
    return head


def _take_channels(module: nn.Module, channels: int, name: str, pretrained: bool) -> None:
    """Put a first convolution for other than RGB images in its place."""
    require(
        channels == 1 or not pretrained,
        f"the weights of {name} are for RGB images, or grey ones, not for {channels} channels",
    )
    place, first = next(
        (place, part)
        for place, part in module.named_modules()
        if isinstance(part, (nn.Conv2d, nn.Conv3d))
    )
    kept = ("out_channels", "kernel_size", "stride", "padding", "dilation")
    options: dict[str, Any] = {x: getattr(first, x) for x in kept}
    grey = type(first)(channels, **options, bias=first.bias is not None)
    if pretrained:
        summed = {"weight": first.weight.detach().sum(dim=1, keepdim=True)}
        grey.load_state_dict(first.state_dict() | summed)
    parent, _, own_name = place.rpartition(".")
    setattr(module.get_submodule(parent), own_name, grey)


def _timm_model(name: str, in_channels: int, pretrained: bool) -> tuple[nn.Module, int | None]:
    """And the size of the pictures that its weights were trained on."""
    require_known("timm", name)
    timm = import_extra("timm", "timm")
    options: dict[str, Any] = {"num_classes": 0, "in_chans": in_channels}
    if not pretrained:
        made: nn.Module = timm.create_model(name, **options)
        return made, _timm_size(made)
    with hub_or_cache() as cache:
        try:
            made = timm.create_model(name, pretrained=True, **options)
        except (OSError, RuntimeError) as error:
            known = timm.get_pretrained_cfg(name)
            if known is None or not known.has_weights:
                raise
            file = known.url
            if known.hf_hub_id:
                file = f"{known.hf_hub_id} of huggingface.co (`hf download {known.hf_hub_id}`) "
                file += f"into {cache}, or the folder that HF_HOME names"
            raise _no_weights(f"timm/{name}", error, file) from error
    return made, _timm_size(made)


def _timm_size(module: Any) -> int | None:
    size = (getattr(module, "pretrained_cfg", None) or {}).get("input_size")
    return None if size is None else int(size[-1])


class VisionFeatures(nn.Module):
    """(B, 3, S, S) -> (B, D): what a vision model of transformers says of a picture as a whole.

    That is its pooled output, of two-tower models, of which the tower for pictures is kept,
    projected into the space that they share with texts; of models whose pooler is trained for a
    task only (ViT) the class token. ``configuration``: of the whole model, as transformers has it.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.configuration: Any = model.config
        self.projection = getattr(model, "visual_projection", None)
        tower: Any = getattr(model, "vision_model", model)
        if hasattr(getattr(tower, "pooler", None), "dense"):
            tower.pooler = None
        self.model = tower

    def forward(self, pixels: Tensor) -> Tensor:
        output = self.model(pixel_values=pixels)
        pooled = output.pooler_output
        features: Tensor = output.last_hidden_state[:, 0] if pooled is None else pooled.flatten(1)
        return features if self.projection is None else self.projection(features)


def _hugging_face_model(
    name: str, spec: InputSpec, pretrained: bool
) -> tuple[nn.Module, int | None]:
    """And the size of the pictures that its configuration says, if it does."""
    transformers = import_extra("transformers", "hf")
    try:
        with hub_for(name):
            if pretrained:
                model = transformers.AutoModel.from_pretrained(name)
            else:
                config = transformers.AutoConfig.from_pretrained(name)
                model = transformers.AutoModel.from_config(config)
    except (OSError, ValueError) as error:
        raise hub_error(name, error) from error
    module = VisionFeatures(model.float())
    config = module.model.config
    channels = getattr(config, "num_channels", 3)
    require(
        spec.channels == channels,
        f"hf/{name} takes images of {channels} channels, got {spec}: for grey ones use "
        f"torchvision/NAME or timm/NAME, with pretrained weights too",
    )
    size = getattr(config, "image_size", None)
    own_size = size if size is None or isinstance(size, int) else int(size[0])
    side = own_size or 224
    # In evaluation, as batch norms would learn from the blank picture.
    freeze_unread(module.eval(), torch.zeros(1, channels, side, side))
    return module.train(), own_size


def freeze_unread(module: nn.Module, inputs: Tensor) -> None:
    """Freeze what the output does not depend on: several processes would wait for its gradient."""
    weights = [x for x in module.parameters() if x.requires_grad]
    if weights:
        output: Tensor = module(inputs)
        gradients = torch.autograd.grad(output.sum(), weights, allow_unused=True)
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.requires_grad_(gradient is not None)


def hub_error(name: str, error: Exception) -> RinceError:
    """What transformers could not read: a model by its name, or a folder."""
    first_line = str(error).strip().partition("\n")[0]
    return RinceError(
        f"hf/{name} cannot be read ({first_line}): give a folder that transformers has saved, or "
        f"the name of a model of huggingface.co that is on this machine (`hf download {name}`) or "
        f"can be downloaded"
    )


def _no_weights(name: str, error: Exception, file: str) -> RinceError:
    return RinceError(
        f"the pretrained weights of {name} are not on this machine and cannot be downloaded "
        f"({error}). On a machine with a network fetch {file}, put it into the same folder here; "
        f"a training can also do without them (model.pretrained false)"
    )
