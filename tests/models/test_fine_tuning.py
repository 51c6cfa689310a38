"""How much of a backbone is trained: blocks in their order, rates by block, low-rank updates."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from rince.core.input_spec import InputSpec
from rince.models.backbones import build_backbone
from rince.models.tuning import (
    blocks,
    fine_tuned,
    keep_frozen_norms,
    merge_updates,
    parameter_groups,
)


def of_library(name: str) -> nn.Module:
    library = name.partition("/")[0]
    if library in ("timm", "torchvision"):
        pytest.importorskip(library)
    return build_backbone(name, InputSpec.images(size=64)).module


@pytest.mark.parametrize(
    ("name", "count", "last"),
    [
        ("torchvision/resnet18", 9, "layer4.1."),  # the stem and eight blocks
        ("timm/vit_tiny_patch16_224", 13, "blocks.11."),  # the patches and twelve layers
        ("small-resnet", 5, "stages.3."),
        ("timm/resnet18", 9, "layer4.1."),
    ],
)
def test_blocks_follow_the_network(name: str, count: int, last: str) -> None:
    if "vit" in name:
        timm = pytest.importorskip("timm")
        module = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    else:
        module = of_library(name)
    parts = blocks(module)
    assert len(parts) == count
    every = [id(p) for part in parts for p in part]
    assert len(every) == len(set(every))  # each weight once, and all
    assert set(every) == {id(p) for p in module.parameters()}
    names = {id(p): n for n, p in module.named_parameters()}
    assert all(names[id(p)].startswith((last, "norm.")) for p in parts[-1])


def stages(library: str) -> Any:
    """Of few blocks each, with a part for downsampling between them; one block is its stage."""
    if library == "timm/swin":
        return pytest.importorskip("timm.models").SwinTransformer(
            img_size=32, window_size=4, embed_dim=8, depths=(2, 3), num_heads=(1, 1)
        )
    if library == "timm/convnext":
        return pytest.importorskip("timm.models").ConvNeXt(depths=(1, 1, 2, 3), dims=(8,) * 4)
    transformers = pytest.importorskip("transformers")
    small = transformers.ConvNextConfig(num_stages=2, depths=[2, 3], hidden_sizes=[8, 16])
    return transformers.ConvNextModel(small)


@pytest.mark.parametrize(
    ("library", "count", "last"),
    [
        ("timm/swin", 1 + 2 + 1 + 3, "layers.1.blocks.2."),
        ("timm/convnext", 1 + 1 + 1 + (1 + 2) + (1 + 3), "stages.3.blocks.2."),
        ("hf/convnext", 1 + 2 + 1 + 3, "encoder.stages.1.layers.2."),
    ],
)
def test_blocks_of_stages(library: str, count: int, last: str) -> None:
    module = stages(library)
    names = {id(p): n for n, p in module.named_parameters()}
    parts = [[names[id(p)] for p in part if p.ndim > 1] for part in blocks(module)]
    parts = [part for part in parts if not part[0].startswith("head")]
    assert len(parts) == count
    assert all(name.startswith(last) for name in parts[-1])


def test_blocks_of_numbered_parts() -> None:
    """A stage of RegNet is no list: its blocks are called b1, b2."""
    timm = pytest.importorskip("timm")
    module = timm.create_model("regnety_002", num_classes=0)
    parts = blocks(module)
    assert len(parts) == 1 + 1 + 1 + 4 + 7
    names = {id(p): n for n, p in module.named_parameters()}
    assert {names[id(p)][:5] for p in parts[-1]} == {"s4.b7"}


def test_parts_of_a_layer_are_no_blocks() -> None:
    """Attention and feed-forward may be in a list, matrices side by side, and updates in each."""

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = nn.ModuleList([nn.MultiheadAttention(8, 2), nn.Linear(8, 8)])
            self.mlp = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
            self.fc1, self.fc2 = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            attended: torch.Tensor = self.part[0](x, x, x)[0]
            return self.mlp(self.fc2(self.fc1(self.part[1](attended))))  # type: ignore[no-any-return]

    module = nn.Sequential(*(Layer() for _ in range(3)))
    assert len(blocks(module)) == 3
    pytest.importorskip("peft", reason="needs the extra lora")
    fine_tuned(module, None, 2)
    assert len(blocks(module)) == 3


def test_what_is_frozen_at_the_end_is_no_block() -> None:
    module = nn.Sequential(*(nn.Linear(2, 2) for _ in range(4)))
    module[3].requires_grad_(False)  # as what nothing reads
    assert [len(block) for block in blocks(module)] == [2, 2, 4]
    groups = parameter_groups(nn.ModuleList([module]), module, lr=0.8, decay=0.5)
    assert [group["lr"] for group in groups] == pytest.approx([0.1, 0.2, 0.4])


def test_last_blocks_alone_are_trained() -> None:
    module = of_library("torchvision/resnet18")
    fine_tuned(module, 2, None)
    trained = {n.split(".")[0] for n, p in module.named_parameters() if p.requires_grad}
    assert trained == {"layer4"}
    with pytest.raises(ValueError, match=r"model\.layers .* 9, .* 10"):
        fine_tuned(module, 10, None)
    fine_tuned(module, 0, None)
    assert not any(p.requires_grad for p in module.parameters())
    slow = copy.deepcopy(module)
    keep_frozen_norms(module.train(), slow.train())
    before = copy.deepcopy(module.state_dict())
    for network in (module, slow):
        network(torch.randn(4, 3, 64, 64))
        assert all(torch.equal(before[n], x) for n, x in network.state_dict().items())


def test_norms_without_weights_are_of_the_block_before_them() -> None:
    def norm() -> nn.Module:
        return nn.BatchNorm1d(8, affine=False)

    def network() -> nn.Sequential:
        inner = nn.Sequential(nn.Linear(8, 8), nn.Sequential(norm(), nn.ReLU()))
        parts = [norm(), nn.Linear(8, 8), norm(), nn.ReLU(), inner, nn.Linear(8, 3)]
        return nn.Sequential(*parts)

    def training(module: nn.Module) -> list[bool]:
        keep_frozen_norms(module.train())
        return [x.training for x in module.modules() if isinstance(x, nn.BatchNorm1d)]

    for layers, expected in ((0, [False] * 3), (2, [False, False, True]), (3, [True] * 3)):
        module = network()
        fine_tuned(module, layers, None)
        assert training(module) == expected, layers
    pytest.importorskip("peft")
    updated = network()
    fine_tuned(updated, None, 2)
    assert training(updated) == [False] * 3


def test_rates_fall_towards_the_input() -> None:
    module = of_library("small-resnet")
    encoder = nn.Sequential(module, nn.Linear(256, 4))
    fine_tuned(module, 2, None)
    groups = parameter_groups(encoder, module, lr=0.8, decay=0.5)
    assert [group["lr"] for group in groups] == pytest.approx([0.2, 0.4, 0.8])
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in encoder.parameters() if p.requires_grad)


def small_vit(library: str) -> nn.Module:
    if library == "timm":
        made: nn.Module = pytest.importorskip("timm").create_model(
            "test_vit", num_classes=0, img_size=32
        )
        return made
    if library == "torch":  # its encoder has a fast path of its own in evaluation
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        tokens = nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.Flatten(2))
        return nn.Sequential(tokens, nn.TransformerEncoder(layer, 2), nn.Flatten())
    models = pytest.importorskip("torchvision.models")
    vit = models.VisionTransformer(32, 8, 2, 2, hidden_dim=16, mlp_dim=32)  # MultiheadAttention
    vit.heads = nn.Identity()
    return vit  # type: ignore[no-any-return]


@pytest.mark.parametrize("library", ["timm", "torchvision", "torch"])
def test_low_rank_updates_are_trained_alone_and_added(library: str) -> None:
    pytest.importorskip("peft", reason="needs the extra lora")
    torch.manual_seed(0)
    module = small_vit(library).eval()
    names = set(module.state_dict())
    inputs = torch.randn(2, 3, 32, 32)
    before = module(inputs)
    fine_tuned(module, None, 4)
    assert all("lora_" in n for n, p in module.named_parameters() if p.requires_grad)
    torch.testing.assert_close(module(inputs), before)  # an update begins at zero
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
    changed = module.eval()(inputs)
    with torch.no_grad():
        torch.testing.assert_close(module(inputs), changed, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(changed, before, atol=1e-3)
    (changed * torch.randn_like(changed)).sum().backward()
    trained = [p for p in module.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.any() for p in trained)  # several processes wait
    merge_updates(module)
    assert set(module.state_dict()) == names
    torch.testing.assert_close(module(inputs), changed, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="no linear|has none"):
        fine_tuned(of_library("small-resnet"), None, 4)


def test_two_answers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.layers and model\.lora"):
        fine_tuned(nn.Linear(2, 2), 1, 4)
