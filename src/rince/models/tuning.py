"""How much of a pretrained backbone is trained: its last blocks, or low-rank updates of it."""

from __future__ import annotations

import itertools
import re
import string
from collections.abc import Iterator
from typing import Any

from torch import nn

from rince.core.checks import import_extra, require

_LISTS = (nn.Sequential, nn.ModuleList)
_ALPHA_PER_RANK = 2  # the scale of an update does not depend on its rank (Hu et al., LoRA)


def blocks(module: nn.Module) -> list[list[nn.Parameter]]:
    """The weights of a network in the order of its named parts, a list for each block.

    A block is an element of the network's ``Sequential`` or ``ModuleList`` (a layer of a
    transformer, a residual block), or another part beside these; of stages, in a list or numbered,
    it is an element of a stage. Norms belong to the block before them, and so does what is frozen
    at the end, as nothing reads it (a pooler); what is in no part (class tokens, positions) belongs
    to the first.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 1))
        >>> [len(block) for block in blocks(network)]
        [4, 2]
    """
    found: list[list[nn.Parameter]] = []
    for part in _parts(module):
        weights = list(part.parameters())
        if found and all(x.ndim < 2 for x in weights):
            found[-1] += weights
        else:
            found.append(weights)
    known = {id(x) for block in found for x in block}
    rest = [x for x in module.parameters() if id(x) not in known]
    if rest:
        found[:1] = [rest + found[0]] if found else [rest]
    trained = [i for i, block in enumerate(found) if any(x.requires_grad for x in block)]
    if trained:
        found[trained[-1] :] = [list(itertools.chain(*found[trained[-1] :]))]
    return found


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    in_list = isinstance(module, _LISTS) or _lists_blocks(module)
    for part in module.children():
        if next(part.parameters(), None) is None:
            continue
        holds_list = not in_list and any(
            isinstance(x, nn.ModuleList) or x in part.children()
            for x in part.modules()
            if isinstance(x, _LISTS) and len(x) > 1
        )
        if isinstance(part, _LISTS) or holds_list or any(map(_lists_blocks, part.modules())):
            yield from _parts(part)
        else:
            yield part


def _lists_blocks(module: nn.Module) -> bool:
    """Whether it is a list of blocks, not of the layers inside of one, which have a matrix each."""
    parts = [(n, x) for n, x in module.named_children() if next(x.parameters(), None) is not None]
    # A list in all but its type: parts of one class, called b1, b2, ...
    alike = {(name.rstrip(string.digits), type(x)) for name, x in parts}
    numbered = len(alike) == 1 and not any(isinstance(x, _LISTS) for _, x in parts)
    large = [type(x) for _, x in parts if _matrices(x) > 1]
    # Two of one class: attention and feed-forward in a list are one layer.
    return (isinstance(module, _LISTS) or numbered) and len(large) > len(set(large))


def _matrices(module: nn.Module) -> int:
    """But those of low-rank updates, which are no layers of their own."""
    return sum(x.ndim > 1 and "lora_" not in name for name, x in module.named_parameters())


def fine_tuned(module: nn.Module, layers: int | None, lora: int | None) -> None:
    """Freeze what of a backbone is not to be trained, in place.

    ``layers``: number of final :func:`blocks` that are trained; None: all. ``lora``: rank of the
    updates of its linear layers, but those of torch's MultiheadAttention, which alone are trained
    (Hu et al., "LoRA", ICLR 2022).
    """
    require(
        layers is None or lora is None,
        "model.layers and model.lora both say what of the backbone is trained: leave out one",
    )
    if layers is not None:
        parts = blocks(module)
        require(
            0 <= layers <= len(parts),
            f"model.layers must be between 0 and {len(parts)}, the blocks of "
            f"{type(module).__name__}; got {layers}",
        )
        for weight in itertools.chain(*parts[: len(parts) - layers]):
            weight.requires_grad_(False)
    if lora is not None:
        peft = import_extra("peft", "lora")
        # Torch's attention reads the weights of its output layer past any update of it.
        unread = [x.out_proj for x in module.modules() if isinstance(x, nn.MultiheadAttention)]
        linear = [
            name
            for name, x in module.named_modules()
            if isinstance(x, nn.Linear) and x not in unread
        ]
        require(
            bool(linear),
            f"model.lora updates linear layers, and {type(module).__name__} has none: take a "
            f"transformer, or model.layers",
        )
        for part in module.modules():  # whose fast paths in evaluation read past updates, too
            if isinstance(part, nn.TransformerEncoder):
                part.use_nested_tensor = False
            elif isinstance(part, nn.TransformerEncoderLayer):
                part.activation_relu_or_gelu = 0
        module.requires_grad_(False)
        exactly = "|".join(map(re.escape, linear))  # of a list, names that end alike count too
        config = peft.LoraConfig(r=lora, lora_alpha=_ALPHA_PER_RANK * lora, target_modules=exactly)
        peft.inject_adapter_in_model(config, module)


def merge_updates(module: nn.Module) -> None:
    """Add the updates of :func:`fine_tuned` to the weights that they update, in place."""
    for owner in list(module.modules()):
        for name, part in list(owner.named_children()):
            if hasattr(part, "lora_A") and hasattr(part, "get_base_layer"):
                update: Any = part
                update.merge()
                setattr(owner, name, update.get_base_layer())


def keep_frozen_norms(module: nn.Module, copy: nn.Module | None = None) -> None:
    """Batch norms that train no weights normalise by what they know, also in training; and so do
    those of a copy, such as a momentum encoder's. One that has no weights is of what stands before
    it, or of what follows if it is the first."""
    trained = next((x.requires_grad for x in module.parameters()), True)
    copies = (copy or module).modules()
    for (name, part), copied in zip(module.named_modules(), copies, strict=True):
        own = list(part.parameters(recurse=False))
        if own and "lora_" not in name:  # updates are no layers of their own
            trained = any(x.requires_grad for x in own)
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and not trained:
            part.eval()
            copied.eval()


def parameter_groups(
    encoder: nn.Module, backbone: nn.Module, lr: float, decay: float
) -> list[dict[str, Any]]:
    """The weights that are trained, with a learning rate that falls from block to block towards
    the input: ``lr`` of what comes behind the backbone, ``lr * decay`` of the last block, ``lr *
    decay^2`` of the one before (Clark et al., ELECTRA, ICLR 2020)."""
    parts = blocks(backbone)
    of_backbone = {id(x) for part in parts for x in part}
    rest = [x for x in encoder.parameters() if id(x) not in of_backbone]
    rates = [lr * decay ** (len(parts) - i) for i in range(len(parts))]
    groups = [
        {"params": [x for x in part if x.requires_grad], "lr": rate}
        for part, rate in zip([*parts, rest], [*rates, lr], strict=True)
    ]
    return [group for group in groups if group["params"]]
